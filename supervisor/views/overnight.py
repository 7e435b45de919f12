"""What happened to a run as a whole, in lines for its summary. Pure."""

from __future__ import annotations

from supervisor.core.bounds import LOW_MEMORY
from supervisor.core.control import BY_HAND
from supervisor.core.overnight import Overnight
from supervisor.views.words import duration

_WORDS = {
    "no_space": "waited for room on the disk",
    "disk_stalled": "waited for a disk that did not answer",
    "suspended": "stood still, suspended or stopped",
    LOW_MEMORY: "waited for free memory",
    BY_HAND: "paused by hand",
}
_OF_JOBS = {
    "stopped_for_memory": "stopped because memory was short, to run again",
    "memory_left_behind": "run again in a fresh worker, for the memory that jobs before had left",
    "stalled": "used no CPU for long (--stall)",
}


def overnight_lines(overnight: Overnight, at: str) -> list[str]:
    """`waited for room on the disk: 12m in all, 3 times`; orders from other terminals in one
    line. `at`: now, ISO 8601."""
    lines = []
    for why, stretch in overnight.waits.items():
        times = "once" if stretch.times == 1 else f"{stretch.times:,} times"
        words = _WORDS.get(why, f"nothing new was started ({why.replace('_', ' ')})")
        lines.append(f"{words}: {duration(overnight.seconds(why, at))} in all, {times}")
    for what, words in _OF_JOBS.items():
        if (seen := overnight.noted.get(what)) is not None:
            more = f" and {seen.times - 1:,} more" if seen.times > 1 else ""
            lines.append(f"{words}: {seen.first_job}{more}")
    if overnight.orders:
        counted = (
            f"{order} {f'({times:,})' if times > 1 else ''}" for order, times in overnight.orders.items()
        )
        lines.append(f"longhaul ctl: {', '.join(text.strip() for text in counted)}")
    return lines
