"""Requests: from the bytes of a body to a checked, typed value, or to the service's own error.

`decode_request` is quick on requests that are right and exact on those that are wrong: a typed decode accepts
the common ones, and only what it refuses is walked along the service model to find out what the service says.

Attribute values inside a request are not checked here (`datamodel.items` does); when such a check fails, call
`explain_request` first, because a wrong JSON type anywhere in the body comes before every other complaint.
"""

import importlib.resources
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from datamodel.errors import SerializationError, UnknownOperationError, ValidationError
from datamodel.requests import REQUEST_TYPES, Shape
from datamodel.shape_checks import (
    check_table_name,
    constraint_failures,
    convert_types,
    failures_message,
    is_arn,
    table_name_is_plain,
)
from datamodel.shape_rules import (
    BATCH_OPERATIONS,
    ITEM_OPERATIONS,
    NEWER_ENUMS,
    STATEMENT_OPERATIONS,
    TABLE_NAME_LENGTH_MAX,
    TABLE_NAME_LENGTH_MIN,
    enforced_shapes,
)
from datamodel.wording import ENVELOPE, OLDER, Wording, is_for_older_layer

_MODEL: Final[dict[str, Any]] = json.loads(
    importlib.resources.files("datamodel").joinpath("service_model.json").read_bytes()
)
_SHAPES: Final[dict[str, Any]] = enforced_shapes(_MODEL["shapes"])

# Every operation of the service, by the name that X-Amz-Target carries.
OPERATIONS: Final = frozenset(_MODEL["operations"])
# Those that `decode_request` accepts; the others are known to the service but not implemented.
IMPLEMENTED_OPERATIONS: Final = frozenset(REQUEST_TYPES)

_DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    operation: msgspec.json.Decoder(REQUEST_TYPES[operation]).decode
    for operation in ITEM_OPERATIONS | BATCH_OPERATIONS | STATEMENT_OPERATIONS
}

_MAP_KEYS: Final = "failed to satisfy constraint: Map keys must"

# Names that were found right before, so that the pattern is not tried on every request. A request that names
# a table that does not exist can put a name here as well: when the set is full it starts anew.
_KNOWN_NAMES_MAX: Final = 10_000
_known_names: set[str] = set()


def decode_request(operation: str, body: bytes, wording: Wording = OLDER) -> Shape:
    """The request in a body: an instance of `REQUEST_TYPES[operation]`.

    Members that the operation does not have are ignored, null members count as absent. Any bytes whatever are
    safe to pass. `wording` is the operation's, for what is wrong.

    Raises:
        UnknownOperationError: The operation is not implemented.
        SerializationError: The body is not a JSON object (then without message), or a member has the wrong
            JSON type.
        ValidationError: Members break their constraints; the message lists up to ten.
    """
    decode = _DECODERS.get(operation)
    if decode is not None:
        try:
            request: Shape = decode(body)
        except (ValueError, RecursionError):
            pass  # found out below; also what the typed decode is too strict for, such as 1.0 for an integer
        else:
            if operation in BATCH_OPERATIONS:
                names: Iterable[str] = request.RequestItems  # type: ignore[attr-defined]
            elif operation in STATEMENT_OPERATIONS:
                names = ()
            else:
                names = (request.TableName,)  # type: ignore[attr-defined]
            if all(name in _known_names or _remember(name) for name in names):
                return request
    _members, request = _decode_slowly(operation, body, wording)
    return request


def explain_request(operation: str, body: bytes, wording: Wording = OLDER) -> Wording:
    """Raise what the service finds wrong with a body before it looks at values; return if there is nothing.

    For use when a later check fails on a request that `decode_request` accepted: of several mistakes the
    service names those found here first, wrong JSON types inside attribute values among them.

    Returns:
        How to word what was found later: as `wording` has it, unless the older layer answers this request.
    """
    members, _request = _decode_slowly(operation, body, wording)
    return OLDER if wording.envelope and is_for_older_layer(operation, members) else wording


def _remember(name: str) -> bool:
    """Whether a table name is right; if so, the next request need not ask."""
    if len(name) < TABLE_NAME_LENGTH_MIN or not table_name_is_plain(name):
        return is_arn(name)
    if len(_known_names) >= _KNOWN_NAMES_MAX:
        _known_names.clear()
    _known_names.add(name)
    return True


def _decode_slowly(operation: str, body: bytes, wording: Wording) -> tuple[dict[str, Any], Shape]:
    """The request's members, and the same as its type."""
    request_type = REQUEST_TYPES.get(operation)
    if request_type is None:
        raise UnknownOperationError
    shape = _MODEL["operations"][operation]["input"]
    try:
        raw = msgspec.json.decode(body)
        if not isinstance(raw, dict):
            raise SerializationError
        members = convert_types(_SHAPES, shape, raw)
    except (ValueError, RecursionError) as error:
        raise SerializationError from error
    _check_first(operation, members)
    if wording.envelope and is_for_older_layer(operation, members):
        wording = OLDER
    if wording.members:
        _check_alone(operation, members, wording)
    failures = constraint_failures(
        _SHAPES,
        shape,
        members,
        names_a_new_table=operation == "CreateTable",
        wording=wording,
    )
    if failures:
        if operation == "BatchWriteItem":
            # Beside an unknown enum value the older layer says nothing of tables' names.
            others = [failure for failure in failures if _MAP_KEYS not in failure]
            failures = others or failures
        raise ValidationError(failures_message(failures))
    if operation in ITEM_OPERATIONS and not wording.members:
        check_table_name(members["TableName"])
    try:
        return members, msgspec.convert(members, request_type, strict=False)
    except msgspec.ValidationError as error:
        # The types are generated from the same model as the checks above, so this is our mistake; the
        # client still gets an answer that it can act on.
        raise ValidationError(str(error)) from error


def _check_alone(operation: str, members: dict[str, Any], wording: Wording) -> None:
    """What the newer layer complains of by itself, whatever else is wrong."""
    if members.get("TableName") == "":
        rule = "Member must have length greater than or equal to 1"
        raise ValidationError(
            f"{ENVELOPE}Value at 'TableName' failed to satisfy constraint: {rule}"
        )
    if operation == "BatchGetItem" and members.get("RequestItems") == {}:
        rule = "Member must have length greater than or equal to 1"
        raise ValidationError(
            f"{ENVELOPE}Value at 'RequestItems' failed to satisfy constraint: {rule}"
        )
    for member in wording.alone:
        kind = _SHAPES[_MODEL["operations"][operation]["input"]]["members"][member]
        chosen = members.get(member)
        if chosen is not None and chosen not in _SHAPES[kind]["enum"]:
            raise ValidationError(
                f"{ENVELOPE if wording.envelope else ''}Failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(NEWER_ENUMS[kind])}]"
            )


def _check_first(operation: str, members: dict[str, Any]) -> None:
    """What control-plane operations complain of on its own, before they list broken constraints."""
    if operation in ("TagResource", "UntagResource", "ListTagsOfResource"):
        if not members.get("ResourceArn"):
            raise ValidationError("Invalid TableArn")
        return
    if operation not in ("CreateTable", "DescribeTable", "DeleteTable", "UpdateTable"):
        return
    name = members.get("TableName")
    if name is None:
        raise ValidationError(
            "The parameter 'TableName' is required but was not present in the request"
        )
    if operation == "CreateTable":
        failures = constraint_failures(
            _SHAPES, "DescribeTableInput", {"TableName": name}, names_a_new_table=True
        )
        if failures:
            raise ValidationError(failures_message(failures))
    elif not is_arn(name) and not TABLE_NAME_LENGTH_MIN <= len(name) <= TABLE_NAME_LENGTH_MAX:
        raise ValidationError(
            f"TableName must be at least {TABLE_NAME_LENGTH_MIN} characters long "
            f"and at most {TABLE_NAME_LENGTH_MAX} characters long"
        )
