"""The profile of the loop is one of the loop, and its shares are shares."""

from __future__ import annotations

import pytest

from tools.profile_loop import profile, shares


def test_a_profile_names_where_the_loop_spends_its_time() -> None:
    functions, files = shares(profile(3000))
    for ranking in (functions, files):
        assert sum(share for share, _ in ranking) == pytest.approx(1.0)
    places = [where for _, where in files]
    assert "journal/journal_format.py" in places and "transport/supervisor_queues.py" in places
    assert not any("time.sleep" in where or "'poll' of" in where for _, where in functions)
