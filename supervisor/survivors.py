"""What an earlier run of the experiment left alive is ended before this one begins.

Processes that still compute must not go on beside ours. What they had printed is kept, what
they had begun to save is not. Nothing is told here: the words come back.
"""

from __future__ import annotations

from supervisor.engines.ending import end_recorded, still_there, sweep
from supervisor.opening import Opened
from workers.output import leftovers


def end_survivors(opened: Opened, mark: str) -> list[str]:
    """End what the records name or what carries the experiment's `mark`; warnings for the
    user about what was found."""
    ended = end_recorded(opened.survivors)
    ended += sweep(mark, ended)
    opened.store.states.clear_temporaries()
    stuck = still_there(ended)
    leftovers(str(opened.layout.output_directory))
    warnings = []
    if gone := [str(pid) for pid in ended if pid not in stuck]:
        warnings.append(f"ended processes of an earlier run that were still alive: {', '.join(gone)}")
    if stuck:
        pids = ", ".join(map(str, stuck))
        warnings.append(
            f"processes of an earlier run do not die of SIGKILL (frozen, or stuck in the kernel): {pids}; "
            f"they compute no more, their jobs run again"
        )
    return warnings
