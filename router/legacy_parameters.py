"""Parameters from before expressions: when they may be given, what may be in them, and what they become.

Conditions and updates become texts for the storage node (`datamodel.expressions.legacy`), KeyConditions a range
of keys here.

Source: rules and texts as observed on the service by the authors of dynalite and of ExtendDB.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from datamodel.attribute_values import (
    EMPTY_NAME,
    TOO_DEEP,
    TYPES,
    AttributeValue,
    check_name_sizes,
    compare,
    normalise_value,
    type_of,
)
from datamodel.errors import ValidationError
from datamodel.expressions import (
    Condition,
    KeyCondition,
    Projection,
    Update,
    read_condition,
    read_update,
)
from datamodel.expressions.legacy import LegacyAction, LegacyTerm, condition_text, update_text
from datamodel.expressions.syntax_tree import Path
from datamodel.expressions.updates import TOO_LARGE
from datamodel.key_encoding import KeySchema, SortCondition, SortOperator
from datamodel.limits import ITEM_SIZE_BYTES_MAX, LEGACY_COMPARISONS_MAX
from datamodel.local_indexes import IndexKey, check_condition_value
from datamodel.requests import AttributeValueUpdate, ExpectedAttributeValue
from datamodel.requests import Condition as ConditionMember

_INVALID: Final = "One or more parameter values were invalid: "

_ANY: Final = TYPES
_SCALARS: Final = frozenset(("S", "N", "B"))
# Operator: (fewest operands, most operands, types of operands).
_OPERATORS: Final[Mapping[str, tuple[int, int | None, frozenset[str]]]] = {
    "EQ": (1, 1, _ANY),
    "NE": (1, 1, _ANY),
    "LE": (1, 1, _SCALARS),
    "LT": (1, 1, _SCALARS),
    "GE": (1, 1, _SCALARS),
    "GT": (1, 1, _SCALARS),
    "NOT_NULL": (0, 0, _ANY),
    "NULL": (0, 0, _ANY),
    "CONTAINS": (1, 1, _SCALARS),
    "NOT_CONTAINS": (1, 1, _SCALARS),
    "BEGINS_WITH": (1, 1, frozenset(("S", "B"))),
    "IN": (1, None, _SCALARS),
    "BETWEEN": (2, 2, _SCALARS),
}
_SORT_OPERATORS: Final[Mapping[str, SortOperator]] = {
    "EQ": "=",
    "LE": "<=",
    "LT": "<",
    "GE": ">=",
    "GT": ">",
    "BEGINS_WITH": "begins_with",
    "BETWEEN": "BETWEEN",
}
_ADDABLE: Final = frozenset(("N", "SS", "NS", "BS", "L"))
_DELETABLE: Final = frozenset(("SS", "NS", "BS"))
_KEY_CONDITIONS_MAX: Final = 2


# --- which parameters come together --------------------------------------------------------------------------


def check_mixing(expressions: Mapping[str, object], legacy: Mapping[str, object]) -> None:
    """Check that a request does not use both kinds of parameters, and what ConditionalOperator comes with.

    Args:
        expressions: The operation's expression members in the service's order, None for those not given.
        legacy: Its legacy members likewise.

    Raises:
        ValidationError: With the service's text.
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
    if "ConditionalOperator" in given:
        _check_conditional_operator(legacy)


def _check_conditional_operator(legacy: Mapping[str, Any]) -> None:
    conditions = legacy.get("Expected") or legacy.get("QueryFilter") or legacy.get("ScanFilter")
    if not conditions:
        raise ValidationError("ConditionalOperator cannot be used without Filter or Expected")
    if len(conditions) == 1:
        # Most regions mind the depth of Scan's one condition before that. Source: parity suite, October 2026.
        if "ScanFilter" in legacy:
            for member in conditions.values():
                _check_depth(member.AttributeValueList or ())
        raise ValidationError(
            "ConditionalOperator can only be used when Filter or Expected has two or more elements"
        )


def _check_depth(values: Collection[AttributeValue]) -> None:
    for value in values:
        try:
            normalise_value(value)
        except ValidationError as error:
            if error.message == TOO_DEEP:
                raise


def _check_names(names: Collection[str]) -> None:
    """Names of attributes have 1 to 65,535 bytes."""
    if "" in names:
        raise ValidationError(EMPTY_NAME)
    check_name_sizes(names)


# --- AttributesToGet -----------------------------------------------------------------------------------------


def check_attributes_to_get(names: Sequence[str]) -> None:
    """Check `AttributesToGet`.

    Raises:
        ValidationError: An attribute is named twice, or not at all.
    """
    seen: set[str] = set()
    _check_names(names)
    for name in names:
        if name in seen:
            raise ValidationError(f"{_INVALID}Duplicate value in attribute name: {name}")
        seen.add(name)


def attributes_projection(names: Sequence[str]) -> Projection:
    """The projection that `AttributesToGet` asks for; its names are whole attributes, never paths."""
    return Projection([Path((name,)) for name in names])


def attributes_expression(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The same as a ProjectionExpression and its ExpressionAttributeNames."""
    aliases = {f"#a{index}": name for index, name in enumerate(names)}
    return ",".join(aliases), aliases


# --- conditions ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LegacyCondition:
    """A condition and its values.

    Attributes:
        condition: What it says.
        text: The same for storage nodes.
        values: Normal values by placeholder.
    """

    condition: Condition
    text: str
    values: dict[str, AttributeValue]


def filter_condition(
    conditions: Mapping[str, ConditionMember] | None, operator: str | None
) -> LegacyCondition | None:
    """What QueryFilter or ScanFilter asks for; None if nothing.

    Args:
        conditions: By attribute.
        operator: `ConditionalOperator`.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    if not conditions:
        return None
    return _condition(
        [
            (name, member.ComparisonOperator, _operands(member))
            for name, member in conditions.items()
        ],
        operator,
    )


def expected_condition(
    expected: Mapping[str, ExpectedAttributeValue] | None, operator: str | None
) -> LegacyCondition | None:
    """What Expected asks for; arguments and errors as of `filter_condition`."""
    if not expected:
        return None
    return _condition(
        [(name, *_expected_term(name, member)) for name, member in expected.items()], operator
    )


def _condition(
    parts: Sequence[tuple[str, str, Sequence[AttributeValue]]], operator: str | None
) -> LegacyCondition:
    if sum(1 + len(operands) for _, _, operands in parts) > LEGACY_COMPARISONS_MAX:
        raise ValidationError(
            f"{_INVALID}More than {LEGACY_COMPARISONS_MAX} conditions and operands"
        )
    _check_names([name for name, _, _ in parts])
    values: dict[str, AttributeValue] = {}
    terms: list[LegacyTerm] = []
    for name, comparison, operands in parts:
        placeholders = [f":c{len(values) + index}" for index in range(len(operands))]
        values.update(zip(placeholders, operands, strict=True))
        terms.append((comparison, name, *placeholders))
    text = condition_text(terms, operator or "AND")
    return LegacyCondition(read_condition(text, None), text, values)


def _operands(member: ConditionMember) -> list[AttributeValue]:
    """The operands of a filter or key condition, checked."""
    operands = [normalise_value(raw)[0] for raw in member.AttributeValueList or ()]
    _check_operands(member.ComparisonOperator, operands)
    return operands


def _check_operands(operator: str, operands: Sequence[AttributeValue]) -> None:
    """Number, types and order of operands."""
    fewest, most, types = _OPERATORS[operator]
    if len(operands) < fewest or (most is not None and len(operands) > most):
        raise ValidationError(
            f"{_INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator"
        )
    kinds = [type_of(operand) for operand in operands]
    if len(set(kinds)) > 1:
        raise ValidationError(
            f"{_INVALID}AttributeValues inside AttributeValueList must be of same type"
        )
    if kinds and kinds[0] not in types:
        raise ValidationError(
            f"{_INVALID}ComparisonOperator {operator} is not valid for {kinds[0]} "
            "AttributeValue type"
        )
    if operator == "BETWEEN":
        order = compare(operands[0], operands[1])
        if order is not None and order > 0:
            raise ValidationError(
                "The BETWEEN condition was provided a range where the lower bound is greater than "
                "the upper bound"
            )


def _expected_term(name: str, member: ExpectedAttributeValue) -> tuple[str, list[AttributeValue]]:
    """Comparison operator and operands of one attribute's expectation."""
    operator, listed = member.ComparisonOperator, member.AttributeValueList
    # A null value counts as absent.
    has_value = member.Value is not None
    if listed is not None and has_value:
        raise ValidationError(
            f"{_INVALID}Value and AttributeValueList cannot be used together for Attribute: {name}"
        )
    if operator is not None:
        if member.Exists is not None:
            raise ValidationError(
                f"{_INVALID}Exists and ComparisonOperator cannot be used together for "
                f"Attribute: {name}"
            )
        if listed is None and not has_value and operator not in ("NULL", "NOT_NULL"):
            raise ValidationError(
                f"{_INVALID}Value or AttributeValueList must be used with ComparisonOperator: "
                f"{operator} for Attribute: {name}"
            )
        raw = [member.Value] if has_value else listed or ()
        operands = [normalise_value(value)[0] for value in raw]
        _check_operands(operator, operands)
        return operator, operands
    if listed is not None:
        raise ValidationError(
            f"{_INVALID}AttributeValueList can only be used with a ComparisonOperator for "
            f"Attribute: {name}"
        )
    if member.Exists is False:
        if has_value:
            raise ValidationError(
                f"{_INVALID}Value cannot be used when Exists is false for Attribute: {name}"
            )
        return "NULL", []
    if not has_value:
        exists = "null" if member.Exists is None else "true"
        raise ValidationError(
            f"{_INVALID}Value must be provided when Exists is {exists} for Attribute: {name}"
        )
    return "EQ", [normalise_value(member.Value)[0]]


# --- updates -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class LegacyChange:
    """What AttributeUpdates does, and its values.

    Attributes:
        update: What it does.
        text: The same for storage nodes.
        values: Normal values by placeholder.
    """

    update: Update
    text: str
    values: dict[str, AttributeValue] = field(default_factory=dict)


def attribute_updates(updates: Mapping[str, AttributeValueUpdate] | None) -> LegacyChange | None:
    """What AttributeUpdates asks for; None if nothing: the item is only made to exist.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    if not updates:
        return None
    values: dict[str, AttributeValue] = {}
    actions: list[LegacyAction] = []
    size = 0
    _check_names(updates)
    for name, member in updates.items():
        size += len(name)
        action = member.Action or "PUT"
        if member.Value is None:
            if action != "DELETE":
                raise ValidationError(
                    f"{_INVALID}Only DELETE action is allowed when no attribute value is specified"
                )
            actions.append((action, name, None))
            continue
        value, value_size = normalise_value(member.Value)
        size += value_size
        kind = type_of(value)
        if action == "DELETE" and kind not in _DELETABLE:
            raise ValidationError(
                f"{_INVALID}DELETE action with value is not supported for the type {kind}"
            )
        if action == "ADD" and kind not in _ADDABLE:
            raise ValidationError(f"{_INVALID}ADD action is not supported for the type {kind}")
        placeholder = f":u{len(values)}"
        values[placeholder] = value
        actions.append((action, name, placeholder))
    if size > ITEM_SIZE_BYTES_MAX:
        # More than an item can have: it never becomes work for a leader.
        raise ValidationError(TOO_LARGE)
    text = update_text(actions)
    return LegacyChange(read_update(text, None), text, values)


# --- key conditions ------------------------------------------------------------------------------------------


class LegacyKeyConditions:
    """KeyConditions, checked as far as possible without the table."""

    __slots__ = ("_terms",)

    def __init__(self, conditions: Mapping[str, ConditionMember]) -> None:
        """Check.

        Raises:
            SerializationError, ValidationError: With the service's text.
        """
        self._terms = {
            name: (member.ComparisonOperator, _operands(member))
            for name, member in conditions.items()
        }
        if not 1 <= len(self._terms) <= _KEY_CONDITIONS_MAX:
            raise ValidationError("Conditions can be of length 1 or 2 only")

    @property
    def attributes(self) -> frozenset[str]:
        """The attributes that it has conditions on."""
        return frozenset(self._terms)

    def bind(self, schema: KeySchema, index: IndexKey | None) -> KeyCondition:
        """The condition on a table's key, or on that of `index`.

        Raises:
            ValidationError: It does not fit the key.
        """
        terms = self._terms
        if len(terms) > 1 and schema.sort_name is None:
            raise ValidationError("Query key condition not supported")
        operator, operands = self._term(schema.partition_name, schema, index)
        if operator != "=":
            raise ValidationError("Query key condition not supported")
        sort = None
        if len(terms) > 1:
            assert schema.sort_name is not None
            sort = SortCondition(*self._term(schema.sort_name, schema, index))
        return KeyCondition(operands[0], sort, frozenset(), frozenset())

    def _term(
        self, name: str, schema: KeySchema, index: IndexKey | None
    ) -> tuple[SortOperator, tuple[AttributeValue, ...]]:
        term = self._terms.get(name)
        if term is None:
            raise ValidationError(f"Query condition missed key schema element: {name}")
        comparison, operands = term
        operator = _SORT_OPERATORS.get(comparison)
        if operator is None:
            raise ValidationError("Attempted conditional constraint is not an indexable operation")
        for operand in operands:
            check_condition_value(schema, index, name, operand)
        return operator, tuple(operands)
