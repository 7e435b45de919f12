"""A job finds the interpreter as the script has it: modules, paths, arguments, variables, order of sets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.experiment_fixture import wait_for
from tests.real_scripts.conftest import RealScript

METHODS = ["zygote", "spawn"]

STATE = """
    import os, sys

    PARAMS = [{}, {}]

    @TOP@

    def evaluate():
        names = {"LONGHAUL_WORKER", "LONGHAUL_LOCAL_WORKER", "LONGHAUL_EXPERIMENT", "LONGHAUL_INCARNATION"}
        names |= {name for name in os.environ if name.endswith("NUM_THREADS") or name == "VECLIB_MAXIMUM_THREADS"}
        return {
            "path": [repr(entry) for entry in sys.path],
            "flags": repr(sys.flags),
            "directory": ascii(os.getcwd()),
            "environment": sorted(repr(item) for item in os.environb.items() if os.fsdecode(item[0]) not in names),
            "warnings": sys.warnoptions,
            "x": sorted(sys._xoptions),
            "limits": [sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.dont_write_bytecode],
            "argv0": ascii(sys.argv[0]),
            "executable": sys.executable,
            "modules": sorted(name for name in sys.modules if name.startswith("beside")),
        }
"""


def same_as_bare(script: RealScript, **keywords: object) -> None:
    """With each start method."""
    bare = script.bare(**keywords)
    for method in METHODS:
        assert script.run("--start-method", method, **keywords) == bare, method


@pytest.mark.parametrize(
    "top",
    [
        "import supervisor; os.chdir(os.pardir); sys.setrecursionlimit(3000); sys.set_int_max_str_digits(5000)",
        "os.mkdir('made') if not os.path.isdir('made') else None; os.chdir('made'); os.environ['PATH'] += ':/more'",
        "sys.path.insert(0, 'lib'); os.chdir('..'); os.environ.pop('HOME'); os.environ['PYTHONOPTIMIZE'] = '2'",
        "sys.path.remove(os.path.dirname(__file__)); sys.dont_write_bytecode = True; os.environb[b'O'] = b'\\xff\\xfe'",
        "import pathlib as p; sys.path[1:1] = [p.Path('lib'), b'lib', None, 7]; os.environ['PYTHONHASHSEED'] = '5'",
    ],
)
def test_what_the_top_level_changes_is_changed_once(real_script: RealScript, top: str) -> None:
    real_script.write(STATE.replace("@TOP@", top), at=real_script.folder / "folder" / "script.py")
    same_as_bare(real_script, cwd=real_script.script.parent)


@pytest.mark.parametrize(
    "options",
    [
        ["-O", "-W", "error", "-Xdev", "-X", "utf8"],
        ["-I"],
        ["-P", "-uB", "-bb", "-q", "-X", "own=option"],
    ],
    ids=" ".join,
)
def test_options_of_the_interpreter_are_those_of_the_script(
    real_script: RealScript, options: list[str]
) -> None:
    root = Path(__file__).parent.parent.parent
    real_script.write(
        STATE.replace("@TOP@", f"sys.path.append({str(root)!r})"),
    )

    def python(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *options, str(real_script.script), *words],
            cwd=real_script.folder,
            env=real_script.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    bare = python("--bare")
    assert bare.returncode == 0, bare.stderr
    found = json.loads(bare.stdout.removeprefix("RESULTS "))
    for method in METHODS:
        done = python("--start-method", method)
        assert done.returncode == 0, done.stderr
        assert [entry["result"] for entry in real_script.final()] == found, method
        said = [line for line in done.stderr.splitlines() if "PYTHONHASHSEED" in line]
        assert len(said) == (1 if "-I" in options else 0), done.stderr


FOREIGN = ["signal", "socket", "random", "msgspec", "workers", "linecache", "types", "encodings", "json"]


def test_nothing_of_the_current_directory_is_executed(real_script: RealScript, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in FOREIGN:
        (elsewhere / f"{name}.py").write_text("raise SystemExit('executed')")
    real_script.write(STATE.replace("@TOP@", ""), at=tmp_path / "place" / "script.py")
    same_as_bare(real_script, cwd=elsewhere)


def test_a_module_beside_the_script_is_the_one_that_the_script_finds(real_script: RealScript) -> None:
    """Also where one of the standard library has its name, and ours have imported that."""
    real_script.write("""
        import datetime, inspect, msgspec, random, signal, traceback, types

        PARAMS = [{}]

        def evaluate():
            found = (datetime, inspect, msgspec, random, signal, traceback, types)
            return [getattr(module, "MINE", None) for module in found]
    """)
    for name in ("datetime", "traceback", "inspect", "signal", "random", "msgspec", "types"):
        (real_script.folder / f"{name}.py").write_text("MINE = 'mine'")
    same_as_bare(real_script)


def test_files_named_like_what_we_depend_on_disturb_nobody(real_script: RealScript) -> None:
    """Also where such a package looks for itself: a program is left over, which psutil helps to end."""
    names = ("psutil", "loguru", "rich", "cloudpickle", "platform", "asyncio", "resource", "subprocess")
    for name in names:
        (real_script.folder / f"{name}.py").write_text(f"MINE = {name!r}")
    real_script.write(f"""
        import resource

        PARAMS = [{{"name": name}} for name in {names!r}]

        def evaluate(name):
            return __import__(name).MINE
    """)
    assert real_script.bare() == list(names)
    for words in ([], ["--start-method", "spawn"]):
        assert real_script.run(*words, "--max-jobs-per-worker", "4") == list(names)
        said = [path.read_text() for path in real_script.output.glob("*/output/%zygote.log")]
        assert not said


def test_packages_may_be_found_by_pythonpath(real_script: RealScript) -> None:
    """As clusters have it (modules, `pip install --target`): those are no files of the script's."""
    beside = ("msgspec", "rich", "resource")
    for name in beside:
        (real_script.folder / f"{name}.py").write_text(f"MINE = {name!r}")
    real_script.write(f"""
        PARAMS = [{{"name": name}} for name in {beside!r}]

        def evaluate(name):
            return __import__(name).MINE
    """)
    packages = str(Path(msgspec.__file__).parent.parent)
    environment = real_script.environment()
    environment["PYTHONPATH"] += os.pathsep + packages
    same_as_bare(real_script, env=environment)


def test_a_folder_whose_name_is_not_utf8(real_script: RealScript) -> None:
    odd = real_script.folder / os.fsdecode(b"odd \xff\xe9")
    real_script.write(
        STATE.replace("@TOP@", "import beside_it"), at=odd / os.fsdecode(b"scr\xfcpt.py"), footer=False
    )
    (odd / "beside_it.py").write_text("")
    footer = (
        "import json; from supervisor import Job, main\n"
        "if __name__ == '__main__':\n"
        "    if sys.argv[1:2] == ['--bare']:\n"
        "        del sys.argv[1]; print('RESULTS ' + json.dumps([evaluate(), evaluate()]))\n"
        "    else: main(evaluate, [Job(id=n, params={}) for n in 'ab'], name='odd', output='out')\n"
    )
    with real_script.script.open("a") as file:
        file.write(footer)
    real_script.output = odd / "out"
    same_as_bare(real_script, cwd=odd, env=real_script.environment(TMPDIR=str(odd), ODD=str(odd)))


def test_a_set_has_one_order_in_all_workers_runs_and_resumes(real_script: RealScript) -> None:
    real_script.write("""
        import os, subprocess, sys

        ANIMALS = list({"cat", "dog", "horse", "mouse", "rat", "elephant", "ant"})
        PARAMS = [{"n": n} for n in range(3)]

        def evaluate(n):
            code = "import os; print(os.environ.get('PYTHONHASHSEED'))"
            seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
            return [ANIMALS, os.environ.get("PYTHONHASHSEED"), sys.flags.hash_randomization, seen]
    """)
    chosen = real_script.environment(PYTHONHASHSEED="7")
    bare = real_script.bare(env=chosen)
    assert bare[0][1:] == ["7", 1, "7"]
    for method in METHODS:
        first = real_script.run("--start-method", method, "--workers", "2", "--max-jobs-per-worker", "1")
        assert {str(found[1:]) for found in first} == {"[None, 1, 'None']"}
        assert len({str(found) for found in first}) == 1
        assert real_script.python("--resume", "latest", "--rerun", "*").returncode == 0
        assert [entry["result"] for entry in real_script.final()] == first
        assert real_script.run("--start-method", method, env=chosen) == bare


EVERYWHERE = """
    import argparse, os
    from supervisor import Job, main
    from workers import current_job

    def evaluate(n, where):
        print("printed", os.fsencode(os.getcwd()))
        (current_job().directory / "file.txt").write_text("x")
        if n == 1:
            raise ValueError(f"in {os.getcwd()}")
        return [ascii(os.getcwd()), where]

    def jobs(options):
        return [Job(id=f"job{n}", params={"n": n, "where": ascii(options.data)}) for n in range(3)]

    if __name__ == "__main__":
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--data")
        main(evaluate, jobs, name="odd", parser=parser, all_tasks=True, workers=2)
"""


def test_everything_around_a_run_takes_names_that_are_not_utf8(real_script: RealScript) -> None:
    """Own options that are remembered, a hook, messages with a command to paste, a resume, `longhaul
    replay`, `--detach`."""
    odd = real_script.folder / os.fsdecode(b"odd \xff\xe9")
    real_script.write(EVERYWHERE, at=odd / os.fsdecode(b"scr\xfcpt.py"), footer=False)
    real_script.output = odd / "data" / "outputs" / "odd"
    environment = real_script.environment(TMPDIR=str(odd))
    hook = 'cat > hook.json; printf %s "$LONGHAUL_RESULTS" > hook.txt'
    words = ["--data", os.fsdecode(b"d\xff"), "--on-finish", hook, "--experiment-id", "one"]
    real_script.run(*words, cwd=odd, env=environment, code=1)
    assert real_script.outcomes() == ["completed", "raised", "completed"]
    assert json.loads((odd / "hook.json").read_text())["results"] == str(
        real_script.output / "one/logs_final.json"
    )
    assert (odd / "hook.txt").read_bytes() == os.fsencode(real_script.output / "one/logs_final.json")
    (line,) = (line for line in real_script.stderr.splitlines() if "try the failed again:" in line)
    command = line.partition("again:")[2].strip()
    pasted = subprocess.run(
        ["bash", "-c", command], cwd=odd, env=environment, capture_output=True, text=True, check=False
    )
    assert pasted.returncode == 1, pasted.stderr
    assert real_script.final()[0]["result"] == [ascii(str(odd)), ascii(os.fsdecode(b"d\xff"))]
    assert [entry["attempts"] for entry in real_script.final()] == [1, 2, 1]
    replay = [sys.executable, "-m", "supervisor", "replay", "job0", "one", "-d", str(real_script.output)]
    replayed = subprocess.run(
        replay, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    assert replayed.returncode == 0, replayed.stderr
    assert "the same result as in the record" in replayed.stderr
    detached = real_script.python("--detach", "--experiment-id", "two", cwd=odd, env=environment)
    assert detached.returncode == 0, detached.stderr
    wait_for((real_script.output / "two" / "logs_final.json").exists)
