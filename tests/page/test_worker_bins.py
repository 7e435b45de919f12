"""Bins of what workers did: nothing is lost, however wide they become."""

from __future__ import annotations

import random

import pytest

from supervisor.page.worker_bins import Bin, WorkerBins


def sums(bins: WorkerBins) -> tuple[float, int, int]:
    rows = list(bins)
    return sum(one.busy for one in rows), sum(one.ended for one in rows), sum(one.failed for one in rows)


def test_an_attempt_fills_the_bins_that_it_lasts() -> None:
    bins = WorkerBins()
    bins.add_batch(3, [12.5], [2.25], [0])
    assert list(bins) == [Bin(3, 10.0, 0.75, 0, 0), Bin(3, 11.0, 1.0, 0, 0), Bin(3, 12.0, 0.5, 1, 0)]


def test_many_attempts_of_one_bin_are_one() -> None:
    bins = WorkerBins()
    bins.add_batch(0, [5.1, 5.3, 5.6], [0.1, 0.2, 0.3], [0, 1, 0])
    ((slot, start, busy, ended, failed),) = bins
    assert (slot, start, ended, failed) == (0, 5.0, 3, 1)
    assert busy == pytest.approx(0.6)


def test_a_week_between_two_runs_takes_no_memory() -> None:
    bins = WorkerBins()
    bins.busy(0, 0, 10)
    bins.busy(0, 7 * 86400, 7 * 86400 + 10)
    assert len(bins) == 512
    assert bins.width == 1.0


@pytest.mark.parametrize("most", [256, 512, 2048, 1 << 20])
def test_whatever_the_width_the_sums_stay(most: int) -> None:
    rng = random.Random(most)
    bins = WorkerBins(most)
    busy = ended = failed = 0
    for slot in range(3):
        at = 1_700_000_000.0
        for _ in range(60):
            seconds = [rng.choice([0.01, 0.5, 3.0, 70.0, 1300.0]) for _ in range(rng.randrange(1, 4))]
            ends = []
            for each in seconds:
                at += each
                ends.append(at)
            bad = [int(rng.random() < 0.2) for _ in seconds]
            bins.add_batch(slot, ends, seconds, bad)
            busy, ended, failed = busy + sum(seconds), ended + len(seconds), failed + sum(bad)
            at += rng.choice([0.0, 5.0, 400.0])
    found = sums(bins)
    assert found[0] == pytest.approx(busy)
    assert found[1:] == (ended, failed)
    assert all(one.busy <= bins.width * 1.000001 for one in bins)
    assert len(bins) <= max(most, 3 * 4 * 256)  # each slot takes a few pieces, however little is allowed
    for other in (bins.together(), bins.widened(), bins.at_most(50)):
        again = sums(other)
        assert again[0] == pytest.approx(busy)
        assert again[1:] == (ended, failed)
    assert len(list(bins.at_most(50))) <= 60


def test_wider_bins_stand_where_two_stood() -> None:
    bins = WorkerBins()
    for at in (254.5, 255.5, 256.5, 511.5, 512.5):
        bins.add_batch(1, [at], [0.25], [1])
    assert [(one.start, one.ended, one.failed) for one in bins.widened()] == [
        (254.0, 2, 2),
        (256.0, 1, 1),
        (510.0, 1, 1),
        (512.0, 1, 1),
    ]
