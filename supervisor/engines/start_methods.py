"""`--start-method`: which launcher makes the worker processes, and whether this system has it."""

from __future__ import annotations

from supervisor.core.terms.errors import UsageError
from supervisor.engines.launcher import Launcher, LauncherContext
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.system.processes import has_pidfds


def resolve(method: str) -> str:
    """Give "zygote" or "spawn", for "auto" the better one of this system. Raises UsageError for "zygote" where
    that is not possible."""
    can_fork = has_pidfds()
    if method == "auto":
        return "zygote" if can_fork else "spawn"
    if method == "zygote" and not can_fork:
        raise UsageError("--start-method zygote: only on Linux, from kernel 5.3 on; use spawn")
    return method


def launcher_for(method: str, context: LauncherContext, prestarted: PrestartedZygote | None) -> Launcher:
    """The launcher of a resolved method. Only its own module is imported."""
    if method == "zygote":
        from supervisor.engines.zygote_launcher import ZygoteLauncher

        return ZygoteLauncher(context, prestarted)
    from supervisor.engines.spawn_launcher import SpawnLauncher

    return SpawnLauncher(context)
