"""Orders from another terminal, as the core takes them: no process, no socket, no clock."""

from __future__ import annotations

import pytest

from supervisor.core.state.job_table import Charges, JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import (
    AnswerControl,
    AnswerWithStacks,
    Effects,
    KillWorker,
    RevokeJobs,
    SignalWorker,
    StartWorker,
    StopWorker,
    Tell,
)
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING, OwnSettings
from supervisor.core.terms.needs import Needs
from supervisor.core.terms.records import Ended, Noted, Paused, Reset, Unpaused
from tests.core.test_scheduler import SIGINT, Core, bad, good, leases

SIGSEGV = 11


def ask(core: Core, order: str, *jobs: str, number: int = 0, after: float = 0.0) -> Effects:
    return core.tell(facts.ControlAsked(7, 1000, order, number, list(jobs)), after=after)


def answer(effects: Effects) -> AnswerControl:
    (found,) = [command for command in effects.commands if isinstance(command, AnswerControl)]
    assert found.ticket == 7
    return found


def noted(effects: Effects) -> list[dict[str, object]]:
    return [r.detail for r in effects.records if isinstance(r, Noted) and r.what == "control"]


def replayed(core: Core) -> JobTable:
    """What a resume reads from the records."""
    table = JobTable()
    for job_id in core.table.ids:
        table.add(job_id)
    for record in core.records:
        table.apply(record)  # type: ignore[arg-type]
    return table


def test_a_pause_lets_running_jobs_go_on_and_hands_nothing_out_until_resume() -> None:
    core = Core(6)
    core.start()
    effects = ask(core, "pause")
    assert answer(effects).text == "paused: 2 running jobs go on, nothing new is handed out"
    assert [r.why for r in effects.records if isinstance(r, Paused)] == ["user"]
    assert noted(effects)[0]["uid"] == 1000
    done = core.tell(facts.JobsFinished(1, [good(1)]), facts.JobsFinished(2, [good(2)]))
    assert not leases(done)
    assert not done.commands
    effects = ask(core, "resume", after=90.0)
    assert answer(effects).text == "going on after a pause of 90 s"
    assert [r.seconds for r in effects.records if isinstance(r, Unpaused)] == [90.0]
    assert set(leases(effects)) == {1, 2}


def test_a_pause_takes_back_what_waits_behind_running_jobs() -> None:
    core = Core(2_000, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0001)]))
    held = core.scheduler.workers[1].lease_count()
    assert held > 2
    effects = ask(core, "pause")
    (revoked,) = [c for c in effects.commands if isinstance(c, RevokeJobs)]
    assert len(revoked.leases) == held - 1


@pytest.mark.parametrize("order", ["pause", "resume", "drain"])
def test_what_is_so_already_is_said_and_not_recorded(order: str) -> None:
    core = Core(6)
    core.start()
    if order != "resume":
        ask(core, order)
    effects = ask(core, order)
    assert answer(effects).done
    assert "already" in answer(effects).text or "was not" in answer(effects).text
    assert not effects.records


def test_a_drain_by_hand_has_no_signal_and_the_first_ctrl_c_after_it_stops_now() -> None:
    core = Core(6, grace=20.0)
    core.start()
    effects = ask(core, "drain")
    assert "2 running jobs have 20 s to finish" in answer(effects).text
    assert len([c for c in effects.commands if isinstance(c, SignalWorker)]) == 2
    assert core.scheduler.draining
    assert core.scheduler.drain.signal is None
    assert core.scheduler.drain.asked
    killed = core.tell(facts.SignalReceived(SIGINT))
    assert {c.incarnation for c in killed.commands if isinstance(c, KillWorker)} == {1, 2}


def test_stop_interrupts_running_jobs_at_once() -> None:
    core = Core(6)
    core.start()
    effects = ask(core, "stop")
    assert "2 running jobs are interrupted" in answer(effects).text
    (told,) = (command.text for command in effects.commands if isinstance(command, Tell))
    assert told.endswith("stopping now: 2 running jobs are interrupted; they run again on a resume")
    assert {c.incarnation for c in effects.commands if isinstance(c, KillWorker)} == {1, 2}
    core.tell(facts.WorkerDied(1, signal=9), facts.WorkerDied(2, signal=9))
    assert [record.outcome for record in core.ended()] == ["interrupted", "interrupted"]
    assert core.scheduler.finished


def test_fewer_workers_lets_idle_ones_go_and_busy_ones_finish_their_job() -> None:
    core = Core(40, workers=4)
    core.start()
    effects = ask(core, "workers", number=2)
    assert "4 before, 2 from now on; 2 finish a job first" in answer(effects).text
    assert {c.incarnation for c in effects.commands if isinstance(c, StopWorker)} == {3, 4}
    assert not [c for c in effects.commands if isinstance(c, KillWorker)]
    done = core.tell(facts.JobsFinished(3, [good(3)]), facts.JobsFinished(1, [good(1)]))
    assert set(leases(done)) == {1}
    gone = core.tell(facts.WorkerDied(3, exit_code=0), facts.WorkerDied(4, exit_code=0))
    assert not [c for c in gone.commands if isinstance(c, StartWorker)]


def test_more_workers_are_started_at_once() -> None:
    core = Core(40, workers=1)
    core.start()
    effects = ask(core, "workers", number=3)
    assert [c.slot for c in effects.commands if isinstance(c, StartWorker)] == [1, 2]
    assert not answer(ask(core, "workers", number=0)).done


def test_fewer_workers_name_the_jobs_that_do_not_fit_any_more() -> None:
    table = JobTable()
    for number in range(8):
        table.add(f"job/{number}")
    for number, cpus in ((3, 4), (4, 4), (5, 3), (6, 4), (7, 2)):
        table.own[number] = OwnSettings(needs=Needs(cpus=cpus))
    core = Core(0, workers=4, table=table)
    core.start()
    effects = ask(core, "workers", number=3)
    why = "job 'job/3': asks for 4 cores, but there are 3 (--workers)"
    assert answer(effects).text.endswith(f". Left pending: {why}; 2 more jobs cannot run either")
    assert why in str(noted(effects)[0]["what"])
    assert any(why in command.text for command in effects.commands if isinstance(command, Tell))
    text = answer(ask(core, "workers", number=2)).text
    assert text.endswith("but there are 2 (--workers); 3 more jobs cannot run either")
    ask(core, "cancel", "job/4", "job/5", "job/6")
    assert answer(ask(core, "workers", number=3)).text.endswith(f". Left pending: {why}")
    assert "pending" not in answer(ask(core, "workers", number=4)).text


def test_a_failed_job_gets_one_more_attempt_and_its_charges_stay() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [bad(1)]))
    assert core.table.state[0] == FAILED
    effects = ask(core, "retry", "job/0")
    assert [(r.jobs, r.why) for r in effects.records if isinstance(r, Reset)] == [(["job/0"], "retry")]
    assert answer(effects).text == "job/0: back in line for one more attempt"
    assert core.table.charges[0].errors == 1
    assert not core.scheduler.finished


def test_a_quarantined_job_that_is_retried_waits_for_the_disk_and_runs_alone() -> None:
    core = Core(4, workers=2, crash_limit=1)
    core.start()
    core.tell(facts.WorkerDied(1, signal=SIGSEGV))
    assert core.table.state[0] == FAILED
    assert ask(core, "retry", "job/*").urgent
    assert core.scheduler.ledger.awaiting_sync
    core.tell(facts.Synced(len(core.records)))
    assert core.scheduler.queue.has_alone()


@pytest.mark.parametrize(
    ("order", "name", "why"),
    [
        ("retry", "job/5", "job/5 waits for its turn: not failed"),
        ("retry", "job/0", "job/0 is running: not failed"),
        ("retry", "nobody", "no job is called 'nobody'"),
        ("retry", "job/*", "none of 6 jobs is failed; job/0 is running"),
        ("cancel", "nobody*", "no job is called 'nobody*'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(order: str, name: str, why: str) -> None:
    core = Core(6)
    core.start()
    effects = ask(core, order, name)
    assert not answer(effects).done
    assert why in answer(effects).text
    assert not effects.records


def test_a_job_that_is_left_out_of_the_run_is_not_touched() -> None:
    core = Core(2)
    core.scheduler.begin(core.now, "", 1, mask=b"\1\0")
    assert "left out of this run by --only" in answer(ask(core, "cancel", "job/1")).text


def test_an_id_with_brackets_is_no_pattern_and_a_pattern_beside_it_is_one() -> None:
    table = JobTable()
    for job_id in ("running", "running too", "T1", "T[1,1]", "what?", "whats", "other"):
        table.add(job_id)
    core = Core(0, table=table)
    core.start()
    ask(core, "cancel", "what?", "T[1,1]", "oth*")
    assert [job for job in range(7) if table.state[job] == FAILED] == [3, 4, 6]
    assert answer(ask(core, "retry", "T[1,1]")).text.startswith("T[1,1]: ")
    assert [job for job in range(7) if table.state[job] == FAILED] == [4, 6]


def test_a_waiting_job_that_is_cancelled_is_failed_without_an_attempt() -> None:
    core = Core(6)
    core.start()
    effects = ask(core, "cancel", "job/4", "job/5")
    assert "2 waiting are not started" in answer(effects).text
    assert [(r.job, r.outcome, r.state, r.attempt) for r in core.ended()] == [
        ("job/4", "cancelled", "failed", 0),
        ("job/5", "cancelled", "failed", 0),
    ]
    for table in (core.table, replayed(core)):
        assert [table.state[4], table.state[5]] == [FAILED, FAILED]
        assert all(charges == Charges() for charges in table.charges.values())
        assert table.outcome[4] == "cancelled"
    for lease in (1, 2, 3, 4):
        worker = 1 if lease in [entry[0] for entry in core.scheduler.workers[1].leases] else 2
        core.tell(facts.JobsFinished(worker, [good(lease)]))
    assert core.scheduler.dispatcher.nothing_left()


def test_a_running_job_that_is_cancelled_is_ended_and_its_neighbours_go_on() -> None:
    core = Core(6, workers=2, retries=3)
    core.start()
    effects = ask(core, "cancel", "job/0")
    assert [c.incarnation for c in effects.commands if isinstance(c, KillWorker)] == [1]
    assert core.table.state[0] == LEASED
    core.tell(facts.WorkerDied(1, signal=9))
    (record,) = core.ended()
    assert (record.outcome, record.state, record.attempt) == ("cancelled", "failed", 1)
    assert replayed(core).state[0] == FAILED
    assert core.table.charges.get(0, Charges()) == Charges()
    assert core.table.state[1] == LEASED


def test_a_job_that_ends_by_itself_just_then_keeps_what_it_came_to() -> None:
    core = Core(6, workers=1, retries=3)
    core.start()
    ask(core, "cancel", "job/0")
    core.tell(facts.JobsFinished(1, [good(1)]), facts.WorkerDied(1, signal=9))
    assert core.table.state[0] == COMPLETED
    assert not core.scheduler.orders.ending


def test_an_error_just_then_gives_a_cancelled_job_no_further_attempt() -> None:
    core = Core(6, workers=1, retries=3)
    core.start()
    ask(core, "cancel", "job/0")
    core.tell(facts.JobsFinished(1, [bad(1)]), facts.WorkerDied(1, signal=9))
    assert core.table.state[0] == FAILED
    assert core.table.outcome[0] == "cancelled"
    assert [record.outcome for record in core.ended()] == ["raised", "cancelled"]


def test_a_lease_begun_just_before_it_was_taken_back_is_ended_all_the_same() -> None:
    core = Core(2_000, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1, 0.0001)]))
    worker = core.scheduler.workers[1]
    (first, _), (_, behind) = list(worker.leases)[:2]
    ask(core, "cancel", core.table.ids[behind])
    assert core.table.state[behind] == FAILED
    effects = core.tell(facts.JobsFinished(1, [good(first, 0.0001)]))
    assert KillWorker(1) in effects.commands
    core.tell(facts.WorkerDied(1, signal=9))
    assert core.table.state[behind] == FAILED
    assert not core.scheduler.orders.ending


def test_a_cancelled_job_stays_failed_in_a_drain_and_can_be_retried_before() -> None:
    core = Core(6, workers=1)
    core.start()
    ask(core, "cancel", "job/5")
    assert answer(ask(core, "retry", "job/5")).done
    assert core.table.state[5] == PENDING
    ask(core, "cancel", "job/0")
    core.tell(facts.SignalReceived(SIGINT))
    core.tell(facts.WorkerDied(1, signal=9))
    assert core.table.state[0] == FAILED
    assert INTERRUPTED not in core.table.state
    assert "being stopped" in answer(ask(core, "retry", "job/0")).text


def test_a_worker_that_is_ended_for_its_time_is_ended_for_the_order_as_well() -> None:
    core = Core(2, workers=1, timeout=5.0)
    core.start()
    core.tell(after=5.0)
    ask(core, "cancel", "job/0")
    core.tell(facts.WorkerDied(1, signal=9))
    assert core.ended()[-1].outcome == "cancelled"


def test_what_is_cancelled_is_no_failure_of_the_experiment() -> None:
    core = Core(6, workers=2, max_failures="1")
    core.start()
    ask(core, "cancel", "job/0", "job/5")
    core.tell(facts.WorkerDied(1, signal=9))
    assert core.table.state[0] == core.table.state[5] == FAILED
    assert not core.scheduler.draining


def test_stacks_are_a_command_for_the_loop() -> None:
    core = Core(6)
    core.start()
    effects = ask(core, "stacks")
    assert AnswerWithStacks(7, "the stacks of 2 workers follow") in effects.commands
    assert noted(effects)


def test_attempts_that_were_never_made_are_not_counted() -> None:
    from supervisor.core.state.statistics import Statistics

    core = Core(6)
    core.start()
    ask(core, "cancel", "job/4", "job/0")
    core.tell(facts.WorkerDied(1, signal=9))
    statistics = Statistics()
    for record in core.records:
        if isinstance(record, Ended):
            statistics.apply(record)
    assert (statistics.cancelled, statistics.attempts, statistics.retries) == (2, 1, 0)
