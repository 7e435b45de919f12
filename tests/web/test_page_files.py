"""The files of the page: each is served, nothing in them leads outside or makes HTML of a text, and they are small."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.web.page_files import BUNDLES, OWN, OWN_STYLE, SHARED, module_text, own_asset, page_files
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
    for bundle in BUNDLES:
        text = page_files()[f"{bundle[-1]}.mjs"].content.decode()
        assert {*IMPORTED.findall(text)} <= {*page_files()}, bundle


def test_modules_of_a_bundle_need_what_stands_before_them() -> None:
    everywhere = [name for bundle in BUNDLES for name in bundle]
    for bundle in BUNDLES:
        for name in bundle:
            for other in re.findall(r'^import .* from "\./(\w+)\.mjs";$', module_text(name), re.MULTILINE):
                assert everywhere.index(other) < everywhere.index(name), f"{name} needs {other}"


def test_nothing_leads_outside_or_makes_html_of_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    )
    for name in (*OWN, "index.html"):
        text = own_asset(name if "." in name else f"{name}.mjs").replace('"http://www.w3.org/2000/svg"', "")
        assert re.findall(rf"https?://|//cdn|@import|url\(|{forbidden}", text) == [], name
    assert "style=" not in own_asset("index.html") and "<script>" not in own_asset("index.html")


def test_all_of_it_is_small_and_most_of_it_is_loaded_when_it_is_wanted() -> None:
    """The design's limits: 150 KB, 60 KB as they are sent."""
    served = {name: file for name, file in page_files().items() if "LICENSE" not in name}
    assert sum(len(file.content) for file in served.values()) <= 150 * 1024
    assert sum(len(file.packed) for file in served.values()) <= 60 * 1000
    at_once = {"index.html", "web.mjs", *re.findall(r'href="assets/([^"]+)"', own_asset("index.html"))}
    assert not re.search(r'from"', served["web.mjs"].content.decode())
    assert sum(len(served[name].content) for name in at_once) < 55_000
    assert sum(len(served[name].packed) for name in at_once) < 20_000


def test_what_is_packed_is_the_same() -> None:
    for file in page_files().values():
        assert gzip.decompress(file.packed) == file.content


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_can_read_each_script_as_it_is_served(tmp_path: Path) -> None:
    for bundle in BUNDLES:
        path = tmp_path / f"{bundle[-1]}.mjs"
        path.write_bytes(page_files()[path.name].content)
        done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
