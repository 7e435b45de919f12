"""The script of an experiment that was begun before jobs could say what they need."""

import os
import time
from pathlib import Path

from supervisor import Job, main


def needs(**fields):
    """What a job needs, since there is a file that says so; it is not said before."""
    return fields if Path("needy").exists() else {}


def jobs():
    for n in range(7):
        yield Job(id=f"quick/{n}", domain="quick", params={"n": n}, priority=2)
    yield Job(id="fails", params={"n": 7}, priority=1, **needs(cpus=2))
    for n in range(8, 10):
        yield Job(id=f"long/{n}", domain="long", params={"n": n}, timeout="1h", **needs(memory="64M"))
    for n in range(10, 13):
        yield Job(id=f"late/{n}", params={"n": n}, priority=-1, **needs(gpus=0.5, resources={"license": 1}))


def evaluate(n):
    if n == 7 and not Path("mended").exists():
        raise ValueError("seven")
    while n in (8, 9) and not Path("mended").exists():
        time.sleep(0.01)
    return {"n": n, "devices": os.environ.get("CUDA_VISIBLE_DEVICES")}


if __name__ == "__main__":
    main(evaluate, jobs, name="grow", all_tasks=True, workers=2)
