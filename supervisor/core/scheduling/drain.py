"""The drain: ends a run before all jobs are done. Pure.

During a drain no new job is handed out, and running jobs have the grace time to finish. Their failures are
not charged. A signal begins a drain, and so do `longhaul ctl`, a deadline or too many failures. The second
Ctrl+C ends the grace time at once.
"""

from __future__ import annotations

from typing import Any

from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import READY, STARTING, STOPPING
from supervisor.core.terms.events import SignalReceived, SignalWorker, Tell
from supervisor.core.terms.records import Noted
from supervisor.core.terms.wording import signal_name

SIGTERM = 15
_STOP_SIGNALS = (2, SIGTERM)  # the second one of these ends the grace time


class Drain:
    """Whether a run is being drained, why, and until when.

    signal: the one that began it, None if none did. reason: why, in words; "" before.
    detail: the reason as it is recorded. asked: whether a user asked for it (a signal, `longhaul ctl`, a
    deadline), and not the run itself.
    grace_ends: when what still runs is stopped, on the run's clock.
    """

    def __init__(self, dispatcher: Dispatcher, grace: float) -> None:
        self._dispatcher = dispatcher
        self._grace = grace
        self._stop_signals = 0
        self._stopping_now = False
        self.signal: int | None = None
        self.reason = ""
        self.detail: dict[str, Any] = {}
        self.asked = False
        self.grace_ends: float | None = None

    @property
    def begun(self) -> bool:
        return bool(self.reason)

    def on_signal(self, event: SignalReceived, turn: Turn) -> None:
        """The first signal drains, the second SIGINT or SIGTERM stops at once; each is forwarded to the workers."""
        self._stop_signals += event.signum in _STOP_SIGNALS
        self.asked = True
        if not self.begun:
            self.signal = event.signum
            self.begin(turn, signal_name(event.signum), {"signal": event.signum})
        else:
            if self.signal is None:
                self.signal = event.signum  # the drain that had begun by itself is now also asked for
            if self._stop_signals > 1:
                self.stop_now(turn)
        self._forward(turn, event.signum)

    def begin(self, turn: Turn, reason: str, detail: dict[str, Any], *, tell: bool = True) -> None:
        """Begin the drain. `detail`: for the record. Without `tell` the caller tells the user."""
        if self.begun:
            return
        dispatcher = self._dispatcher
        self.reason = reason
        self.detail = detail
        turn.draining = True
        self.grace_ends = turn.now + self._grace
        busy = len(dispatcher.running())
        text = f"{reason}: no new jobs are started"
        if busy:
            text += f"; {busy} running {'job has' if busy == 1 else 'jobs have'} {self._grace:g} s to finish"
        turn.effects.records.append(Noted("drain", turn.at, detail))
        if tell:
            turn.effects.commands.append(Tell("warning", text))
        for worker in dispatcher.workers.values():
            if worker.status == STARTING:
                dispatcher.dismiss(turn, worker)
            else:
                dispatcher.revocations.revoke_waiting(turn, worker)

    def begin_without_signal(
        self, turn: Turn, reason: str, detail: dict[str, Any], *, asked: bool, tell: bool = True
    ) -> None:
        """Begin a drain for another reason than a signal; the workers get a SIGTERM all the same. `asked`: a
        user asked for it, which counts also if the drain had begun before."""
        self.asked |= asked
        if not self.begun:
            self._stop_signals = 1  # counts as the first one: the next Ctrl+C ends the grace time
            self.begin(turn, reason, detail, tell=tell)
            self._forward(turn, SIGTERM)

    def stop_now(self, turn: Turn, *, tell: bool = True) -> None:
        """End the grace time at once."""
        if not self._stopping_now:
            self._stopping_now = True
            if tell:
                turn.effects.commands.append(Tell("warning", "stopping now"))
            self._dispatcher.kill_all(turn)

    def kill_if_due(self, turn: Turn) -> None:
        """Kill all workers when the grace time is over."""
        if self.grace_ends is not None and turn.now >= self.grace_ends:
            self.grace_ends = None
            self._dispatcher.kill_all(turn, stack=True)

    def _forward(self, turn: Turn, signum: int) -> None:
        """Forward a signal to busy workers: it makes `current_job().stopping` true."""
        for worker in self._dispatcher.workers.values():
            if worker.status in (READY, STOPPING) and worker.leases:
                turn.effects.commands.append(SignalWorker(worker.incarnation, signum))
