"""The rows of the benchmark's table: what is measured, how it is judged."""

from __future__ import annotations

from collections.abc import Sequence

from tools.benchmark.cluster_rows import CLUSTER_GROUP, CLUSTER_ROWS
from tools.benchmark.crowd_samples import CROWD_ROWS
from tools.benchmark.page_rows import PAGE_ROWS
from tools.benchmark.row import Round, Row, against, median, number, row, share


def _memory(taken: Round) -> float:
    fresh, resumed = taken["longhaul/growth"], taken["longhaul/resume"]
    return float(max(fresh["peak_mb"], resumed["peak_mb"] - fresh["empty_mb"]))


def _about_memory(rounds: Sequence[Round]) -> str:
    fresh, empty = (median(rounds, "longhaul/growth", name) for name in ("peak_mb", "empty_mb"))
    resumed = median(rounds, "longhaul/resume", "peak_mb") - empty
    return f"{fresh:.0f} MB, on a resume {resumed:.0f} MB, above {empty:.0f} MB"


_CHECKPOINTED = ("longhaul/growth", "longhaul/cpu_1ms", "longhaul/cpu_10ms")


def _checkpoint(taken: Round) -> float:
    return float(100 * max(taken[sample]["checkpoint"] for sample in _CHECKPOINTED))


def _about_checkpoint(rounds: Sequence[Round]) -> str:
    no_op, short, longer = (100 * median(rounds, sample, "checkpoint") for sample in _CHECKPOINTED)
    return f"no-op jobs {no_op:.2f} %, of 1 ms {short:.2f} %, of 10 ms {longer:.2f} %"


_TINY = ("longhaul/tiny", "executor/tiny")
_CPU_1MS = ("longhaul/cpu_1ms", "bare/cpu_1ms")
_CPU_10MS = ("longhaul/cpu_10ms", "bare/cpu_10ms")
_JOBLIB = ("longhaul/tiny", "joblib/tiny")

ROWS: tuple[Row, ...] = (
    row(
        "sustained",
        "tiny jobs, sustained",
        "200,000 no-op jobs, against `ProcessPoolExecutor.map` (chunksize 1, 20,000 jobs)",
        (25, 45, "×"),
        _TINY,
        against(*_TINY, "sustained"),
    ),
    row(
        "end-to-end",
        "tiny jobs, end to end",
        "the same, from the call of `run()` to its return",
        (16, 20, "×"),
        _TINY,
        against(*_TINY, "whole"),
    ),
    row(
        "way-out",
        "way out",
        "share of a run of 1,000,000 no-op jobs after the last outcome: checkpoint, final files",
        (8, 4, "%"),
        ("longhaul/growth",),
        number(
            "longhaul/growth",
            "way_out_percent",
            "{way_out_seconds:.2f} s; {bytes_seconds:.2f} s to read, copy and sync bytes that cost nothing to make",
        ),
    ),
    row(
        "joblib",
        "against the fastest convenient peer",
        'sustained, against joblib `Parallel(return_as="generator_unordered")`',
        (1.0, 2.0, "×"),
        _JOBLIB,
        against(*_JOBLIB, "sustained"),
    ),
    row(
        "cpu-1ms",
        "1 ms CPU jobs",
        "share of the two cores spent in jobs, first job start to last job end, 10,000 jobs",
        (96, 98.5, "%"),
        _CPU_1MS,
        share(*_CPU_1MS),
    ),
    row(
        "cpu-10ms",
        "10 ms CPU jobs",
        "likewise, 1,000 jobs",
        (98.5, 99.5, "%"),
        _CPU_10MS,
        share(*_CPU_10MS),
    ),
    row(
        "growth",
        "growth",
        "marginal time per job, end to end, 500,000 to 1,000,000 against 50,000 to 500,000",
        (1.15, 1.0, "×"),
        ("longhaul/growth",),
        number(
            "longhaul/growth",
            "growth",
            "{last_us:.1f} against {first_us:.1f} µs; "
            "sustained {last_sustained_us:.1f} against {first_sustained_us:.1f} µs",
        ),
    ),
    row(
        "memory",
        "memory",
        "supervisor's peak RSS at 1,000,000 jobs from a generator, above that of an empty run, resume included",
        (450, 300, "MB"),
        ("longhaul/growth", "longhaul/resume"),
        (_memory, _about_memory),
    ),
    row(
        "resume",
        "resume",
        "1,000,000 jobs, `kill -9` after 990,000 completed, no checkpoint: from start to the first new job running",
        (2.0, 1.0, "s"),
        ("longhaul/resume",),
        number("longhaul/resume", "seconds", "from the start of Python"),
    ),
    row(
        "recovery",
        "recovery",
        "SIGKILL of a busy worker to its job running again (median, NumPy preloaded, no idle worker)",
        (30, 10, "ms"),
        ("longhaul/recovery",),
        number("longhaul/recovery", "ms", "the slowest of a round {worst_ms:.0f} ms"),
    ),
    row(
        "fairness",
        "fairness",
        "one 5 s job among 20,000 no-op jobs: no other job ends later than this after it could have",
        (0.5, 0.1, "s"),
        ("longhaul/fairness",),
        number(
            "longhaul/fairness",
            "seconds",
            "the longest pause {longest:.3f} s; {after_the_long_one:.0f} ended after the long job",
        ),
    ),
    row(
        "quiet",
        "quiet",
        "supervisor's CPU over 20 s with six workers in long jobs, progress file on",
        (1.0, 0.2, "%"),
        ("longhaul/quiet",),
        number("longhaul/quiet", "share", "zygote {helpers_percent:.2f} %", 100.0),
    ),
    row(
        "start",
        "start",
        "`main()` reached to the first job running, nothing heavy imported by the script",
        (0.4, 0.15, "s"),
        ("longhaul/start",),
        number("longhaul/start", "seconds", "{python_seconds:.2f} s from the start of Python"),
    ),
    row(
        "import",
        "import",
        '`python -X importtime -c "import supervisor"`, total',
        (120, 60, "ms"),
        ("longhaul/import",),
        number("longhaul/import", "ms", "with `Job`, `main` and `run` {used_ms:.0f} ms"),
    ),
    row(
        "big-results",
        "big results",
        "200 results of 5 MB each, against writing the same bytes once with fsync",
        (0.12, 0.3, "×"),
        ("longhaul/big",),
        number("longhaul/big", "ratio", "{seconds:.1f} s against {once_seconds:.1f} s"),
    ),
    row(
        "checkpoint",
        "checkpoint",
        "share of wall time at any size: the largest of the runs of growth, 1 ms and 10 ms, before the way out",
        (2.0, 1.0, "%"),
        _CHECKPOINTED,
        (_checkpoint, _about_checkpoint),
    ),
)

_PROGRAMS = ("longhaul/programs", "parallel/programs")


def _cpu_of_programs(taken: Round) -> float:
    return float(taken[_PROGRAMS[0]]["cpu_us"] / taken[_PROGRAMS[1]]["cpu_us"])


def _about_cpu_of_programs(rounds: Sequence[Round]) -> str:
    ours, theirs = (median(rounds, sample, "cpu_us") / 1000 for sample in _PROGRAMS)
    return f"{ours:.2f} against {theirs:.2f} ms of CPU a job, with the program's own"


# Measured only when they are named (--only), and not in docs/performance.md.
MORE_ROWS: tuple[Row, ...] = (
    *CLUSTER_ROWS,
    row(
        "places",
        "64 places of 64 workers",
        "share of a core that the supervisor takes for 4,096 outcomes a second, of jobs of 1 s (the nodes are played)",
        (50, 35, "%"),
        ("longhaul/places",),
        number("longhaul/places", "share", "measured at {rate:,.0f} outcomes/s", 100.0),
    ),
    row(
        "places:memory",
        "64 places of 64 workers, memory",
        "the supervisor's peak RSS, above that with two workers and as many jobs",
        (100, 50, "MB"),
        ("longhaul/places",),
        number("longhaul/places", "more_mb", "with two workers {few_mb:.0f} MB"),
    ),
    row(
        "first-failure",
        "first failure",
        "the turn of the loop that has the first failure among 1,000,000 no-op jobs",
        (20, 5, "ms"),
        ("longhaul/first_failure",),
        number("longhaul/first_failure", "ms", "a turn before it {median_ms:.1f} ms"),
    ),
    *PAGE_ROWS,
    row(
        "exec",
        "programs",
        "5,000 times `true` by `longhaul exec`, two at a time, against GNU parallel with `--joblog`",
        (5, 10, "×"),
        _PROGRAMS,
        against(*_PROGRAMS, "rate"),
    ),
    row(
        "exec-cpu",
        "programs, CPU",
        "the same: CPU time for each job, of all processes",
        (0.5, 0.25, "×"),
        _PROGRAMS,
        (_cpu_of_programs, _about_cpu_of_programs),
    ),
    *CROWD_ROWS,
)


def chosen(only: Sequence[str] | None) -> list[Row]:
    """The rows that are named, each with those that belong to it (`report:size` to `report`) or with its group; None:
    those of docs/performance.md."""
    if only is None:
        return [*ROWS]
    groups = {each.key for each in CLUSTER_ROWS} if CLUSTER_GROUP in only else set()
    named = {*only, *groups}
    return [each for each in (*ROWS, *MORE_ROWS) if each.key in named or each.key.partition(":")[0] in named]
