"""`--start-method`: which launcher makes the worker processes, and whether this system has it."""

from __future__ import annotations

from supervisor.core.terms.errors import UsageError
from supervisor.engines.launcher import Launcher, LauncherContext, LaunchEvent, LaunchFailed, WorkerEnds
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.system.processes import has_pidfds
from workers.script.preparation import Preparation
from workers.transport.messages import WorkerSpec


def resolve(method: str) -> str:
    """Give "zygote" or "spawn", for "auto" the better one of this system. Raises UsageError for "zygote" where
    that is not possible."""
    can_fork = has_pidfds()
    if method == "auto":
        return "zygote" if can_fork else "spawn"
    if method == "zygote" and not can_fork:
        raise UsageError("--start-method zygote: only on Linux, from kernel 5.3 on; use spawn")
    return method


def launcher_for(
    method: str, context: LauncherContext, prestarted: PrestartedZygote | None, *, gpus: bool = False
) -> Launcher:
    """The launcher of a resolved method; only its own module is imported. `gpus`: some workers have devices."""
    if method == "zygote":
        from supervisor.engines.zygote_launcher import ZygoteLauncher

        if not gpus:
            return ZygoteLauncher(context, prestarted)
        return _ByDevices(
            ZygoteLauncher(context, prestarted), ZygoteLauncher(context, prestarted, fresh=True)
        )
    from supervisor.engines.spawn_launcher import SpawnLauncher

    return SpawnLauncher(context)


class _ByDevices:
    """Two launchers: one forks the workers without devices, one starts those with devices as fresh interpreters.

    Each starts its zygote when it is asked for its first worker: an experiment may need only one of them. That
    one takes the prestarted zygote.
    """

    def __init__(self, forking: Launcher, fresh: Launcher) -> None:
        self._forking = forking
        self._both = (forking, fresh)
        self._launched: dict[int, Launcher] = {}  # by incarnation, until the death

    def _for(self, spec: WorkerSpec) -> Launcher:
        return self._both[bool(spec.devices)]

    def greeting(self, spec: WorkerSpec) -> Preparation | None:
        return self._for(spec).greeting(spec)

    def start(self) -> None:
        """Nothing to start yet."""

    def launch(self, spec: WorkerSpec, ends: WorkerEnds) -> None:
        launcher = self._launched[spec.incarnation] = self._for(spec)
        launcher.launch(spec, ends)

    def cancel(self, incarnation: int) -> None:
        self._launched[incarnation].cancel(incarnation)

    def before_kill(self, incarnation: int) -> None:
        self._launched[incarnation].before_kill(incarnation)

    def on_death(self, incarnation: int, now: float) -> None:
        self._launched.pop(incarnation).on_death(incarnation, now)

    def poll(self, now: float) -> list[LaunchEvent]:
        events = [event for launcher in self._both for event in launcher.poll(now)]
        for event in events:
            if isinstance(event, LaunchFailed):
                self._launched.pop(event.incarnation, None)
        return events

    def next_deadline(self) -> float | None:
        times = [launcher.next_deadline() for launcher in self._both]
        return min((time for time in times if time is not None), default=None)

    def origin(self) -> int | None:
        return self._forking.origin()

    def adopters(self) -> list[int]:
        return [pid for launcher in self._both for pid in launcher.adopters()]

    def close(self, deadline: float) -> None:
        for launcher in self._both:
            launcher.close(deadline)
