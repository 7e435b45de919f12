"""States of long jobs on the disk: what is loaded after kills, power cuts and damage."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.storage.fake_disk import FakeDisk, PowerCut
from workers.job import saved_state
from workers.job.saved_state import StateFiles, StatesInMemory, StateTooLarge
from workers.values.json_encoding import Unencodable

ROOT = Path(__file__).resolve().parents[2]


class ForgetfulDisk(FakeDisk):
    def read(self, path: str, size: int = -1) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, path)
        data = bytes(self.files[path].data)
        return data if size < 0 else data[:size]

    def after_power_cut(self, seed: int) -> ForgetfulDisk:
        later = super().after_power_cut(seed)
        again = ForgetfulDisk()
        again.files, again.safe_names = later.files, later.safe_names
        return again


def saved(folder: Path, *saves: Any, job: str = "a/b") -> StateFiles:
    files = StateFiles(str(folder / "states"))
    for state in saves:
        files.save(job, 1, state)
    return files


@pytest.mark.parametrize(
    "state",
    [
        None,
        True,
        -7,
        0.1,
        "text ä \u2028",
        [],
        {},
        {"epoch": 3, "loss": [0.5, 0.25], "best": {"lr": 1e-3, "name": "x", "none": None}},
        {"best": math.inf, "worst": [-math.inf]},
        2**100,
    ],
)
def test_a_state_comes_back_as_it_was(tmp_path: Path, state: Any) -> None:
    files = saved(tmp_path, {"older": 1}, state)
    assert files.load("a/b") == (state, "")
    assert StateFiles(str(tmp_path / "states")).load("a/b") == (state, ""), "in another process"
    memory = StatesInMemory()
    memory.save("a/b", 1, state)
    assert memory.load("a/b") == (state, "")


def test_nan_comes_back(tmp_path: Path) -> None:
    loaded, _ = saved(tmp_path, {"loss": math.nan}).load("a/b")
    assert math.isnan(loaded["loss"])


def test_without_a_save_there_is_none_and_nothing_is_made(tmp_path: Path) -> None:
    files = StateFiles(str(tmp_path / "states"))
    assert files.load("a") == (None, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", [{1, 2}, {"x": {3: 4}}, object(), b"bytes", {"a": [print]}])
def test_what_would_not_come_back_is_refused_and_the_last_state_stays(tmp_path: Path, state: Any) -> None:
    files = saved(tmp_path, {"epoch": 1})
    with pytest.raises(Unencodable):
        files.save("a/b", 1, state)
    with pytest.raises(Unencodable):
        StatesInMemory().save("a/b", 1, state)
    assert files.load("a/b") == ({"epoch": 1}, "")


def test_a_state_that_is_too_large_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_state, "MAX_STATE", 1 << 20)
    files = saved(tmp_path, {"epoch": 1})
    with pytest.raises(StateTooLarge, match=r"'a/b' is 2\.0 MB of JSON, more than 1 MB; .*directory"):
        files.save("a/b", 1, "x" * (2 << 20))
    assert files.load("a/b") == ({"epoch": 1}, "")


def test_jobs_do_not_see_each_other(tmp_path: Path) -> None:
    ids = ["a", "A", "a~", "a/b", "a.json", "a~damaged", "x" * 300, "x" * 301, ""]
    files = StateFiles(str(tmp_path / "states"))
    for _ in range(3):
        for number, job_id in enumerate(ids):
            files.save(job_id, 1, number)
    assert [files.load(job_id)[0] for job_id in ids] == list(range(len(ids)))


def test_two_files_take_turns_and_say_what_they_are(tmp_path: Path) -> None:
    saved(tmp_path, *range(5))
    names = sorted(os.listdir(tmp_path / "states"))
    assert names == ["a%2Fb.json", "a%2Fb~.json"]
    documents = [json.loads((tmp_path / "states" / name).read_text()) for name in names]
    assert [(d["save"], d["state"], d["job"]) for d in documents] == [(5, 4, "a/b"), (4, 3, "a/b")]


def damages() -> list[Any]:
    return [
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: b"\0" * len(data), id="zeros"),
        pytest.param(lambda data: data.replace(b'"n":2', b'"n":9'), id="changed"),
        pytest.param(lambda data: data.replace(b"a/b", b"b/a"), id="of another job"),
        pytest.param(lambda data: data + b"more", id="longer"),
    ]


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_newest_state_falls_back_to_the_one_before_and_says_so(tmp_path: Path, damage: Any) -> None:
    files = saved(tmp_path, {"n": 1}, {"n": 2})
    newest = tmp_path / "states" / "a%2Fb~.json"
    newest.write_bytes(damage(newest.read_bytes()))
    state, notice = files.load("a/b")
    assert state == {"n": 1}
    assert re.match(r"saved state of a/b: a%2Fb~\.json is damaged and set aside; .* save 1 of 20", notice)
    assert (tmp_path / "states" / "a%2Fb~damaged.json").exists(), "nothing is thrown away"
    assert files.load("a/b") == ({"n": 1}, ""), "said once"
    files.save("a/b", 1, {"n": 3})
    assert files.load("a/b") == ({"n": 3}, "")


def test_when_both_are_damaged_the_job_starts_anew_and_is_told(tmp_path: Path) -> None:
    files = saved(tmp_path, 1, 2)
    for path in (tmp_path / "states").iterdir():
        path.write_bytes(b"{}\n")
    state, notice = files.load("a/b")
    assert state is None and "starts from the beginning" in notice


def test_a_save_over_a_damaged_one_keeps_the_good_one(tmp_path: Path) -> None:
    files = saved(tmp_path, 1, 2)
    (tmp_path / "states" / "a%2Fb~.json").write_bytes(b"garbage")
    for state in (3, 4):
        files.save("a/b", 1, state)
        assert files.load("a/b") == (state, "")


# ------------------------------------------------------------------------- the disk


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_at_any_operation_loses_no_save_that_has_returned(seed: int) -> None:
    for cut in count():
        disk = ForgetfulDisk()
        disk.cut_at = cut
        files = StateFiles("/fake/states", disk)
        returned = -1
        try:
            for number in range(5):
                files.save("a", 1, number)
                returned = number
        except PowerCut:
            pass
        else:
            assert cut > 20
            break
        state, notice = StateFiles("/fake/states", disk.after_power_cut(seed * 997 + cut)).load("a")
        assert (state if state is not None else -1) in (returned, returned + 1), (cut, notice)
        assert not notice, "nothing that has a name is torn"


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_directory"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_refused_save_raises_and_leaves_what_was_there(operation: str, number: int) -> None:
    disk = ForgetfulDisk()
    files = StateFiles("/fake/states", disk)
    files.save("a", 1, 1)
    files.save("a", 1, 2)
    disk.fail(operation, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        files.save("a", 1, 3)
    # Once the rename is done, the new state may be there; it is whole in any case.
    assert files.load("a")[0] in ((2, 3) if operation == "sync_directory" else (2,))
    assert not [name for name in disk.files if name.endswith(".tmp")]
    files.save("a", 1, 4)
    assert files.load("a") == (4, "")


SAVER = """
import sys
from workers.job.saved_state import StateFiles
files = StateFiles(sys.argv[1])
state, _ = files.load("a")
number = state["n"] if state else 0
while True:
    number += 1
    files.save("a", 1, {"n": number, "x": "x" * 100000 * (number % 2)})
    print(number, flush=True)
"""


def test_killed_in_the_middle_of_saves_the_last_that_returned_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "states"
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(directory)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        said = 0
        for _, line in zip(range(7), process.stdout, strict=False):
            said = int(line)
        process.kill()
        said = max([said, *map(int, process.stdout.read().split())])
        process.wait()
        process.stdout.close()
        state, notice = StateFiles(str(directory)).load("a")
        assert notice == ""
        assert (state["n"] if state else 0) in (said, said + 1)


def test_threads_and_children_may_save_at_the_same_time(tmp_path: Path) -> None:
    files = saved(tmp_path, 0)

    def work(base: int) -> None:
        for number in range(20):
            files.save("a/b", 1, base + number)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    documents = [json.loads(p.read_text()) for p in (tmp_path / "states").iterdir()]
    assert sorted(d["save"] for d in documents) == [60, 61], "no save was lost"
    state, notice = files.load("a/b")
    assert state % 100 == 19 and notice == ""
