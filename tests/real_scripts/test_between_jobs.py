"""What one job leaves behind reaches no other job, however short both are.

Each script does something in its first job and looks at it in the others, all in one worker. Bare,
calls that follow each other see what was left; a job sees what the first call would have seen.
"""

from __future__ import annotations

import textwrap

import pytest

from tests.real_scripts.conftest import RealScript

# What the first job does, and what all of them return, before they do anything.
LEFT = {
    "environment": ('os.environ["COLOUR"] = "red"; os.environ.pop("HOME", None)', 'os.environ.get("COLOUR")'),
    "environment_cleared": ("os.environ.clear()", 'os.environ.get("LONGHAUL_WORKER")'),
    "environment_replaced": (
        'os.environ = {"A": "b"}',
        'type(os.environ).__name__ + os.environ.get("A", "")',
    ),
    "time_zone": ('os.environ["TZ"] = "Asia/Tokyo"; time.tzset()', "time.strftime('%z', time.localtime(0))"),
    "recursion_limit": ("sys.setrecursionlimit(5000)", "sys.getrecursionlimit()"),
    "affinity": (
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
        "sorted(os.sched_getaffinity(0))",
    ),
    "niceness": ("os.nice(3)", "os.nice(0)"),
    "decimal_context": ("decimal.getcontext().prec = 3", "str(decimal.Decimal(1) / 7)"),
    "decimal_default": (
        "decimal.DefaultContext.prec = 3; decimal.setcontext(decimal.DefaultContext)",
        "str(decimal.Decimal(1) / 7)",
    ),
    "decimal_traps": (
        "decimal.getcontext().traps[decimal.Inexact] = True",
        "[str(decimal.Decimal(1) / 7), decimal.getcontext().traps[decimal.Inexact]]",
    ),
    "warning_filters": ("warnings.simplefilter('error')", "[str(f) for f in warnings.filters]"),
    "show_warning": ("warnings.showwarning = print", "warnings.showwarning.__name__"),
    "path": ("sys.path.insert(0, '/nowhere'); sys.path.pop()", "list(sys.path)"),
    "path_replaced": ("sys.path = []", "list(sys.path)"),
    "arguments": ("sys.argv.append('more')", "len(sys.argv)"),
    "excepthook": ("sys.excepthook = print", "sys.excepthook is sys.__excepthook__"),
    "trace": ("sys.settrace(lambda *_: None)", "sys.gettrace() is None"),
    "profile": ("sys.setprofile(lambda *_: None)", "sys.getprofile() is None"),
    "thread_trace": ("threading.settrace(print)", "threading.gettrace() is None"),
    "profiler": ("import cProfile; cProfile.Profile().enable()", "profiled()"),
    "collector": ("gc.disable(); gc.set_threshold(5)", "[gc.isenabled(), gc.get_threshold()]"),
    "locale": ("locale.setlocale(locale.LC_ALL, 'C.UTF-8')", "locale.setlocale(locale.LC_ALL)"),
    "logging": (
        "logging.basicConfig(level=0); logging.disable(10)",
        "[len(logging.root.handlers), logging.root.level, logging.root.manager.disable]",
    ),
    "socket_timeout": ("socket.setdefaulttimeout(3)", "socket.getdefaulttimeout()"),
    "print": ("builtins.print = repr", "builtins.print.__name__"),
    "temporary_files": ("tempfile.tempdir = '/'", "tempfile.gettempdir()"),
    "temporary_files_environment": (
        "os.environ['TMPDIR'] = os.getcwd(); tempfile.gettempdir()",
        "tempfile.gettempdir()",
    ),
    "switch_interval": ("sys.setswitchinterval(1)", "sys.getswitchinterval()"),
    "fault_handler": ("faulthandler.disable()", "faulthandler.is_enabled() or bare"),
    "umask": ("os.umask(0o777)", "umask()"),
    "directory": ("os.chdir('/')", "os.getcwd()"),
    "handler": (
        "signal.signal(signal.SIGALRM, print); signal.signal(signal.SIGQUIT, print)",
        "[str(signal.getsignal(n)) for n in (signal.SIGALRM, signal.SIGQUIT)]",
    ),
    "mask": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); os.kill(os.getpid(), signal.SIGALRM)",
        "len(signal.pthread_sigmask(signal.SIG_BLOCK, []))",
    ),
    "wakeup": ("signal.set_wakeup_fd(nonblocking())", "signal.set_wakeup_fd(-1)"),
    "timers": (
        "[signal.setitimer(n, 100) for n in (0, 1, 2)]",
        "[signal.getitimer(n) for n in (0, 1, 2)]",
    ),
    "limit": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)",
    ),
    "start_method": ("multiprocessing.set_start_method('spawn')", "multiprocessing.get_start_method(True)"),
    "event_loop": (
        "asyncio.set_event_loop(asyncio.new_event_loop())",
        "getattr(getattr(asyncio.events._event_loop_policy, '_local', None), '_loop', None) is None",
    ),
    "context_variable": ("variable.set(5)", "variable.get()"),
    "tracemalloc": ("import tracemalloc; tracemalloc.start()", "tracing()"),
    "stack_size": ("threading.stack_size(1 << 20)", "threading.stack_size()"),
    "tracebacks": ("sys.tracebacklimit = 0", "getattr(sys, 'tracebacklimit', None)"),
}

SCRIPT = """
    import asyncio, builtins, contextvars, decimal, faulthandler, gc, locale, logging, multiprocessing, os
    import resource, signal, socket, sys, tempfile, threading, time, warnings

    variable = contextvars.ContextVar("variable", default=0)
    bare = "--bare" in sys.argv
    quiet = "QUIET" in os.environ
    kinds = @KINDS@
    PARAMS = [{"kind": kind, "number": number} for kind in kinds for number in range(3)]

    def umask():
        os.umask(mask := os.umask(0))
        return mask

    def nonblocking():
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        return writing

    def profiled():
        import cProfile
        try:
            with cProfile.Profile():
                return False
        except ValueError:
            return True

    def tracing():
        import tracemalloc
        return tracemalloc.is_tracing()

    def evaluate(kind, number):
        do, see = kinds[kind]
        before = eval(see)
        if number == 0 and not quiet:
            exec(do)
            @PAUSE@
        return before
"""


@pytest.mark.parametrize("half", [0, 1])
def test_what_a_job_leaves_behind_no_other_job_finds(real_script: RealScript, half: int) -> None:
    left = dict(list(LEFT.items())[half::2])  # fewer jobs than are looked after one by one
    text = textwrap.dedent(SCRIPT).replace("@KINDS@", repr(left))
    real_script.write(text.replace("@PAUSE@", "pass"))
    undisturbed = dict(zip(left, real_script.bare(env=real_script.environment(QUIET="1"))[::3], strict=True))
    for pause in ("pass", "time.sleep(0.002)"):  # short jobs and long ones
        real_script.write(text.replace("@PAUSE@", pause))
        found = real_script.run("--workers", "1")
        results = {kind: found[3 * place : 3 * place + 3] for place, kind in enumerate(left)}
        assert {kind: seen for kind, seen in results.items() if seen != seen[:1] * 3} == {}, pause
        differing = {kind for kind in left if results[kind][0] != undisturbed[kind]}
        assert differing <= {"environment_cleared", "arguments"}, pause  # which a worker has of its own


TICKING = {
    "faulthandler": "faulthandler.dump_traceback_later(0.3, exit=True)",
    "alarm": "signal.alarm(1)",
    "real": "signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)",
    "virtual": "signal.setitimer(signal.ITIMER_VIRTUAL, 0.1)",
    "profiling": "signal.setitimer(signal.ITIMER_PROF, 0.1)",
    "raising": "signal.signal(signal.SIGALRM, lambda *_: 1 / 0); signal.setitimer(signal.ITIMER_REAL, 0.3)",
}


def test_nothing_ticks_on_after_its_job(real_script: RealScript) -> None:
    """The next job of the worker would pay for it: killed, or with an error that is not its own."""
    real_script.write(f"""
        import faulthandler, signal, time

        ticking = {TICKING!r}
        PARAMS = [{{"name": name, "what": what}} for name in ticking for what in ("left", "innocent")]

        def evaluate(name, what):
            if what == "left":
                exec(ticking[name])
                return "left"
            end = time.monotonic() + (1.2 if name == "alarm" else 0.5)  # longer than it would take
            while time.monotonic() < end:
                time.process_time()
            return "innocent"
    """)
    assert real_script.run("--workers", "1") == ["left", "innocent"] * len(TICKING)


def test_the_path_from_which_a_job_has_imported_stays(real_script: RealScript) -> None:
    """A package may import more of itself later."""
    for name in ("first", "second"):
        (real_script.folder / "lib").mkdir(exist_ok=True)
        (real_script.folder / "lib" / f"{name}.py").write_text(f"name = {name!r}")
    real_script.write("""
        import functools, sys

        PARAMS = [{"number": number} for number in range(3)]

        @functools.cache
        def library():
            sys.path.insert(0, "lib")
            import first
            return first

        def evaluate(number):
            found = [library().name]
            if number:
                import second
                found.append(second.name)
            return found
    """)
    assert real_script.run("--workers", "1") == real_script.bare() == [["first"], *[["first", "second"]] * 2]


def test_a_descriptor_of_ours_that_a_job_has_closed_is_not_written_to(real_script: RealScript) -> None:
    """Its number is that of a file of the user's now."""
    real_script.write("""
        import os

        kept = []
        PARAMS = [{"number": number} for number in range(4)]

        def evaluate(number):
            print("printed by", number)
            if number == 1:
                scratch = [n for n in os.listdir("/proc/self/fd") if ".worker" in target(n)]
                for descriptor in map(int, scratch):
                    if descriptor > 2:
                        os.close(descriptor)
                kept.extend(open(f"mine{n}.txt", "w+") for n in range(20))
            return [os.fstat(file.fileno()).st_size + file.tell() for file in kept]

        def target(number):
            try:
                return os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                return ""
    """)
    assert real_script.run("--workers", "1") == [[], *[[0] * 20] * 3]
    assert [real_script.log(f"job{n}") for n in range(4)] == [f"printed by {n}\n" for n in range(4)]


def test_a_timer_of_the_top_level_ticks_in_jobs_and_does_not_end_the_run(real_script: RealScript) -> None:
    """A sampling profiler, a heartbeat. One that goes off once is for the script as a whole."""
    real_script.write("""
        import signal, time

        TICKS = []
        signal.signal(signal.SIGALRM, lambda *_: TICKS.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        PARAMS = [{"n": n} for n in range(3)]

        def evaluate(n):
            before, end = len(TICKS), time.monotonic() + 10
            while len(TICKS) < before + 3 and time.monotonic() < end:
                time.sleep(0.01)
            return len(TICKS) >= before + 3
    """)
    assert real_script.run("--workers", "1") == real_script.bare() == [True] * 3
