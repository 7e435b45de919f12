"""The page's server as a user starts it, for tests: asked directly, or opened in a browser."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.experiment_fixture import PATIENCE, ROOT
from tests.page.browser import DESKTOP


class Served(NamedTuple):
    """key: of the first experiment. said: what it has printed."""

    process: subprocess.Popen[str]
    port: int
    token: str
    key: str
    said: list[str]
    reader: threading.Thread

    @property
    def address(self) -> str:
        return self.said[0].strip()

    def ask(
        self, method: str, path: str, *, token: str | None = "", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """token: "" for the right one, None for none. Headers: `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        if token is not None:
            connection.putheader("X-Longhaul-Token", token or self.token)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, found, text

    def get(self, path: str) -> Any:
        status, _, text = self.ask("GET", f"/api/{path}")
        assert status == 200, text
        return json.loads(text)

    def of(self, path: str) -> Any:
        """Of the first experiment."""
        return self.get(f"x/{self.key}/{path}")


def served(folder: Path, *options: str) -> Served:
    command = [sys.executable, "-m", "supervisor", "web", "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    reader = threading.Thread(target=lambda: said.extend(process.stdout or []), daemon=True)
    reader.start()
    address, _, token = said[0].strip().partition("#t=")
    port = int(address.split(":")[2].split("/")[0])
    found = Served(process, port, token, "", said, reader)
    entries = found.get("experiments")["experiments"]
    return found._replace(key=entries[0]["key"] if entries else "")


def end(found: Served) -> None:
    found.process.terminate()
    assert found.process.wait(PATIENCE) == 0
    found.reader.join(PATIENCE)
    assert found.process.stdout is not None
    found.process.stdout.close()


@contextmanager
def viewed(
    browser: Any,
    server: Served,
    query: str = "",
    *,
    size: dict[str, int] = DESKTOP,
    dark: bool = False,
    **more: Any,
) -> Iterator[Any]:
    """A page of the browser that has the token. At its end it must have said nothing, nor asked elsewhere."""
    base = f"http://127.0.0.1:{server.port}/"
    context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", **more)
    said: list[str] = []
    try:
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((base, "data:", "blob:")) else said.append(asked.url),
        )
        page.goto(f"{base}{query}#t={server.token}")
        page.wait_for_selector("html[data-ready]", state="attached", timeout=30_000)
        yield page
        assert said == [], said
    finally:
        context.close()
