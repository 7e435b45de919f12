"""Jobs that run while no other one does in their place: they may take more than their worker with them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from supervisor.core.state.worker_state import ABANDONED, WorkerState


class _Alone(NamedTuple):
    incarnation: int
    lease: int
    slots: int


class AloneJobs:
    """At most one in each place. It ends when its worker does, is abandoned or has no lease left."""

    def __init__(self) -> None:
        self._in: dict[int, _Alone] = {}  # by place

    def begin(self, worker: WorkerState, lease: int, slots: int) -> None:
        """A worker gets this lease. `slots`: how many workers there could be in its place at this moment."""
        self._in[worker.place] = _Alone(worker.incarnation, lease, slots)

    def places(self, workers: Mapping[int, WorkerState]) -> Collection[int]:
        """Where one is still running; no other job may start there then."""
        if not self._in:
            return ()
        for place, alone in list(self._in.items()):
            worker = workers.get(alone.incarnation)
            if worker is None or worker.status == ABANDONED or not worker.leases:
                del self._in[place]
        return self._in.keys()

    def memory_shares(self, worker: WorkerState) -> int:
        """How many times the memory limit of one worker this worker may use: for a job that runs alone the number
        of workers there could have been in its place when it started, else 1."""
        return self._in[worker.place].slots if self.is_of(worker) else 1

    def is_of(self, worker: WorkerState) -> bool:
        """Whether it is such a job that this worker runs."""
        alone = self._in.get(worker.place)
        return alone is not None and bool(worker.leases) and worker.leases[0][0] == alone.lease
