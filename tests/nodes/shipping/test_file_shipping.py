"""The agent's side: what is told when, while files are on their way. The test plays the engine, the workers and the
supervisor."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.nodes.shipping.file_messages import (
    FILE_REPORTS,
    WINDOW,
    FileBegins,
    FileBytes,
    LogEnds,
    ParcelBegins,
    ParcelEnds,
    ParcelKept,
    Printed,
    StacksWritten,
    Taken,
    ZygotePrinted,
    cost_of,
)
from supervisor.nodes.shipping.file_shipping import DEATH_WAITS, TICK, FileShipping, Said
from workers.isolation.output_files import collect, move, scratch_path, stacks_path, stray_path
from workers.transport.messages import (
    Completed,
    CompletedWith,
    Failed,
    Failure,
    FunctionSpec,
    Run,
    WorkerSpec,
)

LIMIT = 10_000_000


class Agent:
    """Worker 1 of a node, with leases from 1 on."""

    def __init__(self) -> None:
        self.shipping = FileShipping()
        self.now = 100.0
        spec = WorkerSpec(
            experiment_id="test",
            tag="test:1",
            worker=3,
            incarnation=1,
            function=FunctionSpec("os", "getpid"),
            setup=None,
            seed=1,
            output_directory="of the supervisor",
            jobs_directory="of the supervisor",
            states_directory="of the supervisor",
        )
        self.spec = self.shipping.spec_for(spec)
        for directory in (self.spec.output_directory, self.spec.jobs_directory, self.spec.states_directory):
            assert directory.startswith(tempfile.gettempdir())
            Path(directory).mkdir(parents=True)
        lines = b"\n".join(json.dumps({"id": f"job{lease}"}).encode() for lease in range(1, 10))
        self.shipping.leased(1, Run(1, [1] * 9, lines))
        self.tell(facts.WorkerReady(1))

    def tell(self, *events: Event, after: float = 0.0, acknowledge: bool = True) -> list[Said]:
        self.now += after
        said = self.shipping.tell(events, self.now, 0)
        if acknowledge:
            for each in said:
                if isinstance(each, FILE_REPORTS) and not isinstance(each, ParcelKept | Taken):
                    self.shipping.obey(Taken(cost_of(each)))
        return said

    def print(self, data: bytes) -> None:
        with open(scratch_path(self.spec.output_directory, 3, 1), "ab") as file:
            file.write(data)

    def log_of(self, job: str) -> int:
        scratch = scratch_path(self.spec.output_directory, 3, 1)
        return collect(scratch, self.spec.output_directory, job, 1, LIMIT)

    def artifact(self, job: str, name: str = "data", data: bytes = b"data") -> Path:
        folder = Path(self.spec.jobs_directory) / job
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return folder

    def state(self, job: str, text: str = "{}") -> None:
        """As `save` puts it."""
        path = Path(self.spec.states_directory) / f"{job}.json"
        path.with_suffix(".tmp").write_text(text)
        path.with_suffix(".tmp").rename(path)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    played = Agent()
    yield played
    played.shipping.close()
    assert list(tmp_path.iterdir()) == []


def done(*leases: int, output: int = 0) -> facts.JobsFinished:
    make = (lambda n: CompletedWith(n, 1.0, b"1", output)) if output else (lambda n: Completed(n, 1.0, b"1"))
    return facts.JobsFinished(1, [make(lease) for lease in leases])


def failed(lease: int) -> facts.JobsFinished:
    return facts.JobsFinished(1, [Failed(lease, 1.0, "raised", Failure("ValueError", "no"))])


def kinds(said: list[Said]) -> list[type]:
    return [type(each) for each in said]


def parcel_in(said: list[Said]) -> ParcelBegins:
    (found,) = [each for each in said if isinstance(each, ParcelBegins)]
    return found


def events_in(said: list[Said]) -> list[Said]:
    return [each for each in said if not isinstance(each, FILE_REPORTS)]


def test_outcomes_without_files_pass_at_once_and_together(agent: Agent) -> None:
    event = done(1, 2, 3)
    assert agent.tell(event) == [event]


def test_output_goes_before_the_outcome_of_its_job(agent: Agent) -> None:
    agent.print(b"one")
    assert agent.tell(after=TICK) == [Printed(1, 0, b"one")]
    agent.print(b" two")
    event = done(1, output=agent.log_of("job1"))
    assert agent.tell(event) == [Printed(1, 3, b" two"), LogEnds(1, 1, 1), event]


def test_artifacts_hold_back_their_own_outcome_alone(agent: Agent) -> None:
    folder = agent.artifact("job2")
    said = agent.tell(done(1, 2, 3))
    assert events_in(said) == [done(1), facts.OutcomesHeld(1, [2]), done(3)]
    parcel = parcel_in(said)
    assert (parcel.kind, parcel.lease, parcel.completed) == ("artifacts", 2, True)
    assert agent.tell(done(4), after=100 * TICK) == [done(4)]
    assert folder.exists()
    agent.shipping.obey(ParcelKept(parcel.number))
    assert agent.tell() == [done(2)] and not folder.exists()


def test_a_result_without_its_files_is_none(agent: Agent) -> None:
    agent.artifact("job1")
    parcel = parcel_in(agent.tell(done(1)))
    agent.shipping.obey(ParcelKept(parcel.number, "Permission denied: x"))
    ((event),) = agent.tell()
    assert isinstance(event, facts.JobsFinished)
    (outcome,) = event.outcomes
    assert isinstance(outcome, Failed) and (outcome.lease, outcome.outcome) == (1, "raised")
    assert outcome.failure.message == "the files of the job could not be kept: Permission denied: x"


def test_no_more_than_the_window_is_read_of_a_large_file(agent: Agent) -> None:
    agent.artifact("job1", data=bytes(3 * WINDOW))
    sent = 0
    said = agent.tell(done(1), acknowledge=False)
    while parts := [each for each in said if isinstance(each, FileBytes)]:
        sent += sum(len(part.data) for part in parts)
        said = agent.tell(acknowledge=False)
    assert WINDOW * 0.9 < sent <= WINDOW + (64 << 10)
    assert agent.tell(done(2), acknowledge=False) == [done(2)]


def test_output_waits_for_acknowledgements_and_holds_back_the_outcome_of_its_job(agent: Agent) -> None:
    agent.print(bytes(2 * WINDOW))
    said = agent.tell(done(1, output=agent.log_of("job1")), acknowledge=False)
    assert events_in(said) == [facts.OutcomesHeld(1, [1])]
    while more := agent.tell(acknowledge=False):
        said += more
    sent = sum(len(each.data) for each in said if isinstance(each, Printed))
    assert WINDOW * 0.9 < sent <= WINDOW
    agent.shipping.obey(Taken(sum(cost_of(each) for each in said if isinstance(each, Printed))))
    while events_in(said := agent.tell()) == []:
        assert said
    assert said[-2:] == [LogEnds(1, 1, 1), done(1, output=2 * WINDOW)]


def test_a_state_goes_while_the_job_runs_and_with_it_the_files_that_it_names(agent: Agent) -> None:
    agent.artifact("job1", "step1")
    agent.state("job1", '{"save":1}')
    said = agent.tell(after=TICK)
    parcel = parcel_in(said)
    assert (parcel.kind, parcel.lease, parcel.completed) == ("state", 1, False)
    assert [each.path for each in said if isinstance(each, FileBegins)] == [
        b"states/job1.json",
        b"jobs/step1",
    ]
    agent.state("job1", '{"save":2}')
    assert agent.tell(after=TICK) == []  # one at a time, or an earlier one might come later
    agent.shipping.obey(ParcelKept(parcel.number))
    said = agent.tell(after=TICK)
    assert b'{"save":2}' in [each.data for each in said if isinstance(each, FileBytes)]
    agent.shipping.obey(ParcelKept(parcel_in(said).number))
    assert agent.tell(after=TICK) == []


def test_the_last_state_goes_before_a_failure_is_told(agent: Agent) -> None:
    agent.state("job1", '{"save":1}')
    first = parcel_in(agent.tell(after=TICK))
    agent.state("job1", '{"save":2}')
    assert events_in(agent.tell(failed(1))) == [facts.OutcomesHeld(1, [1])]
    agent.shipping.obey(ParcelKept(first.number))
    said = agent.tell()
    if not [each for each in said if isinstance(each, ParcelBegins)]:
        said = agent.tell()
    assert events_in(said) == []
    agent.shipping.obey(ParcelKept(parcel_in(said).number))
    assert agent.tell() == [failed(1)]


def test_files_of_a_failed_job_go_once_with_its_state_or_without(agent: Agent) -> None:
    agent.artifact("job1")
    agent.state("job1", '{"save":1}')
    said = agent.tell(failed(1))
    assert parcel_in(said).kind == "state"
    assert [each.path for each in said if isinstance(each, FileBegins)] == [b"states/job1.json", b"jobs/data"]
    agent.shipping.obey(ParcelKept(parcel_in(said).number))
    assert agent.tell() == [failed(1)]
    agent.artifact("job2")
    assert parcel_in(agent.tell(failed(2))).kind == "artifacts"


def test_what_a_job_writes_after_its_last_state_goes_when_it_fails(agent: Agent) -> None:
    agent.artifact("job1", "step1")
    agent.state("job1", '{"save":1}')
    state = parcel_in(agent.tell(after=TICK))
    agent.artifact("job1", "later")
    said = agent.tell(failed(1))
    rest = parcel_in(said)
    assert rest.kind == "artifacts"
    assert b"jobs/later" in [each.path for each in said if isinstance(each, FileBegins)]
    for number in (state.number, rest.number):
        assert failed(1) not in agent.tell()
        agent.shipping.obey(ParcelKept(number))
    assert agent.tell() == [failed(1)]


def test_a_completed_job_needs_its_states_no_longer(agent: Agent) -> None:
    agent.state("job1")
    assert agent.tell(done(1)) == [done(1)]
    assert list(Path(agent.spec.states_directory).iterdir()) == []


def test_a_death_is_told_after_the_files_of_its_job_and_after_a_while_anyway(agent: Agent) -> None:
    agent.print(b"last words")
    agent.artifact("job1")
    died = facts.WorkerDied(1, signal=11, output_bytes=agent.log_of("job1"))
    said = agent.tell(died)
    assert events_in(said) == [] and LogEnds(1, 1, 1) in said
    assert parcel_in(said).completed is False
    assert agent.tell(after=DEATH_WAITS - 1) == []
    assert agent.tell(after=1.0) == [died]
    assert not Path(agent.spec.output_directory).exists()


def test_a_dead_worker_and_a_held_outcome_do_not_wait_for_each_other(agent: Agent) -> None:
    agent.artifact("job1")
    parcel = parcel_in(agent.tell(done(1)))
    died = facts.WorkerDied(1, exit_code=0)
    assert agent.tell(died) == [died]
    assert Path(agent.spec.jobs_directory).exists()
    agent.shipping.obey(ParcelKept(parcel.number))
    assert agent.tell() == [done(1)]
    assert not Path(agent.spec.jobs_directory).exists()


def test_what_set_up_has_printed_is_of_no_job(agent: Agent) -> None:
    agent.print(b"set up")
    scratch = scratch_path(agent.spec.output_directory, 3, 1)
    move(scratch, stray_path(agent.spec.output_directory, 3), "", LIMIT)
    ready = facts.WorkerReady(1)
    assert agent.tell(ready) == [Printed(1, 0, b"set up"), LogEnds(1, -1, 0), ready]


def test_why_no_worker_can_be_forked_is_told_with_the_place_where_it_can_be_read(agent: Agent) -> None:
    base = agent.shipping.spec_for(replace(agent.spec, incarnation=0, output_directory="/there/output"))
    log = Path(base.output_directory) / "%zygote.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"why it died\n")
    agent.shipping.spec_for(replace(agent.spec, incarnation=2))
    failed = facts.WorkerStartFailed(2, f"it was lost; what it has printed is in {log}")
    assert agent.tell(failed) == [
        ZygotePrinted(b"why it died\n"),
        facts.WorkerStartFailed(2, "it was lost; what it has printed is in /there/output/%zygote.log"),
    ]
    with log.open("ab") as file:
        file.write(b"more")
    assert agent.shipping.words_of_zygotes() == [ZygotePrinted(b"more")]


def test_stacks_are_sent_when_they_were_asked_for(agent: Agent) -> None:
    path = Path(stacks_path(agent.spec.output_directory, 3, 1))
    path.write_bytes(b"stack 1\n")
    assert agent.tell(after=TICK) == []
    agent.shipping.asked_for_stacks(1)
    assert agent.tell() == [StacksWritten(1, b"stack 1\n")]
    with path.open("ab") as file:
        file.write(b"stack 2\n")
    assert agent.shipping.next_deadline(0) == pytest.approx(agent.now + 0.02)
    assert agent.tell() == [StacksWritten(1, b"stack 2\n")]


def test_what_comes_from_the_supervisor_is_there_before_the_lease_and_not_sent_back(agent: Agent) -> None:
    for part in (
        ParcelBegins(1, "state", 1, 5, name="job5"),
        FileBegins(1, b"states/job5.json", 0o644, 10**18),
        FileBytes(1, b'{"save":7}'),
        FileBegins(1, b"jobs/step7", 0o640, 10**18),
        FileBytes(1, b"seven"),
        ParcelEnds(1),
    ):
        agent.shipping.obey(part)
    said = agent.tell()
    assert ParcelKept(1) in said and any(isinstance(each, Taken) for each in said)
    assert (Path(agent.spec.states_directory) / "job5.json").read_text() == '{"save":7}'
    assert (Path(agent.spec.jobs_directory) / "job5" / "step7").read_text() == "seven"
    agent.tell(done(1, 2, 3, 4))
    agent.artifact("job5", "new")
    said = agent.tell(failed(5))
    assert parcel_in(said).kind == "artifacts"
    assert [each.path for each in said if isinstance(each, FileBegins)] == [b"jobs/new"]


def test_a_parcel_for_a_worker_that_is_over_is_called_off(agent: Agent) -> None:
    agent.shipping.obey(ParcelBegins(1, "state", 99, 5, name="job5"))
    agent.shipping.obey(ParcelEnds(1))
    assert [each for each in agent.tell() if isinstance(each, ParcelKept)] == [ParcelKept(1, dropped=True)]
