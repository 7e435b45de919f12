"""`--debug GLOB`: matching jobs in this process, one after the other, nothing recorded.

The terminal stays attached, a job that raises ends in pdb (where there is a terminal), and
nothing is written but what the jobs write themselves: their artifacts go to a temporary
folder.
"""

from __future__ import annotations

import pdb
import sys
import tempfile
import time
import traceback
from typing import Any

import msgspec

from supervisor.core.terms.errors import OK, SOME_FAILED, UsageError
from supervisor.core.terms.jobs import JobPatterns
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.wording import harmless
from supervisor.experiment.code_changes import changed_names
from supervisor.experiment.code_files import listed
from supervisor.experiment.fitting.job_alone import ask_for_gpus, give, given_alone
from supervisor.experiment.planning import build_plan
from supervisor.experiment.provenance import code_of
from supervisor.experiment.resume_target import resume_target
from supervisor.options.request import Request
from supervisor.options.script_options import namespace
from supervisor.session.outcome import RunOutcome
from supervisor.storage.plan.plan_line import PlannedJob, decode_line
from supervisor.storage.recovery.survey import survey
from workers.job.current_job import current_job
from workers.program.program_end import ProgramFailed
from workers.values.json_encoding import Unencodable, encode_result


def debug(request: Request) -> RunOutcome:
    """Run the matching jobs here. Exit code 1 if one of them raised."""
    glob = request.debug or "*"
    settings, options = _remembered(request)
    plan = build_plan(request.function, request.jobs, namespace(request.parser, options), all_tasks=True)
    named = JobPatterns([glob], plan.builder.domains).names
    chosen = [job for line in plan.builder.lines() if named((job := decode_line(line)).id)]
    if not chosen:
        some = ", ".join(repr(job_id) for job_id in list(plan.builder.domains)[:3])
        raise UsageError(f"--debug {glob}: no job matches; ids look like {some}")
    all_needs = {job_id: own.needs for job_id, own in plan.builder.own.items()}
    with_gpus = ask_for_gpus([None, *all_needs.values()], settings)
    # The devices are counted before jobs see a part of them.
    given = {job.id: given_alone(all_needs.get(job.id), settings) for job in chosen}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="longhaul-debug-") as folder:
        current_job().configure(0, settings.seed, folder)
        give(given[chosen[0].id], with_gpus=with_gpus)  # for setup()
        current_job().context = request.setup() if request.setup is not None else None
        for job in chosen:
            give(given[job.id], with_gpus=with_gpus)
            if given[job.id].missing:
                _print(f"{job.id}: {given[job.id].missing}")
            failed += not _run_here(request, job)
    _print(f"{len(chosen) - failed} of {len(chosen)} jobs completed; nothing was recorded")
    return RunOutcome(exit_code=SOME_FAILED if failed else OK)


def _remembered(request: Request) -> tuple[Settings, dict[str, Any]]:
    """Settings and the script's options: those of an earlier experiment with --resume."""
    if request.resume is None:
        return request.settings(), request.options()
    target = resume_target(request)
    for _, text in target.notices:
        _print(text)
    if target.layout is None:
        return request.settings(), request.options()
    found = survey(target.layout)
    try:
        facts = found.history
        if facts.run_started is not None:
            before = facts.run_started.code
            if names := changed_names(before, code_of(request.function, before, request.setup)):
                _print(f"{listed(names)} changed after the last run of {found.experiment_id}")
        return request.settings(facts.settings), request.options(facts.options)
    finally:
        found.close()


def _run_here(request: Request, job: PlannedJob) -> bool:
    """One job; False if it raised or its result cannot be encoded."""
    _print(f"running {job.id} {msgspec.json.decode(job.params)}")
    current_job().start_job(job.id, job.domain, 1)
    began = time.perf_counter()
    try:
        result: Any = request.function(**msgspec.json.decode(job.params))
        encoded = encode_result(result)
    except Unencodable as error:
        _print(f"{job.id}: its result cannot be encoded: {error}")
        return False
    except ProgramFailed as error:
        _print(f"{job.id}: {error.outcome}: {error}")
        return False
    except Exception:
        traceback.print_exc()
        if sys.stdin is not None and sys.stdin.isatty():
            pdb.post_mortem()
        return False
    _print(f"{job.id}: {encoded.json.decode()[:2000]} in {time.perf_counter() - began:.2f} s")
    return True


def _print(text: str) -> None:
    print(harmless(text), file=sys.stderr, flush=True)
