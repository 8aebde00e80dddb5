"""What a Query or Scan reads: a table, or one of its local indexes and perhaps the items behind its entries.

A local index is read like the table it belongs to, strongly if asked. What it does not project is fetched from
the table, item by item, at the table's price.

Source: rules, texts and their order as observed on the service by the authors of dynalite.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from datamodel.errors import ValidationError
from datamodel.expressions import Condition, Projection
from datamodel.key_encoding import (
    ITEMS_PART,
    KEY_MISMATCH,
    KeySchema,
    check_key,
    encode_entry_key,
    encode_key,
)
from datamodel.local_indexes import LocalIndex
from router.partition_map import TableEntry

Item = dict[str, dict[str, Any]]

ESK_INVALID = "The provided starting key is invalid"


@dataclass(frozen=True, slots=True)
class ReadTarget:
    """A table or a local index as Query and Scan see it.

    Attributes:
        part: Of item collections: `ITEMS_PART`, or the index's number.
        index_name: None for the table.
        schema: The keys by which it is ordered.
        start_names: Attributes of LastEvaluatedKey and ExclusiveStartKey.
        projected: Names of the attributes that it has; None for all.
    """

    part: int
    index_name: str | None
    schema: KeySchema
    start_names: tuple[str, ...]
    projected: frozenset[str] | None = None

    def index_of(self, entry: TableEntry) -> LocalIndex | None:
        """The local index that it is; None for the table."""
        return None if self.part == ITEMS_PART else entry.description.local_indexes[self.part - 1]

    def must_fetch(
        self,
        select: str | None,
        projection: Projection | None,
        names: Iterable[str],
        item_filter: Condition | None,
    ) -> bool:
        """Whether a request needs attributes that are not here.

        Args:
            select: `Select`.
            projection: The request's projection.
            names: Its `AttributesToGet`.
            item_filter: Its filter.
        """
        projected = self.projected
        if projected is None:
            return False
        if select == "ALL_ATTRIBUTES":
            return True
        read = set(names)
        if projection is not None:
            read.update(projection.top_level_attributes)
        if item_filter is not None:
            read.update(item_filter.top_level_attributes)
        return not read <= projected


def read_target(entry: TableEntry, index_name: str | None) -> ReadTarget | None:
    """The target that a request names; None if the table has no such index."""
    schema = entry.schema
    if index_name is None:
        return ReadTarget(ITEMS_PART, None, schema, schema.names)
    for number, index in enumerate(entry.description.local_indexes, 1):
        if index.name == index_name:
            names = tuple(dict.fromkeys((*schema.names, index.sort_name)))
            return ReadTarget(
                number, index_name, index.schema(schema), names, index.projected(schema)
            )
    return None


def unknown_index(index_name: str | None) -> ValidationError:
    """The error for an index that the table does not have."""
    return ValidationError(f"The table does not have the specified index: {index_name}")


def check_index_start_key(
    target: ReadTarget, start_key: Item, is_partition_given: bool = True
) -> None:
    """Whether a start key has the right number of attributes, among them the target's keys, well-typed.

    Args:
        target: What is read.
        start_key: Normal.
        is_partition_given: Whether the request has a condition on the partition key. If not, that is for the
            caller to say before anything is said of the start key's sort key, which is not looked at then.

    Raises:
        ValidationError: It has not.
    """
    schema = target.schema
    if len(start_key) != len(target.start_names):
        raise ValidationError(ESK_INVALID)
    _check_piece(schema.partition_name, schema.partition_type, start_key)
    if not is_partition_given:
        return
    if schema.sort_name is not None and schema.sort_type is not None:
        _check_piece(schema.sort_name, schema.sort_type, start_key)
    try:
        check_key(schema, {name: start_key[name] for name in schema.names})
    except ValidationError as error:
        raise ValidationError(f"{ESK_INVALID}: {error.message}") from error


def _check_piece(name: str, kind: str, start_key: Item) -> None:
    value = start_key.get(name)
    if value is None:
        raise ValidationError(ESK_INVALID)
    if kind not in value:
        raise ValidationError(KEY_MISMATCH)


def check_table_start_key(schema: KeySchema, start_key: Item) -> None:
    """Whether a start key has the table's key.

    Raises:
        ValidationError: It has not.
    """
    try:
        check_key(schema, {name: start_key[name] for name in schema.names if name in start_key})
    except ValidationError as error:
        raise ValidationError(f"{ESK_INVALID}: {error.message}") from error


def encode_position(entry: TableEntry, target: ReadTarget, start_key: Item) -> bytes:
    """The keyspace key of a checked start key."""
    key = encode_key(entry.table_id, entry.schema, start_key)
    if target.part == ITEMS_PART:
        return key
    assert target.schema.sort_name is not None, "local indexes have sort keys"
    return encode_entry_key(key, target.part, start_key[target.schema.sort_name])
