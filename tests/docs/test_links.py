"""What the documents refer to exists: links, headings, files, names in the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conftest import ARCHITECTURE, README, ROOT, prose
from tests.test_layering import ROOMS

SURVIVAL = ROOT / "docs" / "what-survives-what.md"
# These speak of the source, and of names in it.
OF_THE_SOURCE = (
    ARCHITECTURE,
    ROOT / "docs" / "processes.md",
    ROOT / "docs" / "developing.md",
    ROOT / "docs" / "performance-log.md",
)
DOCUMENTS = tuple(sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"))))
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"(?:supervisor|workers|tools|examples|tests)/[\w./-]+")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")
_MODULE = re.compile(r"[a-z_]+(?:/[a-z_]+)+/?")  # a room and a module or room in it: recovery/repair
MOST_BYTES = 12_000  # of the architecture: one page


def anchors(document: Path) -> set[str]:
    """The ids that headings get on the usual forges."""
    headings = _HEADING.findall(prose(document))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in _LINK.findall(prose(document)):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    for name in _FILE.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / name.rstrip("./")).exists(), name


def test_every_test_that_the_makefile_names_exists() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"tests/[\w/]+(?:\.py)?(?:::\w+)?", text)
    assert len(named) > 10
    for name in named:
        file, _, test = name.partition("::")
        assert (ROOT / file).exists(), name
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_every_document_is_looked_at() -> None:
    assert {README, *OF_THE_SOURCE, SURVIVAL} < {*DOCUMENTS} and len(DOCUMENTS) > 30


@pytest.mark.parametrize("document", OF_THE_SOURCE, ids=lambda path: path.name)
def test_every_module_that_is_named_exists(document: Path) -> None:
    named = [code for code in _CODE.findall(prose(document)) if _MODULE.fullmatch(code)]
    assert named or document != ARCHITECTURE
    places = [path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.rglob("*") if is_ours(path)]
    for code in named:
        assert any(f"/{place}".endswith(f"/{code.rstrip('/')}") for place in places), code


def is_ours(path: Path) -> bool:
    """Whether this is a folder or a module of the project."""
    top = path.relative_to(ROOT).parts[0]
    return top in ("supervisor", "workers", "tools", "tests") and (path.is_dir() or path.suffix == ".py")


def test_the_architecture_is_one_page_that_names_every_room() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    picture = text.partition("```\n")[2].partition("```")[0]
    folders = [line.split()[0] for line in picture.splitlines()]
    rooms = [room.replace(".", "/") + "/" for room in ROOMS]
    top, listed = "", []
    for folder, line in zip(folders, picture.splitlines(), strict=True):
        top = top if line.startswith(" ") else folder
        listed.append(folder if folder == top else top + folder)
    assert listed == rooms


@pytest.mark.parametrize("document", OF_THE_SOURCE, ids=lambda path: path.name)
def test_the_names_of_the_source_are_those_that_it_has(document: Path) -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("supervisor", "workers", "tools", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    words = set(re.findall(r"\w+", source))
    named = {code for code in _CODE.findall(prose(document)) if _NAME.fullmatch(code)}
    unknown = {name for name in named if not set(re.findall(r"\w+", name)) <= words}
    assert unknown == set()


def test_every_line_of_what_survives_what_names_a_test_that_there_is() -> None:
    text = SURVIVAL.read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| event")]
    assert all("::test_" in row for row in rows)
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
