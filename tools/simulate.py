"""Deterministic simulation: the real core and the real store, everything else is fake.

    python tools/simulate.py --seeds 2000        many histories, prints a failing seed
    python tools/simulate.py --seed 1234 -v      one history again, exactly
    python tools/simulate.py --mutants           does it catch deliberate faults in the code?
    python tools/simulate.py --hosts ...         the same for histories on several hosts

One history is one experiment: random jobs (good, long, raising, crashing, hanging ones,
some that ask for another attempt, give up or leak) of some domains, priorities and timeouts,
random batches and take-backs, workers that die at random, drains, kills of the supervisor,
power cuts (what was not synced is dropped, torn or kept), full disks, failed syncs, files
damaged between two runs, resumes with other worker counts. Time and disk are simulated.
At its end the promises of the design hold, or the seed is printed.

With --hosts one history is an experiment whose workers run on several hosts, under the real agents and the real
engine of several places: links that are cut in one direction or both and come back, messages that are late, hosts,
agents and supervisors that stand still or die, carriers that bring new agents. No job runs in two places at once, none
waits for ever, a short cut costs nothing, and who is gone is given up in time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.simulation import mutants
from tools.simulation.history import play
from tools.simulation.nodes import node_mutants
from tools.simulation.nodes.node_history import play_nodes


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate experiments deterministically.")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--start", type=int, default=0, metavar="SEED")
    parser.add_argument("--seed", type=int, help="replay one history")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--mutants", action="store_true", help="break the code on purpose, one way at a time")
    parser.add_argument("--hosts", action="store_true", help="histories on several hosts")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # else sets of texts are walked in another order
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    if arguments.mutants:
        return node_mutants.walk(arguments.seeds) if arguments.hosts else mutants.walk(arguments.seeds)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    runs = jobs = 0
    for seed in seeds:
        try:
            history = (play_nodes if arguments.hosts else play)(seed, verbose=arguments.verbose)
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}")
            if arguments.verbose:
                raise
            return 1
        runs += history.runs
        jobs += history.number_of_jobs
    print(f"{len(seeds)} histories, {jobs} jobs, {runs} runs, no violation")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
