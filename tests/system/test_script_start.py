"""How the script's interpreter was started, where there is no script on the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from supervisor.system.script_start import interpreter_options
print(interpreter_options())
"""


def test_options_are_known_where_the_script_comes_from_stdin() -> None:
    command = [sys.executable, "-B", "-X", "dev", "-W", "error", "-"]
    done = subprocess.run(command, input=PROGRAM, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == ["-B", "-Werror", "-X", "dev"]
