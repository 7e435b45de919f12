"""The leases that a worker process was sent, and which of them it still holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from workers.transport.messages import Run


class RunningJob(msgspec.Struct):
    job_id: str
    attempt: int
    lease: int


class _LineId(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_LineId).decode


def job_ids(run: Run) -> Iterator[str]:
    """The ids of its jobs, in order."""
    return (_decode_id(line).id for line in run.lines.split(b"\n"))


class SentLeases:
    """The leases that a worker still holds, as far as its messages have been read.

    The engine's own account, for the job whose output and stack it collects when a worker dies, and for when a
    worker may be asked to finish. `WorkerState.leases` of the core lags behind: events are not yet handled.
    Lease numbers rise with every hand-out, and a worker ends its leases in order, so one number tells
    which have ended.
    """

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._done = -1
        self._dropped: set[int] = set()
        self._split: tuple[Run, list[bytes]] | None = None  # the lines of the run that was asked for last

    def sent(self, run: Run) -> None:
        self._runs.append(run)

    def finished(self, lease: int) -> None:
        """This lease and all before it have ended."""
        self._done = max(self._done, lease)
        runs = self._runs
        while runs and runs[0].first_lease + len(runs[0].attempts) - 1 <= self._done:
            runs.popleft()
        if not runs:
            self._dropped.clear()

    @property
    def last(self) -> int:
        """The last lease that has ended; -1 if none has."""
        return self._done

    def held(self) -> int:
        """How many have no end, those that were dropped included."""
        runs = self._runs
        if not runs:
            return 0
        ended = max(0, self._done + 1 - runs[0].first_lease)  # runs that have ended as a whole are not kept
        return sum([len(run.attempts) for run in runs]) - ended

    def dropped(self, leases: list[int]) -> None:
        self._dropped.update(leases)

    def _first(self) -> tuple[Run, int] | None:
        """The run and the index of the first lease without an end."""
        for run in self._runs:
            for index in range(max(0, self._done + 1 - run.first_lease), len(run.attempts)):
                if run.first_lease + index not in self._dropped:
                    return run, index
        return None

    def first(self) -> int | None:
        """The first lease without an end: the one that the worker runs, or will run next."""
        first = self._first()
        return None if first is None else first[0].first_lease + first[1]

    def idle(self) -> bool:
        return self._first() is None

    def running(self) -> RunningJob | None:
        """The job that the worker runs, if it runs one."""
        first = self._first()
        if first is None:
            return None
        return self._job(*first)

    def job_of(self, lease: int) -> RunningJob | None:
        """The job of a lease that has not ended before the last one that `finished` was told of."""
        for run in self._runs:
            if run.first_lease <= lease < run.first_lease + len(run.attempts):
                return self._job(run, lease - run.first_lease)
        return None

    def _job(self, run: Run, index: int) -> RunningJob | None:
        if self._split is None or self._split[0] is not run:
            self._split = run, run.lines.split(b"\n")
        try:
            job_id = _decode_id(self._split[1][index]).id
            return RunningJob(job_id, run.attempts[index], run.first_lease + index)
        except (msgspec.MsgspecError, IndexError):
            return None
