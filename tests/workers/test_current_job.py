from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.job.current_job import CurrentJob, current_job, inside_worker, job_seed
from workers.job.file_names import file_name

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


def test_outside_a_worker_there_is_a_harmless_stand_in() -> None:
    job = current_job()
    assert (job.id, job.domain, job.attempt, job.worker, job.context, job.stopping) == (
        "",
        None,
        1,
        0,
        None,
        False,
    )
    assert 0 <= job.seed < 2**32
    assert not inside_worker()
    assert job.directory.is_dir() and job.directory == job.directory
    job.directory.rmdir()
    job.start_job("", None, 1)


def test_a_seed_depends_on_experiment_and_job_alone() -> None:
    assert job_seed(0, "a") == job_seed(0, "a") != job_seed(0, "b")
    assert job_seed(1, "a") != job_seed(0, "a")
    assert job_seed(1, "1a") != job_seed(11, "a")
    assert job_seed(0, "iris/forest/200") == 0x8FCBFD31  # never to change: results depend on it
    assert len({job_seed(0, str(i)) for i in range(1000)}) == 1000


def test_a_directory_is_made_on_first_use(tmp_path: Path) -> None:
    job = CurrentJob()
    job.configure(2, 5, str(tmp_path / "jobs"))
    job.start_job("a/b", None, 1)
    assert not (tmp_path / "jobs").exists()
    assert job.directory == tmp_path / "jobs" / "a%2Fb" and job.directory.is_dir()
    job.start_job("c", None, 1)
    assert job.directory == tmp_path / "jobs" / "c"


@pytest.mark.parametrize(
    ("job_id", "name"),
    [
        ("iris", "iris"),
        ("iris/forest/200", "iris%2Fforest%2F200"),
        ("lr=0.1,n=3", "lr=0.1,n=3"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("50%", "50%25"),
        ("a b", "a%20b"),
        ("ä", "%C3%A4"),
        ("\ud800", "%ED%A0%80"),
        ("", "%"),
    ],
)
def test_ids_become_file_names(job_id: str, name: str) -> None:
    assert file_name(job_id) == name


@given(st.sets(ANY_TEXT, max_size=20))
def test_file_names_are_safe_and_differ(ids: set[str]) -> None:
    names = {file_name(job_id) for job_id in ids}
    assert len(names) == len(ids)
    for name in names:
        assert 0 < len(name) <= 100 and not name.startswith(".")
        assert set(name) <= set(string.ascii_letters + string.digits + "%-_=,+@.~")


def test_long_ids_keep_a_readable_beginning() -> None:
    name, other = file_name("model/" * 50), file_name("model/" * 50 + "x")
    assert name.startswith("model%2Fmodel%2F") and len(name) <= 100 and name != other
    assert "%" not in name[-22:]


def test_importing_the_public_name_is_light() -> None:
    code = "import sys, workers; print(sorted({'msgspec', 'psutil', 'multiprocessing', 'pathlib'} & set(sys.modules)))"
    heavy = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert heavy.stdout == "[]\n"


ROOT = Path(__file__).resolve().parents[2]
