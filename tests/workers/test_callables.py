from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from workers.script.callables import CannotLoad, CannotSend, describe, load
from workers.transport.messages import FunctionSpec


class Model:
    @staticmethod
    def fit() -> str:
        return "static"

    def __call__(self) -> str:
        return "called"


def test_what_can_be_imported_is_named() -> None:
    assert describe(json.dumps) == FunctionSpec("json", "dumps")
    assert load(FunctionSpec("json", "dumps")) is json.dumps
    spec = describe(subprocess.Popen.communicate)
    assert spec == FunctionSpec("subprocess", "Popen.communicate")
    assert load(spec) is subprocess.Popen.communicate


def test_a_partial_with_plain_values_is_named() -> None:
    spec = describe(functools.partial(max, 4, 5))
    assert spec == FunctionSpec("builtins", "max", constants=[4, 5])
    assert load(spec)() == 5
    assert load(spec)(6) == 6


def test_what_cannot_be_imported_goes_by_value() -> None:
    k = 2
    for function, result in (
        (lambda: k + 1, 3),
        (functools.partial(max, 4, (5,), key=bool), 4),
        (Model(), "called"),
    ):
        spec = describe(function)
        assert spec.pickled is not None
        assert load(spec)() == result


def test_a_name_that_leads_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "reassigned.py").write_text("def f(): return 'old'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("reassigned")
    monkeypatch.setitem(sys.modules, "reassigned", module)
    old = module.f
    exec("def f(): return 'new'", module.__dict__)
    assert describe(module.f) == FunctionSpec("reassigned", "f")
    assert load(describe(old))() == "old"


@pytest.mark.parametrize("name", ["found_by_nobody", "no_package.found_by_nobody"])
@pytest.mark.parametrize("form", ["function", "partial", "method"])
def test_a_module_that_no_import_finds_is_executed_from_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, form: str
) -> None:
    """As pytest imports test modules with --import-mode=importlib."""
    file = tmp_path / "found_by_nobody.py"
    file.write_text(
        "class A:\n    def g(self): return type(self) is A and A.__module__\ndef f(): return A().g()\n"
    )
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    forms = {"function": module.f, "partial": functools.partial(module.f), "method": module.A().g}
    described = describe(forms[form])
    assert described.files == {name: str(file)}
    monkeypatch.delitem(sys.modules, name)
    for package in ("no_package", "no_package.found_by_nobody", "found_by_nobody"):
        monkeypatch.setitem(sys.modules, package, module)  # so that it is taken away in the end
        monkeypatch.delitem(sys.modules, package)
    assert load(described)() == name


def test_a_module_without_a_file_that_no_import_finds_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_by_hand")
    exec("K = 2\ndef g(): return K\ndef f(): return g() + 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_by_hand", module)
    described = describe(module.f)
    monkeypatch.delitem(sys.modules, "made_by_hand")
    assert described.pickled is not None
    assert load(described)() == 3


def test_what_cannot_be_sent_is_refused_with_a_way_out() -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(
        CannotSend, match=r"<lambda> \(test_callables.py, line \d+\) cannot be sent to a worker .*setup\(\)"
    ):
        describe(lambda: lock)


def test_without_cloudpickle_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(CannotSend, match="top level of a file, or install cloudpickle"):
        describe(lambda: 1)


def test_a_function_that_is_missing_in_the_worker_is_named() -> None:
    with pytest.raises(CannotLoad, match=r"json.* has no 'absent' when it is imported in a worker"):
        load(FunctionSpec("json", "absent"))


def test_a_function_of_ours_may_be_a_job() -> None:
    from workers.values.tracebacks import safe_repr

    assert load(describe(safe_repr)) is safe_repr
