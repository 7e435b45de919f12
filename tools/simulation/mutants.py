"""Deliberate faults in the real code, each of which the simulation has to catch.

A mutant replaces one function for as long as it lives. `walk` plays histories under each
one until a promise breaks, and fails if one survives: then either the simulation has lost
its teeth or the code no longer needs what the mutant takes away.
"""

from __future__ import annotations

import contextlib
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from unittest import mock

import msgspec

from supervisor.core.dispatch import job_order, placement, placement_pass, retry_policy, worker_exits
from supervisor.core.dispatch.alone_jobs import AloneJobs
from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.job_queue import JobQueue
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.places.place import Place, SharedResources
from supervisor.core.scheduling import earlier_leases, scheduler
from supervisor.core.scheduling.drain import Drain
from supervisor.core.scheduling.earlier_leases import EarlierLeases
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import Charges, IllegalMove, JobTable
from supervisor.core.state.worker_state import Leases, WorkerState
from supervisor.core.terms.events import NODE_ENDED, NODE_LOST
from supervisor.core.terms.jobs import LEASED
from supervisor.core.terms.records import Completions
from supervisor.storage.checkpoint.journal_stretches import Stretches
from supervisor.storage.files.atomic_files import NewFile
from supervisor.storage.files.sync import Syncer
from supervisor.storage.journal import journal_format
from supervisor.storage.journal.journal_file import JournalFile
from supervisor.storage.journal.journal_scan import Piece
from supervisor.storage.plan import plan_columns, plan_file
from supervisor.storage.recovery import journal_only, repair, survey
from supervisor.storage.store import Store
from tools.simulation.disk import SimulatedDisk
from tools.simulation.history import play
from tools.simulation.needs_book import Overdrawn
from tools.simulation.promises import Violation

Patch = tuple[Any, str, Any]


def _no_journal_sync(self: Syncer, number: int) -> None:
    self.synced = max(self.synced, number)


def _publish_without(step: str) -> Callable[..., None]:
    """NewFile.publish with one of its calls to the disk left out."""
    original = NewFile.publish

    def publish(self: NewFile, **keywords: bool) -> None:
        with mock.patch.object(SimulatedDisk, step, return_value=None):
            original(self, **keywords)

    return publish


def _checkpoint_before_journal(self: Syncer, task: Any) -> None:
    self.waiting.append(msgspec.structs.replace(task, after=0))  # type: ignore[attr-defined]


def _late_answers_count(self: Ledger, lease: int, job: int) -> bool:
    return bool(self.table.state[job] in (0, 1, 2))


def _no_charge(self: JobTable, job: int, outcome: str) -> Charges:
    return self.charges.setdefault(job, Charges())


def _no_wait(base: float, tries: int, job_id: str) -> float:
    return 0.0


def _one_budget_for_all(self: JobTable, job: int, outcome: str) -> Charges:
    return _CHARGE(self, job, "raised" if outcome in ("timed_out", "asked") else outcome)


_CHARGE = JobTable.charge


def _blame_the_last(self: Scheduler, event: Any, turn: Any) -> None:
    worker = self.workers.get(event.incarnation)
    if worker is not None:
        held, worker.leases = worker.leases, Leases()
        for lease, job in reversed(held):
            worker.leases.add(lease, [job])
    _ON_WORKER_DIED(self, event, turn)


_ON_WORKER_DIED = Scheduler._on_worker_died


def _settle_untold(self: WorkerState, leases: list[int]) -> Any:
    """Outcomes that come together do not count for what each turn asks of all workers."""
    with mock.patch.object(self, "_changes", set()):
        return _SETTLE_BATCH(self, leases)


_SETTLE_BATCH = WorkerState.settle_batch


def _forget_returned(self: Ledger, leases: list[tuple[int, int]]) -> None:
    for lease, job in leases:
        if self.is_current(lease, job):
            self.table.move(job, "returned")


def _resume_from_further_on(self: Any) -> None:
    _OPEN_CHECKPOINT(self)
    self.floor += 3
    if self.found.header is not None:
        self.found.header.journal.n += 3


_OPEN_CHECKPOINT = survey._Survey._open_checkpoint


def _cut_too_much(found: Any, notes: list[str]) -> JournalFile:
    journal = _CONTINUE(found, notes)
    text = journal.disk.pread(journal.fd, journal.size, 0)
    shorter = text.rfind(b"\n", 0, max(0, journal.size - 1)) + 1
    if found.scan.torn and shorter > 0:
        journal.disk.truncate(journal.fd, shorter)
        journal.size = journal._written = journal._synced = shorter
        journal.next_n -= 1
    return journal


_CONTINUE = repair._continue


def _forget_what_waits(self: JournalFile) -> bool:
    """When there is room again, the records that had waited for it are not written."""
    if self.full is not None and self._batches:
        self._written = self.size
        self.full = None
    return True


def _generation_without_unsynced(
    self: JournalFile, offsets: array[int], *, altered: bool = False
) -> array[int]:
    if self._batches:
        self.next_n = self._batches[0].last_n - self._batches[0].data.count(b"\n") + 1
        self._batches.clear()
        self.size = self._written = self._synced
    return _REGENERATE(self, offsets, altered=altered)


_REGENERATE = JournalFile.regenerate


def _wrong_place(self: Store, records: Any, *, urgent: bool = False) -> int:
    n = _APPEND(self, records, urgent=urgent)
    for job, offset in enumerate(self._offsets):
        if offset and job % 7 == 3:
            self._offsets[job] = self._offsets[job - 1] or offset
            self._lengths[job] = self._lengths[job - 1] or self._lengths[job]
    return n


_APPEND = Store.append


def _first_lease_is_not_lost(self: EarlierLeases, turn: Any, incarnation: int, leases: Any) -> None:
    """The job that ran when the supervisor was killed is forgotten: nobody queues it."""
    for _, job in leases:
        self._ledger.table.state[job] = LEASED


def _no_narrowing(jobs: Any) -> list[Any]:
    """However few jobs an end of the supervisor left open, they are handed out together again."""
    return [group for group in (jobs[:1], jobs[1:]) if group]


def _any_lease_counts_batch(
    self: Ledger, turn: Any, slot: int, jobs: Any, leases: Any, outcomes: Any
) -> None:
    """Many results at once are booked without a look at newest lease and state."""
    for job, outcome in zip(jobs, outcomes, strict=True):
        self.newest_lease[job] = outcome.lease
        self.table.state[job] = LEASED
        self.table.outcome.pop(job, None)
    _TOGETHER(self, turn, slot, jobs, leases, outcomes)


_TOGETHER = Ledger.completed_batch


def _joined_in_another_order(self: Ledger, turn: Any, slot: int, job: int, outcome: Any) -> None:
    """Of results of several workers, the last two are taken for each other's."""
    _ALONE(self, turn, slot, job, outcome)
    results = turn.effects.records[-1].results
    results[-2:] = results[-2:][::-1]


_ALONE = Ledger._completed_alone


def _places_one_off(self: Store, jobs: Any, offset: int, lengths: list[int]) -> int:
    """Of many results that were written together, each is looked for where the next one is."""
    end = _NOTE_PLACES(self, jobs, offset, lengths)
    if len(jobs) > 1:
        _NOTE_PLACES(self, jobs, offset + lengths[0], [*lengths[1:], lengths[0]])
    return end


_NOTE_PLACES = Store._note_locations


def _seal_with_another_seed(bodies: Any, seed: int) -> Any:
    """Lines that were written together are sealed as those of another file."""
    return _SEAL(bodies, seed ^ 1 if len(bodies) > 2 else seed)


_SEAL = journal_format.seal


def _the_last_but_one_twice(n: int, batch: Completions) -> list[bytes]:
    """In place of the last result, the one before it is written again, under the number of the last."""
    bodies = _BODIES(n, batch)
    if len(bodies) > 1:
        bodies[-1] = b'{"n":%d,%b' % (n + len(bodies) - 1, bodies[-2].partition(b",")[2])
    return bodies


_BODIES = journal_format._bodies_batch


def _timeouts_are_ignored(self: Dispatcher, turn: Any) -> None: ...


def _grace_without_end(self: Drain, turn: Any, reason: str, detail: Any, **more: Any) -> None:
    _BEGIN_DRAIN(self, turn, reason, detail, **more)
    self.grace_ends = turn.now + 1000.0


_BEGIN_DRAIN = Drain.begin


def _takes_all_but(*left_out: str) -> Callable[..., None]:
    """What a running job takes is summed without these."""

    def take(self: Place, amounts: Any, devices: Any, **more: bool) -> None:
        nothing = {"resources": ()} if "resources" in left_out else dict.fromkeys(left_out, 0)
        _TAKE(self, msgspec.structs.replace(amounts, **nothing), devices, **more)

    return take


_TAKE = Place.take


def _nodes_are_not_spared(worker: Any, event: Any, **more: Any) -> str:
    """The end of a node is blamed on the jobs that ran there."""
    return _CLASSIFY(worker, msgspec.structs.replace(event, cause=""), **more)


_CLASSIFY = worker_exits.classify_exit


def _has_its_own(self: Place, facts: Any, shared: Any, first_slot: int = 0) -> None:
    """Licences are counted in each place by itself."""
    _NEW_PLACE(self, facts, SharedResources(shared.totals), first_slot)


_NEW_PLACE = Place.__init__


def _clears_its_own(self: Place) -> None:
    _CLEAR(self)
    self.shared.clear()


_CLEAR = Place.clear


def _fits_without_claims_elsewhere(self: Place, amounts: Any, claim: Any = None, *more: Any) -> Any:
    return _FITS(self, amounts, claim if claim is None or claim.place == self.number else None, *more)


_FITS = Place.fits


def _lost_places_take_nothing(self: placement.Placement) -> None:
    _COUNT_TAKEN(self)
    self.shared.clear()
    for worker in self._dispatcher.workers.values():
        if worker.holding is not None and worker.leases and worker.place in self.places:
            self.shared.take(worker.holding.amounts)


_COUNT_TAKEN = placement.Placement.count_taken


def _one_alone_stops_all(self: placement.Placement, turn: Any, held: Any = ()) -> None:
    if not held:
        _PLACE_ALL(self, turn)


_PLACE_ALL = placement.Placement.hand_out


def _lost_workers_take_slots(self: placement_pass.PlacementPass, *more: Any) -> None:
    """Until it is certain that the workers of a lost place have ended, their slots are missing in other places."""
    _NEW_PASS(self, *more)
    lost = sum(each.place not in self._placement.places for each in self._dispatcher.workers.values())
    for crew in self._crews.values():
        crew.free = crew.free[lost:]


_NEW_PASS = placement_pass.PlacementPass.__init__


def _with_cause(told: str, taken_for: str) -> Callable[..., str]:
    def classify(worker: Any, event: Any, **more: Any) -> str:
        cause = taken_for if event.cause == told else event.cause
        return _CLASSIFY(worker, msgspec.structs.replace(event, cause=cause), **more)

    return classify


def _in_line(self: Any, kind: int, waiting: list[int]) -> placement_pass.Went:
    """A job that does not fit lets no other go ahead."""
    went = _HAND_OUT(self, kind, waiting)
    return placement_pass.Went.NOWHERE if went is placement_pass.Went.UNFIT else went


_HAND_OUT = placement_pass.PlacementPass._hand_out


def _one_job_further(self: Stretches, floor: int, begin: int = 0) -> Iterator[Piece]:
    for piece in _PIECES(self, floor, begin):
        run = piece.run
        yield piece._replace(run=None if run is None else run._replace(job=max(0, run.job - 1)))


_PIECES = Stretches.pieces


def _ids_of_the_next(*which: Any) -> Any:
    lengths = _READ_COLUMNS(*which)
    if lengths is not None:
        ids = which[-1].ids
        ids.append(ids.pop(0))
    return lengths


_READ_COLUMNS = plan_columns.read_columns


MUTANTS: dict[str, list[Patch]] = {
    "the journal is never synced": [(Syncer, "_sync", _no_journal_sync)],
    "a new file is renamed in before it is synced": [(NewFile, "publish", _publish_without("sync"))],
    "the directory is not synced after a rename": [(NewFile, "publish", _publish_without("sync_directory"))],
    "a late answer counts as if its lease were current": [(Ledger, "is_current", _late_answers_count)],
    "another attempt does not wait": [(retry_policy, "backoff", _no_wait)],
    "one cause spends the budget of another": [(JobTable, "charge", _one_budget_for_all)],
    "crashes are not charged": [(JobTable, "charge", _no_charge)],
    "the last of a dead worker's leases is blamed": [(Scheduler, "_on_worker_died", _blame_the_last)],
    "what all workers hold is not kept up to date": [(WorkerState, "settle_batch", _settle_untold)],
    "leases that come back are not queued again": [(Ledger, "give_back", _forget_returned)],
    "a resume reads on from further than the checkpoint": [
        (survey._Survey, "_open_checkpoint", _resume_from_further_on)
    ],
    "a whole journal is read without what was not finished at the checkpoint": [
        (journal_only, "load_unfinished", lambda *_: None)
    ],
    "an index is taken for that of a journal that has lost its end": [
        (Stretches, "verified", lambda self, *_: self),
    ],
    "an index names the job before the one that completed": [(Stretches, "pieces", _one_job_further)],
    "the columns of a plan name the job after the one whose line it is": [
        (plan_file, "read_columns", _ids_of_the_next)
    ],
    "a torn tail takes a whole record with it": [(repair, "_continue", _cut_too_much)],
    "records that waited for room are not written": [(JournalFile, "retry", _forget_what_waits)],
    "a new generation forgets what was not synced": [
        (JournalFile, "regenerate", _generation_without_unsynced)
    ],
    "some results are read from another job's place": [(Store, "append", _wrong_place)],
    "what ran at a kill of the supervisor is forgotten": [
        (EarlierLeases, "_settle", _first_lease_is_not_lost)
    ],
    "what may have ended the supervisor is handed out with others": [
        (JobQueue, "mark_group", lambda *_: None)
    ],
    "what may have ended the supervisor is never narrowed down": [
        (earlier_leases, "groups_of", _no_narrowing)
    ],
    "results that come together count under any lease": [
        (Ledger, "completed_batch", _any_lease_counts_batch)
    ],
    "results of several workers that come together are mixed up": [
        (Ledger, "_completed_alone", _joined_in_another_order)
    ],
    "results that were written together are looked for one further on": [
        (Store, "_note_locations", _places_one_off)
    ],
    "lines that are written together are sealed for another file": [
        (journal_format, "seal", _seal_with_another_seed)
    ],
    "the last of the results that come together is not written": [
        (journal_format, "_bodies_batch", _the_last_but_one_twice)
    ],
    "nobody looks at timeouts": [(Dispatcher, "enforce_limits", _timeouts_are_ignored)],
    "the grace time never ends": [(Drain, "begin", _grace_without_end)],
    "the cores of running jobs are not summed": [(Place, "take", _takes_all_but("cpus"))],
    "the memory of running jobs is not summed": [(Place, "take", _takes_all_but("memory"))],
    "the devices of running jobs are not summed": [(Place, "take", _takes_all_but("gpus"))],
    "other resources of running jobs are not summed": [(Place, "take", _takes_all_but("resources"))],
    "nobody claims what it waits for": [(placement.Placement, "went_ahead", lambda *_: None)],
    "a claim binds nobody": [(placement.Placement, "claim_against", lambda *_: None)],
    "a claim is never given up": [(placement.Placement, "provide", lambda *_: None)],
    "a job that does not fit lets nobody go ahead": [(placement_pass.PlacementPass, "_hand_out", _in_line)],
    "the end of a node is blamed on its jobs": [(scheduler, "classify_exit", _nodes_are_not_spared)],
    "an announced end of a node is counted": [
        (scheduler, "classify_exit", _with_cause(NODE_ENDED, NODE_LOST))
    ],
    "the loss of a node is not counted": [(scheduler, "classify_exit", _with_cause(NODE_LOST, NODE_ENDED))],
    "a job that was lost three times runs with others": [
        (retry_policy, "needs_to_be_alone", lambda *_, **__: False),
        (job_order, "needs_to_be_alone", lambda *_, **__: False),
    ],
    "a job that has to be alone does not wait until its place is empty": [
        (placement_pass.PlacementPass, "_busy_places", lambda _: set())
    ],
    "others start where a job runs alone": [(AloneJobs, "places", lambda *_: ())],
    "a job that has to be alone is one of many after an interruption": [
        (JobQueue, "_put_alone_again", lambda *_: False)
    ],
    "a job that runs alone stops the other places": [(placement.Placement, "hand_out", _one_alone_stops_all)],
    "workers of a lost place take slots of others": [
        (placement_pass.PlacementPass, "__init__", _lost_workers_take_slots)
    ],
    "licences are counted for each place by itself": [
        (Place, "__init__", _has_its_own),
        (Place, "clear", _clears_its_own),
    ],
    "a claim on licences binds in its own place alone": [(Place, "fits", _fits_without_claims_elsewhere)],
    "licences of a lost place are free before it has ended": [
        (placement.Placement, "count_taken", _lost_places_take_nothing)
    ],
    "no job is ever given up": [(retry_policy, "verdict", lambda *_, **__: "in_progress")],
}


@contextlib.contextmanager
def alive(patches: list[Patch]) -> Iterator[None]:
    """The code with one fault in it."""
    with contextlib.ExitStack() as stack:
        for target, name, replacement in patches:
            stack.enter_context(mock.patch.object(target, name, replacement))
        yield


def caught(patches: list[Patch], seeds: int) -> str:
    """How the simulation noticed a fault, "" if it did not in so many histories.

    A line that cannot be read again (ValueError) breaks a promise, too. Any other error is raised: then the mutant
    breaks the code in another way than it is meant to.
    """
    with alive(patches):
        for seed in range(seeds):
            try:
                play(seed)
            except (Violation, Overdrawn, IllegalMove, ValueError) as fault:
                return f"seed {seed}: {fault}"
    return ""


def walk(seeds: int) -> int:
    """All mutants, one after the other; exit code 1 if one survives."""
    return report({name: partial(caught, patches, seeds) for name, patches in MUTANTS.items()})


def report(mutants: Mapping[str, Callable[[], str]]) -> int:
    """The same for functions that tell how a mutant was caught, by its name."""
    survivors = 0
    for name, caught_by in mutants.items():
        began = time.monotonic()
        how = caught_by()
        survivors += not how
        print(f"{'caught' if how else 'SURVIVED':8}  {time.monotonic() - began:5.1f} s  {name}")
        if how:
            print(f"          {how[:110]}")
    print(f"{len(mutants)} mutants, {survivors} survived")
    return 1 if survivors else 0
