"""The agent of a node: drives a local engine there, as the loop drives one here.

Orders come on one descriptor, what the engine tells goes out on another. The agent knows no jobs and imports no
code of the user's. It ends its workers, and then itself, when the supervisor says so, when the connection to
it is over, and when no Ping came for `HelloAgent.silence` seconds: then others may have its jobs. That time is
counted as `supervisor.nodes.fencing` says.
"""

from __future__ import annotations

import os
import platform
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.events import Event
from supervisor.core.terms.version import VERSION as RELEASE
from supervisor.engines.launcher import tagged_environment
from supervisor.engines.local_engine import LocalEngine
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.nodes.agent_guard import AgentGuard
from supervisor.nodes.fencing import LOOK_EVERY, Watchdog, Withdrawals
from supervisor.nodes.link import Link
from supervisor.nodes.moved_program import SHIPPED, moved, moved_path
from supervisor.nodes.node_code import digest_of, versions_of
from supervisor.nodes.shipping.file_messages import FILE_ORDERS, FILE_REPORTS, FilesMode
from supervisor.nodes.wire import (
    VERSION,
    Close,
    HelloAgent,
    HelloNode,
    HowNodeEnds,
    Kill,
    Lease,
    Measure,
    NodeEnds,
    Order,
    Ping,
    Pong,
    Report,
    SendSignal,
    Start,
    Stop,
    Suspend,
    TakeBack,
    Used,
    WireError,
    decode_orders,
    encode,
    report_of,
)
from supervisor.system.capacity.cpu_limits import thread_caps, usable_cores
from supervisor.system.capacity.free_memory import usable_memory
from supervisor.system.capacity.gpu_devices import usable_devices
from supervisor.system.capacity.host_use import HostMeter
from supervisor.system.clock import RunClock, boot_time
from supervisor.system.interpreter import PrivateDescriptors
from supervisor.system.process_cleanup import survivors, sweep
from supervisor.system.processes import boot_id
from workers.isolation.thread_caps import THREAD_VARIABLES
from workers.process.surrogates import received
from workers.transport.messages import WorkerSpec

if TYPE_CHECKING:  # most agents share a file system with the supervisor
    from supervisor.nodes.shipping.file_shipping import FileShipping, Said

# Seconds from one message to the next, while outcomes gather: 1,000 times what a job takes, at most GATHER; up to
# GATHER_LONG if each worker holds twice as much work: the supervisor, which lags behind by that, still sends more in
# time. Else a supervisor that shares the cores would be woken for each job, or 33 times a second for each node. Each
# time costs the agent a quarter of a millisecond, most of it because jobs have driven its code out of the caches.
GATHER, GATHER_LONG, FEW = 0.03, facts.GATHER_ELSEWHERE, 1000
_SHORT, _EACH = 0.02, 5e-6  # seconds of a job, of which many come together; what each costs at least
_AROUND = 32  # bytes of an outcome beside its result
MOST_UNSENT = 4 << 20  # bytes; with more the workers have to wait
SAY_END_WITHIN = 1.0
ENDING = (signal.SIGTERM, signal.SIGHUP)


def run(
    orders: int, reports: int, host: int = -1, direct: int = -1, *, zygote: PrestartedZygote | None = None
) -> None:
    """The agent's process; all are descriptors. `host`: readable when the agent has to end, with whatever it is a part
    of; -1: nothing is. `direct`: a connection to the supervisor that takes the place of the first two; these then show
    only each side the end of the other. `zygote`: one that was started ahead; the caller ends it if it is not taken.
    """
    link = Link(orders, reports) if direct < 0 else Link(direct, direct)
    agent = NodeAgent(link, host, -1 if direct < 0 else orders, zygote)
    private = PrivateDescriptors()
    if direct >= 0:
        os.set_inheritable(reports, False)
        private.numbers.add(reports)
    try:
        agent.run()
    finally:
        link.close()


class NodeAgent:
    """`run` returns when all processes that the agent has started are dead."""

    def __init__(
        self, link: Link, host: int = -1, carrier: int = -1, zygote: PrestartedZygote | None = None
    ) -> None:
        """host, carrier: readable when that has ended; -1: there is none."""
        self._link = link
        self._prestarted = zygote
        self._hosts = {
            host: "the process that its node belongs to",
            carrier: "the process that has started it",
        }
        self._selector = selectors.DefaultSelector()
        self._hosts.pop(-1, None)
        for descriptor in self._hosts:
            os.set_inheritable(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        self._clock = RunClock()
        self._watchdog = Watchdog(boot_time())
        self._withdrawals = Withdrawals()
        self._greeted = False
        self._why = ""  # it ends
        self._how: HowNodeEnds = "failed"
        self._engine: LocalEngine | None = None
        self._guard: AgentGuard | None = None
        self._files: FileShipping | None = None  # if no file system is shared
        self._host_meter = HostMeter()
        self._napped = False  # outcomes have gathered: it looks at them without another wait

    def run(self) -> None:
        self._listen_to_signals()
        try:
            while not self._why:
                self.turn()
        except (LonghaulError, OSError) as error:
            self._end(str(error))
        except Exception as error:
            traceback.print_exc()
            self._end(f"its agent failed: {error!r}")
        finally:
            self.finish()

    def turn(self) -> None:
        """Wait for what comes first, at most LOOK_EVERY, and do what there is to do."""
        if self._engine is None:
            self._await_hello()
        else:
            self._drive(self._engine)

    def finish(self) -> None:
        """End all processes, then say so to whoever has said Hello."""
        if self._files is not None and self._engine is not None:
            self._tell_of(self._files.last_output())
        if self._engine is not None:
            self._engine.close()
        if self._guard is not None:
            self._guard.close()
        if self._files is not None:
            self._tell_of(self._files.words_of_zygotes())
            self._files.close()
        if self._greeted:
            self._say_end()

    def _listen_to_signals(self) -> None:
        """SIGTERM ends the workers in order; a Ctrl+C that reaches the agent is for the supervisor alone. (What it
        starts does not inherit handlers.)"""
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker  # kept open
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # blocked for the start
        for signum in ENDING:
            signal.signal(
                signum, lambda number, _: self._end(f"it was sent {signal.Signals(number).name}", "asked")
            )
        self._selector.register(self._woken, selectors.EVENT_READ)

    def _end(self, why: str, how: HowNodeEnds = "failed") -> None:
        if not self._why:
            self._why, self._how = why, how

    # ----------------------------------------------------------------------- hello

    def _await_hello(self) -> None:
        """The first order, and those that come with it. Raises LonghaulError or OSError."""
        self._wait(LOOK_EVERY)
        orders = self._orders()
        if not orders or self._why:
            return
        hello = orders[0]
        if not isinstance(hello, HelloAgent):
            self._end("it was given an order before a Hello")
            return
        self._greeted = True
        self._begin(hello)
        for order in orders[1:]:
            self._obey(order)

    def _begin(self, hello: HelloAgent) -> None:
        """Start the engine, when nothing is left of the nodes before. Raises LonghaulError."""
        ended = [pid for tag in hello.before for pid in sweep(tag)]
        if hello.earlier:
            ended += sweep(hello.earlier, spared=hello.spared)
        spec = msgspec.structs.replace(hello.spec.unpacked(), tag=hello.tag)
        if hello.caps:
            others = {k: value for k, value in spec.environment.items() if k not in THREAD_VARIABLES}
            spec = msgspec.structs.replace(spec, environment={**others, **thread_caps(usable_cores())})

        if not shares_files(hello.files, received(hello.token)):
            from supervisor.nodes.shipping.file_shipping import FileShipping

            self._files = FileShipping()

        def spec_of(worker: int, incarnation: int) -> WorkerSpec:
            own = msgspec.structs.replace(spec, worker=worker, incarnation=incarnation)
            return own if self._files is None else self._files.spec_for(own)

        program, code = hello.preparation, hello.code
        if hello.ship:
            origin, copy = received(hello.ship), os.environ[SHIPPED]
            program = moved(program, origin, copy)
            code = [moved_path(file, origin, copy) for file in code]
        preparation = msgspec.structs.replace(program, environment=tagged_environment(spec))
        devices = usable_devices() if hello.gpus else None
        engine = LocalEngine(
            spec_of,
            start_method=hello.start_method,
            prestarted=self._prestarted,
            gpus=hello.gpus,
            gpus_by_driver=hello.gpus_by_driver,
            preparation=preparation,
            node=hello.tag.rpartition("/")[2],
        )
        engine.start()
        self._engine = engine
        self._guard = AgentGuard(hello.tag)
        self._watchdog.begin(hello.silence, boot_time())
        self._guard.feed(self._watchdog.until)
        self._tell(
            [
                HelloNode(
                    version=VERSION,
                    python=platform.python_version(),
                    cpus=hello.cpus or usable_cores(),
                    memory=usable_memory(),
                    gpus=devices.names if devices is not None else (),
                    gpus_by_driver=devices is not None and devices.by_driver,
                    host=platform.node(),
                    pid=os.getpid(),
                    boot_id=boot_id(),
                    cleared=not survivors(ended),
                    ships=self._files is not None,
                    code=[digest_of(file) for file in code],
                    libraries=versions_of(hello.libraries),
                    release=RELEASE,
                )
            ]
        )

    # ------------------------------------------------------------------------ turns

    def _drive(self, engine: LocalEngine) -> None:
        if self._napped:
            self._napped = False
        else:
            self._wait_for_news(engine)
        for order in self._orders():
            self._obey(order)
        if self._link.unsent <= MOST_UNSENT:
            monotonic = time.monotonic()
            events = engine.poll(self._clock.now())
            events += self._withdrawals.certain(engine.unstarted, monotonic)
            said: Sequence[Said] = events
            if self._files is not None:
                said = self._files.tell(events, self._clock.now(), self._link.unsent)
            self._tell_of(said)
            nap = nap_after(events, engine.least_held, engine.outbox_room) if events else 0.0
            if nap and not self._why and not engine.pressing() and self._withdrawals.due() is None:
                self._wait(nap)
                self._napped = True

    def _wait_for_news(self, engine: LocalEngine) -> None:
        full = self._link.unsent > MOST_UNSENT
        now, due = self._clock.now(), engine.next_deadline()
        if self._files is not None and (at := self._files.next_deadline(self._link.unsent)) is not None:
            due = at if due is None else min(due, at)
        wait = LOOK_EVERY if full or due is None else min(due - now, LOOK_EVERY)
        if not full and (certain := self._withdrawals.due()) is not None:
            wait = min(wait, certain - time.monotonic())
        self._wait(wait, engine=not full)

    def _wait(self, timeout: float, *, engine: bool = False) -> None:
        """Wait for orders, for room on the wire, and with `engine` for what it may have to tell."""
        self._link.watch(self._selector)
        if engine and self._engine is not None:
            self._selector.register(self._engine.fileno(), selectors.EVENT_READ)
        ready = self._selector.select(max(0.0, timeout))
        for key, _ in ready:
            if key.fd in self._hosts:
                self._end(f"{self._hosts[key.fd]} has ended")
        if engine and self._engine is not None:
            self._selector.unregister(self._engine.fileno())
        self._clock.tick(max(0.0, timeout))
        while self._woken_by_signal():
            pass
        # Before anything is read: what has arrived while this process stood still comes too late.
        if self._watchdog.over(boot_time()):
            self._end(f"it heard nothing of the supervisor for {self._watchdog.silence:g}s", "silence")

    def _woken_by_signal(self) -> bool:
        try:
            return bool(self._woken.recv(64))
        except BlockingIOError:
            return False

    def _orders(self) -> list[Order]:
        if self._why:
            return []
        self._link.flush()
        orders: list[Order] = []
        try:
            for message in self._link.receive():
                orders += decode_orders(message)
        except WireError as error:
            self._end(str(error))
        if self._link.ended:
            self._end(f"the supervisor is gone: {self._link.ended}")
        return orders

    def _tell(self, reports: list[Report]) -> None:
        if reports:
            self._link.send(encode(reports))

    def _tell_of(self, said: Sequence[Said]) -> None:
        self._tell([each if isinstance(each, FILE_REPORTS) else report_of(each) for each in said])

    def _on_ping(self, number: int, pong: int) -> None:
        self._watchdog.ping(number, pong, boot_time())
        if self._guard is not None:
            self._guard.feed(self._watchdog.until)
        self._tell([Pong(number)])

    def _obey(self, order: Order) -> None:
        engine = self._engine
        assert engine is not None
        match order:
            case Lease(incarnation, run):
                if self._files is not None:
                    self._files.leased(incarnation, run)
                engine.lease_jobs(incarnation, run)
            case TakeBack(incarnation, leases):
                engine.revoke(incarnation, leases)
                self._withdrawals.revoked(incarnation, leases, time.monotonic())
            case Start(slot, incarnation, devices, local_slot):
                engine.start_worker(slot, incarnation, devices, local_slot=local_slot)
            case Stop(incarnation):
                engine.stop_worker(incarnation)
            case Kill(incarnation, stack):
                engine.kill_worker(incarnation, stack=stack)
            case SendSignal(incarnation, signum):
                if self._files is not None and signum == signal.SIGQUIT:
                    self._files.asked_for_stacks(incarnation)
                engine.signal_worker(incarnation, signum)
            case Suspend(suspend):
                engine.stop_workers(suspend=suspend)
            case Ping(number, pong):
                self._on_ping(number, pong)
            case Measure():
                self._tell([self._measure(order)])
            case Close():
                self._end("it was told to", "asked")
            case _ if isinstance(order, FILE_ORDERS) and self._files is not None:
                self._files.obey(order)

    def _measure(self, order: Measure) -> Used:
        engine = self._engine
        assert engine is not None
        used = Used()
        if order.usage:
            used.usage, used.host = engine.usage(), self._host_meter.read()
        if order.memory:
            memory, available = engine.memory(order.limit, order.limits, available=order.available)
            used.memory, used.available, used.left = memory, available, engine.left_behind()
        return used

    def _say_end(self) -> None:
        self._tell([NodeEnds(self._why, self._how)])
        until = time.monotonic() + SAY_END_WITHIN
        while self._link.flush() and time.monotonic() < until:
            self._link.watch(self._selector)
            self._selector.select(0.01)


def nap_after(events: list[Event], least_held: Callable[[], int], outbox_room: Callable[[], int]) -> float:
    """Seconds for which outcomes may gather, after these were told: as long as they fill half a pipe. least_held,
    outbox_room: as of `LocalEngine`."""
    last = events[-1]
    if not isinstance(last, facts.JobsFinished) or (seconds := last.outcomes[-1].seconds) >= _SHORT:
        return 0.0
    each = seconds + _EACH
    longest = min(FEW * each, max(GATHER, min(GATHER_LONG, least_held() * each / 2)))
    quickest = max(_bytes_per_second(event) for event in events if isinstance(event, facts.JobsFinished))
    return min(longest, outbox_room() / 2 / quickest)


def _bytes_per_second(event: facts.JobsFinished) -> float:
    """What a worker writes, by its last outcome."""
    last = event.outcomes[-1]
    return (_AROUND + len(getattr(last, "result", b""))) / (last.seconds + _EACH)


def shares_files(mode: FilesMode, token: str) -> bool:
    """Whether the workers write into the experiment's directory themselves. `token`: a file there with its own name in
    it, so that none of another machine with the same path is taken for it."""
    if mode != "auto":
        return mode == "shared"
    try:
        return bool(token) and Path(token).read_text() == Path(token).name
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    run(*map(int, sys.argv[1:3]))
