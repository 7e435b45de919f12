"""longhaul verify: what is damaged, and where files disagree."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.storage.journal.journal_format import seed_of
from tests.commands.conftest import Longhaul, snapshot


def journal(folder: Path) -> Path:
    return folder / "logs" / "journal_night.jsonl"


def checkpoint(folder: Path) -> Path:
    return folder / "logs" / "checkpoint_night.json"


def resealed(text: bytes, seed: int, old: bytes, new: bytes) -> bytes:
    """A journal in which one line says something else, with a CRC that is right."""
    lines = text.split(b"\n")
    (at,) = [number for number, line in enumerate(lines) if old in line]
    body = lines[at][:-18].replace(old, new)
    lines[at] = b'%b,"crc":"%08x"}' % (body, zlib.crc32(body, seed))
    return b"\n".join(lines)


def flip_a_bit(folder: Path) -> None:
    text = bytearray(journal(folder).read_bytes())
    text[text.index(b'"job":"raise/3"') + 9] ^= 1
    journal(folder).write_bytes(text)


def lose_a_record(folder: Path) -> None:
    lines = journal(folder).read_bytes().split(b"\n")
    del lines[9]
    journal(folder).write_bytes(b"\n".join(lines))


def change_a_result(folder: Path) -> None:
    """Everything verifies, but checkpoint, journal and final files do not say the same."""
    text = journal(folder).read_bytes()
    opened = json.loads(text.split(b"\n")[0])
    seed = seed_of(opened["uuid"], opened["generation"])
    journal(folder).write_bytes(resealed(text, seed, b'"result":{"x":1.0', b'"result":{"x":9.0'))


def spoil_the_checkpoint(folder: Path) -> None:
    checkpoint(folder).write_bytes(checkpoint(folder).read_bytes().replace(b'"x":1.0', b'"x":2.0'))


def forge_the_checkpoint(folder: Path) -> None:
    """A result is changed, and the CRC with it."""
    body = checkpoint(folder).read_bytes().replace(b'"x":1.0', b'"x":2.0')
    body = re.sub(rb',\n"crc":"[0-9a-f]{8}"\}\n$', b"", body)
    checkpoint(folder).write_bytes(b'%b,\n"crc":"%08x"}\n' % (body, zlib.crc32(body)))


def change_the_final_file(folder: Path) -> None:
    path = folder / "night" / "logs_final.json"
    path.write_text(path.read_text().replace('"x":1.0', '"x":3.0'))


def cut_the_final_file(folder: Path) -> None:
    path = folder / "night" / "logs_final.json"
    path.write_bytes(path.read_bytes()[:-200])


def miscount(folder: Path) -> None:
    path = folder / "night" / "statistics.json"
    document = json.loads(path.read_text())
    document["counts"]["completed"] += 1
    path.write_text(json.dumps(document))


def miscount_the_progress(folder: Path) -> None:
    path = folder / "logs" / "progress_night.json"
    document = json.loads(path.read_text())
    document["counts"]["completed"] -= 1
    document["counts"]["pending"] += 1
    path.write_text(json.dumps(document))


def spoil_the_plan(folder: Path) -> None:
    path = folder / "logs" / "plan_night.jsonl"
    path.write_text(path.read_text().replace('"id":"raise/2",', '"id":raise/2",'))


def remove_the_checkpoint(folder: Path) -> None:
    checkpoint(folder).unlink()


DAMAGE: list[tuple[Callable[[Path], None], str, str]] = [
    (flip_a_bit, "journal", r"bytes at byte \d+ do not verify"),
    (lose_a_record, "journal", r"record 10 is missing"),
    (change_a_result, "checkpoint", r"job 'last' has another result"),
    (change_a_result, "final files", r"of job 'last'"),
    (spoil_the_checkpoint, "checkpoint", r"does not match its checksum"),
    (forge_the_checkpoint, "checkpoint", r"job 'last' has another result"),
    (remove_the_checkpoint, "checkpoint", r"is missing"),
    (change_the_final_file, "final files", r"line 15 of .* is not what the journal says of job 'last'"),
    (cut_the_final_file, "final files", r"is not what the journal says"),
    (miscount, "final files", r"says 7 completed"),
    (miscount_the_progress, "progress", r"the journal says 6 completed"),
    (spoil_the_plan, "plan", r"1 line of .* cannot be read"),
]


@pytest.mark.parametrize(
    ("damage", "file", "told"), DAMAGE, ids=lambda value: getattr(value, "__name__", None)
)
def test_damage_is_found_and_told_with_its_place(
    spare: Path, longhaul: Longhaul, damage: Callable[[Path], None], file: str, told: str
) -> None:
    damage(spare)
    before = snapshot(spare)
    code, text, _ = longhaul("verify", spare, "--json")
    assert code == 65
    (document,) = json.loads(text)
    assert document["good"] is False
    problems = {check["file"]: check["problems"] for check in document["files"]}
    assert any(re.search(told, problem) for problem in problems[file]), problems
    code, text, _ = longhaul("verify", spare)
    assert code == 65 and re.search(rf"{file} +PROBLEM", text)
    assert snapshot(spare) == before


def test_what_is_whole_is_good(outputs: Path, longhaul: Longhaul) -> None:
    code, text, _ = longhaul("verify", outputs)
    assert code == 0
    assert [line.split()[:2] for line in text.splitlines()[1:]] == [
        ["journal", "good"],
        ["plan", "good"],
        ["checkpoint", "good"],
        ["progress", "good"],
        ["final", "files"],
    ]


def test_what_a_kill_leaves_is_normal(spare: Path, longhaul: Longhaul) -> None:
    """The last records, the end of the run among them, are cut off in the middle of a line."""
    text = journal(spare).read_bytes()
    journal(spare).write_bytes(text[: text.rindex(b'"type":"run_ended"')])
    checkpoint_text = checkpoint(spare).read_bytes()
    code, text_out, _ = longhaul("verify", spare)
    assert code == 65  # the checkpoint knows of the record that is gone
    assert "the journal has no record" in text_out
    assert "normal after a kill" in text_out
    assert "not compared: the last run was killed" in text_out
    assert checkpoint(spare).read_bytes() == checkpoint_text
