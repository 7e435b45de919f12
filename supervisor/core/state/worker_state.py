"""Workers and their leases, as the core sees them. Pure.

The states of one worker process (an incarnation; slots are reused, incarnation numbers never):

    STARTING ──ready──▶ READY ──stopped──▶ STOPPING ──died──▶ (gone)
        │                 │                    │
        └─────────────────┴─────killed─────────┴──▶ DOOMED ──died──▶ (gone)
                                                      └──given up──▶ ABANDONED ──died──▶ (gone)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from typing import Any, overload

import msgspec

from supervisor.core.state.columns import compact
from supervisor.core.terms.needs import Amounts

STARTING, READY, STOPPING, DOOMED, ABANDONED = "starting", "ready", "stopping", "doomed", "abandoned"


class KillReason(msgspec.Struct, frozen=True):
    """Why a worker was killed, and the outcome that the attempt under `lease` gets."""

    outcome: str
    lease: int
    message: str = ""  # for the record, if the outcome alone does not say it


class Holding(msgspec.Struct, frozen=True):
    """What a worker's running job has been given: its kind, amounts, and the numbers of its devices in its
    place."""

    kind: int
    amounts: Amounts
    devices: tuple[int, ...] = ()
    place: int = 0


class JobReport(msgspec.Struct):
    """What the job under `lease` has reported; `at`: when, on the run's clock."""

    lease: int
    fraction: float | None
    metrics: dict[str, Any]
    at: float


MOST_METRICS = 32  # of one job that are kept


class WorkerState:
    """One incarnation. `leases`: (lease, job number) in hand-out order; the first is of the job that runs."""

    __slots__ = (
        "slot",
        "incarnation",
        "status",
        "pid",
        "leases",
        "revoked",
        "withdrawing",
        "leaving",
        "since",
        "begun",
        "since_at",
        "handed",
        "first_lease",
        "finished",
        "kill_reason",
        "error",
        "no_space",
        "process_start",
        "_report",
        "busy_at",
        "memory",
        "seen",
        "slow",
        "stall_reported_lease",
        "devices",
        "place",
        "holding",
        "_changes",
    )

    def __init__(self, slot: int, incarnation: int, devices: tuple[int, ...] = (), place: int = 0) -> None:
        self.slot = slot
        self.place = place
        self.devices = devices  # GPUs that its process sees, by number
        self.holding: Holding | None = None  # what its jobs were given, or will be when it is ready
        self.incarnation = incarnation
        self.status = STARTING
        self.pid = 0
        self.process_start = 0.0
        self.leases = Leases()
        self.revoked: set[int] = set()  # leases whose revocation is not acknowledged yet
        self.withdrawing: set[int] = set()  # of these, those that may start yet: their jobs are still its own
        self.leaving = False  # it returns its leases without having been asked to
        self.since = (
            0.0  # when the outcome before its first lease was read: the job began then or earlier (run clock)
        )
        self.begun = 0.0  # when it probably began, by the durations of the jobs before it
        self.since_at = ""
        self.handed = 0  # leases ever handed to it, minus revoked ones
        self.first_lease = 0  # that was handed to it
        self.finished = 0  # outcomes
        self.kill_reason: KillReason | None = None
        self._report: JobReport | None = None
        self.busy_at = 0.0  # when it was last seen to use the CPU (run clock)
        self.memory = 0  # bytes, when it was over its limit
        self.seen: tuple[int, int] | None = None  # a lease, and bytes at the first measurement during it
        self.slow = 0  # the lease that takes much longer than others
        self.stall_reported_lease = 0  # the lease that was reported as stalled
        self.error = ""  # why it never got ready
        self.no_space = False  # it never got ready because a disk was full
        self._changes: set[int] = set()

    def report_changes_to(self, changes: set[int]) -> None:
        """From now on its incarnation is put there when its status or its leases change, and now."""
        self._changes = changes
        changes.add(self.incarnation)

    def set_status(self, status: str) -> None:
        self.status = status
        self._changes.add(self.incarnation)

    def begin(self, now: float, at: str) -> None:
        """Its first lease starts now."""
        self.since, self.since_at, self.begun = now, at, now

    def add_leases(self, first: int, jobs: Sequence[int]) -> None:
        """It was handed these jobs, under consecutive leases from `first` on."""
        self.leases.add(first, jobs)
        self.handed += len(jobs)
        self._changes.add(self.incarnation)

    def revoke(self, leases: Iterable[int]) -> None:
        """It has been asked to return these leases."""
        self.revoked.update(leases)
        self._changes.add(self.incarnation)

    def sort(self) -> tuple[int, tuple[int, ...]]:
        """What distinguishes it from other workers: its place, and the devices that it sees."""
        return self.place, self.devices

    def lease_count(self) -> int:
        """Leases that it is still expected to run."""
        return self.leases.size - len(self.revoked)

    def withdraw(self, leases: Iterable[int]) -> list[tuple[int, int]]:
        """Of these, (lease, job) of those that were revoked and might have started so far."""
        certain = self.withdrawing.intersection(leases)
        self.withdrawing -= certain
        return [entry for entry in self.leases if entry[0] in certain] if certain else []

    def running(self) -> tuple[int, int] | None:
        """(lease, job) of the job that it runs; None if it runs none."""
        if not self.leases or self.status == STARTING:
            return None
        return self.leases[0]

    def settle_batch(self, leases: list[int]) -> Sequence[int] | None:
        """`settle` for the first leases of its list, in order; the jobs' numbers.

        None, and nothing is changed, if these are not its first leases or if some are revoked.
        """
        if self.revoked:
            return None
        self._changes.add(self.incarnation)
        return self.leases.take(leases)

    def reported(self, fraction: float | None, metrics: dict[str, Any], now: float) -> None:
        """The running job has reported; values of earlier reports that it does not repeat are kept."""
        before = self.report()
        if before is not None:
            fraction = before.fraction if fraction is None else fraction
            metrics = {**before.metrics, **metrics}
        kept = dict(list(metrics.items())[:MOST_METRICS])
        self._report = JobReport(self.leases[0][0], fraction, kept, now)

    def report(self) -> JobReport | None:
        """The last report of the running job, None if there was none; its time is a sign of life."""
        report = self._report
        if report is None or not self.leases or self.leases[0][0] != report.lease:
            return None
        return report

    def settle(self, lease: int) -> int | None:
        """Take a lease off its list; the job's number, None if it does not hold the lease. The reference
        for `settle_batch`."""
        self._changes.add(self.incarnation)
        self.revoked.discard(lease)
        self.withdrawing.discard(lease)
        return self.leases.remove(lease)


class _HandOut:
    """`jobs` under consecutive leases from `first` on; the first `begin` of them are removed."""

    __slots__ = ("begin", "first", "jobs")

    def __init__(self, first: int, jobs: Sequence[int]) -> None:
        self.first = first
        self.jobs = jobs
        self.begin = 0

    def __len__(self) -> int:
        return len(self.jobs) - self.begin

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(count(self.first + self.begin), islice(self.jobs, self.begin, None), strict=False)

    def head(self) -> tuple[int, int]:
        return self.first + self.begin, self.jobs[self.begin]


class Leases(Sequence[tuple[int, int]]):
    """What one worker holds: (lease, job number) in the order in which they were handed out.

    The core's own account in a live run: `Ledger.newest_lease` has the same by job, for one look per outcome. The
    engine keeps `SentLeases`, because it must know what a worker runs before the core is told.
    """

    __slots__ = ("_hand_outs", "size")

    def __init__(self) -> None:
        self._hand_outs: list[_HandOut] = []  # few, and none of them empty
        self.size = 0  # how many leases; an attribute, since each turn asks every worker

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return bool(self._hand_outs)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return chain.from_iterable(self._hand_outs)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[int, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[int, int] | Sequence[tuple[int, int]]:
        if index == 0 and self._hand_outs:
            return self._hand_outs[0].head()
        return list(self)[index]

    def add(self, first: int, jobs: Sequence[int]) -> None:
        """A hand-out: lease `first + i` is of the i-th job."""
        if jobs:
            self._hand_outs.append(_HandOut(first, jobs))
            self.size += len(jobs)

    def take(self, leases: list[int]) -> Sequence[int] | None:
        """Remove these leases if they are the first ones, in order; their jobs. None, and nothing is changed, if
        they are not."""
        size = len(leases)
        if size == 1 and self._hand_outs:
            lease, job = self._hand_outs[0].head()
            if lease != leases[0]:
                return None
            self._skip(1)
            return [job]
        taken: list[Sequence[int]] = []
        done = 0
        for hand_out in self._hand_outs:
            part = min(len(hand_out), size - done)
            begin = hand_out.begin
            first = hand_out.first + begin
            asked = leases if part == size else leases[done : done + part]
            if asked != list(range(first, first + part)):
                return None
            taken.append(hand_out.jobs[begin : begin + part])
            done += part
            if done == size:
                break
        if done < size:
            return None
        self._skip(size)
        return taken[0] if len(taken) == 1 else compact(list(chain.from_iterable(taken)))

    def _skip(self, size: int) -> None:
        hand_outs = self._hand_outs
        self.size -= size
        while size and len(hand_outs[0]) <= size:
            size -= len(hand_outs.pop(0))
        if size:
            hand_outs[0].begin += size

    def job_of(self, lease: int) -> int | None:
        """The job of a lease; None if it is not there."""
        for hand_out in self._hand_outs:
            at = lease - hand_out.first
            if hand_out.begin <= at < len(hand_out.jobs):
                return hand_out.jobs[at]
        return None

    def remove(self, lease: int) -> int | None:
        """Remove a lease; its job. None if it is not there."""
        for place, hand_out in enumerate(self._hand_outs):
            at = lease - hand_out.first
            if not hand_out.begin <= at < len(hand_out.jobs):
                continue
            job = hand_out.jobs[at]
            if at == hand_out.begin:
                hand_out.begin += 1
                parts = [hand_out]
            else:
                rest = _HandOut(lease + 1, hand_out.jobs[at + 1 :])
                hand_out.jobs = hand_out.jobs[:at]
                parts = [hand_out, rest]
            self._hand_outs[place : place + 1] = [part for part in parts if part]
            self.size -= 1
            return job
        return None
