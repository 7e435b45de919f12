"""Settings of widely used modules, restored to their values before the first job.

A module that only a job has imported is restored to the settings that it has after its import. Caches of
modules are not restored.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

Module = Any  # its attributes are not known to us


class Setting:
    """A value that is cheap to read and can be restored."""

    __slots__ = ("read", "value", "write")

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], object], value: Any) -> None:
        self.read = read
        self.write = write
        self.value = value

    def restore(self) -> None:
        """Restore it if it has changed. Never raises."""
        with contextlib.suppress(Exception):
            if self.read() == self.value:
                return
        with contextlib.suppress(Exception):
            self.write(self.value)


def present(read: Callable[[], Any], write: Callable[[Any], object]) -> Setting:
    """A setting with its present value."""
    return Setting(read, write, read())


def attributes(owner: Any, *names: str) -> Setting:
    """Attributes with their present values; all are read with one C call."""
    namespace = vars(owner)
    read = partial(itemgetter(*names, names[0]), namespace)

    def write(values: tuple[Any, ...]) -> None:
        for name, value in zip(names, values, strict=False):
            setattr(owner, name, value)

    return present(read, write)


def contents(container: list[Any]) -> Setting:
    """A list with its present items."""

    def write(values: list[Any]) -> None:
        container[:] = values

    return present(container.copy, write)


def _of_warnings(module: Module, late: bool) -> list[Setting]:
    names = ("filters", "showwarning", "formatwarning", "defaultaction")
    filters = contents(module.filters)

    def write(values: list[Any]) -> None:
        module.resetwarnings()  # invalidates the caches of warnings
        module.filters[:] = values

    filters.write = write
    return [attributes(module, *names), filters]


def _of_sockets(module: Module, late: bool) -> list[Setting]:
    setting = present(module.getdefaulttimeout, module.setdefaulttimeout)
    setting.value = None if late else setting.value
    return [setting]


def _of_locale(module: Module, late: bool) -> list[Setting]:
    """Reading each category is expensive. Nearly every change also changes one of these two."""
    everything = module.setlocale(module.LC_ALL)

    def read() -> list[str]:
        return list(map(module.setlocale, (module.LC_NUMERIC, module.LC_TIME)))

    return [present(read, lambda _: module.setlocale(module.LC_ALL, everything))]


def _of_tracemalloc(module: Module, late: bool) -> list[Setting]:
    if module.is_tracing() and not late:
        return []  # stopped by a job, its traces are gone
    return [Setting(module.is_tracing, lambda _: module.stop(), False)]


def _of_multiprocessing(module: Module, late: bool) -> list[Setting]:
    setting = attributes(module._default_context, "_actual_context")
    setting.value = (None, None) if late else setting.value
    return [setting]


def _of_asyncio(module: Module, late: bool) -> list[Setting]:
    """The policy, and with it the current loop."""
    setting = attributes(module, "_event_loop_policy")
    policy = None if late else module._event_loop_policy
    setting.value = (policy, policy)
    local = getattr(policy, "_local", None)
    if policy is None or local is None:
        return [setting]
    return [setting, present(lambda: getattr(local, "_loop", None), policy.set_event_loop)]


def _of_temporary_files(module: Module, late: bool) -> list[Setting]:
    """The directory is determined at its first use, perhaps in a job."""
    setting = attributes(module, "tempdir")
    if late:
        setting.value = (None, None)

    def write(value: tuple[Any, Any]) -> None:
        found = module.tempdir
        usual = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
        if value[0] is None and found == next(filter(None, usual), "/tmp"):
            setting.value = (found, found)  # what any job would determine
        else:
            module.tempdir = value[0]

    setting.write = write
    return [setting]


def _of_logging(module: Module, late: bool) -> list[Setting]:
    """The root logger, which `basicConfig` configures; other loggers belong to their modules."""
    root, manager = module.root, module.root.manager
    level = Setting(lambda: root.level, root.setLevel, module.WARNING if late else root.level)
    disabled = Setting(lambda: manager._disable, module.disable, 0 if late else manager._disable)
    handlers = contents(root.handlers)
    if late:
        handlers.value = []
    return [level, disabled, attributes(root, "handlers"), handlers]


def _of_decimal(module: Module, late: bool) -> list[Setting]:
    """The context, if it existed before the first job; else each job creates its own from the default one."""
    found = [] if late else [value for var, value in contextvars.copy_context().items() if _is_decimals(var)]
    return [
        setting for context in (module.DefaultContext, *found) for setting in _of_decimal_context(context)
    ]


def _is_decimals(variable: contextvars.ContextVar[Any]) -> bool:
    return variable.name == "decimal_context"


def _of_decimal_context(context: Any) -> list[Setting]:
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    settings = [present(partial(getattr, context, n), partial(setattr, context, n)) for n in names]
    for name in ("flags", "traps"):
        # Copied: `getattr` returns a view, which changes and ends with the context.
        before = dict(getattr(context, name))
        settings.append(Setting(partial(getattr, context, name), partial(setattr, context, name), before))
    return settings


def _of_numpy_1(module: Module, late: bool) -> list[Setting]:
    """Its error state; later versions keep it in a context variable."""
    if not hasattr(module, "geterrobj"):
        return []
    setting = present(module.geterrobj, module.seterrobj)
    if late:
        setting.value = [8192, 521, None]  # warn of all but underflow
    return [setting]


# By module name: creates its settings; `late` if only a job has imported it.
WATCHED_MODULES: Mapping[str, Callable[[Module, bool], list[Setting]]] = {
    "warnings": _of_warnings,
    "_socket": _of_sockets,
    "_locale": _of_locale,
    "_tracemalloc": _of_tracemalloc,
    "multiprocessing.context": _of_multiprocessing,
    "asyncio.events": _of_asyncio,
    "tempfile": _of_temporary_files,
    "logging": _of_logging,
    "decimal": _of_decimal,
    "numpy.core.umath": _of_numpy_1,
}
