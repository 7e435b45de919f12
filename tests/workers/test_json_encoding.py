"""D10: results and parameters to JSON and back: nothing silently altered, every refusal with its path."""

from __future__ import annotations

import array
import collections
import copy
import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import subprocess
import sys
import types
import uuid
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.values.json_encoding import (
    MAX_DEPTH,
    Encoded,
    Unencodable,
    encode_params,
    encode_result,
    restore_nonfinite,
)


class Colour(enum.Enum):
    RED = "red"
    GREEN = 4
    NOTHING = None
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Fit:
    r2: float
    names: tuple[str, ...] = ()


@dataclasses.dataclass
class Slotted:
    __slots__ = ("never_set",)
    never_set: int


class Score(msgspec.Struct, tag="score", rename="camel"):
    mean_value: float
    left_out: int | msgspec.UnsetType = msgspec.UNSET


Point = collections.namedtuple("Point", "x y")


class Text(str):
    def __str__(self) -> str:
        return "not what is in it"


class Hostile(collections.UserDict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("not today \ud800")


def shown(value: Any) -> str:
    """A test id; some of the values cannot be shown in full, which is their point."""
    try:
        return ascii(value)[:40]
    except (ValueError, RuntimeError, AttributeError):
        return type(value).__name__


def decoded(value: Any) -> Any:
    return msgspec.json.decode(encode_result(value).json)


PLAIN: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    2**64,
    10**4000,
    0.1,
    -0.0,
    1e308,
    5e-324,
    "",
    "ä\u2028\0\U0001f600",
    [],
    {},
    {"accuracy": 0.97},
    {"": {"/": [1, "x", None, {"~": [[]]}]}},
    [1.0, 2, "three", [None]],
]


@pytest.mark.parametrize("value", PLAIN, ids=shown)
def test_what_json_knows_is_written_as_it_is_and_nothing_is_reported(value: Any) -> None:
    encoded = encode_result(value)
    assert encoded.nonfinite == []
    assert encoded.converted == []
    back = msgspec.json.decode(encoded.json)
    assert back == value and type(back) is type(value)
    assert json.loads(encoded.json) == value


def test_minus_zero_keeps_its_sign() -> None:
    assert math.copysign(1.0, decoded({"x": -0.0})["x"]) == -1.0


CONVERTED: list[tuple[Any, Any, list[str]]] = [
    ((1, (2, 3)), [1, [2, 3]], ["tuple"]),
    (Point(1, 2), [1, 2], [f"{__name__}.Point"]),
    ({3, 1, 2}, [1, 2, 3], ["set"]),
    (frozenset({"b", "a"}), ["a", "b"], ["frozenset"]),
    ({"b", 2, 1.5, None, (1, "x")}, [1.5, 2, "b", [1, "x"], None], ["tuple", "set"]),
    (collections.OrderedDict(a=1), {"a": 1}, ["collections.OrderedDict"]),
    (collections.Counter("aab"), {"a": 2, "b": 1}, ["collections.Counter"]),
    (types.MappingProxyType({"a": 1}), {"a": 1}, ["mappingproxy"]),
    (collections.deque([1, 2]), [1, 2], ["collections.deque"]),
    (range(3), [0, 1, 2], ["range"]),
    (array.array("d", [0.5]), [0.5], ["array.array"]),
    ({"a": 1}.keys(), ["a"], ["dict_keys"]),
    ({"a": 1}.values(), [1], ["dict_values"]),
    ({"a": 1}.items(), [["a", 1]], ["tuple", "dict_items"]),
    (dt.date(2025, 10, 14), "2025-10-14", ["datetime.date"]),
    (dt.time(20, 30), "20:30:00", ["datetime.time"]),
    (dt.datetime(2025, 10, 14, tzinfo=dt.UTC), "2025-10-14T00:00:00+00:00", ["datetime.datetime"]),
    (dt.timedelta(minutes=1, microseconds=1), 60.000001, ["datetime.timedelta"]),
    (pathlib.PurePosixPath("a/b"), "a/b", None),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001", ["uuid.UUID"]),
    (decimal.Decimal("1.10"), "1.10", ["decimal.Decimal"]),
    (Colour.RED, "red", [f"{__name__}.Colour"]),
    (Colour.NOTHING, "NOTHING", [f"{__name__}.Colour"]),
    (Colour.PAIR, [1, 2], ["tuple", f"{__name__}.Colour"]),
    (Level.HIGH, 3, [f"{__name__}.Level"]),
    (Word.YES, "yes", [f"{__name__}.Word"]),
    (Text("inside"), "inside", [f"{__name__}.Text"]),
    (Fit(0.5, ("a",)), {"r2": 0.5, "names": ["a"]}, ["tuple", f"{__name__}.Fit"]),
    (Score(0.5), {"type": "score", "meanValue": 0.5}, [f"{__name__}.Score"]),
    (np.float64(0.97), 0.97, ["numpy.float64"]),
    (np.float32(0.5), 0.5, ["numpy.float32"]),
    (np.longdouble(0.5), 0.5, ["numpy.longdouble"]),
    (np.uint8(255), 255, ["numpy.uint8"]),
    (np.uint64(2**64 - 1), 2**64 - 1, ["numpy.uint64"]),
    (np.str_("x"), "x", ["numpy.str_"]),
    (np.datetime64("2025-10-14T01:02:03.000000004"), "2025-10-14T01:02:03.000000004", ["numpy.datetime64"]),
    (np.timedelta64(1500, "ms"), 1.5, ["numpy.timedelta64"]),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], ["numpy.ndarray"]),
    (np.array(7), 7, ["numpy.ndarray"]),
    (np.array(["a", "b"]), ["a", "b"], ["numpy.ndarray"]),
    (np.array([True]), [True], ["numpy.ndarray"]),
    (np.array(["2025-10-14"], dtype="datetime64[ns]"), ["2025-10-14T00:00:00.000000000"], ["numpy.ndarray"]),
    (np.array([60], dtype="timedelta64[s]"), [60.0], ["numpy.ndarray"]),
    (np.array([(1,), "x"], dtype=object), [[1], "x"], ["tuple", "numpy.ndarray"]),
    (np.array([0.5], dtype=np.longdouble), [0.5], ["numpy.longdouble", "numpy.ndarray"]),
    ({1: "a"}, {"1": "a"}, ["int as key"]),
    ({None: 1, True: 2, 0.5: 3}, {"null": 1, "true": 2, "0.5": 3}, None),
    ({np.int64(4): 1}, {"4": 1}, ["numpy.int64 as key"]),
    ({np.str_("k"): 1}, {"k": 1}, ["numpy.str_ as key"]),
    ({np.bool_(True): 1}, {"true": 1}, None),
    (
        {Colour.RED: 1, Colour.GREEN: 2, Colour.PAIR: 3},
        {"red": 1, "4": 2, "PAIR": 3},
        [f"{__name__}.Colour as key"],
    ),
    ({Level.HIGH: 1}, {"3": 1}, [f"{__name__}.Level as key"]),
    ({dt.date(2025, 10, 14): 1}, {"2025-10-14": 1}, ["datetime.date as key"]),
    ({float("nan"): 1}, {"nan": 1}, ["float as key"]),
]


@pytest.mark.parametrize(("value", "plain", "named"), CONVERTED, ids=shown)
def test_what_has_an_obvious_form_is_converted_and_named(
    value: Any, plain: Any, named: list[str] | None
) -> None:
    inside = {"at": [value]}
    encoded = encode_result(inside)
    back = msgspec.json.decode(encoded.json)
    assert back == {"at": [plain]}
    assert type(back["at"][0]) is type(plain)
    assert encoded.converted
    assert named is None or encoded.converted == named  # None: the name depends on the version
    assert encoded.nonfinite == []
    assert decoded(value) == plain  # on its own, too


def test_each_kind_is_named_once() -> None:
    assert encode_result([(1,), (2,), {3}, (4,)]).converted == ["tuple", "set"]


def test_a_masked_array_has_nulls_where_it_is_masked() -> None:
    encoded = encode_result(np.ma.masked_array([1, 2], mask=[False, True]))
    assert encoded.json == b"[1,null]"
    assert "MaskedArray" in encoded.converted[0]


NAN, INF = float("nan"), float("inf")

NONFINITE: list[tuple[Any, bytes, list[tuple[str, str]]]] = [
    (NAN, b"null", [("", "nan")]),
    ({"loss": NAN}, b'{"loss":null}', [("/loss", "nan")]),
    (
        {"bounds": [0.5, -INF, INF]},
        b'{"bounds":[0.5,null,null]}',
        [("/bounds/1", "-inf"), ("/bounds/2", "inf")],
    ),
    ({"a/b": {"c~d": NAN}}, b'{"a/b":{"c~d":null}}', [("/a~1b/c~0d", "nan")]),
    ({"": [NAN]}, b'{"":[null]}', [("//0", "nan")]),
    (np.array([[1.0, np.nan]]), b"[[1.0,null]]", [("/0/1", "nan")]),
    (np.float64("inf"), b"null", [("", "inf")]),
    ({3.0, INF, 1.0}, b"[1.0,3.0,null]", [("/2", "inf")]),
    (np.timedelta64("NaT", "s"), b"null", [("", "nan")]),
    ({1: NAN}, b'{"1":null}', [("/1", "nan")]),
]


@pytest.mark.parametrize(("value", "line", "nonfinite"), NONFINITE, ids=shown)
def test_nan_and_infinities_become_null_and_are_listed(
    value: Any, line: bytes, nonfinite: list[tuple[str, str]]
) -> None:
    encoded = encode_result(value)
    assert encoded.json == line
    assert encoded.nonfinite == nonfinite
    restored = restore_nonfinite(msgspec.json.decode(line), [list(pair) for pair in nonfinite])
    again = encode_result(restored)
    assert (again.json, again.nonfinite) == (line, nonfinite)


@pytest.mark.parametrize("pointer", ["/b", "/a/0", "/a", "/list/x", "/list/7", "", "nonsense"])
def test_a_pointer_that_leads_to_no_null_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="could be nan"):
        restore_nonfinite({"a": 1, "list": [None]}, [(pointer, "nan")])


def cyclic() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    return cycle


def nested(levels: int) -> Any:
    value: Any = 0.5
    for _ in range(levels):
        value = [value]
    return value


def generator() -> Any:
    yield 1


UNENCODABLE: list[tuple[Any, str, str]] = [
    ({"models": [{"clf": object()}]}, "/models/0/clf", "type object has no JSON form"),
    (object, "", "type type has no JSON form"),
    ({"a/b": {"~": len}}, "/a~1b/~0", "builtin_function_or_method"),
    ({"f": lambda: 1}, "/f", "function"),
    ({"raw": b"x"}, "/raw", "hex"),
    (bytearray(b"x"), "", "hex"),
    ([1 + 2j], "/0", "z.real"),
    (generator(), "", "list(...)"),
    ({"x": np.array([1j])}, "/x/0", "z.real"),
    ({"x": np.zeros(2, dtype=[("a", "i4")])}, "/x", "plain arrays"),
    ({"x": np.timedelta64(1, "M")}, "/x", "numpy.timedelta64"),
    ({"x": np.bytes_(b"s")}, "/x", "hex"),
    (np.array([b"s"]), "/0", "hex"),
    ({"t": "a\ud800"}, "/t", "lone surrogate (U+D800) at character 1"),
    ({"\udfff": 1}, "", "lone surrogate (U+DFFF)"),
    (np.array(["\ud800"]), "/0", "lone surrogate"),
    ({"x": {1: "a", "1": "b"}}, "/x", "two keys become the same text, '1'"),
    ({True: 1, "true": 2}, "", "two keys"),
    ({"x": {(1, 2): 3}}, "/x", "key of type tuple"),
    ({"x": {b"k": 3}}, "/x", "key of type bytes"),
    ({"x": 10**5000}, "/x", "too long to be read back"),
    (cyclic(), "/1/again", "contains itself"),
    ({"x": {"deep": nested(1000)}}, "/x/deep" + "/0" * (MAX_DEPTH - 2), f"more than {MAX_DEPTH} levels"),
    ({"tags": {b"x", b"y"}}, "/tags", "in an element of this set: a value of type bytes"),
    ({"x": Hostile()}, "/x", "RuntimeError: not today"),
    ({"x": Slotted.__new__(Slotted)}, "/x", "AttributeError"),
    ({"x": ValueError("no")}, "/x", "ValueError"),
    ({"x": ...}, "/x", "ellipsis"),
]


@pytest.mark.parametrize(("value", "path", "reason"), UNENCODABLE, ids=shown)
def test_what_has_no_obvious_form_is_refused_by_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(Unencodable) as caught:
        encode_result(value)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert str(caught.value).startswith(path or "the value itself")
    str(caught.value).encode()  # can be sent, written and printed


def test_pandas_objects_are_refused_with_a_way_out() -> None:
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = type("DataFrame", (), {"__module__": "pandas"})  # type: ignore[attr-defined]
    pandas.Index = type("Index", (), {"__module__": "pandas", "tolist": list})  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pandas", pandas)
        for kind, hint in (("DataFrame", 'frame.to_dict("list")'), ("Index", "tolist()")):
            with pytest.raises(Unencodable) as caught:
                encode_result({"table": getattr(pandas, kind)()})
            assert caught.value.path == "/table"
            assert hint in caught.value.reason


def test_a_value_may_be_used_twice_without_being_inside_itself() -> None:
    shared = [(1,)]
    assert decoded({"a": shared, "b": shared}) == {"a": [[1]], "b": [[1]]}


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
def test_the_deepest_value_can_be_written_and_read(levels: int) -> None:
    assert decoded(nested(levels)) == nested(levels)
    with_tuple = (nested(levels - 1),)
    assert decoded(with_tuple) == nested(levels)


def test_the_order_of_a_set_does_not_depend_on_hash_seeds() -> None:
    program = (
        "from workers.values.json_encoding import encode_result;"
        "print(encode_result([set('qwertyuiop'), {('a', 1), 'b', 2.5, None, frozenset('xy')}]).json)"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(answers) == 1


def test_numpy_and_dataclasses_are_not_imported_for_those_who_do_without() -> None:
    program = (
        "import sys; from workers.values.json_encoding import encode_result as e;"
        "e({1: (1, {2})}); print('numpy' in sys.modules, 'pandas' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout == "False False\n"


def test_the_exception_can_be_copied() -> None:
    again = copy.copy(Unencodable("/a", "why"))
    assert (again.path, again.reason, str(again)) == ("/a", "why", "/a: why")


# -------------------------------------------------------------------------- parameters

GOOD_PARAMS: list[tuple[Any, Any]] = [
    ({}, {}),
    ({"b": 1, "a": [1.5, None, "x", {"c": True}]}, {"b": 1, "a": [1.5, None, "x", {"c": True}]}),
    ({"shape": (2, (3,))}, {"shape": [2, [3]]}),
    ({"x": np.float64(0.1), "y": np.int64(3), "z": np.bool_(True)}, {"x": 0.1, "y": 3, "z": True}),
    ({"x": np.float32(0.1)}, {"x": 0.10000000149011612}),
    ({"x": np.str_("s"), "y": [np.uint64(2**64 - 1)]}, {"x": "s", "y": [2**64 - 1]}),
    ({"n": 2**100}, {"n": 2**100}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
]


@pytest.mark.parametrize(("params", "received"), GOOD_PARAMS, ids=shown)
def test_parameters_reach_the_function_as_they_stand_on_disk(params: Any, received: Any) -> None:
    line = encode_params(params)
    back = msgspec.json.decode(line)
    assert back == received
    assert list(back) == list(params)  # in the order in which they were given
    assert encode_params(back) == line


BAD_PARAMS: list[tuple[Any, str, str]] = [
    ({"x": NAN}, "/x", "JSON has no nan"),
    ({"x": [np.float64("-inf")]}, "/x/0", "JSON has no -inf"),
    ({"x": np.float32("nan")}, "/x", "JSON has no nan"),
    ({"x": {1: 2}}, "/x", "key 1 is of type int; write it as text"),
    ({1: 2}, "", "key 1 is of type int"),
    ({"x": {1, 2}}, "/x", "sorted"),
    ({"x": dt.date(2025, 10, 14)}, "/x", "as text"),
    ({"x": pathlib.Path("a")}, "/x", "as text"),
    ({"x": decimal.Decimal(1)}, "/x", "as text"),
    ({"x": Colour.RED}, "/x", "its value or its name"),
    ({"x": Level.HIGH}, "/x", "its value or its name"),
    ({"x": Text("a")}, "/x", "str(...)"),
    ({"x": collections.OrderedDict()}, "/x", "dict(...)"),
    ({"x": Point(1, 2)}, "/x", "Point"),
    ({"x": np.zeros(3)}, "/x", "tolist()"),
    ({"x": np.datetime64("2025-10-14")}, "/x", "numpy.datetime64"),
    ({"x": 1j}, "/x", "complex"),
    ({"x": b""}, "/x", "bytes"),
    ({"x": object()}, "/x", "let the function build the rest"),
    ({"x": "\ud800"}, "/x", "lone surrogate"),
    ({"x": 10**5000}, "/x", "too long"),
    ({"x": nested(1000)}, "/x" + "/0" * (MAX_DEPTH - 1), "levels deep"),
    ({"x": cyclic()}, "/x/1/again", "contains itself"),
    ([1], "", "dict of keyword arguments, not a list"),
    (None, "", "dict of keyword arguments"),
]


@pytest.mark.parametrize(("params", "path", "reason"), BAD_PARAMS, ids=shown)
def test_parameters_that_would_not_survive_are_refused_by_path(params: Any, path: str, reason: str) -> None:
    with pytest.raises(Unencodable) as caught:
        encode_params(params)
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_a_longdouble_that_would_lose_digits_is_no_parameter() -> None:
    third = np.longdouble(1) / 3
    if float(third) == third:
        pytest.skip("long double is no wider than double on this machine")
    with pytest.raises(Unencodable):
        encode_params({"x": third})


# -------------------------------------------------------------------------- properties

finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=15,
)
any_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.binary()
    | st.floats().map(np.float64),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), inner)
        | st.frozensets(st.integers() | st.floats() | st.text())
    ),
    max_leaves=15,
)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types all the way down; NaN is the same as NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return repr(left) == repr(right)


def only_json(value: Any) -> Any:
    """Tuples to lists and NumPy's floats to Python's, as parameters are converted."""
    if isinstance(value, dict):
        return {key: only_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [only_json(item) for item in value]
    return float(value) if isinstance(value, np.float64) else value


@given(json_values)
def test_json_values_come_back_exactly(value: Any) -> None:
    encoded = encode_result(value)
    assert same(msgspec.json.decode(encoded.json), value)
    assert same(json.loads(encoded.json), value)
    assert encoded == Encoded(encoded.json)
    if isinstance(value, dict):
        assert encode_params(value) == encoded.json


@given(any_values)
def test_nothing_is_altered_without_being_told(value: Any) -> None:
    try:
        encoded = encode_result(value)
    except Unencodable:
        return
    back = restore_nonfinite(msgspec.json.decode(encoded.json), encoded.nonfinite)
    assert same(back, value) or encoded.converted
    again = encode_result(back)
    assert (again.json, again.nonfinite, again.converted) == (encoded.json, encoded.nonfinite, [])


@given(st.dictionaries(st.text(), any_values))
def test_parameters_come_back_exactly_or_are_refused(params: dict[str, Any]) -> None:
    try:
        line = encode_params(params)
    except Unencodable:
        return
    back = msgspec.json.decode(line)
    assert same(back, only_json(params))
    assert encode_params(back) == line
