"""The first jobs of a large experiment as its index has them, for onlookers who wait while all of it is read.

The index and the plan's first lines take some hundredths of a second. Nothing is checked against the journal, and what
came after the checkpoint is missing: `survey` tells how it is.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.storage.checkpoint.checkpoint_format import told_crc
from supervisor.storage.checkpoint.journal_index import Index
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.plan.plan_file import first_entries


class FirstJobs(NamedTuple):
    """table: of the first jobs of the plan alone. total: jobs of the plan when the index was written."""

    table: JobTable
    total: int


def first_jobs(layout: Layout, most: int, disk: Disk | None = None) -> FirstJobs | None:
    """None if there is no index, or not one of this checkpoint, or if the plan does not begin with so many jobs."""
    disk = disk or Disk()
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError):
        index = Index.read(disk, layout.index)
        if index is None or index.checkpoint != told_crc(disk, layout.checkpoint):
            return None
        entries = first_entries(disk, layout.plan, min(most, index.jobs))
        table = JobTable()
        names = [one.id for one in entries]
        if len(names) < min(most, index.jobs) or any(one.gone for one in entries):
            return None
        if table.add_planned(names, [one.domain for one in entries]):
            index.load_first(table)
            return FirstJobs(table, index.jobs)
    return None
