"""The size that the service gives an UpdateExpression itself: it may be no larger than an item.

What counts are targets, operators and values, not the item that comes of it: a value counts each time that it is
named, a path counts as a path and never as what it leads to.

Source: observed in 31 of 33 regions in October 2026 (paritysuite/dynamodb-conformance).
"""

from collections.abc import Iterable
from typing import Final

from datamodel.attribute_values import value_size
from datamodel.expressions.syntax_tree import (
    Action,
    Arithmetic,
    Function,
    Literal,
    Operand,
    Path,
    Value,
)

_STATEMENT: Final = 3
_SECTIONS: Final = {"SET": 19, "ADD": 19, "REMOVE": 1, "DELETE": 1}
_OPERATORS: Final = {"+": 34, "-": 37, "if_not_exists": 39, "list_append": 37}
_TARGET_STEP: Final = 4
_OPERAND_PATH: Final = 1
_OPERAND_STEP: Final = 14


def statement_size(actions: Iterable[Action]) -> tuple[int, tuple[str, ...]]:
    """Bytes of a checked update without the values of placeholders, and the placeholders whose values count, each
    as often as it does.
    """
    size = _STATEMENT
    values: list[str] = []
    for action in actions:
        first, *further = action.path.elements
        size += _SECTIONS[action.section] + _length(first)
        size += sum(_TARGET_STEP + _length(element) for element in further)
        if action.section not in ("REMOVE", "DELETE") and action.value is not None:
            size += _operand_size(action.value, values)
    return size, tuple(values)


def _operand_size(operand: Operand | Arithmetic, values: list[str]) -> int:
    """Of one operand without placeholders' values, whose names are added to `values`."""
    match operand:
        case Value():
            values.append(operand.name)
            return 0
        case Literal():
            return value_size(operand.value)
        case Path():
            steps = sum(_OPERAND_STEP + _length(element) for element in operand.elements)
            return _OPERAND_PATH + steps
        case Function():
            parts = sum(_operand_size(argument, values) for argument in operand.arguments)
            return _OPERATORS[operand.name] + parts
        case Arithmetic():
            sides = _operand_size(operand.left, values) + _operand_size(operand.right, values)
            return _OPERATORS[operand.operator] + sides


def _length(element: str | int) -> int:
    """Bytes of a name, digits of an index."""
    return len(str(element).encode())
