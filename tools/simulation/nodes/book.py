"""What must hold when several hosts run the jobs of one supervisor, and what is remembered to be able to tell."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from supervisor.nodes.fencing import FENCE, LOOK_EVERY
from tools.simulation.nodes.network import Network
from tools.simulation.promises import Violation

if TYPE_CHECKING:
    from tools.simulation.nodes.hosts import Host

MOMENT = 0.01  # seconds
TIMEOUT = 30.0
WINDOW = 60.0  # seconds in which troubles add up


class Trouble:
    """host: None: the supervisor stood still."""

    def __init__(self, host: Host | None, begin: float, end: float) -> None:
        self.host, self.begin, self.end = host, begin, end


class Book:
    """Of one history. slowest: seconds that a message is under way, at most."""

    def __init__(self, network: Network, slowest: float) -> None:
        self.network = network
        self.slowest = slowest
        self.seconds: list[float] = []  # that each job takes
        self.executions: dict[int, list[Execution]] = defaultdict(list)  # that go on, by job
        self.count: dict[int, int] = defaultdict(int)  # executions ever begun
        self.troubles: list[Trouble] = []
        self.losses = 0
        self.trouble_until = 0.0
        self.over = False  # all jobs have ended, and nobody pings any more

    # -- nobody runs twice

    def begin(self, execution: Execution) -> None:
        self.count[execution.job] += 1
        self.executions[execution.job].append(execution)
        self.check_alone(execution.job)

    def end(self, execution: Execution) -> None:
        self.executions[execution.job].remove(execution)

    def check_alone(self, job: int) -> None:
        """A job runs in one place at once, but for a moment on a host that was frozen."""
        network = self.network
        active = [each for each in self.executions[job] if not each.host.frozen]
        if len(active) < 2:
            return
        sure = [each for each in active if network.now - each.host.thawed > LOOK_EVERY + MOMENT]
        if len(sure) >= 2:
            where = ", ".join(f"{each.tag} since {each.began:.1f}" for each in active)
            raise Violation(f"at {network.now:.1f} job {job} runs in two places: {where}")
        network.after(LOOK_EVERY + 2 * MOMENT, lambda: self.check_alone(job))

    # -- nothing is lost for little

    def note(self, host: Host | None, seconds: float) -> None:
        self.troubles.append(Trouble(host, self.network.now, self.network.now + seconds))

    @contextlib.contextmanager
    def trouble(self, host: Host | None) -> Iterator[None]:
        """While it lasts."""
        trouble = Trouble(host, self.network.now, math.inf)
        self.troubles.append(trouble)
        try:
            yield
        finally:
            trouble.end = self.network.now

    def seconds_of_trouble(self, host: Host | None) -> float:
        """Of this host and of the supervisor; None: of the supervisor alone."""
        now = self.network.now
        return sum(
            max(0.0, min(each.end, now) - max(each.begin, now - WINDOW))
            for each in self.troubles
            if each.host in (host, None)
        )

    def was_our_silence(self, host: Host) -> bool:
        """Whether the supervisor stood still for so long that the agent had to end, and nothing was wrong there."""
        now = self.network.now
        recent = [each for each in self.troubles if each.end > now - 3 * WINDOW]
        still = any(
            each.host is None and min(each.end, now) - each.begin > TIMEOUT and each.end > now - 1.0
            for each in recent
        )
        return still and not any(each.host is host for each in recent)

    def check_loss(self, host: Host) -> None:
        """A living agent was given up, or ended by itself: only after much trouble."""
        if self.over:
            return
        self.losses += 1
        enough = TIMEOUT - 10.0 - 2 * self.slowest - LOOK_EVERY - 5.0
        if (seconds := self.seconds_of_trouble(host)) < enough:
            raise Violation(
                f"at {self.network.now:.1f} {host.name} was lost after {seconds:.1f} s of trouble"
            )

    def longest_loss(self) -> float:
        """Seconds within which what is gone has to be given up and its jobs are free."""
        return TIMEOUT + FENCE + 2 * self.slowest + 1.0


class Execution:
    def __init__(self, host: Host, tag: str, job: int, lease: int, seconds: float) -> None:
        self.host, self.tag, self.job, self.lease = host, tag, job, lease
        self.left = seconds
        self.began = self.resumed = host.network.now
        self.ticket = 0
