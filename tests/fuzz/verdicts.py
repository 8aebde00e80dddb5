"""What an answer may look like, whatever the request was; anything else is a finding."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from botocore.model import OperationModel

from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from tests.conformance.transports import Outcome
from tests.fuzz.corpus import service_models

# What every operation may answer besides the errors in its model: the API's common errors, and what the service
# says of JSON that it cannot read.
_ALWAYS: Final = frozenset(
    ("ValidationException", "SerializationException", "AccessDeniedException")
)
_NOT_SERVED: Final = frozenset(("UnknownOperationException", "SerializationException"))
# Never right on a healthy cluster with one client, though the models list them.
_NEVER: Final = frozenset(
    (
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
    )
)
_BATCH_CODES_NEVER: Final = frozenset(
    (
        "InternalServerError",
        "ThrottlingError",
        "RequestLimitExceeded",
        "ProvisionedThroughputExceeded",
    )
)
# The inside of a program, where only words for its user belong.
_INNARDS: Final = re.compile(
    r"Traceback \(most|File \"[^\"]+\", line|object at 0x|msgspec|Expected `|NoneType|<class '|positional argument"
    r"|\b(?:Key|Attribute|Type|Index|Assertion|Recursion|Unicode\w+|Runtime)Error\b"
)


def complaint(operation: str, outcome: Outcome) -> str:
    """What is wrong with an answer; empty if nothing is."""
    if outcome.malformed:
        return outcome.malformed
    if outcome.code:
        return _complaint_of_error(operation, outcome)
    if operation not in IMPLEMENTED_OPERATIONS:
        return "a success of what is not implemented"
    shape = _model(operation).output_shape
    allowed = set(shape.members) if shape is not None else set()
    if foreign := set(outcome.members) - allowed:
        return f"members that the model does not have: {sorted(foreign)}"
    if outcome.members.get("UnprocessedItems"):
        return "items unprocessed although all is well"
    for response in outcome.members.get("Responses") or () if "Batch" in operation else ():
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if code is not None and (code in _BATCH_CODES_NEVER or code not in _batch_codes()):
            return f"a statement answers {code}"
    return ""


def _complaint_of_error(operation: str, outcome: Outcome) -> str:
    code = outcome.code
    if operation not in IMPLEMENTED_OPERATIONS:
        return "" if code in _NOT_SERVED else f"{code} from what is not implemented"
    allowed = _ALWAYS | _errors(operation)
    if code in _NEVER or code not in allowed:
        return f"{operation} has no {code} to answer"
    if code != "SerializationException" and not outcome.message:
        return f"{code} without a message"
    if found := _INNARDS.search(outcome.message):
        return f"the message tells of the program: {found[0]!r}"
    return ""


@cache
def _model(operation: str) -> OperationModel:
    return next(
        model.operation_model(operation)
        for model in service_models()
        if operation in model.operation_names
    )


@cache
def _errors(operation: str) -> frozenset[str]:
    return frozenset(shape.name for shape in _model(operation).error_shapes)


@cache
def _batch_codes() -> frozenset[str]:
    return frozenset(service_models()[0].shape_for("BatchStatementErrorCodeEnum").enum)


def comparable(outcome: Outcome, same: Mapping[str, str]) -> Any:
    """An outcome without what differs between two equal sets of tables.

    Args:
        outcome: Of the second set, or of the first.
        same: What in the second set is the same as what in the first: names, tokens.
    """
    members = _plain(outcome.members, same)
    return (outcome.code, _plain(outcome.message, same), members) if outcome.code else members


def _plain(value: Any, same: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            _plain(name, same): _plain_member(name, member, same) for name, member in value.items()
        }
    if isinstance(value, list):
        return [_plain(member, same) for member in value]
    if isinstance(value, str):
        for text, replacement in same.items():
            value = value.replace(text, replacement)
    return value


def _plain_member(name: str, value: Any, same: Mapping[str, str]) -> Any:
    if name == "NextToken":
        return "<opaque>"
    if name == "ConsumedCapacity" and isinstance(value, list):
        # One for each table of a batch, whose names gRPC has in a map without order.
        value = sorted(value, key=str)
    return _plain(value, same)
