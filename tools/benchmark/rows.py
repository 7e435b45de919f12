"""The rows of the benchmark's table: what is measured, how it is judged.

A round holds one value of each sample; a row makes one number of it. Medians and spreads are
over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Round = dict[str, dict[str, Any]]  # sample -> its numbers
Value = Callable[[Round], float]
Detail = Callable[[Sequence[Round]], str]


class Row(NamedTuple):
    """`reach`: what must be reached; `aim`: what is aimed at; both in `unit`.

    `value` is of one round, `detail` a few words about all of them.
    """

    key: str
    what: str
    measured: str
    reach: float
    aim: float
    unit: str
    more_is_better: bool
    samples: tuple[str, ...]
    value: Value
    detail: Detail

    def judge(self, value: float) -> str:
        """How far `value` comes: "aim", "reach" or "missed"."""
        sign = 1.0 if self.more_is_better else -1.0
        if sign * value >= sign * self.aim:
            return "aim"
        return "reach" if sign * value >= sign * self.reach else "missed"


def median(rounds: Sequence[Round], sample: str, number: str) -> float:
    return float(statistics.median(taken[sample][number] for taken in rounds))


def _against(ours: str, theirs: str, number: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(taken[ours][number] / taken[theirs][number])

    def detail(rounds: Sequence[Round]) -> str:
        mine, peer = median(rounds, ours, number), median(rounds, theirs, number)
        return f"{mine:,.0f} against {peer:,.0f} jobs/s"

    return value, detail


def _share(ours: str, bare: str) -> tuple[Value, Detail]:
    def value(taken: Round) -> float:
        return float(100 * taken[ours]["share"])

    def detail(rounds: Sequence[Round]) -> str:
        return f"two bare processes, with no library: {100 * median(rounds, bare, 'share'):.1f} %"

    return value, detail


def _number(sample: str, number: str, form: str, scale: float = 1.0) -> tuple[Value, Detail]:
    """A number as it is; `form` is filled with the medians of all numbers of the sample."""

    def value(taken: Round) -> float:
        return float(scale * taken[sample][number])

    def detail(rounds: Sequence[Round]) -> str:
        numbers = [name for name, found in rounds[0][sample].items() if isinstance(found, int | float)]
        return form.format_map({name: median(rounds, sample, name) for name in numbers})

    return value, detail


def _memory(taken: Round) -> float:
    fresh, resumed = taken["longhaul/growth"], taken["longhaul/resume"]
    return float(max(fresh["peak_mb"], resumed["peak_mb"] - fresh["empty_mb"]))


def _about_memory(rounds: Sequence[Round]) -> str:
    fresh, empty = (median(rounds, "longhaul/growth", number) for number in ("peak_mb", "empty_mb"))
    resumed = median(rounds, "longhaul/resume", "peak_mb") - empty
    return f"{fresh:.0f} MB, on a resume {resumed:.0f} MB, above {empty:.0f} MB"


_CHECKPOINTED = ("longhaul/growth", "longhaul/cpu_1ms", "longhaul/cpu_10ms")


def _checkpoint(taken: Round) -> float:
    return float(100 * max(taken[sample]["checkpoint"] for sample in _CHECKPOINTED))


def _about_checkpoint(rounds: Sequence[Round]) -> str:
    no_op, short, longer = (100 * median(rounds, sample, "checkpoint") for sample in _CHECKPOINTED)
    last = median(rounds, "longhaul/growth", "last_percent")
    return (
        f"no-op jobs {no_op:.2f} %, of 1 ms {short:.2f} %, of 10 ms {longer:.2f} %; "
        f"the one on the way out {last:.1f} % of a run of no-op jobs"
    )


def _row(
    key: str,
    what: str,
    measured: str,
    marks: tuple[float, float, str],
    samples: tuple[str, ...],
    functions: tuple[Value, Detail],
) -> Row:
    reach, aim, unit = marks
    return Row(key, what, measured, reach, aim, unit, aim > reach, samples, *functions)


_TINY = ("longhaul/tiny", "executor/tiny")
_CPU_1MS = ("longhaul/cpu_1ms", "bare/cpu_1ms")
_CPU_10MS = ("longhaul/cpu_10ms", "bare/cpu_10ms")
_JOBLIB = ("longhaul/tiny", "joblib/tiny")

ROWS: tuple[Row, ...] = (
    _row(
        "sustained",
        "tiny jobs, sustained",
        "200,000 no-op jobs, against `ProcessPoolExecutor.map` (chunksize 1, 20,000 jobs)",
        (25, 45, "×"),
        _TINY,
        _against(*_TINY, "sustained"),
    ),
    _row(
        "end-to-end",
        "tiny jobs, end to end",
        "the same, from the call of `run()` to its return",
        (12, 20, "×"),
        _TINY,
        _against(*_TINY, "whole"),
    ),
    _row(
        "joblib",
        "against the fastest convenient peer",
        'sustained, against joblib `Parallel(return_as="generator_unordered")`',
        (1.0, 2.0, "×"),
        _JOBLIB,
        _against(*_JOBLIB, "sustained"),
    ),
    _row(
        "cpu-1ms",
        "1 ms CPU jobs",
        "share of the two cores spent in jobs, first job start to last job end, 10,000 jobs",
        (96, 98.5, "%"),
        _CPU_1MS,
        _share(*_CPU_1MS),
    ),
    _row(
        "cpu-10ms",
        "10 ms CPU jobs",
        "likewise, 1,000 jobs",
        (98.5, 99.5, "%"),
        _CPU_10MS,
        _share(*_CPU_10MS),
    ),
    _row(
        "growth",
        "growth",
        "marginal time per job, end to end, 500,000 to 1,000,000 against 50,000 to 500,000",
        (1.15, 1.0, "×"),
        ("longhaul/growth",),
        _number(
            "longhaul/growth",
            "growth",
            "{last_us:.1f} against {first_us:.1f} µs; "
            "sustained {last_sustained_us:.1f} against {first_sustained_us:.1f} µs",
        ),
    ),
    _row(
        "memory",
        "memory",
        "supervisor's peak RSS at 1,000,000 jobs from a generator, above that of an empty run, resume included",
        (450, 300, "MB"),
        ("longhaul/growth", "longhaul/resume"),
        (_memory, _about_memory),
    ),
    _row(
        "resume",
        "resume",
        "1,000,000 jobs of which 990,000 completed: from start to the first new job running",
        (4.0, 2.5, "s"),
        ("longhaul/resume",),
        _number("longhaul/resume", "seconds", "from the start of Python"),
    ),
    _row(
        "recovery",
        "recovery",
        "SIGKILL of a busy worker to its job running again (median, NumPy preloaded, no idle worker)",
        (30, 10, "ms"),
        ("longhaul/recovery",),
        _number("longhaul/recovery", "ms", "the slowest of a round {worst_ms:.0f} ms"),
    ),
    _row(
        "fairness",
        "fairness",
        "one 5 s job among 20,000 no-op jobs: no other job ends later than this after it could have",
        (0.5, 0.1, "s"),
        ("longhaul/fairness",),
        _number(
            "longhaul/fairness",
            "seconds",
            "the longest pause {longest:.3f} s; {after_the_long_one:.0f} ended after the long job",
        ),
    ),
    _row(
        "quiet",
        "quiet",
        "supervisor's CPU over 20 s with six workers in long jobs, progress file on",
        (1.0, 0.2, "%"),
        ("longhaul/quiet",),
        _number("longhaul/quiet", "share", "zygote {helpers_percent:.2f} %", 100.0),
    ),
    _row(
        "start",
        "start",
        "`main()` reached to the first job running, nothing heavy imported by the script",
        (0.4, 0.15, "s"),
        ("longhaul/start",),
        _number("longhaul/start", "seconds", "{python_seconds:.2f} s from the start of Python"),
    ),
    _row(
        "import",
        "import",
        '`python -X importtime -c "import supervisor"`, total',
        (120, 60, "ms"),
        ("longhaul/import",),
        _number("longhaul/import", "ms", "with `Job`, `main` and `run` {used_ms:.0f} ms"),
    ),
    _row(
        "big-results",
        "big results",
        "200 results of 5 MB each, against writing the same bytes once with fsync",
        (0.12, 0.3, "×"),
        ("longhaul/big",),
        _number("longhaul/big", "ratio", "{seconds:.1f} s against {once_seconds:.1f} s"),
    ),
    _row(
        "checkpoint",
        "checkpoint",
        "share of wall time at any size: the largest of the runs of growth, 1 ms and 10 ms, before the way out",
        (2.0, 1.0, "%"),
        _CHECKPOINTED,
        (_checkpoint, _about_checkpoint),
    ),
)

_TASKS = ("cluster/tiny", "ray/tiny")
_NO_OP = ("cluster/tiny", "longhaul/tiny")
_CLUSTER_1MS = ("cluster/cpu_1ms", "bare/cpu_1ms")
_CLUSTER_10MS = ("cluster/cpu_10ms", "longhaul/cpu_10ms")


def _points_behind(taken: Round) -> float:
    cluster, here = (taken[sample]["share"] for sample in _CLUSTER_10MS)
    return float(100 * (here - cluster))


def _about_points(rounds: Sequence[Round]) -> str:
    cluster, here = (100 * median(rounds, sample, "share") for sample in _CLUSTER_10MS)
    return f"{cluster:.1f} % of the cores against {here:.1f} %"


CLUSTER_GROUP = "cluster"
# On a Ray cluster of two raylets on this machine, with one worker each; together: `--only cluster`.
CLUSTER_ROWS: tuple[Row, ...] = (
    _row(
        "cluster-tasks",
        "Ray cluster: tiny jobs",
        "200,000 no-op jobs, sustained, against plain Ray tasks (5,000)",
        (100, 200, "×"),
        _TASKS,
        _against(*_TASKS, "sustained"),
    ),
    _row(
        "cluster-local",
        "Ray cluster: tiny jobs",
        "the same against the engine of one machine",
        (0.5, 0.7, "×"),
        _NO_OP,
        _against(*_NO_OP, "sustained"),
    ),
    _row(
        "cluster-1ms",
        "Ray cluster: 1 ms CPU jobs",
        "share of the two cores spent in jobs, first job start to last job end, 10,000 jobs",
        (92, 96, "%"),
        _CLUSTER_1MS,
        _share(*_CLUSTER_1MS),
    ),
    _row(
        "cluster-10ms",
        "Ray cluster: 10 ms CPU jobs",
        "likewise, 1,000 jobs: how far behind one machine",
        (1.0, 0.3, "points"),
        _CLUSTER_10MS,
        (_points_behind, _about_points),
    ),
    _row(
        "cluster-recovery",
        "Ray cluster: recovery",
        "SIGKILL of a busy worker to its job running again (median, NumPy preloaded, no idle worker)",
        (40, 20, "ms"),
        ("cluster/recovery",),
        _number("cluster/recovery", "ms", "the slowest of a round {worst_ms:.0f} ms"),
    ),
    _row(
        "cluster-raylet",
        "Ray cluster: a node is lost",
        "SIGKILL of a raylet to its job running elsewhere",
        (0.6, 0.3, "s"),
        ("cluster/raylet",),
        _number("cluster/raylet", "seconds", "Ray's health check takes 14 s"),
    ),
    _row(
        "cluster-ended",
        "Ray cluster: the supervisor is lost",
        "SIGKILL of the supervisor to the end of the last process of the run on any node",
        (1.0, 0.1, "s"),
        ("cluster/ended",),
        _number("cluster/ended", "seconds", "{processes:.0f} processes"),
    ),
    _row(
        "cluster-start",
        "Ray cluster: start",
        "`main()` reached, on a cluster that runs, to the first job running",
        (1.5, 0.8, "s"),
        ("cluster/start",),
        _number("cluster/start", "seconds", "{python_seconds:.2f} s from the start of Python"),
    ),
    _row(
        "cluster-quiet",
        "Ray cluster: quiet",
        "CPU of driver, carriers and agents over 20 s with two workers in long jobs",
        (3.0, 1.0, "%"),
        ("cluster/quiet",),
        _number(
            "cluster/quiet",
            "share",
            "driver {driver_percent:.2f} %, both carriers {carriers_percent:.2f} %, "
            "both agents {agents_percent:.2f} %, supervisor {supervisor_percent:.2f} %",
            100.0,
        ),
    ),
)

# Measured only when they are named (--only), and not in the README.
MORE_ROWS: tuple[Row, ...] = (
    *CLUSTER_ROWS,
    _row(
        "places",
        "64 places of 64 workers",
        "share of a core that the supervisor takes for 4,096 outcomes a second, of jobs of 1 s (the nodes are played)",
        (50, 35, "%"),
        ("longhaul/places",),
        _number("longhaul/places", "share", "measured at {rate:,.0f} outcomes/s", 100.0),
    ),
    _row(
        "places:memory",
        "64 places of 64 workers, memory",
        "the supervisor's peak RSS, above that with two workers and as many jobs",
        (100, 50, "MB"),
        ("longhaul/places",),
        _number("longhaul/places", "more_mb", "with two workers {few_mb:.0f} MB"),
    ),
    _row(
        "first-failure",
        "first failure",
        "the turn of the loop that has the first failure among 1,000,000 no-op jobs",
        (20, 5, "ms"),
        ("longhaul/first_failure",),
        _number("longhaul/first_failure", "ms", "a turn before it {median_ms:.1f} ms"),
    ),
    _row(
        "report",
        "report",
        "`longhaul report` of a night with 1,000,000 jobs on 64 workers, from the start of Python",
        (10.0, 7.0, "s"),
        ("longhaul/report",),
        _number("longhaul/report", "seconds", "{cpu:.1f} s of CPU, peak memory {peak_mb:.0f} MB"),
    ),
    _row(
        "report:size",
        "report, size",
        "the file",
        (10.0, 2.0, "MB"),
        ("longhaul/report",),
        _number("longhaul/report", "megabytes", "all curves and failures, a sample of the rows"),
    ),
    _row(
        "report:small",
        "report, 10,000 jobs",
        "the same of a night with 10,000 jobs on 16 workers",
        (1.0, 0.7, "s"),
        ("longhaul/report",),
        _number(
            "longhaul/report", "small_seconds", "{small_cpu:.2f} s of CPU, peak memory {small_peak_mb:.0f} MB"
        ),
    ),
    _row(
        "report:small-size",
        "report, 10,000 jobs, size",
        "the file",
        (2.0, 1.0, "MB"),
        ("longhaul/report",),
        _number("longhaul/report", "small_megabytes", "each attempt singly"),
    ),
)


_PROGRAMS = ("longhaul/programs", "parallel/programs")


def _cpu_of_programs(taken: Round) -> float:
    return float(taken[_PROGRAMS[0]]["cpu_us"] / taken[_PROGRAMS[1]]["cpu_us"])


def _about_cpu_of_programs(rounds: Sequence[Round]) -> str:
    ours, theirs = (median(rounds, sample, "cpu_us") / 1000 for sample in _PROGRAMS)
    return f"{ours:.2f} against {theirs:.2f} ms of CPU a job, with the program's own"


_PAGE = ("longhaul/page",)

MORE_ROWS = (
    *MORE_ROWS,
    _row(
        "page",
        "page",
        "`longhaul web` beside a night with 1,000,000 jobs: the head of the page, when nothing has been read yet",
        (0.5, 0.2, "s"),
        _PAGE,
        _number("longhaul/page", "first", "with 10,000 jobs {small_first:.2f} s"),
    ),
    _row(
        "page:table",
        "page, jobs",
        "the first page of the jobs, from the same moment on",
        (2.0, 1.0, "s"),
        _PAGE,
        _number("longhaul/page", "table", "with 10,000 jobs {small_table:.2f} s"),
    ),
    _row(
        "page:leaf",
        "page, leafing",
        "the slowest of ten further pages of 200 jobs",
        (50, 20, "ms"),
        _PAGE,
        _number("longhaul/page", "leaf", "a new order takes {sort:.2f} s", 1000.0),
    ),
    _row(
        "page:timeline",
        "page, timeline",
        "lanes of 64 workers over the whole night",
        (100, 50, "ms"),
        _PAGE,
        _number("longhaul/page", "timeline", "{timeline_kb:.0f} KB", 1000.0),
    ),
    _row(
        "page:memory",
        "page, memory",
        "the server when all of that has been shown",
        (400, 300, "MB"),
        _PAGE,
        _number("longhaul/page", "memory_mb", "with 10,000 jobs {small_memory_mb:.0f} MB"),
    ),
    _row(
        "exec",
        "programs",
        "5,000 times `true` by `longhaul exec`, two at a time, against GNU parallel with `--joblog`",
        (5, 10, "×"),
        _PROGRAMS,
        _against(*_PROGRAMS, "rate"),
    ),
    _row(
        "exec-cpu",
        "programs, CPU",
        "the same: CPU time for each job, of all processes",
        (0.5, 0.25, "×"),
        _PROGRAMS,
        (_cpu_of_programs, _about_cpu_of_programs),
    ),
)


def chosen(only: Sequence[str] | None) -> list[Row]:
    """The rows that are named, each with those that belong to it (`report:size` to `report`) or with its group; None:
    those of the README."""
    if only is None:
        return [*ROWS]
    groups = {row.key for row in CLUSTER_ROWS} if CLUSTER_GROUP in only else set()
    named = {*only, *groups}
    return [row for row in (*ROWS, *MORE_ROWS) if row.key in named or row.key.partition(":")[0] in named]
