"""The job that runs while no other job does, because it may take more than its worker with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.state.worker_state import ABANDONED, WorkerState


class AloneJob:
    """At most one. It ends when its worker does, is abandoned or has no lease left."""

    def __init__(self) -> None:
        self._incarnation: int | None = None
        self._lease = 0
        self._slots = 1

    def begin(self, incarnation: int, lease: int, slots: int) -> None:
        """A worker gets this lease. `slots`: how many workers there could be at this moment."""
        self._incarnation, self._lease, self._slots = incarnation, lease, slots

    def runs(self, workers: Mapping[int, WorkerState]) -> bool:
        """Whether it is still running; no other job may start then."""
        if self._incarnation is None:
            return False
        worker = workers.get(self._incarnation)
        if worker is None or worker.status == ABANDONED or not worker.leases:
            self._incarnation = None
            return False
        return True

    def memory_shares(self, worker: WorkerState) -> int:
        """How many times the memory limit of one worker this worker may use: for the job that runs alone
        the number of workers there could have been when it started, else 1."""
        return self._slots if self.is_of(worker) else 1

    def is_of(self, worker: WorkerState) -> bool:
        """Whether it is the job that this worker runs."""
        return self._incarnation is not None and bool(worker.leases) and worker.leases[0][0] == self._lease
