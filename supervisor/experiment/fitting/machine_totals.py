"""What there is for the jobs of this machine: the settings, and where they say auto, what the machine has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from supervisor.core.terms.needs import THOUSAND, Totals, thousandths
from supervisor.core.terms.settings import Settings
from supervisor.core.terms.wording import count
from supervisor.system.capacity.cpu_limits import usable_cores
from supervisor.system.capacity.free_memory import usable_memory
from supervisor.system.capacity.gpu_devices import GpuDevices, listed_devices, usable_devices


class Machine(NamedTuple):
    """Where the facts come from; tests have others."""

    cores: Callable[[], int] = usable_cores
    memory: Callable[[], int | None] = usable_memory
    devices: Callable[[], GpuDevices] = usable_devices
    listed: Callable[[], int | None] = listed_devices
    largest: int | None = None  # cores of the largest node, if it is not one machine


THIS_MACHINE = Machine()


class MachineFor(Protocol):
    def __call__(self, settings: Settings, *, needed: bool) -> Machine: ...


def this_machine(settings: Settings, *, needed: bool = True) -> Machine:
    """Of a run on this machine alone, whatever the settings are."""
    return THIS_MACHINE


def slots_of(settings: Settings, machine: Machine = THIS_MACHINE) -> int:
    """How many workers there may be."""
    return machine.cores() if settings.workers == "auto" else int(settings.workers)


def totals_of(settings: Settings, machine: Machine = THIS_MACHINE) -> Totals:
    """What the jobs may take together. GPUs that the settings count and that are not there are left out:
    `missing_devices` says so."""
    names, by_driver = _devices(settings.gpus, machine)
    cores = slots_of(settings, machine)
    if machine.largest is not None:  # on nodes a worker has all that its job takes
        cores = min(math.ceil(cores * (settings.job_cpus or 1.0)), machine.largest)
    return Totals(
        cpus=cores * THOUSAND,
        memory=_memory(settings, machine),
        gpus=names,
        resources={name: thousandths(amount) for name, amount in settings.resources.items()},
        by_driver=by_driver,
    )


def missing_devices(settings: Settings, machine: Machine = THIS_MACHINE) -> str:
    """What to say if `--gpus` asks for devices that are certainly not there; "" if they are."""
    text = settings.gpus
    if (wanted := _number_in(text)) is not None:
        found = machine.devices()
        return "" if wanted <= len(found.names) else _found(text, found)
    listed = machine.listed() if _names_in(text) else None
    beyond = [name for name in _names_in(text) if name.isdecimal() and int(name) >= (listed or 0)]
    if listed is None or not beyond:
        return ""
    return f"--gpus {text}: there is no device {beyond[0]}: the NVIDIA driver lists {count(listed, 'GPU')}"


def detected_devices(settings: Settings, machine: Machine = THIS_MACHINE) -> str:
    """What `--gpus auto` has found, and where; "" if the settings say what there is."""
    return _found("auto", machine.devices()) if settings.gpus == "auto" else ""


def _found(text: str, found: GpuDevices) -> str:
    number = len(found.names)
    there = f"found {count(number, 'GPU')}" if number else "found no GPU"
    return f"--gpus {text}: {there} ({found.found_in})"


def _memory(settings: Settings, machine: Machine) -> int | None:
    if settings.memory != "auto":
        return int(settings.memory)
    usable = machine.memory()
    return None if usable is None else max(0, usable - (settings.keep_free or 0))


def _devices(text: str, machine: Machine) -> tuple[tuple[str, ...], bool]:
    """The names, and whether they are indices in the driver's order."""
    if named := _names_in(text):
        return named, False
    wanted = _number_in(text)
    if text == "none" or wanted == 0:
        return (), False
    found = machine.devices()
    return found.names[:wanted], found.by_driver


def _number_in(text: str) -> int | None:
    """How many devices `--gpus` asks for; None if it is auto or none, or names them."""
    return int(text) if text.isdecimal() else None


def _names_in(text: str) -> tuple[str, ...]:
    """`0,2`; `3,` names one. What is a number alone is no name."""
    if text in ("auto", "none") or text.isdecimal():
        return ()
    return tuple(text.removesuffix(",").split(","))
