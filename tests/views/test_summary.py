"""The summary at the end fits on one screen, whatever happened."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.core.state.snapshot import FailureSnapshot
from supervisor.views.failure_lines import group, kind
from supervisor.views.summary import summary
from tests.views.made import counts, crash, failure, snapshot

COMMANDS = [
    ("resume", "python exp.py --resume experiment_20251014_223000"),
    ("look into one", "python exp.py --resume experiment_20251014_223000 --debug iris/forest/200"),
    ("repeat some", "python exp.py --resume experiment_20251014_223000 --rerun 'iris/*'"),
]
PATHS = [("results", "/data/outputs/pilot_experiment/experiment_20251014_223000/logs_final.json")]


def told(failures: Sequence[FailureSnapshot], events: Sequence[str] = (), **more: object) -> list[str]:
    over = snapshot(state="finished", workers=0, **more)
    return summary(over, failures, commands=COMMANDS, paths=PATHS, events=events).splitlines()


def test_it_tells_counts_failures_crashes_paths_and_commands() -> None:
    failures = [failure(f"iris/{n}") for n in range(7)] + [crash(), crash(peak_rss=1 << 30, final=False)]
    over = counts(1992, 8, 0, 0)
    assert told(failures, ["03:12 waited 12m for room on the disk"], counts=over, crashes=2, retries=1) == [
        "pilot_experiment experiment_20251014_223000: finished after 2h 13m",
        "  1,992 completed, 8 failed, 0 in progress, 0 pending, of 2,000 jobs",
        "  2 crashes, 1 attempt repeated",
        "  7 × ValueError model.py:88 (iris/0)",
        "  2 × SIGSEGV, peak 2.0G (iris/forest/300), 1 run again",
        "  03:12 waited 12m for room on the disk",
        "  results: /data/outputs/pilot_experiment/experiment_20251014_223000/logs_final.json",
        "  resume:        python exp.py --resume experiment_20251014_223000",
        "  look into one: python exp.py --resume experiment_20251014_223000 --debug iris/forest/200",
        "  repeat some:   python exp.py --resume experiment_20251014_223000 --rerun 'iris/*'",
    ]


def test_kinds_of_failures() -> None:
    assert kind(failure()) == "ValueError model.py:88"
    assert kind(crash()) == "SIGSEGV"
    assert kind(crash(signal=None, exit_code=3)) == "exit code 3"
    assert kind(crash(signal=None)) == "crashed"
    assert kind(failure(outcome="timed_out", type="", where="", signal=9)) == "timed out"
    assert kind(failure(outcome="unencodable", type="Model", where="")) == (
        "result cannot be written as JSON Model"
    )


def test_a_thousand_kinds_of_failures_and_long_ids_fit_on_24_lines() -> None:
    failures = [failure("x" * 5000, type=f"E{n}", where="f" * 300) for n in range(1000)]
    failures += [crash("y" * 5000)]
    lines = told(failures, [f"event {n} " + "z" * 500 for n in range(50)], crashes=1, gone=3, unselected=4)
    assert len(lines) == 24
    assert any("SIGSEGV, peak 2.0G" in line for line in lines), "a crash is not crowded out"
    assert any(line.startswith("  and 9") and "other kinds" in line for line in lines)
    assert lines[-3:] == [
        "  resume:        python exp.py --resume experiment_20251014_223000",
        "  look into one: python exp.py --resume experiment_20251014_223000 --debug iris/forest/200",
        "  repeat some:   python exp.py --resume experiment_20251014_223000 --rerun 'iris/*'",
    ]


_FAILURES = st.builds(
    failure,
    st.text(min_size=1),
    type=st.sampled_from(["ValueError", "KeyError", "x" * 300, "a\nb"]),
    where=st.text(max_size=5),
    final=st.booleans(),
    outcome=st.sampled_from(["raised", "crashed", "timed_out", "unencodable", "over_memory"]),
    signal=st.none() | st.integers(1, 64),
    peak_rss=st.none() | st.integers(0, 1 << 45),
)


@settings(max_examples=50)
@given(
    st.lists(_FAILURES, max_size=60),
    st.lists(st.text(), max_size=10),
    st.lists(st.just(("p", "/x")), max_size=9),
    st.integers(10, 200),
)
def test_at_most_24_lines_whatever_comes_in(
    failures: list[FailureSnapshot], events: list[str], entries: list[tuple[str, str]], width: int
) -> None:
    over = snapshot(state="interrupted", crashes=3, timeouts=1, retries=2, gone=1, unselected=9)
    text = summary(over, failures, commands=entries, paths=entries, events=events, width=width)
    assert len(text.splitlines()) <= 24
    assert sum(entry.count for entry in group(failures)) == len(failures)


def test_a_suggestion_is_never_cut() -> None:
    warning = "12 of 78 results were made by code 3fa2b1c8; --rerun code:3fa2b1c8 repeats the 12, --accept-code keeps"
    other = "waited for room on the disk " * 9
    text = summary(snapshot(), [], commands=[], paths=[], events=[warning, other], width=40)
    assert f"  {warning}" in text.splitlines()
    assert "…" in text.splitlines()[-1]


def test_a_timeout_has_the_same_word_in_all_lines() -> None:
    text = summary(snapshot(timeouts=1), [failure("a", outcome="timed_out")], commands=[], paths=[])
    assert "  1 timed out" in text.splitlines() and "× timed out" in text
    assert "timeout" not in text
