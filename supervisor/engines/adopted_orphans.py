"""Orphans of jobs, for the measurements of memory and CPU: each counts for the worker that it comes from.

Otherwise a job could evade its memory limit by forking twice. The zygote adopts orphans. Without a zygote they
are searched among all processes of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from supervisor.system.process_memory import HAS_PROC
from workers.forking.process_owner import owner_of, process_ids_of
from workers.process.linux import children_of

_FOREIGN = -1


class OrphanOwners:
    """Remembers the owner of each orphan, since finding it out is expensive."""

    def __init__(self) -> None:
        self._owners: dict[int, int] = {}

    def roots(self, workers: Mapping[int, int], origin: int | None, tag: str) -> dict[int, list[int]]:
        """By incarnation: pids of its worker process and of the orphans that come from it.

        workers: pids by incarnation. origin: pid of the zygote, if there is one. tag: of the experiment.
        """
        found = {number: [pid] for number, pid in workers.items()}
        if not HAS_PROC or not workers:
            return found
        groups = {pid: number for number, pid in workers.items()}
        try:
            self._look(groups, origin, tag)
            for pid, owner in self._owners.items():
                if owner in found and (origin is not None or self._has_no_parent(pid, groups)):
                    found[owner].append(pid)
        except OSError:  # too many open files: orphans are not counted this time
            pass
        return found

    def _look(self, groups: Mapping[int, int], origin: int | None, tag: str) -> None:
        present: Iterable[int]
        if origin is None:
            present = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        else:
            present = children_of(origin)
        owners: dict[int, int] = {}
        for pid in sorted(set(present) - groups.keys()):
            owner = self._owners.get(pid)
            if owner is None:
                owner = owner_of(pid, tag, groups, owners)
            owners[pid] = _FOREIGN if owner is None else owner
        self._owners = owners

    def _has_no_parent(self, pid: int, groups: Mapping[int, int]) -> bool:
        """Whether it is no descendant of a worker: those are counted with the worker anyway."""
        ids = process_ids_of(pid)
        if ids is None or ids.parent in groups:
            return False
        return self._owners.get(ids.parent, _FOREIGN) == _FOREIGN
