"""Which GPUs there are, without a library of their maker."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from supervisor.system.process_memory import read

VISIBLE = "CUDA_VISIBLE_DEVICES"
_NONE = ("", "-1", "NoDevFiles", "void")  # what schedulers and containers write for no device
_MINOR = re.compile(rb"^Device Minor:\s*(\d+)", re.MULTILINE)


class GpuDevices(NamedTuple):
    """names: as CUDA_VISIBLE_DEVICES takes them: indices, UUIDs, MIG names. by_driver: they are indices in the
    order of the driver, that of the PCI bus. found_in: who has said so, in words."""

    names: tuple[str, ...]
    by_driver: bool
    found_in: str


def usable_devices(
    environment: Mapping[str, str] = os.environ,
    listed: Path = Path("/proc/driver/nvidia/gpus"),
    files: Path = Path("/dev"),
) -> GpuDevices:
    """The devices that CUDA_VISIBLE_DEVICES names, if it is set, else those that the driver lists."""
    if VISIBLE in environment:
        text = environment[VISIBLE]
        return GpuDevices(_named(text), by_driver=False, found_in=f"{VISIBLE}={text}")
    number = listed_devices(listed, files)
    if number is None:
        return GpuDevices((), by_driver=False, found_in=f"{VISIBLE} is not set, no NVIDIA driver is found")
    names = tuple(map(str, range(number)))
    return GpuDevices(names, by_driver=True, found_in="the NVIDIA driver lists them")


def listed_devices(listed: Path = Path("/proc/driver/nvidia/gpus"), files: Path = Path("/dev")) -> int | None:
    """How many devices the driver lists, of which this process may open the file; None if it cannot be told
    (another system, another maker, WSL). The driver numbers them in the order of the PCI bus."""
    try:
        found = os.listdir(listed)
    except OSError:
        return None
    return sum(1 for address in found if _is_open_to_us(listed / address, files))


def _is_open_to_us(device: Path, files: Path) -> bool:
    """A container is given the files of its own devices, and may see the list of all."""
    minor = _MINOR.search(read(str(device / "information")))
    return minor is None or os.access(files / f"nvidia{int(minor[1])}", os.R_OK | os.W_OK)


def _named(text: str) -> tuple[str, ...]:
    """As CUDA reads it: what follows the first name that is none does not count."""
    names: dict[str, None] = {}
    for name in map(str.strip, text.split(",")):
        if name in _NONE:
            break
        names[name] = None
    return tuple(names)
