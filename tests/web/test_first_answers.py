"""What is answered while a large journal is still being read: what is known without it, and that it is a part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.terms.jobs import COMPLETED, FAILED
from supervisor.storage.checkpoint import checkpoint_writer
from supervisor.storage.files.layout import Layout
from supervisor.storage.recovery.survey import survey
from supervisor.web import experiment_watch
from supervisor.web.experiment_catalogue import Catalogue, key_of
from tests.experiment_fixture import PATIENCE, wait_for
from tools.benchmark.long_history import write_history

pytest.importorskip("starlette")

from supervisor.web.page_routes import ApiError, _Api

JOBS = 450


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(checkpoint_writer, "ENOUGH", 0)
    monkeypatch.setattr(experiment_watch, "_SMALL", 0)
    return write_history(str(tmp_path), JOBS, failing=0.1)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A journal is read once it is set."""
    opened = threading.Event()

    def waited(layout: Layout) -> Any:
        assert opened.wait(PATIENCE)
        return survey(layout)

    monkeypatch.setattr(experiment_watch, "survey", waited)
    yield opened
    opened.set()


class Asked:
    def __init__(self, layout: Layout) -> None:
        self.catalogue = Catalogue(lambda: [layout])
        self.key = key_of(layout)
        self._api = _Api(self.catalogue, read_only=True)

    def __call__(self, what: str, **query: str) -> Any:
        request: Any = SimpleNamespace(path_params={"key": self.key}, query_params=query)
        return getattr(self._api, what)(request)


@pytest.fixture
def ask(layout: Layout) -> Iterator[Asked]:
    asked = Asked(layout)
    yield asked
    asked.catalogue.close()


def test_counts_and_the_first_jobs_wait_for_no_journal(
    layout: Layout, gate: threading.Event, ask: Asked
) -> None:
    live, jobs = ask("live"), ask("jobs")
    assert (live["state"], live["name"], live["complete"], live["domains"]) == (
        "finished",
        "night",
        False,
        [],
    )
    assert (jobs["complete"], jobs["total"], jobs["pages"], len(jobs["jobs"])) == (False, JOBS, 3, 200)
    gate.set()
    wait_for(lambda: ask("live")["complete"], "the journal is read")
    later = ask("live")
    assert (later["counts"], later["state"]) == (live["counts"], "finished") and later["domains"]
    again = ask("jobs")
    assert again["complete"] and again["total"] == JOBS and again["jobs"] == jobs["jobs"]
    assert {one["state"] for one in again["jobs"]} == {"completed", "failed"}


@pytest.mark.parametrize("query", [{"page": "2"}, {"sort": "seconds"}, {"q": "run/1"}, {"state": "failed"}])
def test_what_needs_all_jobs_is_asked_for_again(
    gate: threading.Event, ask: Asked, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_watch.ExperimentWatch.refresh, "__defaults__", (0.0, 0.01))
    with pytest.raises(ApiError, match="is being read"):
        ask("jobs", **query)
    gate.set()
    wait_for(lambda: ask("live")["complete"], "the journal is read")
    assert ask("jobs", **query)["complete"]


def test_without_an_index_the_first_jobs_wait_too(
    layout: Layout, gate: threading.Event, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.index.unlink()
    monkeypatch.setattr(experiment_watch.ExperimentWatch.refresh, "__defaults__", (0.0, 0.01))
    assert ask("live")["counts"]["total"] == JOBS
    with pytest.raises(ApiError, match="is being read"):
        ask("jobs")


def test_states_of_a_run_that_is_over_are_complete_before_its_timeline_is(
    layout: Layout, ask: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = threading.Event()
    follow = experiment_watch.ExperimentWatch._follow

    def waited(watch: experiment_watch.ExperimentWatch) -> None:
        assert following.wait(PATIENCE)
        follow(watch)

    monkeypatch.setattr(experiment_watch.ExperimentWatch, "_follow", waited)
    try:
        wait_for(lambda: ask("live")["complete"], "the states are known")
        found = ask("jobs", state="failed")
        assert found["complete"] and not ask("timeline")["complete"]
        assert {COMPLETED, FAILED} == {*ask.catalogue.watch(ask.key, layout).table.state}  # type: ignore[union-attr]
        monkeypatch.setattr(experiment_watch, "is_running", lambda _: True)
        assert not ask("jobs", state="failed")["complete"]
    finally:
        following.set()
