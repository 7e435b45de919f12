"""What a job says of itself while it runs, and a job that interrupts itself. Pure."""

from __future__ import annotations

from supervisor.core.dispatch import retry_policy
from supervisor.core.scheduling.progress import ProgressObserver
from supervisor.core.state.snapshot import WorkerSnapshot
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Tell
from supervisor.core.terms.jobs import FAILED, INTERRUPTED
from supervisor.core.terms.records import Noted
from tests.core.test_scheduler import Core, good, leases
from workers.transport.messages import Failed, Failure


def seen(core: Core) -> WorkerSnapshot:
    observer = ProgressObserver(
        core.scheduler, Statistics(), experiment_id="e", name="n", directory="/", now=core.now
    )
    return observer.snapshot(core.now).workers[0]


def said(job: str, fraction: float | None = None, notice: str = "", **metrics: float) -> facts.JobReported:
    return facts.JobReported(1, job, fraction, dict(metrics), notice)


def test_a_report_is_seen_and_is_not_journalled() -> None:
    core = Core(2, workers=1)
    core.start()
    records = len(core.records)
    core.tell(said("job/0", 0.25, loss=0.5), after=1.0)
    core.tell(said("job/0", None, step=3), after=1.0)
    core.tell(after=5.0)
    worker = seen(core)
    assert (worker.fraction, worker.metrics, worker.reported) == (0.25, {"loss": 0.5, "step": 3}, 5.0)
    assert len(core.records) == records
    core.tell(facts.JobsFinished(1, [good(1)]))
    worker = seen(core)
    assert (worker.job, worker.fraction, worker.metrics, worker.reported) == ("job/1", None, {}, None)


def test_the_word_of_a_thread_that_has_outlived_its_job_is_ignored() -> None:
    core = Core(2, workers=1)
    core.start()
    core.tell(facts.JobsFinished(1, [good(1)]))
    core.tell(said("job/0", 0.5), said("nobody's", 0.6))
    assert seen(core).fraction is None
    core.tell(facts.JobReported(77, "job/1", 0.5, {}))


def test_a_job_without_end_does_not_fill_the_memory_with_metrics() -> None:
    core = Core(1, workers=1)
    core.start()
    for number in range(100):
        core.tell(said("job/0", **{f"metric{number}": 1.0}))
    assert len(seen(core).metrics) == 32


def test_a_notice_is_told_and_noted() -> None:
    core = Core(1, workers=1)
    core.start()
    effects = core.tell(said("job/0", notice="its state is damaged"))
    assert Tell("warning", "its state is damaged") in effects.commands
    (note,) = [record for record in core.records if isinstance(record, Noted)]
    assert note.what == "job_notice" and note.detail["job"] == "job/0"


def interrupted(lease: int) -> facts.JobsFinished:
    return facts.JobsFinished(1, [Failed(lease, 1.0, "interrupted", Failure("Interrupted", "later"))])


def test_a_job_that_interrupts_itself_runs_again_after_a_while_and_not_for_ever() -> None:
    core = Core(1, workers=1)
    (given,) = leases(core.start()).values()
    for _ in range(retry_policy.INTERRUPTED_LIMIT):
        effects = core.tell(interrupted(given.first_lease))
        assert core.table.state[0] == INTERRUPTED and not leases(effects)
        (given,) = leases(core.tell(after=retry_policy.INTERRUPTED_WAIT)).values()
    core.tell(interrupted(given.first_lease))
    assert core.table.state[0] == FAILED
    assert [record.outcome for record in core.ended()] == ["interrupted"] * 10 + ["raised"]


def test_in_a_drain_it_costs_nothing() -> None:
    core = Core(1, workers=1)
    core.start()
    core.tell(facts.SignalReceived(2))
    core.tell(interrupted(1))
    assert core.table.state[0] == INTERRUPTED
    assert not core.scheduler.ledger._interrupted
