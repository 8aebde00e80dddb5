"""Conditions: ConditionExpression and FilterExpression, compiled to functions of an item and values.

Rules worth knowing: an operand that the item does not have makes every comparison false, except `<>`, which is
then true; values of different types are never equal and never ordered; NOT inverts whatever its term gives.

Evaluation is bounded: at most 300 operators, 100 candidates per IN, and no value is looked into more than a few
times (`repeated`), however often it is compared.

Source: behaviour of the service as observed by the authors of ScyllaDB's Alternator.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from datamodel.attribute_values import SET_TYPES, AttributeValue, binary, compare, equal
from datamodel.expressions.checker import Usage, check_condition
from datamodel.expressions.operands import Item, Values, compile_operand
from datamodel.expressions.parse_cache import ParseCache
from datamodel.expressions.parser import parse_condition_text
from datamodel.expressions.repeated import RepeatedlyCompared, is_repetitive, literals_of
from datamodel.expressions.syntax_tree import (
    And,
    Between,
    Comparison,
    ConditionTree,
    Function,
    In,
    Not,
    Path,
    Value,
)

Test: TypeAlias = Callable[[Item, Values], bool]

_NO_ITEM: Final[dict[str, AttributeValue]] = {}
_SET_TYPE_OF: Final = {"S": "SS", "N": "NS", "B": "BS"}
NO_USAGE: Final = Usage(frozenset(), frozenset(), (), (), ())


class Condition:
    """A checked condition. Immutable; shared by all requests with the same text and names.

    Attributes:
        names_used: Placeholders for names in it, `#` included.
        values_used: Placeholders for values in it, `:` included.
        top_level_attributes: The item's attributes that it reads, each once, in the order of the text.
        nested_attributes: Those of them into which a path leads.
    """

    __slots__ = (
        "_checks",
        "_literals",
        "_test",
        "names_used",
        "nested_attributes",
        "top_level_attributes",
        "values_used",
    )

    def __init__(self, tree: ConditionTree | None, usage: Usage = NO_USAGE) -> None:
        """A condition from a tree, checked by `checker` or built by hand.

        Args:
            tree: None if a check on the values always fails, so that it is never evaluated.
            usage: What the tree uses.
        """
        self._test = _never if tree is None else compile_condition(tree)
        # Set for a condition that compares again and again: the values in its tree.
        self._literals = None if tree is None or not is_repetitive(tree) else literals_of(tree)
        self._checks = usage.checks
        self.names_used = usage.names_used
        self.values_used = usage.values_used
        self.top_level_attributes = usage.top_level_attributes
        self.nested_attributes = usage.nested_attributes

    def check_values(self, values: Values) -> None:
        """Check the request's values against the expression. To be called before the first `evaluate`.

        Raises:
            ValidationError: A value is not defined or has a type that an operator or function refuses, or an
                error comes after such a check in the service's order.
        """
        for check in self._checks:
            check(values)

    def prepare(self, values: Values) -> Values:
        """What to pass to `evaluate` for the values of a request. It saves work if there are several items."""
        return values if self._literals is None else RepeatedlyCompared(values, self._literals)

    def evaluate(self, item: Item | None, values: Values) -> bool:
        """Whether the condition holds.

        Args:
            item: A normal item; None if there is none.
            values: Normal values for `values_used`, checked by `check_values`; may come from `prepare`.
        """
        if self._literals is not None:
            if type(values) is not RepeatedlyCompared:
                values = RepeatedlyCompared(values, self._literals)
            values.begin()
        return self._test(_NO_ITEM if item is None else item, values)


def _never(_item: Item, _values: Values) -> bool:
    msg = "the values were not checked"
    raise AssertionError(msg)


def compile_condition(tree: ConditionTree) -> Test:
    """A condition as a function. At most one stack frame per level of the tree when called."""
    if isinstance(tree, Comparison):
        return _compile_comparison(tree)
    if isinstance(tree, Function):
        return _FUNCTIONS[tree.name](tree)
    if isinstance(tree, Between):
        return _compile_between(tree)
    if isinstance(tree, In):
        return _compile_in(tree)
    if isinstance(tree, Not):
        test = compile_condition(tree.term)

        def holds_not(item: Item, values: Values) -> bool:
            return not test(item, values)

        return holds_not
    tests = []
    for term in tree.terms:
        tests.append(compile_condition(term))  # noqa: PERF401  one stack frame less per level
    return _all_of(tuple(tests)) if isinstance(tree, And) else _any_of(tuple(tests))


def _all_of(tests: tuple[Test, ...]) -> Test:
    if len(tests) == 2:
        first, second = tests

        def both(item: Item, values: Values) -> bool:
            return first(item, values) and second(item, values)

        return both

    def every(item: Item, values: Values) -> bool:
        for test in tests:  # noqa: SIM110  a generator would take one more stack frame
            if not test(item, values):
                return False
        return True

    return every


def _any_of(tests: tuple[Test, ...]) -> Test:
    def some(item: Item, values: Values) -> bool:
        for test in tests:  # noqa: SIM110  a generator would take one more stack frame
            if test(item, values):
                return True
        return False

    return some


def _compile_comparison(tree: Comparison) -> Test:
    left, right = compile_operand(tree.left), compile_operand(tree.right)
    if tree.operator == "=":
        if (
            isinstance(tree.left, Path)
            and len(tree.left.elements) == 1
            and isinstance(tree.right, Value)
        ):
            return _attribute_equals(str(tree.left.elements[0]), tree.right.name)

        def equals(item: Item, values: Values) -> bool:
            a, b = left(item, values), right(item, values)
            return a is not None and b is not None and _equal(a, b, values)

        return equals
    if tree.operator == "<>":

        def differs(item: Item, values: Values) -> bool:
            a, b = left(item, values), right(item, values)
            return a is None or b is None or not _equal(a, b, values)

        return differs
    accepts = _ORDERS[tree.operator]

    def is_ordered(item: Item, values: Values) -> bool:
        a, b = left(item, values), right(item, values)
        if a is None or b is None:
            return False
        order = compare(a, b)
        return order is not None and accepts(order)

    return is_ordered


def _attribute_equals(name: str, placeholder: str) -> Test:
    """`name = :value`, the most frequent comparison."""

    def equals(item: Item, values: Values) -> bool:
        value = item.get(name)
        return value is not None and _equal(value, values[placeholder], values)

    return equals


def _equal(a: AttributeValue, b: AttributeValue, values: Values) -> bool:
    return values.equal(a, b) if type(values) is RepeatedlyCompared else equal(a, b)


_ORDERS: Final[Mapping[str, Callable[[int], bool]]] = {
    "<": (0).__gt__,
    "<=": (0).__ge__,
    ">": (0).__lt__,
    ">=": (0).__le__,
}


def _compile_between(tree: Between) -> Test:
    operand = compile_operand(tree.operand)
    low, high = compile_operand(tree.low), compile_operand(tree.high)

    def is_between(item: Item, values: Values) -> bool:
        value, lower, upper = operand(item, values), low(item, values), high(item, values)
        if value is None or lower is None or upper is None:
            return False
        from_lower, to_upper = compare(lower, value), compare(value, upper)
        return from_lower is not None and to_upper is not None and from_lower <= 0 and to_upper <= 0

    return is_between


def _compile_in(tree: In) -> Test:
    operand = compile_operand(tree.operand)
    candidates = tuple([compile_operand(candidate) for candidate in tree.candidates])

    def is_in(item: Item, values: Values) -> bool:
        value = operand(item, values)
        if value is None:
            return False
        for candidate in candidates:
            other = candidate(item, values)
            if other is not None and _equal(value, other, values):
                return True
        return False

    return is_in


# --- functions ---------------------------------------------------------------------------------------------


def _compile_exists(function: Function) -> Test:
    path = function.arguments[0]
    if isinstance(path, Path) and len(path.elements) == 1:
        name = str(path.elements[0])

        def has_attribute(item: Item, _values: Values) -> bool:
            return name in item

        return has_attribute
    get = compile_operand(path)

    def exists(item: Item, values: Values) -> bool:
        return get(item, values) is not None

    return exists


def _compile_not_exists(function: Function) -> Test:
    path = function.arguments[0]
    if isinstance(path, Path) and len(path.elements) == 1:
        name = str(path.elements[0])

        def lacks_attribute(item: Item, _values: Values) -> bool:
            return name not in item

        return lacks_attribute
    get = compile_operand(path)

    def not_exists(item: Item, values: Values) -> bool:
        return get(item, values) is None

    return not_exists


def _compile_attribute_type(function: Function) -> Test:
    operand, type_name = map(compile_operand, function.arguments)

    def has_type(item: Item, values: Values) -> bool:
        value, wanted = operand(item, values), type_name(item, values)
        return value is not None and wanted is not None and wanted["S"] in value

    return has_type


def _compile_begins_with(function: Function) -> Test:
    operand, prefix = map(compile_operand, function.arguments)

    def begins_with(item: Item, values: Values) -> bool:
        value, start = operand(item, values), prefix(item, values)
        if value is None or start is None:
            return False
        if "S" in value and "S" in start:
            text: str = value["S"]
            return text.startswith(start["S"])
        return "B" in value and "B" in start and binary(value).startswith(binary(start))

    return begins_with


def _compile_contains(function: Function) -> Test:
    container, operand = map(compile_operand, function.arguments)

    def holds(item: Item, values: Values) -> bool:
        whole, part = container(item, values), operand(item, values)
        if whole is None or part is None:
            return False
        if type(values) is RepeatedlyCompared and "L" in whole:
            return values.list_contains(whole, part)
        return contains(whole, part)

    return holds


def contains(whole: AttributeValue, part: AttributeValue) -> bool:
    """Whether a string or binary has the other as a part, or a set or list has it as an element."""
    ((kind, content),) = whole.items()
    ((part_kind, part_content),) = part.items()
    if kind == "L":
        return _list_contains(content, part, part_kind)
    if kind in SET_TYPES:
        return _SET_TYPE_OF.get(part_kind) == kind and part_content in content
    if kind != part_kind:
        return False
    if kind == "S":
        return part_content in content
    return kind == "B" and binary(part) in binary(whole)


def _list_contains(elements: Any, part: AttributeValue, part_kind: str) -> bool:
    if part in elements:
        return True
    # Only what has a set in it can be equal without being written the same.
    if part_kind not in ("M", "L") and part_kind not in SET_TYPES:
        return False
    return any(part_kind in element and equal(element, part) for element in elements)


_FUNCTIONS: Final[Mapping[str, Callable[[Function], Test]]] = {
    "attribute_exists": _compile_exists,
    "attribute_not_exists": _compile_not_exists,
    "attribute_type": _compile_attribute_type,
    "begins_with": _compile_begins_with,
    "contains": _compile_contains,
}


# --- parsing -----------------------------------------------------------------------------------------------


def _parse(kind: str, text: str, names: Mapping[str, str]) -> Condition:
    return Condition(*check_condition(kind, parse_condition_text(kind, text), names))


_cache = ParseCache(_parse)


def parse_condition(
    text: str, names: Mapping[str, str] | None, kind: str = "ConditionExpression"
) -> Condition:
    """Parse and check a condition.

    Errors that depend on values, and some that the service reports after those, are left to
    `Condition.check_values`: calling it right after this gives the service's error in every case.

    Args:
        text: The expression.
        names: `ExpressionAttributeNames`.
        kind: Name of the request member (`ConditionExpression` or `FilterExpression`), for errors.

    Raises:
        ValidationError: With the service's text.
    """
    return _cache.get(kind, text, names)
