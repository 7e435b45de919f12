"""What a job needs while it runs, and what there is to give. Pure.

Users write cores and devices as numbers, with up to three decimals, and memory in bytes. So do the plan, the
settings and the records. The core computes with whole numbers: `Amounts` and `Totals` hold thousandths of cores,
devices and other resources, and bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import msgspec

from supervisor.core.terms.wording import as_given

if TYPE_CHECKING:
    from supervisor.core.terms.settings import Settings

THOUSAND = 1000  # parts of a core, a device or a unit of another resource
MOST = 1_000_000  # of anything but memory

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
# By names that no resource may have: the setting of a job that is meant, and the option that says what there is.
_RESERVED = {
    "cpus": ("cpus", "--workers"),
    "cpu": ("cpus", "--workers"),
    "memory": ("memory", "--memory"),
    "gpus": ("gpus", "--gpus"),
    "gpu": ("gpus", "--gpus"),
}


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job asks for. None: the experiment's `--job-cpus`, `--job-memory`, `--job-gpus` apply.

    cpus: cores. memory: bytes. gpus: devices; less than 1 shares one with other jobs. resources: anything
    else, by name.
    """

    cpus: float | None = None
    memory: int | None = None
    gpus: float | None = None
    resources: dict[str, float] = {}


_SAYS_NOTHING = Needs()


class Amounts(msgspec.Struct, frozen=True):
    """What a job takes from the totals while it runs, with the defaults of the experiment filled in.

    cpus, gpus: thousandths. memory: bytes. resources: (name, thousandths), by name.
    """

    cpus: int = THOUSAND
    memory: int = 0
    gpus: int = 0
    resources: tuple[tuple[str, int], ...] = ()


class Totals(msgspec.Struct, frozen=True):
    """What the jobs of one place may take together.

    cpus: thousandths of the slots of `--workers`. memory: bytes, None if unknown. gpus: the devices, as
    CUDA_VISIBLE_DEVICES names them. by_driver: these are indices in the order of the driver (that of the PCI bus).
    resources: thousandths by name; of several places those of all together, and not in the totals of each.
    """

    cpus: int
    memory: int | None = None
    gpus: tuple[str, ...] = ()
    resources: dict[str, int] = {}
    by_driver: bool = False


def amounts_of(needs: Needs | None, settings: Settings) -> Amounts:
    """What a job takes: its own needs; where it does not say, those that `settings` give to every job.

    One core if neither says; no memory, no device, nothing else. A need of 0 is said.
    """
    own = needs or _SAYS_NOTHING
    cpus = own.cpus if own.cpus is not None else settings.job_cpus
    memory = own.memory if own.memory is not None else settings.job_memory
    gpus = own.gpus if own.gpus is not None else settings.job_gpus
    return Amounts(
        cpus=THOUSAND if cpus is None else thousandths(cpus),
        memory=memory or 0,
        gpus=thousandths(gpus or 0),
        resources=tuple((name, thousandths(amount)) for name, amount in sorted(own.resources.items())),
    )


def thousandths(number: float) -> int:
    return round(number * THOUSAND)


def units(amount: int) -> float:
    """Thousandths as the number that a user would write: 4, 0.5."""
    return amount // THOUSAND if amount % THOUSAND == 0 else amount / THOUSAND


def parse_amount(value: Any) -> float:
    """A number of cores or of units: more than 0, at most three decimals kept. ValueError else."""
    number = _number(value)
    if not 0 < number <= MOST or not thousandths(number):
        raise ValueError("expected a number of 0.001 or more" if number < 1 else f"expected at most {MOST:,}")
    return units(thousandths(number))


def parse_gpus(value: Any) -> float:
    """A number of devices: 0, a share of one (0.5), or a whole number. ValueError else."""
    number = _number(value)
    if number == 0:
        return 0
    is_share = 0 < number < 1 and thousandths(number)
    if not is_share and (number < 0 or number != int(number)):
        raise ValueError("expected a whole number of GPUs, or less than 1 for a share of one")
    return parse_amount(number)


def parse_resource(text: str) -> tuple[str, float]:
    """Name and amount of `license=2`. ValueError else."""
    name, equals, amount = (part.strip() for part in text.partition("="))
    if not equals:
        raise ValueError("expected NAME=N, such as license=2")
    return _resource_name(name), parse_amount(amount)


def parse_resources(value: Any) -> dict[str, float]:
    """Amounts by name: {"license": 1}. ValueError else."""
    if not isinstance(value, Mapping):
        raise ValueError('expected names and amounts, such as {"license": 1}')
    found: dict[str, float] = {}
    for name, amount in value.items():
        known = _resource_name(name)
        try:
            found[known] = parse_amount(amount)
        except ValueError as error:
            raise ValueError(f"{name}={as_given(amount, str)}: {error}") from None
    return dict(sorted(found.items()))


def _resource_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{as_given(name)} is not a name: letters, digits, _, - and ., a letter first")
    if (meant := _RESERVED.get(name.lower())) is not None:
        key, option = meant
        raise ValueError(
            f"{name!r} is no resource of your own: a job asks by {key}=, and {option} says what there is"
        )
    return str.__str__(name)


def _number(value: Any) -> float:
    """Of a number of any kind, or of text. Truth values of NumPy and arrays of one element are no numbers."""
    is_number = isinstance(value, Real) or type(value).__name__ == "Decimal"
    if isinstance(value, bool) or not (is_number or isinstance(value, str)):
        raise ValueError("expected a number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"expected at most {MOST:,}") from None
    except Exception:  # of a class of the user
        raise ValueError("expected a number") from None
    if not math.isfinite(number):
        raise ValueError("expected a number")
    return number


def given(amounts: Amounts, devices: tuple[str, ...] = ()) -> dict[str, Any]:
    """For the record of a lease and for people: what a job was given, in the units that users write."""
    found: dict[str, Any] = {"cpus": units(amounts.cpus)}
    if amounts.memory:
        found["memory"] = amounts.memory
    if amounts.gpus:
        found["gpus"] = list(devices)
    if 0 < amounts.gpus < THOUSAND:
        found["gpu_share"] = units(amounts.gpus)
    if amounts.resources:
        found["resources"] = {name: units(amount) for name, amount in amounts.resources}
    return found
