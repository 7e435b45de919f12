"""Leases that are taken back from workers before they have started. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.core.dispatch import pacing
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.worker_state import WorkerState
from supervisor.core.terms.events import GATHER_ELSEWHERE, RevokeJobs
from supervisor.core.terms.records import Returned


class Revocations:
    """elsewhere: orders to workers are under way for an unknown time (`PlaceFacts.elsewhere`): the worker's place
    tells when it is certain that leases will not start (`withdrawn`), and until then their jobs stay the worker's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.elsewhere = False
        self._asked: dict[int, tuple[WorkerState, float]] = {}  # by incarnation, and since when

    @property
    def gathering(self) -> float:
        """Seconds for which outcomes may gather before they are told."""
        return GATHER_ELSEWHERE if self.elsewhere else 0.0

    @property
    def after(self) -> float:
        """Seconds after which leases that wait behind a running job are revoked. Elsewhere a worker seems to be silent
        while its outcomes gather. What it spends between its jobs then looks like a job that began sooner: up to a
        quarter of that time."""
        return pacing.REVOKE_AFTER + 1.25 * self.gathering

    def revoke_waiting(self, turn: Turn, worker: WorkerState) -> None:
        """Revoke every lease of a worker but that of the job it runs. Others get their jobs at once, unless it is
        elsewhere: at most milliseconds pass until the worker knows."""
        self._ask(turn, worker)
        if not self.elsewhere:
            self.withdrawn(turn, worker, list(worker.withdrawing))

    def revoke_if_silent(self, turn: Turn, worker: WorkerState) -> None:
        """The same of a worker that seems to be at a long job: others get its jobs if nothing comes of it for
        `CONFIRM_AFTER` although it has the order. One that only did not get a processor for a while has done some of
        the jobs already, or returns the leases: given to others at once, thousands would run twice."""
        if self._ask(turn, worker) and not self.elsewhere:
            self._asked[worker.incarnation] = worker, turn.now

    def _ask(self, turn: Turn, worker: WorkerState) -> bool:
        numbers = [lease for lease, _ in list(worker.leases)[1:] if lease not in worker.revoked]
        if numbers:
            worker.revoke(numbers)
            worker.withdrawing.update(numbers)
            turn.effects.commands.append(RevokeJobs(worker.incarnation, numbers))
        return bool(numbers)

    def next_deadline(self) -> float | None:
        """When the next worker that does not answer has been silent for long enough."""
        return min([self._due(*asked) for asked in self._asked.values()], default=None)

    def take_from_silent(self, turn: Turn) -> None:
        """Take the leases from the workers that do not answer."""
        for incarnation, asked in list(self._asked.items()):
            worker = asked[0]
            if not worker.withdrawing:
                del self._asked[incarnation]
            elif turn.now >= self._due(*asked):
                del self._asked[incarnation]
                self.withdrawn(turn, worker, list(worker.withdrawing))

    @staticmethod
    def _due(worker: WorkerState, asked: float) -> float:
        return max(asked, worker.since) + pacing.CONFIRM_AFTER

    def ended(self, worker: WorkerState) -> None:
        """There is no such worker any more; its leases are nobody's."""
        self._asked.pop(worker.incarnation, None)

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
