"""Finds the experiment and the job that a command names. Changes nothing."""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from supervisor.core.terms.errors import StorageError, UsageError
from supervisor.core.terms.experiment_id import check_id
from supervisor.core.terms.wording import one_line
from supervisor.reports.experiment_list import experiments, last_saved
from supervisor.reports.latest_experiment import larger_beside
from supervisor.storage.checkpoint.checkpoint_format import peek
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.system.text_encoding import as_typed
from supervisor.views.console import print_lines

_FILE = re.compile(r"(?:(?:journal|plan|checkpoint|progress|index)_(.+)\.jsonl?|console_(.+)\.log|lock_(.+))")
_GLOB = frozenset("*?[")
_SHOWN = 5
_DEFAULT = Path("data", "outputs")
_MOST_COMPARED = 20_000  # ids that are searched for the nearest one


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add `-d DIR`, the directory to search."""
    parser.add_argument(
        "-d",
        "--directory",
        type=Path,
        metavar="DIR",
        help="the outputs of one script, or of several (default: LONGHAUL_OUTPUT or data/outputs)",
    )


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add `[ID] [DIR]` and `-d DIR`, for commands about one experiment."""
    parser.add_argument(
        "experiment",
        nargs="?",
        default="latest",
        metavar="ID",
        help="an experiment, `latest`, a name or a directory: the latest one of that (default: latest)",
    )
    parser.add_argument("place", nargs="?", type=Path, metavar="DIR", help="the same as -d DIR")
    add_directory(parser)


def add_experiments(parser: argparse.ArgumentParser, words: str) -> None:
    """Add `[ID ...]` and `-d DIR`, for commands about several. `words`: what may be given."""
    text = f"{words} (default: latest)"
    parser.add_argument("experiments", nargs="*", default=["latest"], metavar="ID", help=text)
    add_directory(parser)


def add_job(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="JOB", help="its id, or a prefix or a pattern that only one id has")


def root_of(arguments: argparse.Namespace) -> Path:
    """The directory that was given, or the default one."""
    given: Path | None = arguments.directory or getattr(arguments, "place", None)
    return given or Path(os.environ.get("LONGHAUL_OUTPUT") or _DEFAULT)


def the_experiment(arguments: argparse.Namespace) -> Layout:
    """The experiment of the options of `add_experiment`. Raises UsageError."""
    root = root_of(arguments)
    try:
        return find_and_tell(arguments.experiment, root)
    except UsageError:
        job: str = getattr(arguments, "job", "")
        if job and root.is_dir() and (_called(job, root) or _named(job, root)):
            raise UsageError(
                f"{one_line(job)} is an experiment, and the job stands before it: "
                f"{one_line(arguments.experiment)} {one_line(job)}"
            ) from None
        raise


def find_and_tell(word: str, root: Path, *, names: bool = True) -> Layout:
    """`find`. If that is the latest experiment, and a small trial, stderr names the larger one that may have
    been meant."""
    layout = find(word, root, names=names)
    by_name = layout.experiment_id == Path(word).name or _of_file(Path(word)) is not None
    if not by_name and (found := larger_beside(layout)):
        taken, other = found
        text = f"latest is {taken.summary()}; there is also {other.summary()}: name it to look at that one"
        print_lines(sys.stderr, text)
    return layout


def experiment_words(arguments: argparse.Namespace, layout: Layout) -> list[str]:
    """The arguments that name this experiment in a suggested command."""
    if os.sep in arguments.experiment:
        return [str(layout.results_directory)]
    place = arguments.directory or arguments.place
    return [layout.experiment_id, *([str(place)] if place is not None else [])]


def search(root: Path) -> list[Path]:
    """`root`, and directories one level below, as far as they contain experiments. Raises UsageError."""
    try:
        below = sorted(path for path in root.iterdir() if os.path.isdir(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        said = f"{root.absolute()} is not a directory; give the output directory"
        if root == _DEFAULT and isinstance(error, FileNotFoundError):
            said = (
                f"there are no experiments here yet ({root.absolute()} is not there); "
                f"for those of another place give -d DIR"
            )
        raise UsageError(said) from None
    except OSError as error:
        raise UsageError(f"{root.absolute()} cannot be read: {error.strerror}") from None
    found = [path for path in (root, *below) if os.path.isdir(path / "logs")]
    if not found:
        for path in below:
            try:
                os.stat(path / "logs")
            except PermissionError as error:
                raise UsageError(f"{path.absolute()} cannot be read: {error.strerror}") from None
            except OSError:
                continue
    return found


def all_of(root: Path) -> list[Layout]:
    """Every experiment in `root` and one level below. A directory that cannot be read is skipped; if there is
    no other one, StorageError is raised."""
    directories = search(root)
    return [
        Layout(path, one)
        for path in directories
        for one in experiments_of(path, lenient=len(directories) > 1)
    ]


def experiments_of(directory: Path, *, lenient: bool) -> list[str]:
    try:
        return experiments(directory)
    except StorageError:
        if lenient:
            return []
        raise


def find(word: str, root: Path, *, names: bool = True) -> Layout:
    """The experiment that `word` means: an id, `latest`, a path of a directory or a file, or with
    `names` the name of experiments: the latest of them."""
    if os.sep in word or word in (".", ".."):
        return _by_path(Path(word))
    if word == "latest":
        return _latest(root)
    # A plain word is an id first; a directory of that name lies here only by chance. It may be that of the script.
    if Path(word).is_dir() and not (root.is_dir() and _is_an_id(word, root, names)):
        return _by_path(Path(word))
    own = _of_file(Path(word)) if names else None
    if own is not None and not (root.is_dir() and _called(word, root)):
        return own
    found = _called(word, root)
    if not found and names and (named := _named(word, root)):
        return max(named, key=last_saved)
    check_id(word)
    if not found:
        raise UsageError(f"no experiment {word!r} in {root.absolute()}; {_what_there_is(word, root, names)}")
    if len(found) > 1:
        places = ", ".join(str(layout.directory) for layout in found)
        raise UsageError(f"experiment {word!r} is in several places: {places}; choose one with -d DIR")
    return found[0]


def _is_an_id(word: str, root: Path, names: bool) -> bool:
    """Whether the word is an id rather than a directory of that name."""
    return bool(_called(word, root) or (names and not search(Path(word)) and _named(word, root)))


def _called(word: str, root: Path) -> list[Layout]:
    return [layout for path in search(root) if (layout := Layout(path, word)).exists()]


def _named(name: str, root: Path) -> list[Layout]:
    """The experiments of that name, by their directory or their checkpoint."""
    return [
        layout
        for layout in all_of(root)
        if layout.directory.name == name
        or ((header := peek(Disk(), layout.checkpoint)) is not None and header.name == name)
    ]


def _latest(root: Path) -> Layout:
    directories = search(root)
    newest = [
        Layout(path, one)
        for path in directories
        for one in experiments_of(path, lenient=len(directories) > 1)[:1]
    ]
    if not newest:
        raise UsageError(f"no experiments in {root.absolute()}; give the output directory with -d DIR")
    return max(newest, key=last_saved)


def _by_path(path: Path) -> Layout:
    """The experiment with this directory or file, or the latest one in it."""
    path = Path(os.path.abspath(path))
    if (own := _of_file(path)) is not None:
        return own
    layout = Layout(path.parent, path.name)
    return layout if layout.exists() else _latest(path)


def _of_file(path: Path) -> Layout | None:
    """The experiment that a file belongs to: by its name in `logs`, else by the folder that it lies in."""
    path = Path(os.path.abspath(path))
    if not path.is_file():
        return None
    if match := _FILE.fullmatch(path.name):
        return Layout(path.parent.parent, next(filter(None, match.groups())))
    layouts = (Layout(folder.parent, folder.name) for folder in path.parents)
    return next((layout for layout in layouts if layout.exists()), None)


def _what_there_is(word: str, root: Path, names: bool) -> str:
    if not names and (named := _named(word, root)):
        ids = [layout.experiment_id for layout in sorted(named, key=last_saved, reverse=True)]
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        return f"that is a name, which several may have, and an id is needed here: {', '.join(ids[:_SHOWN])}{more}"
    layouts = all_of(root)
    known = list(dict.fromkeys(layout.experiment_id for layout in layouts))
    if not known:
        return "there are none; give the output directory with -d DIR"
    called = dict.fromkeys(layout.directory.name for layout in layouts) if names else ()
    near = difflib.get_close_matches(word, [*known, *called], 1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known[:_SHOWN])}"


# --------------------------------------------------------------------------------- jobs


def find_job(word: str, ids: Sequence[str]) -> str:
    """The job that `word` means among `ids`: its id, or what only one id begins with or
    matches, or looks like in what we print. Raises UsageError with the nearest id, or with those that it could be."""
    if word in ids:
        return word
    word = as_typed(word)
    if word in ids:
        return word
    found = fnmatch.filter(ids, word) if _GLOB & set(word) else []
    found = found or [job_id for job_id in ids if job_id.startswith(word)]
    found = found or [job_id for job_id in ids if not job_id.isprintable() and one_line(job_id) == word]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(repr(job_id) for job_id in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UsageError(f"{word!r} could be {len(found)} jobs: {some}{more}; give more of the id")
    folded = {job_id.casefold(): job_id for job_id in ids[:_MOST_COMPARED]}
    hint = f"; ids look like {ids[0]!r}" if ids else ""
    if near := difflib.get_close_matches(word.casefold(), folded, 1, 0.4):
        hint = f"; the nearest id is {folded[near[0]]!r}"
    raise UsageError(f"no job {word!r} in this experiment{hint}")
