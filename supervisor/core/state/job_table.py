"""The state of every job, in arrays by job number. States change only here. Pure.

A job's number is its position in the plan file and never changes. The states of a job:

    PENDING ──leased──▶ LEASED ──completed──▶ COMPLETED
       ▲                  │ ├────failed─────▶ FAILED
       │◀──returned───────┘ ├────retried────▶ PENDING       (an error with budget left)
       │                    └──interrupted──▶ INTERRUPTED   (cut in the middle; runs again)
       ├──cancelled─▶ FAILED (by hand; from INTERRUPTED, too)
       └──reset── COMPLETED, FAILED, INTERRUPTED            (--rerun, retry on resume)

`completed` is legal from every state but COMPLETED, because the first completed result
of any lease wins, also that of a lease which had been revoked. Every other move that
is not in `MOVES` raises IllegalMove and changes nothing.

Replaying a journal goes through the same methods (`apply`): the records say what
happened, nothing is decided twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from supervisor.core.state.columns import get, put
from supervisor.core.state.open_leases import OpenLeases
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING, Counts, OwnSettings
from supervisor.core.terms.records import (
    AnyRecord,
    Carried,
    Ended,
    Leased,
    Noted,
    Reset,
    Returned,
    WorkerEnded,
)

MOVES: dict[tuple[int, str], int] = {
    (PENDING, "leased"): LEASED,
    (INTERRUPTED, "leased"): LEASED,
    (LEASED, "returned"): PENDING,
    (LEASED, "failed"): FAILED,
    (LEASED, "retried"): PENDING,
    (LEASED, "interrupted"): INTERRUPTED,
    (PENDING, "cancelled"): FAILED,
    (INTERRUPTED, "cancelled"): FAILED,
    (PENDING, "completed"): COMPLETED,
    (LEASED, "completed"): COMPLETED,
    (INTERRUPTED, "completed"): COMPLETED,
    (FAILED, "completed"): COMPLETED,
    (COMPLETED, "reset"): PENDING,
    (FAILED, "reset"): PENDING,
    (INTERRUPTED, "reset"): PENDING,
    (PENDING, "reset"): PENDING,
}

_STATE_OF = {"completed": COMPLETED, "failed": FAILED, "in_progress": INTERRUPTED, "pending": PENDING}


class IllegalMove(Exception):
    """A change of state that is not in `MOVES`."""


class Charges(msgspec.Struct):
    """What a job has used of its budgets; kept when the supervisor is killed."""

    crashes: int = 0  # attempts that killed their worker
    losses: int = 0  # attempts that ran when the supervisor ended uncleanly
    errors: int = 0  # raised, unencodable
    timeouts: int = 0
    over_memory: int = 0
    asked: int = 0  # attempts that raised workers.Retry

    @classmethod
    def of(cls, spent: Any) -> Charges:
        """The charges in a record or an entry with the same fields."""
        return cls(*[getattr(spent, field) for field in cls.__struct_fields__])

    def any(self) -> bool:
        return any(msgspec.structs.astuple(self))


_BUDGET_OF = {
    "crashed": "crashes",
    "lost": "losses",
    "timed_out": "timeouts",
    "over_memory": "over_memory",
    "asked": "asked",
}


class JobTable:
    """States, attempts, charges and durations of all jobs ever planned.

    `wanted[number]` is 1 for jobs of the current plan; only those are counted. Jobs that
    are gone from the plan keep their results.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._numbers: dict[str, int] = {}
        self._ended: dict[str, int] = {}  # the numbers of jobs that have a record of their own
        self._expected: dict[str, int] = {}  # the numbers of some jobs; see `expect`
        self.domains: list[str] = []  # names by domain number; 0 is "no domain"
        self._domain_numbers: dict[str | None, int] = {None: 0}
        self.domains.append("")
        self.domain_of = array("I")
        self.state = bytearray()
        self.wanted = bytearray()
        self.attempts = array("I")  # attempts that started
        self.seconds = array("d")  # of the last attempt that ended
        self.charges: dict[int, Charges] = {}
        self.outcome: dict[int, str] = {}  # of failed jobs: how the last attempt ended
        self.own: dict[int, OwnSettings] = {}  # of the jobs that have settings of their own
        # Job numbers. Filled by a replay, emptied when the core settles what an earlier run left open.
        self.open_leases: OpenLeases[int] = OpenLeases()

    def __len__(self) -> int:
        return len(self.ids)

    # --------------------------------------------------------------------- the plan

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each job by its id. Made on first use: for a million jobs it takes half a second and
        75 MB, and many runs never need it."""
        known = self._numbers
        if len(known) < len(self.ids):
            known.update(zip(self.ids[len(known) :], range(len(known), len(self.ids)), strict=True))
        return known

    def note_ended(self, job: int) -> None:
        """This job gets a record of its own: `number_of` will be asked for it."""
        self._ended[self.ids[job]] = job

    def number_of(self, job_id: str) -> int:
        """As `numbers[job_id]`; does not make that for a job that was noted. Else the loop would stand still for
        half a second at the first failure among a million jobs."""
        number = self._ended.get(job_id)
        return self.numbers[job_id] if number is None else number

    def add(self, job_id: str, domain: str | None = None, *, wanted: bool = True) -> int:
        """Register a job; its number. An id that is known keeps its number."""
        numbers = self.numbers
        number = numbers.get(job_id)
        if number is None:
            number = numbers[job_id] = len(self.ids)
            self.ids.append(job_id)
            self.domain_of.append(0)
            self.state.append(PENDING)
            self.wanted.append(0)
            self.attempts.append(0)
            self.seconds.append(0.0)
        if wanted:
            self.wanted[number] = 1
        if domain is not None:
            self.domain_of[number] = self._domain_number(domain)
        return number

    def add_planned(self, ids: Sequence[str], domains: Sequence[str | None], *, unique: bool = False) -> bool:
        """Register many wanted jobs at once. False if an id is known already or occurs twice; then nothing is
        changed. `unique`: the caller knows that this is not so."""
        if not unique and not self._number(ids):
            return False
        for domain in (names := dict.fromkeys(domains)):
            if domain is not None:
                self._domain_number(domain)
        self.ids.extend(ids)
        if len(names) == 1:
            self.domain_of.extend(array("I", map(self._domain_numbers.__getitem__, names)) * len(ids))
        else:
            self.domain_of.extend(map(self._domain_numbers.__getitem__, domains))
        self._extend(len(ids))
        return True

    def add_columns(self, ids: list[str], domains: Sequence[str], domain_of: array[int]) -> None:
        """`add_planned` of all jobs of an empty table, whose ids are known to differ. `domains`: the names by number
        as `domains` has them, `domain_of`: the number of each job."""
        for domain in domains[1:]:
            self._domain_number(domain)
        self.ids.extend(ids)
        self.domain_of.extend(domain_of)
        self._extend(len(ids))

    def _extend(self, jobs: int) -> None:
        """So many more rows of wanted jobs of which nothing is known yet."""
        self.state.extend(bytes([PENDING]) * jobs)
        self.wanted.extend(b"\1" * jobs)
        self.attempts.frombytes(bytes(self.attempts.itemsize * jobs))
        self.seconds.frombytes(bytes(self.seconds.itemsize * jobs))

    def _number(self, ids: Sequence[str]) -> bool:
        """Give new ids the next numbers, if all of them are new."""
        first, numbers = len(self.ids), self.numbers
        expected = range(first, first + len(ids))
        if list(map(numbers.setdefault, ids, expected)) == list(expected):
            return True
        for job_id in ids:  # one was known, or occurs twice
            if numbers.get(job_id, -1) >= first:
                del numbers[job_id]
        return False

    def numbers_of(self, ids: list[str]) -> list[int]:
        """The numbers of many jobs; fast if they are consecutive. Unknown ids are registered as gone."""
        if not self._expected:
            self.expect(0)
        first = self._expected.get(ids[0]) if ids else None
        if ids and first is None:
            first = self.numbers.get(ids[0])
        if first is not None and self.ids[first : first + len(ids)] == ids:
            self.expect(first)
            self.expect(first + len(ids))
            return list(range(first, first + len(ids)))
        found = list(map(self.numbers.get, ids))
        known = [number for number in found if number is not None]
        return known if len(known) == len(ids) else [self.add(job_id, wanted=False) for job_id in ids]

    def expect(self, number: int) -> None:
        """Jobs from this one on will be asked for together: what was handed out together completes in parts, and one
        part follows the other. `numbers_of` knows them then without `numbers`."""
        if number < len(self.ids):
            self._expected[self.ids[number]] = number

    def expect_nothing_more(self) -> None:
        """Forget what `expect` was told: the replay is over."""
        self._expected.clear()

    def _domain_number(self, domain: str) -> int:
        known = self._domain_numbers.get(domain)
        if known is None:
            known = self._domain_numbers[domain] = len(self.domains)
            self.domains.append(domain)
        return known

    # ------------------------------------------------------------------------ moves

    def move(self, job: int, cause: str) -> None:
        """Change one job's state; raises IllegalMove and changes nothing if it may not."""
        after = MOVES.get((self.state[job], cause))
        if after is None:
            raise IllegalMove(f"job {self.ids[job]!r} in state {self.state[job]} cannot be {cause}")
        self.state[job] = after

    def lease(self, jobs: Sequence[int]) -> None:
        """Mark many jobs as leased. Raises IllegalMove and changes nothing if one may not be."""
        for state in set(get(self.state, jobs)):
            if (state, "leased") not in MOVES:
                job = next(job for job in jobs if self.state[job] == state)
                raise IllegalMove(f"job {self.ids[job]!r} in state {state} cannot be leased")
        put(self.state, jobs, bytes([LEASED]) * len(jobs))

    def complete(self, jobs: Sequence[int], seconds: list[float]) -> list[int]:
        """Mark many leased jobs as completed; the number of attempts of each."""
        attempts = [before + 1 for before in get(self.attempts, jobs)]
        put(self.state, jobs, bytes([COMPLETED]) * len(jobs))
        put(self.attempts, jobs, array("I", attempts))
        put(self.seconds, jobs, array("d", seconds))
        return attempts

    def all_in(self, jobs: Sequence[int], state: int) -> bool:
        """Whether all these jobs are in a state."""
        return bytes(get(self.state, jobs)).count(state) == len(jobs)

    def charge(self, job: int, outcome: str) -> Charges:
        """Charge the end of an attempt to the budget of its cause; the charges so far.

        `outcome`: how it ended, or "asked" if the job itself wanted another attempt.
        """
        charges = self.charges.setdefault(job, Charges())
        if outcome not in ("interrupted", "cancelled"):
            budget = _BUDGET_OF.get(outcome, "errors")
            setattr(charges, budget, getattr(charges, budget) + 1)
        return charges

    def reset(self, job: int, *, forget_charges: bool) -> None:
        self.move(job, "reset")
        self.outcome.pop(job, None)
        if forget_charges:
            self.charges.pop(job, None)

    def restore(
        self, jobs: Sequence[int], states: Sequence[int], attempts: Sequence[int], seconds: Sequence[float]
    ) -> None:
        """Set states, attempts and seconds of finished jobs, as read from files."""
        put(self.state, jobs, bytes(states))
        put(self.attempts, jobs, array("I", attempts))
        put(self.seconds, jobs, array("d", seconds))

    # ----------------------------------------------------------------------- replay

    def apply(self, record: AnyRecord) -> None:
        """Replay one record of the journal. Unknown job ids are registered as gone. Leases that a run
        left open are closed by the first records of the next run.

        Accepts moves that a live run refuses: lines before this one may be lost.
        """
        handler = _HANDLERS.get(type(record))
        if handler is not None:
            handler(self, record)

    def _apply_leased(self, record: Leased) -> None:
        self.open_leases.hand_out(record, self.numbers_of(record.jobs))

    def _apply_returned(self, record: Returned) -> None:
        self.open_leases.give_back(record)

    def _apply_noted(self, record: Noted) -> None:
        if record.what == "superseded":
            self.open_leases.close(record.detail.get("lease", 0))

    def _apply_worker_ended(self, record: WorkerEnded) -> None:
        self.open_leases.pop(record.incarnation, None)

    def _apply_reset(self, record: Reset) -> None:
        for job_id in record.jobs:
            job = self.add(job_id, wanted=False)
            self.reset(job, forget_charges=record.why != "retry")

    def _apply_carried(self, record: Carried) -> None:
        job = self.add(record.job, wanted=False)
        self.attempts[job] = record.attempts
        self.state[job] = _STATE_OF[record.state]
        charges = Charges.of(record)
        if charges.any():
            self.charges[job] = charges
        else:
            self.charges.pop(job, None)

    def _apply_ended(self, record: Ended) -> None:
        job = self.add(record.job, wanted=False)
        self.open_leases.close(record.lease)
        if not record.state:
            return
        self.attempts[job] = max(self.attempts[job], record.attempt)
        self.seconds[job] = record.seconds
        self.state[job] = _STATE_OF[record.state]
        if record.outcome == "completed":
            self.outcome.pop(job, None)
        else:
            self.charge(job, record.charged or record.outcome)
            self.outcome[job] = record.outcome

    def completed(self, jobs: Sequence[int], attempts: Sequence[int], seconds: Sequence[float]) -> None:
        """Replay many completions at once. `apply` of their records, one by one, is the reference, except for
        leases: see `OpenLeases.close_batch`."""
        before = get(self.attempts, jobs)
        after = list(map(max, before, attempts)) if any(before) else attempts
        self.restore(jobs, bytes([COMPLETED]) * len(jobs), after, seconds)
        if self.outcome:
            for job in jobs:
                self.outcome.pop(job, None)

    # ----------------------------------------------------------------------- counts

    def counts(self, running: Iterable[int] = ()) -> Counts:
        """Counts of the jobs in the current plan; `running` are the numbers of leased
        jobs that have started (the first open lease of each worker)."""
        return self._counts(self.state, self.wanted, set(running))

    def gone(self) -> int:
        """How many jobs of earlier plans the current one does not have."""
        return self.wanted.count(0)

    def _counts(self, state: bytearray, wanted: bytearray, running: set[int]) -> Counts:
        # state + 8 * wanted would cost a pass in Python; bytes.count runs in C.
        if wanted.count(1) == len(wanted):
            view = state
        else:
            view = bytearray(s for s, w in zip(state, wanted, strict=True) if w)
        counts = Counts(
            total=len(view),
            completed=view.count(COMPLETED),
            failed=view.count(FAILED),
            in_progress=view.count(INTERRUPTED),
        )
        counts.in_progress += sum(1 for job in running if state[job] == LEASED and wanted[job])
        counts.pending = counts.total - counts.completed - counts.failed - counts.in_progress
        return counts


_HANDLERS: dict[type, Callable[[JobTable, Any], None]] = {
    Ended: JobTable._apply_ended,
    Leased: JobTable._apply_leased,
    Returned: JobTable._apply_returned,
    Noted: JobTable._apply_noted,
    WorkerEnded: JobTable._apply_worker_ended,
    Reset: JobTable._apply_reset,
    Carried: JobTable._apply_carried,
}
