"""`Launcher`: makes worker processes and reports how they ended.

There are two: the zygote (Linux), and a fresh interpreter for each worker. A launcher knows processes, but no
jobs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from selectors import BaseSelector
from typing import TYPE_CHECKING, Protocol

import msgspec

from supervisor.core.terms.events import FilesShared
from supervisor.engines.process_description import prepare
from supervisor.system.interpreter import PrivateDescriptors
from supervisor.system.process_cleanup import end_orphans
from workers.process.experiment_tag import EXPERIMENT_TAG
from workers.process.linux import HIGH, copied
from workers.script.main_module import MAIN
from workers.script.preparation import Preparation
from workers.transport.messages import WorkerSpec

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SWEEP_EVERY = 0.005  # seconds between checks whether killed processes are gone
SWEEP_FOR = 1.5  # seconds after which a death is reported although orphans are left


class Launched(msgspec.Struct, frozen=True):
    """The process exists. `pidfd` is None where the system has none."""

    incarnation: int
    pid: int
    pidfd: int | None


class LaunchFailed(msgspec.Struct, frozen=True):
    incarnation: int
    error: str


class LaunchLost(msgspec.Struct, frozen=True):
    """It is unknown whether the process exists: launch again, with new pipes. If it exists, it exits when
    the old pipes are closed."""

    incarnation: int


class Exited(msgspec.Struct, frozen=True):
    """The process is dead (only sent where there is no pidfd)."""

    incarnation: int


class Reaped(msgspec.Struct, frozen=True):
    """How a dead process ended; its orphans are ended. Unknown facts are None."""

    incarnation: int
    status: int | None = None  # of wait()
    peak_rss: int | None = None  # bytes


LaunchEvent = Launched | LaunchFailed | LaunchLost | Exited | Reaped | FilesShared


class Lifeline:
    """A pipe that makes the kernel kill the workers when the supervisor has died.

    read: the end for the workers. write: the end that keeps them alive.

    The first lifeline is open in the supervisor. Its end kills each worker. What a forked worker has started is
    then ended by the zygote, which spares resource trackers for a moment. The second one is open in the
    supervisor and in one zygote: when both have died, in whatever order, its end kills the worker's process
    group, even if the worker is dead already. Without a zygote the end of the first one kills the group.

    Raises OSError if there are no descriptors left. When this process is killed, the kernel closes the highest
    descriptor first. A second lifeline has to be closed before the first: later no worker would be left to
    receive its signal.
    """

    def __init__(self, *, second: bool = False) -> None:
        self.read, self.write = os.pipe()
        if second:
            try:
                high = copied(self.write, HIGH)
            finally:
                os.close(self.write)
            self.write = high
        self._private = PrivateDescriptors()
        self._private.numbers.add(self.write)

    def close(self) -> None:
        """To be called once; the kernel kills the workers that hold the other end."""
        self._private.numbers.clear()
        os.close(self.read)
        os.close(self.write)


class WorkerEnds:
    """The worker's ends of its queues, closed here once the process has them. `scratch`: the file that it
    prints to."""

    def __init__(self, inbox: Connection, outbox: Connection, scratch: str) -> None:
        self.inbox = inbox
        self.outbox = outbox
        self.scratch = scratch

    def output(self) -> int | None:
        """A descriptor of the file that a fresh interpreter prints to from its start on. The worker opens it again,
        and reports it if the disk fails: then this is None."""
        try:
            return os.open(self.scratch, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError:
            return None

    def close(self) -> None:
        self.inbox.close()
        self.outbox.close()


class Launcher(Protocol):
    """No method blocks, but for `close`."""

    def greeting(self, spec: WorkerSpec) -> Preparation | None:
        """To be sent to this worker before its spec."""

    def start(self) -> None:
        """Raises OSError if it cannot even begin."""

    def launch(self, spec: WorkerSpec, ends: WorkerEnds) -> None:
        """Answered by Launched, LaunchFailed or LaunchLost."""

    def cancel(self, incarnation: int) -> None:
        """This worker is not needed any more. Answered by LaunchFailed if it does not exist yet."""

    def before_kill(self, incarnation: int) -> None:
        """This worker is about to be killed: note its descendants, which will be orphans."""

    def on_death(self, incarnation: int, now: float) -> None:
        """The process is dead. Answered by Reaped."""

    def poll(self, now: float) -> list[LaunchEvent]: ...

    def next_deadline(self) -> float | None: ...

    def origin(self) -> int | None:
        """Pid of the process that workers are forked from, with which they share memory; None if there is none."""

    def adopters(self) -> list[int]:
        """Pids of the processes that adopt orphans of workers; none if these go to the system's init."""

    def close(self, deadline: float) -> None:
        """End all that it started; `deadline` on the monotonic clock."""


class LauncherContext(msgspec.Struct):
    """What a launcher needs of its engine."""

    spec: WorkerSpec  # of any worker: tag, environment, directories
    lifeline: int  # read end, for the workers
    selector: BaseSelector
    living: Callable[[], set[int]]  # pids of the workers that live
    incarnations: Callable[[], set[int]]  # of workers that live, or are being made
    preparation: Preparation  # of the program whose functions are run
    node: str  # number of this engine, if there are several; "" if there is one
    zygotes: set[int] = msgspec.field(default_factory=set)  # pids of those that are in use


class PendingReaps:
    """Deaths that are not reported yet, because orphans of the dead workers still run.

    Used where no zygote has adopted the orphans. They are found by the tag in their environment, which costs
    a scan of all processes of the machine.
    """

    def __init__(self, context: LauncherContext) -> None:
        self._context = context
        self._reaped: list[tuple[Reaped, float]] = []
        self._next_sweep = 0.0

    def add(self, reaped: Reaped, now: float) -> None:
        self._reaped.append((reaped, now + SWEEP_FOR))
        self._next_sweep = now

    def poll(self, now: float, keep: set[int]) -> list[Reaped]:
        """The deaths that can be reported now; `keep`: pids of workers that the engine does not know yet."""
        if not self._reaped or now < self._next_sweep:
            return []
        self._next_sweep = now + SWEEP_EVERY
        context = self._context
        needed = context.living() | context.zygotes | keep
        left = end_orphans(context.spec.tag, needed, context.incarnations())
        told = [reaped for reaped, until in self._reaped if not left or now >= until]
        self._reaped = [entry for entry in self._reaped if left and now < entry[1]]
        return told

    def next_deadline(self) -> float | None:
        return self._next_sweep if self._reaped else None


def preparation_for(spec: WorkerSpec) -> Preparation:
    """What a new interpreter has to import to find the functions of this spec."""
    functions = [spec.function, *([spec.setup] if spec.setup else [])]
    modules = list(dict.fromkeys(f.module for f in functions if f.pickled is None))
    modules.sort(key=lambda module: module != MAIN)  # the script sets up what others rely on
    files = {name: file for f in functions for name, file in f.files.items()}
    return prepare(modules, tagged_environment(spec), files)


def preparation_of_worker(common: Preparation, spec: WorkerSpec) -> Preparation:
    """The common preparation with the environment of one worker."""
    return msgspec.structs.replace(common, environment=tagged_environment(spec))


def with_devices(spec: WorkerSpec, devices: tuple[str, ...], *, by_driver: bool) -> WorkerSpec:
    """The spec of a worker that sees these GPUs and no others. `by_driver`: their names are indices in the order of
    the driver; CUDA has an order of its own unless it is told."""
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(devices)}
    if devices and by_driver:
        visible["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return msgspec.structs.replace(spec, visible_gpus=visible, devices=devices)


def tagged_environment(spec: WorkerSpec) -> dict[str, str]:
    """What is set in every process of this experiment beside what the supervisor has."""
    return {**spec.environment, **spec.visible_gpus, EXPERIMENT_TAG: spec.tag}
