"""Comparing the same large values many times over, as an expression of 4 KB can ask for, at the cost of once.

Equal values get equal *identities*: a scalar its type and content, a document or set a number. The identity of a
value is found once, from those of what it holds, and comparing two is then next to nothing. So a condition costs
about as much as the item and the values are large, however many operators it has.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import count
from typing import Final

from datamodel.attribute_values import SET_TYPES, AttributeValue
from datamodel.expressions.syntax_tree import (
    And,
    Comparison,
    ConditionTree,
    Function,
    In,
    Literal,
    Not,
    Operand,
    Or,
)

COMPARISONS_MAX: Final = 4
"""Comparisons for equality that a condition makes one by one; with more of them, values get identities."""


class RepeatedlyCompared(dict[str, AttributeValue]):
    """The values of a request, for a condition that compares again and again.

    Attributes:
        looked_at: Values whose identity had to be worked out so far, for tests.
    """

    __slots__ = (
        "_lists",
        "_literals",
        "_new_number",
        "_of_item",
        "_of_values",
        "_seen_in_item",
        "_seen_in_values",
        "looked_at",
    )

    def __init__(
        self, values: Mapping[str, AttributeValue], literals: list[AttributeValue]
    ) -> None:
        """Take the values of a request and those in its tree. They must not change from here on."""
        super().__init__(values)
        self.looked_at = 0
        self._literals = literals  # kept alive, because they are known by `id`
        self._new_number: Callable[[], int] = count().__next__
        # Numbers by structure, and by the `id` of a value: of what stays, and of the item at hand.
        self._of_values: dict[Hashable, int] = {}
        self._seen_in_values: dict[int, int] = {}
        self._of_item: dict[Hashable, int] = {}
        self._seen_in_item: dict[int, int] = {}
        self._lists: dict[int, frozenset[Hashable]] = {}
        for value in (*values.values(), *literals):
            self.identity(value)
        self._of_values, self._of_item = self._of_item, {}
        self._seen_in_values, self._seen_in_item = self._seen_in_item, {}

    def begin(self) -> None:
        """Forget the item before."""
        self._of_item.clear()
        self._seen_in_item.clear()
        self._lists.clear()

    def identity(self, value: AttributeValue) -> Hashable:
        """The same for equal values, and only for those. As deep as a value at most."""
        ((kind, content),) = value.items()
        if kind not in ("L", "M") and kind not in SET_TYPES:
            return kind, content
        number = self._seen_in_item.get(id(value))
        if number is None:
            number = self._seen_in_values.get(id(value))
        if number is not None:
            return number
        self.looked_at += 1
        identity = self.identity
        structure: Hashable
        if kind == "L":
            structure = kind, tuple([identity(element) for element in content])
        elif kind == "M":
            structure = (
                kind,
                frozenset([(name, identity(member)) for name, member in content.items()]),
            )
        else:
            structure = kind, frozenset(content)
        number = self._of_values.get(structure)
        if number is None:
            number = self._of_item.get(structure)
        if number is None:
            number = self._of_item[structure] = self._new_number()
        self._seen_in_item[id(value)] = number
        return number

    def equal(self, a: AttributeValue, b: AttributeValue) -> bool:
        """What `attribute_values.equal` says."""
        return self.identity(a) == self.identity(b)

    def list_contains(self, whole: AttributeValue, part: AttributeValue) -> bool:
        """Whether a list has an element equal to `part`."""
        elements = self._lists.get(id(whole))
        if elements is None:
            elements = self._lists[id(whole)] = frozenset(map(self.identity, whole["L"]))
        return self.identity(part) in elements


def is_repetitive(tree: ConditionTree) -> bool:
    """Whether a condition makes more than `COMPARISONS_MAX` comparisons for equality."""
    comparisons = 0
    for term in _terms(tree):
        if isinstance(term, In):
            comparisons += len(term.candidates)
        elif isinstance(term, Comparison):
            comparisons += term.operator in ("=", "<>")
        elif isinstance(term, Function):
            comparisons += term.name == "contains"
        if comparisons > COMPARISONS_MAX:
            return True
    return False


def literals_of(tree: ConditionTree) -> list[AttributeValue]:
    """The values that are part of a condition itself."""
    operands: list[Operand] = []
    for term in _terms(tree):
        if isinstance(term, In):
            operands += (term.operand, *term.candidates)
        elif isinstance(term, Comparison):
            operands += (term.left, term.right)
        elif isinstance(term, Function):
            operands += term.arguments
    return [operand.value for operand in operands if isinstance(operand, Literal)]


def _terms(tree: ConditionTree) -> Iterator[ConditionTree]:
    """Everything in a tree that is neither And, Or nor Not."""
    pending = [tree]
    while pending:
        term = pending.pop()
        if isinstance(term, Not):
            pending.append(term.term)
        elif isinstance(term, And | Or):
            pending.extend(term.terms)
        else:
            yield term
