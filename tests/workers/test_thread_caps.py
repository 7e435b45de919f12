"""The caps of threads between jobs that name their cores and jobs that do not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

from workers.isolation import thread_caps
from workers.isolation.interpreter_state import PythonState
from workers.isolation.thread_caps import ThreadCaps
from workers.job.current_job import CURRENT

USUAL = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}


class Library:
    def __init__(self, filepath: str, internal_api: str, num_threads: int) -> None:
        self.filepath, self.internal_api, self.num_threads = filepath, internal_api, num_threads
        self.calls = 0

    def set_num_threads(self, number: int) -> None:
        self.calls += 1
        self.num_threads = number


class Loaded:
    """What threadpoolctl finds. `looks`: how often it was asked."""

    def __init__(self) -> None:
        self.libraries: list[Library] = []
        self.looks = 0

    def __call__(self) -> list[Any]:
        self.looks += 1
        return list(self.libraries)

    def load(self, library: Library) -> Library:
        """As an import does it."""
        self.libraries.append(library)
        sys.modules[f"extension_{len(self.libraries)}"] = ModuleType("extension")
        return library


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loaded]:
    found = Loaded()
    monkeypatch.setattr(thread_caps, "_of_threadpoolctl", found)
    for name in (*thread_caps.THREAD_VARIABLES, thread_caps.CORES):
        monkeypatch.setenv(name, "")  # so that it is put back even if it was not there
        monkeypatch.delenv(name)
    for name, value in USUAL.items():
        monkeypatch.setenv(name, value)
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if name.startswith("extension_"):
            del sys.modules[name]
    CURRENT.cpus = 1


def caps(usual: Mapping[str, str] = USUAL) -> ThreadCaps:
    state: Any = PythonState()
    return ThreadCaps(usual, state)


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in thread_caps.THREAD_VARIABLES if name in os.environ}


def test_a_job_has_its_cap_and_the_next_one_the_usual_one(loaded: Loaded) -> None:
    blas = loaded.load(Library("blas.so", "openblas", 2))
    changing = caps()
    changing.change(4000)
    assert (CURRENT.cpus, blas.num_threads) == (4, 4)
    assert environment() == dict.fromkeys(USUAL, "4")
    changing.change(2500)
    assert (CURRENT.cpus, blas.num_threads) == (2.5, 2)
    changing.change(500)
    assert (CURRENT.cpus, blas.num_threads) == (0.5, 1)
    changing.change(0)
    assert (CURRENT.cpus, blas.num_threads) == (1, 2)
    assert environment() == USUAL


@pytest.mark.parametrize(("cpus", "number"), [(4000, 4), (500, 0.5), (1000, 1), (1001, 1.001), (0, 1)])
def test_a_number_of_cores_is_what_the_user_has_written(loaded: Loaded, cpus: int, number: float) -> None:
    changing = caps()
    changing.change(3000)
    changing.change(cpus)
    assert CURRENT.cpus == number and type(CURRENT.cpus) is type(number)


def test_nothing_is_looked_for_while_the_cap_stays(loaded: Loaded) -> None:
    blas = loaded.load(Library("blas.so", "openblas", 2))
    changing = caps()
    for cpus in (1000, 1500, 500, 1000):
        changing.change(cpus)
    assert (loaded.looks, blas.calls) == (1, 1)
    changing.change(3000)
    changing.change(0)
    assert (loaded.looks, blas.calls) == (1, 3)  # nothing was imported since


def test_a_library_that_a_job_has_loaded_follows_later_jobs(loaded: Loaded) -> None:
    """It has read that job's variable when it was loaded."""
    changing = caps()
    changing.change(4000)
    late = loaded.load(Library("late.so", "openblas", int(os.environ["OPENBLAS_NUM_THREADS"])))
    changing.change(3000)
    assert late.num_threads == 3
    changing.change(0)
    assert late.num_threads == 2


def test_what_the_script_has_set_in_a_library_is_what_is_usual(loaded: Loaded) -> None:
    openmp = loaded.load(Library("libgomp.so", "openmp", 7))
    changing = caps()
    for _ in range(2):
        changing.change(4000)
        assert openmp.num_threads == 4
        changing.change(0)
        assert openmp.num_threads == 7


def test_a_variable_of_the_user_stays_and_so_does_its_library(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "8")
    blas, openmp = Library("blas.so", "openblas", 8), Library("libgomp.so", "openmp", 2)
    loaded.load(blas)
    loaded.load(openmp)
    changing = caps({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"})
    changing.change(4000)
    assert (blas.num_threads, openmp.num_threads) == (8, 4)
    assert environment() == {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "8"}


def test_so_does_one_that_setup_has_set(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    changing = caps()
    changing.change(4000)
    assert environment() == {**dict.fromkeys(USUAL, "4"), "OMP_NUM_THREADS": "6"}
    changing.change(0)
    assert environment() == {**USUAL, "OMP_NUM_THREADS": "6"}


def test_what_is_restored_after_a_job_is_its_cap(loaded: Loaded) -> None:
    state: Any = PythonState()
    changing = ThreadCaps(USUAL, state)
    for cpus, expected in ((4000, "4"), (0, "2")):
        changing.change(cpus)
        os.environ["OMP_NUM_THREADS"] = "77"
        os.environ["NEW"] = "of the job"
        state.restore()
        assert os.environ["OMP_NUM_THREADS"] == expected
        assert "NEW" not in os.environ


def test_what_a_job_has_changed_is_no_longer_there_with_another_cap(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, real = caps(), os.environ
    os.environ["OMP_NUM_THREADS"] = "77"
    monkeypatch.setattr(os, "environ", dict(real))
    changing.change(3000)
    assert os.environ is real
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_all_cores_are_those_of_the_job(loaded: Loaded) -> None:
    """What `n_jobs=-1` means; without a number of its own a job has the machine's, as before."""
    changing = caps()
    assert "LOKY_MAX_CPU_COUNT" not in os.environ
    changing.change(4500)
    assert os.environ["LOKY_MAX_CPU_COUNT"] == "4"
    changing.change(0)
    assert "LOKY_MAX_CPU_COUNT" not in os.environ


def test_unless_the_user_has_said_how_many_there_are(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "12")
    changing = caps()
    for cpus in (4000, 0):
        changing.change(cpus)
        assert os.environ["LOKY_MAX_CPU_COUNT"] == "12"


def test_a_library_that_refuses_keeps_none_of_the_others_back(loaded: Loaded) -> None:
    class Refusing(Library):
        def set_num_threads(self, number: int) -> None:
            raise ValueError("at most 2")

    loaded.load(Refusing("odd.so", "openblas", 2))
    blas = loaded.load(Library("blas.so", "openblas", 2))
    changing = caps()
    changing.change(4000)
    assert blas.num_threads == 4
    assert environment() == dict.fromkeys(USUAL, "4")


def test_modules_with_threads_of_their_own_are_asked_themselves(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torch(ModuleType):
        threads = 2

        def get_num_threads(self) -> int:
            return self.threads

        def set_num_threads(self, number: int) -> None:
            self.threads = number

    torch = Torch("torch")
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "numexpr", ModuleType("numexpr"))  # a user's file of that name
    changing = caps()
    changing.change(4000)
    assert torch.threads == 4
    changing.change(0)
    assert torch.threads == 2


def test_threadpoolctl_is_imported_only_if_there_is_something_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # importing it raises ImportError
    assert thread_caps._of_threadpoolctl() == []
    broken = ModuleType("threadpoolctl")
    monkeypatch.setitem(sys.modules, "threadpoolctl", broken)
    monkeypatch.setattr(thread_caps, "_is_anything_loaded", lambda: True)
    assert thread_caps._of_threadpoolctl() == []


@pytest.mark.parametrize(
    ("line", "controlled"),
    [
        ("7f0 r-xp 0 08:01 1  /usr/lib/libopenblas.so.0", True),
        ("7f0 r-xp 0 08:01 1  /x/numpy.libs/libscipy_openblas64_-32a4b2a6.so", True),
        ("7f0 r-xp 0 08:01 1  /x/libgomp-e985bcbb.so.1.0.0", True),
        ("7f0 r-xp 0 08:01 1  /opt/conda/lib/libiomp5.so", True),
        ("7f0 r-xp 0 08:01 1  /opt/conda/lib/libmkl_rt.so.2", True),
        ("7f0 r-xp 0 08:01 1  /usr/lib/libflexiblas.so.3", True),
        ("7f0 r-xp 0 08:01 1  /usr/lib/libblis.so.4", True),
        ("7f0 r-xp 0 08:01 1  /home/blas/project/libm.so.6", False),
        ("7f0 r-xp 0 08:01 1  /usr/lib/libm.so.6", False),
        ("7f0 rw-p 0 00:00 0  [heap]", False),
    ],
)
def test_what_threadpoolctl_controls_is_known_by_its_name(line: str, controlled: bool) -> None:
    maps = f"100-200 r-xp 0 08:01 1  /usr/bin/python3\n{line}\n7ff rw-p 0 00:00 0  [stack]\n"
    assert (thread_caps._CONTROLLED.search(maps.encode()) is not None) == controlled
