"""What a worker does between two jobs: it looks at its inbox when it has not done so for a while."""

from __future__ import annotations

import contextvars
from collections import deque
from typing import Any

import pytest

import workers.runner
import workers.worker
from workers.isolation.process_state import FULL, THOROUGH
from workers.job.current_job import CurrentJob
from workers.process.descriptors import FileIdentity, Probe
from workers.runner import Runner
from workers.transport.messages import Completed, Dropped, Finish, FromWorker, Revoke, Run, ToWorker
from workers.worker import (
    INBOX_CHECK_AFTER,
    MAX_CHECKS_AFTER_SHORT,
    MIN_CHANGE_SECONDS,
    RESTORE_AFTER,
    RESTORE_ALL_AFTER,
    RESTORE_ALL_EVERY,
    Worker,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Queues:
    """Takes so long to send an outcome (a pipe that is full, a large result); meanwhile the
    second lease is taken back."""

    crowded = False

    def __init__(self, clock: Clock, takes: float) -> None:
        lines = b"\n".join(b'{"id":"job/%d","params":{}}' % number for number in (1, 2, 3))
        self.inbox: deque[ToWorker] = deque([Run(1, [1, 1, 1], lines)])
        self.said: list[FromWorker] = []
        self._clock, self._takes = clock, takes

    def reopen_if_lost(self) -> None:
        pass

    def reopen_unless_pipes(self) -> None:
        pass

    def probe(self) -> Probe:
        return (lambda: 0), 0

    def files(self) -> dict[int, FileIdentity]:
        return {}

    def watch_descriptor(self, number: int) -> None:
        pass

    def readable(self) -> bool:
        return bool(self.inbox)

    def receive(self) -> ToWorker:
        return self.inbox.popleft() if self.inbox else Finish()

    def send(self, message: FromWorker) -> None:
        self.said.append(message)
        if isinstance(message, Completed) and message.lease == 1:
            self._clock.now += self._takes
            self.inbox.append(Revoke([2]))


class NoOutput:
    def unused(self) -> bool:
        return True

    def probes(self) -> list[Probe]:
        return []

    def full_probe(self) -> Probe:
        return (lambda: 0), 0

    def thorough_probes(self) -> list[Probe]:
        return []

    def files(self) -> dict[int, FileIdentity]:
        return {}

    def size(self, seconds: float) -> int:
        return 0

    def restore(self, *, thorough: bool) -> None:
        pass


def stand_in(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.worker, "perf_counter", clock)
    monkeypatch.setattr(workers.runner, "perf_counter", clock)
    monkeypatch.setattr(workers.runner, "CURRENT", CurrentJob())  # not that of other tests


@pytest.mark.parametrize(
    ("takes", "drops"), [(1.5 * INBOX_CHECK_AFTER, True), (0.5 * INBOX_CHECK_AFTER, False)]
)
def test_a_lease_that_is_taken_back_while_an_outcome_is_sent_does_not_start(
    takes: float, drops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    stand_in(clock, monkeypatch)
    queues: Any = Queues(clock, takes)
    output: Any = NoOutput()
    Worker(queues, Runner(lambda: None), output).serve()
    assert (Dropped([2]) in queues.said) == drops
    ran = [message.lease for message in queues.said if isinstance(message, Completed)]
    assert ran == ([1, 3] if drops else [1, 2, 3])


class Looks:
    """Stands for `ProcessState`: when it was checked."""

    crowding_descriptor = -1

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at = [clock.now]  # as they are when the first job begins is how they are to be
        self.fully_at = [clock.now]
        self.rest_at = [clock.now]
        self.verified = 0

    def set_probes(self, *probes: object) -> None:
        pass

    def unchanged(self, depth: int) -> bool:
        self.at.append(self._clock.now)
        self.verified = depth
        if depth >= FULL:
            self.fully_at.append(self._clock.now)
        return True

    def fresh_context(self) -> contextvars.Context:
        return contextvars.Context()

    def stop_timers(self) -> None:
        pass

    def restore(self) -> bool:
        self.at.append(self._clock.now)
        self.fully_at.append(self._clock.now)
        return True

    def restore_thoroughly(self, *, verified: bool) -> bool:
        assert not verified or self.verified == THOROUGH
        self.rest_at.append(self._clock.now)
        return True


def looks_before_jobs(
    durations: list[float], monkeypatch: pytest.MonkeyPatch, raising: int = -1, *, what: str = "at"
) -> list[float]:
    """For each job, how long ago its worker has looked around itself when it begins. `what`: at what
    jobs change most ("at"), at all that the system keeps ("fully_at"), at the rest as well ("rest_at")."""
    clock = Clock()
    stand_in(clock, monkeypatch)
    looks = Looks(clock)
    monkeypatch.setattr(workers.worker, "ProcessState", lambda: looks)
    ages: list[float] = []

    def job() -> None:
        ages.append(clock.now - getattr(looks, what)[-1])
        clock.now += durations[len(ages) - 1]
        if len(ages) - 1 == raising:
            raise ValueError

    queues: Any = Queues(clock, 0.0)
    lines = b"\n".join(b'{"id":"job/%d","params":{}}' % number for number in range(len(durations)))
    queues.inbox = deque([Run(100, [1] * len(durations), lines)])
    output: Any = NoOutput()
    Worker(queues, Runner(job), output).serve()
    return ages


def test_a_job_of_a_millisecond_is_looked_after_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(looks_before_jobs([INBOX_CHECK_AFTER] * 300, monkeypatch)) == 0


@pytest.mark.parametrize("seconds", [INBOX_CHECK_AFTER, 1.7 * INBOX_CHECK_AFTER, RESTORE_AFTER])
def test_all_that_the_system_keeps_is_looked_at_before_5_ms_have_passed(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = looks_before_jobs([seconds] * 300, monkeypatch, what="fully_at")
    assert max(ages) <= RESTORE_AFTER
    assert seconds < RESTORE_AFTER or max(ages) == 0


def test_what_jobs_seldom_change_is_looked_at_less_often_where_jobs_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ages = looks_before_jobs([INBOX_CHECK_AFTER] * 500, monkeypatch, what="rest_at")
    assert max(ages[: int(MAX_CHECKS_AFTER_SHORT)]) == 0  # a script of few jobs sees none of it
    assert INBOX_CHECK_AFTER < max(ages) <= RESTORE_ALL_EVERY + 2 * INBOX_CHECK_AFTER
    assert max(looks_before_jobs([2 * RESTORE_ALL_AFTER] * 300, monkeypatch, what="rest_at")) == 0


@pytest.mark.parametrize("seconds", [MIN_CHANGE_SECONDS / 2, 20e-6, 0.3e-3, 0.9e-3])
def test_no_job_begins_when_the_last_look_is_long_ago(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages = looks_before_jobs([seconds] * int(MAX_CHECKS_AFTER_SHORT * 2 + 0.1 / seconds), monkeypatch)
    assert max(ages) <= RESTORE_AFTER


def test_few_short_jobs_are_looked_after_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(looks_before_jobs([20e-6] * (int(MAX_CHECKS_AFTER_SHORT) - 1), monkeypatch)) == 0


def test_a_job_that_fails_is_looked_after_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    number = int(MAX_CHECKS_AFTER_SHORT) * 2
    ages = looks_before_jobs([20e-6] * (number + 2), monkeypatch, raising=number)
    assert ages[number] > 0 and ages[number + 1] == 0
