"""What a script defines belongs to `__main__`, in a job and in what a job leaves behind."""

from __future__ import annotations

import sys

import pytest

from tests.conftest import some
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


def test_what_the_script_defines_is_of_its_main_module(real_script: RealScript) -> None:
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
    for method in METHODS:
        assert real_script.run("--start-method", method) == bare, method
    assert bare[0]["names"][0] == "__main__"


def test_processes_of_a_job_find_what_the_script_defines(real_script: RealScript) -> None:
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
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = list(pool.map(part, range(4)))
        points = [repr(p) for p in pool.map(Point, range(2))]
    with context.Pool(1) as pool:
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
    for method in METHODS:
        assert real_script.run("--workers", "2", "--start-method", method) == bare, method
    assert bare[0] == [0, 1, 4, 9, "Point(x=0, rate=0.5)", "Point(x=1, rate=0.5)"]


READING = """
import pathlib, sys
from supervisor import Job, main
from workers import current_job
import cloudpickle, dill, pickle

class Point:
    def __init__(self, x): self.x = x
    def double(self): return 2 * self.x

def read(file):
    return {library.__name__: [f.double() for f in library.loads(pathlib.Path(file, library.__name__).read_bytes())]
            for library in (pickle, cloudpickle, dill)}

def write(folder):
    for library in (pickle, cloudpickle, dill):
        pathlib.Path(folder, library.__name__).write_bytes(library.dumps([Point(2), Point(3)]))
    return str(folder)

def evaluate(folder):
    return read(folder) if folder else write(current_job().directory)

if __name__ == "__main__":
    if sys.argv[1:2] == ["read"]:
        print(read(sys.argv[2]))
    elif sys.argv[1:2] == ["write"]:
        write(sys.argv[2])
    else:
        jobs = [Job(id="write", params={"folder": ""}), Job(id="read", params={"folder": "bare"})]
        main(evaluate, jobs, name="real", output="out", all_tasks=True)
"""


def test_what_a_job_has_pickled_is_read_by_the_script_and_the_other_way_round(
    real_script: RealScript,
) -> None:
    real_script.write(READING, footer=False)
    (real_script.folder / "bare").mkdir()
    assert real_script.python("write", "bare").returncode == 0
    written, read = real_script.run()
    assert read == {name: [4, 6] for name in ("pickle", "cloudpickle", "dill")}
    done = real_script.python("read", written)
    assert done.stdout == f"{read}\n", done.stderr


@pytest.mark.parametrize(
    "guard",
    some(
        [
            "def is_main(): return __name__ == '__main__'\nif is_main():",
            # Nobody sees that these are guards: the script is imported once more, in another way.
            "names = [__name__]\nif names[0] == '__main__':",
            "called = lambda f: f() if f.__module__ == '__main__' else None\n@called\ndef go():",
            "name = __name__\nif name == '__main__':",
            "if {'__main__': True}.get(__name__):",
            "modules = dict(me=__name__)\nif modules['me'] == '__main__':",
            "if globals()['__name__'] == '__main__':",
        ],
        3,
    ),
)
def test_a_script_with_an_unusual_guard_runs(real_script: RealScript, guard: str) -> None:
    real_script.write(
        f"""
import pickle
from supervisor import Job, main

class Point: pass

def evaluate():
    return [type(pickle.loads(pickle.dumps(Point()))) is Point, Point.__module__, __name__]

{guard}
    main(evaluate, [Job(id="a", params={{}})], name="real", output="out", all_tasks=True)
""",
        footer=False,
    )
    assert real_script.run() == [[True, "__main__", "__main__"]]


def test_debug_and_replay_see_the_same_main_module(real_script: RealScript) -> None:
    real_script.write(
        DEFINITIONS
        + """
PARAMS = [{}]

def evaluate():
    return [again(pickle, Point(1)), __name__, sorted(REGISTRY), log.name, inspect.getsource(part), called_at_import()]
"""
    )
    assert real_script.run() == real_script.bare()
    replayed = real_script.longhaul("replay", "job0", "out")
    assert replayed.returncode == 0 and "the same result as in the record" in replayed.stderr, replayed.stderr
    debugged = real_script.python("--debug", "*")
    assert debugged.returncode == 0 and '"__main__"' in debugged.stderr, debugged.stderr


@pytest.mark.parametrize("tree", [True, False])
def test_no_other_name_of_the_script_is_seen_and_old_pickles_load(
    real_script: RealScript, tree: bool
) -> None:
    """Earlier versions called it `__mp_main__`, and so did what their jobs have pickled."""
    deep = "" if tree else "total = " + " + ".join(["1"] * 1200)
    real_script.write(f"""
        import importlib.util, os, pickle, sys

        class Point:
            def __init__(self, x): self.x = x

        MADE = pickle.dumps(Point(3))
        {deep}
        OLD = b"c__mp_main__" + bytes([10]) + b"Point" + bytes([10, 46])
        PARAMS = [{{"load": load}} for load in (False, True)]

        def evaluate(load):
            seen = "__mp_main__" in sys.modules
            if load and "--bare" not in sys.orig_argv:
                assert pickle.loads(OLD) is Point is pickle.loads(MADE).__class__
                import __mp_main__
                assert __mp_main__ is sys.modules["__main__"] and __mp_main__.__spec__ is None
            return [seen, __name__]
    """)
    assert real_script.run("--workers", "1") == real_script.bare() == [[False, "__main__"]] * 2


@pytest.mark.parametrize(
    "refusal",
    some(
        [
            'assert __name__ == "__main__", "a script"',
            'if not (__name__ == "__main__"):\n    print("a script")\n    sys.exit(1)',
            'def check():\n    if __name__ != "__main__":\n        raise ImportError("a script")\ncheck()',
            'if __name__ != "__main__":\n    raise ImportError("a script")',
            'if __name__ == "__main__":\n    READY = True\nelse:\n    raise ImportError("a script")',
        ],
        3,
    ),
)
def test_a_script_that_refuses_to_be_imported_runs(real_script: RealScript, refusal: str) -> None:
    real_script.write(
        f"import sys\n{refusal}\nPARAMS = [{{}}]\ndef evaluate():\n    return __name__\n",
    )
    assert real_script.run() == ["__main__"]
