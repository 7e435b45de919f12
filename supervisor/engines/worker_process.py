"""One worker process as the local engine sees it, and the leases that it holds."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, cast

import msgspec

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.engines.last_stack import CRASHES, Awaited, LastWords, last_words
from supervisor.engines.launcher import Reaped, WorkerEnds
from supervisor.system.process_memory import read
from supervisor.system.processes import Program, catches, has_open, program_of
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
    Run,
    WorkerSpec,
)
from workers.transport.supervisor_queues import InboxWriter, OutboxReader, pipe_pair, pipe_room

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


_OUTCOMES = (Completed, CompletedWith, Failed)


def delivered(worker: Incarnation, messages: list[FromWorker]) -> list[Event]:
    """Outcomes in one event, up to where something else was said."""
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
            worker.ready = True
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
    return facts.JobsFinished(worker.number, outcomes)


FINISH_WITHIN = 2.0  # seconds from the last outcome of a worker that was told to finish

MUTE_FOR = 2.0  # seconds that another program may live on in the place of a worker

LISTEN_EVERY = 0.02  # seconds between looks at whether a worker has opened its queues again

DIE_WITHIN = 5.0  # seconds from SIGKILL

_CLEARLY_MORE = 1.1  # times what was told of earlier jobs, which is told again when it has grown by less

REAP_WITHIN = 4.0  # seconds from a death to what the launcher knows of it


class RunningJob(msgspec.Struct):
    job_id: str
    attempt: int


class _LineId(msgspec.Struct):
    id: str


_decode_id = msgspec.json.Decoder(_LineId).decode


class SentLeases:
    """Which leases a worker still holds. Lease numbers rise with every hand-out, and a
    worker ends its leases in order, so that one number says what is done."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()
        self._done = -1
        self._dropped: set[int] = set()

    def sent(self, run: Run) -> None:
        self._runs.append(run)

    def finished(self, lease: int) -> None:
        """This one, and with it all before it."""
        self._done = max(self._done, lease)
        runs = self._runs
        while runs and runs[0].first_lease + len(runs[0].attempts) - 1 <= self._done:
            runs.popleft()
        if not runs:
            self._dropped.clear()

    @property
    def last(self) -> int:
        """The last one that has ended; -1 if none has."""
        return self._done

    def dropped(self, leases: list[int]) -> None:
        self._dropped.update(leases)

    def _first(self) -> tuple[Run, int] | None:
        """The run and the index of the first lease without an end."""
        for run in self._runs:
            for index in range(max(0, self._done + 1 - run.first_lease), len(run.attempts)):
                if run.first_lease + index not in self._dropped:
                    return run, index
        return None

    def idle(self) -> bool:
        return self._first() is None

    def running(self) -> RunningJob | None:
        """The job that the worker is at, if it is at one."""
        first = self._first()
        if first is None:
            return None
        run, index = first
        try:
            return RunningJob(_decode_id(run.lines.split(b"\n")[index]).id, run.attempts[index])
        except (msgspec.MsgspecError, IndexError):
            return None


class EarlierPeaks:
    """How much memory a worker has held at most before the job that it is at, as far as it has said."""

    def __init__(self) -> None:
        self.highest = 0
        self.lease: int | None = None  # of the job that held so much
        self._lasting = 0
        self._inherited = 0  # the kernel's word of its peak is never below that
        self._held = 0  # where that is so: what its own peak is known to be at least

    def told(self, peak: Peak, lease: int) -> None:
        """`lease`: the last that has ended."""
        highest = max(peak.before, peak.lasting)
        if highest > self.highest:
            self.highest, self.lease = highest, lease
        self._lasting = peak.lasting
        self._inherited, self._held = peak.inherited, peak.held

    def look(self, pid: int) -> None:
        """While it lives: how much it has held, if nobody can tell afterwards."""
        if self._inherited:
            self._held = max(self._held, own_mark(read(f"/proc/{pid}/status")))

    def own(self, at_death: int) -> int:
        """The peak of a worker for which the kernel told so much: what another program had held before
        it in the same process is not its own."""
        return at_death if at_death > _CLEARLY_MORE * self._inherited else max(self._held, self._lasting)

    def may_be(self, at_death: int) -> bool:
        """Whether the peak that a dead worker had may come from one of these jobs."""
        return at_death <= _CLEARLY_MORE * self._lasting


class Incarnation:
    """One worker process, from the order to start it until it is confirmed dead.

    Times are on the loop's clock; None means "not yet", and for deadlines that begin with
    an order from outside, where the time is not known, the next `poll` fills them in.
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
        self.stack_due: float | None = None  # when to look for the stack that it writes before its end
        self._awaited: Awaited | None = None
        self.peaks = EarlierPeaks()
        self.given_up = False
        self.finish_asked = False
        self.idle_since: float | None = None
        self.mute_since: float | None = None
        self.dead_at: float | None = None
        self.reaped: Reaped | None = None
        self.listened_at = 0.0
        self.program: Program | None = None  # that it runs; None where that cannot be told
        self.note = ""  # why the engine itself has ended it
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
        room = pipe_room(self.spec.worker)
        self.inbox = InboxWriter(self._inbox.fileno(), room)
        self.outbox = OutboxReader(self._outbox.fileno(), room)
        ends = os.getpid(), self._inbox.fileno(), self._outbox.fileno()
        self.spec = msgspec.structs.replace(self.spec, ends=ends)

    @property
    def cut_off(self) -> bool:
        """Nothing can come from it any more, or nothing reaches it."""
        return self.outbox.ended or self.inbox.broken

    def may_speak_again(self, now: float) -> bool:
        """Whether somebody is there who opens closed queues again: not another program."""
        self.listened_at = now
        if not self.cut_off:
            self.mute_since = None
            return True
        if self.mute_since is None or now - self.mute_since < MUTE_FOR:
            return True
        return not self.inbox.broken and self.program is not None and program_of(self.pid) == self.program

    def why_mute(self) -> str:
        """Why it is to be killed, for whoever reads what its job has printed; "" if it is not mute."""
        if self.outbox.ended:
            return f"worker {self.spec.worker} was killed: the job has closed the queue for its result"
        if self.inbox.broken:
            return f"worker {self.spec.worker} was killed: it could not be written to"
        return self.note

    # ------------------------------------------------------------------- deadlines

    def begin_waiting(self, now: float) -> None:
        """Put a time to what has been ordered since the last look."""
        if self.kill_asked and self.pid and self.killed_at is None and self.stack_due is None:
            self.killed_at = now
        if self._is_let_go():
            self.idle_since = now if self.idle_since is None else self.idle_since
        if self.cut_off and self.mute_since is None:
            self.mute_since = now

    def _is_let_go(self) -> bool:
        """Whether it has nothing to do but to end: also if `setup()` or the import still runs."""
        return self.finish_asked and bool(self.pid) and self.leases.idle()

    def deadline(self, now: float) -> float | None:
        """When something has to be done about it; `now` is for what waits for a look."""
        if self.dead_at is not None:
            return now if self.reaped is not None else self.dead_at + REAP_WITHIN
        if self.stack_due is not None:
            return self.stack_due
        if self.kill_asked:
            if not self.pid or self.given_up:
                return None
            return now if self.killed_at is None else self.killed_at + DIE_WITHIN
        # It is about to end, or a job has called exec, or has closed all it had: then the worker, when it
        # has returned to it, opens its ends again.
        if self.cut_off:
            return now if self.mute_since is None else max(self.mute_since, self.listened_at) + LISTEN_EVERY
        if self._is_let_go():
            return now if self.idle_since is None else self.idle_since + FINISH_WITHIN
        return None

    # ------------------------------------------------------------- process and output

    def send_signal(self, signum: int) -> None:
        """To the process alone, if it lives."""
        if self.dead_at is not None or not self.pid:
            return
        with contextlib.suppress(OSError):
            if self.pidfd is not None:
                signal.pidfd_send_signal(self.pidfd, signum)
            else:
                os.kill(self.pid, signum)

    def ask_for_stacks(self) -> bool:
        """Let it write down what all its threads are at. False, and nothing is done, if the job has
        taken our handler away: it would die of being asked."""
        if self.dead_at is not None or not self.pid or not catches(self.pid, STACKS):
            return False
        self.send_signal(STACKS)
        return True

    def ask_for_stack(self, now: float) -> bool:
        """The same before it is killed; True if that has to wait until `stack_is_there`."""
        if self._awaited is not None or not self.ready or not has_open(self.pid, self._stacks):
            return False
        awaited = Awaited(self._stacks, self.pid)
        if self.ask_for_stacks():
            self._awaited = awaited
            self.stack_due = awaited.next_look(now)
        return self.stack_due is not None

    def stack_is_there(self, now: float) -> bool:
        """Whether it has written its stack, or has had its time for that."""
        if self._awaited is None or self._awaited.is_over(now):
            return True
        self.stack_due = self._awaited.next_look(now)
        return False

    @property
    def scratch(self) -> str:
        """The file that it prints to."""
        return scratch_path(self.spec.output_directory, self.spec.worker, self.spec.incarnation)

    @property
    def _stacks(self) -> str:
        """The file that it writes its stacks to."""
        return stacks_path(self.spec.output_directory, self.spec.worker, self.spec.incarnation)

    def last_facts(self) -> facts.WorkerDied:
        """After its death, all that it had said was read: how it ended. Its output is put away."""
        code = self._exit_code()
        exit_code, signum = (code, None) if code is None or code >= 0 else (None, -code)
        peak_rss = (None if self.reaped is None else self.reaped.peak_rss) or None
        if peak_rss is not None:
            peak_rss = self.peaks.own(peak_rss) or None
        said, size = self.put_output_away()
        stack = said.stack
        return facts.WorkerDied(
            self.number,
            exit_code,
            signum,
            peak_rss,
            said.output,
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
        """Negative: of which signal it has died. None if that is not known."""
        if self.reaped is None or self.reaped.status is None:
            return None
        return os.waitstatus_to_exitcode(self.reaped.status)

    def put_output_away(self) -> tuple[LastWords, int]:
        """After its death: the end of what it printed, and its size; it becomes the log of
        the job that ran."""
        spec = self.spec
        running = self.leases.running()
        crashed = -(self._exit_code() or 0) in CRASHES
        said = last_words(self.scratch, self._awaited, crashed=crashed)
        with contextlib.suppress(OSError):
            os.unlink(self._stacks)
        said = said._replace(output="\n".join(part for part in (said.output, self.note) if part))
        try:
            if running is not None:
                job, attempt = running.job_id, running.attempt
                return said, collect(self.scratch, spec.output_directory, job, attempt, spec.output_limit)
            path = stray_path(spec.output_directory, spec.worker)
            return said, move(self.scratch, path, STRAY_HEADING, spec.output_limit)
        except OSError:  # the disk refuses; the file stays where it is
            return said, 0

    @property
    def inbox_end(self) -> Connection:
        """Our end of what the worker is told."""
        return self._inbox

    @property
    def outbox_end(self) -> Connection:
        """Our end of what the worker says."""
        return self._outbox

    def disconnect(self) -> None:
        self.inbox.close()
        self._inbox.close()
        self._outbox.close()
