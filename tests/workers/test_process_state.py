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


DEPTHS = """
import faulthandler, os, resource, signal, sys
from workers.isolation import signal_handlers
from workers.isolation.process_state import FULL, QUICK, THOROUGH, ProcessState
from workers.process.descriptors import identity_of

file = os.open("file", os.O_CREAT | os.O_RDWR)
os.mkdir("elsewhere")
signal_handlers.install("stacks")
signal_handlers.keep_faulthandler_setup()
process_state = ProcessState()
process_state.set_probes(files={file: identity_of(file)})

def found_from(change):
    "The least depth at which `change` is noticed; it is undone afterwards."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    change()
    found = [depth for depth in (QUICK, FULL, THOROUGH) if not process_state.unchanged(depth)]
    assert found == list(range(found[0], THOROUGH + 1)), found
    os._exit(found[0])

def lower(limit):
    resource.setrlimit(limit, (40, resource.getrlimit(limit)[1]))

def replace():
    other = os.open("other", os.O_CREAT | os.O_RDWR)
    os.dup2(other, file)

assert all(map(process_state.unchanged, (QUICK, FULL, THOROUGH)))
assert found_from(lambda: os.chdir("elsewhere")) == QUICK
assert found_from(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)) == QUICK
assert found_from(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])) == FULL
assert found_from(lambda: lower(resource.RLIMIT_NOFILE)) == FULL
assert found_from(lambda: lower(resource.RLIMIT_CPU)) == THOROUGH
assert found_from(lambda: os.nice(1)) == THOROUGH
assert found_from(lambda: os.close(file)) == THOROUGH
assert found_from(replace) == THOROUGH
assert found_from(faulthandler.disable) == THOROUGH
for timer, depth in ((signal.ITIMER_REAL, QUICK), (signal.ITIMER_PROF, THOROUGH)):
    signal.setitimer(timer, 100, 100)
    assert not process_state.unchanged(depth)
    assert signal.getitimer(timer) == (0.0, 0.0)
    assert process_state.unchanged(depth)
"""


def test_each_depth_finds_what_it_is_for(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{DEPTHS}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
