"""Jobs as the user writes them, the states of a job, and counts of jobs by state. Pure."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from supervisor.core.terms.needs import Needs


# gc=False: nothing in a job refers to the job, and a list of a million is otherwise walked through again and again.
class Job(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """One call of the user's function: `function(**params)`.

    Parameters
    ----------
    id: unique in the experiment; derived from `domain` and `params` when left out. A resume knows a
        job by it.
    domain: the group that a job belongs to ("iris", "protein-7"); a pilot runs one job of each.
    params: keyword arguments of the function: values of JSON, which has neither NaN nor infinities.
    timeout: seconds or text ("2h"), instead of the experiment's `--timeout`; "none" for no timeout.
    retries: a whole number, instead of the experiment's `--retries`.
    priority: a whole number; jobs with a higher one are started first. 0 if left out.
    cpus: cores that it uses (4, 0.5), instead of the experiment's `--job-cpus`. 1 if neither is given.
    memory: bytes or text ("8G") that it takes at most, instead of `--job-memory`; 0 or "none": not said.
    gpus: devices that it uses, a whole number or a share of one (0.5), instead of `--job-gpus`; 0: none.
    resources: amounts of what `--resource NAME=N` offers: {"license": 1}.

    Values are checked when the experiment is started: UsageError names the job and its position.
    """

    id: str | None = None
    domain: str | None = None
    params: dict[str, Any] = {}
    timeout: float | str | None = None
    retries: int | None = None
    priority: int = 0
    cpus: float | None = None
    memory: int | str | None = None
    gpus: float | None = None
    resources: Mapping[str, float] | None = None


# States of a job, as small integers because they live in one byte per job.
PENDING = 0  # never handed out, or given back unstarted
LEASED = 1  # handed to a worker; the first of a worker's leases is the one that runs
INTERRUPTED = 2  # stopped in the middle; counted as in progress; runs again
COMPLETED = 3
FAILED = 4

STATE_NAMES = ("pending", "in_progress", "in_progress", "completed", "failed")


class OwnSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job's own settings, which replace the experiment's. A timeout of 0 means no timeout.

    Each field is a field of `Job` too, with the same default (the fields of `Needs` are), and stands in the job's
    line of the plan if it has another value. What may be written in a script: `settings.parse_own`.
    """

    timeout: float | None = None  # seconds
    retries: int | None = None
    priority: int = 0
    needs: Needs | None = None


NOTHING_OWN = OwnSettings()


class Counts(msgspec.Struct):
    """How many jobs are in each state; the four parts always add up to `total`.

    Attributes
    ----------
    total: all jobs of the experiment.
    completed: with a result.
    failed: without one, and with no further attempt in this run.
    in_progress: running, or stopped in the middle; they run again.
    pending: not started.
    """

    total: int = 0
    completed: int = 0
    failed: int = 0
    in_progress: int = 0
    pending: int = 0

    @property
    def left(self) -> int:
        """Jobs that have not ended."""
        return self.pending + self.in_progress

    def add(self, state: int, number: int) -> None:
        """Count `number` more jobs in a state. A leased job that waits in a worker is pending."""
        self.total += number
        if state == COMPLETED:
            self.completed += number
        elif state == FAILED:
            self.failed += number
        elif state == INTERRUPTED:
            self.in_progress += number
        else:
            self.pending += number


class JobPatterns:
    """Which jobs the words of a user name. A word that is an id means that job alone, whatever is in it: ids that are
    made of params have brackets (`layers=[64,32]`). Any other is compared as a shell compares names of files, but `*`
    matches `/` too; upper and lower case are different.

    words: what was given. ids: the ids that there are, as far as they are known; a word that is none of them still
    names the job that is called so, beside those that match it.
    """

    def __init__(self, words: Sequence[str], ids: Container[str] = ()) -> None:
        from fnmatch import translate  # every script imports this module

        self._words = frozenset(words)
        self.ids = [word for word in words if word in ids]
        self.globs = [word for word in words if word not in ids]
        self._match = re.compile("|".join(map(translate, self.globs))).match if self.globs else None

    def names(self, job_id: str) -> bool:
        """Whether it is named by one of the words."""
        return job_id in self._words or (self._match is not None and self._match(job_id) is not None)


def derived_id(domain: str | None, params_json: bytes) -> str:
    """The id of a job without one: domain and parameters if short, else a prefix and a hash."""
    params: dict[str, Any] = msgspec.json.decode(params_json)
    values = ",".join(
        f"{key}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for key, value in params.items()
    )
    name = f"{domain}/{values}" if domain else values or "job"
    if len(name) <= 100:
        return name
    import hashlib  # loads OpenSSL

    digest = hashlib.blake2b(params_json, digest_size=6).hexdigest()
    return f"{name[:80]}~{digest}"
