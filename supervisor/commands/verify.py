"""`longhaul verify`: every record and every file of an experiment, checked against each other."""

from __future__ import annotations

import argparse

import msgspec

from supervisor.commands.integrity_checks import Check, check_experiment
from supervisor.commands.lookup import add_experiments, find, root_of
from supervisor.commands.tables import add_json, emit, emit_json
from supervisor.core.terms.errors import OK, UNUSABLE_CHECKPOINT
from supervisor.core.terms.wording import one_line

_MOST = 20  # lines about one file


def describe(parser: argparse.ArgumentParser) -> None:
    add_experiments(parser, "experiments, the name of one (its latest), `latest`, or directories")
    add_json(parser)
    parser.epilog = "Exit code 0 if all is well, 65 if anything is damaged or disagrees."


def run(arguments: argparse.Namespace) -> int:
    layouts = [find(word, root_of(arguments)) for word in arguments.experiments]
    found = [(layout, check_experiment(layout)) for layout in layouts]
    bad = any(check.problems for _, checks in found for check in checks)
    if arguments.json:
        documents = [
            {
                "experiment_id": layout.experiment_id,
                "directory": str(layout.directory),
                "good": not any(check.problems for check in checks),
                "files": [msgspec.structs.asdict(check) for check in checks],
            }
            for layout, checks in found
        ]
        emit_json(documents)
    else:
        for layout, checks in found:
            emit(f"{layout.experiment_id} in {layout.directory}")
            for check in checks:
                _tell(check)
    return UNUSABLE_CHECKPOINT if bad else OK


def _tell(check: Check) -> None:
    verdict = "PROBLEM" if check.problems else "good"
    emit(f"  {check.file:<12}{verdict:<9}{check.told}".rstrip())
    lines = [*check.problems, *(f"note: {note}" for note in check.notes)]
    for line in lines[:_MOST]:
        emit(f"    {one_line(line)}")
    if len(lines) > _MOST:
        emit(f"    ... and {len(lines) - _MOST:,} more")
