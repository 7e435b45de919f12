"""The code of functions that have no file: what belongs to it, and what of it has changed."""

from __future__ import annotations

import functools
import json
import linecache
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.experiment.code_changes import changed_names
from supervisor.experiment.provenance import code_of

ROOT = Path(__file__).resolve().parents[2]

CELLS = """
import datetime, enum, functools, json, math
from pathlib import Path
from types import SimpleNamespace

k = 3
table = {"a": [1, 2.5, None], "b": ("x", frozenset({"p", "q", "r"}))}
other = 1
start = datetime.date(2025, 10, 14)
settings = SimpleNamespace(rate=0.5)

class Kind(enum.Enum):
    FAST = 1
    SLOW = 2

kind = Kind.FAST

class Base:
    scale = 2

class Model(Base):
    limit = 10
    def __init__(self, size): self.size = size
    @property
    def area(self): return self.size * deep(self.limit)
    @staticmethod
    def zero(): return 0
    @functools.cached_property
    def slow(self): return 1

model = Model(4)

def deep(x): return x + 1
def helper(x, by=k): return 2 * x
def unused(): return other
def in_table(x): return x
TABLE = {"one": in_table, "math": math.sin}
square = lambda x: x * x
cached = functools.lru_cache(square)

def repeated(times):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*words, **keywords):
            return [function(*words, **keywords) for _ in range(times)]
        return wrapper
    return decorate

@repeated(2)
def f(n):
    here = [TABLE["one"](i) for i in range(n)]
    return [helper(i) * k for i in here], table, start, settings, kind, model.area, cached(2), Path("x")
"""


def code(old: str = "", new: str = "", *, with_source: bool = True, **keywords: Any) -> dict[str, Any]:
    """Of `f` in the cells, where `old` is replaced by `new`."""
    assert old in CELLS
    text = CELLS.replace(old, new, 1) if old else CELLS
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell>", "exec"), cell)
    linecache.cache.pop("<cell>", None)
    if with_source:
        linecache.cache["<cell>"] = (len(text), None, text.splitlines(True), "<cell>")
    found = code_of(cell["f"], **keywords)
    linecache.cache.pop("<cell>", None)
    assert "file" not in found
    return found


@pytest.mark.parametrize("with_source", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("other = 1", "other = 2", []),
        ("def unused(): return other", "def unused(): return 7", []),
        ("k = 3", "k = 5", ["helper", "k"]),  # a default of helper, too
        ("return 2 * x", "return 3 * x", ["helper"]),
        ("x + 1", "x + 2", ["deep"]),
        ("self.size * deep", "self.size + deep", ["Model"]),
        ("limit = 10", "limit = 11", ["Model"]),
        ("return 0", "return 1", ["Model"]),
        ("self): return 1", "self): return 2", ["Model"]),
        ("scale = 2", "scale = 3", ["Base"]),
        ("Model(4)", "Model(5)", ["model"]),
        ("2.5", "2.6", ["table"]),
        ('"q"', '"s"', ["table"]),
        ('{"p", "q", "r"}', '{"r", "q", "p"}', []),
        ("10, 14)", "10, 15)", ["start"]),
        ("rate=0.5", "rate=0.6", ["settings"]),
        ("kind = Kind.FAST", "kind = Kind.SLOW", ["kind"]),
        ("def in_table(x): return x", "def in_table(x): return -x", ["in_table"]),
        ("math.sin", "math.cos", ["TABLE"]),
        ("x * x", "x * x * x", ["cached"]),
        ("@repeated(2)", "@repeated(3)", ["f", "times"]),
        ("* k for", "+ k for", ["f"]),
        ("Path(", "json.dumps(", ["f", "Path", "json"]),
    ],
)
def test_what_a_function_of_a_notebook_uses_is_its_code(
    with_source: bool, old: str, new: str, changed: list[str]
) -> None:
    before, now = code(with_source=with_source), code(old, new, with_source=with_source)
    names = changed_names(before, now)
    if not with_source and old == "@repeated(2)":
        changed = ["times"]  # a decorator is not in the byte code
    assert sorted(names) == sorted(changed)
    assert (before["version"] == now["version"]) == (not changed)
    assert code(with_source=with_source) == before


def test_the_version_is_the_same_in_another_process() -> None:
    program = f"""
import json
from supervisor.experiment.provenance import code_of
exec(compile({CELLS!r}, "<cell>", "exec"))
print(json.dumps(code_of(f)["used"]))
"""
    seen = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    ]
    assert seen[0] == seen[1] and "table" in json.loads(seen[0])


def test_setup_and_what_a_partial_brings_belong_to_it() -> None:
    def run(first: int, second: int) -> dict[str, Any]:
        cell: dict[str, Any] = {"__name__": "__main__"}
        text = f"def f(n, k): return n * k\ndef setup(): return {second}\n"
        exec(compile(text, "<cell>", "exec"), cell)
        return code_of(functools.partial(cell["f"], k=first), setup=cell["setup"])

    assert run(3, 1) == run(3, 1)
    assert changed_names(run(3, 1), run(5, 1)) == ["f"]
    assert changed_names(run(3, 1), run(3, 2)) == ["setup"]


def test_values_without_end_or_without_a_name_are_no_trouble() -> None:
    text = """
loop = [1]
loop.append(loop)
large = list(range(200_000))
class Odd:
    def __getattr__(self, name): raise RuntimeError(name)
    def __repr__(self): raise RuntimeError
odd = Odd()
class Callable:
    def __init__(self): self.k = K
    def __call__(self, n): return loop, large, odd, unknown, print
"""

    def run(k: int) -> dict[str, Any]:
        cell: dict[str, Any] = {"__name__": "__main__", "K": k}
        exec(compile(text, "<cell>", "exec"), cell)
        return code_of(cell["Callable"]())

    found = run(1)
    assert found == run(1)
    assert {"loop", "large", "odd", "Odd", "Callable"} <= set(found["used"])
    assert changed_names(found, run(2)) == ["Callable", "K"]


def test_arrays_count_by_their_content() -> None:
    numpy = pytest.importorskip("numpy")

    def run(value: Any) -> dict[str, Any]:
        cell: dict[str, Any] = {"__name__": "__main__", "value": value}
        exec(compile("def f(n): return value", "<cell>", "exec"), cell)
        return code_of(cell["f"])

    values = [numpy.arange(3), numpy.arange(3.0), numpy.int64(3), numpy.float64(3), numpy.float64(4)]
    versions = [run(value)["version"] for value in values]
    assert len(set(versions)) == len(versions)
    assert [run(value)["version"] for value in values] == versions
    assert changed_names(run(values[0]), run(values[1])) == ["value"]


def test_a_record_of_an_older_longhaul_tells_no_parts() -> None:
    older = {"function": "f", "module": "__main__", "sha256": "0" * 64, "modules": {}, "version": "aaaa"}
    assert changed_names(older, code()) == ["f"]


def test_of_a_script_the_function_and_the_rest_of_its_file_are_told_apart(tmp_path: Path) -> None:
    script = tmp_path / "exp.py"

    def run(function: int, k: int) -> dict[str, Any]:
        script.write_text(f"k = {k}\n\ndef f(n):\n    return {function}\n\n")
        linecache.checkcache()
        cell: dict[str, Any] = {"__name__": "exp"}
        exec(compile(script.read_text(), str(script), "exec"), cell)
        return code_of(cell["f"])

    first = run(1, 3)
    assert changed_names(first, run(1, 55)) == ["exp.py"]
    assert changed_names(first, run(22, 3)) == ["f"]
    assert changed_names(first, run(333, 555)) == ["f", "exp.py"]
    del first["rest_sha256"]  # a record of an older longhaul
    assert changed_names(first, run(333, 5555)) == ["f"]
