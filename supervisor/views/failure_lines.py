"""Failures as text: one line each, groups of alike ones, all attempts alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from supervisor.core.state.snapshot import FailureSnapshot
from supervisor.core.terms.wording import cut, duration, one_line, printed_lines, signal_name, size

ENOUGH = 20


class FirstFailures:
    """Watches the first attempts of a run until one succeeds or fails differently."""

    def __init__(self) -> None:
        self._seen = 0
        self._kind: str | None = None
        self.undecided = True

    def completed(self) -> None:
        """An attempt has succeeded: not all fail."""
        self.undecided = False

    def failed(self, failure: FailureSnapshot) -> str | None:
        """A warning, once, if the first 20 attempts have all failed alike; else None."""
        if not self.undecided:
            return None
        name = kind(failure)
        if self._kind is None:
            self._kind = name
        if name != self._kind:
            self.undecided = False
            return None
        self._seen += 1
        if self._seen < ENOUGH:
            return None
        self.undecided = False
        message = cut(one_line(failure.message), 200)
        return (
            f"the first {ENOUGH} attempts all failed alike: {name}{': ' if message else ''}{message}. "
            "Ctrl+C stops the run."
        )


_TAIL = 3  # lines of output shown with a failure

_WIDTH = 160

_CRASH_STACK = "(most recent call first):"  # as faulthandler writes it


def failure_line(failure: FailureSnapshot) -> str:
    """`FAILED iris/forest/200: ValueError model.py:88: no such split (attempt 1, 12s)`."""
    verdict = "FAILED" if failure.final else "will run again:"
    if failure.final and failure.outcome == "crashed":
        verdict = "FAILED, given up after too many crashes:"
    about = [f"attempt {failure.attempt}", duration(failure.seconds)]
    if failure.peak_rss is not None:
        about.append(f"peak {size(failure.peak_rss)}")
    elif failure.worker_peak_rss is not None:
        about.append(worker_peak(failure.worker_peak_rss))
    message = cut(one_line(failure.message), _WIDTH)
    # The message of a crash contains the signal or exit code, and the place.
    words = [one_line(failure.job), kind(failure), message]
    if failure.outcome == "crashed" and message:
        del words[1]
    return f"{verdict} {': '.join(word for word in words if word)} ({', '.join(about)})"


def worker_peak(peak_rss: int) -> str:
    """For a peak that may be of an earlier job in the same worker."""
    return f"its worker's peak {size(peak_rss)}, perhaps by an earlier job"


def tail_lines(failure: FailureSnapshot) -> list[str]:
    """The last lines that the job has printed; of a crash's stack, only the innermost frame."""
    lines = [line for line in printed_lines(failure.output_tail) if line.strip()]
    threads = [at for at, line in enumerate(lines) if line.endswith(_CRASH_STACK)]
    if threads:
        crashed = next((at for at in threads if lines[at].startswith("Current thread")), threads[0])
        lines = lines[: threads[0]] + lines[crashed : crashed + 2]
    return [cut(line, _WIDTH) for line in lines[-_TAIL:]]


class FailureLimit:
    """Limits the failures that are shown between two updates, and counts the others: the journal has them
    all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = 0
        self._suppressed = 0

    def allows(self) -> bool:
        if self._allowed < self._most:
            self._allowed += 1
            return True
        self._suppressed += 1
        return False

    def release(self) -> int:
        """How many were not shown since the last call; starts a new period."""
        suppressed, self._suppressed, self._allowed = self._suppressed, 0, 0
        return suppressed


_WORDS = {
    "timed_out": "timed out",
    "over_memory": "over the memory limit",
    "unencodable": "result cannot be written as JSON",
}


class Group(msgspec.Struct):
    """`failed` of the `count` attempts used up their job's budget; the others run again."""

    kind: str
    count: int
    first_job: str
    crash: bool
    failed: int = 0
    peak_rss: int | None = None


def kind(failure: FailureSnapshot) -> str:
    """The kind of a failure, by which failures are grouped: `ValueError model.py:88`, `SIGSEGV fast.py:9`,
    `exit code 3`, `timed out model.py:90`."""
    if failure.outcome == "crashed":
        # A type only of a program that the job was: "SIGSEGV".
        words = [
            one_line(failure.type) or "crashed"
            if failure.exit_code is None
            else f"exit code {failure.exit_code}"
        ]
        if failure.signal is not None:
            words = [signal_name(failure.signal)]
        return " ".join([*words, *([one_line(failure.where)] if failure.where else [])])
    own_type = "" if failure.type == "Unencodable" else failure.type  # its words are added below
    words = [one_line(own_type), one_line(failure.where)]
    if failure.outcome != "raised" or not failure.type:
        words.insert(0, _WORDS.get(failure.outcome, failure.outcome.replace("_", " ")))
    return " ".join(word for word in words if word)


def group(failures: Iterable[FailureSnapshot]) -> list[Group]:
    """Groups of failures of one kind, the largest first; equal ones in order of appearance."""
    groups: dict[str, Group] = {}
    for failure in failures:
        name = kind(failure)
        found = groups.get(name)
        if found is None:
            found = groups[name] = Group(name, 0, failure.job, failure.outcome == "crashed")
        found.count += 1
        found.failed += failure.final
        if failure.peak_rss is not None:
            found.peak_rss = max(found.peak_rss or 0, failure.peak_rss)
    return sorted(groups.values(), key=lambda entry: -entry.count)
