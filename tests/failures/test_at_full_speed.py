"""Jobs of no length, some hundred thousand a second: the promises hold for batches as well.

What a job that takes nothing has done cannot be noted outside of the program without slowing it
down a hundred times. So the journal itself is asked: once it says that a job is completed, no
later record may hand that job out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.experiment_fixture import Experiment, wait_for
from tests.failures.observing import kill, records, state_of

# Five seconds each on an idle core.
pytestmark = pytest.mark.timeout(300)

JOBS = 60_000
TENTH = JOBS // 10
STEP = 100 * TENTH  # bytes of a journal, about a tenth of what it has in the end
LARGE = 500  # leases of a hand-out, where batches are at work
KILLS = 4

# 20 us each, and a gate before each tenth: else a quick machine is through before a test has looked twice.
NOTHING = f"""
    def jobs():
        for number in range({JOBS}):
            yield Job(id=f"job/{{number}}", params={{"number": number}})

    def evaluate(number):
        end = time.perf_counter() + 2e-5
        while time.perf_counter() < end:
            pass
        tenth, rest = divmod(number, {TENTH})
        if tenth and not rest:
            waits = Path(f"waits_{{tenth}}")
            waits.touch()
            while not Path(f"gate_{{tenth}}").exists():
                time.sleep(0.005)
            waits.unlink(missing_ok=True)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="speed", workers=2)
"""


def completions(experiment: Experiment) -> int:
    found = [path.read_bytes() for path in experiment.output.glob("logs/journal_*.jsonl")]
    return sum(text.count(b'"outcome":"completed"') for text in found)


def started(experiment: Experiment) -> list[int]:
    """The pids of all workers so far; found quickly, or they would be out of work."""
    lines = experiment.path("journal").read_bytes().split(b"\n")
    return [json.loads(line)["pid"] for line in lines if b'"type":"worker_started"' in line[:40]]


def run_until(experiment: Experiment, supervisor: subprocess.Popen[str], tenths: int) -> None:
    """Until a little more than so many tenths have run. Then the workers are at full speed, or if this was slow to see
    it they stand at the next two gates."""
    open_gates(experiment, tenths)

    def there() -> bool:
        assert supervisor.poll() is None, supervisor.communicate()
        # Where a worker got no processor, its jobs may lie with one that stands at a gate, and both stand.
        both_stand = len(list(experiment.folder.glob("waits_*"))) >= 2
        return both_stand or completions(experiment) > tenths * TENTH + LARGE

    wait_for(there, f"{tenths} tenths of the jobs never ended")


def run_on(experiment: Experiment, supervisor: subprocess.Popen[str]) -> str:
    """To the end; what it has printed to stderr."""
    open_gates(experiment, 9)
    _, err = supervisor.communicate(timeout=120)
    return err


def open_gates(experiment: Experiment, number: int) -> None:
    for gate in range(1, number + 1):
        (experiment.folder / f"gate_{gate}").touch()


def check(experiment: Experiment) -> None:
    """Every job completed, recorded once, and not handed out afterwards; nothing is missing. A
    crash is that of the first job without an outcome of those that its worker held."""
    completed: set[str] = set()
    held: dict[int, dict[int, None]] = {}  # leases by the worker's incarnation, in order
    holder: dict[int, int] = {}
    sizes = []
    for n, record in enumerate(experiment.journal(), 1):
        assert record["n"] == n
        if record["type"] == "leased":
            sizes.append(len(record["jobs"]))
            assert completed.isdisjoint(record["jobs"]), "handed out after it was recorded"
            leases = dict.fromkeys(range(record["lease"], record["lease"] + len(record["jobs"])))
            held.setdefault(record["incarnation"], {}).update(leases)
            holder |= dict.fromkeys(leases, record["incarnation"])
        elif record["type"] == "returned":
            for lease in record["leases"]:
                held[record["incarnation"]].pop(lease, None)
        elif record.get("what") == "superseded":  # taken back too late from another worker, which was quicker
            lease = record["detail"]["lease"]
            held[holder[lease]].pop(lease, None)
        elif record["type"] == "ended":
            of_worker = held[holder[record["lease"]]]
            assert record["outcome"] != "crashed" or record["lease"] == next(iter(of_worker))
            of_worker.pop(record["lease"], None)
            if record["state"] == "completed":
                assert record["job"] not in completed
                assert record["result"] == int(record["job"].removeprefix("job/"))
                completed.add(record["job"])
    assert len(completed) == JOBS
    assert max(sizes) >= LARGE, "there were no batches"
    final = experiment.final()
    assert len(final) == JOBS
    assert all(entry["result"] == int(job.removeprefix("job/")) for job, entry in final.items())
    counts = experiment.statistics()["counts"]
    assert counts == {"total": JOBS, "completed": JOBS, "failed": 0, "in_progress": 0, "pending": 0}


def test_kill_9_of_the_supervisor_at_full_speed_loses_nothing_and_repeats_nothing(
    experiment: Experiment,
) -> None:
    """Twice: the second time a resume is killed."""
    experiment.write(NOTHING)
    arguments: list[str] = []
    for tenths in (1, 3):
        supervisor = experiment.start(*arguments)
        run_until(experiment, supervisor, tenths)
        supervisor.kill()
        supervisor.communicate()
        arguments = ["--resume", "latest"]
    open_gates(experiment, 9)
    done = experiment.run(*arguments)
    assert done.returncode == 0, done.stderr
    lost = Counter(record["job"] for record in records(experiment, "ended", outcome="lost"))
    assert lost.total() <= 2 * 2, "more than the workers were at"
    check(experiment)


def test_workers_that_are_killed_at_full_speed_cost_one_job_each_an_attempt(experiment: Experiment) -> None:
    experiment.write(NOTHING)
    supervisor = experiment.start()
    for oldest in range(KILLS):  # the one that came last may be at the job that the one before died of
        run_until(experiment, supervisor, oldest)
        wait_for(
            lambda oldest=oldest: len(started(experiment)) > oldest,
            "a worker that was killed is not replaced",
        )
        kill(started(experiment)[oldest])
    err = run_on(experiment, supervisor)
    assert supervisor.returncode == 0, err
    crashed = Counter(record["job"] for record in records(experiment, "ended", outcome="crashed"))
    assert 1 <= crashed.total() <= KILLS
    attempts = {job: entry["attempts"] for job, entry in experiment.final().items()}
    repeated = {job: number for job, number in attempts.items() if number != 1}
    assert repeated == {job: 1 + times for job, times in crashed.items()}
    check(experiment)


@pytest.mark.skipif(sys.platform != "linux", reason="whether a process sleeps is read from /proc")
def test_what_was_done_while_the_supervisor_stood_still_is_not_done_again(experiment: Experiment) -> None:
    """It reads what its workers have done meanwhile in parts: between two of them they are not at a long job."""
    experiment.write(NOTHING)
    supervisor = experiment.start()
    for tenths in range(1, 4):
        run_until(experiment, supervisor, tenths)
        supervisor.send_signal(signal.SIGSTOP)
        try:
            for pid in started(experiment):  # until each has done all that it holds
                wait_for(lambda pid=pid: state_of(pid) == "S", f"worker {pid} never ran out of jobs")
            time.sleep(0.1)  # longer than the time after which a job is called a long one
        finally:
            supervisor.send_signal(signal.SIGCONT)
    err = run_on(experiment, supervisor)
    assert supervisor.returncode == 0, err
    check(experiment)
    again = [record for record in experiment.journal() if record.get("what") == "superseded"]
    assert len(again) <= JOBS // 100, f"{len(again)} jobs ran twice"


def test_ctrl_c_at_full_speed_drains_and_the_resume_does_the_rest_only(experiment: Experiment) -> None:
    experiment.write(NOTHING)
    supervisor = experiment.start()
    run_until(experiment, supervisor, 1)
    supervisor.send_signal(signal.SIGINT)
    err = run_on(experiment, supervisor)
    assert supervisor.returncode == -signal.SIGINT, err
    before = experiment.statistics()["counts"]
    assert before["completed"] == len(experiment.completed_in_journal()) < JOBS
    assert (before["in_progress"], before["failed"]) == (0, 0)
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert set(Counter(e["attempts"] for e in experiment.final().values())) == {1}
    check(experiment)


@pytest.mark.exhaustive  # a cut journal: tests/storage/test_damage; a resume of batches: the kills above
def test_a_journal_cut_off_at_any_place_at_full_speed_costs_what_was_behind_it(
    experiment: Experiment,
) -> None:
    """As after a power cut: the end of the file is gone, and no checkpoint tells of it. What is
    left is not handed out again, which `check` would see."""
    experiment.write(NOTHING)
    supervisor = experiment.start()
    run_until(experiment, supervisor, 4)
    supervisor.kill()
    supervisor.communicate()
    experiment.path("checkpoint").unlink(missing_ok=True)
    journal: Path = experiment.path("journal")
    os.truncate(journal, 2 * STEP + 345)
    kept = set(experiment.completed_in_journal())
    assert LARGE < len(kept) < JOBS
    open_gates(experiment, 9)
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    check(experiment)
