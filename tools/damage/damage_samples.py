"""What is measured of a batch that is damaged: a job that always crashes, a runner that is killed, a torn record."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.benchmark.child_processes import Bench, Failed, Hangs, Numbers
from tools.damage.batch_process import BatchProcess, Note, Notes
from tools.damage.damage_jobs import RESUMED, Batch
from tools.damage.damage_programs import CONTENDERS, answer

CRASH_SECONDS = 0.1  # of each good job beside the one that crashes
SETTLED = 1.0  # seconds; less than a long job takes


class Damage(NamedTuple):
    """How much. `jobs`, `done`: of the batch that is killed, and those done by then, for who is given a share of 1."""

    good: int = 50
    starts: int = 6
    jobs: int = 12_000
    done: int = 10_000
    torn_jobs: int = 40
    torn_done: int = 30
    cuts: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75)
    watched: float = 5.0  # seconds after the kill: who is left then computes on
    patience: float = 900.0  # for one start of the batch


QUICK = Damage(good=10, jobs=120, done=100, torn_jobs=12, torn_done=8, cuts=(0.5,), patience=120.0)


def damage_of(bench: Bench) -> Damage:
    """A quick look is told from the sizes of the others."""
    return Damage() if bench.sizes.tiny >= 100_000 else QUICK


# ------------------------------------------------------------------- a job that always crashes


def crash(bench: Bench, contender: str) -> Numbers:
    """One job in the middle of good ones always dies of SIGSEGV. The batch is started until it has ended by itself
    with all good jobs done, but no more than `starts` times: who needs more than one start needs somebody there."""
    sizes = damage_of(bench)
    number = sizes.good // 2 + 1
    batch = Batch(bench.place(), sizes.good + 1, crash=number, seconds=CRASH_SECONDS)
    notes, good = Notes(batch.notes), {*range(1, sizes.good + 2)} - {number}
    began, starts = time.monotonic(), 0
    said = answer([])
    with BatchProcess(contender, batch) as process:
        while starts < sizes.starts:
            starts += 1
            process.start()
            try:
                _, said = process.wait(sizes.patience)
            except Hangs as error:
                said = answer([], lost=str(error))
                break
            notes.read()
            if good <= {*said["done"]} or (good <= notes.done() and not said["lost"]):
                break
        seconds = time.monotonic() - began
    results = {*said["done"]} & good
    blamed = {int(each): why for each, why in said["blamed"].items()}
    return {
        "good": len(good),
        "results": len(results),
        "starts": starts,
        "finished": results == good,
        "guilty": blamed.get(number, ""),
        "innocent": sorted({*blamed} & good),
        "lost": said["lost"],
        "seconds": seconds,
        "crashes": sum(note[:2] == ("begun", number) for note in notes.lines),
    }


# ------------------------------------------------------------------- the runner is killed


def kill(bench: Bench, contender: str) -> Numbers:
    """SIGKILL for the process that was started, when so many jobs are done; it is watched what is left, and then the
    batch is started again."""
    sizes, share = damage_of(bench), CONTENDERS[contender].share
    jobs, done = max(8, int(sizes.jobs * share)), max(4, int(sizes.done * share))
    batch = Batch(bench.place(), jobs, long_from=done + 1)
    with BatchProcess(contender, batch) as process:
        notes = _run_and_kill(process, done, sizes.patience)
        finished, before = notes.done(), len(notes.lines)
        process.wait_for_nobody(sizes.watched)
        orphans = process.left()
        names = sorted(_name(each.cmdline()) for each in orphans)
        notes.read()
        # Whoever has a job now, or is there now, does not belong to the second start.
        # (Not all pids of before: with a process for each of so many jobs, they come again.)
        busy = [note.pid for note in notes.lines[:before] if note.job not in finished]
        old = {*busy, *(note.pid for note in notes.lines[before:]), *(each.pid for each in orphans)}
        fresh = {*range(1, jobs + 1)} - finished
        Path(f"{batch.notes}{RESUMED}").touch()
        process.start()
        new = notes.wait_for(
            lambda lines: bool(_jobs(lines, "begun", without=old) & fresh), process, sizes.patience
        )
        _, said = process.wait(sizes.patience)
        process.wait_for_nobody(sizes.watched)
        notes.read()
        later = notes.lines[before:]
        again = _jobs(later, "begun", without=old)
        went_on = _jobs([note for note in later if note.pid in old], "done")
        left = sorted(_name(each.cmdline()) for each in process.left())
    return {
        "jobs": jobs,
        "done": len(finished),
        "again": len(again & finished),
        "orphans": names,
        "went_on": len(went_on),
        "twice": len(again & went_on),
        "first_new": new,
        "results": len(said["done"]),
        "left": left,
    }


def _jobs(lines: Sequence[Note], word: str, *, without: Collection[int] = ()) -> set[int]:
    """The jobs of the notes with that word, but for those of some processes."""
    return {note.job for note in lines if note.word == word and note.pid not in without}


def _run_and_kill(process: BatchProcess, done: int, patience: float, *, settled: float = 0.0) -> Notes:
    """settled: seconds from the end of so many jobs to the kill, in which their records can be written."""
    notes, count = Notes(process.batch.notes), 0

    def enough(lines: list[Note]) -> bool:
        nonlocal count
        count += sum(note.word == "done" for note in lines)
        return count >= done

    process.start()
    notes.wait_for(enough, process, patience)
    time.sleep(settled)
    process.kill()
    notes.read()
    return notes


def _name(command: list[str]) -> str:
    """A process in a word: the program, or what an interpreter was given: a script, a module, or the module from which
    its code imports."""
    if not command or "python" not in Path(command[0]).name:
        return Path(command[0]).name if command else "?"
    given = next((word for word in command[1:] if not word.startswith("-")), "python")
    return given.split()[1] if given.startswith("from ") else Path(given).name


# ------------------------------------------------------------------- a torn last record


def torn(bench: Bench, contender: str) -> Numbers:
    """The runner is killed, and of the record of the last job that had ended there is only a part, as after a power
    cut; the batch is started twice: does it start at all, does that job run again, does any other one?"""
    sizes = damage_of(bench)
    if not CONTENDERS[contender].record:
        raise Failed("it keeps no record from which it could go on")
    batch = Batch(bench.place(), sizes.torn_jobs, long_from=sizes.torn_done + 1)
    found = []
    with BatchProcess(contender, batch) as process:
        finished = _run_and_kill(process, sizes.torn_done, sizes.patience, settled=SETTLED).done()
        process.end_all()
    Path(f"{batch.notes}{RESUMED}").touch()
    kept = Path(bench.place(), "kept")
    shutil.copytree(batch.folder, kept, symlinks=True)
    for cut in sizes.cuts:
        shutil.rmtree(batch.folder)
        shutil.copytree(kept, batch.folder, symlinks=True)
        tear(contender, Path(batch.folder), cut)
        found.append({"cut": cut, **_resume_twice(contender, batch, finished, sizes.patience)})
    return {"jobs": batch.jobs, "done": len(finished), "cuts": found}


def _resume_twice(contender: str, batch: Batch, finished: set[int], patience: float) -> Numbers:
    """`again`, `again_later`: the finished jobs that the first and the second start run once more."""
    notes = Notes(batch.notes)
    notes.read()
    counts = []
    with BatchProcess(contender, batch) as process:
        for done in (finished, {*range(1, batch.jobs + 1)}):
            before = len(notes.lines)
            process.start()
            try:
                code, said = process.wait(patience)
            except Hangs as error:
                code, said = 1, answer([], lost=str(error))
            notes.read()
            begun = _jobs(notes.lines[before:], "begun")
            counts.append((len(begun & done), len(begun), code, said))
    (again, begun_first, code, said), (later, *_) = counts
    refused = begun_first == 0 and len(said["done"]) < batch.jobs
    return {
        "refused": said["lost"] if refused else "",
        "again": again,
        "again_later": 0 if refused else later,
        "results": len(said["done"]),
        "code": code,
    }


def tear(contender: str, folder: Path, cut: float) -> Path:
    """Take from the record of the last job that ended all but its first part, a share of `cut`; whatever stands
    behind it goes as well. The file that was torn."""
    path = max(folder.glob(CONTENDERS[contender].record), key=lambda each: each.stat().st_mtime_ns)
    if contender == "dbos":
        _tear_transaction(path)
        return path
    text = path.read_bytes()
    begin, end = RECORDS.get(contender, last_line)(text)
    path.write_bytes(text[: begin + max(1, min(int((end - begin) * cut), end - begin - 2))])
    return path


def last_line(text: bytes) -> tuple[int, int]:
    end = len(text)
    return text.rstrip(b"\n").rfind(b"\n") + 1, end


def last_outcome(text: bytes) -> tuple[int, int]:
    """Of a journal: behind the last outcome there may be leases and more."""
    begin = text.rfind(b"\n", 0, text.rfind(b'"type":"ended"')) + 1
    return begin, text.index(b"\n", begin) + 1


def last_pickle(text: bytes) -> tuple[int, int]:
    """Of pickles one behind the other: each begins with PROTO and ends with STOP."""
    import io
    import pickle

    file, begin = io.BytesIO(text), 0
    while file.tell() < len(text):
        begin = file.tell()
        pickle.load(file)
    return begin, len(text)


RECORDS: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "longhaul": last_outcome,
    "parsl": last_pickle,
    "joblib": lambda text: (0, len(text)),  # a file for each result
}

_TEAR = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE workflow_status SET status='SUCCESS' WHERE workflow_uuid=?", [sys.argv[2]])
connection.execute("UPDATE workflow_status SET inputs=inputs||hex(zeroblob(2000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def _tear_transaction(path: Path) -> None:
    """A database has no last record to cut; what a crash leaves is a transaction that is half written: here the one
    that would have brought the last job's outcome, with its pages in the file already."""
    connection = sqlite3.connect(path)
    with connection:
        (job,) = connection.execute(
            "SELECT workflow_uuid FROM workflow_status WHERE status='SUCCESS' ORDER BY updated_at DESC LIMIT 1"
        ).fetchone()
        connection.execute(
            "UPDATE workflow_status SET status='PENDING', output=NULL WHERE workflow_uuid=?", [job]
        )
        connection.execute("DELETE FROM operation_outputs WHERE workflow_uuid=?", [job])
    connection.close()
    subprocess.run([sys.executable, "-c", _TEAR, str(path), job], check=False)
    if not Path(f"{path}-journal").exists():
        raise Failed("no transaction was torn: there is no rollback journal")


DAMAGES: dict[str, Callable[[Bench, str], Numbers]] = {"crash": crash, "kill": kill, "torn": torn}
