"""What the page costs: its answers, what a browser shows of it and when, and what the run beside it feels of it."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil

from tools.benchmark.child_processes import Bench, Failed, Numbers, cpu_seconds, end, start

OPENINGS = 5


def _page(bench: Bench, contender: str) -> Numbers:
    """`longhaul web` beside a small and a large night, asked as the page asks; nobody else uses the machine."""
    few, many = bench.sizes.reported
    found: Numbers = {}
    for prefix, jobs, workers in (("small_", few, 16), ("", many, 64)):
        output = bench.place()
        bench.child("long_history.py", json.dumps({"output": output, "jobs": jobs, "workers": workers}))
        found |= {f"{prefix}{name}": value for name, value in _page_once(output, jobs).items()}
    return found


def _page_once(output: str, jobs: int) -> Numbers:
    with _served(output) as (process, address):
        ask = _PageClient(address)
        key = ask.key()
        began = time.monotonic()
        first = ask(f"api/x/{key}/live")[0]
        table = first + ask(f"api/x/{key}/jobs")[0]
        while not json.loads(ask(f"api/x/{key}/jobs")[1])["complete"]:
            time.sleep(1)  # as the page asks
        read = time.monotonic() - began
        leaf = max(
            ask(f"api/x/{key}/jobs?page={page}")[0]
            for page in range(1, max(2, jobs // 200), max(1, jobs // 2000))
        )
        ordered = ask(f"api/x/{key}/jobs?sort=-seconds")[0]
        while not json.loads(ask(f"api/x/{key}/timeline")[1])["complete"]:
            time.sleep(0.5)
        lanes, text = ask(f"api/x/{key}/timeline")
        memory = psutil.Process(process.pid).memory_info().rss
    seconds = {"first": first, "table": table, "read": read, "leaf": leaf, "sort": ordered, "timeline": lanes}
    return {**seconds, "timeline_kb": len(text) / 1e3, "memory_mb": memory / 1e6}


@contextmanager
def _served(output: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server, and its address with the token."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "supervisor", "web", output, "--port", "0"]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if "#t=" not in address:
            raise Failed("longhaul web has not started")
        yield process, address
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class _PageClient:
    """Seconds and text of each answer."""

    def __init__(self, address: str) -> None:
        page, _, self._token = address.partition("#t=")
        self._address = page.partition("?")[0]

    def __call__(self, path: str) -> tuple[float, bytes]:
        request = Request(self._address + path, headers={"X-Longhaul-Token": self._token})
        started = time.monotonic()
        with urlopen(request, timeout=600) as answer:
            text: bytes = answer.read()
        return time.monotonic() - started, text

    def key(self) -> str:
        """Of the first experiment."""
        return str(json.loads(self("api/experiments")[1])["experiments"][0]["key"])


# ------------------------------------------------------------------------- in a browser

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
# When the page says that what it shows is drawn, in milliseconds since the tab began to load it.
_WHEN_DRAWN = """
new MutationObserver((_, observer) => {
  if (document.documentElement?.dataset.ready === undefined) return;
  window.drawnAt = performance.now();
  observer.disconnect();
}).observe(document, { attributes: true, subtree: true });
"""
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def _painted(bench: Bench, contender: str) -> Numbers:
    """The page of an experiment in headless Chromium: beside a large night, and beside a run of jobs of 1 ms that takes
    the whole machine."""
    _, many = bench.sizes.reported
    output = bench.place()
    bench.child("long_history.py", json.dumps({"output": output, "jobs": many, "workers": 64}))
    # Each time a browser and a server that have just been started; the disk still writes what the night was made of.
    seconds = []
    for _ in range(OPENINGS):
        with _browser() as browser, _served(output) as (_, address):
            seconds.append(_first_paint(browser, address))
    drawn, painted = (statistics.median(each) for each in zip(*seconds, strict=True))
    busy = bench.place()
    keywords = {"output": busy, "jobs": 100 * bench.sizes.cpu_1ms, "each": 0.001}
    with _beside(bench, "cpu", keywords, busy), _browser() as browser, _served(busy) as (_, address):
        beside, painted_beside = _first_paint(browser, address)
    return {
        "drawn": drawn,
        "painted": painted,
        "beside": beside,
        "painted_beside": painted_beside,
    }


def _open(bench: Bench, contender: str) -> Numbers:
    """The CPU time of a supervisor whose workers are in long jobs, with nobody looking and with its page open."""
    output = bench.place()
    keywords = {"output": output, "path": str(Path(output) / "starts.txt")}
    with _beside(bench, "quiet", keywords, output) as run, _browser() as browser:
        time.sleep(bench.sizes.settle_seconds)
        closed = _share(run.pid, bench.sizes.quiet_seconds)
        with _served(output) as (_, address):
            _first_paint(browser, address)
            opened = _share(run.pid, bench.sizes.quiet_seconds)
        again = _share(run.pid, bench.sizes.quiet_seconds)
    return {
        "more_percent": max(0.0, 100 * (opened - (closed + again) / 2)),
        "open_percent": 100 * opened,
        "closed_percent": 50 * (closed + again),
    }


def _share(pid: int, seconds: float) -> float:
    """Of a core, over so many seconds."""
    began, before = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


@contextmanager
def _beside(
    bench: Bench, situation: str, keywords: dict[str, Any], output: str
) -> Iterator[subprocess.Popen[str]]:
    """A run whose progress can be read."""
    with (bench.folder / "stderr.txt").open("w") as errors:
        process = start("longhaul_program.py", situation, json.dumps(keywords), stderr=errors)
        try:
            deadline = time.monotonic() + 60
            while not list(Path(output).glob("logs/progress_*.json")):
                if time.monotonic() > deadline or process.poll() is not None:
                    raise Failed(f"the run of {situation} has not begun")
                time.sleep(0.05)
            yield process
        finally:
            end(process)


@contextmanager
def _browser() -> Iterator[Any]:
    path = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        raise Failed("a browser is needed: pip install playwright, and Debian's chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def _first_paint(browser: Any, address: str) -> tuple[float, float]:
    """Seconds until the overview is drawn, and until anything is; nothing has been asked of the server before but its
    list. The tab stays open."""
    page, _, token = address.partition("#t=")
    tab = browser.new_context().new_page()
    tab.add_init_script(_WHEN_DRAWN)
    tab.goto(f"{page.partition('?')[0]}?x={_PageClient(address).key()}#t={token}")
    tab.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
    return float(tab.evaluate("drawnAt")) / 1e3, float(tab.evaluate(_PAINTED)) / 1e3


PAGES: dict[str, Callable[[Bench, str], Numbers]] = {
    "page": _page,
    "page_painted": _painted,
    "page_open": _open,
}
