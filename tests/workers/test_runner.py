"""Lines of a message to jobs: decoded together, and each under its own lease."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from workers.messages import Completed
from workers.runner import Runner, planned

good = st.builds(
    lambda number, text: msgspec.json.encode({"id": f"j{number}", "domain": None, "params": {"x": text}}),
    st.integers(),
    st.text(),
)


def results(lines: list[Any]) -> list[Any]:
    runner = Runner(lambda x: x)
    outcomes = [runner.run(lease, 1, line) for lease, line in enumerate(lines)]
    return [o.result if isinstance(o, Completed) else o.failure.message for o in outcomes]


@given(st.lists(good | st.sampled_from([b"", b" ", b"{", b"\xff", b'{"id":7}', b"{}"]), min_size=1))
def test_each_lease_has_the_line_that_was_meant_for_it(lines: list[bytes]) -> None:
    found = planned(b"\n".join(lines), len(lines))
    assert len(found) == len(lines)
    assert results(list(found)) == results(list(lines))
