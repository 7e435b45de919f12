"""Which experiment `longhaul exec --resume` means: only those of exec, whatever other scripts have run beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from supervisor.core.terms.errors import LonghaulError
from supervisor.core.terms.experiment_id import check_id
from supervisor.exec.command_options import DEFAULT_NAME
from supervisor.options.script_options import OwnOptionError
from supervisor.reports.experiment_list import experiments, last_saved
from supervisor.reports.latest_experiment import KnownExperiment, known_exactly
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.views.suggested_commands import pasted
from workers.program.program_job import run_program

_FUNCTION = [run_program.__module__, run_program.__qualname__]


class CommandTarget(NamedTuple):
    """The experiment that is meant, its name, and the settings that it remembers. word: for `--resume`, None for a
    new experiment."""

    layout: Layout
    name: str
    settings: dict[str, Any]
    word: str


def find_target(
    word: str, name: str | None, output: str | None, named: str | None = None
) -> CommandTarget | None:
    """`word`: latest, auto or an id; `named`: the id that `auto` means. None if `auto` means a new experiment.
    Raises UsageError."""
    places = _places(name, output)
    if word == "auto" and named is not None:
        is_there = any(Layout(place, check_id(named)).exists() for place in places)
        return _by_id(named, places)._replace(word=word) if is_there else None
    if word not in ("latest", "auto"):
        return _by_id(check_id(word), places)
    found = [Layout(place, one) for place in places for one in experiments(place)]
    for layout in sorted(found, key=lambda one: (last_saved(one), one.experiment_id), reverse=True):
        about = _of_exec(layout)
        if about is None or (name is not None and about.name not in ("", name)):
            continue
        if word == "auto" and not _is_unfinished(layout):
            continue
        # The word itself also tells of larger experiments beside it; but it may mean that of another script.
        is_first = experiments(layout.directory)[:1] == [layout.experiment_id]
        return about._replace(word=word if is_first else layout.experiment_id)
    if word == "auto":
        return None
    where = ", ".join(str(place) for place in places[:3]) or os.path.join("data", "outputs")
    raise OwnOptionError(
        f"no experiment of longhaul exec to resume in {where}; start one: longhaul exec ... -- COMMAND"
    )


def latest_finished(name: str | None, output: str | None) -> KnownExperiment | None:
    """The latest experiment of longhaul exec, if nothing of it is left."""
    try:
        target = find_target("latest", name, output)
        found = known_exactly(target.layout) if target is not None else None
    except LonghaulError:
        return None
    return found if found is not None and not found.left else None


def _places(name: str | None, output: str | None) -> list[Path]:
    """The directories that may hold such experiments."""
    given = output or os.environ.get("LONGHAUL_OUTPUT")
    if given:
        return [Path(os.path.abspath(os.path.expanduser(given)))]
    root = Path(os.path.abspath(os.path.join("data", "outputs")))
    if name is not None:
        return [root / name]
    try:
        return sorted(path for path in root.iterdir() if (path / "logs").is_dir())
    except OSError:
        return []


def _by_id(experiment_id: str, places: list[Path]) -> CommandTarget:
    layouts = [layout for place in places if (layout := Layout(place, experiment_id)).exists()]
    ours = [about for layout in layouts if (about := _of_exec(layout)) is not None]
    if len(ours) == 1:
        return ours[0]._replace(word=experiment_id)
    if ours:
        raise OwnOptionError(
            f"{experiment_id} is in {' and '.join(str(one.layout.directory) for one in ours)}: choose by --name"
        )
    if layouts:
        raise OwnOptionError(f"{experiment_id} was not made by longhaul exec; its own script resumes it")
    known = [Layout(place, one) for place in places for one in experiments(place)]
    if any(about.name == experiment_id for about in map(_of_exec, known) if about is not None):
        hint = f"that is a name: {pasted(['--name', experiment_id])} --resume latest"
    elif known:
        hint = f"there are: {', '.join(layout.experiment_id for layout in known[:5])}"
    else:
        hint = f"there is none in {', '.join(map(str, places[:3])) or 'data/outputs'}"
    raise OwnOptionError(f"no experiment {experiment_id!r}; {hint}")


def _of_exec(layout: Layout) -> CommandTarget | None:
    """None for the experiment of a script, or one whose files cannot be used."""
    header = peek(Disk(), layout.checkpoint)
    if header is not None and header.run_started is not None:
        entry, name, settings = header.run_started.entry, header.name, header.settings
    else:  # it was killed before there was a checkpoint
        from supervisor.storage.recovery.survey import survey

        try:
            found = survey(layout)
        except LonghaulError:
            return None
        started = found.history.run_started
        entry = started.entry if started is not None else {}
        name, settings = found.name, found.history.settings
        found.close()
    if entry.get("function") != _FUNCTION:
        return None
    return CommandTarget(layout, name or DEFAULT_NAME, settings, layout.experiment_id)


def _is_unfinished(layout: Layout) -> bool:
    try:
        return known_exactly(layout).left > 0
    except LonghaulError:
        return False
