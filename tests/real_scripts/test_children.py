"""What a job forks is an ordinary process: the handlers that the script had left, nothing of ours."""

from __future__ import annotations

import signal

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

CHILDREN = """
    import _thread, atexit, multiprocessing, os, signal, sys, threading, time, faulthandler

    FORK = multiprocessing.get_context("fork")

    def handlers():
        known = range(1, 65)
        return {str(n): str(signal.getsignal(n)).split(" at ")[0] for n in known if n not in (32, 33)}

    def seen_in_a_child():
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writer, repr([handlers(), faulthandler.is_enabled(), sorted(map(int,
                signal.pthread_sigmask(signal.SIG_BLOCK, [])))]).encode())
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            found = file.read().decode()
        os.waitpid(pid, 0)
        return found

    def terminated():
        child = FORK.Process(target=time.sleep, args=(100,))
        child.start()
        child.terminate()
        child.join(5)
        return child.exitcode

    def interrupted(how="SIGINT"):
        reader, writer = os.pipe()
        child = FORK.Process(target=sleep_or_say, args=(writer,))
        child.start()
        os.read(reader, 1)
        os.kill(child.pid, getattr(signal, how))
        child.join(5)
        return child.exitcode

    def sleep_or_say(writer):
        try:
            os.write(writer, b"x")
            time.sleep(100)
        except KeyboardInterrupt:
            sys.exit(7)

    def ends(how):
        pid = os.fork()
        if pid == 0:
            how()
            sys.exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def raises():
        raise ValueError("in the child")

    def late_thread():
        pid = os.fork()
        if pid == 0:
            threading.Timer(0.2, lambda: open("late", "w").close()).start()
            sys.exit(3)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return [code, os.path.exists("late")]

    def own_exit_function():
        pid = os.fork()
        if pid == 0:
            atexit.register(lambda: open("said", "w").close())
            sys.exit(0)
        os.waitpid(pid, 0)
        return os.path.exists("said")

    def pool():
        with FORK.Pool(3) as pool:
            return pool.map(abs, range(-5, 0))

    def interrupts_itself(how):
        try:
            how()
            for _ in range(500):  # interrupt_main ends no sleep
                time.sleep(0.01)
        except KeyboardInterrupt:
            return "interrupted"
        return "nothing came"

    def own_alarm():
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        time.sleep(0.2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return seen

    def own_handler():
        seen = []
        before = signal.signal(signal.SIGTERM, lambda *_: seen.append("asked"))
        os.kill(os.getpid(), signal.SIGTERM)
        child = FORK.Process(target=os.kill, args=(0, 0))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return seen

    def with_asyncio():
        import asyncio
        async def main():
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(5)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            return "interrupted"

    WAYS = {
        "seen in a child": seen_in_a_child,
        "terminated at once": terminated,
        "terminated": lambda: interrupted("SIGTERM"),
        "hung up": lambda: interrupted("SIGHUP"),
        "user signal": lambda: interrupted("SIGUSR1"),
        "quit": lambda: interrupted("SIGQUIT"),
        "interrupted": interrupted,
        "child exits": lambda: ends(lambda: sys.exit(5)),
        "child exits with nothing": lambda: ends(lambda: sys.exit()),
        "child exits with text": lambda: ends(lambda: sys.exit("so long")),
        "child raises": lambda: ends(raises),
        "child aborts": lambda: ends(os.abort),
        "child is interrupted": lambda: ends(lambda: signal.raise_signal(signal.SIGINT)),
        "late thread": late_thread,
        "own exit function": own_exit_function,
        "pool": pool,
        "raise_signal": lambda: interrupts_itself(lambda: signal.raise_signal(signal.SIGINT)),
        "kill": lambda: interrupts_itself(lambda: os.kill(os.getpid(), signal.SIGINT)),
        "interrupt_main": lambda: interrupts_itself(
            lambda: threading.Timer(0.05, _thread.interrupt_main).start()),
        "own alarm": own_alarm,
        "own handler": own_handler,
        "asyncio": with_asyncio,
        "default_int_handler": lambda: signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    }
    PARAMS = [{"way": way} for way in WAYS]

    def evaluate(way):
        return WAYS[way]()
"""


METHODS = ["zygote", "spawn"]


def test_children_of_jobs_behave_as_children_of_the_bare_script(real_script: RealScript) -> None:
    real_script.write(CHILDREN)
    expected = real_script.bare()
    for method in METHODS:
        for name in ("late", "said"):
            (real_script.folder / name).unlink()
        found = real_script.run("--start-method", method, "--workers", "2")
        assert dict(enumerate(found)) == dict(enumerate(expected)), method


OWN_HANDLERS = """
    import os, signal, faulthandler, time
    signal.signal(signal.SIGTERM, lambda *_: SEEN.append("term"))
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signal.signal(signal.SIGVTALRM, lambda *_: None)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    SEEN = []
    PARAMS = [{"n": n} for n in range(4)]

    def evaluate(n):
        SEEN.clear()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        reader, writer = os.pipe()
        pid = os.fork()
        state = [SEEN, signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, []),
            callable(signal.getsignal(signal.SIGTERM)), callable(signal.getsignal(signal.SIGVTALRM)),
            str(signal.getsignal(signal.SIGUSR1)), str(signal.getsignal(signal.SIGCHLD))]
        if pid == 0:
            os.write(writer, repr(state).encode())
            os._exit(3)
        os.close(writer)
        with open(reader, "rb") as file:
            child = file.read().decode()
        try:
            code = os.waitpid(pid, 0)[1]
        except ChildProcessError:
            code = "nobody is there"
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        return [state, child, code, wakeup >= 0]
"""


def test_handlers_of_the_script_are_those_of_its_jobs_and_of_their_children(real_script: RealScript) -> None:
    real_script.write(OWN_HANDLERS)
    expected = real_script.bare()
    for method in METHODS:
        assert real_script.run("--start-method", method) == expected, method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "setting",
    some(
        [
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
            "signal.signal(signal.SIGCHLD, lambda *_: [os.wait() for _ in range(9)])",
            "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
            "signal.signal(signal.SIGCHLD, lambda *_: os.waitpid(-1, os.WNOHANG))",
        ],
        3,
    ),
)
def test_how_a_worker_died_is_known_whatever_the_script_has_made_of_signals(
    real_script: RealScript, setting: str, method: str
) -> None:
    real_script.write(f"""
        import os, signal
        {setting}
        PARAMS = [{{"n": n}} for n in range(4)]
        def evaluate(n):
            if n == 2:
                os.kill(os.getpid(), signal.SIGSEGV)
                os.kill(os.getpid(), signal.SIGKILL)
            return n
    """)
    real_script.run("--start-method", method, "--crash-limit", "1", code=1)
    assert real_script.outcomes() == ["completed", "completed", "crashed", "completed"]
    error = real_script.final()[2]["error"]
    assert error["signal"] in (signal.SIGSEGV, signal.SIGKILL), error


FAULTS = """
    import faulthandler, os, signal, sys, time

    def crash(path, signum):
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.kill(os.getpid(), signum)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with open(path) as file:
            return [code, "most recent call first" in file.read()]

    WAYS = {
        "none": lambda: None,
        "own": faulthandler.enable,
        "file": lambda: faulthandler.enable(sys.__stderr__, all_threads=False),
        "descriptor": lambda: faulthandler.enable(2),
        "taken back": lambda: (faulthandler.enable(), faulthandler.disable()),
        "stacks": lambda: faulthandler.register(signal.SIGQUIT),
        "stacks taken back": lambda: (faulthandler.register(signal.SIGQUIT),
                                      faulthandler.unregister(signal.SIGQUIT)),
    }
    # After each of them one that has asked for nothing: what an earlier one asked for is over.
    PARAMS = [{"way": way} for name in WAYS for way in (name, "none")]

    def evaluate(way):
        if "--bare" in sys.orig_argv:
            faulthandler.disable()
            faulthandler.unregister(signal.SIGQUIT)
        WAYS[way]()
        time.sleep(0.02)
        return [crash(f"{os.getpid()}", number) for number in (signal.SIGSEGV, signal.SIGQUIT)]
"""


def test_a_child_reports_its_faults_where_the_job_has_asked_for_that(real_script: RealScript) -> None:
    real_script.write(FAULTS)
    expected = real_script.bare()
    for method in METHODS:
        assert real_script.run("--start-method", method, "--workers", "1") == expected, method


def test_what_setup_has_made_of_faulthandler_is_for_all_jobs(real_script: RealScript) -> None:
    real_script.write(
        """
        import faulthandler, os, signal
        from supervisor import main

        def setup():
            global FAULTS
            FAULTS = open("faults", "w")
            faulthandler.enable(FAULTS)

        def evaluate(n):
            if n == 40:
                os.kill(os.getpid(), signal.SIGSEGV)

        if __name__ == "__main__":
            jobs = [{"n": n} for n in range(41)]
            main(evaluate, jobs, name="faults", setup=setup, output="out", all_tasks=True, workers=1,
                 crash_limit=1)
        """,
        footer=False,
    )
    assert real_script.python().returncode == 1, real_script.stderr
    assert "Segmentation fault" in (real_script.folder / "faults").read_text()
