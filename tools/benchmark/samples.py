"""What is measured: each situation starts fresh processes and gives numbers.

A sample is one measurement with a name, "CONTENDER/SITUATION"; several rows of the table may
need the same one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from tools.benchmark.child_processes import (
    LAST_WORDS,
    PATIENCE,
    Bench,
    Failed,
    Hangs,
    Numbers,
    cpu_seconds,
    end,
    start,
)
from tools.benchmark.cluster_samples import BESIDE, CLUSTER, measure_cluster
from tools.benchmark.crowd_samples import CROWD
from tools.benchmark.jobs import FRAGILE_JOBS, KILLED
from tools.benchmark.page_samples import PAGES
from tools.benchmark.peers import ALL_PEERS, DURABLE_PEERS, PEERS, WORKERS
from tools.damage.damage_samples import DAMAGES

GNU_PARALLEL = "parallel"  # no library, but a program that is installed or not
_PIECE = 256 << 10  # bytes


def measure(bench: Bench, sample: str) -> Numbers:
    """Take one sample, by its name: "CONTENDER/SITUATION". Raises Failed."""
    contender, _, situation = sample.partition("/")
    os.sync()  # what the one before has written is not our business
    try:
        if contender in (CLUSTER, BESIDE):
            return measure_cluster(bench, contender, situation, SITUATIONS)
        if situation in DAMAGES:
            return DAMAGES[situation](bench, contender)
        return SITUATIONS[situation](bench, contender)
    finally:
        bench.clean()


def _run(bench: Bench, contender: str, situation: str, **keywords: Any) -> Numbers:
    if contender == "longhaul":
        return bench.ours(situation, output=bench.place(), **keywords)
    return bench.child("peers.py", contender, situation, json.dumps(keywords))


def _tiny(bench: Bench, contender: str) -> Numbers:
    jobs = bench.sizes.tiny
    if contender in ALL_PEERS:
        jobs = max(1, int(ALL_PEERS[contender].jobs * bench.sizes.peers))
    found = _run(bench, contender, "tiny", jobs=jobs)
    return {
        "jobs": jobs,
        "sustained": found["jobs"] / found["seconds"],
        "whole": found["jobs"] / found["whole_seconds"],
    }


def _tiny_more(bench: Bench, contender: str) -> Numbers:
    """As `_tiny`, with more jobs: what the start has in it weighs less."""
    found = _run(bench, contender, "tiny", jobs=bench.sizes.tiny_more)
    return {"jobs": found["jobs"], "sustained": found["jobs"] / found["seconds"]}


def _share(bench: Bench, contender: str, jobs: int, each: float) -> Numbers:
    found = _run(bench, contender, "cpu", jobs=jobs, each=each)
    return {"jobs": jobs, "share": share(found["spans"]), "checkpoint": found.get("checkpoint_share")}


def share(spans: Sequence[Sequence[float]]) -> float:
    """The part of the cores' time that was spent in jobs, from the first start to the last
    end; of spans (start, end, CPU seconds)."""
    wall = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return sum(used for _, _, used in spans) / (WORKERS * wall)


def _cpu_1ms(bench: Bench, contender: str) -> Numbers:
    return _share(bench, contender, bench.sizes.cpu_1ms, 0.001)


def _cpu_10ms(bench: Bench, contender: str) -> Numbers:
    jobs = bench.sizes.cpu_10ms
    if contender in DURABLE_PEERS:
        jobs = min(jobs, max(4, int(DURABLE_PEERS[contender].jobs * bench.sizes.peers)))
    return _share(bench, contender, jobs, 0.010)


def _cpu_10ms_more(bench: Bench, contender: str) -> Numbers:
    """As `_cpu_10ms`, with more jobs: what the start has in it weighs less."""
    return _share(bench, contender, bench.sizes.cpu_10ms_more, 0.010)


def _killed(bench: Bench, contender: str) -> Numbers:
    """One of twenty jobs kills its worker: what becomes of it, and of the others."""
    path = Path(bench.place()) / "starts.txt"
    if contender in PEERS:
        try:
            words = (contender, "killed", json.dumps({"path": str(path)}))
            patience = bench.sizes.hang_seconds
            found = bench.child("peers.py", *words, patience=patience, after=lambda: _has_killed(path))
        except Hangs:
            found = {"errors": [], "hangs": True, "waited": bench.sizes.hang_seconds}
    else:
        found = _run(bench, contender, "killed", path=str(path))
    lines = [line.split() for line in path.read_text().splitlines()]
    killed = [float(line[1]) for line in lines if line[0] == "kill"]
    starts = [float(line[1]) for line in lines if line[0] == str(KILLED)]
    found.setdefault("completed", sum(line == ["result"] for line in lines))
    again = (starts[1] - killed[0]) * 1000 if len(starts) > 1 else None
    return {"hangs": False, **found, "jobs": FRAGILE_JOBS, "again_ms": again}


def _has_killed(path: Path) -> bool:
    return path.exists() and "kill" in path.read_text()


# --------------------------------------------------------- longhaul's own, by the table


def _growth(bench: Bench, contender: str) -> Numbers:
    """No-op jobs from a generator: one, and then more and more; each in a fresh process."""
    outputs = {str(jobs): bench.place() for jobs in (1, *bench.sizes.growth)}
    runs = {jobs: bench.ours("tiny", output=output, jobs=int(jobs)) for jobs, output in outputs.items()}
    few, many, most = bench.sizes.growth

    def marginal(low: int, high: int, number: str) -> float:
        """Microseconds for each job more."""
        return float(1e6 * (runs[str(high)][number] - runs[str(low)][number]) / (high - low))

    return {
        "runs": runs,
        "growth": marginal(many, most, "whole_seconds") / marginal(few, many, "whole_seconds"),
        "first_us": marginal(few, many, "whole_seconds"),
        "last_us": marginal(many, most, "whole_seconds"),
        "first_sustained_us": marginal(few, many, "seconds"),
        "last_sustained_us": marginal(many, most, "seconds"),
        "peak_mb": _megabytes(runs[str(most)]["peak_kb"] - runs["1"]["peak_kb"]),
        "empty_mb": _megabytes(runs["1"]["peak_kb"]),
        "checkpoint": max(runs[str(jobs)]["checkpoint_share"] for jobs in bench.sizes.growth),
        "way_out_seconds": runs[str(most)]["way_out_seconds"],
        "way_out_percent": 100 * runs[str(most)]["way_out_seconds"] / runs[str(most)]["whole_seconds"],
        "bytes_seconds": _seconds_for_bytes(Path(outputs[str(most)])),
    }


def _seconds_for_bytes(output: Path) -> float:
    """What the way out would take if it cost nothing to make its files: the journal is read with a checksum, and as
    many bytes as the checkpoint and logs_final.json have are written and synced, those of the checkpoint with one."""
    (journal,) = output.glob("logs/journal_*.jsonl")
    (checkpoint,), (final,) = output.glob("logs/checkpoint_*.json"), output.glob("*/logs_final.json")
    texts = [(checkpoint.read_bytes(), True), (final.read_bytes(), False)]
    began = time.monotonic()
    with journal.open("rb") as file:
        while piece := file.read(_PIECE):
            zlib.crc32(piece)
    for text, summed in texts:
        with (output / "copy").open("wb", buffering=0) as file:
            for start in range(0, len(text), _PIECE):
                piece = text[start : start + _PIECE]
                if summed:
                    zlib.crc32(piece)
                file.write(piece)
            os.fdatasync(file.fileno())
    return time.monotonic() - began


def _megabytes(kilobytes: float) -> float:
    return kilobytes * 1024 / 1e6


def _resume(bench: Bench, contender: str) -> Numbers:
    """Nearly all jobs were completed when the supervisor was killed; from the start of Python to the first of the
    others."""
    sizes, output = bench.sizes, bench.place()
    starts = Path(bench.place()) / "starts.txt"
    plan = {"output": output, "jobs": sizes.resumed, "first": sizes.completed}
    bench.ours("some", starts=str(starts), **plan)
    born = time.monotonic()
    found = bench.ours("rest", starts=str(starts), **plan)
    return {**found, "seconds": _first_line(starts) - born, "peak_mb": _megabytes(found["peak_kb"])}


def _first_line(path: Path) -> float:
    return min(map(float, path.read_text().split()))


def _recovery(bench: Bench, contender: str) -> Numbers:
    """A job is killed over and over while the other worker is busy: until it runs again."""
    path = Path(bench.place()) / "starts.txt"
    keywords = {"output": bench.place(), "path": str(path), "kills": bench.sizes.kills}
    bench.child("longhaul_with_numpy.py", "recovery", json.dumps(keywords))
    lines = [line.split() for line in path.read_text().splitlines()]
    killed = [float(at) for word, at in lines if word == "kill"]
    starts = [float(at) for word, at in lines if word == "start"]
    times = [1000 * (again - before) for before, again in zip(killed, starts[1:], strict=True)]
    return {"ms": statistics.median(times), "worst_ms": max(times), "all_ms": times}


def _fairness(bench: Bench, contender: str) -> Numbers:
    """One long job among tiny ones."""
    sizes = bench.sizes
    keywords = {"output": bench.place(), "jobs": sizes.fairness, "long_seconds": sizes.long_seconds}
    found = lateness(bench.ours("fairness", **keywords)["spans"])
    if not found["jobs"]:
        raise Failed("the long job came last: there was nobody to be late")
    return found


def _first_failure(bench: Bench, contender: str) -> Numbers:
    found = bench.ours("first_failure", output=bench.place(), jobs=bench.sizes.growth[-1])
    return {"ms": 1000 * found["with_it"], "median_ms": 1000 * found["median"]}


def _places(bench: Bench, contender: str) -> Numbers:
    nodes, workers, each = bench.sizes.places
    jobs = nodes * workers * each
    long, whole = bench.sizes.places_seconds
    many = bench.ours("places", output=bench.place(), jobs=jobs, nodes=nodes, workers=workers, seconds=long)
    short = 2 * whole / jobs  # or two workers would need hours
    few = bench.ours("places", output=bench.place(), jobs=jobs, nodes=1, workers=2, seconds=short)
    more = (many["peak_kb"] - few["peak_kb"]) / 1000
    return {"share": many["share"], "rate": many["rate"], "more_mb": more, "few_mb": few["peak_kb"] / 1000}


PAUSE = 0.010  # seconds: more than the kernel takes from one process for another at a time


def lateness(spans: Sequence[Sequence[float]]) -> Numbers:
    """By how much the last of the other jobs could have ended earlier, from the spans (start,
    end, CPU seconds) of all jobs, in seconds.

    The other worker could have worked through all of them without a pause. So it is the sum
    of the pauses, from the start of the long job on, in which none of the others ended; at
    least the longest one, however short.
    """
    long = max(spans, key=lambda span: span[1] - span[0])
    long_start, long_end, _ = long
    ends = sorted(span[1] for span in spans if span is not long and span[1] > long_start)
    pauses = [after - before for before, after in zip([long_start, *ends], ends, strict=False)]
    return {
        "seconds": max(sum(pause for pause in pauses if pause > PAUSE), max(pauses, default=0.0)),
        "longest": max(pauses, default=0.0),
        "jobs": len(ends),
        "after_the_long_one": sum(end > long_end for end in ends),
    }


def _quiet(bench: Bench, contender: str) -> Numbers:
    """The CPU time of the supervisor while six workers are in jobs that take long."""
    path, sizes = Path(bench.place()) / "starts.txt", bench.sizes
    keywords = {"output": bench.place(), "path": str(path)}
    with (bench.folder / "stderr.txt").open("w") as errors:
        process = start("longhaul_program.py", "quiet", json.dumps(keywords), stderr=errors)
        try:
            _wait_for_lines(path, QUIET_WORKERS)
            time.sleep(sizes.settle_seconds)
            helpers = [child.pid for child in psutil.Process(process.pid).children()]
            began, before = time.monotonic(), [cpu_seconds(pid) for pid in (process.pid, *helpers)]
            time.sleep(sizes.quiet_seconds)
            after = [cpu_seconds(pid) for pid in (process.pid, *helpers)]
            seconds = time.monotonic() - began
            _stop(process)
        finally:
            end(process)
    used = [late - early for early, late in zip(before, after, strict=True)]
    return {"share": used[0] / seconds, "helpers_percent": 100 * sum(used[1:]) / seconds, "seconds": seconds}


QUIET_WORKERS = 6


def _wait_for_lines(path: Path, number: int, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not path.exists() or path.read_text().count("\n") < number:
        if time.monotonic() > deadline:
            raise Failed(f"not all of {number} jobs were running after {patience:g} s")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[str]) -> None:
    """In order, and at once: the second signal does not wait for the jobs."""
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        raise Failed("it did not stop within 30 s of two SIGTERM") from None


def _start(bench: Bench, contender: str) -> Numbers:
    """From main() to the first job, each time a fresh script."""
    found = []
    for _ in range(bench.sizes.starts):
        path = Path(bench.place()) / "starts.txt"
        born = time.monotonic()
        called = bench.ours("start", output=bench.place(), starts=str(path))["called"]
        first = _first_line(path)
        found.append((first - called, first - born))
    times = [from_main for from_main, _ in found]
    whole = statistics.median(from_python for _, from_python in found)
    return {"seconds": statistics.median(times), "all_seconds": times, "python_seconds": whole}


def _import(bench: Bench, contender: str) -> Numbers:
    """What importing costs, as Python itself measures it, without its own start."""
    bare = [_import_ms("import supervisor") for _ in range(bench.sizes.imports)]
    used = [_import_ms("from supervisor import Job, main, run") for _ in range(bench.sizes.imports)]
    return {"ms": statistics.median(bare), "used_ms": statistics.median(used), "all_ms": bare}


def _import_ms(statement: str) -> float:
    command = [sys.executable, "-X", "importtime", "-c", statement]
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if said.returncode != 0:
        raise Failed(said.stderr[-2000:])
    _, site, ours = said.stderr.partition("| site\n")
    if not site:
        raise Failed("-X importtime does not tell where Python's own start ends")
    return sum(int(line.split("|")[0].split()[-1]) for line in ours.splitlines() if "|" in line) / 1000


def _big(bench: Bench, contender: str) -> Numbers:
    """Big results, against writing their bytes once."""
    sizes, output = bench.sizes, bench.place()
    total = sizes.big * sizes.big_bytes
    if shutil.disk_usage(output).free < 6 * total:
        raise Failed(f"{6 * total / 1e9:.0f} GB of free space are needed below {bench.folder.parent}")
    once = _write_once(Path(bench.place()) / "bytes", sizes.big, sizes.big_bytes)
    os.sync()
    found = bench.ours("big", output=output, jobs=sizes.big, size=sizes.big_bytes)
    return {"ratio": once / found["whole_seconds"], "once_seconds": once, "seconds": found["whole_seconds"]}


def _write_once(path: Path, pieces: int, size: int) -> float:
    piece = b"0123456789" * (size // 10)
    os.sync()
    started = time.monotonic()
    with path.open("wb", buffering=0) as file:
        for _ in range(pieces):
            file.write(piece)
        os.fsync(file.fileno())
    seconds = time.monotonic() - started
    path.unlink()
    return seconds


def _programs(bench: Bench, contender: str) -> Numbers:
    """`true` as the program of each job, two at a time, from the start of the command to its end."""
    jobs, place = bench.sizes.programs, Path(bench.place())
    values = place / "values.txt"
    values.write_text("".join(f"{number}\n" for number in range(jobs)))
    ours = f"{sys.executable} -m supervisor exec --workers {WORKERS} --output {place} --jobs {values} -- true {{line}}"
    theirs = f"{GNU_PARALLEL} --will-cite -j {WORKERS} --joblog {place}/joblog -a {values} true {{}}"
    command = (theirs if contender == GNU_PARALLEL else ours).split()
    root = Path(__file__).resolve().parents[2]
    with (bench.folder / "stderr.txt").open("w+") as errors:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if status:
            raise Failed(errors.read()[-LAST_WORDS:])
    return {"jobs": jobs, "rate": jobs / seconds, "cpu_us": 1e6 * (used.ru_utime + used.ru_stime) / jobs}


def _report(bench: Bench, contender: str) -> Numbers:
    """`longhaul report` of a small and a large night, written without running a job."""
    few, many = bench.sizes.reported
    found: Numbers = {}
    for prefix, jobs, workers in (("small_", few, 16), ("", many, 64)):
        output = bench.place()
        bench.child("long_history.py", json.dumps({"output": output, "jobs": jobs, "workers": workers}))
        path = Path(bench.place()) / "report.html"
        took, used, peak = _report_once(Path(output) / "night", path)
        found |= {f"{prefix}seconds": took, f"{prefix}megabytes": path.stat().st_size / 1e6}
        found |= {f"{prefix}cpu": used, f"{prefix}peak_mb": peak}
    return found


def _report_once(experiment: Path, path: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds, and megabytes at the peak."""
    command = [sys.executable, "-m", "supervisor", "report", str(experiment), "-o", str(path)]
    root = Path(__file__).resolve().parents[2]
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(said[-2000:])
    return seconds, usage.ru_utime + usage.ru_stime, _megabytes(usage.ru_maxrss)


SITUATIONS: dict[str, Callable[[Bench, str], Numbers]] = {
    "tiny": _tiny,
    "tiny_more": _tiny_more,
    "cpu_1ms": _cpu_1ms,
    "cpu_10ms": _cpu_10ms,
    "cpu_10ms_more": _cpu_10ms_more,
    "killed": _killed,
    "growth": _growth,
    "resume": _resume,
    "recovery": _recovery,
    "fairness": _fairness,
    "first_failure": _first_failure,
    **PAGES,
    "places": _places,
    "quiet": _quiet,
    "start": _start,
    "import": _import,
    "report": _report,
    "big": _big,
    "programs": _programs,
    **CROWD,
}
