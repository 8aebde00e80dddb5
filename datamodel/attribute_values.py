"""Attribute values: the ten types of DynamoDB, their checks, equality, order and size.

An attribute value is a dict with one member, as in the service's JSON: `{"S": "x"}`, `{"N": "12"}`,
`{"B": "<base64>"}`, `{"M": {...}}`, `{"L": [...]}`, `{"SS": [...]}`, `{"NS": [...]}`, `{"BS": [...]}`,
`{"BOOL": True}`, `{"NULL": True}`. It is *normal* when its numbers are in normal form (`numbers.py`) and its
base64 is canonical; everything but `normalise_value` expects normal values.

What a client sent goes through `normalise_value` once, on the way in. It finds two kinds of fault: a member of
the wrong JSON type (`SerializationError`), which the service looks for in a whole request first, and a broken
rule (`ValidationError`). Nesting is bounded by `NESTING_DEPTH_MAX`, so recursion here is too.

Sources: DynamoDB developer guide, "Data types" and "Item sizes"; texts as observed on the service.
"""

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, TypeAlias

from datamodel.errors import SerializationError, ValidationError
from datamodel.limits import ATTRIBUTE_NAME_SIZE_BYTES_MAX, NESTING_DEPTH_MAX
from datamodel.numbers import normalise_number, number_size, to_decimal

AttributeValue: TypeAlias = dict[str, Any]

TYPES: Final = frozenset(("S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"))
SET_TYPES: Final = frozenset(("SS", "NS", "BS"))

EMPTY_VALUE = (
    "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
)
SEVERAL_TYPES = (
    "Supplied AttributeValue has more than one datatypes set, "
    "must contain exactly one of the supported datatypes"
)
TOO_DEEP = (
    "Nesting Levels have exceeded supported limits: "
    "Attributes in the item have nested levels beyond supported limit"
)
EMPTY_NAME = "Empty attribute name"
_INVALID = "One or more parameter values were invalid: "

_MAP_NOT_EXPECTED = "Start of structure or map found where not expected"
_FIELD_TYPE = "Unexpected field type"
_VALUE_TYPE = "Unexpected value type in payload"
_COLLECTION = "Unrecognized collection type "
_ATTRIBUTE_VALUE_CLASS = "com.amazonaws.dynamodb.v20120810.AttributeValue"

# The service reads these words, in any case, where it expects a JSON boolean.
_BOOLEAN_WORDS: Final = {
    "TRUE": True,
    "1": True,
    "YES": True,
    "FALSE": False,
    "0": False,
    "NO": False,
}

_find_foreign_to_base64 = re.compile("[^A-Za-z0-9+/=]").search

# Last characters before the padding whose unused bits are zero.
_LAST_BEFORE_ONE_PAD: Final = frozenset("AEIMQUYcgkosw048")
_LAST_BEFORE_TWO_PADS: Final = frozenset("AQgw")


def normalise_value(raw: object, depth: int = 1) -> tuple[AttributeValue, int]:
    """Check what a client sent as an attribute value.

    Members that are unknown or null are ignored, as the service does.

    Args:
        raw: Decoded JSON.
        depth: Level of the value, 1 at the top of an item.

    Returns:
        The normal value (`raw` itself where it was normal already) and its size in bytes.

    Raises:
        SerializationError: A member has the wrong JSON type.
        ValidationError: A rule for values is broken.
    """
    if type(raw) is not dict:
        raise _not_a_value(raw)
    if len(raw) != 1:
        return _normalise_members(raw, depth)
    ((kind, content),) = raw.items()
    # The most frequent types first; text that is ASCII, as most is, has as many bytes as characters.
    if kind == "S":
        if type(content) is str:
            if content.isascii():
                return raw, len(content)
            return raw, len(content.encode())
    elif kind == "N":
        if type(content) is str:
            number = normalise_number(content)
            return (raw if number is content else {"N": number}), number_size(number)
    elif kind == "M":
        return _normalise_map(raw, content, depth)
    elif kind == "L":
        return _normalise_list(raw, content, depth)
    elif kind == "BOOL":
        if type(content) is bool:
            return raw, 1
    elif kind == "B":
        return raw, _check_base64(content)
    return _normalise_other(raw, kind, content)


def _normalise_other(raw: AttributeValue, kind: str, content: object) -> tuple[AttributeValue, int]:
    """The rarer types, and what is no value at all."""
    if kind not in TYPES or content is None:
        raise ValidationError(EMPTY_VALUE)
    if kind == "SS":
        size = _check_string_set(content)
        return _with_members_in_order(raw, kind, content), size
    if kind == "NS":
        return _normalise_number_set(raw, content)
    if kind == "BS":
        size = _check_binary_set(content)
        return _with_members_in_order(raw, kind, content), size
    if kind == "NULL":
        if not read_boolean(content):
            raise ValidationError(
                _INVALID + "Null attribute value types must have the value of true"
            )
        return (raw if content is True else {"NULL": True}), 1
    if kind == "BOOL":
        return {"BOOL": read_boolean(content)}, 1
    raise _not_a_string(content)


def _normalise_members(raw: dict[Any, Any], depth: int) -> tuple[AttributeValue, int]:
    """A value with none or several members: fine when exactly one of them counts."""
    members = {
        kind: content for kind, content in raw.items() if kind in TYPES and content is not None
    }
    if not members:
        raise ValidationError(EMPTY_VALUE)
    if len(members) == 1:
        return normalise_value(members, depth)
    # The service names a fault of a single member before it minds that there are several.
    for kind, content in members.items():
        normalise_value({kind: content}, depth)
    raise ValidationError(SEVERAL_TYPES)


def _normalise_map(raw: AttributeValue, content: object, depth: int) -> tuple[AttributeValue, int]:
    if type(content) is not dict:
        if content is None:
            raise ValidationError(EMPTY_VALUE)
        raise json_map_error(content)
    if content and depth >= NESTING_DEPTH_MAX:
        raise ValidationError(TOO_DEEP)
    size = 3 + len(content)
    replaced: dict[str, AttributeValue] | None = None
    depth += 1
    for name, member in content.items():
        value, value_bytes = normalise_value(member, depth)
        size += value_bytes + (len(name) if name.isascii() else len(name.encode()))
        if value is not member:
            if replaced is None:
                replaced = dict(content)
            replaced[name] = value
    if size > ATTRIBUTE_NAME_SIZE_BYTES_MAX:
        check_name_sizes(content)
    if "" in content:
        raise ValidationError(EMPTY_NAME)
    return (raw if replaced is None else {"M": replaced}), size


def check_name_sizes(names: Iterable[str]) -> None:
    """For names of attributes that are not keys, and of what is in maps.

    Raises:
        ValidationError: One is longer than 65,535 bytes.
    """
    for name in names:
        # No character is more than 4 bytes.
        if (
            len(name) * 4 > ATTRIBUTE_NAME_SIZE_BYTES_MAX
            and len(name.encode()) > ATTRIBUTE_NAME_SIZE_BYTES_MAX
        ):
            text = (
                "Attribute name is too large, "
                f"must be less than {ATTRIBUTE_NAME_SIZE_BYTES_MAX + 1} bytes"
            )
            raise ValidationError(_INVALID + text, newer=text)


def _normalise_list(raw: AttributeValue, content: object, depth: int) -> tuple[AttributeValue, int]:
    if type(content) is not list:
        if content is None:
            raise ValidationError(EMPTY_VALUE)
        raise _not_a_list(content)
    if content and depth >= NESTING_DEPTH_MAX:
        raise ValidationError(TOO_DEEP)
    size = 3 + len(content)
    replaced: list[AttributeValue] | None = None
    depth += 1
    for index, member in enumerate(content):
        value, value_bytes = normalise_value(member, depth)
        size += value_bytes
        if value is not member:
            if replaced is None:
                replaced = content.copy()
            replaced[index] = value
    return (raw if replaced is None else {"L": replaced}), size


def in_order(kind: str, members: Iterable[str]) -> list[str]:
    """Members of a set as the service returns them: strings and binaries by bytes, numbers by value.

    Args:
        kind: SS, NS or BS.
        members: Normal, each once.
    """
    if kind == "SS":
        return sorted(members)  # by code points, which is the order of their UTF-8
    return sorted(members, key=to_decimal if kind == "NS" else a2b_base64)


def _with_members_in_order(raw: AttributeValue, kind: str, content: Any) -> AttributeValue:
    ordered = in_order(kind, content)
    return raw if ordered == content else {kind: ordered}


def _check_string_set(content: object) -> int:
    if type(content) is not list:
        raise _not_a_list(content)
    if not content:
        raise ValidationError(_INVALID + "An string set  may not be empty")
    size = 0
    for member in content:
        if type(member) is not str:
            if member is None:
                raise ValidationError(
                    _INVALID + "An string set may not have a null string as a member"
                )
            raise _not_a_string(member)
        size += len(member) if member.isascii() else len(member.encode())
    if len(set(content)) != len(content):
        quoted = ", ".join(f'"{member}"' for member in _up_to_repeat_in_order("SS", content))
        raise ValidationError(
            f"{_INVALID}Input collection [{', '.join(content)}] contains duplicates.",
            newer=f"{_INVALID}Input collection [{quoted}] contains duplicates.",
        )
    return size


def _normalise_number_set(raw: AttributeValue, content: object) -> tuple[AttributeValue, int]:
    if type(content) is not list:
        raise _not_a_list(content)
    if not content:
        raise ValidationError(_INVALID + "An number set  may not be empty")
    size = 0
    numbers = []
    for member in content:
        if type(member) is not str:
            if member is None:
                raise ValidationError(EMPTY_VALUE)
            raise _not_a_string(member)
        number = normalise_number(member)
        size += number_size(number)
        numbers.append(number)
    if len(set(numbers)) != len(numbers):
        raise ValidationError(
            "Input collection contains duplicates",
            newer=f"{_INVALID}Input collection contains duplicates.",
        )
    numbers.sort(key=to_decimal)
    return (raw if numbers == content else {"NS": numbers}), size


def _check_binary_set(content: object) -> int:
    if type(content) is not list:
        raise _not_a_list(content)
    if not content:
        raise ValidationError(_INVALID + "Binary sets should not be empty")
    size = 0
    for member in content:
        if member is None:
            raise ValidationError(_INVALID + "Binary sets may not contain null or empty values")
        size += _check_base64(member)
    if len(set(content)) != len(content):
        quoted = ",".join(f'"{member}"' for member in _up_to_repeat_in_order("BS", content))
        raise ValidationError(
            f"{_INVALID}Input collection [{', '.join(content)}]of type BS contains duplicates.",
            newer=f"{_INVALID}Input collection [{quoted}]of type BS contains duplicates.",
        )
    return size


def _up_to_repeat_in_order(kind: str, members: list[str]) -> list[str]:
    """As the newer texts show a set: in order up to the first member that comes again, the rest as it was sent."""
    seen: set[str] = set()
    for position, member in enumerate(members):
        if member in seen:
            return in_order(kind, members[:position]) + members[position:]
        seen.add(member)
    return members


def _check_base64(content: object) -> int:
    """The number of bytes that canonical base64 stands for."""
    if type(content) is not str:
        if content is None:
            raise ValidationError(EMPTY_VALUE)
        raise _not_base64_text(content)
    length = len(content)
    if length & 3:
        raise SerializationError(
            f"Base64 encoded length is expected a multiple of 4 bytes but found: {length}"
        )
    try:
        size = len(a2b_base64(content, strict_mode=True))
    except (Base64Error, ValueError):
        raise _bad_base64(content) from None
    pads = length // 4 * 3 - size
    if (pads == 1 and content[-2] not in _LAST_BEFORE_ONE_PAD) or (
        pads == 2 and content[-3] not in _LAST_BEFORE_TWO_PADS
    ):
        raise SerializationError("Invalid last non-pad Base64 character dectected")
    return size


def _bad_base64(content: str) -> SerializationError:
    foreign = _find_foreign_to_base64(content)
    if foreign is not None:
        return SerializationError(f"Invalid Base64 character: '{foreign[0]}'")
    return SerializationError("Invalid last non-pad Base64 character dectected")


# --- wrong JSON types --------------------------------------------------------------------------------------


def check_json_types(raw: object) -> None:
    """Look for the first member of the wrong JSON type in an attribute value, ignoring every other rule.

    Bounded for any nesting: it does not recurse.

    Raises:
        SerializationError: With the service's text.
    """
    # Children are pushed in reverse, so that faults are met in the order in which they were sent.
    pending: list[object] = [raw]
    while pending:
        value = pending.pop()
        if value is None:
            continue
        if type(value) is not dict:
            raise _not_a_value(value)
        children: list[object] = []
        for kind, content in value.items():
            if content is not None:
                children.extend(_check_member(kind, content))
        pending.extend(reversed(children))


def _check_member(kind: Any, content: object) -> Sequence[object]:
    """Check the JSON type of one member; returns the attribute values inside it."""
    if kind in ("S", "N"):
        if type(content) is not str:
            raise _not_a_string(content)
    elif kind == "B":
        _check_base64(content)
    elif kind in ("BOOL", "NULL"):
        read_boolean(content)
    elif kind == "M":
        if type(content) is not dict:
            raise json_map_error(content)
        return list(content.values())
    elif kind in ("L", "SS", "NS", "BS"):
        if type(content) is not list:
            raise _not_a_list(content)
        if kind == "L":
            return content
        for member in content:
            if member is not None:
                _check_member("B" if kind == "BS" else "S", member)
    return ()


def _token(content: object) -> str:
    if content is True:
        return "TRUE_VALUE"
    if content is False:
        return "FALSE_VALUE"
    return "DECIMAL_VALUE" if type(content) is float else "NUMBER_VALUE"


def _not_a(java_class: str, content: object, otherwise: str) -> SerializationError:
    """For a map, a list, or anything else where one of Java's types is expected."""
    if type(content) is dict:
        return SerializationError(_MAP_NOT_EXPECTED)
    if type(content) is list:
        return SerializationError(f"{_COLLECTION}class {java_class}")
    return SerializationError(otherwise)


def _not_a_string(content: object) -> SerializationError:
    return _not_a("java.lang.String", content, _token(content) + " cannot be converted to String")


def read_boolean(content: object) -> bool:
    """What the service reads where it expects a boolean: JSON's own, and some words for them.

    Raises:
        SerializationError: Neither.
    """
    if type(content) is bool:
        return content
    if type(content) is str:
        word = _BOOLEAN_WORDS.get(content.upper())
        if word is None:
            raise SerializationError("Unexpected token received from parser")
        return word
    raise _not_a("java.lang.Boolean", content, _token(content) + " cannot be converted to Boolean")


def _not_base64_text(content: object) -> SerializationError:
    return _not_a(
        "java.nio.ByteBuffer", content, "only base-64-encoded strings are convertible to bytes"
    )


def _not_a_list(content: object) -> SerializationError:
    return SerializationError(_MAP_NOT_EXPECTED if type(content) is dict else _FIELD_TYPE)


def json_map_error(content: object) -> SerializationError:
    """The error for JSON that is no map of attribute values where one is expected."""
    if type(content) is list:
        return SerializationError(
            f"{_COLLECTION}java.util.Map<java.lang.String, {_ATTRIBUTE_VALUE_CLASS}>"
        )
    return SerializationError(_FIELD_TYPE)


def _not_a_value(content: object) -> SerializationError | ValidationError:
    if content is None:
        return ValidationError(EMPTY_VALUE)
    if type(content) is list:
        return SerializationError(f"{_COLLECTION}class {_ATTRIBUTE_VALUE_CLASS}")
    return SerializationError(_VALUE_TYPE)


# --- normal values -----------------------------------------------------------------------------------------


def type_of(value: AttributeValue) -> str:
    """The type of a normal value: its one member's name."""
    return next(iter(value))


def binary(value: AttributeValue) -> bytes:
    """The bytes of a normal B value."""
    return a2b_base64(value["B"])


def equal(a: AttributeValue, b: AttributeValue) -> bool:
    """Whether two normal values are equal: same type, numbers by value, sets as sets, at every level."""
    if a == b:
        return True
    ((kind, left),) = a.items()
    # Only a set, somewhere, can be equal without being written the same.
    if kind not in ("L", "M") and kind not in SET_TYPES:
        return False
    return _equal_inside(kind, left, b)


def _equal_inside(kind: str, left: Any, b: AttributeValue) -> bool:
    """Whether a value of this type and content equals `b`. Each part is looked at once."""
    right = b.get(kind)
    if right is None:
        return False
    if kind == "L":
        if len(left) != len(right):
            return False
        for element, other in zip(left, right, strict=True):
            ((inner, content),) = element.items()
            if not _equal_inside(inner, content, other):
                return False
        return True
    if kind == "M":
        if left.keys() != right.keys():
            return False
        for name, member in left.items():
            ((inner, content),) = member.items()
            if not _equal_inside(inner, content, right[name]):
                return False
        return True
    if kind in SET_TYPES:
        return len(left) == len(right) and set(left) == set(right)
    return bool(left == right)


def compare(a: AttributeValue, b: AttributeValue) -> int | None:
    """Order of two normal values: negative, zero or positive as `a` is less, equal or greater.

    Strings and binaries are ordered by their (UTF-8) bytes, numbers by value.

    Returns:
        None when they are not comparable: different types, or neither S, N nor B.
    """
    ((kind, left),) = a.items()
    right = b.get(kind)
    if right is None:
        return None
    if kind == "S":
        # Code points order as their UTF-8 bytes do.
        pass
    elif kind == "N":
        if left == right:
            return 0
        left, right = Decimal(left), Decimal(right)
    elif kind == "B":
        left, right = a2b_base64(left), a2b_base64(right)
    else:
        return None
    return -1 if left < right else int(left > right)


def value_size(value: AttributeValue) -> int:
    """Bytes that a normal value counts for in its item's size."""
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content) if content.isascii() else len(content.encode())
    if kind == "N":
        return number_size(content)
    if kind == "B":
        return _base64_size(content)
    if kind == "M":
        size = 3 + len(content)
        for name, member in content.items():
            size += value_size(member) + (len(name) if name.isascii() else len(name.encode()))
        return size
    if kind == "L":
        return 3 + len(content) + sum(map(value_size, content))
    if kind == "SS":
        return sum(len(member.encode()) for member in content)
    if kind == "NS":
        return sum(map(number_size, content))
    if kind == "BS":
        return sum(map(_base64_size, content))
    return 1


def check_nesting(value: AttributeValue) -> None:
    """Check a value that was put together from normal ones (an update does that), however deep it is.

    Raises:
        ValidationError: More than `NESTING_DEPTH_MAX` levels.
    """
    level: list[AttributeValue] = [value]
    for _ in range(NESTING_DEPTH_MAX):
        below: list[AttributeValue] = []
        for member in level:
            if "M" in member:
                below.extend(member["M"].values())
            elif "L" in member:
                below.extend(member["L"])
        if not below:
            return
        level = below
    raise ValidationError(TOO_DEEP)


def _base64_size(text: str) -> int:
    return len(text) // 4 * 3 - text.count("=", -2)
