from __future__ import annotations

import os
import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from workers.transport.frames import (
    HEAD,
    MAX_FRAME,
    BadFrame,
    FrameReader,
    QueueClosed,
    QueueError,
    TornFrame,
    frame,
)
from workers.transport.messages import Completed, CompletedWith, Dropped, Finish, Ready, Revoke, Run
from workers.transport.supervisor_queues import InboxWriter, OutboxReader, pipe_pair, pipe_room
from workers.transport.worker_queues import WorkerQueues


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    reader, writer = pipe_pair()
    yield reader, writer
    reader.close()
    writer.close()


def feed(reader: FrameReader, data: bytes) -> list[bytes]:
    return [bytes(payload) for payload in reader.feed(data)]


@pytest.mark.parametrize("seed", range(20))
def test_frames_arrive_however_the_stream_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    payloads = [rng.randbytes(rng.choice([0, 1, 3, 5, 100, 70_000])) for _ in range(50)]
    stream = b"".join(map(frame, payloads))
    reader, got, at = FrameReader(), [], 0
    while at < len(stream):
        size = rng.choice([1, 2, 3, 4, 5, 17, 1000, 100_000])
        got += feed(reader, stream[at : at + size])
        at += size
    assert got == payloads
    reader.close()


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 9])
def test_a_torn_end_is_an_error_of_its_own(cut: int) -> None:
    reader = FrameReader()
    assert feed(reader, frame(b"whole") + frame(b"torn!!")[:cut]) == [b"whole"]
    with pytest.raises(TornFrame):
        reader.close()


def test_a_length_that_no_message_has_is_refused() -> None:
    for cut in (2, 5):
        header = struct.pack(">BI", 0xCE, MAX_FRAME + 1)
        reader = FrameReader()
        if cut < 5:
            reader.feed(header[:cut])
            header = header[cut:]
        with pytest.raises(BadFrame):
            reader.feed(header + b"x")


def test_a_frame_of_200_megabytes_is_assembled_without_copying_it_again_and_again() -> None:
    size, piece = 200 << 20, bytes(65536)
    reader = FrameReader()
    started = time.perf_counter()
    reader.feed(struct.pack(">BI", 0xCE, size))
    frames = [f for _ in range(size // len(piece)) for f in reader.feed(piece)]
    assert [len(f) for f in frames] == [size]
    assert time.perf_counter() - started < 10  # 0.1 s; copying for each piece would take minutes


def test_a_writer_keeps_what_does_not_fit(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    frames = InboxWriter(writer.fileno())
    big = Run(1, [1], b"x" * 3_000_000)
    assert frames.send(big)
    assert frames.send(Finish())
    cutter, got = FrameReader(), []
    while len(got) < 2:
        got += feed(cutter, os.read(reader.fileno(), 1 << 20))
        left = frames.flush()
    assert not left
    assert msgspec.msgpack.decode(got[0], type=Run) == big
    assert msgspec.msgpack.decode(got[1], type=Finish) == Finish()


@pytest.mark.parametrize(
    "size", [0, 1, select.PIPE_BUF - HEAD - 8, select.PIPE_BUF - HEAD, select.PIPE_BUF, 9000]
)
def test_messages_of_any_size_pass_a_pipe_with_any_room_left(pipe: tuple[Any, Any], size: int) -> None:
    reader, writer = pipe
    inbox = InboxWriter(writer.fileno())
    os.set_blocking(reader.fileno(), False)
    messages = [Run(number, [1], b"x" * max(0, size + number % 5 - 2)) for number in range(400)]
    stream = FrameReader()
    got: list[bytes] = []
    for number, message in enumerate(messages):
        inbox.send(message)
        if number % 7 == 0 and number > 150:
            got += feed(stream, os.read(reader.fileno(), 3001))
    while inbox.flush() or len(got) < len(messages):
        got += feed(stream, os.read(reader.fileno(), 1 << 16))
    assert [msgspec.msgpack.decode(payload, type=Run) for payload in got] == messages


@pytest.mark.parametrize("seed", range(20))
def test_an_outbox_says_the_same_however_the_stream_is_cut(pipe: tuple[Any, Any], seed: int) -> None:
    """One message at a time, as of a worker with long jobs, several, or pieces."""
    rng = random.Random(seed)
    reader, writer = pipe
    outbox = OutboxReader(reader.fileno())
    sent = [Completed(n, 0.5, rng.choice([b"null", b"x" * 300, b"\xce\0\0\0\1", b""])) for n in range(60)]
    got: list[Any] = []
    written = b""
    for message in sent:
        piece = frame(msgspec.msgpack.encode(message))
        cut = rng.choice([len(piece), len(piece), 1, 4, 5, len(piece) - 1])
        for part in (piece[:cut], piece[cut:]):
            written += part
            if written and rng.random() < 0.7:
                os.write(writer.fileno(), written)
                written = b""
                got += outbox.read()
    os.write(writer.fileno(), written + frame(msgspec.msgpack.encode(Ready())))
    got += outbox.read()
    assert got == [*sent, Ready()]


def test_a_writer_keeps_what_it_says_until_a_reader_is_there_again(pipe: tuple[Any, Any]) -> None:
    """A job may close all descriptors of its worker, which opens its own again."""
    reader, writer = pipe
    frames = InboxWriter(writer.fileno())
    reader.close()
    for _ in range(2):
        assert not frames.send(Finish())
    assert not frames.broken
    again = os.open(f"/proc/self/fd/{writer.fileno()}", os.O_RDONLY)
    frames.close()
    assert os.read(again, 100) == 2 * frame(msgspec.msgpack.encode(Finish()))
    os.close(again)


def test_a_writer_without_a_reader_says_so_and_forgets(
    pipe: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError("no /proc")

    reader, writer = pipe
    frames = InboxWriter(writer.fileno())
    reader.close()
    monkeypatch.setattr(os, "open", refuse)
    assert not frames.send(Finish())
    assert frames.broken
    assert not frames.send(Finish())


def test_an_outbox_gives_many_messages_at_once_and_then_the_end(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    sent = [
        Ready(),
        *(Completed(i, 0.5, b'"r"') for i in range(250)),
        *(CompletedWith(i, 0.5, b'"r"', 3, [("/a", "nan")], ["tuple"]) for i in range(250)),
        Dropped([7]),
    ]
    os.write(writer.fileno(), b"".join(frame(msgspec.msgpack.encode(m)) for m in sent))
    outbox = OutboxReader(reader.fileno())
    assert outbox.read() == sent
    assert outbox.read() == [] and not outbox.ended
    os.write(writer.fileno(), frame(b"torn")[:7])
    writer.close()
    assert outbox.read() == [] and not outbox.ended
    assert outbox.read() == [] and outbox.ended


def test_an_outbox_whose_writer_is_dead_ends_though_somebody_holds_it_open(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    os.write(writer.fileno(), frame(msgspec.msgpack.encode(Ready())))
    outbox = OutboxReader(reader.fileno())
    outbox.writer_died()
    assert outbox.read() == [Ready()]
    assert outbox.read() == [] and outbox.ended


@pytest.mark.parametrize(
    "payload", [b"\xc1", msgspec.msgpack.encode([99, 1]), msgspec.msgpack.encode({"a": 1})]
)
def test_bytes_that_are_no_message_are_an_error(pipe: tuple[Any, Any], payload: bytes) -> None:
    reader, writer = pipe
    os.write(writer.fileno(), frame(payload))
    with pytest.raises(QueueError):
        OutboxReader(reader.fileno()).read()


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 9, frame(b"\xc1"), b"\xce\xff\xff\xff\xff", frame(b"\x01\x02") * 2]
)
@pytest.mark.parametrize("cut", [0, 3, 20])
def test_what_was_said_before_the_nonsense_is_not_lost(
    pipe: tuple[Any, Any], garbage: bytes, cut: int
) -> None:
    reader, writer = pipe
    said = [Completed(i, 0.5, b'"r"') for i in range(20)]
    stream = b"".join(frame(msgspec.msgpack.encode(message)) for message in said) + garbage
    outbox = OutboxReader(reader.fileno())
    os.write(writer.fileno(), stream[:cut])
    heard = outbox.read()
    os.write(writer.fileno(), stream[cut:])
    with pytest.raises(QueueError) as caught:
        outbox.read()
    assert [*heard, *(caught.value.before or [])] == said


def test_what_is_decoded_does_not_change_when_the_buffer_is_used_again(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    outbox = OutboxReader(reader.fileno())
    os.write(writer.fileno(), frame(msgspec.msgpack.encode(Completed(1, 0.0, b"first"))))
    (first,) = outbox.read()
    os.write(writer.fileno(), frame(msgspec.msgpack.encode(Completed(2, 0.0, b"SECND"))))
    outbox.read()
    assert first == Completed(1, 0.0, b"first")


@pytest.mark.parametrize("workers", [8, 48, 200])
def test_the_pipes_of_many_workers_leave_the_user_room_for_others(workers: int) -> None:
    default, share = 64 << 10, 64 << 20  # of Linux
    assert sum(2 * (pipe_room(slot) or default) for slot in range(workers)) < 0.8 * share


def test_a_worker_reads_and_writes_as_the_supervisor_does() -> None:
    inbox, to_worker = pipe_pair()
    from_worker, outbox = pipe_pair()
    queues = WorkerQueues(inbox.fileno(), outbox.fileno())
    supervisor, heard = InboxWriter(to_worker.fileno()), OutboxReader(from_worker.fileno())
    assert not queues.readable()
    supervisor.send(Run(5, [1, 2], b"{}\n{}"))
    supervisor.send(Revoke([6]))
    assert queues.readable()
    assert queues.receive() == Run(5, [1, 2], b"{}\n{}")
    assert queues.readable()
    assert queues.receive() == Revoke([6])
    assert not queues.readable()
    big = Completed(5, 0.1, b"y" * 9_000_000)
    thread = threading.Thread(target=queues.send, args=(big,))
    thread.start()
    got: list[Any] = []
    while not got:
        got = heard.read()
    thread.join()
    assert got == [big]
    queues.send(Ready())  # a small one after a big one
    assert heard.read() == [Ready()]
    to_worker.close()
    with pytest.raises(QueueClosed):
        queues.receive()
    from_worker.close()
    with pytest.raises(QueueClosed):
        queues.send(Ready())
    inbox.close()
    outbox.close()
