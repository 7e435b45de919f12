"""The engine of several places against agents that the test plays: whom it believes, and when."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.errors import WorkersError
from supervisor.core.terms.events import Event
from supervisor.core.terms.needs import Totals
from supervisor.core.terms.version import VERSION as RELEASE
from supervisor.nodes import nodes_engine
from supervisor.nodes.carrier import Arrival
from supervisor.nodes.fencing import FENCE, HELLO_WITHIN
from supervisor.nodes.link import Link
from supervisor.nodes.nodes_engine import NodesEngine
from supervisor.nodes.shipping.file_receipt import FileReceipt
from supervisor.nodes.wire import (
    VERSION,
    HelloAgent,
    HelloNode,
    Lease,
    Measure,
    NodeEnds,
    Order,
    Ping,
    Pong,
    Report,
    Start,
    Used,
    decode_orders,
    encode,
    report_of,
)
from supervisor.system.capacity.host_use import HostUse
from supervisor.system.resource_usage import Usage
from workers.transport.messages import Completed, FunctionSpec, Run, WorkerSpec

TIMEOUT = 30.0
HELLO = HelloNode(
    VERSION, platform.python_version(), 4, 8 << 30, (), False, "host", 1, "boot", True, release=RELEASE
)


class Played:
    """An agent, as the test plays it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.orders: list[Order] = []

    def say(self, *reports: Report) -> None:
        self.link.send(encode(list(reports)))

    def hear(self) -> list[Order]:
        """All orders up to now."""
        for message in self.link.receive():
            self.orders += decode_orders(message)
        return self.orders

    def heard(self, kind: type) -> list[Any]:
        return [order for order in self.hear() if isinstance(order, kind)]


class Stage:
    """The engine, its carrier (`supervisor.nodes.carrier.Carrier`), its clock, its agents."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.time = 1000.0
        self.agents: list[Played] = []
        self.ended: list[int] = []
        self.greeted_keys: list[int] = []
        self.none = ""
        self._arrivals: list[Arrival] = []
        spec = WorkerSpec(
            experiment_id="test",
            tag="test:1",
            worker=0,
            incarnation=0,
            function=FunctionSpec("os", "getpid"),
            setup=None,
            seed=1,
            output_directory=str(root),
            jobs_directory=str(root),
        )
        self.engine = NodesEngine(lambda *_: spec, self, timeout=TIMEOUT, **options)

    # -- the carrier

    def start(self) -> None: ...

    def next_deadline(self) -> float | None:
        return None

    def fileno(self) -> None:
        return None

    def greeted(self, key: int) -> None:
        self.greeted_keys.append(key)

    def end(self, key: int) -> None:
        self.ended.append(key)

    def expected(self) -> list[Totals]:
        return []

    def why_ended(self, key: int) -> str:
        return ""

    def notices(self) -> list[tuple[str, str]]:
        return []

    def why_none(self) -> str:
        return self.none

    def poll(self, now: float) -> list[Arrival]:
        found, self._arrivals = self._arrivals, []
        return found

    def close(self, deadline: float) -> None: ...

    # -- the play

    def arrive(self, name: str, hello: HelloNode | None = HELLO) -> Played:
        down, up = os.pipe(), os.pipe()
        number = len(self.agents)
        agent = Played(Link(down[0], up[1]))
        self._arrivals.append(Arrival(number, name, None, f"test:1/{number}", Link(up[0], down[1])))
        self.agents.append(agent)
        self.turn()
        if hello is not None:
            agent.say(hello)
        return agent

    def turn(self, after: float = 0.0) -> list[Event]:
        """Let so many seconds pass, less than make the engine think that it stood still at a time."""
        events: list[Event] = []
        while after > 4.0:
            self.time += 4.0
            after -= 4.0
            events += self.engine.poll(self.time)
        self.time += after
        return [*events, *self.engine.poll(self.time)]

    def with_worker(self, agent: Played, incarnation: int, place: int) -> None:
        self.engine.start_worker(incarnation, incarnation, place=place, local_slot=0)
        agent.say(report_of(facts.WorkerReady(incarnation)))


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path)
    monkeypatch.setattr(nodes_engine, "boot_time", lambda: made.time)
    made.engine.start()
    yield made
    for agent in made.agents:
        agent.say(NodeEnds("the test is over"))
        agent.link.close()
    made.engine.close()


def places(events: list[Event]) -> list[list[int]]:
    return [[place.place for place in e.places] for e in events if isinstance(e, facts.PlacesChanged)]


def died(events: list[Event]) -> list[int]:
    return list(causes(events))


def causes(events: list[Event]) -> dict[int, str]:
    """Of the deaths, by worker."""
    found = {event.incarnation: event.cause for event in events if isinstance(event, facts.WorkerDied)}
    assert set(found.values()) <= {facts.NODE_LOST, facts.NODE_ENDED}
    return found


def test_places_follow_the_hellos_and_say_what_they_have(stage: Stage) -> None:
    first = stage.arrive("a")
    (event,) = stage.turn()
    assert isinstance(event, facts.PlacesChanged)
    (place,) = event.places
    assert (place.place, place.name, place.slots) == (0, "a (host)", 4)
    assert (place.totals.cpus, place.totals.memory) == (4000, 8 << 30)
    stage.arrive("b", None)
    assert places(stage.turn()) == []
    stage.agents[1].say(HELLO)
    assert places(stage.turn()) == [[0, 1]]
    (hello,) = first.heard(HelloAgent)
    assert (hello.version, hello.tag, hello.silence, hello.caps) == (VERSION, "test:1/0", TIMEOUT, True)


def test_the_supervisor_does_not_sleep_while_an_agent_is_about_to_say_hello(stage: Stage) -> None:
    """Else its node would wait for as long as the outcomes of others gather."""
    stage.arrive("a")
    assert stage.turn() and not stage.engine.pressing()
    late = stage.arrive("b", None)
    assert stage.engine.pressing()
    late.say(HELLO)
    assert stage.turn() and not stage.engine.pressing()


@pytest.mark.parametrize(("has", "offers"), [(8 << 30, 6 << 30), (1 << 30, 0), (None, None)])
def test_what_is_kept_free_is_no_memory_that_a_place_offers(
    tmp_path: Path, has: int | None, offers: int | None
) -> None:
    stage = Stage(tmp_path, keep_free=2 << 30)
    stage.engine.start()
    stage.arrive("a", msgspec.structs.replace(HELLO, memory=has))
    (event,) = stage.turn()
    assert isinstance(event, facts.PlacesChanged)
    assert [place.totals.memory for place in event.places] == [offers]
    stage.agents[0].say(NodeEnds("the test is over"))
    stage.engine.close()


def test_the_carrier_need_not_replace_agents_that_end_with_the_run(tmp_path: Path) -> None:
    """It ends what is left of them when it is closed itself."""
    stage = Stage(tmp_path)
    stage.engine.start()
    for name in ("a", "b"):
        stage.arrive(name)
    stage.turn()
    stage.agents[0].say(NodeEnds("it was sent SIGTERM", "asked"))
    stage.turn()
    assert stage.ended == [0]
    stage.agents[1].say(NodeEnds("it was told to", "asked"))
    stage.engine.close()
    assert stage.ended == [0]


def test_orders_go_to_the_place_of_their_worker(stage: Stage) -> None:
    a, b = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.engine.start_worker(5, 1, ("0",), place=1, local_slot=2)
    stage.engine.lease_jobs(1, Run(7, [1], b"{}"))
    stage.engine.lease_jobs(99, Run(8, [1], b"{}"))  # nobody
    assert b.heard(Start) == [Start(5, 1, ("0",), 2)]
    assert b.heard(Lease) == [Lease(1, Run(7, [1], b"{}"))]
    assert a.heard(Start) == a.heard(Lease) == []
    done = facts.JobsFinished(1, [Completed(7, 0.1, b"1")])
    b.say(report_of(done), report_of(facts.WorkerReady(2)))  # 2 is not its worker
    assert stage.turn() == [done]


@pytest.mark.parametrize("hello", [{"version": VERSION + 1}, {"python": "3.9.1"}])
def test_an_agent_that_does_not_fit_is_refused_by_name(stage: Stage, hello: dict[str, Any]) -> None:
    import msgspec

    stage.arrive("odd", msgspec.structs.replace(HELLO, **hello))
    stage.none = "no more come"
    with pytest.raises(WorkersError, match=r"odd \(host\) has Python"):
        stage.turn()
    assert stage.ended == [0] and stage.greeted_keys == []


def test_who_says_its_end_frees_its_jobs_at_once(stage: Stage) -> None:
    a, _ = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.say(report_of(facts.JobsFinished(1, [Completed(7, 0.1, b"1")])), NodeEnds("SIGTERM"))
    a.link.close()
    events = stage.turn()
    assert [type(event) for event in events[:2]] == [facts.WorkerReady, facts.JobsFinished]
    assert places(events) == [[1]] and died(events) == [1]
    assert stage.ended == [0]


@pytest.mark.parametrize(
    ("how", "cause"),
    [("asked", facts.NODE_ENDED), ("silence", facts.NODE_LOST), ("failed", facts.NODE_LOST)],
)
def test_only_an_announced_end_is_none_that_counts(stage: Stage, how: Any, cause: str) -> None:
    a, _ = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.say(NodeEnds("it was sent SIGTERM", how))
    events = stage.turn()
    assert causes(events) == {1: cause}
    (changed,) = [event for event in events if isinstance(event, facts.PlacesChanged)]
    assert changed.ended == [facts.PlaceEnd(0, "it was sent SIGTERM", cause == facts.NODE_ENDED)]


@pytest.mark.parametrize("words", [[NodeEnds("it heard nothing", "silence")], []])
@pytest.mark.parametrize("answered", [False, True])
def test_what_our_own_silence_has_ended_does_not_count(
    stage: Stage, words: list[Report], answered: bool
) -> None:
    a = stage.arrive("a")
    stage.turn()
    stage.with_worker(a, 1, 0)
    stage.time += 10 * TIMEOUT
    stage.engine.poll(1.0)
    if answered:  # it was there after we had stood still
        a.say(Pong(a.heard(Ping)[-1].number))
        stage.turn()
    a.say(*words)
    a.link.close()
    assert causes(stage.turn(TIMEOUT + FENCE)) == {1: facts.NODE_LOST if answered else facts.NODE_ENDED}


def test_an_agent_that_failed_while_we_stood_still_counts(stage: Stage) -> None:
    a = stage.arrive("a")
    stage.turn()
    stage.with_worker(a, 1, 0)
    stage.time += 10 * TIMEOUT
    a.say(NodeEnds("its agent failed: OSError()", "failed"))
    assert causes(stage.turn()) == {1: facts.NODE_LOST}


def test_who_is_gone_without_a_word_is_confirmed_by_the_next_one_there(stage: Stage) -> None:
    a, _ = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.link.close()
    events = stage.turn()
    assert places(events) == [[1]] and died(events) == []
    stage.arrive("c")  # another node can say nothing of it
    events = stage.turn()
    assert places(events) == [[1, 2]] and died(events) == []
    again = stage.arrive("a", None)
    assert [hello.before for hello in again.heard(HelloAgent)] == [["test:1/0"]]
    assert died(stage.turn()) == []
    again.say(HELLO)
    events = stage.turn()
    assert places(events) == [[1, 2, 3]] and died(events) == [1]


def test_a_namesake_on_another_kernel_confirms_nothing(stage: Stage) -> None:
    import msgspec

    a = stage.arrive("a")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.link.close()
    stage.turn()
    stage.arrive("a", msgspec.structs.replace(HELLO, boot_id="another"))
    events = stage.turn()
    assert places(events) == [[1]] and died(events) == []


def test_who_never_says_hello_is_given_up(stage: Stage) -> None:
    stage.arrive("a", None)
    stage.turn(HELLO_WITHIN - 1)
    assert stage.ended == []
    assert places(stage.turn(2.0)) == [] and stage.ended == [0]


def test_what_nobody_confirms_is_waited_for_as_long_as_it_may_compute(stage: Stage) -> None:
    import msgspec

    a, b = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    stage.turn(5.0)
    assert len(a.heard(Ping)) == 1
    a.say(Pong(1))
    stage.turn()
    known = stage.time
    stage.turn(3.0)
    a.link.close()
    assert died(stage.turn()) == []
    stage.arrive("a", msgspec.structs.replace(HELLO, cleared=False))
    events: list[Event] = []
    while not died(events):
        assert stage.time < known + TIMEOUT + FENCE + 1
        for agent in (b, stage.agents[2]):
            agent.say(*[Pong(ping.number) for ping in agent.heard(Ping)[-1:]])
        events = stage.turn(1.0)
    assert stage.time >= known + TIMEOUT + FENCE


def test_a_silent_node_is_given_up_and_not_pinged_any_more(stage: Stage) -> None:
    a, b = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    stage.turn()
    begun, events = stage.time, []
    while not places(events):
        b.say(*[Pong(ping.number) for ping in b.heard(Ping)[-1:]])
        events = stage.turn(1.0)
    assert TIMEOUT <= stage.time - begun <= TIMEOUT + 1
    assert places(events) == [[1]] and died(events) == [] and stage.ended == [0]
    last = a.heard(Ping)[-1].number  # at most 5 s old
    while not (lost := died(events)):
        b.say(*[Pong(ping.number) for ping in b.heard(Ping)[-1:]])
        events = stage.turn(1.0)
    assert lost == [1] and a.heard(Ping)[-1].number == last
    assert TIMEOUT + FENCE <= stage.time - begun <= TIMEOUT + FENCE + 1  # it had answered no Ping


def test_our_own_silence_is_not_that_of_the_nodes(stage: Stage) -> None:
    a = stage.arrive("a")
    stage.turn()
    stage.time += 10 * TIMEOUT
    assert places(stage.engine.poll(1.0)) == []
    assert a.heard(Ping) and stage.ended == []
    assert places(stage.turn(TIMEOUT - 1)) == []
    assert places(stage.turn(2.0)) == [[]]


def test_a_ping_says_which_pong_came_last(stage: Stage) -> None:
    a = stage.arrive("a")
    stage.turn()
    stage.turn(5.0)
    a.say(Pong(1))
    stage.turn(5.0)
    assert a.heard(Ping) == [Ping(1, 0), Ping(2, 1)]


def test_nobody_starts_in_a_place_that_has_ended(stage: Stage) -> None:
    a = stage.arrive("a")
    stage.turn()
    a.say(NodeEnds("SIGTERM"))
    stage.turn()
    stage.engine.start_worker(0, 1, place=0, local_slot=0)
    assert died(stage.turn()) == [1]


def test_a_reading_of_an_earlier_job_charges_no_later_one(stage: Stage) -> None:
    a = stage.arrive("a")
    stage.turn()
    for number in (1, 2):
        stage.with_worker(a, number, 0)
    stage.turn()
    measure: Callable[[], Any] = lambda: stage.engine.memory(100, {1: 50, 9: 7}, available=True)  # noqa: E731
    assert measure() == ({}, None)
    assert measure() == ({}, None)
    (asked,) = [order for order in a.heard(Measure) if order.memory]  # the second waits for its answer
    assert asked == Measure(memory=True, limit=100, limits={1: 50}, available=True)
    a.say(Used(memory={1: 70, 2: 80}, available=999, left={1: (3, 4)}))
    a.say(report_of(facts.JobsFinished(1, [Completed(7, 0.1, b"1")])))
    stage.turn()
    assert measure() == ({2: 80}, 999)
    assert measure() == ({}, 999)
    assert stage.engine.available_on_places() == {0: 999}
    assert stage.engine.left_behind() == {1: (3, 4)}
    a.say(Used(usage={1: Usage(5, 1.0), 7: Usage(6, 1.0)}))
    stage.turn()
    assert stage.engine.usage() == {1: Usage(5, 1.0)}


def test_what_is_available_is_said_of_the_place_that_has_least_and_of_each(stage: Stage) -> None:
    for name, available in (("a", 70), ("b", 50), ("c", 60)):
        stage.arrive(name).say(Used(memory={}, available=available))
    stage.turn()
    assert stage.engine.memory(None, None, available=True) == ({}, 50)
    assert stage.engine.available_on_places() == {0: 70, 1: 50, 2: 60}


def test_nonsense_ends_the_place_and_not_the_run(stage: Stage) -> None:
    a, b = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    a.link.send(b"\xc1")
    os.write(b.link.writer, b"HTTP/1.1 400 Bad Request")
    assert places(stage.turn())[-1] == []
    assert sorted(stage.ended) == [0, 1]


def test_places_that_join_at_once_are_told_together(stage: Stage) -> None:
    """Else each of a thousand would be told with all that had come before it."""
    for agent in [stage.arrive(name, hello=None) for name in ("a", "b", "c")]:
        agent.say(HELLO)
    assert places(stage.turn()) == [[0, 1, 2]]


def test_each_place_says_how_busy_its_host_is(stage: Stage) -> None:
    a, _ = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    assert {place: seen.use for place, seen in stage.engine.hosts().items()} == {0: HostUse(), 1: HostUse()}
    stage.engine.usage()
    assert a.heard(Measure)[-1].usage
    use = HostUse(1.5, 150.0, 1 << 30, 4 << 30)
    stage.turn(3.0)
    a.say(Used(usage={}, host=use))
    stage.turn()
    seen = stage.engine.hosts()
    assert seen[0].use == use and seen[0].age == 0.0
    assert seen[1].age == 3.0
    stage.turn(2.0)
    assert stage.engine.hosts()[0].age == 2.0
    a.say(NodeEnds("SIGTERM", "asked"))
    stage.turn()
    assert list(stage.engine.hosts()) == [1]


@pytest.mark.parametrize("how", ["confirmed", "waited for"])
def test_a_place_whose_end_was_not_certain_is_fenced_before_its_workers_are_dead(
    stage: Stage, how: str
) -> None:
    a, b = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.link.close()
    assert fenced(stage.turn()) == []
    if how == "confirmed":
        stage.arrive("a")
        events = stage.turn()
    else:
        events = []
        while not died(events):
            b.say(*[Pong(ping.number) for ping in b.heard(Ping)[-1:]])
            events = stage.turn(1.0)
    assert fenced(events) == [facts.PlaceFenced(0, confirmed=how == "confirmed")]
    kinds = [type(event) for event in events]
    assert kinds.index(facts.PlaceFenced) < kinds.index(facts.WorkerDied)


@pytest.mark.parametrize("words", [NodeEnds("SIGTERM", "asked"), None])
def test_a_place_that_is_certain_to_run_nothing_is_not_fenced(stage: Stage, words: NodeEnds | None) -> None:
    a, _ = stage.arrive("a"), stage.arrive("b")
    stage.turn()
    if words is not None:
        stage.with_worker(a, 1, 0)
        a.say(words)
    a.link.close()
    events = stage.turn()
    assert places(events) == [[1]] and fenced(events) == []


def test_outcomes_that_waited_for_files_are_lost_once_with_an_agent_that_was_told_to_end(
    tmp_path: Path,
) -> None:
    store: Any = SimpleNamespace(worker_ended=lambda *_: None)
    stage = Stage(tmp_path, files=FileReceipt(store, lambda *_: None))
    stage.engine.start()
    a, b = stage.arrive("a", msgspec.structs.replace(HELLO, ships=True)), stage.arrive("b")
    stage.turn()
    stage.with_worker(a, 1, 0)
    a.say(report_of(facts.OutcomesHeld(1, [5])), NodeEnds("SIGTERM", "asked"))
    events = stage.turn()
    assert [each for each in events if isinstance(each, facts.HeldOutcomesLost)] == [
        facts.HeldOutcomesLost([5], facts.NODE_ENDED)
    ]
    assert causes(events) == {1: facts.NODE_ENDED} and fenced(events) == []
    b.say(NodeEnds("the test is over"))
    stage.engine.close()


def fenced(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, facts.PlaceFenced)]
