"""longhaul: run CPU-heavy experiments so that no finished job is lost or run again.

    from supervisor import Job, main

`main(function, jobs, name=...)` gives a script its command line and never returns. `run(...)` is
the same for notebooks and other programs, and returns a `Report`. `load(directory)` returns the
`Report` of an experiment on disk. `program("./solve", "{case}")` is a function that runs a program.
`MainSettings` and `RunSettings` are the types of their keywords.
All errors are `LonghaulError`, except for `RunInterrupted`, which is a KeyboardInterrupt;
`Interrupted` is an earlier name of it.

The names are imported when they are first used: a worker imports the script as well, and must start fast.
"""

from __future__ import annotations

import os

from supervisor.system.unshadowed_imports import import_own_modules

import_own_modules()  # before anything that a file beside the script might hide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from supervisor.api import main as main
    from supervisor.api import run as run
    from supervisor.core.terms.errors import BeingRun as BeingRun
    from supervisor.core.terms.errors import CannotCreate as CannotCreate
    from supervisor.core.terms.errors import Interrupted as Interrupted
    from supervisor.core.terms.errors import JobsFailed as JobsFailed
    from supervisor.core.terms.errors import LonghaulError as LonghaulError
    from supervisor.core.terms.errors import RunInterrupted as RunInterrupted
    from supervisor.core.terms.errors import StorageError as StorageError
    from supervisor.core.terms.errors import UnusableCheckpoint as UnusableCheckpoint
    from supervisor.core.terms.errors import UsageError as UsageError
    from supervisor.core.terms.errors import WorkersError as WorkersError
    from supervisor.core.terms.jobs import Job as Job
    from supervisor.exec.program_function import program as program
    from supervisor.options.keywords import MainSettings as MainSettings
    from supervisor.options.keywords import RunSettings as RunSettings
    from supervisor.reports.report import Report as Report
    from supervisor.reports.report import load as load

    __version__: str

_HOMES = {
    "Job": "supervisor.core.terms.jobs",
    "main": "supervisor.api",
    "run": "supervisor.api",
    "load": "supervisor.reports.report",
    "program": "supervisor.exec.program_function",
    "Report": "supervisor.reports.report",
    "MainSettings": "supervisor.options.keywords",
    "RunSettings": "supervisor.options.keywords",
    "RunInterrupted": "supervisor.core.terms.errors",
    "Interrupted": "supervisor.core.terms.errors",
    "LonghaulError": "supervisor.core.terms.errors",
    "UsageError": "supervisor.core.terms.errors",
    "UnusableCheckpoint": "supervisor.core.terms.errors",
    "BeingRun": "supervisor.core.terms.errors",
    "CannotCreate": "supervisor.core.terms.errors",
    "StorageError": "supervisor.core.terms.errors",
    "WorkersError": "supervisor.core.terms.errors",
    "JobsFailed": "supervisor.core.terms.errors",
}

__all__ = list(_HOMES)


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


imported_in = _here()  # usually where the script was started; its next lines may change the directory


def _refuse_hidden_workers() -> None:
    """Raise ImportError if the other package, `workers`, is not ours: both names are common, and another file
    of that name may come first in `sys.path`."""
    ours = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "workers", "__init__.py")
    import importlib.util

    found = importlib.util.find_spec("workers")
    theirs = found.origin if found is not None else None
    if theirs is not None and os.path.realpath(theirs) != os.path.realpath(ours):
        raise ImportError(
            f"{theirs} hides the package 'workers' that belongs to longhaul ({os.path.dirname(ours)}); "
            f"rename that file, or start the script from another directory"
        )


_refuse_hidden_workers()


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from supervisor.core.terms.version import VERSION

            return VERSION
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'supervisor' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
