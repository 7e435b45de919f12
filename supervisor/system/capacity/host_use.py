"""How busy a host is: what nodes tell of themselves every few seconds. A reading costs a tenth of a millisecond."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from supervisor.system.capacity.cpu_limits import narrowest_group
from supervisor.system.capacity.free_memory import FreeMemory, usable_memory
from supervisor.system.process_memory import read

_V1_USAGE = "cpuacct.usage"  # nanoseconds
_TICKS = os.sysconf("SC_CLK_TCK")
_BUSY = (1, 2, 3, 6, 7)  # words of the first line of /proc/stat: user, nice, system, irq, softirq


class HostUse(msgspec.Struct, array_like=True):
    """What everything on a host takes together; None if it is not known.

    load: processes that run or want to, averaged over a minute. cpu_percent: in percent of a core, since the reading
    before; in a control group that is given a part of the cores, what that group uses. memory_used, memory_total:
    bytes, of that group as well if it is given a part.
    """

    load: float | None = None
    cpu_percent: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None


class HostMeter:
    """Remembers the last reading, since CPU time in percent needs two."""

    def __init__(self) -> None:
        self._free = FreeMemory()
        self._total = usable_memory()
        self._group = narrowest_group()
        self._at, self._seconds = time.monotonic(), self._cpu_seconds()

    def read(self) -> HostUse:
        try:
            load: float | None = round(os.getloadavg()[0], 2)
        except OSError:
            load = None
        free = self._free.available()
        used = None if free is None or self._total is None else max(0, self._total - free)
        return HostUse(load, self._cpu_percent(), used, self._total)

    def _cpu_percent(self) -> float | None:
        before, self._at = self._at, time.monotonic()
        spent, self._seconds = self._seconds, self._cpu_seconds()
        if spent is None or self._seconds is None or self._at <= before:
            return None
        return round(100 * max(0.0, self._seconds - spent) / (self._at - before), 1)

    def _cpu_seconds(self) -> float | None:
        return machine_cpu_seconds() if self._group is None else group_cpu_seconds(self._group)


def machine_cpu_seconds() -> float | None:
    """What all processes of this machine have used; None if nobody tells."""
    words = read("/proc/stat").split(b"\n", 1)[0].split()
    return sum(int(words[place]) for place in _BUSY) / _TICKS if len(words) > max(_BUSY) else None


def group_cpu_seconds(group: Path) -> float | None:
    """What all processes of a control group have used; None if nobody tells."""
    for line in read(str(group / "cpu.stat")).splitlines():
        name, _, amount = line.partition(b" ")
        if name == b"usage_usec":
            return int(amount) / 1e6
    nanoseconds = read(str(group / _V1_USAGE)).strip()
    return int(nanoseconds) / 1e9 if nanoseconds.isdigit() else None
