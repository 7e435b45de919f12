"""Needs, and what was given, as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.terms.needs import Amounts, given
from supervisor.core.terms.needs_wording import amounts_in_words


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({}, ""),
        ({"cpus": 1}, "1 core"),
        ({"cpus": 0.5, "memory": 3 << 29, "gpus": 2}, "0.5 cores, 1.5G of memory, 2 GPUs"),
        ({"memory": 0, "gpus": 0}, "no memory, no GPU"),
        ({"gpus": 0.25, "resources": {"disk": 0.5, "license": 2}}, "0.25 of a GPU, disk=0.5, license=2"),
        (given(Amounts(3000, gpus=500), ("GPU-a",)), "3 cores, 0.5 of GPU GPU-a"),
        (given(Amounts(gpus=3000), ("0", "2", "5")), "1 core, GPUs 0, 2 and 5"),
    ],
)
def test_they_are_told_in_the_units_of_users(amounts: dict[str, Any], words: str) -> None:
    assert amounts_in_words(amounts) == words
