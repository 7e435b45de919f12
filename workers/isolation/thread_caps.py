"""How many threads the libraries of a job may use, for jobs that say how many cores they need.

A job that says nothing has the cap that its worker was started with. One that names its cores has a cap of its
own: in the environment, for programs that it starts and libraries that it loads, and in the libraries that are
loaded already. These have read the environment once, and are reached by threadpoolctl where that is installed.

Nothing is done between two jobs of one cap. Variables that the user has set stay, and so do the libraries that
read them.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from workers.job.current_job import CURRENT

if TYPE_CHECKING:  # the supervisor imports this module as well
    from workers.isolation.process_state import ProcessState

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# How many cores joblib and loky take for all there are (`n_jobs=-1`); only a job that names its cores has it.
CORES = "LOKY_MAX_CPU_COUNT"
THOUSAND = 1000  # parts of a core
# Which variable a library reads, by the name that threadpoolctl gives to its kind.
_READ_BY = {
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
    "numexpr": "NUMEXPR_NUM_THREADS",
}
_OTHERS_READ = "OMP_NUM_THREADS"
# Modules with threads that threadpoolctl does not reach: PyTorch brings MKL within a library of its own.
_MODULES = {"torch": "openmp", "numexpr": "numexpr"}
_CONTROLLED = re.compile(rb"/(?:lib)?\w*(?:blas|omp|mkl_rt|blis)[^/\n]*\n")


class _Threads(Protocol):
    """A library with threads, as threadpoolctl has it."""

    filepath: str
    internal_api: str

    @property
    def num_threads(self) -> int: ...

    def set_num_threads(self, number: int, /) -> object: ...


class _ModuleThreads:
    """The threads of a module that has functions for them."""

    def __init__(self, name: str, module: Any) -> None:
        self.filepath = name
        self.internal_api = _MODULES[name]
        self._module = module

    @property
    def num_threads(self) -> int:
        return int(self._module.get_num_threads())

    def set_num_threads(self, number: int, /) -> object:
        return self._module.set_num_threads(number)


class ThreadCaps:
    """The cap of the running job. `usual`: the variables that this worker was started with."""

    def __init__(self, usual: Mapping[str, str], state: ProcessState) -> None:
        self._usual = {name: value for name, value in usual.items() if name in THREAD_VARIABLES}
        self._state = state
        # Those that the user has not set, in `setup` for one, and what they usually are; None: not there.
        self._own: dict[str, str | None] | None = None
        self._cap = 0  # 0: the usual one
        self._before: dict[str, int] = {}  # threads of libraries while the usual cap held, by file
        self._found: list[_Threads] = []
        self._modules = -1  # how many were imported when the libraries were listed

    def change(self, cpus: int) -> None:
        """Let the next jobs have these cores, in thousandths; 0 if they do not say what they need."""
        whole, part = divmod(cpus, THOUSAND)
        CURRENT.cpus = (cpus / THOUSAND if part else whole) if cpus else 1
        cap = max(1, whole) if cpus else 0
        if cap == self._cap:
            return
        if self._own is None:
            environment = self._state.environment_of_jobs()
            usual = {**self._usual, CORES: None}
            self._own = {name: value for name, value in usual.items() if environment.get(name) == value}
        self._state.change_environment(dict.fromkeys(self._own, str(cap)) if cap else self._own)
        self._change_libraries(cap, self._own)
        self._cap = cap

    def _change_libraries(self, cap: int, own: Mapping[str, str | None]) -> None:
        found = self._libraries()
        if not self._cap:
            self._before.clear()
            for library in found:
                with contextlib.suppress(Exception):
                    self._before[library.filepath] = library.num_threads
        for library in found:
            usual = own.get(_READ_BY.get(library.internal_api, _OTHERS_READ))
            if usual is not None:
                with contextlib.suppress(Exception):  # it is odd, or not what its name says
                    library.set_num_threads(cap or self._before.get(library.filepath, int(usual)))

    def _libraries(self) -> list[_Threads]:
        """Libraries are listed again when modules were imported: that takes milliseconds."""
        if len(sys.modules) != self._modules:
            self._found = [*_of_threadpoolctl(), *_of_modules()]
            self._modules = len(sys.modules)
        return self._found


def _of_threadpoolctl() -> list[_Threads]:
    if not _is_anything_loaded():
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of OpenMP libraries that do not go together: the user's concern
            import threadpoolctl

            return list(threadpoolctl.ThreadpoolController().lib_controllers)
    except Exception:  # it is not installed, is another module of that name, or an early version
        return []


def _is_anything_loaded() -> bool:
    """Whether there may be something that threadpoolctl controls."""
    try:
        with open("/proc/self/maps", "rb", buffering=0) as file:
            return _CONTROLLED.search(file.read()) is not None
    except OSError:  # not Linux
        return True


def _of_modules() -> list[_Threads]:
    return [_ModuleThreads(name, sys.modules[name]) for name in _MODULES if name in sys.modules]
