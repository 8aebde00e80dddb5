"""Which keys a SELECT has to read: its WHERE clause against the key of a table.

A condition that holds only for certain partition keys (equality or IN on the partition key, in every branch of
every OR) becomes a query of those keys' items, with what it says of the sort key as the range; any other
condition becomes a scan. What the ranges do not say by themselves is left as a filter.

Conditions are spread into branches, one for each combination of alternatives that name key attributes. The
number of branches is bounded, and everything else stays in the filter, so the plan is right however it was made.

Source: texts and limits as recorded on the service by the authors of floci and of dynamodb-conformance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from typing import Final, cast

from datamodel.attribute_values import AttributeValue, compare, equal, type_of
from datamodel.errors import ValidationError
from datamodel.expressions.syntax_tree import (
    And,
    Between,
    Comparison,
    ConditionTree,
    Function,
    In,
    Literal,
    Not,
    Operand,
    Or,
    Path,
)
from datamodel.items import Item
from datamodel.key_encoding import (
    ITEMS_PART,
    KeySchema,
    SortCondition,
    SortOperator,
    collection_range,
)

READS_MAX: Final = 50
"""Branches of a query: values of the partition key times conditions on the sort key."""

_BRANCHES_MAX: Final = 1000
"""Branches looked at, also of conditions that become a scan."""

_TOO_MANY_READS: Final = "Too many decomposed read operations for a given query."
_OVERLAP: Final = "Overlapping conditions with range keys are not supported in where clause"
_NO_FULL_KEY: Final = "Where clause does not contain a mandatory equality on all key attributes"
_MIRRORED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}

Range = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A condition on one key attribute: its operator (IN, too) and values."""

    name: str
    operator: str
    values: tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class _Branch:
    """One way for the condition to hold.

    Attributes:
        leaves: What it says of key attributes.
        negates_sort: It also says what the sort key is not.
    """

    leaves: tuple[_Leaf, ...] = ()
    negates_sort: bool = False

    def __and__(self, other: "_Branch") -> "_Branch":
        return _Branch(self.leaves + other.leaves, self.negates_sort or other.negates_sort)


@dataclass(slots=True)
class _Collection:
    """What is read of the items of one partition key: sort conditions of each branch, all to hold."""

    partition_value: AttributeValue
    branches: list[tuple[tuple[SortCondition, ...], bool]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """What to read.

    Attributes:
        is_scan: The whole table.
        filter: What to test on each item read; None if nothing.
        partition_values: Of a query: the partition keys, in the order of the statement.
        conditions_beside_key: What the filter says outside of every OR, if a condition on the partition key stands
            outside, too.
    """

    is_scan: bool
    filter: ConditionTree | None
    partition_values: tuple[AttributeValue, ...]
    conditions_beside_key: tuple[ConditionTree, ...]
    _collections: tuple[_Collection, ...]
    _schema: KeySchema
    _part: int

    def check_no_overlap(self, table_id: int) -> None:
        """Check that no item is asked for twice by branches that name the sort key.

        Raises:
            ValidationError: One may be.
        """
        for collection in self._collections:
            ranged = [
                (self._range(table_id, collection, conditions), bool(conditions))
                for conditions, negates in collection.branches
                if not negates
            ]
            ranged = [(bounds, named) for bounds, named in ranged if bounds[0] < bounds[1]]
            ranged.sort(key=lambda entry: entry[0])
            end, end_is_named = b"", False
            for (start, stop), named in ranged:
                if start < end and (named or end_is_named):
                    raise ValidationError(_OVERLAP)
                if stop > end:
                    end, end_is_named = stop, named

    def ranges(
        self, table_id: int, *, descending: bool = False, order: str | None = None
    ) -> list[Range]:
        """The ranges of a query, disjoint, in the order in which to read them.

        Args:
            table_id: The table's number.
            descending: Each partition key's items from the end.
            order: `asc` or `desc` to order by the partition key; None for the order of the statement.
        """
        collections = list(self._collections)
        if order is not None:
            collections.sort(
                key=lambda entry: _ORDERED(entry.partition_value), reverse=order == "desc"
            )
        ranges: list[Range] = []
        for collection in collections:
            merged: list[Range] = []
            for start, end in sorted(
                self._range(table_id, collection, conditions)
                for conditions, _ in collection.branches
            ):
                if start >= end:
                    continue
                if merged and start <= merged[-1][1]:
                    merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
                else:
                    merged.append((start, end))
            ranges.extend(reversed(merged) if descending else merged)
        return ranges

    def _range(
        self, table_id: int, collection: _Collection, conditions: Sequence[SortCondition]
    ) -> Range:
        value, schema, part = collection.partition_value, self._schema, self._part
        start, end = collection_range(table_id, schema, value, part=part)
        for condition in conditions:
            lower, upper = collection_range(table_id, schema, value, condition, part=part)
            start, end = max(start, lower), min(end, upper)
        return start, end


def _compare_keys(one: AttributeValue, other: AttributeValue) -> int:
    return compare(one, other) or 0


_ORDERED = cmp_to_key(_compare_keys)


def plan_keys(where: ConditionTree | None, schema: KeySchema, part: int = ITEMS_PART) -> KeyPlan:
    """Plan the reads of a SELECT.

    Args:
        where: Its condition with the values put in (Literals).
        schema: The key of the table; of the local index that is read.
        part: Number of that index, `ITEMS_PART` for the table.

    Raises:
        ValidationError: A key attribute is compared with a value of another type, or there are too many reads.
    """
    scan = KeyPlan(True, where, (), (), (), schema, part)
    if where is None:
        return scan
    pins = _pins_partition(where, schema)
    branches = _spread(where, schema)
    if branches is None or (pins and len(branches) > READS_MAX):
        if pins:
            raise ValidationError(_TOO_MANY_READS)
        return scan
    for branch in branches:
        for leaf in branch.leaves:
            _check_types(leaf, schema)
    if not pins:
        return scan
    collections: list[_Collection] = []
    for branch in branches:
        _add_branch(collections, branch, schema)
    return KeyPlan(
        False,
        _residual(where, schema),
        tuple(collection.partition_value for collection in collections),
        _conditions_beside_key(where, schema) if part != ITEMS_PART else (),
        tuple(collections),
        schema,
        part,
    )


def _add_branch(collections: list[_Collection], branch: _Branch, schema: KeySchema) -> None:
    partition: AttributeValue | None = None
    sort: list[SortCondition] = []
    for leaf in branch.leaves:
        if leaf.name == schema.partition_name:
            if partition is not None and not equal(partition, leaf.values[0]):
                return  # no item has two partition keys
            partition = leaf.values[0]
        else:
            sort.append(SortCondition(cast("SortOperator", leaf.operator), leaf.values))
    assert partition is not None, "every branch pins the partition key"
    entry = (tuple(sort), branch.negates_sort)
    for collection in collections:
        if equal(collection.partition_value, partition):
            if entry not in collection.branches:
                collection.branches.append(entry)
            return
    collections.append(_Collection(partition, [entry]))


def _residual(where: ConditionTree, schema: KeySchema) -> ConditionTree | None:
    """What is left to test on the items that were read."""
    terms = where.terms if isinstance(where, And) else (where,)
    rest = tuple(term for term in terms if _leaf(term, schema) is None)
    if any(isinstance(term, Or | And) and _names_key(term, schema) for term in rest):
        return where
    if not rest:
        return None
    return rest[0] if len(rest) == 1 else And(rest)


def _conditions_beside_key(where: ConditionTree, schema: KeySchema) -> tuple[ConditionTree, ...]:
    pending, beside = [where], []
    has_key = False
    while pending:
        term = pending.pop()
        if isinstance(term, And):
            pending.extend(reversed(term.terms))
            continue
        leaf = _leaf(term, schema)
        if leaf is None:
            if not isinstance(term, Or):
                beside.append(term)
        elif leaf.name == schema.partition_name:
            has_key = True
    return tuple(beside) if has_key else ()


# --- conditions on key attributes --------------------------------------------------------------------------


def _leaf(tree: ConditionTree, schema: KeySchema) -> _Leaf | None:
    """The condition as one that a range of keys can express; None if it is none."""
    operands: tuple[Operand, ...]
    match tree:
        case Comparison():
            operator, operands = str(tree.operator), (tree.left, tree.right)
            if isinstance(operands[1], Path):
                if operator not in _MIRRORED:
                    return None
                operator, operands = _MIRRORED[operator], operands[::-1]
        case Between():
            operator, operands = "BETWEEN", (tree.operand, tree.low, tree.high)
        case In():
            operator, operands = "IN", (tree.operand, *tree.candidates)
        case Function():
            operator, operands = tree.name, tree.arguments
        case _:
            return None
    name = _attribute(operands[0])
    if name is None or name not in schema.names:
        return None
    if name == schema.partition_name:
        if operator not in ("=", "IN"):
            return None
    elif operator not in _MIRRORED and operator not in ("BETWEEN", "IN", "begins_with"):
        return None
    values = [operand.value for operand in operands[1:] if isinstance(operand, Literal)]
    if len(values) != len(operands) - 1:
        return None
    return _Leaf(name, operator, tuple(values))


def _attribute(operand: Operand) -> str | None:
    if isinstance(operand, Path) and len(operand.elements) == 1:
        return str(operand.elements[0])
    return None


def _pins_partition(tree: ConditionTree, schema: KeySchema) -> bool:
    """Whether the condition holds for certain partition keys only."""
    if isinstance(tree, And):
        return any(_pins_partition(term, schema) for term in tree.terms)
    if isinstance(tree, Or):
        return all(_pins_partition(term, schema) for term in tree.terms)
    leaf = _leaf(tree, schema)
    return leaf is not None and leaf.name == schema.partition_name


def _names_key(tree: ConditionTree, schema: KeySchema) -> bool:
    if isinstance(tree, And | Or):
        return any(_names_key(term, schema) for term in tree.terms)
    return _leaf(tree, schema) is not None


def _negates_sort(tree: ConditionTree, schema: KeySchema) -> bool:
    """Whether a condition that is no leaf says what the sort key is not."""
    if isinstance(tree, Not):
        term = tree.term
        if isinstance(term, Comparison) and term.operator == "<>":
            return schema.sort_name in (_attribute(term.left), _attribute(term.right))
        leaf = _leaf(term, schema)
        return leaf is not None and leaf.name == schema.sort_name
    if isinstance(tree, Comparison) and tree.operator == "<>" and schema.sort_name is not None:
        return schema.sort_name in (_attribute(tree.left), _attribute(tree.right))
    return False


def _spread(tree: ConditionTree, schema: KeySchema) -> list[_Branch] | None:
    """The branches of a condition; None if they are too many."""
    leaf = _leaf(tree, schema)
    if leaf is not None:
        if leaf.operator == "IN":
            return [_Branch((_Leaf(leaf.name, "=", (value,)),)) for value in leaf.values]
        return [_Branch((leaf,))]
    if isinstance(tree, And):
        branches = [_Branch()]
        for term in tree.terms:
            further = _spread(term, schema)
            if further is None or len(branches) * len(further) > _BRANCHES_MAX:
                return None
            branches = [one & other for one in branches for other in further]
        return branches
    if isinstance(tree, Or) and _names_key(tree, schema):
        alternatives: list[_Branch] = []
        for term in tree.terms:
            further = _spread(term, schema)
            if further is None or len(alternatives) + len(further) > _BRANCHES_MAX:
                return None
            alternatives.extend(further)
        return alternatives
    return [_Branch((), _negates_sort(tree, schema))]


def _check_types(leaf: _Leaf, schema: KeySchema) -> None:
    expected = schema.partition_type if leaf.name == schema.partition_name else schema.sort_type
    for value in leaf.values:
        kind = type_of(value)
        if kind not in ("S", "N", "B"):
            raise ValidationError(
                f"Key value must be of type S, N, or B. Key name: {leaf.name}, Key type: {kind}"
            )
        if kind != expected:
            raise ValidationError(
                "Key attribute's data type should match its data type in table's schema: "
                f"Key {leaf.name}"
            )
        if not value[kind]:
            what = "string" if kind == "S" else "binary"
            raise ValidationError(
                "One or more parameter values are not valid. The AttributeValue for a key attribute "
                f"cannot contain an empty {what} value. Key: {leaf.name}"
            )


# --- the key of one item -----------------------------------------------------------------------------------


def split_key(where: ConditionTree | None, schema: KeySchema) -> tuple[Item, ConditionTree | None]:
    """The key that the condition of a write pins, and what else it says.

    Raises:
        ValidationError: It does not say what each key attribute equals, or it says two things.
    """
    if where is None:
        raise ValidationError(_NO_FULL_KEY)
    key: Item = {}
    rest: list[ConditionTree] = []
    for term in where.terms if isinstance(where, And) else (where,):
        leaf = _leaf(term, schema)
        if leaf is None or leaf.operator != "=":
            rest.append(term)
            continue
        value = leaf.values[0]
        if not equal(key.setdefault(leaf.name, value), value):
            raise ValidationError(
                f"Multiple conditions on same key {leaf.name}. "
                "Only single item Update/Insert/Delete are supported"
            )
    if len(key) != len(schema.names):
        raise ValidationError(_NO_FULL_KEY)
    if not rest:
        return key, None
    return key, rest[0] if len(rest) == 1 else And(tuple(rest))


def whole_key(where: ConditionTree | None, schema: KeySchema) -> Item | None:
    """The key if the condition is that and nothing more, as a SELECT in a batch must have it; else None."""
    key: Item = {}
    terms = where.terms if isinstance(where, And) else (where,)
    for term in terms:
        leaf = None if term is None else _leaf(term, schema)
        if leaf is None or leaf.operator not in ("=", "IN") or len(leaf.values) != 1:
            return None
        if not equal(key.setdefault(leaf.name, leaf.values[0]), leaf.values[0]):
            return None
    return key if len(key) == len(schema.names) else None
