"""One worker process as the local engine sees it, and the leases that it holds."""

from __future__ import annotations

from collections import deque
from multiprocessing.connection import Connection

import msgspec

from supervisor.engines.launching import Reaped, WorkerEnds
from workers.messages import Run, WorkerSpec
from workers.queues import FrameWriter, Outbox, pipe_pair


class RunningJob(msgspec.Struct):
    job_id: str
    attempt: int


class _PlanLine(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_PlanLine).decode


class LeaseBook:
    """Which leases a worker still holds. Lease numbers rise with every hand-out, and a
    worker ends its leases in order, so that one number says what is done."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._done = -1
        self._dropped: set[int] = set()

    def sent(self, run: Run) -> None:
        self._runs.append(run)

    def finished(self, lease: int) -> None:
        """This one, and with it all before it."""
        self._done = max(self._done, lease)
        runs = self._runs
        while runs and runs[0].first_lease + len(runs[0].attempts) - 1 <= self._done:
            runs.popleft()
        if not runs:
            self._dropped.clear()

    def dropped(self, leases: list[int]) -> None:
        self._dropped.update(leases)

    def _first(self) -> tuple[Run, int] | None:
        """The run and the index of the first lease without an end."""
        for run in self._runs:
            for index in range(max(0, self._done + 1 - run.first_lease), len(run.attempts)):
                if run.first_lease + index not in self._dropped:
                    return run, index
        return None

    def idle(self) -> bool:
        return self._first() is None

    def running(self) -> RunningJob | None:
        """The job that the worker is at, if it is at one."""
        first = self._first()
        if first is None:
            return None
        run, index = first
        try:
            return RunningJob(_decode_id(run.lines.split(b"\n")[index]).id, run.attempts[index])
        except (msgspec.MsgspecError, IndexError):
            return None


class Incarnation:
    """One worker process, from the order to start it until it is confirmed dead.

    Times are on the loop's clock; None means "not yet", and for deadlines that begin with
    an order from outside, where the time is not known, the next `poll` fills them in.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.number = spec.incarnation
        self.leases = LeaseBook()
        self.pid = 0
        self.pidfd: int | None = None
        self.ready = False
        self.kill_asked = False
        self.killed_at: float | None = None
        self.given_up = False
        self.finish_asked = False
        self.idle_since: float | None = None
        self.dead_at: float | None = None
        self.reaped: Reaped | None = None
        self.note = ""  # why the engine itself has ended it
        self.connect()

    def connect(self) -> None:
        """Make the queues. Raises OSError when there are no descriptors left."""
        inbox_end, self._inbox = pipe_pair()
        try:
            self._outbox, outbox_end = pipe_pair()
        except OSError:
            inbox_end.close()
            self._inbox.close()
            raise
        self.ends = WorkerEnds(inbox_end, outbox_end)
        self.inbox = FrameWriter(self._inbox.fileno())
        self.outbox = Outbox(self._outbox.fileno())

    @property
    def inbox_end(self) -> Connection:
        """Our end of what the worker is told."""
        return self._inbox

    @property
    def outbox_end(self) -> Connection:
        """Our end of what the worker says."""
        return self._outbox

    def disconnect(self) -> None:
        self._inbox.close()
        self._outbox.close()
