"""What the end of an attempt consists of: the fields of an Ended line, taken from its bytes.

The same bytes stand in the journal, in the checkpoint's entry of the job and, some of them, in the
final files: they are cut out and put together, and decoded only where somebody looks inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from supervisor.core.record_types import NO_RESULT, Ended
from supervisor.records.journal import SEAL

_PART = b',"attempt":'
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Ended)


def ended_part(line: bytes) -> bytes:
    """The fields of an Ended line after its job's id: `"attempt":1, ... "result":{...}`.

    The same bytes stand in the checkpoint's entry of the job. The search cannot be fooled
    by an id: inside a JSON string every quote has a backslash before it.
    """
    return line[line.index(_PART) + 1 : -18]


def ended_parts(lines: Sequence[bytes]) -> list[bytes]:
    """The same of many."""
    return [line[line.index(_PART) + 1 : -18] for line in lines]


def ended_parts_in(text: bytes, begins: Iterable[int], lengths: Iterable[int]) -> list[bytes]:
    """The same of lines that begin there in a text, of so many bytes with their newlines."""
    return [
        text[text.index(_PART, at) + 1 : at + length - SEAL]
        for at, length in zip(begins, lengths, strict=True)
    ]


def ended_line(n: int, job: bytes, part: bytes) -> bytes:
    """The body of an Ended line from its job's id (JSON) and its part."""
    return b'{"n":%d,"type":"ended","job":%b,%b' % (n, job, part)


def ended_record(job: bytes, part: bytes) -> Ended:
    """The record from its job's id (JSON) and its part."""
    return _decoder.decode(b'{"type":"ended","job":%b,%b}' % (job, part))


def ended_records(jobs: Sequence[str], parts: Sequence[bytes]) -> list[Ended]:
    """The same for many, from their ids."""
    names = _encoder.encode_lines(jobs).split(b"\n")
    lines = [b'{"type":"ended","job":%b,%b}' % pair for pair in zip(names, parts, strict=False)]
    return _decoder.decode_lines(b"\n".join(lines))


class Content(msgspec.Struct, gc=False):
    """What a finished job came to, as JSON; what it does not have is empty."""

    result: msgspec.Raw = NO_RESULT
    error: msgspec.Raw = NO_RESULT
    nonfinite: msgspec.Raw = NO_RESULT
    lease: int = 0


def contents(lines: Sequence[bytes]) -> list[Content]:
    """From Ended lines, or from whatever else is an object with the same fields."""
    return contents_in(b"\n".join(lines))


def contents_in(text: bytes) -> list[Content]:
    """The same of lines with newlines between them."""
    return _content_decoder.decode_lines(text)


_content_decoder = msgspec.json.Decoder(Content)
