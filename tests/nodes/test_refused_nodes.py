"""Nodes that have other versions than this process: refused by name, and the run goes on with the others."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import NodesRefused
from supervisor.nodes.node_code import digest_of, why_unfit
from supervisor.nodes.wire import VERSION, HelloAgent, HelloNode
from tests.experiment_fixture import Experiment
from tests.nodes.test_node_agent import Held, hold  # noqa: F401
from tests.nodes.test_nodes_engine import HELLO, Stage, places, stage  # noqa: F401

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
        ({"code": ["cccc", "bbbb"]}, "another version of util.py (in /there) than"),
        ({"code": ["cccc", "dddd"]}, "another version of util.py, more.py (in /there) than"),
    ],
)
def test_what_does_not_fit_is_said_of_the_node_by_name(changes: dict[str, Any], why: str) -> None:
    said = why_unfit("a", hello(**changes), CODE)
    assert why in said and bool(said) == bool(why)
    if why:
        assert said.startswith("a (host) has ")


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


def test_a_run_that_goes_on_is_not_taken_back(experiment: Experiment) -> None:
    experiment.write(REFUSED.replace("@BREAK@", "pass").replace('note("ran")', 'raise ValueError("not yet")'))
    assert experiment.run().returncode == 1
    experiment.write(REFUSED.replace("@BREAK@", BROKEN))
    done = experiment.run("--resume", "latest", "--engine", "pipes", "--nodes", "2")
    assert done.returncode == 75 and "version 1 of the messages" in done.stderr, done.stderr
    assert experiment.path("journal").exists()


def test_an_agent_says_what_its_host_has(hold: Callable[..., Held], tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "util.py"
    file.write_text("HERE = 1")
    node = hold(code=(str(file), str(tmp_path / "gone.py")))
    assert node.until(node.first(HelloNode)).code == [digest_of(str(file)), ""]
