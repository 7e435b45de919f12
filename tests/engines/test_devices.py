"""Workers with GPUs of their own: the variables are there before any code of the user runs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from supervisor.core.terms import events as facts
from supervisor.engines.resource_monitor import WorkerProcesses
from supervisor.engines.zygote_process import PrestartedZygote

Drive = Callable[..., Any]  # conftest.Driver
LINUX = sys.platform == "linux"
METHODS = ["zygote", "spawn"] if LINUX else ["spawn"]
linux_only = pytest.mark.skipif(not LINUX, reason="the zygote is Linux only")
SEE = {"what": "see-gpus"}


def parent_of(d: Any, incarnation: int) -> psutil.Process:
    parent = psutil.Process(d.pid(incarnation)).parent()
    assert parent is not None
    return parent


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by_driver", [True, False])
def test_a_worker_finds_its_devices_from_the_start(drive: Drive, method: str, by_driver: bool) -> None:
    d = drive(method=method, gpus=True, gpus_by_driver=by_driver)
    devices = ("GPU-8932f937-d72c", "MIG-377e0049/1/0")
    d.start(1, devices=devices)
    seen = d.result(d.lease(1, SEE))
    names = ",".join(devices)
    assert seen == {
        "now": names,
        "order": "PCI_BUS_ID" if by_driver else None,
        "at import": names,
        "at start": [names] if LINUX else [],
        "job": list(devices),
        "program": names,
        "imported here": True,
    }


@pytest.mark.parametrize("by_driver", [True, False])
def test_the_order_of_the_devices_is_the_users_unless_the_driver_has_named_them(
    drive: Drive, by_driver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    d = drive(gpus=True, gpus_by_driver=by_driver)
    d.start(1, devices=("1",))
    assert d.result(d.lease(1, SEE))["order"] == ("PCI_BUS_ID" if by_driver else "FASTEST_FIRST")


@pytest.mark.parametrize("method", METHODS)
def test_the_others_see_none_also_where_the_script_is_imported(
    drive: Drive, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    d = drive(method=method, gpus=True, gpus_by_driver=True)
    d.start(1, devices=())
    d.start(2, devices=("1",))
    without, having = d.result(d.lease(1, SEE)), d.result(d.lease(2, SEE))
    assert (without["now"], without["at import"], without["program"], without["job"]) == ("", "", "", [])
    assert without["imported here"] == (method == "spawn")  # else in the zygote
    assert (having["now"], having["at import"], having["program"], having["job"]) == ("1", "1", "1", ["1"])


@pytest.mark.parametrize("method", METHODS)
def test_without_gpus_the_environment_is_that_of_the_script(
    drive: Drive, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    d = drive(method=method)
    d.start(1)
    seen = d.result(d.lease(1, SEE))
    assert (seen["now"], seen["at import"], seen["order"], seen["job"]) == ("5", "5", None, [])


@pytest.mark.parametrize("method", METHODS)
def test_the_next_job_finds_them_again(drive: Drive, method: str) -> None:
    d = drive(method=method, gpus=True, gpus_by_driver=True)
    d.start(1, devices=("2",))
    first = d.lease(1, {**SEE, "spoil": True}, SEE)
    assert d.result(first) == d.result(first + 1)
    assert d.result(first + 1)["now"] == "2"


@pytest.mark.parametrize("method", METHODS)
def test_a_setup_that_chooses_one_itself_does_not_move_the_jobs(drive: Drive, method: str) -> None:
    d = drive(method=method, gpus=True, setup="choose_a_gpu")
    d.start(1, devices=("5",))
    d.start(2, devices=())
    assert [d.result(d.lease(number, SEE))["now"] for number in (1, 2)] == ["5", ""]
    d = drive(method=method, setup="choose_a_gpu")  # without GPUs of longhaul's it is heard
    d.start(1, 2)
    assert [d.result(d.lease(number, SEE))["now"] for number in (1, 2)] == ["0", "1"]


@pytest.mark.parametrize("method", METHODS)
def test_it_is_a_process_like_the_others(drive: Drive, method: str) -> None:
    """Signals, descriptors, group, path, arguments: as in a worker without devices."""
    if not LINUX:
        pytest.skip("reads /proc")
    d = drive(method=method, gpus=True)
    d.start(1, devices=())
    d.start(2, devices=("0",))
    described = [d.result(d.lease(number, {"what": "describe-process"})) for number in (1, 2)]
    assert described[0] == described[1]
    assert described[1]["for programs"] == [0, 1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_after_a_crash_another_one_has_the_same_devices(drive: Drive, method: str) -> None:
    d = drive(method=method, gpus=True)
    d.start(1, devices=("0", "3"))
    d.lease(1, {"what": "print-and-die"}, ids=["bad"])
    death = d.death(1)
    assert death.signal == signal.SIGKILL and death.output == "last words"
    assert death.peak_rss > 1_000_000
    d.start(2, devices=("0", "3"))
    assert d.result(d.lease(2, SEE))["job"] == ["0", "3"]
    d.engine.stop_worker(2)
    assert d.death(2).exit_code == 0
    assert not list(d.output.glob(".worker[0-9]*"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("new_session", [False, True])
def test_what_its_job_has_started_is_gone_when_its_death_is_told(
    drive: Drive, method: str, new_session: bool
) -> None:
    d = drive(method=method, gpus=True)
    d.start(1, devices=("0",))
    d.start(2, devices=())
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": new_session})
    child = int(d.read_note("child"))
    d.engine.kill_worker(1)
    d.death(1)
    assert d.is_gone(child)
    assert d.result(d.lease(2, {"what": "pid"})) == d.pid(2)


@linux_only
def test_an_orphan_of_its_job_counts_for_it_and_ends_with_it(drive: Drive) -> None:
    """It carries no tag and has left the session: only who has adopted it tells whose it is."""
    d = drive(gpus=True)
    d.start(1, devices=())
    d.start(2, devices=("0",))
    d.lease(2, {"what": "orphan", "note": str(d.note("orphan")), "bare": True})
    orphan = psutil.Process(int(d.read_note("orphan")))
    d.until(lambda: orphan.ppid() == parent_of(d, 2).pid)
    d.engine.kill_worker(2)
    d.death(2)
    assert d.is_gone(orphan.pid)


@linux_only
def test_memory_of_orphans_counts_for_both_kinds_of_workers(drive: Drive) -> None:
    d = drive(gpus=True)
    d.start(1, devices=())
    d.start(2, devices=("0",))
    for number in (1, 2):
        note = d.note(f"orphan{number}")
        d.lease(number, {"what": "orphan", "note": str(note)})
        orphan = psutil.Process(int(d.read_note(note.name)))
        d.until(lambda n=number, o=orphan: o.ppid() == parent_of(d, n).pid)
        used, _ = d.engine.memory(1 << 40, None, available=False)
        alone, _ = d.engine._meter.memory(
            WorkerProcesses({number: d.pid(number)}, [os.getpid()]), 1 << 40, available=False
        )
        assert used[number] > alone[number]
    assert set(d.engine.usage()) == {1, 2}


@linux_only
def test_each_kind_has_a_zygote_when_it_is_needed(drive: Drive) -> None:
    def children() -> set[int]:
        return {child.pid for child in psutil.Process().children()}

    before = children()
    prestarted = PrestartedZygote.start()
    assert prestarted is not None and prestarted._process is not None
    ahead = prestarted._process.pid
    d = drive(gpus=True, prestarted=prestarted)
    d.start(1, 2, devices=("0",))
    assert {parent_of(d, 1).pid, parent_of(d, 2).pid} == {ahead} == children() - before
    d.start(3, devices=())
    assert parent_of(d, 3).pid != ahead
    assert children() - before == {ahead, parent_of(d, 3).pid}
    d.engine.close()
    assert children() == before


@linux_only
@pytest.mark.parametrize("lost", [(), ("0",)])
def test_a_lost_zygote_takes_neither_its_workers_nor_the_other_one_along(
    drive: Drive, lost: tuple[str, ...]
) -> None:
    """Its worker's orphans are then looked for by the tag, which the other zygote carries as well."""
    other = () if lost else ("0",)
    d = drive(gpus=True)
    d.start(1, devices=lost)
    d.start(2, devices=other)
    parent_of(d, 1).kill()
    d.lease(1, {"what": "leave-child", "note": str(d.note("child")), "new_session": True})
    child = int(d.read_note("child"))
    survivor = parent_of(d, 2)
    d.start(3, devices=lost)
    d.engine.kill_worker(1)
    d.death(1)
    assert d.is_gone(child)
    assert survivor.is_running() and survivor.status() != psutil.STATUS_ZOMBIE
    for number in (2, 3):
        assert d.result(d.lease(number, {"what": "pid"})) == d.pid(number)


@linux_only
def test_what_an_interpreter_says_that_does_not_get_going_is_told(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('CUDA_VISIBLE_DEVICES') == '0':\n"
        "    print('no such driver', flush=True)\n    os._exit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    d = drive(gpus=True)
    # The variables for an interpreter's start are those of this process's start, which has no such file.
    monkeypatch.setattr(
        "supervisor.engines.zygote_process.child_environment",
        lambda more: {**os.environb, **{k.encode(): v.encode() for k, v in more.items()}},
    )
    d.engine.start_worker(0, 1, ("0",))
    death = d.death(1)
    assert (death.exit_code, death.output) == (3, "no such driver")
    assert d.first(facts.WorkerReady, 1) is None


@linux_only
def test_a_stopped_run_gives_waiting_workers_up(drive: Drive) -> None:
    d = drive(gpus=True)
    for number, devices in enumerate([("0",), (), ("1",)], 1):
        d.engine.start_worker(number - 1, number, devices)
        d.engine.kill_worker(number)
    for number in (1, 2, 3):
        d.until(lambda n=number: d.first(facts.WorkerDied, n) or d.first(facts.WorkerStartFailed, n))
    d.start(4, devices=("0",))
    assert d.result(d.lease(4, SEE))["job"] == ["0"]
