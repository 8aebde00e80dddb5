r"""Keys: a key schema and an item's key attributes to bytes whose order is the order of items.

    key           = keyspace · hash · partition key · part · sort key            an item
                  | keyspace · hash · partition key · part · index sort key · sort key     a local index's entry
    keyspace      = table id u64 · index u16       big-endian; index 0 is the table itself with its local indexes
    hash          = first 8 bytes of MD5(the partition key's bytes, before escaping)
    partition key = bytes with 0x00 written as 0x00 0xFF
    part          = 0x00 0x01 items · 0x00 0x02 to 0x00 0x06 local indexes 1 to 5 · 0x00 0x7F the collection's size
    index sort key= bytes with 0x00 written as 0x00 0xFF, then 0x00 0x01
    sort key      = bytes as they are; nothing where the schema has no sort key
    bytes         = S: UTF-8 · B: raw · N: numbers.encode_number

So items of a table are ordered by hash, items of one partition key lie together (the mark of the part makes no
encoded partition key a prefix of another) and are ordered by sort key: strings and binaries by bytes, numbers
by value. The sort key comes last and needs no end mark. An item collection (everything of one partition key:
items, then the entries of each local index, then its size) is contiguous, so that wherever partitions are
divided between hashes an item and its entries are together. A partition owns a contiguous range of this space;
its id is not in the key. These bytes are stored: no part of the grammar may change.

Ranges are (start, end) with start included and end excluded; neighbouring ranges share their bound, so that
no key is between them or in both.

MD5 spreads keys evenly and is the same everywhere and for ever; it protects nothing here. The texts of the
checks are as observed on the service.
"""

from dataclasses import dataclass
from hashlib import md5
from typing import Final, Literal, TypeAlias

from datamodel.attribute_values import AttributeValue, binary
from datamodel.errors import ValidationError
from datamodel.items import Item
from datamodel.limits import PARTITION_KEY_SIZE_BYTES_MAX, SORT_KEY_SIZE_BYTES_MAX
from datamodel.numbers import encode_number

KeyType: TypeAlias = Literal["S", "N", "B"]
SortOperator: TypeAlias = Literal["=", "<", "<=", ">", ">=", "BETWEEN", "begins_with"]

HASH_SIZE: Final = 8
KEYSPACE_SIZE: Final = 10

_HASH_SPACE: Final = 1 << (8 * HASH_SIZE)
_HASHED_SIZE: Final = KEYSPACE_SIZE + HASH_SIZE
_TERMINATOR: Final = b"\x00\x01"
_AFTER_TERMINATOR: Final = b"\x00\x02"

ITEMS_PART: Final = 0
"""Part of an item collection that holds the items; parts 1 to 5 are those of the local indexes."""
SIZE_PART: Final = 0x7E
"""Part that holds the collection's size."""
_PARTS: Final = tuple(bytes((0, 1 + part)) for part in range(SIZE_PART + 2))

KEY_MISMATCH = "The provided key element does not match the schema"
_INVALID = "One or more parameter values were invalid: "
_NOT_VALID = "One or more parameter values are not valid. "


@dataclass(frozen=True, slots=True)
class KeySchema:
    """Names and types of a table's (or index's) key attributes.

    Attributes:
        partition_name: Name of the partition key.
        partition_type: S, N or B.
        sort_name: Name of the sort key, None where there is none.
        sort_type: S, N or B, None where there is no sort key.
    """

    partition_name: str
    partition_type: str
    sort_name: str | None = None
    sort_type: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The key attributes' names, partition key first."""
        if self.sort_name is None:
            return (self.partition_name,)
        return (self.partition_name, self.sort_name)


@dataclass(frozen=True, slots=True)
class SortCondition:
    """A key condition's term for the sort key.

    Attributes:
        op: The comparison.
        operands: One normal value, or two (lower, upper; both included) for BETWEEN.
    """

    op: SortOperator
    operands: tuple[AttributeValue, ...]


# --- keys --------------------------------------------------------------------------------------------------


def encode_key(table_id: int, schema: KeySchema, key: Item, index: int = 0) -> bytes:
    """The keyspace key of an item.

    Args:
        table_id: The table's number.
        schema: Its key schema.
        key: A whole item or just its key attributes, checked by `check_key` or `check_item_key`.
        index: 0 for the table itself, else the number of a global index.
    """
    prefix = _collection_prefix(table_id, schema, key[schema.partition_name], index)
    if schema.sort_name is None:
        return prefix
    return prefix + _key_bytes(key[schema.sort_name])


def key_of(schema: KeySchema, item: Item) -> Item:
    """Just the key attributes of an item."""
    if schema.sort_name is None:
        return {schema.partition_name: item[schema.partition_name]}
    return {
        schema.partition_name: item[schema.partition_name],
        schema.sort_name: item[schema.sort_name],
    }


def _key_bytes(value: AttributeValue) -> bytes:
    ((kind, content),) = value.items()
    if kind == "S":
        encoded: bytes = content.encode()
        return encoded
    if kind == "N":
        return encode_number(content)
    assert kind == "B", "key attributes are S, N or B"
    return binary(value)


def _keyspace_prefix(table_id: int, index: int) -> bytes:
    assert 0 <= index <= 0xFFFF, "the index number has two bytes"
    return (table_id << 16 | index).to_bytes(KEYSPACE_SIZE, "big")


def _collection_prefix(
    table_id: int, schema: KeySchema, partition_value: AttributeValue, index: int
) -> bytes:
    """What the keys of all items with this partition key begin with, and no other keys do."""
    raw = _key_bytes(partition_value)
    digest = md5(raw, usedforsecurity=False).digest()
    return _keyspace_prefix(table_id, index) + digest[:HASH_SIZE] + _escaped(raw)


# --- item collections and their local indexes --------------------------------------------------------------


def _mark_of_part(key: bytes, start: int) -> int:
    """Where in a key (that begins at `start`) the mark stands that ends the partition key."""
    at = key.index(0, start + _HASHED_SIZE)
    while key[at + 1] == 0xFF:
        at = key.index(0, at + 2)
    return at


def part_of(key: bytes, start: int = 0) -> int:
    """Of which part of its item collection a key is: `ITEMS_PART`, a local index's number, `SIZE_PART`.

    Args:
        key: A key of this module's making.
        start: Where in `key` it begins.
    """
    return key[_mark_of_part(key, start) + 1] - 1


def part_start(key: bytes, part: int, start: int = 0) -> bytes:
    """Where the part begins that comes next after `key`: in its own collection, else in the one behind.

    The second is not known, so the first possible key behind this collection stands for it. Whatever is before
    `start` in `key` is kept.
    """
    mark = _mark_of_part(key, start)
    if key[mark + 1] - 1 < part:
        return key[:mark] + _PARTS[part]
    return key[:mark] + _PARTS[SIZE_PART + 1]


def encode_entry_key(item_key: bytes, index: int, index_sort_value: AttributeValue) -> bytes:
    """The key of the entry of an item in a local index.

    Args:
        item_key: The item's.
        index: Number of the local index, from 1.
        index_sort_value: The item's value of the index's sort key.
    """
    mark = _mark_of_part(item_key, 0)
    return (
        item_key[:mark]
        + _PARTS[index]
        + _escaped(_key_bytes(index_sort_value))
        + item_key[mark + 2 :]
    )


def item_key_of_entry(entry_key: bytes) -> bytes:
    """The key of the item that an entry of a local index stands for."""
    mark = _mark_of_part(entry_key, 0)
    at = entry_key.index(0, mark + 2)
    while entry_key[at + 1] == 0xFF:
        at = entry_key.index(0, at + 2)
    return entry_key[:mark] + _TERMINATOR + entry_key[at + 2 :]


def collection_size_key(item_key: bytes) -> bytes:
    """The key under which the size of an item's collection is kept."""
    return item_key[: _mark_of_part(item_key, 0)] + _PARTS[SIZE_PART]


def _escaped(raw: bytes) -> bytes:
    if 0 in raw:
        raw = raw.replace(b"\x00", b"\x00\xff")
    return raw + _TERMINATOR


# --- ranges ------------------------------------------------------------------------------------------------


def table_range(table_id: int, index: int = 0) -> tuple[bytes, bytes]:
    """The range of all keys of a table with its local indexes, or of one of its global indexes."""
    number = table_id << 16 | index
    return number.to_bytes(KEYSPACE_SIZE, "big"), (number + 1).to_bytes(KEYSPACE_SIZE, "big")


def partition_bounds(table_id: int, partitions: int) -> list[bytes]:
    """Bounds that split a table's hash space evenly.

    Returns:
        `partitions + 1` ascending keys; partition i owns from the i-th to the next. The first and last are
        those of `table_range`.
    """
    assert partitions > 0
    return [_split(table_id, part, partitions) for part in range(partitions + 1)]


def segment_range(table_id: int, segment: int, total_segments: int) -> tuple[bytes, bytes]:
    """The range of one segment of a parallel Scan.

    Segments of one total cover the table without gap or overlap. `segment` is zero-based, below the total.
    """
    assert 0 <= segment < total_segments
    return (
        _split(table_id, segment, total_segments),
        _split(table_id, segment + 1, total_segments),
    )


def _split(table_id: int, part: int, parts: int) -> bytes:
    """The bound below part number `part` of `parts` equal parts; with part = parts, the table's end."""
    if part == 0:
        return table_range(table_id)[0]
    if part == parts:
        return table_range(table_id)[1]
    bound = part * _HASH_SPACE // parts
    return _keyspace_prefix(table_id, 0) + bound.to_bytes(HASH_SIZE, "big")


def collection_range(
    table_id: int,
    schema: KeySchema,
    partition_value: AttributeValue,
    condition: SortCondition | None = None,
    index: int = 0,
    part: int = ITEMS_PART,
) -> tuple[bytes, bytes]:
    """The range of the items with one partition key whose sort key meets the condition, exactly.

    Operands must be normal values of the sort key's type. A condition that nothing can meet (BETWEEN with the
    bounds swapped) gives an empty range, start equal to end.

    Args:
        table_id: The table's number.
        schema: Key schema of the table; of the local index, for its part.
        partition_value: Value of the partition key.
        condition: Term for the sort key, None if there is none.
        index: 0 for the table itself, else the number of a global index.
        part: Number of the local index whose entries are meant, `ITEMS_PART` for the items.
    """
    prefix = _collection_prefix(table_id, schema, partition_value, index)
    if part != ITEMS_PART:
        prefix = prefix[: -len(_TERMINATOR)] + _PARTS[part]
    end = prefix[:-2] + _PARTS[part + 1]
    if condition is None:
        return prefix, end
    assert schema.sort_name is not None, "a sort condition needs a sort key"
    raw = [_key_bytes(operand) for operand in condition.operands]
    if part == ITEMS_PART:
        first = prefix + raw[0]
        # The next possible key after k is k followed by a zero byte.
        behind = prefix + raw[-1] + b"\x00"
    else:
        # All entries with this sort key begin with it and its end mark.
        first = prefix + _escaped(raw[0])
        behind = prefix + _escaped(raw[-1])[:-2] + _AFTER_TERMINATOR
    match condition.op:
        case "=":
            return first, behind
        case "<":
            return prefix, first
        case "<=":
            return prefix, behind
        case ">":
            return behind, end
        case ">=":
            return first, end
        case "BETWEEN":
            return first, max(first, behind)
        case "begins_with":
            if part != ITEMS_PART:
                first = first[: -len(_TERMINATOR)]
            return first, _after_all_with_prefix(first, len(prefix)) or end


def _after_all_with_prefix(key: bytes, fixed: int) -> bytes | None:
    """The least key above all that begin with `key`; None if its bytes after `fixed` are all 0xFF or none."""
    length = len(key)
    while length > fixed and key[length - 1] == 0xFF:
        length -= 1
    if length == fixed:
        return None
    return key[: length - 1] + bytes((key[length - 1] + 1,))


# --- checks ------------------------------------------------------------------------------------------------


def check_key(schema: KeySchema, key: Item) -> None:
    """Check a `Key` argument: exactly the key attributes, of the right types, not empty, not too long.

    Raises:
        ValidationError: With the service's text.
    """
    if len(key) != (1 if schema.sort_name is None else 2):
        raise ValidationError(KEY_MISMATCH)
    partition = key.get(schema.partition_name)
    if partition is None or schema.partition_type not in partition:
        raise ValidationError(KEY_MISMATCH)
    sort_name = schema.sort_name
    if sort_name is None:
        check_partition_value(schema.partition_name, partition)
        return
    sort = key.get(sort_name)
    if sort is None or schema.sort_type not in sort:
        raise ValidationError(KEY_MISMATCH)
    check_partition_value(schema.partition_name, partition)
    check_sort_value(sort_name, sort)


def check_item_key(schema: KeySchema, item: Item) -> None:
    """Check the key attributes of an item to be put.

    Raises:
        ValidationError: With the service's text.
    """
    partition = item.get(schema.partition_name)
    if partition is None:
        raise ValidationError(f"{_INVALID}Missing the key {schema.partition_name} in the item")
    if schema.partition_type not in partition:
        raise _type_mismatch(schema.partition_name, schema.partition_type, partition)
    check_partition_value(schema.partition_name, partition)
    if schema.sort_name is None:
        return
    assert schema.sort_type is not None
    sort = item.get(schema.sort_name)
    if sort is None:
        raise ValidationError(f"{_INVALID}Missing the key {schema.sort_name} in the item")
    if schema.sort_type not in sort:
        raise _type_mismatch(schema.sort_name, schema.sort_type, sort)
    check_sort_value(schema.sort_name, sort)


def _type_mismatch(name: str, expected: str, value: AttributeValue) -> ValidationError:
    return ValidationError(
        f"{_INVALID}Type mismatch for key {name} expected: {expected} actual: {next(iter(value))}"
    )


def check_partition_value(name: str, value: AttributeValue) -> None:
    """Check a value of a partition key, of its type: neither empty nor too long.

    Raises:
        ValidationError: With the service's text.
    """
    if _key_size(name, value) > PARTITION_KEY_SIZE_BYTES_MAX:
        raise ValidationError(
            f"{_INVALID}Size of hashkey has exceeded the maximum size limit "
            f"of{PARTITION_KEY_SIZE_BYTES_MAX} bytes"
        )


def check_sort_value(name: str, value: AttributeValue) -> None:
    """The same for a sort key.

    Raises:
        ValidationError: With the service's text.
    """
    if _key_size(name, value) > SORT_KEY_SIZE_BYTES_MAX:
        raise ValidationError(
            f"{_INVALID}Aggregated size of all range keys has exceeded the size limit "
            f"of {SORT_KEY_SIZE_BYTES_MAX} bytes"
        )


def _key_size(name: str, value: AttributeValue) -> int:
    """Size in bytes of a key attribute's value; 0 for a number, which is never too long."""
    ((kind, content),) = value.items()
    if not content:
        what = "string" if kind == "S" else "binary"
        raise ValidationError(
            f"{_NOT_VALID}The AttributeValue for a key attribute cannot contain "
            f"an empty {what} value. Key: {name}"
        )
    if kind == "S":
        return len(content) if content.isascii() else len(content.encode())
    if kind == "B":
        return len(binary(value))
    return 0
