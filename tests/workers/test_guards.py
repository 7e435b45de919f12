from __future__ import annotations

import re
import sys
import warnings
from types import ModuleType
from typing import Any

import pytest

from workers.job.current_job import PROCESS
from workers.script.guards import GUARD_VALUE, IMPORTED_AS, compile_without_guards
from workers.script.main_module import import_main


def executed(source: str | bytes) -> dict[str, Any]:
    """The globals of a script whose guards are shut, while it is imported."""
    code, _ = compile_without_guards(source, "script.py")
    known: dict[str, Any] = {"__name__": "__main__", IMPORTED_AS: GUARD_VALUE}
    exec(code, known)
    return known


@pytest.mark.parametrize(
    "condition",
    [
        '__name__ == "__main__"',
        '"__main__" == __name__',
        "__name__ == MAIN",
        'not __name__ != "__main__"',
        '__name__ in ("__main__", "builtins")',
        '__name__ is not None and __name__ == "__main__"',
        '(__name__, 1) == ("__main__", 1)',
        'f"{__name__}" == "__main__"',
        'str(__name__).strip().split(".")[-1] == "__main__"',
        '(name := __name__) == "__main__"',
        '__name__.startswith("__main")',
        "asked(__name__)",
        "asked(name=__name__)",
        'operator.eq(__name__, "__main__")',
        '{"__main__": True}.get(__name__, False)',
        '(lambda: __name__ == "__main__")()',
        "called()",
        "held == MAIN",
        "held.startswith(MAIN)",
        '[1 for _ in "x" if __name__ == "__main__"]',
    ],
)
def test_a_guard_is_shut_while_the_script_is_imported(condition: str) -> None:
    source = f"""
import operator
MAIN = "__main__"
held = __name__
def asked(name): return name == MAIN
def called(): return __name__ == MAIN
reached = False
if {condition}:
    reached = True
"""
    known: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "bare", "exec"), known)
    assert known["reached"]
    assert not executed(source)["reached"]


def test_other_forms_of_a_guard_are_shut_too() -> None:
    known = executed(
        """
reached = []
match __name__:
    case "__main__":
        reached.append("match")
__name__ == "__main__" and reached.append("and")
reached.append("if expression") if __name__ == "__main__" else None
{"__main__": lambda: reached.append("table")}.get(__name__, lambda: None)()
class Class:
    if __name__ == "__main__":
        reached.append("class")
while __name__ == "__main__":
    reached.append("while")
    break
mp = __name__ == "__mp_main__"
"""
    )
    assert known["reached"] == [] and known["mp"] is True


def test_everything_but_a_guard_is_as_in_the_script() -> None:
    known = executed(
        """
import logging
log = logging.getLogger(__name__)
text = f"{__name__}"
def function(name=__name__): return name
class Class:
    name = __name__
    class Inner: pass
class Own:
    __name__ = "own"
    same = __name__ == "own"
def parameter(__name__): return __name__ == "given"
def local():
    __name__ = "local"
    return __name__ == "local"
def later(): return __name__ == "__main__"
other = __name__
other = "changed"
changed = other == "changed"
"""
    )
    assert known["log"].name == known["text"] == known["function"]() == known["Class"].name == "__main__"
    assert known["Class"].Inner.__module__ == "__main__"
    assert known["Own"].same and known["parameter"]("given") and known["local"]() and known["changed"]
    assert not known["later"]()
    del known[IMPORTED_AS]
    assert known["later"]()


def test_nothing_else_of_the_code_is_different() -> None:
    source = "\ufeff# -*- coding: utf-8 -*-\r\nx = 'ä'\r\nif __name__ == 'x': pass\r\ndef f(): raise KeyError(x)\r\n"
    known = executed(source.encode())
    assert known["x"] == "ä" and known["f"].__code__.co_firstlineno == 4
    latin = "# -*- coding: latin-1 -*-\nx = 'ä'\nif __name__ == 'x': pass\n"
    assert executed(latin.encode("latin-1"))["x"] == "ä"
    assert executed("from __future__ import annotations\n__name__ == 1\nx: int = 1\n")["__annotations__"] == {
        "x": "int"
    }
    assert executed("__name__ == 1\nx: int = 1\n")["__annotations__"] == {"x": int}


def test_warnings_of_the_compiler_come_once() -> None:
    source = "if __name__ == '__main__': pass\nx = 1 if x is 'a' else '\\d'\nassert (1, 'x')\n"

    def told(compiler: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiler(source, "script.py")
        return sorted(re.sub(r"\s+", " ", str(warning.message)) for warning in caught)

    assert told(compile_without_guards) == told(lambda text, path: compile(text, path, "exec"))


@pytest.fixture
def main_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(sys.modules, "__mp_main__", ModuleType("__mp_main__"))
    monkeypatch.setattr(PROCESS, "imported_main", None)
    monkeypatch.setattr(PROCESS, "called_at_import", False)


@pytest.mark.usefixtures("main_kept")
def test_a_script_too_deep_for_a_tree_belongs_to_main_all_the_same(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    total = " + ".join(["ONE"] * 1200)
    script.write_text(
        f"ONE = 1\nnames = [__name__]\nif __name__ == '__main__':\n    names.append('main')\n"
        f"total = {total} + (__name__ == 1)\n"
        "class A:\n    class B:\n        def m(self): pass\n"
        "def outer():\n    class Hidden: pass\n    def inner(): pass\n    return {'c': [Hidden], 'f': inner}\n"
        "held = outer()\n"
    )
    import_main(None, str(script))
    main = sys.modules["__main__"]
    assert main.total == 1200 and main.names == ["__mp_main__"] and main.__name__ == "__main__"
    found = (
        main.A,
        main.A.B,
        main.A.B.m,
        main.held["c"][0],
        main.held["f"],
        main.outer()["f"],
        main.outer()["c"][0],
    )
    assert {one.__module__ for one in found} == {"__main__"}
