"""A small experiment on a disk, driven as the core and the loop would drive it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from supervisor.core.state.job_table import JobTable
from supervisor.core.terms.code_spans import CodeSpan
from supervisor.core.terms.jobs import COMPLETED, FAILED, INTERRUPTED, LEASED, PENDING
from supervisor.core.terms.position import InProgress, Position
from supervisor.core.terms.records import (
    Ended,
    Leased,
    Noted,
    RunEnded,
    RunStarted,
    WorkerEnded,
    WorkerStarted,
)
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.files.sync import Syncer
from supervisor.storage.journal.journal_format import decode_record
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.recovery.recovered_experiment import Recovered
from supervisor.storage.recovery.survey import survey
from supervisor.storage.store import Store
from supervisor.storage.store_builder import new_syncer

AT = "2025-10-14T21:00:00.000Z"
STATES = {"completed": COMPLETED, "failed": FAILED, "pending": PENDING, "in_progress": INTERRUPTED}


class SteppedSyncer(Syncer):
    """Syncs when the test says so, in the test's own thread."""

    def _start(self) -> None:
        pass

    def step(self) -> None:
        tasks = list(self._tasks)
        self._tasks.clear()
        if self._written > self.synced or tasks:
            self._sync(self._written)
        for task in tasks:
            self._perform(task)

    def close(self, timeout: float) -> bool:
        return True


def stepped(disk: Disk, fd: int, synced: int, wake: int) -> Syncer:
    return SteppedSyncer(disk, fd, synced=synced, wake=wake)


def plan_of(ids: list[str], **params: Any) -> PlanBuilder:
    builder = PlanBuilder()
    for job_id in ids:
        domain = job_id.partition("/")[0] if "/" in job_id else None
        builder.add(job_id, domain, msgspec.json.encode({"name": job_id, **params}))
    return builder


class Made:
    """One run on an experiment. `disk` None: the real one, with its own sync thread."""

    def __init__(self, directory: Path, disk: Disk | None = None, *, threads: bool = False) -> None:
        self.layout = Layout(directory, "e1")
        self.disk = disk or Disk()
        self.syncer = new_syncer if threads else stepped
        self.lock = Lock.none()
        self.open: dict[int, dict[int, int]] = {}
        self.lease = 1
        self.run = 1
        self.codes: list[CodeSpan] = []  # of the run that is started next

    def create(self, ids: list[str], **options: Any) -> Made:
        self.disk.make_directory(str(self.layout.logs))
        self.store = Store.create(
            self.layout,
            name="made",
            plan=plan_of(ids),
            table=JobTable(),
            lock=self.lock,
            settings={"workers": 2},
            options={"size": 3},
            disk=self.disk,
            syncer=self.syncer,
            **options,
        )
        self._start()
        return self

    def resume(self, builder: PlanBuilder | None = None, **options: Any) -> Made:
        found = survey(self.layout, self.disk)
        self.findings = found.findings
        position = found.history.position()
        self.run = position.run + 1
        self.lease = position.next_lease
        incarnation = position.next_incarnation
        self.store = Store.open(
            self.layout,
            found,
            builder,
            lock=self.lock,
            settings=found.settings,
            options=found.options,
            syncer=self.syncer,
            **options,
        )
        self.store.table.open_leases.clear()
        self._start(incarnation)
        return self

    def _start(self, incarnation: int = 1) -> None:
        self.incarnation = incarnation
        self.open[incarnation] = {}
        self.store.append(
            [
                RunStarted(self.run, AT, {"workers": 2}, {"size": 3}, pid=7, host="here", codes=self.codes),
                WorkerStarted(0, incarnation, 4242, AT, 12.5),
            ]
        )

    # ------------------------------------------------------------------- what happens

    def hand_out(self, *ids: str) -> None:
        table = self.store.table
        self.store.append([Leased(0, self.incarnation, self.lease, list(ids), AT)])
        for job_id in ids:
            self.open[self.incarnation][self.lease] = table.numbers[job_id]
            table.state[table.numbers[job_id]] = LEASED
            self.lease += 1

    def end(self, *ids: str, outcome: str = "completed", state: str = "", result: bytes = b"") -> None:
        """Attempts that end; by default all of them complete with a result of their own."""
        table = self.store.table
        records = []
        for job_id in ids:
            job = table.numbers[job_id]
            leases = self.open[self.incarnation]
            lease = next((lease for lease, leased in leases.items() if leased == job), self.lease)
            leases.pop(lease, None)
            self.lease = max(self.lease, lease + 1)
            table.attempts[job] += 1
            table.seconds[job] = 0.25
            after = state or ("completed" if outcome == "completed" else "failed")
            table.state[job] = STATES[after]
            if outcome != "completed":
                table.charge(job, outcome)
                table.outcome[job] = outcome
            record = Ended(job_id, table.attempts[job], lease, outcome, after, 0.25, 0, AT)
            if outcome == "completed":
                record.result = msgspec.Raw(result or result_of(job_id))
            else:
                record.error = {"outcome": outcome, "type": "ValueError", "message": "no", "traceback": "..."}
            records.append(record)
        self.store.append(records)

    def note(self, text: str) -> None:
        self.store.append([Noted(text, AT)])

    def sync(self) -> None:
        syncer = self.store._syncer
        assert isinstance(syncer, SteppedSyncer)
        syncer.step()

    def position(self) -> Position:
        table = self.store.table
        running = [next(iter(leases.values())) for leases in self.open.values() if leases]
        at_work = [InProgress(job, table.attempts[job] + 1, 0, AT) for job in running]
        cut = [
            InProgress(job, table.attempts[job], None, "")
            for job, state in enumerate(table.state)
            if state == INTERRUPTED
        ]
        leases = [(who, lease, job) for who, found in self.open.items() for lease, job in found.items()]
        return Position(self.run, self.lease, self.incarnation + 1, at_work + cut, leases)

    def checkpoint(self) -> None:
        self.store._checkpoints.write(self.position())

    def die(self) -> None:
        """The supervisor is killed: files stay as they are."""
        self.store.release()

    def __del__(self) -> None:
        if hasattr(self, "store"):
            self.store.release()  # many a test leaves its run as a power cut would

    def finish(self) -> None:
        for incarnation in self.open:
            self.store.append([WorkerEnded(0, incarnation, "finished", AT)])
        self.store.append([RunEnded(self.run, "finished", AT)])
        self.store.close(self.position())


def result_of(job_id: str) -> bytes:
    return json.dumps({"of": job_id, "x": 1.5}).encode()


def record_of(store: Store, job: int) -> Ended:
    """The record of a finished job, also while it waits in memory; KeyError for any other job."""
    if store.table.state[job] not in (COMPLETED, FAILED):
        raise KeyError(store.table.ids[job])
    journal = store.parts.journal
    offset, length = store.parts.offsets[job], store.parts.lengths[job] - 1
    line = journal.disk.pread(journal.fd, length, offset)
    for batch in journal._batches:
        start = batch.end - len(batch.data)
        if max(start, journal._written) <= offset < batch.end:
            line = batch.data[offset - start : offset - start + length]
    record = decode_record(line)
    assert isinstance(record, Ended)
    return record


def completed(found: Recovered) -> dict[str, Any]:
    """Result by id of every completed job, read back from wherever it is."""
    table = found.table
    jobs = [job for job, state in enumerate(table.state) if state == COMPLETED]
    parts = found.parts(jobs)
    return {
        table.ids[job]: json.loads(b"{%b}" % part)["result"] for job, part in zip(jobs, parts, strict=True)
    }


def expected(ids: list[str]) -> dict[str, Any]:
    return {job_id: json.loads(result_of(job_id)) for job_id in ids}
