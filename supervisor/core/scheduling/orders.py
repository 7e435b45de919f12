"""Carries out the orders of `longhaul ctl`. Pure.

Each order is an event (`ControlAsked`), and each is answered. An order that changes something is also
recorded, with the uid of its user, and shown in the view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from supervisor.core.dispatch.dispatcher import Dispatcher
from supervisor.core.dispatch.ledger import Ledger
from supervisor.core.dispatch.turn import Turn
from supervisor.core.places.place import Place
from supervisor.core.places.shortages import describe_unfit
from supervisor.core.scheduling.drain import Drain
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.worker_state import READY, STOPPING, KillReason, WorkerState
from supervisor.core.terms.events import AnswerControl, AnswerWithStacks, ControlAsked, Tell
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING, JobPatterns
from supervisor.core.terms.records import BY_HAND, Noted, Paused, Reset, Unpaused

MOST_WORKERS = 4096

MOST_JOBS = 100_000  # that one order may change: each is a record, and all are written at once

_NAMED = 3  # jobs that an answer names


class _Reply(msgspec.Struct):
    """The answer to an order. `changed` False: nothing to do; `done` False: refused."""

    text: str
    done: bool = True
    changed: bool = True


def _refused(text: str) -> _Reply:
    return _Reply(text, done=False, changed=False)


class Orders:
    """Carries orders out. `mask`: the jobs that this run may hand out."""

    def __init__(
        self, table: JobTable, ledger: Ledger, dispatcher: Dispatcher, drain: Drain, blocked: dict[str, float]
    ) -> None:
        self.table = table
        self.ledger = ledger
        self.dispatcher = dispatcher
        self.drain = drain
        self.blocked = blocked
        self.mask = b""
        # Jobs that were cancelled while they ran, or while a worker might just have begun
        # with them: by number, with the leases that must not go on.
        self.ending: dict[int, list[tuple[int, int]]] = {}
        self._orders: dict[str, Callable[[ControlAsked, Turn], _Reply]] = {
            "pause": self._pause,
            "resume": self._resume,
            "drain": self._drain,
            "stop": self._stop,
            "workers": self._workers,
            "retry": self._retry,
            "cancel": self._cancel,
            "stacks": self._stacks,
        }

    def on_asked(self, event: ControlAsked, turn: Turn) -> None:
        reply = self._orders[event.order](event, turn)
        commands = turn.effects.commands
        if reply.changed:
            detail = {"order": event.order, "uid": event.uid, "what": reply.text}
            if event.by:
                detail["by"] = event.by
            turn.effects.records.append(Noted("control", turn.at, detail))
            commands.append(Tell("warning", f"longhaul ctl {event.order} ({_who(event)}): {reply.text}"))
        if event.order == "stacks":
            commands.append(AnswerWithStacks(event.ticket, reply.text))
        else:
            commands.append(AnswerControl(event.ticket, reply.done, reply.text))

    # ------------------------------------------------------------------ the whole run

    def _pause(self, event: ControlAsked, turn: Turn) -> _Reply:
        if self.drain.begun:
            return _refused(f"the run is being stopped ({self.drain.reason}): nothing new is started anyway")
        if BY_HAND in self.blocked:
            return _Reply("the run is paused already; `resume` continues it", changed=False)
        self.blocked[BY_HAND] = turn.now
        turn.effects.records.append(Paused(BY_HAND, turn.at, f"longhaul ctl, {_who(event)}"))
        for worker in self.dispatcher.workers.values():
            self.dispatcher.revocations.revoke_waiting(turn, worker)
        busy = len(self.dispatcher.running())
        if not busy:
            return _Reply("paused: nothing is running, nothing new is handed out")
        return _Reply(
            f"paused: {_count(busy, 'running job')} {_verb(busy, 'go')} on, nothing new is handed out"
        )

    def _resume(self, event: ControlAsked, turn: Turn) -> _Reply:
        since = self.blocked.pop(BY_HAND, None)
        if since is None:
            return _Reply("the run was not paused", changed=False)
        seconds = turn.now - since
        turn.effects.records.append(Unpaused(BY_HAND, turn.at, round(seconds, 3)))
        text = f"going on after a pause of {seconds:.0f} s"
        if self.drain.begun:
            text = f"no longer paused, but it is being stopped ({self.drain.reason})"
        elif self.blocked:
            text += f"; but still nothing is handed out: {', '.join(self.blocked)}"
        return _Reply(text)

    def _drain(self, event: ControlAsked, turn: Turn) -> _Reply:
        begun, busy = self.drain.begun, len(self.dispatcher.running())
        self._begin_drain(event, turn)
        if begun:
            return _Reply(f"the run is being stopped already ({self.drain.reason})", changed=False)
        grace = self.dispatcher.settings.grace
        left = f"{_count(busy, 'running job')} {_verb(busy, 'have')} {grace:g} s to finish"
        return _Reply(f"draining: nothing new is started, {left if busy else 'nothing is running'}")

    def _stop(self, event: ControlAsked, turn: Turn) -> _Reply:
        busy = len(self.dispatcher.running())
        self._begin_drain(event, turn)
        self.drain.stop_now(turn, tell=False)
        if not busy:
            return _Reply("stopping now: nothing is running")
        runs = "it runs" if busy == 1 else "they run"
        return _Reply(
            f"stopping now: {_count(busy, 'running job')} {_verb(busy, 'are')} interrupted; {runs} again on a resume"
        )

    def _begin_drain(self, event: ControlAsked, turn: Turn) -> None:
        """Begin a drain without its own message: the reply replaces it. After `stop` there is no grace time."""
        reason = f"longhaul ctl {event.order}"
        detail = {"control": event.order, "uid": event.uid}
        if event.by:
            detail["by"] = event.by
        self.drain.begin_without_signal(turn, reason, detail, asked=True, tell=False)

    def _workers(self, event: ControlAsked, turn: Turn) -> _Reply:
        before, wanted = self.dispatcher.slots, event.number
        if not 1 <= wanted <= MOST_WORKERS:
            return _refused(
                f"workers {wanted}: expected 1 to {MOST_WORKERS}; to start no more jobs, use `pause`"
            )
        if self.drain.begun:
            return _refused(f"the run is being stopped ({self.drain.reason})")
        placement = self.dispatcher.placement
        if placement is not None and placement.of_nodes:
            return _refused(_follows_nodes(list(placement.places.values())))
        if wanted == before:
            return _Reply(f"there are {_count(wanted, 'worker')} already", changed=False)
        idle, busy = self.dispatcher.resize(turn, wanted)
        text = f"workers: {before} before, {wanted} from now on"
        if wanted > before:
            text += "; more are started at once, as far as there are jobs"
        elif idle or busy:
            parts = [f"{idle} idle {_verb(idle, 'go')} at once"] if idle else []
            parts += [f"{busy} {_verb(busy, 'finish', 'finishes')} a job first"] if busy else []
            text += f"; {', '.join(parts)}"
        text += ". In this run only: a resume takes the number it remembers"
        unfit = self.ledger.unfit_jobs()
        if placement is not None and unfit:
            why = describe_unfit(self.table, unfit, placement.kinds, *placement.totals())
            text += f". Left pending: {why}"
        return _Reply(text)

    def _stacks(self, event: ControlAsked, turn: Turn) -> _Reply:
        workers = len(self.dispatcher.workers)
        if not workers:
            return _Reply("there are no workers right now", changed=False)
        return _Reply(f"the stacks of {_count(workers, 'worker')} follow")

    # --------------------------------------------------------------------- single jobs

    def _retry(self, event: ControlAsked, turn: Turn) -> _Reply:
        if self.drain.begun:
            return _refused("the run is being stopped; a resume tries failed jobs again")
        named = self._named(event.jobs)
        failed = [job for job in named if self.table.state[job] == FAILED]
        if problem := self._problem(event, named, failed, "failed"):
            return problem
        ids = [self.table.ids[job] for job in failed]
        for job in failed:
            self.table.reset(job, forget_charges=False)
            self.ending.pop(job, None)  # it ends a cancellation that is still being carried out
        turn.effects.records.append(Reset(ids, "retry", turn.at))
        self.ledger.line_up_again(turn, failed)
        return _Reply(
            f"{_some(ids)}: back in line for one more attempt{_others(len(named) - len(failed), 'failed')}"
        )

    def _cancel(self, event: ControlAsked, turn: Turn) -> _Reply:
        named = self._named(event.jobs)
        open_ones = [job for job in named if self.table.state[job] not in (COMPLETED, FAILED)]
        if problem := self._problem(event, named, open_ones, "waiting or running"):
            return problem
        running = self._end_running(turn, set(open_ones))
        self._cancel_waiting(turn, [job for job in open_ones if self.table.state[job] != LEASED])
        held = [lease for lease, held in self.dispatcher.held.items() if held.job in open_ones]
        self.dispatcher.end_held(turn, held, "cancelled")
        running += len(held)
        waiting = len(open_ones) - running
        parts = [f"{running} running {_verb(running, 'are')} ended"] if running else []
        parts += [f"{waiting} waiting {_verb(waiting, 'are')} not started"] if waiting else []
        ids = [self.table.ids[job] for job in open_ones]
        others = _others(len(named) - len(open_ones), "waiting or running")
        return _Reply(f"{_some(ids)}: cancelled ({', '.join(parts)}), counted as failed{others}")

    def _end_running(self, turn: Turn, jobs: set[int]) -> int:
        """Kill the workers that run these jobs, revoke the other leases of these jobs; how many ran."""
        running = 0
        for worker in self.dispatcher.workers.values():
            held = [entry for entry in worker.leases if entry[1] in jobs]
            if not held:
                continue
            current = worker.running()
            if current in held and current is not None and self.ledger.is_current(*current):
                running += 1
                self._end_attempt(turn, worker, current)
            else:
                self.dispatcher.revocations.revoke_waiting(turn, worker)
            for lease, job in held:
                self.ending.setdefault(job, []).append((worker.incarnation, lease))
        return running

    def _end_attempt(self, turn: Turn, worker: WorkerState, current: tuple[int, int]) -> None:
        if worker.kill_reason is not None and worker.kill_reason.lease == current[0]:
            worker.kill_reason = KillReason(
                "cancelled", current[0]
            )  # it is being killed for another reason already
        else:
            self.dispatcher.kill(turn, worker, "cancelled")

    def _cancel_waiting(self, turn: Turn, jobs: Sequence[int]) -> None:
        for job in jobs:
            self.ledger.cancelled(turn, job)
        self.ledger.remove_from_queue(set(jobs))

    def follow_up(self, turn: Turn) -> None:
        """Cancel jobs again where a worker was faster than the order: an attempt that ended by itself and would
        be retried, or a lease that started just before it was revoked."""
        workers = self.dispatcher.workers
        for job, leases in list(self.ending.items()):
            if self.table.state[job] in (PENDING, INTERRUPTED):
                self._cancel_waiting(turn, [job])
            left = []
            for incarnation, lease in leases:
                worker = workers.get(incarnation)
                if worker is None or all(entry[0] != lease for entry in worker.leases):
                    continue
                left.append((incarnation, lease))
                if worker.leases[0][0] == lease and worker.status in (READY, STOPPING):
                    self.dispatcher.kill(turn, worker, "interrupted")
            if left:
                self.ending[job] = left
            else:
                del self.ending[job]

    def _named(self, patterns: Sequence[str]) -> list[int]:
        """Jobs of the plan with these ids or matching these patterns, in plan order."""
        table = self.table
        named = JobPatterns(patterns, table.numbers)
        if named.globs:
            found = {job for job, job_id in enumerate(table.ids) if named.names(job_id)}
        else:
            found = {table.numbers[job_id] for job_id in named.ids}
        return sorted(job for job in found if table.wanted[job])

    def _problem(
        self, event: ControlAsked, named: Sequence[int], chosen: Sequence[int], state: str
    ) -> _Reply | None:
        """Why the order cannot be carried out for these jobs; None if it can."""
        if not named:
            known = ", ".join(repr(job_id) for job_id in self.table.ids[:3])
            return _refused(f"no job is called {' or '.join(map(repr, event.jobs))}; ids look like {known}")
        if not chosen:
            first = f"{self.table.ids[named[0]]} {self._how_it_stands(named[0])}"
            if len(named) == 1:
                return _refused(f"{first}: not {state}")
            return _refused(f"none of {_count(len(named), 'job')} is {state}; {first}")
        if left_out := [job for job in chosen if not self.mask[job]]:
            return _refused(f"{self.table.ids[left_out[0]]} is left out of this run by --only")
        if len(chosen) > MOST_JOBS:
            return _refused(f"{len(chosen):,} jobs match; at most {MOST_JOBS:,} at a time")
        return None

    def _how_it_stands(self, job: int) -> str:
        state = self.table.state[job]
        if state == COMPLETED:
            return "is completed"
        if state == FAILED:
            return f"has failed ({self.table.outcome.get(job, 'failed')})"
        if any(held.job == job for held in self.dispatcher.held.values()):
            return "has ended, and its files are on their way"
        running = any(at == job for _, at in self.dispatcher.running())
        return "is running" if running else "waits for its turn"


def _who(event: ControlAsked) -> str:
    return f"uid {event.uid}, by the {event.by}" if event.by else f"uid {event.uid}"


def _follows_nodes(places: Sequence[Place]) -> str:
    """Why nobody can set the number of workers of a run on several nodes."""
    slots = ", ".join(f"{place.name} {place.slots}" for place in places[:_NAMED])
    others = f" and {_count(len(places) - _NAMED, 'other node')}" if len(places) > _NAMED else ""
    there = f"{slots}{others}" if places else "there is none now"
    return (
        f"the number of workers follows the nodes of this run ({there}): it changes when one joins or ends. To start "
        "no more jobs, use `pause`"
    )


def _some(ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return ids[0]
    shown = ", ".join(ids[:_NAMED])
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return f"{len(ids):,} jobs ({shown}{more})"


def _others(number: int, state: str) -> str:
    return (
        f"; {_count(number, 'other')} that {_verb(number, 'match', 'matches')} {_verb(number, 'are')} not {state}"
        if number
        else ""
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _verb(number: int, plural: str, singular: str = "") -> str:
    if number != 1:
        return plural
    return singular or {"are": "is", "have": "has", "go": "goes"}[plural]
