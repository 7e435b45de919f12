"""Pieces of what a job printed and of the supervisor's log, from any position on; huge files are never read whole."""

from __future__ import annotations

import os
from typing import Any

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.wording import printed_lines
from supervisor.experiment.experiment_status import is_running
from supervisor.reports.progress_file import seconds_since
from supervisor.storage.files.layout import Layout
from supervisor.web.experiment_catalogue import progress_of
from workers.isolation.output_files import log_path, scratch_path

MOST_BYTES = 256 << 10
_SETTLED = 1.0  # seconds; before that the scratch file may still be the previous job's


def parse_position(text: str) -> int | None:
    """Bytes from the start; None for the end of the file, less one piece. Raises UsageError."""
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(f"from={text!r}: expected a number of bytes")
    return int(text)


def log_document(layout: Layout, position: int | None) -> dict[str, Any]:
    return _piece(str(layout.supervisor_log), position)


def output_document(layout: Layout, job_id: str, position: int | None) -> dict[str, Any]:
    """What is in the job's log; while an attempt runs, what that has printed so far (`live`: its number)."""
    directory = str(layout.output_directory)
    scratch, attempt = _scratch(layout, job_id)
    if scratch:
        found = _piece(scratch, position)
        # It has become the log since, or never was: the log tells.
        if os.path.exists(scratch):
            return {**found, "live": attempt, "earlier": os.path.exists(log_path(directory, job_id))}
    return {**_piece(log_path(directory, job_id), position), "live": 0, "earlier": False}


def _scratch(layout: Layout, job_id: str) -> tuple[str, int]:
    progress = progress_of(layout)
    for worker in progress.workers if progress is not None else ():
        if worker.job == job_id and worker.incarnation and progress is not None:
            age = seconds_since(worker.since or "", progress.saved_at)
            if age is not None and age >= _SETTLED and is_running(layout):
                directory = str(layout.output_directory)
                return scratch_path(directory, worker.worker, worker.incarnation), worker.attempt
    return "", 0


def _piece(path: str, position: int | None) -> dict[str, Any]:
    """from, next: positions in bytes. A line that a piece would cut stays for the next one if it has a beginning here.
    total: bytes of the file. complete: nothing follows for now."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - MOST_BYTES) if position is None else min(position, size)
            file.seek(start)
            data = file.read(MOST_BYTES)
            if position is None and start:
                skipped = data.find(b"\n") + 1
                start, data = start + skipped, data[skipped:]
    except OSError:
        return {"text": "", "from": 0, "next": 0, "total": 0, "complete": True, "exists": False}
    more = start + len(data) < size
    if more and (end := data.rfind(b"\n") + 1):
        data = data[:end]
    following = start + len(data)
    lines = "\n".join(printed_lines(data.decode(errors="replace")))
    if data.endswith(b"\n"):
        lines += "\n"
    return {
        "text": lines,
        "from": start,
        "next": following,
        "total": size,
        "complete": following >= size,
        "exists": True,
    }
