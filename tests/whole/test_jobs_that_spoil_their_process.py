"""Jobs that do to their worker what no job should: nobody else pays for it."""

from __future__ import annotations

import pytest

from tests.experiment_fixture import Experiment

SPOILERS = """
    import resource, signal, subprocess

    def jobs():
        for number in range(4):
            yield Job(id=f"before/{number}", params={"what": "good"})
        yield Job(id="bad", params={"what": "@WHAT@"})
        for number in range(8):
            yield Job(id=f"after/{number}", params={"what": "good"})

    def evaluate(what):
        note("ran")
        if what == "fork":
            return {"child": os.fork() == 0}
        if what == "fork_and_raise":
            child = os.fork()
            if child == 0:
                raise ValueError("in the child")
            os.waitpid(child, 0)
        if what == "open_files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        if what == "file_size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        if what == "leave_group":
            os.setpgid(0, os.getppid())
        if what == "every_signal":
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        if what == "streams":
            sys.stdout.close()
            os.close(2)
        if what == "group_sigterm":
            os.kill(0, signal.SIGTERM)
        if what == "modules":
            sys.modules.clear()
        with open(os.environ["EXECUTIONS"]):
            time.sleep(0.02)
        return "fine"

    if __name__ == "__main__":
        main(evaluate, jobs, name="spoiled", workers=2)
"""


@pytest.mark.parametrize(
    "what",
    [
        "fork",
        "fork_and_raise",
        "open_files",
        "file_size",
        "leave_group",
        "every_signal",
        "streams",
        "group_sigterm",
        "modules",
    ],
)
def test_a_job_that_spoils_its_process_harms_no_other(experiment: Experiment, what: str) -> None:
    experiment.write(SPOILERS.replace("@WHAT@", what))
    done = experiment.run("--timeout", "20")
    final = experiment.final()
    states = {job: entry["state"] for job, entry in final.items()}
    assert {job for job in states if job != "bad" and states[job] != "completed"} == set(), done.stderr
    assert all(entry["result"] == "fine" for job, entry in final.items() if job != "bad")
    assert not experiment.processes()
    if what == "fork":
        assert final["bad"]["result"] == {"child": False}
    if what == "fork_and_raise":
        assert final["bad"]["result"] == "fine"
        (log,) = experiment.output.glob("*/output/bad.log")
        assert "in the child" in log.read_text()
