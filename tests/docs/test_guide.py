"""docs/guide.md is run from top to bottom, and so are the pages that go on with its script."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT, blocks, commands, longhaul, run_python

GUIDE = DOCS / "guide.md"
OPTIONS = DOCS / "options.md"
JOBS = DOCS / "jobs.md"
NOTEBOOKS = DOCS / "notebooks.md"
COMMANDS = DOCS / "commands.md"
PAGES = (GUIDE, OPTIONS, JOBS, NOTEBOOKS, COMMANDS)
SCRIPTS = {block.file: block.text for page in PAGES for block in blocks(page, "python") if block.file}
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that holds all scripts of these pages."""
    path = tmp_path_factory.mktemp("guide")
    for name, text in SCRIPTS.items():
        (path / name).write_text(text)
    return path


def test_every_python_block_is_a_whole_file_or_the_cell() -> None:
    assert len(SCRIPTS) + 1 == sum(len(blocks(page, "python")) for page in PAGES) >= 6
    for text in SCRIPTS.values():
        ast.parse(text)


def test_the_commands_do_what_is_shown(folder: Path) -> None:
    """In the order of the page: pilot, all tasks, more jobs, repairs."""
    found = commands(GUIDE)
    assert {words[0] for words in found} == {"python"}
    said = [run_python(folder, *words[1:]) for words in found]
    assert "3 of 9 tasks, one per domain" in said[0]
    assert "5 completed, 0 failed" in said[1]
    assert "9 completed, 0 failed" in said[2]
    assert any("nothing was recorded" in text for text in said)
    assert "4 passed" in said[-1]
    assert len(said) >= 10


def test_a_script_with_options_of_its_own(folder: Path) -> None:
    first, second = (words[1:] for words in commands(OPTIONS))
    run_python(folder, *first)
    assert (folder / "squares.txt").read_text() == "0 1 4\n"
    run_python(folder, *second)
    assert (folder / "squares.txt").read_text() == "0 1 4 9 16\n"


def test_what_no_command_starts_runs_as_well(folder: Path) -> None:
    started = {words[1] for page in (GUIDE, OPTIONS) for words in commands(page)}
    others = [name for name in SCRIPTS if name not in started and not name.startswith("test_")]
    assert set(others) == {"shared.py", "analyse.py"}
    run_python(folder, "walk.py", "--only", "1d/*")
    for name in others:
        run_python(folder, name)


def test_the_command_longhaul(folder: Path) -> None:
    (folder / "data" / "outputs").mkdir(parents=True, exist_ok=True)
    run_python(
        folder, "walk.py", "--output", "data/outputs/walk", "--experiment-id", "mine", "--only", "1d/10"
    )
    found = commands(COMMANDS)
    assert len(found) == 3 and {words[0] for words in found} == {"longhaul"}
    for words in found:
        code, said = longhaul(folder, *("data/outputs" if w == "DIR" else w for w in words[1:]))
        assert code == 0 and ("walk" in said or "mine" in said), said


@pytest.mark.filterwarnings("ignore")  # deprecations inside of Jupyter's own packages
def test_the_cell_of_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    (cell,) = (block.text for block in blocks(NOTEBOOKS, "python") if not block.file)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}, timeout=60).execute()
    shown = [output for output in notebook.cells[0].outputs if output.output_type == "execute_result"]
    assert "result.score" in shown[0]["data"]["text/plain"]
    assert shown[0]["data"]["text/plain"].count("completed") >= 6


# ------------------------------------------------------------------------------- names


def test_every_option_is_in_the_table(folder: Path) -> None:
    text = OPTIONS.read_text(encoding="utf-8")
    options = set(_OPTION.findall(run_python(folder, "walk.py", "--help")))
    assert len(options) > 40
    assert {option for option in options if f"`{option}" not in text} == set()
