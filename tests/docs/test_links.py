"""What the documents refer to exists: links, headings, files, names in the source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conftest import ARCHITECTURE, README, ROOT, prose

SURVIVAL = ROOT / "docs" / "what-survives-what.md"
STEERING = ROOT / "docs" / "steering-a-run.md"
BOUNDS = ROOT / "docs" / "bounds-and-retries.md"
MORNING = ROOT / "docs" / "the-morning-after.md"
LONG_JOBS = ROOT / "docs" / "long-jobs.md"
BETWEEN = ROOT / "docs" / "between-jobs.md"
RESULTS = ROOT / "docs" / "result-files.md"
COMING = ROOT / "docs" / "coming-from-a-loop.md"
SCHEDULERS = ROOT / "docs" / "slurm-systemd-cron.md"
DOCUMENTS = (
    README,
    ARCHITECTURE,
    ROOT / "CHANGELOG.md",
    SURVIVAL,
    BOUNDS,
    STEERING,
    MORNING,
    LONG_JOBS,
    BETWEEN,
    COMING,
    RESULTS,
    SCHEDULERS,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"(?:supervisor|workers|tools|examples|tests)/[\w./-]+")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?")


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


def test_the_names_in_the_architecture_are_those_of_the_source() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("supervisor", "workers", "tools", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    words = set(re.findall(r"\w+", source))
    named = {code for code in _CODE.findall(prose(ARCHITECTURE)) if _NAME.fullmatch(code)}
    unknown = {name for name in named if not set(re.findall(r"\w+", name)) <= words}
    assert unknown == set()


def test_every_line_of_what_survives_what_names_a_test_that_there_is() -> None:
    text = SURVIVAL.read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert all("::test_" in row for row in rows)
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
