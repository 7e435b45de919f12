"""The supervisor's side against an agent that the test plays: whose files are kept, and when."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.file_owner import FileOwner
from supervisor.nodes.node_agent import shares_files
from supervisor.nodes.shipping.file_messages import (
    FileBegins,
    FileBytes,
    FileOrder,
    FolderIs,
    LinkIs,
    LogEnds,
    ParcelBegins,
    ParcelEnds,
    ParcelKept,
    ParcelKind,
    Printed,
    StacksWritten,
    Taken,
    ZygotePrinted,
)
from supervisor.nodes.shipping.file_receipt import FileReceipt, NodeFiles
from supervisor.nodes.wire import Lease, Order, Stop
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.layout import Layout
from supervisor.storage.shipped_files import ShippedFiles
from supervisor.system.confined_tree import ConfinedTree
from workers.transport.messages import Completed, Run


class Place:
    """One run with its owners of leases, and what its nodes say."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "out", "exp")
        self.layout.output_directory.mkdir(parents=True)
        self.told: list[str] = []
        self.owners: dict[tuple[int, int], FileOwner] = {}
        self.store = ShippedFiles(self.layout, 1000, self.told.append)
        self.receipt = FileReceipt(self.store, lambda who, lease: self.owners.get((who, lease)))
        self.node: NodeFiles[Order] = NodeFiles(self.receipt)
        self.other: NodeFiles[Order] = NodeFiles(self.receipt)

    def own(self, lease: int, job: str = "j", *, of_use: bool = True, completed: bool = False) -> None:
        """Worker 1 holds this lease."""
        self.owners[1, lease] = FileOwner(job, 1, of_use, completed)

    def send(
        self,
        lease: int,
        files: dict[bytes, bytes],
        *,
        number: int = 1,
        kind: ParcelKind = "artifacts",
        completed: bool = True,
        node: NodeFiles[Order] | None = None,
        to_its_end: bool = True,
    ) -> list[FileOrder]:
        """Send a parcel of worker 1; the answers."""
        node = node or self.node
        node.take(ParcelBegins(number, kind, 1, lease, completed), None)
        for path, data in files.items():
            node.take(FileBegins(number, path, 0o644, 10**18), None)
            node.take(FileBytes(number, data), None)
        if to_its_end:
            node.take(ParcelEnds(number), None)
        return self.answers(node)

    def answers(self, node: NodeFiles[Order] | None = None) -> list[FileOrder]:
        found = (node or self.node).messages(0.0, 0)
        return [order for order in found if not isinstance(order, Taken)]

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.005)

    def content(self) -> dict[str, str]:
        """Files of jobs, by their paths."""
        jobs = self.layout.jobs_directory
        return {str(path.relative_to(jobs)): path.read_text() for path in jobs.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


KEPT = [ParcelKept(1)]
DROPPED = [ParcelKept(1, dropped=True)]


def test_files_are_in_their_place_when_they_are_acknowledged_and_not_before(place: Place) -> None:
    place.own(5)
    assert place.send(5, {b"jobs/a/b": b"data"}, to_its_end=False) == []
    assert place.content() == {}
    place.node.take(ParcelEnds(1, ["sock"]), None)
    assert (place.answers() == KEPT and place.content() == {"a/b": "data"} | {}) or place.content() == {
        "j/a/b": "data"
    }
    assert place.told == [
        "files of j that cannot be taken over from its node were left out: sock (told once)"
    ]


@pytest.mark.parametrize("completed", [True, False])
def test_late_files_of_a_lease_that_is_superseded_are_dropped(place: Place, completed: bool) -> None:
    place.own(9, of_use=True)
    place.send(9, {b"jobs/out": b"of the newer attempt"}, completed=False)
    place.own(5, of_use=False)
    assert place.send(5, {b"jobs/out": b"of the older one"}, completed=False) == DROPPED
    assert place.content() == {"j/out": "of the newer attempt"}
    place.own(9, of_use=True, completed=True)
    place.own(5, of_use=False, completed=True)
    assert place.send(5, {b"jobs/out": b"too late"}, completed=completed) == DROPPED
    assert place.content() == {"j/out": "of the newer attempt"}


def test_the_first_result_counts_with_its_files_whichever_lease_it_has(place: Place) -> None:
    place.own(5, of_use=False)  # was revoked just after it had begun
    place.own(9)
    assert place.send(5, {b"jobs/out": b"first"}) == KEPT
    assert (
        place.send(9, {b"jobs/out": b"second"}, node=place.other) == []
    )  # it waits for the outcome of the first
    place.node.on_event(facts.JobsFinished(1, [Completed(5, 1.0, b"1")]), 0)
    place.own(9, completed=True)
    assert place.answers(place.other) == DROPPED
    assert place.content() == {"j/out": "first"}


def test_a_result_that_is_lost_with_its_node_makes_room_for_the_next(place: Place) -> None:
    place.own(5)
    place.own(9)
    place.send(5, {b"jobs/out": b"first"})
    assert place.send(9, {b"jobs/out": b"second"}, node=place.other) == []
    place.node.close()
    assert place.answers(place.other) == KEPT and place.content() == {"j/out": "second"}


def test_what_is_cut_off_leaves_nothing(place: Place) -> None:
    place.own(5)
    place.send(5, {b"jobs/out": b"half"}, to_its_end=False)
    assert len(list(place.layout.from_nodes.iterdir())) == 1
    place.node.close()
    assert list(place.layout.from_nodes.iterdir()) == [] and place.content() == {}
    place.store.close()
    assert not place.layout.from_nodes.exists()


@pytest.mark.parametrize(
    "path",
    [
        b"jobs/../k/of another job",
        b"logs/journal",
        b"jobs",
        b"jobs/../../x",
        b"output/j.log",
        b"states/k.json",
        b"states/j.json/x",
    ],
)
@pytest.mark.parametrize("kind", ["artifacts", "state"])
def test_a_node_writes_nowhere_but_into_the_directory_of_the_job(
    place: Place, path: bytes, kind: ParcelKind
) -> None:
    place.own(5)
    (place.layout.jobs_directory / "k").mkdir(parents=True)
    before = sorted(place.layout.directory.rglob("*"))
    answers = place.send(5, {path: b"evil"}, kind=kind)
    place.until(lambda: answers or answers.extend(place.answers()))
    (answer,) = answers
    assert isinstance(answer, ParcelKept) and answer.problem and not answer.again
    place.store.close()
    written = [path for path in place.layout.directory.rglob("*") if path not in before]
    assert [path for path in written if path.is_file()] == []


def test_a_link_out_of_the_directory_of_the_job_is_refused(place: Place) -> None:
    place.own(5)
    place.node.take(ParcelBegins(1, "artifacts", 1, 5, True), None)
    place.node.take(LinkIs(1, b"jobs/link", b"../states"), None)
    (answer,) = place.answers()
    assert isinstance(answer, ParcelKept) and "cannot hold a link" in answer.problem


def noting(method: Callable[..., object], done: list[str], name: str) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        done.append(name)
        return method(*arguments)

    return call


def test_a_state_is_there_with_its_artifacts_when_it_is_acknowledged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    place.layout.states_directory.mkdir()  # else its parents are synced as well
    for kind, name in ((ConfinedTree, "sync"), (Disk, "rename"), (Disk, "sync_directory")):
        monkeypatch.setattr(kind, name, noting(getattr(kind, name), done, name))
    place.own(5)
    assert not place.store.has_states() and place.store.states_of("j") == []
    answers = place.send(5, {b"states/j~.json": b"{}", b"jobs/step1": b"one"}, kind="state", completed=False)
    assert place.node.next_deadline(0) is not None or answers
    place.until(lambda: answers or answers.extend(place.answers()))
    assert answers == KEPT and place.content() == {"j/step1": "one"}
    assert done == ["sync", "rename", "sync_directory"]
    assert place.store.states_of("j") == ["j~.json"] and place.store.has_states()
    assert (place.layout.states_directory / "j~.json").read_text() == "{}"
    place.own(4, of_use=False)
    assert place.send(4, {b"states/j~.json": b"older"}, kind="state", completed=False) == DROPPED
    assert (place.layout.states_directory / "j~.json").read_text() == "{}"


def test_a_node_shares_the_files_if_it_sees_the_token_of_this_run(place: Place, tmp_path: Path) -> None:
    token = place.store.make_token()
    assert shares_files("auto", token) and not shares_files("ship", token)
    assert not shares_files("auto", "") and shares_files("shared", "")
    other = tmp_path / Path(token).name
    other.write_text("of another machine")
    assert not shares_files("auto", str(other))
    place.store.close()
    assert not shares_files("auto", token)


def test_a_full_disk_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.own(5)

    def refuse(self: ConfinedTree, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    with monkeypatch.context() as patch:
        patch.setattr(ConfinedTree, "write", refuse)
        (answer,) = place.send(5, {b"jobs/out": b"data"})
    assert isinstance(answer, ParcelKept) and answer.again
    assert place.send(5, {b"jobs/out": b"data"}) == KEPT and place.content() == {"j/out": "data"}


def test_output_of_a_lease_that_nobody_knows_is_dropped(place: Place) -> None:
    place.own(5)
    for lease in (5, 6):
        place.node.take(Printed(1, 0, b"of %d" % lease), 3)
        place.node.take(LogEnds(1, lease, 1), 3)
    place.node.take(Printed(2, 0, b"of no worker"), None)
    assert {path.name: path.read_text() for path in place.layout.output_directory.iterdir()} == {
        "j.log": "of 5"
    }


def test_what_a_zygote_has_printed_is_kept(place: Place) -> None:
    for text in (b"one\n", b"two\n"):
        place.node.take(ZygotePrinted(text), None)
    assert (place.layout.output_directory / "%zygote.log").read_text() == "one\ntwo\n"


def test_stacks_end_with_their_worker(place: Place) -> None:
    place.node.take(StacksWritten(1, b"one"), 3)
    place.node.take(StacksWritten(1, b"two"), 3)
    (path,) = place.layout.output_directory.iterdir()
    assert path.name == ".worker3-1.stacks" and path.read_text() == "onetwo"
    (died,) = place.node.on_event(facts.WorkerDied(1, log="/of/the/node"), 3)
    assert isinstance(died, facts.WorkerDied)
    assert died.log == str(place.layout.output_directory / "%worker3.log")
    assert list(place.layout.output_directory.iterdir()) == []


# -------------------------------------------------------------------------- down


def lease_of(*jobs: str, attempt: int = 1) -> Lease:
    lines = b"\n".join(b'{"id":"%s"}' % job.encode() for job in jobs)
    return Lease(1, Run(5, [attempt] * len(jobs), lines))


def test_a_lease_waits_for_the_states_of_its_jobs_and_orders_behind_it_wait_too(place: Place) -> None:
    place.layout.states_directory.mkdir(parents=True)
    (place.layout.states_directory / "k.json").write_text("{state}")
    (place.layout.jobs_directory / "k").mkdir(parents=True)
    (place.layout.jobs_directory / "k" / "file").write_text("artifact")
    node, first, second = place.node, lease_of("a"), lease_of("b", "k")
    assert not node.lease(1, first.run, first) and not node.queue(1, Stop(1))
    assert node.lease(1, second.run, second) and node.queue(1, Stop(1))
    assert not node.queue(2, Stop(2))  # another worker
    parts = place.answers()
    paths = [part.path for part in parts if isinstance(part, FileBegins | FolderIs)]
    assert paths == [b"states/k.json", b"jobs", b"jobs/file"]
    assert node.orders() == []
    (begin,) = [part for part in parts if isinstance(part, ParcelBegins)]
    assert (begin.kind, begin.incarnation, begin.lease, begin.name) == ("state", 1, 6, "k")
    node.take(ParcelKept(begin.number), None)
    assert node.orders() == [second, Stop(1)] and not node.queue(1, Stop(1))


def test_only_later_attempts_are_sent_files_without_a_state(place: Place) -> None:
    (place.layout.jobs_directory / "k").mkdir(parents=True)
    first, later = lease_of("k"), lease_of("k", attempt=2)
    assert not place.node.lease(1, first.run, first)
    assert place.node.lease(1, later.run, later)


def test_a_worker_that_dies_before_its_lease_was_sent_did_not_run_it(place: Place) -> None:
    (place.layout.jobs_directory / "k").mkdir(parents=True)
    later = lease_of("k", attempt=2)
    place.node.lease(1, later.run, later)
    died = facts.WorkerDied(1, signal=9)
    assert place.node.on_event(died, 0) == [facts.LeasesDropped(1, [5]), died]
    assert place.node.orders() == []


def test_outcomes_that_are_held_are_known_until_they_come(place: Place) -> None:
    place.node.on_event(facts.OutcomesHeld(1, [5, 6]), 0)
    outcome = facts.JobsFinished(1, [Completed(5, 1.0, b"1")])
    assert place.node.holds(outcome) and place.node.held == {5: 1, 6: 1}
    assert place.node.on_event(outcome, None) == [outcome]
    assert not place.node.holds(outcome) and place.node.held == {6: 1}
