"""What an expression says, as immutable trees. They can be built without text, as legacy parameters need.

A tree holds resolved attribute names: `#name` has been looked up. Values stay placeholders (`Value`), so that
one tree serves all requests with the same text; a `Literal` holds a value itself, for trees made from legacy
parameters, whose values come with the request.

A tree made from text is bounded: at most `EXPRESSION_OPERATORS_MAX` operators and functions, so walking one
recursively, a frame or two per level, is safe. Whoever builds one without text keeps it shallow: And and Or
take any number of terms for that.
"""

from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

from datamodel.attribute_values import AttributeValue

ComparisonOperator: TypeAlias = OneOf["=", "<>", "<", "<=", ">", ">="]
ArithmeticOperator: TypeAlias = OneOf["+", "-"]
Section: TypeAlias = OneOf["SET", "REMOVE", "ADD", "DELETE"]


class Alias(str):
    """An element of a path that is written `#name` and not yet looked up. Only in trees being checked."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Path:
    """A document path.

    Attributes:
        elements: Attribute name first, then map keys (str) and list indexes (int).
    """

    elements: tuple[str | int, ...]

    def __str__(self) -> str:
        """As the service shows a path in errors: `[a, b, [0]]`."""
        shown = (f"[{part}]" if isinstance(part, int) else part for part in self.elements)
        return f"[{', '.join(shown)}]"


@dataclass(frozen=True, slots=True)
class Value:
    """A placeholder of `ExpressionAttributeValues`, `:` included."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A normal attribute value that is part of the tree."""

    value: AttributeValue


@dataclass(frozen=True, slots=True)
class Function:
    """A function call: a condition, or an operand (size, if_not_exists, list_append)."""

    name: str
    arguments: tuple["Operand", ...]


Operand: TypeAlias = Path | Value | Literal | Function


# --- conditions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`."""

    operator: ComparisonOperator
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Between:
    """`operand BETWEEN low AND high`, both bounds included."""

    operand: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True, slots=True)
class In:
    """`operand IN (candidate, …)`."""

    operand: Operand
    candidates: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All terms hold."""

    terms: tuple["ConditionTree", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one term holds."""

    terms: tuple["ConditionTree", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The term does not hold."""

    term: "ConditionTree"


ConditionTree: TypeAlias = Comparison | Between | In | Function | And | Or | Not


# --- updates -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`left + right` or `left - right`, on numbers."""

    operator: ArithmeticOperator
    left: Operand
    right: Operand


@dataclass(frozen=True, slots=True)
class Action:
    """One action of an update.

    Attributes:
        section: SET, REMOVE, ADD or DELETE.
        path: What it changes.
        value: The right side of SET, the operand of ADD and DELETE; None for REMOVE.
    """

    section: Section
    path: Path
    value: Operand | Arithmetic | None = None
