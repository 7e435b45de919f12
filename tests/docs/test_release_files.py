"""The files that a project has beside its code say the same as the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.core.terms.version import VERSION
from tests.docs.conftest import ROOT

TEMPLATES = ROOT / ".github" / "ISSUE_TEMPLATE"
_RELEASE = re.compile(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d{2}-\d{2})\)$", re.MULTILINE)
_MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
# What the hooks leave out of `make check`: it asks for node, which need not be there.
NOT_HOOKED = ("node",)


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    _, _, rest = (ROOT / "Makefile").read_text().partition(f"\n{target}:")
    lines = rest.splitlines()[1:]
    end = next((number for number, line in enumerate(lines) if not line.startswith("\t")), len(lines))
    return [line.strip() for line in "\n".join(lines[:end]).replace("\\\n", " ").splitlines()]


def test_the_newest_release_is_the_version_of_the_code() -> None:
    releases = _RELEASE.findall((ROOT / "CHANGELOG.md").read_text())
    citation = loaded(ROOT / "CITATION.cff")
    assert releases[0] == (VERSION, str(citation["date-released"]))
    assert citation["version"] == VERSION
    assert releases == sorted(releases, key=lambda release: release[1], reverse=True)


def test_a_commit_is_held_to_what_make_check_runs() -> None:
    hooks = {
        hook["entry"] for repo in loaded(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    }
    commands = [
        re.sub(r"^@?\$\(BIN\)/", ".venv/bin/", command).removesuffix(" .")
        for command in recipe("check")
        if not any(f"command -v {name}" in command for name in NOT_HOOKED)
    ]
    assert len(commands) >= 5
    as_hooks = {re.sub(r"^@?\$\(MAKE\) --no-print-directory", "make", command) for command in commands}
    assert as_hooks <= hooks


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "SECURITY.md", "docs/developing.md"])
def test_targets_of_make_that_are_named_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = (ROOT / document).read_text()
    named = {
        name
        for code in re.findall(r"`[^`\n]+`|^make .*$", text, re.MULTILINE)
        for name in _MAKE.findall(code)
    }
    assert named - targets == set()


@pytest.mark.parametrize("template", sorted(path.name for path in TEMPLATES.glob("*_*.yml")))
def test_templates_ask_for_something(template: str) -> None:
    form = loaded(TEMPLATES / template)
    assert form["name"] and form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    identities = [part["id"] for part in fields]
    assert len(identities) == len(set(identities))
    assert all(part["attributes"]["label"] for part in fields)
    assert any(part.get("validations", {}).get("required") for part in fields)
