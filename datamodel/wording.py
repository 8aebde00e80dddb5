"""How the service words its complaints: operation by operation, as most regions did in the newest sweep on record.

Since June 2026 a newer validation layer is rolled out, region by region and operation by operation. What an
operation complains of is the same in both; here alone stands which layer words it. Faults are raised with the older
text, and with the newer one where it differs (`ValidationError.newer`); `worded` chooses. Member constraints are
worded where they are found (`shape_checks`), from the same table.

Source: paritysuite/dynamodb-conformance, sweeps of 33 regions up to 2026-10-09.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from datamodel.errors import DynamoDBError, ValidationError

ENVELOPE: Final = "1 validation error detected: "
OLDER_DEPTH: Final = 62
"""Values nested past about this many levels are the older layer's to complain of, whatever is wrong besides."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How one operation's faults are worded.

    Attributes:
        members: Member constraints in the newer form.
        values: Faults of values, and of what comes with them, in the newer form.
        envelope: What is wrong with a request by itself stands behind `ENVELOPE`.
        java_numbers: Numbers are read as Java's BigDecimal reads them.
        alone: Members whose unknown value is told alone, beside which no others are looked at.
    """

    members: bool = False
    values: bool = False
    envelope: bool = False
    java_numbers: bool = False
    alone: tuple[str, ...] = ()


OLDER: Final = Wording()
_WRITE: Final = Wording(members=True, values=True, envelope=True)
_READ: Final = Wording(members=True, values=True)

WORDINGS: Final[Mapping[str, Mapping[str, Wording]]] = {
    "2026": {
        "PutItem": _WRITE,
        "UpdateItem": Wording(members=True, values=True, envelope=True, alone=("ReturnValues",)),
        "DeleteItem": _WRITE,
        "GetItem": _READ,
        "BatchGetItem": _READ,
        "Query": Wording(members=True, values=True, alone=("ConditionalOperator",)),
        # The older one, in 28 of 33 regions and more; so all table operations.
        "BatchWriteItem": Wording(java_numbers=True),
        "Scan": Wording(java_numbers=True),
    },
    "2025": {},
}
"""By the year that `--validation-wording` names; operations that are not listed are worded as ever."""
NEWEST: Final = "2026"


def worded(error: DynamoDBError, wording: Wording, *, is_by_itself: bool) -> DynamoDBError:
    """The same fault in the operation's words.

    Args:
        error: As it was raised.
        wording: The operation's.
        is_by_itself: Whether it was found without looking at the table.
    """
    if not isinstance(error, ValidationError):
        return error
    message = error.message
    if wording.values and error.newer is not None:
        message = error.newer
    elif wording.java_numbers and error.as_java is not None:
        message = error.as_java
    if wording.envelope and is_by_itself and not message.startswith(ENVELOPE):
        message = ENVELOPE + message
    return error if message == error.message else ValidationError(message, error.extra)


def is_for_older_layer(operation: str, members: Mapping[str, Any]) -> bool:
    """Whether the older layer answers a request as a whole, of an operation that the newer one has.

    Args:
        operation: Its name.
        members: Of the request, with the types of their shapes.
    """
    if operation == "UpdateItem" and members.get("Key") is None:
        return True
    return operation in ("PutItem", "UpdateItem", "DeleteItem") and _is_deep(members)


def _is_deep(members: Mapping[str, Any]) -> bool:
    """Whether an attribute value in it nests past `OLDER_DEPTH` levels. Does not recurse."""
    pending: list[tuple[object, int]] = [(members, 0)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, dict):
            for kind, inner in value.items():
                is_nesting = kind in ("M", "L") and len(value) == 1
                if is_nesting and depth >= OLDER_DEPTH:
                    return True
                pending.append((inner, depth + is_nesting))
        elif isinstance(value, list):
            pending.extend((inner, depth) for inner in value)
    return False
