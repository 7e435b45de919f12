"""Worker processes for real, driven through the engine as the loop drives it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.core.terms import events as facts
from tests.conftest import some
from workers.job.current_job import job_seed
from workers.transport.messages import Completed, CompletedWith, Failed

Drive = Callable[..., Any]  # conftest.Driver
METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]


@pytest.fixture(params=["here", "agent"])
def through(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Of tests that change or measure the process of the engine.
only_here = pytest.mark.parametrize("through", ["here"])
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the zygote is Linux only")


@pytest.mark.parametrize("method", METHODS)
def test_a_job_knows_who_and_where_it_is(drive: Drive, method: str) -> None:
    d = drive("about", setup="setup", method=method)
    d.start(1)
    about = d.result(d.lease(1, {}, ids=["iris/forest"]))
    assert about == {
        "id": "iris/forest",
        "domain": "d",
        "attempt": 1,
        "seed": job_seed(7, "iris/forest"),
        "worker": 0,
        "context": "prepared",
        "directory": str(d.root / "jobs" / "iris%2Fforest"),
        "thread": "iris/forest",
        "local worker": [0, "0"],
        "environment": ["0", d.node_tag],
        "threads": "3",
        "group": True,
        "stdin": "/dev/null",
    }
    assert (d.root / "jobs" / "iris%2Fforest").is_dir()
    assert (d.output / "%worker0.log").read_text() == "setting up\n"


@pytest.mark.parametrize("method", METHODS)
def test_a_job_knows_its_number_on_its_place(drive: Drive, method: str) -> None:
    d = drive("about", method=method)
    d.engine.start_worker(5, 1, place=0, local_slot=2)
    about = d.result(d.lease(1, {}))
    assert (about["worker"], about["local worker"]) == (5, [2, "2"])


@pytest.mark.parametrize("method", METHODS)
def test_outcomes_come_in_the_order_of_the_leases(drive: Drive, method: str) -> None:
    d = drive("add", method=method)
    d.start(1)
    first = d.lease(1, *({"x": i} for i in range(3000)))
    d.outcome(first + 2999)
    outcomes = list(d.outcomes().values())
    assert [o.lease for o in outcomes] == list(range(first, first + 3000))
    assert [int(o.result) for o in outcomes if isinstance(o, Completed)] == list(range(1, 3001))


def test_exceptions_and_exits_are_outcomes_and_the_worker_goes_on(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, {"what": "raise"}, {"what": "system-exit"}, {"what": "lambda"}, {"what": "pid"})
    raised, left, unencodable = (d.outcome(first + i) for i in range(3))
    assert isinstance(raised, Failed) and isinstance(left, Failed) and isinstance(unencodable, Failed)
    assert (raised.outcome, raised.failure.type, raised.failure.message) == (
        "raised",
        "ValueError",
        "bad value",
    )
    assert raised.failure.where.startswith("engine_jobs.py:")
    assert "runner.py" not in raised.failure.traceback
    assert (left.outcome, left.failure.type, left.failure.message) == ("raised", "SystemExit", "3")
    assert unencodable.outcome == "unencodable"
    assert "/model" in unencodable.failure.message and "lambda" in unencodable.failure.value_repr
    assert d.result(first + 3) == d.pid(1)


DEATHS = [("exit-hard", 0, None), ("segfault", None, signal.SIGSEGV), ("print-and-die", None, signal.SIGKILL)]
# Each with a zygote, the first one also without.
EACH_WAY = [(method, *death) for method in METHODS for death in DEATHS]


@pytest.mark.parametrize(("method", "what", "exit_code", "signum"), some(EACH_WAY, 4))
def test_a_death_is_told_after_the_results_that_came_before_it(
    drive: Drive, method: str, what: str, exit_code: int | None, signum: int | None
) -> None:
    d = drive(method=method)
    d.start(1)
    first = d.lease(1, {"what": "pid"}, {"what": what}, {"what": "pid"})
    death = d.death(1)
    assert (death.exit_code, death.signal) == (exit_code, signum)
    assert death.peak_rss is not None and death.peak_rss > 1_000_000
    assert set(d.outcomes()) == {first}
    assert [type(e) for e in d.events].count(facts.WorkerDied) == 1
    assert isinstance(d.events[-1], facts.WorkerDied)


def test_the_last_words_of_a_dead_worker_become_the_log_of_its_job(drive: Drive) -> None:
    d = drive()
    d.start(1)
    d.lease(1, {"what": "pid"}, {"what": "print-and-die"}, ids=["good", "bad"])
    death = d.death(1)
    assert death.output == "last words" and death.output_bytes == 11
    assert d.log("bad").read_text() == "last words\n"
    d.start(2)
    d.lease(2, {"what": "segfault"}, ids=["bad"])
    assert "Segmentation fault" in d.death(2).output
    assert d.log("bad").read_text().startswith("last words\n\n--- attempt 1 ---\nFatal Python error")
    assert not list(d.output.glob(".worker0*"))


def test_what_a_job_prints_is_caught_from_python_c_and_children(drive: Drive) -> None:
    """P20: by descriptor."""
    d = drive()
    d.start(1)
    first = d.lease(1, {"what": "print", "text": "from Python"}, {"what": "pid"}, ids=["loud", "quiet"])
    loud, quiet = d.outcome(first), d.outcome(first + 1)
    lines = d.log("loud").read_text().splitlines()
    assert sorted(lines) == ["from C", "from Python", "from a child", "to stderr"]
    assert isinstance(loud, CompletedWith) and loud.output == d.log("loud").stat().st_size
    assert isinstance(quiet, Completed)  # and nothing to say of it
    assert not d.log("quiet").exists()


def test_head_and_tail_are_kept_of_what_is_too_long(drive: Drive) -> None:
    d = drive(limit=10_000)
    d.start(1)
    outcome = d.outcome(d.lease(1, {"what": "print-much", "size": 5_000_000}, ids=["chatty"]))
    assert isinstance(outcome, CompletedWith) and outcome.output > 5_000_000
    text = d.log("chatty").read_text()
    assert len(text) < 10_100
    assert text.startswith("first line\n") and text.endswith("last line\n")
    assert f"--- {outcome.output - 10_000} bytes left out ---" in text


@pytest.mark.parametrize("method", METHODS)
def test_big_results_and_big_parameters_pass(drive: Drive, method: str) -> None:
    d = drive(method=method)
    d.start(1)
    first = d.lease(1, {"what": "big", "size": 5_000_000})
    assert d.result(first) == "x" * 5_000_000
    assert d.result(d.lease(1, {"what": "length", "of": "x" * 5_000_000})) == 5_000_000


def test_a_worker_stopped_in_mid_send_holds_up_nobody(drive: Drive) -> None:
    """P3, P4: half a result from it and 5 MB for it; it dies of SIGKILL as ever."""
    d = drive()
    d.start(1, 2)
    d.lease(1, {"what": "big", "size": 50_000_000})
    d.turn(0.0)  # nothing is read from now on until the other one has worked
    time.sleep(0.05)
    os.kill(d.pid(1), signal.SIGSTOP)
    after = d.lease(2, *({"what": "pid"} for _ in range(100)))
    assert d.result(after + 99) == d.pid(2)
    d.lease(1, {"what": "big", "text": "x" * 5_000_000})  # more than its pipe can hold
    d.engine.kill_worker(1)
    assert d.death(1).signal == signal.SIGKILL
    assert d.first(facts.WorkerGivenUp, 1) is None


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_is_killed_for_its_time_tells_where_it_was(drive: Drive, method: str) -> None:
    d = drive(method=method)
    d.start(1)
    d.lease(1, {"what": "sleep", "seconds": 1000, "note": str(d.note("begun"))})
    d.read_note("begun")
    d.engine.kill_worker(1, stack=True)
    death = d.death(1)
    assert death.signal == signal.SIGKILL
    assert death.where.startswith("engine_jobs.py:")
    assert death.traceback.startswith("stopped here (most recent call last):\n")
    assert not list(d.output.glob(".worker0*"))


@only_here
def test_a_stopped_worker_is_not_waited_for_and_a_second_kill_means_now(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = drive()
    d.start(1, 2)
    for number in (1, 2):
        d.lease(number, {"what": "sleep", "seconds": 1000})
        os.kill(d.pid(number), signal.SIGSTOP)
    d.engine.kill_worker(1, stack=True)
    assert d.death(1).signal == signal.SIGKILL
    assert d.death(1).where == ""
    monkeypatch.setattr("supervisor.engines.last_stack.WAIT", 1000.0)
    d.engine.kill_worker(2, stack=True)
    d.turn()
    assert not d.is_gone(d.pid(2))
    d.engine.kill_worker(2, stack=True)
    assert d.death(2).signal == signal.SIGKILL


def test_a_worker_that_is_not_ready_is_killed_without_being_asked(drive: Drive) -> None:
    d = drive()
    d.engine.start_worker(0, 1)
    d.engine.kill_worker(1, stack=True)
    d.until(lambda: d.first(facts.WorkerDied, 1) or d.first(facts.WorkerStartFailed, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("new_session", [False, True])
def test_what_a_job_has_started_is_gone_when_its_death_is_told(
    drive: Drive, method: str, new_session: bool
) -> None:
    """P7: in the group of the worker or out of it."""
    d = drive(method=method)
    d.start(1, 2)
    running = d.lease(2, {"what": "sleep", "seconds": 0.3})
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": new_session})
    child = int(d.read_note("child"))
    d.engine.kill_worker(1)
    d.death(1)
    assert d.is_gone(child)
    assert d.result(running) == "slept"


@linux_only
def test_workers_outlive_their_zygote_and_new_ones_come_from_another(drive: Drive) -> None:
    d = drive()
    d.start(1)
    zygote = psutil.Process(psutil.Process(d.pid(1)).ppid())
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": True})
    child = int(d.read_note("child"))
    zygote.kill()
    d.start(2)
    assert d.result(d.lease(2, {"what": "pid"})) == d.pid(2)
    assert not d.is_gone(d.pid(1)) and not d.is_gone(child)
    d.engine.kill_worker(1)
    death = d.death(1)
    assert (death.exit_code, death.signal, death.peak_rss) == (None, None, None)
    assert d.is_gone(d.pid(1)) and d.is_gone(child)
    assert d.result(d.lease(2, {"what": "pid"})) == d.pid(2)


@only_here
@linux_only
def test_a_zygote_that_does_not_answer_is_replaced(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.engines.zygote_launcher.ANSWER_WITHIN", 0.2)
    d = drive()
    d.start(1)
    silent = psutil.Process(psutil.Process(d.pid(1)).ppid())
    silent.suspend()
    d.start(2)
    assert psutil.Process(d.pid(2)).ppid() != silent.pid
    assert d.is_gone(silent.pid)
    assert d.result(d.lease(1, {"what": "pid"})) == d.pid(1)


@only_here
@linux_only
def test_a_death_is_told_although_the_zygote_stands_still(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: the worker is a zombie that nobody reaps."""
    monkeypatch.setattr("supervisor.engines.zygote_launcher.REAP_WITHIN", 0.2)
    d = drive()
    d.start(1)
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": True})
    child = int(d.read_note("child"))
    psutil.Process(psutil.Process(d.pid(1)).ppid()).suspend()
    d.engine.kill_worker(1)
    assert d.death(1).signal is None
    assert d.is_gone(child)


@pytest.mark.parametrize("method", METHODS)
def test_revoked_leases_come_back_unless_they_have_started(drive: Drive, method: str) -> None:
    d = drive(method=method)
    d.start(1)
    waits = {"what": "wait-for", "gate": str(d.note("gate")), "note": str(d.note("there"))}
    first = d.lease(1, waits, *({"what": "pid"} for _ in range(4)))
    d.read_note("there")
    d.engine.revoke(1, [first, first + 2, first + 3])
    d.settle()
    d.note("gate").touch()
    d.outcome(first + 4)
    assert sorted(d.outcomes()) == [first, first + 1, first + 4]
    assert [e.leases for e in d.events if isinstance(e, facts.LeasesDropped)] == [[first + 2, first + 3]]


def test_a_forwarded_signal_tells_the_job_and_returns_what_waits(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, {"what": "wait-for-drain", "note": str(d.note("there"))}, {"what": "pid"})
    d.read_note("there")
    d.engine.signal_worker(1, signal.SIGTERM)
    assert d.result(first) == "stopped early"
    d.until(lambda: d.first(facts.LeasesDropped, 1))
    d.engine.stop_worker(1)
    assert d.death(1).exit_code == 0
    assert set(d.outcomes()) == {first}


def test_a_worker_that_somebody_asked_to_stop_dies_of_it(drive: Drive) -> None:
    d = drive()
    d.start(1)
    os.kill(d.pid(1), signal.SIGTERM)
    for _ in range(2):  # given back, handed out again by a supervisor that knows of no drain
        count = len(d.events)
        d.lease(1, {"what": "pid"})
        d.until(lambda n=count: len(d.events) > n)
    assert d.death(1).signal == signal.SIGTERM
    assert not d.outcomes()


def test_a_worker_told_to_finish_runs_what_it_has_and_goes(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, *({"what": "pid"} for _ in range(5)))
    d.engine.stop_worker(1)
    death = d.death(1)
    assert death.exit_code == 0 and len(d.outcomes()) == 5
    assert d.outcome(first + 4)
    assert not list(d.output.glob(".worker0*"))


@only_here
def test_a_worker_that_will_not_finish_is_killed(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.engines.worker_process.FINISH_WITHIN", 0.1)
    d = drive()
    d.start(1)
    os.kill(d.pid(1), signal.SIGSTOP)
    d.engine.stop_worker(1)
    assert d.death(1).signal == signal.SIGKILL


def test_a_job_that_spoils_its_surroundings_does_not_spoil_the_next_one(drive: Drive, tmp_path: Path) -> None:
    """P19: directory, umask, a handler, an alarm, a closed descriptor."""
    d = drive()
    d.start(1)
    before = d.result(d.lease(1, {"what": "surroundings"}))
    assert before[0] == os.getcwd() and before[2] is False
    first = d.lease(1, {"what": "spoil", "directory": str(tmp_path)}, {"what": "surroundings"})
    assert d.result(first) is None
    assert d.result(first + 1) == before
    after = d.lease(1, {"what": "print", "text": "still caught"}, ids=["after"])
    d.outcome(after)
    assert "still caught" in d.log("after").read_text()


@pytest.mark.parametrize("method", METHODS)
def test_a_setup_that_raises_is_told_in_its_own_words(drive: Drive, method: str) -> None:
    d = drive(setup="failing_setup", method=method)
    d.engine.start_worker(0, 1)
    death = d.death(1)
    failure = d.first(facts.WorkerNotReady, 1).failure
    assert (failure.type, failure.message) == ("RuntimeError", "no such device")
    assert failure.where.startswith("engine_jobs.py:")
    assert death.output == "words before the end" and death.exit_code == 1
    assert d.first(facts.WorkerReady, 1) is None


def test_a_worker_that_cannot_begin_is_never_ready_so_that_no_job_is_blamed(drive: Drive) -> None:
    d = drive(setup="greedy_setup")
    d.engine.start_worker(0, 1)
    assert d.death(1).exit_code == 1
    assert d.first(facts.WorkerReady, 1) is None
    assert d.first(facts.WorkerNotReady, 1).failure.message.startswith("[Errno 24]")


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_is_not_there_is_told_by_the_worker(drive: Drive, method: str) -> None:
    d = drive("no_such_function", method=method)
    d.engine.start_worker(0, 1)
    d.death(1)
    failure = d.first(facts.WorkerNotReady, 1).failure
    assert "has no 'no_such_function'" in failure.message and "engine_jobs.py" in failure.message


def test_suspended_workers_go_on_where_they_were(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, {"what": "sleep", "seconds": 0.05, "note": str(d.note("there"))})
    d.read_note("there")
    d.engine.stop_workers(suspend=True)
    d.until(lambda: psutil.Process(d.pid(1)).status() == psutil.STATUS_STOPPED)
    d.engine.stop_workers(suspend=False)
    assert d.result(first) == "slept"


def test_usage_counts_descendants(drive: Drive) -> None:
    d = drive()
    d.start(1)
    alone = d.until(d.engine.usage)[1].rss_bytes
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": True})
    d.read_note("child")
    d.until(lambda: d.engine.usage()[1].rss_bytes > alone > 1_000_000)
    assert d.engine.usage()[1].cpu_percent >= 0.0


def test_orders_for_the_dead_are_ignored(drive: Drive) -> None:
    d = drive()
    d.start(1)
    d.engine.kill_worker(1)
    d.death(1)
    d.lease(1, {"what": "pid"})
    d.engine.revoke(1, [1])
    d.engine.stop_worker(1)
    d.engine.kill_worker(1)
    d.engine.signal_worker(1, signal.SIGTERM)
    d.settle()
    assert isinstance(d.events[-1], facts.WorkerDied)


@pytest.mark.parametrize("method", METHODS)
def test_close_leaves_no_process_and_no_scratch_file(
    drive: Drive, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.engines.local_engine.CLOSE_WITHIN", 60.0)
    monkeypatch.setattr("supervisor.nodes.nodes_engine.CLOSE_WITHIN", 60.0)
    d = drive(method=method)
    d.start(1, 2)
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": True})
    child = int(d.read_note("child"))
    started = time.monotonic()
    d.engine.close()
    assert time.monotonic() - started < 30.0, "it waited for something that never came"
    assert d.is_gone(child) and d.is_gone(d.pid(1)) and d.is_gone(d.pid(2))
    assert not list(d.output.glob(".*"))


@only_here
def test_a_worker_that_does_not_die_is_given_up_and_its_death_told_when_it_comes(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P23: where there is no freezer."""
    monkeypatch.setattr("supervisor.engines.worker_process.DIE_WITHIN", 0.1)
    d = drive()
    d.start(1)
    with monkeypatch.context() as patched:  # as if it were frozen: the signal has no effect
        patched.setattr("supervisor.engines.worker_process.Incarnation.send_signal", lambda *_: None)
        d.engine.kill_worker(1)
        d.until(lambda: d.first(facts.WorkerGivenUp, 1))
        assert d.engine.next_deadline() is None or d.engine.next_deadline() > time.monotonic() - 1.0
    os.kill(d.pid(1), signal.SIGKILL)
    assert d.death(1).signal == signal.SIGKILL
    assert [type(e) for e in d.events].count(facts.WorkerGivenUp) == 1


def test_a_worker_that_talks_nonsense_is_killed_and_the_reason_told(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, {"what": "nonsense"})
    death = d.death(1)
    assert death.signal == signal.SIGKILL and "cannot be decoded" in death.output
    assert first not in d.outcomes()


def test_jobs_before_the_one_that_talks_nonsense_have_their_results(drive: Drive) -> None:
    d = drive()
    d.start(1)
    first = d.lease(1, *[{"what": "pid"}] * 9, {"what": "nonsense"})
    d.death(1)
    assert sorted(d.outcomes()) == list(range(first, first + 9))


def test_a_job_that_closes_all_descriptors_has_its_result_all_the_same(drive: Drive) -> None:
    d = drive()
    d.start(1)
    for _ in range(3):
        assert d.result(d.lease(1, {"what": "close-everything"})) is None
        assert d.result(d.lease(1, {"what": "pid"})) == d.pid(1)


@only_here
@linux_only
def test_a_job_closes_all_descriptors_of_a_worker_whose_program_could_not_be_told_at_first(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is right after exec, in half of the starts on a busy machine."""
    monkeypatch.setattr("supervisor.engines.local_engine.program_of", lambda _: None)
    monkeypatch.setattr("supervisor.engines.worker_process.RECONNECT_WITHIN", 0.1)
    d = drive()
    d.start(1)
    assert d.result(d.lease(1, {"what": "close-everything", "seconds": 1.0})) is None
    assert d.result(d.lease(1, {"what": "pid"})) == d.pid(1)


@only_here
@pytest.mark.parametrize("method", METHODS)
def test_a_start_without_descriptors_fails_and_the_others_go_on(drive: Drive, method: str) -> None:
    """P15: EMFILE while others work."""
    d = drive(method=method)
    d.start(1)
    for free in range(12):
        number = 100 + free
        with few_descriptors(free):
            d.engine.start_worker(1, number)
            d.until(lambda n=number: d.first(facts.WorkerStartFailed, n) or d.first(facts.WorkerReady, n))
            d.engine.usage()
        d.engine.kill_worker(number)
    assert d.first(facts.WorkerStartFailed, 100) and d.first(facts.WorkerReady, 111)
    assert "Too many open files" in d.first(facts.WorkerStartFailed, 100).error
    assert d.result(d.lease(1, {"what": "pid"})) == d.pid(1)


@linux_only
def test_a_zygote_short_of_descriptors_refuses_and_goes_on(drive: Drive) -> None:
    d = drive()
    d.start(1)
    zygote = psutil.Process(psutil.Process(d.pid(1)).ppid())
    limits = zygote.rlimit(psutil.RLIMIT_NOFILE)
    open_now = zygote.num_fds()
    for more in range(5):
        zygote.rlimit(psutil.RLIMIT_NOFILE, (open_now + more, limits[1]))
        number = 100 + more
        d.engine.start_worker(1, number)
        d.until(lambda n=number: d.first(facts.WorkerStartFailed, n) or d.first(facts.WorkerLaunched, n))
    assert "Too many open files" in d.first(facts.WorkerStartFailed, 100).error
    zygote.rlimit(psutil.RLIMIT_NOFILE, limits)
    d.start(2)
    assert zygote.is_running() and psutil.Process(d.pid(2)).ppid() == zygote.pid


@contextlib.contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """As if the limit of open files were nearly reached."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(free):
            os.close(filled.pop())
        yield
    finally:
        for descriptor in filled:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@linux_only
def test_workers_killed_at_random_moments_harm_nobody_else(drive: Drive) -> None:
    """P1, P2: a hundred results each while a neighbour is killed again and again."""
    d = drive()
    rng = random.Random(20251014)
    d.start(1)
    steady = d.lease(1, *({"what": "big", "size": 1000} for _ in range(2000)))
    for incarnation in range(2, 14):
        d.start(incarnation)
        d.lease(incarnation, *({"what": "big", "size": 200_000} for _ in range(20)))
        until = time.monotonic() + rng.uniform(0.0, 0.02)
        while time.monotonic() < until:
            d.turn(0.001)
        d.engine.kill_worker(incarnation)
        d.death(incarnation)
    assert d.result(steady + 1999) == "x" * 1000
    assert len([lease for lease in d.outcomes() if lease < steady + 2000]) == 2000
