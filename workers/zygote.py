"""The zygote: forks workers, adopts and kills orphans. Linux only.

There is one per run. It has one thread, a session of its own, which Ctrl+C does not reach, and is a child
subreaper. It imports the user's code once, so a new worker starts in a few milliseconds. It never runs a job,
and waits for nothing but its socket and the ends of its children.

An experiment with GPUs has a second one. It imports nothing of the user's, and starts each worker as a fresh
interpreter that is told its GPUs by the environment (`workers.forking.fresh_interpreters`).

Orphans of jobs become children of the zygote, not of the worker: a job that waits for children gets only its
own. The zygote reaps them, finds their worker (`workers.forking.process_owner`) and kills them when that worker
has died (`workers.forking.orphans`).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple, NoReturn

import msgspec

from workers.forking.fresh_interpreters import FreshInterpreters
from workers.forking.inherited_resources import descriptors_now, fork_obstacle
from workers.forking.orphans import Orphans
from workers.forking.reopened_files import SharedFile, open_anew, opened_for_reading
from workers.forking.resource_trackers import share_tracker
from workers.isolation import signal_handlers
from workers.isolation.exit_functions import (
    drop_inherited_children,
    drop_inherited_exit_functions,
    flush_files,
    run_exit_functions_within,
)
from workers.isolation.interpreter_state import note_builtins
from workers.job.current_job import PROCESS
from workers.process import descriptors
from workers.process.experiment_tag import EXPERIMENT_TAG, INCARNATION, NOBODY, incarnation_text
from workers.process.linux import (
    HIGH,
    ShownVariable,
    become_subreaper,
    child_signals,
    copied,
    hold_lifeline,
    opened_anew,
    show_in_environment,
)
from workers.process.shadowed_modules import wait4
from workers.process.surrogates import sendable
from workers.script.preparation import Preparation
from workers.script.user_modules import USER_CODE
from workers.transport.worker_queues import WorkerQueues
from workers.transport.zygote_protocol import (
    MAX_PACKET,
    Fork,
    Forked,
    ForkFailed,
    ForkReaped,
    FromZygote,
    Prepared,
    ZygoteOrders,
)
from workers.worker import install_hooks, run_worker, setup_process

# Times in seconds.
SWEEP_EVERY = 0.001  # between checks while a killed process is not dead yet
REAP_EVERY = 0.02  # between checks for dead children
CHECK_ADOPTED_EVERY = 1.0  # between checks for newly adopted children, which send no signal
REPORT_AFTER = 1.5  # a dead worker is reported then, although orphans are left
FINAL_SWEEP_SECONDS = 5.0  # when the supervisor has died
EXIT_FUNCTION_SECONDS = 1.0  # for the exit functions of the script
MAX_NAMED_SHARED_FILES = 5
_ENTRY_OF_FRESH = "workers.worker:run_spawned_worker"

_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class _ForkedWorker:
    """A worker that was forked here."""

    def __init__(self, incarnation: int, pid: int, pidfd: int, second_lifeline: int) -> None:
        self.incarnation = incarnation
        self.second_lifeline = second_lifeline  # kept open after the worker's death, for its group
        self.pid = pid
        self.pidfd = pidfd
        self.dead_since = 0.0  # set by its death


class ImportedModules(NamedTuple):
    """The outcome of the import of the user's code."""

    obstacle: str  # why each worker has to import it itself; "" if it can be forked
    script_handlers: signal_handlers.ScriptHandlers
    files: list[SharedFile]


class Zygote:
    """Forks workers on request, reports their ends, kills their orphans."""

    def __init__(
        self,
        channel: socket.socket,
        preparation: Preparation,
        imported: ImportedModules,
        shown: ShownVariable,
        tag: str,
        second_lifeline: int,
        fresh: FreshInterpreters | None = None,
    ) -> None:
        self._channel = channel
        # When this process is killed, the kernel closes the highest descriptor first. So the lifeline's end
        # is closed while the processes that it kills still have the other one.
        self._second_lifeline = copied(second_lifeline, HIGH)
        os.close(second_lifeline)
        self._preparation = preparation
        self._imported = imported
        self._shown = shown
        self._fresh = fresh
        self._workers: dict[int, _ForkedWorker] = {}  # by pidfd
        self._dead: dict[int, _ForkedWorker] = {}  # of these, by pid; few, and asked for at each turn
        self._orphans = Orphans(tag)
        self._checked_at = self._next_check = time.monotonic()
        self._sigchld = child_signals()
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        if self._sigchld is not None:
            self._poll.register(self._sigchld, select.POLLIN)

    def serve(self, greeting: FromZygote) -> NoReturn:
        """Until the supervisor closes the channel, or dies."""
        self._send(greeting)
        while True:
            for descriptor, _ in self._poll.poll(self._poll_timeout()):
                if descriptor == self._channel.fileno():
                    self._handle_request()
                elif descriptor == self._sigchld:
                    os.read(descriptor, 4096)
                    self._next_check = min(self._next_check, self._checked_at + REAP_EVERY)
                else:
                    self._on_death(self._workers[descriptor])
            self._sweep()

    def _poll_timeout(self) -> float | None:
        """Milliseconds until the next check; None if only a message or a death can cause one."""
        if self._dead:
            return SWEEP_EVERY * 1000
        if not self._workers and not self._orphans.next_deadline() and self._sigchld is not None:
            return None
        return max(0.0, self._next_check - time.monotonic()) * 1000

    # --------------------------------------------------------------------- requests

    def _handle_request(self) -> None:
        try:
            data, received, _, _ = socket.recv_fds(self._channel, MAX_PACKET, 5)
        except OSError:
            data, received = b"", []
        if not data:
            self._kill_all_and_exit()
        request = msgspec.msgpack.decode(data, type=Fork)
        answer: FromZygote
        try:
            if len(received) < 4:  # the kernel drops those that do not fit
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            member = self._make_worker(request, received)
        except OSError as error:
            how = "fork" if self._fresh is None else "start a process"
            answer, passed = ForkFailed(request.incarnation, f"cannot {how}: {error}"), []
        else:
            answer, passed = Forked(member.incarnation, member.pid), [member.pidfd]
        for descriptor in received:  # before the answer: its receiver may count our open files
            os.close(descriptor)
        self._send(answer, passed)

    def _send(self, message: FromZygote, passed: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._channel, [msgspec.msgpack.encode(message)], passed or [])
        except OSError:
            self._kill_all_and_exit()

    def _make_worker(self, request: Fork, received: list[int]) -> _ForkedWorker:
        inbox, outbox, lifeline, second, *output = received
        listening = opened_anew(second)
        try:
            if self._fresh is None:
                pid = self._fork(request.incarnation, inbox, outbox, lifeline, second, listening)
            else:
                for descriptor in received:
                    os.set_inheritable(descriptor, False)
                ends = [inbox, outbox, lifeline, listening]
                pid = self._fresh.start(request.incarnation, request.environment, ends, *output)
        except OSError:
            os.close(listening)
            raise
        with contextlib.suppress(OSError):  # the child does the same; either may be first
            os.setpgid(pid, pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(listening)
            raise
        member = self._workers[pidfd] = _ForkedWorker(request.incarnation, pid, pidfd, listening)
        self._poll.register(pidfd, select.POLLIN)
        return member

    def _fork(
        self, incarnation: int, inbox: int, outbox: int, lifeline: int, second: int, listening: int
    ) -> int:
        # Blocked until the child has its own handlers: ours are not for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            pid = os.fork()
            if pid == 0:
                self._shown.show(incarnation_text(incarnation))
                os.close(second)
                self._become_worker(inbox, outbox, lifeline, listening)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
        return pid

    def _become_worker(self, inbox: int, outbox: int, lifeline: int, listening: int) -> NoReturn:
        try:
            self._channel.detach()
            descriptors.release_all()
            os.close(self._second_lifeline)
            for member in self._workers.values():
                _close((member.pidfd, member.second_lifeline))
            if self._sigchld is not None:
                os.close(self._sigchld)
            imported = self._imported
            setup_process(lifeline, listening, script_handlers=imported.script_handlers)
            drop_inherited_exit_functions()
            drop_inherited_children()
            open_anew(imported.files)
            gc.enable()
            queues = WorkerQueues(descriptors.claim(inbox), descriptors.claim(outbox))
            run_worker(queues, self._preparation if imported.obstacle else None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)

    # ----------------------------------------------------------------------- deaths

    def _on_death(self, member: _ForkedWorker) -> None:
        """The worker is a zombie: its pid and group id are not reused yet."""
        self._poll.unregister(member.pidfd)
        member.dead_since = time.monotonic()
        self._dead[member.pid] = member

    def _sweep(self) -> None:
        """Reap orphans, kill those of dead workers, then report these workers."""
        now = time.monotonic()
        dead = self._dead
        if not dead and now < self._next_check:
            return
        workers = {member.pid: member.incarnation for member in self._workers.values()}
        unfinished = self._orphans.reap(workers, dead.keys())
        for member in list(dead.values()):
            if member.incarnation not in unfinished or now - member.dead_since > REPORT_AFTER:
                self._report(member)
        self._checked_at = now
        latest = now + CHECK_ADOPTED_EVERY
        self._next_check = min(latest, self._orphans.next_deadline() or latest)

    def _report(self, member: _ForkedWorker) -> None:
        del self._workers[member.pidfd], self._dead[member.pid]
        _close((member.pidfd, member.second_lifeline))
        try:
            _, status, usage = wait4(member.pid, 0)
        except OSError:
            self._send(ForkReaped(member.incarnation, 0, 0))
        else:
            self._send(ForkReaped(member.incarnation, status, usage.ru_maxrss * 1024))

    def _kill_all_and_exit(self) -> NoReturn:
        """The supervisor has died: kill everything that was started here."""
        deadline = time.monotonic() + FINAL_SWEEP_SECONDS
        self._orphans.kill_those_of_workers(deadline)
        run_exit_functions_within(EXIT_FUNCTION_SECONDS, [*self._preparation.modules, "__main__"])
        _close_files()
        self._orphans.kill_all(deadline)
        os._exit(0)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _close_files() -> None:
    """Close all descriptors except the standard ones."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if int(name) > 2:
                    os.close(int(name))


def run(channel_descriptor: int) -> NoReturn:
    """Entry point of the zygote's interpreter."""
    handlers_at_start = signal_handlers.ignore_at_start(_IGNORED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide how workers end
    PROCESS.inside_worker = True
    become_subreaper()
    shown = ShownVariable(INCARNATION, NOBODY)
    gc.collect()
    gc.freeze()  # keep the collector from scanning these objects again
    channel = socket.socket(fileno=descriptors.claim(channel_descriptor))
    orders, preparation, lifeline, second_lifeline = _receive_orders(channel)
    tag = os.environ.get(EXPERIMENT_TAG, "")
    if orders.fresh:
        os.close(lifeline)
        fresh = FreshInterpreters(_ENTRY_OF_FRESH, preparation.environment, handlers_at_start)
        nothing = ImportedModules("", signal_handlers.ScriptHandlers({}, set(), -1), [])
        Zygote(channel, preparation, nothing, shown, tag, second_lifeline, fresh).serve(Prepared(""))
    install_hooks()
    preparation.apply()
    signal_handlers.restore_handlers(signal_handlers.ScriptHandlers(handlers_at_start, set(), -1))
    before = descriptors_now()
    if orders.preload:
        obstacle = _import_user_code(preparation, lifeline)
    else:
        os.close(lifeline)
        obstacle = "not asked to"
    if not descriptors.all_intact():  # the import has closed the channel: the supervisor cannot be reached
        os._exit(1)
    script_handlers = signal_handlers.suspend_handlers(_IGNORED)
    obstacle = obstacle or fork_obstacle(before)
    files, refused = opened_for_reading()
    note_builtins()
    gc.collect()
    gc.disable()
    gc.freeze()  # so that a worker's collector does not touch, and so copy, every page
    flush_files([*preparation.modules, "__main__"])  # or each worker would write it again
    shared = [sendable(name) for name in refused[:MAX_NAMED_SHARED_FILES]]
    imported = ImportedModules(obstacle, script_handlers, files)
    zygote = Zygote(channel, preparation, imported, shown, tag, second_lifeline)
    zygote.serve(Prepared(obstacle, [] if obstacle else shared))


def _receive_orders(channel: socket.socket) -> tuple[ZygoteOrders, Preparation, int, int]:
    """The first message of the supervisor. Exits if there is none."""
    try:
        data, received, _, _ = socket.recv_fds(channel, MAX_PACKET, 5)
    except OSError:
        data, received = b"", []
    if not data:
        os._exit(0)
    orders = msgspec.msgpack.decode(data, type=ZygoteOrders)
    prepared, lifeline, second_lifeline, *output = received
    second_lifeline = descriptors.claim(second_lifeline)
    if orders.tracker:
        share_tracker(output.pop(0))
    for descriptor in output:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    if orders.tag and not show_in_environment(EXPERIMENT_TAG, orders.tag):
        sys.exit("the environment of this process cannot be changed")
    with open(prepared, "rb") as file:
        return orders, msgspec.msgpack.decode(file.read(), type=Preparation), lifeline, second_lifeline


def _import_user_code(preparation: Preparation, lifeline: int) -> str:
    """Import the user's code; "", or why workers cannot be forked with it."""
    # The channel is not read during the import, so the lifeline has to kill this process, as it does workers.
    # Later it must not: the zygote has to live long enough to kill its workers.
    held = hold_lifeline(lifeline)
    if held is not None:
        held = descriptors.claim(held)
        file = descriptors.identity_of(held)
    try:
        preparation.import_modules()
        USER_CODE.all()  # forked workers need not read the files again
    except BaseException as error:
        return f"{type(error).__name__} when the user's code was imported"
    finally:
        if held is not None:
            descriptors.release(held, file)
    return ""
