"""The queues that jobs wait in. Pure.

Four queues, served in this order:

1. jobs that were returned unstarted or interrupted;
2. jobs not tried yet, in the order of `job_order`;
3. jobs that get another attempt after an error (before untried jobs of a lower priority);
4. jobs that may take down more than their worker, one at a time with no other job beside them.

A job that has to wait (for disk space, for its back-off) joins its queue when its time has come. A job may be
completed while it is queued, under a lease that was revoked too late; such entries are skipped.
"""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import takewhile

from supervisor.core.state.columns import compact, get
from supervisor.core.terms.jobs import INTERRUPTED, PENDING

_READY = frozenset((PENDING, INTERRUPTED))


class JobQueue:
    """Job numbers waiting for a worker; `state` is the table's and is only read."""

    def __init__(self, state: bytearray) -> None:
        self._state = state
        self._priorities: dict[int, int] = {}  # of the jobs that do not have 0
        self._first: deque[int] = deque()
        self._untried = array("I")
        self._next = 0
        self._again: list[tuple[int, int, int]] = []  # heap of (-priority, ticket, job)
        self._ticket = 0
        self._alone: deque[int] = deque()
        self._waiting: list[tuple[float, int, bool]] = []  # heap of (not before, job, first)
        self._single: set[int] = set()  # never in a batch with others

    def line_up(self, jobs: Iterable[int], priorities: dict[int, int] | None = None) -> None:
        """Set the jobs of the run, in order of falling priority."""
        self._untried = array("I", jobs)
        self._priorities = priorities or {}

    def put_back(self, jobs: Iterable[int]) -> None:
        """Jobs that were handed out but did not start, in the order of their leases."""
        self._first.extendleft(reversed(list(jobs)))

    def put_first(self, job: int) -> None:
        self._first.append(job)

    def put_again(self, job: int) -> None:
        self._ticket += 1
        heapq.heappush(self._again, (-self._priority(job), self._ticket, job))

    def put_alone(self, job: int) -> None:
        self._alone.append(job)

    def put_later(self, job: int, not_before: float, *, first: bool = True) -> None:
        """Queue a job that may not start before a time on the run's clock; `first`: then at the front."""
        heapq.heappush(self._waiting, (not_before, job, first))

    def mark_single(self, job: int) -> None:
        """From now on hand this job out without others in the same lease message."""
        self._single.add(job)

    def remove(self, jobs: set[int]) -> None:
        """Remove these jobs from every queue."""
        self._untried = array("I", (job for job in self._untried[self._next :] if job not in jobs))
        self._next = 0
        self._first, self._alone = (
            deque(job for job in line if job not in jobs) for line in (self._first, self._alone)
        )
        self._again = [entry for entry in self._again if entry[2] not in jobs]
        heapq.heapify(self._again)
        self._waiting = [entry for entry in self._waiting if entry[1] not in jobs]
        heapq.heapify(self._waiting)

    def waiting(self) -> int:
        """How many jobs wait for their time to come."""
        return len(self._waiting)

    def next_time(self) -> float | None:
        """When the next waiting job may go."""
        return self._waiting[0][0] if self._waiting else None

    def wake(self, now: float) -> None:
        """Queue the jobs whose time has come."""
        while self._waiting and self._waiting[0][0] <= now:
            _, job, first = heapq.heappop(self._waiting)
            if first:
                self.put_first(job)
            else:
                self.put_again(job)

    def has_ready(self) -> bool:
        """Whether `take` would give something (jobs that must run alone not counted)."""
        self._skip_stale()
        return bool(self._first or self._next < len(self._untried) or self._again)

    def has_any(self) -> bool:
        return self.has_ready() or self.has_alone() or bool(self._waiting)

    def has_alone(self) -> bool:
        while self._alone and self._state[self._alone[0]] not in _READY:
            self._alone.popleft()
        return bool(self._alone)

    def size(self) -> int:
        """How many are ready; entries that will be skipped are counted too."""
        return len(self._first) + len(self._untried) - self._next + len(self._again)

    def take(self, count: int, *, empty_handed: bool) -> Sequence[int]:
        """Up to `count` jobs, fewer before a job that must be leased singly; a range if they are consecutive.

        A single job is only given to a worker that is `empty_handed`.
        """
        run = self._take_run(count) if self._untried_are_next() else []
        return run if len(run) == count else self._take_singly(list(run), count, empty_handed)

    def _take_singly(self, taken: list[int], count: int, empty_handed: bool) -> list[int]:
        """Take jobs one by one from the queue whose turn it is."""
        while len(taken) < count and self.has_ready():
            job = self._peek()
            if job in self._single:
                if not taken and empty_handed:
                    self._pop()
                    taken.append(job)
                break
            self._pop()
            taken.append(job)
            if self._untried_are_next():
                taken.extend(self._take_run(count - len(taken)))
        return taken

    def take_alone(self) -> int:
        return self._alone.popleft()

    def _untried_are_next(self) -> bool:
        """Whether no job of another queue goes before the untried ones, as nearly always."""
        return not (self._first or (self._priorities and self._again))

    def _take_run(self, count: int) -> Sequence[int]:
        """Up to `count` untried jobs, up to the first that must be leased singly; fewer if some have ended."""
        single = self._single
        run = compact(self._untried[self._next : self._next + count].tolist())
        if single and not single.isdisjoint(run):
            run = list(takewhile(lambda job: job not in single, run))
        self._next += len(run)
        if bytes(get(self._state, run)).count(PENDING) == len(run):
            return run
        return [job for job in run if self._state[job] in _READY]

    def _priority(self, job: int) -> int:
        return self._priorities.get(job, 0) if self._priorities else 0

    def _again_is_next(self) -> bool:
        """Whether a job that gets another attempt goes before the next untried one."""
        if self._next >= len(self._untried):
            return True
        if not (self._priorities and self._again):
            return False
        return -self._again[0][0] > self._priority(self._untried[self._next])

    def _peek(self) -> int:
        if self._first:
            return self._first[0]
        return self._again[0][2] if self._again_is_next() else self._untried[self._next]

    def _pop(self) -> None:
        if self._first:
            self._first.popleft()
        elif self._again_is_next():
            heapq.heappop(self._again)
        else:
            self._next += 1

    def _skip_stale(self) -> None:
        state = self._state
        while self._first and state[self._first[0]] not in _READY:
            self._first.popleft()
        while self._next < len(self._untried) and state[self._untried[self._next]] not in _READY:
            self._next += 1
        while self._again and state[self._again[0][2]] not in _READY:
            heapq.heappop(self._again)
