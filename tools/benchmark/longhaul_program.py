"""Our side of the benchmark: one situation, one fresh process; a script like a user's.

    python tools/benchmark/longhaul_program.py SITUATION '{"output": "DIR", "jobs": 200000}'

The last line of its output is a JSON object; tools/bench.py starts it. Workers import it, so
nothing heavy stands at its top.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from supervisor.api import main, run
from supervisor.core.terms.jobs import Job
from tools.benchmark.jobs import (
    STARTS,
    announced,
    blob,
    doomed_or_busy,
    fragile,
    fragile_tasks,
    noop,
    noop_but_one,
    sleeper,
    spin,
)
from tools.benchmark.jobs import (
    held as hold,
)

WORKERS = 2
BATCH, TURN = 4096, 512  # tiny jobs that are handed out together, and that end in one turn


def _statistics(report: Any) -> dict[str, Any]:
    path = Path(report.directory) / report.experiment_id / "statistics.json"
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _engine() -> dict[str, Any]:
    """Where jobs run, if not here: see cluster_samples.py."""
    found: dict[str, Any] = json.loads(os.environ.get("LONGHAUL_BENCH_ENGINE", "{}"))
    return found


def _run(function: Callable[..., Any], jobs: Any, output: str, **keywords: Any) -> tuple[Any, float]:
    """The report, and the seconds from the call of run() to its return."""
    started = time.monotonic()
    settings = {"workers": WORKERS, **_engine(), **keywords}
    report = run(function, jobs, name="bench", output=output, **settings)
    return report, time.monotonic() - started


def tiny(output: str, jobs: int) -> dict[str, Any]:
    """No-op jobs from a generator."""

    def plan() -> Iterator[Job]:
        for number in range(jobs):
            yield Job(id=f"job/{number}", params={"number": number})

    report, seconds = _run(noop, plan, output)
    returned = time.time()
    peak = _peak_kb()
    found = _statistics(report)
    assert report.counts.completed == jobs, report.counts
    return {
        "jobs": jobs,
        "seconds": found["active_seconds"],
        "whole_seconds": seconds,
        "peak_kb": peak,
        "checkpoint_share": found["checkpoint_seconds"] / seconds,
        "end_share": found["checkpoint_seconds_at_end"] / seconds,
        "way_out_seconds": returned - _last_outcome(report),
    }


def _last_outcome(report: Any) -> float:
    """Seconds since the epoch; from the end of the journal, whose records are short here."""
    from supervisor.core.terms.records import Ended
    from supervisor.storage.journal.journal_format import decode_record

    path = Path(report.directory) / "logs" / f"journal_{report.experiment_id}.jsonl"
    with path.open("rb") as journal:
        journal.seek(-min(path.stat().st_size, 1 << 16), os.SEEK_END)
        records = map(decode_record, journal.read().splitlines()[1:])
    return max(
        datetime.fromisoformat(record.at).timestamp() for record in records if isinstance(record, Ended)
    )


def cpu(output: str, jobs: int, each: float) -> dict[str, Any]:
    """Jobs that use the CPU: start, end and CPU seconds of each."""
    plan = [Job(id=f"job/{number}", params={"seconds": each}) for number in range(jobs)]
    report, seconds = _run(spin, plan, output)
    share = _statistics(report)["checkpoint_seconds"] / seconds
    return {"spans": list(report.results().values()), "checkpoint_share": share}


def killed(output: str, path: str) -> dict[str, Any]:
    """A job kills its worker: how many results came."""
    plan = [Job(id=f"job/{number}", params={"task": task}) for number, task in enumerate(fragile_tasks(path))]
    report, _ = _run(fragile, plan, output)
    return {"completed": report.counts.completed, "errors": ["failed"] * report.counts.failed}


def _two_parts(jobs: int, first: int) -> Callable[[], Iterator[Job]]:
    def plan() -> Iterator[Job]:
        for number in range(jobs):
            part = "first" if number < first else "rest"
            yield Job(id=f"{part}/{number}", params={"number": number})

    return plan


def some(output: str, jobs: int, first: int, starts: str) -> dict[str, Any]:
    """The first ones of a large plan are done when the supervisor is killed; it has made no checkpoint yet. Their
    records are made here: who works how fast must not change the journal that the resume has to read."""
    from unittest.mock import patch

    from supervisor.session.loop import Loop

    os.environ[STARTS] = starts
    child = os.fork()
    if not child:
        with patch.object(Loop, "run", lambda loop, _effects: _work_until_killed(loop, first)):
            _run(announced, _two_parts(jobs, first), output)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, status
    return {}


def _work_until_killed(loop: Any, first: int) -> None:
    """What `WORKERS` would have had in batches, and ended in turns."""
    from supervisor.core.terms.records import Completions, Leased
    from supervisor.system.clock import utc_now

    store, stride = loop.store, BATCH * WORKERS
    for start in range(0, first, stride):
        batches = [
            range(at, min(at + BATCH, first)) for at in range(start, min(start + stride, first), BATCH)
        ]
        for slot, batch in enumerate(batches):
            store.append(
                [Leased(slot, slot + 1, batch[0] + 1, store.table.ids[batch[0] : batch[-1] + 1], utc_now())]
            )
        for at in range(0, BATCH, TURN):
            for slot, batch in enumerate(batches):
                done = batch[at : at + TURN]
                ids, leases = [store.table.ids[job] for job in done], [job + 1 for job in done]
                seconds = [1e-7 * (job % 97) + 2.4e-6 for job in done]
                results = [b"%d" % job for job in done]
                attempts = store.table.complete(done, seconds) if done else []
                if done:
                    store.append(
                        [Completions(slot, utc_now(), done, ids, attempts, seconds, results, leases)]
                    )
    os.kill(os.getpid(), signal.SIGKILL)


def rest(output: str, jobs: int, first: int, starts: str) -> dict[str, Any]:
    """A resume that has only few jobs left to run."""
    os.environ[STARTS] = starts
    report, seconds = _run(announced, _two_parts(jobs, first), output, resume="latest")
    peak = _peak_kb()
    assert report.counts.completed == jobs, report.counts
    return {"peak_kb": peak, "whole_seconds": seconds}


def recovery(output: str, path: str, kills: int) -> dict[str, Any]:
    """One job keeps a worker busy, the other one is killed again and again."""
    plan = [
        Job(id=which, params={"which": which, "path": path, "kills": kills}) for which in ("busy", "doomed")
    ]
    report, _ = _run(doomed_or_busy, plan, output, crash_limit=kills + 1)
    assert report.counts.completed == len(plan), report.counts
    return {}


def fairness(output: str, jobs: int, long_seconds: float) -> dict[str, Any]:
    """A long job in the middle of tiny ones, when batches are as large as they get."""
    plan = [
        Job(id=f"job/{number}", params={"seconds": long_seconds if number == jobs // 2 else 0.0})
        for number in range(jobs)
    ]
    report, _ = _run(spin, plan, output)
    return {"spans": list(report.results().values())}


def first_failure(output: str, jobs: int) -> dict[str, Any]:
    """One job in the middle of no-op jobs raises: the longest turn of the loop from there to its record."""
    import statistics
    from unittest.mock import patch

    from supervisor.session.loop import Loop

    turn, seconds = Loop._turn, []

    def timed(self: Loop, events: Any) -> None:
        began = time.perf_counter()
        turn(self, events)
        seconds.append((time.perf_counter() - began, len(self.recent_failures)))

    plan = [Job(id=f"job/{number}", params={"number": number, "bad": jobs // 2}) for number in range(jobs)]
    with patch.object(Loop, "_turn", timed):
        report, _ = _run(noop_but_one, plan, output)
    assert report.counts.failed == 1, report.counts
    before = [each for each, failures in seconds if not failures]
    with_it = seconds[len(before)][0]
    return {"with_it": with_it, "median": statistics.median(before)}


def quiet(output: str, path: str) -> dict[str, Any]:
    """Six workers with nothing to tell; until somebody stops it."""
    plan = [Job(id=f"job/{number}", params={"path": path}) for number in range(6)]
    _run(sleeper, plan, output, workers=6)
    return {}


def held(output: str, path: str, jobs: int) -> dict[str, Any]:
    """Jobs that take until somebody stops the run."""
    _run(hold, [Job(id=f"job/{number}", params={"path": path}) for number in range(jobs)], output)
    return {}


def places(output: str, jobs: int, nodes: int, workers: int, seconds: float) -> dict[str, Any]:
    """Nodes that are played: while all workers have jobs, the share of a core that the supervisor takes for as many
    outcomes as they can have, and those that they had; its peak memory."""
    from unittest.mock import patch

    from supervisor.session.loop import Loop
    from tools.benchmark import fake_nodes

    at: list[tuple[float, float, int]] = []
    turn = Loop._turn

    def timed(self: Loop, events: Any) -> None:
        turn(self, events)
        at.append((time.monotonic(), time.process_time(), self.scheduler.finished_attempts))

    fake_nodes.add(nodes, workers, seconds)
    plan = [Job(id=f"job/{number}", params={"number": number}) for number in range(jobs)]
    with patch.object(Loop, "_turn", timed):
        report, _ = _run(noop, plan, output, engine=fake_nodes.NAME)
    assert report.counts.completed == jobs, report.counts
    peak, everybody = _peak_kb(), nodes * workers
    # From when each worker has ended two jobs until each has one left.
    steady = [each for each in at if 2 * everybody <= each[2] <= jobs - everybody]
    (began, cpu, first), (ended, cpu_then, last) = steady[0], steady[-1]
    each = (cpu_then - cpu) / (last - first)
    return {"share": each * everybody / seconds, "rate": (last - first) / (ended - began), "peak_kb": peak}


def start(output: str, starts: str) -> dict[str, Any]:
    """A script that calls main(): when it did."""
    os.environ[STARTS] = starts
    plan = [Job(id=f"job/{number}", params={"number": number}) for number in range(10)]
    called = time.monotonic()
    try:
        settings: Any = {"workers": WORKERS, **_engine()}
        main(announced, plan, name="bench", output=output, all_tasks=True, argv=[], **settings)
    except SystemExit as end:
        if end.code:
            raise
    return {"called": called}


def big(output: str, jobs: int, size: int) -> dict[str, Any]:
    """Big results."""
    plan = [Job(id=f"job/{number}", params={"number": number, "size": size}) for number in range(jobs)]
    report, seconds = _run(blob, plan, output)
    assert report.counts.completed == jobs, report.counts
    return {"whole_seconds": seconds}


def _peak_kb() -> int:
    """The most memory that this process, the supervisor, has had."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


SITUATIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "tiny": tiny,
    "cpu": cpu,
    "killed": killed,
    "some": some,
    "rest": rest,
    "recovery": recovery,
    "fairness": fairness,
    "first_failure": first_failure,
    "quiet": quiet,
    "held": held,
    "places": places,
    "start": start,
    "big": big,
}


def play() -> None:
    situation, keywords = sys.argv[1:]
    found = SITUATIONS[situation](**json.loads(keywords))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    play()
