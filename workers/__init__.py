"""What runs in a worker process. Nothing of `supervisor` is ever imported here.

    from workers import GiveUp, JobInterrupted, Retry, current_job

For the functions that jobs run: `current_job()` is what a job knows about itself. The three
exceptions say what is to become of it.
"""

from __future__ import annotations

import importlib.util
import os

from workers.job.current_job import current_job
from workers.job.job_exceptions import GiveUp, JobInterrupted, Retry

Interrupted = JobInterrupted  # its earlier name

__all__ = ["GiveUp", "Interrupted", "JobInterrupted", "Retry", "current_job"]


def _refuse_hidden_supervisor() -> None:
    """Raise ImportError if the other package, `supervisor`, is not ours: both names are common, and another
    file of that name may come first in `sys.path`."""
    ours = os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "supervisor", "__init__.py"
    )
    found = importlib.util.find_spec("supervisor")
    theirs = found.origin if found is not None else None
    if theirs is not None and os.path.realpath(theirs) != os.path.realpath(ours):
        raise ImportError(
            f"{theirs} hides the package 'supervisor' that belongs to longhaul ({os.path.dirname(ours)}); "
            f"rename that file, start the script from another directory, or use an environment without "
            f"the other package of that name"
        )


_refuse_hidden_supervisor()
