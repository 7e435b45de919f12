"""Attacks beyond the catalogue: jobs that turn on their own runner, files that are taken away
under it, and surroundings that a program does not expect to be started in."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.bad_disks import needs_root
from tests.failures.observing import (
    open_gate,
    others_completed,
    outcomes,
    parent_of,
    records,
    said,
    stop,
    wait_until_said,
    write,
)

# ------------------------------------------------------------- jobs that turn on their runner

TURN_ON_IT = """
    import shutil, signal, subprocess, tempfile
    import supervisor.engines.worker_process
    supervisor.engines.worker_process.RECONNECT_WITHIN = 0.2

    def garbage():
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            if descriptor < 3:
                continue
            try:
                os.set_blocking(descriptor, False)
                os.write(descriptor, b"\\xff" * 100_000)
            except OSError:
                continue

    def leave_files_open():
        while len(os.listdir("/proc/self/fd")) < 256:
            KEPT.append(open("/dev/null"))

    def hop():  # a process that is always another one
        if os.fork() == 0:
            os.setsid()
            until = time.monotonic() + 60
            while time.monotonic() < until:
                if os.fork():
                    os._exit(0)
        os._exit(1)

    KEPT = []
    DIE = {
        "kills_its_group": lambda: os.killpg(0, signal.SIGKILL),
        "writes_garbage_everywhere": garbage,
        "becomes_another_program": lambda: os.execvp("sleep", ["sleep", "1000"]),
        "starts_a_hundred": lambda: ([subprocess.Popen(["sleep", "1000"], start_new_session=True)
                                      for _ in range(100)], os._exit(3)),
        "hops": hop,
        "kills_parent_and_itself": lambda: (os.kill(os.getppid(), signal.SIGKILL), os._exit(1)),
    }
    LIVE = {
        "has_its_queue_elsewhere": lambda: [os.dup2(0, descriptor) for descriptor in range(3, 200)],
        "closes_everything": lambda: os.closerange(0, 1000),
        "kills_its_parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
        "joins_the_group_of_its_parent": lambda: os.setpgid(0, os.getpgid(os.getppid())),
        "deletes_its_directory": lambda: (os.chdir(tempfile.mkdtemp(dir=".")), os.rmdir(os.getcwd())),
        "deletes_the_logs_of_jobs": lambda: [shutil.rmtree(path) for path in Path("out").glob("*/output")],
        "leaves_files_open": leave_files_open,
        "becomes_somebody_else": lambda: os.geteuid() or os.seteuid(65534),
        "forks_and_returns_twice": os.fork,
        "stops_its_parent": lambda: os.kill(os.getppid(), signal.SIGSTOP),
    }

    def jobs():
        for number, name in enumerate([*DIE, *LIVE]):
            yield Job(id=name, params={"name": name})
            yield Job(id=f"good/{number}", params={"name": ""})

    def evaluate(name):
        if name:
            {**DIE, **LIVE}[name]()
            return name
        time.sleep(0.02)
        open("/dev/null").close()
        return os.geteuid()

    if __name__ == "__main__":
        main(evaluate, jobs, name="turn", workers=2, crash_limit=1)
"""
DIE = {
    "kills_its_group",
    "writes_garbage_everywhere",
    "becomes_another_program",
    "starts_a_hundred",
    "hops",
    "kills_parent_and_itself",
}


def test_jobs_that_turn_on_their_runner_harm_only_themselves(experiment: Experiment) -> None:
    """Each is a crash of its own or completed; no neighbour crashes, fails or sees anything of it."""
    write(experiment, TURN_ON_IT)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = experiment.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, most)))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    final = experiment.final()
    failed = {job: entry["error"]["outcome"] for job, entry in final.items() if entry["state"] == "failed"}
    assert failed == dict.fromkeys(DIE, "crashed"), done.stderr
    assert {entry["result"] for job, entry in final.items() if job.startswith("good/")} == {os.geteuid()}
    assert {record["job"] for record in records(experiment, "ended", outcome="crashed")} == DIE
    assert "the job has closed the queue" in final["becomes_another_program"]["error"]["output_tail"]
    assert not experiment.processes()


# ------------------------------------------------------------------ files that are taken away

GATED = """
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


@pytest.mark.parametrize("what", some(["everything", "journal"], 1))
def test_a_journal_that_is_removed_under_the_run_is_written_again(experiment: Experiment, what: str) -> None:
    """It is read back from the file that has no name any more: after a kill all is there."""
    write(experiment, GATED)
    supervisor = experiment.start("--experiment-id", "e1")
    wait_until_said(experiment, "ran", "job/3")
    wait_for(lambda: len(experiment.completed_in_journal()) == 3)
    if what == "journal":
        experiment.path("journal").unlink()
    else:
        shutil.rmtree(experiment.output)
    open_gate(experiment, "on3")
    wait_until_said(experiment, "ran", "job/8")
    journal = experiment.output / "logs" / "journal_e1.jsonl"
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b'"outcome":"completed"') == 8)
    assert supervisor.stderr is not None
    assert any(f"Somebody has removed {journal}" in line for line in supervisor.stderr)
    supervisor.kill()
    supervisor.communicate()
    open_gate(experiment, "on8")
    done = experiment.run("--resume", "e1")
    assert done.returncode == 0, done.stderr
    assert experiment.executions() == [f"job/{number}" for number in (*range(9), *range(8, 12))]
    assert [entry["result"] for entry in experiment.final().values()] == list(range(12))


# --------------------------------------------------------------------- strange surroundings

CRASHES = """
    import signal

    def jobs():
        return [Job(id="crashes")] + [Job(id=f"good/{number}") for number in range(4)]

    def evaluate():
        note("ran")
        if current_job().id == "crashes":
            gate("on")
            os.kill(os.getpid(), signal.SIGKILL)

    if __name__ == "__main__":
        @BEFORE@
        main(evaluate, jobs, name="crashes", workers=2, crash_limit=1)
"""


def crashes(experiment: Experiment, before: str = "pass") -> None:
    write(experiment, CRASHES.replace("@BEFORE@", before))


# The other way a script makes of SIGCHLD what it wants: tests/real_scripts/test_children.py.
@pytest.mark.parametrize("method", some(["zygote", "spawn"], 1))
def test_who_ignores_the_deaths_of_children_still_learns_how_they_died(
    experiment: Experiment, method: str
) -> None:
    """`trap '' CHLD` is inherited, and wait() finds nothing then: "exit code 0" would be a lie."""
    crashes(experiment)
    open_gate(experiment, "on")
    done = experiment.run(
        "--start-method", method, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    )
    assert done.returncode == 1, done.stderr
    assert experiment.final()["crashes"]["error"]["signal"] == signal.SIGKILL
    others_completed(experiment, "crashes")


@pytest.mark.parametrize("signum", some([signal.SIGINT, signal.SIGTERM], 1))
def test_signals_that_were_blocked_from_birth_drain_all_the_same(
    experiment: Experiment, signum: signal.Signals
) -> None:
    crashes(experiment)
    supervisor = experiment.start(
        "--grace", "0.2", preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    )
    wait_until_said(experiment, "ran", "crashes")
    supervisor.send_signal(signum)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signum, err
    assert outcomes(experiment, "crashes") == ["interrupted"]


def test_without_descriptors_of_processes_workers_are_started_anew(experiment: Experiment) -> None:
    """Kernels before 5.3 and some sandboxes have no pidfd_open."""
    crashes(
        experiment,
        'def refuse(*_): raise OSError(38, "Function not implemented")\n        os.pidfd_open = refuse',
    )
    open_gate(experiment, "on")
    refused = experiment.run("--start-method", "zygote", "--experiment-id", "e1")
    assert refused.returncode == 2, refused.stderr
    assert "kernel 5.3" in refused.stderr
    done = experiment.run("--experiment-id", "e1", "--resume", "auto", "--start-method", "auto")
    assert done.returncode == 1, done.stderr
    assert outcomes(experiment, "crashes") == ["crashed"]
    others_completed(experiment, "crashes")


@needs_root("unshare", "umount")
def test_without_proc_a_start_is_refused_in_words(experiment: Experiment) -> None:
    crashes(experiment)
    bare = ["unshare", "--mount", "sh", "-c", 'umount -l /proc && exec "$@"', "sh"]
    done = experiment.run(wrapper=bare)
    assert (done.returncode, "/proc is not mounted" in done.stderr) == (2, True), done.stderr
    assert not experiment.output.exists()


@needs_root("unshare")
@pytest.mark.parametrize("signum", some([signal.SIGTERM, signal.SIGINT], 1))
def test_the_first_process_of_a_container_drains_and_ends_with_the_code_of_the_signal(
    experiment: Experiment, signum: signal.Signals
) -> None:
    """The kernel does not let pid 1 die of its own signals."""
    crashes(experiment)
    started = experiment.start("--grace", "0.2", wrapper=["unshare", "--pid", "--fork", "--mount-proc"])
    wait_for(lambda: len(said(experiment, "ran")) == 5)  # with pids of their own
    (first,) = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(first), signum)
    _, err = started.communicate(timeout=PATIENCE)
    assert started.returncode == 128 + signum, err
    assert len(experiment.completed_in_journal()) == 4


def test_a_reader_who_stands_still_keeps_neither_the_lock_nor_a_deaf_program(experiment: Experiment) -> None:
    """A paused pager, Ctrl+S: the run is over before its last words are taken, the next one may
    begin, and Ctrl+C ends the wait."""
    crashes(experiment)
    open_gate(experiment, "on")
    unread, stuffed = os.pipe()
    fcntl.fcntl(stuffed, fcntl.F_SETPIPE_SZ, 4096)
    os.write(stuffed, b"x" * 4096)
    command = ["sh", "-c", f'exec "$@" 2>/proc/self/fd/{stuffed}', "sh"]
    supervisor = experiment.start("--experiment-id", "e1", wrapper=command, pass_fds=(stuffed,))
    wait_for((experiment.output / "e1" / "statistics.json").exists)
    again = wait_for(lambda: (done := experiment.run("--resume", "e1")).returncode != 2 and done)
    assert again.returncode == 1, again.stderr
    assert supervisor.poll() is None
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(timeout=PATIENCE) == 1
    os.close(stuffed)
    os.close(unread)


# ------------------------------------------------------------------------- in mid-run

NOT_TOLD = """import supervisor.engines.worker_process
        import workers.transport.supervisor_queues
        supervisor.engines.worker_process.RECONNECT_WITHIN = 0.2
        # A short message that the pipe does not take whole goes the way of a long one.
        workers.transport.supervisor_queues.InboxWriter._takes = lambda writer, whole: False

        def refuse(descriptor, parts, write=os.writev, calls=[]):
            calls.append(descriptor)
            if len(calls) == 3:
                raise OSError(5, "Input/output error")
            return write(descriptor, parts)

        os.writev = refuse"""


def test_a_worker_that_cannot_be_told_anything_is_replaced(experiment: Experiment) -> None:
    """The system refuses a write to its pipe: what it was to hear is lost, and would never come."""
    crashes(experiment, NOT_TOLD)
    open_gate(experiment, "on")
    done = experiment.run()
    assert done.returncode == 1, done.stderr
    assert "it could not be written to" in done.stderr
    assert {e["state"] for e in experiment.final().values()} == {"completed", "failed"}


def test_a_run_without_descriptors_goes_on_with_the_workers_that_there_are(experiment: Experiment) -> None:
    """One worker dies while the supervisor can open nothing; later there is room again."""
    crashes(experiment)
    text = experiment.script.read_text().replace("range(4)", "range(40)")
    experiment.script.write_text(text.replace('note("ran")\n', 'note("ran"); time.sleep(0.05)\n'))
    supervisor = experiment.start("--checkpoint-every", "1000")
    wait_until_said(experiment, "ran", "crashes")
    before = resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE)
    few = len(os.listdir(f"/proc/{supervisor.pid}/fd")) - 4
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, (few, before[1]))
    open_gate(experiment, "on")
    wait_for(lambda: outcomes(experiment, "crashes") or supervisor.poll() is not None)
    resource.prlimit(supervisor.pid, resource.RLIMIT_NOFILE, before)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 1, err
    assert "Traceback" not in err
    others_completed(experiment, "crashes")


def test_a_zygote_that_stands_still_does_not_hold_up_the_end(experiment: Experiment) -> None:
    """Promise 8: the grace time plus two seconds."""
    crashes(experiment)
    supervisor = experiment.start("--grace", "0.5")
    worker = wait_until_said(experiment, "ran", "crashes")
    wait_for(lambda: len(experiment.completed_in_journal()) == 4)
    stop(parent_of(worker))
    supervisor.send_signal(signal.SIGINT)
    asked = time.monotonic()
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    (ended,) = records(experiment, "run_ended")
    assert time.monotonic() - asked < PATIENCE / 2, err  # two and a half, and a busy machine
    assert ended["state"] == "interrupted"


def test_what_goes_wrong_on_the_way_out_is_told_in_words(experiment: Experiment) -> None:
    """The results cannot be opened for the final files; a resume writes them."""
    refuse = (
        "from supervisor.storage.files.disk import Disk\n"
        "        Disk.duplicate = lambda *_: os.open('/no/room', 0)"
    )
    crashes(experiment, refuse)
    open_gate(experiment, "on")
    done = experiment.run()
    assert done.returncode == 74, done.stderr
    assert "Traceback" not in done.stderr and "What was recorded is safe" in done.stderr
    crashes(experiment)
    again = experiment.run("--resume", "latest", "--no-retry-failed")
    assert again.returncode == 1, again.stderr
    others_completed(experiment, "crashes")
