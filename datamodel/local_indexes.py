"""Local secondary indexes: what one is, what of an item is in it, and which items may be.

An index holds an entry for every item that has its sort key (it is sparse): the item's key attributes, the
index's sort key, and what the index projects besides. An entry is an item by itself: it has a body and a size.

Sources: projections and sparseness from the developer guide; texts as observed on the service by the authors of
dynalite and of the parity suite for DynamoDB; that of a key that is too long from error reports about global
indexes (2,048 bytes there), that of an empty one in a query from an error report.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from datamodel.attribute_values import AttributeValue, binary
from datamodel.errors import ValidationError
from datamodel.key_encoding import KeySchema, check_partition_value, check_sort_value
from datamodel.limits import SORT_KEY_SIZE_BYTES_MAX

ProjectionType: TypeAlias = Literal["ALL", "INCLUDE", "KEYS_ONLY"]

_INVALID: Final = "One or more parameter values were invalid: "
_UPDATED: Final = "The update expression attempted to"
_NOT_VALID: Final = "One or more parameter values are not valid. "
_EMPTY: Final = "The AttributeValue for a key attribute cannot contain an empty"


@dataclass(frozen=True, slots=True)
class LocalIndex:
    """A local secondary index of a table. Its number is its place among the table's indexes, from 1.

    Attributes:
        name: Unique in the table.
        sort_name: Its sort key; its partition key is the table's.
        sort_type: S, N or B.
        projection: What entries have besides the keys.
        non_key_attributes: What INCLUDE includes, as the client gave it.
    """

    name: str
    sort_name: str
    sort_type: str
    projection: ProjectionType
    non_key_attributes: tuple[str, ...] = ()

    def schema(self, table: KeySchema) -> KeySchema:
        """The index's own key schema."""
        return KeySchema(table.partition_name, table.partition_type, self.sort_name, self.sort_type)

    def projected(self, table: KeySchema) -> frozenset[str] | None:
        """Names of the attributes that entries have; None for all of the item's."""
        if self.projection == "ALL":
            return None
        return frozenset((*table.names, self.sort_name, *self.non_key_attributes))


class IndexKey(Protocol):
    """What is to be known of an index to check a value of its sort key."""

    @property
    def name(self) -> str:
        """The index's name."""

    @property
    def sort_name(self) -> str:
        """Its sort key."""

    @property
    def sort_type(self) -> str:
        """S, N or B."""


def project(
    item: Mapping[str, AttributeValue], names: Collection[str]
) -> dict[str, AttributeValue]:
    """The part of an item that an entry has."""
    return {name: value for name, value in item.items() if name in names}


def check_item_index_keys(
    indexes: Collection[IndexKey], item: Mapping[str, AttributeValue]
) -> None:
    """Check an item to be put: what it has of indexes' keys must be of the right type, not empty, not too long.

    Raises:
        ValidationError: With the service's text.
    """
    for index, value, fault in _faults(indexes, item):
        match fault:
            case "type":
                raise type_mismatch(index, next(iter(value)))
            case "empty":
                raise ValidationError(
                    f"{_NOT_VALID}A value specified for a secondary index key is not supported. "
                    f"{_EMPTY} {_spoken(value)} value. IndexName: {index.name}, "
                    f"IndexKey: {index.sort_name}"
                )
            case "long":
                raise ValidationError(
                    f"{_INVALID}Size limit exceeded for Index Key {index.sort_name} Actual Size: "
                    f"{_size(value)} bytes Max Size: {SORT_KEY_SIZE_BYTES_MAX} bytes "
                    f"IndexName: {index.name}"
                )


def check_condition_count(schema: KeySchema, count: int) -> None:
    """Check that a query has conditions on no more attributes than the key has.

    Raises:
        ValidationError: With the service's text.
    """
    if count > len(schema.names):
        raise ValidationError(
            f"The number of query conditions ({count}) exceeds the number of key attributes defined in "
            f"the schema ({len(schema.names)})"
        )


def check_condition_value(
    schema: KeySchema, index: IndexKey | None, name: str, value: AttributeValue
) -> None:
    """Check what a query compares a key with: it must be a value that the key can have.

    Args:
        schema: Keys of the table or index that is queried.
        index: The index, if it is one.
        name: Which of the keys.
        value: What it is compared with.

    Raises:
        ValidationError: With the service's text.
    """
    is_partition = name == schema.partition_name
    if (schema.partition_type if is_partition else schema.sort_type) not in value:
        raise ValidationError(f"{_INVALID}Condition parameter type does not match schema type")
    if is_partition:
        check_partition_value(name, value)
    elif index is None:
        check_sort_value(name, value)
    else:
        check_item_index_keys((index,), {name: value})


def check_updated_index_keys(
    indexes: Collection[IndexKey], item: Mapping[str, AttributeValue]
) -> None:
    """The same for an item as an update leaves it.

    Raises:
        ValidationError: With the service's text.
    """
    for _, value, fault in _faults(indexes, item):
        match fault:
            case "type":
                raise ValidationError(
                    f"{_UPDATED} update the secondary index key to unsupported type"
                )
            case "empty":
                raise ValidationError(
                    f"{_NOT_VALID}{_UPDATED} update a secondary index key to a value that is not "
                    f"supported. {_EMPTY} {_spoken(value)} value."
                )
            case "long":
                raise ValidationError(
                    f"{_UPDATED} update the secondary index key beyond allowed size limits"
                )


def _faults(
    indexes: Collection[IndexKey], item: Mapping[str, AttributeValue]
) -> Iterator[tuple[IndexKey, AttributeValue, Literal["type", "empty", "long"]]]:
    """What of an item cannot be in its indexes, in the order of these: index, value, and what is wrong with it."""
    for index in indexes:
        value = item.get(index.sort_name)
        if value is None:
            continue
        if index.sort_type not in value:
            yield index, value, "type"
            continue
        size = _size(value)
        if size == 0:
            yield index, value, "empty"
        elif size > SORT_KEY_SIZE_BYTES_MAX:
            yield index, value, "long"


def type_mismatch(index: IndexKey, actual: str) -> ValidationError:
    """The error for a value of another type than an index's key has."""
    return ValidationError(
        f"{_INVALID}Type mismatch for Index Key {index.sort_name} Expected: {index.sort_type} "
        f"Actual: {actual} IndexName: {index.name}"
    )


def _size(value: AttributeValue) -> int:
    """Size in bytes of a key's value; 1 for a number, which is neither empty nor too long."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content) if content.isascii() else len(content.encode())
    return len(binary(value)) if kind == "B" else 1


def _spoken(value: AttributeValue) -> str:
    return "string" if "S" in value else "binary"
