"""The core answers facts with records and commands; no process, no file, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest

from supervisor.core.dispatch import retry_policy
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import IllegalMove, JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    Effects,
    KillWorker,
    RevokeJobs,
    SignalWorker,
    StartJobs,
    StartWorker,
    StopWorker,
    Tell,
)
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import (
    Ended,
    Leased,
    Noted,
    Paused,
    Returned,
    Unpaused,
    WorkerEnded,
)
from supervisor.core.terms.settings import Settings
from tools.simulation.promises import singly
from workers.transport.messages import Completed, Failed, Failure

AT = "2025-10-14T21:00:00.000Z"
SIGINT, SIGTERM, SIGSEGV = 2, 15, 11


class Core:
    """A scheduler with a hand-turned clock; keeps every record it wrote."""

    def __init__(
        self, jobs: int, *, workers: int = 2, table: JobTable | None = None, **settings: object
    ) -> None:
        self.table = table or JobTable()
        for number in range(jobs):
            self.table.add(f"job/{number}")
        self.now = 100.0
        self.records: list[object] = []
        self.scheduler = Scheduler(self.table, msgspec.convert(settings, Settings), workers, Position(run=1))

    def begin(self, retry: Sequence[int] = ()) -> Effects:
        effects = self.scheduler.begin(self.now, AT, len(self.records) + 1, retry=retry)
        self.records += singly(effects.records)
        return effects

    def tell(self, *events: facts.Event, after: float = 0.0) -> Effects:
        self.now += after
        effects = self.scheduler.handle(
            list(events) or [facts.TimePassed()], self.now, AT, len(self.records) + 1
        )
        self.records += singly(effects.records)
        return effects

    def start(self) -> Effects:
        """Begin, and let every worker become ready."""
        self.begin()
        started = [c.incarnation for c in self.tell().commands if isinstance(c, StartWorker)]
        return self.tell(*[facts.WorkerReady(incarnation) for incarnation in started])

    def ended(self) -> list[Ended]:
        return [record for record in self.records if isinstance(record, Ended)]


def leases(effects: Effects) -> dict[int, StartJobs]:
    return {c.incarnation: c for c in effects.commands if isinstance(c, StartJobs)}


def good(lease: int, seconds: float = 1.0) -> Completed:
    return Completed(lease, seconds, b'"fine"')


def bad(lease: int, errno: int | None = None) -> Failed:
    return Failed(lease, 1.0, "raised", Failure("ValueError", "no", "Traceback ...", "model.py:88", errno))


def test_workers_are_started_only_as_far_as_there_are_jobs() -> None:
    core = Core(2, workers=6)
    core.begin()
    assert [type(c) for c in core.tell().commands] == [StartWorker, StartWorker]


def test_each_ready_worker_gets_one_job_while_durations_are_unknown() -> None:
    core = Core(10)
    given = leases(core.start())
    assert [len(command.jobs) for command in given.values()] == [1, 1]
    assert [type(record) for record in core.records] == [Leased, Leased]


def test_short_jobs_travel_in_batches_and_long_ones_alone() -> None:
    core = Core(10_000)
    core.start()
    short = leases(core.tell(facts.JobsFinished(1, [good(1, seconds=0.0001)])))
    assert len(short[1].jobs) > 20
    core = Core(10_000)
    core.start()
    long = leases(core.tell(facts.JobsFinished(1, [good(1, seconds=2.0)]), after=2.0))
    assert len(long[1].jobs) == 1


@pytest.mark.parametrize("jobs", [900, 1500, 1800, 2100])
def test_the_last_short_jobs_go_to_the_worker_that_has_fewer(jobs: int) -> None:
    """One worker is a little slower. When no job is left to hand out, both have about as much to do."""
    core = Core(jobs)
    core.start()
    core.tell(*[facts.JobsFinished(number, [good(number, seconds=0.001)]) for number in (1, 2)], after=0.001)
    workers = core.scheduler.workers
    while core.scheduler.queue.has_any():
        number = max(1, min(100, (min(worker.lease_count() for worker in workers.values()) - 1) // 2))
        finished = []
        for incarnation, done in ((1, number), (2, number - 3 * (number > 10))):
            held = list(workers[incarnation].leases)[:done]
            finished.append(facts.JobsFinished(incarnation, [good(lease, 0.001) for lease, _ in held]))
        core.tell(*finished, after=0.001 * number)
    assert abs(workers[1].lease_count() - workers[2].lease_count()) <= 4


def test_short_jobs_with_huge_parameters_travel_a_few_at_a_time() -> None:
    core = Core(10_000)
    settings = msgspec.convert({}, Settings)
    core.scheduler = Scheduler(core.table, settings, 2, Position(run=1), job_bytes=5e6)
    core.start()
    short = leases(core.tell(facts.JobsFinished(1, [good(1, seconds=0.0001)])))
    assert len(short[1].jobs) == 3


def test_a_result_is_recorded_once_with_its_attempt_and_worker() -> None:
    core = Core(1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    (record,) = core.ended()
    assert (record.job, record.attempt, record.outcome, record.state, record.worker) == (
        "job/0",
        1,
        "completed",
        "completed",
        0,
    )
    assert bytes(record.result or b"") == b'"fine"'


def test_the_job_that_killed_its_worker_is_blamed_alone() -> None:
    core = Core(100, workers=1, crash_limit=3)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, seconds=0.0001)]))
    held = list(core.scheduler.workers[1].leases)
    assert len(held) > 2
    effects = core.tell(facts.WorkerDied(1, signal=SIGSEGV))
    crashed = core.ended()[-1]
    assert (crashed.job, crashed.outcome, crashed.state) == ("job/1", "crashed", "in_progress")
    assert crashed.error is not None
    assert crashed.error["signal"] == SIGSEGV
    assert core.table.state[1] == INTERRUPTED
    assert all(core.table.state[job] == PENDING for _, job in held[1:])
    assert set(core.table.charges) == {1}
    assert effects.urgent


def test_a_crashed_job_waits_until_its_charge_is_on_the_disk() -> None:
    core = Core(1, workers=1)
    core.start()
    effects = core.tell(facts.WorkerDied(1, signal=SIGSEGV))
    core.tell(facts.WorkerReady(next(c.incarnation for c in effects.commands if isinstance(c, StartWorker))))
    charge = next(n for n, record in enumerate(core.records, 1) if isinstance(record, Ended))
    assert not leases(core.tell(facts.Synced(charge - 1)))
    assert leases(core.tell(facts.Synced(charge)))


def test_a_job_that_crashes_three_workers_is_quarantined() -> None:
    core = Core(1, workers=1)
    core.start()
    for incarnation in (1, 2, 3):
        core.tell(facts.WorkerDied(incarnation, signal=SIGSEGV))
        core.tell(facts.Synced(len(core.records)))
        core.tell(facts.WorkerReady(incarnation + 1))
    assert [record.state for record in core.ended()] == ["in_progress", "in_progress", "failed"]
    assert core.ended()[-1].error["quarantined"]  # type: ignore[index]
    assert core.table.state[0] == FAILED
    assert core.scheduler.finished


@pytest.mark.parametrize("signum", [1, SIGINT, SIGTERM])
def test_a_worker_killed_politely_by_somebody_else_costs_its_job_nothing(signum: int) -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.WorkerDied(1, signal=signum))
    assert core.ended()[-1].outcome == "interrupted"
    assert not core.table.charges


def test_an_exit_without_a_result_is_a_crash_whatever_the_code() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert core.ended()[-1].outcome == "crashed"


def test_raised_fails_at_once_and_with_retries_after_its_budget() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.table.state[0] == FAILED
    core = Core(1, workers=1, retries=1, backoff=0.0)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.table.state[0] == LEASED  # handed out again in the same turn
    core.tell(facts.JobsFinished(1, [bad(2)]))
    assert [record.state for record in core.ended()] == ["pending", "failed"]


def test_a_full_disk_is_not_the_jobs_fault() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1, errno=28)]))
    assert core.ended()[-1].outcome == "interrupted"
    assert not leases(core.tell(after=retry_policy.NO_SPACE_WAIT / 2))
    assert leases(core.tell(after=retry_policy.NO_SPACE_WAIT))


def test_a_job_beyond_its_timeout_is_killed_and_fails() -> None:
    core = Core(2, workers=1, timeout=5.0)
    core.start()
    assert core.scheduler.next_deadline() == 105.0
    assert not core.tell(after=4.9).commands
    assert core.tell(after=0.1).commands == [KillWorker(1, stack=True)]
    core.tell(facts.WorkerDied(1, signal=9), after=0.01)
    assert (core.ended()[-1].outcome, core.table.state[0]) == ("timed_out", FAILED)


def test_where_a_job_was_when_it_was_stopped_is_in_its_error() -> None:
    core = Core(2, workers=1, timeout=5.0)
    core.start()
    core.tell(after=5.0)
    place = {"where": "script.py:12", "function": "evaluate", "traceback": "stopped here"}
    core.tell(facts.WorkerDied(1, signal=9, **place), after=0.1)
    error = core.ended()[-1].error
    assert error is not None
    assert error["message"] == "stopped after 5.1 s: longer than its timeout, in evaluate (script.py:12)"
    assert (error["where"], error["traceback"]) == ("script.py:12", "stopped here")


def test_only_a_job_that_is_stopped_for_its_time_is_asked_where_it_is() -> None:
    core = Core(4, workers=2, timeout=5.0)
    core.start()
    core.tell(facts.SignalReceived(SIGINT))
    now = core.tell(facts.SignalReceived(SIGINT)).commands
    assert [c for c in now if isinstance(c, KillWorker)] == [KillWorker(1), KillWorker(2)]


def test_a_peak_that_may_be_an_earlier_jobs_is_called_the_workers() -> None:
    core = Core(2, workers=1, crash_limit=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    died = facts.WorkerDied(
        1, signal=6, peak_rss=300, peak_is_shared=True, earlier_peak_rss=900, earlier_peak_lease=1
    )
    core.tell(died)
    error = core.ended()[-1].error
    assert error is not None
    assert (error.get("peak_rss"), error["worker_peak_rss"]) == (None, 300)
    (ended,) = [record for record in core.records if isinstance(record, WorkerEnded)]
    assert (ended.peak_rss, ended.peak_lease) == (900, 1)


def test_a_result_that_was_already_in_the_pipe_beats_the_timeout() -> None:
    core = Core(2, workers=1, timeout=5.0)
    core.start()
    core.tell(after=5.0)
    core.tell(facts.JobsFinished(1, [good(1)]), facts.WorkerDied(1, signal=9))
    assert [record.outcome for record in core.ended()] == ["completed"]
    assert core.table.state[1] in (PENDING, LEASED)


def test_leases_behind_a_long_job_go_to_others_within_a_tenth_of_a_second() -> None:
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0005)]), facts.JobsFinished(2, [good(2, 0.0005)]))
    waiting = [lease for lease, _ in core.scheduler.workers[1].leases][1:]
    assert waiting
    lease = core.scheduler.workers[2].leases[0][0]
    core.tell(facts.JobsFinished(2, [good(lease, 0.0005)]), after=0.04)
    assert RevokeJobs(1, waiting) in core.tell(after=0.02).commands
    effects = core.tell(after=0.015)  # it has not answered
    assert any(isinstance(record, Returned) and record.leases == waiting for record in effects.records)


def test_a_worker_that_was_only_kept_from_running_returns_its_leases_or_runs_them_itself() -> None:
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0005)]), facts.JobsFinished(2, [good(2, 0.0005)]))
    worker = core.scheduler.workers[1]
    waiting = list(worker.leases)[1:]
    lease = core.scheduler.workers[2].leases[0][0]
    core.tell(facts.JobsFinished(2, [good(lease, 0.0005)]), after=0.04)
    effects = core.tell(after=0.02)
    assert RevokeJobs(1, [lease for lease, _ in waiting]) in effects.commands
    assert not any(isinstance(record, Returned) for record in effects.records)
    core.tell(
        facts.JobsFinished(1, [good(lease, 0.0005) for lease, _ in list(worker.leases)[:11]]), after=0.2
    )
    kept = [lease for lease, _ in worker.leases]
    effects = core.tell(facts.LeasesDropped(1, kept), after=0.005)
    assert any(isinstance(record, Returned) and record.leases == kept for record in effects.records)
    core.tell(after=1.0)
    leased = Counter(job for record in core.records if isinstance(record, Leased) for job in record.jobs)
    again = {leased[core.table.ids[job]] for _, job in waiting[:10]}
    assert again == {1}, "they were handed out twice"
    assert not any(isinstance(record, Noted) for record in core.records)


def open_leases(records: Sequence[object], incarnation: int) -> list[int]:
    """What a replay of the records says that a worker holds."""
    replayed = JobTable()
    for record in records:
        if isinstance(record, Leased | Returned | Ended):
            replayed.apply(record)
    return list(replayed.open_leases[incarnation])


def test_what_is_taken_back_is_on_record_also_where_the_job_is_done_already() -> None:
    """Else the first lease without an outcome, whose job is blamed, would be one that nobody runs."""
    core = Core(60, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.003)]), facts.JobsFinished(2, [good(2, 0.003)]))
    slow = core.scheduler.workers[1]
    begun = slow.leases[1]
    lease = core.scheduler.workers[2].leases[0][0]
    core.tell(facts.JobsFinished(2, [good(lease, 0.003)]), after=0.1)  # what waits is taken back from 1
    for lease, _ in list(core.scheduler.workers[2].leases):
        core.tell(facts.JobsFinished(2, [good(lease, 0.003)]), after=0.003)
        if begun[1] in [job for _, job in core.scheduler.workers[2].leases][1:]:
            break
    again = next(lease for lease, job in core.scheduler.workers[2].leases if job == begun[1])
    core.tell(facts.JobsFinished(1, [good(slow.leases[0][0], 0.1), good(begun[0], 0.003)]), after=0.001)
    assert core.table.state[begun[1]] == COMPLETED and again in open_leases(core.records, 2)
    core.tell(facts.LeasesDropped(1, [lease for lease, _ in slow.leases]), after=0.001)
    core.tell(facts.JobsFinished(1, [good(lease, 0.001) for lease, _ in slow.leases]), after=0.001)
    effects = core.tell(after=1.0)  # and now from 2
    assert any(isinstance(c, RevokeJobs) and again in c.leases for c in effects.commands)
    core.tell(after=0.015)  # it has not answered
    assert open_leases(core.records, 2) == [core.scheduler.workers[2].leases[0][0]]


def test_a_long_job_that_began_while_outcomes_gathered_is_found_when_they_are_looked_at() -> None:
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.001)]), facts.JobsFinished(2, [good(2, 0.001)]))
    first, second = (list(core.scheduler.workers[worker].leases) for worker in (1, 2))
    some = [good(lease, 0.001) for lease, _ in first[:3]]  # the fourth goes on
    many = [good(lease, 0.001) for lease, _ in second[:78]]
    effects = core.tell(facts.JobsFinished(1, some), facts.JobsFinished(2, many), after=0.08)
    assert RevokeJobs(1, [lease for lease, _ in first[4:]]) in effects.commands
    assert not [c for c in effects.commands if isinstance(c, RevokeJobs) and c.incarnation == 2]


def test_nothing_is_revoked_from_a_worker_whose_outcomes_are_not_all_read() -> None:
    """A supervisor that was kept from running reads them in parts: what comes next is done already, too."""
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.001)]), facts.JobsFinished(2, [good(2, 0.001)]))
    first, second = (list(core.scheduler.workers[worker].leases) for worker in (1, 2))
    some = [good(lease, 0.001) for lease, _ in first[:3]]
    many = [good(lease, 0.001) for lease, _ in second[:78]]
    effects = core.tell(
        facts.JobsFinished(1, some, more=True), facts.JobsFinished(2, many, more=True), after=0.4
    )
    assert not [command for command in effects.commands if isinstance(command, RevokeJobs)]
    core.tell(facts.JobsFinished(2, [good(second[78][0], 0.001)]), after=0.04)
    effects = core.tell(after=0.02)  # all is read, and nothing more has come of the first
    assert RevokeJobs(1, [lease for lease, _ in first[4:]]) in effects.commands


def test_workers_that_get_on_alike_keep_their_leases_however_slow_the_machine() -> None:
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.001)]), facts.JobsFinished(2, [good(2, 0.001)]))
    first, second = (list(core.scheduler.workers[worker].leases) for worker in (1, 2))
    events = [
        facts.JobsFinished(worker, [good(lease, 0.001) for lease, _ in leases[:20]])
        for worker, leases in ((1, first), (2, second[:30]))
    ]
    effects = core.tell(*events, after=0.3)
    assert not [command for command in effects.commands if isinstance(command, RevokeJobs)]


def test_a_slot_that_is_free_gets_a_worker_for_what_waits_behind_a_long_job() -> None:
    core = Core(12, workers=2, crash_limit=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0005)]), facts.JobsFinished(2, [good(2, 0.0005)]))
    for _ in range(20):  # the second worker does what it has and what is left in the line
        if not core.scheduler.queue.has_any() and len(core.scheduler.workers[2].leases) == 1:
            break
        core.tell(facts.JobsFinished(2, [good(core.scheduler.workers[2].leases[0][0], 0.0005)]), after=0.001)
    waiting = [lease for lease, _ in core.scheduler.workers[1].leases][1:]
    assert waiting and not core.scheduler.queue.has_any()
    effects = core.tell(facts.WorkerDied(2, signal=SIGSEGV), after=0.001)  # for good: nothing to run again
    assert [c for c in effects.commands if isinstance(c, StartWorker)] == [StartWorker(1, 3)]
    assert RevokeJobs(1, waiting) in core.tell(facts.WorkerReady(3), after=0.2).commands


def test_a_job_that_started_in_the_instant_of_the_drain_has_the_grace_time_as_well() -> None:
    core = Core(100, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.01)]))
    first, second, *others = [lease for lease, _ in core.scheduler.workers[1].leases]
    assert others
    core.tell(facts.SignalReceived(SIGINT), after=0.001)
    effects = core.tell(facts.JobsFinished(1, [good(first, 0.01)]), after=0.001)  # and the next one runs
    assert not [command for command in effects.commands if isinstance(command, KillWorker | StopWorker)]
    effects = core.tell(
        facts.LeasesDropped(1, others), facts.JobsFinished(1, [good(second, 0.01)]), after=0.01
    )
    assert [record.state for record in core.ended()[-2:]] == ["completed", "completed"]
    assert [c for c in effects.commands if isinstance(c, StopWorker)] == [StopWorker(1)]


def test_the_first_completed_result_of_any_lease_wins() -> None:
    core = Core(3, workers=2)
    core.start()
    first = core.scheduler.workers[1]
    core.scheduler.dispatcher.durations.mean = 0.001
    core.tell(facts.JobsFinished(1, [good(1)]))
    core.tell(after=1.0)
    lease, job = first.leases[0]
    core.tell(facts.JobsFinished(1, [good(lease)]))
    again = core.tell(facts.JobsFinished(1, [good(lease)]))
    assert not any(isinstance(record, Ended) for record in singly(again.records))
    assert core.table.state[job] == COMPLETED


def test_leases_are_not_taken_back_when_nobody_gets_on_better() -> None:
    core = Core(2_000, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0005)]))
    assert core.scheduler.workers[1].lease_count() > 1
    assert core.scheduler.next_deadline() is None
    assert not core.tell(after=1.0).commands


def test_a_superseded_crash_is_noted_and_charged_to_nobody() -> None:
    core = Core(2_000, workers=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0005)]))
    core.tell(facts.JobsFinished(2, [good(2, 0.0005)]), after=0.04)
    core.tell(after=0.02)  # asks for all that the first holds but the job it is at
    core.tell(after=0.015)  # takes it back, as nothing comes
    worker = core.scheduler.workers[1]
    core.tell(facts.JobsFinished(1, [good(worker.leases[0][0])]))
    superseded = worker.leases[0]
    assert superseded[0] in worker.revoked
    effects = core.tell(facts.WorkerDied(1, signal=SIGSEGV))
    assert not core.table.charges
    assert any(isinstance(record, Noted) and record.what == "superseded" for record in effects.records)


def test_the_first_signal_drains_and_the_second_stops_now() -> None:
    core = Core(10, workers=2, grace=20.0)
    core.start()
    effects = core.tell(facts.SignalReceived(SIGINT))
    assert [c for c in effects.commands if isinstance(c, SignalWorker)] == [
        SignalWorker(1, SIGINT),
        SignalWorker(2, SIGINT),
    ]
    assert any(isinstance(c, Tell) for c in effects.commands)
    done = core.tell(facts.JobsFinished(1, [good(1)]))
    assert done.commands == [StopWorker(1)]
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert KillWorker(2) in core.tell(facts.SignalReceived(SIGINT)).commands
    core.tell(facts.WorkerDied(2, signal=9))
    assert core.scheduler.finished
    assert core.ended()[-1].outcome == "interrupted"
    assert core.table.state[1] == INTERRUPTED


def test_a_drain_ends_with_the_grace_time() -> None:
    core = Core(10, workers=1, grace=3.0)
    core.start()
    core.tell(facts.SignalReceived(SIGTERM))
    assert core.scheduler.next_deadline() == core.now + 3.0
    assert core.tell(after=3.0).commands == [KillWorker(1, stack=True)]


def test_an_error_during_a_drain_is_nobodys_fault() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.SignalReceived(SIGTERM))
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.ended()[-1].outcome == "interrupted"
    assert core.table.state[0] == INTERRUPTED


def test_workers_that_are_never_ready_stop_the_run_with_their_own_words() -> None:
    core = Core(5, workers=1)
    core.begin()
    incarnation = 0
    for _ in range(retry_policy.START_FAILURES):
        effects = core.tell(after=40.0)
        incarnation = next(c.incarnation for c in effects.commands if isinstance(c, StartWorker))
        core.tell(facts.WorkerNotReady(incarnation, Failure("ImportError", "no module named model")))
        core.tell(facts.WorkerDied(incarnation, exit_code=1))
    assert "no module named model" in core.scheduler.dispatcher.failure
    assert core.scheduler.finished
    assert not core.ended()


def test_a_full_disk_does_not_end_a_run_that_can_start_no_worker() -> None:
    """D3: it waits for room, however often it has to ask; for anything else it would give up."""
    core = Core(5, workers=1)
    core.begin()
    full = Failure("OSError", "No space left on device", errno=28)
    for _ in range(retry_policy.START_FAILURES + 2):
        effects = core.tell(after=retry_policy.NO_SPACE_WAIT)
        incarnation = next(c.incarnation for c in effects.commands if isinstance(c, StartWorker))
        core.tell(facts.WorkerNotReady(incarnation, full))
        effects = core.tell(facts.WorkerDied(incarnation, exit_code=1))
        assert any("another try in 10 s" in getattr(command, "text", "") for command in effects.commands)
    assert not core.scheduler.dispatcher.failure
    assert not core.scheduler.finished


def test_starts_that_are_refused_at_once_are_one_failure() -> None:
    """P15: a shortage of a moment does not end a run with many workers."""
    core = Core(9, workers=4)
    core.begin()
    core.tell()
    core.tell(*[facts.WorkerStartFailed(incarnation, "EAGAIN") for incarnation in (1, 2, 3, 4)])
    for _ in range(retry_policy.START_FAILURES - 1):
        assert not core.scheduler.dispatcher.failure
        (again,) = [c for c in core.tell(after=40.0).commands if isinstance(c, StartWorker)]
        core.tell(facts.WorkerStartFailed(again.incarnation, "EAGAIN"))
    assert core.scheduler.dispatcher.failure == "EAGAIN"


def test_while_one_is_still_starting_failures_of_others_do_not_end_the_run() -> None:
    """P15: its setup may take long; nothing more is started until it shows what it comes to."""
    core = Core(9, workers=4)
    core.begin()
    core.tell()
    for incarnation in (2, 3, 4):
        core.tell(facts.WorkerDied(incarnation, exit_code=1))
    assert not core.scheduler.dispatcher.failure
    assert not core.tell(after=40.0).commands
    assert core.scheduler.next_deadline() is None
    core.tell(facts.WorkerReady(1))
    core.tell(after=40.0)
    assert [worker.status for worker in core.scheduler.workers.values()] == [
        "ready",
        "starting",
        "starting",
        "starting",
    ]


def test_with_a_full_disk_nothing_is_handed_out_and_the_run_goes_on_by_itself() -> None:
    core = Core(5, workers=1)
    core.begin()
    core.tell()
    blocked = core.tell(facts.HandOutBlocked("no_space", "12 MB free on /data"), facts.WorkerReady(1))
    assert not leases(blocked)
    assert any(isinstance(record, Paused) for record in blocked.records)
    freed = core.tell(facts.HandOutUnblocked("no_space"), after=60.0)
    assert leases(freed)
    assert next(r for r in freed.records if isinstance(r, Unpaused)).seconds == 60.0


def test_what_ran_when_the_supervisor_was_killed_is_lost_once_and_runs_again() -> None:
    table = JobTable()
    for number in range(4):
        table.add(f"job/{number}")
    table.apply(Leased(0, 7, 11, ["job/0", "job/1", "job/2"], AT))
    core = Core(4, table=table, workers=1)
    core.begin()
    (lost,) = core.ended()
    assert (lost.job, lost.outcome, lost.state, lost.attempt) == ("job/0", "lost", "in_progress", 1)
    assert table.charges[0].losses == 1
    core.tell(facts.Synced(99))
    order: list[int] = []
    core.tell(facts.WorkerReady(1))
    while core.scheduler.workers and core.scheduler.workers[1].leases:
        lease, job = core.scheduler.workers[1].leases[0]
        assert len(core.scheduler.workers[1].leases) == 1 or job == 3  # suspects are leased singly
        order.append(job)
        core.tell(facts.JobsFinished(1, [good(lease, 0.0001)]))
    assert sorted(order) == [0, 1, 2, 3]


def test_a_job_lost_three_times_runs_last_and_alone() -> None:
    table = JobTable()
    for number in range(6):
        table.add(f"job/{number}")
    for run in range(3):
        table.apply(Ended("job/0", run + 1, run, "lost", "in_progress", 0.0, -1, AT))
    core = Core(6, table=table, workers=2)
    core.start()
    while any(worker.leases for worker in core.scheduler.workers.values()):
        busy = [
            (worker.incarnation, *worker.leases[0])
            for worker in core.scheduler.workers.values()
            if worker.leases
        ]
        if any(job == 0 for _, _, job in busy):
            assert len(busy) == 1
            assert all(table.state[job] == COMPLETED for job in range(1, 6))
        incarnation, lease, _ = busy[0]
        core.tell(facts.JobsFinished(incarnation, [good(lease)]))
    assert table.state[0] == COMPLETED


def test_a_quarantined_job_gets_its_new_attempt_alone_after_all_others() -> None:
    table = JobTable()
    for number in range(3):
        table.add(f"job/{number}")
    for attempt in (1, 2, 3):
        state = "failed" if attempt == 3 else "in_progress"
        table.apply(Ended("job/0", attempt, attempt, "crashed", state, 0.0, 0, AT))
    table.reset(0, forget_charges=False)
    core = Core(3, table=table, workers=2)
    core.begin(retry=[0])
    started = [c.incarnation for c in core.tell().commands if isinstance(c, StartWorker)]
    core.tell(*[facts.WorkerReady(incarnation) for incarnation in started])
    handed = {job for worker in core.scheduler.workers.values() for _, job in worker.leases}
    assert handed == {1, 2}


def test_a_worker_is_replaced_after_its_share_of_jobs() -> None:
    core = Core(5, workers=1, max_jobs_per_worker=2)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    stopping = core.tell(facts.JobsFinished(1, [good(2)]))
    assert StopWorker(1) in stopping.commands
    assert StartWorker(0, 2) in core.tell(facts.WorkerDied(1, exit_code=0)).commands
    assert any(isinstance(r, WorkerEnded) and r.why == "finished" for r in core.records)


def test_a_worker_that_does_not_die_gives_up_its_slot_but_not_its_job() -> None:
    core = Core(3, workers=1, timeout=5.0)
    core.start()
    core.tell(after=5.0)
    effects = core.tell(facts.WorkerGivenUp(1))
    assert StartWorker(0, 2) in effects.commands
    assert core.table.state[0] == LEASED
    core.tell(facts.WorkerDied(1, signal=9))
    assert core.ended()[-1].outcome == "timed_out"


def test_an_illegal_move_raises_and_changes_nothing() -> None:
    table = JobTable()
    table.add("a")
    with pytest.raises(IllegalMove):
        table.move(0, "interrupted")
    assert table.state[0] == PENDING
    table.move(0, "completed")
    with pytest.raises(IllegalMove):
        table.move(0, "leased")
    assert table.state[0] == COMPLETED
