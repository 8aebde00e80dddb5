"""Parameters from before expressions: when they may be given, and those that are understood.

Source: rules and texts as observed on the service by the authors of dynalite.
"""

from collections.abc import Mapping, Sequence

from datamodel.errors import ValidationError
from datamodel.expressions import Projection
from datamodel.expressions.syntax_tree import Path

# What to use instead of a parameter that is not supported yet.
_SUCCESSORS = {
    "Expected": "ConditionExpression",
    "AttributeUpdates": "UpdateExpression",
    "KeyConditions": "KeyConditionExpression",
    "QueryFilter": "FilterExpression",
    "ScanFilter": "FilterExpression",
}


def check_mixing(expressions: Mapping[str, object], legacy: Mapping[str, object]) -> None:
    """Check that a request does not use both kinds of parameters.

    Args:
        expressions: The operation's expression members in the service's order, None for those not given.
        legacy: Its legacy members likewise.

    Raises:
        ValidationError: It uses both; or a legacy member that is not supported yet.
    """
    given = [name for name, value in legacy.items() if value is not None]
    if not given:
        return
    new = [name for name, value in expressions.items() if value is not None]
    if new:
        # A key condition of the old kind may go with a filter or projection of the new kind.
        old = [
            name
            for name in given
            if name != "KeyConditions" or expressions.get("KeyConditionExpression") is not None
        ]
        if old:
            raise ValidationError(
                "Can not use both expression and non-expression parameters in the same request: "
                f"Non-expression parameters: {{{', '.join(old)}}} "
                f"Expression parameters: {{{', '.join(new)}}}"
            )
    for name in given:
        successor = _SUCCESSORS.get(name)
        if successor is not None:
            raise ValidationError(f"{name} is not supported yet; use {successor} instead")
    if "ConditionalOperator" in given:
        raise ValidationError("ConditionalOperator cannot be used without Filter or Expected")


def check_attributes_to_get(names: Sequence[str]) -> None:
    """Check `AttributesToGet`.

    Raises:
        ValidationError: An attribute is named twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValidationError(
                "One or more parameter values were invalid: "
                f"Duplicate value in attribute name: {name}"
            )
        seen.add(name)


def attributes_projection(names: Sequence[str]) -> Projection:
    """The projection that `AttributesToGet` asks for; its names are whole attributes, never paths."""
    return Projection([Path((name,)) for name in names])


def attributes_expression(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The same as a ProjectionExpression and its ExpressionAttributeNames."""
    aliases = {f"#a{index}": name for index, name in enumerate(names)}
    return ",".join(aliases), aliases
