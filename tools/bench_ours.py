"""Our side of the benchmark: one situation, one fresh process; a script like a user's.

    python tools/bench_ours.py SITUATION '{"output": "DIR", "jobs": 200000}'

The last line of its output is a JSON object; tools/bench.py starts it. Workers import it, so
nothing heavy stands at its top.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from supervisor import Job, run
from tools.bench_jobs import fragile, fragile_tasks, noop, spin

WORKERS = 2


def _statistics(report: Any) -> dict[str, Any]:
    path = Path(report.directory) / report.experiment_id / "statistics.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _run(function: Callable[..., Any], jobs: Any, output: str, **keywords: Any) -> tuple[Any, float]:
    """The report, and the seconds from the call of run() to its return."""
    started = time.monotonic()
    report = run(function, jobs, name="bench", output=output, **{"workers": WORKERS, **keywords})
    return report, time.monotonic() - started


def tiny(output: str, jobs: int) -> dict[str, Any]:
    """No-op jobs from a generator."""

    def plan() -> Iterator[Job]:
        for number in range(jobs):
            yield Job(id=f"job/{number}", params={"number": number})

    report, seconds = _run(noop, plan, output)
    statistics = _statistics(report)
    assert report.counts.completed == jobs, report.counts
    return {
        "jobs": jobs,
        "jobs_per_second": statistics["jobs_per_second"],
        "seconds": jobs / statistics["jobs_per_second"],
        "whole_seconds": seconds,
    }


def cpu(output: str, jobs: int, each: float) -> dict[str, Any]:
    """Jobs that use the CPU: start, end and CPU seconds of each."""
    plan = [Job(id=f"job/{number}", params={"seconds": each}) for number in range(jobs)]
    report, _ = _run(spin, plan, output)
    return {"spans": list(report.results().values())}


def killed(output: str, path: str) -> dict[str, Any]:
    """A job kills its worker: how many results came."""
    plan = [Job(id=f"job/{number}", params={"task": task}) for number, task in enumerate(fragile_tasks(path))]
    report, _ = _run(fragile, plan, output)
    return {"completed": report.counts.completed, "errors": ["failed"] * report.counts.failed}


SITUATIONS: dict[str, Callable[..., dict[str, Any]]] = {"tiny": tiny, "cpu": cpu, "killed": killed}


def main() -> None:
    situation, keywords = sys.argv[1:]
    found = SITUATIONS[situation](**json.loads(keywords))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
