"""Where the supervisor's time goes at full speed: jobs that do nothing, two workers, cProfile.

    python tools/profile_loop.py [--jobs 200000] [--rows 25]

Prints what share of the loop's time each function took, waiting apart. A profiler makes calls
of Python functions look dearer than they are; the loop makes few, for many jobs each.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisor import Job, run
from supervisor.loop import Loop

_WAITING = ("<built-in method time.sleep>", "<method 'poll' of 'select.epoll' objects>")


def nothing(number: int) -> int:
    return number


def profile(jobs: int) -> cProfile.Profile:
    """One run of the loop, recorded."""
    profiler = cProfile.Profile()
    turn_until_over = Loop.run

    def recorded(self: Loop, effects: Any) -> None:
        profiler.runcall(turn_until_over, self, effects)

    def plan() -> Iterator[Job]:
        return (Job(id=f"job/{number}", params={"number": number}) for number in range(jobs))

    with tempfile.TemporaryDirectory() as output:
        Loop.run = recorded  # type: ignore[method-assign]
        try:
            run(nothing, plan, name="profile", output=output, workers=2, progress=False)
        finally:
            Loop.run = turn_until_over  # type: ignore[method-assign]
    return profiler


def shares(profiler: cProfile.Profile) -> list[tuple[float, str]]:
    """(share of the time that was not waited, where) of each function, the largest first."""
    rows = [
        (own, name if path == "~" else f"{_short(path)}:{line} {name}")
        for (path, line, name), (_, _, own, _, _) in pstats.Stats(profiler).stats.items()  # type: ignore[attr-defined]
        if name not in _WAITING
    ]
    total = sum(own for own, _ in rows)
    return sorted(((own / total, where) for own, where in rows), reverse=True)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Profile the supervisor's loop at full speed.")
    parser.add_argument("--jobs", metavar="N", type=int, default=200_000)
    parser.add_argument("--rows", metavar="N", type=int, default=25)
    arguments = parser.parse_args(words)
    for share, where in shares(profile(arguments.jobs))[: arguments.rows]:
        print(f"{share:6.1%}  {where}")


if __name__ == "__main__":
    main()
