"""The functions that the workers of these tests run; imported by name in the workers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from workers.job.current_job import current_job

# What the script's own code finds when it is imported, and in which process.
IMPORTED_IN = os.getpid()
VISIBLE_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")


def add(x: int, y: int = 1) -> int:
    return x + y


def about() -> dict[str, object]:
    job = current_job()
    seen_by_thread: list[str] = []
    thread = threading.Thread(target=lambda: seen_by_thread.append(current_job().id))
    thread.start()
    thread.join()
    return {
        "id": job.id,
        "domain": job.domain,
        "attempt": job.attempt,
        "seed": job.seed,
        "worker": job.worker,
        "context": job.context,
        "directory": str(job.directory),
        "thread": seen_by_thread[0],
        "local worker": [job.local_worker, os.environ["LONGHAUL_LOCAL_WORKER"]],
        "environment": [os.environ["LONGHAUL_WORKER"], os.environ["LONGHAUL_EXPERIMENT"]],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "group": os.getpgid(0) == os.getpid(),
        "stdin": os.readlink("/proc/self/fd/0") if sys.platform == "linux" else "/dev/null",
    }


def setup() -> str:
    print("setting up")
    return "prepared"


def failing_setup() -> None:
    print("words before the end")
    raise RuntimeError("no such device")


def choose_a_gpu() -> None:
    """As scripts do that know nothing of jobs with GPUs."""
    os.environ["CUDA_VISIBLE_DEVICES"] = str(current_job().worker % 2)


def load_numpy() -> None:
    import numpy  # noqa: F401


def load_libraries() -> None:
    import scipy.linalg  # noqa: F401
    import sklearn.ensemble  # noqa: F401


def greedy_setup() -> None:
    """Leaves not one descriptor free."""
    with contextlib.suppress(OSError):
        while True:
            os.dup(0)


def do(what: str, **more: object) -> object:
    return globals()["do_" + what.replace("-", "_")](**more)


def do_raise() -> None:
    raise ValueError("bad value")


def do_system_exit() -> None:
    sys.exit(3)


def do_exit_hard(code: int = 0) -> None:
    os._exit(code)


def do_segfault() -> None:
    ctypes.string_at(0)


def do_big(size: int) -> str:
    return "x" * size


def do_length(of: str) -> int:
    return len(of)


def do_lambda() -> object:
    return {"model": lambda: None}


def do_sleep(seconds: float = 1000.0, note: str = "") -> str:
    _say(note)
    time.sleep(seconds)
    return "slept"


def do_wait_for(gate: str, note: str) -> None:
    _say(note)
    while not os.path.exists(gate):
        time.sleep(0.005)


def do_wait_for_drain(note: str) -> str:
    _say(note)
    while not current_job().stopping:
        time.sleep(0.005)
    return "stopped early"


def do_leave_child(note: str, new_session: bool) -> None:
    child = subprocess.Popen(["sleep", "1000"], start_new_session=new_session)
    _say(note, str(child.pid))
    time.sleep(1000)


def do_hold_gil(note: str) -> None:
    child = subprocess.Popen(["sleep", "1000"])
    _say(note, f"{os.getpid()} {child.pid}")
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the GIL


def do_print(text: str) -> None:
    print(text)
    ctypes.CDLL(None).puts(b"from C")
    subprocess.run(["echo", "from a child"], check=True)
    print("to stderr", file=sys.stderr)


def do_print_much(size: int) -> None:
    sys.stdout.write("first line\n")
    for _ in range(size // 1000):
        sys.stdout.write("x" * 999 + "\n")
    print("last line")


def do_print_and_die() -> None:
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)


def do_spoil(directory: str) -> None:
    os.chdir(directory)
    os.umask(0o777)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.alarm(1)
    os.close(1)


def do_surroundings() -> list[object]:
    mask = os.umask(0)
    os.umask(mask)
    return [os.getcwd(), mask, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, signal.alarm(0)]


def do_nonsense() -> None:
    """Write into all pipes that this process can write to."""
    for descriptor in map(int, os.listdir("/dev/fd")):
        try:
            if descriptor > 2 and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\xce\0\0\0\1\xc1")
        except OSError:
            continue
    time.sleep(1000)


def do_close_everything(seconds: float = 0) -> None:
    os.closerange(3, 5000)
    time.sleep(seconds)


def do_see_gpus(spoil: bool = False) -> dict[str, object]:
    """What tells a job of its GPUs. `spoil`: and change it."""
    started_with = Path("/proc/self/environ").read_text().split("\0") if sys.platform == "linux" else []
    program = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    seen: dict[str, object] = {
        "now": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "order": os.environ.get("CUDA_DEVICE_ORDER"),
        "at import": VISIBLE_AT_IMPORT,
        "at start": [entry.partition("=")[2] for entry in started_with if entry.startswith("CUDA_VISIBLE_")],
        "job": current_job().gpus,
        "program": subprocess.check_output([sys.executable, "-c", program], text=True).strip(),
        "imported here": os.getpid() == IMPORTED_IN,
    }
    if spoil:
        os.environ["CUDA_VISIBLE_DEVICES"] = "9"
        del os.environ["CUDA_DEVICE_ORDER"]
    return seen


_CAPPED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def do_count_threads() -> dict[str, object]:
    """How many threads libraries use, that were loaded before or are loaded now, and a program would."""
    load_libraries()
    import joblib
    import threadpoolctl
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

    return {
        "cpus": current_job().cpus,
        "libraries": {
            f"{library['internal_api']} {library['filepath']}": library["num_threads"]
            for library in threadpoolctl.threadpool_info()
        },
        "environment": {name: os.environ.get(name) for name in _CAPPED},
        "of a program": subprocess.check_output("echo $OPENBLAS_NUM_THREADS", shell=True, text=True).strip(),
        "of scikit-learn": _openmp_effective_n_threads(),
        "all cores": joblib.effective_n_jobs(-1),
    }


def do_cores() -> list[object]:
    return [current_job().cpus, os.environ["OMP_NUM_THREADS"]]


def do_has_module(name: str) -> bool:
    return name in sys.modules


def do_describe_process() -> dict[str, object]:
    """What a process inherits from the one that has started it."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    open_ones = [int(name) for name in os.listdir("/proc/self/fd")]
    inherited = [number for number in open_ones if _is_inheritable(number)]
    own = ~(3 << 31)  # 32 and 33 belong to the C library, which ignores them in what posix_spawn starts
    return {
        "signals": [int(status[name], 16) & own for name in ("SigBlk", "SigIgn", "SigCgt")],
        "for programs": sorted(inherited),
        "leads its group": os.getpgid(0) == os.getpid(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "directory": os.getcwd(),
        "path": sys.path,
        "arguments": [sys.argv, sys.orig_argv],
        "environment": {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "LONGHAUL_"))},
        "name": sys.modules["__main__"].__name__,
    }


def _is_inheritable(descriptor: int) -> bool:
    with contextlib.suppress(OSError):  # that of the listing
        return os.get_inheritable(descriptor)
    return False


def do_orphan(note: str, bare: bool = False) -> None:
    """A daemon: started by a process that ends, in a session of its own. `bare`: with no environment."""
    script = f"sleep 1000 & echo $! > {note}.new; mv {note}.new {note}"
    subprocess.run(
        ["setsid", "sh", "-c", script], check=True, env={"PATH": os.environ["PATH"]} if bare else None
    )
    time.sleep(1000)


def do_pid() -> int:
    return os.getpid()


def _say(note: str, text: str = "here") -> None:
    """Tell the test that this job has come so far."""
    if note:
        scratch = Path(note + ".new")
        scratch.write_text(text)
        scratch.rename(note)
