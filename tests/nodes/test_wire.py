"""What goes over the wire: events and orders as they were, in frames of bounded size."""

from __future__ import annotations

import os
import random
import selectors

import msgspec
import pytest

from supervisor.core.terms import events as facts
from supervisor.core.terms.events import Event
from supervisor.nodes.link import Link
from supervisor.nodes.wire import (
    MAX_FRAME,
    Done,
    Fact,
    Kill,
    Lease,
    MessageJoiner,
    NodeEnds,
    WireError,
    decode_orders,
    decode_reports,
    encode,
    event_of,
    frames_of,
    report_of,
)
from workers.transport.messages import Completed, CompletedWith, Failed, Failure, ModuleText, Run

EVENTS: list[Event] = [
    facts.WorkerLaunched(1, 4711, 1234.5),
    facts.WorkerStartFailed(1, "no pipes"),
    facts.WorkerReady(7),
    facts.WorkerNotReady(7, Failure("OSError", "no device", errno=5)),
    facts.JobsFinished(
        1,
        [
            Completed(5, 0.25, b'{"x":1}'),
            CompletedWith(6, 0.5, b"null", 12, [("/loss", "nan")], ["tuple"]),
            Failed(7, 0.1, "raised", Failure("ValueError", "bad")),
        ],
    ),
    facts.LeasesDropped(1, [3, 4]),
    facts.JobReported(1, "a/b", 0.5, {"loss": float("inf"), "epoch": 3, "name": None}),
    facts.CodeImported(1, [ModuleText("m", "m.py", "ab")]),
    facts.FilesShared(["data \udcff (a pipe)"]),
    facts.WorkerDied(1, signal=9, peak_rss=10**12, output="last \udce4 words", log="/tmp/\udce4.log"),
    facts.WorkerGivenUp(3),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_out_as_it_went_in(event: Event) -> None:
    (report,) = decode_reports(encode([report_of(event)]))
    assert isinstance(report, Done | Fact)
    assert event_of(report) == event


def test_what_no_engine_tells_is_refused() -> None:
    for kind in ("TimePassed", "WorkerReady"):
        report = Fact(kind, msgspec.Raw(encode([])))
        with pytest.raises(WireError):
            event_of(report)
    for text in (b"\xc1", encode([NodeEnds("x")]), encode([{"a": 1}])):
        with pytest.raises(WireError):
            decode_orders(text)


@pytest.mark.parametrize("most", [7, 1000, 200_000])
def test_a_message_is_split_into_frames_and_joined_whatever_the_pieces_are(most: int) -> None:
    rng = random.Random(14)
    sizes = [0, 1, MAX_FRAME - 6, MAX_FRAME - 5, MAX_FRAME - 4, MAX_FRAME, 500_000]
    messages = [rng.randbytes(size) for size in sizes]
    frames = [frame for message in messages for frame in frames_of(message)]
    assert max(map(len, frames)) == MAX_FRAME
    stream = b"".join(frames)
    joiner, found, at = MessageJoiner(), [], 0
    while at < len(stream):
        size = rng.randint(1, most)
        found += joiner.feed(stream[at : at + size])
        at += size
    assert found == messages
    assert not joiner.inside


def test_nonsense_is_no_frame() -> None:
    for data in (b"\0\0\0\0\1x", b"\x4c\0\1\x60\0", b"HTTP/1.1 200 OK"):
        with pytest.raises(WireError):
            MessageJoiner().feed(data)


def pair() -> tuple[Link, Link]:
    down, up = os.pipe(), os.pipe()
    return Link(up[0], down[1]), Link(down[0], up[1])


def test_a_link_never_blocks_and_keeps_the_order() -> None:
    here, there = pair()
    runs = [Lease(number, Run(number, [1], b"x" * 3_000_000)) for number in range(3)]
    assert here.send(encode([runs[0]]))  # more than a pipe holds
    here.send(encode(runs[1:]))
    here.send(encode([Kill(1, stack=True)]))
    with selectors.DefaultSelector() as selector:
        here.watch(selector, "here")
        orders = []
        while len(orders) < 4:
            for message in there.receive():
                orders += decode_orders(message)
            here.flush()
        assert orders == [*runs, Kill(1, stack=True)]
        here.watch(selector, "here")
        assert here.unsent == 0 and not here.pressing
        there.send(encode([NodeEnds("told")]))
        there.close()
        assert [key.data for key, _ in selector.select(5)] == ["here"]
        assert [decode_reports(message) for message in here.receive()] == [[NodeEnds("told")]]
        assert here.ended
        here.close()


def test_a_link_whose_other_end_reads_no_more_swallows_what_is_sent_and_hears_its_last_words() -> None:
    here, there = pair()
    there.send(b"last words")
    there.close()
    with selectors.DefaultSelector() as selector:
        assert not here.send(b"x" * 100_000)
        here.watch(selector, "here")
        assert [key.data for key, _ in selector.select(5)] == ["here"]
        here._selector = None
    assert here.receive() == [b"last words"]
    assert here.ended and not here.send(b"y")
    here.close()
