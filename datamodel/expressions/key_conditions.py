"""Key conditions: KeyConditionExpression, the partition key and sort range of a Query.

The grammar is that of conditions; what is left of it after the checks here is one equality on the partition
key and at most one range on the sort key, joined by AND in any order, each with the attribute on either side.

Source: order and texts as observed on the service by the authors of dynalite and, newer, of the parity suite for
DynamoDB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from datamodel.attribute_values import AttributeValue
from datamodel.errors import ValidationError
from datamodel.expressions.checker import Usage, Values, check_condition
from datamodel.expressions.parse_cache import ParseCache
from datamodel.expressions.parser import parse_condition_text
from datamodel.expressions.syntax_tree import (
    And,
    Between,
    Comparison,
    ConditionTree,
    Function,
    In,
    Not,
    Operand,
    Or,
    Path,
    Value,
)
from datamodel.key_encoding import KeySchema, SortCondition, SortOperator
from datamodel.local_indexes import IndexKey, check_condition_count, check_condition_value

_KIND: Final = "KeyConditionExpression"
_MIRRORED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """What a Query asks for.

    Attributes:
        partition_value: The value of the partition key, one that it can have.
        sort: The condition on the sort key, if any; its operands are values that the key can have.
        names_used: Placeholders for names in the expression, `#` included.
        values_used: Placeholders for values in it, `:` included.
    """

    partition_value: AttributeValue
    sort: SortCondition | None
    names_used: frozenset[str]
    values_used: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Term:
    operator: SortOperator
    placeholders: tuple[str, ...]


class KeyExpression:
    """A parsed key condition, before the table is known. Immutable; shared by requests alike.

    The service's order is: parse (`parse_key_expression`), `check_values`, the request's other expressions,
    unused placeholders, `check_shape`, whether the table exists, `bind`.

    Attributes:
        names_used: Placeholders for names in it, `#` included.
        values_used: Placeholders for values in it, `:` included.
        attributes: The attributes that it has conditions on; complete once `check_shape` has passed.
    """

    __slots__ = ("_checks", "_shape_error", "_terms", "attributes", "names_used", "values_used")

    def __init__(self, tree: ConditionTree | None, usage: Usage) -> None:
        self._checks = usage.checks
        self._shape_error: str | None = None
        self._terms: dict[str, _Term] = {}
        self.names_used = usage.names_used
        self.values_used = usage.values_used
        if tree is not None:
            try:
                _collect(tree, self._terms)
            except ValidationError as error:
                self._shape_error = error.message
        self.attributes = frozenset(self._terms)

    def check_values(self, values: Values) -> None:
        """Check the request's values against the expression.

        Raises:
            ValidationError: A value is not defined, or has a type that an operator or function refuses.
        """
        for check in self._checks:
            check(values)

    def check_shape(self) -> None:
        """Check that it has the form of a key condition, for whatever key.

        Raises:
            ValidationError: It has not.
        """
        if self._shape_error is not None:
            raise ValidationError(self._shape_error)

    def bind(
        self, values: Values, schema: KeySchema, index: IndexKey | None = None
    ) -> KeyCondition:
        """The condition on a table's key, or on that of `index`. The other checks must have passed.

        Raises:
            ValidationError: It does not fit the key.
        """
        terms = self._terms
        # Said before a missing key, which would be just as true.
        check_condition_count(schema, len(terms))
        partition = terms.get(schema.partition_name)
        if partition is None:
            raise _missed(schema.partition_name)
        sort: _Term | None = None
        if len(terms) > 1:
            assert schema.sort_name is not None
            sort = terms.get(schema.sort_name)
            if sort is None:
                raise _missed(schema.sort_name)
        if partition.operator != "=":
            raise ValidationError("Query key condition not supported")
        (partition_value,) = _operands(partition, values)
        check_condition_value(schema, index, schema.partition_name, partition_value)
        condition = None
        if sort is not None:
            assert schema.sort_name is not None
            operands = _operands(sort, values)
            for operand in operands:
                check_condition_value(schema, index, schema.sort_name, operand)
            condition = SortCondition(sort.operator, operands)
        return KeyCondition(partition_value, condition, self.names_used, self.values_used)


def _missed(name: str) -> ValidationError:
    return ValidationError(f"Query condition missed key schema element: {name}")


def _operands(term: _Term, values: Values) -> tuple[AttributeValue, ...]:
    return tuple([values[placeholder] for placeholder in term.placeholders])


# --- the form of a key condition ---------------------------------------------------------------------------


def _collect(tree: ConditionTree, terms: dict[str, _Term]) -> None:
    """Fills in the terms by attribute, in the order of the text."""
    if isinstance(tree, And):
        for term in tree.terms:
            _collect(term, terms)
        return
    operator, operands = _parts(tree)
    name = ""
    position = 0
    placeholders = []
    for index, operand in enumerate(operands):
        if isinstance(operand, Function):
            raise ValidationError("KeyConditionExpressions cannot contain nested operations")
        if isinstance(operand, Path):
            if name:
                raise ValidationError(
                    "Invalid condition in KeyConditionExpression: "
                    "Multiple attribute names used in one condition"
                )
            if len(operand.elements) > 1:
                raise ValidationError(
                    "Invalid KeyConditionExpression: "
                    "KeyConditionExpressions cannot have conditions on nested attributes"
                )
            name, position = str(operand.elements[0]), index
        else:
            assert isinstance(operand, Value), "key conditions are made from text"
            placeholders.append(operand.name)
    if not name:
        raise ValidationError(
            "Invalid condition in KeyConditionExpression: No key attribute specified"
        )
    if name in terms:
        raise ValidationError(
            f"Invalid {_KIND}: KeyConditionExpressions must only contain one condition per key"
        )
    if position == 1:
        operator = _MIRRORED[operator]
    terms[name] = _Term(cast("SortOperator", operator), tuple(placeholders))


def _parts(
    tree: Comparison | Between | In | Function | Or | Not,
) -> tuple[str, tuple[Operand, ...]]:
    """Operator and operands of one comparison."""
    operator: str
    operands: tuple[Operand, ...]
    match tree:
        case Comparison():
            operator, operands = tree.operator, (tree.left, tree.right)
        case Between():
            operator, operands = "BETWEEN", (tree.operand, tree.low, tree.high)
        case Function():
            operator, operands = tree.name, tree.arguments
        case In():
            operator, operands = "IN", ()
        case Or():
            operator, operands = "OR", ()
        case Not():
            operator, operands = "NOT", ()
    if operator not in _MIRRORED and operator not in ("BETWEEN", "begins_with"):
        raise ValidationError(f"Invalid operator used in KeyConditionExpression: {operator}")
    if operator not in _MIRRORED and not isinstance(operands[0], Path):
        raise ValidationError(
            f"Invalid condition in KeyConditionExpression: {operator} operator must have the key "
            "attribute as its first operand"
        )
    return operator, operands


# --- parsing -----------------------------------------------------------------------------------------------


def _parse(kind: str, text: str, names: Mapping[str, str]) -> KeyExpression:
    return KeyExpression(*check_condition(kind, parse_condition_text(kind, text), names))


_cache = ParseCache(_parse)


def parse_key_expression(text: str, names: Mapping[str, str] | None) -> KeyExpression:
    """Parse a key condition whose table is not known yet.

    Raises:
        ValidationError: With the service's text; see also `KeyExpression.check_values`.
    """
    return _cache.get(_KIND, text, names)


def parse_key_condition(
    text: str, names: Mapping[str, str] | None, values: Values, schema: KeySchema
) -> KeyCondition:
    """Parse and check a key condition in one go.

    Args:
        text: The expression.
        names: `ExpressionAttributeNames`.
        values: Normal values.
        schema: Key schema of the table or index that is queried.

    Raises:
        ValidationError: With the service's text.
    """
    expression = parse_key_expression(text, names)
    expression.check_values(values)
    expression.check_shape()
    return expression.bind(values, schema)
