"""When a silent node is given up, when nothing of it computes any more, and when its agent ends by itself. Pure: no
I/O and no clock.

`Heartbeat` is what the supervisor knows of one node, `Watchdog` what the agent knows of the supervisor. Both count
on a clock that goes on while the machine is suspended (`boot_time`); nothing is assumed of how long a message is
under way. That no job runs in two places follows from these rules, each of which has a mutant in the simulation
(`tools/simulation/nodes`):

1. A Ping names the last Pong that had come when it was made. The agent counts its time from when it sent that Pong,
   not from when the Ping came. So it never believes that the supervisor was there after that Pong had come.
2. The jobs of a node that was given up are free `timeout + FENCE` after its last Pong had come; sooner only if its
   agent said that all its workers are dead, or a later agent on the same kernel found them so.
3. What comes from a node that was given up counts for nothing, and it gets no Ping any more.
4. Once its time is over an agent ends. It looks at the time before it reads: what has come while it stood still is
   not obeyed.
5. If an agent does not look at the time, a guard beside it does: it may be stopped or wait for a disk while its workers
   go on.
6. If this process stood still, the silence was its own: a node's time begins again, and what ends before it has
   answered a Ping is nobody's fault. Rule 2 is not touched by that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the guard imports this module, and little else
    from supervisor.core.terms.events import LeasesWithdrawn

PING_EVERY = 5.0  # seconds, or a sixth of the timeout
# Seconds beyond the timeout, until a silent node has certainly ended its workers: its agent looks once in LOOK_EVERY,
# and needs a moment to kill them.
FENCE = 5.0
GUARD_AFTER, GUARD_LOOKS_EVERY = 1.0, 0.5  # seconds; together less than FENCE, with what it takes to kill
LOOK_EVERY = 1.0  # seconds; how long a job may run on after its agent had to end it, if its host was frozen
HELLO_WITHIN = (
    60.0  # seconds; from an agent's start to the supervisor's Hello, or from its arrival to its own
)

CERTAIN_AFTER = 0.02  # seconds; much more than `workers.worker.INBOX_CHECK_AFTER`

Due = Literal["", "ping", "silent", "ended"]
Unstarted = Callable[[int, Sequence[int]], "list[int] | None"]


class Heartbeat:
    """What the supervisor knows of the life of one node, from the arrival of its agent.

    timeout: seconds without a word after which it is given up; its agent has the same number.
    heard: when something last came from it. known: when its last Pong came, or its Hello, or later: its agent does not
    believe that this process was there after that. pinged: when the last Ping was made.
    """

    def __init__(self, timeout: float, now: float) -> None:
        self.timeout = timeout
        self.every = min(PING_EVERY, timeout / 6)
        self.greeted = False  # its Hello has come
        self.heard = self.known = self.pinged = now
        self._number = 0  # of the last Ping
        self._pong = 0  # of the last Pong
        self._heard_again = 0  # the first Ping after this process stood still
        self.given_up = False
        self.confirmed = False  # its end is certain, whatever the time

    def hear(self, now: float) -> None:
        self.heard = max(self.heard, now)

    def greet(self, now: float) -> None:
        """Its Hello has come: it may have workers from now on, and its agent counts from that Hello. `now`: read
        after it had come; this process may have stood still since its turn began."""
        self.greeted = True
        self.known = self.pinged = now

    def pong(self, number: int, now: float) -> None:
        """A Pong has come. `now`: read after that."""
        if self._pong < number <= self._number:  # else it answers what nobody has asked
            self._pong = number
            self.known = now

    def ping(self, now: float) -> tuple[int, int]:
        """(number, last Pong) of a Ping that is sent now."""
        self.pinged = now
        self._number += 1
        return self._number, self._pong

    def give_up(self) -> None:
        """No more is sent to it: it is silent, or its connection is over."""
        self.given_up = True

    def confirm(self) -> None:
        """All its workers are dead: its agent said so as its last word, or a later one found it so."""
        self.confirmed = True

    def stood_still(self, seconds: float) -> None:
        """This process did: nobody could hear anything for so long."""
        if seconds:
            self.heard += seconds
            self._heard_again = self._number + 1

    @property
    def missed_us(self) -> bool:
        """Whether this process stood still, and the node has answered no Ping since: if its agent has ended, then
        because it heard nothing."""
        return self._pong < self._heard_again

    @property
    def free_at(self) -> float:
        """Once it is given up: when its agent has ended all workers by itself."""
        return self.known + self.timeout + FENCE

    def due(self, now: float) -> Due:
        """What is to be done: ping it; give it up; take its workers for dead."""
        if self.given_up:
            return "ended" if self.confirmed or now >= self.free_at else ""
        if now >= self.heard + self.patience:  # the same sums as in `next_time`
            return "silent"
        return "ping" if self.greeted and now >= self.pinged + self.every else ""

    @property
    def patience(self) -> float:
        """Seconds of silence after which it is given up. A Hello takes longer than a Pong: what was left there has to
        be ended before."""
        return self.timeout if self.greeted else max(self.timeout, HELLO_WITHIN)

    def next_time(self) -> float:
        """When `due` will say something else if nothing happens."""
        if self.given_up:
            return self.free_at
        silent = self.heard + self.patience
        return min(self.pinged + self.every, silent) if self.greeted else silent


def stand_still(before: float, now: float, every: float) -> float:
    """For how many seconds this process stood still, by two looks at the clock between which at most `every` should
    have passed; 0.0 if it did not."""
    return now - before if now - before > 2 * every else 0.0


def shows_end(cleared: bool, kernel: str, lost_kernel: str) -> bool:
    """Whether a new agent's Hello shows that nothing of a lost node of its name computes any more.

    cleared: it found nothing left of it. kernel, lost_kernel: where each ran (`HelloNode.boot_id`): an agent on another
    kernel sees nothing of what runs there.
    """
    return cleared and bool(kernel) and kernel == lost_kernel


def guard_is_due(until: float, now: float) -> bool:
    """Whether an agent whose workers may live until then has not ended them in time (`AgentGuard`)."""
    return now > until + GUARD_AFTER


class Watchdog:
    """When an agent ends its workers because it does not hear of its supervisor."""

    def __init__(self, now: float) -> None:
        self.silence = HELLO_WITHIN
        self._heard = now  # the supervisor was there at this time, or later
        self._pongs: dict[int, float] = {}  # when the last ones were sent, by number

    def begin(self, silence: float, now: float) -> None:
        """HelloNode is sent now; the supervisor has said how long it may be silent."""
        self.silence = silence
        self._heard = self._pongs[0] = now

    def ping(self, number: int, pong: int, now: float) -> None:
        """A Ping has come, and its Pong is sent now."""
        self._heard = max(self._heard, self._pongs.get(pong, self._heard))
        self._pongs = {known: at for known, at in self._pongs.items() if known >= pong}
        self._pongs[number] = now

    @property
    def until(self) -> float:
        """When its time will be over, if it hears nothing more."""
        return self._heard + self.silence

    def over(self, now: float) -> bool:
        """Whether its time is over. To be asked before what has arrived is read: while this process stood still,
        others may have got its jobs."""
        return now > self.until


class Withdrawals:
    """Leases that an agent was told to take back from its workers: which of them will certainly not start. Nobody else
    gets their jobs before that is known: the worker may have been quicker than the order.

    A worker reads its inbox before a job, unless it has done so in the last millisecond. So if it has said nothing of
    the end of the job before, some time after the revocation was written, it reads that before the next job.
    Times are of a monotonic clock that goes on while the agent is stopped.
    """

    def __init__(self) -> None:
        self._open: list[tuple[float, int, list[int]]] = []  # when it was written, incarnation, leases

    def revoked(self, incarnation: int, leases: list[int], now: float) -> None:
        """`now`: read after the revocation was written."""
        self._open.append((now, incarnation, leases))

    def due(self) -> float | None:
        return self._open[0][0] + CERTAIN_AFTER if self._open else None

    def certain(self, unstarted: Unstarted, now: float) -> list[LeasesWithdrawn]:
        """What can be said now. `now`: read before the worker's messages were. unstarted: as of
        `LocalEngine.unstarted`."""
        if not self._open:
            return []
        from supervisor.core.terms.events import LeasesWithdrawn

        found, left = [], []
        for since, incarnation, leases in self._open:
            behind = unstarted(incarnation, leases) if now >= since + CERTAIN_AFTER else None
            if behind is None:
                left.append((since, incarnation, leases))
            elif behind:
                found.append(LeasesWithdrawn(incarnation, behind))
        self._open = left
        return found
