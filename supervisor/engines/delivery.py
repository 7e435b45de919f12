"""What a worker has said, as facts for the core.

Here messages become events, in the order in which they were said, and the book of the
worker's leases is kept up with them. No process and no descriptor enters: who reads the
outbox is in `local`, what a death means in `incarnation`.
"""

from __future__ import annotations

from typing import cast

from supervisor.core import events as facts
from supervisor.core.events import Event
from supervisor.engines.incarnation import Incarnation
from workers.messages import (
    Completed,
    CompletedWith,
    Dropped,
    Failed,
    FromWorker,
    Imported,
    NeverReady,
    Outcome,
    Peak,
    Ready,
    Reported,
)

_OUTCOMES = (Completed, CompletedWith, Failed)


def delivered(worker: Incarnation, messages: list[FromWorker]) -> list[Event]:
    """Outcomes in one event, up to where something else was said."""
    if set(map(type, messages)) == {Completed}:  # as nearly always
        return [_finished(worker, cast("list[Outcome]", messages))]
    events: list[Event] = []
    outcomes: list[Outcome] = []
    for message in messages:
        kind = type(message)
        if kind in _OUTCOMES:
            outcomes.append(message)  # type: ignore[arg-type]
            continue
        if outcomes:
            events.append(_finished(worker, outcomes))
            outcomes = []
        if isinstance(message, Ready):
            worker.ready = True
            events.append(facts.WorkerReady(worker.number))
        elif isinstance(message, NeverReady):
            events.append(facts.WorkerNotReady(worker.number, message.failure))
        elif isinstance(message, Dropped):
            worker.leases.dropped(message.leases)
            events.append(facts.LeasesDropped(worker.number, message.leases))
        elif isinstance(message, Peak):
            worker.peaks.told(message, worker.leases.last)
        elif isinstance(message, Imported):
            events.append(facts.CodeImported(worker.number, message.modules))
        elif isinstance(message, Reported):
            events.append(
                facts.JobReported(
                    worker.number, message.job, message.fraction, message.metrics, message.notice
                )
            )
    if outcomes:
        events.append(_finished(worker, outcomes))
    return events


def _finished(worker: Incarnation, outcomes: list[Outcome]) -> Event:
    worker.leases.finished(outcomes[-1].lease)
    worker.idle_since = None
    return facts.JobsFinished(worker.number, outcomes)
