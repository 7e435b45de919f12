"""Files of nodes that share no file system: the supervisor's side.

A parcel is put together beside its place. When it is complete, it is asked whose files these are, and whether they
still count: files of a lease whose job was given to another worker, or has a result, are thrown away.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Generic, Protocol, TypeVar

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.core.terms.file_owner import FileOwner
from supervisor.engines.sent_leases import job_ids
from supervisor.nodes.shipping.background_work import BackgroundWork
from supervisor.nodes.shipping.file_messages import (
    PARCEL_PARTS,
    FileOrder,
    FileReport,
    FilesMode,
    LogEnds,
    ParcelBegins,
    ParcelKept,
    ParcelKind,
    Printed,
    StacksWritten,
    Taken,
    ZygotePrinted,
    cost_of,
)
from supervisor.nodes.shipping.output_shipping import NO_LEASE
from supervisor.nodes.shipping.parcels import Arrived, Entry, Parcel, ParcelReceiver, ParcelSender, refusal
from supervisor.system.confined_tree import ConfinedTree, ForbiddenName
from workers.job.file_names import file_name
from workers.transport.messages import Run

MOST_AT_ONCE = 512 << 10  # bytes of files that are given to a link at a time
LOOK_EVERY = 0.02  # seconds, while a state is brought onto the disk

OwnerOf = Callable[[int, int | None], FileOwner | None]
Later = TypeVar("Later")


class FileStore(Protocol):
    """Who writes into the experiment's directory. Methods raise OSError, but those about output."""

    jobs_directory: str
    states_directory: str

    def printed(self, worker: int, incarnation: int, offset: int, data: bytes) -> None: ...

    def log_ended(
        self, worker: int, incarnation: int, job: str | None, attempt: int, *, whole: bool
    ) -> None: ...

    def drop_output(self, worker: int, incarnation: int) -> None: ...

    def stacks_written(self, worker: int, incarnation: int, data: bytes) -> None: ...

    def zygote_printed(self, data: bytes) -> None: ...

    def worker_ended(self, worker: int, incarnation: int) -> None: ...

    def stray_log(self, worker: int) -> str: ...

    def beside(self) -> str:
        """A path for a directory in which a parcel is put together."""

    def keep_artifacts(self, job: str, tree: ConfinedTree) -> None: ...

    def keep_states(self, job: str, states: ConfinedTree, artifacts: ConfinedTree | None) -> None:
        """Returns when they are on the disk; called by another thread."""

    def states_of(self, job: str) -> list[str]:
        """Names of the files in `states_directory`."""

    def has_states(self) -> bool:
        """False if no job has any."""

    def tell(self, notice: str) -> None:
        """A sentence for the user."""


class FileReceipt:
    """For all nodes of a run.

    mode: auto (ask the node), shared, ship. token: a file that a node sees if it shares the file system.
    owner_of: whose files those of (incarnation, lease) are; lease None: of the job that it runs.
    """

    def __init__(
        self, store: FileStore, owner_of: OwnerOf, *, mode: FilesMode = "auto", token: str = ""
    ) -> None:
        self.store = store
        self.owner_of = owner_of
        self.mode = mode
        self.token = token
        # Completed results by job: under which lease its files were kept, while its outcome is on its way.
        self.results: dict[str, int] = {}
        self.left_out_told = False
        self.background = BackgroundWork("longhaul-states")


class QueuedOrders(Generic[Later]):
    """Orders for one worker that follow parcels to its node."""

    def __init__(self) -> None:
        self.parcels: set[int] = set()
        self.orders: deque[Later] = deque()


class NodeFiles(Generic[Later]):
    """The files from and for one node. `Later`: orders that may have to wait for files."""

    def __init__(self, receipt: FileReceipt) -> None:
        self._receipt = receipt
        self._store = receipt.store
        self._receiver = ParcelReceiver(self._beside)
        self._sender = ParcelSender()
        self.held: dict[int, int] = {}  # incarnations of outcomes that wait for files, by lease
        self._results: dict[
            int, str
        ] = {}  # jobs whose files were kept; their outcomes are on their way; by lease
        self._undecided: list[Arrived] = []
        self._syncing: list[tuple[Future[None], Arrived]] = []
        self._waiting: dict[int, QueuedOrders[Later]] = {}  # by incarnation
        self._now = 0.0

    # --------------------------------------------------------------------- up

    def take(self, report: FileReport, slot: int | None) -> None:
        """`slot`: of the worker that it is about, None if that is none of this node, or over."""
        store = self._store
        if isinstance(report, Printed | LogEnds | StacksWritten | ZygotePrinted):
            self._receiver.count(cost_of(report))
        match report:
            case Printed(incarnation, offset, data):
                if slot is not None:
                    store.printed(slot, incarnation, offset, data)
            case StacksWritten(incarnation, data):
                if slot is not None:
                    store.stacks_written(slot, incarnation, data)
            case ZygotePrinted(data):
                store.zygote_printed(data)
            case LogEnds():
                if slot is not None:
                    self._end_log(slot, report)
            case Taken(size):
                self._sender.taken(size)
            case ParcelKept():
                self._sent(report)
            case _ if isinstance(report, PARCEL_PARTS):
                if (arrived := self._receiver.take(report)) is not None:
                    self._undecided.append(arrived)

    def _end_log(self, slot: int, log: LogEnds) -> None:
        owner = self._receipt.owner_of(log.incarnation, log.lease)
        if log.lease == NO_LEASE or owner is not None:
            job = None if owner is None or log.lease == NO_LEASE else owner.job
            self._store.log_ended(slot, log.incarnation, job, log.attempt, whole=log.whole)
        else:
            self._store.drop_output(slot, log.incarnation)

    def _beside(self, head: ParcelBegins) -> str | None:
        return self._store.beside() if self._job_of(head) is not None else None

    def _job_of(self, head: ParcelBegins) -> str | None:
        """The job whose files these are; None if they do not count any more."""
        owner = self._receipt.owner_of(head.incarnation, head.lease)
        if owner is None or owner.completed:
            return None
        finished = head.kind == "artifacts" and head.completed  # the first result counts, whoever has it
        return owner.job if owner.of_use or finished else None

    def _decide(self) -> None:
        """Put complete parcels into their places, or throw them away."""
        results = self._receipt.results
        for arrived in list(self._undecided):
            head, job = arrived.head, self._job_of(arrived.head)
            if job is not None and head.kind == "artifacts" and results.get(job, head.lease) != head.lease:
                continue  # another result is on its way; that of this lease counts if it gets lost
            if any(other.head.lease == head.lease for _, other in self._syncing):
                continue  # one after the other into the same directory
            self._undecided.remove(arrived)
            if job is None:
                self._receiver.answers.append(ParcelKept(head.number, dropped=True))
                arrived.discard()
            elif arrived.states is not None and head.kind == "state":
                work = partial(self._store.keep_states, job, arrived.states, arrived.artifacts)
                self._syncing.append((self._receipt.background.submit(work), arrived))
            else:
                self._keep_artifacts(job, arrived)

    def _keep_artifacts(self, job: str, arrived: Arrived) -> None:
        head = arrived.head
        try:
            if arrived.states is not None:
                raise ForbiddenName("states")
            if arrived.artifacts is not None:
                self._store.keep_artifacts(job, arrived.artifacts)
        except (OSError, ForbiddenName) as error:
            self._answer(arrived, error)
            return
        if head.completed:
            self._results[head.lease] = job
            self._receipt.results[job] = head.lease
        if arrived.left_out and not self._receipt.left_out_told:
            self._receipt.left_out_told = True
            names = ", ".join(arrived.left_out)
            self._store.tell(
                f"files of {job} that cannot be taken over from its node were left out: {names} (told once)"
            )
        self._answer(arrived)

    def _answer(self, arrived: Arrived, error: BaseException | None = None) -> None:
        number = arrived.head.number
        if isinstance(error, OSError | ForbiddenName):
            self._receiver.answers.append(refusal(number, error))
        else:
            problem = "" if error is None else repr(error)
            self._receiver.answers.append(ParcelKept(number, problem))
        arrived.discard()

    def holds(self, event: Event) -> bool:
        """Whether this is an outcome that waited for files; its worker may have ended since."""
        return isinstance(event, facts.JobsFinished) and event.outcomes[0].lease in self.held

    def on_event(self, event: Event, slot: int | None) -> list[Event]:
        """What the core is to be told when the agent tells this. `slot`: of the worker, None if it is over."""
        before: list[Event] = []
        match event:
            case facts.OutcomesHeld(incarnation, leases):
                self.held.update(dict.fromkeys(leases, incarnation))
            case facts.JobsFinished(_, outcomes):
                if self.held or self._results:
                    for outcome in outcomes:
                        self.held.pop(outcome.lease, None)
                        self._forget_result(outcome.lease)
            case facts.WorkerDied(incarnation) if slot is not None:
                if event.log:
                    event = msgspec.structs.replace(event, log=self._store.stray_log(slot))
                self._store.worker_ended(slot, incarnation)
                before = list(self._not_leased(incarnation))
        return [*before, event]

    def _forget_result(self, lease: int) -> None:
        """Its outcome is told, or will never be."""
        if (job := self._results.pop(lease, None)) is not None:
            self._receipt.results.pop(job, None)

    # ------------------------------------------------------------------- down

    def lease(self, incarnation: int, run: Run, order: Later) -> bool:
        """Whether this order has to wait for files of its jobs; it then comes from `orders`."""
        parcels = {self._sender.add(parcel) for parcel in self._needed(incarnation, run)}
        if parcels:
            self._waiting.setdefault(incarnation, QueuedOrders()).parcels |= parcels
        return self.queue(incarnation, order)

    def queue(self, incarnation: int, order: Later) -> bool:
        """Whether this order has to wait behind another one for its worker."""
        waiting = self._waiting.get(incarnation)
        if waiting is not None:
            waiting.orders.append(order)
        return waiting is not None

    def _needed(self, incarnation: int, run: Run) -> Iterator[Parcel]:
        """The last states of these jobs, and the files of their earlier attempts."""
        store = self._store
        if not store.has_states() and max(run.attempts) <= 1:
            return
        for index, job in enumerate(job_ids(run)):
            lease, folder, entries = run.first_lease + index, file_name(job), []
            if names := store.states_of(job):
                entries += [
                    Entry(f"states/{name}", os.path.join(store.states_directory, name)) for name in names
                ]
            source = os.path.join(store.jobs_directory, folder)
            if (names or run.attempts[index] > 1) and os.path.isdir(source):
                entries.append(Entry("jobs", source))
            if entries:
                kind: ParcelKind = "state" if names else "artifacts"
                yield Parcel(kind, incarnation, lease, entries, name=folder)

    def _sent(self, answer: ParcelKept) -> None:
        if (parcel := self._sender.kept(answer, self._now)) is None:
            return
        if parcel.problem:
            self._store.tell(f"files of earlier attempts cannot be sent to a node: {parcel.problem}")
        if (waiting := self._waiting.get(parcel.incarnation)) is not None:
            waiting.parcels.discard(answer.number)

    def orders(self) -> list[Later]:
        """Orders that need wait no longer."""
        found: list[Later] = []
        for incarnation in [n for n, waiting in self._waiting.items() if not waiting.parcels]:
            found += self._waiting.pop(incarnation).orders
        return found

    def _not_leased(self, incarnation: int) -> Iterator[Event]:
        """Leases that a dead worker was never sent."""
        waiting = self._waiting.pop(incarnation, None)
        for order in waiting.orders if waiting is not None else ():
            run = getattr(order, "run", None)
            if run is not None:
                leases = range(run.first_lease, run.first_lease + len(run.attempts))
                yield facts.LeasesDropped(incarnation, list(leases))

    # ------------------------------------------------------------------- turns

    def messages(self, now: float, unsent: int) -> Sequence[FileOrder]:
        """What is to be sent to the agent. `unsent`: bytes that the link holds."""
        self._now = now
        left = []
        for future, arrived in self._syncing:
            if future.done():
                self._answer(arrived, future.exception())
            else:
                left.append((future, arrived))
        self._syncing = left
        self._decide()
        return [*self._receiver.collect_answers(), *self._sender.messages(MOST_AT_ONCE - unsent, now)]

    def next_deadline(self, unsent: int) -> float | None:
        times = [self._now + LOOK_EVERY] if self._syncing or self._undecided else []
        if self._sender.ready and unsent < MOST_AT_ONCE:
            times.append(self._now)
        if (due := self._sender.next_deadline()) is not None:
            times.append(due)
        return min(times, default=None)

    def worker_lost(self, incarnation: int, slot: int) -> list[Event]:
        """It has ended with its node: what it had printed by then is kept. What the core is to be told first."""
        owner = self._receipt.owner_of(incarnation, None)
        if owner is not None:
            self._store.log_ended(slot, incarnation, owner.job, owner.attempt, whole=False)
        self._store.worker_ended(slot, incarnation)
        return list(self._not_leased(incarnation))

    def close(self) -> None:
        """Nothing more comes from this node: what is not complete is thrown away."""
        self._receiver.discard()
        for arrived in self._undecided:
            arrived.discard()
        self._undecided.clear()
        for lease in list(self._results):
            self._forget_result(lease)
