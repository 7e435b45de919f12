"""One line of the journal: made, verified, and hard to mistake for another."""

from __future__ import annotations

import json
import threading
import time
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.terms.records import Ended, Noted, RunStarted
from supervisor.storage.files.disk import Disk
from supervisor.storage.files.sync import Syncer, Task
from supervisor.storage.journal.journal_format import (
    decode_record,
    encode_batch,
    ended_at,
    seal,
    seed_of,
    verify,
)
from supervisor.storage.journal.journal_scan import guess_seed
from tests.storage.fake_disk import FakeDisk

AT = "2025-10-14T21:00:00.000Z"
SEED = seed_of("u", 1)


def lines_of(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def test_a_line_is_json_with_its_number_first_and_its_crc_last() -> None:
    data, lengths = encode_batch(7, [Noted("a", AT), Noted("b", AT)], SEED)
    first, second = lines_of(data)
    assert lengths == [len(first) + 1, len(second) + 1]
    assert list(json.loads(first)) == ["n", "type", "what", "at", "crc"]
    assert json.loads(second)["n"] == 8
    body = first[: first.rindex(b',"crc"')]
    assert json.loads(first)["crc"] == f"{zlib.crc32(body, SEED):08x}"
    assert (verify(first, SEED), verify(second, SEED)) == (7, 8)
    assert verify(memoryview(data)[: len(first)], SEED) == 7


@pytest.mark.parametrize(
    "body", [b"", b'{"n":', b'{"n":7', b'{"n":x,', b'{"n":,', b'{"n":' + b"7" * 60 + b","]
)
def test_what_is_sealed_but_has_no_number_in_its_place_is_no_line(body: bytes) -> None:
    line, _ = seal([body], SEED)
    assert verify(line[:-1], SEED) == (7 if body == b'{"n":7' else 0)


def test_a_line_of_another_file_or_generation_does_not_pass() -> None:
    line = lines_of(encode_batch(7, [Noted("a", AT)], SEED)[0])[0]
    assert verify(line, seed_of("u", 2)) == 0
    assert verify(line, seed_of("v", 1)) == 0


@given(st.binary(max_size=60), st.integers(0, 10**6), st.integers(1, 255))
def test_no_changed_line_passes(extra: bytes, place: int, flip: int) -> None:
    line = lines_of(encode_batch(7, [Noted("a" + extra.hex(), AT)], SEED)[0])[0]
    changed = bytearray(line)
    changed[place % len(line)] ^= flip
    assert verify(bytes(changed), SEED) == 0


@given(st.text(alphabet=st.characters(), max_size=20), st.text(max_size=20))
def test_any_text_fits_into_a_line(job: str, message: str) -> None:
    records = [Ended(job, 1, 1, "raised", "failed", 1.0, 0, AT, error={"message": message + "\ud800"})]
    (line,) = lines_of(encode_batch(1, records, SEED)[0])
    assert verify(line, SEED) == 1
    record = decode_record(line)
    assert isinstance(record, Ended)
    assert record.job == job


def test_arguments_that_are_not_utf8_do_not_stop_the_journal() -> None:
    (line,) = lines_of(encode_batch(1, [RunStarted(1, AT, argv=["x\udcff"])], SEED)[0])
    assert json.loads(line)["argv"] == ["x\\udcff"]


def test_a_result_with_line_breaks_stays_on_one_line() -> None:
    record = Ended("a", 1, 1, "completed", "completed", 1.0, 0, AT, result=msgspec.Raw(b'{\n"x":\n1}'))
    data, lengths = encode_batch(1, [record, record], SEED)
    assert [json.loads(line)["result"] for line in lines_of(data)] == [{"x": 1}, {"x": 1}]
    assert sum(lengths) == len(data)


def test_a_job_that_returned_nothing_has_a_result() -> None:
    record = Ended("a", 1, 1, "completed", "completed", 1.0, 0, AT, result=msgspec.Raw(b"null"))
    (line,) = lines_of(encode_batch(1, [record], SEED)[0])
    assert json.loads(line)["result"] is None
    back = decode_record(line)
    assert isinstance(back, Ended)
    assert bytes(back.result) == b"null"


def test_the_seed_follows_from_the_lines_when_the_first_is_damaged() -> None:
    disk = FakeDisk()
    fd = disk.open("/j", 0o102)
    disk.write(fd, b"damaged\n" + encode_batch(2, [Noted(str(n), AT) for n in range(5)], SEED)[0])
    assert guess_seed(disk, fd) == SEED


class SlowDisk(Disk):
    """Counts syncs; each takes until it is let go."""

    def __init__(self) -> None:
        self.syncs = 0
        self.go = threading.Semaphore(0)
        self.error: OSError | None = None

    def datasync(self, fd: int) -> None:
        assert self.go.acquire(timeout=30)
        self.syncs += 1
        if self.error is not None:
            raise self.error


def wait_for(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_writes_during_a_sync_are_covered_by_the_next_one_only() -> None:
    disk = SlowDisk()
    syncer = Syncer(disk, 0, synced=0, wake=-1)
    syncer.written(3)
    wait_for(lambda: syncer._idle is False and syncer._thread is not None)
    wait_for(lambda: syncer._written == 3)
    time.sleep(0.01)
    syncer.written(9)
    disk.go.release()
    wait_for(lambda: disk.syncs == 1)
    wait_for(lambda: syncer.synced in (3, 9))
    first = syncer.synced
    disk.go.release()
    wait_for(lambda: syncer.synced == 9)
    assert first == 3
    assert disk.syncs == 2
    assert syncer.close(20.0)


def test_a_failed_sync_is_final_and_its_tasks_are_not_done() -> None:
    disk = SlowDisk()
    disk.error = OSError(5, "EIO")
    syncer = Syncer(disk, 0, synced=0, wake=-1)
    ran: list[int] = []
    task = Task(after=3, work=lambda: ran.append(1))
    syncer.written(3)
    syncer.submit(task)
    disk.go.release()
    disk.go.release()
    wait_for(lambda: syncer.error is not None)
    assert syncer.close(20.0)
    assert (syncer.synced, ran, disk.syncs) == (0, [], 1)


def test_a_sync_that_hangs_does_not_hang_the_end() -> None:
    disk = SlowDisk()
    syncer = Syncer(disk, 0, synced=0, wake=-1)
    syncer.written(1)
    assert syncer.close(0.05) is False
    disk.go.release()
    assert syncer.close(20.0)


def test_when_an_attempt_ended_is_read_whatever_another_version_writes_beside_it() -> None:
    line = lines_of(encode_batch(1, [Ended("a", 1, 1, "completed", "completed", 1.0, 0, AT)], SEED)[0])[0]
    assert ended_at(line.replace(b'"worker":0', b'"worker":"zero"')) == AT
