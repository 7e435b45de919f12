"""Which experiment and which job is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.commands.lookup import find, find_job
from supervisor.core.terms.errors import UsageError
from supervisor.storage.files.layout import Layout
from tests.another_user import another_user
from tests.commands.conftest import Longhaul


def test_an_experiment_is_found_by_id_by_directory_and_by_its_files(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Layout(outputs, "night")
    for word in ("night", "latest"):
        for root in (outputs, outputs.parent):
            assert find(word, root).journal == night.journal
    nowhere = Path("nowhere")
    for path in (outputs, outputs.parent, outputs / "night", night.journal, night.checkpoint, night.plan):
        assert find(str(path), nowhere).journal == night.journal
    of_results = (night.final, night.statistics, night.supervisor_log, night.progress, night.lock)
    for path in (*of_results, next(night.output_directory.iterdir())):
        assert path.is_file()
        assert find(str(path), nowhere).journal == night.journal
        monkeypatch.chdir(path.parent)
        assert find(path.name, nowhere).journal == night.journal
    monkeypatch.chdir(outputs)
    assert find(".", nowhere).journal == night.journal
    monkeypatch.chdir(outputs.parent)
    assert find("trial", nowhere).journal == night.journal


def test_an_experiment_is_found_by_its_name_wherever_it_lies(
    spare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several the latest; a directory may be called otherwise than what lies in it."""
    here = spare.parent / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert find("trial", spare).experiment_id == "night"
    (here / "trial").mkdir()  # of the script, say
    assert find("trial", spare.parent).experiment_id == "night"
    with pytest.raises(UsageError, match="no experiments in"):
        find("trial", spare.parent, names=False)
    (here / "trial").rmdir()
    elsewhere = spare.with_name("elsewhere")
    spare.rename(elsewhere)
    for word in ("trial", "elsewhere"):
        assert find(word, spare.parent).directory == elsewhere
    with pytest.raises(UsageError, match="no experiment 'trial'"):
        find("trial", spare.parent, names=False)
    with pytest.raises(UsageError, match=r"that is a name, .*an id is needed here: night$"):
        find("trial", spare.parent, names=False)
    with pytest.raises(UsageError, match=r"there are: night$"):
        find("elswhere", spare.parent, names=False)
    with pytest.raises(UsageError, match="did you mean 'elsewhere'"):
        find("elswhere", spare.parent)


def test_an_experiment_in_two_places_has_to_be_chosen(spare: Path) -> None:
    copy = spare.with_name("copy")
    spare.rename(copy)
    copy.mkdir(exist_ok=True)
    (spare / "logs").mkdir(parents=True)
    (spare / "logs" / "journal_night.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match=r"in several places.*choose one with -d"):
        find("night", spare.parent)
    assert find("night", copy).directory == copy


def test_what_is_not_there_is_told_with_what_there_is(outputs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'night'"):
        find("nigt", outputs)
    with pytest.raises(UsageError, match="there are: night"):
        find("zzz", outputs)
    with pytest.raises(UsageError, match="there are none"):
        find("night", tmp_path)
    with pytest.raises(UsageError, match="no experiments in"):
        find("latest", tmp_path)
    with pytest.raises(UsageError, match="is not a directory"):
        find(str(tmp_path / "nowhere"), tmp_path)


def test_a_directory_that_cannot_be_read_hides_no_other(spare: Path) -> None:
    locked = spare.with_name("locked")
    (locked / "logs").mkdir(parents=True)
    (locked / "logs").chmod(0)
    try:
        assert find("latest", spare.parent).experiment_id == "night"
    finally:
        (locked / "logs").chmod(0o700)


def test_what_may_not_be_read_is_not_taken_for_nothing(spare: Path) -> None:
    with another_user(spare.parent):
        assert find("latest", spare.parent).experiment_id == "night"
    spare.chmod(0o700)
    for word in ("latest", "trial", "night"):
        with (
            another_user(spare.parent),
            pytest.raises(UsageError, match=r"/trial cannot be read: Permission denied"),
        ):
            find(word, spare.parent)


IDS = [
    "iris/forest/200",
    "iris/forest/20",
    "wine/svm",
    "wine/sv[m]",
    "-dash",
    "a b",
    "\x1b[31mred",
    "two\nlines",
]


@pytest.mark.parametrize(
    ("word", "job"),
    [
        ("iris/forest/20", "iris/forest/20"),
        ("iris/forest/200", "iris/forest/200"),
        ("wine/sv[m]", "wine/sv[m]"),
        ("*svm", "wine/svm"),
        ("-d", "-dash"),
        ("a", "a b"),
        ("red", "\x1b[31mred"),  # as it is shown
        ("two lines", "two\nlines"),
    ],
)
def test_a_job_is_named_by_its_id_or_by_what_only_it_has(word: str, job: str) -> None:
    assert find_job(word, IDS) == job


def test_a_job_that_is_not_clear_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"could be 2 jobs: 'iris/forest/200', 'iris/forest/20'"):
        find_job("iris", IDS)
    with pytest.raises(UsageError, match="the nearest id is 'wine/svm'"):
        find_job("wine/smv", IDS)
    with pytest.raises(UsageError, match="the nearest id is 'wine/svm'"):
        find_job("WINE/SVM", IDS)
    with pytest.raises(UsageError, match="ids look like 'iris/forest/200'"):
        find_job("%%%", ["iris/forest/200"])
    with pytest.raises(UsageError, match=r"no job 'x' in this experiment$"):
        find_job("x", [])


def test_where_nothing_has_run_yet_it_is_said(
    tmp_path: Path, longhaul: Longhaul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LONGHAUL_OUTPUT", raising=False)
    for command in ("list", "status"):
        code, _, err = longhaul(command)
        assert code == 2 and err.startswith("error: there are no experiments here yet (")
    assert "is not a directory" in longhaul("list", "elsewhere")[2]
