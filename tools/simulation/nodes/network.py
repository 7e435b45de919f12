"""Time, processes and the wires between them."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

START = 1000.0  # of the clock
_NO_DESCRIPTOR = -2


class Gone(BaseException):
    """The process whose turn it was has died in the middle of it."""


class Network:
    """All that happens, in order of time. `current`: the process whose code is running."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = START
        self.current: Process | None = None
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = 0

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._ticket += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._ticket, action))

    def run_until(self, end: float) -> None:
        """Let everything happen up to then. May be called in the middle of a process's turn, which stands still."""
        while self._agenda and self._agenda[0][0] <= end:
            due, _, action = heapq.heappop(self._agenda)
            self.now = max(self.now, due)
            action()
        self.now = max(self.now, end)

    @contextmanager
    def turn_of(self, process: Process | None) -> Iterator[None]:
        before, self.current = self.current, process
        try:
            yield
        finally:
            self.current = before


class Process:
    """Takes turns when it is woken, unless it stands still, and never two at a time."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.alive = True
        self.stopped = 0  # how many reasons there are for it to stand still
        self.stood_still = 0.0  # seconds, in all
        self._stopped_at = 0.0
        self._in_turn = False
        self._missed = False

    def stands_still(self) -> bool:
        return self.stopped > 0

    def turn(self) -> None:
        raise NotImplementedError

    def wake(self) -> None:
        if not self.alive:
            return
        if self._in_turn or self.stands_still():
            self._missed = True
            return
        self._in_turn = True
        try:
            with self.network.turn_of(self):
                self.turn()
        except Gone:
            pass
        finally:
            self._in_turn = False
        self.catch_up()

    def catch_up(self) -> None:
        """Take the turn that was missed."""
        if self._missed and not self._in_turn and not self.stands_still():
            self._missed = False
            self.network.after(0.0, self.wake)

    def stop(self, seconds: float) -> None:
        """SIGSTOP from outside, and SIGCONT after so many seconds."""
        self._halt()
        self._missed = True
        self.network.after(seconds, self._go_on)

    def _halt(self) -> None:
        if not self.stopped:
            self._stopped_at = self.network.now
        self.stopped += 1

    def _go_on(self) -> None:
        self.stopped -= 1
        if not self.stopped:
            self.stood_still += self.network.now - self._stopped_at
        self.catch_up()

    def stand_still(self, seconds: float) -> None:
        """The same in the middle of its own turn."""
        self._halt()
        with self.network.turn_of(None):
            self.network.run_until(self.network.now + seconds)
        self._go_on()
        if not self.alive:
            raise Gone


class Wire:
    """One direction between two processes. It keeps the order; how long a message takes, nobody knows.

    cut: nothing arrives; what is under way does so when the cut is over, as TCP does it.
    """

    def __init__(self, network: Network, slowest: float) -> None:
        self._network = network
        self._slowest = slowest
        self._last = 0.0
        self._held: list[bytes | None] = []
        self.cut = False
        self.broken = False  # what is sent from now on never arrives
        self.arrived: deque[bytes | None] = deque()  # None: the end of the stream
        self.receiver: Process | None = None

    def put(self, message: bytes | None) -> None:
        if self.broken:
            return
        network, rng = self._network, self._network.rng
        delay = rng.choice([0.001, 0.001, 0.05 * rng.random(), self._slowest * rng.random()])
        self._last = max(self._last, network.now + min(delay, self._slowest))
        network.after(self._last - network.now, lambda: self._arrive(message))

    def _arrive(self, message: bytes | None) -> None:
        if self.cut or self._held:
            self._held.append(message)
            return
        self.arrived.append(message)
        if self.receiver is not None:
            self.receiver.wake()

    def mend(self) -> None:
        self.cut = False
        held, self._held = self._held, []
        for message in held:
            self._arrive(message)


class SimulatedLink:
    """One end of a connection (`supervisor.nodes.link.Link`)."""

    pressing = False
    unsent = 0

    def __init__(self, reader: Wire, writer: Wire, *, silent_end: bool = False) -> None:
        self.reader, self.writer = reader, writer
        self.ended = ""
        self._silent_end = silent_end  # the other side is not told of its end
        self._selector: SimulatedSelector | None = None

    def send(self, message: bytes) -> bool:
        if not self.ended:
            self.writer.put(message)
        return False

    def flush(self) -> bool:
        return False

    def receive(self) -> list[bytes]:
        _perhaps_stand_still(self.reader.receiver)
        messages: list[bytes] = []
        while self.reader.arrived and not self.ended:
            message = self.reader.arrived.popleft()
            if message is None:
                self.ended = "it closed the connection"
            else:
                messages.append(message)
        return messages

    def watch(self, selector: Any, data: object = None) -> None:
        self._selector = selector
        selector.links[self] = data

    def close(self) -> None:
        if self._selector is not None:
            self._selector.links.pop(self, None)
        self.ended = self.ended or "it was closed"
        if not self._silent_end:
            self.writer.put(None)


class SimulatedSelector:
    """Finds the links at which something has arrived; time passes elsewhere."""

    def __init__(self) -> None:
        self.links: dict[SimulatedLink, object] = {}

    def select(self, timeout: float | None = None) -> list[tuple[Any, int]]:
        ready = [data for link, data in self.links.items() if link.reader.arrived and not link.ended]
        return [(SimpleNamespace(data=data, fd=_NO_DESCRIPTOR), 1) for data in ready]

    def register(self, *_: object) -> None: ...

    def unregister(self, *_: object) -> None: ...

    def fileno(self) -> int:
        return -1

    def close(self) -> None: ...


def _perhaps_stand_still(process: Process | None) -> None:
    """Between the look at the clock and that at what has come."""
    if process is not None and process is process.network.current:
        pause = getattr(process, "pause_in_turn", None)
        if pause is not None:
            pause()
