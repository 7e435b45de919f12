"""However a program was started, its workers have the `__main__` that it has."""

from __future__ import annotations

import json
import os
import py_compile
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import some
from tests.real_scripts.conftest import RealScript

PROGRAM = """
    import json, os, pickle, sys
    from supervisor import Job, main

    class Point:
        def __init__(self, x): self.x = x

    def part(n): return n * n

    def evaluate(n):
        import __main__
        import multiprocessing
        if __spec__ is None or not __spec__.name.endswith("__main__"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                spawned = pool.map(part, [n])
                pool.close()
                pool.join()
        else:  # a child of multiprocessing does not import such a one
            spawned = None
        return [
            spawned,
            type(pickle.loads(pickle.dumps(Point(1)))) is Point, __name__, __main__.part is part, part.__module__,
            {k: repr(v) for k, v in vars(__main__).items() if k in
             ("__file__", "__package__", "__cached__", "__doc__", "__annotations__", "__builtins__", "__name__")},
            getattr(__spec__, "name", None), getattr(__spec__, "origin", None), type(__loader__).__name__,
            part.__code__.co_filename, sys.argv[:1],
        ]

    if __name__ == "__main__":
        if sys.argv[1:2] == ["--bare"]:
            print("RESULTS " + json.dumps(evaluate(3)))
        else:
            main(evaluate, [Job(id="a", params={"n": 3})], name="real", all_tasks=True)
"""


def compare(real_script: RealScript, folder: Path, *command: str) -> list[Any]:
    """The program bare and under longhaul: they agree."""
    env = real_script.environment(LONGHAUL_OUTPUT=str(real_script.output))

    def start(*words: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, *command, *words]
        return subprocess.run(
            whole, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
        )

    bare = start("--bare")
    assert bare.returncode == 0, bare.stderr
    (line,) = [line for line in bare.stdout.splitlines() if line.startswith("RESULTS ")]
    done = start()
    assert done.returncode == 0, done.stderr
    (entry,) = real_script.final()
    assert entry["result"] == json.loads(line.removeprefix("RESULTS ")), entry
    assert entry["attempts"] == 1
    return list(entry["result"])


# The last ones are scripts like any other; of the odd and the linked one the name is looked at as well.
@pytest.mark.parametrize(
    "start",
    some(["symlink", "odd", "module", "in package", "package", "folder", "archive", "script", "dotted"], 7),
)
def test_a_program_is_the_same_in_its_workers(real_script: RealScript, start: str) -> None:
    folder = real_script.folder
    text = textwrap.dedent(PROGRAM)
    (folder / "program.py").write_text(text)
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    for copy in ("pack/__main__.py", "pack/part.py", "2025-10-14 a b.py"):
        (folder / copy).write_text(text)
    (folder / "folder").mkdir()
    (folder / "folder" / "__main__.py").write_text(text)
    os.symlink("program.py", folder / "link")
    with zipfile.ZipFile(folder / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", text)
    command = {
        "script": ["program.py"],
        "dotted": ["./pack/../program.py"],
        "symlink": ["link"],
        "odd": ["2025-10-14 a b.py"],
        "module": ["-m", "program"],
        "in package": ["-m", "pack.part"],
        "package": ["-m", "pack"],
        "folder": ["folder"],
        "archive": ["app.pyz"],
    }[start]
    result = compare(real_script, folder, *command)
    assert result[1:5] == [True, "__main__", True, "__main__"]


@pytest.mark.parametrize("tool", some(["pdb", "cProfile", "runpy", "exec", "trace"], 4))
def test_a_program_that_another_one_executes_runs(real_script: RealScript, tool: str) -> None:
    real_script.write("""
        import pickle
        class Point: pass
        PARAMS = [{}]
        def evaluate():
            return [__name__, type(pickle.loads(pickle.dumps(Point()))) is Point]
    """)
    command = {
        "pdb": ["-m", "pdb", "-c", "continue", "script.py"],
        "trace": ["-m", "trace", "--count", "-C", "counts", "script.py"],
        "cProfile": ["-m", "cProfile", "-o", "profile", "script.py"],
        "runpy": ["-c", "import runpy; runpy.run_path('script.py', run_name='__main__')"],
        "exec": ["-c", "exec(open('script.py').read())"],
    }[tool]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=real_script.folder,
        env=real_script.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert [entry["result"] for entry in real_script.final()] == [["__main__", True]]


def test_a_program_that_is_read_from_stdin_runs(real_script: RealScript) -> None:
    real_script.write("""
        PARAMS = [{"n": n} for n in range(3)]
        def part(n): return n * n
        def evaluate(n): return part(n)
    """)
    with open(real_script.script) as file:
        done = subprocess.run(
            [sys.executable, "/dev/stdin"],
            cwd=real_script.folder,
            env=real_script.environment(),
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert [entry["result"] for entry in real_script.final()] == [0, 1, 4]


def test_a_script_may_be_called_like_a_library_that_we_need(real_script: RealScript) -> None:
    text = """
        PARAMS = [{"n": n} for n in range(3)]
        def evaluate(n): return n
    """
    for name in ("msgspec", "psutil", "messages"):
        real_script.write(text, at=real_script.folder / name / f"{name}.py")
        assert real_script.run() == [0, 1, 2]


@pytest.mark.parametrize("start", ["script", "module"])
def test_a_program_without_a_source_is_the_same_in_its_workers(real_script: RealScript, start: str) -> None:
    source = real_script.folder / "source" / "program.py"
    source.parent.mkdir()
    source.write_text(textwrap.dedent(PROGRAM).replace('"spawn"', '"fork"'))
    py_compile.compile(str(source), cfile=str(real_script.folder / "program.pyc"))
    command = ["program.pyc"] if start == "script" else ["-m", "program"]
    result = compare(real_script, real_script.folder, *command)
    assert result[1:5] == [True, "__main__", True, "__main__"]
