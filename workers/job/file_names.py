"""File names made from job ids. It imports little, since every script imports it."""

from __future__ import annotations

_MAX_NAME = 100  # bytes of a file name made from a job id

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,+@.")


def file_name(job_id: str) -> str:
    """A job's id as the name of a file: percent-encoded; when long, a prefix and a hash.

    Different ids give different names, also where case does not matter to the file system
    only if they differ in more than case. The name never starts with a dot.
    """
    raw = job_id.encode(errors="surrogatepass")
    parts = [chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw]
    if parts and parts[0] == ".":
        parts[0] = "%2E"
    name = "".join(parts) or "%"
    if len(name) <= _MAX_NAME:
        return name
    import hashlib

    digest = hashlib.blake2b(raw, digest_size=10).hexdigest()
    prefix = name[: _MAX_NAME - len(digest) - 1]
    cut = prefix.rfind("%", len(prefix) - 2)
    return f"{prefix if cut < 0 else prefix[:cut]}~{digest}"
