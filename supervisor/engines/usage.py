"""What the workers use: memory and processor time, descendants included."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from supervisor.engines.process_memory import HAS_CHILDREN, family_of
from supervisor.engines.processes import ProcessFacts, facts_of, process_table, trees
from supervisor.engines.protocol import Usage


class UsageMeter:
    """Remembers the last reading, since processor time in percent needs two."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu: dict[int, dict[int, float]] = {}  # key -> pid -> CPU seconds

    def read(self, roots: Mapping[int, Sequence[int]]) -> dict[int, Usage]:
        """Usage by key, for these processes and all below them, since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._at, 1e-6)
        try:
            table, families = _families(roots)
        except OSError:  # too many open files: nothing is known this time
            return {}
        readings: dict[int, dict[int, float]] = {}
        usage = {}
        for key, family in families.items():
            before = self._cpu.get(key, {})
            readings[key] = {member: table[member].cpu_seconds for member in family}
            # By process: one that has ended takes nothing away from the others.
            spent = sum(max(0.0, cpu - before.get(member, 0.0)) for member, cpu in readings[key].items())
            rss = sum(table[member].rss_bytes for member in family)
            usage[key] = Usage(rss, round(100 * spent / elapsed, 1) if key in self._cpu else 0.0)
        self._cpu, self._at = readings, now
        return usage


def _families(
    roots: Mapping[int, Sequence[int]],
) -> tuple[dict[int, ProcessFacts], dict[int, Sequence[int]]]:
    """These processes with all below them, by key, and what they use."""
    if not HAS_CHILDREN:  # every process of the machine has to be looked at
        table = process_table() if roots else {}
        below = trees(table, [pid for pids in roots.values() for pid in pids])
        return table, {key: list({m for pid in pids for m in below[pid]}) for key, pids in roots.items()}
    table = {}
    families: dict[int, Sequence[int]] = {}
    for key, pids in roots.items():
        found = {
            member: facts
            for pid in pids
            for member in family_of(pid)
            if (facts := facts_of(member)) is not None
        }
        table.update(found)
        families[key] = list(found)
    return table, families
