"""Jobs that do to their worker what no job should: nobody else pays for it."""

from __future__ import annotations

from tests.experiment_fixture import Experiment

WAYS = [
    "fork",
    "fork_and_raise",
    "open_files",
    "file_size",
    "leave_group",
    "every_signal",
    "streams",
    "group_sigterm",
    "modules",
]
SPOILERS = """
    import resource, signal, subprocess

    def jobs():
        for number in range(4):
            yield Job(id=f"before/{number}", params={"what": "good"})
        for what in @WAYS@:
            yield Job(id=f"bad/{what}", params={"what": what})
            for number in range(4):
                yield Job(id=f"after {what}/{number}", params={"what": "good"})

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


def test_a_job_that_spoils_its_process_harms_no_other(experiment: Experiment) -> None:
    """Each of them with good jobs before and behind it, on both workers."""
    experiment.write(SPOILERS.replace("@WAYS@", repr(WAYS)))
    done = experiment.run("--timeout", "20")
    final = experiment.final()
    assert len(final) == 4 + 5 * len(WAYS)
    good = {job: entry for job, entry in final.items() if not job.startswith("bad/")}
    assert {job for job, entry in good.items() if entry["state"] != "completed"} == set(), done.stderr
    assert all(entry["result"] == "fine" for entry in good.values())
    assert not experiment.processes()
    assert final["bad/fork"]["result"] == {"child": False}
    assert final["bad/fork_and_raise"]["result"] == "fine"
    (log,) = experiment.output.glob("*/output/bad%2Ffork_and_raise.log")
    assert "in the child" in log.read_text()
