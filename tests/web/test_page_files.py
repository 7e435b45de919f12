"""The files of the page: each is served, nothing in them leads outside or makes HTML of a text, and they are small."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.web.page_files import OWN, OWN_STYLE, SHARED, own_asset, page_files
from tests.experiment_fixture import ROOT

ASSETS = ROOT / "supervisor" / "web" / "assets"
IMPORTED = re.compile(r'(?:from |import\()"\./([\w./]+)"')


def test_every_file_is_served() -> None:
    assert {path.name for path in ASSETS.iterdir()} == {
        *(f"{name}.mjs" for name in OWN),
        OWN_STYLE,
        "index.html",
    }
    assert not {*OWN} & {*SHARED}


def test_what_is_imported_is_there() -> None:
    for name in (*OWN, *SHARED):
        text = page_files()[f"{name}.mjs"][0].decode()
        assert {*IMPORTED.findall(text)} <= {*page_files()}, name


def test_nothing_leads_outside_or_makes_html_of_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    )
    for name in (*OWN, "index.html"):
        text = own_asset(name if "." in name else f"{name}.mjs").replace('"http://www.w3.org/2000/svg"', "")
        assert re.findall(rf"https?://|//cdn|@import|url\(|{forbidden}", text) == [], name
    assert "style=" not in own_asset("index.html") and "<script>" not in own_asset("index.html")


def test_all_of_it_is_small_and_most_of_it_is_loaded_when_it_is_wanted() -> None:
    served = {name: text for name, (text, _) in page_files().items() if "LICENSE" not in name}
    at_once, found = ["web.mjs"], {"index.html", "page.css", OWN_STYLE, "vendor/uPlot.min.css"}
    while at_once:
        name = at_once.pop()
        found.add(name)
        at_once += {*re.findall(r'from "\./([\w.]+)"', served[name].decode())} - found
    assert sum(len(served[name]) for name in found) < 80_000
    assert "lanes.mjs" not in found and "scatter.mjs" not in found
    assert sum(map(len, served.values())) < 180_000
    assert sum(len(gzip.compress(text, 4)) for text in served.values()) < 72_000


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_can_read_each_module_as_it_is_served(tmp_path: Path) -> None:
    for name in (*OWN, *SHARED):
        path = tmp_path / f"{name}.mjs"
        path.write_bytes(page_files()[path.name][0])
        done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
