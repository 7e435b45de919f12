"""What the workers use: memory and processor time, descendants included."""

from __future__ import annotations

import time
from collections.abc import Collection

from supervisor.engines.process_memory import HAS_CHILDREN, family_of
from supervisor.engines.processes import ProcessFacts, facts_of, process_table, trees
from supervisor.engines.protocol import Usage


class UsageMeter:
    """Remembers the last reading, since processor time in percent needs two."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu: dict[int, dict[int, float]] = {}  # key -> pid -> CPU seconds

    def read(self, pids: dict[int, int]) -> dict[int, Usage]:
        """Usage by key, for the process trees under `pids`, since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-6)
        try:
            table, families = _families(pids.values())
        except OSError:  # too many open files: nothing is known this time
            return {}
        readings: dict[int, dict[int, float]] = {}
        usage = {}
        for key, pid in pids.items():
            family = families[pid]
            before = self._cpu.get(key, {})
            readings[key] = {member: table[member].cpu_seconds for member in family}
            # By process: one that has ended takes nothing away from the others.
            spent = sum(max(0.0, cpu - before.get(member, 0.0)) for member, cpu in readings[key].items())
            rss = sum(table[member].rss_bytes for member in family)
            usage[key] = Usage(rss, round(100 * spent / elapsed, 1) if key in self._cpu else 0.0)
        self._cpu, self._at = readings, now
        return usage


def _families(roots: Collection[int]) -> tuple[dict[int, ProcessFacts], dict[int, list[int]]]:
    """Each of these processes with all below it, and what they use."""
    if not HAS_CHILDREN:  # every process of the machine has to be looked at
        table = process_table() if roots else {}
        return table, trees(table, roots)
    table, families = {}, {}
    for root in roots:
        found = {pid: facts for pid in family_of(root) if (facts := facts_of(pid)) is not None}
        table.update(found)
        families[root] = list(found)
    return table, families
