"""mkdocs.yml: the site is built without a warning, asks for nothing from elsewhere, and can be searched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import supervisor
import workers
from tests.docs.conftest import ROOT
from tests.page.browser import chromium, opened

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
NOT_FETCHED = {"canonical", "next", "prev"}  # relations that a browser only knows of


class Fetched(HTMLParser):
    """The addresses of what a page makes a browser ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in FETCHED and found.get("rel") not in NOT_FETCHED:
            self.addresses.append(found.get(FETCHED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        addresses = Fetched(page.read_text(encoding="utf-8")).addresses
        assert addresses, page
        elsewhere = [one for one in addresses if re.match(r"(https?:)?//", one)]
        assert elsewhere == [], page
        for one in addresses:
            here = ROOT if one.startswith("/") else page.parent
            found = (here / one.split("?")[0].split("#")[0]).exists()
            assert found or page.name == "404.html" or one.startswith("data:"), (page, one)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet
        assert "@import" not in sheet.read_text(encoding="utf-8"), sheet


def test_it_can_be_searched_also_from_a_disk(site: Path) -> None:
    text = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    found = json.loads(text.removeprefix("var __index = "))["docs"]
    pages = {entry["location"].partition("#")[0] for entry in found}
    assert pages >= {page.name for page in site.glob("*.html")} - {"404.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


IS_AMONG_THE_FIRST = """([page, within]) => [...document.querySelectorAll('.md-search-result__item')]
    .slice(0, within).some(item => item.querySelector('a').href.includes('/' + page))"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "page", "within"),
    [
        (
            "--only",
            "options.html",
            2,
        ),  # an English word that a search leaves out, after what it takes for "without"
        ("longhaul --retry-failed", "options.html", 3),
        ("raise_for_failures", "coming-from-a-loop.html", 3),  # there it stands in code only
        ("checkpoint", "files.html", 1),  # before what was tried for speed
        ("kill -9", "promises.html", 3),
    ],
)
def test_a_browser_finds_what_is_typed_on_pages_from_a_disk(
    site: Path, browser: Any, words: str, page: str, within: int
) -> None:
    with opened(browser) as seen:
        shown = seen.open(site / "guide.html")
        shown.click(".md-search__input")
        shown.keyboard.type(words)
        shown.wait_for_function(IS_AMONG_THE_FIRST, arg=[page, within], timeout=30_000)


def test_the_api_has_what_can_be_imported(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in (*set(supervisor.__all__) - {"Interrupted"}, *set(workers.__all__) - {"Interrupted"}):
        assert re.search(rf'<h3 id="[\w.]+\.{name}"', text), name
    assert (
        re.search(r"<code[^>]*>workers=6</code>", text)
        and 'id="supervisor.reports.report.Report.rows"' in text
    )


def test_docstrings_become_sections_of_google() -> None:
    pytest.importorskip("griffe", reason="griffe is not installed")
    from tools.docs_site.docstrings import in_google_style

    text = "What.\n\nParameters\n----------\na, b: one,\n    two.\nc: three.\n\nRaises ValueError.\n"
    assert in_google_style(text) == (
        "What.\n\nParameters:\n    a, b: one,\n        two.\n    c: three.\n\nRaises ValueError.\n"
    )
    assert "Attributes:\n    a, b" in in_google_style(text, is_struct=True)
    listed = in_google_style("What.\n\nSettings\n--------\nOf all.\n\nworkers=6: how many.\n")
    assert listed == "What.\n\n**Settings.** Of all.\n\n- `workers=6`: how many.\n"


def test_each_page_stands_in_the_menu_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = re.findall(r"[\w-]+\.md$", text, re.MULTILINE)
    assert len(pages) == len(set(pages)) > 30


def test_code_in_a_line_is_shown_as_it_is_written(site: Path) -> None:
    text = (site / "coming-from-gnu-parallel.html").read_text(encoding="utf-8")
    assert "<code>:::: list</code>" in text and "<code>{#}</code>" in text
