"""README.md and docs/index.md are run: their script is interrupted, goes on, and shows its results."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.conftest import DOCS, README, ROOT, blocks, commands, programs_on_path, prose, run_python
from tests.experiment_fixture import wait_for

START = DOCS / "index.md"
MOST_BYTES = 8_000
MOST_PICTURE_BYTES = 150_000
(PI,) = (block for block in blocks(README, "python"))


def test_it_is_short() -> None:
    assert len(README.read_bytes()) <= MOST_BYTES
    assert len(PI.text.splitlines()) <= 15


def test_the_first_page_has_the_same_example() -> None:
    assert blocks(START, "python") == [PI]


def test_its_pictures_are_small_and_need_nothing_from_elsewhere() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert len(pictures) == 2
    for name in pictures:
        content = (ROOT / name).read_bytes()
        assert len(content) < MOST_PICTURE_BYTES, name
        assert not re.search(rb"url\([^#]|<image|href=", content) or name.endswith(".png"), name


def test_its_commands_do_what_it_says(tmp_path: Path) -> None:
    """Interrupted in the first command, as it says; the rest is done by the second one. Both pages begin with
    these two; then those that look at the results, of both."""
    environment = programs_on_path(tmp_path / "programs")
    work = tmp_path / "pi"
    work.mkdir()
    waiting = "    while not os.path.exists('go'):\n        time.sleep(0.01)\n"
    text = PI.text.replace("2_000_000", "200").replace("    rng =", f"{waiting}    rng =")
    (work / "pi.py").write_text(text.replace("import random\n", "import os\nimport random\nimport time\n"))
    of_readme, of_start = (
        [words for words in commands(page) if words[0] in ("python", "longhaul")] for page in (README, START)
    )
    first, second = of_readme[:2]
    assert (first, second) == (["python", "pi.py"], ["python", "pi.py", "--resume", "latest"])
    assert of_start[:2] == [first, second]
    after = of_readme[2:4] + [words for words in of_start[2:] if words not in of_readme]
    process = subprocess.Popen(
        [sys.executable, *first[1:]], cwd=work, stderr=subprocess.PIPE, text=True, env=environment
    )
    wait_for(lambda: list(work.glob("data/outputs/pi/logs/journal_*")))
    process.send_signal(signal.SIGINT)
    (work / "go").touch()
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT, said
    if "no new jobs are started" in said:
        assert re.search(r"resume: \S*python\S* pi.py --resume experiment_", said)
    assert "40 completed, 0 failed" in run_python(work, *second[1:])
    assert len(after) >= 5
    for words in after:
        done = subprocess.run(
            words, cwd=work, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
        if words[1] == "results" and "-o" not in words:
            assert len(done.stdout.splitlines()) == 41
    assert (work / "pi.html").stat().st_size > 50_000


def test_the_other_commands_are_those_that_other_pages_run() -> None:
    """A cluster, and a program in any language: tests/nodes/ray, docs/any-program.md."""
    rest = [words[:2] for words in commands(README) if words[0] in ("python", "longhaul")][4:]
    assert rest == [["python", "pi.py"], ["longhaul", "exec"]]
    helped = run_python(ROOT, "-m", "supervisor", "exec", "--help")
    (cluster,) = [words for words in commands(README) if "--engine" in words]
    (program,) = [words for words in commands(README) if words[:2] == ["longhaul", "exec"]]
    options = [word for word in (*cluster, *program[: program.index("--")]) if word.startswith("--")]
    assert options and all(f"{option} " in helped for option in options)


def test_make_knows_the_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    shown = {words[1] for words in commands(README) if words[0] == "make"}
    named = shown | set(re.findall(r"`make (\w+)`", prose(README)))
    assert {"demo", "test", "check", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_make_demo_ends_with_the_command_and_where_it_is() -> None:
    (demo,) = re.findall(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.search(r"'  \$\(BIN\)/longhaul results .*--columns", demo)
    assert "$(BIN)/activate" in demo
