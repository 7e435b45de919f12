"""The directory of an agent for what its workers write, where no file system is shared."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile

import msgspec

from supervisor.core.terms.errors import WorkersError
from supervisor.system.confined_tree import remove_tree
from workers.transport.messages import WorkerSpec

_PREFIX, _LOCK = "longhaul-node-", "agent.lock"


class NodeScratch:
    """A temporary directory. The lock in it ends with the agent, however that ends: then the next agent on the same
    machine removes the directory."""

    def __init__(self) -> None:
        """Raises WorkersError."""
        self._numbers = 0
        try:
            remove_abandoned(tempfile.gettempdir())
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(os.path.join(self.path, _LOCK), flags, 0o600)
            with contextlib.suppress(
                OSError
            ):  # no locks in this file system: then nobody takes it for abandoned
                fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise WorkersError(
                f"no directory for the files of jobs can be made on the node: {error}; TMPDIR says where"
            ) from error

    def spec_for(self, spec: WorkerSpec) -> WorkerSpec:
        """The spec of a worker with directories of its own: what two workers write never meets."""
        own = os.path.join(self.path, f"worker-{spec.incarnation}")
        return msgspec.structs.replace(
            spec,
            output_directory=os.path.join(own, "output"),
            jobs_directory=os.path.join(own, "jobs"),
            states_directory=os.path.join(own, "states"),
        )

    def remove_worker(self, incarnation: int) -> None:
        remove_tree(os.path.join(self.path, f"worker-{incarnation}"))

    def aside(self) -> str:
        """A new path on the file system of the workers' directories, for a parcel or for what is to be removed."""
        self._numbers += 1
        return os.path.join(self.path, f"aside-{self._numbers}")

    def close(self) -> None:
        remove_tree(self.path)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def remove_abandoned(directory: str) -> None:
    """Remove the scratch directories of agents that were killed. Those of other users stay."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and _is_abandoned(entry.path):
                remove_tree(entry.path)


def _is_abandoned(path: str) -> bool:
    try:
        if os.stat(path, follow_symlinks=False).st_uid != os.getuid():
            return False
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # an agent has just made it, or it is none
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
