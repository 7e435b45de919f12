"""Where the files of an experiment are, what an experiment may be called, which there are.

What stands in the files is not known here, but for when they were last written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from supervisor.core.errors import StorageError, UsageError
from supervisor.records.disk import Disk

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_BACKUP = re.compile(r".*\.backup(-\d+)?")
_FILE = re.compile(r"(?:checkpoint_(.+)\.json|journal_(.+)\.jsonl)")
_AT = re.compile(rb'"at":"([^"\\]+)"')
_TAIL = 64 << 10  # bytes at the end of a journal in which a time is looked for
_WORDS = ("latest", "auto", "logs")


def check_id(text: str) -> str:
    """`text` if it may be the id of an experiment; UsageError that says what is wrong."""
    advice = "use letters, digits and . _ - such as experiment_20251014_210000"
    if not text:
        raise UsageError(f"an experiment id must not be empty: {advice}")
    if len(text) > 100:
        raise UsageError(
            f"experiment id {text[:30]!r}... has {len(text)} characters; at most 100 are allowed"
        )
    if not _ID.fullmatch(text):
        raise UsageError(
            f"experiment id {text!r} cannot be a file name everywhere: {advice}, no . or - in front"
        )
    if text in _WORDS:
        raise UsageError(f"experiment id {text!r} is taken: it has a meaning of its own; choose another one")
    if is_backup(text):
        raise UsageError(f"experiment id {text!r} ends like the name of a backup; choose another one")
    return text


def is_backup(stem: str) -> bool:
    """Whether the part of a file name where the id stands marks a backup."""
    return _BACKUP.fullmatch(stem) is not None


class Layout:
    """The paths of one experiment under `directory` (data/outputs/<name>), absolute."""

    def __init__(self, directory: Path | str, experiment_id: str) -> None:
        self.directory = Path(os.path.realpath(directory))
        self.experiment_id = experiment_id

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def journal(self) -> Path:
        return self.logs / f"journal_{self.experiment_id}.jsonl"

    @property
    def plan(self) -> Path:
        return self.logs / f"plan_{self.experiment_id}.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.logs / f"checkpoint_{self.experiment_id}.json"

    @property
    def index(self) -> Path:
        return self.logs / f"index_{self.experiment_id}.json"

    @property
    def progress(self) -> Path:
        return self.logs / f"progress_{self.experiment_id}.json"

    @property
    def lock(self) -> Path:
        return self.logs / f"lock_{self.experiment_id}"

    @property
    def console(self) -> Path:
        """What a run in the background (--detach) says."""
        return self.logs / f"console_{self.experiment_id}.log"

    @property
    def supervisor_log(self) -> Path:
        return self.results_directory / "supervisor.log"

    @property
    def results_directory(self) -> Path:
        return self.directory / self.experiment_id

    @property
    def final(self) -> Path:
        return self.results_directory / "logs_final.json"

    @property
    def statistics(self) -> Path:
        return self.results_directory / "statistics.json"

    @property
    def output_directory(self) -> Path:
        return self.results_directory / "output"

    @property
    def jobs_directory(self) -> Path:
        return self.results_directory / "jobs"

    @property
    def states_directory(self) -> Path:
        return self.results_directory / "states"

    def exists(self) -> bool:
        """Whether there is an experiment of this id, usable or not."""
        return os.path.lexists(self.journal) or os.path.lexists(self.checkpoint)

    def taken(self) -> bool:
        """Whether there is anything of this id: also results that nothing was recorded of
        (--no-resume), which a new experiment would overwrite."""
        return self.exists() or os.path.lexists(self.results_directory)


def experiments(directory: Path | str) -> list[str]:
    """The ids of the experiments in `directory`, that which was saved last first.

    Found by checkpoint or journal; backups do not count. The times are those that stand
    in the files: copying a directory changes the others. Raises StorageError.
    """
    logs = os.path.join(os.path.realpath(directory), "logs")
    try:
        names = os.listdir(logs)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageError(
            f"the directory {logs} cannot be read: {error.strerror or error}. Nothing was changed; "
            f"make it readable or see to the disk, then start again."
        ) from None
    found = {match.group(1) or match.group(2) for match in map(_FILE.fullmatch, names) if match}
    layouts = [Layout(directory, experiment_id) for experiment_id in found if not is_backup(experiment_id)]
    layouts.sort(key=lambda layout: (last_saved(layout), layout.experiment_id), reverse=True)
    return [layout.experiment_id for layout in layouts]


def last_saved(layout: Layout) -> str:
    """When something was last recorded, by the files' own word: ISO 8601; "" if none tells."""
    from supervisor.records.checkpoint import peek

    header = peek(Disk(), layout.checkpoint)
    saved = header.saved_at if header is not None else ""
    try:
        with layout.journal.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            times = _AT.findall(file.read())
    except OSError:
        times = []
    # The records' own times: one inside a result could be anything, but hardly a later one.
    return max([saved, times[-1].decode(errors="replace") if times else ""])
