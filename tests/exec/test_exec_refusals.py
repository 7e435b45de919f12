"""What `longhaul exec` refuses: one clear line, exit code 2, nothing on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.exec.command_options import OTHER_TOOLS, build_own_parser
from supervisor.options.option_parser import our_options
from supervisor.options.script_options import options_of
from tests.exec.conftest import Folder

FILES = {
    "grid.csv": "lr,seed\n0.1,1\n0.2,2\n0.1,1\n",
    "twice.csv": "lr,lr\n1,2\n",
    "short.csv": "lr,seed\n0.1\n",
    "quote.csv": 'lr\n"0.1\n0.2\n',
    "nameless.csv": "lr,\n1,2\n",
    "header.csv": "lr,seed\n",
    "empty.txt": "\n\n",
    "empty.csv": "",
    "bad.jsonl": '{"lr": 1}\n{"lr": \n',
    "list.jsonl": '{"lr": 1}\n[1]\n',
    "partly.jsonl": '{"lr": 1}\n{"lr": 2, "x": 1}\n{"x": null}\n',
    "wide.txt": "\ufeffa\n".encode("utf-16"),
    "plain.txt": "a\nb\na\n",
    "table.json": '[{"lr": 1},\n{"lr": 2}]\n',
    "other.csv": "lr;seed\n1;2\n",
}
ECHO = ["--", "echo"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no command to run; it stands after --: longhaul exec [options] -- COMMAND"),
        (["--"], "there is no command after --"),
        (["--param", "lr", *ECHO], "--param lr: expected NAME=VALUES"),
        (["--param", "=1", *ECHO], "expected NAME=VALUES"),
        (["--param", "lr=", *ECHO], "there is no value after the ="),
        (["--param", "lr=1,,2", *ECHO], "one of the values is empty"),
        (["--param", "lr=0.1..0.5", *ECHO], "a range has whole numbers"),
        (["--param", "n=1..9..0", *ECHO], "steps of 0"),
        (["--param", "n=1..99999999999", *ECHO], "more than 10,000,000 jobs"),
        (["--param", "n=1..9999", "--param", "m=1..9999", *ECHO], "more than 10,000,000 jobs"),
        (["--param", "a=1", "--param", "a=2", *ECHO], "--param a is given twice"),
        (["--param", "a{=1", *ECHO], "'a{' cannot be the name of a value"),
        (["--param", "#=1", *ECHO], "'#' cannot be the name of a value"),
        (["--param", "a=1", *ECHO, "{b}"], "{b} has no value; there is {a}"),
        ([*ECHO, "{b}"], "{b} has no value: give it by --param b=... or --jobs FILE"),
        (["--param", "a=1", *ECHO, "{line}"], "only the lines of a plain list (--jobs) have it"),
        (["--jobs", "plain.txt", *ECHO, "{}"], "({line} is the line)"),
        (["--param", "a=1", *ECHO, "{print $1}"], "for braces in the command write {{ and }}"),
        (["--param", "a=1", *ECHO, "{a"], "a single { in '{a': write {{ for a brace"),
        (["--param", "a=1", *ECHO, "a}"], "a single } in 'a}': write }} for a brace"),
        (["--param", "a=1", "--", "no-such-program"], "there is no program 'no-such-program' on PATH"),
        (["--param", "a=1", "--", "no-such | program"], "there is no shell here: -- sh -c"),
        (["--param", "a=1", "--", "./plain.txt"], "may not be executed: chmod +x ./plain.txt"),
        (["--param", "a=1", "--", "plain.txt"], "the file here is ./plain.txt"),
        (["--param", "a=1", "--", "./no-such"], "the program ./no-such is not there"),
        (["--param", "a=1", "--", "./no such"], "the program ./no such is not there (in"),
        (["--param", "a=1", "--", "./"], "the program ./ is a directory"),
        (["--jobs", "no.csv", *ECHO], "there is no such file"),
        (["--jobs", "*.zip", *ECHO], "it is ls *.zip | longhaul exec --jobs - -- COMMAND {line}"),
        (["--jobs", "table.json", *ECHO, "{lr}"], "a list of lines: a .csv, .tsv or .jsonl file has names"),
        (["--jobs", "other.csv", *ECHO, "{lr}"], "there is {lr;seed}. In a .csv file commas stand between"),
        (["--jobs", "plain.txt", "--jobs=bad.jsonl", *ECHO], "--jobs is given twice, and takes one list"),
        (
            ["--jobs", "plain.txt", "wide.txt", *ECHO],
            "'wide.txt': --jobs takes one list; for a job for each file",
        ),
        (["-resume", "latest"], "unknown option -resume; did you mean --resume?"),
        (["--reusme=latest"], "unknown option --reusme; did you mean --resume?"),
        (["--jobs", "8", *ECHO], "it is --workers 8"),
        (["-j", "8", *ECHO], "so many at the same time is --workers"),
        (["-j8", *ECHO], "so many at the same time is --workers 8"),
        (["-P4", *ECHO], "unknown option -P4: so many at the same time is --workers N"),
        (["--joblog", "l", *ECHO], "unknown option --joblog: longhaul results and longhaul failures"),
        (["--halt=3", *ECHO], "unknown option --halt: --max-failures N"),
        (["--tag", *ECHO], "unknown option --tag: --show-output"),
        (["--qqq", *ECHO], "unknown option --qqq; --help lists all options"),
        (["--tags", *ECHO], "unknown option --tags; --help lists all options"),
        (["--jobs", "plain.txt", "--", "cat {line} | wc -l"], "no program 'cat a | wc -l'"),
        (["--jobs", "plain.txt", "--", "cat ./{line}"], "without quotes around it: -- cat ./{line}"),
        (["--jobs", "plain.txt", "--", "cat ./{line} > out"], """-- sh -c '... "$1" ...' sh {line}"""),
        (["--param", "n=1", "--", "cat ./a | wc -l"], "there is no shell here: -- sh -c"),
        (["--param", "n=1", "--", "./{n} > out"], "no shell here"),
        (["--jobs", ".", *ECHO], "is a directory"),
        (["--jobs", "", *ECHO], "--jobs: expected the name of a file"),
        (["--jobs", "empty.txt", *ECHO], "empty.txt has no jobs: it is empty"),
        (["--jobs", "empty.csv", *ECHO], "empty.csv has no jobs"),
        (["--jobs", "header.csv", *ECHO], "header.csv has no jobs"),
        (["--jobs", "twice.csv", *ECHO], "line 1 of twice.csv: the name 'lr' stands there twice"),
        (["--jobs", "short.csv", *ECHO], "line 2 of short.csv: 1 values for the 2 names lr, seed"),
        (["--jobs", "quote.csv", *ECHO], "of quote.csv: unexpected end of data"),
        (["--jobs", "nameless.csv", *ECHO], "'' cannot be the name of a value"),
        (["--jobs", "bad.jsonl", *ECHO], "line 2 of bad.jsonl: expected a JSON object"),
        (["--jobs", "list.jsonl", *ECHO], "line 2 of list.jsonl: expected a JSON object, one a line: jq"),
        (["--jobs", "partly.jsonl", *ECHO, "{x}"], "{x} has no value; there is {lr}"),
        (["--jobs", "partly.jsonl", *ECHO, "{lr}"], "line 3 of partly.jsonl: {lr} has no value"),
        (["--jobs", "wide.txt", *ECHO], "wide.txt is in UTF-16; save it as UTF-8"),
        (["--jobs", "plain.txt", *ECHO], "two jobs have the id 'a': lines 1 and 3 of plain.txt; --id '{#}'"),
        (["--jobs", "grid.csv", *ECHO], "lines 2 and 4 of grid.csv"),
        (["--jobs", "grid.csv", "--param", "lr=1", *ECHO], "grid.csv has values of that name, too"),
        (["--param", "a=1,2", "--id", "x", *ECHO], "the id 'x': combinations 1 and 2 of --param"),
        (["--param", "a=1,2", "--id", "{b}", *ECHO], "{b} has no value"),
        (["--param", "a=1,2", "--id", "", *ECHO], "--id gives an empty text"),
        (["--param", "a=1,2", "--domain", "", *ECHO], "--domain gives an empty text"),
        (["--param", "a=1,2", "--domain", "{", *ECHO], "--domain: a single {"),
        (["--param", "a=1", "--retry-codes", "0", *ECHO], "expected exit codes from 1 to 255"),
        (["--param", "a=1", "--retry-codes", "75;111", *ECHO], "expected exit codes from 1 to 255"),
        (["--param", "a=1", "--retry-codes", "", *ECHO], "expected exit codes from 1 to 255"),
        (["--param", "a=1", "--result", "json", *ECHO], "invalid choice: 'json'"),
        (["--param", "a=1", "--on-drain", "kill", *ECHO], "invalid choice: 'kill'"),
        (["--param", "a=1", "--on-drain"], "there is no command"),
        (["--param", "a=1", "--timeout", "soon", *ECHO], "--timeout"),
        (["--param", "a=1", "--workers", "0", *ECHO], "--workers"),
        (["--param", "a=1", "--name", "", *ECHO], "name=''"),
        (["--param", "a=1", "--name", "a/b", *ECHO], "must be the name of a folder"),
        (["--parm", "a=1", *ECHO], "unknown option --parm; did you mean --param"),
        (["--command=x", *ECHO], "unknown option --command"),
        (["echo"], "there is no command to run"),
        (["stray", *ECHO], "unexpected argument 'stray'"),
        (["--param", "a=1", "b=1..5", *ECHO], "write --param before each: --param b=1..5"),
        (["--param=a=1", "b=2", *ECHO], "unexpected argument 'b=2'; write --param before each"),
        (["--resume", "latest"], "no experiment of longhaul exec to resume in"),
        (["--resume", "auto"], "there is no command to run"),
        (["--resume", "no-such"], "no experiment 'no-such'"),
        (["--rerun", "*", *ECHO], "--rerun needs --resume"),
    ],
)
def test_bad_values_of_every_option(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["longhaul"])
    try:
        code = main(["exec", "--start-method", "spawn", *words])  # no zygote is started in vain
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, ""), printed.err
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1 and printed.err.startswith("error: ")
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


def test_no_option_of_another_tool_is_one_of_ours() -> None:
    ours = {
        *our_options(),
        *(name for each in options_of(build_own_parser()) for name in each.option_strings),
    }
    assert not ours & set(OTHER_TOOLS)


def test_a_program_with_blanks_in_its_name_is_run(folder: Folder) -> None:
    folder.write("a program 1", "#!/bin/sh\necho done\n", executable=True)
    run = folder.exec("--param", "n=1", "--", "./a program {n}")
    assert run.returncode == 0, run.stderr


def test_resume_auto_of_what_is_finished_says_how_it_is_repeated(folder: Folder) -> None:
    run = folder.exec(
        "--name", "done", "--experiment-id", "one", "--param", "n=1..2", "--", "test", "{n}", "=", "1"
    )
    assert run.returncode == 1, run.stderr
    again = "--resume one tries its failed jobs again, --resume one --rerun '*' repeats its jobs"
    run = folder.exec("--name", "done", "--resume", "auto", "--no-retry-failed")
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: one is finished (1 completed, 1 failed): {again}; a new experiment")
    run = folder.exec("--name", "done", "--resume", "one", "--rerun", "*")
    assert run.returncode == 1, run.stderr


def test_a_name_in_place_of_an_id(folder: Folder) -> None:
    """A resume and a removal want an id, and say so."""
    assert (
        folder.exec("--name", "hog", "--experiment-id", "one", "--param", "n=1", "--", "true").returncode == 0
    )
    run = folder.exec("--resume", "hog")
    assert run.returncode == 2
    assert run.stderr == "error: no experiment 'hog'; that is a name: --name hog --resume latest\n"
    run = folder.longhaul("rm", "hog", "--yes")
    assert run.returncode == 2
    assert "that is a name, which several may have, and an id is needed here: one\n" in run.stderr
    assert folder.experiment("hog").is_dir()


def test_a_resume_of_what_is_gone_is_refused_and_changes_nothing(folder: Folder, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "jobs.txt").write_text("a\nb\n")
    environment = {**os.environ, "LONGHAUL_OUTPUT": str(tmp_path / "out")}
    first = folder.exec("--jobs", "jobs.txt", "--", "false", "{line}", cwd=work, env=environment)
    assert first.returncode == 1, first.stderr
    before = {
        path: path.read_bytes() for path in (tmp_path / "out").rglob("[!l]*") if path.is_file()
    }  # no lock
    (work / "jobs.txt").rename(work / "other.txt")
    run = folder.exec("--resume", "latest", env=environment)
    assert (run.returncode, len(run.stderr.splitlines())) == (
        2,
        1,
    ) and "jobs.txt: there is no such file" in run.stderr
    work.rename(tmp_path / "moved")
    run = folder.exec("--resume", "latest", env=environment)
    assert run.returncode == 2 and "of the first start is not there" in run.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("[!l]*") if path.is_file()} == before
