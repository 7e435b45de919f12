"""A script, or a module of it, that is edited while the run goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.real_scripts.conftest import RealScript

EDITED = """
    import pathlib, sys, threading, time, inspect
    @IMPORTS@

    PARAMS = [{"n": n} for n in range(6)]
    VALUE = "old"

    def evaluate(n):
        @INSIDE@
        if n == 2:
            here = pathlib.Path(__file__)
            here.write_text(here.read_text().replace('VALUE = "old"', 'VALUE = "new and longer"'))
            beside = here.with_name("helper.py")
            beside.write_text('VALUE = "new and longer"')
        return [VALUE, helper.VALUE, inspect.getsource(evaluate).splitlines()[0]]
"""
START_A_THREAD = "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"


def edited(script: RealScript, imports: str, inside: str = "pass") -> None:
    (script.folder / "helper.py").write_text('VALUE = "old"')
    script.write(EDITED.replace("@IMPORTS@", imports).replace("@INSIDE@", inside))


def records(script: RealScript) -> list[dict[str, Any]]:
    (journal,) = script.output.glob("logs/journal_*.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


@pytest.mark.parametrize(
    ("method", "imports", "inside"),
    [
        ("spawn", "import helper", "pass"),
        ("zygote", f"import helper; {START_A_THREAD}", "pass"),
        ("zygote", "", "import helper"),  # by each worker in its first job
    ],
)
def test_the_script_is_one_text_and_a_changed_module_is_told(
    real_script: RealScript, method: str, imports: str, inside: str
) -> None:
    edited(real_script, imports, inside)
    words = ["--start-method", method, "--workers", "1", "--max-jobs-per-worker", "1"]
    results = real_script.run(*words)
    assert {result[0] for result in results} == {"old"}
    assert {result[2] for result in results} == {"def evaluate(n):"}
    assert [result[1] for result in results] == ["old"] * 3 + ["new and longer"] * 3
    told = [line for line in real_script.stderr.splitlines() if "was changed while the run goes on" in line]
    assert len(told) == 1, real_script.stderr
    assert str(real_script.folder / "helper.py") in told[0]
    said = [record["detail"] for record in records(real_script) if record.get("what") == "code_changed"]
    assert {detail["file"] for detail in said} == {str(real_script.folder / "helper.py")}
    (final,) = real_script.output.glob("*/logs_final.json")
    codes = [entry["code"] for entry in json.loads(final.read_text())]
    assert codes == [codes[0]] * 3 + [codes[0] + "+"] * 3
    leased = {
        record["incarnation"]: record["jobs"] for record in records(real_script) if record["type"] == "leased"
    }
    assert [leased[detail["incarnation"]] for detail in said] == [["job3"], ["job4"], ["job5"]]


def test_a_module_is_compared_with_the_file_that_a_resumed_run_began_with(real_script: RealScript) -> None:
    edited(real_script, "", "import helper")
    real_script.python("--workers", "1", "--only", "job0")
    edit = 'if n == 1: pathlib.Path(__file__).with_name("helper.py").write_text("VALUE = 1")'
    edited(real_script, "", f"{edit}\n        import helper")
    results = real_script.run("--resume", "latest", "--workers", "1", "--max-jobs-per-worker", "1")
    assert [result[1] for result in results][:2] == ["old", 1]
    (final,) = real_script.output.glob("*/logs_final.json")
    codes = [entry["code"] for entry in json.loads(final.read_text())]
    assert codes[1:] == [codes[1]] * 5 and codes[1].endswith("+") and codes[0] not in codes[1]


def test_workers_that_are_forked_have_one_code(real_script: RealScript) -> None:
    edited(real_script, "import helper")
    results = real_script.run("--workers", "1", "--max-jobs-per-worker", "1")
    assert {tuple(result[:2]) for result in results} == {("old", "old")}
    assert "was changed" not in real_script.stderr
