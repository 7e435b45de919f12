"""The benchmark: what longhaul must reach, beside its peers, in one run.

    python tools/bench.py                             everything in docs/performance.md, about half an hour
    python tools/bench.py --quick                     a look at everything, within a minute
    python tools/bench.py --only sustained --repeat 9 one row
    python tools/bench.py --docs                      everything, into that page

Needs two cores with nothing else to do. Peers are installed with pip install '.[bench]', Ray, Dask,
Parsl, DBOS and submitit with '.[bench-heavy]'; one that is missing is said and skipped. A round takes each
measurement once, all in turn, there and back, so that a slow minute of the machine hits everybody.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.benchmark.child_processes import QUICK, Bench, Failed, Sizes
from tools.benchmark.cluster_rows import CLUSTER_GROUP
from tools.benchmark.cluster_samples import BESIDE, CLUSTER
from tools.benchmark.peers import ALL_PEERS, DURABLE_PEERS, PEERS, WORKERS, installed
from tools.benchmark.report import (
    DURABLE_ROW,
    DURABLE_SITUATIONS,
    OURS,
    PEERS_ROW,
    ROOT,
    SITUATIONS,
    loop_seconds,
    machine,
    markdown,
    replaced,
    summary,
)
from tools.benchmark.row import Round
from tools.benchmark.rows import MORE_ROWS, ROWS, chosen
from tools.benchmark.samples import GNU_PARALLEL, measure
from tools.damage.damage_programs import CONTENDERS, is_here
from tools.damage.damage_table import DAMAGE_KEYS, damages

REPEAT = 5
PAGE = ROOT / "docs" / "performance.md"
BUSY = 0.5  # a load average above which it is said that the machine is not quiet


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure longhaul and its peers.")
    keys = [row.key for row in (*ROWS, *MORE_ROWS)]
    parser.add_argument(
        "--only",
        metavar="ROW",
        action="append",
        choices=[*keys, CLUSTER_GROUP, PEERS_ROW, DURABLE_ROW, *DAMAGE_KEYS],
        help=f"this row; may be repeated: {', '.join(keys)}, {CLUSTER_GROUP} (all of it), {PEERS_ROW}, {DURABLE_ROW}, "
        f"{', '.join(DAMAGE_KEYS)}",
    )
    parser.add_argument("--repeat", metavar="N", type=_whole, help=f"rounds (default: {REPEAT}, quick: 1)")
    parser.add_argument("--quick", action="store_true", help="few jobs: does it work at all?")
    parser.add_argument("--heavy", action="store_true", help="Ray and Dask, too")
    parser.add_argument("--json", metavar="FILE", type=Path, help="all values, as JSON")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="the tables, to a file as well")
    parser.add_argument(
        "--docs", action="store_true", help="the tables into docs/performance.md, between its markers"
    )
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        default=ROOT / "data" / "outputs",
        help="where experiments are written, on the disk that is meant (default: data/outputs)",
    )
    arguments = parser.parse_args(words)
    if arguments.docs and (arguments.quick or arguments.only):
        parser.error("--docs wants everything: not with --quick or --only")
    if arguments.docs:
        try:
            replaced(PAGE.read_text(encoding="utf-8"), "")
        except (OSError, ValueError) as error:
            parser.error(f"--docs: {PAGE}: {error}")
    for path in filter(None, (arguments.json, arguments.markdown)):
        if not path.parent.is_dir():
            parser.error(f"{path} cannot be written: there is no directory {path.parent}")
    try:
        arguments.directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--directory {arguments.directory}: {error.strerror}")
    return arguments


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def samples_for(only: Sequence[str] | None, contenders: Sequence[str]) -> list[str]:
    """What has to be measured for these rows, each once; in the order of the tables."""
    wanted = [sample for row in chosen(only) for sample in row.samples]
    if only is None or PEERS_ROW in only:
        wanted += [
            f"{name}/{situation}"
            for situation in SITUATIONS
            for name in contenders
            if name in (OURS, CLUSTER) or (name in PEERS and situation in PEERS[name].situations)
        ]
    if DURABLE_ROW in (only or ()):
        wanted += [
            f"{name}/{situation}" for situation in DURABLE_SITUATIONS for name in (OURS, *DURABLE_PEERS)
        ]
        wanted += [f"{name}/programs" for name in (OURS, GNU_PARALLEL)]
    wanted += [f"{name}/{damage}" for damage in damages(only) for name in CONTENDERS]
    programs = [GNU_PARALLEL] if shutil.which(GNU_PARALLEL) else []
    measurable = {f"{name}/" for name in (*contenders, *programs)}
    return [sample for sample in dict.fromkeys(wanted) if sample.partition("/")[0] + "/" in measurable]


def contenders(*, heavy: bool) -> tuple[list[str], dict[str, str]]:
    """Who takes part, and why the others do not."""
    skipped = {}
    for name, peer in ALL_PEERS.items():
        if peer.heavy and not heavy:
            skipped[name] = "only with `--heavy`"
        elif not installed(peer):
            skipped[name] = "not installed"
    return [OURS, *(name for name in ALL_PEERS if name not in skipped)], skipped


def take_round(bench: Bench, samples: Sequence[str], taken: Round, failed: dict[str, str]) -> None:
    """Every sample once, into `taken`; what fails is kept in `failed` and left out."""
    for sample in samples:
        started = time.monotonic()
        try:
            taken[sample] = measure(bench, sample)
            say(f"  {sample}: {time.monotonic() - started:.1f} s")
        except Exception as error:  # half an hour of other measurements is not to be lost for it
            failed[sample] = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            say(f"  {sample} failed: {failed[sample]}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def two_cores() -> None:
    """On a larger machine everybody gets the same two."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:WORKERS])


def compile_all() -> None:
    """As an installation does: our modules are not compiled at each start, also where Python is
    told to leave no bytecode behind."""
    packages = [str(ROOT / name) for name in ("supervisor", "workers", "tools")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *packages], check=False)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    two_cores()
    compile_all()
    on_cluster = any(key.startswith(CLUSTER_GROUP) for key in arguments.only or ())
    with_records = bool(damages(arguments.only)) or DURABLE_ROW in (arguments.only or ())
    names, skipped = contenders(heavy=arguments.heavy or on_cluster or with_records)
    if on_cluster and "ray" in names:
        names += [CLUSTER, BESIDE]
    if damages(arguments.only):
        others = [name for name in CONTENDERS if name not in ALL_PEERS and name != OURS]
        names += [name for name in others if is_here(CONTENDERS[name])]
        skipped |= {name: "not installed" for name in others if name not in names}
    for name, why in skipped.items():
        say(f"{name} is left out: {why}")
    load = os.getloadavg()
    if load[0] > BUSY:
        say(f"the machine is not quiet (load {load[0]:.2f}): the figures will be worse than they could be")
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(arguments.directory),
        "quick": arguments.quick,
        "only": arguments.only,
        "load": load,
        "loop_seconds": [loop_seconds()],
        "skipped": skipped,
        "failed": {},
    }
    repeat = arguments.repeat or (1 if arguments.quick else REPEAT)
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.directory) as folder:
        bench = Bench(Path(folder), QUICK if arguments.quick else Sizes())
        samples = samples_for(arguments.only, names)
        try:
            for number in range(1, repeat + 1):
                say(f"round {number} of {repeat}")
                rounds.append({})
                # There and back: who is first, when files and memory are cold, is last the next time.
                in_turn = samples if number % 2 else samples[::-1]
                take_round(bench, in_turn, rounds[-1], found["failed"])
                found["loop_seconds"].append(loop_seconds())
        except KeyboardInterrupt:
            say("interrupted: this is what has been measured so far")
            found["interrupted"] = True
    found["rounds"] = len(rounds)
    write(arguments, found, rounds)
    return 130 if "interrupted" in found else 1 if found["failed"] else 0


def write(arguments: argparse.Namespace, found: dict[str, Any], rounds: Sequence[Round]) -> None:
    text = markdown(found, rounds)
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(text, encoding="utf-8")
    if arguments.json is not None:
        document = {**found, "rows": summary(rounds), "samples": rounds}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if arguments.docs and "interrupted" not in found:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
