"""Attribute values: what is accepted, how it is refused, size, equality and order."""

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.attribute_values import (
    check_json_types,
    check_nesting,
    compare,
    equal,
    in_order,
    normalise_value,
    type_of,
    value_size,
)
from datamodel.errors import SerializationError, ValidationError

INVALID = "One or more parameter values were invalid: "
EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
SEVERAL = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)
STRUCTURE = "Start of structure or map found where not expected"
LIST = "Unrecognized collection type class java.lang."
CLASS = "com.amazonaws.dynamodb.v20120810.AttributeValue"
BASE64_END = "Invalid last non-pad Base64 character dectected"


def base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def nested(levels: int, inner: object, kind: str = "M") -> object:
    for _ in range(levels):
        inner = {"M": {"a": inner}} if kind == "M" else {"L": [inner]}
    return inner


def values():
    """Normal attribute values."""
    text = st.text(max_size=8)
    name = st.text(min_size=1, max_size=8)
    number = st.integers(-(10**12), 10**12).map(str)
    binary = st.binary(max_size=8).map(base64)
    scalars = (
        st.builds(lambda v: {"S": v}, text)
        | st.builds(lambda v: {"N": v}, number)
        | st.builds(lambda v: {"B": v}, binary)
        | st.builds(lambda v: {"BOOL": v}, st.booleans())
        | st.just({"NULL": True})
        | st.builds(lambda v: {"SS": in_order("SS", v)}, st.sets(text, min_size=1, max_size=4))
        | st.builds(lambda v: {"NS": in_order("NS", v)}, st.sets(number, min_size=1, max_size=4))
        | st.builds(lambda v: {"BS": in_order("BS", v)}, st.sets(binary, min_size=1, max_size=4))
    )
    return st.recursive(
        scalars,
        lambda inner: (
            st.builds(lambda v: {"L": v}, st.lists(inner, max_size=4))
            | st.builds(lambda v: {"M": v}, st.dictionaries(name, inner, max_size=4))
        ),
        max_leaves=10,
    )


def turned_round(value):
    """The same value with sets and maps written in the opposite order."""
    ((kind, content),) = value.items()
    if kind in ("SS", "NS", "BS"):
        return {kind: content[::-1]}
    if kind == "L":
        return {"L": [turned_round(member) for member in content]}
    if kind == "M":
        return {"M": {name: turned_round(content[name]) for name in reversed(content)}}
    return dict(value)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": ""}, 0),
        ({"S": "abc"}, 3),
        ({"S": "é"}, 2),
        ({"S": "€"}, 3),
        ({"S": "\U0001f600"}, 4),
        ({"N": "3.14159"}, 5),
        ({"N": "-5"}, 3),
        ({"B": ""}, 0),
        ({"B": "YQ=="}, 1),
        ({"B": "YWI="}, 2),
        ({"B": "YWJj"}, 3),
        ({"BOOL": True}, 1),
        ({"BOOL": False}, 1),
        ({"NULL": True}, 1),
        ({"L": []}, 3),
        ({"L": [{"S": "ab"}, {"N": "1"}]}, 3 + 2 + 2 + 2),
        ({"M": {}}, 3),
        ({"M": {"ab": {"S": "c"}, "é": {"BOOL": True}}}, 3 + 2 + 2 + 1 + 2 + 1),
        ({"SS": ["", "a", "bc"]}, 3),
        ({"SS": ["é"]}, 2),
        ({"NS": ["-22", "1", "333"]}, 2 + 3 + 3),
        ({"BS": ["", "YQ==", "YWI="]}, 3),
    ],
)
def test_normal_values_are_kept_and_measured(value, size):
    result, counted = normalise_value(value)
    assert result is value
    assert counted == size == value_size(value)
    check_json_types(value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"N": "1.50"}, {"N": "1.5"}),
        ({"NS": ["2.0", "1e1"]}, {"NS": ["2", "10"]}),
        ({"L": [{"S": "a"}, {"N": "01"}]}, {"L": [{"S": "a"}, {"N": "1"}]}),
        ({"M": {"a": {"L": [{"N": "1.0"}]}}}, {"M": {"a": {"L": [{"N": "1"}]}}}),
        ({"M": {"a": {"S": "x"}, "b": {"N": ".5"}}}, {"M": {"a": {"S": "x"}, "b": {"N": "0.5"}}}),
        ({"BOOL": "true"}, {"BOOL": True}),
        ({"BOOL": "No"}, {"BOOL": False}),
        ({"NULL": "TRUE"}, {"NULL": True}),
        ({"S": "a", "N": None}, {"S": "a"}),
        ({"S": "a", "X": 5}, {"S": "a"}),
        ({"S": None, "N": "1.0"}, {"N": "1"}),
    ],
)
def test_other_ways_to_write_a_value_become_normal(raw, expected):
    before = repr(raw)
    result, size = normalise_value(raw)
    assert result == expected
    assert size == value_size(expected)
    assert repr(raw) == before, "what was passed in is not changed"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, EMPTY),
        ({}, EMPTY),
        ({"a": ""}, EMPTY),
        ({"a": "", "b": 1}, EMPTY),
        *[({kind: None}, EMPTY) for kind in ("S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS")],
        ({"L": [None]}, EMPTY),
        ({"M": {"a": None}}, EMPTY),
        ({"M": {"a": {}}}, EMPTY),
        ({"S": "a", "N": "1"}, SEVERAL),
        ({"S": "", "BOOL": False}, SEVERAL),
        ({"S": "a", "N": "b"}, "The parameter cannot be converted to a numeric value: b"),
        ({"NULL": False}, INVALID + "Null attribute value types must have the value of true"),
        ({"NULL": "no"}, INVALID + "Null attribute value types must have the value of true"),
        ({"SS": []}, INVALID + "An string set  may not be empty"),
        ({"NS": []}, INVALID + "An number set  may not be empty"),
        ({"BS": []}, INVALID + "Binary sets should not be empty"),
        ({"SS": ["a", None]}, INVALID + "An string set may not have a null string as a member"),
        ({"BS": [None]}, INVALID + "Binary sets may not contain null or empty values"),
        ({"NS": ["1", ""]}, "The parameter cannot be converted to a numeric value"),
        ({"NS": [None]}, EMPTY),
        ({"NS": ["1", "b"]}, "The parameter cannot be converted to a numeric value: b"),
        ({"N": ""}, "The parameter cannot be converted to a numeric value"),
        ({"SS": ["a", "b", "a"]}, INVALID + "Input collection [a, b, a] contains duplicates."),
        ({"NS": ["1", "1"]}, "Input collection contains duplicates"),
        ({"NS": ["1", "1.0"]}, "Input collection contains duplicates"),
        (
            {"BS": ["Yg==", "Yg=="]},
            INVALID + "Input collection [Yg==, Yg==]of type BS contains duplicates.",
        ),
        (nested(32, {"S": "a"}), TOO_DEEP),
        (nested(32, {"S": "a"}, "L"), TOO_DEEP),
        (nested(900, {"S": "a"}), TOO_DEEP),
    ],
)
def test_broken_rules(raw, message):
    with pytest.raises(ValidationError) as caught:
        normalise_value(raw)
    assert caught.value.message == message
    check_json_types(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        *[
            (raw, "Unexpected value type in payload")
            for raw in ("23", True, 23, 34.56, {"L": [5]}, {"M": {"a": "x"}})
        ],
        ([], f"Unrecognized collection type class {CLASS}"),
        ({"L": [[]]}, f"Unrecognized collection type class {CLASS}"),
        *[
            ({kind: content}, message)
            for kind in ("S", "N")
            for content, message in (
                (True, "TRUE_VALUE cannot be converted to String"),
                (False, "FALSE_VALUE cannot be converted to String"),
                (23, "NUMBER_VALUE cannot be converted to String"),
                (34.56, "DECIMAL_VALUE cannot be converted to String"),
                ([], LIST + "String"),
                ({}, STRUCTURE),
            )
        ],
        *[
            ({kind: content}, message)
            for kind in ("BOOL", "NULL")
            for content, message in (
                ("23", "Unexpected token received from parser"),
                (23, "NUMBER_VALUE cannot be converted to Boolean"),
                (34.56, "DECIMAL_VALUE cannot be converted to Boolean"),
                ([], LIST + "Boolean"),
                ({}, STRUCTURE),
            )
        ],
        *[
            (raw, message)
            for content, message in (
                (True, "only base-64-encoded strings are convertible to bytes"),
                (23, "only base-64-encoded strings are convertible to bytes"),
                ([], "Unrecognized collection type class java.nio.ByteBuffer"),
                ({}, STRUCTURE),
                ("23456", "Base64 encoded length is expected a multiple of 4 bytes but found: 5"),
                ("=+/=", BASE64_END),
                ("+/+=", BASE64_END),
                ("YR==", BASE64_END),
                ("YQ==YQ==", BASE64_END),
                ("Y===", BASE64_END),
                ("====", BASE64_END),
                ("YW!=", "Invalid Base64 character: '!'"),
                ("YW\n=", "Invalid Base64 character: '\n'"),
                ("YWé=", "Invalid Base64 character: 'é'"),
                ("YW_-", "Invalid Base64 character: '_'"),
            )
            for raw in ({"B": content}, {"BS": [content]})
        ],
        *[
            ({kind: content}, "Unexpected field type")
            for kind in ("L", "SS", "NS", "BS", "M")
            for content in ("23", True, 23, 34.56)
        ],
        *[({kind: {}}, STRUCTURE) for kind in ("L", "SS", "NS", "BS")],
        ({"M": []}, f"Unrecognized collection type java.util.Map<java.lang.String, {CLASS}>"),
        ({"SS": [5]}, "NUMBER_VALUE cannot be converted to String"),
        ({"NS": ["1", 5]}, "NUMBER_VALUE cannot be converted to String"),
        ({"S": "a", "N": 5}, "NUMBER_VALUE cannot be converted to String"),
    ],
)
def test_wrong_json_types(raw, message):
    with pytest.raises(SerializationError) as caught:
        normalise_value(raw)
    assert caught.value.message == message
    with pytest.raises(SerializationError) as caught:
        check_json_types(raw)
    assert caught.value.message == message


def test_the_first_wrong_type_is_named():
    raw = {"L": [{"M": {"a": {"S": 1.5}}}, {"S": 5}]}
    with pytest.raises(SerializationError, match="DECIMAL_VALUE"):
        check_json_types(raw)


@pytest.mark.parametrize("kind", ["M", "L"])
def test_thirty_two_levels_are_allowed(kind):
    value = nested(31, {"S": "a"}, kind)
    assert normalise_value(value)[0] is value
    check_nesting(value)
    with pytest.raises(ValidationError, match="Nesting Levels"):
        check_nesting(nested(32, {"S": "a"}, kind))


def test_hostile_nesting_does_not_exhaust_the_stack():
    raw = nested(100_000, {"S": 5})
    with pytest.raises(ValidationError, match="Nesting Levels"):
        normalise_value(raw)
    with pytest.raises(ValidationError, match="Nesting Levels"):
        check_nesting(raw)
    with pytest.raises(SerializationError):
        check_json_types(raw)
    # Taken apart by hand: freeing it in one go would recurse in the interpreter.
    while "M" in raw:
        raw = raw["M"].pop("a")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"SS": ["b", "", "a", "\U0001f600", "\uffff", "B"]}, ["", "B", "a", "b", "\uffff", "\U0001f600"]),
        ({"NS": ["10", "9", "-1", "1e2", "0.5", "-20"]}, ["-20", "-1", "0.5", "9", "10", "100"]),
        # By bytes, not by their base64: 0x00, 0x00ff, 0x7f, 0xff.
        ({"BS": ["/w==", "fw==", "AA==", "AP8=", ""]}, ["", "AA==", "AP8=", "fw==", "/w=="]),
    ],
)  # fmt: skip
def test_sets_are_kept_in_order(given, stored):
    ((kind, members),) = given.items()
    before = list(members)
    assert normalise_value(given)[0] == {kind: stored}
    assert given == {kind: before}
    assert normalise_value({"L": [given]})[0] == {"L": [{kind: stored}]}


@settings(max_examples=100)
@given(values())
def test_normal_values_stay_as_they_are(value):
    result, size = normalise_value(value)
    assert result is value
    assert size == value_size(value)
    assert equal(value, turned_round(value))
    assert type_of(value) in value


@settings(max_examples=100)
@given(values(), values())
def test_equality_is_symmetric_and_agrees_with_order(a, b):
    assert equal(a, b) == equal(b, a)
    order, reverse = compare(a, b), compare(b, a)
    if order is None:
        assert reverse is None
    else:
        assert order == -reverse
        assert (order == 0) == equal(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"S": "1"}, {"N": "1"}, False),
        ({"S": "YQ=="}, {"B": "YQ=="}, False),
        ({"N": "1"}, {"N": "1"}, True),
        ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}, True),
        ({"SS": ["a", "b"]}, {"SS": ["a"]}, False),
        ({"SS": ["1"]}, {"NS": ["1"]}, False),
        ({"L": [{"S": "a"}, {"S": "b"}]}, {"L": [{"S": "b"}, {"S": "a"}]}, False),
        ({"L": [{"NS": ["1", "2"]}]}, {"L": [{"NS": ["2", "1"]}]}, True),
        ({"M": {"a": {"BS": ["YQ==", "YWI="]}}}, {"M": {"a": {"BS": ["YWI=", "YQ=="]}}}, True),
        ({"M": {"a": {"SS": ["a"]}}}, {"M": {"b": {"SS": ["a"]}}}, False),
        ({"BOOL": True}, {"BOOL": False}, False),
        ({"NULL": True}, {"NULL": True}, True),
    ],
)
def test_equality(a, b, expected):
    assert equal(a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"N": "9"}, {"N": "10"}, -1),
        ({"N": "-9"}, {"N": "-10"}, 1),
        ({"N": "0.5"}, {"N": "0.25"}, 1),
        ({"N": "7"}, {"N": "7"}, 0),
        ({"S": "9"}, {"S": "10"}, 1),
        ({"S": "a"}, {"S": "ab"}, -1),
        ({"S": "\uffff"}, {"S": "\U00010000"}, -1),
        ({"B": base64(b"\xff")}, {"B": base64(b"\x00\xff")}, 1),
        ({"B": base64(b"a")}, {"B": base64(b"a")}, 0),
        ({"S": "1"}, {"N": "1"}, None),
        ({"BOOL": True}, {"BOOL": True}, None),
        ({"NULL": True}, {"NULL": True}, None),
        ({"SS": ["a"]}, {"SS": ["a"]}, None),
        ({"L": []}, {"L": []}, None),
        ({"M": {}}, {"M": {}}, None),
    ],
)
def test_order(a, b, expected):
    assert compare(a, b) == expected


@settings(max_examples=100)
@given(st.text(max_size=6), st.text(max_size=6))
def test_strings_are_ordered_by_their_bytes(a, b):
    assert (compare({"S": a}, {"S": b}) < 0) == (a.encode() < b.encode())
