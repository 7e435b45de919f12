"""Functions that have no name a worker could import: what they refer to is found in `__main__`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

BODY = """
import dataclasses, enum, functools, multiprocessing, pickle, sys
import cloudpickle
SCALE = 1
COUNTS = []

@dataclasses.dataclass
class Point:
    x: float
    def double(self): return Point(2 * self.x)

class Color(enum.Enum):
    RED = 1

ORIGIN = Point(0)

def part(n): return n * n * SCALE

def setup():
    COUNTS.append("setup")
    return Point(7)

def evaluate(n, k=1):
    import __main__
    COUNTS.append(n)
    again = pickle.loads(pickle.dumps([Point(n).double(), Color.RED]))
    queue = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(target=queue.put, args=([part(n), Point(k)],))
    process.start()
    forked = repr(queue.get())
    process.join()
    return [
        repr(again), again[1] is Color.RED, part(n), part.__module__, Point.__module__, __main__.part is part,
        pickle.loads(pickle.dumps(part)) is part, isinstance(ORIGIN, Point), __main__.Point is Point, __name__,
        forked, pickle.loads(cloudpickle.dumps(part))(n),
        repr([f.type for f in dataclasses.fields(Point)]), "evaluate" in vars(__main__), k, SCALE,
        cloudpickle.loads(cloudpickle.dumps(lambda: part(n)))(),
    ]

class Experiment:
    def __init__(self, k): self.k = k
    def run(self, n):
        assert type(pickle.loads(pickle.dumps(self))) is Experiment
        return evaluate(n, self.k)
    __call__ = run
"""
ENDING = """
if __name__ == "__main__":
    import json
    @CHANGE@
    function = @FUNCTION@
    if "--bare" in sys.argv:
        print("RESULTS " + json.dumps([function(n=3)]))
    else:
        from supervisor import Job, run
        run(function, [Job(id="a", params={"n": 3})], name="real", output="out", progress=False)
"""
FUNCTIONS = [
    "functools.partial(evaluate, k=2)",
    "lambda n: evaluate(n)",
    "Experiment(4).run",
    "Experiment(4)",
]


def both(real_script: RealScript, *command: str, source: str | None = None) -> list[Any]:
    """The result, which is that of the bare program."""
    results = []
    for words in (["--bare"], []):
        done = subprocess.run(
            [sys.executable, *command, *words],
            cwd=real_script.folder,
            env=real_script.environment(),
            input=source,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            if line.startswith("RESULTS "):
                results += json.loads(line.removeprefix("RESULTS "))
    (entry,) = real_script.final()
    assert entry.get("result") == results[0], entry
    assert entry["attempts"] == 1
    return list(results[0])


def program(function: str, change: str = "pass") -> str:
    return BODY + ENDING.replace("@FUNCTION@", function).replace("@CHANGE@", change)


CHANGES = ["SCALE = 5", "pass"]
# First each function once, and each change.
BOTH = [(function, CHANGES[(n + late) % 2]) for late in (0, 1) for n, function in enumerate(FUNCTIONS)]


@pytest.mark.parametrize(("function", "change"), some(BOTH, len(FUNCTIONS)))
def test_what_has_no_name_of_its_own_is_of_the_script(
    real_script: RealScript, function: str, change: str
) -> None:
    real_script.write(program(function, change), footer=False)
    result = both(real_script, "script.py")
    assert result[-2] == (1 if change == "pass" else 5)


@pytest.mark.parametrize("function", some(["evaluate", *reversed(FUNCTIONS)], 3))
def test_a_program_without_a_file_has_a_main_module_in_its_workers(
    real_script: RealScript, function: str
) -> None:
    text = program(function).replace('if __name__ == "__main__":', "if True:")
    result = both(real_script, "-c", text)
    assert result[1] is True and result[4] == "__main__"


def test_a_program_from_standard_input_has_a_main_module_in_its_workers(real_script: RealScript) -> None:
    both(real_script, "-", source=program("evaluate"))


def test_classes_under_the_guard_go_by_value(real_script: RealScript) -> None:
    change = "class Late:\n        n = 2"
    real_script.write(program("lambda n: [Late.n, Late.__module__, evaluate(n)]", change), footer=False)
    assert both(real_script, "script.py")[:2] == [2, "__main__"]


def test_functions_of_a_notebook_share_their_globals_with_setup(real_script: RealScript) -> None:
    text = BODY + (
        "STATE = {}\n"
        "def begin():\n    global READY\n    READY = 5\n    STATE['n'] = 1\n    return Point(2)\n"
        "def job(n):\n    from workers import current_job\n"
        "    return [READY, STATE, type(current_job().context) is Point, n]\n"
        "from supervisor import Job, run\n"
        "run(job, [Job(id='a', params={'n': 3})], setup=begin, name='real', output='out', progress=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=real_script.folder,
        env=real_script.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert real_script.final()[0].get("result") == [5, {"n": 1}, True, 3], real_script.final()


@pytest.mark.parametrize("guard", ['if __name__ == "__main__":', "if True:"])
def test_the_script_is_main_also_when_the_function_is_of_another_module(
    real_script: RealScript, guard: str
) -> None:
    """Without a guard it cannot be imported; its jobs run all the same."""
    (real_script.folder / "library.py").write_text(
        "SCALE = 1\ndef evaluate(n):\n    import __main__\n"
        "    return [SCALE, n, getattr(__main__, 'OWN', None), __main__.__name__]\n"
    )
    real_script.write(
        f"""
import library
from supervisor import Job, main
library.SCALE = 2
OWN = 3
{guard}
    main(library.evaluate, [Job(id="a", params={{"n": 1}})], name="real", output="out")
""",
        footer=False,
    )
    guarded = guard != "if True:"
    assert real_script.run() == [[2 if guarded else 1, 1, 3 if guarded else None, "__main__"]]
    if guarded:
        replayed = real_script.longhaul("replay", "a", "out")
        assert "the same result as in the record" in replayed.stderr, replayed.stderr
