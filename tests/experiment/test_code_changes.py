"""Whether the code is what the results were made with, over several runs: what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.core.terms.code_spans import UNKNOWN, CodeSpan, CodeSpans, unsure
from supervisor.core.terms.errors import UsageError
from supervisor.experiment.code_changes import CodeHistory, go_on, named_versions, names_since, since_then
from supervisor.experiment.code_files import known_now, listed, version_of


def code(
    script: str, function: str, late: dict[str, list[str]] | None = None, **modules: str
) -> dict[str, Any]:
    files = {name: [f"/x/{name}.py", digest] for name, digest in modules.items()}
    return {
        "function": "evaluate",
        "file": "/x/exp.py",
        "sha256": script,
        "function_sha256": function,
        "modules": files,
        "late": late or {},
        "version": version_of(script, files, late or {}),
    }


class Runs:
    """One run after the other, each with the code that its files hold then."""

    def __init__(self, first: dict[str, Any]) -> None:
        self.lease = 1
        self.last: Any = None
        self.counts: dict[str, int] = {}
        self.resume(first)

    def resume(self, now: dict[str, Any], made: int = 0, *, accept: bool = False) -> str:
        """What is said when it begins; it makes so many results."""
        last = self.last or CodeHistory({}, [], [])
        history = go_on(
            last.code,
            last.spans,
            last.accepted,
            now,
            next_lease=self.lease,
            counts=self.counts,
            accept=accept,
        )
        self.last, self.lease = history, self.lease + made
        self.counts[now["version"]] = self.counts.get(now["version"], 0) + made
        return " | ".join(words for _, words in history.notices)


def test_a_change_is_told_when_it_is_made_and_that_results_are_mixed_as_long_as_they_are() -> None:
    old, new = code("m1", "f1"), code("m2", "f2")
    runs = Runs(old)
    assert runs.resume(old, 9) == ""
    assert runs.resume(new, 3) == "evaluate changed after 9 results; they are kept; --rerun '*' repeats them"
    assert runs.resume(new) == (
        f"9 of the 12 results were made by code {old['version']} (before evaluate changed), 3 by "
        f"{new['version']}; --rerun code:{old['version']} repeats the 9, --accept-code keeps them and ends "
        f"this reminder"
    )
    del runs.counts[old["version"]]  # they are repeated
    assert runs.resume(new, 9) == ""


def test_one_result_is_told_as_one() -> None:
    old, new = code("m1", "f1"), code("m2", "f2")
    runs = Runs(old)
    assert runs.resume(old, 1) == ""
    assert runs.resume(new) == "evaluate changed after 1 result; they are kept; --rerun '*' repeats them"
    assert runs.resume(new) == (
        f"the 1 result was made by code {old['version']} (before evaluate changed); "
        f"--rerun code:{old['version']} repeats it, --accept-code keeps it and ends this reminder"
    )


def test_a_file_that_changes_around_the_function_is_told_as_such() -> None:
    runs = Runs(code("m1", "f1"))
    runs.resume(code("m1", "f1"), 1)
    assert "exp.py changed after 1 result, evaluate itself did not; they are" in runs.resume(
        code("m2", "f1"), 1
    )
    assert "1 of the 2 results was made by code" in runs.resume(code("m2", "f1"))


def test_files_are_told_by_name_and_the_function_with_them() -> None:
    runs = Runs(code("m1", "f1", a="1", b="1", c="1", d="1", e="1"))
    runs.counts = {runs.last.spans[0].version: 5}
    assert "b.py changed after 5 results; they" in runs.resume(
        code("m1", "f1", a="1", b="2", c="1", d="1", e="1")
    )
    said = runs.resume(code("m2", "f2", a="2", b="3", c="2", d="2", e="2"))
    assert said.startswith("evaluate, a.py, b.py and 3 more changed after 5 results; they are kept")


def test_each_earlier_version_is_told_by_all_that_differs_between_it_and_now() -> None:
    def now(cosmetic: str, real: str, function: str = "f1") -> dict[str, Any]:
        return code(f"m{function}", function, cosmetic=cosmetic, real=real)

    first = now("1", "1")
    runs = Runs(first)
    runs.resume(first, 1)
    assert "cosmetic.py changed after 1 result; they" in runs.resume(now("2", "1"))
    assert "cosmetic.py and real.py changed after 1 result; they" in runs.resume(now("2", "2"))
    told = (
        f"1 of the 4 results was made by code {first['version']} (before cosmetic.py and real.py changed), 3"
    )
    runs.resume(now("2", "2"), 3)
    assert told in runs.resume(now("2", "2"))
    # What is changed back is no difference any more; what is changed next is one of both versions.
    said = runs.resume(now("1", "2", "f2"))
    assert said == (
        f"evaluate and cosmetic.py changed after 4 results; they are kept; "
        f"1 by code {first['version']} (before evaluate and real.py changed), "
        f"3 by code {now('2', '2')['version']} (before evaluate and cosmetic.py changed); "
        f"--rerun '*' repeats them, --rerun code:{first['version']} only those of that version"
    )
    said = runs.resume(now("1", "2", "f2"), accept=True)
    assert said.startswith(
        "evaluate, real.py and cosmetic.py changed; results of earlier code are taken as good: "
    )


def test_of_runs_that_recorded_no_digests_all_that_changed_since_is_told() -> None:
    first, last = code("m1", "f1", a="1", b="1", c="1"), code("m1", "f1", a="2", b="2", c="1")
    spans = [CodeSpan("aaaa", 1), CodeSpan("bbbb", 3, ["a.py"]), CodeSpan(last["version"], 5, ["b.py"])]
    now = code("m1", "f1", a="2", b="2", c="2")
    history = go_on(last, spans, [], now, next_lease=7, counts={"aaaa": 2, "bbbb": 2, last["version"]: 2})
    (said,) = history.warnings
    assert said.startswith(
        "c.py changed after 6 results; they are kept; 2 by code aaaa (before c.py, a.py and "
    )
    assert "a.py and b.py changed), 2 by code bbbb (before c.py and b.py changed), 2 by code" in said
    assert names_since("aaaa", CodeSpans(history.spans), now) == ["c.py", "a.py", "b.py"]
    assert first["version"] != last["version"]


def test_the_earliest_lease_that_may_have_run_new_text_counts_whoever_reports_first() -> None:
    for reports in (
        [(6, "/x/lazy.py"), (5, "/x/lazy.py"), (7, "/x/b.py")],
        [(5, "/x/lazy.py"), (6, "/x/b.py")],
    ):
        spans = [CodeSpan("aaaa", 1), CodeSpan("bbbb", 4, ["a.py"])]
        for lease, file in reports:
            unsure(spans, lease, file.rpartition("/")[2])
        codes = CodeSpans(spans)
        assert list(map(codes.version, range(1, 8))) == ["aaaa"] * 3 + ["bbbb"] + ["bbbb+"] * 3
        assert codes.edited_during("bbbb+") == ["lazy.py", "b.py"]
        assert codes.edited_during("bbbb") == []
    unsure(spans, 1, "lazy.py")
    assert CodeSpans(spans).version(3) == "aaaa", "that was another run"


def test_what_was_edited_during_a_run_is_told_of_its_results() -> None:
    first, now = code("m1", "f1", lazy="1", a="1"), code("m1", "f1", lazy="2", a="2")
    runs = Runs(first)
    runs.resume(first, 2)
    unsure(runs.last.spans, 2, "lazy.py")
    codes = CodeSpans(runs.last.spans)
    assert since_then(first["version"], codes, first) == "before lazy.py changed"
    runs.counts = {first["version"]: 1, first["version"] + "+": 1}
    runs.resume(now, 1)
    said = runs.resume(now)
    assert (
        f"1 of the 3 results was made by code {first['version']} (before a.py and lazy.py changed), " in said
    )
    assert f", 1 by code {first['version']}+ (while lazy.py changed, before a.py changed), 1 by" in said


def test_the_same_code_again_is_the_same_version_again() -> None:
    first, second = code("m1", "f1", a="1"), code("m1", "f1", a="2")
    runs = Runs(first)
    runs.resume(first, 3)
    runs.resume(second, 2)
    said = runs.resume(code("m1", "f1", a="1"), 1)
    assert f"2 of the 5 results were made by code {second['version']} (before a.py changed), 3 by" in said
    spans = CodeSpans(runs.last.spans)
    assert [spans.version(lease) for lease in range(7)] == [
        None,
        *[first["version"]] * 3,
        *[second["version"]] * 2,
        first["version"],
    ]
    assert spans.versions(range(7)) == [spans.version(lease) for lease in range(7)]


def test_what_is_accepted_is_told_once_and_holds_until_the_next_change() -> None:
    first, second, third = code("m1", "f1", a="1"), code("m1", "f1", a="2"), code("m1", "f1", a="3")
    runs = Runs(first)
    runs.resume(first, 3)
    said = runs.resume(second, 2, accept=True)
    assert said == f"a.py changed; results of earlier code are taken as good: 3 by code {first['version']}"
    assert runs.resume(second) == ""
    assert "no results of other code" in Runs(first).resume(first, accept=True)
    assert "a.py changed after 5 results; they are kept" in runs.resume(third, 1)
    assert "; --rerun code:old repeats the 5, --accept-code" in runs.resume(third)
    assert runs.resume(third, accept=True).endswith(
        f"3 by code {first['version']}, 2 by code {second['version']}"
    )
    assert runs.resume(third) == ""


def test_of_what_only_workers_import_a_change_counts_and_nothing_else() -> None:
    first = code("m1", "f1")
    runs = Runs(first)
    runs.resume(first, 3)
    runs.last.code["late"] = {"lazy": ["/x/lazy.py", "1", "1"]}
    assert runs.resume(code("m1", "f1", {"lazy": ["/x/lazy.py", "1", "1"]})) == ""
    said = runs.resume(code("m1", "f1", {"lazy": ["/x/lazy.py", "1", "2"]}))
    assert said.startswith("lazy.py changed after 3 results")
    assert runs.resume(code("m1", "f1", {"lazy": ["/x/lazy.py", "1", "1"]})) == ""


def test_what_is_imported_later_or_no_more_is_no_change_by_itself(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.py").write_text(name)

    def here(*names: str) -> dict[str, list[str]]:
        return {name: [str(tmp_path / f"{name}.py"), f"{name}1"] for name in names}

    first = {"modules": here("a", "b")}
    known, late = known_now(here("a", "b", "c"), first)
    assert (known, late) == (here("a", "b"), {"c": [str(tmp_path / "c.py"), "c1", "c1"]})
    assert version_of("m", known, late) == version_of("m", here("b", "a"), {})
    known, late = known_now(here("c"), {"modules": here("gone"), "late": late})
    assert (known, late) == (here("gone"), {"c": [str(tmp_path / "c.py"), "c1", "c1"]})
    known, late = known_now({}, {"modules": here("a"), "late": late})
    assert known["a"][1] != "a1" and late["c"][1:] != ["c1", "c1"], "their files are looked at"
    assert version_of("m", known, late) != version_of("m", known, {})


def test_results_of_an_older_longhaul_are_of_unknown_code_and_a_changed_script_is_told() -> None:
    older = {"function": "evaluate", "file": "/x/exp.py", "sha256": "m1", "function_sha256": "f1"}
    for now, told in ((code("m1", "f1"), ""), (code("m2", "f2"), "evaluate changed after 4 results")):
        runs = Runs(now)
        runs.last, runs.lease, runs.counts = CodeHistory(older, [], []), 5, {UNKNOWN: 4}
        assert told in (said := runs.resume(now, 2)) and bool(said) == bool(told)
        said = runs.resume(now)
        assert bool(said) == bool(told)
        assert not told or "4 of the 6 results were made by code of which no version" in said
        assert CodeSpans(runs.last.spans).version(4) is None


def test_versions_are_named_by_their_beginning() -> None:
    counts = {UNKNOWN: 1, "aa11": 2, "aa22": 3, "bb33": 4}
    assert named_versions(["code:old"], "bb33", counts) == {UNKNOWN, "aa11", "aa22"}
    assert named_versions(["code:AA1", "code:unknown"], "bb33", counts) == {"aa11", UNKNOWN}
    for word, said in (
        ("code:aa", "short for several"),
        ("code:", "no result was made by such code"),
        ("code:cc", r"aa11 \(2 results\), aa22 \(3 results\), bb33 \(4 results, the code of now\)"),
    ):
        with pytest.raises(UsageError, match=said):
            named_versions([word], "bb33", counts)


def test_names_in_words() -> None:
    assert [listed("abcde"[:amount]) for amount in range(6)] == [
        "",
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 1 more",
        "a, b, c and 2 more",
    ]
