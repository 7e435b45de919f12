"""`--on-finish` and `--on-failure`: commands of the user's when a run is over.

They run when the final files are written, the summary is printed and the lock is released: they may read the
files, send a mail, or start another run. They cannot change the result of the run: a hook that fails or hangs
is only reported.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import msgspec

from supervisor.core.scheduling.drain import Drain
from supervisor.core.terms.errors import BROKE_OFF, LonghaulError
from supervisor.core.terms.settings import Settings
from supervisor.experiment.opening import OpenedExperiment
from supervisor.options.request import Request
from supervisor.session import user_messages
from supervisor.session.outcome import RunOutcome
from supervisor.system.signals import DRAIN_SIGNALS, Signals
from supervisor.views.console import print_lines
from supervisor.views.supervisor_log import SupervisorLog

Notify = Callable[[str, str], None]  # level, text
MOST_OUTPUT = 64 << 10  # bytes of a hook's output that are kept
_POLL_EVERY = 0.1  # seconds; only while a hook runs
_SHOWN_FAILURES = 5
_MOST_MESSAGE = 200


class Hook(msgspec.Struct, frozen=True):
    option: str  # --on-finish
    command: str


class FinishedRun(NamedTuple):
    """How a run has ended: its state, outcome, error, and the drain that ended it early."""

    state: str
    outcome: RunOutcome
    error: LonghaulError | None
    drain: Drain


def run_hooks(request: Request, opened: OpenedExperiment, ended: FinishedRun, signals: Signals) -> None:
    """Run the hooks of this end, one after the other; an error of a hook is reported, not raised."""
    log = SupervisorLog(opened.layout.supervisor_log) if request.recording else None

    def notify(level: str, text: str) -> None:
        if log is not None:
            log.write(level, text)
        if request.progress and (log is None or level != "info"):
            print_lines(sys.stderr, text)

    run_data = run_document(request, opened, ended)
    for hook in hooks_of(opened.settings, ended):
        run_hook(hook, run_data, opened.settings.hook_timeout, signals, notify)
    if log is not None:
        log.close()


def hooks_of(settings: Settings, ended: FinishedRun) -> list[Hook]:
    """The hooks of a run that ended like this.

    None after a run that was stopped by a signal, `longhaul ctl` or a deadline: it is
    going to be resumed. One that stopped itself for too many failures has failed, and so has one that
    leaves jobs which ask for more than there is.
    """
    exit_code = ended.outcome.exit_code
    if ended.error is not None:
        names = ["on_failure"]
    elif ended.drain.begun and exit_code not in (0, 1):
        names = ["on_failure"] if "max_failures" in ended.drain.detail else []
    elif exit_code == BROKE_OFF:
        names = ["on_failure"]
    else:
        names = ["on_finish"] if exit_code == 0 else ["on_finish", "on_failure"]
    found = ((name, getattr(settings, name)) for name in names)
    return [Hook(f"--{name.replace('_', '-')}", command) for name, command in found if command]


def run_document(request: Request, opened: OpenedExperiment, ended: FinishedRun) -> dict[str, Any]:
    """The JSON document that a hook gets on stdin."""
    layout, outcome, error = opened.layout, ended.outcome, ended.error
    report = outcome.report
    failures: list[dict[str, Any]] = []
    if report is not None:
        with contextlib.suppress(OSError, LonghaulError):
            failures = [
                {"job": one.job, "outcome": one.outcome, "message": one.message[:_MOST_MESSAGE]}
                for one in report.failures()[:_SHOWN_FAILURES]
            ]
    return {
        "experiment_id": layout.experiment_id,
        "name": request.name,
        "state": ended.state,
        "exit_code": outcome.exit_code if error is None else error.exit_code,
        "error": None if error is None else str(error),
        "counts": None if report is None else msgspec.to_builtins(report.counts),
        "failures": failures,
        "directory": str(layout.directory),
        "results": str(layout.final),
        "statistics": str(layout.statistics),
        "resume": user_messages.resume_with(request, layout.experiment_id),
    }


def environment(run_data: dict[str, Any], option: str) -> dict[str, str]:
    """The environment of a hook: ours, and the fields of the document as LONGHAUL_*."""
    counts = run_data["counts"] or {}
    keys = ("experiment_id", "name", "state", "exit_code", "directory", "results", "statistics", "resume")
    return {
        **os.environ,
        **{f"LONGHAUL_{key.upper()}": str(run_data[key]) for key in keys},
        **{f"LONGHAUL_{key.upper()}": str(number) for key, number in counts.items()},
        "LONGHAUL_HOOK": option.removeprefix("--"),
    }


def _in_json(run_data: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(run_data)
    except UnicodeEncodeError:  # a path that is not UTF-8: escapes, from which Python has it back
        import json

        return json.dumps(run_data).encode()


def run_hook(hook: Hook, run_data: dict[str, Any], timeout: float, signals: Signals, notify: Notify) -> None:
    """Run one, for at most `timeout` seconds, and report its result; it raises nothing.
    Ctrl+C ends it."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            hook.command,
            shell=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(run_data, hook.option),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        notify("warning", f"{hook.option} could not be run: {error}")
        return
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):  # it does not read
        os.set_blocking(process.stdin.fileno(), False)
        os.write(process.stdin.fileno(), _in_json(run_data) + b"\n")
    with contextlib.suppress(OSError):
        process.stdin.close()
    output, stopped = _follow(process, process.stdout, started + timeout, signals)
    process.stdout.close()
    _report(hook, process.returncode, output, stopped, time.monotonic() - started, notify)


def _follow(
    process: subprocess.Popen[bytes], pipe: IO[bytes], deadline: float, signals: Signals
) -> tuple[bytes, str]:
    """Wait until it ends, or kill it; its output, and the reason for the kill."""
    output = b""
    stopped = ""
    os.set_blocking(pipe.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(signals.fileno(), selectors.EVENT_READ)
        while process.poll() is None:
            if time.monotonic() >= deadline:
                stopped = "it took too long"
            elif any(signum in DRAIN_SIGNALS for signum in signals.read()):
                stopped = "a signal came"
            if stopped:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            selector.select(max(0.0, min(_POLL_EVERY, deadline - time.monotonic())))
            piece = _read(pipe)
            if piece == b"" and pipe in [key.fileobj for key in selector.get_map().values()]:
                selector.unregister(pipe)  # closed; the process may continue without output
            output = (output + (piece or b""))[:MOST_OUTPUT]
    return (output + (_read(pipe) or b""))[:MOST_OUTPUT], stopped


def _read(pipe: IO[bytes]) -> bytes | None:
    """What can be read now; b"" at the end of the pipe, None if it is empty."""
    try:
        return os.read(pipe.fileno(), MOST_OUTPUT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _report(hook: Hook, code: int, output: bytes, stopped: str, seconds: float, notify: Notify) -> None:
    how = f"ended: {stopped}" if stopped else f"exit code {code}"
    text = f"{hook.option} ({hook.command}): {how} after {seconds:.1f} s"
    printed = output.decode(errors="replace").strip()
    if printed:
        text += f"; its output:\n{printed}"
    notify("info" if code == 0 and not stopped else "warning", text)
