"""Trees written as expression text, with placeholders for every name and value.

That is what storage nodes are asked: they know expressions, not statements. Reading the text gives the tree
again, save that Literals have become Values.
"""

from collections.abc import Collection, Iterable
from typing import assert_never

from datamodel.attribute_values import AttributeValue
from datamodel.expressions.syntax_tree import (
    Action,
    And,
    Arithmetic,
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
    Section,
    Value,
)

_SECTIONS: tuple[Section, ...] = ("SET", "REMOVE", "ADD", "DELETE")


class ExpressionWriter:
    """Writes any number of expressions that share their placeholders.

    Attributes:
        names: ExpressionAttributeNames of all that was written.
        values: ExpressionAttributeValues likewise.
        projected: Attributes that there are; None for all. Any other is written as one that no item has.
    """

    __slots__ = ("_aliases", "names", "projected", "values")

    def __init__(self, projected: Collection[str] | None = None) -> None:
        """Begin with nothing."""
        self.projected = projected
        self._aliases: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.values: dict[str, AttributeValue] = {}

    def condition(self, tree: ConditionTree) -> str:
        """A condition; at most two stack frames per level."""
        match tree:
            case And():
                return " AND ".join([self._term(term, Or) for term in tree.terms])
            case Or():
                return " OR ".join([self.condition(term) for term in tree.terms])
            case Not():
                return f"NOT {self._term(tree.term, (And, Or))}"
            case Comparison():
                return f"{self._operand(tree.left)} {tree.operator} {self._operand(tree.right)}"
            case Between():
                bounds = f"{self._operand(tree.low)} AND {self._operand(tree.high)}"
                return f"{self._operand(tree.operand)} BETWEEN {bounds}"
            case In():
                candidates = ",".join([self._operand(operand) for operand in tree.candidates])
                return f"{self._operand(tree.operand)} IN ({candidates})"
            case Function():
                return self._operand(tree)
            case _:
                assert_never(tree)

    def _term(self, term: ConditionTree, loose: type | tuple[type, ...]) -> str:
        text = self.condition(term)
        return f"({text})" if isinstance(term, loose) else text

    def update(self, actions: Iterable[Action]) -> str:
        """An update."""
        by_section: dict[Section, list[str]] = {}
        for action in actions:
            text = self.path(action.path)
            value = action.value
            if action.section == "SET":
                assert value is not None, "SET has a value"
                text += f" = {self._assigned(value)}"
            elif value is not None:
                text += f" {self._assigned(value)}"
            by_section.setdefault(action.section, []).append(text)
        return " ".join(
            [
                f"{section} {', '.join(by_section[section])}"
                for section in _SECTIONS
                if section in by_section
            ]
        )

    def projection(self, names: Iterable[str]) -> str:
        """A projection to whole attributes."""
        return ",".join([self._name(name) for name in names])

    def path(self, path: Path) -> str:
        """A document path."""
        text = ""
        elements = path.elements
        if self.projected is not None and elements[0] not in self.projected:
            # No item has an attribute without a name. The path goes on, so that different ones stay so.
            elements = ("", *elements)
        for element in elements:
            if isinstance(element, int):
                text += f"[{element}]"
            else:
                text += f".{self._name(element)}" if text else self._name(element)
        return text

    def _assigned(self, value: Operand | Arithmetic) -> str:
        if isinstance(value, Arithmetic):
            left, right = self._operand(value.left), self._operand(value.right)
            return f"{left} {value.operator} {right}"
        return self._operand(value)

    def _operand(self, operand: Operand) -> str:
        match operand:
            case Path():
                return self.path(operand)
            case Literal():
                placeholder = f":{len(self.values)}"
                self.values[placeholder] = operand.value
                return placeholder
            case Function():
                arguments = ", ".join([self._operand(argument) for argument in operand.arguments])
                return f"{operand.name}({arguments})"
            case Value():
                msg = "the placeholders are made here"
                raise AssertionError(msg)
            case _:
                assert_never(operand)

    def _name(self, name: str) -> str:
        alias = self._aliases.get(name)
        if alias is None:
            alias = self._aliases[name] = f"#{len(self.names)}"
            self.names[alias] = name
        return alias
