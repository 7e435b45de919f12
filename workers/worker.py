"""The worker's life: lifeline, signals, output files, then receive, run, send.

A worker is a process of its own group that runs one job at a time. It is started by the
zygote (forked) or by the supervisor (a fresh interpreter), and told everything else by its
inbox: first one `WorkerSpec`, then `Run`, `Revoke` and `Finish`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Collection, Iterator
from itertools import chain, count
from time import perf_counter
from typing import NoReturn

import msgspec

from workers.forking.resource_trackers import share_tracker
from workers.isolation import signal_handlers
from workers.isolation.captured_output import CapturedOutput
from workers.isolation.exit_functions import disown, flush_files, leave_fork, run_all
from workers.isolation.interpreter_state import note_builtins
from workers.isolation.output_files import stacks_path
from workers.isolation.peak_memory import Peaks
from workers.isolation.process_state import Surroundings
from workers.isolation.streams import remember_writing
from workers.job.current_job import CURRENT, PROCESS, tag_environment
from workers.job.job_reports import Reporter
from workers.process import descriptors
from workers.process.linux import hold_lifeline, kill_group_at_end, prefer_as_oom_victim
from workers.runner import PlanLine, Runner, planned, with_output
from workers.script.callables import load
from workers.script.preparation import Preparation
from workers.script.user_modules import USER_CODE, watch_imports
from workers.transport.messages import (
    Dropped,
    Failed,
    Finish,
    Imported,
    NeverReady,
    Ready,
    Revoke,
    Run,
    ToWorker,
    WorkerSpec,
)
from workers.transport.pipes import QueueClosed
from workers.transport.worker_queues import WorkerQueues
from workers.values.tracebacks import describe

_decode_spec = msgspec.msgpack.Decoder(WorkerSpec).decode
LOOK_AFTER = 0.001  # seconds; a job does not start before the inbox was looked at this lately
TIDY_AFTER = 0.005  # seconds; no job starts if what others have changed was not put back this lately
TOLD_AT_ONCE = 100  # modules in one message
FORK_TAKES = 20e-6  # seconds at least: a shorter job has not forked
CHANGE_TAKES = 1e-6  # seconds; hardly a shorter job has changed anything around it
MOST_LOOKS = 100.0  # around us in a row, after short jobs
LOOK_REGAINED = 0.05  # seconds that give one of them back
REST_AFTER = 0.02  # seconds; after a longer job also what jobs seldom change is put back at once
REST_EVERY = 0.05  # seconds; where short jobs are many, it is put back this late
# Seconds at least: a shorter job has not closed ours and opened so many that one got its number.
CLOSE_TAKES = 100e-6


class Worker:
    """Receives leases, runs them in order, sends each outcome the moment it exists."""

    def __init__(self, queues: WorkerQueues, runner: Runner, output: CapturedOutput) -> None:
        self._queues = queues
        self._runner = runner
        self._output = output
        self._surroundings = Surroundings()
        self._peaks = Peaks()
        if (peak := self._peaks.begin()) is not None:
            queues.send(peak)
        if self._surroundings.too_many >= 0:
            queues.reserve(self._surroundings.too_many)
        self._watch()
        self._batches: deque[Iterator[tuple[int, int, PlanLine | bytes]]] = deque()  # lease, attempt, job
        self._finishing = False
        self._spoiled = False
        self._untidy = False  # a job has ended after which we look around at once
        self._long = False  # a job has ended after which it is looked at everything
        self._clean = False  # a job has ended, we have looked, and what jobs change most is as it was
        self._looks = MOST_LOOKS  # that we may take after short jobs
        self._tidied = self._tidied_all = perf_counter()
        self._ran = False  # whether a job has, since we looked around
        self._held = True  # since the last job, that is
        self._pid = os.getpid()

    def serve(self) -> bool:
        """Until `Finish` has come and nothing is queued.

        True if it ends because a signal has asked this process to stop, while the
        supervisor knows nothing of a drain, or because a job has spoiled this process for
        others: the supervisor hands out again what was given back.
        """
        batches = self._batches
        gave_back = False
        while True:
            looked = self._settle()
            if not batches:
                if self._finishing:
                    return False
                self._hear(self._queues.receive())
                continue
            if CURRENT.stopping or self._spoiled:
                if self._give_back():
                    if gave_back:
                        return True
                    gave_back = True
                continue
            self._surroundings.fresh_context().run(self._work, looked)

    def _work(self, looked: float) -> None:
        """Jobs of the first batch, until it is time to look around; `looked`: when we last did."""
        run, send, size, getpid = self._runner.run, self._queues.send, self._output.size, os.getpid
        now, looked_around = looked, False
        self._ran = True
        for lease, attempt, line in self._batches[0]:
            outcome = run(lease, attempt, line, now)
            seconds = outcome.seconds
            if seconds <= CHANGE_TAKES:
                printed = size(seconds)
            else:
                if seconds > FORK_TAKES and getpid() != self._pid:
                    leave_fork(None)  # a child that a job has forked; it has returned as well
                if seconds >= LOOK_AFTER or self._looks >= 1 or type(outcome) is Failed:
                    looked_around = True
                    printed = 0 if self._is_clean(seconds) else size(seconds)
                else:
                    self._held = False
                    if seconds > CLOSE_TAKES:
                        self._hold(seconds)
                    printed = size(seconds)
            if printed:
                outcome = with_output(outcome, self._output.collect(CURRENT.id, attempt))
            send(outcome)
            now = perf_counter()
            if looked_around or CURRENT.stopping or now - looked > LOOK_AFTER:
                return
        self._batches.popleft()

    def _is_clean(self, seconds: float) -> bool:
        """Whether a job of so many seconds has printed nothing, and has left what jobs change most as it
        was; asked before anything is sent. If not, nothing goes off any more, and our ends are ours."""
        now = perf_counter()
        self._long = seconds >= REST_AFTER
        fully = seconds >= TIDY_AFTER or now - self._tidied > TIDY_AFTER - LOOK_AFTER
        if self._output.unused() and self._surroundings.unchanged(fully=fully):
            self._clean = self._held = True
            if fully:
                self._tidied = now
                if seconds >= TIDY_AFTER:
                    self._queues.hold()
            return True
        self._untidy = True
        self._surroundings.still()
        self._hold(seconds)
        self._watch()
        return False

    def _watch(self) -> None:
        """Look at what others than `Surroundings` know of, in the same look."""
        self._surroundings.watch([self._queues.reading(), *self._output.readings()], self._output.reading())

    def _hold(self, seconds: float) -> None:
        """Know what we write to and read from to be ours, after a job of so many seconds."""
        self._held = True
        if seconds < REST_AFTER:
            self._queues.hold_as_pipes()
        else:
            self._queues.hold()

    def _settle(self) -> float:
        """What is due between two jobs: tidy up, and look at the inbox; when that was."""
        now = perf_counter()
        closely = self._looks >= 1 or self._long or now - self._tidied_all > REST_EVERY
        # The next time we may be here is LOOK_AFTER from now.
        idle = self._ran and not self._batches
        if self._clean and not closely:
            self._clean = self._ran = False
        elif self._untidy or self._clean or idle or now - self._tidied > TIDY_AFTER - LOOK_AFTER:
            if not self._untidy:
                self._surroundings.still()
            if not self._held:
                self._hold(0.0)
            self._held = False
            self._output.restore(closely=closely)
            self._spoiled |= not self._surroundings.restore()
            if closely:
                self._tidy_rest(now)
            self._untidy = self._long = self._clean = self._ran = False
            regained = (now - self._tidied) / LOOK_REGAINED
            self._looks = min(MOST_LOOKS, max(self._looks - 1, 0) + regained)
            self._tidied = now
        if USER_CODE.grown():
            tell_imports(self._queues)
        while self._queues.readable():
            self._hear(self._queues.receive())
        self._spoiled |= self._queues.crowded  # so many files left open that few can be opened
        return perf_counter()

    def _tidy_rest(self, now: float) -> None:
        """What is too dear to be looked at after each job of a millisecond."""
        self._queues.hold()
        self._spoiled |= not self._surroundings.restore_rest()
        self._tidied_all = now
        if (peak := self._peaks.look(now)) is not None:
            self._queues.send(peak)

    def _hear(self, message: ToWorker) -> None:
        if isinstance(message, Run):
            entries = zip(count(message.first_lease), message.attempts, planned(message.lines), strict=False)
            self._batches.append(entries)
        elif isinstance(message, Revoke):
            wanted = set(message.leases)
            waiting = self._waiting()
            dropped = [lease for lease, _, _ in waiting if lease in wanted]
            kept = [entry for entry in waiting if entry[0] not in wanted]
            if kept:
                self._batches.append(iter(kept))
            if dropped:
                self._queues.send(Dropped(dropped))
        elif isinstance(message, Finish):
            self._finishing = True

    def _give_back(self) -> bool:
        """What has not started will not start here; whether there was anything."""
        dropped = [lease for lease, _, _ in self._waiting()]
        if dropped:
            self._queues.send(Dropped(dropped))
        return bool(dropped)

    def _waiting(self) -> list[tuple[int, int, PlanLine | bytes]]:
        """What has not started, taken off the list."""
        waiting = list(chain.from_iterable(self._batches))
        self._batches.clear()
        return waiting


def run_worker(queues: WorkerQueues, preparation: Preparation | None) -> NoReturn:
    """From the spec to the end; never returns.

    `preparation` is None if the user's code is imported already.
    """
    output: CapturedOutput | None = None
    served = stopped = False
    try:
        spec = _decode_spec(queues.receive_payload()).unpacked()
        if spec.ends is not None:
            queues.found_at(*spec.ends)
        os.register_at_fork(after_in_child=queues.leave_to_parent)
        try:
            os.makedirs(spec.output_directory, exist_ok=True)
            output = CapturedOutput(spec.output_directory, spec.worker, spec.incarnation, spec.output_limit)
            runner = _get_ready(spec, preparation)
            queues.hold()
            output.collect_setup()
            worker = Worker(queues, runner, output)
        except BaseException as error:
            queues.send(NeverReady(describe(error)))
        else:
            CURRENT.report_to(Reporter(queues))
            tell_imports(queues)
            queues.send(Ready())
            stopped = worker.serve()
            served = True
    except QueueClosed:
        pass  # the supervisor has gone, or has closed this worker
    except (KeyboardInterrupt, SystemExit):  # somebody's signal, between two jobs
        served = stopped = True
    # Objects that the script made belong to the process that imported it.
    modules = [] if preparation is None else [*preparation.modules, "__main__"]
    exit_process(output, 0 if served else 1, modules, stopped=stopped)


def tell_imports(queues: WorkerQueues) -> None:
    """Say which modules of the user's are here that nothing was said of yet, a few at a time."""
    news = USER_CODE.news()
    for first in range(0, len(news), TOLD_AT_ONCE):
        queues.send(Imported(news[first : first + TOLD_AT_ONCE]))


def spawned(inbox: int, outbox: int, lifeline: int, tracker: int | None = None) -> NoReturn:
    """Entry point of a fresh interpreter: the first frame says what program this is."""
    setup_process(lifeline)
    if tracker is not None:
        share_tracker(tracker)
    install_hooks()
    queues = WorkerQueues(descriptors.keep(inbox), descriptors.keep(outbox))
    preparation = msgspec.msgpack.decode(queues.receive_payload(), type=Preparation)
    preparation.apply()
    run_worker(queues, preparation)


def setup_process(
    lifeline: int, second_lifeline: int | None = None, *, left: signal_handlers.Left | None = None
) -> None:
    """What has to be so before any code of the user runs: group, lifelines, signals.

    `lifeline`: the supervisor's. `second_lifeline`: that of supervisor and zygote, opened for
    this process alone. If only the supervisor dies, the zygote ends what this process has started, but for resource
    trackers, which are in its group; the kernel would spare none. `left`: what code of
    the user that ran already has left.
    """
    PROCESS.inside_worker = True
    PROCESS.worker = os.getpid()
    with contextlib.suppress(OSError):  # it leads its group already
        os.setpgid(0, 0)
    if second_lifeline is not None:
        kill_group_at_end(descriptors.keep(second_lifeline))
    held = hold_lifeline(lifeline, alone=second_lifeline is not None)
    if held is not None:
        descriptors.keep(held)
    prefer_as_oom_victim()
    # A Ctrl+C of the moment in which this process was made went to the whole foreground group,
    # and was blocked since. It is for the supervisor to tell us; ignored, it is dropped.
    born = signal_handlers.born([signal.SIGINT])
    signal_handlers.put_back(left or signal_handlers.Left(born, set(), -1))


def install_hooks() -> None:
    """What has to be so in a process before it imports any code of the user."""
    remember_writing()
    watch_imports()
    signal_handlers.follow_forks()
    os.register_at_fork(after_in_child=_in_child)


def _in_child() -> None:
    if PROCESS.worker:  # a job has forked
        disown()


def _get_ready(spec: WorkerSpec, preparation: Preparation | None) -> Runner:
    """Import the user's code and run `setup()`; raises whatever they raise."""
    if spec.nice:
        with contextlib.suppress(OSError):
            os.nice(spec.nice)
    os.environ.update(spec.environment)
    tag_environment(spec.worker, spec.tag, spec.incarnation)
    CURRENT.configure(spec.worker, spec.seed, spec.jobs_directory, spec.states_directory)
    if preparation is not None:
        preparation.import_modules()
    function = load(spec.function)
    _reseed()
    signal_handlers.install(
        stacks_path(spec.output_directory, spec.worker, spec.incarnation), runs_jobs=Runner.run.__code__
    )
    if spec.setup is not None:
        CURRENT.context = load(spec.setup)()
        note_builtins()
    signal_handlers.settle()
    return Runner(function)


def _reseed() -> None:
    """Forked workers must not repeat each other's random numbers."""
    for name in ("random", "numpy.random"):
        seed = getattr(sys.modules.get(name), "seed", None)
        if callable(seed):  # else it is a module of the script's own
            seed()


def exit_process(
    output: CapturedOutput | None, code: int, modules: Collection[str] = (), *, stopped: bool
) -> NoReturn:
    """End this process: exit functions and buffers, but no waiting for threads or children.

    A worker that somebody's signal has asked to stop dies of SIGTERM: so it is seen that
    this was a wish, not a crash.
    """
    run_all(modules)
    flush_files(("__main__",))
    if output is not None:
        output.close()
    if stopped:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(code)
