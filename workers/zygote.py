"""The zygote: forks workers, adopts and ends what they leave behind. Linux only.

One per run: single-threaded, in a session of its own (so that Ctrl+C does not reach it), a
child subreaper. It imports the user's code once, so that a new worker starts in a few
milliseconds. It never runs a job, and it never waits for anything but its socket and the
ends of its workers.

Each worker is a subreaper too: orphans of a job that lives go to their worker. When a
worker dies, the kernel hands all its children to the zygote. So a child of the zygote that
is not a worker is exactly what a dead worker has left behind.
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
import warnings
from typing import NoReturn

import msgspec

from workers.current import PROCESS
from workers.linux import (
    become_subreaper,
    children_of,
    hold_lifeline,
    show_in_environment,
    thread_count,
)
from workers.main import live, meet_the_user, settle_in
from workers.preparation import Preparation
from workers.queues import WorkerQueues
from workers.zygote_protocol import MAX_PACKET, Begin, Ended, Fork, Forked, ForkFailed, FromZygote, Prepared

SWEEP_EVERY = 0.001  # seconds, while something that was killed is not dead yet
SWEEP_FOR = 1.5  # seconds after which a dead worker is reported although something is left
TRIAL_FOR = 1.0  # seconds for a child that only exits
LAST_SWEEP_FOR = 5.0  # seconds, when the supervisor has gone

_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class _Member:
    """A worker that was forked here."""

    def __init__(self, incarnation: int, pid: int, pidfd: int) -> None:
        self.incarnation = incarnation
        self.pid = pid
        self.pidfd = pidfd
        self.dead_since: float | None = None


class Zygote:
    """Answers the supervisor, watches workers, sweeps up behind the dead."""

    def __init__(self, channel: socket.socket, preparation: Preparation | None) -> None:
        self._channel = channel
        self._preparation = preparation  # for workers that import the user's code themselves
        self._members: dict[int, _Member] = {}  # by pidfd
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def serve(self, greeting: FromZygote) -> NoReturn:
        """Until the supervisor closes the channel, or dies."""
        self._say(greeting)
        while True:
            dead = any(member.dead_since is not None for member in self._members.values())
            for descriptor, _ in self._poll.poll(SWEEP_EVERY * 1000 if dead else None):
                if descriptor == self._channel.fileno():
                    self._hear()
                else:
                    self._on_death(self._members[descriptor])
            self._sweep()

    # --------------------------------------------------------------------- requests

    def _hear(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._channel, MAX_PACKET, 3)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._end_all()
        request = msgspec.msgpack.decode(data, type=Fork)
        answer: FromZygote
        try:
            if len(descriptors) < 3:  # the kernel drops those that do not fit
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            member = self._fork(request.incarnation, *descriptors)
        except OSError as error:
            answer, passed = ForkFailed(request.incarnation, f"cannot fork: {error}"), []
        else:
            answer, passed = Forked(member.incarnation, member.pid), [member.pidfd]
        for descriptor in descriptors:  # first: whoever hears the answer may count what is open here
            os.close(descriptor)
        self._say(answer, passed)

    def _say(self, message: FromZygote, descriptors: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._channel, [msgspec.msgpack.encode(message)], descriptors or [])
        except OSError:
            self._end_all()

    def _fork(self, incarnation: int, inbox: int, outbox: int, lifeline: int) -> _Member:
        # Blocked until the child has its own handlers: those of here are not for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(inbox, outbox, lifeline)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes first
            os.setpgid(pid, pid)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        member = self._members[pidfd] = _Member(incarnation, pid, pidfd)
        self._poll.register(pidfd, select.POLLIN)
        return member

    def _become_worker(self, inbox: int, outbox: int, lifeline: int) -> NoReturn:
        try:
            self._channel.close()
            for pidfd in self._members:
                os.close(pidfd)
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            settle_in(lifeline)
            gc.enable()
            live(WorkerQueues(inbox, outbox), self._preparation)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)

    # ----------------------------------------------------------------------- deaths

    def _on_death(self, member: _Member) -> None:
        """It is a zombie, so its pid and its group still mean what they meant."""
        self._poll.unregister(member.pidfd)
        member.dead_since = time.monotonic()
        with contextlib.suppress(OSError):
            os.killpg(member.pid, signal.SIGKILL)

    def _sweep(self) -> None:
        """End what dead workers left behind, then report them."""
        dead = [member for member in self._members.values() if member.dead_since is not None]
        if not dead:
            return
        clean = not self._kill_strangers()
        now = time.monotonic()
        for member in dead:
            if clean or now - (member.dead_since or now) > SWEEP_FOR:
                self._report(member)

    def _kill_strangers(self) -> bool:
        """Kill and reap all children that are not workers; true if some are not dead yet.

        Their own children come to us when they die, so this looks again until none is left.
        """
        known = {member.pid for member in self._members.values()}
        while True:
            try:
                strangers = set(children_of(os.getpid())) - known
            except OSError:  # too many open files, for now
                return True
            if not strangers:
                return False
            left = False
            for pid in strangers:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    left |= os.waitpid(pid, os.WNOHANG)[0] == 0
            if left:
                return True

    def _report(self, member: _Member) -> None:
        del self._members[member.pidfd]
        os.close(member.pidfd)
        try:
            _, status, usage = os.wait4(member.pid, 0)
        except OSError:
            self._say(Ended(member.incarnation, 0, 0))
        else:
            self._say(Ended(member.incarnation, status, usage.ru_maxrss * 1024))

    def _end_all(self) -> NoReturn:
        """The supervisor has gone: nothing that was started here may stay."""
        for member in self._members.values():
            with contextlib.suppress(OSError):
                os.killpg(member.pid, signal.SIGKILL)
        self._members.clear()
        deadline = time.monotonic() + LAST_SWEEP_FOR
        while self._kill_strangers() and time.monotonic() < deadline:
            time.sleep(SWEEP_EVERY)
        os._exit(0)


def run(channel_descriptor: int) -> NoReturn:
    """Entry point of the zygote's interpreter."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide how workers end
    PROCESS.inside_worker = True
    become_subreaper()
    gc.collect()
    gc.freeze()  # what is here now need not be looked at again
    channel = socket.socket(fileno=channel_descriptor)
    begin, preparation, lifeline = _await_orders(channel)
    meet_the_user()
    preparation.apply()
    if begin.preload:
        obstacle = _import(preparation, lifeline)
    else:
        os.close(lifeline)
        obstacle = "not asked to"
    gc.collect()
    gc.disable()
    gc.freeze()  # so that a worker's collector does not touch, and so copy, every page
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()  # or each worker would print it again
    Zygote(channel, preparation if obstacle else None).serve(Prepared(obstacle))


def _await_orders(channel: socket.socket) -> tuple[Begin, Preparation, int]:
    """What this zygote is for; without orders there is no reason to be here."""
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_PACKET, 3)
    except OSError:
        data, descriptors = b"", []
    if not data:
        os._exit(0)
    begin = msgspec.msgpack.decode(data, type=Begin)
    prepared, lifeline, *output = descriptors
    for descriptor in output:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    if begin.mark and not show_in_environment("LONGHAUL_EXPERIMENT", begin.mark):
        sys.exit("the environment of this process cannot be marked")
    with open(prepared, "rb") as file:
        return begin, msgspec.msgpack.decode(file.read(), type=Preparation), lifeline


def _import(preparation: Preparation, lifeline: int) -> str:
    """Import the user's code; "", or why workers cannot be forked with it."""
    # The channel is not looked at meanwhile, so the lifeline has to hold as in a worker.
    # Afterwards it must not: the zygote has to live long enough to end its workers.
    held = hold_lifeline(lifeline)
    try:
        preparation.import_modules()
    except BaseException as error:
        return f"{type(error).__name__} when the user's code was imported"
    finally:
        if held is not None:
            os.close(held)
    if thread_count() > 1:
        _fork_for_nothing()
    threads = thread_count()
    return f"{threads} threads run after the user's code was imported" if threads > 1 else ""


def _fork_for_nothing() -> None:
    """Some libraries end their threads when the process forks, and start them again when
    they are needed (OpenBLAS, as NumPy brings it, starts them on import). Let them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    deadline = time.monotonic() + TRIAL_FOR
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(SWEEP_EVERY)
