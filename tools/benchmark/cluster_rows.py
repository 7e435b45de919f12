"""Rows of a Ray cluster of two raylets on this machine, with one worker each, that has had a run; together: `--only
cluster`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tools.benchmark.row import Detail, Round, Row, Value, against, median, number, row, share

_TASKS = ("cluster/tiny", "ray/tiny")
_NO_OP = ("cluster/tiny", "longhaul/tiny")
_NO_OP_MORE = ("cluster/tiny_more", "longhaul/tiny_more")
_CLUSTER_1MS = ("cluster/cpu_1ms", "bare/cpu_1ms")
_CLUSTER_10MS = ("cluster/cpu_10ms_more", "longhaul/cpu_10ms_more")
_BESIDE_NO_OP = ("cluster/tiny", "beside/tiny")
_BESIDE_10MS = ("cluster/cpu_10ms_more", "beside/cpu_10ms_more")
CLUSTER_GROUP = "cluster"


def _each_further(ours: tuple[str, str], theirs: tuple[str, str]) -> tuple[Value, Detail]:
    """How many times as fast each job is that the second of two samples has more than the first one."""

    def rate(samples: tuple[str, str], taken: Round) -> float:
        few, many = (taken[sample] for sample in samples)
        seconds = many["jobs"] / many["sustained"] - few["jobs"] / few["sustained"]
        return float((many["jobs"] - few["jobs"]) / seconds)

    def value(taken: Round) -> float:
        return rate(ours, taken) / rate(theirs, taken)

    def detail(rounds: Sequence[Round]) -> str:
        mine, peer = (
            statistics.median(rate(samples, taken) for taken in rounds) for samples in (ours, theirs)
        )
        return f"{mine:,.0f} against {peer:,.0f} jobs/s"

    return value, detail


def _points_behind(ours: str, theirs: str) -> tuple[Value, Detail]:
    """By how many points of the cores' time the first sample is behind the second one."""

    def value(taken: Round) -> float:
        return float(100 * (taken[theirs]["share"] - taken[ours]["share"]))

    def detail(rounds: Sequence[Round]) -> str:
        cluster, here = (100 * median(rounds, sample, "share") for sample in (ours, theirs))
        return f"{cluster:.1f} % of the cores against {here:.1f} %"

    return value, detail


CLUSTER_ROWS: tuple[Row, ...] = (
    row(
        "cluster-tasks",
        "Ray cluster: tiny jobs",
        "200,000 no-op jobs, sustained, against plain Ray tasks (5,000)",
        (100, 200, "×"),
        _TASKS,
        against(*_TASKS, "sustained"),
    ),
    row(
        "cluster-local",
        "Ray cluster: tiny jobs",
        "the same against the engine of one machine",
        (0.5, 0.7, "×"),
        _NO_OP,
        against(*_NO_OP, "sustained"),
    ),
    row(
        "cluster-local:beside",
        "Ray cluster: tiny jobs",
        "the same on a machine on which the same cluster idles",
        (0.5, 0.7, "×"),
        _BESIDE_NO_OP,
        against(*_BESIDE_NO_OP, "sustained"),
    ),
    # The second node starts some tenths of a second later than the first one; on one machine all takes half a second.
    row(
        "cluster-local:further",
        "Ray cluster: tiny jobs",
        "the same for each further job of 1,000,000: without the start of the nodes",
        (0.5, 0.7, "×"),
        (*_NO_OP, *_NO_OP_MORE),
        _each_further((_NO_OP[0], _NO_OP_MORE[0]), (_NO_OP[1], _NO_OP_MORE[1])),
    ),
    row(
        "cluster-1ms",
        "Ray cluster: 1 ms CPU jobs",
        "share of the two cores spent in jobs, first job start to last job end, 10,000 jobs",
        (92, 96, "%"),
        _CLUSTER_1MS,
        share(*_CLUSTER_1MS),
    ),
    row(
        "cluster-10ms",
        "Ray cluster: 10 ms CPU jobs",
        "likewise, 4,000 jobs: how far behind one machine on which the same cluster idles",
        (1.0, 0.3, "points"),
        _BESIDE_10MS,
        _points_behind(*_BESIDE_10MS),
    ),
    # Idle processes of Ray take a part of the cores, and so does what Ray runs in each actor and in its client.
    row(
        "cluster-10ms:alone",
        "Ray cluster: 10 ms CPU jobs",
        "the same: how far behind one machine without Ray",
        (1.0, 0.3, "points"),
        _CLUSTER_10MS,
        _points_behind(*_CLUSTER_10MS),
    ),
    row(
        "cluster-recovery",
        "Ray cluster: recovery",
        "SIGKILL of a busy worker to its job running again (median, NumPy preloaded, no idle worker)",
        (40, 20, "ms"),
        ("cluster/recovery",),
        number("cluster/recovery", "ms", "the slowest of a round {worst_ms:.0f} ms"),
    ),
    row(
        "cluster-raylet",
        "Ray cluster: a node is lost",
        "SIGKILL of a raylet to its job running elsewhere",
        (0.6, 0.3, "s"),
        ("cluster/raylet",),
        number("cluster/raylet", "seconds", "Ray's health check takes 14 s"),
    ),
    row(
        "cluster-ended",
        "Ray cluster: the supervisor is lost",
        "SIGKILL of the supervisor to the end of the last process of the run on any node",
        (1.0, 0.1, "s"),
        ("cluster/ended",),
        number("cluster/ended", "seconds", "{processes:.0f} processes"),
    ),
    row(
        "cluster-start",
        "Ray cluster: start",
        "`main()` reached, on a cluster that runs, to the first job running",
        (1.5, 0.8, "s"),
        ("cluster/start",),
        number("cluster/start", "seconds", "{python_seconds:.2f} s from the start of Python"),
    ),
    row(
        "cluster-quiet",
        "Ray cluster: quiet",
        "CPU of driver, carriers and agents over 20 s with two workers in long jobs",
        (3.0, 1.0, "%"),
        ("cluster/quiet",),
        number(
            "cluster/quiet",
            "share",
            "driver {driver_percent:.2f} %, both carriers {carriers_percent:.2f} %, "
            "both agents {agents_percent:.2f} %, supervisor {supervisor_percent:.2f} %",
            100.0,
        ),
    ),
)
