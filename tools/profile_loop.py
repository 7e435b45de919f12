"""Where the supervisor's time goes at full speed: jobs that do nothing, two workers, cProfile.

    python tools/profile_loop.py [--jobs 200000] [--rows 25]

Prints what share of the loop's time each function and each file took, waiting apart. A profiler makes calls
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

from supervisor.api import run
from supervisor.core.terms.jobs import Job
from supervisor.session.loop import Loop

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


def shares(profiler: cProfile.Profile) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """(share of the time that was not waited, where), the largest first: of each function, and
    of each file. What C code takes is its caller's."""
    functions: dict[str, float] = {}
    files: dict[str, float] = {}
    for (path, line, name), (_, _, own, _, callers) in _statistics(profiler).items():
        if name in _WAITING:
            continue
        takers = {caller: spent[2] for caller, spent in callers.items()} if path == "~" else {}
        for (path_, line_, name_), seconds in (takers or {(path, line, name): own}).items():
            if name_ in _WAITING:  # from 3.12 on, other threads' calls meanwhile are seen as its own
                continue
            where = _short(path_)
            files[where] = files.get(where, 0.0) + seconds
            function = f"{where}:{line_} {name_}"
            functions[function] = functions.get(function, 0.0) + seconds
    return _ranked(functions), _ranked(files)


def _statistics(profiler: cProfile.Profile) -> dict[Any, Any]:
    found: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    return found


def _ranked(spent: dict[str, float]) -> list[tuple[float, str]]:
    total = sum(spent.values())
    return sorted(((seconds / total, where) for where, seconds in spent.items()), reverse=True)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Profile the supervisor's loop at full speed.")
    parser.add_argument("--jobs", metavar="N", type=int, default=200_000)
    parser.add_argument("--rows", metavar="N", type=int, default=25)
    arguments = parser.parse_args(words)
    for ranking in shares(profile(arguments.jobs)):
        print()
        for share, where in ranking[: arguments.rows]:
            print(f"{share:6.1%}  {where}")


if __name__ == "__main__":
    main()
