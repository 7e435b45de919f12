"""Memory, failures, deadline, rate, stalled and slow jobs: measured facts in, orders out."""

from __future__ import annotations

from itertools import pairwise

import pytest

from supervisor.core.dispatch import retry_policy
from supervisor.core.dispatch.pacing import TokenBucket
from supervisor.core.scheduling.limits import StragglerDetector
from supervisor.core.state.job_table import Charges, JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    Effects,
    KillWorker,
    LogStack,
    SignalWorker,
    StartJobs,
    StartWorker,
    Tell,
)
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING
from supervisor.core.terms.records import Noted, Paused, Unpaused
from supervisor.core.terms.settings import failures_allowed, sized, starts_per_second
from tests.core.test_scheduler import AT, Core, bad, good, leases

G = 1 << 30


def told(effects: Effects) -> list[str]:
    return [command.text for command in effects.commands if isinstance(command, Tell)]


# ------------------------------------------------------------------------------- memory


def test_a_worker_over_its_limit_is_ended_and_its_job_has_failed_with_the_peak() -> None:
    core = Core(2, memory_limit=2 * G)
    core.start()
    assert not core.tell(facts.MemoryMeasured({1: 2 * G, 2: G})).commands
    effects = core.tell(facts.MemoryMeasured({1: 3 * G, 2: G}))
    assert effects.commands == [KillWorker(1)]
    core.tell(facts.WorkerDied(1, signal=9, peak_rss=G))
    (record,) = core.ended()
    assert (record.job, record.outcome, record.state) == ("job/0", "over_memory", "failed")
    assert record.error is not None
    assert record.error["message"] == "stopped at 3G: more than its memory limit of 2G"
    assert record.error["peak_rss"] == 3 * G  # with what it had started; the worker alone held less


def test_over_memory_gets_one_more_attempt_alone_with_the_memory_of_all() -> None:
    core = Core(3, memory_limit=2 * G, retry_over_memory=True)
    core.start()
    core.tell(facts.MemoryMeasured({1: 3 * G}))
    effects = core.tell(facts.WorkerDied(1, signal=9, peak_rss=3 * G))
    assert effects.urgent
    assert core.table.charges[0] == Charges(over_memory=1)
    core.tell(facts.Synced(len(core.records)), facts.WorkerReady(3))
    given = core.tell(facts.JobsFinished(2, [good(2)]))
    assert not leases(given)  # job/2 still runs: it is not alone
    given = core.tell(facts.JobsFinished(3, [good(3)]))
    (alone,) = leases(given).values()
    assert alone.jobs == [0]
    assert not core.tell(measured(alone, 4 * G)).commands
    assert core.tell(measured(alone, 4 * G + 1)).commands == [KillWorker(alone.incarnation)]
    core.tell(facts.WorkerDied(alone.incarnation, signal=9))
    assert core.table.state[0] == FAILED


def second_of_a_worker(left: dict[int, tuple[int, int]], used: int, *, seen: int | None = None) -> Core:
    """A worker has done job/0 and is at job/1; then it is over its limit of 2 GB."""
    core = Core(3, workers=1, memory_limit=2 * G)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    if seen is not None:
        core.tell(facts.MemoryMeasured({1: seen}))
    assert core.tell(facts.MemoryMeasured({1: used}, None, left)).commands[-1] == KillWorker(1)
    core.tell(facts.WorkerDied(1, signal=9))
    return core


@pytest.mark.parametrize(
    ("left", "used", "seen"),
    [
        ({1: (2, G)}, 3 * G, None),  # it has taken 2 GB itself
        ({1: (1, G)}, 3 * G, None),  # nobody knows: others went before it without a pause
        ({}, 3 * G, G),
    ],
)
def test_what_jobs_before_it_have_left_is_not_charged_to_a_job(
    left: dict[int, tuple[int, int]], used: int, seen: int | None
) -> None:
    core = second_of_a_worker(left, used, seen=seen)
    assert core.table.state[1] == INTERRUPTED
    assert core.table.charges == {}
    noted = next(record for record in core.records if isinstance(record, Noted))
    assert (noted.what, noted.detail["job"]) == ("memory_left_behind", "job/1")
    given = leases(core.tell(facts.WorkerReady(2)))
    assert list(given[2].jobs) == [1]
    core.tell(facts.MemoryMeasured({2: 3 * G}, None, {2: (3, 0)}))  # in a fresh one it is its own
    core.tell(facts.WorkerDied(2, signal=9))
    assert core.table.state[1] == FAILED


@pytest.mark.parametrize(
    ("left", "used", "seen"),
    [
        ({1: (2, G)}, 3 * G + 1, None),
        ({1: (2, G // 10)}, 2 * G + 1, None),  # hardly anything was left
        ({}, 3 * G, G // 4),  # nobody knows how much, but not much
    ],
)
def test_what_a_job_takes_itself_is_charged_whoever_ran_before_it(
    left: dict[int, tuple[int, int]], used: int, seen: int | None
) -> None:
    assert second_of_a_worker(left, used, seen=seen).table.state[1] == FAILED


def measured(given: StartJobs, used: int) -> facts.MemoryMeasured:
    """What a worker holds that was idle before this lease, and in which nothing had been left."""
    return facts.MemoryMeasured({given.incarnation: used}, None, {given.incarnation: (given.first_lease, 0)})


def alone_after_a_resume(core: Core, *, charges: Charges) -> StartJobs:
    """job/0 was stopped or lost in an earlier run, and runs alone."""
    core.table.charges[0] = charges
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    (given,) = leases(core.tell(facts.JobsFinished(2, [good(2)]))).values()
    assert given.jobs == [0]
    return given


@pytest.mark.parametrize(
    "charges", [Charges(over_memory=1), Charges(losses=3), Charges(over_memory=1, losses=3)]
)
def test_to_run_alone_is_no_reason_for_a_higher_limit(charges: Charges) -> None:
    core = Core(3, memory_limit=2 * G)
    given = alone_after_a_resume(core, charges=charges)
    assert core.tell(measured(given, 2 * G + 1)).commands == [KillWorker(given.incarnation)]


def test_one_that_was_lost_gets_no_more_where_it_was_asked_for_others() -> None:
    core = Core(3, memory_limit=2 * G, retry_over_memory=True)
    given = alone_after_a_resume(core, charges=Charges(losses=3))
    assert core.tell(measured(given, 2 * G + 1)).commands == [KillWorker(given.incarnation)]


def test_where_it_is_asked_for_a_resume_gives_the_memory_of_all() -> None:
    core = Core(3, memory_limit=2 * G, retry_over_memory=True)
    given = alone_after_a_resume(core, charges=Charges(over_memory=1))
    assert not core.tell(measured(given, 4 * G)).commands
    # Fewer workers from here on: what it was given is not taken away again.
    core.scheduler.dispatcher.slots = 1
    assert not core.tell(measured(given, 4 * G)).commands
    assert core.tell(measured(given, 4 * G + 1)).commands == [KillWorker(given.incarnation)]


def test_nothing_is_started_beside_a_job_that_runs_alone() -> None:
    core = Core(4, retries=1, backoff=5.0, memory_limit=2 * G)
    core.table.charges[0] = Charges(losses=3)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    core.tell(facts.JobsFinished(2, [good(2)]))
    core.tell(facts.JobsFinished(1, [good(3)]))
    assert core.table.state[0] == LEASED
    assert not leases(core.tell(after=60.0))  # the other attempt's time has come
    assert leases(core.tell(facts.JobsFinished(1, [good(4)])))


def test_little_memory_blocks_the_hand_out_until_there_is_more() -> None:
    core = Core(3, keep_free=2 * G)
    core.start()
    effects = core.tell(facts.MemoryMeasured({}, 2 * G - 1))
    assert isinstance(core.records[-1], Paused)
    assert core.scheduler.blocked_by() == ["low_memory"]
    assert "--keep-free" in told(effects)[0]
    assert not leases(core.tell(facts.JobsFinished(1, [good(1)])))
    assert not core.tell(facts.MemoryMeasured({}, 2 * G + 1)).commands  # it would be back at once
    assert leases(core.tell(facts.MemoryMeasured({}, 3 * G)))
    assert isinstance(core.records[-2], Unpaused)


def test_at_half_of_it_the_youngest_job_goes_back_unblamed_one_at_a_time() -> None:
    core = Core(3, workers=3, keep_free=2 * G)
    core.start()
    core.scheduler.workers[2].since = core.now + 1.0
    effects = core.tell(facts.MemoryMeasured({}, G - 1), after=5.0)
    assert [command for command in effects.commands if isinstance(command, KillWorker)] == [KillWorker(2)]
    noted = next(record for record in core.records if isinstance(record, Noted))
    assert (noted.what, noted.detail["job"]) == ("stopped_for_memory", "job/1")
    assert not core.tell(facts.MemoryMeasured({}, G - 1), after=5.0).commands  # it is still dying
    core.tell(facts.WorkerDied(2, signal=9))
    assert core.table.state[1] == INTERRUPTED
    assert core.table.charges == {}
    core.tell(facts.MemoryMeasured({}, G - 1), after=5.0)
    core.tell(facts.WorkerDied(3, signal=9))
    # The last one is left to the kernel: a run in which nothing may run never ends.
    assert not core.tell(facts.MemoryMeasured({}, G - 1), after=5.0).commands
    assert core.table.state[0] == LEASED


# ---------------------------------------------------------------------------- early ends


def test_so_many_failures_begin_a_drain_without_a_signal() -> None:
    core = Core(6, workers=1, max_failures="2")
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert not core.scheduler.draining
    effects = core.tell(facts.JobsFinished(1, [bad(2)]))
    assert told(effects) == ["2 jobs have failed (--max-failures 2): no new jobs are started"]
    assert core.scheduler.drain.signal is None
    assert not core.scheduler.drain.asked
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert core.scheduler.finished
    assert core.table.state.count(PENDING) == 4


def test_a_share_of_failures_counts_from_the_twentieth_job_on() -> None:
    core = Core(60, workers=1, max_failures="50%")
    core.start()
    for lease in range(1, 20):
        core.tell(facts.JobsFinished(1, [bad(lease)]), after=1.0)
    assert not core.scheduler.draining
    core.tell(facts.JobsFinished(1, [bad(20)]), after=1.0)
    assert core.scheduler.drain.reason == "20 of 20 jobs have failed (--max-failures 50%)"


@pytest.mark.parametrize("order", ["drain", "stop"])
def test_an_end_that_the_run_has_begun_itself_may_be_asked_for_as_well(order: str) -> None:
    core = Core(6, workers=2, max_failures="1")
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.scheduler.draining and not core.scheduler.drain.asked
    core.tell(facts.ControlAsked(7, 1000, order))
    assert core.scheduler.drain.asked
    assert core.scheduler.drain.reason == "1 job has failed (--max-failures 1)"


def test_failures_of_earlier_runs_do_not_count() -> None:
    table = JobTable()
    for number in range(5):
        table.add(f"job/{number}")
        table.state[number] = FAILED if number < 3 else PENDING
    core = Core(0, workers=1, table=table, max_failures="2")
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert not core.scheduler.draining


def test_a_deadline_drains_so_early_that_the_grace_fits() -> None:
    core = Core(4, grace=20.0)
    core.records += core.scheduler.begin(
        core.now, AT, 1, drain_at=core.now + 60.0, drain_reason="it is late"
    ).records
    started = [c.incarnation for c in core.tell().commands if isinstance(c, StartWorker)]
    core.tell(*[facts.WorkerReady(incarnation) for incarnation in started])
    assert core.scheduler.next_deadline() == 160.0
    effects = core.tell(after=60.0)
    assert told(effects) == ["it is late: no new jobs are started; 2 running jobs have 20 s to finish"]
    assert SignalWorker(1, 15) in effects.commands  # `stopping` is true in the jobs
    assert core.scheduler.next_deadline() == 180.0
    assert core.scheduler.drain.asked


def test_the_clock_on_the_wall_goes_on_while_the_run_stands_still() -> None:
    core = Core(1)
    core.scheduler.begin(core.now, AT, 1, drain_at=core.now + 3600.0, drain_reason="late")
    core.tell(facts.ClockJumped(3000.0))
    assert core.scheduler.next_deadline() == 700.0
    core.tell(facts.ClockJumped(3000.0))
    assert core.scheduler.draining


@pytest.mark.parametrize("text", ["0", "-1", "0%", "101%", "many", "1.5", "%", ""])
def test_what_is_no_number_of_failures(text: str) -> None:
    with pytest.raises(ValueError, match="10 or 5%"):
        failures_allowed(text)


# ---------------------------------------------------------------------------------- rate


@pytest.mark.parametrize(("text", "rate"), [("10/s", 10.0), ("60/m", 1.0), ("3600 / h", 1.0), ("0.5/s", 0.5)])
def test_rates(text: str, rate: float) -> None:
    assert starts_per_second(text) == rate


@pytest.mark.parametrize("text", ["10", "0/s", "10/d", "-1/s", "/s", "s/10"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="10/s"):
        starts_per_second(text)


def test_no_more_jobs_start_than_the_rate_allows_and_none_waits_longer() -> None:
    core = Core(200, workers=4, rate="10/s")
    core.start()
    starts = []
    next_lease = 1
    while core.now < 110.0:
        at_work = [worker for worker in core.scheduler.workers.values() if worker.leases]
        events = [facts.JobsFinished(w.incarnation, [good(w.leases[0][0], 0.001)]) for w in at_work]
        due = core.scheduler.next_deadline()
        assert due is not None
        effects = core.tell(
            *events, after=max(0.001 if events else 0.0, due - core.now if not events else 0.0)
        )
        given = leases(effects)
        assert all(len(command.jobs) == 1 for command in given.values())
        starts += [core.now] * len(given)
        next_lease += len(given)
    assert 97 <= len(starts) <= 102
    assert all(later - earlier > 0.09 for earlier, later in pairwise(starts))


def test_a_wait_ends_at_its_time_whatever_floating_point_makes_of_it() -> None:
    for rate in (0.1, 1 / 3, 3.0, 7.7, 60.0):
        pace, now = TokenBucket(rate), 1e6
        for _ in range(200):
            assert pace.allowed(now) >= 1
            pace.spend(1)
            pace.allowed(now)
            pace.wait()
            assert pace.due is not None
            assert pace.due > now
            now = pace.due


# ------------------------------------------------------------------- stalled and slow jobs


def test_a_job_without_cpu_is_told_once_and_shows_what_it_is_at() -> None:
    core = Core(2, stall=60.0)
    core.start()
    assert not core.tell(facts.UsageSampled({1: 0.0, 2: 99.0}), after=59.0).commands
    effects = core.tell(facts.UsageSampled({1: 0.2, 2: 99.0}), after=5.0)
    assert LogStack(1) in effects.commands
    assert "job/0 has used no CPU for 64 s" in told(effects)[0]
    assert isinstance(core.records[-1], Noted)
    assert core.records[-1].what == "stalled"
    assert not core.tell(facts.UsageSampled({1: 0.0, 2: 0.0}), after=5.0).commands


def test_what_uses_cpu_or_reports_now_and_then_does_not_stand_still() -> None:
    core = Core(2, stall=60.0)
    core.start()
    for _ in range(20):
        effects = core.tell(
            facts.JobReported(2, "job/1", 0.5, {}), facts.UsageSampled({1: 50.0, 2: 0.0}), after=30.0
        )
        assert LogStack(2) not in effects.commands
        assert not core.tell(facts.UsageSampled({1: 0.0, 2: 0.0}), after=30.0).commands


def domain_of(seconds: list[float]) -> JobTable:
    table = JobTable()
    for number, its in enumerate(seconds):
        table.add(f"job/{number}", "iris")
        table.state[number], table.seconds[number] = COMPLETED, its
    table.add("slow", "iris")
    table.add("other", "wine")
    return table


def test_a_job_is_slow_when_it_takes_five_times_the_median_of_its_domain() -> None:
    slowness = StragglerDetector(domain_of([2.0, 3.0, 4.0, 3.0, 100.0]))
    assert slowness.usual(5, 14.9, now=0.0) is None
    assert slowness.usual(5, 15.0, now=0.0) == 3.0
    assert slowness.usual(6, 1e6, now=0.0) is None  # nothing to compare with
    assert StragglerDetector(domain_of([0.1] * 9)).usual(9, 9.9, now=0.0) is None  # nobody waits for that
    assert StragglerDetector(domain_of([0.1] * 4)).usual(4, 1e6, now=0.0) is None


def test_a_slow_job_is_marked_and_once_told_without_a_timeout() -> None:
    core = Core(0, workers=2, table=domain_of([3.0] * 5))
    core.start()
    effects = core.tell(facts.UsageSampled({1: 99.0, 2: 99.0}), after=15.0)
    (text,) = told(effects)
    assert text.startswith("slow has been running for 15 s; half of its domain took less than 3.0 s.")
    assert core.scheduler.workers[1].slow == 1
    assert core.scheduler.workers[2].slow == 0
    assert not core.tell(facts.UsageSampled({1: 99.0, 2: 99.0}), after=15.0).commands
    core = Core(0, workers=2, table=domain_of([3.0] * 5), timeout=600.0)
    core.start()
    assert not told(core.tell(facts.UsageSampled({1: 99.0}), after=15.0))
    assert core.scheduler.workers[1].slow == 1


def test_sizes_as_the_options_take_them() -> None:
    assert (sized(412 << 20), sized(1900 << 20)) == ("412M", "1.9G")
    assert retry_policy.needs_to_be_alone(None) is False
