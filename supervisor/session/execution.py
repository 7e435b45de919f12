"""One start of the program, in the order in which it happens.

`execute` opens the experiment, starts the engine, plays one run and closes the experiment, whatever
happens in between.

The order of the first steps saves time: as soon as it is certain that there is something to run, the zygote
imports the user's code, and meanwhile this process imports its other modules.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from supervisor.core.terms.errors import LonghaulError, RaisedByScript, StorageError
from supervisor.engines.zygote_process import PrestartedZygote
from supervisor.experiment.opening import OpenedExperiment, open_experiment, start_run
from supervisor.options.request import Request
from supervisor.options.script_options import namespace, takes
from supervisor.session import user_messages
from supervisor.session.engine_lifecycle import EngineLifecycle
from supervisor.session.outcome import RunOutcome
from supervisor.system.garbage_collection import rarer_collections
from supervisor.system.signals import Signals, Stopped

if TYPE_CHECKING:
    from supervisor.nodes.ray.driver_process import DriverProcess


def execute(request: Request, prestarted: PrestartedZygote | DriverProcess | None = None) -> RunOutcome:
    """Play the run that the user asks for; what was `prestarted` for it saves time. Raises LonghaulError."""
    if request.debug is not None:
        from supervisor.session.debug_run import debug

        return debug(request)
    engines = EngineLifecycle(request, prestarted)
    # There may be a million objects, and nearly none is in a reference cycle. At its default rate (every 700
    # allocations) garbage collection took a tenth of the time.
    with Signals() as signals, rarer_collections(50_000, 20):
        outcome = _open_and_run(request, engines, signals)
        if outcome.signal is not None and request.interactive:
            signals.keep()
    # Outside the run's own signal handling: Ctrl+C stops the user's code as usual.
    _call_finish(request, outcome)
    return outcome


def _open_and_run(request: Request, engines: EngineLifecycle, signals: Signals) -> RunOutcome:
    try:
        opened = open_experiment(request, signals, engines.machine_for)
    except Stopped as stop:
        engines.close()
        return _stopped_before_start(request, stop.signum)
    except BaseException:
        engines.close()
        raise
    return _run_opened(request, opened, engines, signals)


def _stopped_before_start(request: Request, signum: int) -> RunOutcome:
    if request.progress:
        from supervisor.core.terms.wording import signal_name
        from supervisor.views.console import print_lines

        print_lines(sys.stderr, f"{signal_name(signum)}: stopped before anything was started")
    return RunOutcome(exit_code=128 + signum, signal=signum)


def _run_opened(
    request: Request, opened: OpenedExperiment, engines: EngineLifecycle, signals: Signals
) -> RunOutcome:
    """One run of the opened experiment; at its end no process is left and the lock is free."""
    try:
        engines.begin(opened)
        start_run(request, opened)
    except (
        BaseException
    ):  # release the lock and the sync thread, or a second run() in this process would fail
        engines.close()
        opened.store.release()
        raise
    try:
        if request.started_by is not None:
            from supervisor.session.detach import leave_terminal

            leave_terminal(request.started_by, opened.layout)
        from supervisor.session.run_session import RunSession  # while the zygote imports the user's code

        return RunSession(request, opened, engines, signals).play()
    except OSError as problem:  # on the way out: while the final files are made
        raise StorageError.with_advice(problem) from problem
    finally:
        engines.close()


def _call_finish(request: Request, outcome: RunOutcome) -> None:
    """The script's `finish`, unless a signal has stopped the run."""
    if request.finish is None or outcome.signal is not None:
        return
    own = (namespace(request.parser, outcome.options),) if takes(request.finish, 2) else ()
    try:
        request.finish(outcome.report, *own)
    except LonghaulError:
        raise
    except Exception as error:
        raise RaisedByScript(error, "finish()", user_messages.after_finish(request, outcome, error)) from None
