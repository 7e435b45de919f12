"""The page where there is more than it shows at once: it says of what it is a part, while the run is live."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.storage.files.layout import Layout
from tests.experiment_fixture import Experiment, wait_for
from tests.web.serving import Served, end, served, viewed
from tools.benchmark.long_history import write_history

pytestmark = pytest.mark.timeout(300)

JOBS = 5_200  # of which one in twenty fails, in 130 domains; the last one goes on
SCRIPT = """
    def evaluate(n):
        if n == @LAST@:
            while not Path("gate").exists():
                time.sleep(0.01)
        if n % 20 == 0:
            raise ValueError("no such split")
        return {"score": -n}

    if __name__ == "__main__":
        jobs = [Job(id=f"job/{n}", domain=f"d{n // 40}", params={"n": n}) for n in range(@JOBS@)]
        main(evaluate, jobs, name="@NAME@", workers=2, grace=60, all_tasks=True, retries=0)
    """


@pytest.fixture
def server(experiment: Experiment) -> Iterator[Served]:
    experiment.write(SCRIPT.replace("@LAST@", str(JOBS - 1)).replace("@JOBS@", str(JOBS)))
    experiment.start("--experiment-id", "many")
    wait_for((experiment.output / "logs" / "progress_many.json").exists, "the run begins")
    found = served(experiment.folder, "many", "-d", str(experiment.output))
    wait_for(lambda: found.of("live")["counts"]["left"] == 1, "only one is left")
    yield found
    end(found)
    (experiment.folder / "gate").touch()
    out, err = experiment.started[0].communicate(timeout=60)
    assert experiment.started[0].returncode == 1 and len(out) + len(err) < 30_000  # what a pipe holds


def test_what_is_a_part_says_of_what(browser: Any, server: Served) -> None:
    with viewed(browser, server, f"?x={server.key}") as page:
        page.locator("main .note", has_text="100 of 130 domains: those with the most failures.").wait_for()
        page.keyboard.press("3")
        page.locator("article summary", has_text="the first 200 of 260").click()
        assert page.locator("article details[open] a").count() == 192  # 8 stand before
        page.get_by_role("button", name="Retry the first 200…").click()
        page.locator("dialog", has_text="200 jobs").get_by_role("button", name="Leave it").click()
        # Results of a sample are sorted as that, and every row stands in the file.
        found = server.of("columns")
        assert (found["complete"], found["total"]) == (False, JOBS) and 5_000 <= found["rows"] < JOBS
        page.keyboard.press("5")
        told = page.locator("#results .note", has_text=f"{found['rows']:,} rows of the sample, page 1 of")
        told.wait_for()
        assert f"5,000 of {JOBS:,} jobs, drawn at random" in page.locator("main").inner_text()
        page.locator("#results th", has_text="result.score").get_by_role("button").click()
        scores = next(one for one in found["columns"] if one["name"] == "result.score")["values"]
        least = min(score for score in scores if score is not None)
        page.locator("#results tbody tr", has_text=f"{least:,}").first.wait_for()
        assert "of the sample" in told.inner_text()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[tuple[Layout, Served]]:
    layout = write_history(str(tmp_path), 40)
    layout.results_directory.mkdir(exist_ok=True)
    layout.supervisor_log.write_text("".join(f"line {number}\n" for number in range(2_000)))
    found = served(tmp_path, "night", "-d", str(layout.directory))
    yield layout, found
    end(found)


def test_a_log_that_is_read_stays_where_the_reader_is(browser: Any, night: tuple[Layout, Served]) -> None:
    """Lines that come do not take away what is marked, nor the place to which one has scrolled."""
    layout, server = night

    def add(text: str) -> None:
        with layout.supervisor_log.open("a") as file:
            file.write(text)
        page.locator("pre.log", has_text=text.strip()).wait_for()

    with viewed(browser, server, f"?x={server.key}&p=log") as page:
        follow = page.get_by_role("checkbox", name="follow")
        place = page.locator("pre.log")
        page.locator("pre.log", has_text="line 1999").wait_for()
        assert follow.is_checked()
        place.evaluate("one => { one.scrollTop = 300; getSelection().selectAllChildren(one); }")
        wait_for(lambda: not follow.is_checked(), "it follows no more")
        add("one more\n")
        assert place.evaluate("one => [one.scrollTop, getSelection().toString().length > 9000]") == [
            300,
            True,
        ]
        place.evaluate("one => { one.scrollTop = one.scrollHeight; }")
        wait_for(follow.is_checked, "it follows again")
        add("and another\n")
        assert place.evaluate("one => one.scrollHeight - one.scrollTop - one.clientHeight < 2")


def test_a_server_that_says_nothing_is_told_of(browser: Any, night: tuple[Layout, Served]) -> None:
    """As through a tunnel that has lost its other end while the machine slept."""
    _, server = night
    with viewed(browser, server, f"?x={server.key}", timezone_id="Asia/Kathmandu") as page:
        page.locator("footer", has_text="times are those of Asia/Kat").wait_for()
        page.route("**/live", lambda _: None)
        page.locator("#connection", has_text="The server has not answered for").wait_for(timeout=60_000)
        page.unroute("**/live")
        page.locator("#connection").wait_for(state="hidden", timeout=60_000)
