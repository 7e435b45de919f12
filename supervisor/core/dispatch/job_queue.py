"""The queues that jobs wait in. Pure.

Served in this order:

1. jobs that were returned unstarted or interrupted;
2. jobs not tried yet, in the order of `job_order`;
3. jobs that get another attempt after an error (before untried jobs of a lower priority);
4. jobs that may take down more than their worker, one at a time with no other job beside them in their place.

The first three make a `Line`. Jobs of different needs have different lines, so that one that fits now is found
behind one that does not; `Line.head` says which of two lines has the earlier job. A job that has to wait (for disk
space, for its back-off) joins its line when its time has come. A job may be completed while it is queued, under a
lease that was revoked too late; such entries are skipped.
"""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile

from supervisor.core.state.columns import compact, get
from supervisor.core.terms.jobs import INTERRUPTED, PENDING

_READY = frozenset((PENDING, INTERRUPTED))
_FEW = 50  # lines that are put into their places one by one
Head = tuple[int, int, int, int]  # where the first job of a line stands among those of all lines


class Line:
    """Ready jobs of equal needs. `state` is the table's and is only read; `group_of`: of jobs that are never in a batch
    with others than those of their group, a number for it.

    closed: its jobs can never run with what there is; they stay where they are.
    """

    def __init__(self, state: bytearray, group_of: dict[int, int]) -> None:
        self.closed = False
        self._state = state
        self._group_of = group_of
        self._priorities: dict[int, int] = {}  # of the jobs that do not have 0
        self._first: deque[tuple[int, int]] = deque()  # (ticket, job)
        self._untried = array("I")
        self._positions: Sequence[int] = ()  # of the untried among those of all lines
        self._next = 0
        self._again: list[tuple[int, int, int]] = []  # heap of (-priority, ticket, job)
        self._retried: set[int] = set()  # jobs that were in it

    def line_up(self, jobs: array[int], positions: Sequence[int], priorities: dict[int, int]) -> None:
        self._untried, self._positions, self._next = jobs, positions, 0
        self._priorities = priorities

    def put_before(self, ticket: int, job: int) -> None:
        self._first.appendleft((ticket, job))

    def put_first(self, ticket: int, job: int) -> None:
        self._first.append((ticket, job))

    def put_again(self, ticket: int, job: int) -> None:
        heapq.heappush(self._again, (-self._priority(job), ticket, job))
        self._retried.add(job)

    def remove(self, jobs: set[int]) -> None:
        left = [place for place in range(self._next, len(self._untried)) if self._untried[place] not in jobs]
        self._positions = array("I", (self._positions[place] for place in left))
        self._untried = array("I", (self._untried[place] for place in left))
        self._next = 0
        self._first = deque(entry for entry in self._first if entry[1] not in jobs)
        self._again = [entry for entry in self._again if entry[2] not in jobs]
        heapq.heapify(self._again)

    def has_ready(self) -> bool:
        """Whether `take` would give something."""
        return not self.closed and self.has_waiting()

    def has_waiting(self) -> bool:
        """Whether there is a job, also in a closed line."""
        self._skip_stale()
        return bool(self._first or self._next < len(self._untried) or self._again)

    def size(self) -> int:
        """How many are ready; entries that will be skipped are counted too."""
        return 0 if self.closed else self.length()

    def length(self) -> int:
        """The same of a closed line, too."""
        return len(self._first) + len(self._untried) - self._next + len(self._again)

    def jobs(self) -> list[int]:
        """All that wait here, also in a closed line."""
        self._skip_stale()
        waiting = [job for _, job in self._first] + list(self._untried[self._next :])
        return [job for job in waiting + [entry[2] for entry in self._again] if self._state[job] in _READY]

    def head(self, skip: int = 0) -> Head:
        """Where its first job stands among those of all lines: the smallest goes first. Only if `has_ready`.

        skip: the job behind so many others instead, or the last one.
        """
        if skip < len(self._first):
            return 0, self._first[skip][0], 0, 0
        skip -= len(self._first)
        if self._again_is_next():
            priority, ticket, _ = self._again[0] if self._again else (0, 0, 0)
            return 1, priority, 1, ticket
        place = min(self._next + skip, len(self._untried) - 1)
        return 1, -self._priority(self._untried[place]), 0, self._positions[place]

    def behind(self, head: Head, jobs: Sequence[int]) -> int:
        """How many of these jobs, which were just taken from here, stood behind the head of another line: untried
        ones, and after these some that get another attempt. The first of them stood before it."""
        number, place = 0, self._next
        lowest = max(0, place - 2 * len(jobs))  # entries that were skipped are few
        for job in reversed(jobs):
            stood = (1, -self._priority(job), 1, 0)
            if job not in self._retried:
                place -= 1
                while place >= lowest and self._untried[place] != job:
                    place -= 1
                if place < lowest:
                    break
                stood = (1, -self._priority(job), 0, self._positions[place])
            if stood < head:
                break
            number += 1
        return number

    def take(self, count: int, *, empty_handed: bool) -> Sequence[int]:
        """Up to `count` jobs, fewer before a job of a group or behind the last one of it; a range if they are
        consecutive.

        Those of a group are only given to a worker that is `empty_handed`.
        """
        run = self._take_run(count) if self._untried_are_next() else []
        if len(run) == count:
            return run
        taken = self._take_singly(list(run), count, empty_handed)
        return compact(taken) if len(taken) > 1 else taken

    def _take_singly(self, taken: list[int], count: int, empty_handed: bool) -> list[int]:
        """Take jobs one by one from the queue whose turn it is."""
        while len(taken) < count and self.has_ready():
            job = self.peek()
            if (group := self._group_of.get(job)) is not None:
                if not taken and empty_handed:
                    self._take_group(group, taken, count)
                break
            self._pop()
            taken.append(job)
            if self._untried_are_next():
                taken.extend(self._take_run(count - len(taken)))
        return taken

    def _take_group(self, group: int, taken: list[int], count: int) -> None:
        """Take the next jobs, as long as they are of this group. One that two workers had is queued twice."""
        group_of = self._group_of
        if self._untried_are_next():  # as nearly always: none of these is queued twice
            untried = self._untried[self._next : self._next + count]
            run = list(takewhile(lambda job: group_of.get(job) == group, untried))
            self._next += len(run)
            taken.extend(job for job in run if self._state[job] in _READY)
        while len(taken) < count and self.has_ready() and group_of.get(job := self.peek()) == group:
            self._pop()
            if job not in taken:
                taken.append(job)

    def _untried_are_next(self) -> bool:
        """Whether no job of another queue goes before the untried ones, as nearly always."""
        return not (self._first or (self._priorities and self._again))

    def _take_run(self, count: int) -> Sequence[int]:
        """Up to `count` untried jobs, up to the first that is of a group; fewer if some have ended."""
        groups = self._group_of
        if groups and self._next < len(self._untried) and self._untried[self._next] in groups:
            return []  # else thousands would be looked at for nothing, for each message of a group
        if count == 1 and not groups and self._next < len(self._untried):
            job = self._untried[self._next]
            self._next += 1
            return [job] if self._state[job] in _READY else []
        run = compact(self._untried[self._next : self._next + count].tolist())
        if groups and not groups.keys().isdisjoint(run):
            run = list(takewhile(lambda job: job not in groups, run))
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

    def peek(self) -> int:
        """Its first job. Only if `has_waiting`."""
        if self._first:
            return self._first[0][1]
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
        while self._first and state[self._first[0][1]] not in _READY:
            self._first.popleft()
        while self._next < len(self._untried) and state[self._untried[self._next]] not in _READY:
            self._next += 1
        while self._again and state[self._again[0][2]] not in _READY:
            heapq.heappop(self._again)


class _LineOrder:
    """The lines with ready jobs, by their first jobs. There may be thousands of lines, so only those that were
    touched since are looked at when the order is asked for."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.touched = set(range(len(lines)))
        self._lines = lines
        self._heads: list[Head | None] = [None] * len(lines)  # as they stand in the order
        self._order: list[tuple[Head, int]] = []

    def get(self) -> Sequence[tuple[Head, int]]:
        """(head, kind) of each; where jobs of a line have ended since, it stands too early."""
        touched, self.touched = self.touched, set()
        if len(touched) > _FEW:
            for kind in touched:
                self._heads[kind] = self._head_of(kind)
            self._order = sorted((head, kind) for kind, head in enumerate(self._heads) if head is not None)
            return self._order
        for kind in touched:
            before, now = self._heads[kind], self._head_of(kind)
            if before == now:
                continue
            self._heads[kind] = now
            if before is not None:
                del self._order[bisect_left(self._order, (before, kind))]
            if now is not None:
                insort(self._order, (now, kind))
        return self._order

    def _head_of(self, kind: int) -> Head | None:
        line = self._lines[kind]
        return line.head() if line.has_ready() else None


class JobQueue:
    """Job numbers waiting for a worker; `state` is the table's and is only read.

    kind_of: the kind of needs of each job, if they differ; `lines` has a line for each of `kinds` kinds.
    """

    def __init__(self, state: bytearray, kind_of: Sequence[int] = (), kinds: int = 1) -> None:
        self._state = state
        self._kind_of = kind_of
        self._group_of: dict[int, int] = {}
        self._groups = 0  # how many there have been
        self.lines = [Line(state, self._group_of) for _ in range(kinds)]
        self._order = _LineOrder(self.lines) if kind_of else None
        self._ticket = 0
        self._front = 0  # the ticket of the last job that was put before all others
        self._only_alone: set[int] = set()  # jobs that were put there once
        self._alone: deque[int] = deque()
        self._aside: deque[int] = deque()  # jobs that must run alone, of closed lines
        self._waiting: list[tuple[float, int, bool]] = []  # heap of (not before, job, first)

    def _line(self, job: int) -> Line:
        """The line of a job, which is about to be changed."""
        if self._order is None:
            return self.lines[0]
        kind = self._kind_of[job]
        self._order.touched.add(kind)
        return self.lines[kind]

    def in_order(self) -> Sequence[tuple[Head, int]]:
        """(head, kind) of each line with ready jobs, as it was when this is called, the first first. Where jobs
        have ended since they were queued, a line stands too early, or is empty. Only if jobs differ in kind."""
        assert self._order is not None
        return self._order.get()

    def touch(self, kind: int) -> None:
        """The first job of this line is another one than `in_order` has it."""
        if self._order is not None:
            self._order.touched.add(kind)

    def _touch_all(self) -> None:
        if self._order is not None:
            self._order.touched.update(range(len(self.lines)))

    def line_up(self, jobs: Iterable[int], priorities: dict[int, int] | None = None) -> None:
        """Set the jobs of the run, in order of falling priority."""
        untried, priorities = array("I", jobs), priorities or {}
        if not self._kind_of:
            self.lines[0].line_up(untried, range(len(untried)), priorities)
            return
        parts = [(array("I"), array("I")) for _ in self.lines]
        for position, job in enumerate(untried):
            members, positions = parts[self._kind_of[job]]
            members.append(job)
            positions.append(position)
        for line, (members, positions) in zip(self.lines, parts, strict=True):
            line.line_up(members, positions, priorities)
        self._touch_all()

    def close(self, kinds: Collection[int]) -> None:
        """Close the lines of these kinds, and open all others."""
        for kind, line in enumerate(self.lines):
            line.closed = kind in kinds
        self._touch_all()
        alone = [*self._aside, *self._alone]
        self._aside = deque(job for job in alone if self._line(job).closed)
        self._alone = deque(job for job in alone if not self._line(job).closed)

    def of_closed_lines(self, elsewhere: Iterable[int] = ()) -> list[int]:
        """The jobs that cannot run with what there is. `elsewhere`: those that are not queued yet."""
        waiting = [job for line in self.lines if line.closed for job in line.jobs()]
        others = [*self._aside, *(entry[1] for entry in self._waiting), *elsewhere]
        return waiting + [job for job in others if self._line(job).closed and self._state[job] in _READY]

    def count_closed(self) -> tuple[int, int | None]:
        """(how many of these are queued, one of them), without a look at each: entries that would be skipped are
        counted too."""
        closed = [line for line in self.lines if line.closed and line.has_waiting()]
        aside = [job for job in self._aside if self._state[job] in _READY]
        first = closed[0].peek() if closed else aside[0] if aside else None
        return sum(line.length() for line in closed) + len(aside), first

    def put_back(self, jobs: Iterable[int]) -> None:
        """Jobs that were handed out but did not start, in the order of their leases."""
        for job in reversed(list(jobs)):
            if self._put_alone_again(job):
                continue
            self._front -= 1
            self._line(job).put_before(self._front, job)

    def put_first(self, job: int) -> None:
        if self._put_alone_again(job):
            return
        self._ticket += 1
        self._line(job).put_first(self._ticket, job)

    def put_again(self, job: int) -> None:
        if self._put_alone_again(job):
            return
        self._ticket += 1
        self._line(job).put_again(self._ticket, job)

    def put_alone(self, job: int) -> None:
        """From now on this job runs while no other one does in its place, whatever ends its attempts."""
        self._only_alone.add(job)
        (self._aside if self._line(job).closed else self._alone).append(job)

    def _put_alone_again(self, job: int) -> bool:
        """Whether this is one of those, which is queued then."""
        if job not in self._only_alone:
            return False
        self.put_alone(job)
        return True

    def put_later(self, job: int, not_before: float, *, first: bool = True) -> None:
        """Queue a job that may not start before a time on the run's clock; `first`: then at the front."""
        heapq.heappush(self._waiting, (not_before, job, first))

    def mark_single(self, job: int) -> None:
        """From now on hand this job out without others in the same lease message."""
        self.mark_group([job])

    def mark_group(self, jobs: Sequence[int]) -> None:
        """From now on hand these jobs out without others in the same lease message."""
        # A number of its own: a job may begin two groups, and then belongs to the later one.
        self._groups += 1
        self._group_of.update(dict.fromkeys(jobs, self._groups))

    def remove(self, jobs: set[int]) -> None:
        """Remove these jobs from every queue."""
        for line in self.lines:
            line.remove(jobs)
        self._touch_all()
        self._alone, self._aside = (
            deque(job for job in line if job not in jobs) for line in (self._alone, self._aside)
        )
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
        if self._order is None:
            return self.lines[0].has_ready()
        for _, kind in self._order.get():
            if self.lines[kind].has_ready():
                return True
            self._order.touched.add(kind)
        return False

    def has_any(self) -> bool:
        return self.has_ready() or self.has_alone() or bool(self._waiting)

    def has_alone(self) -> bool:
        while self._alone and self._state[self._alone[0]] not in _READY:
            self._alone.popleft()
        return bool(self._alone)

    def size(self) -> int:
        """How many are ready; entries that will be skipped are counted too."""
        return sum(line.size() for line in self.lines)

    def take(self, count: int, *, empty_handed: bool, kind: int = 0) -> Sequence[int]:
        """Jobs of one kind; see `Line.take`."""
        self.touch(kind)
        return self.lines[kind].take(count, empty_handed=empty_handed)

    def peek_alone(self) -> int:
        """The next job that must run alone. Only if `has_alone`."""
        return self._alone[0]

    def take_alone(self) -> int:
        return self._alone.popleft()
