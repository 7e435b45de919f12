"""How busy a host is: against what the kernel says, and in control groups that are given a part of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from supervisor.system.capacity.cpu_limits import narrowest_group
from supervisor.system.capacity.free_memory import machine_memory, usable_memory
from supervisor.system.capacity.host_use import HostMeter, group_cpu_seconds, machine_cpu_seconds


def test_a_reading_tells_load_cpu_and_memory_of_this_host() -> None:
    meter = HostMeter()
    before = machine_cpu_seconds()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    use = meter.read()
    after = machine_cpu_seconds()
    assert before is not None and after is not None and after - before >= 0.15
    assert use.load is not None and use.load >= 0.0
    assert use.cpu_percent is not None and 0.0 < use.cpu_percent <= 110.0 * (os.cpu_count() or 1)
    assert use.memory_total == usable_memory()
    free, total = machine_memory()
    assert use.memory_used is not None and total is not None and free is not None
    assert 0 < use.memory_used <= total


def test_a_group_that_is_given_part_of_the_cores_tells_what_it_uses(tmp_path: Path) -> None:
    narrow, mine = tmp_path / "pods" / "narrow", tmp_path / "self"
    narrow.mkdir(parents=True)
    mine.write_text("0::/pods/narrow\n")
    assert narrowest_group(tmp_path, mine) is None
    tmp_path.joinpath("pods", "cpu.max").write_text("800000 100000\n")
    assert narrowest_group(tmp_path, mine) == tmp_path / "pods"
    narrow.joinpath("cpu.max").write_text("200000 100000\n")
    assert narrowest_group(tmp_path, mine) == narrow
    assert group_cpu_seconds(narrow) is None
    narrow.joinpath("cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert group_cpu_seconds(narrow) == 2.5


def test_a_group_of_the_first_version_tells_nanoseconds(tmp_path: Path) -> None:
    group, mine = tmp_path / "cpu" / "mine", tmp_path / "self"
    group.mkdir(parents=True)
    mine.write_text("4:cpu,cpuacct:/mine\n")
    group.joinpath("cpu.cfs_quota_us").write_text("150000\n")
    group.joinpath("cpu.cfs_period_us").write_text("100000\n")
    group.joinpath("cpuacct.usage").write_text("1500000000\n")
    assert narrowest_group(tmp_path, mine) == group
    assert group_cpu_seconds(group) == 1.5
