"""Whole histories of the real core and store, from seeds: the promises hold in each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import some
from tools.simulation.history import play
from tools.simulation.mutants import MUTANTS, caught

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.timeout(600)
def test_the_promises_hold_in_simulated_histories() -> None:
    for seed in range(40):
        play(seed)


# A minute on a quiet core, and much more where ten processes want it: it computes, and cannot hang.
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("start", "seeds"),
    some([(1000, 100), (1100, 300), *((start, 400) for start in range(1400, 3000, 400))], 1),
)
def test_the_promises_hold_in_thousands_more(start: int, seeds: int) -> None:
    # Without the measuring of coverage, which makes it five times slower and shows nothing new.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "simulate.py"), "--start", str(start), "--seeds", str(seeds)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no violation" in done.stdout


@pytest.mark.parametrize("seed", [3, 27, 31])
def test_a_seed_replays_to_the_last_byte(seed: int) -> None:
    """Also 27, which once had two variants, as a checkpoint took longer or shorter."""
    first, second = play(seed), play(seed)
    assert first.runs == second.runs
    assert {name: file.data for name, file in first.disk.names.items()} == {
        name: file.data for name, file in second.disk.names.items()
    }


QUICK = (
    "the journal is never synced",
    "the last of a dead worker's leases is blamed",
    "the grace time never ends",
)


@pytest.mark.parametrize("name", QUICK)
def test_the_simulation_notices_a_fault_in_the_code(name: str) -> None:
    """All mutants: python tools/simulate.py --mutants"""
    assert caught(MUTANTS[name], seeds=60)
