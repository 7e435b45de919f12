"""In a process of its own: what C code prints would get into the test runner's output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SOURCE = f"""
import ctypes, os, sys; sys.path.insert(0, {str(ROOT)!r})
from workers.process.linux import CStandardOutput, _libc
out = CStandardOutput()
assert not out.pending()
_libc.setvbuf(out._stream, None, 0, ctypes.c_size_t(4096))  # as a library might: full buffering
_libc.printf(b"%s", b"words")
before = out.pending(), os.fstat(1).st_size
out.flush()
after = out.pending(), os.fstat(1).st_size
assert (before, after) == ((True, 0), (False, 5)), (before, after)
"""


def test_what_waits_in_the_buffer_of_c_is_known(tmp_path: Path) -> None:
    # Python without buffers takes C's away as well.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open(tmp_path / "printed", "wb") as file:
        subprocess.run([sys.executable, "-c", SOURCE], check=True, stdout=file, env=environment)
