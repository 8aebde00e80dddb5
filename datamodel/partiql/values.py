"""Attribute values of literals and parameters.

Numbers in literals are faulted with the place inside the value (`root`, `root.x`, `root[1]`); in parameters
they are read as Java's BigDecimal reads text, whose exponent has 32 bits and whose range check can wrap around.

Source: texts as recorded on the service in public conformance suites.
"""

from collections.abc import Sequence
from typing import Final

from datamodel.attribute_values import TOO_DEEP, AttributeValue, normalise_value
from datamodel.errors import ValidationError
from datamodel.limits import NESTING_DEPTH_MAX
from datamodel.numbers import (
    NOT_A_NUMBER,
    OVERFLOW,
    TOO_MANY_DIGITS,
    UNDERFLOW,
    normalise_number,
)
from datamodel.partiql.syntax import (
    BagLiteral,
    Call,
    Expression,
    ListLiteral,
    Parameter,
    Scalar,
    StructLiteral,
)

Parameters = Sequence[AttributeValue]

PARAMETER_COUNT: Final = "Number of parameters in request and statement don't match."
_BAG_TYPES: Final = (
    "Unsupported data type in Bag. DynamoDB only supports either numbers or strings in bags"
)
_ROOT: Final = "root"


def is_value(expression: Expression) -> bool:
    """Whether an expression stands for a value by itself, without an item."""
    return isinstance(
        expression, Scalar | Parameter | ListLiteral | BagLiteral | StructLiteral
    ) and not (isinstance(expression, Scalar) and expression.kind == "MISSING")


def value_of(expression: Expression, parameters: Parameters, place: str = _ROOT) -> AttributeValue:
    """The normal value of a literal or parameter.

    Args:
        expression: Nested no deeper than the parser lets it.
        parameters: Normal values of the request's parameters, as many as the statement has at least.
        place: What an error says of where the value stands.

    Raises:
        ValidationError: It is no value, or not one that can be stored.
    """
    value = _value(expression, parameters, place)
    # Depth and duplicates; scalars and parameters are right already.
    if isinstance(expression, ListLiteral | BagLiteral | StructLiteral):
        return normalise_value(value)[0]
    return value


def _value(expression: Expression, parameters: Parameters, place: str) -> AttributeValue:
    match expression:
        case Scalar():
            return _scalar(expression, place)
        case Parameter():
            return parameters[expression.index]
        case ListLiteral():
            return {
                "L": [
                    _value(element, parameters, f"{place}[{index}]")
                    for index, element in enumerate(expression.elements)
                ]
            }
        case StructLiteral():
            return {"M": fields_of(expression, parameters, place)}
        case BagLiteral():
            return _bag(expression, place)
        case Call():
            raise ValidationError(
                f"Unsupported data type: {expression.name} under key {place} at {expression.at}"
            )
        case _:
            raise ValidationError(
                f"Unsupported data type: UNKNOWN under key {place} at {expression.at}"
            )


def fields_of(
    struct: StructLiteral, parameters: Parameters, place: str | None = None
) -> dict[str, AttributeValue]:
    """The members of a struct literal; of an item's literal if there is no place."""
    fields = {}
    for key, value in struct.fields:
        if not isinstance(key, Scalar) or key.kind != "S":
            raise ValidationError(f"Unsupported key in a map: it must be a string at {key.at}")
        inner = _ROOT if place is None else f"{place}.{key.text}"
        fields[key.text] = _value(value, parameters, inner)
    return fields


def _scalar(scalar: Scalar, place: str) -> AttributeValue:
    match scalar.kind:
        case "S":
            return {"S": scalar.text}
        case "N":
            try:
                return {"N": normalise_number(scalar.text)}
            except ValidationError as error:
                message = error.message if error.as_java is None else error.as_java
                raise ValidationError(f"{message} under {place}") from error
        case "BOOL":
            return {"BOOL": scalar.text == "true"}
        case "NULL":
            return {"NULL": True}
        case "MISSING":
            raise ValidationError(
                f"Unsupported data type: MISSING under key {place} at {scalar.at}"
            )


def _bag(bag: BagLiteral, place: str) -> AttributeValue:
    if not bag.elements:
        raise ValidationError("Empty bags are not supported")
    members = []
    kinds = set()
    for element in bag.elements:
        if not isinstance(element, Scalar) or element.kind not in ("S", "N"):
            raise ValidationError(_BAG_TYPES)
        kinds.add(element.kind)
        members.append(_scalar(element, place)[element.kind])
    if len(kinds) > 1:
        raise ValidationError(_BAG_TYPES)
    return {f"{kinds.pop()}S": members}


def prepare_parameters(raw: Sequence[object] | None) -> list[AttributeValue]:
    """The request's `Parameters` as normal values.

    Of several faults the first in the order of the text is told, save that sizes of numbers come last: the
    service looks at them once it has read all values.

    Raises:
        SerializationError, ValidationError: One is no attribute value, or breaks a rule for values.
    """
    values = []
    for parameter in raw or ():
        try:
            values.append(normalise_value(parameter)[0])
        except ValidationError as error:
            if error.message not in (OVERFLOW, UNDERFLOW, TOO_MANY_DIGITS):
                raise
            raise ValidationError(_as_java_says(raw or ()) or error.message) from error
    return values


def _as_java_says(parameters: Sequence[object]) -> str | None:
    """What the service says of values of which one has a number that is out of range."""
    out_of_range: str | None = None
    pending = [(parameter, 1) for parameter in reversed(parameters)]
    while pending:
        value, depth = pending.pop()
        for kind, content in value.items() if isinstance(value, dict) else ():
            texts: Sequence[object] = ()
            if kind == "N":
                texts = (content,)
            elif kind == "NS" and isinstance(content, list):
                texts = content
            elif kind in ("M", "L") and content and isinstance(content, dict | list):
                if depth >= NESTING_DEPTH_MAX:
                    return TOO_DEEP
                inner = list(content.values()) if isinstance(content, dict) else content
                pending.extend((member, depth + 1) for member in reversed(inner))
            for text in texts:
                fault = _number_fault(str(text))
                if fault is not None and fault.startswith(NOT_A_NUMBER):
                    return fault
                out_of_range = out_of_range or fault
    return out_of_range


def _number_fault(text: str) -> str | None:
    try:
        normalise_number(text)
    except ValidationError as error:
        return error.as_java or error.message
    return None
