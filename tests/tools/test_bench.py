"""tools/bench.py: what it measures, how it judges and what it writes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import some
from tools import bench
from tools.benchmark.child_processes import QUICK, Bench, Failed, Sizes
from tools.benchmark.cluster_samples import CLUSTER_SITUATIONS
from tools.benchmark.peers import PEERS
from tools.benchmark.report import BEGIN, END, after_a_kill, markdown, replaced
from tools.benchmark.row import Row
from tools.benchmark.rows import MORE_ROWS, ROWS, chosen
from tools.benchmark.samples import SITUATIONS, lateness, measure, share

ROW = {row.key: row for row in ROWS}
LEAST = Sizes(
    tiny=200,
    tiny_more=400,
    peers=0.005,
    cpu_1ms=20,
    cpu_10ms=5,
    cpu_10ms_more=8,
    growth=(20, 40, 80),
    resumed=50,
    completed=40,
    kills=1,
    fairness=100,
    long_seconds=0.2,
    quiet_seconds=0.2,
    settle_seconds=0.0,
    starts=1,
    imports=1,
    big=2,
    big_bytes=10_000,
    programs=20,
    reported=(50, 200),
    places=(2, 2, 5),
    places_seconds=(0.1, 0.5),
    crowd=(3, 5),
    crowd_start=3,
    hang_seconds=10.0,
)


def found(**more: Any) -> dict[str, Any]:
    """What a run of the benchmark says beside its numbers."""
    machine = {
        "cpu": "a CPU",
        "cores": 2,
        "cores_of_machine": 2,
        "memory_gb": 8.0,
        "file_system": "ext4",
        "system": "Linux 6",
        "python": "CPython 3.11",
        "commit": "0123abc",
        "versions": {"joblib": "1.5"},
    }
    base = {
        "at": "2025-10-14T20:15:00+00:00",
        "machine": machine,
        "quick": False,
        "load": (0.1, 0.1, 0.1),
        "loop_seconds": [0.5, 0.61],
    }
    return {**base, "only": None, "skipped": {}, "failed": {}, "rounds": 1, **more}


def tiny_round(ours: float, theirs: float) -> dict[str, dict[str, float]]:
    return {
        "longhaul/tiny": {"sustained": ours, "whole": ours / 2},
        "executor/tiny": {"sustained": theirs, "whole": theirs},
    }


# ---------------------------------------------------------------------------- arguments


def test_every_row_of_the_table_can_be_chosen() -> None:
    for row in ROWS:
        assert bench.parse(["--only", row.key]).only == [row.key]
        assert bench.samples_for([row.key], ["longhaul", *PEERS]) == list(row.samples)


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "nothing"],
        ["--repeat", "0"],
        ["--repeat", "x"],
        ["--docs", "--quick"],
        ["--json", "/not/there/bench.json"],
        ["--directory", "/proc/there"],
        ["more"],
    ],
)
def test_what_is_not_understood_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        bench.parse(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_quick_run_takes_every_sample_of_a_whole_one() -> None:
    """What --quick changes is how much is measured, never what."""
    samples = bench.samples_for(None, ["longhaul", *PEERS])
    assert {sample for row in ROWS for sample in row.samples} <= set(samples)
    more = {sample for row in MORE_ROWS for sample in row.samples}
    assert {sample.partition("/")[2] for sample in {*samples, *more}} == {*SITUATIONS, *CLUSTER_SITUATIONS}
    assert len(samples) == len(set(samples))
    for quick, whole in zip(QUICK, Sizes(), strict=True):
        assert quick <= whole


def test_a_peer_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "installed", lambda peer: peer.module != "joblib")
    names, skipped = bench.contenders(heavy=False)
    assert skipped["joblib"] == "not installed"
    assert skipped["ray"] == "only with `--heavy`"
    assert not any("joblib" in sample for sample in bench.samples_for(None, names))


# ------------------------------------------------------------------------------- tables


def test_a_row_is_judged_in_its_direction() -> None:
    more = ROW["sustained"]
    assert [more.judge(value) for value in (24.9, 25, 45)] == ["missed", "reach", "aim"]
    less = more._replace(reach=4.0, aim=2.5, more_is_better=False)
    assert [less.judge(value) for value in (4.1, 4.0, 2.5)] == ["missed", "reach", "aim"]


def test_the_table_shows_median_and_spread_of_the_rounds() -> None:
    rounds = [tiny_round(300_000, 10_000), tiny_round(520_000, 10_000), tiny_round(280_000, 10_000)]
    line = line_of(ROW["sustained"], markdown(found(rounds=3), rounds))
    assert "| 25 × | 45 × | 30.0 × | 28.0 to 52.0 × | yes |" in line
    assert "300,000 against 10,000 jobs/s" in line
    quick = line_of(ROW["sustained"], markdown(found(quick=True), rounds))
    assert "| 30.0 × | 28.0 to 52.0 × | – |" in quick  # few jobs are not judged


def line_of(row: Row, text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row.what} |")]
    return line


def test_every_row_and_every_peer_stands_in_the_tables_whatever_was_measured() -> None:
    text = markdown(found(skipped={"mpire": "not installed"}, failed={"loky/tiny": "it fell\nover"}), [])
    for row in ROWS:
        assert "not measured" in line_of(row, text)
    for peer in PEERS.values():
        assert f"| {peer.shown} |" in text
    assert "| not installed |" in text
    assert "`loky/tiny` could not be measured: it fell" in text


def test_only_what_was_chosen_is_shown() -> None:
    text = markdown(found(only=["import", "peers"]), [])
    assert line_of(ROW["import"], text)
    assert ROW["start"].measured not in text
    assert PEERS["joblib"].shown in text
    assert PEERS["joblib"].shown not in markdown(found(only=["import"]), [])


def test_all_lines_of_a_table_have_the_same_number_of_cells() -> None:
    text = markdown(found(), [tiny_round(300_000, 10_000)])
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def kill(**more: Any) -> dict[str, Any]:
    return {"hangs": False, "completed": 20, "jobs": 20, "errors": [], "again_ms": None, **more}


def test_what_becomes_of_a_killed_worker_is_told_in_words() -> None:
    assert after_a_kill([kill(again_ms=12.0), kill(again_ms=14.0)]).startswith("runs again after 13 ms")
    assert after_a_kill([kill(hangs=True, completed=19, waited=10.0)]) == (
        "19 of 20 results, then no answer within 10 s"
    )
    assert "3 of 20 jobs are missing" in after_a_kill([kill(again_ms=12.0), kill(completed=17)])  # the worst
    broken = kill(completed=4, errors=["BrokenProcessPool"])
    assert after_a_kill([broken]) == "`BrokenProcessPool`; 16 of 20 jobs without a result"
    assert "the others complete" in after_a_kill([kill(completed=19, errors=["ProcessExpired"])])


# ------------------------------------------------------------------ docs/performance.md


def test_the_section_between_the_markers_is_replaced_and_nothing_else() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(text, "new\n") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert replaced(replaced(text, "new"), "new") == replaced(text, "new")
    with pytest.raises(ValueError, match="bench:begin"):
        replaced("no markers", "new")


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_page_gets_whole_runs_only(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(bench, "PAGE", page)
    more = {"interrupted": True} if interrupted else {}
    bench.write(bench.parse(["--docs"]), found(**more), [tiny_round(300_000, 10_000)])
    text = page.read_text()
    assert ("| 30.0 × |" in text, "old" in text) == (not interrupted, interrupted)


def test_the_page_shows_the_rows_and_peers_that_are_measured() -> None:
    """After a change here: python tools/bench.py --docs."""
    _, _, rest = bench.PAGE.read_text(encoding="utf-8").partition(BEGIN)
    section = rest.partition(END)[0]
    expected = markdown(found(), [])
    for row in ROWS:
        marks = line_of(row, expected).split("|")[1:5]
        assert line_of(row, section).split("|")[1:5] == marks, f"{row.what} is not as in the tool"
    for peer in PEERS.values():
        assert f"| {peer.shown} |" in section
    shown = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")]
    assert len(shown) == len(ROWS) + len(PEERS) + 3  # two headers, and longhaul among its peers


# --------------------------------------------------------------------------- the numbers


def test_the_pauses_of_the_other_worker_are_what_a_job_is_late() -> None:
    """Three jobs end in time; one waits behind the long one until it is taken back; and then
    one that was forgotten ends after the long one."""
    before = [[0.0, 0.001, 0.001]]
    long = [[0.001, 5.001, 5.0]]
    in_time = [[0.001 * number, 0.001 * (number + 1), 0.001] for number in (1, 2, 3)]
    taken_back = [[0.104, 0.105, 0.001]]
    forgotten = [[5.001, 5.005, 0.004]]
    assert lateness(before + long + in_time)["seconds"] == pytest.approx(0.001)
    late = lateness(before + long + in_time + taken_back)
    assert late["seconds"] == pytest.approx(0.101)
    assert (late["jobs"], late["after_the_long_one"]) == (4, 0)
    late = lateness(before + long + in_time + taken_back + forgotten)
    assert late["seconds"] == pytest.approx(0.101 + 4.9)
    assert late["after_the_long_one"] == 1


def test_what_jobs_used_of_two_cores_is_their_share() -> None:
    side_by_side = [[0.0, 1.0, 1.0], [0.0, 1.0, 0.9]]
    assert share(side_by_side) == pytest.approx(0.95)
    assert share([[0.0, 1.0, 1.0], [1.0, 2.0, 1.0]]) == pytest.approx(0.5)


def test_memory_is_that_of_a_fresh_run_or_of_a_resume_whichever_is_more() -> None:
    taken = {"longhaul/growth": {"peak_mb": 250.0, "empty_mb": 30.0}, "longhaul/resume": {"peak_mb": 320.0}}
    assert ROW["memory"].value(taken) == 290.0
    taken["longhaul/resume"]["peak_mb"] = 270.0
    assert ROW["memory"].value(taken) == 250.0


# ------------------------------------------------------------------------------ for real


def test_a_row_is_measured_for_real_and_written_as_json_and_markdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "QUICK", LEAST)
    document, table = tmp_path / "bench.json", tmp_path / "bench.md"
    words = ["--quick", "--only", "sustained", "--repeat", "2", "--directory", str(tmp_path / "out")]
    monkeypatch.setattr(bench, "two_cores", lambda: None)
    assert bench.main([*words, "--json", str(document), "--markdown", str(table)]) == 0
    read = json.loads(document.read_text())
    measured = {row["row"] for row in read["rows"] if len(row["values"]) == 2}
    assert {"sustained", "end-to-end"} == measured
    assert read["samples"][0]["longhaul/tiny"]["jobs"] == 200
    assert "not to be compared" in table.read_text()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_worker_is_measured_for_real(tmp_path: Path) -> None:
    place = Bench(tmp_path, QUICK)
    ours = SITUATIONS["killed"](place, "longhaul")
    assert (ours["completed"], ours["errors"], ours["hangs"]) == (20, [], False)
    assert 0 < ours["again_ms"] < 10_000
    theirs = SITUATIONS["killed"](place, "executor")
    assert theirs["errors"] == ["BrokenProcessPool"]


OURS = dict.fromkeys(
    sample for row in (*ROWS, *MORE_ROWS) for sample in row.samples if sample.startswith("longhaul/")
)
# Measured by the test of a whole row, as others are with other numbers, or long: only make test-all measures them.
_MORE = ("tiny_more", "cpu_10ms_more")
LATER = ("tiny", "cpu_10ms", *_MORE, "quiet", "big", "report", "page", "page_painted", "tiny_killed")
LATER = tuple(f"longhaul/{name}" for name in LATER)
SOONER = [sample for sample in OURS if sample not in LATER]


def test_who_never_answers_hangs_and_who_falls_over_does_not(tmp_path: Path) -> None:
    place = Bench(tmp_path, LEAST._replace(hang_seconds=0.5))
    assert measure(place, "pool/killed")["hangs"]
    with pytest.raises(Failed, match="not enough values"):
        place.child("peers.py", "pool")


def measured(place: Bench, sample: str) -> dict[str, Any]:
    """On a busy machine one worker may be through with nearly all of so few jobs before the other one has begun with
    the long one: then there is nothing to measure, and it is measured again."""
    for _ in range(10):
        try:
            return measure(place, sample)
        except Failed as why:
            if "the long job came last" not in str(why):
                raise
    raise AssertionError("the long job came last, ten times")


@pytest.mark.parametrize("sample", some([*SOONER, *LATER], len(SOONER)))
def test_ours_is_measured_for_real(sample: str, tmp_path: Path) -> None:
    """With as few jobs as can be: the figures mean nothing, but there are some."""
    taken = {sample: measured(Bench(tmp_path, LEAST), sample)}
    assert list(tmp_path.glob("*/")) == []  # the files are gone
    for row in (*ROWS, *MORE_ROWS):
        if row.samples == (sample,):
            assert row.judge(row.value(taken)) in ("aim", "reach", "missed")
            assert row.detail([taken])
    check, of_sample = CHECKS.get(sample, bool), taken[sample]
    assert check(of_sample), of_sample


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "longhaul/workers": lambda taken: taken["each_us"] > 0 and taken["rate"] > 0,
    "longhaul/workers_start": lambda taken: taken["seconds"] > 0 and taken["cpu"] > 0,
    "longhaul/tiny_killed": lambda taken: 0 <= taken["messages"] <= taken["jobs"] and taken["seconds"] >= 0,
    "longhaul/unread": lambda taken: 0 <= taken["mean"] <= taken["most"] < 300,
    "longhaul/cpu_1ms": lambda taken: 0 < taken["share"] <= 1,
    "longhaul/growth": lambda taken: taken["empty_mb"] > 5 and 0 <= taken["checkpoint"] < 1,
    "longhaul/resume": lambda taken: taken["seconds"] > 0 and taken["peak_mb"] > 5,
    "longhaul/recovery": lambda taken: 0 < taken["ms"] < 10_000 and len(taken["all_ms"]) == LEAST.kills,
    "longhaul/fairness": lambda taken: 0 < taken["jobs"] < LEAST.fairness,
    "longhaul/quiet": lambda taken: 0 <= taken["share"] < 1,
    "longhaul/start": lambda taken: 0 < taken["seconds"] < taken["python_seconds"],
    "longhaul/import": lambda taken: 0 < taken["ms"] < taken["used_ms"],
    "longhaul/big": lambda taken: taken["ratio"] > 0,
}


def test_rows_that_belong_to_one_are_measured_with_it() -> None:
    keys = [row.key for row in chosen(["report"])]
    assert keys == ["report", "report:size", "report:small", "report:small-size"]
    assert [row.key for row in chosen(["report:size"])] == ["report:size"]


def test_further_jobs_on_a_cluster_are_compared_without_the_start() -> None:
    (further,) = [row for row in MORE_ROWS if row.key == "cluster-local:further"]

    def sample(jobs: int, seconds: float) -> dict[str, Any]:
        return {"jobs": jobs, "sustained": jobs / seconds}

    taken = {
        "cluster/tiny": sample(100, 2.0),
        "cluster/tiny_more": sample(500, 4.0),
        "longhaul/tiny": sample(100, 0.5),
        "longhaul/tiny_more": sample(500, 1.5),
    }
    assert set(further.samples) == set(taken)
    assert further.value(taken) == pytest.approx(0.5)
    assert further.detail([taken]) == "200 against 400 jobs/s"
