"""What stands in a report: which rows, which words, which commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from supervisor.__main__ import main
from supervisor.core.terms.errors import CannotCreate
from supervisor.core.terms.jobs import Counts
from supervisor.page.failure_groups import FailureGroup
from supervisor.page.markup import clean, tag, text_of
from supervisor.page.typed_columns import columns_of
from supervisor.page.verdict import Situation, judge
from supervisor.reports import html_report
from supervisor.reports.report import load
from tests.storage.made import Made

IDS = [f"grid/{number}" for number in range(60)]


def plain(path: Path) -> str:
    """The text of a page, without its scripts and styles."""
    text = re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


def saved(made: Made, path: Path) -> str:
    with load(made.layout.directory, "e1") as report:
        report.save_html(path)
    return plain(path)


def test_a_run_that_died_says_so_and_what_to_do(tmp_path: Path) -> None:
    made = Made(tmp_path).create(IDS)
    made.hand_out(*IDS[:5])
    made.end(*IDS[:3])
    made.end(IDS[3], outcome="raised")
    made.die()
    text = saved(made, tmp_path / "r.html")
    assert "✗ The run died before its end: 3 of 60 jobs completed, 1 failed, 56 left to run" in text
    assert "longhaul" in text and "show grid/3 e1" in text


def test_damage_is_told_and_the_results_are_there(tmp_path: Path) -> None:
    made = Made(tmp_path).create(IDS)
    made.hand_out(*IDS)
    made.end(*IDS)
    made.finish()
    journal = bytearray(made.layout.journal.read_bytes())
    at = journal.index(b'"job":"grid/30"')
    journal[at : at + 20] = b"#" * 20
    made.layout.journal.write_bytes(journal)
    text = saved(made, tmp_path / "r.html")
    assert "! All 60 jobs completed, none failed" in text
    assert "is damaged in the middle" in text
    assert (
        "The journal is damaged (1 place, 1 line of it missing): what stood there is not in the timeline."
        in text
    )
    assert "verify e1" in text


def test_a_sample_is_drawn_that_has_no_rhythm_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third job of a grid may be of the same model."""
    monkeypatch.setattr(html_report, "MOST_ROWS", 20)
    monkeypatch.setattr(html_report, "MOST_CELLS", 10_000)
    monkeypatch.setattr(html_report, "LEAST_ROWS", 20)
    made = Made(tmp_path).create(IDS)
    made.hand_out(*IDS)
    made.end(*IDS[:57])
    made.end(*IDS[57:], outcome="raised")
    made.finish()
    with load(made.layout.directory, "e1") as report:
        jobs, words = html_report.chosen_jobs(report._results)
        again, _ = html_report.chosen_jobs(report._results)
    assert words == (
        "The table and the plot have 20 of 60 jobs, drawn at random, each time the same ones, and all 3 that failed."
    )
    assert list(jobs) == list(again) == sorted(jobs)
    assert {57, 58, 59} <= set(jobs)
    assert {job % 3 for job in jobs if job < 57} == {0, 1, 2}
    text = saved(made, tmp_path / "r.html")
    assert words in text and "results e1" in text


def test_what_is_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    made = Made(tmp_path / "x").create(IDS)
    made.finish()
    with load(made.layout.directory, "e1") as report, pytest.raises(CannotCreate, match="no/such/folder"):
        report.save_html(tmp_path / "no/such/folder/r.html")
    assert main(["report", "e1", "-d", str(tmp_path / "x"), "-o", str(tmp_path)]) != 0


def test_it_takes_the_place_of_what_is_there_and_changes_nothing_else(tmp_path: Path) -> None:
    made = Made(tmp_path / "x").create(IDS)
    made.hand_out(*IDS[:5])
    made.end(*IDS[:3])
    made.die()
    path = tmp_path / "r.html"
    path.write_text("before")
    files = {one: one.read_bytes() for one in (tmp_path / "x").rglob("*") if one.is_file()}
    assert "3 of 60 jobs" in saved(made, path)
    assert {one: one.read_bytes() for one in (tmp_path / "x").rglob("*") if one.is_file()} == files


GROUPS = [
    FailureGroup("ValueError m.py:8", "no such split", jobs=["a", "b"]),
    FailureGroup("SIGSEGV", "", jobs=["c"]),
]


@pytest.mark.parametrize(
    ("counts", "state", "more", "kind", "headline"),
    [
        (Counts(3, 3), "finished", {}, "good", "All 3 jobs completed, none failed"),
        (Counts(3, 3), "finished", {"offered": 9}, "good", "The pilot is done: all 3 jobs completed, of 9"),
        (Counts(1, 1), "finished", {}, "good", "The only job completed"),
        (Counts(5, 0, 5), "finished", {}, "bad", "All 5 jobs failed"),
        (Counts(5, 2, 3), "finished", {}, "bad", "Over, but 3 of 5 jobs failed; 2 completed"),
        (
            Counts(9, 2, 0, 1, 6),
            "running",
            {},
            "running",
            "Running: 2 of 9 jobs completed, none failed so far",
        ),
        (
            Counts(9, 2, 0, 0, 7),
            "interrupted",
            {"stopped_by": "SIGTERM"},
            "warning",
            "Stopped before the end (SIGTERM): 2 of 9 jobs completed, none failed, 7 left to run",
        ),
        (
            Counts(9, 2, 0, 0, 7),
            "unfinished",
            {},
            "warning",
            "The chosen jobs are done: 2 of 9 jobs completed, none failed, 7 not chosen or not possible here",
        ),
        (Counts(3, 3), "finished", {"findings": ["damaged"]}, "warning", "All 3 jobs completed, none failed"),
    ],
)
def test_the_headline_answers_whether_it_went_well(
    counts: Counts, state: str, more: dict[str, object], kind: str, headline: str
) -> None:
    found = judge(Situation(counts=counts, state=state, **more), GROUPS)  # type: ignore[arg-type]
    assert (found.kind, found.headline) == (kind, headline)


def test_the_next_step_is_one_that_helps() -> None:
    commands = {
        "resume": "go on",
        "resume_failed": "again",
        "show": "show",
        "replay": "pdb",
        "results": "csv",
    }
    failed = judge(Situation(counts=Counts(5, 2, 3), state="finished", **commands), GROUPS)
    assert [step.command for step in failed.steps] == ["show", "pdb", "again"]
    assert failed.lines == [
        "2 of 3 failed with ValueError m.py:8: no such split; 1 other kind of failure below."
    ]
    died = judge(Situation(counts=Counts(5, 2, 0, 0, 3), state="died", **commands), [])
    assert [step.command for step in died.steps] == ["go on", "csv"]
    good = judge(Situation(counts=Counts(5, 5), state="finished", **commands), [])
    assert [step.command for step in good.steps] == ["csv"]


SCRIPT = """
from supervisor import Job, main
def evaluate(n):
    if n == 3:
        raise ValueError(n)
    return n
if __name__ == "__main__":
    main(evaluate, [Job(id=f"-j {n}", params={"n": n}) for n in range(5)], name="cmd", all_tasks=True, workers=1)
"""


def test_the_commands_that_it_gives_can_be_pasted(tmp_path: Path) -> None:
    """Where they are said to be typed, with an id that looks like an option and has a blank."""
    (tmp_path / "exp.py").write_text(SCRIPT)
    root = Path(__file__).resolve().parent.parent.parent
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert run([sys.executable, "exp.py", "--experiment-id", "e", "--output", "other"]).returncode == 1
    assert main(["report", "e", "-d", str(tmp_path / "other"), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    commands = [
        shlex.split(unescape(text)) for text in re.findall(r'<div class="command"><code>(.*?)</code>', page)
    ]
    assert f"In <code>{tmp_path.resolve()}</code>" in page
    show = next(words for words in commands if "show" in words)
    done = run(show)
    assert done.returncode == 0 and "ValueError: 3" in done.stdout, (show, done.stderr)
    csv = next(words for words in commands if "results" in words)
    assert run(csv).returncode == 0 and (tmp_path / "e.csv").read_text().count("\n") == 6
    resume = next(words for words in commands if "--resume" in words)
    done = run(resume)
    assert done.returncode == 1 and "1 failed to try again" in done.stderr, (resume, done.stderr)


def test_columns_are_typed_by_what_is_in_them() -> None:
    rows = [
        {"job": "a", "params.n": 1, "result.x": 0.123456789, "result.mixed": 1, "result.big": 2**60},
        {"job": "b", "params.n": 1, "result.x": float("nan"), "result.mixed": "text", "result.big": 3},
        {"job": "c", "params.n": 1, "result.x": None, "result.mixed": [1], "result.flag": True},
    ]
    found = {column.name: column for column in columns_of(rows)}
    assert list(found) == ["job", "params.n", "result.x", "result.mixed", "result.big", "result.flag"]
    assert (found["params.n"].kind, found["params.n"].varies) == ("number", False)
    assert found["result.x"].values == [0.1234568, "nan", None]
    assert (found["result.mixed"].kind, found["result.mixed"].texts) == ("text", ["1", "text", "[1]"])
    assert found["result.big"].texts == [str(2**60), "3"]
    assert (found["result.flag"].texts, found["result.flag"].values) == (["true"], [None, None, 0])


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1", "10", None, "2"], [1, 10, None, 2]),
        (["0.1", "1e-3", "-2"], [0.1, 0.001, -2]),
        (["1", "007"], None),
        (["1", "a"], None),
        (["1", ["2"]], None),
        (["0.123456789"], None),
        (["1e999"], None),
        ([str(2**60)], None),
        (["nan", "1"], None),
        (["1 ", "2"], None),
    ],
)
def test_parameters_of_programs_are_numbers_if_all_their_texts_are(
    texts: list[object], numbers: list[object] | None
) -> None:
    params, result = columns_of([{"params.n": text, "result.n": text} for text in texts])
    assert result.kind == "text"
    assert (params.kind, params.values) == (("number", numbers) if numbers else ("text", result.values))


def test_no_text_gets_into_a_page_but_as_text() -> None:
    assert tag("p", "<b>&", class_='"x') == '<p class="&quot;x">&lt;b&gt;&amp;</p>'
    assert text_of("a\x00b\u202ec\ud800d") == "a\ufffdb\ufffdc\ufffdd"
    assert clean("tab\tline\n👩‍🔬 é 日本") == "tab\tline\n👩‍🔬 é 日本"
