"""Signals while the user's code runs in the supervisor's process."""

from __future__ import annotations

import signal
import sys
import threading
import weakref

import pytest

from supervisor.system.signals import Signals, Stopped
from tests.experiment_fixture import PATIENCE


class Thing:
    pass


def test_a_signal_is_not_lost_in_a_callback_of_the_garbage_collector(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Imports have such callbacks. Python passes no exception on from there."""
    before = sys.unraisablehook
    reached = []

    def interrupted(signals: Signals) -> None:
        with signals.raising():
            thing = Thing()
            waiting = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
            del thing
            reached.append(waiting())
            threading.Event().wait(PATIENCE)
            reached.append("the end")

    with Signals() as signals, pytest.raises(Stopped) as stopped:
        interrupted(signals)
    assert stopped.value.signum == signal.SIGTERM
    assert reached == [None]
    assert sys.unraisablehook is before
    assert capfd.readouterr().err == ""


def test_what_else_is_lost_there_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    with Signals() as signals, signals.raising():
        thing = Thing()
        waiting = weakref.ref(thing, lambda _: 1 // 0)
        del thing
    assert (told, waiting()) == ([ZeroDivisionError], None)
