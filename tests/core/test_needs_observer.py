"""What is taken of what there is, who waits for what, and what cannot run, as onlookers see it."""

from __future__ import annotations

import msgspec
import pytest

from supervisor.core.dispatch.turn import Turn
from supervisor.core.scheduling.progress import ProgressObserver
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.snapshot import NeedsSnapshot, UnfitJobs, WaitingJob
from supervisor.core.state.statistics import Statistics
from supervisor.core.state.worker_state import STARTING
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import PlaceFacts
from supervisor.core.terms.jobs import OwnSettings
from supervisor.core.terms.needs import Needs, Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import BY_HAND, LOW_MEMORY
from supervisor.core.terms.settings import Settings
from tests.core.test_scheduler import AT, SIGINT, Core, good

G = 1 << 30


def core_of(
    needs: list[Needs | None], workers: int = 4, places: list[PlaceFacts] | None = None, **totals: object
) -> Core:
    """A started run whose jobs need this, in this order."""
    table = JobTable()
    for number, its in enumerate(needs):
        table.add(f"job/{number}")
        if its is not None:
            table.own[number] = OwnSettings(needs=its)
    core = Core(0, workers=workers, table=table)
    there_is = msgspec.convert({"cpus": workers * 1000, **totals}, Totals)
    position = Position(run=1)
    core.scheduler = Scheduler(table, Settings(), workers, position, totals=there_is, places=places)
    core.begin()
    ready(core)
    return core


def ready(core: Core) -> None:
    """Let every worker that is started become ready."""
    core.tell()
    while starting := [worker for worker in core.scheduler.workers.values() if worker.status == STARTING]:
        core.tell(*(facts.WorkerReady(worker.incarnation) for worker in starting))


def finish_oldest(core: Core) -> None:
    """The job that was handed out first of those that run is completed."""
    held = {worker.leases[0][0]: worker for worker in core.scheduler.workers.values() if worker.leases}
    lease = min(held)
    core.tell(facts.JobsFinished(held[lease].incarnation, [good(lease)]))


def wait_for_a_claim(core: Core) -> None:
    placement = core.scheduler.dispatcher.placement
    while placement is not None and placement.claimed() is None:
        finish_oldest(core)


def _turn(core: Core) -> Turn:
    return Turn(core.now, AT, len(core.records) + 1)


def needs_of(core: Core) -> NeedsSnapshot:
    found = observer(core).snapshot(core.now).needs
    assert found is not None
    return found


@pytest.mark.parametrize("why", ["no_space", "disk_stalled", LOW_MEMORY, BY_HAND])
def test_why_nothing_is_handed_out_is_said_in_words(why: str) -> None:
    core = Core(2, workers=1)
    core.begin()
    core.tell(facts.HandOutBlocked(why, "12 MB free on /data"))
    said = observer(core).snapshot(core.now).waiting_for
    assert " " in said and "_" not in said


def observer(core: Core, **more: object) -> ProgressObserver:
    given: dict[str, object] = {"experiment_id": "e", "name": "n", "directory": "/", "now": core.now - 10.0}
    return ProgressObserver(core.scheduler, Statistics(), **(given | more))  # type: ignore[arg-type]


def test_a_run_whose_jobs_say_nothing_has_nothing_to_tell() -> None:
    core = Core(6)
    core.start()
    assert observer(core).snapshot(core.now).needs is None


def test_what_is_taken_and_what_there_is_are_in_the_units_of_users() -> None:
    licensed = Needs(resources={"license": 1})
    core = core_of(
        [Needs(cpus=0.5, memory=3 * G), Needs(gpus=1), Needs(gpus=0.5), licensed, None],
        workers=5,
        memory=15 * G,
        gpus=["a", "b"],
        resources={"license": 2000, "api": 1500},
    )
    assert needs_of(core) == NeedsSnapshot(
        cpus=(4.5, 5),
        memory=(3 * G, 15 * G),
        gpus=(1.5, 2),
        resources={"api": (0, 1.5), "license": (1, 2)},
    )
    text = msgspec.json.encode(needs_of(core)).decode()
    assert text == (
        '{"cpus":[4.5,5],"memory":[3221225472,16106127360],"gpus":[1.5,2],'
        '"resources":{"api":[0,1.5],"license":[1,2]}}'
    )


def test_of_several_places_the_sums_are_told_and_what_a_job_lacks_in_one() -> None:
    there = [
        PlaceFacts(1, "a", 2, Totals(2000, memory=4 * G, gpus=("x",))),
        PlaceFacts(2, "b", 3, Totals(3000, memory=8 * G, gpus=("x", "y"))),
    ]
    disks = {"disk": 1000}
    needs = [Needs(memory=3 * G, gpus=1), Needs(memory=8 * G), *[Needs()] * 9]
    core = core_of(needs, places=there, resources=disks)
    assert needs_of(core) == NeedsSnapshot(
        cpus=(5, 5), memory=(11 * G, 12 * G), gpus=(1, 3), resources={"disk": (0, 1)}
    )
    core = core_of([*[None] * 5, Needs(cpus=3), *[None] * 20], places=there, resources=disks)
    wait_for_a_claim(core)
    assert needs_of(core).waiting == WaitingJob("job/5", "3 cores (none free)")
    while len([worker for worker in core.scheduler.workers.values() if not worker.leases]) < 2:
        finish_oldest(core)
    assert needs_of(core) == NeedsSnapshot(
        cpus=(3, 5), resources={"disk": (0, 1)}, waiting=WaitingJob("job/5", "3 cores (2 free)")
    )
    there[0] = PlaceFacts(1, "a", 4, Totals(4000))
    core = core_of([None, Needs(cpus=4, gpus=1, resources={"disk": 1})], places=there, resources=disks)
    why = "asks for 4 cores, 1 GPU, disk=1, and no node has all of that"
    assert needs_of(core).unfit == UnfitJobs(1, "job/1", why)
    nobody_says_anything = core_of([None, None], places=there)
    assert observer(nobody_says_anything).snapshot(1.0).needs is None


def test_what_no_job_asks_for_is_left_out() -> None:
    core = core_of([Needs(cpus=2)], memory=15 * G, gpus=["a"])
    assert needs_of(core) == NeedsSnapshot(cpus=(2, 4))
    assert needs_of(core_of([Needs(memory=G)], memory=None)).memory == (G, None)


def test_a_job_with_a_claim_says_what_it_lacks_until_it_has_it() -> None:
    core = core_of([None, None, Needs(cpus=3), *[None] * 20])
    assert needs_of(core).waiting is None, "nobody has gone ahead of it as often as there are slots"
    wait_for_a_claim(core)
    assert needs_of(core).waiting == WaitingJob("job/2", "3 cores (none free)")
    finish_oldest(core)
    assert needs_of(core).waiting == WaitingJob("job/2", "3 cores (1 free)")
    finish_oldest(core)
    assert needs_of(core) == NeedsSnapshot(cpus=(2, 4), waiting=WaitingJob("job/2", "3 cores (2 free)"))
    finish_oldest(core)
    assert needs_of(core) == NeedsSnapshot(cpus=(4, 4))


@pytest.mark.parametrize("how", ["drain", "pause"])
def test_nobody_waits_for_others_while_nothing_is_handed_out(how: str) -> None:
    core = core_of([None, None, Needs(cpus=3), *[None] * 20])
    wait_for_a_claim(core)
    assert needs_of(core).waiting is not None
    core.tell(facts.SignalReceived(SIGINT) if how == "drain" else facts.ControlAsked(7, 0, "pause", 0, []))
    assert needs_of(core) == NeedsSnapshot(cpus=(4, 4))
    finish_oldest(core)
    assert needs_of(core) == NeedsSnapshot(cpus=(3, 4))


@pytest.mark.parametrize("order", ["drain", "pause"])
def test_no_end_is_told_while_nothing_is_handed_out(order: str) -> None:
    core = core_of([None] * 9)
    seen = observer(core)
    finish_oldest(core)
    assert seen.snapshot(core.now).eta_seconds
    core.tell(facts.ControlAsked(7, 0, order, 0, []))
    assert seen.snapshot(core.now).eta_seconds is None
    if order == "pause":
        core.tell(facts.ControlAsked(8, 0, "resume", 0, []))
        assert seen.snapshot(core.now).eta_seconds


def test_a_run_in_which_nothing_fits_says_so() -> None:
    """A worker that does not die keeps its device, and no other job runs."""
    core = core_of([Needs(gpus=1), Needs(gpus=1)], workers=2, gpus=["a"])
    assert needs_of(core).waiting is None, "one runs"
    worker = next(worker for worker in core.scheduler.workers.values() if worker.leases)
    core.scheduler.dispatcher.kill(_turn(core), worker, "timed_out")
    core.tell(facts.WorkerGivenUp(worker.incarnation))
    ready(core)
    assert needs_of(core).waiting == WaitingJob("job/1", "1 GPU (none free)")
    core.tell(facts.WorkerDied(worker.incarnation, signal=9))
    ready(core)
    assert needs_of(core) == NeedsSnapshot(cpus=(1, 2), gpus=(1, 1))


def test_jobs_that_do_not_fit_any_more_are_counted_and_delay_no_end() -> None:
    core = core_of([None, None, Needs(cpus=3), Needs(cpus=3), None, None], workers=3)
    seen = observer(core)
    assert needs_of(core).unfit is None
    finish_oldest(core)
    core.tell(facts.ControlAsked(7, 0, "workers", 2, []))
    named = observer(core, with_option_names=lambda text: text.replace("--workers", "--longhaul-workers"))
    unfit = named.snapshot(core.now).needs
    assert unfit is not None
    assert unfit.unfit == UnfitJobs(2, "job/2", "asks for 3 cores, but there are 2 (--longhaul-workers)")
    snapshot = seen.snapshot(core.now)
    assert (snapshot.counts.in_progress, snapshot.counts.pending) == (3, 2)
    assert snapshot.eta_seconds == pytest.approx(3 / snapshot.rate)
    core.tell(facts.ControlAsked(7, 0, "cancel", 0, ["job/2"]))
    assert needs_of(core).unfit == UnfitJobs(1, "job/3", "asks for 3 cores, but there are 2 (--workers)")
    core.tell(facts.ControlAsked(7, 0, "workers", 3, []))
    assert needs_of(core).unfit is None
