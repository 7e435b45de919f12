"""What must hold in every simulated history, and what is remembered to be able to tell.

The book is kept beside the code: from the records that were written and the commands that
were carried out, never from what the core or the store believe. Nothing here makes anything
happen; chance and time belong to `tools.simulation.history`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec

from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import Charges, JobTable
from supervisor.core.state.worker_state import ABANDONED
from supervisor.core.state.workers_now import scan
from supervisor.core.terms.events import NODE_LOST, StartJobs
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.records import (
    BY_HAND,
    LOW_MEMORY,
    AnyRecord,
    Completions,
    Ended,
    Leased,
    Records,
    Reset,
)
from supervisor.core.terms.settings import Settings
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_file import JournalFile
from supervisor.storage.journal.journal_format import decode_record
from supervisor.storage.recovery.survey import survey
from supervisor.storage.store import Store
from tools.simulation.world import (
    ASKS,
    CRASHES,
    FELLS,
    FLAKY,
    GIVES_UP,
    GOOD,
    HANGS,
    LEAKS,
    RAISES,
    WISHES,
    FakeJob,
    FakeWorker,
    World,
)

ALONE_AFTER = 3  # losses


def singly(records: Records) -> Iterator[AnyRecord]:
    """The same records, one for each line."""
    for record in records:
        if isinstance(record, Completions):
            yield from record.each()
        else:
            yield record


class Violation(AssertionError):
    """A promise did not hold."""


def check_counts(core: Scheduler) -> None:
    """Every job is in one state and counted there; what is kept about all workers fits each of them."""
    counts = core.table.counts(job for _, job in core.dispatcher.running())
    parts = counts.completed + counts.failed + counts.in_progress + counts.pending
    if parts != counts.total or min(counts.pending, counts.in_progress) < 0:
        raise Violation(f"jobs are not all accounted for: {counts}")
    known, found = core.workers.known(), scan(core.workers.values(), core.dispatcher.timeout)
    if known != found:
        raise Violation(f"the workers are known as {known}, and they are {found}")


def check_crew(core: Scheduler) -> None:
    """There are never more workers than are wanted, those not counted whose place is lost."""
    placement = core.dispatcher.placement
    there = [each for each in core.workers.values() if placement is None or each.place in placement.places]
    alive = sum(worker.status != ABANDONED for worker in there)
    if alive > core.dispatcher.slots:
        raise Violation(f"{alive} workers, and {core.dispatcher.slots} are wanted")


class Promises:
    """The book of one history. Times are on the simulated clock."""

    def __init__(self, jobs: list[FakeJob], settings: Settings) -> None:
        self.jobs = jobs
        self.settings = settings
        self.completed_at: dict[int, int] = {}  # job -> number of its record
        self.must_have: dict[int, int] = {}
        self.called_off: set[str] = set()  # cancelled, and not tried again
        self.ever_cancelled: set[str] = set()
        self.spent: dict[tuple[int, str], int] = defaultdict(int)  # (job, budget) -> records
        self.not_before: dict[int, float] = {}  # jobs that wait for their next attempt
        self.began, self.starts = 0.0, 0  # of the run: when, and jobs handed out
        self.forgot = False  # whether something recorded may have been lost
        self.lost: dict[int, int] = defaultdict(int)  # attempts that ended with the supervisor or their place
        self.alone: dict[
            int, tuple[FakeWorker, int]
        ] = {}  # by place: the job that must be alone there, its worker
        self.worker_of: dict[int, int] = {}  # by lease: the incarnation
        self.suspects: dict[
            int, tuple[int, int]
        ] = {}  # job -> whose it was at the end of a supervisor, most together
        self.murders: dict[int, int] = defaultdict(int)  # external kills, by the job that was hit

    def run_begins(self, now: float) -> None:
        self.began, self.starts = now, 0
        self.alone.clear()
        self.suspects.clear()

    def note_suspects(self, core: Scheduler, together: int) -> None:
        """Before a run begins. `together`: how many of a worker with more open leases may be handed out together."""
        for incarnation, held in core.table.open_leases.items():
            most = 1 if len(held) <= together else together
            self.suspects.update(dict.fromkeys(held.values(), (incarnation, most)))

    def _check_suspects(self, world: World, command: StartJobs) -> None:
        """What may have ended a supervisor is handed out so that the next end tells more of it."""
        marks = {self.suspects.get(job) for job in command.jobs}
        if marks == {None}:
            return
        mark = marks.pop()
        if marks or mark is None or world.workers[command.incarnation].has_leases():
            raise Violation(
                f"{command.jobs} were handed out with others, and an end of the supervisor left some open"
            )
        if len(command.jobs) > mark[1]:
            raise Violation(
                f"{command.jobs} are more than {mark[1]} of those that an end of the supervisor left open"
            )

    def check_hand_out(self, core: Scheduler, world: World, command: StartJobs) -> None:
        now = world.now
        if BY_HAND in core.blocked_by():
            raise Violation("something was handed out in a pause")
        if LOW_MEMORY in core.blocked_by():
            raise Violation("something was handed out while memory is low")
        self.starts += len(command.jobs)
        if core.dispatcher.pace is not None and self.starts > 6 + 100 * (now - self.began):
            raise Violation(f"{self.starts} starts in {now - self.began:.3f} s at 100/s")
        for job in command.jobs:
            if self.jobs[job].id in self.called_off:
                raise Violation(f"{self.jobs[job].id} is cancelled and was handed out")
            if job in self.completed_at:
                raise Violation(f"{self.jobs[job].id} is completed and was handed out again")
            if now < self.not_before.pop(job, 0.0):
                raise Violation(f"{self.jobs[job].id} did not wait for its next attempt")
        self._check_suspects(world, command)
        self._check_alone(world, command)

    def _is_held(self, place: int) -> bool:
        """Whether a job is there that has to be alone."""
        worker, lease = self.alone.get(place, (None, 0))
        held = () if worker is None or worker.dead else (*worker.queue, worker.busy_with or (0, 0))
        return lease in [number for number, _ in held]

    def _check_alone(self, world: World, command: StartJobs) -> None:
        """A job that was lost three times runs while no other one does in its place."""
        worker = world.workers[command.incarnation]
        if self._is_held(worker.place):
            raise Violation(f"{self.jobs[command.jobs[0]].id} was handed out beside one that has to be alone")
        for job in command.jobs:
            if self.lost[job] < ALONE_AFTER:
                continue
            others = [
                each for each in world.workers.values() if each.place == worker.place and each.has_leases()
            ]
            if others or len(command.jobs) > 1:
                raise Violation(f"{self.jobs[job].id} was lost {self.lost[job]} times and is not alone")
            self.alone[worker.place] = worker, command.first_lease

    def note(self, core: Scheduler, world: World, records: Records, first: int) -> None:
        """Records that were written at this moment, numbered from `first` on."""
        for n, record in enumerate(singly(records), first):
            if isinstance(record, Leased):
                numbers = range(record.lease, record.lease + len(record.jobs))
                self.worker_of.update(dict.fromkeys(numbers, record.incarnation))
                place = world.workers[record.incarnation].place
                if record.place != (f"node{place}" if world.nodes else ""):
                    raise Violation(f"{record.jobs} run in place {place}, and {record.place!r} is on record")
            elif isinstance(record, Ended) and record.outcome == "completed":
                self._note_completion(core.table, record, n)
            elif isinstance(record, Ended) and record.state:
                self._note_failure(core.table, record, world.now)
                self.lost[core.table.numbers[record.job]] += record.outcome == "lost"
                self._check_node_end(core, world, record)
        self._note_orders(records)

    def _note_failure(self, table: JobTable, record: Ended, now: float) -> None:
        job = table.numbers[record.job]
        if record.outcome in ("raised", "timed_out"):
            self.spent[job, record.charged or record.outcome] += 1
            if record.state == "pending" and not record.charged:
                self.not_before[job] = now + self.settings.backoff / 2

    def _check_node_end(self, core: Scheduler, world: World, record: Ended) -> None:
        """What ended with its place was lost, if nobody had said before that the place ends."""
        worker = world.workers.get(self.worker_of.get(record.lease, 0))
        if worker is None or not worker.ended_with_node or worker.kill_asked or core.draining:
            return
        expected = "lost" if worker.ended_with_node == NODE_LOST else "interrupted"
        if record.outcome != expected:
            raise Violation(f"{record.job} was {expected} with its node, and is recorded as {record.outcome}")

    def _note_completion(self, table: JobTable, record: Ended, n: int) -> None:
        job = table.numbers[record.job]
        if job in self.completed_at:
            raise Violation(f"{record.job} was completed twice")
        if record.result != msgspec.Raw(b'{"of":%d}' % job):
            raise Violation(f"{record.job} got the result of another job")
        self.completed_at[job] = n

    def _note_orders(self, records: Records) -> None:
        for record in records:
            if isinstance(record, Reset):
                self.called_off.difference_update(record.jobs)
            elif isinstance(record, Ended) and record.outcome == "completed":
                self.called_off.discard(record.job)  # a worker was quicker: a result counts
            elif isinstance(record, Ended) and record.outcome == "cancelled" and record.state:
                self.called_off.add(record.job)
                self.ever_cancelled.add(record.job)

    def keep(self, survives: Callable[[int, int], bool]) -> None:
        """What must still be there at the next recovery."""
        self.must_have = {job: n for job, n in self.completed_at.items() if survives(job, n)}

    def check_recovered(self, store: Store) -> None:
        """A recorded completed job is there again, with its result; others may have been lost."""
        table = store.table
        self.not_before.clear()  # a resume waits for nobody
        self.lost = defaultdict(int, {job: charges.losses for job, charges in table.charges.items()})
        # A power cut may have taken the last orders with it.
        self.called_off = {table.ids[job] for job, how in table.outcome.items() if how == "cancelled"}
        if not self.called_off <= self.ever_cancelled:
            raise Violation("a job came back cancelled that never was")
        for job, n in list(self.completed_at.items()):
            if table.state[job] == COMPLETED:
                record = record_of(store, job)
                if not isinstance(record, Ended) or record.result != msgspec.Raw(b'{"of":%d}' % job):
                    raise Violation(f"{self.jobs[job].id} came back with {record}")
            elif job in self.must_have:
                raise Violation(f"{self.jobs[job].id}, completed in record {n}, was lost")
            else:
                del self.completed_at[job]
        self.must_have = dict(self.completed_at)

    def check_end(self, layout: Layout, disk: Disk) -> None:
        found = survey(layout, disk)
        table = found.table
        found.close()
        for number, job in enumerate(self.jobs):
            state, charges = table.state[number], table.charges.get(number)
            crashes = charges.crashes if charges else 0
            if (job.id in self.called_off) != (table.outcome.get(number) == "cancelled"):
                raise Violation(f"{job.id}: the journal does not know that it was cancelled, or not")
            self._check_budgets(number, charges)
            if state not in (COMPLETED, FAILED):
                raise Violation(f"{job.id} ({job.kind}) is in state {state} after the end")
            if (state == COMPLETED) != (number in self.completed_at):
                raise Violation(f"{job.id}: journal and memory disagree")
            if job.kind in (RAISES, CRASHES, HANGS, GIVES_UP) and state == COMPLETED:
                raise Violation(f"{job.id} {job.kind} and is completed")
            blameless = self.murders[number] < self.settings.crash_limit and job.id not in self.ever_cancelled
            if job.kind in (GOOD, ASKS, FELLS) and state == FAILED and blameless:
                raise Violation(f"{job.id} is good and was given up: {charges}")
            if job.kind not in (CRASHES, FLAKY) and crashes > self.murders[number]:
                raise Violation(f"{job.id} was blamed for {crashes} crashes, {self.murders[number]} hit it")

    def _check_budgets(self, number: int, charges: Charges | None) -> None:
        """What was charged is charged still, after kills and resumes; what may be lost only
        makes it less."""
        job, charges = self.jobs[number], charges or Charges()
        budgets = {"raised": charges.errors, "timed_out": charges.timeouts, "asked": charges.asked}
        for budget, charged in budgets.items():
            spent = self.spent[number, budget]
            if charged > spent or (charged < spent and not self.forgot):
                raise Violation(f"{job.id} ({job.kind}) spent {spent} of {budget}, charged are {charged}")
        if charges.over_memory and job.kind != LEAKS:
            raise Violation(f"{job.id} ({job.kind}) was blamed for memory")
        if charges.asked > WISHES:
            raise Violation(f"{job.id} wished for {charges.asked} attempts")


def last_written(journal: JournalFile) -> int:
    """The number of the last record that was handed to the system whole."""
    if journal.full is None:
        return journal.next_n - 1
    batches = journal._batches
    if earlier := [batch.last_n for batch in batches if batch.end <= journal._written]:
        return earlier[-1]
    return batches[0].last_n - batches[0].data.count(b"\n")


def record_of(store: Store, job: int) -> AnyRecord | None:
    """The record of a finished job, read from the journal."""
    parts = store.parts
    line = parts.disk.pread(parts.journal.fd, parts.lengths[job] - 1, parts.offsets[job])
    return decode_record(line)
