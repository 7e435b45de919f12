"""Reads what an earlier run left, without changing a byte.

If the journal is whole and agrees with the checkpoint, it alone tells the state of every job
(see `journal_only`). Otherwise that is the checkpoint's, if it can be used, and then whatever the
journal says after it. Record numbers rise over all generations of a journal, so "after" is a
comparison of numbers. The whole journal is verified in any case: a result that only the
checkpoint still has must get back into the journal before the checkpoint is replaced.

`repair` writes. `reports` uses this module too, also while an experiment runs.
"""

from __future__ import annotations

import contextlib
import gc
import uuid
from collections.abc import Iterator
from itertools import compress

from supervisor.core.terms.errors import StorageError, UnusableCheckpoint
from supervisor.core.terms.jobs import COMPLETED, FAILED, PENDING
from supervisor.core.terms.records import Ended, Opened
from supervisor.storage.checkpoint.checkpoint_format import CheckpointReader, DamagedCheckpoint, Header
from supervisor.storage.checkpoint.journal_index import Index
from supervisor.storage.checkpoint.journal_stretches import Stretches
from supervisor.storage.files.atomic_files import offsets_of, resolved
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal import journal_format, journal_scan
from supervisor.storage.journal.journal_file import Identity
from supervisor.storage.journal.journal_scan import KnownRun, Scan
from supervisor.storage.journal.record_locations import IN_CHECKPOINT, IN_JOURNAL, NOWHERE
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.recovery import damage_messages
from supervisor.storage.recovery.checkpoint_entries import FINISHED, load_all, load_header
from supervisor.storage.recovery.journal_only import JournalOnlyRecovery
from supervisor.storage.recovery.recovered_experiment import Recovered as Recovered
from supervisor.storage.recovery.replayer import Replayer

# After lost lines, numbers are taken well beyond any that those lines may have held.
_MARGIN = 100_000
_BLOCK = 4096  # jobs that are checked together


def survey(layout: Layout, disk: Disk | None = None) -> Recovered:
    """Read everything, change nothing.

    Raises UnusableCheckpoint if neither checkpoint nor journal can be used, if they
    belong to different experiments, or if another version wrote them.
    """
    found = Recovered(disk or Disk(), layout)
    try:
        with _without_collector():
            _Survey(found).run()
    except OSError as error:
        found.close()
        raise StorageError(
            f"the files of {layout.experiment_id} in {layout.logs} cannot be read: {error.strerror or error}. "
            f"Nothing was changed; fix the disk, then resume."
        ) from error
    except BaseException:
        found.close()
        raise
    return found


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """No garbage collection. A survey creates millions of objects and no cycles; searching for cycles would
    cost a fifth of the time."""
    busy = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if busy:
            gc.enable()


class _Survey:
    """Surveys one experiment; fills in a `Recovered`."""

    def __init__(self, found: Recovered) -> None:
        self.found = found
        self.floor = 0  # records up to here are in the checkpoint
        self.diverged = False
        self.replayer = Replayer(found)
        self.reason = ""  # why the checkpoint cannot be used
        self.index: Index | None = None  # of these jobs

    def run(self) -> None:
        found = self.found
        self._read_plan()
        self._open_checkpoint()
        opened, seed = self._open_journal()
        if not self._take_whole_journal(opened):
            self._take_both(seed)
        self._judge_journal(opened)
        if found.checkpoint is None and not (found.scan and found.scan.first_n):
            raise UnusableCheckpoint(
                damage_messages.nothing_usable(found.layout, self.reason, journal_there=found.journal_fd >= 0)
            )
        self._settle()
        self._tell()

    def _read_plan(self) -> None:
        """Read the plan. An index holds a checksum of the job ids: if it agrees, no id occurs twice; nor does one where
        the plan's columns are known."""
        found = self.found
        disk, path = found.disk, found.layout.plan
        index, stretches = Index.read(disk, found.layout.index), self._read_stretches()
        found.plan = PlanFile.in_columns(disk, path, found.layout.columns, found.table)
        if found.plan is not None:
            self._take_indexes(index, stretches)
            return
        if index is not None or stretches is not None:
            found.plan = PlanFile.read_known(disk, path, found.table)
            if found.plan is not None and self._take_indexes(index, stretches, known=True):
                return
            self._forget()
        found.plan = PlanFile.read(disk, path, found.table)
        self._take_indexes(index, stretches)

    def _take_indexes(self, index: Index | None, stretches: Stretches | None, *, known: bool = False) -> bool:
        """Take those that tell of the jobs. `known`: only if one of them tells of all of them."""
        found, table = self.found, self.found.table
        if index is not None and not index.tells_of(table):
            index = None
        if stretches is not None and not stretches.tells_of(table):
            stretches = None
        if known and index is None and (stretches is None or stretches.jobs < len(table)):
            return False
        self.index, found.stretches = index, stretches
        return index is not None or stretches is not None

    def _read_stretches(self) -> Stretches | None:
        found = self.found
        try:
            fd = found.disk.open(resolved(found.layout.journal), 0)
        except OSError:
            return None
        try:
            opened = journal_scan.read_opened(found.disk, fd)
        finally:
            found.disk.close(fd)
        if opened is None:
            return None
        seed = journal_format.seed_of(opened.uuid, opened.generation)
        return Stretches.read(found.disk, found.layout.stretches, seed)

    def _forget(self) -> None:
        """Drop what was read."""
        self.found.forget()
        if self.found.plan is not None:
            self.found.plan.close()

    # ------------------------------------------------------------------- checkpoint

    def _open_checkpoint(self) -> None:
        found = self.found
        try:
            reader = CheckpointReader(found.disk, found.layout.checkpoint)
        except FileNotFoundError:
            return
        except PermissionError as error:
            raise UnusableCheckpoint(
                f"the checkpoint {found.layout.checkpoint} cannot be read: {error.strerror}. Allow it, then resume."
            ) from None
        except (DamagedCheckpoint, OSError) as error:
            found.checkpoint_state = "damaged"
            self.reason = str(error)
            return
        found.checkpoint, found.checkpoint_state = reader, "good"
        header = reader.header
        found.identity = Identity(
            found.layout.experiment_id, header.name, header.journal.uuid, header.journal.generation
        )
        self.floor = found.last_n = header.journal.n

    def _take_whole_journal(self, opened: Opened | None) -> bool:
        """Read the journal alone, if nothing is missing from it and the checkpoint agrees. False: nothing was
        taken."""
        found, header = self.found, self.found.header
        if opened is None or header is None or found.checkpoint is None or found.plan is None:
            return False
        seed = journal_format.seed_of(opened.uuid, opened.generation)
        if found.plan.damaged or seed != journal_format.seed_of(*header_key(header)):
            return False
        whole = JournalOnlyRecovery(found, found.checkpoint, seed)
        index, self.index = self.index, None
        if whole.read_by(index) if index is not None and whole.agrees_with(index) else whole.read():
            self.replayer = whole.late
            found.last_n = max(found.last_n, found.scan.last_n if found.scan is not None else 0)
            return True
        self._forget()
        found.plan = PlanFile.read(found.disk, found.layout.plan, found.table)
        return False

    def _take_both(self, seed: int | None) -> None:
        """Take the jobs from the checkpoint, then the records after it."""
        found, header = self.found, self.found.header
        if found.checkpoint is not None and header is not None:
            load_header(found, header)
            load_all(found, found.checkpoint)
        if seed is not None:
            self._replay(seed)
            if self.diverged and found.scan is not None and found.scan.intact:
                self._adopt(seed)

    # ---------------------------------------------------------------------- journal

    def _open_journal(self) -> tuple[Opened | None, int | None]:
        """(the first record, None if it is damaged; the seed of the lines, None if unknown)."""
        found = self.found
        try:
            found.journal_fd = found.disk.open(resolved(found.layout.journal), 0)
        except FileNotFoundError:
            return None, None
        opened = journal_scan.read_opened(found.disk, found.journal_fd)
        if opened is None:
            return None, self._guess_seed()
        if opened.format != journal_format.FORMAT:
            raise UnusableCheckpoint(
                f"the journal {found.layout.journal} has the format {opened.format!r}; this version reads "
                f"{journal_format.FORMAT!r}. Use the version of longhaul that wrote it."
            )
        if found.checkpoint is not None and opened.uuid != found.identity.uuid:
            raise UnusableCheckpoint(damage_messages.different_experiments(found.layout))
        generation = max(opened.generation, found.identity.generation)
        found.identity = Identity(found.layout.experiment_id, opened.name, opened.uuid, generation)
        return opened, journal_format.seed_of(opened.uuid, opened.generation)

    def _guess_seed(self) -> int | None:
        """The seed of a journal whose first line is damaged, from the checkpoint or the other lines."""
        found = self.found
        seed = journal_scan.guess_seed(found.disk, found.journal_fd)
        identity = found.identity
        if found.checkpoint is None:
            found.identity = identity._replace(uuid=str(uuid.uuid4()), generation=1)
            return seed
        for generation in range(1, identity.generation + 100):
            if seed is None or journal_format.seed_of(identity.uuid, generation) == seed:
                found.identity = identity._replace(generation=max(generation, identity.generation))
                return seed if seed is not None else identity.seed
        raise UnusableCheckpoint(damage_messages.different_experiments(found.layout))

    def _replay(self, seed: int) -> None:
        found = self.found
        scan = Scan(found.disk, found.journal_fd, seed)
        floor = self.floor
        header = found.header
        if header is not None and seed != journal_format.seed_of(*header_key(header)):
            header = None
        for first, start, lines in found.read_journal(scan, floor):
            if isinstance(lines, KnownRun):
                self.replayer.take_run(start, lines)
                continue
            after = floor + 1 - first  # so many of these lines are in the checkpoint
            if after >= len(lines):
                self._match(start, lines)
            else:
                known = lines[: max(0, after)]
                self._match(start, known)
                self.replayer.take(start + sum(map(len, known)) + len(known), lines[len(known) :])
            if header is not None and 0 < after <= len(lines):
                end = start + sum(map(len, lines[:after])) + after
                self.diverged = end != header.journal.position
        found.last_n = max(found.last_n, scan.last_n)

    def _match(self, start: int, lines: list[bytes]) -> None:
        """Note the journal's offsets of records that the checkpoint holds too."""
        rows = journal_format.decode_rows(lines)
        if rows is None:
            return  # they verify, but another version wrote them
        locations, table = self.found.locations, self.found.table
        locations.grow(len(table))
        ended = [row.type == "ended" for row in rows]
        rows = list(compress(rows, ended))
        jobs = [table.numbers.get(row.job, -1) for row in rows]
        offsets = list(compress(offsets_of(start, lines), ended))
        lengths = [len(line) + 1 for line in compress(lines, ended)]
        states = [FINISHED.get(row.state) for row in rows]
        leases = [row.lease for row in rows]
        same = [
            job >= 0 and lease == locations.lease[job] and state == locations.recorded_state[job]
            for job, lease, state in zip(jobs, leases, states, strict=True)
        ]
        if not all(same):
            jobs, offsets, lengths = (list(compress(part, same)) for part in (jobs, offsets, lengths))
        locations.move_batch(jobs, IN_JOURNAL, offsets, lengths)

    def _adopt(self, seed: int) -> None:
        """Keep results that only the journal has, where two copies of an experiment went on separately: the
        checkpoint is of one copy, the journal of the other."""
        found = self.found
        for n, offset, line in Scan(found.disk, found.journal_fd, seed):
            record = journal_format.decode_record(line) if n <= self.floor else None
            if type(record) is Ended and record.state == "completed":
                job = found.table.add(record.job, wanted=False)
                if found.table.state[job] != COMPLETED:
                    self.replayer.apply(record, offset, len(line) + 1)

    # -------------------------------------------------------------------- judgement

    def _judge_journal(self, opened: Opened | None) -> None:
        found, scan = self.found, self.found.scan
        if found.journal_fd < 0:
            found.journal_state = "missing"
        elif scan is None or opened is None or not scan.intact or self.diverged:
            found.journal_state = "damaged"
        elif scan.last_n < self.floor:
            found.journal_state = "behind"
        elif scan.torn or scan.unterminated:
            found.journal_state = "torn"
        else:
            found.journal_state = "good"

    def _settle(self) -> None:
        """Make finished jobs without a record pending again; give every job a location."""
        found = self.found
        table, locations = found.table, found.locations
        table.expect_nothing_more()
        locations.grow(len(table))
        for job in self._unsettled():
            state = table.state[job]
            if state not in (COMPLETED, FAILED):
                locations.origin[job] = NOWHERE
            elif locations.origin[job] == NOWHERE or locations.recorded_state[job] != state:
                found.gaps.append(job)
                table.state[job] = PENDING
                table.outcome.pop(job, None)
                locations.origin[job] = NOWHERE
            elif locations.origin[job] == IN_CHECKPOINT and not found.needs_generation:
                found.journal_state = "damaged"
        if found.gaps and not found.needs_generation:
            found.journal_state = "damaged"
        if found.plan is None or found.plan.damaged:
            for job, job_id in enumerate(table.ids):
                table.wanted[job] = job_id not in found.gone_ids
        if found.needs_generation:
            found.history.next_lease += _MARGIN
            found.history.next_incarnation += _MARGIN

    def _unsettled(self) -> Iterator[int]:
        """All jobs, except blocks in which every job is in order."""
        states, locations = self.found.table.state, self.found.locations
        for start in range(0, len(states), _BLOCK):
            block = states[start : start + _BLOCK]
            stop = start + len(block)
            finished = block.count(COMPLETED) + block.count(FAILED)
            if finished == len(block):
                settled = locations.recorded_state[start:stop] == block
                settled = settled and locations.origin.count(IN_JOURNAL, start, stop) == len(block)
            else:
                settled = not finished + any(locations.origin[start:stop])
            if not settled:
                yield from range(start, stop)

    def _tell(self) -> None:
        found = self.found
        findings = found.findings
        if found.checkpoint_state == "damaged":
            findings.append(damage_messages.checkpoint_damaged(found.layout, self.reason))
        elif found.checkpoint_state == "missing" and found.statistics.runs and not found.statistics.run_since:
            findings.append(damage_messages.checkpoint_gone(found.layout))
        if found.needs_generation:
            findings.append(damage_messages.journal_trouble(found, self.floor, diverged=self.diverged))
        if found.plan is None:
            findings.append(damage_messages.plan_gone(found.layout))
        elif found.plan.damaged:
            findings.append(damage_messages.plan_damaged(found.layout, found.plan.damaged))
        if self.replayer.unknown:
            findings.append(damage_messages.unknown_records(found.layout, self.replayer.unknown))


def header_key(header: Header) -> tuple[str, int]:
    """Uuid and generation of the journal that a checkpoint was made from."""
    return header.journal.uuid, header.journal.generation
