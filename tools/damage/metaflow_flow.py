"""A batch as a flow of Metaflow: python metaflow_flow.py run --batch JSON. One process for each job.

`@retry` repeats a job that dies, and `@catch` lets the others go on after that, as Metaflow's documentation of
failures says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from metaflow import FlowSpec, Parameter, catch, retry, step

from tools.damage.damage_jobs import Batch, job, number_of
from tools.damage.damage_programs import ATTEMPTS, answer


class BatchFlow(FlowSpec):  # type: ignore[misc]
    batch = Parameter("batch")

    @step  # type: ignore[untyped-decorator]
    def start(self) -> None:
        self.tasks = Batch(**json.loads(self.batch)).tasks()
        self.next(self.one, foreach="tasks")

    @catch(var="failure")  # type: ignore[untyped-decorator]
    @retry(times=ATTEMPTS - 1, minutes_between_retries=0)  # type: ignore[untyped-decorator]
    @step  # type: ignore[untyped-decorator]
    def one(self) -> None:
        self.number = number_of(self.input)
        self.result = job(self.input)
        self.next(self.join)

    @step  # type: ignore[untyped-decorator]
    def join(self, inputs: Any) -> None:
        # A job that was caught has no attribute but the one that says so.
        done = {each.result for each in inputs if not each.failure}
        tasks = Batch(**json.loads(self.batch)).tasks()
        failed = {*map(number_of, tasks)} - done
        print(json.dumps(answer(done, dict.fromkeys(failed, "@catch"))))
        self.next(self.end)

    @step  # type: ignore[untyped-decorator]
    def end(self) -> None:
        pass


if __name__ == "__main__":
    BatchFlow()
