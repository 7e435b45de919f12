"""Rows of the page of `longhaul web`, and of the report."""

from __future__ import annotations

from tools.benchmark.row import Row, number, row

_PAGE = ("longhaul/page",)
_PAINTED = ("longhaul/page_painted",)

PAGE_ROWS: tuple[Row, ...] = (
    row(
        "page",
        "page",
        "`longhaul web` beside a night with 1,000,000 jobs: the head of the page, when nothing has been read yet",
        (0.5, 0.2, "s"),
        _PAGE,
        number("longhaul/page", "first", "with 10,000 jobs {small_first:.2f} s"),
    ),
    row(
        "page:table",
        "page, jobs",
        "the first page of the jobs, from the same moment on",
        (2.0, 1.0, "s"),
        _PAGE,
        number(
            "longhaul/page",
            "table",
            "all of them, to leaf and sort, after {read:.1f} s; with 10,000 jobs {small_table:.2f} s",
        ),
    ),
    row(
        "page:leaf",
        "page, leafing",
        "the slowest of ten further pages of 200 jobs, once all are read",
        (50, 20, "ms"),
        _PAGE,
        number("longhaul/page", "leaf", "a new order takes {sort:.2f} s", 1000.0),
    ),
    row(
        "page:timeline",
        "page, timeline",
        "lanes of 64 workers over the whole night",
        (100, 50, "ms"),
        _PAGE,
        number("longhaul/page", "timeline", "{timeline_kb:.0f} KB", 1000.0),
    ),
    row(
        "page:memory",
        "page, memory",
        "the server when all of that has been shown",
        (400, 300, "MB"),
        _PAGE,
        number("longhaul/page", "memory_mb", "with 10,000 jobs {small_memory_mb:.0f} MB"),
    ),
    row(
        "page:paint",
        "page, first paint",
        "the overview of the same night in headless Chromium, from the opening of the tab on; the middle of five",
        (0.5, 0.3, "s"),
        _PAINTED,
        number("longhaul/page_painted", "drawn", "something after {painted:.2f} s"),
    ),
    row(
        "page:paint-busy",
        "page, first paint beside a full run",
        "the same of a run whose jobs of 1 ms take both cores",
        (2.0, 1.0, "s"),
        _PAINTED,
        number("longhaul/page_painted", "beside", "something after {painted_beside:.2f} s"),
    ),
    row(
        "page:supervisor",
        "page, the supervisor",
        "what a supervisor of six workers in long jobs takes of a core more while its page is open",
        (0.1, 0.05, "%"),
        ("longhaul/page_open",),
        number("longhaul/page_open", "more_percent", "{open_percent:.3f} against {closed_percent:.3f} %"),
    ),
    row(
        "report",
        "report",
        "`longhaul report` of a night with 1,000,000 jobs on 64 workers, from the start of Python",
        (10.0, 7.0, "s"),
        ("longhaul/report",),
        number("longhaul/report", "seconds", "{cpu:.1f} s of CPU, peak memory {peak_mb:.0f} MB"),
    ),
    row(
        "report:size",
        "report, size",
        "the file",
        (10.0, 2.0, "MB"),
        ("longhaul/report",),
        number("longhaul/report", "megabytes", "all curves and failures, a sample of the rows"),
    ),
    row(
        "report:small",
        "report, 10,000 jobs",
        "the same of a night with 10,000 jobs on 16 workers",
        (1.0, 0.7, "s"),
        ("longhaul/report",),
        number(
            "longhaul/report", "small_seconds", "{small_cpu:.2f} s of CPU, peak memory {small_peak_mb:.0f} MB"
        ),
    ),
    row(
        "report:small-size",
        "report, 10,000 jobs, size",
        "the file",
        (2.0, 1.0, "MB"),
        ("longhaul/report",),
        number("longhaul/report", "small_megabytes", "each attempt singly"),
    ),
)
