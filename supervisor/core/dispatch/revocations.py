"""Leases that are taken back from workers before they have started. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.events import RevokeJobs
from supervisor.core.terms.records import Returned


class Revocations:
    """elsewhere: orders to workers are under way for an unknown time (`PlaceFacts.elsewhere`)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.elsewhere = False

    def revoke_waiting(self, turn: Turn, worker: WorkerState) -> None:
        """Revoke every lease of a worker but that of the job it runs. Others get their jobs at once: at most
        milliseconds pass until the worker knows. Those of a worker elsewhere they get when it is certain that they will
        not start there."""
        waiting = [entry for entry in list(worker.leases)[1:] if entry[0] not in worker.revoked]
        if not waiting:
            return
        numbers = [lease for lease, _ in waiting]
        worker.revoked.update(numbers)
        if self.elsewhere:
            worker.withdrawing.update(numbers)
        else:
            self.returned(turn, worker, waiting)
        turn.effects.commands.append(RevokeJobs(worker.incarnation, numbers))

    def withdrawn(self, turn: Turn, worker: WorkerState, leases: Sequence[int]) -> None:
        """These leases will not start."""
        self.returned(turn, worker, worker.withdraw(leases))

    def returned(self, turn: Turn, worker: WorkerState, leases: list[tuple[int, int]]) -> None:
        """Take back leases that a worker will not run.

        All of them are recorded, also those whose job belongs to another worker by now: a reader of the
        journal derives from them which job the worker was running.
        """
        if not leases:
            return
        self._ledger.give_back(leases)
        worker.handed -= len(leases)
        numbers = [lease for lease, _ in leases]
        turn.effects.records.append(Returned(worker.incarnation, numbers, turn.at))
