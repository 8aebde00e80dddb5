"""Keys: byte order is item order, ranges are exact, checks speak as the service does."""

from base64 import b64encode
from bisect import bisect_right
from decimal import Decimal
from hashlib import md5
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.key_encoding import (
    KeySchema,
    SortCondition,
    check_item_key,
    check_key,
    collection_range,
    encode_key,
    key_of,
    partition_bounds,
    segment_range,
    table_range,
)
from datamodel.numbers import normalise_number

HASH_ONLY = KeySchema("pk", "S")
STRINGS = KeySchema("pk", "S", "sk", "S")
TABLE = 300
INVALID = "One or more parameter values were invalid: "
NOT_VALID = "One or more parameter values are not valid. "
MISMATCH = "The provided key element does not match the schema"


def b(raw: bytes) -> dict[str, str]:
    return {"B": b64encode(raw).decode()}


def n(number: object) -> dict[str, str]:
    return {"N": normalise_number(str(number))}


def s(text: str) -> dict[str, str]:
    return {"S": text}


def test_stored_bytes_never_change():
    key = encode_key(TABLE, STRINGS, {"pk": s("a\x00b"), "sk": s("ü"), "other": s("x")})
    assert key == (
        bytes.fromhex("000000000000012c 0000")
        + md5(b"a\x00b", usedforsecurity=False).digest()[:8]
        + b"a\x00\xffb\x00\x01"
        + "ü".encode()
    )
    numbers = KeySchema("pk", "N", "sk", "N")
    key = encode_key(1, numbers, {"pk": n(1), "sk": n(-1)}, index=2)
    assert key[:10] == bytes.fromhex("0000000000000001 0002")
    assert key[18:] == bytes.fromhex("03820c01") + b"\x00\x01" + bytes.fromhex("017df3fe")


def test_key_of_takes_just_the_key():
    item = {"x": s("1"), "sk": s("2"), "pk": s("3")}
    assert key_of(STRINGS, item) == {"pk": s("3"), "sk": s("2")}
    assert key_of(HASH_ONLY, item) == {"pk": s("3")}
    assert STRINGS.names == ("pk", "sk")
    assert HASH_ONLY.names == ("pk",)


# --- order -------------------------------------------------------------------------------------------------

NUMBERS = st.decimals(
    min_value=Decimal("-1e20"), max_value=Decimal("1e20"), allow_nan=False, places=3
) | st.integers(-50, 50).map(Decimal)
# Few different bytes, so that prefixes, zeros and 0xFF meet often.
BINARIES = st.lists(st.sampled_from([0, 1, 2, 0x61, 0xFE, 0xFF]), min_size=1, max_size=5).map(bytes)
TEXTS = st.text(st.sampled_from("\x00\x01ab\x7fé\uffff\U0010ffff"), min_size=1, max_size=5)
SORT_KEYS = {
    "S": (TEXTS, s, str.encode),
    "B": (BINARIES, b, bytes),
    "N": (NUMBERS, n, Decimal),
}


@settings(max_examples=100)
@given(BINARIES, BINARIES, BINARIES, BINARIES)
def test_no_partition_key_is_a_prefix_of_another(p1, s1, p2, s2):
    schema = KeySchema("pk", "B", "sk", "B")
    first = encode_key(TABLE, schema, {"pk": b(p1), "sk": b(s1)})
    second = encode_key(TABLE, schema, {"pk": b(p2), "sk": b(s2)})
    assert (first == second) == ((p1, s1) == (p2, s2))
    start, end = collection_range(TABLE, schema, b(p1), None)
    assert start <= first < end
    assert (start <= second < end) == (p1 == p2)
    low, high = table_range(TABLE)
    assert low <= start < end <= high


CONDITIONS = {
    "=": lambda key, operand: key == operand,
    "<": lambda key, operand: key < operand,
    "<=": lambda key, operand: key <= operand,
    ">": lambda key, operand: key > operand,
    ">=": lambda key, operand: key >= operand,
}


@pytest.mark.parametrize("kind", SORT_KEYS)
@settings(max_examples=100)
@given(data=st.data())
def test_ranges_hold_exactly_what_meets_the_condition(kind, data):
    keys, attribute, order = SORT_KEYS[kind]
    schema = KeySchema("pk", "S", "sk", kind)
    key, low, high = (data.draw(keys) for _ in range(3))
    encoded = encode_key(TABLE, schema, {"pk": s("p"), "sk": attribute(key)})

    def in_range(op, *operands):
        condition = SortCondition(op, tuple(map(attribute, operands)))
        start, end = collection_range(TABLE, schema, s("p"), condition)
        whole_start, whole_end = collection_range(TABLE, schema, s("p"), None)
        assert whole_start <= start <= end <= whole_end
        return start <= encoded < end

    for op, holds in CONDITIONS.items():
        assert in_range(op, low) == holds(order(key), order(low)), op
        assert in_range(op, key) == holds(order(key), order(key)), op
    assert in_range("BETWEEN", low, high) == (order(low) <= order(key) <= order(high))
    assert in_range("BETWEEN", key, key)
    if kind != "N":
        assert in_range("begins_with", low) == order(key).startswith(order(low))
        assert in_range("begins_with", key)


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        (b"\xff", [b"\xff", b"\xff\xff", b"\xff\x00"], [b"\xfe", b"\x00"]),
        (b"a\xff", [b"a\xff", b"a\xff\xff\xff"], [b"a", b"b", b"a\xfe"]),
        (b"a", [b"a", b"a\x00", b"a\xff\xff"], [b"b", b"\x00", b"A"]),
    ],
)
def test_begins_with_at_the_last_byte(prefix, inside, outside):
    schema = KeySchema("pk", "S", "sk", "B")
    start, end = collection_range(TABLE, schema, s("p"), SortCondition("begins_with", (b(prefix),)))
    for raw in inside + outside:
        key = encode_key(TABLE, schema, {"pk": s("p"), "sk": b(raw)})
        assert (start <= key < end) == (raw in inside), raw


def test_numbers_are_ordered_by_value_within_a_collection():
    schema = KeySchema("pk", "S", "sk", "N")
    ascending = ["-1e125", "-10", "-9", "-1", "-0.1", "0", "1e-130", "0.1", "1", "9", "10", "1e125"]
    keys = [encode_key(TABLE, schema, {"pk": s("p"), "sk": n(text)}) for text in ascending]
    assert keys == sorted(keys)


def test_a_between_with_swapped_bounds_is_empty():
    condition = SortCondition("BETWEEN", (s("z"), s("a")))
    start, end = collection_range(TABLE, STRINGS, s("p"), condition)
    assert start == end


# --- partitions and segments -------------------------------------------------------------------------------


def test_tables_and_indexes_follow_one_another():
    assert table_range(TABLE, 0)[1] == table_range(TABLE, 1)[0]
    assert table_range(TABLE, 0xFFFF)[1] == table_range(TABLE + 1, 0)[0]
    assert table_range(255)[1] < table_range(256)[0]


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 16, 1000])
def test_partitions_split_the_table_evenly(partitions):
    bounds = partition_bounds(TABLE, partitions)
    assert (bounds[0], bounds[-1]) == table_range(TABLE)
    assert len(bounds) == partitions + 1
    assert bounds == sorted(set(bounds))
    inner = [int.from_bytes(bound[10:18], "big") for bound in bounds[1:-1]]
    widths = [b - a for a, b in zip([0, *inner], [*inner, 1 << 64], strict=True)]
    assert max(widths) - min(widths) <= 1


def test_partitions_get_about_the_same_number_of_keys():
    bounds = partition_bounds(TABLE, 8)
    counts = [0] * 8
    for number in range(4000):
        key = encode_key(TABLE, HASH_ONLY, {"pk": s(f"user#{number}")})
        counts[bisect_right(bounds, key) - 1] += 1
    assert min(counts) > 400


@pytest.mark.parametrize("total", [1, 2, 3, 4, 1000])
def test_segments_cover_the_table(total):
    ranges = [segment_range(TABLE, segment, total) for segment in range(total)]
    assert ranges[0][0] == table_range(TABLE)[0]
    assert ranges[-1][1] == table_range(TABLE)[1]
    for (start, end), (next_start, _) in pairwise(ranges):
        assert start < end == next_start


def test_a_million_segments():
    total = 1_000_000
    for segment in (0, 1, 499_999, 500_000, 999_998):
        start, end = segment_range(TABLE, segment, total)
        assert start < end == segment_range(TABLE, segment + 1, total)[0]
    assert segment_range(TABLE, total - 1, total)[1] == table_range(TABLE)[1]


@settings(max_examples=100)
@given(st.text(min_size=1, max_size=5), st.integers(1, 1_000_000))
def test_every_key_is_in_one_segment(text, total):
    key = encode_key(TABLE, HASH_ONLY, {"pk": s(text)})
    segment = int.from_bytes(key[10:18], "big") * total >> 64
    holders = [
        candidate
        for candidate in range(max(0, segment - 2), min(total, segment + 3))
        if segment_range(TABLE, candidate, total)[0]
        <= key
        < segment_range(TABLE, candidate, total)[1]
    ]
    assert len(holders) == 1


# --- checks ------------------------------------------------------------------------------------------------

EMPTY_STRING = (
    f"{NOT_VALID}The AttributeValue for a key attribute cannot contain an empty string value. Key: "
)
EMPTY_BINARY = (
    f"{NOT_VALID}The AttributeValue for a key attribute cannot contain an empty binary value. Key: "
)
TOO_LONG_PARTITION = f"{INVALID}Size of hashkey has exceeded the maximum size limit of2048 bytes"
TOO_LONG_SORT = (
    f"{INVALID}Aggregated size of all range keys has exceeded the size limit of 1024 bytes"
)
BINARY = KeySchema("pk", "B", "sk", "B")


@pytest.mark.parametrize(
    ("schema", "key", "message"),
    [
        (STRINGS, {"pk": s("a"), "sk": s("b")}, None),
        (HASH_ONLY, {"pk": s("a")}, None),
        (HASH_ONLY, {"pk": s("é" * 1024)}, None),
        (STRINGS, {"pk": s("a"), "sk": s("é" * 512)}, None),
        (KeySchema("pk", "N"), {"pk": n(0)}, None),
        (BINARY, {"pk": b(b"x" * 2048), "sk": b(b"x" * 1024)}, None),
        (HASH_ONLY, {}, MISMATCH),
        (HASH_ONLY, {"x": s("a")}, MISMATCH),
        (HASH_ONLY, {"pk": n(1)}, MISMATCH),
        (HASH_ONLY, {"pk": {"SS": ["a"]}}, MISMATCH),
        (HASH_ONLY, {"pk": s("a"), "sk": s("b")}, MISMATCH),
        (STRINGS, {"pk": s("a")}, MISMATCH),
        (STRINGS, {"pk": s("a"), "x": s("b")}, MISMATCH),
        (STRINGS, {"pk": s("a"), "sk": n(1)}, MISMATCH),
        (STRINGS, {"pk": s(""), "sk": n(1)}, MISMATCH),
        (STRINGS, {"pk": s(""), "sk": s("b")}, EMPTY_STRING + "pk"),
        (STRINGS, {"pk": s("a"), "sk": s("")}, EMPTY_STRING + "sk"),
        (BINARY, {"pk": b(b""), "sk": b(b"x")}, EMPTY_BINARY + "pk"),
        (BINARY, {"pk": b(b"x"), "sk": b(b"")}, EMPTY_BINARY + "sk"),
        (HASH_ONLY, {"pk": s("x" * 2049)}, TOO_LONG_PARTITION),
        (HASH_ONLY, {"pk": s("é" * 1025)}, TOO_LONG_PARTITION),
        (BINARY, {"pk": b(b"x" * 2049), "sk": b(b"x")}, TOO_LONG_PARTITION),
        (STRINGS, {"pk": s("a"), "sk": s("x" * 1025)}, TOO_LONG_SORT),
    ],
)
def test_key_arguments(schema, key, message):
    if message is None:
        check_key(schema, key)
        check_item_key(schema, key | {"other": s("")})
        return
    with pytest.raises(ValidationError) as caught:
        check_key(schema, key)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("schema", "item", "message"),
    [
        (STRINGS, {}, f"{INVALID}Missing the key pk in the item"),
        (STRINGS, {"pk": s("a")}, f"{INVALID}Missing the key sk in the item"),
        (STRINGS, {"pk": n(1)}, f"{INVALID}Type mismatch for key pk expected: S actual: N"),
        (
            STRINGS,
            {"pk": s("a"), "sk": {"BOOL": True}},
            f"{INVALID}Type mismatch for key sk expected: S actual: BOOL",
        ),
        (STRINGS, {"pk": s("a"), "sk": s("")}, EMPTY_STRING + "sk"),
        (BINARY, {"pk": b(b""), "sk": b(b"a")}, EMPTY_BINARY + "pk"),
        (HASH_ONLY, {"pk": s("x" * 2049)}, TOO_LONG_PARTITION),
        (STRINGS, {"pk": s("a"), "sk": s("x" * 1025)}, TOO_LONG_SORT),
    ],
)
def test_keys_of_items(schema, item, message):
    with pytest.raises(ValidationError) as caught:
        check_item_key(schema, item)
    assert caught.value.message == message
