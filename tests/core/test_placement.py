"""Which job goes where when jobs need more than a slot. Histories with random needs: tests/core/test_simulation."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from supervisor.core.dispatch.job_queue import Line
from supervisor.core.dispatch.placement_pass import MOST_WAITING
from supervisor.core.dispatch.turn import Turn
from supervisor.core.places.job_kinds import JobKinds
from supervisor.core.places.place import Place
from supervisor.core.scheduling.scheduler import Scheduler
from supervisor.core.state.job_table import JobTable
from supervisor.core.terms import events as facts
from supervisor.core.terms.events import AnswerControl, PlaceFacts, StartJobs, StartWorker, StopWorker
from supervisor.core.terms.jobs import COMPLETED, LEASED, OwnSettings
from supervisor.core.terms.needs import Needs, Totals
from supervisor.core.terms.position import Position
from supervisor.core.terms.records import Leased
from supervisor.core.terms.settings import Settings
from workers.transport.messages import Completed

GB = 1 << 30


class Run:
    """A run of the core. Workers get ready at once and hold what they are given until `end` is called. broken: what
    workers see that never get ready: the devices ("a",)."""

    def __init__(
        self, needs: list[Needs | None], slots: int, totals: Totals | None = None, **more: Any
    ) -> None:
        table = JobTable()
        for number, each in enumerate(needs):
            table.add(f"j{number}")
            if each is not None:
                table.own[number] = OwnSettings(needs=each)
        self.now = 0.0
        places = more.pop("places", None)
        self.broken: set[tuple[str, ...] | None] = more.pop("broken", set())
        totals = totals or Totals(slots * 1000)
        position = Position(1, 1, 1, [], [])
        self.core = Scheduler(table, Settings(**more), slots, position, totals=totals, places=places)
        self.running: dict[int, int] = {}  # lease by job
        self.worker_of: dict[int, int] = {}
        self.devices: dict[int, tuple[str, ...] | None] = {}
        self.places: dict[int, tuple[int, int, int]] = {}  # (place, slot, local slot) by worker
        self.given: dict[str, dict[str, Any]] = {}
        self.stopped: list[int] = []
        self.core.begin(0.0, "", 1)
        self.handle(facts.TimePassed())

    def handle(self, *events: facts.Event) -> None:
        self.now += 1.0
        effects = self.core.handle(list(events), self.now, "", 1)
        for record in effects.records:
            if isinstance(record, Leased):
                self.given.update(dict.fromkeys(record.jobs, record.given))
        for command in effects.commands:
            if isinstance(command, StartWorker):
                self.devices[command.incarnation] = command.devices
                self.places[command.incarnation] = (command.place, command.slot, command.local_slot)
                launched = facts.WorkerLaunched(command.incarnation, 100 + command.incarnation, 0.0)
                if command.devices in self.broken:
                    self.handle(launched, facts.WorkerDied(command.incarnation, 1, output="no CUDA"))
                else:
                    self.handle(launched, facts.WorkerReady(command.incarnation))
            elif isinstance(command, StopWorker):
                self.stopped.append(command.incarnation)
                self.handle(facts.WorkerDied(command.incarnation, 0))
            elif isinstance(command, StartJobs):
                for lease, job in enumerate(command.jobs, command.first_lease):
                    self.running[job], self.worker_of[job] = lease, command.incarnation

    def end(self, *jobs: int) -> None:
        for job in jobs:
            outcome = Completed(self.running.pop(job), 100.0, b"null")
            self.handle(facts.JobsFinished(self.worker_of[job], [outcome]))


def test_a_job_of_many_cores_leaves_slots_idle() -> None:
    run = Run([Needs(cpus=3), None, None], slots=4)
    assert sorted(run.running) == [0, 1]
    run.end(0)
    assert sorted(run.running) == [1, 2]


def test_a_later_job_goes_ahead_of_one_that_does_not_fit_until_that_one_claims() -> None:
    run = Run([None, Needs(cpus=2), *[None] * 9], slots=2)
    assert sorted(run.running) == [0, 2]  # the second job needs both cores
    run.end(0)
    assert sorted(run.running) == [2, 3]  # two have gone ahead: as many as there are slots
    run.end(2)
    assert sorted(run.running) == [3]
    run.end(3)
    assert sorted(run.running) == [1]
    run.end(1)
    assert sorted(run.running) == [4, 5]


def test_a_claim_holds_back_only_what_it_needs() -> None:
    totals = Totals(4000, resources={"license": 2000})
    run = Run([Needs(resources={"license": 1}), Needs(resources={"license": 2}), *[None] * 12], 4, totals)
    assert sorted(run.running) == [0, 2, 3, 4]
    run.end(2)  # the fourth to go ahead: now the second job claims a core and both licences
    assert sorted(run.running) == [0, 3, 4, 5]
    run.end(3, 4)
    assert sorted(run.running) == [0, 5, 6]  # three of four cores: the fourth is claimed
    run.end(0)
    assert sorted(run.running) == [1, 5, 6, 7]


def test_shares_of_a_gpu_come_together_on_one_device() -> None:
    totals = Totals(8000, gpus=("a", "b"))
    run = Run([Needs(gpus=0.5), Needs(gpus=0.5), Needs(gpus=1), Needs(gpus=0.5)], 8, totals)
    assert sorted(run.running) == [0, 1, 2]
    assert [run.given[f"j{job}"]["gpus"] for job in range(3)] == [["a"], ["a"], ["b"]]
    assert {run.devices[run.worker_of[job]] for job in range(3)} == {("a",), ("b",)}
    run.end(1)
    assert run.given["j3"] == {"cpus": 1, "gpus": ["a"], "gpu_share": 0.5}


def test_a_worker_that_has_the_devices_is_preferred_and_one_without_sees_none() -> None:
    totals = Totals(2000, gpus=("a", "b"))
    run = Run([Needs(gpus=1), None, Needs(gpus=1), Needs(gpus=1)], 2, totals)
    assert (run.devices[run.worker_of[0]], run.devices[run.worker_of[1]]) == (("a",), ())
    run.end(0)
    assert run.worker_of[2] == run.worker_of[0] and not run.stopped
    run.end(1)  # its worker sees no device: another one takes its slot
    assert run.stopped == [run.worker_of[1]]
    assert run.devices[run.worker_of[3]] == ("b",)


def test_without_gpu_jobs_the_environment_of_workers_is_not_touched() -> None:
    run = Run([Needs(cpus=2), None], 3, Totals(3000, gpus=("a",)))
    assert set(run.devices.values()) == {None}


def test_memory_is_promised_up_to_the_total() -> None:
    run = Run(
        [Needs(memory=3 * GB), Needs(memory=2 * GB), Needs(memory=GB), None], 4, Totals(4000, memory=4 * GB)
    )
    assert sorted(run.running) == [0, 2, 3]  # a job that says nothing counts nothing
    assert run.given == {"j0": {"cpus": 1, "memory": 3 * GB}, "j2": {"cpus": 1, "memory": GB}, "j3": {}}


def test_what_the_experiment_says_of_all_jobs_counts_for_those_that_say_nothing() -> None:
    run = Run([None, None, Needs(cpus=1)], 4, job_cpus=2.0, job_memory=GB)
    assert sorted(run.running) == [0, 1]
    assert run.given["j0"] == {"cpus": 2, "memory": GB}


@pytest.mark.parametrize("slots", [1, 2])
def test_jobs_that_can_never_fit_stay_and_the_others_run(slots: int) -> None:
    run = Run([Needs(cpus=3), None, Needs(gpus=1), None], slots)
    assert run.core.unfit_jobs() == [0, 2]
    run.end(*[job for job in (1, 3) if job in run.running])
    run.end(*run.running)
    assert run.core.finished and run.core.unfit_jobs() == [0, 2]


def test_a_job_that_is_not_queued_yet_counts_as_one_that_cannot_run() -> None:
    """One that a dead run was at, whose charge is not on the disk yet."""
    table = JobTable()
    for number in range(3):
        table.add(f"j{number}")
        table.own[number] = OwnSettings(needs=Needs(cpus=4))
    table.open_leases = {1: {1: 2}}
    table.state[2] = LEASED
    core = Scheduler(table, Settings(), 3, Position(1, 2, 2, [], []), totals=Totals(3000))
    core.begin(0.0, "", 1)
    assert core.ledger.awaiting_sync and core.unfit_jobs() == [0, 1, 2]
    core.handle([facts.Synced(1)], 1.0, "", 2)
    assert not core.ledger.awaiting_sync and core.unfit_jobs() == [0, 1, 2]


def test_another_number_of_workers_lets_jobs_fit_or_not() -> None:
    run = Run([None, Needs(cpus=3), None], 1)
    assert run.core.unfit_jobs() == [1]
    run.handle(facts.ControlAsked(0, 0, "workers", 4))
    assert not run.core.unfit_jobs() and sorted(run.running) == [0, 1]
    run.end(0, 1)
    assert sorted(run.running) == [2]


def test_the_kinds_of_jobs_that_are_known_already_are_not_found_out_again() -> None:
    table = JobTable()
    table.add("j0")
    table.own[0] = OwnSettings(needs=Needs(cpus=2))
    known = JobKinds(table, Settings())
    core = Scheduler(table, Settings(), 2, Position(1, 1, 1, [], []), kinds=known)
    assert core.dispatcher.placement is not None and core.dispatcher.placement.kinds is known


# ----------------------------------------------------------------------- several places


def node(place: int, slots: int, **more: Any) -> PlaceFacts:
    return PlaceFacts(place, f"node{place}", slots, Totals(slots * 1000, **more))


def places_of(run: Run) -> dict[int, int]:
    """The place of each running job."""
    return {job: run.places[run.worker_of[job]][0] for job in run.running}


def test_jobs_go_to_the_emptiest_place_that_has_what_they_need() -> None:
    needs = [Needs(cpus=3), Needs(gpus=1), None, None, Needs(cpus=4)]
    run = Run(needs, 0, places=[node(1, 4), node(2, 2, gpus=("a",))])
    assert places_of(run) == {0: 1, 1: 2, 2: 2, 3: 1}
    assert sorted(run.places.values()) == [(1, 0, 0), (1, 1, 1), (2, 4, 0), (2, 5, 1)]
    run.end(0)
    assert places_of(run) == {1: 2, 2: 2, 3: 1}  # four cores of one place are wanted
    run.end(3)
    assert places_of(run) == {1: 2, 2: 2, 4: 1}


def test_a_job_that_fits_in_no_place_waits_for_one_that_is_expected() -> None:
    run = Run([None, Needs(cpus=3)], 0, places=[])
    run.handle(facts.PlacesChanged([node(1, 1)], expected=[Totals(2000), Totals(3000)]))
    assert places_of(run) == {0: 1} and run.core.unfit_jobs() == []
    run.end(0)
    assert not run.core.finished
    run.handle(facts.PlacesChanged([node(1, 1)], expected=[Totals(2000)]))
    assert run.core.unfit_jobs() == [1]
    run.handle(facts.PlacesChanged([node(1, 1), node(2, 4)]))
    assert places_of(run) == {1: 2}


def test_a_place_that_joins_is_used_and_the_end_of_one_costs_its_jobs_nothing() -> None:
    run = Run([None, Needs(cpus=3), None], 0, places=[])
    assert not run.running and not run.core.finished and not run.core.unfit_jobs()
    run.handle(facts.PlacesChanged([node(1, 1)]))
    assert places_of(run) == {0: 1} and run.core.unfit_jobs() == [1]
    run.handle(facts.PlacesChanged([node(1, 1), node(2, 4)]))
    assert places_of(run) == {0: 1, 1: 2, 2: 2}
    gone = run.worker_of[0]
    run.running.pop(0)
    run.handle(facts.PlacesChanged([node(2, 4)]), facts.WorkerDied(gone, cause=facts.NODE_LOST))
    table = run.core.table
    assert (table.outcome[0], table.charges[0].losses, table.charges[0].crashes) == ("lost", 1, 0)
    run.end(1, 2)
    run.handle(facts.Synced(1000))
    assert places_of(run) == {0: 2}
    run.end(0)
    assert run.core.finished


def lose(run: Run, place: int, left: list[PlaceFacts], cause: str = facts.NODE_LOST) -> None:
    """This place ends, and with it the jobs that run there."""
    gone = [worker for worker in run.core.workers if run.places[worker][0] == place]
    for job in [job for job in run.running if run.worker_of[job] in gone]:
        del run.running[job]
    end = facts.PlaceEnd(place, "its host is gone", cause == facts.NODE_ENDED)
    run.handle(facts.PlacesChanged(left, [end]), *[facts.WorkerDied(worker, cause=cause) for worker in gone])
    run.handle(facts.Synced(1000))


def test_a_job_that_was_lost_three_times_runs_alone_in_its_place_and_the_other_places_go_on() -> None:
    run = Run([None] * 6, 0, places=[node(1, 2), node(2, 2)])
    assert places_of(run) == {0: 1, 1: 2, 2: 1, 3: 2}
    for lost, comes in ((1, 3), (3, 4), (4, 5)):
        lose(run, lost, [node(2, 2)])
        run.handle(facts.PlacesChanged([node(comes, 2), node(2, 2)]))
    assert {job: charges.losses for job, charges in run.core.table.charges.items()} == {0: 3, 2: 3}
    assert places_of(run) == {1: 2, 3: 2, 4: 5, 5: 5}  # those that were lost go last
    run.end(4)
    assert places_of(run) == {1: 2, 3: 2, 5: 5}
    run.end(5)
    (alone,) = run.running.keys() - {1, 3}
    assert alone in (0, 2) and places_of(run) == {1: 2, 3: 2, alone: 5}
    lose(run, 2, [node(5, 2), node(6, 2)], facts.NODE_ENDED)
    assert places_of(run) == {1: 6, 3: 6, alone: 5}  # the other one waits until a place is empty
    run.end(1)
    assert places_of(run) == {3: 6, alone: 5}
    run.end(3)
    assert places_of(run) == {alone: 5, 2 - alone: 6}
    run.end(0, 2)
    assert run.core.finished


def test_two_jobs_that_have_to_be_alone_do_not_get_one_licence() -> None:
    run = Run([LICENSED, LICENSED, None, None], 0, licensed(2), places=[node(1, 2)])
    for place in (1, 2):
        lose(run, place, [])
        run.handle(facts.PlacesChanged([node(place + 1, 2)]))
    gone = [run.worker_of[job] for job in (0, 1)]
    run.running.clear()
    run.handle(
        facts.PlacesChanged([node(8, 1), node(9, 1)]),
        *[facts.WorkerDied(worker, cause=facts.NODE_LOST) for worker in gone],
    )
    run.end(2, 3)  # their workers are idle while the losses are brought to the disk
    assert run.core.dispatcher.placement is not None
    run.core.dispatcher.placement.shared.totals["license"] = 1000
    run.handle(facts.Synced(1000))
    assert run.running.keys() == {0}
    run.end(0)
    assert run.running.keys() == {1}


def test_what_ends_with_an_announced_end_is_interrupted_and_still_has_to_be_alone() -> None:
    run = Run([None, None], 0, places=[node(1, 2)])
    lose(run, 1, [node(2, 2)], facts.NODE_ENDED)
    assert not run.core.table.charges and set(run.core.table.outcome.values()) == {"interrupted"}
    for place in (2, 3, 4):
        lose(run, place, [node(place + 1, 2)])
    assert len(run.running) == 1
    lose(run, 5, [node(6, 2)], facts.NODE_ENDED)
    assert len(run.running) == 1 and run.core.table.charges[0].losses == 3
    run.end(*run.running)
    assert len(run.running) == 1


def test_a_claim_holds_back_the_others_in_one_place_only() -> None:
    needs = [None, None, None, None, Needs(cpus=2), *[None] * 12]
    run = Run(needs, 0, places=[node(1, 2), node(2, 2)])
    assert sorted(run.running) == [0, 1, 2, 3]
    there = places_of(run)
    first = [job for job in range(4) if there[job] == 1]
    other = [job for job in range(4) if there[job] == 2]
    run.end(first[0])  # two cores are free nowhere: later jobs go ahead, four of them
    run.end(other[0])
    run.end(first[1])
    run.end(other[1])
    assert sorted(run.running) == [5, 6, 7, 8]
    for job in (5, 6, 7):
        if 4 not in run.running:
            run.end(job)
    assert 4 in run.running
    assert len({place for job, place in places_of(run).items() if job != 4}) == 1  # the other place goes on


def test_who_left_room_for_a_claim_goes_on_in_the_turn_in_which_it_is_met_elsewhere() -> None:
    needs = [*[None] * 4, Needs(cpus=2), *[None] * 20, Needs(memory=GB)]
    run = Run(needs, 0, places=[node(1, 2, memory=GB), node(2, 2, memory=0)])
    placement = run.core.dispatcher.placement
    assert placement is not None
    while placement.claim is None or placement.claim.place != 1:
        run.end(min(run.running))  # one after the other, so that two cores are never free together
    there = places_of(run)
    run.core.queue.put_first(25)  # it comes before the one with the claim, and fits in the first place alone
    run.end(next(job for job, place in there.items() if place == 1))
    assert len(run.running) == 3 and not run.running.keys() & {4, 25}, "a core is free, and kept"
    ends = [(run.worker_of[job], run.running.pop(job)) for job, place in there.items() if place == 2]
    run.handle(*[facts.JobsFinished(worker, [Completed(lease, 100.0, b"null")]) for worker, lease in ends])
    now = places_of(run)
    assert (now[4], now[25]) == (2, 1)


LICENSED = Needs(resources={"license": 1})


def licensed(number: int) -> Totals:
    return Totals(0, resources={"license": number * 1000})


def test_licences_are_counted_over_all_places() -> None:
    needs = [LICENSED] * 5 + [Needs(resources={"license": 3})]
    run = Run(needs, 0, licensed(2), places=[node(1, 2), node(2, 2)])
    assert places_of(run) == {0: 1, 1: 2} and run.core.unfit_jobs() == [5]
    run.end(0)
    assert sorted(run.running) == [1, 2]


def test_a_claim_on_licences_binds_in_every_place() -> None:
    needs = [LICENSED, Needs(resources={"license": 2}), *[None] * 3, *[LICENSED] * 20]
    run = Run(needs, 0, licensed(2), places=[node(1, 2), node(2, 2)])
    while 1 not in run.running:
        claimed = run.core.dispatcher.placement and run.core.dispatcher.placement.claimed()
        before = sorted(run.running)
        run.end(min(run.running))
        if claimed:
            assert not any(job > 4 for job in set(run.running) - set(before)), "both licences are claimed"


def test_what_runs_in_a_lost_place_keeps_its_licences_until_it_has_ended() -> None:
    run = Run([LICENSED] * 3, 0, licensed(1), places=[node(1, 1), node(2, 1)])
    assert places_of(run) == {0: 1}
    gone = run.worker_of[0]
    del run.running[0]
    run.handle(facts.PlacesChanged([node(2, 1)], [facts.PlaceEnd(1, "nothing was heard of it")]))
    run.handle(facts.TimePassed())
    assert not run.running
    run.handle(facts.WorkerDied(gone, cause=facts.NODE_LOST))
    assert places_of(run) == {1: 2}


def test_a_place_that_joins_gets_the_leases_that_wait_behind_a_long_job() -> None:
    run = Run([None] * 40, 0, places=[node(1, 1)])
    quick = [facts.JobsFinished(1, [Completed(run.running.pop(0), 1e-5, b"null")])]
    run.handle(*quick)  # the others are handed out in a batch
    assert len(run.running) > 5 and set(places_of(run).values()) == {1}
    run.now += 10.0
    run.handle(facts.PlacesChanged([node(1, 1), node(2, 2)]))
    run.handle(facts.TimePassed())
    assert sorted(places for places in places_of(run).values() if places == 2)


def test_the_number_of_workers_follows_the_places() -> None:
    there = [node(place, 1) for place in range(1, 6)]
    run = Run([None, None], 0, places=there)
    for left, words in ((there, "node1 1, node2 1, node3 1 and 2 other nodes"), (there[:1], "node1 1")):
        run.handle(facts.PlacesChanged(left))
        effects = run.core.handle([facts.ControlAsked(0, 0, "workers", 7)], run.now, "", 1)
        (answer,) = [command for command in effects.commands if isinstance(command, AnswerControl)]
        assert not answer.done and f"follows the nodes of this run ({words})" in answer.text
        assert run.core.dispatcher.slots == len(left)


def test_a_retry_over_memory_may_hold_what_there_is() -> None:
    run = Run([Needs(memory=GB)], 2, Totals(2000, memory=4 * GB), retry_over_memory=True)
    run.handle(facts.MemoryMeasured({1: 2 * GB}))
    run.handle(facts.WorkerDied(1, signal=9))
    assert run.core.table.charges[0].over_memory == 1
    run.handle(facts.Synced(1000))
    assert run.core.dispatcher.alone.places(run.core.workers)
    incarnation = run.worker_of[0]
    run.handle(facts.MemoryMeasured({incarnation: 4 * GB}))
    assert run.core.workers[incarnation].kill_reason is None
    run.handle(facts.MemoryMeasured({incarnation: 4 * GB + 1}))
    assert run.core.workers[incarnation].kill_reason is not None


# --------------------------------------------------------- workers that do not get ready


def test_a_device_with_which_no_worker_gets_ready_is_tried_last() -> None:
    run = Run([Needs(gpus=1)] * 4, 1, Totals(1000, gpus=("a", "b")), broken={("a",)})
    assert sorted(run.running) == [0]
    assert list(run.devices.values()) == [("a",), ("b",)]
    run.end(0)
    assert run.worker_of[1] == run.worker_of[0]
    run.core.dispatcher.resize(Turn(run.now, "", 1), 2)
    run.broken.clear()
    run.now += 60.0
    run.handle(facts.TimePassed())  # "b" is busy: "a" once more
    assert sorted(run.running) == [1, 2] and run.given["j2"]["gpus"] == ["a"]


def test_workers_that_do_not_get_ready_keep_no_others_from_their_jobs() -> None:
    run = Run([Needs(gpus=1), *[None] * 20], 2, Totals(2000, gpus=("a",)), broken={("a",)})
    assert sorted(run.running) == [1, 2]
    run.end(*range(1, 15))
    assert sorted(run.running) == [15, 16] and not run.core.dispatcher.failure
    tries = list(run.devices.values()).count(("a",))
    assert len(run.stopped) < tries < 8  # a slot is made free for a try when it is due, and not before
    wait = run.core.next_deadline()
    assert wait is not None and wait > run.now
    run.broken.clear()
    run.now = wait
    run.end(15)
    assert sorted(run.running) == [0, 16]


def test_the_run_ends_when_nothing_else_is_left_than_jobs_whose_workers_do_not_get_ready() -> None:
    run = Run([Needs(gpus=1), None, None, Needs(gpus=1)], 2, Totals(2000, gpus=("a",)), broken={("a",)})
    for _ in range(6):  # again and again, while there are other jobs
        run.now = run.core.next_deadline() or run.now
        run.handle(facts.TimePassed())
    assert not run.core.dispatcher.failure
    run.end(1, 2)
    for _ in range(3):
        run.now = run.core.next_deadline() or run.now
        run.handle(facts.TimePassed())
    assert "no CUDA" in run.core.dispatcher.failure


# ------------------------------------------------------------------ thousands of kinds


@pytest.mark.parametrize("memory", [None, 5 * GB])
def test_a_turn_looks_at_few_of_thousands_of_kinds(
    memory: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether nearly all of them fit, or none but one at a time."""
    needs: list[Needs | None] = [Needs(memory=3 * GB + number) for number in range(3000)]
    run = Run(needs, 4, Totals(4000, memory=memory))
    looks: Counter[str] = Counter()

    def counted(called: Any) -> Any:
        def look(*given: Any) -> Any:
            looks[called.__name__] += 1
            return called(*given)

        return look

    monkeypatch.setattr(Place, "fits", counted(Place.fits))
    monkeypatch.setattr(Line, "head", counted(Line.head))
    monkeypatch.setattr(Line, "has_ready", counted(Line.has_ready))
    turns = 100
    for _ in range(turns):
        run.end(min(run.running))
    assert len(run.running) == (4 if memory is None else 1)
    assert max(looks.values()) < 150 * turns, looks


def test_those_behind_the_first_kinds_that_wait_have_their_turn_as_well() -> None:
    needs: list[Needs | None] = [Needs(cpus=1, memory=GB)]
    needs += [Needs(cpus=2, memory=2 * GB + number) for number in range(MOST_WAITING + 8)]
    run = Run([*needs, *[Needs(cpus=1)] * 400], 2, Totals(2000, memory=3 * GB))
    big = range(1, len(needs))
    began = 0
    while any(run.core.table.state[job] != COMPLETED for job in big) and began < 350:
        run.end(*sorted(run.running)[:1])
        began += 1
    assert all(run.core.table.state[job] == COMPLETED for job in big)


def looks_at_places(places: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a place was asked whether a job fits: while 4 workers in each are started, get their first jobs, and
    after each of them has ended one."""
    looks = 0
    fits = Place.fits

    def counted(self: Place, *arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return fits(self, *arguments)

    monkeypatch.setattr(Place, "fits", counted)
    table = JobTable()
    for number in range(places * 40):
        table.add(f"j{number}")
    core = Scheduler(
        table, Settings(), 4 * places, Position(), places=[node(each, 4) for each in range(places)]
    )
    core.begin(0.0, "", 1)
    found, now, events = [], 0.0, list[facts.Event]([facts.TimePassed()])
    for _ in range(3):
        looks, now = 0, now + 1.0
        commands = core.handle(events, now, "", 1).commands
        found.append(looks)
        events = [facts.WorkerReady(each.incarnation) for each in commands if isinstance(each, StartWorker)]
        events += [
            facts.JobsFinished(each.incarnation, [Completed(each.first_lease, 1.0, b"null")])
            for each in commands
            if isinstance(each, StartJobs)
        ]
    monkeypatch.undo()
    return found


def test_the_work_of_a_hand_out_does_not_grow_with_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = looks_at_places(4, monkeypatch), looks_at_places(32, monkeypatch)
    assert all(few) and all(more <= 8 * less for less, more in zip(few, many, strict=True))
