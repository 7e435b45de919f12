"""The scripts and styles of pages: whose they are, that nothing in them leads outside, that they can be bundled."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from supervisor.page.page_assets import MODULES, STYLES, VENDOR, bundled, library, library_licence, styles

ASSETS = Path(__file__).resolve().parent.parent.parent / "supervisor" / "page" / "assets"
# uPlot 1.6.32, as it was published. A new version is a new checksum here, and a look at what has changed.
CHECKSUMS = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.mjs";$', re.MULTILINE)
TOP = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
EXPORTED = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)


def text_of(module: str) -> str:
    return (ASSETS / f"{module}.mjs").read_text(encoding="utf-8")


def test_the_library_is_the_published_one() -> None:
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (ASSETS / "vendor").iterdir()
    }
    assert there == CHECKSUMS
    assert library_licence().startswith("The MIT License")
    assert "Copyright (c) 2022 Leon Sorokin" in library()[:200]


def test_every_asset_is_used() -> None:
    assert {path.name for path in ASSETS.glob("*.*")} == {*(f"{name}.mjs" for name in MODULES), *STYLES[1:]}
    assert {*CHECKSUMS} == {VENDOR, "uPlot.LICENSE", STYLES[0].partition("/")[2]}


def test_nothing_leads_outside() -> None:
    for text in (bundled(), library(), styles()):
        assert re.findall(r"https?://|//cdn|@import|url\(", text) == []


def test_nothing_makes_html_of_text() -> None:
    """Text of an experiment becomes textContent; a module that made HTML of it would let it run."""
    for name in MODULES:
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
        assert re.findall(forbidden, text_of(name)) == [], name


def test_modules_can_be_one_script() -> None:
    names: Counter[str] = Counter()
    for place, name in enumerate(MODULES):
        text = text_of(name)
        names.update(TOP.findall(text))
        imports = IMPORT.findall(text)
        assert len(imports) == len(
            re.findall(r"\bimport\b(?!\()[^(]*? from ", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
        )
        for words, other in imports:
            assert MODULES.index(other) < place, f"{name} needs {other}, which comes later"
            exported = EXPORTED.findall(text_of(other))
            assert {word.strip() for word in words.split(",")} <= {*exported}, f"{name} from {other}"
    assert [name for name, times in names.items() if times > 1] == []
    assert not re.search(r"^(?:import|export)\b", bundled(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_node_can_read_each_module(tmp_path: Path) -> None:
    (tmp_path / "bundled.mjs").write_text(bundled(), encoding="utf-8")
    for path in (*ASSETS.glob("*.mjs"), tmp_path / "bundled.mjs"):
        done = subprocess.run(["node", "--check", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
