"""Leases that earlier runs left open, and what becomes of their jobs. Pure.

Of each worker the first lease was running, the others had not started. That is likely, not certain: outcomes may have
been on their way, and a job far behind may have ended the supervisor. So these jobs are handed out with no others: each
alone, if a worker had few, else in groups (`TOGETHER`) to workers that hold nothing else. A worker with tiny jobs holds
thousands, and one after the other they would take seconds. If one of them ends the next supervisor as well, only its
group is open then: after one more end each of these has a lease of its own.

Nothing of an earlier run computes on this machine any more. A worker on another host may, until its agent has missed
the supervisor for long enough, or another agent there has found it dead (`PlaceFacts.cleared`). Till then its leases
stay open, and its jobs are not queued; if this run ends first, the next one finds them as this one did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisor.core.dispatch import retry_policy
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.turn import Turn
from supervisor.core.state.open_leases import OpenLeases
from supervisor.core.terms.events import PlaceFacts, Tell
from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.core.terms.records import Returned, WorkerEnded, WorkerStarted
from supervisor.core.terms.wording import count, duration

TOGETHER = 128  # jobs of one worker that are handed out in one message, if it had more open leases than these


def groups_of(jobs: Sequence[int]) -> list[Sequence[int]]:
    """Which of a worker's jobs may be handed out together; the first, which was running, never with others."""
    size = TOGETHER if len(jobs) > TOGETHER else 1
    groups = [jobs[:1], *(jobs[first : first + size] for first in range(1, len(jobs), size))]
    return groups if jobs else []


class EarlierLeases:
    """`bool` of it: whether jobs wait for the end of workers elsewhere."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._mask = b""
        self._workers: dict[int, WorkerStarted] = {}  # those elsewhere, by incarnation
        self._leases: dict[int, list[tuple[int, int]]] = {}  # theirs: (lease, job)
        self._until = 0.0

    def begin(
        self, turn: Turn, leases: OpenLeases[int], mask: bytes, elsewhere: Mapping[int, WorkerStarted]
    ) -> None:
        """Close the leases that can be closed. `elsewhere`: workers on other hosts that may still live."""
        self._mask = mask
        self._workers = dict(elsewhere)
        for incarnation, held in sorted(leases.items()):
            if incarnation in elsewhere:
                if held:
                    self._leases[incarnation] = list(held.items())
            else:
                self._settle(turn, incarnation, list(held.items()))
        leases.clear()
        if elsewhere:
            self._until = turn.now + max(worker.outlives for worker in elsewhere.values())

    def hold(self, turn: Turn) -> None:
        """The queue has been filled: the jobs that wait here leave it."""
        if not self._leases:
            return
        jobs = self._jobs()
        self._ledger.remove_from_queue(jobs)
        text = (
            f"{count(len(jobs), 'job')} may still run on another host, whose connection was lost: they wait until "
            f"that host says that they do not, at most {duration(self._until - turn.now)}"
        )
        turn.effects.commands.append(Tell("info", text))

    def __bool__(self) -> bool:
        return bool(self._leases)

    def _jobs(self) -> set[int]:
        return {job for leases in self._leases.values() for _, job in leases}

    def open_leases(self) -> list[tuple[int, int, int]]:
        """(incarnation, lease, job)."""
        return [(who, lease, job) for who, leases in self._leases.items() for lease, job in leases]

    def on_places(self, turn: Turn, places: Sequence[PlaceFacts]) -> None:
        """Nothing of earlier runs is left where a place says so."""
        cleared = {place.cleared for place in places} - {""}
        if cleared and self._workers:
            self._end(turn, [who for who, worker in self._workers.items() if worker.boot_id in cleared])

    def end_if_due(self, turn: Turn) -> None:
        if self._workers and turn.now >= self._until:
            self._end(turn, list(self._workers))

    def next_deadline(self) -> float | None:
        return self._until if self._workers else None

    def _end(self, turn: Turn, incarnations: Sequence[int]) -> None:
        """These workers are dead."""
        for incarnation in incarnations:
            worker = self._workers.pop(incarnation)
            leases = self._leases.pop(incarnation, [])
            waiting = self._jobs()
            self._settle(turn, incarnation, leases)
            for index, (_, job) in enumerate(leases):
                if job in waiting:  # another worker elsewhere had it as well
                    self._ledger.remove_from_queue({job})
                elif index and self._mask[job] and self._ledger.is_waiting(job):
                    self._queue(job)
            turn.effects.records.append(WorkerEnded(worker.worker, incarnation, "lost", turn.at, worker.pid))

    def _queue(self, job: int) -> None:
        queue, charges = self._ledger.queue, self._ledger.table.charges.get(job)
        if retry_policy.needs_to_be_alone(charges, crash_limit=self._ledger.settings.crash_limit):
            queue.put_alone(job)
        else:
            queue.put_first(job)

    def _settle(self, turn: Turn, incarnation: int, leases: Sequence[tuple[int, int]]) -> None:
        ledger = self._ledger
        for group in groups_of([job for _, job in leases]):
            ledger.queue.mark_group(group)
        for index, (lease, job) in enumerate(leases):
            if index == 0 and ledger.table.state[job] not in (COMPLETED, FAILED):
                ledger.lost(turn, job, lease)
                if not self._mask[job]:
                    ledger.remove_from_queue({job})  # this run does not run it
        if len(leases) > 1:
            turn.effects.records.append(Returned(incarnation, [lease for lease, _ in leases[1:]], turn.at))
