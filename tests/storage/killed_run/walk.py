"""The script of an experiment that an earlier longhaul has begun: attempts that end in many ways."""

import math
import os
import time
from pathlib import Path

from supervisor import Job, main
from workers import Interrupted, Retry, current_job


def jobs():
    for n in range(4):
        yield Job(id=f"value/{n}", domain="value", params={"kind": "value", "n": n})
    yield Job(id="value/nan", domain="value", params={"kind": "nan"})
    yield Job(id="wish/retry", domain="wish", params={"kind": "retry"})
    yield Job(id="wish/hopeless", domain="wish", params={"kind": "hopeless"})
    yield Job(id="bad/flaky", domain="bad", params={"kind": "flaky"}, retries=1)
    yield Job(id="bad/raises", domain="bad", params={"kind": "raises"}, retries=1)
    yield Job(id="bad/exits", domain="bad", params={"kind": "exits"})
    yield Job(id="bad/slow", domain="bad", params={"kind": "slow"}, timeout=0.3)
    yield Job(id="bad/object", domain="bad", params={"kind": "object"})
    for n in range(2):
        yield Job(id=f"long/{n}", domain="long", params={"kind": "long", "n": n}, priority=-1)
    for n in range(3 if Path("more").exists() else 0):
        yield Job(id=f"late/{n}", params={"kind": "value", "n": n}, priority=-2)


def evaluate(kind, n=0):
    job = current_job()
    mended = Path("mended").exists()
    print(f"{job.id}: attempt {job.attempt}")
    if kind == "nan":
        return {"mean": math.nan, "bounds": (-math.inf, 1.5), "name": "grün"}
    if kind == "retry" and job.attempt == 1:
        raise Retry("not yet", after=0.01)
    if kind == "flaky" and job.attempt == 1:
        raise OSError("not ready")
    if kind == "long":
        state = job.load() or {"starts": 0}
        state["starts"] += 1
        job.save(state)
        while not mended:
            if job.stopping:
                raise Interrupted("saved")
            time.sleep(0.01)
        return state
    if not mended:
        if kind == "hopeless":
            raise Interrupted("again")
        if kind == "raises":
            raise ValueError(f"three\nat attempt {job.attempt}")
        if kind == "exits":
            os._exit(3)
        if kind == "slow":
            time.sleep(60)
        if kind == "object":
            return object()
    return {"value": 10 * n}


if __name__ == "__main__":
    main(evaluate, jobs, name="walk", all_tasks=True, workers=4, crash_limit=1, backoff=0.01)
