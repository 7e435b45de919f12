"""What a worker does between two jobs: it looks at its inbox when it has not done so for a while."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

import workers.main
import workers.runner
from workers.current import CurrentJob
from workers.main import LOOK_AFTER, Worker
from workers.messages import Completed, Dropped, Finish, FromWorker, Revoke, Run, ToWorker
from workers.runner import Runner


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

    def reserve(self, number: int) -> None:
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
    def size(self, seconds: float) -> int:
        return 0

    def reattach(self) -> None:
        pass


@pytest.mark.parametrize(("takes", "drops"), [(1.5 * LOOK_AFTER, True), (0.5 * LOOK_AFTER, False)])
def test_a_lease_that_is_taken_back_while_an_outcome_is_sent_does_not_start(
    takes: float, drops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(workers.main, "perf_counter", clock)
    monkeypatch.setattr(workers.runner, "CURRENT", CurrentJob())  # not that of other tests
    queues: Any = Queues(clock, takes)
    output: Any = NoOutput()
    Worker(queues, Runner(lambda: None), output).serve()
    assert (Dropped([2]) in queues.said) == drops
    ran = [message.lease for message in queues.said if isinstance(message, Completed)]
    assert ran == ([1, 3] if drops else [1, 2, 3])
