"""Torture: the real program under random kills, stops, failing system calls and power cuts.

    python tools/torture.py --minutes 60 --seed 1

Round after round it makes an experiment of good and bad jobs in a temporary directory, and
runs it, interrupted and resumed, until it is finished. Every execution of a job is logged
outside of the runner, by the job itself. After each interruption and at the end the
promises are checked: what was recorded as completed did not run again and is still there,
no job ran while another execution of it did, every job ended as it should, nothing is
left alive, no temporary file is left over.

Prints a table of the faults injected and exits 1 on a violation. strace (failing calls),
root with loop devices (power cuts and full disks, on ext4 and XFS) are used where they are
there; what is missing is said at the start.

With `--nodes 3` every second run has three places on this machine, whose agents are killed and stopped as
well, and the runs between are resumed without them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.fault_injection.faults import IMAGES, Faults, LoopImage
from tools.fault_injection.program import SIZES, Program, describe

PATIENCE = 120.0  # seconds without anything new in the journal until a run hangs


class Violation(Exception):
    """A promise did not hold."""


class Torture:
    """One round: one experiment until it is finished."""

    def __init__(self, rng: random.Random, program: Program, faults: Faults, *, calm_after: int = 25) -> None:
        self.rng = rng
        self.program = program
        self.faults = faults
        self.resumes = 0
        self._beside: list[str] = []
        self._calm_after = calm_after  # runs: let it come to an end

    # ------------------------------------------------------------------------- checks

    def wait_until_nothing_is_left(self) -> None:
        end = time.monotonic() + 10.0
        while left := self.program.marked():
            if time.monotonic() > end:
                raise Violation(f"processes are left over: {[describe(pid) for pid in left]}")
            time.sleep(0.02)

    def check_no_temporary_files(self) -> None:
        known = ("journal_", "plan_", "jobs_", "checkpoint_", "index_", "stretches_", "progress_", "lock_")
        strange = [
            path.name for path in (self.program.output / "logs").iterdir() if not path.name.startswith(known)
        ]
        if strange:
            raise Violation(f"left over in logs: {strange}")

    def check_no_traceback(self) -> None:
        """None of ours; a Ctrl+C before the script has reached main() is Python's own, whatever the import
        that it hit was about to handle, and a SIGKILL may cut it short."""
        text = (self.program.folder / "stderr.txt").read_text(errors="replace")
        for trace, then in re.findall(
            r"^Traceback .*?^(?=\S)(.*?)$(\n\nDuring handling)?", text, re.MULTILINE | re.DOTALL
        ):
            if not then and re.match(r"[\w.]+(Error|Exception)\b", trace):
                raise Violation(f"a traceback reached the user: {trace}")

    def check_final(self) -> None:
        entries = json.loads((self.program.output / "torture" / "logs_final.json").read_text())
        final = {entry["job"]: entry for entry in entries}
        if set(final) != set(self.program.jobs):
            raise Violation("logs_final.json does not hold every job once")
        ran = Counter(self.program.executions())
        for job, kind in self.program.jobs.items():
            entry = final[job]
            good = kind not in ("raises", "crashes")
            if good and entry["state"] == "completed":
                if entry["result"]["number"] != int(job.rpartition("/")[2]):
                    raise Violation(f"{job} has the result of another job")
            elif good and entry["error"]["outcome"] not in ("crashed", "raised"):
                raise Violation(f"{job} ended as {entry}")
            elif good and ran[job] < 3 and entry["error"]["outcome"] == "crashed":
                raise Violation(f"{job} was quarantined after {ran[job]} executions: {entry['error']}")
            elif not good and entry["state"] != "failed":
                raise Violation(f"{job} ended as {entry['state']}")

    def _in_two_places(self) -> list[str]:
        """Executions of the last run beside another one of the same job. On one machine a job may run twice that was
        taken back when its worker had just started it; the journal says so."""
        beside, self._beside = self._beside, self.program.in_two_places()
        new = self._beside[len(beside) :]
        if self.program.over_nodes:
            return new
        twice = self.program.superseded()
        return [line for line in new if line.split()[0] not in twice]

    # -------------------------------------------------------------------------- round

    def play(self, wrappers: Callable[[], list[str]], image: LoopImage | None) -> None:
        recorded: set[str] = set()
        while True:
            self.resumes += 1
            seen = len(self.program.executions())
            self.faults.damage_files()
            self.program.start(wrappers())
            self._run_under_fire(image)
            self.wait_until_nothing_is_left()
            again = recorded & set(self.program.executions()[seen:])
            if again:
                raise Violation(f"recorded as completed and run again: {sorted(again)[:5]}")
            recorded = self.program.recorded()
            if beside := self._in_two_places():
                raise Violation(f"ran in two places at once: {beside[:5]}")
            assert self.program.process is not None
            self.check_no_traceback()
            if self.program.process.returncode in (0, 1) and self.program.finished():
                break
            if self.program.process.returncode == 65:
                raise Violation("the files were called unusable")
        self.check_final()
        self.check_no_temporary_files()

    def _run_under_fire(self, image: LoopImage | None) -> None:
        written, end = 0, 0.0
        calm = self.resumes > self._calm_after
        while not self.program.over():
            time.sleep(self.rng.choice([0.02, 0.1, 0.4, 0.8]))
            if written != (written := self.program.written()):
                end = time.monotonic() + PATIENCE
            if time.monotonic() > end:
                raise Violation(f"a run hangs; its last words are in {self.program.folder / 'stderr.txt'}")
            if calm:
                continue
            if image is not None and self.rng.random() < 0.2:
                self._cut_power(image)
                return
            if image is not None and self.rng.random() < 0.1:
                self.faults.fill_disk(image.mount_point)
            else:
                self.faults.hit()

    def _cut_power(self, image: LoopImage) -> None:
        """What a checkpoint held before the cut must be there after it."""
        kept: set[str] = set()
        with contextlib.suppress(OSError, ValueError):
            text = self.program.checkpoint.read_text()
            kept = set(json.loads(text)["completed"])
        image.cut()
        self.faults.kill_supervisor()
        if self.program.process is not None:
            self.program.process.wait()
        self.wait_until_nothing_is_left()
        image.boot()
        self.faults.counts[f"power cut on {image.kind}"] += 1
        missing = kept - self.program.recorded()
        if missing:
            raise Violation(f"the power cut lost {sorted(missing)[:5]} of the checkpoint")


def play_round(
    rng: random.Random,
    counts: Counter[str],
    *,
    disk: str = "",
    with_strace: bool = False,
    nodes: int = 0,
    sizes: Sequence[int] = SIZES,
    calm_after: int = 25,
) -> Torture:
    """One experiment, to its end. Raises Violation.

    disk: the file system that a power cut may hit, "" for the one that is there. nodes: how many places every second
    run has. sizes: how many jobs there may be. calm_after: so many runs are hit.
    """
    folder = Path(tempfile.mkdtemp(prefix="longhaul-torture-"))
    image = LoopImage(folder, disk) if disk else None
    output = image.mount_point / "out" if image is not None else folder / "out"
    program = Program(rng, folder, output, nodes=nodes, sizes=sizes)
    torture = Torture(rng, program, Faults(rng, program, counts), calm_after=calm_after)

    def wrapper() -> list[str]:
        return torture.faults.strace() if with_strace and rng.random() < 0.3 else []

    try:
        torture.play(wrapper, image)
    except BaseException:
        print(f"the files are kept in {folder}", file=sys.stderr)
        if program.process is not None and program.process.poll() is None:
            program.process.kill()
        raise
    if image is not None:
        image.unmount()
    shutil.rmtree(folder)
    return torture


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--nodes", type=int, default=0, help="places of every second run (--engine pipes)")
    parser.add_argument("--no-power-cuts", action="store_true")
    parser.add_argument("--no-strace", action="store_true")
    arguments = parser.parse_args()
    can_cut = os.geteuid() == 0 and not arguments.no_power_cuts
    disks = [kind for kind in IMAGES if can_cut and shutil.which(f"mkfs.{kind}") is not None]
    can_trace = shutil.which("strace") is not None and not arguments.no_strace
    totals: dict[str, Any] = {"rounds": 0, "jobs": 0, "runs": 0}
    counts: Counter[str] = Counter()
    rng = random.Random(arguments.seed)
    end = time.monotonic() + 60.0 * arguments.minutes
    violation = ""
    print(
        f"seed {arguments.seed}, power cuts on {' and '.join(disks) or 'nothing'} (they need root and "
        f"{', '.join(f'mkfs.{kind}' for kind in IMAGES)}), strace {'on' if can_trace else 'off or not there'}",
        flush=True,
    )
    while time.monotonic() < end and not violation:
        try:
            disk = rng.choice(disks) if disks and rng.random() < 0.4 else ""
            tracing = can_trace and not disk
            torture = play_round(rng, counts, disk=disk, with_strace=tracing, nodes=arguments.nodes)
        except Violation as found:
            violation = str(found)
            break
        totals["rounds"] += 1
        totals["jobs"] += len(torture.program.jobs)
        totals["runs"] += torture.resumes
    for name, number in sorted(counts.items()):
        print(f"{number:8,}  {name}")
    print(", ".join(f"{number:,} {name}" for name, number in totals.items()))
    print(f"violation: {violation}" if violation else "no violation")
    return 1 if violation else 0


if __name__ == "__main__":
    raise SystemExit(main())
