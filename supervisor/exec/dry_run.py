"""`--dry-run`: the command lines of all jobs, as a shell would need them. Nothing is changed on disk."""

from __future__ import annotations

import sys

import msgspec

from supervisor.core.terms.errors import OK
from supervisor.core.terms.jobs import JobPatterns
from supervisor.exec.exec_command import CommandScript
from supervisor.experiment.job_selection import PilotSelection
from supervisor.experiment.planning import build_plan
from supervisor.experiment.resume_target import resume_target
from supervisor.options.request import Request, request_of_main
from supervisor.options.script_options import namespace
from supervisor.storage.plan.plan_line import decode_line
from supervisor.storage.recovery.survey import survey
from supervisor.views.suggested_commands import pasted
from workers.program.command_template import Template, as_bytes, texts_of


def print_command_lines(script: CommandScript) -> int:
    """Raises UsageError for what could not be run."""
    function = script.jobs.function
    request = request_of_main(
        function,
        script.jobs,
        name=script.name,
        output=script.output,
        parser=script.parser,
        argv=script.argv,
        setup=None,
        finish=None,
        keywords=script.settings,
    )
    settings, remembered = _remembered(request)
    options = namespace(request.parser, request.options(remembered))
    all_tasks = request.settings(settings).all_tasks
    pick = PilotSelection(all_tasks=all_tasks, only=request.only, earlier=None)
    plan = build_plan(function, script.jobs, options, all_tasks=all_tasks, pick=pick)
    words = [Template(word) for word in options.command]
    of_lines = options.jobs is not None
    named = JobPatterns(request.only, plan.builder.domains).names
    for line in plan.builder.lines():
        job = decode_line(line)
        if request.only and not named(job.id):
            continue
        texts = texts_of(msgspec.json.decode(job.params), of_lines=of_lines)
        text = pasted([word.filled(texts) for word in words])
        _print(text)
    return OK


def _print(text: str) -> None:
    """As bytes that a shell takes for these words, whatever the encoding of the terminal is."""
    if sys.stdout is None:
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(as_bytes(text) + b"\n")


def _remembered(request: Request) -> tuple[dict[str, object], dict[str, object]]:
    """Settings and options of the experiment that would be resumed."""
    if request.resume is None:
        return {}, {}
    target = resume_target(request)
    if target.layout is None:
        return {}, {}
    found = survey(target.layout)
    try:
        return dict(found.history.settings), dict(found.history.options)
    finally:
        found.close()
