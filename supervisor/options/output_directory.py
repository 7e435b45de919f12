"""Where the files of an experiment go: `--output`, and which values of it are refused before anything is
started."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from pathlib import Path

from supervisor.core.terms.errors import CannotCreate, UsageError
from supervisor.options.script_options import spelled


def output_directory(
    output: str | None,
    name: str,
    arguments: Sequence[str] = (),
    taken: Container[str] = (),
    shared: Container[str] = (),
) -> Path:
    """`--output`, else LONGHAUL_OUTPUT, else data/outputs/<name>; absolute.

    Raises CannotCreate for a place where no directory can be, and UsageError for one that is called like a file
    where the script has read the option as well (`shared`): it means a file by it.
    """
    given = output or os.environ.get("LONGHAUL_OUTPUT")
    if given:
        _refuse_file(output, given, arguments, taken, shared)
    place = os.path.expanduser(given) if given else os.path.join("data", "outputs", name)
    try:
        return Path(os.path.abspath(place))
    except FileNotFoundError:
        raise CannotCreate(
            f"the directory that this was started in is deleted, so there is no place for {place}; "
            f"start it in another one, or give {spelled('--output', taken)} a path from the root."
        ) from None


# Endings of files that scripts write, which no directory of outputs is likely to have.
_FILES = (
    ".arrow .avro .csv .db .feather .gz .h5 .hdf5 .html .jpg .json .jsonl .log .md .ndjson .npy .npz .parquet .pdf "
    ".pickle .pkl .png .pt .pth .sqlite .svg .tar .tex .toml .tsv .txt .xlsx .xml .yaml .yml .zip "
)


def _refuse_file(
    output: str | None, place: str, arguments: Sequence[str], taken: Container[str], shared: Container[str]
) -> None:
    path = os.path.expanduser(place)
    given = (word.partition("=")[0] for word in reversed(arguments))
    names = (spelled("--output", taken), "--longhaul-output")
    option = next((word for word in given if word in names), "") if output is not None else ""
    own = (
        "If the script has an --output of its own, give main() its parser (parser=..., made with add_help=False): "
        "then --output is the script's alone, and longhaul's is --longhaul-output"
    )
    if os.path.exists(path) and not os.path.isdir(path):
        named = (
            f"{option} {place}" if option else f"output={output!r}" if output else f"LONGHAUL_OUTPUT={place}"
        )
        text = f"{named} is a file; longhaul needs a directory there, for all files of an experiment"
        raise CannotCreate(f"{text}. {own}" if option == "--output" else text)
    ending = os.path.splitext(path)[1].lower()
    if option in shared and ending and f"{ending} " in _FILES and not os.path.isdir(path):
        raise UsageError(
            f"--output {place} is called like a file; longhaul takes this option for the directory of all its "
            f"files. {own}. Else --longhaul-output {place} makes a directory of that name"
        )
