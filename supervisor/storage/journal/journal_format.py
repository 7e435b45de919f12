"""One line of the journal: made, verified, read back; and a whole file read in one pass.

A line is `{"n":N,"type":...,...,"crc":"xxxxxxxx"}` and a newline. The CRC-32 covers the
bytes before `,"crc"` and is seeded with uuid and generation, so that each line verifies
alone and a line of another file does not pass.

What the lines mean is not known here (see `survey`), nor when they are on the disk.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from binascii import hexlify
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

import msgspec

from supervisor.core.terms.records import NO_RESULT, AnyRecord, Completions, Ended, Record, Records

_PART = b',"attempt":'

_encoder = msgspec.json.Encoder()

_ended_decoder = msgspec.json.Decoder(Ended)


def ended_part(line: bytes) -> bytes:
    """The fields of an Ended line after its job's id: `"attempt":1, ... "result":{...}`.

    The same bytes stand in the checkpoint's entry of the job. The search cannot be fooled
    by an id: inside a JSON string every quote has a backslash before it.
    """
    return line[line.index(_PART) + 1 : -18]


def ended_parts(lines: Sequence[bytes]) -> list[bytes]:
    """The same of many."""
    return [line[line.index(_PART) + 1 : -18] for line in lines]


def ended_parts_batch(text: bytes, begins: Iterable[int], lengths: Iterable[int]) -> list[bytes]:
    """The same of lines that begin there in a text, of so many bytes with their newlines."""
    return [
        text[text.index(_PART, at) + 1 : at + length - SEAL]
        for at, length in zip(begins, lengths, strict=True)
    ]


def ended_line(n: int, job: bytes, part: bytes) -> bytes:
    """The body of an Ended line from its job's id (JSON) and its part."""
    return b'{"n":%d,"type":"ended","job":%b,%b' % (n, job, part)


def ended_records(jobs: Sequence[str], parts: Sequence[bytes]) -> list[Ended]:
    """The records of many jobs, from their ids and their parts."""
    names = _encoder.encode_lines(jobs).split(b"\n")
    lines = [b'{"type":"ended","job":%b,%b}' % pair for pair in zip(names, parts, strict=False)]
    return _ended_decoder.decode_lines(b"\n".join(lines))


class Content(msgspec.Struct, gc=False):
    """What a finished job came to, as JSON; what it does not have is empty."""

    result: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    nonfinite: msgspec.Raw = NO_RESULT
    lease: int = 0


def contents(lines: Sequence[bytes]) -> list[Content]:
    """From Ended lines, or from whatever else is an object with the same fields."""
    return contents_batch(b"\n".join(lines))


def contents_batch(text: bytes) -> list[Content]:
    """The same of lines with newlines between them."""
    return _content_decoder.decode_lines(text)


_content_decoder = msgspec.json.Decoder(Content)

FORMAT = "longhaul-journal-1"

SEAL = 19  # bytes from `,"crc"` to the newline

_decoder = msgspec.json.Decoder(AnyRecord)

_without_seal, _seal = itemgetter(slice(None, -18)), itemgetter(slice(-18, None))


def seed_of(uuid: str, generation: int) -> int:
    """What the CRC of every line of a journal file begins with."""
    return zlib.crc32(b"%b %d" % (uuid.encode(), generation))


# ---------------------------------------------------------------------------- writing


def encode_batch(n: int, records: Records, seed: int) -> tuple[bytes, list[int]]:
    """The lines of `records`, numbered from `n`, and the length of each with its newline."""
    bodies: list[bytes] = []
    single: list[AnyRecord] = []
    for record in records:
        if isinstance(record, Completions):
            bodies += _bodies(n + len(bodies), single)
            bodies += _bodies_batch(n + len(bodies), record)
            single = []
        else:
            single.append(record)
    bodies += _bodies(n + len(bodies), single)
    return seal(bodies, seed)


def _bodies(n: int, records: Sequence[AnyRecord]) -> list[bytes]:
    try:
        text = _encoder.encode_lines(records)
    except UnicodeEncodeError:  # a lone surrogate
        text = b""
    if text.count(b"\n") == len(records):
        bodies = text.split(b"}\n")
        bodies.pop()
    else:  # or a newline inside a raw value
        bodies = [_encode_with_care(record) for record in records]
    return [b'{"n":%d,%b' % (number, body[1:]) for number, body in enumerate(bodies, n)]


def _bodies_batch(n: int, batch: Completions) -> list[bytes]:
    """The same for completions: what an encoder of `Ended` would write, but by filling a form,
    which costs half as much; only what nearly all of them have is in the form."""
    special = bool(batch.more) or b"\n" in b"".join(batch.results)
    try:
        jobs = _encoder.encode_lines(batch.ids).split(b"\n")
    except UnicodeEncodeError:
        special = True
    if special:
        return _bodies(n, list(batch.each()))
    rows = zip(
        range(n, n + len(batch)),
        jobs,
        batch.attempts,
        batch.leases,
        _encoder.encode_lines(batch.seconds).split(b"\n"),
        batch.results,
        strict=False,  # behind the last newline there is an empty piece
    )
    form = (
        b'{"n":%%d,"type":"ended","job":%%b,"attempt":%%d,"lease":%%d,"outcome":"completed","state":"completed",'
        b'"seconds":%%b,"worker":%d,"at":%b,"result":%%b'
    )
    return list(map((form % (batch.worker, _encoder.encode(batch.at))).__mod__, rows))


def seal(bodies: Sequence[bytes], seed: int) -> tuple[bytes, list[int]]:
    """Lines from what stands before `,"crc"` in each; the length of each with its newline."""
    if not bodies:
        return b"", []
    seals = (_seals(bodies, seed).replace(b"|", b"\n|") + b"\n").split(b"|")
    lines = b"".join(chain.from_iterable(zip(bodies, seals, strict=True)))
    return lines, [len(body) + SEAL for body in bodies]


def _seals(bodies: Iterable[bytes], seed: int) -> bytes:
    """The ends of the lines that have these bodies, with a bar between them. At least one."""
    sums = array("I", map(zlib.crc32, bodies, repeat(seed)))
    if sys.byteorder == "little":
        sums.byteswap()
    return b',"crc":"%b"}' % hexlify(sums, b"|", sums.itemsize).replace(b"|", b'"}|,"crc":"')


def _encode_with_care(record: Record) -> bytes:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return _encoder.encode(type(record)(**{name: in_utf8(value) for name, value in fields.items()}))[:-1]


def in_utf8(value: Any) -> Any:
    """The same value, such that it fits into one line of UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, msgspec.Raw) and b"\n" in bytes(value):
        return msgspec.Raw(bytes(value).replace(b"\n", b" "))
    if isinstance(value, dict):
        return {in_utf8(key): in_utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [in_utf8(item) for item in value]
    return value


# ---------------------------------------------------------------------------- reading


def verify(line: bytes, seed: int) -> int:
    """The number of a line (without its newline) if its CRC is right, else 0."""
    # Compared as text: a flipped bit may make another spelling of the same number.
    if line[-18:] != b',"crc":"%08x"}' % zlib.crc32(line[:-18], seed):
        return 0
    try:
        return int(line[5 : line.index(b",", 5)])
    except ValueError:
        return 0


def verify_batch(lines: Sequence[bytes], seed: int) -> bool:
    """Whether the CRC of each line (without its newline) is right."""
    return not lines or b"|".join(map(_seal, lines)) == _seals(map(_without_seal, lines), seed)


def decode_record(line: bytes) -> AnyRecord | None:
    """The record of a line that verifies; None if a newer version wrote a kind unknown here."""
    try:
        if b',"type":"ended","job":' in line[:40]:
            return _ended_decoder.decode(line)
        record: AnyRecord = _decoder.decode(line)
    except msgspec.DecodeError:
        return None
    return record
