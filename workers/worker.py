"""The worker process: sets up lifelines, signals and output, then receives, runs and sends.

A worker leads a process group of its own and runs one job at a time. It is forked by the zygote, or started by
the supervisor as a fresh interpreter. Its inbox brings one `WorkerSpec`, then `Run`, `Revoke` and `Finish`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from time import perf_counter
from typing import NoReturn

import msgspec

from workers.forking.resource_trackers import share_tracker
from workers.isolation import signal_handlers
from workers.isolation.captured_output import CapturedOutput
from workers.isolation.exit_functions import (
    drop_inherited_exit_functions,
    exit_fork,
    exit_process,
)
from workers.isolation.interpreter_state import note_builtins
from workers.isolation.output_files import stacks_path
from workers.isolation.peak_memory import Peaks
from workers.isolation.process_state import FULL, QUICK, THOROUGH, ProcessState
from workers.isolation.streams import remember_writing
from workers.isolation.thread_caps import ThreadCaps
from workers.job.current_job import CURRENT, PROCESS, tag_environment
from workers.job.job_reports import Reporter
from workers.process import descriptors
from workers.process.linux import hold_lifeline, kill_group_at_end, prefer_as_oom_victim
from workers.runner import Runner, WaitingJobs, with_output
from workers.script.callables import load
from workers.script.preparation import Preparation
from workers.script.user_modules import USER_CODE, watch_imports
from workers.transport.frames import QueueClosed
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
from workers.transport.worker_queues import WorkerQueues
from workers.values.tracebacks import describe

_decode_spec = msgspec.msgpack.Decoder(WorkerSpec).decode
# Times in seconds.
INBOX_CHECK_AFTER = 0.001  # no job starts if the inbox was last checked longer ago
RESTORE_AFTER = 0.005  # no job starts if the process state was last restored longer ago
RESTORE_ALL_AFTER = 0.02  # after a job this long, what jobs rarely change is restored at once
RESTORE_ALL_EVERY = 0.05  # between short jobs, what they rarely change is restored this often
MIN_CHANGE_SECONDS = 1e-6  # a shorter job has changed nothing in its process
MIN_FORK_SECONDS = 20e-6  # a shorter job has not forked
MIN_CLOSE_SECONDS = 100e-6  # a shorter job has not replaced our descriptors by files of its own
# The state is checked after each of so many short jobs in a row; idle time refills the budget.
MAX_CHECKS_AFTER_SHORT = 100.0
CHECK_REFILL_SECONDS = 0.05  # that refill the budget by one check
MODULES_PER_MESSAGE = 100
NONE = -1  # the number of a descriptor that a fresh interpreter is not given
_RESTORE_DUE_AFTER = RESTORE_AFTER - INBOX_CHECK_AFTER  # the next check may be INBOX_CHECK_AFTER later


class Worker:
    """Receives leases, runs them in order, sends each outcome the moment it exists."""

    def __init__(
        self,
        queues: WorkerQueues,
        runner: Runner,
        output: CapturedOutput,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`variables`: that cap the threads of jobs."""
        self._queues = queues
        self._runner = runner
        self._output = output
        self._process_state = ProcessState()
        self._thread_caps = ThreadCaps(variables or {}, self._process_state)
        self._cpus = 0  # of the jobs that run
        self._peaks = Peaks()
        if (peak := self._peaks.begin()) is not None:
            queues.send(peak)
        if self._process_state.crowding_descriptor >= 0:
            queues.watch_descriptor(self._process_state.crowding_descriptor)
        self._set_probes()
        self._waiting = WaitingJobs()
        self._batches = self._waiting.batches
        self._finishing = False
        self._tainted = False  # a job has changed what cannot be restored
        self._restore_due = False  # the last job has changed something
        self._after_long_job = False  # what jobs rarely change is to be restored as well
        self._verified = 0  # the depth to which a check after the last job has found nothing changed
        self._check_budget = MAX_CHECKS_AFTER_SHORT
        self._restored_at = self._all_restored_at = perf_counter()
        self._job_ran = False  # since the last check
        self._queues_checked = True  # since the last job
        self._pid = os.getpid()

    def serve(self) -> bool:
        """Run jobs until `Finish` has come and nothing is queued.

        Returns True if it ends earlier: a signal has asked this process to stop although the supervisor has
        begun no drain, or a job has made a change that cannot be undone. The supervisor hands out the
        returned leases again.
        """
        batches, fresh_context = self._batches, self._process_state.fresh_context
        gave_back = False
        while True:
            inbox_read = self._between_jobs()
            if not batches:
                if self._finishing:
                    return False
                self._handle(self._queues.receive())
                continue
            if CURRENT.stopping or self._tainted:
                if self._give_back():
                    if gave_back:  # new leases came nevertheless: the supervisor knows of no drain
                        return True
                    gave_back = True
                continue
            fresh_context().run(self._work, inbox_read)

    def _work(self, inbox_read: float) -> None:
        """Run jobs of the first batch until the inbox or the process state has to be checked. `inbox_read`:
        when the inbox was last read."""
        run, send, size, getpid = self._runner.run, self._queues.send, self._output.size, os.getpid
        now, checked_all = inbox_read, False
        self._job_ran = True
        cpus, jobs = self._batches[0]
        if cpus != self._cpus:
            self._cpus = cpus
            self._thread_caps.change(cpus)
            now = perf_counter()
        for lease, attempt, line in jobs:
            outcome = run(lease, attempt, line, now)
            seconds = outcome.seconds
            if seconds <= MIN_CHANGE_SECONDS:
                printed = size(seconds)
            else:
                if seconds > MIN_FORK_SECONDS and getpid() != self._pid:
                    exit_fork(None)  # a child that a job has forked; it has returned as well
                if seconds >= INBOX_CHECK_AFTER or self._check_budget >= 1 or type(outcome) is Failed:
                    checked_all = True
                    printed = 0 if self._check_after_job(seconds) else size(seconds)
                else:
                    self._queues_checked = False
                    if seconds > MIN_CLOSE_SECONDS:
                        self._reopen_queues(seconds)
                    printed = size(seconds)
            if printed:
                outcome = with_output(outcome, self._output.collect(CURRENT.id, attempt))
            send(outcome)
            now = perf_counter()
            if checked_all or CURRENT.stopping or now - inbox_read > INBOX_CHECK_AFTER:
                return
        self._batches.popleft()

    def _check_after_job(self, seconds: float) -> bool:
        """Whether the last job, of `seconds`, has printed nothing and left the common state unchanged. To be
        called before its outcome is sent: if not, its timers are stopped and the queues are checked."""
        now = perf_counter()
        self._after_long_job = seconds >= RESTORE_ALL_AFTER
        fully = seconds >= RESTORE_AFTER or now - self._restored_at > _RESTORE_DUE_AFTER
        depth = THOROUGH if self._is_thorough_due(now) else FULL if fully else QUICK
        if self._output.unused() and self._process_state.unchanged(depth):
            self._verified, self._queues_checked = depth, True
            if fully:
                self._restored_at = now
                if seconds >= RESTORE_AFTER and depth != THOROUGH:
                    self._queues.reopen_if_lost()
            return True
        self._restore_due = True
        self._process_state.stop_timers()
        self._reopen_queues(seconds)
        return False

    def _is_thorough_due(self, now: float) -> bool:
        return (
            self._check_budget >= 1 or self._after_long_job or now - self._all_restored_at > RESTORE_ALL_EVERY
        )

    def _set_probes(self) -> None:
        """Let `ProcessState` check queues and output in the same pass."""
        queues, output = self._queues, self._output
        quick, files = [queues.probe(), *output.probes()], {**queues.files(), **output.files()}
        self._process_state.set_probes(quick, [output.full_probe()], output.thorough_probes(), files)

    def _reopen_queues(self, seconds: float) -> None:
        """Open the queues again if a job of `seconds` has closed or replaced them."""
        self._queues_checked = True
        if seconds < RESTORE_ALL_AFTER:
            self._queues.reopen_unless_pipes()
        else:
            self._queues.reopen_if_lost()

    def _between_jobs(self) -> float:
        """Restore the process state if that is due, and read the inbox. Returns when it was read."""
        verified, self._verified = self._verified, 0
        if 0 < verified < THOROUGH:
            self._job_ran = False
        else:
            now = perf_counter()
            idle = self._job_ran and not self._batches
            if self._restore_due or verified or idle or now - self._restored_at > _RESTORE_DUE_AFTER:
                self._restore(now, thorough=self._is_thorough_due(now), verified=bool(verified))
        if USER_CODE.may_have_grown():
            send_new_imports(self._queues)
        while self._queues.readable():
            self._handle(self._queues.receive())
        self._tainted |= self._queues.crowded  # so many files left open that few can be opened
        return perf_counter()

    def _restore(self, now: float, *, thorough: bool, verified: bool) -> None:
        """Restore the process state. `thorough`: also what costs too much to be checked after each job of a
        millisecond. `verified`: a thorough check has just found all that the system keeps as it was."""
        if not verified:
            if not self._restore_due:
                self._process_state.stop_timers()
            if not self._queues_checked:
                self._reopen_queues(0.0)
            self._output.restore(thorough=thorough)
            self._tainted |= not self._process_state.restore()
        self._queues_checked = False
        if thorough:
            if not verified:
                self._queues.reopen_if_lost()
            self._tainted |= not self._process_state.restore_thoroughly(verified=verified)
            self._all_restored_at = now
            if (peak := self._peaks.check(now)) is not None:
                self._queues.send(peak)
        if self._restore_due:  # descriptors and streams may be others by now
            self._set_probes()
        self._restore_due = self._after_long_job = self._job_ran = False
        regained = (now - self._restored_at) / CHECK_REFILL_SECONDS
        self._check_budget = min(MAX_CHECKS_AFTER_SHORT, max(self._check_budget - 1, 0) + regained)
        self._restored_at = now

    def _handle(self, message: ToWorker) -> None:
        if isinstance(message, Run):
            self._waiting.add(message)
        elif isinstance(message, Revoke):
            if dropped := self._waiting.drop(message.leases):
                self._queues.send(Dropped(dropped))
        elif isinstance(message, Finish):
            self._finishing = True

    def _give_back(self) -> bool:
        """Return the leases that have not started to the supervisor; false if there is none."""
        dropped = self._waiting.drop()
        if dropped:
            self._queues.send(Dropped(dropped))
        return bool(dropped)


def run_worker(queues: WorkerQueues, preparation: Preparation | None) -> NoReturn:
    """Run a worker from its spec to its exit. `preparation`: None if the user's code is imported already."""
    output: CapturedOutput | None = None
    served = stopped = False
    try:
        spec = _decode_spec(queues.receive_payload()).unpacked()
        if spec.ends is not None:
            queues.set_reopen_source(*spec.ends)
        os.register_at_fork(after_in_child=queues.close_in_child)
        try:
            os.makedirs(spec.output_directory, exist_ok=True)
            output = CapturedOutput(spec.output_directory, spec.worker, spec.incarnation, spec.output_limit)
            runner = _load_functions(spec, preparation)
            queues.reopen_if_lost()
            output.collect_setup()
            worker = Worker(queues, runner, output, spec.environment)
        except BaseException as error:
            queues.send(NeverReady(describe(error)))
        else:
            CURRENT.report_to(Reporter(queues))
            send_new_imports(queues)
            queues.send(Ready())
            stopped = worker.serve()
            served = True
    except QueueClosed:
        pass  # the supervisor has gone, or has closed this worker
    except (KeyboardInterrupt, SystemExit):  # a signal between two jobs
        served = stopped = True
    # Objects that the script made belong to the process that imported it.
    modules = [] if preparation is None else [*preparation.modules, "__main__"]
    exit_process(output, 0 if served else 1, modules, stopped=stopped)


def send_new_imports(queues: WorkerQueues) -> None:
    """Report the user's modules that were imported since the last report."""
    take_unreported = USER_CODE.take_unreported()
    for first in range(0, len(take_unreported), MODULES_PER_MESSAGE):
        queues.send(Imported(take_unreported[first : first + MODULES_PER_MESSAGE]))


def run_spawned_worker(
    inbox: int, outbox: int, lifeline: int, second_lifeline: int = NONE, tracker: int = NONE
) -> NoReturn:
    """Entry point of a fresh interpreter, with the numbers of its descriptors. The first frame is the
    `Preparation`."""
    setup_process(lifeline, second_lifeline if second_lifeline != NONE else None)
    if tracker != NONE:
        share_tracker(tracker)
    install_hooks()
    queues = WorkerQueues(descriptors.claim(inbox), descriptors.claim(outbox))
    preparation = msgspec.msgpack.decode(queues.receive_payload(), type=Preparation)
    preparation.apply()
    run_worker(queues, preparation)


def setup_process(
    lifeline: int,
    second_lifeline: int | None = None,
    *,
    script_handlers: signal_handlers.ScriptHandlers | None = None,
) -> None:
    """Set up process group, lifelines and signals, before any code of the user runs.

    lifeline: the supervisor's; its end kills this process, and without a second lifeline its group.
    second_lifeline: held open by supervisor and zygote, opened for this process alone; its end kills the
        process group. If only the supervisor dies, the zygote kills this process's children, except resource
        trackers, which the kernel could not spare.
    script_handlers: the signal handlers of the user's code, if that has run already.
    """
    PROCESS.inside_worker = True
    PROCESS.worker = os.getpid()
    with contextlib.suppress(OSError):  # it leads its group already
        os.setpgid(0, 0)
    if second_lifeline is not None:
        kill_group_at_end(descriptors.claim(second_lifeline))
    held = hold_lifeline(lifeline, alone=second_lifeline is not None)
    if held is not None:
        descriptors.claim(held)
    prefer_as_oom_victim()
    # A Ctrl+C while this process was started went to the whole foreground group, and was blocked since.
    # Only the supervisor passes it on: ignoring the signal drops the pending one.
    at_start = signal_handlers.ignore_at_start([signal.SIGINT])
    signal_handlers.restore_handlers(script_handlers or signal_handlers.ScriptHandlers(at_start, set(), -1))


def install_hooks() -> None:
    """Install hooks on streams, imports and forks, before any code of the user is imported."""
    remember_writing()
    watch_imports()
    signal_handlers.restore_in_children()
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _after_fork_in_child() -> None:
    if PROCESS.worker:  # a job has forked
        drop_inherited_exit_functions()


def _load_functions(spec: WorkerSpec, preparation: Preparation | None) -> Runner:
    """Import the user's code and run `setup()`; raises whatever they raise."""
    if spec.nice:
        with contextlib.suppress(OSError):
            os.nice(spec.nice)
    os.environ.update({**spec.environment, **spec.visible_gpus})
    tag_environment(spec.worker, spec.tag, spec.incarnation, spec.local_worker)
    CURRENT.configure(
        spec.worker,
        spec.seed,
        spec.jobs_directory,
        spec.states_directory,
        gpus=spec.devices,
        local_worker=spec.local_worker,
    )
    if preparation is not None:
        preparation.import_modules()
    function = load(spec.function)
    _reseed()
    signal_handlers.install(
        stacks_path(spec.output_directory, spec.worker, spec.incarnation), runs_jobs=Runner.run.__code__
    )
    if spec.setup is not None:
        CURRENT.context = load(spec.setup)()
        os.environ.update(spec.visible_gpus)  # which are given to the jobs, whatever it has chosen
        note_builtins()
    signal_handlers.keep_faulthandler_setup()
    return Runner(function)


def _reseed() -> None:
    """Forked workers must not repeat each other's random numbers."""
    for name in ("random", "numpy.random"):
        seed = getattr(sys.modules.get(name), "seed", None)
        if callable(seed):  # else it is a module of the script's own
            seed()
