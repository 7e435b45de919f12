"""How often Python's garbage collector runs in this process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def rarer_collections(allocations: int, generations: int = 0) -> Iterator[None]:
    """Collect garbage only after so many `allocations`, and older objects after so many of these collections
    (`generations`), unless the script has set higher thresholds or has switched it off."""
    before = gc.get_threshold()
    if before[0]:  # else the user has switched it off
        gc.set_threshold(max(before[0], allocations), max(before[1], generations), before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)
