"""Whole programs whose nodes share no file system with the supervisor (`--files ship`): the same files are there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.experiment_fixture import PATIENCE, Experiment, longhaul, wait_for
from tests.nodes.test_whole_programs import agents

pytestmark = pytest.mark.slow

NODES = ("--engine", "pipes", "--nodes", "2")
SHIP = (*NODES, "--files", "ship")

WRITES = r"""
    IDS = ["plain", "a/../../b", ".hidden", "long" * 60, "größe", "silent", "much", "fails", "no folder", "crashes"]

    def jobs():
        for each in IDS:
            yield Job(id=each, params={"name": each})

    def setup():
        print("set up", flush=True)
        note("set", "up")

    def evaluate(name):
        note("ran")
        job = current_job()
        if name != "silent":
            print("hello of", name, flush=True)
            os.system("echo from a child")
        if name == "much":
            sys.stdout.write("".join(f"line {number}\\n" for number in range(1_000_000)))
        if name == "no folder":
            return None
        folder = job.directory
        (folder / "result.bin").write_bytes(os.urandom(0) + b"x" * 200_000)
        (folder / "empty").mkdir()
        deep = folder / "sub" / "deeper"
        deep.mkdir(parents=True)
        (deep / "script.sh").write_text("#!/bin/sh\n")
        (deep / "script.sh").chmod(0o750)
        (deep / "secret").write_text("s")
        (deep / "secret").chmod(0o200)
        os.utime(deep / "script.sh", (1e9, 1e9))
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n")).write_text("odd")
        (folder / "latest").symlink_to("sub/deeper/script.sh")
        (folder / "sub" / "up").symlink_to(folder / "result.bin")
        (folder / "sub").chmod(0o550)
        if name == "fails":
            raise ValueError("no")
        if name == "crashes":
            os.kill(os.getpid(), 11)
        return str(folder)

    if __name__ == "__main__":
        main(evaluate, jobs, name="files", workers=4, all_tasks=True, setup=setup, retries=0, crash_limit=1)
"""


def tree(top: Path) -> dict[bytes, tuple[str, int, object]]:
    """Kind, mode and content of all that is below; times of files that have got one."""
    found: dict[bytes, tuple[str, int, object]] = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in folders + files:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            key, mode = os.path.relpath(path, os.fsencode(top)), stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                target = os.path.realpath(path)
                found[key] = "link", 0, os.path.relpath(target, os.path.realpath(os.fsencode(top)))
            elif stat.S_ISDIR(status.st_mode):
                found[key] = "folder", mode, None
            else:
                with open(path, "rb") as file:
                    found[key] = "file", mode, (file.read(), status.st_mtime if status.st_mtime == 1e9 else 0)
    return found


def without_places(text: bytes) -> list[bytes]:
    """The lines of a log but those that differ from run to run."""
    return [line.replace(b"/there/", b"/here/") for line in text.splitlines() if b"0x" not in line]


def line_of(experiment: Experiment, text: str) -> int:
    lines = experiment.script.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def results_of(experiment: Experiment) -> Path:
    return experiment.output / experiment.experiment_id()


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory for temporary files that no other program uses, and in which no agent leaves anything."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    yield
    assert [path for path in directory.iterdir() if path.name.startswith("longhaul-node-")] == []


def test_a_run_leaves_the_same_files_as_on_one_machine(tmp_path: Path) -> None:
    found, logs, kinds, directories = [], [], [], []
    for name, arguments in (("here", ()), ("there", SHIP)):
        folder = tmp_path / name
        folder.mkdir()
        experiment = Experiment(folder)
        experiment.write(WRITES)
        run = experiment.run(*arguments)
        assert run.returncode == 1, run.stderr
        results = results_of(experiment)
        found.append(tree(results / "jobs"))
        logs.append({path.name: path.read_bytes() for path in (results / "output").iterdir()})
        kinds.append(sorted(path.name for path in results.iterdir()))
        error = experiment.final()["crashes"]["error"]
        assert (error["signal"], error["where"]) == (11, f"exp.py:{line_of(experiment, 'os.getpid(), 11')}")
        assert error["output_tail"].startswith("hello of crashes\nfrom a child\n")
        directories.append(experiment.final()["plain"]["result"])
    assert os.path.isdir(directories[0])
    assert "longhaul-node-" in directories[1] and not os.path.exists(directories[1])
    assert kinds[0] == kinds[1]
    assert len(found[0]) == 9 * 10 and found[0] == found[1]
    here, there = ({n: log for n, log in each.items() if not n.startswith("%worker")} for each in logs)
    assert here.keys() == there.keys() and len(here) == 9
    for name, log in here.items():
        assert without_places(log) == without_places(there[name]), name
    assert len(here["much.log"]) > 9_000_000 and b"bytes left out" in here["much.log"]
    stray = [log for name, log in logs[1].items() if name.startswith("%worker")]
    workers = experiment.executions_file.read_text().count("set up ")  # those of a node that joined in time
    assert 1 <= workers <= len(stray) and all(log.startswith(b"set up\n") for log in stray)


SAVES = """
    def jobs():
        for number in range(2):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        job = current_job()
        before = job.load()
        print("attempt", job.attempt, "goes on from", before, flush=True)
        if before is None:
            (job.directory / "step1").write_text("one")
            job.save({"step": 1, "by": os.getpid()})
            while True:
                time.sleep(0.01)
        return [before["step"], (job.directory / "step1").read_text()]

    if __name__ == "__main__":
        main(evaluate, jobs, name="saves", workers=2, all_tasks=True)
"""


def saved(experiment: Experiment) -> list[Path]:
    return [path for path in experiment.output.glob("*/states/*") if not path.name.startswith(".")]


def test_a_state_is_loaded_wherever_its_job_goes_on_after_the_loss_of_its_node(
    experiment: Experiment,
) -> None:
    experiment.write(SAVES)
    supervisor = experiment.start(*SHIP)
    wait_for(lambda: len(saved(experiment)) == 2, "both states to be there")
    for agent in agents(supervisor.pid):
        agent.kill()
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert [entry["result"] for entry in experiment.final().values()] == [[1, "one"], [1, "one"]]
    ended = Counter(r["outcome"] for r in experiment.journal() if r["type"] == "ended" and "outcome" in r)
    assert ended == {"lost": 2, "completed": 2}
    log = (results_of(experiment) / "output" / "job%2F0.log").read_text()
    assert log.startswith("attempt 1 goes on from None\n\n--- attempt 2 ---\nattempt 2 goes on from {")
    assert saved(experiment) == []


def test_a_resume_on_one_machine_goes_on_from_the_state_that_a_node_has_sent(experiment: Experiment) -> None:
    experiment.write(SAVES)
    supervisor = experiment.start(*SHIP)
    wait_for(lambda: len(saved(experiment)) == 2, "both states to be there")
    supervisor.kill()
    supervisor.communicate()
    wait_for(lambda: not experiment.processes(), "the processes of the nodes to end")
    run = experiment.run("--resume", "latest", "--engine", "local")
    assert run.returncode == 0, run.stderr
    assert [entry["result"] for entry in experiment.final().values()] == [[1, "one"], [1, "one"]]
    assert not (results_of(experiment) / ".from-nodes").exists()


PRINTS = """
    def jobs():
        yield Job(id="talks", params={})

    def evaluate():
        note("ran")
        print("first words", flush=True)
        gate = Path(LOG).with_name("gate")
        while not gate.exists():
            time.sleep(0.01)
        print("last words")
        return 1

    if __name__ == "__main__":
        main(evaluate, jobs, name="talks", workers=1, all_tasks=True)
"""


def follow(experiment: Experiment, job: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor", "output", "--follow", job, str(experiment.output)],
        env=experiment.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    experiment.started.append(process)
    return process


def test_output_stacks_and_memory_of_a_job_are_seen_while_it_runs_elsewhere(experiment: Experiment) -> None:
    experiment.write(PRINTS)
    supervisor = experiment.start("--engine", "pipes", "--files", "ship", "--show-output")
    scratch = lambda: [*experiment.output.glob("*/output/.worker0-*.part")]  # noqa: E731
    wait_for(lambda: any(b"\n" in path.read_bytes() for path in scratch()), "the first words")
    follower = follow(experiment, "talks")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "first words\n"  # before the job ends
    out = longhaul("ctl", str(experiment.output), "stacks").stdout
    assert "exp.py" in out and "in evaluate" in out
    out = longhaul("show", "talks", str(experiment.output)).stdout
    assert "talks" in out and "running" in out
    experiment.folder.joinpath("gate").touch()
    assert follower.stdout.read() == "last words\n"
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert "first words" in err and "last words" in err
    out = longhaul("memory", str(experiment.output)).stdout
    assert "talks" in out, out
    (log,) = experiment.output.glob("*/output/talks.log")
    assert log.read_text() == "first words\nlast words\n"
    assert not list(experiment.output.glob("*/output/.*"))


LARGE = """
    MB = 1 << 20

    def jobs():
        yield Job(id="large", params={"size": @SIZE@})
        for number in range(20):
            yield Job(id=f"small/{number}", params={"size": 1})

    def evaluate(size):
        note("ran")
        job = current_job()
        while not Path(LOG).with_name("gate").exists():
            time.sleep(0.005)
        with open(job.directory / "data.bin", "wb") as file:
            for _ in range(size):
                file.write(b"d" * MB)
        (job.directory / "zz").write_text(str(job.attempt))
        return size

    if __name__ == "__main__":
        @HOLD@
        main(evaluate, jobs, name="large", workers=2, all_tasks=True)
"""
# The supervisor takes in no more than a part of the large file until "go on" is there.
HOLD = """
        from supervisor.nodes.shipping.file_receipt import NodeFiles

        def take_and_hold(self, report, slot, take=NodeFiles.take):
            take(self, report, slot)
            parts = lambda: Path("out").glob("*/.from-nodes/parcel-*/data.bin")
            while not Path("go on").exists() and any(part.stat().st_size > 5 << 20 for part in parts()):
                time.sleep(0.005)

        NodeFiles.take = take_and_hold
"""


def peak_memory(process: psutil.Process) -> int:
    """Bytes."""
    with open(f"/proc/{process.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def data_of(experiment: Experiment, job: str) -> Path:
    return results_of(experiment) / "jobs" / job / "data.bin"


def test_a_large_artifact_takes_little_memory_and_holds_back_its_own_outcome_alone(
    experiment: Experiment,
) -> None:
    experiment.write(LARGE.replace("@SIZE@", "100").replace("@HOLD@", "pass"))
    supervisor = experiment.start(*SHIP)
    wait_for(lambda: len(experiment.executions()) == 2, "both agents to have jobs")
    processes = [psutil.Process(supervisor.pid), *agents(supervisor.pid)]
    assert len(processes) == 3
    most = {process.pid: 0 for process in processes}
    experiment.folder.joinpath("gate").touch()

    def over() -> bool:
        for process in processes:
            try:
                most[process.pid] = max(most[process.pid], peak_memory(process))
            except (OSError, StopIteration):
                continue
        return supervisor.poll() is not None

    wait_for(over, "the run to end")
    _, err = supervisor.communicate()
    assert supervisor.returncode == 0, err
    assert data_of(experiment, "large").read_bytes() == b"d" * (100 << 20)
    order = experiment.completed_in_journal()
    assert len(order) == 21 and order[-1] == "large"
    assert all(0 < size < 100 << 20 for size in most.values()), most


def size_of(path: Path) -> int:
    """Bytes; 0 if the file has got another name since it was found."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("whom", ["agent", "supervisor"])
def test_what_is_killed_in_the_middle_of_a_transfer_leaves_nothing_half(
    experiment: Experiment, whom: str
) -> None:
    experiment.write(LARGE.replace("@SIZE@", "20").replace("@HOLD@", HOLD.strip()))
    supervisor = experiment.start(*SHIP)
    experiment.folder.joinpath("gate").touch()
    parts = lambda: [*experiment.output.glob("*/.from-nodes/parcel-*/data.bin")]  # noqa: E731
    wait_for(lambda: any(size_of(path) > 5 << 20 for path in parts()), "the transfer to begin")
    if whom == "supervisor":
        supervisor.kill()
        supervisor.communicate()
        assert not data_of(experiment, "large").exists()
        wait_for(lambda: not experiment.processes(), "the processes of the nodes to end")
        experiment.folder.joinpath("go on").touch()
        run = experiment.run("--resume", "latest", *SHIP)
        assert run.returncode == 0, run.stderr
    else:
        for agent in agents(supervisor.pid):
            agent.kill()
        experiment.folder.joinpath("go on").touch()
        _, err = supervisor.communicate(timeout=PATIENCE)
        assert supervisor.returncode == 0, err
    final = experiment.final()
    assert len(final) == 21 and {entry["state"] for entry in final.values()} == {"completed"}
    assert Counter(experiment.completed_in_journal()) == Counter(final.keys())
    assert Counter(experiment.executions())["large"] == 2
    assert data_of(experiment, "large").stat().st_size == 20 << 20
    ends = [r["outcome"] for r in experiment.journal() if r["type"] == "ended" and r["job"] == "large"]
    # The outcome of the job before it may have been on its way still: then that one counts as the one that ran.
    assert (
        ends in (["lost", "completed"], ["completed"])
        if whom == "supervisor"
        else ends == ["lost", "completed"]
    )
    assert not (results_of(experiment) / ".from-nodes").exists()


def test_a_node_that_sees_the_directory_writes_into_it(experiment: Experiment) -> None:
    experiment.write(WRITES.replace('"much", "fails", "no folder", "crashes"]', '"no folder"]'))
    run = experiment.run(*NODES)
    assert run.returncode == 0, run.stderr
    directory = experiment.final()["plain"]["result"]
    assert directory == str(results_of(experiment) / "jobs" / "plain") and Path(directory).is_dir()
    assert not (results_of(experiment) / ".from-nodes").exists()
    refused = experiment.run("--files", "ship")
    assert refused.returncode == 2 and "--files needs --engine" in refused.stderr


def test_a_job_of_a_node_finds_the_files_of_its_earlier_attempt(experiment: Experiment) -> None:
    experiment.write(
        """
        def jobs():
            yield Job(id="again", params={})

        def evaluate():
            folder = current_job().directory
            if not (folder / "sub").exists():
                (folder / "sub").mkdir()
                (folder / "sub" / "part").write_text("of the first attempt")
                current_job().save(json.dumps([1]))
                raise ValueError("first")
            return [(folder / "sub" / "part").read_text(), current_job().load()]

        if __name__ == "__main__":
            main(evaluate, jobs, name="again", workers=1, all_tasks=True, retries=1, backoff=0.01)
        """
    )
    run = experiment.run("--engine", "pipes", "--files", "ship")
    assert run.returncode == 0, run.stderr
    assert experiment.final()["again"]["result"] == ["of the first attempt", "[1]"]
