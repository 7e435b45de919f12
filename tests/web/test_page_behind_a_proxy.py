"""The page through a reverse proxy under a path, over TCP and over a Unix socket; and as `--open` opens it."""

from __future__ import annotations

import http.client
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.experiment_fixture import PATIENCE, ROOT, wait_for
from tests.web.serving import end, served

SCRIPT = """
from supervisor import Job, main

def evaluate(n):
    return {"score": n}

if __name__ == "__main__":
    main(evaluate, [Job(id=f"job/{n}", params={"n": n}) for n in range(3)], workers=1, all_tasks=True, name="night")
"""
PATH = "/lab/night"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("starlette")
    made = tmp_path_factory.mktemp("proxied")
    (made / "exp.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "exp.py", "--experiment-id", "night"]
    subprocess.run(command, cwd=made, env=environment, check=True, capture_output=True)
    return made


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Proxy:
    """Passes on what comes under `PATH`, without that path if `strips`; Host and all other headers as they are. slash:
    `PATH` itself is not the page."""

    def __init__(self, *, strips: bool = True, slash: bool = True) -> None:
        self.asked: list[str] = []
        self.connect: Callable[[], http.client.HTTPConnection] = lambda: http.client.HTTPConnection("0")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                proxy.asked.append(f"{self.command} {self.path} {self.headers.get('Referer', '')}")
                path = (self.path.removeprefix(PATH) or "/") if strips else self.path
                if not self.path.startswith(f"{PATH}/" if slash else PATH):
                    self.send_error(404)
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream = proxy.connect()
                upstream.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                text = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                upstream.close()

            def log_request(self, *_: Any) -> None:
                pass

        for method in ("GET", "POST"):
            setattr(Handler, f"do_{method}", Handler.handle_any)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def looked_at(browser: Any, proxy: Proxy, token: str) -> None:
    """The list, a job by clicks, and back; everything by addresses below `PATH`."""
    context = browser.new_context()
    said: list[str] = []
    try:
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("response", lambda given: said.append(given.url) if given.status >= 400 else None)
        page.goto(f"http://127.0.0.1:{proxy.port}{PATH}/#t={token}")
        page.locator("td[data-label=name] a").click()
        page.locator("header .state", has_text="finished").wait_for()
        page.keyboard.press("2")
        page.get_by_role("link", name="job/1").click()
        page.locator("main h2", has_text="job/1").wait_for()
        for key, waited in (("4", "#lanes canvas"), ("5", "#results tbody tr"), ("6", "pre.log")):
            page.keyboard.press(key)
            page.wait_for_selector(waited)
        page.go_back()
        page.wait_for_selector("#results tbody tr")
        page.reload()
        page.wait_for_selector("#results tbody tr")
        assert page.evaluate("location.pathname") == f"{PATH}/"
        told = page.evaluate(
            """async () => {
                const token = sessionStorage.getItem(Object.keys(sessionStorage)[0]);
                const key = new URLSearchParams(location.search).get("x");
                const headers = { "X-Longhaul-Token": token };
                const body = '{"order": "pause"}';
                return (await fetch(`api/x/${key}/orders`, { method: "POST", body, headers })).status;
            }"""
        )
        assert told == 409  # it came through, and nobody runs it
        assert [one for one in said if "409" not in one and not one.endswith("/orders")] == []
        assert token not in " ".join(proxy.asked)
    finally:
        context.close()


def test_under_a_path(browser: Any, folder: Path) -> None:
    proxy = Proxy()
    server = served(folder, "--allow-host", f"127.0.0.1:{proxy.port}")
    proxy.connect = lambda: http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        looked_at(browser, proxy, server.token)
    finally:
        end(server)
        proxy.close()


def test_under_a_path_and_over_a_socket(browser: Any, folder: Path, tmp_path: Path) -> None:
    proxy = Proxy()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "supervisor", "web", "--socket"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        token = process.stdout.readline().strip().partition("#t=")[2]
        process.stdout.readline()
        path = process.stdout.readline().split()[3].partition(":")[2]
        proxy.connect = lambda: _OverSocket(path)
        looked_at(browser, proxy, token)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()
        proxy.close()


def test_a_path_that_the_proxy_leaves_there_leads_nowhere_and_tells_nothing(folder: Path) -> None:
    proxy = Proxy(strips=False)
    server = served(folder, "--allow-host", f"127.0.0.1:{proxy.port}")
    proxy.connect = lambda: http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        for path in ("/", "/api/experiments", f"/api/x/{server.key}/live"):
            connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=PATIENCE)
            connection.request("GET", PATH + path)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 404 and b"takes the path away" in text and b"night" not in text
            connection.close()
    finally:
        end(server)
        proxy.close()


def test_a_path_without_its_slash_says_that_it_is_missing(browser: Any, folder: Path) -> None:
    """Relative addresses lead elsewhere there, and neither the server nor its policy can tell the browser so: nothing
    arrives but the text. With the slash, the same address works."""
    proxy = Proxy(slash=False)
    server = served(folder, "--allow-host", f"127.0.0.1:{proxy.port}")
    proxy.connect = lambda: http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    context = browser.new_context()
    try:
        page = context.new_page()
        words = page.get_by_text("its address must end with a slash")
        page.goto(f"http://127.0.0.1:{proxy.port}{PATH}#t={server.token}")
        words.wait_for()
        box = words.bounding_box()
        assert box is not None and box["height"] > 10 and box["width"] > 100  # it is seen
        page.goto(f"http://127.0.0.1:{proxy.port}{PATH}/#t={server.token}")
        page.locator("td[data-label=name] a").wait_for()
        assert words.count() == 0
    finally:
        context.close()
        end(server)
        proxy.close()


def test_open_shows_the_token_to_nobody_else(folder: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nprintf "%s" "$*" > {tmp_path}/words.new\nmv {tmp_path}/words.new {tmp_path}/words\n'
    )
    browser.chmod(0o755)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BROWSER": str(browser),
        "XDG_RUNTIME_DIR": str(runtime),
    }
    command = [sys.executable, "-m", "supervisor", "web", "night", "--port", "0", "--open"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        wait_for((tmp_path / "words").exists, "the browser is called")
        words = (tmp_path / "words").read_text()
        assert re.fullmatch(r"file:///\S+\.html", words) and address.partition("#t=")[2] not in words
        opened = Path(words.removeprefix("file://"))
        assert f'content="0;url={address}"' in opened.read_text()
        assert stat.S_IMODE(opened.stat().st_mode) == 0o600
        assert stat.S_IMODE(opened.parent.stat().st_mode) == 0o700
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert not opened.exists()
