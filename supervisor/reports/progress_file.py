"""The progress of a run, for other programs to look at: one small JSON document.

It is replaced as a whole (on a full disk overwritten) and never synced: after a power cut it may be wrong. A
failure to write it does not end a run.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from datetime import datetime

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot, NeedsSnapshot, NodeSnapshot, RunSnapshot
from supervisor.core.terms.errors import UnusableCheckpoint
from supervisor.core.terms.jobs import Counts
from supervisor.storage.files.atomic_files import NO_SPACE, resolved, write_atomically
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.system.clock import utc_now

OVER = ("finished", "unfinished", "interrupted")


class ProgressWorker(msgspec.Struct):
    """A worker as the progress file has it."""

    worker: int
    pid: int = 0
    job: str | None = None
    since: str | None = None
    attempt: int = 0
    incarnation: int = 0
    rss_bytes: int = 0
    cpu_percent: float = 0.0
    fraction: float | None = None
    slow: bool = False
    place: str | msgspec.UnsetType = msgspec.UNSET  # the node, if there are several


class ProgressSupervisor(msgspec.Struct):
    """Whose progress it is."""

    pid: int = 0
    host: str = ""


class Progress(msgspec.Struct):
    """The fields of `progress_<id>.json` that are read back."""

    experiment_id: str
    state: str
    counts: Counts
    name: str = ""
    saved_at: str = ""
    rate: float = 0.0
    eta_seconds: float | None = None
    elapsed_seconds: float = 0.0
    waiting_for: str = ""
    supervisor: ProgressSupervisor = msgspec.field(default_factory=ProgressSupervisor)
    control: str | None = None  # the socket for `longhaul ctl`
    workers: list[ProgressWorker] = []
    recent_failures: list[FailureSnapshot] = []
    retries: int = 0  # of the whole experiment, as are the next two
    crashes: int = 0
    timeouts: int = 0
    unselected: int = 0  # jobs that --only leaves out
    grace_left: float | None = None  # seconds, while the run is being stopped
    checkpoint_age: float | None = None  # seconds
    disk_free: int | None = None  # bytes, where the experiment is
    memory_free: int | None = None  # bytes
    memory_total: int | None = None
    needs: NeedsSnapshot | msgspec.UnsetType = msgspec.UNSET  # if jobs say what they need
    nodes: list[NodeSnapshot] | msgspec.UnsetType = msgspec.UNSET  # if there are several machines


def seconds_since(at: str, now: datetime | str) -> float | None:
    """Between two instants, ISO 8601; None if one cannot be read."""
    try:
        then = datetime.fromisoformat(at)
        now = datetime.fromisoformat(now) if isinstance(now, str) else now
    except ValueError:
        return None
    return (now - then).total_seconds() if then.tzinfo is not None and now.tzinfo is not None else None


def read_progress(layout: Layout) -> Progress | None:
    """None if there is no usable progress file: after a power cut its content may be wrong."""
    try:
        return msgspec.json.decode(layout.progress.read_bytes(), type=Progress)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableCheckpoint(
            f"{layout.progress} cannot be read: {error.strerror}. Make it readable, then try again."
        ) from None
    except msgspec.DecodeError:
        return None


# States that only the end of a run knows, and how the file names them.
_STATES = {"stopped": "interrupted"}


_AS_THEY_ARE = (
    "retries",
    "crashes",
    "timeouts",
    "unselected",
    "grace_left",
    "checkpoint_age",
    "disk_free",
    "memory_free",
    "memory_total",
)


class ProgressFile:
    """Writes `progress_<id>.json`; the caller sees to it that this is once a second at most."""

    def __init__(self, layout: Layout, disk: Disk | None = None) -> None:
        self._path = layout.progress
        self._disk = disk or Disk()
        self.control: str | None = None  # the socket for `longhaul ctl`
        self._supervisor = {"pid": os.getpid(), "host": socket.gethostname()}

    def write(self, snapshot: RunSnapshot, failures: Sequence[FailureSnapshot]) -> bool:
        """False if the file could not be written."""
        document = {
            "experiment_id": snapshot.experiment_id,
            "name": snapshot.name,
            "state": _STATES.get(snapshot.state, snapshot.state),
            "saved_at": utc_now(),
            "counts": snapshot.counts,
            "gone": snapshot.gone,
            "domains": snapshot.domains,
            "rate": snapshot.rate,
            "eta_seconds": snapshot.eta_seconds,
            "elapsed_seconds": snapshot.elapsed,
            "waiting_for": snapshot.waiting_for,
            **{name: getattr(snapshot, name) for name in _AS_THEY_ARE},
            "supervisor": self._supervisor,
            "control": self.control,
            "workers": [_worker(worker) for worker in msgspec.to_builtins(snapshot.workers)],
            "recent_failures": failures,
        }
        if snapshot.needs is not None:
            document["needs"] = snapshot.needs
        if snapshot.nodes is not None:
            document["nodes"] = [_node(node) for node in snapshot.nodes]
        try:
            text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
            self._replace(text)
        except (OSError, UnicodeEncodeError):
            return False
        return True

    def _replace(self, text: bytes) -> None:
        try:
            write_atomically(self._disk, self._path, [text], durable=False)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._write_over(text)

    def _write_over(self, text: bytes) -> None:
        """Overwrite the file in place: a full disk has no room for a second file, and readers need to see
        that state. One call, within the blocks that the file has, so that readers see no half document. What
        is left of a longer document becomes blanks."""
        fd = self._disk.open(resolved(self._path), os.O_WRONLY)
        try:
            if len(text) > os.fstat(fd).st_blocks * 512:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._disk.write(fd, text.rstrip(b"\n").ljust(self._disk.size(fd) - 1) + b"\n")
        finally:
            self._disk.close(fd)


def _worker(worker: dict[str, object]) -> dict[str, object]:
    keys = ("worker", "pid", "incarnation", "status", "job", "attempt", "since", "rss_bytes", "cpu_percent")
    more = ("fraction", "metrics", "slow") if worker["job"] is not None else ()
    where = ("place",) if worker["place"] else ()
    return {key: worker[key] for key in (*keys, *more, *where)}


def _node(node: NodeSnapshot) -> dict[str, object]:
    return {key: getattr(node, key) for key in NodeSnapshot.__struct_fields__ if key != "place"}
