"""What is said of values that get a JSON form: once an experiment, and of numbers never."""

from __future__ import annotations

import shutil

from tests.experiment_fixture import Experiment

SCRIPT = """
    import numpy

    def evaluate(number):
        kinds = [numpy.float64(number), numpy.int32(1), numpy.bool_(True), {numpy.int64(2): numpy.str_("x")}]
        return {"kinds": kinds, "pair": (1, 2)} if number < 2 else {"set": {1}}

    def jobs():
        return [Job(id=f"job/{n}", domain=f"d{n // 2}", params={"number": n}) for n in range(4)]

    if __name__ == "__main__":
        main(evaluate, jobs, name="trial", workers=1)
"""


def told(text: str) -> list[str]:
    return [line.partition("results: ")[2] for line in text.splitlines() if "in JSON form" in line]


def test_conversions_are_told_once_an_experiment_and_of_numbers_never(experiment: Experiment) -> None:
    """Also if one of the two files that know it is lost between the runs."""
    experiment.write(SCRIPT)
    first = experiment.run("--only", "job/0")
    assert first.returncode == 0, first.stderr
    assert told(first.stderr) == ["tuple written in JSON form, first in job/0"]
    whole = experiment.output
    for lost in ("checkpoint", "journal", ""):
        experiment.output = whole.with_name(f"without {lost}")
        shutil.copytree(whole, experiment.output)
        if lost:
            experiment.path(lost).unlink()
        second = experiment.run("--resume", "latest", "--all-tasks")
        assert told(second.stderr) == ["set written in JSON form, first in job/2"]
    assert told(experiment.run("--resume", "latest", "--rerun", "*").stderr) == []
    assert experiment.final()["job/0"]["result"] == {"kinds": [0.0, 1, True, {"2": "x"}], "pair": [1, 2]}
