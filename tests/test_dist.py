"""The source archive and the wheel: what they contain, and that the installed wheel works."""

from __future__ import annotations

import ast
import email
import email.message
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("supervisor", "workers")
# Imported only in a notebook, by who asks for a data frame, by the page, on a cluster, or where a library with threads
# has brought it.
OPTIONAL = {"IPython", "pandas", "ray", "threadpoolctl", "anyio", "h11", "starlette", "uvicorn"}
# From the extra `dev`. A folder named build/ could be imported, so ask for what is installed.
NEEDED = {"build": (1, 2), "pip": (22, 3), "setuptools": (77,)}

SCRIPT = """
import workers
from supervisor import Job, main

def evaluate(n):
    return [n * n, workers.__file__]

if __name__ == "__main__":
    jobs = [Job(id=f"{domain}/{n}", domain=domain, params={"n": n}) for domain in "ab" for n in range(3)]
    main(evaluate, jobs, name="squares", workers=2)
"""


def _installed(name: str) -> tuple[int, ...]:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


for _name, _least in NEEDED.items():
    if _installed(_name) < _least:
        _wanted = ".".join(map(str, _least))
        pytest.skip(
            f"{_name} {_wanted} or newer, of the extra dev, is not installed", allow_module_level=True
        )


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """What the command prints. It does not find the packages of the repository, nor settings of pip."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _not_in_a_clone(folder: str, names: list[str]) -> set[str]:
    """What .gitignore names, and hidden folders."""
    found = {name for name in names if name.startswith(".") or name == "__pycache__"}
    if Path(folder) == ROOT:
        found.update(name for name in names if name in {"build", "dist"} or name.endswith(".egg-info"))
    if Path(folder) == ROOT / "data":
        found.update(name for name in names if not name.endswith(".jsonl"))
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source archive and the wheel, which is built from the archive.

    They are built from a copy, so that the work tree stays as it is, and without the network.
    """
    folder = tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, folder / "clone", ignore=_not_in_a_clone)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist"], folder / "clone")
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    (found,) = dist.glob("*.tar.gz")
    return found


def source_files() -> set[str]:
    """All files of the packages, relative to the repository: modules of each sub-package, py.typed."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_string(archive.read(name).decode())


def test_the_wheel_has_all_files_of_the_packages_and_no_others(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    files = {name for name in names if ".dist-info/" not in name}
    assert files == source_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= files
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_source_archive_has_what_the_wheel_is_built_from(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert source_files() | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= files
    assert {path.partition("/")[0] for path in files} & {"tests", "tools", "data"} == set()
    assert [path for path in files if path.endswith((".pyc", ".pyo"))] == []


def test_the_metadata_is_complete(wheel: Path) -> None:
    fields = metadata(wheel)
    assert fields["Name"] == "longhaul"
    assert fields["License-Expression"] == "MIT"
    assert fields.get_all("License-File") == ["LICENSE", "supervisor/page/assets/vendor/uPlot.LICENSE"]
    assert fields["Author"] == "longhaul contributors"
    assert fields["Summary"]
    assert fields["Keywords"]
    assert fields["Requires-Python"] == ">=3.11"
    assert fields["Description-Content-Type"] == "text/markdown"
    assert str(fields.get_payload()).startswith("# longhaul")
    assert "Typing :: Typed" in fields.get_all("Classifier", [])


def imported_modules(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_required(wheel: Path) -> None:
    """Also what only a longer run imports; each requirement is called like its module."""
    with zipfile.ZipFile(wheel) as archive:
        modules = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    imported = {name for source in modules for name in imported_modules(source)}
    required = map(Requirement, metadata(wheel).get_all("Requires-Dist", []))
    names = {requirement.name for requirement in required if requirement.marker is None}
    assert imported - set(sys.stdlib_module_names) - set(PACKAGES) - OPTIONAL == names


def test_twine_accepts_both(dist: Path) -> None:
    if _installed("twine") < (6, 1):
        pytest.skip("twine 6.1 or newer, of the extra dev, is not installed")
    run([sys.executable, "-m", "twine", "check", "--strict", *sorted(dist.iterdir())], dist)


def _add_required(names: Iterable[str], found: dict[str, importlib.metadata.Distribution]) -> None:
    """Adds to `found` what these requirements name, and what is required by that, without extras."""
    for requirement in map(Requirement, names):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        name = canonicalize_name(requirement.name)
        if wanted and name not in found:
            found[name] = importlib.metadata.distribution(name)
            _add_required(found[name].requires or [], found)


@pytest.fixture
def venv(wheel: Path, tmp_path: Path) -> Path:
    """A fresh virtual environment with the wheel and what it requires, and nothing else.

    What it requires is linked from this Python's environment, so that no network is needed. pip then
    finds each requirement satisfied, or fails.
    """
    folder = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", folder], tmp_path)
    python = folder / "bin" / "python"
    site = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip()
    )
    required: dict[str, importlib.metadata.Distribution] = {}
    _add_required(metadata(wheel).get_all("Requires-Dist", []), required)
    for distribution in required.values():
        assert distribution.files, f"{distribution.name} has no list of its files"
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(str(distribution.locate_file(top)))
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-index", wheel], tmp_path)
    run([*pip, "check"], tmp_path)
    return folder


def test_an_experiment_runs_and_resumes_where_only_the_wheel_is_installed(
    venv: Path, wheel: Path, tmp_path: Path
) -> None:
    python, longhaul = venv / "bin" / "python", venv / "bin" / "longhaul"
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "squares.py").write_text(SCRIPT, encoding="utf-8")

    assert run([longhaul, "--version"], folder).split() == ["longhaul", metadata(wheel)["Version"]]

    run([python, "squares.py", "--experiment-id", "night"], folder)
    (line,) = run([longhaul, "list"], folder).splitlines()[1:]
    assert line.split()[:2] == ["night", "pilot"]

    # A file with the name of a module of the library: all our modules are imported at once, those of extras as well,
    # whose dependencies are not installed.
    (folder / "queue.py").write_text("raise AssertionError('nobody has asked for it')\n", encoding="utf-8")
    # The other way to start workers: here each of them runs its first module by the path of its file.
    run([python, "squares.py", "--resume", "latest", "--all-tasks", "--start-method", "spawn"], folder)
    (line,) = run([longhaul, "list"], folder).splitlines()[1:]
    assert line.split()[:5] == ["night", "finished", "6", "of", "6"]

    printed = run([longhaul, "results", "night", "--format", "jsonl"], folder)
    results = {row["job"]: row["result"] for row in map(json.loads, printed.splitlines())}
    assert {job: result[0] for job, result in results.items()} == {
        f"{domain}/{n}": n * n for domain in "ab" for n in range(3)
    }
    assert all(Path(result[1]).is_relative_to(venv) for result in results.values())

    run([longhaul, "report", "night", "-o", "night.html"], folder)
    assert "All 6 jobs completed" in (folder / "night.html").read_text(encoding="utf-8")
