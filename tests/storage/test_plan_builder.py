"""What is collected comes back as it was, from memory and from the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.storage.plan import plan_builder as module
from supervisor.storage.plan.plan_builder import Spool

lines = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"\r") + b"\n"), max_size=40)
cuts = st.lists(st.integers(0, 2000), max_size=20)


@given(lines, cuts, st.integers(0, 200), st.integers(1, 100))
def test_all_that_was_written_comes_back_by_chunk_and_by_line(
    lines: list[bytes], cuts: list[int], in_memory: int, piece: int
) -> None:
    text = b"".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IN_MEMORY", in_memory)
        patch.setattr(module, "_PIECE", piece)
        spool = Spool()
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(text)], strict=True):
            spool.write(text[start:end])
        for _ in range(2):
            assert b"".join(spool.chunks()) == text
            assert list(spool.lines()) == lines
        assert spool.size == len(text)
        spool.close()


def test_what_came_first_stays_in_memory_and_the_rest_goes_to_a_file_that_nobody_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "IN_MEMORY", 3 * module._PIECE)
    spool = Spool()
    for number in range(5):
        spool.write(bytes([number]) * module._PIECE)
    assert [len(piece) for piece in spool._kept] == [module._PIECE] * 3
    assert os.fstat(spool._fd).st_size == 2 * module._PIECE
    assert not list(tmp_path.iterdir())
    assert [chunk[:1] for chunk in spool.chunks() if chunk] == [bytes([number]) for number in range(5)]
    spool.close()
    assert not spool._kept and spool._fd == -1
