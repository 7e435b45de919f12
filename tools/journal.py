"""Print the journal of an experiment so that people can read it, or verify it.

    python tools/journal.py data/outputs/NAME/logs/journal_ID.jsonl
    python tools/journal.py FILE --job wine/forest/200 --type ended
    python tools/journal.py FILE --verify

One line a record: its number, its time (UTC), its kind, and its fields, cut to the width of
the terminal unless --full is given. Lines that do not verify are never shown as records; what
is damaged or missing is said at the end. Only reads, so a live experiment may be looked at.

Exit code: 0, also if the last line is torn, which is normal after a kill; 1 if anything else
is damaged or missing; 2 if the file cannot be read or is no journal.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections import Counter
from typing import Any

import msgspec

from supervisor.storage.files.disk import Disk
from supervisor.storage.journal.journal_format import seed_of
from supervisor.storage.journal.journal_scan import Scan, guess_seed, read_opened

FRAME = ("n", "at", "type", "crc")  # have columns of their own, or are of no interest


def main() -> int:
    arguments = parse_arguments()
    disk = Disk()
    try:
        fd = os.open(arguments.file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return refuse(f"{arguments.file} cannot be opened: {error.strerror}")
    try:
        opened = read_opened(disk, fd)
        seed = guess_seed(disk, fd) if opened is None else seed_of(opened.uuid, opened.generation)
        if seed is None:
            return refuse(f"{arguments.file} is not a journal, or nothing of it can be verified")
        scan = Scan(disk, fd, seed)
        kinds = print_records(scan, arguments)
    finally:
        os.close(fd)
    if arguments.verify:
        print_summary(scan, kinds)
    print_damage(scan, first_line_good=opened is not None)
    return 0 if scan.intact and opened is not None else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Print or verify the journal of an experiment.")
    parser.add_argument("file", metavar="FILE", help="logs/journal_<id>.jsonl of an experiment")
    parser.add_argument("--job", metavar="ID", help="only records that name this job")
    parser.add_argument(
        "--type", metavar="T", help="only records of this kind: leased, ended, run_started, ..."
    )
    parser.add_argument("--full", action="store_true", help="do not cut long records")
    parser.add_argument(
        "--verify", action="store_true", help="print no records, only what is in the file and how it is"
    )
    return parser.parse_args()


def print_records(scan: Scan, arguments: argparse.Namespace) -> Counter[str]:
    """Go through the file once, printing what was asked for; how many records of each kind."""
    kinds: Counter[str] = Counter()
    width = None if arguments.full or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    for n, _, line in scan:
        record: dict[str, Any] = msgspec.json.decode(line)
        kind = record.get("type", "?")
        kinds[kind] += 1
        if arguments.verify or (arguments.type and kind != arguments.type):
            continue
        if arguments.job and arguments.job not in jobs_of(record):
            continue
        text = shown(n, kind, record)
        print(text if width is None or len(text) <= width else text[: width - 1] + "…")
    return kinds


def jobs_of(record: dict[str, Any]) -> list[str]:
    """The ids of the jobs that a record names; a run's start only counts them."""
    several = record.get("jobs")
    return several if isinstance(several, list) else [record.get("job", "")]


def shown(n: int, kind: str, record: dict[str, Any]) -> str:
    at = record.get("at", "").replace("T", " ").removesuffix("Z").removesuffix("+00:00")
    fields = " ".join(f"{key}={short(value)}" for key, value in record.items() if key not in FRAME)
    return f"{n:>7}  {at:<23}  {kind:<14} {fields}"


def short(value: Any) -> str:
    """A value as JSON; text without quotes where that is clear."""
    if isinstance(value, str) and value.isprintable() and not set(value) & set(' "='):
        return value
    return msgspec.json.encode(value).decode()


def print_summary(scan: Scan, kinds: Counter[str]) -> None:
    records = (
        f"{kinds.total()} records verify, {scan.first_n} to {scan.last_n}" if kinds else "no record verifies"
    )
    print(f"{records}; {scan.end} of {scan.size} bytes")
    for kind, count in kinds.most_common():
        print(f"{count:>9}  {kind}")


def print_damage(scan: Scan, *, first_line_good: bool) -> None:
    """Say what does not verify, to stderr, so that it is seen also when records are piped away."""
    if not first_line_good:
        warn("the first line is damaged; its identity was worked out from the other lines")
    for damage in scan.damage:
        warn(f"{damage.length} bytes at {damage.offset} do not verify: {damage.fragment[:60]!r}")
    for first, last in scan.missing:
        warn(f"record {first} is missing" if first == last else f"records {first} to {last} are missing")
    if scan.torn:
        warn(f"torn tail: {scan.torn} bytes after the last whole record (normal after a kill)")


def warn(text: str) -> None:
    print(text, file=sys.stderr)


def refuse(text: str) -> int:
    warn(text)
    return 2


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    sys.exit(main())
