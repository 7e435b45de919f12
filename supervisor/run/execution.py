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

from supervisor.core.terms.errors import LonghaulError, RaisedByScript, StorageError, WorkersError
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.experiment.opening import OpenedExperiment, open_experiment, start_run
from supervisor.options.option_parser import names_taken
from supervisor.options.request import Request, output_directory
from supervisor.options.script_options import namespace, takes
from supervisor.run import outcome, user_messages
from supervisor.run.engine_lifecycle import EngineLifecycle
from supervisor.run.outcome import Outcome
from supervisor.system.clock import RunClock, utc_now
from supervisor.system.cpu_limits import shared_cores, usable_cores
from supervisor.system.script_start import order_is_chance
from supervisor.system.signals import Signals, Stopped

if TYPE_CHECKING:
    from supervisor.control.control_server import ControlServer
    from supervisor.core.state.snapshot import FailureSnapshot
    from supervisor.core.terms.records import Noted
    from supervisor.views.view import View


def execute(request: Request, forerunner: PrestartedZygote | None = None) -> Outcome:
    """Do what the user asks for; a `forerunner` may save time. Raises LonghaulError for what the user has to know."""
    directory = output_directory(request)
    if request.list_checkpoints:
        from supervisor.experiment.experiment_status import list_checkpoints

        list_checkpoints(directory, user_messages.resume_with(request, "ID"))
        return Outcome()
    if request.debug is not None:
        from supervisor.run.debug_run import debug

        return debug(request)
    workforce = EngineLifecycle(request, forerunner)
    with Signals() as signals, _rare_collections():
        outcome = _open_and_play(request, directory, signals, workforce)
        if outcome.signal is not None and request.interactive:
            signals.keep()
    # Outside the run's own signal handling: Ctrl+C stops the user's code as ever.
    if request.finish is not None and outcome.signal is None:
        own = (namespace(request.parser, outcome.options),) if takes(request.finish, 2) else ()
        try:
            request.finish(outcome.report, *own)
        except LonghaulError:
            raise
        except Exception as error:
            raise RaisedByScript(error, "finish()", user_messages.after_finish(request, outcome)) from None
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
    request: Request, directory: Path, signals: Signals, workforce: EngineLifecycle
) -> Outcome:
    try:
        opened = open_experiment(request, directory, signals)
    except Stopped as stop:
        if request.progress:
            from supervisor.core.terms.wording import signal_name
            from supervisor.views.console import say

            say(sys.stderr, f"{signal_name(stop.signum)}: stopped before anything was started")
        return Outcome(exit_code=128 + stop.signum, signal=stop.signum)
    try:
        workforce.begin(opened)
        start_run(request, opened)
    except BaseException:  # no thread for the syncs: the caller may try again in this process
        workforce.close()
        opened.store.release()
        raise
    try:
        if request.started_by is not None:
            from supervisor.run.detach import leave_terminal

            leave_terminal(request.started_by, opened.layout)
        return _Run(request, opened, signals, workforce).play()
    except OSError as problem:  # on the way out: while the final files are made
        raise StorageError(f"{problem}. What was recorded is safe; see to it, then resume.") from problem
    finally:
        workforce.close()


class _Run:
    """One run of an opened experiment, from the first worker to the released lock."""

    def __init__(
        self, request: Request, opened: OpenedExperiment, signals: Signals, workforce: EngineLifecycle
    ) -> None:
        # Only now: the zygote imports the user's code meanwhile.
        from supervisor.core.scheduling.progress import ProgressObserver
        from supervisor.core.scheduling.scheduler import Scheduler
        from supervisor.reports.progress_file import ProgressFile
        from supervisor.views.guarded_view import open_view
        from supervisor.views.supervisor_log import Log

        self.request = request
        self.opened = opened
        self.signals = signals
        self.workforce = workforce
        job_bytes = opened.store.plan.size / max(1, len(opened.table))
        self.scheduler = Scheduler(
            opened.table, opened.settings, self.workforce.slots, opened.position, job_bytes
        )
        self.scheduler.ledger.converted.update(opened.store.history.reported_conversions)
        history = opened.store.history
        self.scheduler.code_seen.know(history.modules(), history.module_texts())
        self.clock = RunClock()
        self.observer = ProgressObserver(
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
            from supervisor.run.hooks import FinishedRun, run_hooks

            ended = FinishedRun(self.observer.state, outcome, error, self.scheduler.drain)
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
                utc_now(),
                store.next_n,
                selected=opened.selected,
                retry=opened.retry,
                drain_at=None if deadline is None else now + deadline.drain_at - time.time(),
                drain_reason="" if deadline is None else deadline.reason,
            )
            if opened.resumed:
                from supervisor.run.engine_lifecycle import end_survivors

                for warning in end_survivors(opened, self.workforce.mark):
                    self.view.tell("warning", warning)
                self.clock.tick(math.inf)  # that took its time, but nothing stood still
            self._work(effects)
        finally:
            self._stop_listening()
            self.workforce.close()

    # ---------------------------------------------------------------------- before

    def _announce(self) -> None:
        opened = self.opened
        self._tell("info", user_messages.opening_line(self.request, opened, self.workforce.slots))
        at_work = user_messages.workers_at_work(opened, self.workforce.slots)
        auto = "--workers auto" if self.request.interactive else 'workers="auto"'
        if notice := shared_cores(at_work, usable_cores(), auto):
            self._tell("info", notice)
        over_ssh = not os.environ.keys().isdisjoint(("SSH_CONNECTION", "SSH_TTY"))
        if over_ssh and self.request.interactive and self.request.progress:
            from supervisor.run.detach import terminal_may_go

            if notice := terminal_may_go(os.environ):
                self._tell("warning", notice)
        for level, text in opened.notices:
            self._tell(level, text)
        if not opened.resumed and (yielded := names_taken(self.request.taken)):
            self.view.tell("info", yielded)
        if order_is_chance():
            self.view.tell(
                "warning",
                "this Python was started with -E or -I and reads no PYTHONHASHSEED, so that what is made from a "
                "set of texts may have another order in each worker and each run: sort it, or leave the option out",
            )
        self._tell_notices()

    def _tell(self, level: str, text: str) -> None:
        self.view.tell(level, self.request.in_its_words(text))

    def _tell_notices(self) -> None:
        """What the store has done about damage; nobody may miss that."""
        notices = self.opened.store.notices
        while notices:
            self.view.tell("warning", notices.pop(0))

    # -------------------------------------------------------------------- the work

    def _work(self, effects: Any) -> None:
        opened = self.opened
        if not self.workforce.anything_to_do():
            self.opened.store.append(effects.records)
            return
        engine = self.workforce.engine()
        from supervisor.run.loop import Loop

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
            words=self.request.in_its_words,
            resume_hint=user_messages.resume_hint(self.request, opened),
            output_directory=str(opened.layout.output_directory),
            control=self.control,
            at_leisure=self._at_leisure(),
        )
        loop.run(effects)
        self.retried = list(loop.retried_crashes)
        self.recent = list(loop.recent_failures)
        if self.scheduler.dispatcher.failure and not self.scheduler.draining:
            failure = self.scheduler.dispatcher.failure
            raise WorkersError(user_messages.no_workers(self.request, opened, failure))

    def _at_leisure(self) -> list[Callable[[], object]]:
        """What this process will need, and has time for once the workers are at work."""
        begin_log = [self.log.begin] if self.log is not None else []
        later = (
            "supervisor.storage.checkpoint.checkpoint_writer",
            "supervisor.reports.report",
            "supervisor.views.summary",
        )
        return [*begin_log, *(partial(import_module, name) for name in later)]

    def _listen(self) -> ControlServer | None:
        """For `longhaul ctl`; without it the run goes on all the same."""
        from supervisor.control.control_server import ControlServer
        from supervisor.control.control_socket import NoPlace

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

    # ----------------------------------------------------------------------- after

    def _finish(self, error: LonghaulError | None, *, crashed: bool) -> Outcome:
        """Checkpoint, final files, summary, lock, in this order."""
        from supervisor.core.terms.records import RunEnded
        from supervisor.reports.final_files import write_reports
        from supervisor.storage.journal.foreign_writes import RecordsLost

        opened, scheduler = self.opened, self.scheduler
        ended_as = outcome.outcome_of(scheduler, opened, error)
        self.observer.state = outcome.state_word(scheduler, opened, error)
        snapshot = self.observer.snapshot(self.clock.now())
        with contextlib.ExitStack() as stack:
            # A terminal may be in no hurry to take the summary: the lock is free by then.
            stack.callback(self._close_views, snapshot, ended_as)
            stack.callback(opened.store.release)
            ended = RunEnded(
                run=opened.position.run,
                state=self.observer.state,
                at=utc_now(),
                exit_code=ended_as.exit_code,
                signal=ended_as.signal,
                wall_seconds=round(snapshot.elapsed, 3),
            )
            opened.store.append([*self._told(), ended])
            try:
                opened.store.save(scheduler.position())
            except StorageError:  # it is told, and nobody is told that the run has finished
                snapshot.state = "stopped"
                raise
            if self.progress is not None:
                self.progress.write(snapshot, self.recent)
            if not crashed and not isinstance(error, RecordsLost):
                ended_as.report = write_reports(opened.store, state=self.observer.state)
                ended_as.options = opened.options
            if not self.request.recording:
                opened.store.states.drop_all()
                with contextlib.suppress(OSError):  # not empty if a job has printed something
                    opened.layout.output_directory.rmdir()
        return ended_as

    def _told(self) -> list[Noted]:
        """For the next run: it need not say again which kinds of values JSON does not have."""
        from supervisor.core.terms.records import Noted

        new = self.scheduler.ledger.converted.difference(self.opened.store.history.reported_conversions)
        return [Noted("converted", utc_now(), {"kinds": sorted(new)})] if new else []

    def _close_views(self, snapshot: Any, ended_as: Outcome) -> None:
        from supervisor.views.guarded_view import inside_notebook

        self._tell_notices()
        self.view.close(snapshot)
        if self.request.progress and not inside_notebook():
            user_messages.print_summary(
                self.request,
                self.opened,
                snapshot,
                ended_as.report,
                self.retried,
                given_up=lambda: not {signal.SIGINT, signal.SIGTERM}.isdisjoint(self.signals.read()),
                events=user_messages.events_of(self.opened, self.scheduler),
            )
        if self.log is not None:
            self.log.close()
