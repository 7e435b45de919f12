"""Decides the job's state when one of its leases ends, charges the job and makes the record. Pure.

The ledger holds the job table, the queue and the newest lease of each job. An outcome under an older lease is
*superseded*. The first completed result under any lease wins. Any other superseded outcome is recorded and
charged to no job.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from supervisor.core.dispatch import retry_policy
from supervisor.core.dispatch.job_queue import JobQueue
from supervisor.core.dispatch.retry_policy import (
    INTERRUPTED_LIMIT,
    INTERRUPTED_WAIT,
    NO_SPACE_LIMIT,
    NO_SPACE_WAIT,
    is_no_space,
)
from supervisor.core.dispatch.turn import Turn
from supervisor.core.dispatch.worker_exits import CANCELLED, describe_exit
from supervisor.core.state.columns import get, put
from supervisor.core.state.job_table import Charges, JobTable
from supervisor.core.terms.events import Tell, WorkerDied
from supervisor.core.terms.jobs import COMPLETED, INTERRUPTED, LEASED, NOTHING_OWN, PENDING
from supervisor.core.terms.records import NOTHING_MORE, Completions, Ended, Noted
from supervisor.core.terms.settings import Settings
from workers.transport.messages import Completed, CompletedWith, Failed

_NUMPY_NUMBER = re.compile(r"numpy\.(bool_?|u?int(\d+|c|p)?|u?longlong|float\d+|longdouble|str_)( as key)?")
_MOVE_FOR = {"failed": "failed", "pending": "retried", "in_progress": "interrupted"}


class Ledger:
    """Processes the ends of leases. `slot` in its methods is the worker's slot, for the records."""

    def __init__(self, table: JobTable, queue: JobQueue, settings: Settings) -> None:
        self.table = table
        self.queue = queue
        self.settings = settings
        # By job number; 0: no lease is out. Not to be found from the workers' own leases: a lease whose job was
        # given to another worker stays with the first one until that has dropped or ended it.
        self.newest_lease = array("Q", [0]) * len(table)
        # Jobs that may be queued when a record is on the disk, mostly that of a charge: (record number, job),
        # in record order.
        self.awaiting_sync: list[tuple[int, int]] = []
        self.failures = 0  # jobs that failed for good in this run
        self._no_space: dict[int, int] = {}
        self._interrupted: dict[int, int] = {}
        self.converted: set[str] = (
            set()
        )  # kinds of result values that the user was told of, also in earlier runs

    # ------------------------------------------------------------------- hand-out

    def lease(self, jobs: Sequence[int], first_lease: int) -> list[int]:
        """Mark jobs as handed out; the attempt number of each."""
        self.table.lease(jobs)
        put(self.newest_lease, jobs, array("Q", range(first_lease, first_lease + len(jobs))))
        return [attempts + 1 for attempts in get(self.table.attempts, jobs)]

    def give_back(self, leases: list[tuple[int, int]]) -> None:
        """Leases that did not start: their jobs go to the front of the queue."""
        jobs = []
        for lease, job in leases:
            if self.is_current(lease, job):
                self.table.move(job, "returned")
                self.newest_lease[job] = 0
                jobs.append(job)
        self.queue.put_back(jobs)

    def is_current(self, lease: int, job: int) -> bool:
        return self.newest_lease[job] == lease and self.table.state[job] == LEASED

    def is_of_use(self, lease: int, job: int) -> bool:
        """Whether the lease's outcome may still count: the job has not ended and no other lease has it. A lease
        that was revoked may have started just before."""
        return self.is_current(lease, job) or (not self.newest_lease[job] and self.is_waiting(job))

    # ----------------------------------------------------------------- the outcomes

    def completed_batch(
        self,
        turn: Turn,
        slot: int,
        jobs: Sequence[int],
        leases: list[int],
        outcomes: list[Completed | CompletedWith],
    ) -> None:
        """`completed` for many results of one worker; one record for all if none of them is special."""
        table = self.table
        if len(jobs) == 1 and type(outcomes[0]) is Completed and self.is_current(leases[0], jobs[0]):
            self._completed_alone(turn, slot, jobs[0], outcomes[0])
            return
        if (
            list(get(self.newest_lease, jobs)) != leases
            or not table.all_in(jobs, LEASED)
            or (table.outcome and not table.outcome.keys().isdisjoint(jobs))
        ):
            for job, outcome in zip(jobs, outcomes, strict=True):
                self.completed(turn, slot, job, outcome)
            return
        seconds = [outcome.seconds for outcome in outcomes]
        more = _with_more(outcomes)
        for place, outcome in more.items():
            self._tell_conversions(turn, jobs[place], outcome.converted)
        results = [outcome.result for outcome in outcomes]
        attempts = table.complete(jobs, seconds)
        ids = list(get(table.ids, jobs))
        turn.effects.records.append(
            Completions(slot, turn.at, jobs, ids, attempts, seconds, results, leases, more)
        )

    def _completed_alone(self, turn: Turn, slot: int, job: int, outcome: Completed) -> None:
        """The same for one result. It joins those of other workers that came just before: a record for each of a
        thousand workers would cost more than what it holds."""
        table = self.table
        attempt = table.attempts[job] + 1
        table.state[job], table.attempts[job], table.seconds[job] = COMPLETED, attempt, outcome.seconds
        if table.outcome:
            table.outcome.pop(job, None)
        records = turn.effects.records
        last = records[-1] if records else None
        if type(last) is not Completions or not last.workers:
            last = Completions(slot, turn.at, [], [], [], [], [], [])
            records.append(last)
        last.workers.append(slot)
        last.jobs.append(job)  # type: ignore[attr-defined]
        last.ids.append(table.ids[job])
        last.attempts.append(attempt)
        last.seconds.append(outcome.seconds)
        last.results.append(outcome.result)
        last.leases.append(outcome.lease)

    def completed(self, turn: Turn, slot: int, job: int, outcome: Completed | CompletedWith) -> None:
        """Book a completed result. The reference for `completed_batch`."""
        table = self.table
        more = outcome if isinstance(outcome, CompletedWith) else NOTHING_MORE
        if table.state[job] == COMPLETED:
            self._note_superseded(turn, slot, job, outcome.lease, "completed")
            return
        self._tell_conversions(turn, job, more.converted)
        table.move(job, "completed")
        attempt = table.attempts[job] = table.attempts[job] + 1
        table.seconds[job] = outcome.seconds
        if table.outcome:
            table.outcome.pop(job, None)
        table.note_ended(job)
        turn.effects.records.append(
            Ended(
                job=table.ids[job],
                attempt=attempt,
                lease=outcome.lease,
                outcome="completed",
                state="completed",
                seconds=outcome.seconds,
                worker=slot,
                at=turn.at,
                result=msgspec.Raw(outcome.result),
                nonfinite=more.nonfinite,
                output=more.output,
            )
        )

    def _tell_conversions(self, turn: Turn, job: int, kinds: list[str]) -> None:
        """Tell the user once of each kind of value that JSON does not have and that was converted. NumPy's
        numbers lose nothing and are not mentioned."""
        new = [kind for kind in kinds if kind not in self.converted and not _NUMPY_NUMBER.fullmatch(kind)]
        if new:
            self.converted.update(new)
            text = f"results: {', '.join(new)} written in JSON form, first in {self.table.ids[job]}"
            turn.effects.commands.append(Tell("info", text))

    def failed(self, turn: Turn, slot: int, job: int, outcome: Failed) -> None:
        """The worker reports that the job ended without a result."""
        failure = outcome.failure
        error = {
            "outcome": outcome.outcome,
            "type": failure.type,
            "message": failure.message,
            "traceback": failure.traceback,
        }
        for key in ("where", "errno", "value_repr", "exit_code", "signal"):
            if value := getattr(failure, key):
                error[key] = value
        kind: str = outcome.outcome
        wait = None
        if is_no_space(failure.errno):
            tries = self._no_space[job] = self._no_space.get(job, 0) + 1
            if tries < NO_SPACE_LIMIT:
                kind, wait = "interrupted", turn.now + NO_SPACE_WAIT
        elif kind == "interrupted" and not turn.draining:
            kind, wait = self._interrupted_itself(job), turn.now + INTERRUPTED_WAIT
        wish = outcome if outcome.wish else None
        self._end(turn, slot, job, outcome.lease, kind, outcome.seconds, error, outcome.output, wait, wish)

    def _interrupted_itself(self, job: int) -> str:
        """The job raised `JobInterrupted` outside a drain: it runs again, a limited number of times."""
        times = self._interrupted[job] = self._interrupted.get(job, 0) + 1
        return "interrupted" if times <= INTERRUPTED_LIMIT else "raised"

    def crashed(
        self,
        turn: Turn,
        slot: int,
        job: int,
        lease: int,
        kind: str,
        seconds: float,
        death: WorkerDied,
        message: str = "",
    ) -> None:
        """The worker died while it ran the job. `kind`: crashed, timed_out, interrupted, ...; `message`: why it
        was killed, if the kind does not say so."""
        error: dict[str, Any] = {
            "outcome": kind,
            "type": "",
            "message": message or describe_exit(kind, death, seconds),
            "traceback": death.traceback,
        }
        evidence = {
            "where": death.where or None,
            "signal": death.signal,
            "exit_code": death.exit_code,
            "worker_peak_rss" if death.peak_is_shared else "peak_rss": death.peak_rss,
            "output_tail": death.output or None,
        }
        error.update({key: value for key, value in evidence.items() if value is not None})
        self._end(turn, slot, job, lease, kind, seconds, error, death.output_bytes)

    def lost(self, turn: Turn, job: int, lease: int) -> None:
        """The job was running when an earlier supervisor was killed; found at the next start."""
        self.newest_lease[job] = lease
        self.table.state[job] = LEASED
        error = {
            "outcome": "lost",
            "type": "",
            "message": "the supervisor ended while the job was running",
            "traceback": "",
        }
        self._end(turn, -1, job, lease, "lost", 0.0, error, 0)

    def cancelled(self, turn: Turn, job: int) -> None:
        """A job that does not run was cancelled with `longhaul ctl`: failed, without an attempt."""
        table = self.table
        table.move(job, "cancelled")
        table.outcome[job] = "cancelled"
        table.seconds[job] = 0.0
        self.newest_lease[job] = 0
        error = {"outcome": "cancelled", "type": "", "message": CANCELLED, "traceback": ""}
        table.note_ended(job)
        turn.effects.records.append(
            Ended(
                job=table.ids[job],
                attempt=table.attempts[job],
                lease=0,
                outcome="cancelled",
                state="failed",
                seconds=0.0,
                worker=-1,
                at=turn.at,
                error=error,
            )
        )

    def unfit_jobs(self) -> list[int]:
        """Jobs of this run that cannot run with what there is; they stay pending."""
        return sorted(self.queue.of_closed_lines(job for _, job in self.awaiting_sync))

    def remove_from_queue(self, jobs: set[int]) -> None:
        """Do not hand these jobs out, nor those of them that wait for a sync."""
        self.awaiting_sync = [entry for entry in self.awaiting_sync if entry[1] not in jobs]
        self.queue.remove(jobs)

    def line_up_again(self, turn: Turn, jobs: list[int]) -> None:
        """Queue failed jobs that were just reset with `longhaul ctl`. If they have charges, the reset, which is
        the last record of this turn, must be synced first."""
        for job in jobs:
            charges = self.table.charges.get(job)
            if charges is not None and (charges.crashes or charges.losses or charges.over_memory):
                self.queue.mark_single(job)
                self.awaiting_sync.append((turn.last_n(), job))
                turn.effects.urgent = True
            else:
                self.queue.put_first(job)

    # --------------------------------------------------------------------- the rule

    def _end(
        self,
        turn: Turn,
        slot: int,
        job: int,
        lease: int,
        kind: str,
        seconds: float,
        error: dict[str, Any],
        output: int,
        not_before: float | None = None,
        wish: Failed | None = None,
    ) -> None:
        """An attempt ended without a result: charge it, change the job's state, record it, queue the job again."""
        table = self.table
        if not self.is_current(lease, job):
            self._note_superseded(turn, slot, job, lease, kind, error)
            return
        if turn.draining and kind != "cancelled":
            kind = "interrupted"  # during a drain no failure is charged
        error["outcome"] = kind
        state, charged, wait = self._charge(job, kind, wish, error)
        if wait is not None:
            not_before = turn.now + wait
        attempt = table.attempts[job] = table.attempts[job] + 1
        table.seconds[job] = seconds
        table.outcome[job] = kind
        table.move(job, _MOVE_FOR[state])
        self.newest_lease[job] = 0
        table.note_ended(job)
        turn.effects.records.append(
            Ended(
                job=table.ids[job],
                attempt=attempt,
                lease=lease,
                outcome=kind,
                state=state,
                seconds=seconds,
                worker=slot,
                at=turn.at,
                error=error,
                output=output,
                charged=charged,
            )
        )
        if state == "failed":
            self.failures += kind != "cancelled"
        else:
            self._queue_again(turn, job, kind, not_before, soon=charged == "asked")

    def _charge(
        self, job: int, kind: str, wish: Failed | None, error: dict[str, Any]
    ) -> tuple[str, str, float | None]:
        """Charge the attempt: (the job's new state; what was charged, if it is not `kind`; seconds until the next
        attempt, None if it need not wait). An interruption is not charged."""
        if kind == "interrupted":
            return "in_progress", "", None
        charged = "asked" if kind == "raised" and wish is not None and wish.wish == "retry" else ""
        charges = self.table.charge(job, charged or kind)
        state = self._verdict(job, kind, charges, wish, error)
        waits = state == "pending" and kind in ("raised", "timed_out")
        return state, charged, self._wait(job, kind, charges, wish) if waits else None

    def _verdict(
        self, job: int, kind: str, charges: Charges, wish: Failed | None, error: dict[str, Any]
    ) -> str:
        """The job's new state; `gave_up` or `quarantined` is set in `error`."""
        if kind == "raised" and wish is not None:
            if wish.wish == "retry":
                return "pending" if charges.asked <= wish.most else "failed"
            error["gave_up"] = True
            return "failed"
        state = retry_policy.verdict(kind, charges, self.settings, self.table.own.get(job, NOTHING_OWN))
        if kind == "crashed" and state == "failed":
            error["quarantined"] = True
        return state

    def _wait(self, job: int, kind: str, charges: Charges, wish: Failed | None) -> float:
        """Seconds until the next attempt after an error or a timeout."""
        tries = charges.timeouts if kind == "timed_out" else charges.errors
        if wish is not None:
            if wish.after is not None:
                return wish.after
            tries = charges.asked
        return retry_policy.backoff(self.settings.backoff, tries, self.table.ids[job])

    def _queue_again(self, turn: Turn, job: int, kind: str, not_before: float | None, *, soon: bool) -> None:
        if kind in ("crashed", "lost", "over_memory"):
            # The next attempt gets a lease of its own, and starts only when the charge is synced: if it takes
            # the machine down, the charge must survive.
            self.queue.mark_single(job)
            self.awaiting_sync.append((turn.last_n(), job))
            turn.effects.urgent = True
        elif not_before is not None and not_before > turn.now:
            self.queue.put_later(job, not_before, first=soon or kind == "interrupted")
        elif kind == "interrupted":
            self.queue.put_first(job)
        else:
            self.queue.put_again(job)

    def synced(self, n: int) -> None:
        """Records up to `n` are on the disk: queue the jobs that waited for that."""
        while self.awaiting_sync and self.awaiting_sync[0][0] <= n:
            job = self.awaiting_sync.pop(0)[1]
            charges = self.table.charges.get(job)
            if retry_policy.needs_to_be_alone(charges, crash_limit=self.settings.crash_limit):
                self.queue.put_alone(job)
            else:
                self.queue.put_first(job)

    def _note_superseded(
        self, turn: Turn, slot: int, job: int, lease: int, kind: str, error: dict[str, Any] | None = None
    ) -> None:
        detail = {"job": self.table.ids[job], "lease": lease, "outcome": kind, "worker": slot}
        if error:
            detail["error"] = error
        turn.effects.records.append(Noted("superseded", turn.at, detail))

    def is_waiting(self, job: int) -> bool:
        return self.table.state[job] in (PENDING, INTERRUPTED)


def _with_more(outcomes: list[Completed | CompletedWith]) -> dict[int, CompletedWith]:
    """The outcomes that carry more than a result, by index."""
    if set(map(type, outcomes)) == {Completed}:
        return {}
    return {place: each for place, each in enumerate(outcomes) if isinstance(each, CompletedWith)}
