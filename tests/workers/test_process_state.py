"""In a process of its own: what is tried here would spoil the test runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SOURCE = """
import os, resource, signal, sys
from workers.isolation.process_state import ProcessState

def state():
    mask = os.umask(0); os.umask(mask)
    return (os.getcwd(), mask, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM),
            signal.pthread_sigmask(signal.SIG_BLOCK, []), resource.getrlimit(resource.RLIMIT_NOFILE),
            signal.getitimer(signal.ITIMER_REAL)[0])

signal.signal(signal.SIGTERM, lambda *_: None)
process_state, before = ProcessState(), state()
os.mkdir("elsewhere")
os.chdir("elsewhere")
os.rmdir("../elsewhere")
os.umask(0o123)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGALRM, print)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
signal.alarm(100)
process_state.stop_timers(); process_state.restore()
assert state() == before, (state(), before)
process_state.stop_timers(); process_state.restore()
assert state() == before
"""


def test_what_a_job_changed_is_put_back(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SOURCE}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
