"""The settings of an experiment: names, defaults, and what is a legal value. Pure.

Every field is an option of the script, a keyword of `run()` and a key of `settings` in
the checkpoint. Precedence: flag now > remembered in the checkpoint > keyword in the
script > default; this module only knows the defaults.
"""

from __future__ import annotations

import re
from numbers import Integral
from operator import index
from typing import Any, Literal

import msgspec

from supervisor.core.terms.errors import UsageError
from supervisor.core.terms.needs import parse_amount, parse_gpus, parse_resources
from supervisor.core.terms.wording import as_given


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """Remembered settings. Durations are seconds."""

    workers: int | str = 6  # a number or "auto" (usable cores)
    all_tasks: bool = False
    timeout: float | None = None
    retries: int = 0
    retry_timeouts: int = 0
    retry_over_memory: bool = False
    backoff: float = 1.0
    memory_limit: int | None = None  # bytes
    keep_free: int | None = None  # bytes
    nice: int = 0
    rate: str | None = None  # "10/s"; see `starts_per_second`
    max_failures: str | None = None  # "10" or "5%"; see `failures_allowed`
    deadline: str | None = None  # "07:30", a date and time, a duration, or "slurm"
    stall: float | None = None
    grace: float = 20.0
    crash_limit: int = 3
    checkpoint_every: int = 5
    max_jobs_per_worker: int | None = None
    seed: int = 0
    start_method: str = "auto"  # auto, zygote, spawn
    retry_failed: bool = True
    on_finish: str | None = None  # a command of the shell
    on_failure: str | None = None
    hook_timeout: float = 60.0
    job_cpus: float | None = None  # of a job that does not say; see `terms.needs`
    job_memory: int | None = None  # bytes
    job_gpus: float | None = None
    memory: int | str = "auto"  # bytes that jobs may ask for together, or "auto": what the machine has
    gpus: str = "auto"  # devices that jobs may use: auto, none, a number, or names ("0,2,3")
    resources: dict[str, float] = {}  # anything else that jobs may ask for, by name
    engine: str = "local"  # local: this machine alone; ray: a cluster; or another carrier of agents to nodes
    address: str = "auto"  # of the cluster: auto, local (start one here) or HOST:PORT
    nodes: int | None = None  # at most
    files: Literal["auto", "shared", "ship"] = (
        "auto"  # whether nodes share our file system: auto (each says so)
    )
    ship: str | None = None  # a directory with the script, copied to nodes
    node_timeout: float = 30.0  # seconds without a word, until a node is given up


def name_needs(settings: Settings) -> bool:
    """Whether the settings say what each job needs, or which devices there are to be."""
    each_job = (settings.job_cpus, settings.job_memory, settings.job_gpus)
    return any(value is not None for value in each_job) or settings.gpus not in ("auto", "none")


# The option of a setting, if its name is another one: it is given once for each resource.
_OPTIONS = {"resources": "--resource"}
MOST_DEVICES = 1024
_LEAST_MEMORY, _MOST_MEMORY = 1 << 20, 1 << 62  # JSON has no larger numbers
FILES = ("auto", "shared", "ship")
START_METHODS = ("auto", "zygote", "spawn")

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|min|h)$")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%$")
_CLOCK = re.compile(r"(?:\d{4}-\d\d-\d\d[T ])?([01]?\d|2[0-3]):[0-5]\d$")
_DURATION = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)$")
_PARTS = re.compile(
    r"(?:(\d+)\s*d\s*)?(?:(\d+)\s*h\s*)?(?:(\d+)\s*m(?:in)?\s*)?(?:(\d+(?:\.\d+)?)\s*s)?$", re.IGNORECASE
)
_DEVICE = re.compile(r"0|[1-9][0-9]*|[A-Za-z_][A-Za-z0-9_./:-]*")
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PLACE = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_NUMBER_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)$")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_duration(text: str) -> float:
    """Seconds from `90`, `1.5`, `90s`, `15m`, `2h`, `1d`, `1h30m` or `1-12:00:00`; ValueError else."""
    text = text.strip()
    if clock := _DURATION.match(text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    match = _NUMBER_UNIT.match(text)
    if match and match.group(2).lower() in _SECONDS:
        return float(match.group(1)) * _SECONDS[match.group(2).lower()]
    if text and (parts := _PARTS.match(text)):
        seconds_of = (86400.0, 3600.0, 60.0, 1.0)
        return sum(float(part or 0) * each for part, each in zip(parts.groups(), seconds_of, strict=True))
    raise ValueError(f"{as_given(text)} is not a duration: write 90, 15m, 1h30m or 1-12:00:00")


def parse_size(text: str) -> int:
    """Bytes from `1000`, `400M`, `2G` (binary units); ValueError else."""
    match = _NUMBER_UNIT.match(text.strip())
    unit = match.group(2).lower().removesuffix("ib").removesuffix("b") if match else ""
    if match and unit in _BYTES:
        return int(float(match.group(1)) * _BYTES[unit])
    raise ValueError(f"{as_given(text)} is not a size: write 1000000, 400M or 2G")


def sized(number: int) -> str:
    """`412M`, `1.9G`, in the binary units that the options take."""
    if number < 1 << 30:
        return f"{number / (1 << 20):.0f}M"
    return f"{number / (1 << 30):.1f}".removesuffix(".0") + "G"


def starts_per_second(rate: str) -> float:
    """`10/s`, `60/m`, `500/h`; ValueError else."""
    match = _RATE.match(rate.strip())
    if not match or not float(match.group(1)):
        raise ValueError("expected a number of job starts per second, minute or hour: 10/s, 60/m or 500/h")
    return float(match.group(1)) / _SECONDS[match.group(2)]


def failures_allowed(text: str | None) -> tuple[int, float | None] | None:
    """(number, None) of `10`, (0, share) of `5%`; ValueError else."""
    if text is None:
        return None
    match = _SHARE.match(text.strip())
    share = float(match.group(1)) / 100 if match else 0.0
    if match and 0 < share <= 1:
        return 0, share
    if not match and text.strip().isdecimal() and int(text) > 0:
        return int(text), None
    raise ValueError("expected a number of jobs, 1 or more, or a share of those that ended: 10 or 5%")


def is_clock(text: str) -> bool:
    """Whether it is a time of day, with or without a date: `07:30`, `2025-10-15T07:30`."""
    return _CLOCK.match(text) is not None


def option_of(key: str) -> str:
    """`--job-cpus` of "job_cpus"."""
    return _OPTIONS.get(key) or "--" + key.replace("_", "-")


def parse_value(key: str, value: Any, *, option: str = "") -> Any:
    """One setting from what a user wrote, as text or as a Python value. `option`: what it is called,
    if not by its name.

    Raises UsageError that names the option, the value and what is expected.
    """
    try:
        return _parsed(_PARSERS[key], value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{option or option_of(key)} {as_given(value, str)}: {error}") from None


def parse_own(key: str, value: Any) -> Any:
    """A setting that a job has of its own (a field of `Job`); what the experiment has too takes the same
    values. Raises TypeError or ValueError that says what is expected."""
    return _parsed(_OWN_PARSERS.get(key) or _PARSERS[key], value)


def _parsed(parse: Any, value: Any) -> Any:
    try:
        return parse(value)
    except OverflowError:
        raise ValueError("too large a number") from None


def _whole(least: int, most: int = 2**53) -> Any:
    def parse(value: Any) -> int:
        if isinstance(value, (bool, float)):
            raise ValueError("expected a whole number")
        try:
            number = int(value)
        except ValueError:
            raise ValueError("expected a whole number") from None
        if not least <= number <= most:
            bound = f"at least {least}" if number < least else f"at most {most}"
            raise ValueError(f"expected a whole number, {bound}")
        return number

    return parse


def _optional(parse: Any) -> Any:
    def parse_or_none(value: Any) -> Any:
        return None if value is None or (isinstance(value, str) and value == "none") else parse(value)

    return parse_or_none


def _duration(least: float, *, open_end: bool = False) -> Any:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or (not hasattr(value, "__float__") and not isinstance(value, str)):
            raise ValueError("expected a duration, such as 90 or '15m'")
        seconds = parse_duration(value) if isinstance(value, str) else float(value)
        if not seconds < float("inf") or seconds < least or (open_end and seconds == least):
            raise ValueError(f"expected a duration of {'more than' if open_end else 'at least'} {least:g} s")
        return seconds

    return parse


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _workers(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    try:
        number: int = _whole(1, 4096)(value)
    except ValueError:
        raise ValueError("expected a whole number, 1 to 4096, or auto") from None
    return number


def _command(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("expected a command for the shell, or none")
    return value


def _size(least: int) -> Any:
    def parse(value: Any) -> int:
        if isinstance(value, bool):
            raise ValueError("expected a size: 1000000, 400M or 2G")
        try:
            size = parse_size(value) if isinstance(value, str) else index(value)
        except TypeError:
            raise ValueError("expected a size: 1000000, 400M or 2G") from None
        if size < least:
            raise ValueError(f"expected a size of at least {least >> 20}M")
        if size > _MOST_MEMORY:
            raise ValueError(f"expected a size of at most {_MOST_MEMORY >> 40:,}T")
        return size

    return parse


def _rate(value: Any) -> str:
    starts_per_second(str(value))
    return str(value).strip()


def _max_failures(value: Any) -> str:
    if isinstance(value, (bool, float)):
        raise ValueError("expected a number of jobs or a share, 10 or 5%")
    failures_allowed(str(value))
    return str(value).strip()


def _deadline(value: Any) -> str:
    text = str(value).strip()
    if text == "slurm" or (isinstance(value, str) and is_clock(text)):
        return text
    try:
        _duration(0.0, open_end=True)(value)
    except ValueError:
        raise ValueError(
            "expected a time (07:30, 2025-10-15T07:30), a duration from now (8h) or slurm"
        ) from None
    return text


def _priority(value: Any) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value == 0)
    if isinstance(value, bool) or not is_whole or abs(value) >= 2**31:
        raise ValueError("expected a whole number (higher ones start first)")
    return int(value)


def _own_memory(value: Any) -> int:
    """0 for "none" and 0: the job says that it asks for none, whatever the experiment says."""
    if isinstance(value, str) and value.strip() in ("0", "none"):
        return 0
    if not isinstance(value, bool) and isinstance(value, Integral) and value == 0:
        return 0
    size: int = _size(_LEAST_MEMORY)(value)
    return size


def _memory(value: Any) -> int | str:
    if isinstance(value, str) and value == "auto":
        return "auto"
    try:
        size: int = _size(_LEAST_MEMORY)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None
    return size


def _gpus(value: Any) -> str:
    is_number = hasattr(value, "__index__") and not isinstance(value, bool)
    text = str(value).strip() if is_number or isinstance(value, str) else ""
    if text in ("auto", "none"):
        return text
    names = text.removesuffix(",").split(",")
    if isinstance(value, (list, tuple)):
        raise ValueError('expected the names in one text: "0,2,3"')
    # A word alone (`all`, `two`, `none,1`) names no device: UUIDs and MIG devices have a hyphen, indices are numbers.
    if not all(_DEVICE.fullmatch(name) and not name.isalpha() for name in names):
        raise ValueError("expected auto, none, a number of devices, or their names: 0,2,3")
    if len(set(names)) < len(names):
        raise ValueError("expected each device once")
    if text.isdecimal() and int(text) > MOST_DEVICES:
        raise ValueError(f"expected at most {MOST_DEVICES} devices")
    return text


def _engine(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("expected local or ray")
    return value


def _address(value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    port = text.rpartition(":")[2]
    is_place = _PLACE.fullmatch(text) is not None and 0 < int(port) < 65536
    if text not in ("auto", "local") and not is_place:
        raise ValueError("expected auto, local or HOST:PORT, such as 10.0.0.1:6379")
    return text


def _files(value: Any) -> str:
    if value not in FILES:
        raise ValueError(f"expected one of {', '.join(FILES)}")
    return str(value)


def _directory(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("expected a directory, or none")
    return value


def _node_timeout(value: Any) -> float:
    seconds: float = _duration(0.0)(value)
    if not 1.0 <= seconds <= 86400.0:
        raise ValueError("expected a time between 1s and 1d")
    return seconds


def _start_method(value: Any) -> str:
    if value not in START_METHODS:
        raise ValueError(f"expected one of {', '.join(START_METHODS)}")
    return str(value)


_PARSERS: dict[str, Any] = {
    "workers": _workers,
    "all_tasks": _boolean,
    "timeout": _optional(_duration(0.0, open_end=True)),
    "retries": _whole(0),
    "retry_timeouts": _whole(0),
    "retry_over_memory": _boolean,
    "backoff": _duration(0.0),
    "memory_limit": _optional(_size(_LEAST_MEMORY)),
    "keep_free": _optional(_size(_LEAST_MEMORY)),
    "nice": _whole(0, 19),
    "rate": _optional(_rate),
    "max_failures": _optional(_max_failures),
    "deadline": _optional(_deadline),
    "stall": _optional(_duration(0.0, open_end=True)),
    "grace": _duration(0.0),
    "crash_limit": _whole(1),
    "checkpoint_every": _whole(1),
    "max_jobs_per_worker": _optional(_whole(1)),
    "seed": _whole(0, 2**63 - 1),
    "start_method": _start_method,
    "retry_failed": _boolean,
    "on_finish": _optional(_command),
    "on_failure": _optional(_command),
    "hook_timeout": _duration(0.0, open_end=True),
    "job_cpus": _optional(parse_amount),
    "job_memory": _optional(_size(_LEAST_MEMORY)),
    "job_gpus": _optional(parse_gpus),
    "memory": _memory,
    "gpus": _gpus,
    "resources": parse_resources,
    "engine": _engine,
    "address": _address,
    "nodes": _optional(_whole(1)),
    "files": _files,
    "ship": _optional(_directory),
    "node_timeout": _node_timeout,
}

# Of what only a job has, or what means something else there.
_OWN_PARSERS: dict[str, Any] = {
    "priority": _priority,
    "cpus": parse_amount,
    "memory": _own_memory,
    "gpus": parse_gpus,
}
