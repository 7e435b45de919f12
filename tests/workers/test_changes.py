"""In a process of its own: what is tried here would spoil the test runner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import io, os, pickle, resource, signal
from workers.changes import CHANGES, note_changes
from workers.streams import buffer_of, remember_writing
note_changes(); note_changes()
"""


def run(source: str, tmp_path: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, *options, "-c", BEGINNING + source],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout.decode()


@pytest.mark.parametrize(
    "change",
    [
        "os.chdir('.')",
        "os.fchdir(os.open('.', os.O_RDONLY))",
        "os.umask(0o22)",
        "os.close(2)",
        "os.closerange(0, 1)",
        "os.dup2(1, 2)",
        "os.dup2(1, fd2=2)",
        "signal.signal(signal.SIGTERM, print)",
        "signal.setitimer(signal.ITIMER_REAL, 0)",
        "signal.alarm(0)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [])",
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))",
        "os.seteuid(os.geteuid())",
    ],
)
def test_what_all_jobs_share_is_not_changed_unnoticed(change: str, tmp_path: Path) -> None:
    run(f"assert not CHANGES.made\n{change}\nassert CHANGES.made", tmp_path)


def test_other_descriptors_are_nobodys_business(tmp_path: Path) -> None:
    run(
        "r, w = os.pipe(); os.dup2(r, 50); os.close(r); os.closerange(50, 52)\nassert not CHANGES.made",
        tmp_path,
    )


def test_the_functions_are_still_what_they_were(tmp_path: Path) -> None:
    """Results, errors, pickling, and what `os` says of them."""
    source = """
mask = os.umask(0o17); assert os.umask(mask) == 0o17
assert pickle.loads(pickle.dumps(os.chdir)) is os.chdir and os.chdir in os.supports_fd
assert signal.signal.__name__ == "signal" and "handler" in signal.signal.__doc__
try: os.chdir("nowhere")
except FileNotFoundError as error: assert error.filename == "nowhere"
else: raise SystemExit(1)
try: os.close("text")
except TypeError: pass
else: raise SystemExit(1)
"""
    run(source, tmp_path)


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_streams_remember_that_something_was_written(options: tuple[str, ...], tmp_path: Path) -> None:
    source = """
remember_writing()
out = buffer_of(sys.stdout)
assert not out.wrote
print("part", end=""); assert out.wrote
out.wrote = False
sys.stdout.buffer.write(b" of a line\\n"); assert out.wrote
out.wrote = False
print("\\udc80 \\u20ac"); assert out.wrote  # never an error for a character
assert sys.stdout is sys.__stdout__ and sys.stdout.name == "<stdout>" and sys.stdout.mode == "w"
assert not sys.stdout.isatty() and sys.stdout.fileno() == 1
out.wrote = False
sys.stdout.close(); assert out.wrote
"""
    text = run(source, tmp_path, *options)
    assert text.startswith("part of a line\n\\udc80 ")


def test_streams_that_somebody_has_replaced_are_left_to_him(tmp_path: Path) -> None:
    source = """
sys.stdout = mine = io.StringIO()
remember_writing()
assert sys.stdout is mine and buffer_of(sys.stderr).wrote is False
assert buffer_of(io.TextIOWrapper(io.BytesIO())).wrote is True
"""
    run(source, tmp_path)
