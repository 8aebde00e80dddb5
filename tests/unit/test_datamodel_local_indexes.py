"""Local indexes: keys of entries, what is projected, which values a key of an index may have."""

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.key_encoding import (
    SIZE_PART,
    KeySchema,
    SortCondition,
    collection_range,
    collection_size_key,
    encode_entry_key,
    encode_key,
    item_key_of_entry,
    part_of,
    part_start,
    partition_bounds,
    table_range,
)
from datamodel.local_indexes import (
    LocalIndex,
    check_item_index_keys,
    check_updated_index_keys,
    project,
)
from datamodel.numbers import normalise_number

TABLE = 300
SCHEMA = KeySchema("pk", "S", "sk", "B")
# Few different bytes, so that prefixes, zeros and 0xFF meet often.
BINARIES = st.lists(st.sampled_from([0, 1, 2, 0x61, 0xFE, 0xFF]), min_size=1, max_size=4).map(bytes)
TEXTS = st.text(st.sampled_from("\x00\x01\x02ab\uffff"), min_size=1, max_size=4)
NUMBERS = st.integers(-300, 300)


def b(raw):
    return {"B": b64encode(raw).decode()}


def n(number):
    return {"N": normalise_number(str(number))}


def s(text):
    return {"S": text}


SORT_KEYS = {"S": (TEXTS, s, str.encode), "B": (BINARIES, b, bytes), "N": (NUMBERS, n, int)}


def item_key(pk, sk):
    return encode_key(TABLE, SCHEMA, {"pk": s(pk), "sk": b(sk)})


def test_stored_bytes_never_change():
    key = item_key("a\x00", b"\x00z")
    assert key[18:] == b"a\x00\xff\x00\x01\x00z"
    entry = encode_entry_key(key, 3, s("x\x00"))
    assert entry == key[:18] + b"a\x00\xff\x00\x04x\x00\xff\x00\x01\x00z"
    assert collection_size_key(key) == key[:18] + b"a\x00\xff\x00\x7f"


@settings(max_examples=150)
@given(TEXTS, BINARIES, BINARIES, st.integers(1, 5))
def test_an_entry_leads_to_its_item_and_lies_in_its_partition(pk, sk, value, index):
    key = item_key(pk, sk)
    entry = encode_entry_key(key, index, b(value))
    assert item_key_of_entry(entry) == key
    assert (part_of(key), part_of(entry), part_of(collection_size_key(key))) == (
        0,
        index,
        SIZE_PART,
    )
    assert part_of(b"d" + entry, 1) == index
    low, high = table_range(TABLE)
    assert low < key < entry < collection_size_key(key) < high
    for bound in partition_bounds(TABLE, 64):
        assert (key < bound) == (entry < bound) == (collection_size_key(key) < bound)


@settings(max_examples=100)
@given(TEXTS, TEXTS, BINARIES, BINARIES, BINARIES, BINARIES)
def test_entries_differ_as_their_items_and_values_do(pk1, pk2, sk1, sk2, value1, value2):
    first = encode_entry_key(item_key(pk1, sk1), 1, b(value1))
    second = encode_entry_key(item_key(pk2, sk2), 1, b(value2))
    assert (first == second) == ((pk1, sk1, value1) == (pk2, sk2, value2))
    if pk1 == pk2:
        assert (first < second) == ((value1, sk1) < (value2, sk2))


CONDITIONS = {
    "=": lambda key, operand: key == operand,
    "<": lambda key, operand: key < operand,
    "<=": lambda key, operand: key <= operand,
    ">": lambda key, operand: key > operand,
    ">=": lambda key, operand: key >= operand,
}


@pytest.mark.parametrize("kind", SORT_KEYS)
@settings(max_examples=150)
@given(data=st.data())
def test_ranges_hold_exactly_what_meets_the_condition(kind, data):
    values, attribute, order = SORT_KEYS[kind]
    schema = KeySchema("pk", "S", "i", kind)
    value, low, high = (data.draw(values) for _ in range(3))
    key = item_key("p", data.draw(BINARIES))
    entry = encode_entry_key(key, 2, attribute(value))
    strangers = [key, encode_entry_key(key, 1, attribute(value)), collection_size_key(key)]
    strangers += [encode_entry_key(key, 3, attribute(value))]

    def in_range(op, *operands):
        condition = SortCondition(op, tuple(map(attribute, operands)))
        start, end = collection_range(TABLE, schema, s("p"), condition, part=2)
        whole_start, whole_end = collection_range(TABLE, schema, s("p"), part=2)
        assert whole_start <= start <= end <= whole_end
        assert whole_start <= entry < whole_end
        assert not any(whole_start <= stranger < whole_end for stranger in strangers)
        return start <= entry < end

    for op, holds in CONDITIONS.items():
        assert in_range(op, low) == holds(order(value), order(low)), op
        assert in_range(op, value) == holds(order(value), order(value)), op
    assert in_range("BETWEEN", low, high) == (order(low) <= order(value) <= order(high))
    if kind != "N":
        assert in_range("begins_with", low) == order(value).startswith(order(low))
        assert in_range("begins_with", value)


def test_where_the_next_part_begins():
    key = item_key("a\x00b", b"x")
    first, third = encode_entry_key(key, 1, s("v")), encode_entry_key(key, 3, s("v"))
    assert key < part_start(key, 1) <= first
    assert first < part_start(first, 3) <= third
    assert part_start(b"d" + first, 3, 1) == b"d" + part_start(first, 3)
    # Nothing more of this part in this collection: behind all of it.
    for part in (0, 1, 2):
        assert part_start(third, part) > collection_size_key(key)
        assert part_start(third, part) < collection_range(TABLE, SCHEMA, s("a\x00c"))[0] or (
            collection_range(TABLE, SCHEMA, s("a\x00c"))[0] < key
        )


# --- projections and values --------------------------------------------------------------------------------


def test_projections():
    schema = KeySchema("pk", "S", "sk", "S")
    assert LocalIndex("i", "x", "N", "ALL").projected(schema) is None
    assert LocalIndex("i", "x", "N", "KEYS_ONLY").projected(schema) == {"pk", "sk", "x"}
    some = LocalIndex("i", "x", "N", "INCLUDE", ("v", "w"))
    assert some.projected(schema) == {"pk", "sk", "x", "v", "w"}
    assert some.schema(schema) == KeySchema("pk", "S", "x", "N")
    assert project({"pk": s("1"), "z": s("2"), "v": s("3")}, {"pk", "v", "w"}) == {
        "pk": s("1"),
        "v": s("3"),
    }


INDEXES = (LocalIndex("first", "n", "N", "ALL"), LocalIndex("second", "s", "S", "ALL"))
BINARY = (LocalIndex("third", "b", "B", "ALL"),)
MISMATCH = "One or more parameter values were invalid: Type mismatch for Index Key"
UNSUPPORTED = (
    "The update expression attempted to update the secondary index key to unsupported type"
)
EMPTY = "The AttributeValue for a key attribute cannot contain an empty"
NOT_VALID = "One or more parameter values are not valid."


@pytest.mark.parametrize(
    ("indexes", "item", "put", "update"),
    [
        (INDEXES, {}, None, None),
        (INDEXES, {"n": n(0), "s": s("x" * 1024)}, None, None),
        (BINARY, {"b": b(b"x" * 1024)}, None, None),
        (
            INDEXES,
            {"n": s("1")},
            f"{MISMATCH} n Expected: N Actual: S IndexName: first",
            UNSUPPORTED,
        ),
        (
            INDEXES,
            {"s": {"NULL": True}},
            f"{MISMATCH} s Expected: S Actual: NULL IndexName: second",
            UNSUPPORTED,
        ),
        (
            INDEXES,
            {"s": s("")},
            f"{NOT_VALID} A value specified for a secondary index key is not supported. {EMPTY} string "
            "value. IndexName: second, IndexKey: s",
            f"{NOT_VALID} The update expression attempted to update a secondary index key to a value that "
            f"is not supported. {EMPTY} string value.",
        ),
        (
            BINARY,
            {"b": b(b"")},
            f"{NOT_VALID} A value specified for a secondary index key is not supported. {EMPTY} binary "
            "value. IndexName: third, IndexKey: b",
            f"{NOT_VALID} The update expression attempted to update a secondary index key to a value that "
            f"is not supported. {EMPTY} binary value.",
        ),
        (
            INDEXES,
            {"s": s("é" * 513)},
            "One or more parameter values were invalid: Size limit exceeded for Index Key s "
            "Actual Size: 1026 bytes Max Size: 1024 bytes IndexName: second",
            "The update expression attempted to update the secondary index key beyond allowed size limits",
        ),
    ],
)
def test_values_of_index_keys(indexes, item, put, update):
    for check, message in ((check_item_index_keys, put), (check_updated_index_keys, update)):
        if message is None:
            check(indexes, item)
        else:
            with pytest.raises(ValidationError) as caught:
                check(indexes, item)
            assert caught.value.message == message
