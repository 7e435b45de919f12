"""Processes that outlive their run, and those that only look like it (P8, P9, P16)."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from supervisor.core.state.run_history import RunHistory
from supervisor.core.terms.records import RunStarted, WorkerEnded, WorkerStarted
from supervisor.system.process_cleanup import end_recorded, sweep
from supervisor.system.processes import start_time
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.observing import (
    is_gone,
    kill,
    outcomes,
    parent_of,
    said,
    standing_still,
    state_of,
    wait_until_said,
    write,
)
from workers.process.experiment_tag import EXPERIMENT_TAG

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the lifeline is cut by way of /proc")

CUTS_ITSELF_LOOSE = """
    import ctypes, fcntl, subprocess

    def cut_the_lifeline():
        for descriptor in map(int, os.listdir("/proc/self/fd")):
            try:
                flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_ASYNC)
            except OSError:
                continue

    def wipe_the_mark():  # as setproctitle does, by accident
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[47]), int(fields[48])
        ctypes.memset(start, 0, end - start)

    def lives(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(3)]

    def evaluate(number):
        if number == 2 or current_job().attempt > 1:
            for word, job, pid in map(str.split, Path(LOG).read_text().splitlines()):
                if word == "loose" and lives(pid):
                    note("overlap")
        else:
            cut_the_lifeline()
            if @WIPE@:
                wipe_the_mark()
            child = subprocess.Popen(["sleep", "1000"], env={} if @WIPE@ else None, start_new_session=True)
            with open(LOG, "a") as file:
                file.write(f"loose {current_job().id}/child {child.pid}\\n")
            note("loose")
            time.sleep(1000)
        return number

    if __name__ == "__main__":
        main(evaluate, jobs, name="loose", workers=2)
"""


@linux_only
@pytest.mark.parametrize("wipe", [False, True], ids=["marked", "mark wiped out"])
def test_a_resume_ends_what_still_computes_before_it_hands_out_a_job(
    experiment: Experiment, wipe: bool
) -> None:
    """P8: lifeline cut, zygote and supervisor killed together. Known by the mark, else by pid, start
    time and boot id from the journal."""
    write(experiment, CUTS_ITSELF_LOOSE.replace("@WIPE@", str(wipe)))
    supervisor = experiment.start()
    workers = [wait_until_said(experiment, "loose", f"job/{number}") for number in range(2)]
    loose = [pid for _, pid in said(experiment, "loose")]
    try:
        with standing_still(supervisor.pid):
            kill(parent_of(workers[0]))
            if not wipe:  # its child is nobody's descendant then
                kill(workers[1])
                wait_for(lambda: is_gone(workers[1]))
            supervisor.kill()
        supervisor.communicate()
        left = [pid for pid in loose if not is_gone(pid)]
        assert len(left) == (4 if wipe else 3), "what is to be ended has gone by itself"
        done = experiment.run("--resume", "latest")
        assert done.returncode == 0, done.stderr
        assert said(experiment, "overlap") == []
        assert all(map(is_gone, loose))
        assert "ended processes of an earlier run" in done.stderr
        assert all(str(pid) in done.stderr for pid in left)
        assert outcomes(experiment, "job/0") == ["lost", "completed"]
    finally:
        for pid in loose:
            kill(pid)


def test_a_pid_that_means_another_process_by_now_is_left_alone() -> None:
    """P9: pids are reused; only the same start time makes it the same process."""
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            begun = start_time(stranger.pid)
            assert end_recorded([(stranger.pid, begun - 1.0), (stranger.pid, 0.0), (2**22, begun)]) == []
            assert state_of(stranger.pid) not in ("", "Z")
            assert end_recorded([(stranger.pid, begun)]) == [stranger.pid]
        finally:
            stranger.kill()


def test_pids_of_an_earlier_boot_mean_nothing() -> None:
    """P9: after a restart of the machine none of them is looked for."""
    facts = RunHistory()
    facts.apply(RunStarted(run=1, at="", boot_id="this one"))
    facts.apply(WorkerStarted(0, 1, 4711, "", 17.5))
    facts.apply(WorkerStarted(1, 2, 4712, "", 17.5))
    facts.apply(WorkerEnded(1, 2, "finished", ""))
    assert facts.survivors("this one") == [(4711, 17.5)]
    assert facts.survivors("another one") == []


def test_pids_of_another_host_or_container_mean_nothing_here() -> None:
    """Machines that were started at the same time give the same pids to processes that begin in the same moment."""
    facts = RunHistory()
    facts.apply(RunStarted(run=1, at="", boot_id="boot/1"))
    facts.apply(WorkerStarted(0, 1, 4711, "", 17.5))
    facts.apply(WorkerStarted(1, 2, 4711, "", 17.5, "boot/2", 35.0))
    assert facts.survivors("boot/1") == [(4711, 17.5)] and list(facts.elsewhere("boot/1")) == [2]
    assert facts.survivors("boot/2") == [(4711, 17.5)] and facts.elsewhere("boot/2") == {}
    assert facts.survivors("boot/3") == [] and list(facts.elsewhere("boot/3")) == [2]
    for run in (2, 3, 4):  # none of which could tell whether it has ended
        facts.apply(RunStarted(run=run, at="", boot_id="boot/1"))
    assert facts.survivors("boot/1") == [] and list(facts.elsewhere("boot/1")) == [2]
    facts.apply(WorkerEnded(1, 2, "lost", ""))
    assert facts.elsewhere("boot/1") == {}


def test_an_older_version_noted_the_boot_alone() -> None:
    facts = RunHistory()
    facts.apply(RunStarted(run=1, at="", boot_id="boot"))
    facts.apply(WorkerStarted(0, 1, 4711, "", 17.5))
    assert facts.survivors("boot/1") == [(4711, 17.5)] and facts.survivors("other/1") == []


def test_a_sweep_spares_the_nodes_of_the_present_run() -> None:
    earlier, ours, other = (
        subprocess.Popen(["sleep", "1000"], env={EXPERIMENT_TAG: tag})
        for tag in ("e1:u/old-0", "e1:u/new-1", "e10:u/old-0")
    )
    try:
        assert sweep("e1:u", spared="e1:u/new-") == [earlier.pid]
        assert state_of(ours.pid) not in ("", "Z") and state_of(other.pid) not in ("", "Z")
    finally:
        for process in (earlier, ours, other):
            process.kill()
            process.wait()


def test_a_zombie_is_not_taken_for_a_survivor() -> None:
    """P9: psutil.pid_exists says that it lives; nobody can end it any more."""
    with subprocess.Popen(["true"]) as dead:
        wait_for(lambda: state_of(dead.pid) == "Z")
        assert psutil.pid_exists(dead.pid)
        begun = time.monotonic()
        assert end_recorded([(dead.pid, start_time(dead.pid))], seconds=PATIENCE) == []
        assert time.monotonic() - begun < PATIENCE / 2


def test_nobody_ends_itself_or_its_ancestors_by_an_old_record() -> None:
    """P9: this process may have the pid of a worker of a run in another container."""
    assert (
        end_recorded([(os.getpid(), start_time(os.getpid())), (os.getppid(), start_time(os.getppid()))]) == []
    )


LEAVES_SOMETHING_RUNNING = """
    import multiprocessing, signal, threading

    def stay():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path(LOG + ".child").write_text(str(os.getpid()))
        time.sleep(1000)

    def evaluate():
        note("ran")
        if current_job().id == "thread":
            threading.Thread(target=time.sleep, args=(1000,)).start()
        else:
            multiprocessing.get_context("fork").Process(target=stay, daemon=True).start()
            while not os.path.exists(LOG + ".child"):
                time.sleep(0.002)

    if __name__ == "__main__":
        main(evaluate, [Job(id="thread"), Job(id="child")], name="leaves", workers=2)
"""


def test_the_end_of_a_run_waits_for_no_thread_and_no_child_of_a_job(experiment: Experiment) -> None:
    """P16: a thread that is no daemon; a daemonic child that ignores SIGTERM. An interpreter
    waits for both when it exits."""
    write(experiment, LEAVES_SOMETHING_RUNNING)
    done = experiment.run()
    assert done.returncode == 0, done.stderr
    assert outcomes(experiment, "thread") == outcomes(experiment, "child") == ["completed"]
    assert not experiment.processes()
