"""Hooks of mkdocs: some documents beside docs/ become pages of the site, and links to files of the source, which the
site does not have, become plain text."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
INSTEAD = {"README.md": "index.md", **PAGES}  # where a link leads to
# How much the search of the site favours a page; any other page: 1. A reader looks for an option more often than
# for what was tried for speed.
BOOST = {
    "options.md": 4.0,
    "commands.md": 2.0,
    **dict.fromkeys(("architecture.md", "changelog.md", "developing.md", "performance.md"), 0.2),
    **dict.fromkeys(("contributing.md", "performance-log.md", "processes.md", "what-survives-what.md"), 0.2),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=with_links_of_the_site(text, "")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri in BOOST:
        page.meta["search"] = {"boost": BOOST[page.file.src_uri]}
    if page.file.src_uri in PAGES.values():
        return markdown  # done above
    return with_links_of_the_site(markdown, "docs")


def with_links_of_the_site(text: str, folder: str) -> str:
    """A document of this folder with the links that it has as a page of the site."""

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        name, hash_, anchor = target.partition("#")
        if not name or "://" in name:
            return match.group()
        path = posixpath.normpath(posixpath.join(folder, name))
        page = INSTEAD.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        return f"{picture}[{words}]({page}{hash_}{anchor})" if page else words

    return _LINK.sub(link, text)
