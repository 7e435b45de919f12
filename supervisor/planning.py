"""From the user's jobs to the lines of a plan: checked, with ids, one per domain or all.

Nothing is written here but a spooled temporary file (`PlanBuilder`), so that a plan that
cannot be run changes nothing on disk.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from supervisor.core.errors import UsageError
from supervisor.core.jobs import Job, derived_id
from supervisor.records.plan_file import PlanBuilder
from workers.values import Unencodable, encode_params


class Plan(msgspec.Struct):
    """`builder` holds the selected jobs; `offered` counts all that the script offers."""

    builder: PlanBuilder
    selected: int
    offered: int
    converted: bool = False


def build_plan(
    function: Callable[..., Any], jobs: Any, arguments: argparse.Namespace | None, *, all_tasks: bool
) -> Plan:
    """Ask the script for its jobs and select those to run.

    Raises UsageError for anything that cannot be run: not a Job, duplicate ids, parameters
    that do not survive JSON or that the function does not take, no jobs at all.
    """
    builder = PlanBuilder()
    calls = _Calls(function)
    domains: set[str] = set()
    offered = selected = 0
    for position, job in enumerate(_offered(jobs, arguments), 1):
        offered += 1
        _check_job(job, position)
        if not all_tasks and job.domain is not None:
            if job.domain in domains:
                continue
            domains.add(job.domain)
        params = _encode(job, position)
        calls.check(job, position)
        builder.add(job.id if job.id is not None else derived_id(job.domain, params), job.domain, params)
        selected += 1
    if not selected:
        raise UsageError("the experiment has no jobs: `jobs` gave none. Check what it reads or filters.")
    return Plan(builder, selected, offered)


def _offered(jobs: Any, arguments: argparse.Namespace | None) -> Iterator[Any]:
    source = jobs
    if callable(jobs):
        source = jobs(arguments or argparse.Namespace()) if _takes_argument(jobs) else jobs()
    if isinstance(source, (str, bytes, Job)) or not isinstance(source, Iterable):
        raise UsageError(
            f"jobs must be an iterable of Job, or a function that returns one, not {_kind(source)}"
        )
    return iter(source)


def _takes_argument(jobs: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(jobs).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )


def _check_job(job: Any, position: int) -> None:
    if not isinstance(job, Job):
        raise UsageError(
            f"job number {position} is {_kind(job)}, not a Job: write Job(id=..., domain=..., params={{...}})"
        )
    where = f"job number {position}"
    if job.id is not None and (not isinstance(job.id, str) or not job.id or not _is_text(job.id)):
        raise UsageError(f"{where}: its id must be a text that is not empty, not {job.id!r}")
    if job.domain is not None and (
        not isinstance(job.domain, str) or not job.domain or not _is_text(job.domain)
    ):
        raise UsageError(f"{where}: its domain must be a text that is not empty, or None, not {job.domain!r}")
    if not isinstance(job.params, dict):
        raise UsageError(f"{where}: params must be a dict of keyword arguments, not {_kind(job.params)}")


def _is_text(text: str) -> bool:
    """Lone surrogates cannot be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _encode(job: Job, position: int) -> bytes:
    try:
        return encode_params(job.params)
    except Unencodable as error:
        raise UsageError(f"job {_name(job, position)}: params{error.path}: {error.reason}") from None


class _Calls:
    """Whether the function can be called with a job's parameters, asked once per set of names."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._known: set[frozenset[str]] = set()
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):
            self._signature = None  # some built-in functions do not tell
        self._function = getattr(function, "__name__", repr(function))

    def check(self, job: Job, position: int) -> None:
        names = frozenset(job.params)
        if self._signature is None or names in self._known:
            return
        try:
            self._signature.bind(**job.params)
        except TypeError as error:
            call = f"{self._function}{self._signature}"
            given = ", ".join(job.params) or "no params"
            raise UsageError(
                f"job {_name(job, position)}: {call} cannot be called with {given}: {error}"
            ) from None
        self._known.add(names)


def _name(job: Job, position: int) -> str:
    return repr(job.id) if job.id is not None else f"number {position}"


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]
