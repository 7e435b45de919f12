"""What jobs need and were given, as people read it. Pure.

`Amounts` and `Totals` hold thousandths; a need in the plan and what a lease gives (`terms.needs.given`) hold the
numbers that users write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supervisor.core.terms.needs import THOUSAND, units
from supervisor.core.terms.wording import count


def cores(amount: int) -> str:
    """`1 core`, `0.5 cores`. Thousandths."""
    return "1 core" if amount == THOUSAND else f"{units(amount):g} cores"


def devices(amount: int) -> str:
    """`2 GPUs`, `0.5 of a GPU`. Thousandths."""
    return f"{units(amount):g} of a GPU" if 0 < amount < THOUSAND else count(amount // THOUSAND, "GPU")


def memory(number: int) -> str:
    """`16G`, `15.42G`, `900 bytes`: as exact as a user would write it."""
    for unit, scale in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20)):
        if number >= scale:
            return f"{number / scale:.2f}".rstrip("0").rstrip(".") + unit
    return f"{number:,} bytes"


def told_apart(larger: int, smaller: int) -> tuple[str, str]:
    """Two sizes, as short as they still differ: `16G` and `15.4G`, else in bytes."""
    texts = memory(larger), memory(smaller)
    return texts if texts[0] != texts[1] else (f"{larger:,} bytes", f"{smaller:,} bytes")


def amounts_in_words(amounts: Mapping[str, Any]) -> str:
    """A need of the plan, or what a lease gives, in one line: `3 cores, 8G of memory, GPUs 0 and 2, license=1`.

    GPUs are a number, or a list of names; of a shared one `gpu_share` says how much. "" if it says nothing.
    """
    parts = []
    if (cpus := amounts.get("cpus")) is not None:
        parts.append(cores(round(cpus * THOUSAND)))
    if (asked := amounts.get("memory")) is not None:
        parts.append(f"{memory(asked)} of memory" if asked else "no memory")
    if (gpus := amounts.get("gpus")) is not None:
        parts.append(_gpus(gpus, amounts.get("gpu_share")))
    parts += [f"{name}={amount:g}" for name, amount in amounts.get("resources", {}).items()]
    return ", ".join(parts)


def _gpus(gpus: Any, share: float | None) -> str:
    if not isinstance(gpus, list):
        return devices(round(gpus * THOUSAND)) if gpus else "no GPU"
    names = " and ".join(filter(None, [", ".join(gpus[:-1]), *gpus[-1:]]))
    part = "" if share is None else f"{share:g} of "
    return f"{part}GPU{'' if len(gpus) == 1 else 's'} {names}"
