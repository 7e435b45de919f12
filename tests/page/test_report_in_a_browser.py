"""`longhaul report` in a real browser: what a reader sees, with which keys, and what no text may do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor import load
from supervisor.__main__ import main
from tests.page.browser import DESKTOP, PHONE, Opened, chromium, opened
from tools.benchmark.long_history import write_history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parent.parent.parent
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"

SCRIPT = """
import os
from supervisor import Job, main
from workers import current_job

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"

def evaluate(kind, depth, note="", fixed=7):
    print("printed", note, "\\x1b[31mred\\x1b[0m", "\\u202egnp")
    if kind == "raises":
        raise ValueError(f"no such split: {note}{depth}")
    if kind == "crashes":
        os._exit(3)
    if kind == "flaky" and current_job().attempt == 1:
        raise OSError("connection reset")
    return {"score": depth / 8 + len(kind), "loss": float("nan") if depth == 3 else 1 / (depth + 1), HOSTILE: note}

JOBS = [
    Job(id=f"{domain}/{kind}/{depth}", domain=domain, params={"kind": kind, "depth": depth})
    for domain in ("lima", "oslo")
    for kind in ("works", "flaky", "raises" if domain == "oslo" else "works2")
    for depth in range(5)
]
JOBS += [Job(id="crash", domain="oslo", params={"kind": "crashes", "depth": 1})]
JOBS += [Job(id=HOSTILE, domain=HOSTILE, params={"kind": kind, "depth": 2, "note": HOSTILE}) for kind in ("raises",)]
JOBS += [Job(id="fine" + HOSTILE, domain="oslo", params={"kind": "works", "depth": 2, "note": HOSTILE})]

if __name__ == "__main__":
    main(evaluate, JOBS, name="trial", all_tasks=True, workers=2, retries=1, backoff=0, crash_limit=1)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "exp.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "exp.py", "--experiment-id", "night"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    path = folder / "night.html"
    assert main(["report", "night", "-d", str(folder / "data" / "outputs"), "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_all_of_it_without_a_request_or_an_error(
    browser: Any, report: Path, dark: bool
) -> None:
    with opened(browser, PHONE, dark=dark) as view:
        page = view.ready(report)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.locator(".verdict").inner_text().startswith("✗ Over, but 7 of 33 jobs failed")
        background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (background == "rgb(255, 255, 255)") is not dark
        card = page.locator("#results tbody tr").first
        assert card.evaluate("element => getComputedStyle(element).display") == "block"
        assert "params.depth" in card.locator("td[data-label='params.depth']").evaluate(
            "element => getComputedStyle(element, '::before').content"
        )


def test_the_summary_is_read_without_javascript(browser: Any, report: Path) -> None:
    with opened(browser, PHONE, java_script_enabled=False) as view:
        page = view.open(report)
        text = page.locator("body").inner_text()
        assert "7 of 33 jobs failed" in text
        assert (
            "5 of 7 failed with ValueError exp.py:11: no such split: 0" in text
            or "6 of 7 failed with" in text
        )
        assert "exp.py --resume night" in text
        assert "longhaul" in text and "show oslo/raises/0 night" in text
        assert "connection reset" in text
        assert "does not run here" in text


def test_hostile_text_stays_text(browser: Any, report: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(report)
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 5
        assert HOSTILE in page.locator("section", has_text="What failed").inner_text()
        page.locator("#filter").fill("onerror")
        page.wait_for_function("document.querySelectorAll('#results tbody tr').length === 2")
        assert HOSTILE in page.locator("#results tbody tr").first.inner_text()
        assert "\u202e" not in page.content()


def test_the_table_is_filtered_sorted_and_remembered(browser: Any, report: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(report)
        heads = page.locator("#results thead th").all_inner_texts()
        assert "params.fixed" not in heads and "params.depth" in heads and "result.score" in heads
        page.locator("#filter").fill("kind=works depth>=3")
        page.get_by_role("button", name="result.score").click()
        page.get_by_role("button", name="result.score ↑").click()
        jobs = page.locator("#results tbody td[data-label='job']").all_inner_texts()
        assert jobs == ["lima/works/4", "oslo/works/4", "lima/works/3", "oslo/works/3"]
        fragment = page.evaluate("location.hash")
        losses = page.locator("#results tbody td[data-label='result.loss']").all_inner_texts()
        assert losses == ["0.2", "0.2", "nan", "nan"]
    with opened(browser, DESKTOP) as view:
        page = view.ready(report, fragment=fragment)
        assert page.locator("#results tbody td[data-label='job']").all_inner_texts() == jobs


def test_pictures_are_read_with_keys_and_as_tables(browser: Any, report: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(report)
        lanes = page.locator("#lanes canvas")
        assert "2 workers" in lanes.get_attribute("aria-label")
        lanes.focus()
        page.keyboard.press("ArrowRight")
        assert re.search(r"completed|failed", page.locator("#lanes .told").inner_text())
        page.keyboard.press("+")
        assert " to " in page.locator("#lanes .tools").inner_text()
        page.keyboard.press("0")
        page.locator("#lanes summary").click()
        assert "run 1 began" in page.locator("#lanes table").inner_text()
        assert "result.score against params.depth" in page.locator("#plot canvas").get_attribute("aria-label")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "filter"


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(browser: Any, report: Path, dark: bool) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe, of the extra dev, is missing"
    )
    with opened(browser, PHONE if dark else DESKTOP, dark=dark, bypass_csp=True) as view:
        found = axe.Axe().run(view.ready(report)).response["violations"]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found]
        assert told == []


def test_its_data_is_json_that_cannot_end_its_element(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    block = text.partition('<script type="application/json" id="facts">')[2].partition("</script>")[0]
    assert "<" not in block
    assert json.loads(block)["counts"]["failed"] == 7


def test_a_server_that_forbids_scripts_and_styles_leaves_it_readable(browser: Any, report: Path) -> None:
    """As Jenkins does with the files of a build (pytest-html, issue 29)."""
    policy = "sandbox; default-src 'none'; img-src 'self'; style-src 'self';"
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    page.route(
        "http://ci.invalid/*",
        lambda route: route.fulfill(
            path=report, content_type="text/html", headers={"Content-Security-Policy": policy}
        ),
    )
    page.goto("http://ci.invalid/report.html")
    text = page.locator("body").inner_text()
    assert "7 of 33 jobs failed" in text and "exp.py --resume night" in text and "no such split" in text
    assert page.evaluate("document.querySelector('svg.bar').getBoundingClientRect().height") == 12
    assert page.evaluate("document.documentElement.className") == ""
    context.close()


ODD = """
from supervisor import Job, main

def evaluate(n, seed):
    if n == 5:
        raise KeyError("a" * 100000 + "\\udcff\\x00")
    score = [0.5, float("nan"), float("inf"), 1, -3, 0, 5e-324, 2, 3, 4][n]
    grade = ["A", 3, [True, False], None, {"x": 1}, True, "B", 2.5, 2**60, ""][n]
    more = {"a.b": n, "a": {"b": -n}, "": n, "long": "w " * n * 40}
    return {**more, "score": score, "grade": grade, "line\\nbreak (x) 'q'": n % 3}

IDS = ["a b", "-dash", "x'y", "a\\nb", "../../etc", "$(rm)", "&amp;", "%41#frag?q", "nul\\x00y", "\\u202egnp.exe"]

if __name__ == "__main__":
    params = [{"n": n, "seed": 2**63 + n} for n in range(10)]
    jobs = [Job(id=i, domain="d(1).x" if p["n"] % 2 else None, params=p) for i, p in zip(IDS, params)]
    main(evaluate, jobs, name="odd", all_tasks=True, workers=2)
""".replace("\\\\", "\\")


def test_odd_values_are_shown_and_none_is_left_out_silently(browser: Any, tmp_path: Path) -> None:
    """Lists and letters as scores (inspect_ai 2393, 175), nan in a plot (optuna 3382), dots and quotes in names
    (snakemake 155, gatling 2276), characters that are none (pytest-html 12)."""
    (tmp_path / "exp.py").write_text(ODD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "exp.py", "--experiment-id", "odd"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    path = tmp_path / "odd.html"
    with load(tmp_path / "data" / "outputs" / "odd", "odd") as loaded:
        loaded.save_html(path)
    with opened(browser, DESKTOP) as view:
        page = view.ready(path)
        summary = page.locator("#plot > .note").first.inner_text()
        assert "7 jobs" in summary and "Not drawn: 2 with nan or an infinity, 1 without a value" in summary
        page.get_by_text("columns (").click()
        page.get_by_role("button", name="all", exact=True).last.click()
        texts = {
            name: page.locator(f"#results tbody td[data-label='{name}']").all_inner_texts()
            for name in ("job", "result.score", "result.grade", "params.seed")
        }
        assert (
            texts["job"][0] == "a b"
            and texts["job"][8] == "nul\ufffdy"
            and texts["job"][9] == "\ufffdgnp.exe"
        )
        assert texts["result.score"][1:3] == ["nan", "inf"]
        assert texts["result.grade"][:3] == ["A", "3", "[true,false]"]
        assert texts["params.seed"][0] == str(2**63)
        assert "cut at 200 characters" in page.locator("#results").inner_text()
        heads = page.locator("#results thead th").all_inner_texts()
        assert "result.line break (x) 'q'" in heads


def test_a_script_that_got_into_the_file_does_not_run(browser: Any, report: Path, tmp_path: Path) -> None:
    """The policy lets through the scripts that the file was made with, by their checksums, and no request at all."""
    bad = "<script>document.title = 'taken'</script><img src='http://evil.invalid/x.png' onerror='alert(1)'>"
    text = report.read_text(encoding="utf-8")
    assert "Content-Security-Policy" in text
    (tmp_path / "bad.html").write_text(text.replace("</main>", f"{bad}</main>"), encoding="utf-8")
    context = browser.new_context()
    view = Opened(context.new_page())
    page = view.ready(tmp_path / "bad.html")
    assert page.title().startswith("✗ trial")
    refused = [said for said in view.said if "Content Security Policy" in said]
    assert len(refused) >= 2
    assert [said for said in view.said if said not in refused and not said.startswith("request: ")] == []
    context.close()


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 21,000 jobs in two runs, more than are drawn one by one."""
    folder = tmp_path_factory.mktemp("night")
    layout = write_history(str(folder / "night"), 21_000, runs=2, failing=0.002, kinds=3, columns=6)
    with load(layout.directory, "night") as loaded:
        loaded.save_html(folder / "night.html")
    return folder / "night.html"


def test_thousands_of_jobs_are_bins_and_a_named_sample(browser: Any, night: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(night)
        assert "So many attempts that each cell stands for" in page.locator("#lanes").inner_text()
        assert (
            "5,000 of 21,000 jobs, drawn at random"
            in page.locator("section", has_text="Results").last.inner_text()
        )
        assert re.search(r"^5,0\d\d rows, page 1 of 10\d", page.locator("#results .note").first.inner_text())
        page.get_by_role("button", name="next →").click()
        assert "page 2 of" in page.locator("#results .note").first.inner_text()
        page.locator("#lanes summary").click()
        table = page.locator("#lanes table").inner_text()
        assert "run 1 died: its last sign of life" in table and "run 2 finished" in table
        assert "longhaul ctl pause" in table and "worker 0 crashed: SIGSEGV" in table


def test_a_drag_shows_a_part_of_the_time_in_all_pictures(browser: Any, night: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(night)
        lanes = page.locator("#lanes canvas")
        lanes.scroll_into_view_if_needed()
        box = lanes.bounding_box()
        before = page.locator("#series canvas").first.evaluate("canvas => canvas.toDataURL()")
        page.mouse.move(box["x"] + 200, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 320, box["y"] + 120, steps=4)
        page.mouse.up()
        assert re.search(r"\d\d:\d\d:\d\d to .*\(", page.locator("#lanes .tools").inner_text())
        page.wait_for_function(
            "before => document.querySelector('#series canvas').toDataURL() !== before", arg=before
        )
        page.mouse.dblclick(box["x"] + 300, box["y"] + 100)
        page.wait_for_function(
            "before => document.querySelector('#series canvas').toDataURL() === before", arg=before
        )
        page.mouse.move(box["x"] + 300, box["y"] + 100)
        assert "worker 3, " in page.locator("#lanes .tip").inner_text()


def test_the_plot_takes_any_two_columns_and_a_colour(browser: Any, night: Path) -> None:
    with opened(browser, DESKTOP) as view:
        page = view.ready(night)
        plot = page.locator("#plot")
        assert "result.score against params.lr, coloured by" in plot.locator("canvas").get_attribute(
            "aria-label"
        )
        assert plot.get_by_label("log x").is_checked()
        plot.get_by_label("up", exact=True).select_option("seconds")
        plot.get_by_label("across", exact=True).select_option("domain")
        plot.get_by_label("colour", exact=True).select_option("params.model")
        assert "seconds against domain, coloured by params.model" in plot.locator("canvas").get_attribute(
            "aria-label"
        )
        assert plot.locator(".legend").inner_text().split() == ["params.model:", "●", "a", "■", "b", "▲", "c"]
        assert "x=domain" in page.evaluate("location.hash") and "y=seconds" in page.evaluate("location.hash")
        plot.locator("canvas").focus()
        page.keyboard.press("ArrowRight")
        assert re.match(r"d\d/run/\d+: seconds", plot.locator(".told").inner_text())
