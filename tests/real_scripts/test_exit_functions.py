"""Exit functions and finalizers run once, in the process that registered them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.real_scripts.conftest import RealScript

TEMPORARY = """
    import gc, os, tempfile, weakref
    if __name__ == "__main__":
        import supervisor.engines.worker_process
        supervisor.engines.worker_process.FINISH_WITHIN = 30.0  # a busy machine takes longer than two seconds
    TMP = tempfile.TemporaryDirectory(prefix="real-")
    FILE = tempfile.NamedTemporaryFile("w+", prefix="real-")
    DROPPED = {"it": tempfile.TemporaryDirectory(prefix="real-")}
    WHERE = DROPPED["it"].name
    PARAMS = [{"n": n} for n in range(7)]

    def evaluate(n):
        with open(os.path.join(TMP.name, f"file{n}"), "w") as file:
            file.write("x" * n)
        if n % 2:
            DROPPED.clear()
            gc.collect()
        if n == 5:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        return [os.path.getsize(file.name), os.path.exists(FILE.name), os.path.exists(WHERE) or n > 0]
"""


def test_temporary_directories_of_the_script_live_as_long_as_its_jobs_and_no_longer(
    real_script: RealScript,
) -> None:
    real_script.write(TEMPORARY)
    litter = real_script.folder / "tmp"
    litter.mkdir()
    environment = real_script.environment(TMPDIR=str(litter))
    expected = real_script.bare(env=environment)
    # In the bare script the first job that drops it removes it; for the others it is there or not.
    for words in (["--max-jobs-per-worker", "3"], ["--start-method", "spawn"]):
        assert real_script.run(*words, "--workers", "2", env=environment) == expected
        assert not os.listdir(litter)


REGISTERED = """
    import atexit, multiprocessing.util, os, threading, weakref
    from supervisor import Job, main

    def note(word):
        with open("noted", "a") as file:
            file.write(f"{word} {os.getpid()}\\n")

    class Thing:
        def __del__(self):
            note("del")

    THING, REFERENT = Thing(), Thing
    atexit.register(note, "atexit")
    weakref.finalize(REFERENT, note, "finalize")
    multiprocessing.util.Finalize(None, note, ["Finalize"], exitpriority=1)
    note("import")
    OUT = open("buffered", "a")
    OUT.write("import\\n")

    def set_up():
        atexit.register(note, "setup")
        note("worker")

    def evaluate(n):
        if n == 0:
            atexit.register(note, "job")
            weakref.finalize(evaluate, note, "job's finalize")
            pid = os.fork()
            if pid == 0:
                raise SystemExit(0)
            os.waitpid(pid, 0)
        OUT.write(f"{n}\\n")
        return n

    if __name__ == "__main__":
        main(evaluate, [Job(id=f"j{n}", params={"n": n}) for n in range(6)], name="real", output="out",
             setup=set_up, max_jobs_per_worker=2, workers=2)
"""


@pytest.mark.parametrize("method", ["zygote", "spawn"])
def test_exit_functions_run_once_where_they_were_registered(real_script: RealScript, method: str) -> None:
    real_script.write(REGISTERED, footer=False)
    done = real_script.python("--start-method", method)
    assert done.returncode == 0, done.stderr
    noted = [line.rsplit(" ", 1) for line in (real_script.folder / "noted").read_text().splitlines()]
    of: dict[str, list[str]] = {}
    for word, pid in noted:
        of.setdefault(word, []).append(pid)
    # A worker that is not needed any more when it has just started is ended as it is.
    spare = set(of["worker"]) - set(of["setup"])
    for word in ("atexit", "finalize", "Finalize"):
        assert sorted(of[word]) == sorted(set(of["import"]) - spare), (word, of)
    assert set(of["setup"]) <= set(of["worker"]) and len(of["setup"]) == len(set(of["setup"])) >= 3, of
    assert len(of["job"]) == len(of["job's finalize"]) == 1
    assert set(of["job"]) <= set(of["worker"])
    written = sorted(_lines(real_script.folder / "buffered"))
    assert [line for line in written if line != "import"] == [str(n) for n in range(6)]
    if method == "zygote":  # else the child that job 0 forks flushes what it has inherited, as it does bare
        assert written.count("import") == len(of["import"])


def _lines(path: Path) -> list[str]:
    return path.read_text().split()


def test_an_exit_function_that_hangs_is_not_waited_for(real_script: RealScript) -> None:
    real_script.write("""
        import atexit, os, time
        CHILD = os.environ.get("LONGHAUL_EXPERIMENT")
        if CHILD:
            atexit.register(time.sleep, 1000)
        PARAMS = [{"n": n} for n in range(3)]
        def evaluate(n):
            return n
    """)
    assert real_script.run() == [0, 1, 2]


def test_a_worker_that_is_not_needed_any_more_removes_what_its_setup_has_made(
    real_script: RealScript,
) -> None:
    """It is asked to go, not killed: it may be in the middle of `setup()`."""
    litter = real_script.folder / "tmp"
    litter.mkdir()
    real_script.write(
        f"""
        import os, tempfile, time
        from supervisor import Job, main

        def setup():
            global MADE
            MADE = tempfile.TemporaryDirectory(dir={str(litter)!r})
            if os.environ["LONGHAUL_WORKER"] == "1":
                time.sleep(0.7)  # the other worker has done everything when this one is through

        def evaluate(n):
            return os.path.isdir(MADE.name)

        if __name__ == "__main__":
            jobs = [Job(id=str(n), params={{"n": n}}) for n in range(4)]
            main(evaluate, jobs, name="real", output={str(real_script.output)!r}, setup=setup,
                 all_tasks=True, workers=2)
        """,
        footer=False,
    )
    assert real_script.run() == [True] * 4
    assert not os.listdir(litter)
