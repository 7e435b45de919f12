"""What a script defines belongs to `__main__`, in a job and in what a job leaves behind."""

from __future__ import annotations

import sys

import pytest

from tests.real_scripts.conftest import RealScript

METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]

DEFINITIONS = '''
"""A script."""
import abc, collections, copyreg, dataclasses, enum, functools, inspect, io, logging, pickle, sys, typing
import cloudpickle, dill
from concurrent.futures import ProcessPoolExecutor
import multiprocessing as mp

T = typing.TypeVar("T")
log = logging.getLogger(__name__)
REGISTRY = {}

def register(cls):
    REGISTRY[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return cls

@register
@dataclasses.dataclass
class Point:
    x: int
    rate: float = 0.5

    @register
    class Inner:
        n = 3
        def __eq__(self, other): return type(self) is type(other)

class Color(enum.Enum):
    RED = 1

class Flag(enum.IntFlag):
    A = 1
    B = 2

Pair = collections.namedtuple("Pair", "a b")

class Typed(typing.NamedTuple):
    a: int
    b: "Point"

class Box(typing.Generic[T]):
    def __init__(self, value): self.value = value
    def __eq__(self, other): return self.value == other.value

class Base(abc.ABC):
    @abc.abstractmethod
    def go(self) -> "Point": ...

class Thing(Base):
    def go(self): return Point(1)
    def __eq__(self, other): return type(self) is type(other)

class Slotted:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
    def __eq__(self, other): return self.a == other.a

class Copied:
    def __init__(self, a): self.a = a
    def __eq__(self, other): return self.a == other.a

def make_copied(a): return Copied(a)
copyreg.pickle(Copied, lambda c: (make_copied, (c.a,)))

class Failure(ValueError): pass

@functools.singledispatch
def kind(x): return "?"

@kind.register
def _(x: Point): return "point"

@functools.lru_cache
def cached(n): return n + 1

def closure(k):
    def add(n): return n + k
    return add

HIDDEN = {"f": closure(2)}
SNAPSHOT = pickle.dumps(Point(9))

def part(n): return n * n
def called_at_import(): return __name__ == "__main__"
AT_IMPORT = called_at_import()

def again(library, value):
    """What comes of it, or why it cannot be pickled: `==` by value of functions is never true."""
    try:
        made = library.loads(library.dumps(value))
    except Exception as error:
        return f"{type(error).__name__} {error}"
    return [made == value, getattr(made, "__module__", type(made).__module__)]

def values():
    return [Point(1), Point.Inner(), Color.RED, Flag.A | Flag.B, Pair(1, 2), Typed(1, Point(2)), Box(3), Thing(),
            Slotted(4), Copied(5), Point, Color, part, cached, kind, Point.__init__, Box[int]]
'''


@pytest.mark.parametrize("method", METHODS)
def test_what_the_script_defines_is_of_its_main_module(real_script: RealScript, method: str) -> None:
    real_script.write(
        DEFINITIONS
        + """
PARAMS = [{}]

def evaluate():
    this = sys.modules[__name__]
    import __main__
    done = {
        "names": [__name__, part.__module__, Point.__module__, Point.Inner.__module__, HIDDEN["f"].__module__,
                  Pair.__module__, Typed.__module__, Color.RED.__class__.__module__, log.name, closure(1).__module__],
        "registry": sorted(REGISTRY),
        "same": [this is __main__, this.Point is Point, f"{Point(1)!r} {Failure.__module__}"],
        "fields": repr([f.type for f in dataclasses.fields(Point)]),
        "hints": [repr(typing.get_type_hints(Typed)), repr(typing.get_type_hints(Base.go)),
                  str(inspect.signature(Point)), str(inspect.signature(part))],
        "inspect": [inspect.getsource(part), inspect.getsource(Point)[:40], inspect.getmodule(part) is this,
                    inspect.getfile(Point) == __file__, inspect.getsourcefile(part) == __file__,
                    inspect.getdoc(this)],
        "pickle": [again(pickle, v) for v in values()],
        "copy": [type(pickle.loads(pickle.dumps(Failure("x")))).__name__, repr(pickle.loads(SNAPSHOT))],
        "cloudpickle": [again(cloudpickle, v) for v in values()],
        "dill": [again(dill, v) for v in values()],
        "dilled": [dill.loads(dill.dumps(closure(5)))(1), dill.loads(dill.dumps(lambda n: part(n)))(3),
                   dill.source.getsource(part)],
        "clouded": [cloudpickle.loads(cloudpickle.dumps(closure(5)))(1),
                    cloudpickle.loads(cloudpickle.dumps(called_at_import))()],
        "kinds": [kind(Point(1)), kind(1), cached(1)],
        "called": called_at_import(),
        "text": [str(SNAPSHOT), str(pickle.dumps(part)), repr(Box[int]), repr(Failure), repr(Point.Inner)],
        "process": [mp.current_process().name, mp.current_process().daemon, mp.parent_process()],
        "main": {k: repr(getattr(__main__, k)) for k in
                 ("__file__", "__spec__", "__package__", "__cached__", "__doc__", "__annotations__", "__builtins__")},
        "loader": [type(__loader__).__name__, __loader__.name, __loader__.path],
        "order": [k for k in vars(__main__)][:10],
    }
    return done
"""
    )
    bare = real_script.bare()
    assert real_script.run("--start-method", method) == bare
    assert bare[0]["names"][0] == "__main__"


@pytest.mark.parametrize("method", METHODS)
def test_processes_of_a_job_find_what_the_script_defines(real_script: RealScript, method: str) -> None:
    real_script.write(
        DEFINITIONS
        + """
PARAMS = [{"how": how} for how in ("loky", "multiprocessing", "threading", "fork", "spawn", "forkserver")]

def child(queue, n): queue.put([part(n), __name__ == "__main__" or __name__ == "__mp_main__"])

def evaluate(how):
    if how in ("loky", "multiprocessing", "threading"):
        import joblib
        from joblib.externals.loky import get_reusable_executor
        found = joblib.Parallel(n_jobs=2, backend=how)(joblib.delayed(part)(n) for n in range(4))
        found += map(repr, joblib.Parallel(n_jobs=2, backend=how)(joblib.delayed(Point)(n) for n in range(2)))
        get_reusable_executor().shutdown(wait=True)
        return found
    context = mp.get_context(how)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        found = list(pool.map(part, range(4)))
        points = [repr(p) for p in pool.map(Point, range(2))]
    with context.Pool(2) as pool:
        found += pool.map(part, range(3))
        pool.close()
        pool.join()
    queue = context.SimpleQueue()
    process = context.Process(target=child, args=(queue, 4))
    process.start()
    found.append(queue.get())
    process.join()
    if how == "forkserver":
        from multiprocessing import forkserver, resource_tracker
        forkserver._forkserver._stop()
    return [found, points, process.exitcode]
"""
    )
    bare = real_script.bare()
    assert real_script.run("--workers", "2", "--start-method", method) == bare
    assert bare[0] == [0, 1, 4, 9, "Point(x=0, rate=0.5)", "Point(x=1, rate=0.5)"]
