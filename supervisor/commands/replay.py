"""`longhaul replay JOB`: runs a job again in this process; nothing is recorded.

Parameters, seed and attempt number come from the record, directory and arguments from the run, and the
function from the present script. `current_job().directory` is a temporary folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import msgspec

from supervisor.commands.lookup import add_experiment, add_job, find_job, the_experiment
from supervisor.core.terms.code_spans import CodeSpans
from supervisor.core.terms.errors import LonghaulError, UsageError
from supervisor.core.terms.needs import Needs
from supervisor.core.terms.records import Ended, RunStarted
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.wording import cut, duration, one_line
from supervisor.experiment.code_changes import changed_names, since_then
from supervisor.experiment.code_files import changed_since, listed
from supervisor.experiment.fitting.job_alone import GivenAlone, give, given_alone
from supervisor.experiment.provenance import code_of
from supervisor.reports.report import result_text
from supervisor.reports.result_reader import Results
from supervisor.storage.plan.plan_line import PlannedJob
from supervisor.storage.recovery.survey import survey
from supervisor.system.capacity.cpu_limits import thread_caps, usable_cores
from supervisor.views.console import print_lines
from workers.job.current_job import current_job
from workers.process.surrogates import decoded_entry
from workers.program.program_end import ProgramFailed
from workers.script.callables import CannotLoad, load
from workers.script.main_module import MAIN, import_main, import_main_if_guarded
from workers.script.module_lookup import import_module
from workers.transport.messages import FunctionSpec
from workers.values.json_encoding import Encoded, Unencodable, encode_result
from workers.values.tracebacks import innermost_own

_SHOWN = 2000  # characters of a result


class _Replayed(msgspec.Struct):
    """The job, its record, and the settings of its run."""

    job: str
    domain: str | None
    params: dict[str, Any]
    attempt: int
    record: Ended | None
    settings: dict[str, Any]
    started: RunStarted
    given: GivenAlone


def describe(parser: argparse.ArgumentParser) -> None:
    add_job(parser)
    add_experiment(parser)
    parser.add_argument("--pdb", action="store_true", help="start the debugger if the job raises")
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="path of the script, if it has been moved since the run"
    )


def run(arguments: argparse.Namespace) -> int:
    replayed = _read(arguments)
    _announce(replayed, debug=arguments.pdb)
    script = arguments.script.absolute() if arguments.script is not None else None
    function, setup = _functions(replayed, script)
    _tell_changes(replayed, function)
    faulthandler.enable()
    job = current_job()
    with tempfile.TemporaryDirectory(prefix="longhaul-replay-") as folder:
        slot = max(0, replayed.record.worker) if replayed.record is not None else 0
        job.configure(slot, int(replayed.settings.get("seed", 0)), folder, gpus=replayed.given.gpus)
        try:
            job.context = setup() if setup is not None else None
            job.start_job(replayed.job, replayed.domain, replayed.attempt)
            began = time.perf_counter()
            value = function(**replayed.params)
        except (Exception, SystemExit) as error:
            _show_error(error, debug=arguments.pdb)
            return 1
        except KeyboardInterrupt as error:
            _show_error(error, debug=arguments.pdb)
            raise
        return _compare_with_record(replayed, value, time.perf_counter() - began)


def _read(arguments: argparse.Namespace) -> _Replayed:
    layout = the_experiment(arguments)
    found = survey(layout)
    try:
        job_id = find_job(arguments.job, found.table.ids)
        number = found.table.numbers[job_id]
        if found.plan is None or not found.plan.has(number):
            raise UsageError(f"the plan {layout.plan} has no params of {job_id!r}: nothing can be replayed")
        started = found.history.run_started
        if started is None:
            raise UsageError(
                f"experiment {layout.experiment_id} has no record of a run: nothing can be replayed"
            )
        (row,) = Results.of(found).read([number])
        return _Replayed(
            job=job_id,
            domain=row[1].domain,
            params=msgspec.json.decode(row[1].params),
            attempt=max(1, found.table.attempts[number]),
            record=row[2],
            settings=found.settings,
            started=started,
            given=_given(row[1], found.settings),
        )
    finally:
        found.close()


def _given(job: PlannedJob, settings: Mapping[str, Any]) -> GivenAlone:
    known = {key: value for key, value in settings.items() if key in Settings.__struct_fields__}
    needs = msgspec.json.decode(job.needs, type=Needs) if job.needs else None
    return given_alone(needs, msgspec.convert(known, Settings))


def _announce(replayed: _Replayed, *, debug: bool) -> None:
    params = cut(one_line(msgspec.json.encode(replayed.params).decode()), _SHOWN)
    _print(f"replaying {one_line(replayed.job)} {params}, attempt {replayed.attempt}; nothing is recorded")
    if replayed.given.missing:
        _print(replayed.given.missing)
    record = replayed.record
    if record is None:
        return
    error = record.error or {}
    what = f"{error.get('type') or ''} {error.get('message') or ''}".strip()
    _print(f"in the record it {record.outcome}{': ' if what else ''}{cut(one_line(what), 300)}".rstrip())
    if record.outcome == "crashed":
        _print("it crashed its worker; it may crash this process as well")
    if record.outcome == "timed_out":
        _print(
            f"its timeout does not apply here; Ctrl+C {'opens the debugger' if debug else 'shows where it is'}"
        )


# -------------------------------------------------------------------------- its functions


def _functions(
    replayed: _Replayed, script: Path | None
) -> tuple[Callable[..., Any], Callable[[], Any] | None]:
    """The job's function and the setup, imported as a worker would. Raises UsageError."""
    entry = entry_of_run(replayed.started)
    if "function" not in entry:
        raise UsageError(
            f"the function of {replayed.job!r} was defined where nobody can import it from (a notebook, a "
            f"prompt, another function); call it there, with debug={replayed.job!r} in run()"
        )
    function, setup = _spec_of(entry, "function"), _spec_of(entry, "setup") if "setup" in entry else None
    name, path = entry.get("main_name"), entry.get("main_path")
    needed = MAIN in (function.module, setup.module if setup is not None else "")
    if script is not None:
        name, path = None, str(script)
    if needed and path is not None and not os.path.isfile(path):
        raise UsageError(f"the script {path} is not there; give its path with --script FILE")
    _imitate_the_run(replayed, entry, path)
    try:
        _import_script(import_main if needed else import_main_if_guarded, name, path, entry)
        return load(function), load(setup) if setup is not None else None
    except LonghaulError:
        raise
    except CannotLoad as error:
        raise UsageError(f"{error} (as it was when it ran)") from None
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        there = entry.get("executable", sys.executable)
        raise UsageError(
            f"the script cannot be imported: {type(error).__name__}: {error}. The run was made with {there}; "
            f"if that is another Python, use it: {there} -m supervisor replay ..."
        ) from None


def _spec_of(entry: dict[str, Any], role: str) -> FunctionSpec:
    constants = entry.get(f"{role}_constants")
    module, qualname = entry[role]
    return FunctionSpec(module, qualname, constants=msgspec.json.decode(constants) if constants else [])


def _import_script(
    import_it: Callable[[str | None, str | None], None],
    name: str | None,
    path: str | None,
    entry: dict[str, Any],
) -> None:
    """From where the script was started; its first lines may lead to where the jobs ran."""
    here, start = os.getcwd(), entry.get("start_directory")
    if start and os.path.isdir(start):
        os.chdir(start)
    import_it(name, path)
    os.chdir(here)
    files = entry.get("files", ())
    for module, file in zip(files[::2], files[1::2], strict=True):
        import_module(module, file)


def entry_of_run(started: RunStarted) -> dict[str, Any]:
    """How the functions of a run are found; without `function` if it cannot be imported."""
    return decoded_entry(started.entry) or _guessed_entry(started)


def _guessed_entry(started: RunStarted) -> dict[str, Any]:
    """For records that an older version wrote: the file of the function was the script."""
    file, name = started.code.get("file"), started.code.get("function")
    return {"function": [MAIN, name], "main_path": file} if file and name else {}


def _imitate_the_run(replayed: _Replayed, entry: dict[str, Any], path: str | None) -> None:
    """Directory, arguments and path of the run, as far as they are still there."""
    wanted = replayed.settings.get("workers", Settings().workers)
    slots = usable_cores() if wanted == "auto" else int(wanted)
    cap = replayed.given.cap
    for name, value in thread_caps(slots).items():
        os.environ.setdefault(name, str(cap) if cap else value)
    give(replayed.given, with_gpus=bool(replayed.given.gpus))
    if replayed.record is not None and replayed.record.worker >= 0:
        os.environ["LONGHAUL_WORKER"] = str(replayed.record.worker)
        os.environ["LONGHAUL_LOCAL_WORKER"] = str(replayed.record.worker)
    if "sys_argv" in entry:
        sys.argv[:] = entry["sys_argv"]
    folders = [os.path.dirname(path)] if path else []
    folders += [folder for folder in entry.get("sys_path", ()) if os.path.isdir(folder)]
    sys.path[:0] = [folder for folder in dict.fromkeys(folders) if folder not in sys.path]
    directory = entry.get("directory")
    if directory and os.path.isdir(directory):
        os.chdir(directory)
    elif directory:
        _print(f"the directory of the run, {directory}, is not there; this one is used")
    importlib.invalidate_caches()


def _tell_changes(replayed: _Replayed, function: Callable[..., Any]) -> None:
    started, record = replayed.started, replayed.record
    before, now = started.code, code_of(function)
    if "used" in now and (names := changed_names(before, now)):
        _print(f"{listed(names)} {'has' if len(names) == 1 else 'have'} changed since the last run")
    elif before and before.get("sha256") != now.get("sha256"):
        _print(f"{now.get('file', 'the code')} has changed since the last run")
    if others := changed_since(before):
        _print(f"{listed(others)} {'has' if len(others) == 1 else 'have'} changed since the last run")
    codes = CodeSpans(started.codes)
    made_by = codes.version(record.lease) if record is not None else None
    earlier = made_by is not None and made_by != codes.spans[-1].version
    if earlier and (since := since_then(str(made_by), codes, before, most=1000)):
        _print(f"the record is of code {made_by}, {since}")
    python = replayed.started.versions.get("python", "")
    here = ".".join(map(str, sys.version_info[:3]))
    if python and python != here:
        _print(f"the run was made with Python {python}, this is {here}")


# ------------------------------------------------------------------------------ its end


def _show_error(error: BaseException, *, debug: bool) -> None:
    if isinstance(error, ProgramFailed):  # not in Python
        _print(f"it {error.outcome}: {error}")
        return
    trace = _without_ours(error.__traceback__)
    traceback.print_exception(type(error), error, trace)
    if debug and trace is not None:
        _debug(trace)


def _debug(trace: TracebackType) -> None:
    """Start the debugger at the place that `failures` names: in the user's code. `down` goes to the functions
    that it called."""
    import pdb

    class Debugger(pdb.Pdb):
        def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[Any], int]:
            stack, index = super().get_stack(f, t)
            own = innermost_own([frame.f_code.co_filename for frame, _ in stack])
            return stack, own if own >= 0 else index

    debugger = Debugger()
    debugger.reset()
    debugger.interaction(None, trace)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _compare_with_record(replayed: _Replayed, value: Any, seconds: float) -> int:
    """Print the outcome, and whether the record has the same one; the exit code."""
    try:
        encoded = encode_result(value)
    except Unencodable as error:
        _print(f"its result cannot be written as JSON: {error}")
        return 1
    _print(
        f"completed in {duration(seconds)}: {cut(one_line(result_text(encoded.json, encoded.nonfinite)), _SHOWN)}"
    )
    record = replayed.record
    if record is not None and record.outcome == "completed":
        _print(
            "the same result as in the record"
            if _same(encoded, record)
            else "the result differs from the one in the record"
        )
    elif record is not None:
        _print("this time it did not fail")
    return 0


def _same(encoded: Encoded, record: Ended) -> bool:
    recorded = msgspec.json.decode(record.result) if record.result else None
    now = msgspec.json.decode(encoded.json)
    return bool(recorded == now) and list(map(tuple, encoded.nonfinite)) == list(map(tuple, record.nonfinite))


def _print(text: str) -> None:
    sys.stdout.flush()
    print_lines(sys.stderr, text)
