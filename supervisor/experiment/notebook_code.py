"""The code of a function that has no file: of a notebook, or a prompt. It is sent to the workers by value, with
the functions, classes and values beside it that it refers to, and so these are its code, too.

A digest must come out the same for the same cells in another process. Pickles do not: they depend on the
identity of objects and on the order of sets. So functions count by their source (or else by their byte code),
plain values, containers of them and NumPy's arrays by their content, objects of the notebook's own classes by
their class and attributes. Of any other object only its type counts.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from supervisor.core.terms.code_spans import DIGITS

_MOST_ITEMS = 100_000  # of a value; what has more is data rather than a setting
_MOST_BYTES = 1 << 24  # of an array
_MOST_DEPTH = 40
_BY_REPR = ("datetime", "decimal", "fractions", "pathlib", "uuid")
_SCALARS = (int, float, complex, str, bytes, bytearray)
_READS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_BY_NAME = (types.BuiltinFunctionType, types.FunctionType, type)
_CACHED = type(functools.cache(len))
_OF_EVERY_CLASS = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__annotate__"),
    *("__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__"),
    *("__abstractmethods__", "_abc_impl"),
}


def digests_of(
    function: Callable[..., Any], target: Any, setup: Callable[[], Any] | None
) -> tuple[str, dict[str, str]]:
    """SHA-256 of `target` itself; and the beginning (`DIGITS`) of that of everything which is sent with it, by
    name. `function`: `target`, or what wraps it."""
    walk = _Walk(getattr(target, "__module__", None))
    name = getattr(target, "__name__", "")
    walk.follow(name, target)
    if function is not target:
        walk.follow(name, function)
    if setup is not None:
        walk.follow("setup", setup)
    digests = {
        name: hashlib.sha256(b"\0".join(sorted(texts))).hexdigest() for name, texts in walk.found.items()
    }
    return digests.pop(name), {name: digests[name][:DIGITS] for name in sorted(digests)}


class _Walk:
    """Everything that is reached from a function. `found`: by name, what it consists of."""

    def __init__(self, module: str | None) -> None:
        self.found: dict[str, list[bytes]] = {}
        self._module = module
        self._seen: set[int] = set()  # functions and classes
        self._waiting: list[tuple[str, Any]] = []
        self._items = 0

    def follow(self, name: str, value: Any) -> None:
        """This, and what it refers to."""
        self._refer(name, value)
        while self._waiting:
            name, one = self._waiting.pop()
            text = self._of_class(one) if isinstance(one, type) else self._of_function(name, one)
            self.found.setdefault(name, []).append(text)

    def _refer(self, name: str, value: Any) -> None:
        self._items = 0
        text = self._of(value, name)  # and queues what it refers to
        if not self._is_own(value):  # its own text follows
            self.found.setdefault(name, []).append(text)

    def _is_own(self, value: Any) -> bool:
        return isinstance(value, (types.FunctionType, type)) and value.__module__ == self._module

    def _of_function(self, name: str, function: types.FunctionType) -> bytes:
        """Its source and defaults; what it refers to has digests of its own."""
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # it has none yet
                continue
            self._refer(cell_name, value)
        known = function.__globals__
        for global_name in dict.fromkeys(_globals_in(function.__code__)):
            # A decorator of a library may name its function like ours.
            if global_name in known and known.get("__name__") == self._module:
                self._refer(global_name, known[global_name])
        wrapped = getattr(function, "__wrapped__", None)
        parts = [source_of(function), self._of(function.__defaults__), self._of(function.__kwdefaults__)]
        return b"\0".join([*parts, self._of(wrapped, name)])

    def _of_class(self, one: type) -> bytes:
        """Its methods and attributes in their order; its base classes have digests of their own."""
        parts = [self._of(base) for base in one.__bases__]
        for name, value in vars(one).items():
            if name not in _OF_EVERY_CLASS:
                parts.append(name.encode() + b"=" + b"\0".join(self._member(one.__name__, value)))
        return b"\0".join(parts)

    def _member(self, name: str, value: Any) -> Iterator[bytes]:
        """A method is part of its class."""
        members = [value]
        if isinstance(value, (staticmethod, classmethod)):
            members = [value.__func__]
        elif isinstance(value, functools.cached_property):
            members = [value.func]
        elif isinstance(value, property):
            members = [value.fget, value.fset, value.fdel]
        for member in members:
            if isinstance(member, types.FunctionType) and id(member) not in self._seen:
                self._seen.add(id(member))
                yield self._of_function(name, member)
            else:
                yield self._of(member, name)

    def _of(self, value: Any, name: str = "", depth: int = 0) -> bytes:
        """What a value is, as far as that is the same in another process. Functions and classes that are
        sent with it will be followed; `name` is for those that have none."""
        kind = type(value)
        self._items += 1
        if value is None or kind is bool or value is Ellipsis:
            return repr(value).encode()
        if isinstance(value, types.ModuleType):
            return b"module " + value.__name__.encode()
        if isinstance(value, _BY_NAME):
            return self._by_name(value, name)
        label = f"{kind.__module__}.{kind.__qualname__}".encode()
        if kind.__module__ == self._module:
            self._by_name(kind, "")
        for scalar in _SCALARS:
            if isinstance(value, scalar):
                return label + b":" + scalar.__repr__(value).encode(errors="surrogatepass")
        if kind.__module__.partition(".")[0] in _BY_REPR:
            return repr(value).encode(errors="surrogatepass")
        if self._items > _MOST_ITEMS or depth > _MOST_DEPTH:
            return label
        return label + self._content(value, name, depth + 1)

    def _content(self, value: Any, name: str, depth: int) -> bytes:
        def each(values: Any) -> list[bytes]:
            return [self._of(one, name, depth) for one in values]

        kind = type(value)
        if isinstance(value, (list, tuple)):
            return b"[" + b",".join(each(value)) + b"]"
        if isinstance(value, (set, frozenset)):
            return b"{" + b",".join(sorted(each(value))) + b"}"
        if isinstance(value, dict):
            pairs = zip(each(value), each(value.values()), strict=True)
            return b"{" + b",".join(sorted(key + b":" + one for key, one in pairs)) + b"}"
        if isinstance(value, range):
            return repr(value).encode()
        if isinstance(value, types.MethodType):
            return b"".join(each([value.__func__, value.__self__]))
        if isinstance(value, functools.partial):
            return b"".join(each([value.func, value.args, value.keywords]))
        if isinstance(value, _CACHED):
            return self._of(value.__wrapped__, name, depth)
        if isinstance(value, enum.Enum):
            return value.name.encode()
        if kind.__module__ == self._module or kind is types.SimpleNamespace:
            return self._of(getattr(value, "__dict__", None), name, depth)
        if kind.__module__ == "numpy" and getattr(value, "nbytes", _MOST_BYTES) < _MOST_BYTES:
            dtype = value.dtype
            return b"" if dtype.hasobject else f"{dtype.descr}{value.shape}".encode() + bytes(value.tobytes())
        return b""

    def _by_name(self, value: Any, name: str) -> bytes:
        """A function or class. One of the notebook's own will be followed."""
        own_name = value.__name__ if value.__name__ != "<lambda>" else name
        if self._is_own(value) and id(value) not in self._seen:
            self._seen.add(id(value))
            self._waiting.append((own_name, value))
        return f"{value.__module__}.{value.__qualname__}".encode()


def source_of(function: Any) -> bytes:
    """Its source, or else its byte code."""
    try:
        return inspect.getsource(function).encode(errors="surrogatepass")
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return _of_code(code) if isinstance(code, types.CodeType) else repr(function).encode()


def _of_code(code: types.CodeType) -> bytes:
    """What is executed, without places in memory and in files."""
    parts = [code.co_code, repr(code.co_names).encode()]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            parts.append(_of_code(const))
        else:
            parts.append(
                (repr(sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)).encode()
            )
    return b"\0".join(parts)


def _globals_in(code: types.CodeType) -> Iterator[str]:
    """Names of globals that it reads, also in functions within it."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _READS_GLOBAL:
            yield instruction.argval
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _globals_in(const)
