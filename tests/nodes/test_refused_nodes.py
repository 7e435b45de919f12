"""Nodes that have other versions than this process: refused by name, and the run goes on with the others."""

from __future__ import annotations

import os
import platform
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import NodesRefused
from supervisor.nodes.node_code import digest_of, other_libraries, versions_of, why_unfit
from supervisor.nodes.wire import VERSION, HelloAgent, HelloNode
from tests.conftest import some
from tests.experiment_fixture import Experiment
from tests.nodes.test_node_agent import Held, hold  # noqa: F401
from tests.nodes.test_nodes_engine import HELLO, Stage, places, stage  # noqa: F401

pytestmark = pytest.mark.slow

CODE = {"/there/util.py": "aaaa", "/there/more.py": "bbbb"}


def hello(**changes: Any) -> HelloNode:
    return msgspec.structs.replace(HELLO, **changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"code": ["aaaa", "bbbb"]}, ""),
        ({"code": ["", "bbbb"]}, ""),
        ({"version": VERSION + 1}, "version"),
        ({"python": "3.9.1"}, "has Python 3.9.1"),
        ({"release": "0.0.9"}, "has longhaul 0.0.9, this process has "),
        ({"code": ["cccc", "bbbb"]}, "another version of util.py (in /there) than"),
        ({"code": ["cccc", "dddd"]}, "another version of util.py, more.py (in /there) than"),
    ],
)
def test_what_does_not_fit_is_said_of_the_node_by_name(changes: dict[str, Any], why: str) -> None:
    said = why_unfit("a", hello(**changes), CODE)
    assert why in said and bool(said) == bool(why)
    if why:
        assert said.startswith("a (host) has ")


def test_a_node_without_the_script_is_refused_and_one_without_another_file_is_not() -> None:
    said = why_unfit("a", hello(code=["", "bbbb"]), CODE, next(iter(CODE)))
    assert said.startswith("a (host) has no /there/util.py: no job can run there; ")
    assert why_unfit("a", hello(code=["aaaa", ""]), CODE, next(iter(CODE))) == ""
    assert why_unfit("a", hello(code=["", ""]), CODE, None) == ""


def test_a_file_that_has_changed_here_as_well_is_no_other_version(tmp_path: Path) -> None:
    file = tmp_path / "util.py"
    file.write_text("NOW = 1")
    now = digest_of(str(file))
    assert now and not why_unfit("a", hello(code=[now]), {str(file): "before"})
    file.write_text("NOW = 2")
    assert why_unfit("a", hello(code=[now]), {str(file): "before"})


def test_the_run_goes_on_with_the_nodes_that_fit(stage: Stage) -> None:  # noqa: F811
    stage.engine._code = CODE
    stage.arrive("a", hello(code=["aaaa", "bbbb"]))
    assert places(stage.turn()) == [[0]]
    odd = stage.arrive("b", hello(code=["cccc", "bbbb"]))
    events = stage.turn()
    assert odd.heard(HelloAgent)[0].code == list(CODE)
    (notice,) = [event for event in events if isinstance(event, facts.CarrierNotice)]
    assert notice.level == "warning" and "b (host) has another version of util.py" in notice.text
    assert places(events) == [] and stage.ended == [1] and stage.greeted_keys == [0]
    stage.arrive("b", hello(code=["cccc", "bbbb"]))
    assert stage.turn() == []  # it has been said


LIBRARIES = {"numpy": "2.1.0", "pandas": "2.2.0", "torch": "2.5.1+cpu", "scipy": "1.9", "six": "1.16"}


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([], ""),
        (["2.1.0", "2.2.0", "2.5.1", "1.9", "1.16"], ""),
        (["2.1.3", "2.2.0rc1", "2.5.0+cu121", "1.9.3", ""], ""),
        (["1.26.4"], "numpy 1.26.4 (here 2.1.0);"),
        (["2.1.0", "2.3", "", "1.10"], "pandas 2.3 (here 2.2.0), scipy 1.10 (here 1.9);"),
        (["3"] * 5, "numpy 3 (here 2.1.0), pandas 3 (here 2.2.0), torch 3 (here 2.5.1+cpu) and 2 more;"),
    ],
)
def test_libraries_are_compared_by_the_first_two_numbers_of_their_versions(
    there: list[str], said: str
) -> None:
    words = other_libraries(hello(libraries=there), LIBRARIES)
    assert said in words and bool(words) == bool(said)


def test_other_libraries_are_told_of_the_first_node_that_has_them(stage: Stage) -> None:  # noqa: F811
    stage.engine._libraries = LIBRARIES
    odd = stage.arrive("a", hello(libraries=["1.26.4"]))
    events = stage.turn()
    assert odd.heard(HelloAgent)[0].libraries == list(LIBRARIES)
    (notice,) = [event for event in events if isinstance(event, facts.CarrierNotice)]
    assert notice.level == "warning"
    assert notice.text.startswith(
        "a (host) has other libraries than this process: numpy 1.26.4 (here 2.1.0);"
    )
    assert places(events) == [[0]]  # and is used
    stage.arrive("b", hello(libraries=["1.26.4"]))
    assert [type(event) for event in stage.turn()] == [facts.PlacesChanged]  # it has been said
    stage.arrive("c", hello(libraries=["1.25.0"]))
    assert [e.text[0] for e in stage.turn() if isinstance(e, facts.CarrierNotice)] == ["c"]


def test_if_none_fits_the_run_does_not_begin(stage: Stage) -> None:  # noqa: F811
    stage.arrive("a", hello(python="3.9.1"))
    stage.none = "no more come"
    with pytest.raises(NodesRefused, match=r"a \(host\) has Python 3.9.1"):
        stage.turn()


REFUSED = """
    def jobs():
        yield Job(id="one")

    def evaluate():
        note("ran")

    if __name__ == "__main__":
        @BREAK@
        main(evaluate, jobs, name="refused", workers=2, all_tasks=True, on_failure="touch hook")
"""


# What an agent sees of the script, as if it were on another machine.
ELSEWHERE = """
import builtins, io, sys

if any("node_agent" in word for word in sys.orig_argv):
    was = open

    def opened(name, *more, **keywords):
        if name == @SCRIPT@:
            @FOUND@
        return was(name, *more, **keywords)

    builtins.open = opened
"""
BROKEN = "import supervisor.nodes.wire as wire; wire.VERSION = 99"


def test_a_new_experiment_whose_nodes_are_all_refused_leaves_nothing(experiment: Experiment) -> None:
    experiment.write(REFUSED.replace("@BREAK@", BROKEN))
    done = experiment.run("--engine", "pipes", "--nodes", "2")
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"has Python {platform.python_version()} and version 1 of the messages between nodes" in last
    assert "Traceback" not in done.stderr and "resume" not in done.stderr
    assert not list(experiment.output.rglob("*")) and experiment.executions() == []
    assert not experiment.folder.joinpath("hook").exists()


@pytest.mark.parametrize("script", some(["another", "gone"], 1))
def test_a_script_that_is_not_on_the_nodes_is_told_before_anything_is_run(
    experiment: Experiment, script: str
) -> None:
    experiment.write(REFUSED.replace("@BREAK@", "pass"))
    words = {"gone": "raise FileNotFoundError(2, 'gone', name)", "another": "return io.BytesIO(b'other')"}
    there = ELSEWHERE.replace("@SCRIPT@", repr(str(experiment.script))).replace("@FOUND@", words[script])
    experiment.folder.joinpath("sitecustomize.py").write_text(there)
    environment = experiment.environment()
    environment["PYTHONPATH"] += os.pathsep + str(experiment.folder)
    done = experiment.run("--engine", "pipes", "--nodes", "2", env=environment)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"has {'no ' if script == 'gone' else 'another version of exp.py'}" in last, last
    assert not list(experiment.output.rglob("*")) and experiment.executions() == []


def install(folder: Path, version: str) -> Path:
    """A library whose name on the index is not that of its module."""
    place = folder / version / "site-packages"
    metadata = place / f"Other_Name-{version}.dist-info"
    metadata.mkdir(parents=True)
    metadata.joinpath("RECORD").write_text("Other_Name/x.py,,\nlibrary/__init__.py,,\n")
    place.joinpath("library").mkdir()
    place.joinpath("library", "__init__.py").touch()
    return place


@pytest.mark.parametrize("there", some(["1.3.0", "1.2.3"], 1))
def test_a_library_of_another_version_on_the_nodes_is_told_of(experiment: Experiment, there: str) -> None:
    here, other = install(experiment.folder / "here", "1.2.0"), install(experiment.folder / "there", there)
    experiment.write("import library\n" + textwrap.dedent(REFUSED.replace("@BREAK@", "pass")))
    moved = f"sys.path[sys.path.index({str(here)!r})] = {str(other)!r}"
    experiment.folder.joinpath("sitecustomize.py").write_text(
        f"import sys\nif any('node_agent' in word for word in sys.orig_argv):\n    {moved}\n"
    )
    environment = experiment.environment()
    environment["PYTHONPATH"] += os.pathsep + os.pathsep.join([str(experiment.folder), str(here)])
    done = experiment.run("--engine", "pipes", "--nodes", "2", env=environment)
    assert done.returncode == 0, done.stderr
    words = "has other libraries than this process: other-name 1.3.0 (here 1.2.0)"
    assert done.stderr.count(words) == (1 if there == "1.3.0" else 0), done.stderr


def test_a_run_that_goes_on_is_not_taken_back(experiment: Experiment) -> None:
    experiment.write(REFUSED.replace("@BREAK@", "pass").replace('note("ran")', 'raise ValueError("not yet")'))
    assert experiment.run().returncode == 1
    experiment.write(REFUSED.replace("@BREAK@", BROKEN))
    done = experiment.run("--resume", "latest", "--engine", "pipes", "--nodes", "2")
    assert done.returncode == 75 and "version 1 of the messages" in done.stderr, done.stderr
    assert experiment.path("journal").exists()


def test_an_agent_says_which_libraries_its_host_has(hold: Callable[..., Held]) -> None:  # noqa: F811
    said = hold(libraries=("msgspec", "nothing-of-this-name"))
    assert said.until(said.first(HelloNode)).libraries == [version("msgspec"), ""]
    assert versions_of(["msgspec"]) == [version("msgspec")] and versions_of([]) == []


def test_an_agent_says_what_its_host_has(hold: Callable[..., Held], tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "util.py"
    file.write_text("HERE = 1")
    node = hold(code=(str(file), str(tmp_path / "gone.py")))
    assert node.until(node.first(HelloNode)).code == [digest_of(str(file)), ""]
