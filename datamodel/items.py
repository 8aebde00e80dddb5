"""Items: maps of attribute names to attribute values, their check on the way in, size and stored form.

An item's *body* is the JSON of the normal item, UTF-8, without insignificant space: what is stored is what a
GetItem answers with, so that a plain read never decodes it.
"""

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from datamodel.attribute_values import (
    EMPTY_NAME,
    AttributeValue,
    check_json_types,
    check_name_sizes,
    check_nesting,
    json_map_error,
    normalise_value,
    value_size,
)
from datamodel.errors import Corruption, ValidationError
from datamodel.limits import ATTRIBUTE_NAME_SIZE_BYTES_MAX, ITEM_SIZE_BYTES_MAX

Item: TypeAlias = dict[str, AttributeValue]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Item).decode


def normalise_item(raw: object) -> tuple[Item, int]:
    """Check what a client sent as an item, a key or another map of attribute values.

    Neither the item's size nor its key is checked here (`check_item_size`, `key_encoding`).

    Args:
        raw: Decoded JSON; it is not changed, and the result may share parts with it.

    Returns:
        The normal item (`raw` itself where it was normal already) and its size in bytes.

    Raises:
        SerializationError: Something in it has the wrong JSON type.
        ValidationError: A rule for values is broken.
    """
    if type(raw) is not dict:
        raise json_map_error(raw)
    size = 0
    replaced: Item | None = None
    try:
        if "" in raw:
            raise ValidationError(EMPTY_NAME)
        for name, member in raw.items():
            value, value_bytes = normalise_value(member)
            size += value_bytes + (len(name) if name.isascii() else len(name.encode()))
            if value is not member:
                if replaced is None:
                    replaced = dict(raw)
                replaced[name] = value
    except ValidationError as error:
        # The service reads the types of a whole request before it minds any other rule.
        for member in raw.values():
            check_json_types(member)
        if error.message == EMPTY_NAME and "" not in raw:
            _find_other_fault(raw)
        raise
    if size > ATTRIBUTE_NAME_SIZE_BYTES_MAX:
        check_name_sizes(raw)
    return (raw if replaced is None else replaced), size


def _find_other_fault(raw: Mapping[str, object]) -> None:
    """Of an empty name inside a map the service tells only when all values are fine otherwise."""
    for member in raw.values():
        try:
            normalise_value(member)
        except ValidationError as error:
            if error.message != EMPTY_NAME:
                raise


def normalise_values(raw: object) -> tuple[dict[str, AttributeValue], int]:
    """Check `ExpressionAttributeValues`; placeholders' names are not checked here.

    Returns:
        The normal values by placeholder, and their size in bytes (names not counted).

    Raises:
        SerializationError: Something in it has the wrong JSON type.
        ValidationError: A rule for values is broken; the text names the placeholder.
    """
    if type(raw) is not dict:
        raise json_map_error(raw)
    size = 0
    values: dict[str, AttributeValue] = {}
    for name, member in raw.items():
        try:
            values[name], value_bytes = normalise_value(member)
        except ValidationError as error:
            for other in raw.values():
                check_json_types(other)
            before, after = "ExpressionAttributeValues contains invalid value: ", f" for key {name}"
            raise ValidationError(
                f"{before}{error.message}{after}",
                newer=error.newest,
                as_java=error.as_java and f"{before}{error.as_java}{after}",
            ) from error
        size += value_bytes
    return values, size


def item_size(item: Mapping[str, AttributeValue]) -> int:
    """Bytes of a normal item by the service's rule: each attribute's name and value."""
    size = 0
    for name, value in item.items():
        size += value_size(value) + (len(name) if name.isascii() else len(name.encode()))
    return size


def check_item_size(size: int) -> None:
    """For items that a client puts.

    Raises:
        ValidationError: The item is larger than 400 KB.
    """
    if size > ITEM_SIZE_BYTES_MAX:
        raise ValidationError("Item size has exceeded the maximum allowed size")


def check_updated_item(item: Mapping[str, AttributeValue]) -> int:
    """For items as an update leaves them.

    Returns:
        The item's size in bytes.

    Raises:
        ValidationError: The item is larger than 400 KB or nested too deep.
    """
    for value in item.values():
        if "M" in value or "L" in value:
            check_nesting(value)
    size = item_size(item)
    if size > ITEM_SIZE_BYTES_MAX:
        raise ValidationError("Item size to update has exceeded the maximum allowed size")
    return size


def encode_item(item: Mapping[str, AttributeValue]) -> bytes:
    """The body of a normal item (or of any part of one)."""
    return _encode(item)


def decode_item(body: bytes) -> Item:
    """The item of a body that `encode_item` made, as plain dicts that are the caller's own.

    Raises:
        Corruption: The bytes are no item's body.
    """
    try:
        return _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corruption("item body", "JSON of an item", error) from error
