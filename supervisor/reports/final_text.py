"""The text of logs_final.json: one line for each job, in plan order, some hundred at a time.

Nearly all lines are of jobs that completed and said nothing of what they need. Those are put together from the
bytes of the plan and of the journal (`_lines_batch`); the reference, which can make every line, is `_lines`, and makes
those of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from operator import attrgetter

import msgspec

from supervisor.core.state.columns import get
from supervisor.core.terms.jobs import COMPLETED, STATE_NAMES
from supervisor.core.terms.records import NO_RESULT
from supervisor.reports.hand_outs import HandOuts
from supervisor.reports.result_reader import Results
from supervisor.storage.plan.plan_line import PlannedJob

IS_COMPLETED = bytes(state == COMPLETED for state in range(256))

_encode_lines = msgspec.json.Encoder().encode_lines

_FEW = 8  # jobs of a group to each that has a line of its own kind; of more, all go the way of the reference

_NULL = msgspec.Raw(b"null")

_id, _domain, _params = attrgetter("id"), attrgetter("domain"), attrgetter("params")

_needs = attrgetter("needs")

_error, _nonfinite, _lease = attrgetter("error"), attrgetter("nonfinite"), attrgetter("lease")


class _FinalEntry(msgspec.Struct, omit_defaults=True, gc=False):
    """One job in logs_final.json; `result` is there when completed, `error` when failed, `needs` and `given` when
    the job, or the experiment for all jobs, says what is needed, `place` when it ran on a node."""

    job: str
    domain: str | None
    params: msgspec.Raw
    state: str
    attempts: int
    seconds: float
    result: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    nonfinite: msgspec.Raw = NO_RESULT
    code: str | None = None
    needs: msgspec.Raw = NO_RESULT
    given: msgspec.Raw = NO_RESULT
    place: str = ""


class _Group:
    """Jobs whose lines are made together, and what is known of them by column."""

    def __init__(self, results: Results, jobs: Sequence[int]) -> None:
        table = results.table
        self.jobs = jobs
        self.found = results.contents(jobs)
        self.states = bytes(get(table.state, jobs))
        self.attempts: Sequence[int] = get(table.attempts, jobs)
        self.seconds: Sequence[float] = get(table.seconds, jobs)
        self.completed = self.states.count(COMPLETED) == len(jobs)
        codes = results.history.codes
        if self.completed and codes.uniform:  # by far the most
            self.made_by: list[str | None] = [codes.spans[0].version] * len(jobs)
        else:
            self.made_by = codes.versions(list(map(_lease, self.found)))

    def odd(self) -> list[int]:
        """By index in the group, the jobs that have anything but a result: mostly none, which is quickly seen."""
        more = [one.nonfinite is not NO_RESULT or one.error is not NO_RESULT for one in self.found]
        if self.completed and True not in more:
            return []
        pairs = enumerate(zip(more, self.states, strict=True))
        return [place for place, (has_more, state) in pairs if has_more or state != COMPLETED]


def final_text(results: Results, tally: Counter[str | None]) -> Iterator[bytes]:
    """The text as it is now. `tally` is filled: completed jobs by the version of the code that made them.

    What jobs were given, and where they ran, stands in other records of the journal than what came of them. So
    that is read once more as soon as one says what it needs, or if there were nodes, and never else.
    """
    yield b"["
    hand_outs: HandOuts | None = None
    settings = results.history.settings
    for_all = any(settings.get(name) is not None for name in ("job_cpus", "job_memory", "job_gpus"))
    for_all |= results.history.of_nodes
    codes = results.history.codes
    tally.clear()
    before = b"\n"
    for jobs in results.groups(results.jobs()):
        group = _Group(results, jobs)
        tally.update(codes.tally(group.made_by, group.states.translate(IS_COMPLETED)))
        plain = None if for_all or hand_outs is not None else results.plan_bodies(jobs)
        odd = [] if plain is None else group.odd()
        if plain is not None and len(odd) * _FEW <= len(jobs):
            others = [jobs[place] for place in odd]
            lines = _lines(_Group(results, others), results.planned(others), None) if odd else b""
            text = _lines_batch(group, plain, dict(zip(odd, lines.split(b",\n"), strict=False)))
        else:
            planned = results.planned(jobs)
            if hand_outs is None and (for_all or any(map(_needs, planned))):
                hand_outs = HandOuts(results.hand_outs_with_needs())
            text = _lines(group, planned, hand_outs)
        yield before + text
        before = b",\n"
    yield b"\n]\n"


def _lines(group: _Group, planned: Sequence[PlannedJob], hand_outs: HandOuts | None) -> bytes:
    """The lines of a group, joined. The reference for `_lines_batch`."""
    found = group.found
    entries = map(
        _FinalEntry,
        map(_id, planned),
        map(_domain, planned),
        map(_params, planned),
        map(STATE_NAMES.__getitem__, group.states),
        group.attempts,
        group.seconds,
        [
            one.result or (_NULL if state == COMPLETED else NO_RESULT)
            for one, state in zip(found, group.states, strict=True)
        ],
        map(_error, found),
        map(_nonfinite, found),
        group.made_by,
    )
    lines = list(entries)
    needs = list(map(_needs, planned))
    if hand_outs is not None:
        for line, its, one in zip(lines, needs, found, strict=True):
            line.needs, (line.given, line.place) = its, hand_outs.of(one.lease)
    return _encode_lines(lines)[:-1].replace(b"\n", b",\n")


def _lines_batch(group: _Group, plain: Sequence[bytes], others: Mapping[int, bytes]) -> bytes:
    """The same bytes at less than half the cost, from the bodies of lines of the plan (`plan_line.bodies_batch`).

    others: by index the lines of the jobs that have anything but a result, made by the reference.
    """
    begins = {
        number: b',"state":"completed","attempts":%d,"seconds":' % number for number in set(group.attempts)
    }
    ends = {
        code: b"}" if code is None else b',"code":%b}' % msgspec.json.encode(code)
        for code in set(group.made_by)
    }
    pieces = zip(
        repeat(b',\n{"job":'),
        plain,
        map(begins.__getitem__, group.attempts),
        _encode_lines(list(group.seconds)).split(b"\n"),
        repeat(b',"result":'),
        [one.result or _NULL for one in group.found],
        map(ends.__getitem__, group.made_by),
        strict=False,  # behind the last newline there is an empty piece
    )
    if not others:
        return b"".join(chain.from_iterable(pieces))[2:]
    rows: list[Sequence[bytes]] = list(pieces)
    for place, line in others.items():
        rows[place] = (b",\n", line)
    return b"".join(chain.from_iterable(rows))[2:]
