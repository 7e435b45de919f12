from __future__ import annotations

import functools
import json
import subprocess
import sys
from types import ModuleType

import pytest

from workers.callables import CannotLoad, CannotSend, describe, load
from workers.messages import FunctionSpec


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


def test_what_cannot_be_imported_goes_by_value() -> None:
    k = 2
    for function, result in (
        (lambda: k + 1, 3),
        (functools.partial(max, 4, 5), 5),
        (Model(), "called"),
    ):
        spec = describe(function)
        assert spec.pickled is not None
        assert load(spec)() == result


def test_a_name_that_leads_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("reassigned")
    exec("def f(): return 'old'", module.__dict__)
    old = module.f
    exec("def f(): return 'new'", module.__dict__)
    monkeypatch.setitem(sys.modules, "reassigned", module)
    assert describe(module.f).pickled is None
    assert load(describe(old))() == "old"


def test_what_cannot_be_sent_is_refused_with_a_way_out() -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(CannotSend, match=r"cannot be sent to a worker .*setup\(\)"):
        describe(lambda: lock)


def test_without_cloudpickle_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(CannotSend, match="top level of a file, or install cloudpickle"):
        describe(lambda: 1)


def test_a_function_that_is_missing_in_the_worker_is_named() -> None:
    with pytest.raises(CannotLoad, match=r"json.* has no 'absent' when it is imported in a worker"):
        load(FunctionSpec("json", "absent"))
