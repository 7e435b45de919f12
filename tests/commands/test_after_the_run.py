"""failures, show, output, memory, results: what the files tell in the morning."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.__main__ import COMMANDS, main
from supervisor.commands.result_columns import _rank, finite
from supervisor.commands.results import csv_cell
from tests.commands.conftest import ROOT, Longhaul, snapshot
from workers.job.current_job import job_seed


def test_failures_are_grouped_by_error_and_place(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("failures", outputs)
    assert code == 0
    assert text.startswith("trial night: 8 of 14 jobs failed, 10 failed attempts ran again\n")
    heads = [line for line in text.splitlines() if line and line[0] != " " and ": " in line][1:]
    assert heads[0].startswith("ValueError exp.py:13: 7 jobs failed, 7 attempts ran again, ")
    assert heads[1].startswith("exit code 3: 1 job failed, 2 attempts ran again, ")
    assert heads[2].startswith("OSError exp.py:17: 1 attempt ran again, ")
    assert "failed: raise/0, raise/1, raise/2, raise/3, raise/4 and 2 more" in text
    assert "| working on raise 0" in text
    assert "longhaul replay --pdb raise/0 night" in text or f"raise/0 {outputs}" in text
    assert "raise/6" in longhaul("failures", outputs, "--all")[1]


def test_failures_as_json(outputs: Path, longhaul: Longhaul) -> None:
    groups = json.loads(longhaul("failures", outputs, "--json")[1])
    assert [(one["kind"], len(one["jobs"]), len(one["again"])) for one in groups] == [
        ("ValueError exp.py:13", 7, 7),
        ("exit code 3", 1, 2),
        ("OSError exp.py:17", 0, 1),
    ]
    assert "ValueError: no such split: 0" in groups[0]["traceback"]
    assert groups[0]["attempts"] == 14


def test_every_attempt_of_a_job_is_shown(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("show", "flaky", outputs)
    assert code == 0
    assert text.startswith("flaky/1: completed, in experiment night\n")
    assert 'params   {"kind":"flaky"}' in text
    assert "OSError: connection reset" in text
    document = json.loads(longhaul("show", "flaky/1", outputs, "--json")[1])
    first, second = document["attempts"]
    assert (first["outcome"], first["state"], first["attempt"]) == ("raised", "pending", 1)
    assert (second["outcome"], second["state"], second["attempt"]) == ("completed", "completed", 2)
    assert first["worker"] == 0 and first["pid"] > 0 and first["handed_out"] <= first["ended"]
    assert document["result"]["seed"] == job_seed(7, "flaky/1")


def test_a_crash_is_shown_with_its_peak_memory(outputs: Path, longhaul: Longhaul) -> None:
    document = json.loads(longhaul("show", "crash/1", outputs, "--json")[1])
    assert [one["outcome"] for one in document["attempts"]] == ["crashed"] * 3
    assert all(one["peak_rss"] > 1_000_000 for one in document["attempts"])
    assert len({one["pid"] for one in document["attempts"]}) == 3
    text = longhaul("show", "crash/1", outputs)[1]
    assert "given up" in text and "exited with code 3" in text


@pytest.mark.parametrize("job", ["-dash", "with blank", "a/b/c", "star[*]"])
def test_ids_with_dashes_blanks_slashes_and_brackets_work(
    outputs: Path, longhaul: Longhaul, job: str
) -> None:
    code, text, _ = longhaul("show", "--", job, outputs)
    assert code == 0 and text.startswith(f"{job}: completed")
    code, text, _ = longhaul("output", "--", job, outputs)
    assert code == 0 and text.startswith("working on ok")


def test_an_unknown_job_is_told_with_the_nearest_one(outputs: Path, longhaul: Longhaul) -> None:
    for command in ("show", "output"):
        code, _, err = longhaul(command, "flakky/1", outputs)
        assert code == 2
        assert err == "error: no job 'flakky/1' in this experiment; the nearest id is 'flaky/1'\n"


def test_the_output_of_all_attempts_is_printed(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("output", "raise/3", outputs, "--follow")  # it is over: returns at once
    assert code == 0
    assert text == "working on raise 3\n\n--- attempt 2 ---\nworking on raise 3\n"


def test_the_largest_are_those_whose_memory_is_known(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("memory", outputs)
    assert code == 0
    assert text.splitlines()[0].split() == ["peak", "at", "job", "attempt", "worker", "outcome", "took"]
    assert text.count("crash/1") == 3
    assert "workers with a higher peak" in text
    use = json.loads(longhaul("memory", outputs, "-n", "1", "--json")[1])
    assert len(use["attempts"]) == 1 and use["attempts"][0]["job"] == "crash/1"
    for number in ("0", "-1"):
        with pytest.raises(SystemExit) as ended:
            longhaul("memory", outputs, "-n", number)
        assert ended.value.code == 2


# ------------------------------------------------------------------------------ results


def test_results_as_csv_have_a_column_for_everything(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("results", "-d", outputs, "--format", "csv")
    assert code == 0
    rows = {row["job"]: row for row in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 14
    assert list(rows["last"])[:7] == [
        "job",
        "domain",
        "state",
        "seconds",
        "outcome",
        "params.kind",
        "params.n",
    ]
    assert (rows["last"]["result.x"], rows["last"]["result.in.list"]) == ("1.0", "[1,2]")
    assert rows["last"]["result.nan"] == "nan"
    assert rows["raise/2"]["error.message"] == "no such split: 2"
    assert rows["raise/2"]["result.x"] == ""


def test_results_go_into_a_pipe_and_do_not_replace_it(
    outputs: Path, longhaul: Longhaul, tmp_path: Path
) -> None:
    """A device, or `-o >(gzip > FILE)`, is written to; a file put in its place would destroy it."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    code, text, _ = longhaul("results", "-d", outputs, "-f", "csv", "-o", tmp_path / "pipe")
    assert (code, text) == (0, "")  # it may have been /dev/stdout
    assert os.read(reader, 1 << 16).decode() == longhaul("results", "-d", outputs, "-f", "csv")[1]
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_results_of_several_experiments_say_which(outputs: Path, spare: Path, longhaul: Longhaul) -> None:
    lines = longhaul("results", outputs, spare, "-f", "jsonl")[1].splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == 28
    assert {row["experiment"] for row in rows} == {"night"}
    assert rows[13]["result.in.list"] == [1, 2] and rows[13]["result.nan"] == "nan"
    assert "experiment" not in json.loads(longhaul("results", outputs, "--json")[1].splitlines()[0])


def test_results_as_a_table_and_into_a_file(outputs: Path, tmp_path: Path, longhaul: Longhaul) -> None:
    lines = longhaul("results", outputs)[1].splitlines()
    assert lines[0].split()[:3] == ["job", "domain", "state"]
    assert len(lines) == 15
    target = tmp_path / "all.csv"
    code, text, _ = longhaul("results", outputs, "-f", "csv", "-o", target)
    assert (code, text) == (0, f"written: {target}\n")
    assert target.read_text() == longhaul("results", outputs, "-f", "csv")[1]
    code, _, err = longhaul("results", outputs, "-o", tmp_path / "nowhere" / "x.csv")
    assert code == 73 and "cannot be written" in err


def columns(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()]


def test_columns_are_chosen_by_name_pattern_or_the_last_part_of_a_name(
    outputs: Path, longhaul: Longhaul
) -> None:
    words = ("results", outputs, "-f", "csv")
    lines = columns(longhaul(*words, "--columns", "job,result.x", "-c", "params.*")[1])
    assert lines[0] == ["job", "result.x", "params.kind", "params.n"]
    assert lines[-1] == ["last", "1.0", "ok", "4"]
    assert columns(longhaul(*words, "-c", "x,job")[1])[-1] == ["1.0", "last"]
    nested = [columns(longhaul(*words, "-c", word)[1])[0] for word in ("in", "in.*", "in.l?st", "result.in*")]
    assert nested == [["result.in.list"]] * 4
    jsonl = longhaul("results", outputs, "-f", "jsonl", "-c", "job,x,nan")[1].splitlines()
    assert json.loads(jsonl[0]) == {"job": "raise/0", "result.x": None, "result.nan": None}
    assert json.loads(jsonl[-1]) == {"job": "last", "result.x": 1.0, "result.nan": "nan"}
    assert longhaul("results", outputs, "-c", "job,state")[1].splitlines()[0].split() == ["job", "state"]


def test_rows_are_sorted_and_what_has_no_value_stands_last(outputs: Path, longhaul: Longhaul) -> None:
    words = ("results", outputs, "-f", "csv", "-c", "x,job", "--sort", "result.x")
    upwards = columns(longhaul(*words)[1])[1:]
    assert [line[0] for line in upwards[:6]] == ["0.0", "0.0", "0.25", "0.5", "0.75", "1.0"]
    assert {line[0] for line in upwards[6:]} == {""}
    downwards = columns(longhaul(*words, "--reverse")[1])[1:]
    assert [line[0] for line in downwards[:6]] == ["1.0", "0.75", "0.5", "0.25", "0.0", "0.0"]
    assert {line[0] for line in downwards[6:]} == {""}
    by_two = columns(
        longhaul("results", outputs, "-f", "csv", "-c", "state,job", "-s", "state", "-s", "job")[1]
    )
    assert by_two[1:] == sorted(by_two[1:])
    texts = ["run/10", "run/9", "run", "run/010b", "9", "", "\u0669", 3, [1], True, "run/10/2"]
    wanted = [True, 3, "9", "", "run", "run/9", "run/10", "run/10/2", "run/010b", "\u0669", [1]]
    assert sorted(texts, key=_rank) == wanted


def test_a_column_that_is_not_there_is_told_with_those_that_are(outputs: Path, longhaul: Longhaul) -> None:
    code, _, err = longhaul("results", outputs, "-c", "reslt.x")
    assert code == 2 and "did you mean 'result.x'?" in err and "params.kind" in err
    code, _, err = longhaul("results", outputs, "-s", "params.*")
    assert code == 2 and "params.kind, params.n" in err


def test_not_a_number_is_a_text_in_json_and_csv_also_inside_of_a_list() -> None:
    value = {"a": [1.5, float("nan"), {"b": float("-inf")}], "c": float("inf"), "d": True, "e": None}
    assert finite(value) == {"a": [1.5, "nan", {"b": "-inf"}], "c": "inf", "d": True, "e": None}
    assert csv_cell([float("nan"), 1]) == '["nan",1]'


# ------------------------------------------------------------------------------- manners


READING = [
    ["list"],
    ["status", "night"],
    ["failures", "night"],
    ["show", "flaky/1", "night"],
    ["output", "flaky/1", "night"],
    ["memory", "night"],
    ["results", "night"],
]


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_looking_changes_nothing(outputs: Path, longhaul: Longhaul, words: list[str]) -> None:
    before = snapshot(outputs)
    assert longhaul(*words, "-d", outputs)[0] == 0
    assert snapshot(outputs) == before


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_a_torn_last_line_and_a_missing_checkpoint_are_normal(
    spare: Path, longhaul: Longhaul, words: list[str]
) -> None:
    (spare / "logs" / "checkpoint_night.json").unlink()
    with (spare / "logs" / "journal_night.jsonl").open("ab") as file:
        file.write(b'{"n":999,"type":"ended","job":"flaky/1","attem')
    assert longhaul(*words, "-d", spare)[0] == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: longhaul {name} ")


def test_an_id_that_looks_like_an_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["show", "last", "-unknown"])
    assert stopped.value.code == 2
    assert "put an id that begins with a dash after --" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full here")
@pytest.mark.parametrize(
    "words", [["list"], ["results", "--format", "csv"], ["--version"], ["list", "--help"]]
)
def test_an_output_that_takes_nothing_is_told_in_words(outputs: Path, words: list[str]) -> None:
    where = [] if words[-1].startswith("--") else ["-d", str(outputs)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "supervisor", *words, *where],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": ""},  # set, argparse itself drops the error
            check=False,
        )
    assert done.returncode == 74
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


_INTERRUPTED = """
import sys
from supervisor import __main__

def answer(words):
    print("half a line", end="")
    raise KeyboardInterrupt

__main__._run = lambda name, words: answer(words)
sys.argv[1:] = ["list"]
sys.exit(__main__.main())
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-m", "supervisor", "results", "OUTPUTS", "-f", "csv"], 141),
        (["-m", "supervisor", "--help"], 141),
        (["-m", "supervisor", "show", "--help"], 141),
        (["-c", _INTERRUPTED], -signal.SIGINT),  # Ctrl+C ends the reader, too
    ],
    ids=["results", "help", "help-of-a-command", "interrupted"],
)
def test_a_closed_pipe_ends_it_quietly(outputs: Path, words: list[str], code: int) -> None:
    words = [sys.executable, *(str(outputs) if word == "OUTPUTS" else word for word in words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == code


def test_looking_starts_light() -> None:
    program = (
        "import sys; from supervisor.__main__ import main; main(['list', '.']);"
        "print([name for name in ('rich', 'loguru', 'numpy', 'supervisor.session.execution') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
