"""Our side of the benchmark, in a script that imports something heavy: see longhaul_program.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy  # noqa: F401  (each worker has to have it: that is what is measured)

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.benchmark.longhaul_program import play

if __name__ == "__main__":
    play()
