"""The public names as editors and type checkers see them, and their earlier names."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import supervisor
import workers
from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.settings import Settings, parse_value
from supervisor.options.keywords import MainSettings, RunSettings
from supervisor.options.option_parser import our_options
from supervisor.options.request import Request, request_of_main, request_of_run

ROOT = Path(__file__).resolve().parent.parent.parent


def job(**params: object) -> None:
    """Stands for the user's function."""


def main_request(**keywords: Any) -> Request:
    return request_of_main(
        job,
        [],
        name="pilot",
        output=None,
        parser=None,
        argv=[],
        setup=None,
        finish=None,
        keywords=keywords,
    )


def run_request(**keywords: Any) -> Request:
    return request_of_run(job, [], name="pilot", output=None, setup=None, finish=None, keywords=keywords)


TAKEN_BY = [(supervisor.main, MainSettings, main_request), (supervisor.run, RunSettings, run_request)]


def names_to_try() -> set[str]:
    """Whatever might be taken for a keyword: settings, fields of a request, options, other keywords."""
    options = {option.lstrip("-").replace("-", "_") for option in our_options()}
    typed = MainSettings.__optional_keys__ | RunSettings.__optional_keys__
    return {*Settings.__struct_fields__, *Request.__struct_fields__, *options, *typed, "argv", "progress"}


def is_known(request: Callable[..., Request], key: str) -> bool:
    """Whether a keyword is known; a value that makes no sense is complained of in other words."""
    try:
        request(**{key: "?"})
    except UsageError as error:
        return not str(error).startswith(f"unknown keyword {key}=")
    return True


# ------------------------------------------------------------------------------ keywords


@pytest.mark.parametrize(("call", "settings", "request_of"), TAKEN_BY)
def test_the_keywords_that_are_typed_are_those_that_are_taken(
    call: Callable[..., Any], settings: Any, request_of: Callable[..., Request]
) -> None:
    parameters = inspect.signature(call).parameters
    known = {key for key in names_to_try() - set(parameters) if is_known(request_of, key)}
    assert settings.__optional_keys__ == known
    assert settings.__required_keys__ == set()
    assert parameters["settings"].kind is inspect.Parameter.VAR_KEYWORD
    assert parameters["settings"].annotation == f"Unpack[{settings.__name__}]"


@pytest.mark.parametrize("request_of", [main_request, run_request])
def test_an_unknown_keyword_is_refused_with_the_nearest_name(request_of: Callable[..., Request]) -> None:
    with pytest.raises(UsageError, match=r"^unknown keyword retires=; did you mean retries=\?; there are "):
        request_of(retires=3)


def takes(key: str, value: object) -> bool:
    try:
        parse_value(key, value)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("key", Settings.__struct_fields__)
def test_the_type_of_a_setting_is_what_it_takes(key: str) -> None:
    kind = typing.get_type_hints(MainSettings)[key]
    is_mapping = typing.get_origin(kind) is Mapping
    kinds = {kind} if is_mapping else set(typing.get_args(kind)) or {kind}
    assert takes(key, None) == (type(None) in kinds)
    assert takes(key, True) == (kind is bool)
    assert (takes(key, 3) or takes(key, 1 << 20)) == bool(kinds & {int, float})
    if typing.get_origin(kind) is typing.Literal:
        assert all(takes(key, value) for value in kinds) and not takes(key, "another")
    if is_mapping:
        assert takes(key, {"name": 1.5}) and not takes(key, {"name": "much"})


# ------------------------------------------------------------------------------ docstrings

_ENTRY = re.compile(r"^(\w+)=(.+?): \S", re.MULTILINE)


def documented(call: Callable[..., Any]) -> dict[str, Any]:
    """Keyword and default of each entry under "Settings" in a docstring."""
    _, _, text = (inspect.getdoc(call) or "").partition("\nSettings\n--------\n")
    text, _, _ = text.partition("\nRaises\n")
    return {name: ast.literal_eval(default) for name, default in _ENTRY.findall(text)}


def entries(call: Callable[..., Any]) -> list[str]:
    return [line for line in (inspect.getdoc(call) or "").splitlines() if _ENTRY.match(line)]


def test_the_docstring_of_main_lists_every_setting_with_its_default() -> None:
    assert documented(supervisor.main) == msgspec.structs.asdict(Settings())


def test_the_docstring_of_run_lists_every_keyword_with_its_default() -> None:
    found = documented(supervisor.run)
    assert set(found) == RunSettings.__optional_keys__
    settings = {key: found.pop(key) for key in Settings.__struct_fields__}
    assert settings == {**msgspec.structs.asdict(Settings()), "all_tasks": True}
    assert run_request().settings_script == {"all_tasks": True}
    for key, default in found.items():
        resumed = {"resume": "latest"} if key in ("accept_code", "changed") else {}
        assert run_request(**{key: default}, **resumed) == run_request(**resumed), key


def test_both_docstrings_say_the_same_of_a_setting() -> None:
    of_main, of_run = entries(supervisor.main), entries(supervisor.run)
    assert len(of_main) == len(Settings.__struct_fields__)
    assert [line for line in of_main if line not in of_run] == [
        "all_tasks=False: run all jobs, not only one of each domain."
    ]


@pytest.mark.parametrize("name", [*supervisor.__all__, *(f"workers.{name}" for name in workers.__all__)])
def test_every_public_name_has_a_docstring(name: str) -> None:
    package, _, last = name.rpartition(".")
    value = getattr(workers if package else supervisor, last)
    assert len(inspect.getdoc(value) or "") > 30
    if inspect.isclass(value) and value.__module__.startswith(("supervisor", "workers")):
        methods = inspect.getmembers(value, inspect.isfunction)
        assert [m for m, method in methods if not m.startswith("_") and not inspect.getdoc(method)] == []


def test_the_types_are_not_imported_before_somebody_asks_for_them() -> None:
    program = (
        "import sys\nfrom supervisor import Job, main, run\nimport inspect\n"
        "assert str(inspect.signature(run)).endswith(\"-> 'Report | Any'\")\n"
        "print([name for name in ('supervisor.options', 'supervisor.reports') if name in sys.modules])\n"
        "import supervisor\nprint(sorted(supervisor.RunSettings.__annotations__)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\naccept_code\n", "")


def test_a_room_does_not_take_the_name_of_a_function() -> None:
    program = (
        "import supervisor.session.outcome\nfrom supervisor import run\nfirst = run\n"
        "import supervisor.session.hooks\nfrom supervisor import run\n"
        "from supervisor.api import run as known\nprint(first is run is supervisor.run is known)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


# --------------------------------------------------------------------------- type checking

RIGHT = """
import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import supervisor
from supervisor import Interrupted, Job, MainSettings, Report, RunInterrupted, RunSettings, load, main, run
from workers import JobInterrupted, Retry, current_job

class Own(argparse.Namespace):
    count: int

def evaluate(number: int) -> dict[str, int]:
    if current_job().stopping:
        raise JobInterrupted("saved")
    if number == 3:
        raise Retry("later", after=1.5)
    assert_type(current_job().directory, Path)
    return {"number": number}

def jobs() -> Iterator[Job]:
    yield Job(id="a", params={"number": 1}, timeout="2h", retries=1, priority=-1)
    licences = {"license": 1}
    yield Job(id="b", cpus=4, memory="8G", gpus=0.5, resources=licences)

def chosen(own: Own) -> list[Job]:
    return [Job(params={"number": number}) for number in range(own.count)]

def finish(report: Report) -> None:
    print(report.counts)

def finish_with(report: Report, own: argparse.Namespace) -> None:
    print(report.counts, own)

report = run(evaluate, jobs, name="a", output=Path("out"), timeout="2h", memory_limit="2G", retries=3)
assert_type(report, Report | Any)
known: Report = report
assert_type(known.counts.completed, int)
assert_type(known.experiment_id, str)
assert_type(known.directory, Path)
assert_type(known.results(), dict[str, Any])
assert_type(known.rows(), list[dict[str, Any]])
assert_type(known.failures()[0].message, str)
assert_type(known.statistics.busy_seconds, float)
assert_type(load("out").domains(), dict[str, str])
assert_type(supervisor.__version__, str)

run(evaluate, jobs(), name="a", workers="auto", deadline=3600, finish=finish, progress=False)
run(evaluate, list(jobs()), name="a", resume=False, only=["a", "b"], setup=lambda: {"table": [1]})
run(evaluate, ({"number": n} for n in range(3)), name="a", resume="latest", rerun="a", changed="keep")
run(evaluate, lambda: [Job(id="a")], name="a", timeout=None, finish=lambda found: print(found.counts))

settings: RunSettings = {"workers": 2, "grace": 5, "job_cpus": 0.5, "gpus": 2, "resources": {"license": 2}}
try:
    run(evaluate, chosen, name="a", **settings)
except Interrupted as stopped:
    assert_type(stopped, RunInterrupted)

defaults: MainSettings = {"rate": "10/s", "max_failures": "5%"}
main(evaluate, chosen, name="a", parser=argparse.ArgumentParser(add_help=False), finish=finish_with, **defaults)
"""
BEGIN = """
from supervisor import Job, main, run

def evaluate(number: int) -> int:
    return number

jobs = [Job(id="a")]
"""
WRONG = {
    'run(evaluate, jobs, name="a", retires=3)': (
        'Unexpected keyword argument "retires" for "run"; did you mean "retries"?  [call-arg]'
    ),
    'run(evaluate, jobs, name="a", timeout=[])': (
        'Argument "timeout" to "run" has incompatible type "list[Never]"; '
        'expected "float | str | None"  [arg-type]'
    ),
    'run(evaluate, jobs, name="a", workers=None)': (
        'Argument "workers" to "run" has incompatible type "None"; expected "int | str"  [arg-type]'
    ),
    'run(evaluate, jobs, name="a", changed="maybe")': (
        'Argument "changed" to "run" has incompatible type "Literal[\'maybe\']"; '
        "expected \"Literal['refuse', 'keep', 'rerun']\"  [arg-type]"
    ),
    'run(evaluate, jobs, name="a").counts.complete': (
        'Item "Counts" of "Counts | Any" has no attribute "complete"  [union-attr]'
    ),
    'run(evaluate, [3], name="a")': (
        'List item 0 has incompatible type "int"; expected "Job | dict[str, Any]"  [list-item]'
    ),
    'run(evaluate, jobs, name="a", setup=evaluate)': (
        'Argument "setup" to "run" has incompatible type "Callable[[int], int]"; '
        'expected "Callable[[], object] | None"  [arg-type]'
    ),
    "run(evaluate, jobs)": 'Missing named argument "name" for "run"  [call-arg]',
    'main(evaluate, jobs, name="a", resume="latest")': (
        'Unexpected keyword argument "resume" for "main"  [call-arg]'
    ),
    'Job(ids="a")': 'Unexpected keyword argument "ids" for "Job"; did you mean "id"?  [call-arg]',
    "from supervisor import runs": (
        'Module "supervisor" has no attribute "runs"; maybe "run"?  [attr-defined]'
    ),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What mypy says of each program, by its number, without the line."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    folder = tmp_path_factory.mktemp("typed")
    programs = {"right": RIGHT, **{f"wrong{n}": BEGIN + text + "\n" for n, text in enumerate(WRONG)}}
    for name, text in programs.items():
        (folder / f"{name}.py").write_text(text)
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--cache-dir=cache", *options]
        + [f"{name}.py" for name in programs],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr
    found: dict[str, list[str]] = {name: [] for name in programs}
    for name, kind, text in re.findall(r"^(\w+)\.py:\d+: (\w+): (.*)$", done.stdout, re.MULTILINE):
        if kind == "error":
            found[name].append(text)
    return found


def test_a_type_checker_is_content_with_right_calls(complaints: dict[str, list[str]]) -> None:
    assert complaints["right"] == []


@pytest.mark.parametrize("number", range(len(WRONG)), ids=list(WRONG))
def test_a_type_checker_finds_what_is_wrong(complaints: dict[str, list[str]], number: int) -> None:
    assert complaints[f"wrong{number}"] == [list(WRONG.values())[number]]


# ------------------------------------------------------------------------- earlier names


def test_the_earlier_names_are_the_same_classes() -> None:
    from supervisor import Interrupted, RunInterrupted
    from workers import Interrupted as OfAJob
    from workers import JobInterrupted

    assert Interrupted is RunInterrupted is supervisor.Interrupted
    assert OfAJob is JobInterrupted is workers.Interrupted
    assert issubclass(RunInterrupted, KeyboardInterrupt)
    assert not issubclass(JobInterrupted, KeyboardInterrupt)
    with pytest.raises(Interrupted):
        raise RunInterrupted(None)
    with pytest.raises(OfAJob, match="saved"):
        raise JobInterrupted("saved")


def test_what_a_job_raises_is_pickled_by_its_name_and_by_the_earlier_one() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        text = pickle.dumps(workers.JobInterrupted("saved", 3), protocol)
        again = pickle.loads(text)
        assert type(again) is workers.JobInterrupted and again.args == ("saved", 3)
    earlier = b"cworkers\nInterrupted\n(Vsaved\ntR."  # by protocol 0, when that was its name
    again = pickle.loads(earlier)
    assert type(again) is workers.JobInterrupted and again.args == ("saved",)
    wish = pickle.loads(pickle.dumps(workers.Retry("busy", after=2, most=4)))
    assert (str(wish), wish.after, wish.most) == ("busy", 2.0, 4)
    assert str(pickle.loads(pickle.dumps(workers.GiveUp("no")))) == "no"
