"""Our side of the benchmark, in a script that imports something heavy: see bench_ours.py."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy  # noqa: F401  (each worker has to have it: that is what is measured)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.bench_ours import play

if __name__ == "__main__":
    play()
