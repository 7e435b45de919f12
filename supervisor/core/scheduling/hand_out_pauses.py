"""The reasons why no job is handed out: disk, memory, suspension, `longhaul ctl pause`. Pure."""

from __future__ import annotations

from supervisor.core.dispatch.turn import Turn
from supervisor.core.terms.events import ClockJumped, HandOutBlocked, HandOutUnblocked, Tell
from supervisor.core.terms.records import Paused, Unpaused


class HandOutPauses:
    """`since`: by reason, when it began, in seconds on the run's clock. Jobs are handed out while it is empty."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def on_blocked(self, event: HandOutBlocked, turn: Turn) -> None:
        if event.why in self.since:
            return
        self.since[event.why] = turn.now
        turn.effects.records.append(Paused(event.why, turn.at, event.detail))
        turn.effects.commands.append(Tell("warning", f"no new jobs are started: {event.detail or event.why}"))

    def on_unblocked(self, event: HandOutUnblocked, turn: Turn) -> None:
        since = self.since.pop(event.why, None)
        if since is not None:
            turn.effects.records.append(Unpaused(event.why, turn.at, round(turn.now - since, 3)))
            turn.effects.commands.append(Tell("info", "going on"))

    def on_suspended(self, event: ClockJumped, turn: Turn) -> None:
        """Record that the machine was suspended or the process stopped: a pause that is over already."""
        turn.effects.records.append(Paused("suspended", turn.at))
        turn.effects.records.append(Unpaused("suspended", turn.at, round(event.seconds, 3)))
        text = f"the machine or this run was suspended for {event.seconds:.0f} s; timeouts do not count this time"
        turn.effects.commands.append(Tell("info", text))
