"""Ids, messages and paths with control characters reach no terminal, and can be pasted all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata

import pytest

from supervisor.core.terms.wording import harmless
from supervisor.views.suggested_commands import pasted, resume_command, shown
from tests.experiment_fixture import PATIENCE, ROOT, Experiment, longhaul

EVIL = "a\x1b[31m\x1b]0;title\x07\r\x9b2J\u202e/b"
SCRIPT = f"""
    EVIL = {EVIL!r}

    def evaluate(number, **more):
        print("printed")
        held = bytearray(1 << 20)
        if number < 2:
            os._exit(3) if number else None
            raise ValueError(EVIL)
        return EVIL

    if __name__ == "__main__":
        jobs = [Job(id=f"{{EVIL}}{{n}}", domain=EVIL, params={{"number": n, EVIL: EVIL}}) for n in range(3)]
        main(evaluate, jobs, name="trial", workers=1, all_tasks=True, crash_limit=1)
"""
COMMANDS = [
    ["list"],
    ["status"],
    ["failures"],
    ["show", EVIL + "0"],
    ["show", "a"],
    ["show", EVIL[:5] + "x"],
    ["output", EVIL + "0"],
    ["memory"],
    ["results"],
    ["results", "--columns", "params.*"],
    ["list", "--json"],
    ["show", EVIL + "0", "--json"],
    ["memory", "--json"],
    ["results", EVIL],
    ["results", "--sort", EVIL],
    ["verify"],
    ["ctl", "cancel", EVIL],
    ["rm", "latest"],
]


def controls(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\n\t"}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, str]:
    """An experiment whose jobs are called so, and what it has said. It is only looked at."""
    experiment = Experiment(tmp_path_factory.mktemp("ended"))
    experiment.write(SCRIPT)
    done = experiment.run("--experiment-id", "night")
    assert done.returncode == 1, done.stderr
    return experiment, done.stderr


def test_a_carriage_return_hides_nothing_of_an_error(experiment: Experiment) -> None:
    """In what a job prints it does, as on a terminal: there it is a progress bar."""
    experiment.write("""
        def evaluate():
            print("10 %\\r20 %")
            raise ValueError("the cause" + chr(13) + "and more" + chr(13) + chr(10) + "the end")

        if __name__ == "__main__":
            main(evaluate, [Job(id="a")], name="trial", workers=1)
    """)
    assert experiment.run("--experiment-id", "night").returncode == 1
    for words in (["show", "a", "night"], ["report", "night", "-o", str(experiment.output / "night.html")]):
        done = longhaul(*words, "-d", str(experiment.output))
        assert done.returncode == 0, done.stderr
        said = done.stdout if words[0] == "show" else (experiment.output / "night.html").read_text()
        assert "ValueError: the cause\n" in said, words
    shown = experiment.output / "night" / "output" / "a.log"
    assert shown.read_bytes() == b"10 %\r20 %\n"


def test_no_command_prints_them(ended: tuple[Experiment, str]) -> None:
    experiment, said = ended
    assert "FAILED a" in said and not controls(said)
    log = (experiment.output / "night" / "supervisor.log").read_text()
    assert not controls(log)
    for words in COMMANDS:
        done = longhaul(*words, "-d", str(experiment.output))
        assert done.stdout or done.stderr, words
        assert not controls(done.stdout + done.stderr), words
        assert "Traceback (most" not in done.stderr


def test_what_programs_read_loses_nothing_and_a_terminal_is_not_steered(
    ended: tuple[Experiment, str],
) -> None:
    experiment, _ = ended
    words = [
        sys.executable,
        "-m",
        "supervisor",
        "results",
        "night",
        "-d",
        str(experiment.output),
        "-c",
        "job",
    ]
    for form in ("jsonl", "csv"):
        command = [*words, "--format", form]
        piped = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
        if form == "jsonl":
            assert json.loads(piped.split("\n")[0]) == {"job": EVIL + "0"}
        else:
            assert EVIL + "0" in piped
        reader, writer = os.openpty()
        subprocess.run(command, cwd=ROOT, stdout=writer, check=True)
        os.close(writer)
        shown = os.read(reader, 1 << 16).decode().replace("\r\n", "\n")
        os.close(reader)
        assert not controls(shown) and "/b0" in shown
        assert form == "csv" or json.loads(shown.split("\n")[0]) == {"job": EVIL + "0"}


def test_the_suggested_command_means_the_job(ended: tuple[Experiment, str]) -> None:
    experiment, said = ended
    (line,) = [line for line in said.splitlines() if "replay the first:" in line]
    command = line.partition(":")[2].strip()
    assert "$'a\\x1b[31m" in command
    again = subprocess.run(
        ["/bin/bash", "-c", command],
        env=experiment.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert again.returncode == 1, again.stderr
    assert "ValueError" in again.stderr


def test_words_are_quoted_as_a_shell_reads_them() -> None:
    for word in (EVIL, "a\nb", "\x1b1f", "é\x07漢", "\u200d"):
        text = pasted(["printf", "%s", word])
        assert not controls(text) and "\n" not in text
        done = subprocess.run(["/bin/bash", "-c", text], capture_output=True, check=True)
        assert done.stdout.decode() == word
    assert pasted(["é 漢", "-1/a"]) == "'é 漢' -1/a"
    assert shown("/tmp/é 漢") == "/tmp/é 漢"
    assert shown("/tmp/\x1b[2J") == "$'/tmp/\\x1b[2J'"
    assert resume_command([], [], "night", ["--only", 'say "\x07"']) == (
        """run(..., resume="night", only='say "\\x07"')"""
    )


def test_what_is_harmless_stays_as_it_is() -> None:
    text = "two lines,\n\ttabs, é, 漢, \udcff of a path, no-break\xa0space"
    assert harmless(text) == text
    assert harmless("a\x1b[31mb\x1b[0m\rc\x07") == "ab c "
