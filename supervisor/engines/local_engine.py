"""The engine for one machine: starts, feeds, watches and ends worker processes.

One selector watches everything (outboxes, ends of processes, the launcher's channel); the loop waits for its
descriptor. Only `close` blocks. The death of a worker is learned from its process, never from its pipe. What
it had written is delivered first, then its death, once.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import WorkersError
from supervisor.core.terms.events import Event
from supervisor.engines.engine import HostSeen
from supervisor.engines.launcher import (
    Exited,
    Launched,
    Launcher,
    LauncherContext,
    LaunchEvent,
    LaunchFailed,
    LaunchLost,
    Lifeline,
    Reaped,
    preparation_for,
    with_devices,
)
from supervisor.engines.resource_monitor import ResourceMeter, WorkerProcesses
from supervisor.engines.start_methods import launcher_for, resolve
from supervisor.engines.worker_process import Incarnation, Incarnations, events_from
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.system.interpreter import PrivateDescriptors, is_over
from supervisor.system.process_cleanup import sweep
from supervisor.system.processes import program_of, start_time
from supervisor.system.resource_usage import Usage
from workers.isolation.output_files import trim
from workers.isolation.signal_handlers import DRAIN_SIGNALS, private_signal
from workers.script.preparation import Preparation
from workers.transport.frames import QueueError
from workers.transport.messages import Finish, Revoke, Run, WorkerSpec

# Seconds between two trims of what jobs print. A trim may come earlier by the second number, if the loop is
# awake: so it does not wake for the progress file and then again for this.
TRIM_EVERY, TRIM_EARLY = 1.1, 0.3
CLOSE_WITHIN = 5.0
SWEEP_WITHIN = 2.0
CLOSE_GIVEN_UP_WITHIN = 1.0  # with a worker that has had its time to die

SpecFor = Callable[[int, int], WorkerSpec]


class LocalEngine:
    """Worker processes on this machine (`supervisor.engines.engine.Engine`).

    spec_for: returns the spec of a worker, by slot and incarnation. It is called once with (0, 0) for the
    fields that all specs share.
    start_method: "auto", "zygote" or "spawn".
    prestarted: a zygote that was started ahead; the caller ends it if it is not taken.
    gpus: some workers are given GPUs; the others see none. gpus_by_driver: the names of GPUs are indices in the
        order of the driver.
    preparation: of the program whose functions are run, if that is not this process.
    node: number of this engine, if several write into one directory.
    """

    def __init__(
        self,
        spec_for: SpecFor,
        *,
        start_method: str = "auto",
        prestarted: PrestartedZygote | None = None,
        gpus: bool = False,
        gpus_by_driver: bool = False,
        preparation: Preparation | None = None,
        node: str = "",
    ) -> None:
        self._spec_for = spec_for
        self._preparation = preparation
        self._node = node
        self._gpus, self._gpus_by_driver = gpus, gpus_by_driver
        self._prestarted = prestarted
        self._start_method = start_method
        self._selector = selectors.DefaultSelector()
        self._workers = Incarnations()
        self._events: list[Event] = []
        self._launcher: Launcher | None = None
        self._private = PrivateDescriptors()
        self._lifeline: Lifeline | None = None
        self._tag = ""
        self._now = 0.0
        self._trim_at = 0.0
        self._meter = ResourceMeter("")

    def fileno(self) -> int:
        return self._selector.fileno()

    def start(self) -> None:
        method = resolve(self._start_method)
        if method != "zygote" and self._prestarted is not None:
            self._prestarted.discard()
        spec = self._spec(0, 0, ())
        self._tag = spec.tag
        self._meter = ResourceMeter(spec.tag)
        try:
            self._lifeline = Lifeline()
            context = LauncherContext(
                spec,
                self._lifeline.read,
                self._selector,
                self._workers.pids,
                self._workers.living,
                self._preparation or preparation_for(spec),
                self._node,
            )
            self._launcher = launcher_for(method, context, self._prestarted, gpus=self._gpus)
            self._launcher.start()
        except OSError as error:
            raise WorkersError(
                f"no worker can be started: {error}. Fix this (limits: ulimit -n, ulimit -u), "
                "then start again or resume."
            ) from error

    # ----------------------------------------------------------------------- orders

    def start_worker(
        self,
        slot: int,
        incarnation: int,
        devices: tuple[str, ...] | None = None,
        *,
        place: int = 0,
        local_slot: int = -1,
    ) -> None:
        assert self._launcher is not None, "start() comes first"
        assert self._gpus or not devices, "the engine was not told of GPUs"
        try:
            spec = self._spec(slot, incarnation, devices or ())
            if local_slot >= 0:
                spec = msgspec.structs.replace(spec, local_worker=local_slot)
            member = Incarnation(spec)
        except OSError as error:
            self._events.append(
                facts.WorkerStartFailed(incarnation, f"no pipes for a worker (limit: ulimit -n): {error}")
            )
            return
        self._workers[incarnation] = member
        self._launch(member)

    def _spec(self, slot: int, incarnation: int, devices: tuple[str, ...]) -> WorkerSpec:
        spec = self._spec_for(slot, incarnation)
        return with_devices(spec, devices, by_driver=self._gpus_by_driver) if self._gpus else spec

    def lease_jobs(self, incarnation: int, message: Run) -> None:
        worker = self._workers.get(incarnation)
        if worker is not None and worker.dead_at is None:
            if self._meter.limited and worker.leases.idle():
                first = message.first_lease
                self._meter.note_before_job(incarnation, first, self._processes())
            worker.leases.sent(message)
            worker.idle_since = None
            self._send(worker, message)

    def revoke(self, incarnation: int, leases: Sequence[int]) -> None:
        worker = self._workers.get(incarnation)
        if worker is not None:
            self._send(worker, Revoke(list(leases)))

    def unstarted(self, incarnation: int, leases: Sequence[int]) -> list[int] | None:
        """Of these leases, those behind the one that the worker runs. None if that cannot be said now: it has more
        to say, or was not yet sent all."""
        worker = self._workers.get(incarnation)
        if worker is None or worker.dead_at is not None:
            return []  # its death is told
        if worker.inbox.pressing or worker.outbox.pressing or worker.outbox_end.poll():
            return None
        first = worker.leases.first()
        return [] if first is None else [lease for lease in leases if lease > first]

    def least_held(self) -> int:
        """How many leases the worker with the fewest holds."""
        return self._workers.least_held()

    def outbox_room(self) -> int:
        """Bytes that the smallest pipe for what workers say holds: one that is full stops its worker."""
        return min([worker.outbox.room for worker in self._workers.values()], default=0)

    def stop_worker(self, incarnation: int) -> None:
        worker = self._workers.get(incarnation)
        if worker is not None and not worker.finish_asked:
            worker.finish_asked = True
            self._send(worker, Finish())
            self._workers.note(worker)

    def kill_worker(self, incarnation: int, *, stack: bool = False) -> None:
        worker = self._workers.get(incarnation)
        if worker is None or worker.dead_at is not None or self._launcher is None:
            return
        worker.kill_asked = True
        self._workers.note(worker)
        if not worker.pid:
            self._launcher.cancel(incarnation)
        elif not (stack and worker.ask_for_stack(self._now)):
            worker.stack_due = None
            worker.peaks.read_peak(worker.pid)
            self._launcher.before_kill(incarnation)
            worker.send_signal(signal.SIGKILL)

    def signal_worker(self, incarnation: int, signum: int) -> None:
        worker = self._workers.get(incarnation)
        # Before it is ready it may not have its handlers yet, and would die of the signal.
        if worker is not None and worker.ready:
            if signum == signal.SIGQUIT:
                worker.ask_for_stacks()
            else:
                worker.send_signal(private_signal(signum) if signum in DRAIN_SIGNALS else signum)

    def stop_workers(self, *, suspend: bool) -> None:
        for worker in self._workers.values():
            if worker.pid and worker.dead_at is None:
                with contextlib.suppress(OSError):
                    os.killpg(worker.pid, signal.SIGSTOP if suspend else signal.SIGCONT)

    def _send(self, worker: Incarnation, message: Run | Revoke | Finish) -> None:
        """Write as much as the pipe takes; the rest when the selector reports room."""
        if worker.dead_at is not None:
            return
        if worker.inbox.send(message):
            self._watch_inbox(worker)
        self._workers.note(worker)

    def _watch_inbox(self, worker: Incarnation) -> None:
        with contextlib.suppress(KeyError):  # it is watched already
            self._selector.register(worker.inbox_end, selectors.EVENT_WRITE, partial(self._flush, worker))

    def _flush(self, worker: Incarnation, mask: int) -> None:
        if not worker.inbox.flush():
            self._forget(worker.inbox_end)
        self._workers.note(worker)

    def _forget(self, file: object) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------ facts

    def poll(self, now: float) -> list[Event]:
        self._now = now
        for key, mask in self._selector.select(0):
            key.data(mask)
        if self._launcher is not None:
            while happened := self._launcher.poll(now):
                for event in happened:
                    self._on_launch_event(event)
        for worker in self._workers.to_be_watched():
            self._check_deadline(worker, now)
        if now >= self._trim_at - TRIM_EARLY:
            self._trim_at = now + TRIM_EVERY
            self._trim()
        events, self._events = self._events, []
        return events

    def _on_outbox(self, worker: Incarnation, mask: int) -> None:
        try:
            messages = worker.outbox.read()
        except QueueError as error:
            if error.before:  # outcomes of the jobs before the one that broke the queue
                self._events += events_from(worker, error.before)
            worker.note = f"worker {worker.spec.worker} was killed: {error}"
            self._forget(worker.outbox_end)
            worker.outbox.ended = True
            self.kill_worker(worker.number)
            return
        if worker.outbox.ended:
            self._forget(worker.outbox_end)
        self._workers.note(worker)
        if messages:
            self._events += events_from(worker, messages)

    def _on_launch_event(self, event: LaunchEvent) -> None:
        if isinstance(event, facts.FilesShared):
            self._events.append(event)
            return
        worker = self._workers.get(event.incarnation)
        if worker is None:
            if isinstance(event, Launched) and event.pidfd is not None:
                os.close(event.pidfd)
        elif isinstance(event, Launched):
            self._on_launched(worker, event)
        elif isinstance(event, LaunchFailed):
            self._remove(worker)
            self._events.append(facts.WorkerStartFailed(worker.number, event.error))
        elif isinstance(event, LaunchLost):
            self._launch_again(worker)
        elif isinstance(event, Exited):
            self._on_death(worker, 0)
        elif isinstance(event, Reaped):
            worker.reaped = event
            self._on_death(worker, 0)

    def _on_launched(self, worker: Incarnation, event: Launched) -> None:
        worker.pid, worker.pidfd = event.pid, event.pidfd
        worker.program = program_of(worker.pid)
        if worker.pidfd is not None:
            self._selector.register(worker.pidfd, selectors.EVENT_READ, partial(self._on_death, worker))
        self._watch_outbox(worker)
        self._events.append(facts.WorkerLaunched(worker.number, worker.pid, start_time(worker.pid)))
        if worker.kill_asked:
            self.kill_worker(worker.number)

    def _launch(self, worker: Incarnation) -> None:
        """Write the first messages into the inbox, and launch the process. The pipe keeps them meanwhile."""
        assert self._launcher is not None
        self._private.numbers.add(worker.inbox_end.fileno())
        left = False
        if (greeting := self._launcher.greeting(worker.spec)) is not None:
            left = worker.inbox.send(greeting)
        left = worker.inbox.send(worker.spec.packed()) or left
        if worker.finish_asked:
            left = worker.inbox.send(Finish()) or left
        if left:
            self._watch_inbox(worker)
        self._workers.note(worker)
        self._launcher.launch(worker.spec, worker.ends)

    def _launch_again(self, worker: Incarnation) -> None:
        """Launch with new queues: an unknown process may hold the old ones."""
        self._disconnect(worker)
        try:
            if worker.kill_asked:
                raise OSError("it is not needed any more")
            worker.connect()
        except OSError as error:
            del self._workers[worker.number]
            self._events.append(
                facts.WorkerStartFailed(worker.number, f"no pipes for a worker (limit: ulimit -n): {error}")
            )
            return
        self._launch(worker)

    def _disconnect(self, worker: Incarnation) -> None:
        for end in (worker.inbox_end, worker.outbox_end):
            self._forget(end)
        self._private.numbers.discard(worker.inbox_end.fileno())
        worker.disconnect()

    # ----------------------------------------------------------------------- deaths

    def _on_death(self, worker: Incarnation, mask: int) -> None:
        """The process has ended: read what it had written, then ask the launcher how it ended."""
        if worker.dead_at is not None:
            return
        worker.dead_at = self._now
        self._workers.note(worker)
        worker.outbox.writer_died()
        worker.outbox.ended &= bool(worker.note)  # it may have been closed and opened again
        if worker.pidfd is not None:
            self._forget(worker.pidfd)
        while not worker.outbox.ended:
            self._on_outbox(worker, 0)
        if worker.reaped is None and self._launcher is not None:
            self._launcher.on_death(worker.number, self._now)

    def _check_deadline(self, worker: Incarnation, now: float) -> None:
        """Act on the deadline of one worker: report its death, kill it, or give it up."""
        worker.start_deadlines(now)
        due = worker.deadline(now)
        if due is None or due > now:
            return
        if worker.dead_at is not None:
            died = worker.died_event()
            self._remove(worker)
            self._events.append(died)
        elif worker.stack_due is not None:
            if worker.stack_written(now):
                self.kill_worker(worker.number)
        elif worker.kill_asked:
            worker.given_up = True
            self._events.append(facts.WorkerGivenUp(worker.number))
        elif not (worker.cut_off and self._can_reconnect(worker, now)):
            worker.note = worker.kill_note()
            self.kill_worker(worker.number)

    def _can_reconnect(self, worker: Incarnation, now: float) -> bool:
        """Read again from a worker whose job has closed the queues; false if nothing can come any more."""
        if worker.outbox.ended:
            worker.outbox.ended = False
            self._on_outbox(worker, 0)
            if not worker.outbox.ended:  # a process has opened it again
                self._watch_outbox(worker)
            self._workers.note(worker)
        return worker.may_reconnect(now)

    def _watch_outbox(self, worker: Incarnation) -> None:
        self._selector.register(worker.outbox_end, selectors.EVENT_READ, partial(self._on_outbox, worker))

    def _remove(self, worker: Incarnation) -> None:
        del self._workers[worker.number]
        self._disconnect(worker)
        if worker.pidfd is not None:
            self._forget(worker.pidfd)
            os.close(worker.pidfd)

    # ------------------------------------------------------------------------- time

    def next_deadline(self) -> float | None:
        times = self._workers.deadlines(self._now)
        if self._launcher is not None and (due := self._launcher.next_deadline()) is not None:
            times.append(due)
        if self._events:
            times.append(self._now)
        if self._workers:
            times.append(self._trim_at)
        return min(times, default=None)

    def _trim(self) -> None:
        """Limit the scratch files, so that a job that prints without end does not fill the disk."""
        for worker in self._workers.values():
            if worker.ready:
                trim(worker.scratch, worker.spec.output_limit)

    def pressing(self) -> bool:
        return self._workers.pressing()

    def usage(self) -> dict[int, Usage]:
        for worker in self._workers.values():
            worker.peaks.read_peak(worker.pid)
        return self._meter.usage(self._processes())

    def memory(
        self, limit: int | None, limits: Mapping[int, int] | None, *, available: bool
    ) -> tuple[dict[int, int], int | None]:
        return self._meter.memory(self._processes(), limit, limits, available=available)

    def available_on_places(self) -> None:
        return None

    def left_behind(self) -> dict[int, tuple[int, int]]:
        return self._meter.left_behind()

    def hosts(self) -> dict[int, HostSeen]:
        return {}

    def _processes(self) -> WorkerProcesses:
        pids, launcher = self._workers.pids_by_number(), self._launcher
        if launcher is None:
            return WorkerProcesses(pids)
        fresh = [number for number in pids if self._workers[number].spec.devices]
        return WorkerProcesses(pids, launcher.adopters(), launcher.origin(), fresh)

    # -------------------------------------------------------------------------- end

    def close(self) -> None:
        within = CLOSE_GIVEN_UP_WITHIN if self._workers.any_given_up() else CLOSE_WITHIN
        deadline = time.monotonic() + within
        for number in list(self._workers):
            self.kill_worker(number)
        if self._launcher is not None:
            self._launcher.close(deadline)
            self._launcher = None
        for worker in list(self._workers.values()):
            if worker.pidfd is not None:
                is_over(worker.pidfd, deadline - time.monotonic())
            worker.store_output()
            self._remove(worker)
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
            sweep(self._tag, seconds=max(0.0, min(SWEEP_WITHIN, deadline - time.monotonic())))
        self._selector.close()
