"""One start of the program: wires plan, records, engine, loop and views together.

`execute` opens the experiment, plays one run of it and closes it, whatever happens in
between. The order at the end matters: first what is needed to go on (the last checkpoint),
then what is nice to have (final files, summary), last the lock.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervisor import closing
from supervisor.clock import RunClock, wall_time
from supervisor.control.place import NoPlace
from supervisor.control.server import ControlServer
from supervisor.core.deaths import signal_name
from supervisor.core.errors import (
    LonghaulError,
    StorageError,
    UsageError,
    WorkersError,
)
from supervisor.core.jobs import INTERRUPTED, PENDING
from supervisor.core.observer import Observer
from supervisor.core.record_types import RunEnded
from supervisor.core.scheduler import Scheduler
from supervisor.core.snapshot import FailureSnapshot
from supervisor.cores import thread_caps, usable_cores
from supervisor.engines.local import LocalEngine
from supervisor.loop import Loop
from supervisor.opening import Opened, open_experiment, output_directory
from supervisor.outcome import Outcome
from supervisor.records.progress import ProgressFile
from supervisor.records.reports import write_reports
from supervisor.request import Request
from supervisor.signals import Signals, Stopped
from supervisor.survivors import end_survivors
from supervisor.views.log import Log
from supervisor.views.notebook import inside_notebook
from supervisor.views.opening import open_view
from supervisor.views.outlet import say
from supervisor.views.protocol import View
from workers.callables import CannotSend, describe
from workers.messages import FunctionSpec, WorkerSpec


def execute(request: Request) -> Outcome:
    """Do what the user asks for. Raises LonghaulError for what the user has to know."""
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
        outcome = _open_and_play(request, directory, signals, functions)
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
    request: Request, directory: Path, signals: Signals, functions: tuple[FunctionSpec, FunctionSpec | None]
) -> Outcome:
    try:
        opened = open_experiment(request, directory, signals)
    except Stopped as stop:
        if request.progress:
            say(sys.stderr, f"{signal_name(stop.signum)}: stopped before anything was started")
        return Outcome(exit_code=128 + stop.signum, signal=stop.signum)
    try:
        if request.started_by is not None:
            from supervisor.detaching import leave_terminal

            leave_terminal(request.started_by, opened.layout)
        return _Run(request, opened, signals, functions).play()
    except OSError as problem:  # on the way out: while the final files are made
        raise StorageError(f"{problem}. What was recorded is safe; see to it, then resume.") from problem


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
        opened: Opened,
        signals: Signals,
        functions: tuple[FunctionSpec, FunctionSpec | None],
    ) -> None:
        self.request = request
        self.opened = opened
        self.signals = signals
        self.functions = functions
        wanted = opened.settings.workers
        self.slots = usable_cores() if wanted == "auto" else int(wanted)
        self.mark = f"{opened.layout.experiment_id}:{opened.store.uuid}"
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
        self.view = self._open_view()
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
        opened, store = self.opened, self.opened.store
        error: LonghaulError | None = None
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
                for warning in end_survivors(opened, self.mark):
                    self.view.tell("warning", warning)
                self.clock.tick(math.inf)  # that took its time, but nothing stood still
            self._work(effects)
        except LonghaulError as problem:
            error = problem
        except OSError as problem:  # a read that failed: writes have errors of their own
            error = StorageError(f"{problem}. What was recorded is safe; see to the disk, then resume.")
        finally:
            outcome = self._finish(error, crashed=error is None and sys.exc_info()[0] is not None)
        if error is not None:
            raise error
        return outcome

    # ---------------------------------------------------------------------- before

    def _open_view(self) -> View:
        return open_view(
            sys.stderr if self.request.progress else None,
            show_output=self.request.show_output,
            output_directory=str(self.opened.layout.output_directory),
            log=self.log,
        )

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
        engine = LocalEngine(self._spec, start_method=opened.settings.start_method)
        try:
            engine.start()
            self.control = self._listen()
            loop = Loop(
                scheduler=self.scheduler,
                store=opened.store,
                plan=opened.store.plan,
                engine=engine,
                signals=self.signals,
                view=self.view,
                observer=self.observer,
                progress=self.progress,
                clock=self.clock,
                resume_hint=closing.resume_hint(self.request, opened),
                output_directory=str(opened.layout.output_directory),
                control=self.control,
            )
            loop.run(effects)
            self.retried = list(loop.retried_crashes)
            self.recent = list(loop.recent_failures)
        finally:
            self._stop_listening()
            engine.close()
        if self.scheduler.dispatcher.failure and not self.scheduler.draining:
            failure = self.scheduler.dispatcher.failure
            raise WorkersError(closing.no_workers(self.request, opened, failure))

    def _listen(self) -> ControlServer | None:
        """For `longhaul ctl`; without it the run goes on all the same."""
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
            environment=thread_caps(self.slots),
        )

    # ----------------------------------------------------------------------- after

    def _finish(self, error: LonghaulError | None, *, crashed: bool) -> Outcome:
        """Checkpoint, final files, summary, lock, in this order."""
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
