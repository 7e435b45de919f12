"""The jobs of a large plan in columns, so that a resume need not read its lines one by one.

A resume needs ids, domains and the lengths of the lines, not the parameters. `logs/jobs_<id>.json` has them in one
line of JSON: a million jobs are read in a fifth of the time that the plan's lines take.

    {"n":1000000,...,"size":...,"ids":[...],"domains":[...],"domain_of":...,"lengths":...,"crc":"xxxxxxxx"}

It is only a cache, neither synced nor needed. Its CRC begins with the CRC-32 of all bytes of the plan: the line of
another plan, or of what this plan was before, does not verify, nor does a torn one. The lines of the plan
(`PlanFile.read`) are the reference.
"""

from __future__ import annotations

import contextlib
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.storage.files.atomic_files import checksum, read_cache, write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_format import seal, verify

FORMAT = "longhaul-jobs-1"
ENOUGH = 250_000  # jobs; the lines of fewer are read quickly, and it takes a run a tenth of a second a million to write
_LAYOUT = [sys.byteorder, array("I").itemsize]


class _Columns(msgspec.Struct):
    """The line. size: of the plan in bytes. domains: names by number; 0 is "no domain". domain_of: by job number.
    lengths: of the plan's lines with their newlines."""

    n: int
    format: str
    layout: list[Any]
    size: int
    ids: list[str]
    domains: list[str]
    domain_of: bytes
    lengths: bytes


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Columns)


def write_columns(disk: Disk, path: Path, plan_fd: int, table: JobTable, lengths: Sequence[int]) -> None:
    """Write those of a plan that has exactly one line for each job, in the order of the table; a failure is ignored.
    Nothing is written for fewer jobs than `ENOUGH`."""
    if len(table) < ENOUGH:
        return
    size = sum(lengths)
    columns = _Columns(
        len(table),
        FORMAT,
        _LAYOUT,
        size,
        table.ids,
        table.domains,
        table.domain_of.tobytes(),
        array("I", lengths).tobytes(),
    )
    with contextlib.suppress(OSError):
        seed = checksum(disk, plan_fd, size)
        if seed is not None:
            line, _ = seal([_encoder.encode(columns)[:-1]], seed)
            write_atomically(disk, path, [line], durable=False)


def read_columns(disk: Disk, path: Path, plan_fd: int, table: JobTable) -> array[int] | None:
    """Register the plan's jobs in an empty table, as wanted; the lengths of their lines. None if there are no columns
    of exactly this plan: then nothing was registered."""
    text = read_cache(disk, path)
    if text is None:
        return None
    size = disk.size(plan_fd)
    seed = checksum(disk, plan_fd, size)
    if seed is None or not verify(memoryview(text)[:-1], seed):
        return None
    try:
        columns = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if columns.format != FORMAT or columns.layout != _LAYOUT or columns.size != size:
        return None
    table.add_columns(columns.ids, columns.domains, array("I", columns.domain_of))
    return array("I", columns.lengths)
