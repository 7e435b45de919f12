"""Values of the user's code to JSON and back: results, and the parameters of jobs.

A result is never altered silently. What JSON knows is written as it is; what has an
obvious JSON form (`workers.values.json_forms`) is converted and its kind is named in
`converted`; NaN and infinities become null and are listed in `nonfinite`; anything else
raises `Unencodable`, which names the path into the value. Parameters are stricter: what
the function receives is what stands on disk, so only tuples and NumPy scalars are
converted.

Most results are small dicts of numbers and text, so `_is_plain` sends them straight to
the encoder; only what is not plain is walked and rebuilt by a `_Converter`. msgspec by
itself will not do: it turns NaN into null, int keys into strings and tuples into lists
without a word. No file, process or clock enters here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite, isnan
from operator import itemgetter
from typing import Any

import msgspec

from workers.values.json_forms import (
    array_form,
    fields_of,
    is_numpy_array,
    is_sequence,
    is_set,
    key_form,
    kind_of,
    numpy_parameter,
    scalar_form,
    why_no_parameter,
    why_no_result,
)

# The walk takes three or four frames a level, and shares the interpreter's limit of 1000
# with the code that calls it.
MAX_DEPTH = 150
# Python refuses to read integers of more than 4300 decimal digits from text.
MAX_INT_BITS = 14_000

_FAST_INT = 2**63
_TOO_SMALL, _TOO_LARGE = -(2.0**63), 2.0**63
_NUMBERS = {int, float}
_SCALARS = {str, int, float, bool, type(None)}
_NONFINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}

_encode = msgspec.json.Encoder().encode


class Unencodable(ValueError):
    """A value, or a part of it, has no JSON form.

    `path` is a JSON pointer into the value ("/models/0/clf"; "" is the value itself).
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that the exception can be copied
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path or 'the value itself'}: {self.reason}"


class Encoded(msgspec.Struct):
    """A result in the form that is written to disk.

    `nonfinite` are (JSON pointer, "nan" | "inf" | "-inf") of values written as null;
    `converted` names the kinds of values that were given a JSON form, each one once.
    """

    json: bytes
    nonfinite: list[tuple[str, str]] = []
    converted: list[str] = []


def all_plain(params: Sequence[dict[str, Any]]) -> bool:
    """Whether JSON certainly gives back exactly these values, except for lone surrogates in text. Cheap for
    each value, since there may be a million. False: each value has to be checked."""
    values = list(chain.from_iterable(map(dict.values, params)))
    kinds = set(map(type, values))
    if not kinds <= _SCALARS or not set(map(type, chain.from_iterable(params))) <= {str}:
        return all(_is_plain(value, MAX_DEPTH) for value in params)
    if kinds.isdisjoint(_NUMBERS):
        return True
    numbers = values if kinds <= _NUMBERS else [each for each in values if type(each) in _NUMBERS]
    if float in kinds and not all(map(_TOO_LARGE.__gt__, numbers)):  # nor is NaN less than anything
        return False
    return bool(min(numbers) > _TOO_SMALL and max(numbers) < _TOO_LARGE)


def only_scalars(params: Sequence[dict[str, Any]]) -> bool:
    """Whether all values are of exactly the kinds that JSON has, and have no parts. NaN and infinities may be there."""
    return set(map(type, chain.from_iterable(map(dict.values, params)))) <= _SCALARS


def only_scalars_of(params: Sequence[dict[str, Any]], names: Sequence[str]) -> bool:
    """`only_scalars` of params that have so many names each: these. Raises KeyError if one has another."""
    return all(set(map(type, map(itemgetter(name), params))) <= _SCALARS for name in names)


def encode_plain(value: Any) -> bytes | None:
    """A result that consists of JSON's own types, as JSON; None for any other."""
    kind = type(value)
    if value is None or kind is bool or (kind is int and -_FAST_INT < value < _FAST_INT):
        return _encode(value)
    try:
        return _encode(value) if _is_plain(value, MAX_DEPTH) else None
    except (UnicodeEncodeError, RuntimeError):
        return None  # a lone surrogate, or a dict that a thread still changes: the walk says where


def encode_result(value: Any) -> Encoded:
    """A job's return value as JSON. Raises Unencodable if it has no JSON form."""
    json = encode_plain(value)
    if json is not None:
        return Encoded(json)
    converter = _Converter()
    plain = converter.run(value)
    return Encoded(_encode(plain), converter.nonfinite, list(converter.converted))


def encode_params(params: Mapping[str, Any]) -> bytes:
    """The parameters of a job, as a JSON object with its keys in their order.

    Decoded again they equal what was given, but for tuples (lists) and NumPy scalars
    (Python's own). Raises Unencodable for anything else, naming path and next step.
    """
    if type(params) is dict and _is_plain(params, MAX_DEPTH):
        try:
            return _encode(params)
        except UnicodeEncodeError:
            pass
    if not isinstance(params, Mapping):
        raise Unencodable("", f"parameters are a dict of keyword arguments, not a {kind_of(params)}")
    return _encode(_ParamsConverter().run(dict(params)))


def encode_state(value: Any) -> Encoded:
    """The saved state of a job, as JSON that decodes to an equal value.

    Like parameters (only tuples and NumPy scalars are converted), but NaN and infinities are
    allowed: they are restored. Raises Unencodable for anything else.
    """
    if _is_plain(value, MAX_DEPTH):
        try:
            return Encoded(_encode(value))
        except (UnicodeEncodeError, RuntimeError):
            pass  # a lone surrogate, or a dict that a thread still changes: the walk says where
    converter = _StateConverter()
    plain = converter.run(value)
    return Encoded(_encode(plain), converter.nonfinite)


def restore_nonfinite(value: Any, nonfinite: Iterable[Sequence[str]]) -> Any:
    """Put NaN and infinities back into a decoded result; changes and returns `value`.

    Raises ValueError if a pointer does not lead to a null: then the list is not that of
    this result.
    """
    for pointer, name in nonfinite:
        *parents, last = [""] + [
            part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]
        ]
        holder: Any = {"": value}
        try:
            for part in parents:
                holder = holder[int(part) if isinstance(holder, list) else part]
            key: Any = int(last) if isinstance(holder, list) else last
            if holder[key] is not None:
                raise ValueError
            holder[key] = _NONFINITE[name]
        except (LookupError, TypeError, ValueError):
            raise ValueError(f"the result has no null at {pointer!r} that could be {name}") from None
        if not parents:
            value = holder[key]
    return value


def _is_plain(value: Any, depth: int) -> bool:
    """Does this JSON-encode to exactly itself, but for lone surrogates in text?

    Only the exact types count, since a subclass may carry what JSON does not. One loop
    without a call per item: this runs for every result of a million small jobs.
    """
    items: Iterable[Any]
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        items = value.values()
    elif kind is list:
        items = value
    elif kind is float:
        return bool(value - value == 0.0)  # neither NaN nor infinite
    elif kind is int:
        return bool(-_FAST_INT < value < _FAST_INT)
    else:
        return kind is str or value is None or kind is bool
    if depth <= 0:
        return False
    for item in items:
        kind = type(item)
        if kind is float:
            if item - item != 0.0:  # NaN or infinite
                return False
        elif kind is int:
            if not -_FAST_INT < item < _FAST_INT:
                return False
        elif (
            kind is not str
            and item is not None
            and kind is not bool
            and not ((kind is dict or kind is list) and _is_plain(item, depth - 1))
        ):
            return False
    return True


class _Converter:
    """One walk over one value, rebuilding it from what JSON knows."""

    def __init__(self) -> None:
        self.nonfinite: list[tuple[str, str]] = []
        self.converted: dict[str, None] = {}  # a set that keeps its order
        self._path: list[str | int] = []
        self._open: set[int] = set()  # containers that are being walked

    def run(self, value: Any) -> Any:
        """The value in JSON's own types. Whatever the user's objects raise is Unencodable."""
        try:
            return self._convert(value)
        except Unencodable:
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:500].encode(errors="backslashreplace").decode()
            raise self._refusal(f"reading it raised {text}") from error

    # ------------------------------------------------------------------- one value

    def _convert(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is str:
            return self._text(value)
        if kind is float:
            return self._float(value)
        if kind is int:
            return self._int(value)
        if kind is dict:
            return self._inside(value, self._mapping, value.items())
        if kind is list:
            return self._inside(value, self._sequence, value)
        return self._convert_other(value)

    def _convert_other(self, value: Any) -> Any:
        """A value that is not exactly of one of JSON's own types."""
        if (form := scalar_form(value)) is not None:
            plain = self._inside(value, self._convert, form)
        elif is_numpy_array(value):
            plain = self._inside(value, self._array, value)
        elif (fields := fields_of(value)) is not None:
            plain = self._inside(value, self._mapping, fields)
        elif isinstance(value, Mapping):
            plain = self._inside(value, self._mapping, value.items())
        elif is_set(value):
            plain = self._inside(value, self._set, value)
        elif is_sequence(value):
            plain = self._inside(value, self._sequence, value)
        else:
            raise self._refusal(why_no_result(value))
        self.converted[kind_of(value)] = None
        return plain

    def _text(self, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(value[error.start]):04X}"
            raise self._refusal(
                f"the text has a lone surrogate ({code}) at character {error.start}"
            ) from None
        return value

    def _int(self, value: int) -> int:
        if value.bit_length() > MAX_INT_BITS:
            raise self._refusal(f"an integer of {value.bit_length()} bits is too long to be read back")
        return value

    def _float(self, value: float) -> float | None:
        if isfinite(value):
            return value
        name = "nan" if isnan(value) else "inf" if value > 0 else "-inf"
        self.nonfinite.append((self._pointer(), name))
        return None

    # ------------------------------------------------------------------ containers

    def _inside(self, value: Any, walk: Callable[[Any], Any], content: Any) -> Any:
        """Walk a container, unless it contains itself or is too deep."""
        if id(value) in self._open:
            raise self._refusal("the value contains itself")
        if len(self._open) >= MAX_DEPTH:
            raise self._refusal(f"the value is nested more than {MAX_DEPTH} levels deep")
        self._open.add(id(value))
        try:
            return walk(content)
        finally:
            self._open.discard(id(value))

    def _sequence(self, items: Iterable[Any]) -> list[Any]:
        plain = []
        for index, item in enumerate(items):
            self._path.append(index)
            plain.append(self._convert(item))
            self._path.pop()  # not on an error: the path then says where the error is
        return plain

    def _array(self, array: Any) -> Any:
        """A NumPy array; those of numbers are often plain and large, and then not walked."""
        form = array_form(array)
        if array.dtype.kind in "biuf" and _is_plain(form, MAX_DEPTH - len(self._open)):
            return form
        return self._convert(form)

    def _set(self, items: Iterable[Any]) -> list[Any]:
        """A set in an order that does not depend on hash seeds."""
        try:
            ordered = sorted(items, key=_set_order)
        except Unencodable as refused:  # elements have no path before they have an order
            raise self._refusal(f"in an element of this set: {refused.reason}") from None
        return self._sequence(ordered)

    def _mapping(self, items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in items:
            text = self._text(key if type(key) is str else self._key(key))
            if text in plain:
                raise self._refusal(f"two keys become the same text, {text!r}; make them differ")
            self._path.append(text)
            plain[text] = self._convert(item)
            self._path.pop()
        return plain

    def _key(self, key: Any) -> str:
        """The text of a key that is not exactly a `str`."""
        text = key_form(key)
        if text is None:
            raise self._refusal(f"a key of type {kind_of(key)} has no text form; write it as text")
        self.converted[f"{kind_of(key)} as key"] = None
        return text

    # ------------------------------------------------------------------- reporting

    def _pointer(self) -> str:
        return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in self._path)

    def _refusal(self, reason: str) -> Unencodable:
        return Unencodable(self._pointer(), reason)


class _StateConverter(_Converter):
    """Nothing is converted but tuples and NumPy scalars."""

    def _convert_other(self, value: Any) -> Any:
        if type(value) is tuple:
            return self._inside(value, self._sequence, value)
        if (number := numpy_parameter(value)) is not None:
            return self._convert(number)
        raise self._refusal(why_no_parameter(value))

    def _key(self, key: Any) -> str:
        raise self._refusal(f"the key {repr(key)[:80]} is of type {kind_of(key)}; write it as text")


class _ParamsConverter(_StateConverter):
    """Parameters: what the function receives is what stands on disk."""

    def _float(self, value: float) -> float:
        if not isfinite(value):
            raise self._refusal(f"JSON has no {value}; pass None or text that the function understands")
        return value


def _set_order(item: Any) -> tuple[int, float, str]:
    """Numbers by size, then text, then everything else by its JSON."""
    form = item if isinstance(item, str | int | float) else scalar_form(item)
    if isinstance(form, str):
        return (1, 0.0, form)
    if isinstance(form, int | float) and -_FAST_INT < form < _FAST_INT:  # not NaN
        return (0, float(form), str(form))
    return (2, 0.0, _encode(_Converter().run(item)).decode())
