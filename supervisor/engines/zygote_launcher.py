"""Workers made by a zygote (`workers.zygote`): forked, or started as fresh interpreters. Linux only.

A zygote that does not answer is killed and replaced, while the workers that it has forked go on. The end of such
a worker is seen by its pidfd; its exit status and peak memory stay unknown, and its orphans are found by the tag
in their environment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import time
from collections import deque

import msgspec

from supervisor.core.terms import events as facts
from supervisor.engines.launcher import (
    Launched,
    LauncherContext,
    LaunchEvent,
    LaunchFailed,
    LaunchLost,
    Lifeline,
    PendingReaps,
    Reaped,
    WorkerEnds,
    preparation_of_worker,
    tagged_environment,
)
from supervisor.engines.zygote_process import PrestartedZygote, ZygoteHandle, zygote_process
from supervisor.system.descriptor_limit import give_back
from supervisor.system.interpreter import ROOM_FOR_TAG, has_ended
from supervisor.system.processes import is_stopped
from workers.forking.resource_trackers import descriptor_of_tracker
from workers.process.surrogates import received
from workers.script.preparation import Preparation
from workers.transport.messages import WorkerSpec
from workers.transport.zygote_protocol import (
    MAX_PACKET,
    Fork,
    Forked,
    ForkFailed,
    ForkReaped,
    FromZygote,
    Prepared,
    ZygoteOrders,
)

ANSWER_WITHIN = 5.0  # seconds for a fork
REAP_WITHIN = 2.0  # seconds from a worker's death to the zygote's report of it
LOSSES_IN_A_ROW = 3  # zygotes that died without having forked anything
_ASKED_AT_ONCE = 32  # it forks them while the supervisor gathers its answers

_decode = msgspec.msgpack.Decoder(FromZygote).decode


class ZygoteLauncher:
    """Keeps a zygote running and sends requests to it.

    fresh: its workers are fresh interpreters, and it imports nothing of the user's.
    """

    def __init__(
        self, context: LauncherContext, prestarted: PrestartedZygote | None = None, *, fresh: bool = False
    ) -> None:
        self._context = context
        self._prestarted = prestarted
        self._spec = context.spec
        self._preparation = context.preparation
        self._fresh = fresh
        self._preload = not fresh
        self._zygote: ZygoteHandle | None = None
        self._ending: list[ZygoteHandle] = []  # asked to exit, not reaped yet
        self._replaced: list[ZygoteHandle] = []  # replaced, with workers that still run
        self._waiting: deque[tuple[WorkerSpec, WorkerEnds]] = deque()
        self._events: list[LaunchEvent] = []
        self._pending_reaps = PendingReaps(context)
        self._losses = 0
        self._serial = 0
        self._now = 0.0  # at the last `poll`

    # ------------------------------------------------------------------- the zygote

    def start(self) -> None:
        os.makedirs(self._spec.output_directory, exist_ok=True)
        self._serial += 1
        name = f"zygote-of-fresh-{self._serial}" if self._fresh else f"zygote-{self._serial}"
        if node := self._context.node:
            name += f"-{node}"
        scratch = os.path.join(self._spec.output_directory, f".worker-{name}.part")
        second = Lifeline(second=True)
        try:
            with open(scratch, "ab") as output:
                wanted = (scratch, output.fileno(), second)
                zygote = self._take_prestarted(*wanted) or self._start_new(*wanted)
        except BaseException:
            second.close()
            raise
        zygote.channel.setblocking(False)
        self._zygote = zygote
        self._context.zygotes.add(zygote.pid)
        self._context.selector.register(zygote.channel, selectors.EVENT_READ, self._receive)

    def _take_prestarted(self, scratch: str, output: int, second: Lifeline) -> ZygoteHandle | None:
        """The prestarted zygote, if there is one and it can be used."""
        prestarted, self._prestarted = self._prestarted, None
        tag = self._spec.tag
        taken = None
        if prestarted is not None and len(tag.encode()) <= ROOM_FOR_TAG:
            taken = prestarted.take()
        if taken is None:
            return None
        zygote = ZygoteHandle(*taken, scratch, second, prestarted=True)
        try:
            self._send_orders(zygote, tag, output)
        except OSError:  # it has died
            zygote.channel.close()
            zygote.process.kill()
            zygote.process.wait()
            return None
        return zygote

    def _start_new(self, scratch: str, output: int, second: Lifeline) -> ZygoteHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = zygote_process(theirs, tagged_environment(self._spec), output)
            except BaseException:
                ours.close()
                raise
        give_back(process.pid)  # before its orders, with which it begins to execute code of the user's
        zygote = ZygoteHandle(process, ours, scratch, second)
        with contextlib.suppress(OSError):  # dead already: the channel's end is noticed later
            self._send_orders(zygote, "")
        return zygote

    def _send_orders(self, zygote: ZygoteHandle, tag: str, *output: int) -> None:
        """Send the first message. Raises OSError if the zygote is dead."""
        prepared = os.memfd_create("longhaul-preparation")
        try:
            with open(prepared, "wb", closefd=False) as file:
                file.write(msgspec.msgpack.encode(self._preparation))
            os.lseek(prepared, 0, os.SEEK_SET)
            tracker = [] if (number := descriptor_of_tracker()) is None else [number]
            order = msgspec.msgpack.encode(ZygoteOrders(tag, self._preload, bool(tracker), self._fresh))
            lifelines = [self._context.lifeline, zygote.second_lifeline.write]
            descriptors = [prepared, *lifelines, *tracker, *output]
            socket.send_fds(zygote.channel, [order], descriptors)
        finally:
            os.close(prepared)

    def _replace(self, why: str, *, failed: bool) -> None:
        """Stop using the zygote; another one is started when it is needed."""
        zygote = self._zygote
        if zygote is None:
            return
        self._zygote = None
        self._context.zygotes.discard(zygote.pid)
        self._context.selector.unregister(zygote.channel)
        zygote.channel.close()
        if failed:
            zygote.process.kill()
            self._losses += 1
            # Perhaps the user's code has killed it: let the workers import it and report the error. A
            # prestarted zygote may have died for another reason.
            if not (zygote.prepared or zygote.prestarted):
                self._preload = False
        self._ending.append(zygote)
        self._events.extend(LaunchLost(incarnation) for incarnation in zygote.asked)
        for incarnation, died in zygote.dead.items():
            self._pending_reaps.add(Reaped(incarnation), died)
        zygote.members.difference_update(zygote.dead)
        zygote.dead.clear()
        self._replaced.append(zygote)
        self._close_unused_lifelines()
        if self._losses >= LOSSES_IN_A_ROW:
            self._losses = 0
            lost = f"the process that forks the workers was lost {LOSSES_IN_A_ROW} times: {why}"
            self._fail_waiting(lost + zygote.log_hint())

    def _close_unused_lifelines(self) -> None:
        """Close second lifelines that no worker needs any more."""
        for zygote in [zygote for zygote in self._replaced if not zygote.members]:
            zygote.second_lifeline.close()
            self._replaced.remove(zygote)

    def _fail_waiting(self, error: str) -> None:
        while self._waiting:
            spec, ends = self._waiting.popleft()
            ends.close()
            self._events.append(LaunchFailed(spec.incarnation, error))

    # --------------------------------------------------------------------- requests

    def greeting(self, spec: WorkerSpec) -> Preparation | None:
        return preparation_of_worker(self._preparation, spec) if self._fresh else None

    def launch(self, spec: WorkerSpec, ends: WorkerEnds) -> None:
        self._waiting.append((spec, ends))
        self._send_requests()

    def _send_requests(self) -> None:
        """Send requests, at most _ASKED_AT_ONCE unanswered ones: so the channel never fills up."""
        if not self._waiting:
            return
        if self._zygote is None:
            try:
                self.start()
            except OSError as error:
                self._fail_waiting(f"cannot start the process that forks the workers: {error}")
            return
        zygote = self._zygote
        while zygote.prepared and self._waiting and len(zygote.asked) < _ASKED_AT_ONCE:
            spec, ends = self._waiting[0]
            try:
                self._request(zygote, spec, ends)
            except BlockingIOError:
                return
            except OSError as error:
                self._replace(str(error), failed=True)
                return
            self._waiting.popleft()
            ends.close()
            zygote.asked[spec.incarnation] = 0.0

    def _request(self, zygote: ZygoteHandle, spec: WorkerSpec, ends: WorkerEnds) -> None:
        """Raises OSError if the zygote is dead, BlockingIOError if its channel is full."""
        lifelines = [self._context.lifeline, zygote.second_lifeline.read]
        request = Fork(spec.incarnation, {**spec.environment, **spec.visible_gpus} if self._fresh else {})
        descriptors = [ends.inbox.fileno(), ends.outbox.fileno(), *lifelines]
        output = ends.output() if self._fresh else None
        if output is not None:
            descriptors.append(output)
        try:
            socket.send_fds(zygote.channel, [msgspec.msgpack.encode(request)], descriptors)
        finally:
            if output is not None:
                os.close(output)

    # ---------------------------------------------------------------------- answers

    def _receive(self, mask: int) -> None:
        while (zygote := self._zygote) is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(zygote.channel, MAX_PACKET, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._replace("it died", failed=True)
                return
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            try:
                self._on_message(zygote, _decode(data), descriptors)
            except msgspec.MsgspecError as error:
                self._replace(f"it sent a message that cannot be decoded: {error}", failed=True)

    def _on_message(self, zygote: ZygoteHandle, message: FromZygote, descriptors: list[int]) -> None:
        if isinstance(message, Forked):
            zygote.asked.pop(message.incarnation, None)
            self._losses = 0
            if descriptors:
                zygote.members.add(message.incarnation)
                self._events.append(Launched(message.incarnation, message.pid, descriptors[0]))
            else:  # it did not fit under our limit of open files; the zygote reaps it
                os.kill(message.pid, signal.SIGKILL)
                self._events.append(LaunchFailed(message.incarnation, os.strerror(errno.EMFILE)))
        elif isinstance(message, ForkFailed):
            zygote.asked.pop(message.incarnation, None)
            self._events.append(LaunchFailed(message.incarnation, message.error))
        elif isinstance(message, ForkReaped):
            zygote.members.discard(message.incarnation)
            zygote.dead.pop(message.incarnation, None)
            self._events.append(Reaped(message.incarnation, message.status, message.peak_rss))
        elif isinstance(message, Prepared):
            if message.obstacle and self._preload:
                # It cannot fork workers with the user's code: each one has to import it.
                self._preload = False
                self._replace(message.obstacle, failed=False)
            else:
                zygote.prepared = True
                if message.shared:
                    self._events.append(facts.FilesShared([received(name) for name in message.shared]))

    def cancel(self, incarnation: int) -> None:
        """Drop a waiting request; the zygote may still be importing the user's code."""
        for entry in self._waiting:
            if entry[0].incarnation == incarnation:
                self._waiting.remove(entry)
                entry[1].close()
                self._events.append(LaunchFailed(incarnation, "it is not needed any more"))
                return

    def before_kill(self, incarnation: int) -> None:
        """Nothing to note: orphans go to the zygote."""

    def on_death(self, incarnation: int, now: float) -> None:
        zygote = self._zygote
        if zygote is not None and incarnation in zygote.members:
            zygote.dead[incarnation] = now
        elif not any(isinstance(e, Reaped) and e.incarnation == incarnation for e in self._events):
            self._pending_reaps.add(Reaped(incarnation), now)
        for survived in self._replaced:
            survived.members.discard(incarnation)
        self._close_unused_lifelines()

    # ------------------------------------------------------------------------- time

    def poll(self, now: float) -> list[LaunchEvent]:
        self._now = now
        if self._zygote is not None:
            self._check_answers(self._zygote, now)
        self._send_requests()
        self._ending = [zygote for zygote in self._ending if not zygote.ended()]
        events, self._events = self._events, []
        # Workers that the engine learns of only now count as well.
        own = {event.pid for event in events if isinstance(event, Launched)}
        return [*events, *self._pending_reaps.poll(now, own)]

    def _check_answers(self, zygote: ZygoteHandle, now: float) -> None:
        for incarnation, at in zygote.asked.items():
            zygote.asked[incarnation] = at or now
        overdue = any(now - at > ANSWER_WITHIN for at in zygote.asked.values())
        overdue |= any(now - died > REAP_WITHIN for died in zygote.dead.values())
        if not zygote.prepared and self._waiting:
            # An import may take long; only a stopped process is overdue.
            zygote.checked_at = zygote.checked_at or now
            if now - zygote.checked_at > ANSWER_WITHIN:
                zygote.checked_at = now
                overdue |= is_stopped(zygote.pid)
        if overdue:
            self._replace("it did not answer", failed=True)

    def origin(self) -> int | None:
        return None if self._zygote is None or self._fresh else self._zygote.pid

    def adopters(self) -> list[int]:
        return [] if self._zygote is None else [self._zygote.pid]

    def next_deadline(self) -> float | None:
        zygote = self._zygote
        if self._events or (zygote is None and self._waiting):
            return 0.0
        times = [self._pending_reaps.next_deadline()]
        if zygote is not None:
            # One that was asked since the last `poll` counts from then: to wake the loop for it would cost a turn.
            times += [(at or self._now) + ANSWER_WITHIN for at in zygote.asked.values()]
            times += [died + REAP_WITHIN for died in zygote.dead.values()]
            if not zygote.prepared and self._waiting:
                times.append(zygote.checked_at and zygote.checked_at + ANSWER_WITHIN)
        return min((time for time in times if time is not None), default=None)

    def close(self, deadline: float) -> None:
        """Close the channel: then the zygote kills everything, and exits."""
        self._replace("", failed=False)
        while self._waiting:
            self._waiting.popleft()[1].close()
        for zygote in self._ending:
            if not zygote.prepared:  # it has no workers, and does not read its channel yet
                zygote.process.kill()
            if not has_ended(zygote.process, deadline - time.monotonic()):
                zygote.process.kill()
                has_ended(zygote.process, 0.5)
            zygote.ended()
        self._ending.clear()
        for zygote in self._replaced:
            zygote.members.clear()
        self._close_unused_lifelines()
        self._events.clear()
