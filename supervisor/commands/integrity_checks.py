"""What `longhaul verify` checks: first each file alone, then each against the journal.

Files are read one after the other while a run may be writing them: the checkpoint first, then
the journal, which only grows; so everything that the checkpoint refers to is there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.errors import LonghaulError, UnusableCheckpoint
from supervisor.core.terms.jobs import COMPLETED, FAILED, Counts
from supervisor.core.terms.records import Ended, Opened, RunEnded, RunStarted
from supervisor.core.terms.wording import count
from supervisor.experiment.experiment_status import is_running
from supervisor.reports.progress_file import OVER, Progress
from supervisor.reports.report import Report, load
from supervisor.storage.checkpoint.checkpoint_format import (
    CheckpointReader,
    DamagedCheckpoint,
    Header,
    entry_part,
)
from supervisor.storage.files.atomic_files import resolved
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.journal.journal_format import decode_record, ended_part, seed_of
from supervisor.storage.journal.journal_scan import Scan, guess_seed, read_opened
from supervisor.storage.plan.plan_file import PlanFile
from supervisor.storage.plan.plan_line import decode_line

_PIECE = 1 << 20
_MOST = 1000  # problems of a kind that are listed
_FINISHED = (COMPLETED, FAILED)


class Check(msgspec.Struct):
    """The result for one file. problems: damage and disagreements, with places; empty if it is good. notes:
    oddities that are normal after a kill or during a run."""

    file: str
    told: str = ""
    problems: list[str] = []
    notes: list[str] = []

    def problem(self, text: str) -> None:
        if len(self.problems) < _MOST:
            self.problems.append(text)


def check_experiment(layout: Layout) -> list[Check]:
    """All files of an experiment. Raises StorageError if the disk does not let us read."""
    return _Checks(layout).run()


class _Checks:
    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.disk = Disk()
        self.live = is_running(layout)
        self.table = JobTable()
        self.plan = Check("plan")
        self.checkpoint = Check("checkpoint")
        self.journal = Check("journal")
        self.progress = Check("progress")
        self.final = Check("final files")
        self.header: Header | None = None
        self.entries: dict[str, tuple[str, bytes]] = {}  # of the checkpoint: section and record
        self.parts: dict[str, bytes] = {}  # of jobs in the checkpoint: their records in the journal
        self.first_n = 0
        self.finished_then: set[str] | None = None  # by the journal, where the checkpoint was made
        self.a_run_has_ended = False
        self.ended_at = ""  # when the last run ended; "" if it was killed, or goes on

    def run(self) -> list[Check]:
        self._check_plan()
        self._check_checkpoint()
        self._check_journal()
        self._compare_checkpoint()
        self._check_progress()
        self._check_final()
        return [self.journal, self.plan, self.checkpoint, self.progress, self.final]

    # --------------------------------------------------------------------------- plan

    def _check_plan(self) -> None:
        check = self.plan
        try:
            plan = PlanFile.read(self.disk, self.layout.plan, self.table)
        except OSError as error:
            check.problem(f"{self.layout.plan} cannot be read: {error.strerror or error}")
            return
        if plan is None:
            check.problem(f"{self.layout.plan} is missing")
            return
        try:
            if plan.damaged:
                check.problem(f"{count(plan.damaged, 'line')} of {self.layout.plan} cannot be read")
            if plan.torn is not None:
                check.notes.append(f"a torn last line at byte {plan.torn}: normal after a kill")
            for job, job_id in enumerate(self.table.ids):
                if plan.has(job):
                    self._check_plan_line(plan.line(job), job_id)
        finally:
            plan.close()
        gone = self.table.gone()
        check.told = count(len(self.table), "job") + (f", {gone:,} of them gone" if gone else "")

    def _check_plan_line(self, line: bytes, job_id: str) -> None:
        try:
            planned = decode_line(line)
            params = msgspec.json.decode(planned.params)
        except msgspec.DecodeError as error:
            self.plan.problem(f"the line of {job_id!r} cannot be read: {error}")
            return
        if planned.id != job_id or not isinstance(params, dict):
            self.plan.problem(f"the line of {job_id!r} has another id, or its params are no JSON object")

    # --------------------------------------------------------------------- checkpoint

    def _check_checkpoint(self) -> None:
        check = self.checkpoint
        try:
            reader = CheckpointReader(self.disk, self.layout.checkpoint)
        except FileNotFoundError:
            return  # the journal tells whether there should be one
        except (DamagedCheckpoint, UnusableCheckpoint, OSError) as error:
            check.problem(f"{self.layout.checkpoint}: {error}")
            return
        try:
            self.header = reader.header
            for section, places, entries in reader.groups():
                for place, entry in zip(places, entries, strict=True):
                    if section in ("completed", "failed", "gone"):
                        self._take_entry(section, place, entry)
        finally:
            reader.close()
        if self.header.experiment_id != self.layout.experiment_id:
            check.problem(f"it is of experiment {self.header.experiment_id!r}")
        sections = Counter(section for section, _ in self.entries.values())
        counts = self.header.counts
        for section, told in (("completed", counts.completed), ("failed", counts.failed)):
            if sections[section] != told:
                check.problem(f"it counts {told} jobs as {section} and holds {sections[section]}")
        if _sum(counts) != counts.total:
            check.problem(f"its counts do not add up: {_words(counts)}")
        check.told = f"saved {self.header.saved_at}, up to record {self.header.journal.n}: {_words(counts)}"

    def _take_entry(self, section: str, place: int, entry: bytes) -> None:
        try:
            name, part = entry_part(entry)
            self.entries[msgspec.json.decode(name, type=str)] = section, part
        except (ValueError, msgspec.DecodeError):
            self.checkpoint.problem(f"the entry at byte {place} cannot be read")

    # ------------------------------------------------------------------------ journal

    def _check_journal(self) -> None:
        check, layout = self.journal, self.layout
        try:
            fd = self.disk.open(resolved(layout.journal), os.O_RDONLY)
        except OSError as error:
            check.problem(f"{layout.journal} cannot be read: {error.strerror or error}")
            return
        try:
            opened = read_opened(self.disk, fd)
            if opened is None:
                check.problem("the first line is damaged")
            elif opened.experiment_id != layout.experiment_id:
                check.problem(f"it is of experiment {opened.experiment_id!r}")
            self._compare_identity(opened)
            seed = guess_seed(self.disk, fd) if opened is None else seed_of(opened.uuid, opened.generation)
            if seed is None:
                check.problem("no line of it verifies")
                return
            scan = Scan(self.disk, fd, seed)
            self._replay(scan, same=opened is not None and self._is_same_file(opened))
            self._tell_scan(scan)
        except OSError as error:
            check.problem(f"{layout.journal} cannot be read: {error.strerror or error}")
        finally:
            self.disk.close(fd)

    def _compare_identity(self, opened: Opened | None) -> None:
        if opened is not None and self.header is not None and opened.uuid != self.header.journal.uuid:
            self.checkpoint.problem("checkpoint and journal belong to different experiments")

    def _is_same_file(self, opened: Opened) -> bool:
        header = self.header
        return header is not None and (opened.uuid, opened.generation) == (
            header.journal.uuid,
            header.journal.generation,
        )

    def _replay(self, scan: Scan, *, same: bool) -> None:
        """Replay every record. `same`: the checkpoint was made from this file."""
        floor = self.header.journal.n if self.header is not None else 0
        planned = len(self.table)
        for n, offset, line in scan:
            record = decode_record(line)
            if record is None:
                self.journal.notes.append(f"record {n} is of a kind that this version does not know")
                continue
            try:
                self.table.apply(record)
            except Exception as error:  # an impossible sequence of records
                self.journal.problem(f"record {n} at byte {offset} contradicts those before it: {error}")
                continue
            if isinstance(record, Ended) and n <= floor and record.job in self.entries and record.state:
                self.parts[record.job] = ended_part(line)
            elif isinstance(record, RunEnded):
                self.ended_at, self.a_run_has_ended = record.at, True
            elif isinstance(record, RunStarted):
                self.ended_at = ""
            if n == floor:
                self.finished_then = self._finished()
                position = offset + len(line) + 1
                if same and self.header is not None and position != self.header.journal.position:
                    self.checkpoint.problem(
                        f"record {n} ends at byte {position} of the journal, the checkpoint says "
                        f"{self.header.journal.position}"
                    )
        if self.plan.told and not self.live:  # else it may have grown since
            for job in self.table.ids[planned:]:
                self.plan.problem(f"job {job!r} is in the journal and not in the plan")

    def _finished(self) -> set[str]:
        table = self.table
        return {job_id for job_id, state in zip(table.ids, table.state, strict=True) if state in _FINISHED}

    def _tell_scan(self, scan: Scan) -> None:
        check = self.journal
        self.first_n = scan.first_n
        for damage in scan.damage:
            check.problem(f"{count(damage.length, 'byte')} at byte {damage.offset} do not verify")
        for first, last in scan.missing:
            which = f"record {first} is" if first == last else f"records {first} to {last} are"
            check.problem(f"{which} missing")
        if scan.rebuilt:
            check.problem("records stand in the middle of other lines")
        if scan.torn or scan.unterminated:
            why = "a run is writing it" if self.live else "normal after a kill"
            check.notes.append(f"{count(scan.torn, 'byte')} after the last whole record: {why}")
        check.told = f"records {scan.first_n} to {scan.last_n}: {_words(self.table.counts())}"

    # ---------------------------------------------------------------------- comparison

    def _compare_checkpoint(self) -> None:
        """Whether the checkpoint has exactly the results of the journal."""
        check = self.checkpoint
        if self.header is None and not check.problems:
            if self.a_run_has_ended or not self.journal.told:
                check.problem(f"{self.layout.checkpoint} is missing; a resume makes it again")
            else:
                check.notes.append("there is none yet")
        if self.header is None or not self.journal.told:
            return
        if self.finished_then is None and self.first_n > self.header.journal.n:
            check.notes.append("the journal has been written anew since; a resume makes it again")
            return
        if self.finished_then is None:
            check.problem(
                f"the journal has no record {self.header.journal.n}, which the checkpoint was made at"
            )
            return
        for job, (_, part) in self.entries.items():
            recorded = self.parts.get(job)
            if recorded is None:
                check.problem(f"job {job!r} is in the checkpoint, but the journal has no end of it")
            elif recorded != part:
                check.problem(f"job {job!r} has another result, or another end, than in the journal")
        for job in sorted(self.finished_then - self.entries.keys()):
            check.problem(f"job {job!r} is finished in the journal and not in the checkpoint")

    # ---------------------------------------------------------------- progress, final

    def _check_progress(self) -> None:
        check, path = self.progress, self.layout.progress
        try:
            progress = msgspec.json.decode(path.read_bytes(), type=Progress)
        except FileNotFoundError:
            check.notes.append("there is none")
            return
        except (OSError, msgspec.DecodeError) as error:
            check.problem(f"{path} cannot be read: {error}")
            return
        check.told = f"{progress.state}, saved {progress.saved_at}: {_words(progress.counts)}"
        if progress.experiment_id != self.layout.experiment_id:
            check.problem(f"it is of experiment {progress.experiment_id!r}")
        if _sum(progress.counts) != progress.counts.total:
            check.problem("its counts do not add up")
        if self.live or not self.ended_at or progress.state not in OVER or not self.journal.told:
            return
        if progress.saved_at < self.ended_at:
            check.notes.append("it is older than the end of the last run")
        elif not _same_counts(progress.counts, self.table.counts()):
            check.problem(f"the journal says {_words(self.table.counts())}")

    def _check_final(self) -> None:
        check, layout = self.final, self.layout
        if self.live or not self.ended_at:
            why = "a run goes on" if self.live else "the last run was killed"
            check.notes.append(f"not compared: {why}; the end of a run writes them")
            return
        try:
            statistics = msgspec.json.decode(layout.statistics.read_bytes())
            if statistics["saved_at"] < self.ended_at:
                check.notes.append("older than the end of the last run; a resume writes them again")
                return
            with load(layout.directory, layout.experiment_id) as report:
                self._compare_final(report, statistics)
        except FileNotFoundError as error:
            check.problem(f"{error.filename} is missing; a resume writes it again")
        except (OSError, KeyError, TypeError, msgspec.DecodeError, LonghaulError) as error:
            check.problem(f"they cannot be compared: {error}")

    def _compare_final(self, report: Report, statistics: dict[str, Any]) -> None:
        check, path = self.final, self.layout.final
        told = msgspec.convert(statistics["counts"], Counts)
        if not _same_counts(told, report.counts):
            check.problem(
                f"{self.layout.statistics} says {_words(told)}, the journal {_words(report.counts)}"
            )
        jobs = 0
        wanted_lines = _lines(report.final_text())
        for number, (line, wanted) in enumerate(zip_longest(_lines(_pieces(path)), wanted_lines), 1):
            jobs += bool(wanted and wanted[:1] == b"{")
            if line != wanted and not _says_the_same(line, wanted):
                check.problem(f"line {number} of {path} is not what the journal says{_whose(line, wanted)}")
        check.told = f"{count(jobs, 'job')}: {_words(told)}"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a text that comes in pieces, without the commas at their ends."""
    rest = b""
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        yield from (line.removesuffix(b",") for line in lines)
    if rest:
        yield rest


def _says_the_same(line: bytes | None, wanted: bytes | None) -> bool:
    """Whether two lines agree in the keys that both have: another version may have written more or fewer
    keys, in another order.

    The seconds of a job that runs again are not compared. Only the run itself knew them: they are in no
    checkpoint, and a resume does not read the journal before the checkpoint."""
    try:
        one, other = msgspec.json.decode(line or b""), msgspec.json.decode(wanted or b"")
    except msgspec.DecodeError:
        return False
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    must = {"job", "state", "attempts"} | ({"result"} & (one.keys() | other.keys()))
    both = (one.keys() & other.keys()) | must
    if one.get("state") not in ("completed", "failed"):
        both.discard("seconds")
    return all(key in one and key in other and one[key] == other[key] for key in both)


def _whose(line: bytes | None, wanted: bytes | None) -> str:
    for text in (wanted, line):
        try:
            return f" of job {msgspec.json.decode(text or b'')['job']!r}"
        except (msgspec.DecodeError, TypeError, KeyError):
            continue
    return ""


def _sum(counts: Counts) -> int:
    return counts.completed + counts.failed + counts.in_progress + counts.pending


def _same_counts(one: Counts, other: Counts) -> bool:
    return (one.total, one.completed, one.failed) == (other.total, other.completed, other.failed)


def _words(counts: Counts) -> str:
    return f"{counts.completed:,} completed, {counts.failed:,} failed, of {counts.total:,}"
