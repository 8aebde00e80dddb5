"""Items: check on the way in, size, body."""

import base64
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.attribute_values import in_order
from datamodel.errors import Corruption, SerializationError, ValidationError
from datamodel.items import (
    check_item_size,
    check_updated_item,
    decode_item,
    encode_item,
    item_size,
    normalise_item,
    normalise_values,
)
from datamodel.limits import ITEM_SIZE_BYTES_MAX
from datamodel.stored_items import check_record, pack_record, record_body, record_size

EMPTY = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"


def test_a_normal_item_is_kept():
    item = {"pk": {"S": "a"}, "größe": {"N": "12"}, "m": {"M": {"x": {"BOOL": True}}}}
    result, size = normalise_item(item)
    assert result is item
    assert size == item_size(item) == (2 + 1) + (7 + 2) + (1 + 3 + 1 + 1 + 1)


def test_an_item_that_is_not_normal_is_not_changed_in_place():
    raw = {"pk": {"S": "a"}, "n": {"N": "1.0"}, "l": {"L": [{"N": "2.0"}]}}
    before = msgspec.json.encode(raw)
    result, size = normalise_item(raw)
    assert result == {"pk": {"S": "a"}, "n": {"N": "1"}, "l": {"L": [{"N": "2"}]}}
    assert list(result) == list(raw), "attributes keep their order"
    assert size == item_size(result)
    assert msgspec.json.encode(raw) == before


def test_an_empty_item_has_no_size():
    assert normalise_item({}) == ({}, 0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("x", "Unexpected field type"),
        (5, "Unexpected field type"),
        (
            [],
            "Unrecognized collection type java.util.Map<java.lang.String, "
            "com.amazonaws.dynamodb.v20120810.AttributeValue>",
        ),
        ({"a": 5}, "Unexpected value type in payload"),
        ({"a": {"S": 5}}, "NUMBER_VALUE cannot be converted to String"),
        # Wrong types anywhere come before broken rules anywhere.
        ({"a": {}, "b": {"S": 5}}, "NUMBER_VALUE cannot be converted to String"),
        (
            {"a": {"N": "x"}, "b": {"M": {"c": {"BOOL": 1}}}},
            "NUMBER_VALUE cannot be converted to Boolean",
        ),
    ],
)
@pytest.mark.parametrize("normalise", [normalise_item, normalise_values])
def test_wrong_json_types(normalise, raw, message):
    with pytest.raises(SerializationError) as caught:
        normalise(raw)
    assert caught.value.message == message


TOO_DEEP = {"a": {"L": [{"S": "x"}]}}
for _ in range(40):
    TOO_DEEP = {"a": {"M": TOO_DEEP}}
TOO_LONG = (
    "One or more parameter values were invalid: Attribute name is too large, "
    "must be less than 65536 bytes"
)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"a": {}}, EMPTY),
        ({"a": None}, EMPTY),
        ({"a": {"N": "b"}}, "The parameter cannot be converted to a numeric value: b"),
        ({"a": {"M": TOO_DEEP}, "": {"S": "x"}}, "Empty attribute name"),
        ({"a": {"M": {"": {"S": "x"}}}}, "Empty attribute name"),
        ({"a": {"L": [{"M": {"": {"S": "x"}}}]}, "b": {"N": "1"}}, "Empty attribute name"),
        ({"a": {"M": {"": {"S": "x"}}}, "b": {}}, EMPTY),
        ({"a": {"M": {"n" * 65_536: {"S": "x"}}}}, TOO_LONG),
    ],
)
def test_broken_rules(raw, message):
    with pytest.raises(ValidationError) as caught:
        normalise_item(raw)
    assert caught.value.message == message


def test_expression_values():
    values, size = normalise_values({":a": {"S": "abc"}, ":n": {"N": "1.0"}})
    assert values == {":a": {"S": "abc"}, ":n": {"N": "1"}}
    assert size == 5


def test_a_faulty_expression_value_is_named():
    with pytest.raises(ValidationError) as caught:
        normalise_values({":a": {"S": "x"}, ":b": {}})
    assert caught.value.message == (
        f"ExpressionAttributeValues contains invalid value: {EMPTY} for key :b"
    )


def test_item_size_limit():
    item = {"pk": {"S": "x" * (ITEM_SIZE_BYTES_MAX - 2)}}
    assert check_updated_item(item) == ITEM_SIZE_BYTES_MAX
    check_item_size(ITEM_SIZE_BYTES_MAX)
    item["pk"]["S"] += "x"
    with pytest.raises(ValidationError) as caught:
        check_item_size(item_size(item))
    assert caught.value.message == "Item size has exceeded the maximum allowed size"
    with pytest.raises(ValidationError) as caught:
        check_updated_item(item)
    assert caught.value.message == "Item size to update has exceeded the maximum allowed size"


def test_an_updated_item_may_not_be_too_deep():
    value = {"S": "a"}
    for _ in range(31):
        value = {"L": [value]}
    check_updated_item({"a": value})
    with pytest.raises(ValidationError, match="Nesting Levels have exceeded supported limits"):
        check_updated_item({"a": {"M": {"b": value}}})


def test_body():
    item = {"pk": {"S": "ä\u0000"}, "n": {"N": "1"}}
    body = encode_item(item)
    assert body == '{"pk":{"S":"ä\\u0000"},"n":{"N":"1"}}'.encode()
    decoded = decode_item(body)
    assert decoded == item
    assert type(decoded) is type(decoded["pk"]) is dict


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"a":1}', b'{"a":{"S":"\xff"}}', b"[" * 100_000]
)
def test_a_damaged_body_is_corruption(body):
    with pytest.raises(Corruption):
        decode_item(body)


TEXTS = st.text(max_size=4)
NAMES = st.text(min_size=1, max_size=4)
NUMBERS = st.sampled_from(["0", "-1", "1.5", "9" * 38, "0." + "0" * 129 + "1"])
BINARIES = st.binary(max_size=4).map(lambda raw: base64.b64encode(raw).decode())
ANY_VALUES = st.recursive(
    st.one_of(
        TEXTS.map(lambda text: {"S": text}),
        NUMBERS.map(lambda text: {"N": text}),
        BINARIES.map(lambda text: {"B": text}),
        st.booleans().map(lambda truth: {"BOOL": truth}),
        st.just({"NULL": True}),
        st.sets(TEXTS, min_size=1).map(lambda members: {"SS": in_order("SS", members)}),
        st.sets(NUMBERS, min_size=1).map(lambda members: {"NS": in_order("NS", members)}),
        st.sets(BINARIES, min_size=1).map(lambda members: {"BS": in_order("BS", members)}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda elements: {"L": elements}),
        st.dictionaries(NAMES, inner, max_size=3).map(lambda members: {"M": members}),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, ANY_VALUES, max_size=5))
def test_any_item_is_stored_and_read_as_it_was(item):
    normal, size = normalise_item(item)
    assert normal == item
    assert item_size(normal) == size
    body = encode_item(normal)
    assert decode_item(body) == normal == json.loads(body)
    record = pack_record(body, size, 5, 6)
    check_record(record, "test")
    assert (record_body(record), record_size(record)) == (body, size)
