"""What holds for every test: a clean environment, repeatable examples, no process left behind; and `some`."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psutil
import pytest

# The same examples each time, so that a test that passes here passes everywhere. To look
# for new ones: HYPOTHESIS_PROFILE=explore make test
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Set by whoever runs the tests, and seen by the programs that the tests start. Without bytecode each of these
# would compile all modules anew, which doubles its processor time.
_FOREIGN = ("SLURM_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "OMP_", "OPENBLAS_", "MKL_")
_FOREIGN += ("PYTHONDONTWRITEBYTECODE",)
# A shell that starts the tests in the background, or nohup, has these ignored, and every
# program that the tests start would inherit that.
for _signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal is signal.SIGINT else signal.SIG_DFL)

_ROOT = Path(__file__).resolve().parent.parent
_MARK = "LONGHAUL_TEST_SESSION"


def some(cases: Iterable[Any], few: int) -> list[Any]:
    """For `parametrize`: the first `few` of many cases of one kind; the others are exhaustive.

    `make test` leaves out what is exhaustive, `make test-all` runs it. So the first ones have to be cases that
    show whatever there is to see. A case may be a `pytest.param`, or a tuple of values. One that is played in
    a loop is a range: `some([range(50), range(50, 2000)], 1)`.
    """
    chosen = []
    for number, case in enumerate(cases):
        if number >= few:
            values = getattr(case, "values", case if isinstance(case, tuple) else (case,))
            marks = (*getattr(case, "marks", ()), pytest.mark.exhaustive)
            case = pytest.param(*values, marks=marks, id=getattr(case, "id", None))
        chosen.append(case)
    return chosen


def _survivors(mark: str) -> list[psutil.Process]:
    """Processes other than this one that carry the mark of this test session."""
    found = []
    for process in psutil.process_iter():
        try:
            marked = process.environ().get(_MARK) == mark
            helper = any("resource_tracker" in word for word in process.cmdline())
            zombie = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if marked and not helper and not zombie and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """The tests see nothing of the user's settings, and leave no process behind."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith((*_FOREIGN, "LONGHAUL_")):
                patch.delenv(name)
        patch.setenv(_MARK, mark)
        # Programs that the tests start find the packages, installed or not.
        patch.setenv("PYTHONPATH", str(_ROOT), prepend=os.pathsep)
        yield
        until = time.monotonic() + 30.0
        while (left := _survivors(mark)) and time.monotonic() < until:
            time.sleep(0.05)
        told = [f"{process.pid}: {' '.join(process.cmdline())}" for process in left if process.is_running()]
        for process in left:
            process.kill()
    assert told == [], "the tests left processes behind"
