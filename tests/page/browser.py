"""A real browser for the tests: Debian's Chromium, driven by Playwright. Without either they are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}


def chromium() -> Iterator[Any]:
    """The body of a fixture: a browser for a whole module."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra dev, is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed; on Debian: apt install chromium")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Opened:
    """A page of the browser, and all that it said: console, errors, requests for anything but the file."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", self._requested)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.said.append(f"request: {request.url}")

    def open(self, path: Path, *, fragment: str = "") -> Any:
        self.page.goto(f"{path.absolute().as_uri()}{fragment}")
        return self.page

    def ready(self, path: Path, *, fragment: str = "") -> Any:
        """The page when everything is drawn."""
        self.open(path, fragment=fragment)
        self.page.wait_for_selector("html[data-ready]", state="attached", timeout=30_000)
        return self.page


@contextmanager
def opened(
    browser: Any, size: dict[str, int] = DESKTOP, *, dark: bool = False, **more: Any
) -> Iterator[Opened]:
    """A fresh page, which must have said nothing at its end."""
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", **more)
    try:
        page = Opened(context.new_page())
        yield page
        assert page.said == []
    finally:
        context.close()
