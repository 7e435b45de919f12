"""Whole histories of the real core, from seeds: the promises hold in each of them."""

from __future__ import annotations

import pytest

from tools.simulate import play


@pytest.mark.parametrize("block", range(4))
def test_the_promises_hold_in_every_simulated_history(block: int) -> None:
    for seed in range(block * 100, block * 100 + 100):
        play(seed)
