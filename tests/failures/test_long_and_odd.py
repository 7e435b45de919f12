"""A supervisor that lives long keeps its memory and its descriptors."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import Experiment, wait_for
from tests.failures.bad_disks import LONG
from tests.failures.observing import said, write

LIVES_LONG = """
    def jobs():
        return [Job(id=str(number), params={"number": number}) for number in range(@JOBS@)]

    def evaluate(number):
        if number % (@JOBS@ // 4) == @EVERY@:  # four looks, at equal distances
            note("at", str(number))
            gate(str(number))
        if number % @EVERY@ == @EVERY@ // 2 and current_job().attempt == 1:
            os._exit(1)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="long", workers=2)
"""


def resident(pid: int) -> int:
    """Bytes of memory of its own."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def waiting(experiment: Experiment) -> list[str]:
    """Jobs that have waited for the test, in the order in which they came: after a death that need not be theirs."""
    return list(dict.fromkeys(job for job, _ in said(experiment, "at")))


@pytest.mark.timeout(0 if LONG else 300)
@pytest.mark.parametrize(
    ("jobs", "deaths"), some([(40_000, 80), (100_000, 1_000 if LONG else 200)], 2 if LONG else 1)
)
def test_many_thousand_jobs_and_many_deaths_leave_nothing_behind(
    experiment: Experiment, jobs: int, deaths: int
) -> None:
    """The supervisor and the zygote, each time while a job waits for the test. Between the second
    look and the last one lie half of the jobs and half of the deaths."""
    every = jobs // deaths
    write(experiment, LIVES_LONG.replace("@JOBS@", str(jobs)).replace("@EVERY@", str(every)))
    supervisor = experiment.start()
    looks = []
    for quarter in range(4):
        wait_for(lambda seen=quarter: len(waiting(experiment)) > seen or supervisor.poll() is not None)
        job = waiting(experiment)[quarter]
        (zygote,) = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
        pids = (supervisor.pid, int(zygote))
        looks.append([(resident(pid), len(os.listdir(f"/proc/{pid}/fd"))) for pid in pids])
        Path(f"{experiment.executions_file}.{job}").touch()
    _, err = supervisor.communicate(timeout=600)
    assert supervisor.returncode == 0, err[-2000:]
    statistics = experiment.statistics()
    assert (statistics["counts"]["completed"], statistics["crashes"]) == (jobs, deaths)
    for (before, descriptors), (after, more) in zip(looks[1], looks[3], strict=True):
        assert after - before < 8 << 20, looks  # what a process may take for a moment
        # A checkpoint that is being written, a worker that is being started. One of five deaths would leave as many.
        assert more <= descriptors + 8, looks
