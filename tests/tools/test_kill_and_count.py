"""tools/kill_and_count.py: how many finished jobs a kill of the supervisor costs."""

from __future__ import annotations

from tools.kill_and_count import finished_again


def test_a_kill_repeats_few_finished_jobs() -> None:
    """What two workers had finished and the supervisor had not read: a handful, never most of them."""
    assert finished_again(60, 0.05, kill_after=0.5) <= 20
