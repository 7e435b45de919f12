"""Real disks that fill up, fail, stall, lose power or refuse everything (D3, D4, D5, D9).

LONG_TESTS=1 cuts the power many times instead of a few.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.storage.journal import journal_format
from tests.conftest import some
from tests.experiment_fixture import PATIENCE, Experiment, wait_for
from tests.failures.bad_disks import (
    GO_ON,
    LONG,
    Machine,
    Witness,
    do,
    left_over,
    mounted,
    needs_root,
    needs_strace,
    progress,
    said_by,
    strace,
    tiny,
)
from tests.failures.observing import open_gate, records, said, wait_until_said, write

FULL = """
    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(8)]

    def evaluate(number):
        note("ran")
        if number == 3:
            gate("on")
        time.sleep(0.15)  # too long for several to be handed out together
        return {"square": number * number, "pad": "x" * 5000}

    if __name__ == "__main__":
        main(evaluate, jobs, name="full", workers=1, all_tasks=True)
"""


def fill(disk: Path, *, leave: int) -> Path:
    """A file that takes all room but so many bytes."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - leave))
    return ballast


@needs_root("mount")
@pytest.mark.parametrize("leave", [40960, 0], ids=["below 5 percent", "to the last byte"])
def test_a_disk_that_fills_up_is_waited_for(experiment: Experiment, leave: int) -> None:
    """D3: the run says so, waits, goes on by itself when there is room, and loses nothing."""
    write(experiment, FULL)
    with mounted(experiment, "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        supervisor = experiment.start()
        wait_until_said(experiment, "ran", "job/3")
        ballast = fill(disk, leave=leave)
        if leave:
            wait_for(lambda: progress(experiment).get("state") == "waiting_for_space")
        open_gate(experiment, "on")
        wait_for(
            lambda: progress(experiment).get("state") == "waiting_for_space", "nobody says that it waits"
        )
        seen = progress(experiment)["saved_at"]
        wait_for(lambda: progress(experiment)["saved_at"] > seen)
        ballast.unlink()
        _, err = supervisor.communicate(timeout=PATIENCE)
        assert supervisor.returncode == 0, err
        assert "no new jobs are started: " in err
        assert "going on" in err
        log = next(experiment.output.glob("*/supervisor.log")).read_text()
        assert "no new jobs are started: " in log
        pauses = [r["type"] for r in experiment.journal() if r["type"] in ("paused", "unpaused", "leased")]
        at = pauses.index("paused")
        assert pauses[at : at + 3] == ["paused", "unpaused", "leased"], "handed out without room"
        assert experiment.statistics()["paused_seconds"] > 0
        assert sorted(experiment.executions()) == [f"job/{number}" for number in range(8)]
        assert all(entry["result"]["pad"] == "x" * 5000 for entry in experiment.final().values())
        assert left_over(experiment) == []


@needs_root("mount")
def test_a_disk_that_takes_no_more_files_costs_checkpoints_and_nothing_else(experiment: Experiment) -> None:
    """D3: of inodes. Files that are there already can be written: the journal holds everything."""
    write(
        experiment,
        FULL.replace(
            'number == 3:\n            gate("on")', 'number in (3, 6):\n            gate(f"on{number}")'
        ),
    )
    with mounted(experiment, "-t", "tmpfs", "-o", "size=20m,nr_inodes=60", "tmpfs") as disk:
        supervisor = experiment.start("--checkpoint-every", "1")
        wait_until_said(experiment, "ran", "job/3")
        taken: list[Path] = []

        def told() -> bool:
            """Takes what has become free: a checkpoint that was being written replaces the one before it."""
            with contextlib.suppress(OSError):
                while True:
                    (disk / f"taken{len(taken)}").touch()
                    taken.append(disk / f"taken{len(taken)}")
            return "No space left on device); it is tried again" in log_of(experiment)

        told()
        open_gate(experiment, "on3")
        wait_for(told)
        assert supervisor.poll() is None
        for path in taken:
            path.unlink(missing_ok=True)
        open_gate(experiment, "on6")
        _, err = supervisor.communicate(timeout=PATIENCE)
        assert supervisor.returncode == 0, err
        assert "The journal holds everything" in err
        assert experiment.executions() == [f"job/{number}" for number in range(8)]
        assert len(experiment.checkpoint()["completed"]) == 8
        assert left_over(experiment) == []


@needs_strace()
def test_a_failed_sync_is_answered_with_a_new_journal(experiment: Experiment) -> None:
    """D4: the descriptor is not believed again; all records stand in a new file, the run goes on."""
    tiny(experiment, 6)
    text = experiment.script.read_text()  # jobs that are long enough for a sync of each
    experiment.script.write_text(text.replace('note("ran")', 'note("ran"); time.sleep(0.15)'))
    witness = Witness(experiment)
    done = experiment.run(*GO_ON, wrapper=strace("fdatasync", "error=EIO:when=3"))
    assert done.returncode == 0, done.stderr
    assert "all records were written again, into a new file" in said_by(done)
    (opened,) = records(experiment, "opened")
    assert opened["generation"] > 1  # one for each third sync of a thread
    assert sorted(experiment.executions()) == sorted(f"job/{number}" for number in range(6))
    witness.end(6)


# ----------------------------------------------------------------------------- power cuts

ACKNOWLEDGED = """
    from supervisor.core.terms.events import Synced
    from supervisor.storage.store import Store

    really = Store.poll

    def poll(self, now, **how):
        events = really(self, now, **how)
        for event in events:
            if isinstance(event, Synced):
                note("synced", str(event.n))
        if self.checkpoint_age(now) == 0.0:  # it is in its place since this moment
            note("saved", str(json.loads(self.layout.checkpoint.read_bytes())["journal"]["n"]))
        return events

    Store.poll = poll

    def jobs():
        for number in range(300):
            yield Job(id=f"job/{number}", params={"number": number})

    def evaluate(number):
        note("ran")
        if number >= 200:
            gate("cut")
        time.sleep(0.003)
        return {"square": number * number}

    if __name__ == "__main__":
        main(evaluate, jobs, name="cut", workers=2, all_tasks=True)
"""
FILE_SYSTEMS = ("ext4", "xfs")
CUTS = 20 if LONG else 2
# First each file system once, and both kinds of cuts.
POWER_CUTS = [
    pytest.param(kind, cut, marks=needs_root("mount", f"mkfs.{kind}"))
    for later in (0, 1)
    for cut in range(CUTS)
    for kind in [FILE_SYSTEMS[(cut + later) % 2]]
]


def acknowledged(experiment: Experiment, word: str) -> int:
    """The highest record number that the program has called safe."""
    return max((int(number) for number, _ in said(experiment, word)), default=0)


def on_disk(experiment: Experiment) -> tuple[int, set[str]]:
    """Up to which record the journal is whole, and which jobs it calls completed."""
    (path,) = experiment.output.glob("logs/journal_*.jsonl")
    lines = path.read_bytes().split(b"\n")
    opened = json.loads(lines[0])
    seed = journal_format.seed_of(opened["uuid"], opened["generation"])
    last, completed = 0, set()
    for line in lines:
        if journal_format.verify(line, seed) != last + 1:
            break
        last += 1
        record = json.loads(line)
        if record["type"] == "ended" and record["outcome"] == "completed":
            completed.add(record["job"])
    return last, completed


@pytest.fixture
def machine(request: pytest.FixtureRequest, experiment: Experiment) -> Iterator[Machine]:
    """The disk of the experiment's output."""
    made = Machine(experiment.folder, request.param)
    experiment.output = made.point / "out"
    yield made
    experiment.clean_up()
    made.shut_down()


@pytest.mark.timeout(0 if LONG else 120)
@pytest.mark.parametrize(("machine", "cut"), some(POWER_CUTS, CUTS), indirect=["machine"])
def test_a_power_cut_loses_nothing_that_was_called_safe(
    machine: Machine, experiment: Experiment, cut: int
) -> None:
    """D5, D4: synced records and published checkpoints are on the disk after the cut. A run
    whose disk is gone ends by itself, with 74, and what it left can be resumed."""
    write(experiment, ACKNOWLEDGED)
    supervisor = experiment.start(*GO_ON)
    enough = random.Random(cut).randint(2, 120)
    wait_for(lambda: acknowledged(experiment, "synced") > enough and acknowledged(experiment, "saved"))
    safe, saved = acknowledged(experiment, "synced"), acknowledged(experiment, "saved")
    machine.cut()
    open_gate(experiment, "cut")
    if cut % 2:
        supervisor.kill()
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == (-9 if cut % 2 else 74), err
    assert "Traceback" not in err
    machine.boot()  # waits until nobody uses the disk any more
    whole, completed = on_disk(experiment)
    assert whole >= safe, f"the power cut lost the records {whole + 1} to {safe}"
    assert experiment.checkpoint()["journal"]["n"] >= saved
    ran = len(experiment.executions())
    done = experiment.run(*GO_ON)
    assert done.returncode == 0, done.stderr
    assert not completed & set(experiment.executions()[ran:])
    final = experiment.final()
    assert [entry["result"] for entry in final.values()] == [{"square": n * n} for n in range(300)]
    assert left_over(experiment) == []


# -------------------------------------------------------------------- a disk that stalls

STALLED = """
    import supervisor.storage.disk_health
    supervisor.storage.disk_health.STALLED_AFTER = 0.5

    def jobs():
        return [Job(id=f"job/{number}", params={"number": number}) for number in range(60)]

    def evaluate(number):
        note("ran")
        if number >= 20:
            gate("stalled")
        time.sleep(0.01)
        return {"square": number * number}

    if __name__ == "__main__":
        main(evaluate, jobs, name="stalled", workers=2, all_tasks=True)
"""


# The first sync after some jobs have run.
NO_ANSWER = """
    from supervisor.storage.files.disk import Disk

    def datasync(self, fd, hung=[]):
        os.fdatasync(fd)
        if not hung and Path(LOG).exists() and Path(LOG).read_text().count("ran") > 3:
            hung.append(True)
            gate("@UNTIL@")

    Disk.datasync = datasync
"""


def stalls(experiment: Experiment, until: str, more: str = "") -> None:
    """The disk does not answer until this gate is open."""
    texts = (NO_ANSWER.replace("@UNTIL@", until), more, STALLED)
    write(experiment, "".join(map(textwrap.dedent, texts)))


def log_of(experiment: Experiment) -> str:
    return "".join(path.read_text() for path in experiment.output.glob("*/supervisor.log"))


def test_a_disk_that_stalls_blocks_the_hand_out_until_it_answers(experiment: Experiment) -> None:
    """The loop goes on meanwhile: it says what it waits for, and in the end nothing is lost."""
    stalls(experiment, "answers")
    witness = Witness(experiment)
    supervisor = experiment.start(*GO_ON)
    wait_for(
        lambda: "the disk has not answered for" in log_of(experiment), "nobody says that the disk stalls"
    )
    wait_for(lambda: progress(experiment)["state"] == "paused")
    open_gate(experiment, "stalled")
    open_gate(experiment, "answers")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 0, err
    assert "no new jobs are started: the disk has not answered for" in err
    assert "going on" in err
    kinds = [r["type"] for r in experiment.journal() if r["type"] in ("paused", "unpaused", "leased")]
    at = kinds.index("paused")
    assert kinds[at : at + 3] == ["paused", "unpaused", "leased"], "handed out while the disk stalled"
    assert len(set(experiment.executions())) == 60  # what was taken back from a busy worker may run twice
    witness.end(60)


def test_ctrl_c_drains_while_the_disk_stalls(experiment: Experiment) -> None:
    """P18, D11: the drain does not wait for the disk; the last checkpoint does."""
    stalls(experiment, "answers")
    witness = Witness(experiment)
    supervisor = experiment.start(*GO_ON)
    wait_for(lambda: "the disk has not answered for" in log_of(experiment))
    supervisor.send_signal(signal.SIGINT)
    wait_for(lambda: "SIGINT: no new jobs are started" in log_of(experiment), "not while the disk stalls")
    open_gate(experiment, "stalled")
    open_gate(experiment, "answers")
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == -signal.SIGINT, err
    assert experiment.checkpoint()["counts"]["completed"] == len(set(experiment.executions()))
    witness.look()
    done = experiment.run(*GO_ON)
    assert done.returncode == 0, done.stderr
    witness.end(60)


NEVER = """
    import supervisor.storage.store

    supervisor.storage.store.CLOSE_TIMEOUT = 1.0
"""


def test_ctrl_c_ends_a_run_whose_disk_never_answers_again(experiment: Experiment) -> None:
    """In the kernel a thread can hang for ever, and nobody can kill it there: the run says
    what is the matter and ends without it."""
    stalls(experiment, "never", NEVER)
    witness = Witness(experiment)
    supervisor = experiment.start(*GO_ON)
    wait_for(lambda: "the disk has not answered for" in log_of(experiment))
    open_gate(experiment, "stalled")
    supervisor.send_signal(signal.SIGINT)
    _, err = supervisor.communicate(timeout=PATIENCE)
    assert supervisor.returncode == 74, err
    assert "does not answer" in err
    assert "Traceback" not in err
    witness.look()
    write(experiment, STALLED)
    done = experiment.run(*GO_ON)
    assert done.returncode == 0, done.stderr
    witness.end(60)


# ----------------------------------------------------------- directories that refuse (D9)


def attributes(flag: str, directory: Path) -> None:
    try:
        do("chattr", flag, str(directory))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no such attributes here: {error.stderr.decode(errors='replace').strip()}")


@needs_root("chattr")
@pytest.mark.parametrize(
    ("flag", "resumed"),
    some(
        [
            pytest.param("a", False, id="append-only, new"),
            pytest.param("i", True, id="immutable, resumed"),
            pytest.param("a", True, id="append-only, resumed"),
            pytest.param("i", False, id="immutable, new"),
        ],
        2,
    ),
)
def test_a_directory_that_refuses_changes_is_refused_with_the_reason(
    experiment: Experiment, flag: str, resumed: bool
) -> None:
    """D9: before a job has run; when it is mended, the same command goes on."""
    tiny(experiment, 4)
    logs = experiment.output / "logs"
    logs.mkdir(parents=True)
    if resumed:
        experiment.run(*GO_ON, "--only", "job/0")
    ran = experiment.executions()
    attributes(f"+{flag}", logs)
    try:
        done = experiment.run(*GO_ON)
    finally:
        do("chattr", f"-{flag}", str(logs))
    assert done.returncode == 73, done.stderr
    assert str(logs) in said_by(done)
    assert "Operation not permitted" in done.stderr
    assert "--output DIR" in done.stderr
    assert experiment.executions() == ran
    assert experiment.run(*GO_ON).returncode == 0
    assert left_over(experiment) == []


@needs_root("mount")
def test_a_read_only_disk_is_refused_with_the_reason(experiment: Experiment) -> None:
    """D9: a new start as well as a resume."""
    tiny(experiment, 4)
    with mounted(experiment, "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        do("mount", "-o", "remount,ro", str(disk))
        for made in (False, True):
            done = experiment.run(*GO_ON)
            assert done.returncode == 73, done.stderr
            assert str(experiment.output) in said_by(done)
            assert "Read-only file system" in done.stderr
            do("mount", "-o", "remount,rw", str(disk))
            assert experiment.run(*GO_ON, *(() if made else ("--only", "job/0"))).returncode == 0
            do("mount", "-o", "remount,ro", str(disk))
        assert sorted(experiment.executions()) == [f"job/{number}" for number in range(4)]
