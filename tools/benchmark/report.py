"""What the benchmark says: Markdown, JSON, and the section of docs/performance.md.

Everything in the Markdown is measured in the run that made it, beside the marks of the rows.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from tools.benchmark.peers import ALL_PEERS, DURABLE_PEERS, PEERS, Peer
from tools.benchmark.row import Round, Row
from tools.benchmark.rows import MORE_ROWS, ROWS, chosen
from tools.damage.damage_programs import CONTENDERS
from tools.damage.damage_table import damages
from tools.damage.damage_table import table as table_of_damages

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
OURS = "longhaul"
PEERS_ROW = "peers"  # as a word for --only: the table of all peers
SITUATIONS = ("tiny", "cpu_1ms", "cpu_10ms", "killed")  # of the peers' table
DURABLE_ROW = "peers-with-records"  # likewise, of those that keep a record or give each job a process
DURABLE_SITUATIONS = ("tiny", "cpu_10ms")
JUDGED = {"aim": "aim", "reach": "yes", "missed": "**no**"}
NONE = "–"


# ------------------------------------------------------------------------ the machine


def machine(directory: Path) -> dict[str, Any]:
    """Where it was measured: CPU, cores in use, memory, file system, kernel, Python, versions."""
    versions = {}
    named = [peer.distribution for peer in ALL_PEERS.values()]
    named += [contender.distribution for contender in CONTENDERS.values()]
    for distribution in dict.fromkeys(["msgspec", "numpy", *named]):
        if distribution and (version := _version(distribution)):
            versions[distribution] = version
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cores_of_machine": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "file_system": _file_system(directory),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": _commit(),
        "versions": versions,
    }


def loop_seconds() -> float:
    """CPU time of 10,000,000 additions in this Python: how fast the machine is now. Virtual machines change by the
    minute, and figures in seconds with them."""
    began, total = time.process_time(), 0
    for number in range(10_000_000):
        total += number
    return time.process_time() - began


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(directory: Path) -> str:
    mounted = {Path(found.mountpoint): found.fstype for found in psutil.disk_partitions(all=True)}
    place = directory.resolve()
    return next((mounted[path] for path in (place, *place.parents) if path in mounted), "unknown")


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


# ------------------------------------------------------------------------- the values


def values_of(row: Row, rounds: Sequence[Round]) -> list[float]:
    """One value per round in which everything that the row needs was measured."""
    return [row.value(taken) for taken in complete(row, rounds)]


def complete(row: Row, rounds: Sequence[Round]) -> list[Round]:
    return [taken for taken in rounds if all(sample in taken for sample in row.samples)]


def shown(value: float, unit: str) -> str:
    """With as many places as mean something: three figures, and no more than two places."""
    places = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{places}f} {unit}"


def mark(value: float, unit: str) -> str:
    return f"{value:g} {unit}"


def spread(values: Sequence[float], unit: str) -> str:
    if len(values) < 2:
        return NONE
    return f"{shown(min(values), unit).removesuffix(' ' + unit)} to {shown(max(values), unit)}"


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """The rows for the JSON document."""
    rows = []
    for row in (*ROWS, *MORE_ROWS):
        values = values_of(row, rounds)
        middle = statistics.median(values) if values else None
        rows.append(
            {
                "row": row.key,
                "what": row.what,
                "unit": row.unit,
                "reach": row.reach,
                "aim": row.aim,
                "values": values,
                "median": middle,
                "judged": None if middle is None else row.judge(middle),
            }
        )
    return rows


# ------------------------------------------------------------------------ the document


def markdown(found: dict[str, Any], rounds: Sequence[Round]) -> str:
    """The tables and what must be said about them."""
    parts = [_machine_line(found)]
    if found["quick"]:
        parts.append(
            "**A quick look: far fewer jobs than stands there, one round; not to be compared with the marks.**"
        )
    if rows := chosen(found["only"]):
        parts.append(_table_of_rows(rows, rounds, quick=found["quick"]))
    if found["only"] is None or PEERS_ROW in found["only"]:
        parts.append(_table_of_peers(rounds, found["skipped"]))
    if DURABLE_ROW in (found["only"] or ()):
        parts.append(_table_of_durable_peers(rounds, found["skipped"]))
    if wanted := damages(found["only"]):
        parts.append(table_of_damages(wanted, rounds, found["skipped"], found["failed"]))
    for sample, why in found["failed"].items():
        parts.append(f"`{sample}` could not be measured: {why.splitlines()[0]}")
    return "\n\n".join(parts) + "\n"


def _machine_line(found: dict[str, Any]) -> str:
    at = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in at["versions"].items())
    loops = found["loop_seconds"]
    rounds = "1 round" if found["rounds"] == 1 else f"{found['rounds']} rounds"
    return (
        f"{at['cpu']}, {at['cores']} of {at['cores_of_machine']} cores, {at['memory_gb']:g} GB, files on "
        f"{at['file_system']}, {at['system']}, {at['python']}; {versions}; commit `{at['commit']}`, "
        f"{found['at'][:10]}, load before it {found['load'][0]:.2f}; a loop of 10,000,000 additions took "
        f"{min(loops):.2f} to {max(loops):.2f} s. Medians of {rounds}, each of which takes every measurement once, in "
        f"turn; the spread is from the least to the greatest."
    )


def _table_of_rows(rows: Sequence[Row], rounds: Sequence[Round], *, quick: bool) -> str:
    lines = [
        "| what | measured as | reach | aim | median | spread | reached | in figures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = values_of(row, rounds)
        cells = [row.what, row.measured, mark(row.reach, row.unit), mark(row.aim, row.unit)]
        if values:
            middle = statistics.median(values)
            cells += [shown(middle, row.unit), spread(values, row.unit)]
            cells.append(NONE if quick else JUDGED[row.judge(middle)])
            cells.append(row.detail(complete(row, rounds)))
        else:
            cells += [NONE, NONE, NONE, "not measured"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _table_of_peers(rounds: Sequence[Round], skipped: dict[str, str]) -> str:
    head = ["two workers", "no-op jobs/s, sustained", "end to end"]
    head += ["1 ms jobs: share of the cores", "10 ms jobs", "a worker is killed"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, peer in [(OURS, None), *PEERS.items()]:
        if name in skipped:
            lines.append(f"| {_title(peer)} | {skipped[name]} | | | | |")
            continue
        cells = [
            _middle(rounds, f"{name}/tiny", "sustained", "{:,.0f}"),
            _middle(rounds, f"{name}/tiny", "whole", "{:,.0f}"),
            _middle(rounds, f"{name}/cpu_1ms", "share", "{:.1%}"),
            _middle(rounds, f"{name}/cpu_10ms", "share", "{:.1%}"),
            after_a_kill([taken[f"{name}/killed"] for taken in rounds if f"{name}/killed" in taken]),
        ]
        lines.append("| " + " | ".join([_title(peer), *cells]) + " |")
    return "\n".join(lines)


def _table_of_durable_peers(rounds: Sequence[Round], skipped: dict[str, str]) -> str:
    lines = [
        "| two workers | no-op jobs/s, sustained | end to end | 10 ms jobs: share of the cores |",
        "|---|---|---|---|",
    ]
    for name, peer in [(OURS, None), *DURABLE_PEERS.items()]:
        if name in skipped:
            lines.append(f"| {_title(peer)} | {skipped[name]} | | |")
            continue
        cells = [
            _middle(rounds, f"{name}/tiny", "sustained", "{:,.0f}"),
            _middle(rounds, f"{name}/tiny", "whole", "{:,.1f}"),
            _middle(rounds, f"{name}/cpu_10ms", "share", "{:.1%}"),
        ]
        lines.append("| " + " | ".join([_title(peer), *cells]) + " |")
    for name, title in (
        ("longhaul", "`longhaul exec`, the program `true`"),
        ("parallel", "GNU parallel with `--joblog`, `true`"),
    ):
        lines.append(
            f"| {title} | {NONE} | {_middle(rounds, f'{name}/programs', 'rate', '{:,.0f}')} | {NONE} |"
        )
    return "\n".join(lines)


def _title(peer: Peer | None) -> str:
    return "**longhaul**, each job journalled" if peer is None else peer.shown


def _middle(rounds: Sequence[Round], sample: str, number: str, form: str) -> str:
    values = [taken[sample][number] for taken in rounds if sample in taken]
    return form.format(statistics.median(values)) if values else NONE


def after_a_kill(found: Sequence[dict[str, Any]]) -> str:
    """In words, what became of the jobs when one of them had killed its worker: in the worst of the
    rounds."""
    if not found:
        return NONE
    worst = min(found, key=lambda each: (not each["hangs"], each["completed"]))
    times = [each["again_ms"] for each in found if each["again_ms"] is not None]
    again = f"runs again after {statistics.median(times):.0f} ms, " if times else ""
    if worst["hangs"]:
        there = f"{worst['completed']} of {worst['jobs']} results"
        return f"{again}{there}, then no answer within {worst['waited']:g} s"
    errors = " and ".join(f"`{name}`" for name in dict.fromkeys(worst["errors"]))
    missing = worst["jobs"] - worst["completed"]
    if not errors:
        if again and not missing:
            return f"{again}all {worst['jobs']} jobs complete"
        return f"says nothing; {missing} of {worst['jobs']} jobs are missing"
    if missing == 1:
        return f"{errors} for that job, the others complete"
    return f"{errors}; {missing} of {worst['jobs']} jobs without a result"


# ------------------------------------------------------------------- docs/performance.md


def replaced(text: str, section: str) -> str:
    """`text` with the part between the markers replaced. Raises ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with {END} behind it")
    return f"{before}{BEGIN}\n{section.strip()}\n{END}{after}"
