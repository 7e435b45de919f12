"""One line of the journal: encoded, sealed, verified, decoded. The only module that knows its bytes.

A line is `{"n":N,"type":...,...,"crc":"xxxxxxxx"}` and a newline. `n` comes first, the fields of the
record follow in the order of its struct (`core.terms.records`), the seal (`,"crc":"xxxxxxxx"}`) ends it.
The CRC-32 covers the bytes before the seal. It starts from a seed made of the journal's uuid and
generation: each line verifies alone, and a line of another file does not verify.

In this module a *body* is a line without its seal, and the *part* of an Ended line is what follows its
job's id: `"attempt":1, ... "result":{...}`. The checkpoint holds the same bytes.

Other modules may ask for records (`decode_record`), for the few fields that a replay needs
(`decode_rows`) or an onlooker (`decode_heads`), for results (`contents`), for parts (`ended_part`) and for
what kind of line it is.
What a record means is not known here, nor whether it is on the disk.
"""

from __future__ import annotations

import re
import sys
import zlib
from array import array
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from operator import itemgetter
from typing import Any

import msgspec

from supervisor.core.terms.records import NO_RESULT, AnyRecord, Completions, Ended, Record, Records

FORMAT = "longhaul-journal-1"

SEAL_LENGTH = len(b',"crc":"01234567"}')

_SEAL_AND_NEWLINE = SEAL_LENGTH + 1
_HEAD = re.compile(rb'\{"n":\d+,"type":"')
_SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_PART = b',"attempt":'  # the first field of an Ended record after its job's id
# What stands before a result; inside of a JSON string every quote has a backslash before it.
_RESULT = b',"result":'
_ENDED_JOB = re.compile(rb'"type":"ended","job":("(?:[^"\\]|\\.)*")')
_ENDED_HEAD = re.compile(rb'\{"n":\d+,"type":"ended","job":')
_BEGINNING = 40  # first bytes of a line, which contain its type

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyRecord)
_ended_decoder = msgspec.json.Decoder(Ended)
_body_of, _seal_of = itemgetter(slice(None, -SEAL_LENGTH)), itemgetter(slice(-SEAL_LENGTH, None))


def seed_of(uuid: str, generation: int) -> int:
    """The value that the CRC of every line of a journal file starts from."""
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
    """The reference: records encoded from their structs."""
    try:
        text = _encoder.encode_lines(records)
    except UnicodeEncodeError:  # a lone surrogate
        text = b""
    if text.count(b"\n") == len(records):
        bodies = text.split(b"}\n")
        bodies.pop()
    else:  # or a newline inside a raw value
        bodies = [_encode_escaped(record) for record in records]
    return [b'{"n":%d,%b' % (number, body[1:]) for number, body in enumerate(bodies, n)]


def _bodies_batch(n: int, batch: Completions) -> list[bytes]:
    """The same bytes as `_bodies(n, batch.each())`, filled into a template at half the cost.

    The template lists the fields of `Ended` that nearly every completion has, in their order. A batch with
    anything else goes to `_bodies`.
    """
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
        batch.workers or repeat(batch.worker),
        batch.results,
        strict=False,  # behind the last newline there is an empty piece
    )
    template = (
        b'{"n":%%d,"type":"ended","job":%%b,"attempt":%%d,"lease":%%d,"outcome":"completed","state":"completed",'
        b'"seconds":%%b,"worker":%%d,"at":%b,"result":%%b'
    )
    return list(map((template % _encoder.encode(batch.at)).__mod__, rows))


def ended_body(n: int, job: bytes, part: bytes) -> bytes:
    """The body of an Ended line from its job's id (JSON) and its part."""
    return b'{"n":%d,"type":"ended","job":%b,%b' % (n, job, part)


def seal(bodies: Sequence[bytes], seed: int) -> tuple[bytes, list[int]]:
    """Lines from their bodies, and the length of each with its newline."""
    if not bodies:
        return b"", []
    seals = (_seals(bodies, seed).replace(b"|", b"\n|") + b"\n").split(b"|")
    lines = b"".join(chain.from_iterable(zip(bodies, seals, strict=True)))
    return lines, [len(body) + _SEAL_AND_NEWLINE for body in bodies]


def _seals(bodies: Iterable[bytes], seed: int) -> bytes:
    """The seals of at least one body, joined by bars."""
    sums = array("I", map(zlib.crc32, bodies, repeat(seed)))
    if sys.byteorder == "little":
        sums.byteswap()
    return b',"crc":"%b"}' % hexlify(sums, b"|", sums.itemsize).replace(b"|", b'"}|,"crc":"')


def _encode_escaped(record: Record) -> bytes:
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


# -------------------------------------------------------------------------- verifying


def verify(line: bytes | memoryview, seed: int) -> int:
    """The number of a line (without its newline) if its CRC is right, else 0. The reference for
    `verify_batch`."""
    body = memoryview(line)[:-SEAL_LENGTH]  # lines of caches are megabytes: a copy takes longer than the CRC
    # Compared as text: a flipped bit may make another spelling of the same number.
    if line[-SEAL_LENGTH:] != b',"crc":"%08x"}' % zlib.crc32(body, seed):
        return 0
    head = bytes(line[5:_BEGINNING])
    try:
        return int(head[: head.index(b",")])
    except ValueError:
        return 0


def verify_batch(lines: Sequence[bytes], seed: int) -> bool:
    """Whether the CRC of each line (without its newline) is right."""
    return not lines or b"|".join(map(_seal_of, lines)) == _seals(map(_body_of, lines), seed)


def numbered_from(lines: Sequence[bytes], first: int) -> bool:
    """Whether the lines have the numbers `first`, `first + 1` and so on."""
    numbers = range(first, first + len(lines))
    heads = (b'{"n":%d,|' * len(lines) % (*numbers,)).split(b"|")
    return all(map(bytes.startswith, lines, heads))


def body_of(line: bytes) -> bytes:
    """A line (without its newline) without its seal, to be sealed again."""
    return line[:-SEAL_LENGTH]


def candidates(stretch: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of everything in a damaged stretch that begins and ends as a line does."""
    for head in _HEAD.finditer(stretch):
        end = _SEAL.search(stretch, head.start())
        if end is None:
            return
        yield head.start(), stretch[head.start() : end.end()]


def recover_seed(line: bytes) -> int | None:
    """The seed under which a line (without its newline) verifies; None if it has no head or no seal.

    CRC-32 can be undone byte by byte: the line's CRC and its bytes give the value that it started from.
    """
    if len(line) <= SEAL_LENGTH or not _HEAD.match(line):
        return None
    found = _SEAL.fullmatch(line, len(line) - SEAL_LENGTH)
    return None if found is None else _undo_crc(line[:-SEAL_LENGTH], int(found.group(1), 16))


def _undo_crc(data: bytes, crc: int) -> int:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)
    by_top = {value >> 24: index for index, value in enumerate(table)}
    register = crc ^ 0xFFFFFFFF
    for byte in reversed(data):
        index = by_top[register >> 24]
        register = (((register ^ table[index]) << 8) & 0xFFFFFFFF) | (index ^ byte)
    return register ^ 0xFFFFFFFF


# --------------------------------------------------------------------- whole records


def decode_record(line: bytes) -> AnyRecord | None:
    """The record of a line; None if it is of a kind that this version does not know, or no record."""
    try:
        if b',"type":"ended","job":' in line[:_BEGINNING]:
            return _ended_decoder.decode(line)
        record: AnyRecord = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record


def ended_records(jobs: Sequence[str], parts: Sequence[bytes]) -> list[Ended]:
    """Ended records from the ids of their jobs and their parts."""
    names = _encoder.encode_lines(jobs).split(b"\n")
    lines = [b'{"type":"ended","job":%b,%b}' % pair for pair in zip(names, parts, strict=False)]
    return _ended_decoder.decode_lines(b"\n".join(lines))


def is_ended(line: bytes) -> bool:
    """Whether a line is an Ended record."""
    return b',"type":"ended",' in line[:_BEGINNING]


def is_unsuccessful_end(line: bytes) -> bool:
    """Whether a line is an Ended record of an attempt without a result."""
    # A result may contain any text, but no line has both an error and this outcome.
    return is_ended(line) and b',"outcome":"completed","state":"completed",' not in line


def tells_what_is_given(line: bytes) -> bool:
    """Whether a line is a Leased record of jobs that said what they need, or that ran on a node."""
    is_leased = b',"type":"leased",' in line[:_BEGINNING]
    return is_leased and (b',"given":{' in line or b',"place":"' in line)


def ended_jobs(fragment: bytes) -> list[str]:
    """Ids of the jobs whose Ended lines begin in a piece of a damaged journal."""
    found = []
    for text in _ENDED_JOB.findall(fragment):
        try:
            found.append(msgspec.json.decode(text, type=str))
        except msgspec.DecodeError:
            continue
    return found


# ------------------------------------------------------------------ parts of records


class Row(msgspec.Struct, gc=False):
    """The fields that a replay needs of an attempt that completed, and to see that it did.

    Decoding it takes half the time of an `Ended`: `at` and `result` are skipped.
    """

    type: str
    job: str = ""
    attempt: int = 0
    lease: int = 0
    outcome: str = ""
    state: str = ""
    seconds: float = 0.0


class Content(msgspec.Struct, gc=False):
    """The result or the error of a finished job, as JSON. A field that the line does not have is empty."""

    result: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    nonfinite: msgspec.Raw = NO_RESULT
    lease: int = 0


class LineHead(msgspec.Struct, gc=False):
    """What an onlooker needs of any line: its kind, when, and for an Ended line how an attempt ended, where and
    how long it took. A field that the line does not have is empty."""

    type: str
    at: str = ""
    job: str = ""
    attempt: int = 0
    lease: int = 0
    outcome: str = ""
    state: str = ""
    seconds: float = 0.0
    worker: int = -1
    place: str = ""  # of a hand-out: the node


class _At(msgspec.Struct):
    at: str


_row_decoder = msgspec.json.Decoder(Row)
_head_decoder = msgspec.json.Decoder(LineHead)
_at_decoder = msgspec.json.Decoder(_At)
_content_decoder = msgspec.json.Decoder(Content)


def decode_rows(lines: Sequence[bytes]) -> list[Row] | None:
    """The rows of lines of any kind; None if a field has another type than in this version."""
    try:
        return _row_decoder.decode_lines(b"\n".join(lines))
    except msgspec.DecodeError:
        return None


def decode_heads(lines: Sequence[bytes]) -> list[LineHead | None]:
    """The heads of lines of any kind; None for one that this version cannot read.

    Of an Ended line nothing from its result on is decoded: results may be large, and nobody wants them here.
    """
    short = [parts[0] + b"}" if (parts := line.partition(_RESULT))[1] else line for line in lines]
    try:
        return list(_head_decoder.decode_lines(b"\n".join(short)))
    except msgspec.DecodeError:
        return list(map(_decode_head, lines))


def _decode_head(line: bytes) -> LineHead | None:
    try:
        return _head_decoder.decode(line)
    except msgspec.DecodeError:
        return None


def ended_at(line: bytes) -> str:
    """When the attempt of an Ended line ended, ISO 8601; whatever else another version has in it."""
    return _at_decoder.decode(line).at


def contents(lines: Sequence[bytes]) -> list[Content]:
    """The contents of Ended lines, or of any other JSON objects with the same fields."""
    return contents_batch(b"\n".join(lines))


def contents_batch(text: bytes) -> list[Content]:
    """The same from lines that are joined by newlines."""
    return _content_decoder.decode_lines(text)


def ended_part(line: bytes) -> bytes:
    """The part of an Ended line. The reference for `ended_parts_batch`."""
    # No id contains this text: inside a JSON string every quote has a backslash before it.
    return line[line.index(_PART) + 1 : -SEAL_LENGTH]


def ended_parts_batch(text: bytes, begins: Iterable[int], lengths: Iterable[int]) -> list[bytes]:
    """The parts of lines that begin at these offsets of a text; `lengths` count their newlines."""
    return [
        text[text.index(_PART, at) + 1 : at + length - _SEAL_AND_NEWLINE]
        for at, length in zip(begins, lengths, strict=True)
    ]


def named_parts_batch(
    text: bytes, lengths: Sequence[int], ends: Sequence[int], between: bytes
) -> list[bytes] | None:
    """Of Ended lines that follow each other in a text the id of the job, as JSON, `between`, and the part; at half the
    cost of ids and parts alone.

    lengths: of the lines with their newlines. ends: where in the text the lines begin that have the lowest and the
    highest number. None if one of these has more digits: then the ids do not all begin at the same place.
    """
    heads = [_ENDED_HEAD.match(text, at) for at in ends]
    sizes = {head and len(head.group()) for head in heads}
    head = sizes.pop()
    if sizes or not head:
        return None
    part, begun = b'"' + _PART, b'"' + between + _PART[1:]
    stops = accumulate(lengths)
    return [
        text[stop - length + head : stop - _SEAL_AND_NEWLINE].replace(part, begun, 1)
        for stop, length in zip(stops, lengths, strict=True)
    ]
