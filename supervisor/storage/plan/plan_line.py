"""The line of the plan: its fields, how it is written, and what may be read of it.

A job: {"id": ..., "domain": ..., "params": {...}}, followed by the fields of `OwnSettings` that the job sets. A job
that the script no longer has: {"id": ..., "gone": true}. Each reader decodes the fields that it needs and skips the
others, so a field may be added: the file when it is opened (`PlanEntry`), commands and reports (`PlannedJob`), the
comparison of two plans (`own_settings_in`), and a worker (`workers.transport.messages.PlanLine`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from supervisor.core.terms.jobs import NOTHING_OWN, OwnSettings
from supervisor.core.terms.records import NO_RESULT
from workers.transport.messages import PlanLine


class PlanEntry(msgspec.Struct, gc=False):
    """The fields that are read when the file is opened; `params` are not decoded."""

    id: str
    domain: str | None = None
    gone: bool = False


class PlannedJob(msgspec.Struct, frozen=True):
    """A job of the plan, as commands and reports show it.

    params: JSON. needs: what it says that it needs (`terms.needs.Needs`), JSON; empty if it says nothing.
    """

    id: str
    domain: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    needs: msgspec.Raw = NO_RESULT


class _PlainEntry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A job that sets nothing of its own."""

    id: msgspec.Raw
    domain: msgspec.Raw
    params: msgspec.Raw


_encoder = msgspec.json.Encoder()
_entry_decoder = msgspec.json.Decoder(PlanEntry)
_job_decoder = msgspec.json.Decoder(PlannedJob)
_plain_decoder = msgspec.json.Decoder(_PlainEntry)
_own_decoder = msgspec.json.Decoder(OwnSettings)

_BEGIN = b'{"id":'
_BETWEEN = b"}\n" + _BEGIN

# ------------------------------------------------------------------------------ write


def plan_line(job_id: str, domain: str | None, params_json: bytes, own: OwnSettings = NOTHING_OWN) -> bytes:
    """One line with its newline."""
    if b"\n" in params_json:
        params_json = msgspec.json.format(params_json, indent=-1)
    fields = {"id": job_id, "domain": domain, "params": msgspec.Raw(params_json)}
    return _encoder.encode(fields | msgspec.to_builtins(own)) + b"\n"


def plan_lines(ids: Iterable[str], domains: Iterable[str | None], params: Iterable[dict[str, Any]]) -> bytes:
    """The lines of jobs that set nothing of their own, and whose params are made of JSON's own types.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    return _encoder.encode_lines([*map(PlanLine, ids, domains, params)])


def gone_line(job_id: str) -> bytes:
    """The line, with its newline, of a job that the script no longer has."""
    return _encoder.encode({"id": job_id, "gone": True}) + b"\n"


# ------------------------------------------------------------------------------- read

# Each takes a line, or lines joined by newlines, and raises msgspec.DecodeError or UnicodeDecodeError.


def decode_entry(line: bytes) -> PlanEntry:
    return _entry_decoder.decode(line)


def decode_entries(lines: bytes) -> list[PlanEntry]:
    return _entry_decoder.decode_lines(lines)


def decode_line(line: bytes) -> PlannedJob:
    return _job_decoder.decode(line)


def decode_lines(lines: bytes) -> list[PlannedJob]:
    return _job_decoder.decode_lines(lines)


def own_settings_in(line: bytes) -> OwnSettings:
    return _own_decoder.decode(line)


def bodies_batch(lines: bytes, jobs: int, *, plain: bool) -> list[bytes] | None:
    """Of each line what stands between `{"id":` and the last brace, as it was written: the id, domain and params.

    None if a line has other fields; it is not checked if all are known to be `plain`. Splitting takes a third of the
    time of `decode_lines`.
    """
    try:
        bodies = lines.removeprefix(_BEGIN).removesuffix(b"}").split(_BETWEEN)
        known = len(bodies) == jobs and (plain or len(_plain_decoder.decode_lines(lines)) == jobs)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return bodies if known else None
