"""`Engine`: the interface between the loop and what runs workers.

The core and the loop use these methods only, so an engine for several machines can be added without a change
there. Only `close` blocks. Orders for an incarnation that is dead already are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from supervisor.core.terms.events import Event
from supervisor.system.capacity.host_use import HostUse
from supervisor.system.resource_usage import Usage
from workers.transport.messages import Run


class HostSeen(NamedTuple):
    """A place as it was seen last. age: seconds since anything was heard of it."""

    use: HostUse
    age: float


class Engine(Protocol):
    def fileno(self) -> int:
        """A descriptor that is readable when `poll` has something to do."""

    def start(self) -> None:
        """Prepare to start workers (launch the zygote). Raises LonghaulError."""

    def start_worker(
        self,
        slot: int,
        incarnation: int,
        devices: tuple[str, ...] | None = None,
        *,
        place: int = 0,
        local_slot: int = -1,
    ) -> None:
        """Answered by WorkerLaunched or WorkerStartFailed, then WorkerReady or WorkerDied. The arguments are those of
        `StartWorker`."""

    def lease_jobs(self, incarnation: int, message: Run) -> None: ...

    def revoke(self, incarnation: int, leases: Sequence[int]) -> None: ...

    def stop_worker(self, incarnation: int) -> None:
        """Let it finish and exit; it is killed if it has not gone 2 s after its last job."""

    def kill_worker(self, incarnation: int, *, stack: bool = False) -> None:
        """`stack`: first let it write its stack, if that takes less than a third of a second."""

    def signal_worker(self, incarnation: int, signum: int) -> None: ...

    def poll(self, now: float) -> list[Event]:
        """What has happened since the last call, in order. `now`: the loop's clock."""

    def pressing(self) -> bool:
        """Whether a message is being sent or received that does not fit into a pipe at once."""

    def next_deadline(self) -> float | None:
        """When `poll` wants to be called even if nothing happens (the loop's clock)."""

    def usage(self) -> dict[int, Usage]:
        """RSS and CPU by incarnation, since the last call. Costs a few syscalls each."""

    def memory(
        self, limit: int | None, limits: Mapping[int, int] | None, *, available: bool
    ) -> tuple[dict[int, int], int | None]:
        """Bytes that workers hold, descendants included, by incarnation (empty without limits), and bytes
        available on this machine (None unless `available`). Called several times a second.

        limit: bytes for each worker, None if there is none. limits: by incarnation, where it is not `limit`;
        None if no job has a limit of its own."""

    def available_on_places(self) -> dict[int, int] | None:
        """Bytes available on each of several places, by number, as far as that is known; None: this machine alone."""

    def left_behind(self) -> dict[int, tuple[int, int]]:
        """By incarnation: the lease before which it was last idle, and how many bytes earlier jobs had
        left in it by then. Known only if there is a limit, and only of workers that were idle."""

    def hosts(self) -> dict[int, HostSeen]:
        """What was heard last of each place, by its number; nothing of this machine alone."""

    def stop_workers(self, *, suspend: bool) -> None:
        """Ctrl+Z: stop (True) or continue (False) all worker processes."""

    def close(self) -> None:
        """End every process that this engine started or adopted; bounded to 5 s."""
