"""How one failure is told while the run goes on. Pure."""

from __future__ import annotations

from supervisor.core.snapshot import FailureSnapshot
from supervisor.views.grouping import kind
from supervisor.views.words import cut, duration, one_line, printed_lines, size

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
    # The message of a crash names the signal or the exit code already, and the place.
    words = [one_line(failure.job), kind(failure), message]
    if failure.outcome == "crashed" and message:
        del words[1]
    return f"{verdict} {': '.join(word for word in words if word)} ({', '.join(about)})"


def worker_peak(peak_rss: int) -> str:
    """Where it is not known which of a worker's jobs has taken so much."""
    return f"its worker's peak {size(peak_rss)}, perhaps by an earlier job"


def tail_lines(failure: FailureSnapshot) -> list[str]:
    """The last lines that the job had printed; of the stack of a crash, where it happened."""
    lines = [line for line in printed_lines(failure.output_tail) if line.strip()]
    threads = [at for at, line in enumerate(lines) if line.endswith(_CRASH_STACK)]
    if threads:
        crashed = next((at for at in threads if lines[at].startswith("Current thread")), threads[0])
        lines = lines[: threads[0]] + lines[crashed : crashed + 2]
    return [cut(line, _WIDTH) for line in lines[-_TAIL:]]


class Flood:
    """Lets so many failures through between two updates and counts the others: a million
    lines tell nobody anything, and the journal has them all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._passed = 0
        self._held = 0

    def passes(self) -> bool:
        if self._passed < self._most:
            self._passed += 1
            return True
        self._held += 1
        return False

    def release(self) -> int:
        """How many were held back since the last call; all may pass again."""
        held, self._held, self._passed = self._held, 0, 0
        return held
