"""One run of an opened experiment: core, loop, view and files wired together, from the first line that
the user sees to the released lock.

The order at the end matters: first what is needed to resume (the last checkpoint), then the final
files, then the lock, last the summary and the user's hooks.

This module is imported when the engine has been started: what it needs is loaded while the zygote
imports the user's code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from supervisor.core.scheduling.progress import ProgressObserver
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.terms.errors import (
    LonghaulError,
    NodesRefused,
    StorageError,
    UsageError,
    WorkersError,
)
from supervisor.core.terms.events import Effects
from supervisor.core.terms.records import Noted, RunEnded
from supervisor.experiment.opening import OpenedExperiment
from supervisor.options.option_parser import names_taken, taken_by_both
from supervisor.options.request import Request
from supervisor.reports.progress_file import ProgressFile
from supervisor.session import user_messages
from supervisor.session.engine_lifecycle import EngineLifecycle, end_survivors
from supervisor.session.outcome import RunOutcome, exit_of, state_word
from supervisor.system.capacity.cpu_limits import shared_cores, usable_cores
from supervisor.system.clock import RunClock, utc_now
from supervisor.system.script_start import hash_order_is_random
from supervisor.system.signals import Signals
from supervisor.views.guarded_view import inside_notebook, open_view
from supervisor.views.supervisor_log import SupervisorLog
from supervisor.views.view import View

if TYPE_CHECKING:
    from supervisor.control.control_server import ControlServer
    from supervisor.core.state.snapshot import FailureSnapshot, RunSnapshot
    from supervisor.reports.report import Report

# What the end of a run needs, imported once the workers are at work.
_NEEDED_LATER = (
    "supervisor.storage.checkpoint.checkpoint_writer",
    "supervisor.reports.report",
    "supervisor.views.summary",
)


class RunSession:
    """One run of an opened experiment, from the first worker to the released lock."""

    def __init__(
        self, request: Request, opened: OpenedExperiment, engines: EngineLifecycle, signals: Signals
    ) -> None:
        self.request = request
        self.opened = opened
        self.engines = engines
        self.signals = signals
        job_bytes = opened.store.plan.size / max(1, len(opened.table))
        self.scheduler = Scheduler(
            opened.table,
            opened.settings,
            engines.slots,
            opened.position,
            job_bytes,
            None if opened.offer is None else opened.offer.totals,
            engines.places,
            None if opened.offer is None else opened.offer.kinds,
        )
        engines.owner_of = self.scheduler.held_files.owner
        history = opened.store.history
        self.scheduler.ledger.converted.update(history.reported_conversions)
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
            with_option_names=request.with_option_names,
        )
        self.log = SupervisorLog(opened.layout.supervisor_log) if request.recording else None
        self.view: View = open_view(
            sys.stderr if request.progress else None,
            show_output=request.show_output,
            output_directory=str(opened.layout.output_directory),
            log=self.log,
        )
        self.progress = ProgressFile(opened.layout) if request.recording else None
        self.control: ControlServer | None = None
        self.retried: list[FailureSnapshot] = []
        self.recent: list[FailureSnapshot] = []

    def play(self) -> RunOutcome:
        """The run, and after it the commands of --on-finish and --on-failure."""
        try:
            outcome = self._play()
        except UsageError:
            raise
        except LonghaulError as error:
            self._run_hooks(RunOutcome(exit_code=error.exit_code), error)
            raise
        self._run_hooks(outcome, None)
        return outcome

    def _play(self) -> RunOutcome:
        error: LonghaulError | None = None
        try:
            self._begin_and_work()
        except NodesRefused as problem:
            # An experiment that could not begin at all is taken back, so that the same command works later.
            error = problem if self.opened.resumed else UsageError(str(problem))
        except LonghaulError as problem:
            error = problem
        except OSError as problem:  # a read that failed: writes have errors of their own
            error = StorageError.with_advice(problem)
        finally:
            outcome = self._end_run(error, crashed=error is None and sys.exc_info()[0] is not None)
        if error is not None:
            raise error
        return outcome

    def _begin_and_work(self) -> None:
        try:
            self._announce()
            effects = self._begin()
            if unfit := user_messages.unfit(self.scheduler):
                self._tell("warning", f"{unfit}: left pending")
            if self.opened.resumed:
                self._end_survivors()
            self._work(effects)
        finally:
            self._stop_listening()
            self.engines.close()

    # ---------------------------------------------------------------------- before

    def _announce(self) -> None:
        request, opened = self.request, self.opened
        self._tell("info", user_messages.opening_line(request, opened, self.engines.slots))
        at_work = user_messages.workers_at_work(opened, self.engines.slots)
        auto = "--workers auto" if request.interactive else 'workers="auto"'
        if self.engines.places is None and (notice := shared_cores(at_work, usable_cores(), auto)):
            self._tell("info", notice)
        over_ssh = not os.environ.keys().isdisjoint(("SSH_CONNECTION", "SSH_TTY"))
        if over_ssh and request.interactive and request.progress:
            from supervisor.session.detach import ssh_warning

            if notice := ssh_warning(os.environ):
                self._tell("warning", notice)
        for level, text in opened.notices:
            self._tell(level, text)
        if not opened.resumed and (yielded := names_taken(request.taken)):
            self.view.message("info", yielded)
        if both := taken_by_both(request.shared):
            self.view.message("warning", both)
        if hash_order_is_random():
            self.view.message(
                "warning",
                "this Python was started with -E or -I and ignores PYTHONHASHSEED: the order of a set of "
                "strings may differ between workers and runs; sort it, or start Python without the option",
            )
        self._tell_store_notices()

    def _tell(self, level: str, text: str) -> None:
        self.view.message(level, self.request.with_option_names(text))

    def _tell_store_notices(self) -> None:
        """Show the notices of the store, about damaged files for example."""
        notices = self.opened.store.notices
        while notices:
            self.view.message("warning", notices.pop(0))

    def _begin(self) -> Effects:
        """Begin the run in the core: fill the queue, and convert the deadline to the run's clock."""
        opened, now = self.opened, self.clock.now()
        deadline = opened.deadline
        return self.scheduler.begin(
            now,
            utc_now(),
            opened.store.next_n,
            mask=opened.mask,
            retry=opened.retry,
            elsewhere=opened.elsewhere,
            drain_at=None if deadline is None else now + deadline.drain_at - time.time(),
            drain_reason="" if deadline is None else deadline.reason,
        )

    def _end_survivors(self) -> None:
        for warning in end_survivors(self.opened, self.engines.tag):
            self.view.message("warning", warning)
        self.clock.resync()

    # -------------------------------------------------------------------- the work

    def _work(self, effects: Effects) -> None:
        opened = self.opened
        if not self.engines.anything_to_do():
            opened.store.append(effects.records)
            return
        engine = self.engines.engine()
        from supervisor.session.loop import Loop

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
            with_option_names=self.request.with_option_names,
            resume_hint=user_messages.resume_hint(self.request, opened),
            output_directory=str(opened.layout.output_directory),
            control=self.control,
            deferred=self._deferred(),
        )
        loop.run(effects)
        self.retried = list(loop.retried_crashes)
        self.recent = list(loop.recent_failures)
        if self.scheduler.dispatcher.failure and not self.scheduler.draining:
            failure = self.scheduler.dispatcher.failure
            raise WorkersError(user_messages.no_workers(self.request, opened, failure))

    def _deferred(self) -> list[Callable[[], object]]:
        """What this process will need, and has time for once the workers are at work."""
        begin_log = [self.log.begin] if self.log is not None else []
        return [*begin_log, *(partial(import_module, name) for name in _NEEDED_LATER)]

    def _listen(self) -> ControlServer | None:
        """The server of `longhaul ctl`; None if it cannot be reached: the run continues without it."""
        from supervisor.control.control_server import ControlServer
        from supervisor.control.control_socket import NoControlSocket

        if self.progress is None:  # the progress file says where the socket is
            return None
        try:
            server = ControlServer.open(self.opened.layout.lock)
        except NoControlSocket as problem:
            self.view.message("warning", f"`longhaul ctl` cannot control this run: {problem}")
            return None
        self.progress.control = server.path
        return server

    def _stop_listening(self) -> None:
        if self.control is not None:
            self.control.close()
        if self.progress is not None:
            self.progress.control = None

    # ----------------------------------------------------------------------- after

    def _end_run(self, error: LonghaulError | None, *, crashed: bool) -> RunOutcome:
        """Checkpoint, final files, lock, summary, in this order."""
        from supervisor.storage.journal.foreign_writes import RecordsLost

        opened, scheduler = self.opened, self.scheduler
        if isinstance(error, UsageError):
            return self._take_back(error)
        exit_code, signum = exit_of(scheduler, opened, error)
        self.observer.state = state_word(scheduler, opened, error)
        snapshot = self.observer.snapshot(self.clock.now())
        report: Report | None = None
        with contextlib.ExitStack() as stack:
            # A terminal may block: the lock is released before the summary is written to it.
            stack.callback(lambda: self._close_views(snapshot, report))
            stack.callback(opened.store.release)
            self._record_end(exit_code, signum, snapshot)
            if self.progress is not None:
                self.progress.write(snapshot, self.recent)
            if not crashed and not isinstance(error, RecordsLost):
                report = self._write_final_files()
            if not self.request.recording:
                self._remove_unrecorded()
        return RunOutcome(exit_code, signum, report, opened.options if report is not None else {})

    def _take_back(self, error: UsageError) -> RunOutcome:
        """Nothing was run, and nothing stays of the experiment."""
        from supervisor.storage.files.removal import remove_new

        self.view.close(self.observer.snapshot(self.clock.now()))
        if self.log is not None:
            self.log.close()
        self.opened.store.release()
        remove_new(self.opened.layout)
        return RunOutcome(error.exit_code)

    def _record_end(self, exit_code: int, signum: int | None, snapshot: RunSnapshot) -> None:
        """The last record and the last checkpoint."""
        opened = self.opened
        ended = RunEnded(
            run=opened.position.run,
            state=self.observer.state,
            at=utc_now(),
            exit_code=exit_code,
            signal=signum,
            wall_seconds=round(snapshot.elapsed, 3),
        )
        opened.store.append([*self._new_conversions(), ended])
        try:
            opened.store.save(self.scheduler.position())
        except StorageError:  # the error is shown; the summary must not say that the run has finished
            snapshot.state = "stopped"
            raise

    def _new_conversions(self) -> list[Noted]:
        """A record of the kinds of converted values that were reported in this run: the next run does not
        report them again."""
        new = self.scheduler.ledger.converted.difference(self.opened.store.history.reported_conversions)
        return [Noted("converted", utc_now(), {"kinds": sorted(new)})] if new else []

    def _write_final_files(self) -> Report:
        from supervisor.reports.final_files import write_reports

        return write_reports(self.opened.store, state=self.observer.state)

    def _remove_unrecorded(self) -> None:
        """With --no-resume, only the final files stay, and what jobs have printed."""
        self.opened.store.states.drop_all()
        with contextlib.suppress(OSError):  # not empty
            self.opened.layout.output_directory.rmdir()

    def _close_views(self, snapshot: RunSnapshot, report: Report | None) -> None:
        self._tell_store_notices()
        self.view.close(snapshot)
        if self.request.progress and not inside_notebook():
            user_messages.print_summary(
                self.request,
                self.opened,
                snapshot,
                report,
                self.retried,
                given_up=lambda: not {signal.SIGINT, signal.SIGTERM}.isdisjoint(self.signals.read()),
                events=user_messages.events_of(self.opened, self.scheduler),
            )
        if self.log is not None:
            self.log.close()

    def _run_hooks(self, outcome: RunOutcome, error: LonghaulError | None) -> None:
        settings = self.opened.settings
        if settings.on_finish is not None or settings.on_failure is not None:
            from supervisor.session.hooks import FinishedRun, run_hooks

            ended = FinishedRun(self.observer.state, outcome, error, self.scheduler.drain)
            run_hooks(self.request, self.opened, ended, self.signals)
