"""What the workers of one node write, on its way to the supervisor: the agent's side.

Each worker has directories of its own in a scratch directory. What it prints is sent every second, and to its end
before the outcome of the job. An outcome whose files are still under way is held back, it alone: `OutcomesHeld` says
so, and the outcome follows when the supervisor has the files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from functools import partial

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.engines.sent_leases import RunningJob, SentLeases
from supervisor.nodes.shipping.background_work import BackgroundWork
from supervisor.nodes.shipping.file_messages import (
    PARCEL_PARTS,
    FileOrder,
    FileReport,
    ParcelBegins,
    ParcelKept,
    ParcelKind,
    Taken,
    cost_of,
)
from supervisor.nodes.shipping.node_scratch import NodeScratch
from supervisor.nodes.shipping.output_shipping import NO_LEASE, OutputShipping, ZygoteOutput
from supervisor.nodes.shipping.parcels import (
    Arrived,
    Entry,
    Parcel,
    ParcelReceiver,
    ParcelSender,
    Signature,
    is_settled,
    refusal,
    signature_of,
)
from supervisor.system.confined_tree import ForbiddenName, remove_tree
from workers.isolation.output_files import log_path
from workers.job.file_names import file_name
from workers.transport.messages import Completed, Failed, Failure, Outcome, Run, WorkerSpec

TICK = 1.0  # seconds between two looks at what jobs print and save
MOST_AT_ONCE = 512 << 10  # bytes that are given to the link at a time
STACKS_WITHIN, STACKS_EVERY = 1.0, 0.02  # seconds for which stacks are looked for, and how often
DEATH_WAITS = 10.0  # seconds at most that the death of a worker is held back for the files of its job

Said = Event | FileReport


class _ShippedWorker:
    """One worker process and what it has written. `alive`: its death was not told yet."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.output = OutputShipping(spec)
        self.leases = SentLeases()
        self.ready = False
        self.alive = True
        self.sent_states: dict[str, Signature] = {}  # that the supervisor has, by file
        self.state_parcels: dict[str, int] = {}  # under way, by the job's file name
        self.known: dict[str, dict[bytes, Signature]] = {}  # artifacts that the supervisor has, by the same

    def job_folders(self) -> set[str]:
        """Names of the folders with artifacts."""
        try:
            return set(os.listdir(self.spec.jobs_directory))
        except OSError:
            return set()

    def job_folder(self, name: str) -> str:
        return os.path.join(self.spec.jobs_directory, name)

    def has_states(self) -> bool:
        return os.path.isdir(self.spec.states_directory)

    def changed_states(self, name: str) -> dict[str, Signature]:
        """Files with states of this job that the supervisor does not have."""
        found = {}
        for file in (f"{name}.json", f"{name}~.json"):
            try:
                status = os.stat(os.path.join(self.spec.states_directory, file))
            except OSError:
                continue
            signature = signature_of(status)
            if self.sent_states.get(file) != signature:
                found[file] = signature
        return found

    def know_artifacts(self, name: str) -> None:
        """The supervisor has what is there of this job."""
        found, top = self.known.setdefault(name, {}), os.fsencode(self.job_folder(name))
        for folder, _, files in os.walk(top):
            for file in files:
                path = os.path.join(folder, file)
                if is_settled(signature := signature_of(os.lstat(path))):
                    found[b"jobs/" + os.path.relpath(path, top)] = signature

    def drop_states(self, name: str) -> None:
        """Of a completed job."""
        for file in (f"{name}.json", f"{name}~.json"):
            self.sent_states.pop(file, None)
            try:
                os.unlink(os.path.join(self.spec.states_directory, file))
            except OSError:
                continue


class _HeldEvent(msgspec.Struct):
    """An outcome, or a death, that waits for files.

    lease: whose log it waits for. parcels: their numbers. state: file name of the job whose states must have gone.
    until: when it is told all the same.
    """

    event: facts.JobsFinished | facts.WorkerDied
    lease: int
    parcels: set[int]
    state: str = ""
    until: float | None = None


class FileShipping:
    """For an agent whose node shares no file system with the supervisor."""

    def __init__(self) -> None:
        """Raises WorkersError."""
        self._scratch = NodeScratch()
        self._workers: dict[int, _ShippedWorker] = {}
        self._held: list[_HeldEvent] = []
        self._sender = ParcelSender()
        self._receiver = ParcelReceiver(self._beside)
        self._zygote: ZygoteOutput | None = None
        self._background = BackgroundWork("longhaul-removal")
        self._tick_at = 0.0
        self._stacks_until: dict[int, float] = {}  # by incarnation; 0.0: the next `tell` sets it
        self._now = 0.0
        self._room = 0
        self._said: list[Said] = []

    def spec_for(self, spec: WorkerSpec) -> WorkerSpec:
        """The spec with directories of the node; incarnation 0 is of no worker."""
        own = self._scratch.spec_for(spec)
        if spec.incarnation:
            self._workers[spec.incarnation] = _ShippedWorker(own)
        else:
            self._zygote = ZygoteOutput(own.output_directory, spec.output_directory)
        return own

    # ----------------------------------------------------------------------- orders

    def leased(self, incarnation: int, run: Run) -> None:
        if (worker := self._workers.get(incarnation)) is not None:
            worker.leases.sent(run)

    def asked_for_stacks(self, incarnation: int) -> None:
        self._stacks_until[incarnation] = 0.0

    def obey(self, order: FileOrder) -> None:
        if isinstance(order, PARCEL_PARTS):
            if (arrived := self._receiver.take(order)) is not None:
                self._put(arrived)
        elif isinstance(order, Taken):
            self._sender.taken(order.size)
        elif (parcel := self._sender.kept(order, self._now)) is not None:
            self._kept(order.number, parcel)

    def _beside(self, head: ParcelBegins) -> str | None:
        known = head.incarnation in self._workers
        return self._scratch.aside() if known else None

    def _put(self, arrived: Arrived) -> None:
        """What the supervisor has of a job, before its next lease."""
        head, answer = arrived.head, ParcelKept(arrived.head.number)
        worker = self._workers.get(head.incarnation)
        try:
            if worker is not None:
                if arrived.artifacts is not None:
                    os.makedirs(worker.spec.jobs_directory, exist_ok=True)
                    arrived.artifacts.move_to(worker.job_folder(head.name))
                    worker.know_artifacts(head.name)
                if arrived.states is not None:
                    arrived.states.move_to(worker.spec.states_directory)
                    worker.sent_states.update(worker.changed_states(head.name))
        except (OSError, ForbiddenName) as error:
            answer = refusal(head.number, error)
        arrived.discard()
        self._receiver.answers.append(answer)

    # ------------------------------------------------------------------------ facts

    def tell(self, events: Sequence[Event], now: float, unsent: int) -> list[Said]:
        """What is to be told of these events of the engine, and of files. `unsent`: bytes that the link holds."""
        self._now, self._room, self._said = now, min(MOST_AT_ONCE - unsent, self._sender.room), []
        for event in events:
            self._pass_on(event)
        if now >= self._tick_at:
            self._tick_at = now + TICK
            self._look()
        for worker in self._workers.values():
            if worker.output.waiting:
                self._send_output(worker)
        self._look_for_stacks()
        parts = self._sender.messages(self._room, now)
        self._said += parts
        self._release()
        self._said += self._receiver.collect_answers()
        return self._said

    def next_deadline(self, unsent: int) -> float | None:
        """When `tell` wants to be called even if nothing happens."""
        times = [self._tick_at] if self._workers else []
        times += [held.until for held in self._held if held.until is not None]
        if self._stacks_until:
            times.append(self._now + STACKS_EVERY)
        if (due := self._sender.next_deadline()) is not None:
            times.append(due)
        waiting = any(worker.output.waiting for worker in self._workers.values())
        if unsent < MOST_AT_ONCE and (self._sender.ready or (waiting and self._sender.room > 0)):
            times.append(self._now)
        return min(times, default=None)

    def _pass_on(self, event: Event) -> None:
        worker = self._workers.get(getattr(event, "incarnation", 0))
        if worker is None:
            self._said.append(event)
            return
        match event:
            case facts.JobsFinished():
                self._on_finished(worker, event)
                return
            case facts.WorkerDied():
                self._on_death(worker, event)
                return
            case facts.LeasesDropped(_, leases):
                worker.leases.dropped(leases)
            case facts.WorkerReady():
                worker.ready = True
                self._send_stray(worker)
            case facts.WorkerStartFailed(_, error):
                worker.alive = False
                if self._zygote is not None:
                    self._send_zygote_output()
                    event = msgspec.structs.replace(event, error=self._zygote.as_there(error))
        self._said.append(event)

    def _on_finished(self, worker: _ShippedWorker, event: facts.JobsFinished) -> None:
        folders, states = worker.job_folders(), worker.has_states()
        if not folders and not states and set(map(type, event.outcomes)) == {Completed}:  # as nearly always
            worker.leases.finished(event.outcomes[-1].lease)
            self._said.append(event)
            return
        ready: list[Outcome] = []
        for outcome in event.outcomes:
            job = worker.leases.job_of(outcome.lease)
            worker.leases.finished(outcome.lease)
            held = None if job is None else self._held_for(worker, outcome, job, folders, states=states)
            if held is None:
                ready.append(outcome)
                continue
            if ready:
                self._said.append(facts.JobsFinished(event.incarnation, ready))
                ready = []
            self._said.append(facts.OutcomesHeld(event.incarnation, [outcome.lease]))
            self._held.append(held)
        if ready:
            self._said.append(facts.JobsFinished(event.incarnation, ready))

    def _held_for(
        self, worker: _ShippedWorker, outcome: Outcome, job: RunningJob, folders: set[str], *, states: bool
    ) -> _HeldEvent | None:
        """Send what the job has written; what its outcome has to wait for, None if for nothing."""
        name, completed = file_name(job.job_id), not isinstance(outcome, Failed)
        if size := getattr(outcome, "output", 0):
            path = log_path(worker.spec.output_directory, job.job_id)
            worker.output.ended(path, size, outcome.lease, job.attempt)
            self._send_output(worker)
        event = facts.JobsFinished(worker.spec.incarnation, [outcome])
        held = _HeldEvent(event, outcome.lease, set())
        if states and completed:
            worker.drop_states(name)
        elif states:
            held.state = name
        if name in folders and not self._goes_with_state(worker, held.state):
            held.parcels.add(self._send(worker, "artifacts", job, name, completed=completed))
        return None if self._is_free(worker, held) else held

    def _on_death(self, worker: _ShippedWorker, event: facts.WorkerDied) -> None:
        job = worker.leases.running()
        worker.alive = False
        lease, attempt, name = NO_LEASE, 0, ""
        if job is not None:
            lease, attempt, name = job.lease, job.attempt, file_name(job.job_id)
        if event.output_bytes:
            path = (
                log_path(worker.spec.output_directory, job.job_id) if job is not None else worker.output.stray
            )
            worker.output.ended(path, event.output_bytes, lease, attempt, dead=True)
            self._send_output(worker)
        held = _HeldEvent(event, lease, set(), until=self._now + DEATH_WAITS)
        if job is not None:
            held.state = name if worker.has_states() else ""
            if name in worker.job_folders() and not self._goes_with_state(worker, held.state):
                held.parcels.add(self._send(worker, "artifacts", job, name))
        if self._is_free(worker, held):
            self._said.append(event)
        else:
            self._held.append(held)

    def _goes_with_state(self, worker: _ShippedWorker, name: str) -> bool:
        """Whether the artifacts of this job will go with a state that has to go before its outcome is told."""
        return bool(name) and bool(worker.changed_states(name))

    # ------------------------------------------------------------------------ files

    def _look(self) -> None:
        """Send what running jobs have printed and saved since the last look."""
        self._send_zygote_output()
        for worker in self._workers.values():
            if not (worker.ready and worker.alive):
                continue
            self._send_output(worker)
            if worker.has_states() and (job := worker.leases.running()) is not None:
                self._send_states(worker, job, file_name(job.job_id))

    def _send_output(self, worker: _ShippedWorker) -> None:
        if self._room > 0:
            messages = worker.output.messages(self._room)
            cost = sum(map(cost_of, messages))
            self._room -= cost
            self._sender.spend(cost)
            self._said += messages

    def _send_stray(self, worker: _ShippedWorker) -> None:
        """What the import and `setup()` have printed."""
        try:
            size = os.stat(worker.output.stray).st_size
        except OSError:
            return
        worker.output.ended(worker.output.stray, size, NO_LEASE, 0)
        self._send_output(worker)

    def _send(
        self,
        worker: _ShippedWorker,
        kind: ParcelKind,
        job: RunningJob,
        name: str,
        states: Sequence[str] = (),
        *,
        completed: bool = False,
    ) -> int:
        """Send what the job has written into its folder, after these of its states: what they name is there by then.
        `name`: of the job's files."""
        spec = worker.spec
        entries = [Entry(f"states/{file}", os.path.join(spec.states_directory, file)) for file in states]
        entries.append(Entry("jobs", worker.job_folder(name)))
        known = dict(worker.known.get(name, {}))
        return self._sender.add(Parcel(kind, spec.incarnation, job.lease, entries, completed, known=known))

    def _send_states(self, worker: _ShippedWorker, job: RunningJob, name: str) -> None:
        """One parcel at a time: a later one must not be overtaken by an earlier one."""
        if name not in worker.state_parcels and (changed := worker.changed_states(name)):
            worker.sent_states.update(changed)
            worker.state_parcels[name] = self._send(worker, "state", job, name, sorted(changed))

    def _kept(self, number: int, parcel: Parcel) -> None:
        """The supervisor has a parcel, or cannot have it."""
        worker, folder = self._workers.get(parcel.incarnation), parcel.entries[-1].source
        if parcel.kind == "artifacts":
            self._remove(folder)
        elif worker is not None:
            worker.state_parcels = {name: n for name, n in worker.state_parcels.items() if n != number}
        if worker is not None:
            name = os.path.basename(folder)
            if parcel.kind == "artifacts":
                worker.known.pop(name, None)
            elif not parcel.problem:
                worker.known.setdefault(name, {}).update(parcel.sent)
        for held in self._held:
            if number in held.parcels:
                held.parcels.discard(number)
                if parcel.problem and isinstance(held.event, facts.JobsFinished):
                    held.event.outcomes[:] = [_without_files(held.event.outcomes[0], parcel.problem)]

    def _remove(self, folder: str) -> None:
        """At once out of the way of the job's next attempt; file systems take their time to remove."""
        with contextlib.suppress(OSError):
            aside = self._scratch.aside()
            os.rename(folder, aside)
            self._background.submit(partial(remove_tree, aside))

    def _is_free(self, worker: _ShippedWorker, held: _HeldEvent) -> bool:
        """Whether all that this event waits for has gone. What the job has saved meanwhile is sent first."""
        if held.state:
            job = RunningJob("", 0, held.lease)
            self._send_states(worker, job, held.state)
            if held.state in worker.state_parcels:
                return False
            held.state = ""
        return not held.parcels and not worker.output.waits_for(held.lease)

    def _release(self) -> None:
        """Tell the events whose files have gone, and forget workers that are over."""
        left = []
        for held in self._held:
            worker = self._workers[held.event.incarnation]
            if self._is_free(worker, held) or (held.until is not None and self._now >= held.until):
                self._said.append(held.event)
            else:
                left.append(held)
        self._held = left
        needed = {held.event.incarnation for held in left}
        for incarnation in [n for n, worker in self._workers.items() if not (worker.alive or n in needed)]:
            self._workers.pop(incarnation).output.close()
            self._stacks_until.pop(incarnation, None)
            self._scratch.remove_worker(incarnation)

    def _look_for_stacks(self) -> None:
        for incarnation, until in list(self._stacks_until.items()):
            worker = self._workers.get(incarnation)
            self._stacks_until[incarnation] = until = until or self._now + STACKS_WITHIN
            if worker is None or self._now >= until:
                del self._stacks_until[incarnation]
            else:
                stacks = worker.output.stacks()
                self._sender.spend(sum(map(cost_of, stacks)))
                self._said += stacks

    def _send_zygote_output(self) -> None:
        if self._zygote is not None and (printed := self._zygote.read()):
            self._sender.spend(sum(map(cost_of, printed)))
            self._said += printed

    def words_of_zygotes(self) -> list[Said]:
        """What they have printed: they are over."""
        self._said = []
        self._send_zygote_output()
        return self._said

    def last_output(self) -> list[Said]:
        """What jobs have printed that will not end: the agent ends."""
        self._room, self._said = MOST_AT_ONCE, []
        for worker in self._workers.values():
            self._send_output(worker)
        return self._said

    def close(self) -> None:
        for worker in self._workers.values():
            worker.output.close()
        self._receiver.discard()
        self._scratch.close()


def _without_files(outcome: Outcome, problem: str) -> Outcome:
    """The outcome of a job whose files cannot be kept: not that of one that has done its work."""
    if isinstance(outcome, Failed):
        return outcome
    message = f"the files of the job could not be kept: {problem}"
    return Failed(
        outcome.lease,
        outcome.seconds,
        "raised",
        Failure("OSError", message),
        getattr(outcome, "output", 0),
    )
