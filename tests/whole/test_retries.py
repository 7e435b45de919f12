"""Other attempts in the whole program: by cause, by wish, and after a kill."""

from __future__ import annotations

import signal
import time

from tests.experiment_fixture import PATIENCE, Experiment, wait_for

SCRIPT = """
    from workers import GiveUp, Retry

    def jobs():
        yield Job(id="hangs", params={"kind": "hangs"}, timeout=0.3)
        yield Job(id="hangs once", params={"kind": "hangs once"}, timeout="1s")
        yield Job(id="raises", params={"kind": "raises"}, retries=2)
        yield Job(id="gives up", params={"kind": "gives up"}, retries=5)
        yield Job(id="fine", params={"kind": "fine"})

    def evaluate(kind):
        note("ran")
        if kind == "hangs" or (kind == "hangs once" and current_job().attempt == 1):
            time.sleep(600)
        if kind == "raises":
            raise ValueError("no")
        if kind == "gives up":
            raise GiveUp("of no use")
        return kind

    if __name__ == "__main__":
        main(evaluate, jobs, name="retries", workers=2, all_tasks=True)
"""


def test_each_cause_has_its_budget_and_a_job_its_own(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    done = experiment.run("--retry-timeouts", "1", "--backoff", "0.1")
    assert done.returncode == 1, done.stderr
    final = experiment.final()
    attempts = {job: (entry["state"], entry["attempts"]) for job, entry in final.items()}
    assert attempts == {
        "hangs": ("failed", 2),
        "hangs once": ("completed", 2),
        "raises": ("failed", 3),
        "gives up": ("failed", 1),
        "fine": ("completed", 1),
    }
    assert final["gives up"]["error"]["gave_up"] is True
    assert experiment.checkpoint()["settings"]["retry_timeouts"] == 1


WAITS = """
    from workers import Retry

    def jobs():
        return [Job(id="waits", params={})]

    def evaluate():
        note("ran")
        if current_job().attempt == 1:
            raise Retry("not yet", after=3600)
        return "there"

    if __name__ == "__main__":
        main(evaluate, jobs, name="waits", workers=1)
"""


def test_a_run_that_only_waits_costs_nothing_and_drains_at_once(experiment: Experiment) -> None:
    experiment.write(WAITS)
    process = experiment.start()
    wait_for(lambda: [r for r in experiment_records(experiment) if r["type"] == "ended"])
    wait_for(lambda: rests(process.pid), "a second without work")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert "1 job waits for another attempt, the first for 3600 s" in err
    assert experiment.run("--resume", "latest").returncode == 0
    assert experiment.executions() == ["waits", "waits"]


def experiment_records(experiment: Experiment) -> list[dict[str, object]]:
    return experiment.journal() if list(experiment.output.glob("logs/journal_*")) else []


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rests(pid: int) -> bool:
    """Whether it does next to nothing for a second. Just after a start it still imports what it needs later."""
    before = cpu_seconds(pid)
    time.sleep(1.0)
    return cpu_seconds(pid) - before < 0.1


def test_a_changed_timeout_in_the_script_is_no_changed_parameter(experiment: Experiment) -> None:
    experiment.write(SCRIPT)
    experiment.run("--backoff", "0")
    experiment.write(SCRIPT.replace("timeout=0.3", "timeout=0.2, priority=3"))
    done = experiment.run("--resume", "latest", "--no-retry-failed")
    assert done.returncode == 1, done.stderr  # not 2: nothing is refused
    assert "--changed" not in done.stderr
    lines = experiment.path("plan").read_text().splitlines()
    assert len(lines) == 6
    assert '"timeout":0.2,"priority":3' in lines[-1]


BAD_SETTINGS = [
    ('timeout="soon"', ["job 'bad'", "timeout='soon'", "duration"]),
    ("timeout=-1", ["job 'bad'", "timeout=-1", "more than 0 s"]),
    ("timeout=True", ["job 'bad'", "timeout=True", "duration"]),
    ("timeout=[1]", ["job 'bad'", "timeout=[1]"]),
    ("retries=-1", ["job 'bad'", "retries=-1", "at least 0"]),
    ("retries=1.5", ["job 'bad'", "retries=1.5", "whole number"]),
    ("priority=0.5", ["job 'bad'", "priority=0.5", "whole number"]),
    ("priority=True", ["job 'bad'", "priority=True"]),
    ("priority=None", ["job 'bad'", "priority=None"]),
]


def test_a_bad_setting_names_its_job_and_nothing_is_made(experiment: Experiment) -> None:
    scripts = [
        SCRIPT.replace('id="raises", ', f'id="bad", {setting}, ').replace(", retries=2", "")
        for setting, _ in BAD_SETTINGS
    ]
    answers = experiment.refused([()] * len(scripts), scripts)
    for (setting, words), done in zip(BAD_SETTINGS, answers, strict=True):
        assert (done.returncode, done.made) == (2, False), (setting, done.stderr)
        for word in words:
            assert word in done.stderr
        assert "Traceback" not in done.stderr
