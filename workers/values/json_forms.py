"""Which Python values have an obvious JSON form, and the messages about those that have none.

NumPy and pandas are recognised but never imported: a worker whose job does not use them
starts without them. Walking values and writing JSON is the business of `workers.values.json_encoding`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import ItemsView, KeysView, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isnan
from typing import Any
from uuid import UUID

import msgspec


def kind_of(value: Any) -> str:
    """The name of a value's type, as users write it: "tuple", "numpy.float64"."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_instance_of(value: Any, module: str, name: str) -> bool:
    """Is this an instance of the type `module.name`?

    A module that nobody has imported has no instances, so none is imported to ask.
    """
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


# --------------------------------------------------------------------------- scalars


def scalar_form(value: Any) -> Any:
    """An equal value of a simpler type, nearer to JSON's; None if there is none."""
    if isinstance(value, Enum):
        return value.name if value.value is None else value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return _numpy_scalar_form(value)


def key_form(key: Any) -> str | None:
    """The text that stands for a mapping's key: what JSON would write for it, or None."""
    if key is None or isinstance(key, bool):
        return {None: "null", False: "false", True: "true"}[key]
    form = scalar_form(key)
    if isinstance(form, bool) and form is not key:
        return key_form(form)
    if isinstance(form, float):
        return repr(form)
    if isinstance(form, int):
        return str(form)
    if form is not None and isinstance(key, Enum) and not isinstance(form, str):
        return key.name
    return form if isinstance(form, str) else None


def numpy_parameter(value: Any) -> Any:
    """A NumPy scalar as Python's own, if that loses nothing; else None."""
    if not is_instance_of(value, "numpy", "generic") or value.dtype.kind not in "biufU":
        return None
    form = _numpy_scalar_form(value)
    is_nan = isinstance(form, float) and isnan(form)  # gets a refusal of its own
    return form if is_nan or form == value else None


def _numpy_scalar_form(value: Any) -> Any:
    if not is_instance_of(value, "numpy", "generic"):
        return None
    kind = value.dtype.kind
    if kind == "M":
        return str(value)
    if kind == "m":
        seconds = _numpy_seconds(value)
        return None if seconds is None else float(seconds)
    if kind == "f":  # item() of a longdouble is a longdouble again
        return float(value)
    return value.item() if kind in "biuU" else None


def _numpy_seconds(value: Any) -> Any:
    """A timedelta64, scalar or array, as seconds (NaT as NaN); None for months and years."""
    unit = value.dtype.str.partition("[")[2]
    return None if unit in ("", "Y]", "M]") else value / sys.modules["numpy"].timedelta64(1, "s")


# ------------------------------------------------------------------------ containers

_SEQUENCES = (list, tuple, range, KeysView, ItemsView, ValuesView)


def is_sequence(value: Any) -> bool:
    """Does this have one obvious order, and so become a JSON array?"""
    return (
        isinstance(value, _SEQUENCES)
        or is_instance_of(value, "collections", "deque")
        or is_instance_of(value, "array", "array")
    )


def is_set(value: Any) -> bool:
    """Is this a set, without an order of its own? (The views of a dict have one.)"""
    return isinstance(value, AbstractSet) and not isinstance(value, KeysView | ItemsView)


def is_numpy_array(value: Any) -> bool:
    """Is this an array that its elements describe completely?

    Not the structured ones: their lists lose the names of the fields. Nor durations in
    months and years, which are no number of seconds.
    """
    if not is_instance_of(value, "numpy", "ndarray"):
        return False
    kind = value.dtype.kind
    return kind != "V" and not (kind == "m" and _numpy_seconds(value) is None)


def array_form(array: Any) -> Any:
    """A NumPy array as nested lists; a 0-d array as its element."""
    kind = array.dtype.kind
    if kind == "M":  # tolist() gives nanoseconds as bare integers
        return array.astype(str).tolist()
    return (_numpy_seconds(array) if kind == "m" else array).tolist()


def fields_of(value: Any) -> list[tuple[str, Any]] | None:
    """Names and values of a dataclass or msgspec struct as they would be written, or None."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        named = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        fields = [(name, getattr(value, field)) for name, field in named]
        if config.tag_field is not None:
            fields.insert(0, (config.tag_field, config.tag))
        return [(name, item) for name, item in fields if item is not msgspec.UNSET]
    if hasattr(type(value), "__dataclass_fields__"):
        import dataclasses  # loaded already, since there is one; a light start does without

        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


# -------------------------------------------------------------------------- refusals

_SAVE = "save it in current_job().directory"
_HINTS = (
    ("pandas", "DataFrame", f'return frame.to_dict("list"), or {_SAVE}'),
    ("pandas", "Series", "return series.tolist() or series.to_dict()"),
    ("types", "CoroutineType", "the function is async: run it to its end and return what it gives"),
    ("types", "GeneratorType", "return list(...) of it"),
    ("numpy", "ndarray", "return its fields as plain arrays"),
    ("builtins", "complex", "return [z.real, z.imag]"),
    ("builtins", "bytes", f"return text, such as value.hex(), or {_SAVE}"),
    ("builtins", "bytearray", f"return text, such as value.hex(), or {_SAVE}"),
)


def why_no_result(value: Any) -> str:
    """Why this has no JSON form, and what to return instead."""
    refusal = f"a value of type {kind_of(value)} has no JSON form"
    for module, name, hint in _HINTS:
        if is_instance_of(value, module, name):
            return f"{refusal}; {hint}"
    if hasattr(value, "tolist"):
        return f"{refusal}; return its tolist()"
    return f"{refusal}; return numbers, text, lists and dicts, or {_SAVE}"


def why_no_parameter(value: Any) -> str:
    """Why this would not reach the function as it is, and what to pass instead."""
    refusal = f"a value of type {kind_of(value)} would not come back from JSON as it is"
    if isinstance(value, Enum):
        return f"{refusal}; pass its value or its name"
    for base in (str, int, float, list, dict):
        if isinstance(value, base):
            return f"{refusal}; pass {base.__name__}(...) of it"
    if is_set(value):
        return f"{refusal}; pass sorted(...) of it"
    if isinstance(value, date | time | timedelta | UUID | Decimal | os.PathLike):
        return f"{refusal}; pass it as text and let the function read it"
    if hasattr(value, "tolist"):
        return f"{refusal}; pass its tolist()"
    return f"{refusal}; pass numbers, text, lists and dicts, and let the function build the rest"
