"""ExpressionAttributeNames and ExpressionAttributeValues: when they may be given, and what must be in them.

The service's order: `check_placeholders_allowed`, `read_placeholders`, each expression (parse, then its
values), and last `check_placeholders`.

Source: order and texts as observed on the service by the authors of dynalite and of ExtendDB; limits of size as
its own client for DAX has them.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from datamodel.attribute_values import AttributeValue, check_name_sizes
from datamodel.errors import ValidationError
from datamodel.items import normalise_values
from datamodel.limits import (
    EXPRESSION_PLACEHOLDER_SIZE_BYTES_MAX,
    EXPRESSION_PLACEHOLDERS_SIZE_BYTES_MAX,
)

_is_name_key = re.compile(r"#[A-Za-z0-9_]+", re.ASCII).fullmatch
_is_value_key = re.compile(r":[A-Za-z0-9_]+", re.ASCII).fullmatch

_NAMES: Final = "ExpressionAttributeNames"
_VALUES: Final = "ExpressionAttributeValues"


def check_placeholders_allowed(
    names: Mapping[str, str] | None,
    values: Mapping[str, Any] | None,
    expressions: Mapping[str, str | None],
) -> None:
    """Check that placeholders come with an expression that could use them.

    Args:
        names: `ExpressionAttributeNames`, None if not in the request.
        values: `ExpressionAttributeValues`, None if not in the request.
        expressions: The operation's expression members in the service's order (UpdateExpression before
            ConditionExpression, FilterExpression before KeyConditionExpression), None for those not given.

    Raises:
        ValidationError: They do not.
    """
    if names is not None and all(text is None for text in expressions.values()):
        raise ValidationError(f"{_NAMES} can only be specified when using expressions")
    if values is not None:
        users = [member for member in expressions if member != "ProjectionExpression"]
        if users and all(expressions[member] is None for member in users):
            text = f"{_VALUES} can only be specified when using expressions"
            verb = "are" if len(users) > 1 else "is"
            raise ValidationError(
                f"{text}: {' and '.join(users)} {verb} null",
                newer=text if "ConditionExpression" in users else None,
            )


def read_placeholders(
    names: Mapping[str, str] | None, values: Mapping[str, Any] | None
) -> dict[str, AttributeValue]:
    """Check both maps by themselves: neither empty nor too large, their keys placeholders, their values sound.

    Returns:
        The normal values by placeholder; empty if there are none.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    size = 0
    if names is not None:
        _check_keys(_NAMES, names, _is_name_key, "; size of key: {}")
        for alias, name in names.items():
            if not name:
                raise ValidationError(
                    f"{_NAMES} contains invalid value: Empty attribute name for key {alias}"
                )
        check_name_sizes(names.values())
        size = sum(len(alias) + len(name.encode()) for alias, name in names.items())
        _check_size(size, f"{_NAMES} exceeds max size")
    if values is None:
        return {}
    _check_keys(_VALUES, values, _is_value_key, ";")
    normal, values_size = normalise_values(values)
    values_size += sum(map(len, values))
    _check_size(values_size, f"{_VALUES} exceeds max size")
    _check_size(size + values_size, f"Combined size of {_NAMES} and {_VALUES} exceeds max size")
    return normal


def _check_size(size: int, text: str) -> None:
    if size > EXPRESSION_PLACEHOLDERS_SIZE_BYTES_MAX:
        raise ValidationError(text)


def _check_keys(member: str, placeholders: Mapping[str, Any], is_key: Any, ending: str) -> None:
    if not placeholders:
        raise ValidationError(f"{member} must not be empty")
    for key in placeholders:
        size = len(key) if key.isascii() else len(key.encode())
        if size > EXPRESSION_PLACEHOLDER_SIZE_BYTES_MAX:
            raise ValidationError(
                f"{member} contains invalid key: The expression attribute map contains a key that "
                f"is too long{ending.format(size)}"
            )
        if not is_key(key):
            raise ValidationError(f'{member} contains invalid key: Syntax error; key: "{key}"')


def check_placeholders(
    names: Mapping[str, str] | None,
    values: Mapping[str, Any] | None,
    names_used: Collection[str],
    values_used: Collection[str],
) -> None:
    """Check that the request's expressions use every placeholder.

    Args:
        names: `ExpressionAttributeNames`, None if not in the request.
        values: `ExpressionAttributeValues`, None if not in the request.
        names_used: `names_used` of all the request's expressions together.
        values_used: `values_used` of all the request's expressions together.

    Raises:
        ValidationError: Some are unused; unused names are reported before unused values.
    """
    if names and len(names) != len(names_used):
        _check_unused(_NAMES, names, names_used)
    if values and len(values) != len(values_used):
        _check_unused(_VALUES, values, values_used)


def _check_unused(member: str, given: Mapping[str, Any], used: Collection[str]) -> None:
    unused = [key for key in given if key not in used]
    if unused:
        raise ValidationError(
            f"Value provided in {member} unused in expressions: keys: {{{', '.join(unused)}}}"
        )


def check_scalar_keys(
    nested_attributes: Collection[str], key_names: Collection[str], what: str = "Key"
) -> None:
    """Check that an expression looks into no key attribute, which is never a map or list.

    Args:
        nested_attributes: `nested_attributes` of the expression.
        key_names: Key attributes of the table, or of its indexes.
        what: `Key` for those of the table, `IndexKey` for those of an index.

    Raises:
        ValidationError: It does.
    """
    for name in nested_attributes:
        if name in key_names:
            raise ValidationError(
                "Key attributes must be scalars; list random access '[]' and map lookup '.' "
                f"are not allowed: {what}: {name}"
            )
