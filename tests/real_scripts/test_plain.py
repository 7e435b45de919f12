"""The comparison itself: a script that nothing is special about."""

from __future__ import annotations

from tests.real_scripts.conftest import RealScript


def test_a_plain_script_gives_what_it_gives_bare(real_script: RealScript) -> None:
    real_script.write("""
        PARAMS = [{"n": n} for n in range(5)]

        def evaluate(n):
            return {"square": n * n}
    """)
    bare = real_script.bare()
    assert real_script.run("--workers", "2") == bare == [{"square": n * n} for n in range(5)]
