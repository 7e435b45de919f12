"""Outcomes that wait for the files of their jobs: nobody else waits, and nobody else pays."""

from __future__ import annotations

from supervisor.core.dispatch.dispatcher import MOST_HELD
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import AnswerControl, KillWorker, StartJobs
from supervisor.core.terms.file_owner import FileOwner
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED
from tests.core.test_scheduler import Core, bad, good, leases


def held(core: Core) -> list[int]:
    return list(core.scheduler.dispatcher.held)


def test_the_worker_goes_on_and_the_outcome_counts_when_it_comes() -> None:
    core = Core(4, workers=1)
    core.start()
    given = leases(core.tell(facts.OutcomesHeld(1, [1])))
    assert [command.first_lease for command in given.values()] == [2]
    assert core.table.state[0] == LEASED and held(core) == [1]
    core.tell(facts.JobsFinished(1, [good(2)]))
    core.tell(facts.JobsFinished(1, [good(1), good(3)]))
    assert [(record.job, record.attempt) for record in core.ended()] == [
        ("job/1", 1),
        ("job/0", 1),
        ("job/2", 1),
    ]
    assert held(core) == [] and not core.scheduler.finished


def test_no_timeout_and_no_blame_is_that_of_a_job_that_has_ended() -> None:
    core = Core(2, workers=1, timeout=10.0)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]), after=9.0)
    assert not any(isinstance(command, KillWorker) for command in core.tell(after=9.0).commands)
    core.tell(facts.WorkerDied(1, signal=11))
    (crashed,) = core.ended()
    assert (crashed.job, crashed.outcome) == ("job/1", "crashed")
    core.tell(facts.JobsFinished(1, [good(1)]))  # its worker is dead, its files have come
    assert core.table.state[0] == COMPLETED


def test_the_time_of_the_next_job_begins_when_the_one_before_it_has_ended() -> None:
    core = Core(50, workers=1, timeout=10.0)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, seconds=0.001)]))  # now it holds many
    core.tell(facts.OutcomesHeld(1, [2]), after=9.0)
    assert not any(isinstance(command, KillWorker) for command in core.tell(after=9.0).commands)
    assert any(isinstance(command, KillWorker) for command in core.tell(after=1.0).commands)


def test_the_run_waits_for_it_and_its_failure_is_a_failure() -> None:
    core = Core(1, workers=1, retries=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert not core.scheduler.finished
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert [(record.outcome, record.state) for record in core.ended()] == [("raised", "pending")]


def test_with_its_node_it_is_lost_and_runs_again() -> None:
    core = Core(2, workers=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    core.tell(facts.HeldOutcomesLost([1, 77]))
    (lost,) = core.ended()
    assert (lost.job, lost.outcome, lost.state) == ("job/0", "lost", "in_progress")
    core.tell(facts.JobsFinished(1, [good(1)]))  # too late
    assert core.table.state[0] == INTERRUPTED and len(core.ended()) == 1


def test_whoever_stops_now_waits_for_no_files() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    core.tell(facts.SignalReceived(2))
    core.tell(facts.WorkerDied(1, exit_code=0))
    assert held(core) == [1] and not core.scheduler.finished
    core.tell(facts.SignalReceived(2))
    assert held(core) == [] and core.scheduler.finished
    assert [record.outcome for record in core.ended()] == ["interrupted"]


def test_a_worker_whose_files_pile_up_gets_no_more_jobs() -> None:
    core = Core(MOST_HELD + 2, workers=1)
    core.start()
    for lease in range(1, MOST_HELD + 1):
        given = leases(core.tell(facts.OutcomesHeld(1, [lease])))
    assert given == {}
    after = core.tell(facts.JobsFinished(1, [good(1)])).commands
    assert [command.first_lease for command in after if isinstance(command, StartJobs)] == [MOST_HELD + 1]


def test_a_checkpoint_knows_the_lease() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    assert core.scheduler.position().open_leases == [(1, 1, 0)]


def test_whose_files_they_are() -> None:
    core = Core(3, workers=1)
    core.start()
    owner = core.scheduler.held_files.owner
    assert owner(1, 1) == FileOwner("job/0", 1, of_use=True, completed=False)
    core.tell(facts.OutcomesHeld(1, [1]))
    assert owner(1, 1) == FileOwner("job/0", 1, of_use=True, completed=False)
    assert owner(2, 1) is owner(1, 77) is None
    assert owner(1, None) == FileOwner("job/1", 1, of_use=True, completed=False)  # which it runs now
    core.tell(facts.JobsFinished(1, [good(1)]))
    assert owner(1, 1) is None


def test_it_can_be_cancelled() -> None:
    core = Core(2, workers=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    commands = core.tell(facts.ControlAsked(1, 0, "cancel", jobs=["job/0"])).commands
    (answer,) = [command.text for command in commands if isinstance(command, AnswerControl)]
    assert "job/0: cancelled (1 running is ended)" in answer
    assert [(record.job, record.outcome, record.state) for record in core.ended()] == [
        ("job/0", "cancelled", "failed")
    ]
    core.tell(facts.JobsFinished(1, [good(1)]))
    assert core.table.state[0] == FAILED


def test_a_retry_is_told_that_it_has_ended() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.OutcomesHeld(1, [1]))
    commands = core.tell(facts.ControlAsked(1, 0, "retry", jobs=["job/0"])).commands
    (answer,) = [command.text for command in commands if isinstance(command, AnswerControl)]
    assert "its files are on their way" in answer
