"""More workers than the usual limit of open files has room for."""

from __future__ import annotations

import resource

import pytest

from tests.experiment_fixture import Experiment

SOFT = 64
SCRIPT = """
    import resource

    def jobs():
        for number in range(24):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        while len(open(os.environ["EXECUTIONS"]).readlines()) < WORKERS:  # until all workers are there
            time.sleep(0.05)
        return [os.getpid(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]]

    if __name__ == "__main__":
        main(evaluate, jobs, name="many", workers=WORKERS)
"""


@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="the limit is only raised where children can have the old one"
)
@pytest.mark.parametrize(("method", "workers"), [("zygote", 24), ("spawn", 16)])
def test_more_workers_than_descriptors_and_jobs_have_the_limit_of_the_script(
    experiment: Experiment, method: str, workers: int
) -> None:
    experiment.write(SCRIPT.replace("WORKERS", str(workers)))
    limited = ("sh", "-c", f'ulimit -Sn {SOFT}; exec "$@"', "sh")
    process = experiment.start("--start-method", method, "--all-tasks", wrapper=limited)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert "open files" not in told
    results = [entry["result"] for entry in experiment.final().values()]
    assert len(results) == 24
    assert {limit for _, limit in results} == {SOFT}
    assert (
        len({record["pid"] for record in experiment.journal() if record["type"] == "worker_started"})
        == workers
    )
