"""Runs one job and makes an outcome of its result or exception.

Whatever the user's function raises, SystemExit and KeyboardInterrupt included, is an outcome of the job and does
not end the worker. The code for a job that returns normally runs some hundred thousand times a second.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, count
from time import perf_counter
from typing import Any

import msgspec

from workers.isolation.exit_functions import exit_fork
from workers.job.current_job import CURRENT, PROCESS
from workers.job.job_exceptions import GiveUp, JobInterrupted, Retry
from workers.program.program_end import ProgramFailed
from workers.transport.frames import MAX_FRAME
from workers.transport.messages import Completed, CompletedWith, Failed, Failure, Outcome, PlanLine, Run
from workers.values.json_encoding import Unencodable, encode_plain, encode_result
from workers.values.tracebacks import describe, encodable, safe_repr

_MAX_RESULT = MAX_FRAME // 2  # bytes


_decoder = msgspec.json.Decoder(PlanLine)
_TOGETHER = 8 << 10  # bytes of lines, about: the objects decoded from them fit into the CPU cache
_LARGE = 64 << 10  # bytes: larger lines are decoded by their own job


def planned(lines: bytes) -> Iterator[PlanLine | bytes]:
    """The lines of a message, decoded in groups; undecoded if a group is large or has a bad line."""
    return chain.from_iterable(map(_decoded, _pieces(lines)))


def _pieces(lines: bytes) -> Iterator[bytes]:
    start = 0
    while (stop := lines.find(b"\n", start + _TOGETHER)) >= 0:
        yield lines[start:stop]
        start = stop + 1
    yield lines[start:]


def _decoded(lines: bytes) -> Sequence[PlanLine | bytes]:
    if len(lines) < _LARGE:
        try:
            found = _decoder.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # reported later, by the job with that line
        else:
            if len(found) == lines.count(b"\n") + 1:  # msgspec skips empty lines, but each line has its lease
                return found
    return lines.split(b"\n")


class WaitingJobs:
    """The leases that a worker has not started.

    batches: in the order in which they came. For each, the cores that its jobs were given (`Run.cpus`), and for each
        of the jobs lease, attempt and line.
    """

    def __init__(self) -> None:
        self.batches: deque[tuple[int, Iterator[tuple[int, int, PlanLine | bytes]]]] = deque()

    def add(self, run: Run) -> None:
        jobs = zip(count(run.first_lease), run.attempts, planned(run.lines), strict=False)
        self.batches.append((run.cpus, jobs))

    def drop(self, leases: Collection[int] | None = None) -> list[int]:
        """Remove these leases, or all; those that were there."""
        batches = [(cpus, list(jobs)) for cpus, jobs in self.batches]
        waiting = [lease for _, jobs in batches for lease, _, _ in jobs]
        wanted = set(waiting if leases is None else leases)
        kept = [(cpus, [job for job in jobs if job[0] not in wanted]) for cpus, jobs in batches]
        self.batches.clear()
        self.batches.extend((cpus, iter(jobs)) for cpus, jobs in kept if jobs)
        return [lease for lease in waiting if lease in wanted]


class Runner:
    """Calls the user's function for one plan line after the other."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def run(self, lease: int, attempt: int, line: PlanLine | bytes, start: float) -> Outcome:
        """Run one attempt, which begins at `start` (perf_counter, just read by the caller). Never raises
        because of the user's code."""
        try:
            if type(line) is bytes:
                line = _decoder.decode(line)
                start = perf_counter()
            CURRENT.start_job(line.id, line.domain, attempt)  # type: ignore[union-attr]
            value = self._function(**line.params)  # type: ignore[union-attr]
            seconds = perf_counter() - start
        except BaseException as error:
            return _failed(lease, perf_counter() - start, error)
        try:
            json = encode_plain(value)
            if json is not None and len(json) < _MAX_RESULT:
                return Completed(lease, seconds, json)
            encoded = encode_result(value)
        except BaseException as error:
            return _unencodable(lease, seconds, value, error)
        if len(encoded.json) > _MAX_RESULT:
            message = (
                f"the result is {len(encoded.json)} bytes of JSON, more than {_MAX_RESULT}; "
                "save what is large in current_job().directory, and return the names of the files"
            )
            return Failed(lease, seconds, "unencodable", Failure("ValueError", message))
        return CompletedWith(lease, seconds, encoded.json, 0, encoded.nonfinite, encoded.converted)


def with_output(outcome: Outcome, size: int) -> CompletedWith | Failed:
    """The outcome of a job that has printed `size` bytes."""
    if isinstance(outcome, Completed):
        return CompletedWith(outcome.lease, outcome.seconds, outcome.result, size)
    outcome.output = size
    return outcome


def _failed(lease: int, seconds: float, error: BaseException) -> Failed:
    if PROCESS.worker and os.getpid() != PROCESS.worker:  # the end of a child that the job has forked
        exit_fork(error)
    # A scheduler that stops an allocation signals all its processes: a program that the job waits for dies,
    # and the job raises, perhaps before the supervisor has read its own signal.
    interrupted = CURRENT.stopping or isinstance(error, JobInterrupted)
    if isinstance(error, ProgramFailed):
        what = Failure(error.kind, encodable(error.message), encodable(error.output))
        what.exit_code, what.signal = error.exit_code, error.signal
        return Failed(lease, seconds, "interrupted" if interrupted else error.outcome, what, wish=error.wish)
    failed = Failed(lease, seconds, "interrupted" if interrupted else "raised", describe(error))
    if isinstance(error, Retry):
        failed.wish, failed.after, failed.most = "retry", error.after, error.most
    elif isinstance(error, GiveUp):
        failed.wish = "give_up"
    return failed


def _unencodable(lease: int, seconds: float, value: object, error: BaseException) -> Failed:
    # Anything but Unencodable was raised by a property or an iterator of the value itself.
    known = isinstance(error, Unencodable)
    failure = Failure("Unencodable", str(error)) if known else describe(error)
    failure.value_repr = safe_repr(value)
    return Failed(lease, seconds, "unencodable", failure)
