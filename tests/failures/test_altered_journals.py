"""A journal that somebody else cuts, empties or writes into while the run writes it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import Experiment, wait_for
from tests.failures.observing import open_gate, wait_until_said, write

SCRIPT = """
    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(12)]

    def evaluate(number):
        note("ran")
        if number in (3, 8):
            gate(f"on{number}")
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="gated", workers=1)
"""


def empty(path: Path) -> None:
    os.truncate(path, 0)


def cut_in_a_line(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty_and_write(path: Path) -> None:
    path.write_bytes(b"not ours\n")


def without_its_middle(path: Path) -> None:
    """As an editor does that writes in place."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[6:]))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"a line of somebody else\n")


def append_without_an_end(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"n":99')


def write_again(path: Path) -> None:
    """Restored by another file of this name, as a tool does that copies files back."""
    other = path.with_name("copy")
    other.write_bytes(path.read_bytes()[:300])
    os.replace(other, path)


def at_the_second_gate(experiment: Experiment) -> subprocess.Popen[str]:
    write(experiment, SCRIPT)
    supervisor = experiment.start("--experiment-id", "e1")
    open_gate(experiment, "on3")
    wait_until_said(experiment, "ran", "job/8")
    wait_for(lambda: len(experiment.completed_in_journal()) == 8)
    wait_for(experiment.path("checkpoint").exists)
    wait_for(lambda: len(experiment.checkpoint()["completed"]) >= 5)
    return supervisor


@pytest.mark.parametrize("alter", some([cut_in_a_line, empty_and_write, empty, without_its_middle], 2))
def test_a_journal_that_is_cut_ends_the_run_by_name_and_a_resume_has_what_the_checkpoint_had(
    experiment: Experiment, alter: Callable[[Path], None]
) -> None:
    supervisor = at_the_second_gate(experiment)
    journal = experiment.path("journal")
    in_checkpoint = set(experiment.checkpoint()["completed"])
    alter(journal)
    _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 74, err
    assert f"somebody has cut or overwritten {journal}" in err
    assert (
        "Traceback" not in err and "finished" not in err and "Make room" not in err and "room" not in err
    ), err
    before = experiment.executions()
    open_gate(experiment, "on8")
    done = experiment.run("--resume", "e1")
    assert done.returncode == 0, done.stderr
    assert [entry["result"] for entry in experiment.final().values()] == list(range(12))
    again = experiment.executions()[len(before) :]
    assert not in_checkpoint & set(again), done.stderr


@pytest.mark.parametrize("alter", some([append_without_an_end, write_again, append], 2))
def test_what_is_written_into_a_journal_costs_nothing(
    experiment: Experiment, alter: Callable[[Path], None]
) -> None:
    supervisor = at_the_second_gate(experiment)
    journal = experiment.path("journal")
    generation = experiment.journal()[0]["generation"]
    alter(journal)
    wait_for(lambda: b'"generation":%d' % (generation + 1) in journal.read_bytes()[:300])
    open_gate(experiment, "on8")
    _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0, err
    assert "Somebody has" in err and "written again, into a new file" in err
    assert [entry["result"] for entry in experiment.final().values()] == list(range(12))
    assert experiment.executions() == [f"job/{number}" for number in range(12)]
    assert len(experiment.completed_in_journal()) == 12


def test_a_journal_that_is_cut_at_the_very_end_is_not_called_finished(experiment: Experiment) -> None:
    """Between the last look and the end: the last job itself does it."""
    text = """
        def evaluate(number):
            if number == 11 and sys.argv[1] != "--resume":
                os.truncate("@JOURNAL@", 500)
            return number

        if __name__ == "__main__":
            main(evaluate, [Job(params={"number": n}) for n in range(12)], name="gated", workers=1)
    """
    journal = experiment.output / "logs" / "journal_e1.jsonl"
    write(experiment, text.replace("@JOURNAL@", str(journal)))
    done = experiment.run("--experiment-id", "e1")
    assert done.returncode == 74, done.stderr
    assert "somebody has cut" in done.stderr and "finished" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    again = experiment.run("--resume", "e1")
    assert again.returncode == 0, again.stderr
    assert [entry["result"] for entry in experiment.final().values()] == list(range(12))
