"""`main` and `run`: how a script and a program start an experiment, and how they end.

The request is made in `options` and executed in `session`. This module does what comes before and after:
errors in one line, exit codes, and the end by the signal that stopped the run.

Everything else is imported when one of the two is called: a worker imports the script, and with it this
module, but calls neither.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from supervisor.core.terms.errors import (
    LonghaulError,
    RaisedByScript,
    UnguardedMain,
    UsageError,
    WorkersError,
)
from workers.job.current_job import importing_main, inside_worker

if TYPE_CHECKING:
    import argparse
    from typing import TypeAlias, Unpack

    from supervisor.core.terms.jobs import Job
    from supervisor.engines.zygote_process import PrestartedZygote
    from supervisor.nodes.ray.driver_process import DriverProcess
    from supervisor.options.keywords import MainSettings, RunSettings
    from supervisor.options.request import Request
    from supervisor.reports.report import Report
    from supervisor.session.outcome import RunOutcome

    Jobs: TypeAlias = Iterable[Job | dict[str, Any]]
    JobSource: TypeAlias = Jobs | Callable[[], Jobs] | Callable[[Any], Jobs]  # Any: the script's own options
    FinishCall: TypeAlias = Callable[[Report], object] | Callable[[Report, Any], object]

_NO_RUN = ("-h", "--help", "--version", "--list-checkpoints", "--detach")


def main(
    function: Callable[..., Any],
    jobs: JobSource,
    *,
    name: str,
    output: str | os.PathLike[str] | None = None,
    parser: argparse.ArgumentParser | None = None,
    setup: Callable[[], object] | None = None,
    finish: FinishCall | None = None,
    argv: Sequence[str] | None = None,
    **settings: Unpack[MainSettings],
) -> NoReturn:
    """Give a script a command line, run its experiment, and exit.

    Parameters
    ----------
    function: called as `function(**job.params)` in worker processes; its result must have
        a JSON form.
    jobs: an iterable of `Job`, or a function that returns one; a function with a parameter
        gets the namespace of the script's own options. A plain dict is a job with these params.
    name: of the experiment; its files go to `data/outputs/<name>`.
    output: another directory for its files.
    parser: an `ArgumentParser(add_help=False)` with the script's own options.
    setup: runs once in each worker before its first job; `current_job().context` is what it
        returned.
    finish: called with the `Report` after the final files are written; with a second
        parameter it gets the script's own options, as `jobs` does.
    argv: the arguments, if not those of the process.

    Settings
    --------
    Keywords with the names of options. They are what holds if neither the command line nor, on a
    resume, the experiment says otherwise. Durations are seconds, or text such as "90s", "1h30m" and
    "1-12:00:00". Sizes are bytes, or text such as "400M". None: no limit, or no command.

    workers=6: how many jobs run at the same time; "auto": as many as there are usable cores.
    all_tasks=False: run all jobs, not only one of each domain.
    timeout=None: seconds that a job may run before it is stopped, or text such as "15m".
    retries=0: further attempts of a job that raised an error.
    retry_timeouts=0: further attempts of a job that was stopped by its timeout.
    retry_over_memory=False: one further attempt of a job that was over its memory limit: alone.
    backoff=1.0: seconds before another attempt after an error or a timeout; doubled each time.
    memory_limit=None: bytes that a job may hold with all that it has started, or text such as "2G".
    keep_free=None: bytes; nothing is started while less memory than this is available.
    nice=0: niceness of the workers, 0 to 19.
    rate=None: at most so many job starts: "10/s", "60/m" or "500/h".
    max_failures=None: stop the run when so many of its jobs have failed, or "5%" of those that ended.
    deadline=None: stop in time for "07:30", "2025-10-15T07:30", seconds or "8h" from now, or "slurm".
    stall=None: seconds without use of a CPU after which a job is reported.
    grace=20.0: seconds that running jobs may continue after Ctrl+C.
    crash_limit=3: a job fails after it has crashed so many workers.
    checkpoint_every=5: completed jobs from one checkpoint to the next.
    max_jobs_per_worker=None: jobs after which a worker is replaced.
    seed=0: what the seed of each job is made of, 0 to 2**63 - 1.
    start_method="auto": how workers are started: "auto", "zygote" or "spawn".
    retry_failed=True: on a resume, one more attempt of each failed job.
    on_finish=None: a shell command that is run when nothing is left to do.
    on_failure=None: a shell command that is run when jobs have failed or the run broke off.
    hook_timeout=60.0: seconds that each of the two commands may take.
    job_cpus=None: cores that each job uses, unless it says otherwise (`Job.cpus`); None: 1.
    job_memory=None: bytes that each job takes at most, unless it says otherwise, or text such as "2G".
    job_gpus=None: devices that each job uses, unless it says otherwise; 0.5: half of one.
    memory="auto": bytes that jobs may ask for together, or text; "auto": what the machine has.
    gpus="auto": the devices that jobs may use: "auto", "none", a number, or names such as "0,2,3".
    resources={}: anything else that jobs may ask for, and how much there is: {"license": 2}.
    engine="local": where jobs run: "local" (this machine) or "ray" (a Ray cluster).
    address="auto": the cluster: "auto", "local" (start one on this machine) or "host:port".
    nodes=None: use so many nodes of the cluster at most.
    files="auto": whether nodes have this machine's file system: "shared", "ship" (no), "auto": each finds out.
    ship=None: a directory with the script and its modules that is copied to the nodes.
    node_timeout=30.0: seconds after which a node that says nothing is given up.

    Raises
    ------
    SystemExit: always, unless the run was stopped by a signal; this process dies of that then. Codes:
        0 all jobs completed, 1 some failed, 2 the options, keywords or jobs are wrong (an unknown keyword
        is answered with the nearest name), 65 the files of the experiment cannot be used, 69 somebody
        else runs it, 70 `jobs` or `finish` raised, 73 the output directory cannot be written, 74 the disk
        failed, 75 the run broke off by itself, 76 it was stopped early as asked.
    RuntimeError: `main` was called in a worker process; put it behind `if __name__ == "__main__":`.
    """
    _refuse_inside_worker("main")
    try:
        _check_platform()
        has_argparse = "argparse" in sys.modules
        with _prestarted(sys.argv[1:] if argv is None else argv, settings) as prestarted:
            with _sigint_blocked():
                from supervisor.options.request import request_of_main

            request = request_of_main(
                function,
                jobs,
                name=name,
                output=output,
                parser=parser,
                argv=argv,
                keywords=settings,
                setup=setup,
                finish=finish,
                has_argparse=has_argparse,
            )
            _start_detached_if_asked(request)
            _list_checkpoints_if_asked(request)
            outcome = _execute(request, prestarted)
        _end_as(outcome)
    except LonghaulError as error:
        _print_to_stderr(f"error: {error}")
        _flush()
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:  # before the run had its own handlers, or after
        try:
            _die_of_interrupt()
        except KeyboardInterrupt:  # a second one, before the handler was removed: no traceback
            _die_of_interrupt()
    except Exception as error:
        from supervisor.session.uncaught_errors import show

        raise SystemExit(show(error)) from None
    raise SystemExit(outcome.exit_code)


def run(
    function: Callable[..., Any],
    jobs: JobSource,
    *,
    name: str,
    output: str | os.PathLike[str] | None = None,
    setup: Callable[[], object] | None = None,
    finish: FinishCall | None = None,
    **settings: Unpack[RunSettings],
) -> Report | Any:  # Any: None with `debug`; if it said None, every other caller would have to check for it
    """Run an experiment from a notebook or another program, and return its `Report`.

    The same as `main` without a command line. The process is never ended. With `debug` nothing is
    recorded, so there is no report, and None is returned.

    Parameters
    ----------
    function: called as `function(**job.params)` in worker processes; its result must have
        a JSON form.
    jobs: an iterable of `Job`, or a function that returns one. A plain dict is a job with these
        params.
    name: of the experiment; its files go to `data/outputs/<name>`.
    output: another directory for its files.
    setup: runs once in each worker before its first job; `current_job().context` is what it
        returned.
    finish: called with the `Report` after the final files are written.

    Settings
    --------
    Keywords with the names of options. For this run alone:

    experiment_id=None: the name of a new experiment; else experiment_YYYYMMDD_HHMMSS.
    resume=None: go on with this experiment. "latest": the latest one. "auto": the latest unfinished
        one, or a new one. False: nothing but the final results is recorded.
    only=None: run only jobs with this id, or whose id matches this pattern, or one of several: "iris/*".
    rerun=None: with `resume`, run completed jobs that match once more. "code:VERSION": those whose
        results that version of the code made. "code:old": any earlier one.
    accept_code=False: with `resume`, take the results of earlier code as good.
    changed="refuse": with `resume`, if the params of an id have changed: "refuse", "keep" the old
        results, or "rerun" the jobs.
    debug=None: run the jobs that match this pattern in this process, with pdb on an error.
    show_output=False: show what jobs print.
    progress=True: show how far the run is.

    Remembered when the experiment is resumed. Durations are seconds, or text such as "90s", "1h30m"
    and "1-12:00:00". Sizes are bytes, or text such as "400M". None: no limit, or no command.

    workers=6: how many jobs run at the same time; "auto": as many as there are usable cores.
    all_tasks=True: run all jobs; False: only one of each domain.
    timeout=None: seconds that a job may run before it is stopped, or text such as "15m".
    retries=0: further attempts of a job that raised an error.
    retry_timeouts=0: further attempts of a job that was stopped by its timeout.
    retry_over_memory=False: one further attempt of a job that was over its memory limit: alone.
    backoff=1.0: seconds before another attempt after an error or a timeout; doubled each time.
    memory_limit=None: bytes that a job may hold with all that it has started, or text such as "2G".
    keep_free=None: bytes; nothing is started while less memory than this is available.
    nice=0: niceness of the workers, 0 to 19.
    rate=None: at most so many job starts: "10/s", "60/m" or "500/h".
    max_failures=None: stop the run when so many of its jobs have failed, or "5%" of those that ended.
    deadline=None: stop in time for "07:30", "2025-10-15T07:30", seconds or "8h" from now, or "slurm".
    stall=None: seconds without use of a CPU after which a job is reported.
    grace=20.0: seconds that running jobs may continue after Ctrl+C.
    crash_limit=3: a job fails after it has crashed so many workers.
    checkpoint_every=5: completed jobs from one checkpoint to the next.
    max_jobs_per_worker=None: jobs after which a worker is replaced.
    seed=0: what the seed of each job is made of, 0 to 2**63 - 1.
    start_method="auto": how workers are started: "auto", "zygote" or "spawn".
    retry_failed=True: on a resume, one more attempt of each failed job.
    on_finish=None: a shell command that is run when nothing is left to do.
    on_failure=None: a shell command that is run when jobs have failed or the run broke off.
    hook_timeout=60.0: seconds that each of the two commands may take.
    job_cpus=None: cores that each job uses, unless it says otherwise (`Job.cpus`); None: 1.
    job_memory=None: bytes that each job takes at most, unless it says otherwise, or text such as "2G".
    job_gpus=None: devices that each job uses, unless it says otherwise; 0.5: half of one.
    memory="auto": bytes that jobs may ask for together, or text; "auto": what the machine has.
    gpus="auto": the devices that jobs may use: "auto", "none", a number, or names such as "0,2,3".
    resources={}: anything else that jobs may ask for, and how much there is: {"license": 2}.
    engine="local": where jobs run: "local" (this machine) or "ray" (a Ray cluster).
    address="auto": the cluster: "auto", "local" (start one on this machine) or "host:port".
    nodes=None: use so many nodes of the cluster at most.
    files="auto": whether nodes have this machine's file system: "shared", "ship" (no), "auto": each finds out.
    ship=None: a directory with the script and its modules that is copied to the nodes.
    node_timeout=30.0: seconds after which a node that says nothing is given up.

    Raises
    ------
    UsageError: an unknown keyword (with the nearest name), a wrong value, or jobs that cannot be run.
    LonghaulError: the experiment cannot be run or broke off; `exit_code` says why, as for `main`.
    RunInterrupted: Ctrl+C, or another signal that stops a run; its `report` is that of what was
        finished. It is a KeyboardInterrupt.
    RuntimeError: `run` was called by a job, or while a worker imported the script.
    Exception: what `jobs` or `finish` raised, as it is.
    """
    _refuse_inside_worker("run")
    _check_platform()
    try:
        with _prestarted((), settings) as prestarted:
            with _sigint_blocked():
                from supervisor.options.request import request_of_run

            request = request_of_run(
                function, jobs, name=name, output=output, keywords=settings, setup=setup, finish=finish
            )
            raised: Exception | None = None
            try:
                outcome = _execute(request, prestarted)
            except RaisedByScript as caught:
                raised = caught.error
    except UsageError as error:
        # What is wrong is in the call, not in our modules, which the traceback would show one after the other.
        raise error.with_traceback(None) from error.__cause__
    if raised is not None:
        from supervisor.session.uncaught_errors import from_user

        raise from_user(raised)
    if outcome.signal is not None:
        from supervisor.core.terms.errors import RunInterrupted

        raise RunInterrupted(outcome.report)
    return outcome.report


def _start_detached_if_asked(request: Request) -> None:
    """With `--detach`, the script is started once more in the background, and this process exits."""
    if request.detach and request.started_by is None:
        from supervisor.session.detach import start_detached

        raise SystemExit(start_detached())


def _list_checkpoints_if_asked(request: Request) -> None:
    if request.list_checkpoints:
        from supervisor.experiment.experiment_status import list_checkpoints
        from supervisor.session.user_messages import resume_with

        list_checkpoints(request.directory, resume_with(request, "ID"))
        raise SystemExit(0)


def _execute(request: Request, prestarted: PrestartedZygote | DriverProcess | None) -> RunOutcome:
    with _sigint_blocked():
        from supervisor.session.execution import execute
    try:
        return execute(request, prestarted)
    except LonghaulError as error:
        _use_option_names(error, request)
        raise
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise WorkersError(
            f"{error.strerror or error}: no worker can be started. Allow more (ulimit -n), then start again "
            f"or resume."
        ) from error


def _use_option_names(error: LonghaulError, request: Request) -> None:
    """Replace the names of options in an error by those that they have in this script."""
    from supervisor.options.script_options import OwnOptionError

    if request.taken and not isinstance(error, OwnOptionError):
        error.args = (request.with_option_names(str(error)), *error.args[1:])


@contextlib.contextmanager
def _prestarted(
    arguments: Sequence[str], settings: Mapping[str, Any]
) -> Iterator[PrestartedZygote | DriverProcess | None]:
    """A process that starts while this one imports the rest: what forks the workers, or what connects to a Ray
    cluster; None if neither is needed, probably."""
    ahead: PrestartedZygote | DriverProcess | None = None
    try:
        with _sigint_blocked():
            if _needs_driver(arguments, settings):
                from supervisor.nodes.ray.driver_process import DriverProcess

                with contextlib.suppress(OSError):  # then another one is tried, which says why
                    ahead = DriverProcess()
            elif not _needs_no_zygote(arguments, settings):
                from supervisor.engines.zygote_process import PrestartedZygote

                ahead = PrestartedZygote.start()
        yield ahead
    finally:
        if ahead is not None:
            with _sigint_blocked():
                ahead.discard()  # nothing, if it was used


def _needs_driver(arguments: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """A guess, as that of `_needs_no_zygote`. Not before the script has made its jobs, on a resume."""
    words = [argument.replace("--longhaul-", "--") for argument in arguments]
    engine = settings.get("engine")
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--engine":
            engine = following
        elif word.startswith("--engine="):
            engine = word.removeprefix("--engine=")
    if engine != "ray" or settings.get("debug") is not None or not sys.platform.startswith("linux"):
        return False
    resumes = settings.get("resume") is not None or any(word.startswith("--resume") for word in words)
    return not resumes and not any(word in _NO_RUN or word.startswith("--debug") for word in words)


def _needs_no_zygote(arguments: Sequence[str], settings: Mapping[str, Any]) -> bool:
    """A guess from arguments that are not parsed yet; a wrong guess only costs time."""
    if settings.get("start_method") == "spawn" or "spawn" in arguments:
        return True
    short = [argument.replace("--longhaul-", "--") for argument in arguments]
    if settings.get("engine", "local") != "local" or any(word.startswith("--engine") for word in short):
        return True
    return any(argument in _NO_RUN or argument.startswith("--debug") for argument in short)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Ctrl+C waits for an import: a KeyboardInterrupt that is raised in an import callback is printed
    and lost."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _refuse_inside_worker(called: str) -> None:
    if importing_main():
        raise UnguardedMain(
            f"{called}() was called while a worker imported the script; put the call behind\n"
            f'    if __name__ == "__main__":\n        {called}(...)'
        )
    if inside_worker():
        raise UnguardedMain(
            f"{called}() was called by a job; an experiment cannot start another one. Call the function itself."
        )


def _check_platform() -> None:
    if os.name != "posix" or sys.platform in ("cygwin", "emscripten", "wasi"):
        raise UsageError(f"longhaul runs on Linux and macOS, not on {sys.platform}; on Windows, use WSL")
    if sys.platform.startswith("linux") and not os.path.exists("/proc/self/stat"):
        raise UsageError("longhaul needs /proc, but /proc is not mounted; mount it: mount -t proc proc /proc")


def _print_to_stderr(text: str) -> None:
    from supervisor.views.console import print_lines

    print_lines(sys.stderr, text)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _end_as(outcome: RunOutcome) -> None:
    """Die of the signal that stopped the run; else make ready to exit."""
    if outcome.signal is not None:
        _die_of(outcome.signal)
    _flush()
    _stop_timers()


def _stop_timers() -> None:
    """An interval timer of the script would kill this process once Python has put the handlers back,
    and the exit code would be that of the signal."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        if signal.getitimer(timer)[1]:
            signal.setitimer(timer, 0)


def _die_of_interrupt() -> NoReturn:
    with contextlib.suppress(ValueError):  # off the main thread
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _print_to_stderr("interrupted")
    _die_of(signal.SIGINT)


def _die_of(signum: int) -> NoReturn:
    """`signals.die_of`, with what was printed brought out before; off the main thread the exit code tells of it."""
    from supervisor.system.signals import die_of

    _flush()
    die_of(signum)
    raise SystemExit(128 + signum)
