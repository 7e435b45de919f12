"""How many finished jobs run again when the supervisor is killed: python tools/kill_and_count.py

Each round starts jobs of the same length on two workers, kills the supervisor with SIGKILL somewhere
in the middle, and resumes. Each job writes a line when it begins and when it has returned its last
value; a job that had done both before the kill and begins again has run twice for nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import os, sys, time
from supervisor import Job, main

def note(word, number):
    with open("notes", "a") as file:
        file.write(f"{word} {number}\\n")

def evaluate(number):
    note("begun", number)
    time.sleep(@SECONDS@)
    note("done", number)

if __name__ == "__main__":
    jobs = [Job(id=str(number), params={"number": number}) for number in range(@JOBS@)]
    main(evaluate, jobs, name="killed", output="out", all_tasks=True, workers=2)
"""


def main(words: Sequence[str]) -> int:
    """Print what each round came to, and the sum."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=0.05, help="that a job takes")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    moments = random.Random(asked.seed)
    counts: list[int] = []
    for _ in range(asked.rounds):
        counts.append(finished_again(asked.jobs, asked.seconds, kill_after=moments.uniform(0.2, 0.8)))
        print(f"finished jobs that ran again: {counts[-1]}", flush=True)
    print(f"at most {max(counts)}, {sum(counts) / len(counts):.1f} on average, of {asked.jobs} jobs")
    return 0


def finished_again(jobs: int, seconds: float, *, kill_after: float) -> int:
    """Of one round. `kill_after`: the share of the jobs that is done when the kill comes."""
    script = SCRIPT.replace("@SECONDS@", str(seconds)).replace("@JOBS@", str(jobs))
    with tempfile.TemporaryDirectory(prefix="longhaul-kill-") as folder:
        notes = Path(folder, "notes")
        Path(folder, "killed.py").write_text(script)
        notes.touch()
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "killed.py"]
        supervisor = subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.DEVNULL)
        while notes.read_text().count("done") < jobs * kill_after and supervisor.poll() is None:
            time.sleep(seconds / 7)
        supervisor.kill()
        supervisor.wait()
        time.sleep(1.0)  # the workers end with it
        before = notes.read_text().splitlines()
        again = subprocess.run(
            [*command, "--resume", "latest"],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if again.returncode != 0:
            raise SystemExit(f"the resume ended with {again.returncode}:\n{again.stderr}")
        begun = notes.read_text().splitlines()[len(before) :]
    done = {line.partition(" ")[2] for line in before if line.startswith("done ")}
    return sum(f"begun {number}" in begun for number in done)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
