"""`longhaul web` in a real browser: a run is watched and steered by clicks and keys, while it dies and is resumed."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.experiment_fixture import Experiment, wait_for
from tests.page.browser import DESKTOP, PHONE
from tests.web.serving import Served, end, served, viewed

# A browser, and many pages: ten seconds on an idle core.
pytestmark = pytest.mark.timeout(300)

HOSTILE = "</script><img src=x onerror=alert(1)>\u202egnp"

# Each job runs until a file of its name is there.
SCRIPT = """
    GATES = Path(os.environ["EXECUTIONS"]).parent / "gates"
    HOSTILE = "</script><img src=x onerror=alert(1)>\\u202egnp"

    def evaluate(name, depth):
        print("printed by", name, HOSTILE, flush=True)
        while not (GATES / name).exists() and not (GATES / "all").exists():
            current_job().report(0.5, loss=0.25)
            time.sleep(0.005)
        if (GATES / f"{name}.fail").exists():
            raise ValueError(f"no such split: {HOSTILE}")
        return {"score": depth / 2, "text": HOSTILE}

    if __name__ == "__main__":
        jobs = [
            Job(id=f"job/{n}", domain=f"d{n % 2}", params={"name": str(n), "depth": n}, priority=int(n == 0))
            for n in range(12)
        ]
        jobs += [Job(id=HOSTILE, domain=HOSTILE, params={"name": "12", "depth": 12})]
        main(evaluate, jobs, name="@NAME@", workers=2, grace=60, all_tasks=True, retries=0)
    """


@pytest.fixture
def gated(experiment: Experiment) -> Experiment:
    experiment.write(SCRIPT)
    (experiment.folder / "gates").mkdir()
    return experiment


def touch(experiment: Experiment, *names: str) -> None:
    for name in names:
        (experiment.folder / "gates" / name).touch()


@pytest.fixture
def running(gated: Experiment) -> Iterator[tuple[Experiment, Served]]:
    """A run whose first job has failed, and whose next two run."""
    touch(gated, "0.fail", "0")
    gated.start("--experiment-id", "night")
    wait_for((gated.output / "logs" / "progress_night.json").exists, "the run begins")
    server = served(gated.folder, "night", "-d", str(gated.output))
    wait_for(lambda: server.of("live")["counts"]["failed"] == 1, "the first job fails")
    yield gated, server
    end(server)


# The policy of the page forbids what `wait_for_function` does: elements are waited for.


def state_is(page: Any, word: str) -> None:
    page.locator("header .state", has_text=word).wait_for()


def said(page: Any, word: str) -> None:
    page.locator("#said", has_text=word).wait_for()


def there_are(page: Any, number: int, selector: str) -> None:
    wait_for(lambda: page.locator(selector).count() == number, f"{number} of {selector}")


def test_a_run_is_paused_resumed_retried_and_drained_by_clicks_and_keys(
    browser: Any, running: tuple[Experiment, Served]
) -> None:
    experiment, server = running
    with viewed(browser, server) as page:
        assert (
            page.evaluate("location.href") == f"http://127.0.0.1:{server.port}/"
        )  # the token is out of the address
        page.locator("td[data-label=name] a").click()
        state_is(page, "running")
        page.go_back()
        page.locator("td[data-label=name]").wait_for()
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        state_is(page, "running")
        page.get_by_role("button", name="Pause").click()
        said(page, "paused: 2 running jobs go on")
        state_is(page, "paused")
        page.get_by_role("button", name="Resume").focus()
        page.keyboard.press("Enter")
        said(page, "going on after a pause")
        state_is(page, "running")
        there_are(page, 2, "main tbody td[data-label=worker]")
        assert "50 %, loss 0.25" in page.locator("main").inner_text()
        # One is cancelled: it asks back, and leaves it if that is not wanted.
        page.goto(f"http://127.0.0.1:{server.port}/?x={server.key}&p=jobs&job=job/11")
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Leave it").click()
        page.get_by_role("button", name="Cancel…").click()
        page.get_by_role("button", name="Cancel the job").click()
        said(page, "job/11: cancelled")
        # The one that failed is tried again, and now it can.
        (experiment.folder / "gates" / "0.fail").unlink()
        page.keyboard.press("3")
        page.locator("article", has_text="ValueError").get_by_role("button", name="Retry").click()
        said(page, "job/0: back in line for one more attempt")
        touch(experiment, *map(str, range(1, 10)), "12")
        page.keyboard.press("2")
        page.wait_for_selector("tbody tr")
        page.keyboard.press("/")
        page.keyboard.type("state:completed job/0")
        there_are(page, 1, "tbody tr")
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.locator("pre.log", has_text="printed by 0").wait_for()
        text = page.locator("main").inner_text()
        assert "✓ completed, domain d0" in text and "ValueError" in text and '"score": 0' in text
        page.locator(
            "header", has_text="12/13"
        ).wait_for()  # the last one runs: the page hears of it in a second
        # By keys alone: the button, then the question.
        page.get_by_role("button", name="Drain…").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        assert "1 running job may finish" in page.locator("dialog").inner_text()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        said(page, "draining: nothing new is started")
        state_is(page, "draining")
        wait_for(
            lambda: page.locator(".orders button").all_inner_texts() == ["Stop…", "Stacks"],
            "what is left to order",
        )
        touch(experiment, "all")
        assert experiment.started[0].wait(30) == 1  # the last job was still done; one is cancelled
        state_is(page, "finished")
        assert page.locator(".orders button").count() == 0
    noted = [
        one["detail"] for one in experiment.journal() if one["type"] == "noted" and one["what"] == "control"
    ]
    assert [(one["order"], one["by"]) for one in noted] == [
        (order, "page") for order in ("pause", "resume", "cancel", "retry", "drain")
    ]
    marks = [mark["text"] for mark in server.of("series")["marks"] if mark["kind"] == "order"]
    assert marks[0].startswith("by the page: pause")


def test_a_run_that_dies_is_resumed_and_ends_while_the_page_is_open(
    browser: Any, running: tuple[Experiment, Served]
) -> None:
    experiment, server = running
    with viewed(browser, server, f"?x={server.key}") as page:
        state_is(page, "running")
        os.kill(experiment.started[0].pid, signal.SIGKILL)
        state_is(page, "died")
        page.locator(".command code").wait_for()
        command = page.locator(".command code").inner_text()
        assert command.endswith("main.py --resume night") or "--resume night" in command
        assert str(experiment.folder) in page.locator("main").inner_text()
        page.get_by_role("button", name="copy").click()
        page.get_by_role("button", name=re.compile("copied|marked")).wait_for()
        experiment.start("--resume", "night")
        state_is(page, "running")
        page.keyboard.press("4")
        page.wait_for_selector("#lanes canvas")
        assert "2 runs" in page.locator("#lanes canvas").get_attribute("aria-label")
        (experiment.folder / "gates" / "0.fail").unlink()
        touch(experiment, "all")
        assert experiment.started[1].wait(30) == 0
        state_is(page, "finished")
        assert "13/13" in page.locator("header").inner_text()
        server_counts = server.of("live")["counts"]
        assert (server_counts["completed"], server_counts["failed"]) == (13, 0)


def test_every_page_on_a_phone_in_the_dark_and_without_a_violation(
    browser: Any, running: tuple[Experiment, Served]
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe, of the extra dev, is missing"
    )
    experiment, server = running
    touch(experiment, *map(str, range(1, 13)))
    assert experiment.started[0].wait(30) == 1
    for size, dark in ((PHONE, True), (DESKTOP, False)):
        with viewed(browser, server, size=size, dark=dark, bypass_csp=True) as page:
            names = ("", "jobs", "failures", "timeline", "results", "log", "jobs&job=job/0")
            for query in ("", *(f"?x={server.key}&p={name}" for name in (names if dark else names[:4]))):
                page.goto(f"http://127.0.0.1:{server.port}/{query}")
                page.wait_for_selector("html[data-ready]", state="attached", timeout=30_000)
                wait_for(lambda page=page: len(page.locator("main").inner_text()) > 20, query)
                assert page.evaluate("document.documentElement.scrollWidth") == size["width"], query
                assert page.locator("img").count() == 0
                assert "\u202e" not in page.locator("body").inner_text()
                found = axe.Axe().run(page).response["violations"]
                assert [
                    (query, one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found
                ] == []


def test_a_page_that_was_offline_in_another_time_zone_goes_on(
    browser: Any, running: tuple[Experiment, Served]
) -> None:
    """As a laptop that slept, far from the machine: optuna-dashboard 971, ipywidgets 155."""
    experiment, server = running
    context = browser.new_context(timezone_id="America/Los_Angeles")
    try:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/?x={server.key}&p=jobs&state=in_progress#t={server.token}")
        there_are(page, 2, "tbody tr")
        for words in page.locator("tbody td[data-label=took]").all_inner_texts():
            assert re.fullmatch(r"[0-9.]+(m?s|m [0-9]+s) so far", words), words  # no hours
        context.set_offline(True)
        page.locator("#connection", has_text="has not answered").wait_for()
        touch(experiment, "all")
        assert experiment.started[0].wait(30) == 1
        context.set_offline(False)
        state_is(page, "finished")
        page.locator("#connection").wait_for(state="hidden")
        there_are(page, 0, "tbody tr")
    finally:
        context.close()


def test_when_the_server_has_ended_the_page_says_so_and_another_one_is_asked_for(
    browser: Any, running: tuple[Experiment, Served]
) -> None:
    experiment, server = running
    context = browser.new_context()
    page = context.new_page()
    other = served(experiment.folder, "night", "-d", str(experiment.output))
    page.goto(f"http://127.0.0.1:{other.port}/#t={other.token}")
    page.wait_for_selector("main tbody tr")
    end(other)
    page.locator("#connection", has_text="has not answered").wait_for()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.wait_for_selector("#token")
    page.locator("#token").fill(server.address)
    page.keyboard.press("Enter")
    page.wait_for_selector("main tbody tr")
    context.close()
