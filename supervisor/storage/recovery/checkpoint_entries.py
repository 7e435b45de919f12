"""Loads the header and the entries of a checkpoint into job table, statistics, history and locations."""

from __future__ import annotations

import msgspec

from supervisor.core.state.job_table import Charges
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED
from supervisor.storage.checkpoint.checkpoint_format import (
    CheckpointReader,
    Header,
    decode_charge,
    decode_finished,
    decode_in_progress,
)
from supervisor.storage.journal.record_locations import IN_CHECKPOINT
from supervisor.storage.recovery.recovered_experiment import Recovered

FINISHED = {"completed": COMPLETED, "failed": FAILED}
_SPENT = ("charges", "in_progress")  # the sections that come first


def load_header(found: Recovered, header: Header) -> None:
    """Load statistics, settings, numbers and workers."""
    found.statistics = msgspec.structs.replace(header.statistics)
    found.history.restore(
        run=header.run,
        next_lease=header.next_lease,
        next_incarnation=header.next_incarnation,
        settings=header.settings,
        options=header.options,
        run_started=header.run_started,
        workers=header.workers,
    )


def load_all(found: Recovered, reader: CheckpointReader) -> None:
    """Load every section."""
    for section, offsets, entries in reader.groups():
        if section in _SPENT:
            _load_spent(found, section, entries)
        else:
            _load_finished(found, section, offsets, entries)
    _load_leases(found, reader.header)


def load_unfinished(found: Recovered, reader: CheckpointReader) -> None:
    """Load all sections but those of finished jobs, which are known from the journal."""
    for section, _, entries in reader.groups():
        if section not in _SPENT:
            break
        _load_spent(found, section, entries)
    _load_leases(found, reader.header)


def _load_leases(found: Recovered, header: Header) -> None:
    table = found.table
    for held in header.open_leases:
        leases = table.open_leases.setdefault(held.incarnation, {})
        leases[held.lease] = table.add(held.job, wanted=False)


def _load_finished(found: Recovered, section: str, offsets: list[int], entries: list[bytes]) -> None:
    table = found.table
    known = decode_finished(entries)
    rows = known.values()
    jobs = table.numbers_of(list(known))
    states = bytes([FINISHED[entry.state] for entry in rows])
    table.restore(jobs, states, [entry.attempts for entry in rows], [entry.seconds for entry in rows])
    if states.count(FAILED):
        for job, entry in zip(jobs, rows, strict=True):
            if entry.state == "failed":
                table.outcome[job] = entry.outcome
    leases = [entry.lease for entry in rows]
    found.locations.note_batch(jobs, IN_CHECKPOINT, states, offsets, map(len, entries), leases)
    if section == "gone":
        found.gone_ids.update(known)


def _load_spent(found: Recovered, section: str, entries: list[bytes]) -> None:
    table = found.table
    for entry in entries:
        if section == "charges":
            job_id, spent = decode_charge(entry)
            job = table.add(job_id, wanted=False)
            table.attempts[job] = spent.attempts
            if (charges := Charges.of(spent)).any():
                table.charges[job] = charges
        else:
            job_id, running = decode_in_progress(entry)
            if running.worker is None:
                table.state[table.add(job_id, wanted=False)] = INTERRUPTED
