"""Six ways in which a job goes wrong: each ends as it should, its neighbours finish."""

from __future__ import annotations

import signal

import pytest

from tests.experiment_fixture import Experiment, wait_for

BAD = """
    import subprocess, ctypes

    def jobs():
        for number in range(20):
            yield Job(id=f"good/{number}", params={"what": "good"})
        for what in ("raise", "segfault", "exit", "hang", "lambda", "print", "system_exit"):
            yield Job(id=f"bad/{what}", params={"what": what})

    class TwoArguments(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    def evaluate(what):
        note("ran")
        if what == "raise":
            raise TwoArguments("this", "that")
        if what == "segfault":
            print("last words", flush=True)
            ctypes.string_at(0)
        if what == "exit":
            os._exit(0)
        if what == "system_exit":
            sys.exit(3)
        if what == "hang":
            child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            Path(os.environ["EXECUTIONS"] + ".child").write_text(str(child.pid))
            time.sleep(1000)
        if what == "lambda":
            return {"model": {"loss": lambda: 0}}
        if what == "print":
            sys.stdout.write("a" * 99 + "\\n")
            for _ in range(120_000):
                sys.stdout.write("b" * 99 + "\\n")
            print("the end")
        return "fine"

    if __name__ == "__main__":
        main(evaluate, jobs, name="bad", workers=3)
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, str]:
    """A run of all of them, which is only looked at, and what it has said."""
    experiment = Experiment(tmp_path_factory.mktemp("bad"))
    experiment.write(BAD)
    done = experiment.run("--timeout", "2")
    assert done.returncode == 1, done.stderr
    return experiment, done.stderr


def test_each_bad_job_ends_as_it_should_and_its_neighbours_finish(bad: tuple[Experiment, str]) -> None:
    """P10, P11: an exception that cannot be unpickled and a lambda are text; exits and a segfault are seen."""
    experiment, _ = bad
    final = experiment.final()
    assert all(final[f"good/{number}"]["state"] == "completed" for number in range(20))
    assert final["bad/print"]["state"] == "completed"
    ends = {
        job: (entry["error"]["outcome"], entry["attempts"])
        for job, entry in final.items()
        if entry["state"] == "failed"
    }
    assert ends == {
        "bad/raise": ("raised", 1),
        "bad/system_exit": ("raised", 1),
        "bad/segfault": ("crashed", 3),
        "bad/exit": ("crashed", 3),
        "bad/hang": ("timed_out", 1),
        "bad/lambda": ("unencodable", 1),
    }
    raised = final["bad/raise"]["error"]
    assert (raised["type"].rpartition(".")[2], raised["message"]) == ("TwoArguments", "this and that")
    assert "exp.py" in raised["traceback"]
    assert final["bad/segfault"]["error"]["signal"] == signal.SIGSEGV
    assert "last words" in final["bad/segfault"]["error"]["output_tail"]
    assert "/model/loss" in final["bad/lambda"]["error"]["message"]


def test_a_timeout_ends_the_whole_process_tree(bad: tuple[Experiment, str]) -> None:
    """P7: a child in a session of its own."""
    experiment, _ = bad
    child = int((experiment.folder / "executions.txt.child").read_text())
    wait_for(lambda: not _alive(child), "the job's child outlived it")


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_output_is_kept_per_job_with_head_and_tail_of_what_is_too_long(bad: tuple[Experiment, str]) -> None:
    experiment, _ = bad
    folder = experiment.output / experiment.experiment_id() / "output"
    (log,) = folder.glob("bad*print.log")
    text = log.read_text()
    assert 9_000_000 < len(text) < 11_000_000
    assert text.startswith("aaaa")
    assert text.rstrip().endswith("the end")
    assert "bytes" in text
    assert not list(folder.glob("good*1.log"))


def test_the_summary_fits_a_screen_and_names_what_failed(bad: tuple[Experiment, str]) -> None:
    _, said = bad
    for words in ("TwoArguments", "SIGSEGV", "bad/raise", "logs_final.json", "--resume"):
        assert words in said, said
