"""A journal from its first record to its last, for those who ask what happened and when.

Read-only, also while a supervisor writes: what is torn or does not verify is passed over
(`verify` tells of it). A journal that is missing has no history; that is no error here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from supervisor.core.errors import StorageError
from supervisor.core.record_types import AnyRecord, Ended
from supervisor.records.disk import Disk
from supervisor.records.files import resolved
from supervisor.records.journal import Scan, decode_record, guess_seed, read_opened, seed_of
from supervisor.records.layout import Layout


def history(layout: Layout, chosen: Callable[[bytes], bool] | None = None) -> Iterator[AnyRecord]:
    """The records, in order; `chosen` looks at a line and saves decoding the others.

    Raises StorageError if the file cannot be read.
    """
    disk = Disk()
    try:
        fd = disk.open(resolved(layout.journal), os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(layout, error) from None
    try:
        opened = read_opened(disk, fd)
        seed = guess_seed(disk, fd) if opened is None else seed_of(opened.uuid, opened.generation)
        if seed is None:
            return
        for _, _, line in Scan(disk, fd, seed):
            if chosen is None or chosen(line):
                record = decode_record(line)
                if record is not None:
                    yield record
    except OSError as error:
        raise _unreadable(layout, error) from None
    finally:
        disk.close(fd)


def bad_ends(layout: Layout) -> Iterator[Ended]:
    """The attempts that ended without a result."""
    for record in history(layout, _is_bad_end):
        if isinstance(record, Ended):
            yield record


def _is_bad_end(line: bytes) -> bool:
    # A result may hold any text, an error never stands beside this one.
    return b',"type":"ended",' in line[:40] and b',"outcome":"completed","state":"completed",' not in line


def _unreadable(layout: Layout, error: OSError) -> StorageError:
    return StorageError(f"the journal {layout.journal} cannot be read: {error.strerror or error}")
