"""Repairs the damage that `survey` found, before anything is appended.

Nothing is deleted: what is replaced or cut off is kept as a backup beside it. After a kill at any point the
next survey finds either the old files or the new ones, whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from supervisor.core.state.job_table import Charges
from supervisor.core.terms import wording
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED
from supervisor.core.terms.records import AnyRecord, Carried, CarriedRun, Leased, Reset
from supervisor.storage.files.atomic_files import NewFile, backup_name, resolved, write_all, write_atomically
from supervisor.storage.journal.journal_file import Identity, JournalFile, open_for_append
from supervisor.storage.journal.journal_format import encode_batch, ended_body, seal
from supervisor.storage.journal.record_locations import GROUP, IN_JOURNAL, grouped
from supervisor.storage.recovery import damage_messages
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.system.clock import utc_now

_CHUNK = 1 << 20
_STATE = {COMPLETED: "completed", FAILED: "failed", INTERRUPTED: "in_progress"}


def repair(found: Recovered) -> tuple[JournalFile, list[str]]:
    """Make the journal ready for appending; the journal, and sentences for the user.

    Updates the locations in `found` to the journal that is returned. Raises OSError.
    """
    notes: list[str] = []
    if found.checkpoint_state == "damaged":
        _set_aside(found, notes)
    if found.needs_generation:
        return _new_generation(found, notes), notes
    return _continue(found, notes), notes


def _set_aside(found: Recovered, notes: list[str]) -> None:
    path = resolved(found.layout.checkpoint)
    backup = backup_name(found.disk, path)
    found.disk.rename(path, backup)
    found.disk.sync_directory(os.path.dirname(path))
    notes.append(f"The damaged checkpoint was moved to {backup}.")


# -------------------------------------------------------------------- the same journal


def _continue(found: Recovered, notes: list[str]) -> JournalFile:
    scan = found.scan
    assert scan is not None
    path = resolved(found.layout.journal)
    disk = found.disk
    fd = open_for_append(disk, path)
    size = scan.end
    if scan.torn:
        backup = _keep_tail(found, scan.end, scan.size)
        disk.truncate(fd, scan.end)
        notes.append(
            f"The last record in {path} was cut short, as after a kill or a power cut; "
            f"its {wording.count(scan.torn, 'byte')} are kept in {backup}."
        )
    if scan.unterminated:
        write_all(disk, fd, b"\n")
        size += 1
    # Records that an earlier run wrote may not be synced yet.
    disk.sync(fd)
    checksum = scan.checksum if size == scan.size else None
    return JournalFile(disk, path, fd, found.identity, size=size, next_n=found.last_n + 1, checksum=checksum)


def _keep_tail(found: Recovered, start: int, end: int) -> str:
    """Save the bytes after the last good record."""
    stem, suffix = os.path.splitext(resolved(found.layout.journal))
    backup = backup_name(found.disk, f"{stem}.tail{suffix}")
    write_atomically(found.disk, backup, _bytes_of(found, start, end))
    return backup


def _bytes_of(found: Recovered, start: int, end: int) -> Iterator[bytes]:
    while start < end and (chunk := found.disk.pread(found.journal_fd, min(_CHUNK, end - start), start)):
        yield chunk
        start += len(chunk)


# ---------------------------------------------------------------------- a new generation


def _new_generation(found: Recovered, notes: list[str]) -> JournalFile:
    path = resolved(found.layout.journal)
    if found.journal_fd >= 0:
        backup = _keep_whole(found, path)
        notes.append(damage_messages.moved(path, backup))
    identity = found.identity._replace(generation=found.identity.generation + 1)
    with NewFile(found.disk, path) as file:
        writer = _Generation(found, file, identity)
        writer.write()
        file.publish(keep_open=True)
        return JournalFile(found.disk, path, file.fd, identity, size=file.size, next_n=writer.next_n)


def _keep_whole(found: Recovered, path: str) -> str:
    """A hard link to the old journal, or a copy if the file system has no links. The journal keeps its name
    until the new one replaces it."""
    disk = found.disk
    backup = backup_name(disk, path)
    if disk.link(path, backup):
        disk.sync_directory(os.path.dirname(backup))
    else:
        write_atomically(disk, backup, _bytes_of(found, 0, disk.size(found.journal_fd)))
    return backup


class _Generation:
    """Writes a journal that holds everything that is known, without its history.

    Results are copied as they are. `Carried` and `CarriedRun` records set what does not follow from them.
    """

    def __init__(self, found: Recovered, file: NewFile, identity: Identity) -> None:
        self.found = found
        self.file = file
        self.identity = identity
        self.seed = identity.seed
        # Above every number of any earlier generation, see `survey`.
        self.next_n = found.last_n + 1

    def write(self) -> None:
        found = self.found
        history = found.history
        first: list[AnyRecord] = [self.identity.opened()]
        if history.run_started is not None:
            first.append(history.run_started)
        first += history.workers.values()
        self._append(first)
        self._write_results()
        now = utc_now()
        if found.gaps:
            self._append([Reset([found.table.ids[job] for job in found.gaps], "gap", now)])
        self._append_batches(self._carried())
        self._append_batches(self._open_leases(now))
        statistics = msgspec.to_builtins(found.statistics)
        self._append([CarriedRun(history.run, history.next_lease, history.next_incarnation, statistics, now)])

    def _append(self, records: list[AnyRecord]) -> None:
        if records:
            data, _ = encode_batch(self.next_n, records, self.seed)
            self.file.write(data)
            self.next_n += len(records)

    def _append_batches(self, records: Iterator[AnyRecord]) -> None:
        group: list[AnyRecord] = []
        for record in records:
            group.append(record)
            if len(group) >= GROUP:
                self._append(group)
                group = []
        self._append(group)

    def _write_results(self) -> None:
        found = self.found
        state = found.table.state
        finished = [job for job in range(len(state)) if state[job] in (COMPLETED, FAILED)]
        for jobs in grouped(finished, found.locations.length):
            names = [msgspec.json.encode(found.table.ids[job]) for job in jobs]
            rows = zip(names, found.parts(jobs), strict=True)
            bodies = [ended_body(n, name, part) for n, (name, part) in enumerate(rows, self.next_n)]
            data, lengths = seal(bodies, self.seed)
            offset = self.file.size
            locations = found.locations
            for job, length in zip(jobs, lengths, strict=True):
                # The old locations of these jobs are not needed any more.
                locations.origin[job], locations.offset[job], locations.length[job] = (
                    IN_JOURNAL,
                    offset,
                    length,
                )
                offset += length
            self.file.write(data)
            self.next_n += len(jobs)

    def _carried(self) -> Iterator[AnyRecord]:
        """Attempts and charges of every job that has any that do not follow from its result."""
        table = self.found.table
        for job, job_id in enumerate(table.ids):
            state = table.state[job]
            charges = table.charges.get(job)
            if charges is None and (state == COMPLETED and table.attempts[job] == 1):
                continue
            if charges is None and not table.attempts[job] and state not in _STATE:
                continue
            charges = charges or Charges()
            yield Carried(
                job_id,
                table.attempts[job],
                _STATE.get(state, "pending"),
                *msgspec.structs.astuple(charges),
            )

    def _open_leases(self, now: str) -> Iterator[AnyRecord]:
        """Leases that were open when the earlier run ended; the core will close them."""
        found = self.found
        for incarnation, leases in found.table.open_leases.items():
            worker = found.history.workers.get(incarnation)
            slot = worker.worker if worker is not None else -1
            for lease, job in leases.items():
                yield Leased(slot, incarnation, lease, [found.table.ids[job]], now)
