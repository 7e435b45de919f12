"""What an experiment may be called. Pure."""

from __future__ import annotations

import re

from supervisor.core.terms.errors import UsageError

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")

_BACKUP = re.compile(r".*\.backup(-\d+)?")

_WORDS = ("latest", "auto", "logs")


def check_id(text: str) -> str:
    """`text`, if it is a valid id of an experiment. Raises UsageError."""
    advice = "use letters, digits and . _ - such as experiment_20251014_210000"
    if not text:
        raise UsageError(f"an experiment id must not be empty: {advice}")
    if len(text) > 100:
        raise UsageError(
            f"experiment id {text[:30]!r}... has {len(text)} characters; at most 100 are allowed"
        )
    if not _ID.fullmatch(text):
        raise UsageError(
            f"experiment id {text!r} cannot be a file name everywhere: {advice}, no . or - in front"
        )
    if text in _WORDS:
        raise UsageError(f"experiment id {text!r} is taken: it has a meaning of its own; choose another one")
    if is_backup(text):
        raise UsageError(f"experiment id {text!r} ends like the name of a backup; choose another one")
    return text


def is_backup(stem: str) -> bool:
    """Whether the id part of a file name is that of a backup."""
    return _BACKUP.fullmatch(stem) is not None
