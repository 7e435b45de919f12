"""longhaul memory: which jobs a worker ran last."""

from __future__ import annotations

from pathlib import Path

from supervisor.commands.memory import memory_use
from supervisor.core.terms.records import Returned, WorkerEnded
from tests.storage.made import AT, Made


def test_jobs_that_a_worker_gave_back_are_none_that_it_ran(tmp_path: Path) -> None:
    made = Made(tmp_path).create(["a", "b", "c", "d"])
    made.hand_out("a", "b", "c", "d")
    made.end("a", "b")
    made.store.append(
        [Returned(1, [3, 4], AT), WorkerEnded(0, 1, "finished", AT, peak_rss=1 << 30, pid=4242)]
    )
    made.sync()
    made.store.close()
    (worker,) = memory_use(made.layout, 10, live=False).workers
    assert worker.jobs == ["a", "b"]
