"""Scripts as users write them, in a process of their own, with a loop that only turns."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import some

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["zygote", "spawn"] if sys.platform == "linux" else ["spawn"]

LOOP = '''
import json, os, select, sys, time
from supervisor.engines.local_engine import LocalEngine
from workers.script.callables import describe
from workers.transport.messages import Run, WorkerSpec

def drive(function, params, method, workers=1, devices=None, out=None):
    """Run each of `params` once on each worker; print what the engine says. `devices`: of each worker."""
    spec = lambda worker, incarnation: WorkerSpec(
        experiment_id="script", tag="script:" + out, worker=worker, incarnation=incarnation,
        function=described, setup=None, seed=1, output_directory=out + "/output", jobs_directory=out + "/jobs")
    described = describe(function)
    engine = LocalEngine(spec, start_method=method, gpus=devices is not None)
    engine.start()
    for incarnation in range(1, workers + 1):
        engine.start_worker(incarnation - 1, incarnation, devices and devices[incarnation - 1])
    left = workers
    while left:
        due = engine.next_deadline()
        wait = 5.0 if due is None else max(0.0, due - time.monotonic())
        select.select([engine.fileno()], [], [], wait)
        for event in engine.poll(time.monotonic()):
            print(event, flush=True)
            kind = type(event).__name__
            if kind == "WorkerReady":
                line = json.dumps({"id": "job", "domain": None, "params": params}).encode()
                engine.lease_jobs(event.incarnation, Run(event.incarnation, [1], line))
                engine.stop_worker(event.incarnation)
            left -= kind in ("WorkerDied", "WorkerStartFailed")
    engine.close()
'''


class Script:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "driving.py").write_text(LOOP)
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, source: str, *, command: list[str] | None = None) -> subprocess.Popen[str]:
        (self.directory / "experiment.py").write_text(source)
        process = subprocess.Popen(
            [sys.executable, *(command or ["experiment.py"])],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self, source: str, *, command: list[str] | None = None) -> str:
        output, _ = self.start(source, command=command).communicate(timeout=60)
        return output

    def survivors(self) -> list[psutil.Process]:
        """Processes of the experiment that still live."""
        found = []
        for process in psutil.process_iter():
            try:
                tag = process.environ().get("LONGHAUL_EXPERIMENT")
                if tag == f"script:{self.directory}/out" and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        for survivor in self.survivors():
            survivor.kill()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    script = Script(tmp_path)
    yield script
    script.close()


def guarded(body: str, call: str) -> str:
    return f"from driving import drive\n{body}\nif __name__ == '__main__':\n    {call}\n"


def call(
    name: str,
    params: dict[str, object],
    method: str,
    workers: int = 1,
    devices: list[tuple[str, ...]] | None = None,
) -> str:
    return (
        f"drive({name}, {params!r}, {method!r}, {workers}, {devices!r}, "
        f"out=__import__('os').getcwd() + '/out')"
    )


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("command", [["experiment.py", "--option"], ["-m", "experiment", "--option"]])
def test_a_function_of_the_script_runs_in_a_worker(script: Script, method: str, command: list[str]) -> None:
    body = (
        "import sys, dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "def evaluate(x):\n    return [Point(x), sys.argv[1:], __name__, sys.modules['__main__'].Point is Point]"
    )
    output = script.run(guarded(body, call("evaluate", {"x": 3}, method)), command=command)
    assert """result=b'[{"x":3},["--option"],"__main__",true]'""" in output, output


@pytest.mark.parametrize("method", METHODS)
def test_a_function_that_has_no_file_is_sent_by_value(script: Script, method: str) -> None:
    source = "from driving import drive\nk = 40\ndef f(x): return x + k\n" + call("f", {"x": 2}, method)
    output = script.run("", command=["-c", source])
    assert "result=b'42'" in output, output


@pytest.mark.parametrize("method", METHODS)
def test_a_script_without_a_guard_is_told_so_by_each_worker(script: Script, method: str) -> None:
    body = (
        "from workers.job.current_job import importing_main\n"
        "if importing_main():\n    raise RuntimeError('put the call under a guard')"
    )
    source = f"from driving import drive\n{body}\ndef f(): pass\n{call('f', {}, method, 2)}\n"
    output = script.run(source)
    assert output.count("WorkerNotReady(") == 2, output
    assert "put the call under a guard" in output and "where='experiment.py:4'" in output


@pytest.mark.parametrize("method", METHODS)
def test_an_import_that_fails_is_told_by_the_worker(script: Script, method: str) -> None:
    body = (
        "from workers.job.current_job import inside_worker\nif inside_worker():\n    import not_to_be_found"
    )
    output = script.run(guarded(body + "\ndef f(): pass", call("f", {}, method)))
    assert "WorkerNotReady(" in output and "ModuleNotFoundError" in output, output
    assert output.count("WorkerLaunched(") == 1


@pytest.mark.parametrize("method", METHODS)
def test_an_import_that_kills_the_process_is_a_death_before_ready(script: Script, method: str) -> None:
    body = (
        "import os\nfrom workers.job.current_job import inside_worker\n"
        "print('importing', flush=True)\nif inside_worker():\n    os._exit(9)"
    )
    output = script.run(guarded(body + "\ndef f(): pass", call("f", {}, method)))
    assert "WorkerDied(incarnation=1, exit_code=9" in output, output
    assert "output='importing'" in output


def test_a_script_that_starts_threads_gets_workers_that_import_it_themselves(script: Script) -> None:
    body = (
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "def f(): return threading.active_count() > 1"
    )
    output = script.run(guarded(body, call("f", {}, "auto")))
    assert "result=b'true'" in output, output


def test_a_module_named_like_ours_is_named_as_the_obstacle(script: Script) -> None:
    body = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('workers', 'mine.py')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)"
    )
    (script.directory / "mine.py").write_text("def f(): pass\n")
    output = script.run(guarded(body, call("module.f", {}, "auto")))
    assert re.search(r"CannotSend: .*/mine\.py is a module named 'workers'.*rename the file", output), output


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("devices", [None, [("0",), ()]])
def test_all_die_with_their_supervisor_while_jobs_hold_the_gil(
    script: Script, method: str, devices: list[tuple[str, ...]] | None
) -> None:
    """P6: kill -9 of the supervisor; a second at most."""
    # One that has left the group is found by the zygote; without it, by the next resume.
    session = method == "zygote"
    body = (
        "import ctypes, os, subprocess\n"
        "def hang(note):\n"
        "    subprocess.Popen(['sleep', '1000'])\n"
        f"    subprocess.Popen(['sleep', '1000'], start_new_session={session})\n"
        "    open(f'{note}{os.getpid()}', 'w').close()\n"
        "    ctypes.PyDLL(None).sleep(1000)"
    )
    note = str(script.directory / "note")
    process = script.start(guarded(body, call("hang", {"note": note}, method, 2, devices)))
    until(lambda: len(list(script.directory.glob("note*"))) == 2)
    assert len(script.survivors()) >= 4
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: not script.survivors())
    assert time.monotonic() - killed < 10.0  # a second, with room for a busy machine


@pytest.mark.skipif(sys.platform != "linux", reason="the zygote is Linux only")
def test_those_with_devices_die_with_supervisor_and_zygotes(script: Script) -> None:
    """SIGKILL of all three at once: the kernel kills the groups."""
    body = (
        "import os, subprocess, time\n"
        "def hang(note):\n"
        "    subprocess.Popen(['sleep', '1000'])\n"
        "    open(f'{note}{os.getpid()}', 'w').close()\n"
        "    time.sleep(1000)"
    )
    note = str(script.directory / "note")
    devices: list[tuple[str, ...]] = [("0",), ()]
    process = script.start(guarded(body, call("hang", {"note": note}, "auto", 2, devices)))
    until(lambda: len(list(script.directory.glob("note*"))) == 2)
    zygotes = psutil.Process(process.pid).children()
    assert len(zygotes) == 2
    for doomed in (process, *zygotes):
        doomed.send_signal(signal.SIGSTOP)
    for doomed in (*zygotes, process):
        doomed.kill()
    until(lambda: not script.survivors())


@pytest.mark.parametrize("method", METHODS)
def test_a_script_that_sets_the_variable_itself_does_not_move_its_jobs(script: Script, method: str) -> None:
    """The first lines of many scripts: one GPU for all."""
    body = (
        "import os\n"
        "os.environ['CUDA_VISIBLE_DEVICES'] = '0'\n"
        "def f(): return os.environ['CUDA_VISIBLE_DEVICES']"
    )
    devices: list[tuple[str, ...]] = [("2",), ("3",), ()]
    output = script.run(guarded(body, call("f", {}, method, 3, devices)))
    found = re.findall(r"JobsFinished\(incarnation=(\d).*?result=b'\"(.*?)\"'", output)
    assert sorted(found) == [("1", "2"), ("2", "3"), ("3", "")], output


@pytest.mark.parametrize("delays", some([[0.0, 0.05], [0.02, 0.09]], 1))
def test_an_interrupt_during_the_start_harms_no_worker(script: Script, delays: list[float]) -> None:
    """P17: Ctrl+C goes to the whole foreground group, at any moment of the start."""
    body = "import signal\nsignal.signal(signal.SIGINT, lambda *_: None)\ndef f(): return 1"
    for method, devices in [*((method, None) for method in METHODS), (METHODS[0], [("0",), ("1",)])]:
        for delay in delays:
            source = guarded("print('up', flush=True)\n" + body, call("f", {}, method, 2, devices))
            process = script.start(source)
            assert process.stdout is not None and process.stdout.readline() == "up\n"
            time.sleep(0.01 + delay)  # not to wait for anything: to hit different moments
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            assert output.count("Completed(") == 2, (method, delay, output)
