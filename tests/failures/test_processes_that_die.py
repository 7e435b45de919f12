"""Workers that die in the middle of anything, and what they leave behind (P2, P5, P7, P11 to P13, P25)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.conftest import some
from tests.experiment_fixture import Experiment, wait_for
from tests.failures.observing import (
    is_gone,
    kill,
    open_gate,
    others_completed,
    outcomes,
    parent_of,
    records,
    standing_still,
    wait_until_said,
    write,
)

BIG_RESULT = """
    def jobs():
        yield Job(id="big", params={"number": -1})
        for number in range(10):
            yield Job(id=f"good/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        if number >= 0:
            return number
        gate("finish")
        when_main_is_in("_send_long", lambda job: note("sending", job))
        return "x" * 5_000_000

    if __name__ == "__main__":
        main(evaluate, jobs, name="big", workers=2)
"""


def test_a_worker_killed_in_mid_send_costs_one_attempt(experiment: Experiment) -> None:
    """P2: the fragment of a result of 5 MB is dropped, the job runs again."""
    write(experiment, BIG_RESULT)
    supervisor = experiment.start()
    wait_until_said(experiment, "ran", "big")
    with standing_still(supervisor.pid):  # the pipe holds a fifth of the result
        open_gate(experiment, "finish")
        worker = wait_until_said(experiment, "sending", "big")
        kill(worker)
        wait_for(lambda: is_gone(worker))
    _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 0, err
    assert outcomes(experiment, "big") == ["crashed", "completed"]
    assert experiment.final()["big"]["result"] == "x" * 5_000_000
    others_completed(experiment, "big")


@pytest.mark.parametrize("method", some(["zygote", "spawn"], 1))
def test_a_child_that_holds_the_pipes_open_does_not_hide_its_parents_death(
    experiment: Experiment, method: str
) -> None:
    """P5: the job forks, without exec; its child has both queues, and lives in another session."""
    write(
        experiment,
        """
        import signal

        def jobs():
            yield Job(id="forks", params={"number": -1})
            for number in range(5):
                yield Job(id=f"good/{number}", params={"number": number})

        def evaluate(number):
            if number >= 0:
                return number
            child = os.fork()
            if child == 0:
                os.setsid()
                note("child")
                time.sleep(1000)
            gate("die")
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            main(evaluate, jobs, name="forks", workers=2, crash_limit=1)
        """,
    )
    supervisor = experiment.start("--start-method", method)
    child = wait_until_said(experiment, "child", "forks")
    open_gate(experiment, "die")
    _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 1, err
    assert outcomes(experiment, "forks") == ["crashed"]
    assert is_gone(child)
    others_completed(experiment, "forks")


LEAVES_CHILDREN = """
    import signal, subprocess

    def jobs():
        yield Job(id="leaves", params={"what": "leave"}, timeout=@TIMEOUT@)
        yield Job(id="good", params={"what": "wait"})

    def evaluate(what):
        if what == "wait":
            gate("finish")
            return "fine"
        subprocess.Popen(["sleep", "1000"])
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        subprocess.Popen(["timeout", "900", "sleep", "1000"])  # leads a group of its own
        subprocess.Popen(["sh", "-c", "sleep 1000 & exec true"]).wait()  # nobody's child any more
        note("left")
        if @CRASH@:
            gate("crash")
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(1000)

    if __name__ == "__main__":
        main(evaluate, jobs, name="leaves", workers=2, crash_limit=1)
"""


def leaves_children(experiment: Experiment, *, crash: bool = False, timeout: float | None = None) -> None:
    write(experiment, LEAVES_CHILDREN.replace("@CRASH@", str(crash)).replace("@TIMEOUT@", str(timeout)))


def sleepers(experiment: Experiment) -> list[int]:
    """Pids of the programs that the job has started."""
    found = []
    for pid in experiment.processes():
        try:
            with open(f"/proc/{pid}/comm") as file:
                found += [pid] if file.read().strip() in ("sleep", "timeout") else []
        except OSError:
            continue
    return found


# After a crash: tests/real_scripts/test_orphans.py as well.
@pytest.mark.parametrize("end", some(["timeout", "crash"], 1))
def test_what_a_job_has_started_ends_with_its_worker(experiment: Experiment, end: str) -> None:
    """P7: a plain child, one in another session, one in another group, one without a parent."""
    leaves_children(experiment, crash=end == "crash", timeout=1 if end == "timeout" else None)
    supervisor = experiment.start()
    if end == "crash":
        wait_until_said(experiment, "left", "leaves")
        wait_for(lambda: len(sleepers(experiment)) == 5)
        open_gate(experiment, "crash")
    wait_for(lambda: outcomes(experiment, "leaves"))
    wait_for(lambda: not sleepers(experiment), "children outlive their job while the run goes on")
    assert supervisor.poll() is None
    open_gate(experiment, "finish")
    _, err = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 1, err
    assert outcomes(experiment, "leaves") == ["crashed" if end == "crash" else "timed_out"]
    assert outcomes(experiment, "good") == ["completed"]


def test_what_a_job_has_started_ends_with_the_supervisor(experiment: Experiment) -> None:
    """P7: kill -9 of the supervisor ends workers, children and grandchildren."""
    leaves_children(experiment)
    supervisor = experiment.start()
    wait_until_said(experiment, "left", "leaves")
    wait_for(lambda: len(sleepers(experiment)) == 5)
    supervisor.kill()
    wait_for(lambda: not experiment.processes(), "processes outlive their supervisor")


def test_plain_children_end_with_the_supervisor_though_nobody_is_left_to_end_them(
    experiment: Experiment,
) -> None:
    """P6: the lifeline is owned by the group of the worker. Without the zygote nothing else ends
    what the job has started; what has left the group waits for the next resume."""
    leaves_children(experiment)
    supervisor = experiment.start()
    worker = wait_until_said(experiment, "left", "leaves")
    started = wait_for(lambda: len(found := sleepers(experiment)) == 5 and found)
    plain = [pid for pid in started if os.getpgid(pid) == worker]
    assert plain
    try:
        with standing_still(supervisor.pid):
            kill(parent_of(worker))
            supervisor.kill()
        wait_for(lambda: is_gone(worker) and all(map(is_gone, plain)), "they outlive their supervisor")
    finally:
        for pid in started:
            kill(pid)


WAYS_TO_END = {
    "exit with 0": "os._exit(0)",
    "segfault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "stack overflow": "overflow()",
    "sys.exit": "sys.exit(0)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
}


def test_however_a_job_ends_its_process_the_job_is_not_lost(experiment: Experiment) -> None:
    """P11: an end without a result is a crash, whatever the exit code; SystemExit is `raised`."""
    lines = "\n".join(f"        {way!r}: lambda: {code}," for way, code in WAYS_TO_END.items())
    write(
        experiment,
        """
        import ctypes, resource, signal

        def overflow():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_STACK, (1 << 16, 1 << 16))
            step = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda depth: depth and step(depth - 1))
            step(200)

        WAYS = {
        @WAYS@
        }

        def jobs():
            for way in WAYS:
                yield Job(id=way.replace(" ", "_"), params={"way": way})
            for number in range(10):
                yield Job(id=f"good/{number}", params={"way": ""})

        def evaluate(way):
            if way:
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                WAYS[way]()
            return "fine"

        if __name__ == "__main__":
            main(evaluate, jobs, name="ways", workers=2, crash_limit=2)
        """.replace("        @WAYS@", lines),
    )
    done = experiment.run()
    assert done.returncode == 1, done.stderr
    ends = {job: outcomes(experiment, job.replace(" ", "_")) for job in WAYS_TO_END}
    assert ends == {way: ["raised"] if way == "sys.exit" else ["crashed", "crashed"] for way in WAYS_TO_END}
    final = experiment.final()
    assert final["exit_with_0"]["error"]["exit_code"] == 0
    assert final["abort"]["error"]["signal"] == signal.SIGABRT
    assert final["stack_overflow"]["error"]["signal"] == signal.SIGSEGV
    others_completed(experiment, *(way.replace(" ", "_") for way in WAYS_TO_END))


def test_a_poison_job_is_blamed_alone_and_its_batch_goes_on(experiment: Experiment) -> None:
    """P12: jobs of no length, so that they are handed out in batches."""
    write(
        experiment,
        """
        def jobs():
            return [Job(id=f"job/{number}", params={"number": number}) for number in range(2000)]

        def evaluate(number):
            if number == 1500:
                note("ran")
                os.abort()
            return number

        if __name__ == "__main__":
            main(evaluate, jobs, name="poison", workers=2)
        """,
    )
    done = experiment.run()
    assert done.returncode == 1, done.stderr
    leases = [record["jobs"] for record in records(experiment, "leased")]
    assert max(map(len, leases)) > 1, "there was no batch for the poison to spoil"
    assert ["job/1500"] in leases, "once suspected, it is handed out alone"
    assert outcomes(experiment, "job/1500") == ["crashed"] * 3
    assert experiment.final()["job/1500"]["error"]["quarantined"]
    assert experiment.executions() == ["job/1500"] * 3
    others_completed(experiment, "job/1500")


def test_the_budget_of_a_poison_job_survives_kills_of_the_supervisor(experiment: Experiment) -> None:
    """P13: three crashes in three runs, each but the last ended by kill -9: no fourth."""
    write(
        experiment,
        """
        def jobs():
            return [Job(id="poison"), Job(id="good")]

        def evaluate():
            note("ran")
            if current_job().id == "poison":
                gate(f"crash{current_job().attempt}")
                os.abort()

        if __name__ == "__main__":
            main(evaluate, jobs, name="poison", workers=1)
        """,
    )
    arguments: list[str] = []
    for attempt in (1, 3):  # this one crashes; the next is at work when the supervisor dies
        supervisor = experiment.start(*arguments)
        wait_until_said(experiment, "ran", "poison", times=attempt)
        open_gate(experiment, f"crash{attempt}")
        wait_until_said(experiment, "ran", "poison", times=attempt + 1)
        supervisor.kill()
        supervisor.communicate()
        wait_for(lambda: not experiment.processes())
        arguments = ["--resume", "latest"]
    open_gate(experiment, "crash5")
    done = experiment.run("--resume", "latest")
    assert done.returncode == 1, done.stderr
    assert outcomes(experiment, "poison") == ["crashed", "lost", "crashed", "lost", "crashed"]
    assert experiment.final()["poison"]["error"]["quarantined"]
    again = experiment.run("--resume", "latest", "--no-retry-failed")
    assert again.returncode == 1, again.stderr
    assert experiment.executions().count("poison") == 5


def test_a_job_that_finished_unrecorded_runs_twice_and_is_kept_once(experiment: Experiment) -> None:
    """P25: at least once. Its outcome is in the pipe when the supervisor is killed."""
    write(
        experiment,
        """
        def jobs():
            return [Job(id=f"job/{number}", params={"number": number}) for number in range(4)]

        def evaluate(number):
            note("ran")
            if number == 0:
                gate("finish")
                when_main_is_in("receive_payload", lambda job: note("sent", job))
            return number

        if __name__ == "__main__":
            main(evaluate, jobs, name="twice", workers=1)
        """,
    )
    supervisor = experiment.start()
    wait_until_said(experiment, "ran", "job/0")
    with standing_still(supervisor.pid):
        open_gate(experiment, "finish")
        wait_until_said(experiment, "sent", "job/0")
        supervisor.kill()
    supervisor.communicate()
    assert outcomes(experiment, "job/0") == []
    done = experiment.run("--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert experiment.executions().count("job/0") == 2
    assert [(r["attempt"], r["outcome"]) for r in records(experiment, "ended", job="job/0")] == [
        (1, "lost"),
        (2, "completed"),
    ]
    others_completed(experiment, "job/0")
