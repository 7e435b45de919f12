"""From the user's jobs to the lines of a plan: checked, with ids, one per domain or all.

Nothing is written here but the spool of a `PlanBuilder`, so that a plan that
cannot be run changes nothing on disk.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec.structs import astuple

from supervisor.core.terms.errors import LonghaulError, RaisedByScript, UsageError
from supervisor.core.terms.jobs import NOTHING_OWN, Job, OwnSettings, derived_id
from supervisor.core.terms.needs import Needs
from supervisor.core.terms.settings import parse_own
from supervisor.core.terms.wording import as_given
from supervisor.experiment.job_selection import PilotSelection
from supervisor.options.script_options import takes
from supervisor.storage.plan.plan_builder import EarlierPlan, PlanBuilder
from supervisor.storage.plan.plan_line import plan_lines
from supervisor.system.garbage_collection import rarer_collections
from workers.values.json_encoding import (
    Unencodable,
    all_plain,
    encode_params,
    encode_plain,
    only_scalars,
    only_scalars_of,
)

_GROUP = 512  # jobs that are checked together
_FIRST_GROUP = 32  # before it is known how large they are
_HEAVY = 4 << 20  # bytes of jobs, about, that are checked together
_LOOK_FOR_CYCLES = 20_000  # new objects after which garbage is collected
_SCALARS = {str, int, float, bool, type(None)}
_OWN_DEFAULTS = dict(zip(Job.__struct_fields__[3:], astuple(Job())[3:], strict=True))
_PRIORITY = Job.__struct_fields__.index("priority")
_Group = tuple[list[Any], list[Any]]  # jobs, and the params of each


class Plan(msgspec.Struct):
    """`builder` holds the selected jobs; `offered` counts all that the script offers."""

    builder: PlanBuilder
    selected: int
    offered: int


def build_plan(
    function: Callable[..., Any],
    jobs: Any,
    arguments: argparse.Namespace | None,
    *,
    all_tasks: bool,
    pick: PilotSelection | None = None,
    earlier: EarlierPlan | None = None,
) -> Plan:
    """Ask the script for its jobs and select those to run: by `pick`, or just `all_tasks` or one per
    domain. `earlier` is the plan of the experiment that is resumed: probably the same.

    Raises UsageError for anything that cannot be run: not a Job, duplicate ids, parameters
    that do not survive JSON or that the function does not take, no jobs at all; and
    RaisedByScript for what the script's own code raises.
    """
    pick = pick or PilotSelection(all_tasks=all_tasks)
    collected = _Collected(function, PlanBuilder(earlier), pick)
    source = _job_source(jobs, arguments)
    made = isinstance(source, (list, tuple))
    with _script_errors():
        one_by_one = iter(source)
    # There may be hundreds of thousands of short-lived jobs, none of them in a reference cycle. Garbage
    # collection at its default rate would take a fifth of the time. The script's own cycles are collected,
    # but later.
    with rarer_collections(_LOOK_FOR_CYCLES):
        take, size = _listed if made else _gathered, min(_FIRST_GROUP, _GROUP)
        while group := _next_group(take, one_by_one, size):
            before = collected.builder.size
            if not (pick.all and collected.add_batch(*group)):
                for position, job in enumerate(map(_with_params, *group), collected.offered + 1):
                    collected.add(job, position)
            collected.offered += len(group[0])
            job_bytes = (collected.builder.size - before) / len(group[0])
            size = max(1, min(_GROUP, int(_HEAVY / max(1.0, job_bytes))))
    if not len(collected.builder):
        raise UsageError("the experiment has no jobs: `jobs` returned none. Check what it reads or filters.")
    return Plan(collected.builder, len(collected.builder), collected.offered)


class _Collected:
    """What the script has offered so far, and what of it was selected."""

    def __init__(self, function: Callable[..., Any], builder: PlanBuilder, pick: PilotSelection) -> None:
        self.builder = builder
        self.offered = 0
        self._pick = pick
        self._own: dict[bytes, OwnSettings] = {}
        self._calls = _CallChecker(function)

    def add(self, job: Any, position: int) -> None:
        """Raises UsageError if there is anything wrong with it."""
        if isinstance(job, dict):
            job = Job(params=job)
        _check_job(job, position)
        # NumPy's text and text enums are kinds of str, which not everything takes for text.
        domain = None if job.domain is None else str.__str__(job.domain)
        job_id = None if job.id is None else str.__str__(job.id)
        picked = self._pick.is_first(domain)
        if not picked and not self._pick.may_name(domain):
            return
        if not picked and job_id is not None:
            picked = self._pick.names(job_id)
            if not picked:
                return
        params = _encode(job, position)
        if job_id is None:
            job_id = derived_id(domain, params)
            if not picked and not self._pick.names(job_id):
                return
        self._calls.check(job, position)
        self.builder.add(job_id, domain, params, self._shared(own_settings(job, position)))

    def _shared(self, own: OwnSettings) -> OwnSettings:
        """One object for all jobs that have the same settings of their own: there may be a million."""
        return own if own is NOTHING_OWN else self._own.setdefault(msgspec.msgpack.encode(own), own)

    def add_batch(self, jobs: list[Any], params: list[Any]) -> bool:
        """`add` for many jobs, if none of them is special. Else False, and nothing is changed: `add` converts
        parameters, derives ids, or says what is wrong. `params` are those of the
        jobs, as they were when the script gave them."""
        if set(map(type, jobs)) != {Job}:
            return False
        columns = list(zip(*map(astuple, jobs), strict=True))
        ids, domains = columns[0], columns[1]
        if not (
            set(map(type, ids)) == {str}
            and set(map(type, domains)) <= {str, type(None)}
            and set(map(type, params)) == {dict}
            and _nothing_own(columns)
        ):
            return False
        try:
            lines = self._repeated(ids, domains, params)
            if lines is None and not (
                all(ids) and "" not in domains and self._calls.know(params) and all_plain(params)
            ):
                return False
            return self.builder.add_batch(ids, domains, params, lines)
        except (UnicodeEncodeError, OverflowError):  # a lone surrogate, or an integer that is too long
            return False

    def _repeated(
        self, ids: Sequence[str], domains: Sequence[str | None], params: list[dict[str, Any]]
    ) -> bytes | None:
        """The lines of jobs that are the next ones of the earlier plan; else None. What makes a line was found in order
        when that was made, and is not looked through again: the same JSON stands for the same values where these are
        scalars, and no null is one of NaN."""
        if not self.builder.follows or not self._calls.know_scalars(params):
            return None
        lines = plan_lines(ids, domains, params)
        same = self.builder.expects(lines) and lines.count(b"null") == domains.count(None)
        return lines if same else None


def _nothing_own(columns: list[tuple[Any, ...]]) -> bool:
    """Whether none of some jobs has settings of its own. `columns`: the values of each field of `Job`."""
    priorities, jobs = columns[_PRIORITY], len(columns[_PRIORITY])
    others = (column for field, column in enumerate(columns[3:], 3) if field != _PRIORITY)
    try:
        return (
            all(column.count(None) == jobs for column in others)
            and priorities.count(0) == jobs
            and set(map(type, priorities)) == {int}  # False is equal to 0, and refused
        )
    except ValueError:  # an array is neither equal to None nor another value
        return False


@contextlib.contextmanager
def _script_errors() -> Iterator[None]:
    try:
        yield
    except LonghaulError:
        raise
    except Exception as error:
        raise RaisedByScript(error, "jobs()", "No job was started.") from None


def _next_group(
    take: Callable[[Iterator[Any], int], _Group | None], source: Iterator[Any], size: int
) -> _Group | None:
    with _script_errors():
        return take(source, size)


def _listed(source: Iterator[Any], size: int) -> _Group | None:
    """The next jobs of a script that has made them all; None at the end."""
    jobs = list(islice(source, size))
    return (jobs, [getattr(job, "params", None) for job in jobs]) if jobs else None


def _gathered(source: Iterator[Any], size: int) -> _Group | None:
    """The next jobs of a script that makes them one by one, with params of their own: the script
    may change the dict that it has given us. One that cannot be copied quickly is the last: it is checked
    before the next one is made. None at the end."""
    jobs: list[Any] = []
    copies: list[Any] = []
    simple, with_parts = _SCALARS.issuperset, gc.is_tracked
    for job in islice(source, size):
        params = job.params if type(job) is Job else job
        jobs.append(job)
        # The collector has no interest in a dict in which nothing has parts; that is known sooner than their types.
        if type(params) is dict and (not with_parts(params) or simple(map(type, params.values()))):
            copies.append(params.copy())
            continue
        copies.append(_copied(params))
        if copies[-1] is None:
            break
    return (jobs, copies) if jobs else None


def _with_params(job: Any, params: Any) -> Any:
    """The job as it was given."""
    if type(job) is dict:
        return job if params is None else params
    return job if params is None or job.params is params else msgspec.structs.replace(job, params=params)


def _copied(params: Any) -> dict[str, Any] | None:
    """A copy that later changes do not reach; None for values that are not plain JSON."""
    json = encode_plain(params) if type(params) is dict else None
    return None if json is None else msgspec.json.decode(json)


def _job_source(jobs: Any, arguments: argparse.Namespace | None) -> Iterable[Any]:
    source = jobs
    if callable(jobs):
        with _script_errors():
            source = jobs(arguments or argparse.Namespace()) if takes(jobs, 1) else jobs()
    if isinstance(source, (str, bytes, Job, Mapping)) or not isinstance(source, Iterable):
        raise UsageError(
            f"jobs must be an iterable of Job or of dicts of params, or a function that returns one, "
            f"not {_described(source)}"
            + (
                "; the function returned nothing: return the list, or yield each job"
                if source is None
                else ""
            )
        )
    return source


def _check_job(job: Any, position: int) -> None:
    if not isinstance(job, Job):
        raise UsageError(
            f"job number {position} is {_described(job)}, neither a Job nor a dict of params: write a dict, "
            f"{{name: value}} for each parameter of the function, or Job(id=..., domain=..., params={{...}})"
        )
    where = f"job number {position}"
    if job.id is not None and (not isinstance(job.id, str) or not job.id or not _is_text(job.id)):
        meant = f"; write id='{job.id}'" if type(job.id).__name__ in ("int", "float") else ""
        raise UsageError(f"{where}: its id must be a non-empty string, not {job.id!r}{meant}")
    if job.domain is not None and (
        not isinstance(job.domain, str) or not job.domain or not _is_text(job.domain)
    ):
        raise UsageError(f"{where}: its domain must be a non-empty string or None, not {job.domain!r}")
    if not isinstance(job.params, dict):
        raise UsageError(f"{where}: params must be a dict of keyword arguments, not {_described(job.params)}")


def own_settings(job: Job, position: int) -> OwnSettings:
    """What the job has of its own. Raises UsageError that names the job and the setting."""
    own: dict[str, Any] = {}
    for key, default in _OWN_DEFAULTS.items():
        value = getattr(job, key)
        if value is default:
            continue
        try:
            parsed = parse_own(key, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"job {_name(job, position)}: {key}={as_given(value)}: {error}") from None
        own[key] = 0.0 if parsed is None else parsed
    if not own:
        return NOTHING_OWN
    needs = Needs(**{key: own.pop(key) for key in Needs.__struct_fields__ if key in own})
    settings = OwnSettings(**own, needs=None if needs == Needs() else needs)
    return NOTHING_OWN if settings == NOTHING_OWN else settings


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


class _CallChecker:
    """Whether the function can be called with a job's parameters, asked once for the same names."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._known: set[tuple[str, ...]] = set()
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):
            self._signature = None  # some built-in functions have none
        self._function = getattr(function, "__name__", repr(function))

    def know(self, params: list[dict[str, Any]]) -> bool:
        """Whether all these sets of names were checked before."""
        return set(map(tuple, params)) <= self._known

    def know_scalars(self, params: list[dict[str, Any]]) -> bool:
        """Whether all these names were checked before, and all values are scalars. The last line is the reference;
        where all have the names of the first, as nearly always, a look by name takes a third to two thirds of the
        time."""
        names = tuple(params[0])
        if names in self._known and set(map(len, params)) == {len(names)}:
            with contextlib.suppress(KeyError):  # another one has as many other names
                return only_scalars_of(params, names)
        return self.know(params) and only_scalars(params)

    def check(self, job: Job, position: int) -> None:
        names = tuple(job.params)
        if names in self._known:
            return
        try:
            if self._signature is not None:
                self._signature.bind(**job.params)
        except TypeError as error:
            call = f"{self._function}{self._signature}"
            given = ", ".join(job.params) or "no params"
            hint = "; a dict is the params themselves, with an id it is a Job" if "params" in names else ""
            raise UsageError(
                f"job {_name(job, position)}: {call} cannot be called with {given}: {error}{hint}"
            ) from None
        self._known.add(names)


def _name(job: Job, position: int) -> str:
    return repr(job.id) if job.id is not None else f"number {position}"


def _described(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]
