"""How long the jobs of each domain took: quantiles over all jobs that ended. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import msgspec

from supervisor.core.terms.jobs import COMPLETED, FAILED

MOST_DOMAINS = 100  # those that took the most time


class DomainDurations(msgspec.Struct):
    """Of the last attempt of each job that ended. Durations in seconds; quantiles are measured values."""

    domain: str
    jobs: int
    failed: int
    total: float
    least: float
    quarter: float
    median: float
    three_quarters: float
    most_of_all: float  # 95 of 100 took no longer
    longest: float
    longest_job: int = -1  # its number


def durations_by_domain(
    domains: Sequence[str], domain_of: Sequence[int], states: bytes | bytearray, seconds: Sequence[float]
) -> list[DomainDurations]:
    """The domain that took the most time first. The last three are by job number, `domain_of` indexes `domains`."""
    taken: list[array[float]] = [array("d") for _ in domains]
    failed = [0] * len(domains)
    longest: list[tuple[float, int]] = [(-1.0, -1)] * len(domains)
    for job, (domain, state, took) in enumerate(zip(domain_of, states, seconds, strict=False)):
        if state in (COMPLETED, FAILED):
            taken[domain].append(took)
            failed[domain] += state == FAILED
            if took > longest[domain][0]:
                longest[domain] = took, job
    found = []
    for number, values in enumerate(taken):
        if values:
            ordered = sorted(values)
            found.append(
                DomainDurations(
                    domains[number],
                    len(ordered),
                    failed[number],
                    sum(ordered),
                    ordered[0],
                    _quantile(ordered, 0.25),
                    _quantile(ordered, 0.5),
                    _quantile(ordered, 0.75),
                    _quantile(ordered, 0.95),
                    ordered[-1],
                    longest[number][1],
                )
            )
    return sorted(found, key=lambda one: -one.total)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
