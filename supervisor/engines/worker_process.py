"""One worker process as the local engine sees it, and the leases that it holds."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, cast

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.engines.last_stack import CRASHES, ExitSummary, RequestedStack, exit_summary
from supervisor.engines.launcher import Reaped, WorkerEnds
from supervisor.engines.sent_leases import SentLeases
from supervisor.system.descriptor_limit import make_room
from supervisor.system.process_memory import read
from supervisor.system.processes import Program, has_handler, has_open, program_of
from workers.isolation.output_files import STRAY_HEADING, collect, move, scratch_path, stacks_path, stray_path
from workers.isolation.peak_memory import own_mark
from workers.isolation.signal_handlers import STACKS
from workers.transport.messages import (
    Completed,
    CompletedWith,
    Dropped,
    Failed,
    FromWorker,
    Imported,
    NeverReady,
    Outcome,
    Peak,
    Ready,
    Reported,
    WorkerSpec,
)
from workers.transport.supervisor_queues import InboxWriter, OutboxReader, pipe_pair, pipe_room

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


_OUTCOMES = (Completed, CompletedWith, Failed)


def events_from(worker: Incarnation, messages: list[FromWorker]) -> list[Event]:
    """The events of a worker's messages. Outcomes that follow each other become one event."""
    if set(map(type, messages)) == {Completed}:  # as nearly always
        return [_finished(worker, cast("list[Outcome]", messages))]
    events: list[Event] = []
    outcomes: list[Outcome] = []
    for message in messages:
        kind = type(message)
        if kind in _OUTCOMES:
            outcomes.append(message)  # type: ignore[arg-type]
            continue
        if outcomes:
            events.append(_finished(worker, outcomes))
            outcomes = []
        if isinstance(message, Ready):
            worker.is_ready()
            events.append(facts.WorkerReady(worker.number))
        elif isinstance(message, NeverReady):
            events.append(facts.WorkerNotReady(worker.number, message.failure))
        elif isinstance(message, Dropped):
            worker.leases.dropped(message.leases)
            events.append(facts.LeasesDropped(worker.number, message.leases))
        elif isinstance(message, Peak):
            worker.peaks.told(message, worker.leases.last)
        elif isinstance(message, Imported):
            events.append(facts.CodeImported(worker.number, message.modules))
        elif isinstance(message, Reported):
            events.append(
                facts.JobReported(
                    worker.number, message.job, message.fraction, message.metrics, message.notice
                )
            )
    if outcomes:
        events.append(_finished(worker, outcomes))
    return events


def _finished(worker: Incarnation, outcomes: list[Outcome]) -> Event:
    worker.leases.finished(outcomes[-1].lease)
    worker.idle_since = None
    return facts.JobsFinished(worker.number, outcomes, worker.outbox.pressing)


FINISH_WITHIN = 2.0  # seconds from the last outcome, once it was told to finish

RECONNECT_WITHIN = 2.0  # seconds for another program (exec) in the worker process to open the queues again

RECONNECT_CHECK_EVERY = 0.02  # seconds between checks whether a worker has opened its queues again

DIE_WITHIN = 5.0  # seconds from SIGKILL

_CLEARLY_MORE = 1.1  # times the last report about earlier jobs; less growth than that is not reported

REAP_WITHIN = 4.0  # seconds from a death to the launcher's report of it


class EarlierPeaks:
    """The peak memory of a worker before its current job, as far as it has reported it. In bytes."""

    def __init__(self) -> None:
        self.highest = 0
        self.lease: int | None = None  # of the job that held so much
        self._lasting = 0
        self._inherited = 0  # the kernel never reports a peak below this
        self._own = 0  # if so: a lower bound of its own peak

    def told(self, peak: Peak, lease: int) -> None:
        """Take a worker's report; `lease` is the last one that has ended."""
        highest = max(peak.before, peak.lasting)
        if highest > self.highest:
            self.highest, self.lease = highest, lease
        self._lasting = peak.lasting
        self._inherited, self._own = peak.inherited, peak.own

    def read_peak(self, pid: int) -> None:
        """While it lives: read its peak, where the kernel does not report it at its death."""
        if self._inherited:
            self._own = max(self._own, own_mark(read(f"/proc/{pid}/status")))

    def own(self, at_death: int) -> int:
        """The worker's own peak, from the one that the kernel reported: that may be of another program that
        ran in the same process before."""
        return at_death if at_death > _CLEARLY_MORE * self._inherited else max(self._own, self._lasting)

    def may_be(self, at_death: int) -> bool:
        """Whether the peak that a dead worker had may come from one of these jobs."""
        return at_death <= _CLEARLY_MORE * self._lasting


class Incarnation:
    """One worker process, from the order to start it until it is confirmed dead.

    Times are on the loop's clock; None means "not yet". A deadline that begins with an order, which comes
    without a time, is set by the next `poll`.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.number = spec.incarnation
        self.leases = SentLeases()
        self.pid = 0
        self.pidfd: int | None = None
        self.ready = False
        self.kill_asked = False
        self.killed_at: float | None = None
        self.stack_due: float | None = None  # when to check for the stack that was requested before its kill
        self._requested_stack: RequestedStack | None = None
        self.peaks = EarlierPeaks()
        self.given_up = False
        self.finish_asked = False
        self.idle_since: float | None = None
        self.cut_off_since: float | None = None
        self.dead_at: float | None = None
        self.reaped: Reaped | None = None
        self.reconnect_checked_at = 0.0
        self.program: Program | None = None  # that the process runs; None if unknown
        self.note = ""  # why the engine itself has killed it
        # The file that it prints to.
        self.scratch = scratch_path(spec.output_directory, spec.worker, spec.incarnation)
        self.connect()

    def connect(self) -> None:
        """Make the queues. Raises OSError when there are no descriptors left."""
        inbox_end, self._inbox = pipe_pair()
        try:
            self._outbox, outbox_end = pipe_pair()
        except OSError:
            inbox_end.close()
            self._inbox.close()
            raise
        self.ends = WorkerEnds(inbox_end, outbox_end, self.scratch)
        make_room(outbox_end.fileno())
        room = pipe_room(self.spec.worker)
        self.inbox = InboxWriter(self._inbox.fileno(), room)
        self.outbox = OutboxReader(self._outbox.fileno(), room)
        ends = os.getpid(), self._inbox.fileno(), self._outbox.fileno()
        self.spec = msgspec.structs.replace(self.spec, ends=ends)

    @property
    def cut_off(self) -> bool:
        """Whether its outbox has ended or its inbox has no reader."""
        return self.outbox.ended or self.inbox.broken

    def is_ready(self) -> None:
        """Its program can be told by now. Right after its start that is not sure: `exec` lets the parent go on before
        the process has its new addresses."""
        self.ready = True
        self.program = program_of(self.pid)

    def may_reconnect(self, now: float) -> bool:
        """Whether the process may still open its queues again: not if it runs another program."""
        self.reconnect_checked_at = now
        if not self.cut_off:
            self.cut_off_since = None
            return True
        if self.program is None:
            self.program = program_of(self.pid)
        if self.cut_off_since is None or now - self.cut_off_since < RECONNECT_WITHIN:
            return True
        return not self.inbox.broken and self.program is not None and program_of(self.pid) == self.program

    def kill_note(self) -> str:
        """Why it is killed, for the end of its job's output; "" if it is not cut off."""
        if self.outbox.ended:
            why = "the job has closed the queue for its result (close only files that the job has opened)"
            return f"worker {self.spec.worker} was killed: {why}"
        if self.inbox.broken:
            return f"worker {self.spec.worker} was killed: it could not be written to"
        return self.note

    # ------------------------------------------------------------------- deadlines

    def start_deadlines(self, now: float) -> None:
        """Start the deadlines of the orders since the last call."""
        if self.kill_asked and self.pid and self.killed_at is None and self.stack_due is None:
            self.killed_at = now
        if self._may_exit():
            self.idle_since = now if self.idle_since is None else self.idle_since
        if self.cut_off and self.cut_off_since is None:
            self.cut_off_since = now

    def _may_exit(self) -> bool:
        """Whether it was told to finish and holds no lease; also if `setup()` or the import still runs."""
        return self.finish_asked and bool(self.pid) and self.leases.idle()

    def may_have_deadline(self) -> bool:
        """Whether `deadline` may be another thing than None: something was asked of it, or it is about to end."""
        return (
            self.kill_asked
            or self.finish_asked
            or self.dead_at is not None
            or self.stack_due is not None
            or self.cut_off
        )

    def deadline(self, now: float) -> float | None:
        """When `LocalEngine` has to act on it; `now` if that is due, None if nothing is to be awaited."""
        if self.dead_at is not None:
            return now if self.reaped is not None else self.dead_at + REAP_WITHIN
        if self.stack_due is not None:
            return self.stack_due
        if self.kill_asked:
            if not self.pid or self.given_up:
                return None
            return now if self.killed_at is None else self.killed_at + DIE_WITHIN
        # It is about to end, or a job has called exec or closed all descriptors. In the last case the
        # worker opens its ends again after the job.
        if self.cut_off:
            return (
                now
                if self.cut_off_since is None
                else max(self.cut_off_since, self.reconnect_checked_at) + RECONNECT_CHECK_EVERY
            )
        if self._may_exit():
            return now if self.idle_since is None else self.idle_since + FINISH_WITHIN
        return None

    # ------------------------------------------------------------- process and output

    def send_signal(self, signum: int) -> None:
        """Send a signal to the process, not to its group, if it lives."""
        if self.dead_at is not None or not self.pid:
            return
        with contextlib.suppress(OSError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signum)
            else:
                os.kill(self.pid, signum)

    def ask_for_stacks(self) -> bool:
        """Let it write the stacks of all its threads. False, and nothing is sent, if the job has removed our
        handler: the signal would kill it."""
        if self.dead_at is not None or not self.pid or not has_handler(self.pid, STACKS):
            return False
        self.send_signal(STACKS)
        return True

    def ask_for_stack(self, now: float) -> bool:
        """Request its stack before it is killed. True if the kill has to wait until `stack_written`."""
        if self._requested_stack is not None or not self.ready or not has_open(self.pid, self._stacks):
            return False
        requested = RequestedStack(self._stacks, self.pid)
        if self.ask_for_stacks():
            self._requested_stack = requested
            self.stack_due = requested.next_look(now)
        return self.stack_due is not None

    def stack_written(self, now: float) -> bool:
        """Whether it has written the requested stack, or the time for that is over."""
        if self._requested_stack is None or self._requested_stack.is_over(now):
            return True
        self.stack_due = self._requested_stack.next_look(now)
        return False

    @property
    def _stacks(self) -> str:
        """The file that it writes its stacks to."""
        return stacks_path(self.spec.output_directory, self.spec.worker, self.spec.incarnation)

    def died_event(self) -> facts.WorkerDied:
        """How it ended, after its death and its last message; stores its output."""
        code = self._exit_code()
        exit_code, signum = (code, None) if code is None or code >= 0 else (None, -code)
        peak_rss = (None if self.reaped is None else self.reaped.peak_rss) or None
        if peak_rss is not None:
            peak_rss = self.peaks.own(peak_rss) or None
        summary, size = self.store_output()
        stack = summary.stack
        return facts.WorkerDied(
            self.number,
            exit_code,
            signum,
            peak_rss,
            summary.output,
            size,
            stray_path(self.spec.output_directory, self.spec.worker)
            if size and not self.leases.running()
            else "",
            where=stack.where,
            function=stack.function,
            traceback=stack.text,
            peak_is_shared=peak_rss is not None and self.peaks.may_be(peak_rss),
            earlier_peak_rss=self.peaks.highest,
            earlier_peak_lease=self.peaks.lease,
        )

    def _exit_code(self) -> int | None:
        """As of subprocess: negative for a signal. None if unknown."""
        if self.reaped is None or self.reaped.status is None:
            return None
        return os.waitstatus_to_exitcode(self.reaped.status)

    def store_output(self) -> tuple[ExitSummary, int]:
        """After its death: make its output the log of the job that ran. Returns the end of the output, and
        its size in bytes."""
        spec = self.spec
        running = self.leases.running()
        crashed = -(self._exit_code() or 0) in CRASHES
        summary = exit_summary(self.scratch, self._requested_stack, crashed=crashed)
        with contextlib.suppress(OSError):
            os.unlink(self._stacks)
        summary = summary._replace(output="\n".join(part for part in (summary.output, self.note) if part))
        try:
            if running is not None:
                job, attempt = running.job_id, running.attempt
                return summary, collect(self.scratch, spec.output_directory, job, attempt, spec.output_limit)
            path = stray_path(spec.output_directory, spec.worker)
            return summary, move(self.scratch, path, STRAY_HEADING, spec.output_limit)
        except OSError:  # the disk refuses; the file stays where it is
            return summary, 0

    @property
    def inbox_end(self) -> Connection:
        """The supervisor's end of its inbox."""
        return self._inbox

    @property
    def outbox_end(self) -> Connection:
        """The supervisor's end of its outbox."""
        return self._outbox

    def disconnect(self) -> None:
        self.inbox.close()
        self._inbox.close()
        self._outbox.close()


class Incarnations(dict[int, Incarnation]):
    """The worker processes of an engine, by number, until their death was reported.

    `note` is told of each one that may have got a deadline or a message under way, or have got rid of it: a turn must
    not look at each of a thousand workers. `scan` does so, and is the reference.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watched: dict[int, Incarnation] = {}
        self._pressing: set[int] = set()

    def __delitem__(self, number: int) -> None:
        super().__delitem__(number)
        self._watched.pop(number, None)
        self._pressing.discard(number)

    def note(self, worker: Incarnation) -> None:
        """Something was asked of it, it has died, or its queues were used."""
        number = worker.number
        if number not in self:
            return
        if worker.may_have_deadline():
            self._watched[number] = worker
        elif self._watched:
            self._watched.pop(number, None)
        if worker.outbox.pressing or worker.inbox.pressing:
            self._pressing.add(number)
        elif self._pressing:
            self._pressing.discard(number)

    def scan(self) -> tuple[set[int], bool]:
        """(those that may have a deadline, `pressing`), found by a look at each."""
        watched = {number for number, worker in self.items() if worker.may_have_deadline()}
        return watched, any(worker.outbox.pressing or worker.inbox.pressing for worker in self.values())

    def living(self) -> set[int]:
        """Numbers of those that are not dead; some may not exist yet."""
        return {number for number, worker in self.items() if worker.dead_at is None}

    def pids_by_number(self) -> dict[int, int]:
        """Of those that exist and are not dead."""
        return {n: worker.pid for n, worker in self.items() if worker.pid and worker.dead_at is None}

    def pids(self) -> set[int]:
        return set(self.pids_by_number().values())

    def least_held(self) -> int:
        """How many leases the worker with the fewest holds; 0 without workers."""
        return min([worker.leases.held() for worker in self.values()], default=0)

    def pressing(self) -> bool:
        """Whether a message is under way that does not fit into a pipe at once."""
        return bool(self._pressing)

    def to_be_watched(self) -> list[Incarnation]:
        """Those that may have a deadline: all others compute, and nothing was asked of them."""
        return list(self._watched.values())

    def deadlines(self, now: float) -> list[float]:
        due = (worker.deadline(now) for worker in self.to_be_watched())
        return [time for time in due if time is not None]

    def any_given_up(self) -> bool:
        return any(worker.given_up for worker in self.values())
