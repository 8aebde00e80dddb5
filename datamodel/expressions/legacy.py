"""Conditions and updates from before expressions: Expected, QueryFilter, ScanFilter, AttributeUpdates.

They become the same trees as expressions do, but not by way of an expression's text: they know no limits of its
length or number of operators, name whole attributes only, and differ from expressions where noted below. For
the way to the storage node they have a text of their own, which no client can send as an expression:

    text      = NUL · JSON
    condition = ["AND" | "OR", [[operator, attribute, placeholder, ...], ...]]
    update    = [[action, attribute, placeholder or null], ...]

The JSON holds what stays the same from request to request, so that `read_condition` and `read_update` find it
in their caches; values travel beside it, by placeholder, as an expression's do. A node that does not know this
form takes it for a syntax error: it never writes without the condition.

Differences: NOT_CONTAINS is false when there is no such attribute; ADD appends to lists; operands of the wrong
type have an error text of their own; an update that only deletes does not create an item.

Sources: the developer guide's "Legacy conditional parameters"; behaviour of the service as observed by the
authors of ScyllaDB's Alternator and of dynalite.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from datamodel.errors import ValidationError
from datamodel.expressions.checker import Usage
from datamodel.expressions.conditions import Condition, parse_condition
from datamodel.expressions.operands import Values
from datamodel.expressions.parse_cache import ParseCache
from datamodel.expressions.syntax_tree import (
    Action,
    And,
    Between,
    Comparison,
    ComparisonOperator,
    ConditionTree,
    Function,
    In,
    Not,
    Or,
    Path,
    Section,
    Value,
)
from datamodel.expressions.updates import (
    INCORRECT_TYPE,
    Item,
    Update,
    UpdateResult,
    parse_update,
)

_MARK: Final = "\x00"
TYPE_MISMATCH: Final = "Type mismatch for attribute to update"

_COMPARISONS: Final[Mapping[str, ComparisonOperator]] = {
    "EQ": "=",
    "NE": "<>",
    "LE": "<=",
    "LT": "<",
    "GE": ">=",
    "GT": ">",
}
_SECTIONS: Final[Mapping[str, Section]] = {"PUT": "SET", "ADD": "ADD", "DELETE": "DELETE"}

LegacyTerm: TypeAlias = tuple[str, ...]
"""Comparison operator, attribute, placeholders of its operands."""
LegacyAction: TypeAlias = tuple[Literal["PUT", "ADD", "DELETE"], str, str | None]
"""Action, attribute, placeholder of its value; DELETE without a value removes the attribute."""

_encode = msgspec.json.encode
_decode_condition = msgspec.json.Decoder(tuple[Literal["AND", "OR"], list[tuple[str, ...]]]).decode
_decode_update = msgspec.json.Decoder(list[LegacyAction]).decode


def condition_text(terms: Sequence[LegacyTerm], operator: str) -> str:
    """The text of a condition of at least one term; `operator` (AND or OR) joins them."""
    assert terms, "no terms, no condition"
    return _MARK + _encode((operator, terms)).decode()


def update_text(actions: Sequence[LegacyAction]) -> str:
    """The text of an update."""
    return _MARK + _encode(actions).decode()


def read_condition(
    text: str, names: Mapping[str, str] | None, kind: str = "ConditionExpression"
) -> Condition:
    """The condition in an expression that a router has checked, or in `condition_text`.

    Args:
        text: Either text.
        names: `ExpressionAttributeNames`.
        kind: Name of the request member, for errors.
    """
    if text.startswith(_MARK):
        return _conditions.get(kind, text, None)
    return parse_condition(text, names, kind)


def read_update(text: str, names: Mapping[str, str] | None) -> Update:
    """The update in an expression that a router has checked, or in `update_text`."""
    if text.startswith(_MARK):
        return _updates.get("AttributeUpdates", text, None)
    return parse_update(text, names)


class LegacyUpdate(Update):
    """AttributeUpdates."""

    __slots__ = ()

    def __init__(self, actions: Sequence[LegacyAction]) -> None:
        """An update from actions on attributes each named once."""
        names = tuple(name for _, name, _ in actions)
        placeholders = frozenset(value for _, _, value in actions if value is not None)
        super().__init__(
            [_action(*action) for action in actions],
            Usage(frozenset(), placeholders, names, (), ()),
        )
        # Here also taking members out of a set is removing.
        self.creates_item = not actions or any(action != "DELETE" for action, _, _ in actions)

    def statement_size_max(self, values_size: int) -> int:
        """Only expressions have a size of their own."""
        return 0

    def apply(
        self,
        item: Item,
        values: Values,
        key_names: Collection[str] = (),
        item_exists: bool = True,
    ) -> UpdateResult:
        """As `Update.apply`, with the older text for operands of the wrong type."""
        try:
            return super().apply(item, values, key_names, item_exists)
        except ValidationError as error:
            if error.message == INCORRECT_TYPE:
                raise ValidationError(TYPE_MISMATCH) from error
            raise


def _action(action: str, name: str, placeholder: str | None) -> Action:
    path = Path((name,))
    if placeholder is None:
        return Action("REMOVE", path)
    return Action(_SECTIONS[action], path, Value(placeholder))


def _term(operator: str, name: str, *placeholders: str) -> ConditionTree:
    path = Path((name,))
    values = tuple(map(Value, placeholders))
    comparison = _COMPARISONS.get(operator)
    if comparison is not None:
        return Comparison(comparison, path, values[0])
    match operator:
        case "NULL":
            return Function("attribute_not_exists", (path,))
        case "NOT_NULL":
            return Function("attribute_exists", (path,))
        case "CONTAINS":
            return Function("contains", (path, values[0]))
        case "NOT_CONTAINS":
            return And(
                (
                    Function("attribute_exists", (path,)),
                    Not(Function("contains", (path, values[0]))),
                )
            )
        case "BEGINS_WITH":
            return Function("begins_with", (path, values[0]))
        case "IN":
            return In(path, values)
        case _:
            assert operator == "BETWEEN", operator
            return Between(path, values[0], values[1])


def _parse_condition(_kind: str, text: str, _names: Mapping[str, str]) -> Condition:
    operator, terms = _decode_condition(text.removeprefix(_MARK))
    trees = tuple([_term(*term) for term in terms])
    tree: ConditionTree = trees[0]
    if len(trees) > 1:
        tree = And(trees) if operator == "AND" else Or(trees)
    placeholders = frozenset(value for term in terms for value in term[2:])
    names = tuple(term[1] for term in terms)
    return Condition(tree, Usage(frozenset(), placeholders, names, (), ()))


def _parse_update(_kind: str, text: str, _names: Mapping[str, str]) -> Update:
    return LegacyUpdate(_decode_update(text.removeprefix(_MARK)))


_conditions = ParseCache(_parse_condition)
_updates = ParseCache(_parse_update)
