"""Workers as fresh interpreters: macOS, and `--start-method spawn`.

This launcher does what the zygote does on Linux: it lists a worker's descendants before the kill, kills its group,
and finds the rest by the tag in the environment.

`subprocess` is used rather than multiprocessing's spawn: it gives the child its own process
group before it runs anything (so Ctrl+C cannot hit it), needs no resource tracker, and
leaves the import of the user's code to the worker, which can say what went wrong with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

from supervisor.engines.launcher import (
    Exited,
    Launched,
    LauncherContext,
    LaunchEvent,
    LaunchFailed,
    PendingReaps,
    Reaped,
    WorkerEnds,
    preparation_of_worker,
    tagged_environment,
)
from supervisor.system.descriptor_limit import give_back
from supervisor.system.interpreter import interpreter
from supervisor.system.process_cleanup import end_group, end_processes
from supervisor.system.script_start import child_environment, start_directory
from workers.forking.resource_trackers import descriptor_of_tracker
from workers.process.experiment_tag import INCARNATION, incarnation_text
from workers.process.shadowed_modules import wait4
from workers.script.preparation import Preparation
from workers.transport.messages import WorkerSpec
from workers.worker import NONE

CHECK_EVERY = 0.1  # seconds, where there is no pidfd
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class _Child:
    def __init__(self, process: subprocess.Popen[bytes], *, watched: bool) -> None:
        self.process = process
        self.watched = watched  # by a pidfd
        self.descendants: list[Any] = []  # psutil processes, listed just before the kill


class SpawnLauncher:
    """Starts and reaps worker processes as children of this process."""

    def __init__(self, context: LauncherContext) -> None:
        self._context = context
        self._preparation = context.preparation
        self._children: dict[int, _Child] = {}
        self._events: list[LaunchEvent] = []
        self._pending_reaps = PendingReaps(context)
        self._next_check = 0.0

    def start(self) -> None:
        os.makedirs(self._context.spec.output_directory, exist_ok=True)

    def greeting(self, spec: WorkerSpec) -> Preparation | None:
        return preparation_of_worker(self._preparation, spec)

    def launch(self, spec: WorkerSpec, ends: WorkerEnds) -> None:
        incarnation = spec.incarnation
        try:
            process = self._popen(spec, ends)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(ends.scratch)
            self._events.append(LaunchFailed(incarnation, f"cannot start a process: {error}"))
            return
        finally:
            ends.close()
        pidfd = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(process.pid)
        give_back(process.pid)  # Python still starts there: nothing of the user's has been executed
        self._children[incarnation] = _Child(process, watched=pidfd is not None)
        self._events.append(Launched(incarnation, process.pid, pidfd))

    def _popen(self, spec: WorkerSpec, ends: WorkerEnds) -> subprocess.Popen[bytes]:
        tags = {**tagged_environment(spec), INCARNATION: incarnation_text(spec.incarnation)}
        descriptors = [ends.inbox.fileno(), ends.outbox.fileno(), self._context.lifeline]
        tracker = descriptor_of_tracker()
        numbers = descriptors if tracker is None else [*descriptors, NONE, tracker]
        output = ends.output()
        # Blocked until the worker has its handlers: Ctrl+C goes to the whole foreground
        # group, which the child leaves only after it was made.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return subprocess.Popen(
                interpreter("workers.worker:run_spawned_worker", *numbers),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=subprocess.DEVNULL if output is None else output,
                env=child_environment(tags),
                cwd=start_directory(),
                pass_fds=[number for number in numbers if number != NONE],
                process_group=0,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            if output is not None:
                os.close(output)

    def cancel(self, incarnation: int) -> None:
        """Nothing to cancel: `launch` succeeds or fails at once."""

    def before_kill(self, incarnation: int) -> None:
        import psutil

        child = self._children.get(incarnation)
        if child is not None:
            with contextlib.suppress(psutil.Error, OSError):
                child.descendants = psutil.Process(child.process.pid).children(recursive=True)

    def on_death(self, incarnation: int, now: float) -> None:
        child = self._children.pop(incarnation, None)
        if child is None:
            return
        pid = child.process.pid
        end_group(pid)
        end_processes(child.descendants)
        self._pending_reaps.add(_reap(incarnation, child.process), now)

    def poll(self, now: float) -> list[LaunchEvent]:
        if now >= self._next_check:
            self._next_check = now + CHECK_EVERY
            for incarnation, child in self._children.items():
                if not child.watched and _is_dead(child.process.pid):
                    self._events.append(Exited(incarnation))
        events, self._events = self._events, []
        own = {child.process.pid for child in self._children.values()}
        return [*events, *self._pending_reaps.poll(now, own)]

    def origin(self) -> int | None:
        return None

    def adopters(self) -> list[int]:
        return []

    def next_deadline(self) -> float | None:
        if self._events:
            return 0.0
        times = [self._pending_reaps.next_deadline()]
        if any(not child.watched for child in self._children.values()):
            times.append(self._next_check)
        return min((time for time in times if time is not None), default=None)

    def close(self, deadline: float) -> None:
        for incarnation in self._children:
            self.before_kill(incarnation)
        for child in self._children.values():
            child.process.kill()
            end_group(child.process.pid)
            end_processes(child.descendants)
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, deadline - time.monotonic()))
        self._children.clear()
        self._events.clear()


def _reap(incarnation: int, process: subprocess.Popen[bytes]) -> Reaped:
    """wait4, for the peak RSS; the process is dead, so this does not block."""
    try:
        pid, status, usage = wait4(process.pid, os.WNOHANG)
    except ChildProcessError:  # other code in this process has waited for it
        process.returncode = 0
        return Reaped(incarnation)
    if pid == 0:
        return Reaped(incarnation)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Reaped(incarnation, status, usage.ru_maxrss * _RSS_UNIT)


def _is_dead(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):  # not readable this time
        return False
