"""Jobs that have ended on a node, and whose files are still under way. Pure.

Their outcomes are told when the files are on this machine (`OutcomesHeld`, then `JobsFinished`). Meanwhile their
workers go on, and no timeout and no blame is theirs. If their node is lost first, they are lost with it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.held_outcomes import HeldOutcome
from supervisor.core.terms.events import NODE_LOST, HeldOutcomesLost, JobsFinished, OutcomesHeld
from supervisor.core.terms.file_owner import FileOwner
from supervisor.core.terms.jobs import COMPLETED
from workers.transport.messages import Failed


class HeldFiles:
    """ended: is told how many attempts have ended."""

    def __init__(self, dispatcher: Dispatcher, ended: Callable[[int], None]) -> None:
        self._dispatcher = dispatcher
        self._ledger = dispatcher.ledger
        self._ended = ended

    def on_outcomes_held(self, event: OutcomesHeld, turn: Turn) -> None:
        worker = self._dispatcher.workers.get(event.incarnation)
        if worker is None:
            return
        for lease in event.leases:
            if (job := worker.settle(lease)) is not None:
                self._dispatcher.held[lease] = HeldOutcome(worker.incarnation, worker.slot, job, turn.now)
        worker.begin(turn.now, turn.at)
        worker.finished += len(event.leases)

    def take_from(self, event: JobsFinished, turn: Turn) -> JobsFinished:
        """Book the outcomes that were held; the event with those that were not."""
        dispatcher, others = self._dispatcher, []
        for outcome in event.outcomes:
            if (held := dispatcher.held.pop(outcome.lease, None)) is None:
                others.append(outcome)
                continue
            self._ended(1)
            dispatcher.durations.learn(outcome.seconds, 1)
            if isinstance(outcome, Failed):
                self._ledger.failed(turn, held.slot, held.job, outcome)
            else:
                self._ledger.completed(turn, held.slot, held.job, outcome)
        return (
            event if len(others) == len(event.outcomes) else msgspec.structs.replace(event, outcomes=others)
        )

    def on_lost(self, event: HeldOutcomesLost, turn: Turn) -> None:
        known = [lease for lease in event.leases if lease in self._dispatcher.held]
        self._dispatcher.end_held(turn, known, "lost" if event.cause == NODE_LOST else "interrupted")
        self._ended(len(known))

    def owner(self, incarnation: int, lease: int | None) -> FileOwner | None:
        """Whose files those of this lease are, None: of the job that the worker runs; None if the worker does not
        hold it, or no more."""
        dispatcher = self._dispatcher
        worker = dispatcher.workers.get(incarnation)
        if lease is None:
            running = None if worker is None else worker.running()
            lease = 0 if running is None else running[0]
        held = dispatcher.held.get(lease)
        if held is not None:
            job: int | None = held.job if held.incarnation == incarnation else None
        else:
            job = None if worker is None else worker.leases.job_of(lease)
        if job is None:
            return None
        table, ledger = dispatcher.table, self._ledger
        return FileOwner(
            table.ids[job],
            table.attempts[job] + 1,
            ledger.is_of_use(lease, job),
            table.state[job] == COMPLETED,
        )
