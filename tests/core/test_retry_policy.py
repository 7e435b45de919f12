"""Another attempt, or none: each cause has its own budget and its own wait."""

from __future__ import annotations

import pytest

from supervisor.core.dispatch import retry_policy
from supervisor.core.state.job_table import Charges, JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import KillWorker, StopWorker, Tell
from supervisor.core.terms.jobs import FAILED, PENDING, OwnSettings
from tests.core.test_scheduler import SIGINT, Core, bad, good, leases
from workers.transport.messages import Failed, Failure


def wish(lease: int, what: str, after: float | None = None, most: int = 10) -> Failed:
    failure = Failure("workers.Retry", "later")
    return Failed(lease, 1.0, "raised", failure, wish=what, after=after, most=most)  # type: ignore[arg-type]


def time_out(core: Core, incarnation: int, timeout: float) -> None:
    effects = core.tell(after=timeout)
    assert KillWorker(incarnation, stack=True) in effects.commands
    core.tell(facts.WorkerDied(incarnation, signal=9))


def test_a_retried_job_waits_and_occupies_no_worker() -> None:
    core = Core(2, workers=1, retries=1, backoff=8.0)
    core.start()
    given = leases(core.tell(facts.JobsFinished(1, [bad(1)])))
    assert list(given[1].jobs) == [1]
    core.tell(facts.JobsFinished(1, [good(2)]))
    due = core.scheduler.next_deadline()
    assert due is not None
    assert 4.0 < due - core.now <= 8.0
    assert not leases(core.tell(after=3.9))
    assert list(leases(core.tell(after=4.2))[1].jobs) == [0]


def test_a_run_in_which_all_wait_says_so_and_a_drain_ends_it_at_once() -> None:
    core = Core(1, workers=1)
    core.start()
    effects = core.tell(facts.JobsFinished(1, [wish(1, "retry", after=3600.0)]))
    told = [command.text for command in effects.commands if isinstance(command, Tell)]
    assert told == ["nothing to run now: 1 job waits for another attempt, the first for 3600 s"]
    assert core.tell(after=1.0).commands == []
    assert core.scheduler.next_deadline() == core.now + 3599.0
    assert StopWorker(1) in core.tell(facts.SignalReceived(SIGINT)).commands
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert core.scheduler.finished
    assert core.table.state[0] == PENDING


def test_the_wait_doubles_up_to_an_hour_and_its_jitter_follows_from_the_job() -> None:
    waits = [retry_policy.backoff(1.0, tries, "job/1") for tries in range(1, 20)]
    assert waits == [retry_policy.backoff(1.0, tries, "job/1") for tries in range(1, 20)]
    for tries, wait in enumerate(waits, 1):
        most = min(3600.0, 2.0 ** (tries - 1))
        assert most / 2 <= wait <= most
    assert len({retry_policy.backoff(1.0, 1, f"job/{number}") for number in range(100)}) > 90
    assert retry_policy.backoff(0.0, 5, "job") == 0.0
    assert retry_policy.backoff(7200.0, 3, "job") > 3600.0


def test_timeouts_and_errors_do_not_spend_each_others_budget() -> None:
    core = Core(1, workers=1, retries=1, retry_timeouts=1, timeout=10.0, backoff=0.0)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    time_out(core, 1, 10.0)
    assert core.table.state[0] == PENDING
    assert core.table.charges[0] == Charges(errors=1, timeouts=1)
    core.tell(facts.WorkerReady(2))
    time_out(core, 2, 10.0)
    assert core.table.state[0] == FAILED
    assert [record.state for record in core.ended()] == ["pending", "pending", "failed"]


def test_a_job_that_asks_for_another_attempt_gets_it_without_retries_and_goes_first() -> None:
    core = Core(3, workers=1)
    core.start()
    given = leases(core.tell(facts.JobsFinished(1, [wish(1, "retry", after=5.0)])))
    assert list(given[1].jobs) == [1]
    given = leases(core.tell(facts.JobsFinished(1, [good(2)]), after=6.0))
    assert list(given[1].jobs) == [0]
    (record, _) = core.ended()
    assert (record.outcome, record.state, record.charged) == ("raised", "pending", "asked")


def test_a_job_that_asks_too_often_fails() -> None:
    core = Core(1, workers=1, retries=5)
    core.start()
    for lease in (1, 2):
        core.tell(facts.JobsFinished(1, [wish(lease, "retry", after=0.0, most=2)]))
        assert core.table.state[0] != FAILED
    core.tell(facts.JobsFinished(1, [wish(3, "retry", after=0.0, most=2)]))
    assert core.table.state[0] == FAILED
    assert core.table.charges[0] == Charges(asked=3)


def test_a_job_that_gives_up_fails_whatever_the_budget() -> None:
    core = Core(1, workers=1, retries=5)
    core.start()
    core.tell(facts.JobsFinished(1, [wish(1, "give_up")]))
    (record,) = core.ended()
    assert record.state == "failed"
    assert record.error is not None
    assert record.error["gave_up"] is True


def test_a_jobs_own_retries_and_timeout_go_before_those_of_the_experiment() -> None:
    core = Core(3, workers=3, retries=5, timeout=10.0)
    core.table.own = {0: OwnSettings(retries=0), 1: OwnSettings(timeout=3.0), 2: OwnSettings(timeout=0.0)}
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.table.state[0] == FAILED
    assert core.scheduler.next_deadline() == 103.0
    time_out(core, 2, 3.0)
    assert not core.tell(after=3600.0).commands  # "none": no timeout at all


def test_what_was_spent_is_the_same_after_a_replay() -> None:
    core = Core(1, workers=1, retries=1, retry_timeouts=1, timeout=10.0, backoff=0.0)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    core.tell(facts.JobsFinished(1, [wish(2, "retry", after=0.0)]))
    time_out(core, 1, 10.0)
    replayed = JobTable()
    for record in core.records:
        replayed.apply(record)  # type: ignore[arg-type]
    assert replayed.charges == core.table.charges == {0: Charges(errors=1, timeouts=1, asked=1)}


@pytest.mark.parametrize("spent", [Charges(losses=3), Charges(over_memory=1)])
def test_what_took_more_than_its_worker_runs_alone(spent: Charges) -> None:
    assert retry_policy.needs_to_be_alone(spent)
    assert not retry_policy.needs_to_be_alone(Charges(crashes=5))
    assert retry_policy.needs_to_be_alone(Charges(crashes=5), crash_limit=3)
