"""`latest` after a small trial: it is taken, and it is said what else may have been meant."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from supervisor.reports.latest_experiment import larger_beside
from supervisor.reports.report import load
from supervisor.storage.files.layout import Layout
from tests.experiment_fixture import Experiment, longhaul

SCRIPT = """
    def evaluate(number):
        note("ran")
        return number

    if __name__ == "__main__":
        many = [Job(id=f"job/{n}", params={"number": n}) for n in range(int(os.environ.get("MANY", "12")))]
        main(evaluate, many, name="@NAME@", all_tasks=True, workers=2)
"""


def start(experiment: Experiment, *words: str, many: int = 12) -> str:
    done = experiment.run(*words, env={**experiment.environment(), "MANY": str(many)})
    assert done.returncode == 0, done.stderr
    return done.stderr


def made(experiment: Experiment, experiment_id: str, only: str | None = None, many: int = 12) -> None:
    experiment.made(experiment_id, [f"job/{n}" for n in range(many)], name="trial", only=only)


@pytest.mark.parametrize("trial", [["--only", "job/3"], []])
def test_latest_is_a_trial_and_the_larger_one_is_named(experiment: Experiment, trial: list[str]) -> None:
    """Once a few jobs of all, once a script that had but few."""
    experiment.write(SCRIPT)
    made(experiment, "night")
    made(experiment, "stray", *trial[1:], many=12 if trial else 2)
    said = start(experiment, "--resume", "latest", *trial, many=12 if trial else 2)
    of = "1 of 12 jobs" if trial else "2 of 2 jobs"
    words = f"latest is stray, {of} done; there is also night, 12 of 12 jobs done"
    assert f"warning: {words}: --resume night continues that one" in said
    with pytest.warns(UserWarning, match=words) as warned:
        load(experiment.output).close()
    assert f"load({str(experiment.output)!r}, 'night') reads that one" in str(warned[0].message)
    assert warned[0].filename == __file__
    looked = longhaul("status", "latest", str(experiment.output))
    assert words in looked.stderr and "stray" in looked.stdout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(experiment.output, "stray").close()
    for word in ("stray", str(experiment.output / "stray")):
        assert longhaul("status", word, "-d", str(experiment.output))[::2] == (0, "")


def test_auto_goes_on_with_a_trial_and_names_the_larger_one(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    made(experiment, "night", "job/[1-9]*")
    made(experiment, "stray", "job/3")
    said = start(experiment, "--resume", "auto")
    assert "auto is stray, 1 of 12 jobs done; there is also night, 11 of 12 jobs done" in said


def test_a_plain_start_mentions_the_unfinished_one_also_after_a_trial(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    made(experiment, "night", "job/[1-9]*")
    made(experiment, "stray", many=2)
    said = start(experiment, "--experiment-id", "another", many=2)
    assert "night is unfinished, with 1 of 12 jobs left; continue it with --resume night" in said


def test_nothing_is_said_of_what_nobody_would_mean(experiment: Experiment) -> None:
    """A smaller one, one of about the size, one of another name, and a finished one of last year."""
    experiment.write(SCRIPT)
    experiment.made("elsewhere", [f"job/{n}" for n in range(40)], name="other")
    made(experiment, "old", many=30)
    age(experiment, "old")
    made(experiment, "small", many=2)
    made(experiment, "alike", many=14)
    made(experiment, "night")
    assert "there is also" not in start(experiment, "--resume", "latest")
    assert larger_beside(Layout(experiment.output, "night")) is None


def test_an_old_one_is_named_if_it_is_unfinished(experiment: Experiment) -> None:
    made(experiment, "old", "job/1*", many=30)
    age(experiment, "old")
    made(experiment, "stray", many=2)
    found = larger_beside(Layout(experiment.output, "stray"))
    assert found is not None and found[1].summary() == "old, 11 of 30 jobs done"


def test_one_that_was_killed_before_its_checkpoint_is_told_by_its_journal(experiment: Experiment) -> None:
    made(experiment, "night")
    made(experiment, "stray", "job/3")
    for experiment_id in ("night", "stray"):
        Layout(experiment.output, experiment_id).checkpoint.unlink()
    found = larger_beside(Layout(experiment.output, "stray"))
    assert found is not None and found[1].summary() == "night, 12 of 12 jobs done"


def age(experiment: Experiment, experiment_id: str) -> None:
    """As if everything in it had been saved years ago; what reads only the times does not mind the checksums."""
    layout = Layout(experiment.output, experiment_id)
    for path in (layout.checkpoint, layout.journal):
        set_back(path)


def set_back(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('"20', '"19'))
