"""A terminal, pipe or command line that is not UTF-8: every command prints, and finds the job."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.system.text_encoding import as_typed, for_people, for_programs, replace_unencodable
from tests.real_scripts.conftest import RealScript

SCRIPT = """
    from supervisor import Job, main

    def evaluate(n, text):
        print("gedrückt 漢 🎉")
        if n == 2:
            raise ValueError("漢字 🎉")
        return {"text": text + "é🎉"}

    JOBS = [Job(id=f"jöb🎉{n}", domain="dömäne", params={"n": n, "text": "漢"}) for n in range(3)]

    if __name__ == "__main__":
        main(evaluate, JOBS, name="experimént", output="out", all_tasks=True, workers=2)
"""
TERMINALS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "LANG=C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
COMMANDS = (
    "list", "list --json", "status", "status --json", "results", "results --json", "results -f csv",
    "results -f csv -o table.csv", "failures", "failures --json", "memory", "verify", "show jöb🎉2",
    "show jöb🎉2 --json", "output jöb🎉2",
)  # fmt: skip
# One interpreter for all of them; each finds streams as this one has found them, and writes into files of its own.
MANY = """
import os, sys
from supervisor.__main__ import main

streams = [(name, getattr(sys, name).encoding, getattr(sys, name).errors) for name in ("stdout", "stderr")]
codes = []
for number, command in enumerate(sys.argv[1:]):
    for descriptor, (name, encoding, errors) in enumerate(streams, 1):
        file = os.open(f"{name}{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
        stream = open(descriptor, "w", encoding=encoding, errors=errors, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    codes.append(main([*command.split(), "-d", "out"]))
    sys.stdout.flush()
    sys.stderr.flush()
with open("codes", "w") as file:
    file.write(repr(codes))
"""

Longhaul = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(params=TERMINALS)
def terminal(request: pytest.FixtureRequest) -> dict[str, str]:
    return TERMINALS[request.param]


@pytest.fixture
def longhaul(real_script: RealScript, terminal: dict[str, str]) -> Longhaul:
    """The command, beside an experiment that was made on this terminal."""
    real_script.write(SCRIPT, footer=False)
    env = real_script.environment(**terminal)
    done = real_script.python(env=env)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr

    def call(*words: str, script: bool = False) -> subprocess.CompletedProcess[bytes]:
        start = [str(real_script.script)] if script else ["-m", "supervisor"]
        place = [] if script or words == ("--help",) else ["-d", "out"]
        return subprocess.run(
            [sys.executable, *start, *words, *place],
            cwd=real_script.folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return call


def test_every_command_prints_and_finds_what_was_typed_and_programs_lose_nothing(
    longhaul: Longhaul, real_script: RealScript, terminal: dict[str, str], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", MANY, *COMMANDS]
    subprocess.run(
        words, cwd=tmp_path, env=real_script.environment(**terminal), stdin=subprocess.DEVNULL, check=True
    )
    printed = {}
    for number, command in enumerate(COMMANDS):
        printed[command], error = (
            (tmp_path / f"{name}{number}").read_bytes() for name in ("stdout", "stderr")
        )
        assert b"Error" not in error, (command, error.decode())
        assert printed[command] or "-o" in command, command
        if command.endswith("--json") and command != "results --json":
            json.loads(printed[command].decode("latin-1"))
    assert (tmp_path / "codes").read_text() == repr([0] * len(COMMANDS))
    for command in ("replay jöb🎉1", "--help"):
        done = longhaul(*command.split())
        assert b"Error" not in done.stderr and done.returncode == 0, (command, done.stderr.decode())
        assert done.stdout, command
    rows = [json.loads(line) for line in printed["results --json"].decode("latin-1").splitlines()]
    assert [(row["job"], row["domain"], row.get("result.text")) for row in rows] == [
        (f"jöb🎉{n}", "dömäne", "漢é🎉" if n < 2 else None) for n in range(3)
    ]
    table = printed["results -f csv"].decode("latin-1")
    assert r"b\ud83c\udf890" in next(csv.DictReader(io.StringIO(table)))["job"]
    assert "jöb🎉2" in (tmp_path / "table.csv").read_text(encoding="utf-8")
    # What the jobs of --debug print goes to this terminal itself, and may fail there as without a runner.
    found = longhaul("--debug", "*🎉1", script=True)
    assert b"no job matches" not in found.stderr and b"running j" in found.stderr, found.stderr.decode()
    assert longhaul("--debug", "*🎉7", script=True).returncode == 2
    again = longhaul("--resume", "latest", "--no-retry-failed", "--rerun", "*🎉1", script=True)
    assert again.returncode == 1 and b"1 to run" in again.stderr, again.stderr.decode()


class _Stream(io.TextIOWrapper):
    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "utf-16"])
def test_no_text_fails(encoding: str) -> None:
    stream = _Stream(encoding)
    replace_unencodable(stream)
    stream.write("a é 漢 🎉 \udcff\udc80 \ud800")
    text = for_programs(json.dumps({"é漢🎉": 1}, ensure_ascii=False), stream)
    assert json.loads(text) == {"é漢🎉": 1}
    stream.write(text + for_people("é漢🎉", stream))


def test_a_path_keeps_its_bytes() -> None:
    stream = _Stream("ascii")
    replace_unencodable(stream)
    stream.write("/tmp/\udcff/\xe9")
    assert stream.buffer.getvalue() == b"/tmp/\xff/?"  # type: ignore[attr-defined]


def test_a_stream_of_somebody_else_is_left_alone() -> None:
    replace_unencodable(None)
    replace_unencodable(io.StringIO())


def test_a_word_is_taken_as_it_was_typed() -> None:
    typed = "jöb🎉".encode().decode("ascii", "surrogateescape")
    assert as_typed(typed) == "jöb🎉"
    assert as_typed("jöb🎉") == "jöb🎉"
    assert as_typed("\udcff") == "\udcff"
