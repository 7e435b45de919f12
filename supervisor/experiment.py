"""One start of the program: wires plan, records, engine, loop and views together.

`execute` opens the experiment, plays one run of it and closes it, whatever happens in
between. The order at the end matters: first what is needed to go on (the last checkpoint),
then what is nice to have (final files, summary), last the lock.

The order at the beginning is one of time: as soon as it is certain that there is something
to run, the zygote is told to import the user's code, and what else this process needs is
imported meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor import closing
from supervisor.clock import RunClock, wall_time
from supervisor.core.errors import (
    LonghaulError,
    StorageError,
    UsageError,
    WorkersError,
)
from supervisor.core.jobs import INTERRUPTED, PENDING
from supervisor.cores import thread_caps, usable_cores
from supervisor.engines.forerunner import Forerunner
from supervisor.engines.local import LocalEngine
from supervisor.opening import Opened, open_experiment, output_directory, start_run
from supervisor.outcome import Outcome
from supervisor.request import Request
from supervisor.signals import Signals, Stopped
from workers.callables import CannotSend, describe
from workers.messages import FunctionSpec, WorkerSpec

if TYPE_CHECKING:
    from supervisor.control.server import ControlServer
    from supervisor.core.snapshot import FailureSnapshot
    from supervisor.views.protocol import View


def execute(request: Request, forerunner: Forerunner | None = None) -> Outcome:
    """Do what the user asks for; a `forerunner` may save time. Raises LonghaulError for what the user has to know."""
    directory = output_directory(request)
    if request.list_checkpoints:
        from supervisor.listing import list_checkpoints

        list_checkpoints(directory, closing.resume_with(request, "ID"))
        return Outcome()
    if request.debug is not None:
        from supervisor.debugging import debug

        return debug(request)
    functions = _functions(request)
    with Signals() as signals, _rare_collections():
        outcome = _open_and_play(request, directory, signals, functions, forerunner)
        if outcome.signal is not None and request.interactive:
            signals.keep()
    # Outside the run's own signal handling: Ctrl+C stops the user's code as ever.
    if request.finish is not None and outcome.signal is None:
        request.finish(outcome.report)
    return outcome


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Our objects hold no cycles worth looking for every 700 allocations, and there may be a
    million of them: at full speed the search took a tenth of the time."""
    before = gc.get_threshold()
    if before[0]:  # else the user has switched it off
        gc.set_threshold(max(before[0], 50_000), max(before[1], 20), before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _open_and_play(
    request: Request,
    directory: Path,
    signals: Signals,
    functions: tuple[FunctionSpec, FunctionSpec | None],
    forerunner: Forerunner | None,
) -> Outcome:
    run = _Run(request, signals, functions, forerunner)
    try:
        opened = open_experiment(request, directory, signals)
    except Stopped as stop:
        if request.progress:
            from supervisor.core.deaths import signal_name
            from supervisor.views.outlet import say

            say(sys.stderr, f"{signal_name(stop.signum)}: stopped before anything was started")
        return Outcome(exit_code=128 + stop.signum, signal=stop.signum)
    try:
        run.begin(opened)
        start_run(request, opened)
    except BaseException:  # no thread for the syncs: the caller may try again in this process
        run.close_engine()
        opened.store.release()
        raise
    try:
        if request.started_by is not None:
            from supervisor.detaching import leave_terminal

            leave_terminal(request.started_by, opened.layout)
        run.prepare()
        return run.play()
    except OSError as problem:  # on the way out: while the final files are made
        raise StorageError(f"{problem}. What was recorded is safe; see to it, then resume.") from problem
    finally:
        run.close_engine()


def _functions(request: Request) -> tuple[FunctionSpec, FunctionSpec | None]:
    """Where workers find the user's functions; refused before anything is on disk."""
    try:
        function = describe(request.function)
        return function, None if request.setup is None else describe(request.setup)
    except CannotSend as error:
        raise UsageError(str(error)) from None


class _Run:
    """One run of an opened experiment, from the first worker to the released lock."""

    def __init__(
        self,
        request: Request,
        signals: Signals,
        functions: tuple[FunctionSpec, FunctionSpec | None],
        forerunner: Forerunner | None,
    ) -> None:
        self.request = request
        self.signals = signals
        self.functions = functions
        self.forerunner = forerunner
        self.engine: LocalEngine | None = None
        self.engine_failure: LonghaulError | OSError | None = None

    def begin(self, opened: Opened) -> None:
        """It is certain that there is something to run; the first record is not written yet.

        Where workers of an earlier run may be left, these have to be ended first.
        """
        self.opened = opened
        wanted = opened.settings.workers
        self.slots = usable_cores() if wanted == "auto" else int(wanted)
        self.caps = thread_caps(self.slots)
        self.mark = f"{opened.layout.experiment_id}:{opened.store.uuid}"
        if not opened.resumed:
            self._start_engine()

    def prepare(self) -> None:
        """All else that a run needs, while the zygote imports the user's code."""
        from supervisor.core.observer import Observer
        from supervisor.core.scheduler import Scheduler
        from supervisor.records.progress import ProgressFile
        from supervisor.views.log import Log
        from supervisor.views.opening import open_view

        request, opened = self.request, self.opened
        job_bytes = opened.store.plan.size / max(1, len(opened.table))
        self.scheduler = Scheduler(opened.table, opened.settings, self.slots, opened.position, job_bytes)
        self.clock = RunClock()
        self.observer = Observer(
            self.scheduler,
            opened.store.statistics,
            experiment_id=opened.layout.experiment_id,
            name=request.name,
            directory=str(opened.layout.directory),
            now=self.clock.now(),
            unselected=opened.unselected,
        )
        self.log = Log(opened.layout.supervisor_log) if request.recording else None
        self.view: View = open_view(
            sys.stderr if request.progress else None,
            show_output=request.show_output,
            output_directory=str(opened.layout.output_directory),
            log=self.log,
        )
        self.control: ControlServer | None = None
        self.retried: list[FailureSnapshot] = []
        self.recent: list[FailureSnapshot] = []
        self.progress = ProgressFile(opened.layout) if request.recording else None

    def play(self) -> Outcome:
        """The run, and then what the user wants to be run after it."""
        try:
            outcome = self._play()
        except LonghaulError as error:
            self._run_hooks(Outcome(exit_code=error.exit_code), error)
            raise
        self._run_hooks(outcome, None)
        return outcome

    def _run_hooks(self, outcome: Outcome, error: LonghaulError | None) -> None:
        settings = self.opened.settings
        if settings.on_finish is not None or settings.on_failure is not None:
            from supervisor.hooks import Ended, run_hooks

            ended = Ended(self.observer.state, outcome, error, self.scheduler.drain)
            run_hooks(self.request, self.opened, ended, self.signals)

    def _play(self) -> Outcome:
        error: LonghaulError | None = None
        try:
            self._begin_and_work()
        except LonghaulError as problem:
            error = problem
        except OSError as problem:  # a read that failed: writes have errors of their own
            error = StorageError(f"{problem}. What was recorded is safe; see to the disk, then resume.")
        finally:
            outcome = self._finish(error, crashed=error is None and sys.exc_info()[0] is not None)
        if error is not None:
            raise error
        return outcome

    def _begin_and_work(self) -> None:
        opened, store = self.opened, self.opened.store
        try:
            self._announce()
            deadline, now = opened.deadline, self.clock.now()
            effects = self.scheduler.begin(
                now,
                wall_time(),
                store.next_n,
                selected=opened.selected,
                retry=opened.retry,
                drain_at=None if deadline is None else now + deadline.drain_at - time.time(),
                drain_reason="" if deadline is None else deadline.reason,
            )
            if opened.resumed:
                from supervisor.survivors import end_survivors

                for warning in end_survivors(opened, self.mark):
                    self.view.tell("warning", warning)
                self.clock.tick(math.inf)  # that took its time, but nothing stood still
            self._work(effects)
        finally:
            self._stop_listening()
            self.close_engine()

    # ---------------------------------------------------------------------- before

    def _announce(self) -> None:
        opened = self.opened
        self.view.tell("info", closing.opening_line(self.request, opened, self.slots))
        over_ssh = not os.environ.keys().isdisjoint(("SSH_CONNECTION", "SSH_TTY"))
        if over_ssh and self.request.interactive and self.request.progress:
            from supervisor.detaching import terminal_may_go

            if notice := terminal_may_go(os.environ):
                self.view.tell("warning", notice)
        for level, text in opened.notices:
            self.view.tell(level, text)
        self._tell_notices()

    def _tell_notices(self) -> None:
        """What the store has done about damage; nobody may miss that."""
        notices = self.opened.store.notices
        while notices:
            self.view.tell("warning", notices.pop(0))

    # -------------------------------------------------------------------- the work

    def _work(self, effects: Any) -> None:
        opened = self.opened
        if not self._anything_to_do():
            self.opened.store.append(effects.records)
            return
        self._start_engine()
        if self.engine_failure is not None:
            raise self.engine_failure
        from supervisor.loop import Loop

        assert self.engine is not None
        self.control = self._listen()
        loop = Loop(
            scheduler=self.scheduler,
            store=opened.store,
            plan=opened.store.plan,
            engine=self.engine,
            signals=self.signals,
            view=self.view,
            observer=self.observer,
            progress=self.progress,
            clock=self.clock,
            resume_hint=closing.resume_hint(self.request, opened),
            output_directory=str(opened.layout.output_directory),
            control=self.control,
            at_leisure=self._at_leisure(),
        )
        loop.run(effects)
        self.retried = list(loop.retried_crashes)
        self.recent = list(loop.recent_failures)
        if self.scheduler.dispatcher.failure and not self.scheduler.draining:
            failure = self.scheduler.dispatcher.failure
            raise WorkersError(closing.no_workers(self.request, opened, failure))

    def _start_engine(self) -> None:
        """Once; if that fails, it is said when the run has been announced."""
        if self.engine is not None or self.engine_failure is not None or not self._anything_to_do():
            return
        method = self.opened.settings.start_method
        try:
            self.engine = LocalEngine(self._spec, start_method=method, forerunner=self.forerunner)
            self.engine.start()
        except (LonghaulError, OSError) as problem:
            self.engine_failure = problem

    def close_engine(self) -> None:
        """End all processes of this run; does nothing the second time."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _at_leisure(self) -> list[Callable[[], object]]:
        """What this process will need, and has time for once the workers are at work."""
        begin_log = [self.log.begin] if self.log is not None else []
        later = (
            "supervisor.records.checkpoint_writer",
            "supervisor.records.reports",
            "supervisor.views.summary",
        )
        return [*begin_log, *(partial(import_module, name) for name in later)]

    def _listen(self) -> ControlServer | None:
        """For `longhaul ctl`; without it the run goes on all the same."""
        from supervisor.control.place import NoPlace
        from supervisor.control.server import ControlServer

        if self.progress is None:  # nobody could find the socket
            return None
        try:
            server = ControlServer.open(self.opened.layout.lock)
        except NoPlace as problem:
            self.view.tell("warning", f"`longhaul ctl` cannot steer this run: {problem}")
            return None
        self.progress.control = server.path
        return server

    def _stop_listening(self) -> None:
        if self.control is not None:
            self.control.close()
        if self.progress is not None:
            self.progress.control = None

    def _anything_to_do(self) -> bool:
        table, selected = self.opened.table, self.opened.selected
        return bool(self.opened.retry) or any(
            state in (PENDING, INTERRUPTED) and chosen
            for state, chosen in zip(table.state, selected, strict=True)
        )

    def _spec(self, worker: int, incarnation: int) -> WorkerSpec:
        layout, settings = self.opened.layout, self.opened.settings
        function, setup = self.functions
        return WorkerSpec(
            experiment_id=layout.experiment_id,
            mark=self.mark,
            worker=worker,
            incarnation=incarnation,
            function=function,
            setup=setup,
            seed=settings.seed,
            output_directory=str(layout.output_directory),
            jobs_directory=str(layout.jobs_directory),
            states_directory=str(layout.states_directory),
            nice=settings.nice,
            environment=self.caps,
        )

    # ----------------------------------------------------------------------- after

    def _finish(self, error: LonghaulError | None, *, crashed: bool) -> Outcome:
        """Checkpoint, final files, summary, lock, in this order."""
        from supervisor.core.record_types import RunEnded
        from supervisor.records.reports import write_reports

        opened, scheduler = self.opened, self.scheduler
        outcome = closing.outcome_of(scheduler, opened, error)
        self.observer.state = closing.state_word(scheduler, opened, error)
        snapshot = self.observer.snapshot(self.clock.now())
        with contextlib.ExitStack() as stack:
            # A terminal may be in no hurry to take the summary: the lock is free by then.
            stack.callback(self._close_views, snapshot, outcome)
            stack.callback(opened.store.release)
            ended = RunEnded(
                run=opened.position.run,
                state=self.observer.state,
                at=wall_time(),
                exit_code=outcome.exit_code,
                signal=outcome.signal,
                wall_seconds=round(snapshot.elapsed, 3),
            )
            opened.store.append([ended])
            opened.store.save(scheduler.position())
            if self.progress is not None:
                self.progress.write(snapshot, self.recent)
            if not crashed:
                outcome.report = write_reports(opened.store, state=self.observer.state)
            if not self.request.recording:
                opened.store.states.drop_all()
                with contextlib.suppress(OSError):  # not empty if a job has printed something
                    opened.layout.output_directory.rmdir()
        return outcome

    def _close_views(self, snapshot: Any, outcome: Outcome) -> None:
        from supervisor.views.opening import inside_notebook

        self._tell_notices()
        self.view.close(snapshot)
        if self.request.progress and not inside_notebook():
            closing.print_summary(
                self.request,
                self.opened,
                snapshot,
                outcome.report,
                self.retried,
                given_up=lambda: not {signal.SIGINT, signal.SIGTERM}.isdisjoint(self.signals.read()),
                events=closing.events_of(self.opened, self.scheduler),
            )
        if self.log is not None:
            self.log.close()
