"""Threads of NumPy and scikit-learn in jobs that name their cores, and in those that do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import some

Drive = Callable[..., Any]  # conftest.Driver
METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]
NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
USUAL = dict.fromkeys(NAMES, "2")


def usable(cap: int) -> set[int]:
    """OpenBLAS takes no more threads from the environment than there are cores."""
    return {cap, min(cap, os.cpu_count() or 1)}


KINDS = [(method, preloaded) for preloaded in (True, False) for method in METHODS]  # the two ends come first


@pytest.mark.parametrize(("method", "preloaded"), some([KINDS[0], *reversed(KINDS[1:])], 2))
def test_each_job_has_its_own_cap(drive: Drive, method: str, preloaded: bool) -> None:
    """`preloaded`: the libraries are loaded before the first job."""
    pytest.importorskip("sklearn")
    pytest.importorskip("threadpoolctl")
    d = drive(method=method, setup="load_libraries" if preloaded else None)
    d.environment.update(USUAL)
    d.start(1)
    cores = os.cpu_count() or 1
    asked = [0, 3000, 500, 4500, 0]
    for cpus, cap, number in zip(asked, [2, 3, 1, 4, 2], [1, 3, 0.5, 4.5, 1], strict=True):
        seen = d.result(d.lease(1, {"what": "count-threads"}, cpus=cpus))
        assert seen["cpus"] == number
        assert set(seen["libraries"].values()) <= usable(cap), seen
        assert {"openblas", "openmp"} <= {name.split()[0] for name in seen["libraries"]}
        assert seen["environment"] == dict.fromkeys(NAMES, str(cap))
        assert seen["of a program"] == str(cap)
        assert seen["of scikit-learn"] == cap
        assert seen["all cores"] == (min(cap, cores) if cpus else cores)


def test_the_first_job_that_loads_a_library_has_its_own_cap(drive: Drive) -> None:
    pytest.importorskip("sklearn")
    d = drive()
    d.environment.update(USUAL)
    d.start(1)
    for cpus, cap in ((4000, 4), (0, 2), (3000, 3)):
        seen = d.result(d.lease(1, {"what": "count-threads"}, cpus=cpus))
        assert set(seen["libraries"].values()) <= usable(cap), seen


def test_jobs_that_wait_keep_the_caps_that_they_came_with(drive: Drive) -> None:
    """Also when some between them are taken back."""
    d = drive()
    d.environment.update(USUAL)
    d.start(1)
    waits = {"what": "wait-for", "gate": str(d.note("gate")), "note": str(d.note("there"))}
    d.lease(1, waits)
    d.read_note("there")
    count = {"what": "cores"}
    four = d.lease(1, count, count, count, cpus=4000)
    nothing = d.lease(1, count, count)
    half = d.lease(1, count, cpus=500)
    d.engine.revoke(1, [four + 1, nothing])
    d.turn(0.0)
    d.note("gate").touch()
    wanted = {four: [4, "4"], four + 2: [4, "4"], nothing + 1: [1, "2"], half: [0.5, "1"]}
    assert {lease: d.result(lease) for lease in wanted} == wanted
    assert not d.outcomes().keys() & {four + 1, nothing}


def test_jobs_that_say_nothing_leave_threadpoolctl_alone(drive: Drive) -> None:
    pytest.importorskip("numpy")
    d = drive(setup="load_numpy")
    d.start(1)
    assert d.result(d.lease(1, {"what": "has-module", "name": "threadpoolctl"})) is False
    assert d.result(d.lease(1, {"what": "has-module", "name": "threadpoolctl"}, cpus=1000)) is True


def test_where_nothing_is_loaded_it_is_not_imported(drive: Drive) -> None:
    d = drive()
    d.start(1)
    assert d.result(d.lease(1, {"what": "has-module", "name": "threadpoolctl"}, cpus=1000)) is False
