"""The profile of the loop is one of the loop, and its shares are shares."""

from __future__ import annotations

import pytest

from tools.profile_loop import profile, shares


def test_a_profile_names_where_the_loop_spends_its_time() -> None:
    rows = shares(profile(3000))
    assert sum(share for share, _ in rows) == pytest.approx(1.0)
    places = [where for _, where in rows]
    assert any("records/journal.py" in where for where in places)
    assert not any("time.sleep" in where or "'poll' of" in where for where in places)
