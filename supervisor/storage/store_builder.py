"""Makes the parts of a store: for a new experiment, an earlier one, or one that is not kept.

Everything that can be refused is refused before anything is written.
"""

from __future__ import annotations

import os
import uuid
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.core.state.columns import indices_of
from supervisor.core.state.job_table import JobTable
from supervisor.core.state.run_history import RunHistory
from supervisor.core.state.statistics import Statistics
from supervisor.core.terms.errors import CannotCreate, StorageError, UsageError
from supervisor.core.terms.jobs import INTERRUPTED
from supervisor.core.terms.position import InProgress, Position
from supervisor.storage.files.atomic_files import resolved, unnamed_file
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.files.lock import Lock
from supervisor.storage.files.sync import Syncer
from supervisor.storage.journal.journal_file import Identity, JournalFile
from supervisor.storage.journal.journal_format import encode_batch
from supervisor.storage.plan.plan_builder import PlanBuilder
from supervisor.storage.plan.plan_diff import Comparison, compare
from supervisor.storage.plan.plan_file import PlanFile

if TYPE_CHECKING:
    from supervisor.storage.recovery.recovered_experiment import Recovered

NewSyncer = Callable[[Disk, int, int, int], Syncer]  # disk, descriptor, synced up to, wake


def new_syncer(disk: Disk, fd: int, synced: int, wake: int) -> Syncer:
    return Syncer(disk, fd, synced=synced, wake=wake)


class StoreParts(msgspec.Struct, kw_only=True):
    """What a store is made of.

    offsets, lengths: of the records of finished jobs in the journal, by job number.
    intact: nothing is written any more, and the whole journal was verified.
    """

    disk: Disk
    layout: Layout
    journal: JournalFile
    plan: PlanFile
    table: JobTable
    statistics: Statistics
    history: RunHistory
    offsets: Any  # array("Q")
    lengths: Any  # array("I")
    lock: Lock
    settings: dict[str, Any]
    options: dict[str, Any]
    new_syncer: NewSyncer
    ephemeral: bool = False
    intact: bool = False


# ------------------------------------------------------------------------------- create


def new(
    disk: Disk,
    layout: Layout,
    *,
    name: str,
    builder: PlanBuilder,
    table: JobTable,
    lock: Lock,
    settings: dict[str, Any],
    options: dict[str, Any],
    ephemeral: bool,
    syncer: NewSyncer,
) -> StoreParts:
    """See `Store.create`."""
    journal, plan = _make_files(disk, layout, name, builder, ephemeral=ephemeral)
    if not len(table):
        builder.fill(table)
    builder.close()
    if not ephemeral:
        plan.write_columns(layout.columns, table)
    return StoreParts(
        disk=disk,
        layout=layout,
        journal=journal,
        plan=plan,
        table=table,
        statistics=Statistics(),
        history=RunHistory(),
        offsets=array("Q", bytes(8 * len(table))),
        lengths=array("I", bytes(array("I").itemsize * len(table))),
        lock=lock,
        settings=settings,
        options=options,
        new_syncer=syncer,
        ephemeral=ephemeral,
    )


def _make_files(
    disk: Disk, layout: Layout, name: str, builder: PlanBuilder, *, ephemeral: bool
) -> tuple[JournalFile, PlanFile]:
    """Journal and plan of a new experiment, synced.

    Raises UsageError if the experiment exists, CannotCreate if the files cannot be made.
    """
    identity = Identity(layout.experiment_id, name, str(uuid.uuid4()), 1)
    try:
        if ephemeral:
            return _unnamed(disk, layout, identity, builder)
        if _exists(disk, layout):
            raise FileExistsError
        disk.make_directory(str(layout.logs))
        plan = PlanFile.create(disk, layout.plan, builder)
        return JournalFile.create(disk, resolved(layout.journal), identity), plan
    except FileExistsError:
        raise UsageError(
            f"experiment {layout.experiment_id} exists already in {layout.logs}. Go on with it by "
            f"--resume {layout.experiment_id}, or choose another --experiment-id."
        ) from None
    except OSError as error:
        raise CannotCreate(
            f"the files of the experiment cannot be created in {layout.directory}: {error.strerror or error}. "
            f"Choose another place with --output DIR."
        ) from None


def _exists(disk: Disk, layout: Layout) -> bool:
    return disk.exists(str(layout.journal)) or disk.exists(str(layout.checkpoint))


def _unnamed(
    disk: Disk, layout: Layout, identity: Identity, builder: PlanBuilder
) -> tuple[JournalFile, PlanFile]:
    disk.make_directory(str(layout.directory))
    place = str(layout.directory)
    fd = unnamed_file(layout.directory)
    line, _ = encode_batch(1, [identity.opened()], identity.seed)
    os.write(fd, line)
    journal = JournalFile(
        disk, f"a temporary file in {place}", fd, identity, size=len(line), next_n=2, durable=False
    )
    return journal, PlanFile.unnamed(disk, layout.directory, builder)


# --------------------------------------------------------------------------------- open


def update_plan(
    found: Recovered, builder: PlanBuilder | None, comparison: Comparison | None, *, keep_params: bool
) -> None:
    """Update table and plan file to the script's plan; synced. Raises StorageError."""
    if builder is None:
        if found.plan is None:
            raise StorageError(
                f"the plan {found.layout.plan} is missing; resume with the script that made it"
            )
        return
    table = found.table
    comparison = comparison or compare(found.plan, table, builder)
    whole = found.plan is not None and not found.plan.damaged
    news = [*comparison.new, *comparison.returned, *comparison.relabelled]
    for job_id in news if whole else builder.domains:
        table.add(job_id, builder.domains[job_id])
    for job_id in comparison.gone:
        table.wanted[table.numbers[job_id]] = 0
    builder.set_own_settings(table)
    try:
        found.plan = _write_plan(found, builder, comparison, keep_params=keep_params)
    except OSError as error:
        raise StorageError(
            f"the plan {found.layout.plan} cannot be written: {error.strerror or error}. "
            f"No result was touched; fix the disk, then resume."
        ) from None
    builder.close()


def _write_plan(
    found: Recovered, builder: PlanBuilder, comparison: Comparison, *, keep_params: bool
) -> PlanFile:
    plan, table = found.plan, found.table
    if plan is None or plan.damaged:
        plan = plan or PlanFile(found.disk, resolved(found.layout.plan), -1)
        plan.rebuild(builder, table)
        return plan
    wanted = {*comparison.new, *comparison.returned, *comparison.relabelled}
    if not keep_params:
        wanted.update(change.id for change in comparison.changed)

    def lines() -> Iterator[tuple[int, bytes]]:
        if not wanted:
            return
        for job_id, line in zip(builder.domains, builder.lines(), strict=True):
            if job_id in wanted:
                yield table.numbers[job_id], line

    if wanted or comparison.gone or plan.torn is not None:
        plan.extend(lines(), comparison.gone)
    return plan


def earlier(
    layout: Layout,
    found: Recovered,
    *,
    lock: Lock,
    settings: dict[str, Any],
    options: dict[str, Any],
    syncer: NewSyncer,
) -> tuple[StoreParts, list[str]]:
    """Repair damage and take the plan over; the parts, and notices for the user."""
    from supervisor.storage.recovery.repair import repair

    try:
        journal, notices = repair(found)
    except OSError as error:
        raise StorageError(
            f"the files of {layout.experiment_id} in {layout.logs} cannot be repaired: "
            f"{error.strerror or error}. Nothing is lost; free disk space or fix the disk, then resume."
        ) from None
    plan, found.plan = found.plan, None
    assert plan is not None
    plan.write_columns(layout.columns, found.table)
    jobs = len(found.table)
    found.locations.grow(jobs)
    parts = StoreParts(
        disk=found.disk,
        layout=layout,
        journal=journal,
        plan=plan,
        table=found.table,
        statistics=found.statistics,
        history=found.history,
        offsets=found.locations.offset[:jobs],
        lengths=found.locations.length[:jobs],
        lock=lock,
        settings=settings,
        options=options,
        new_syncer=syncer,
    )
    return parts, notices


def position_of(found: Recovered) -> Position:
    """Where an earlier run stopped, before the core closes the leases that it left open."""
    table = found.table
    position = found.history.position()
    position.in_progress = [
        InProgress(job, table.attempts[job], None, "")
        for job in indices_of(table.state, INTERRUPTED)
        if table.wanted[job]
    ]
    position.open_leases = [
        (incarnation, lease, job)
        for incarnation, leases in table.open_leases.items()
        for lease, job in leases.items()
    ]
    return position
