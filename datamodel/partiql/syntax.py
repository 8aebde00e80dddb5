"""What a statement says, as immutable trees, before it is known to make sense.

Chains of AND and of OR are one node with many operands. Chains of arithmetic and comparisons lean to the left
as deep as they are long: nobody walks those recursively, since no statement that makes sense has them. All
other nesting is bounded by the parser.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from datamodel.partiql.tokens import Position


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier: an attribute or a table."""

    text: str
    at: Position


@dataclass(frozen=True, slots=True)
class Scalar:
    """A literal: S with the string, N with the number as written, BOOL `true` or `false`, NULL, MISSING."""

    kind: Literal["S", "N", "BOOL", "NULL", "MISSING"]
    text: str
    at: Position


@dataclass(frozen=True, slots=True)
class Parameter:
    """A question mark; `index` counts from 0 in the order of the text."""

    index: int
    at: Position


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`*` in a path, after a dot or in brackets."""

    at: Position


Step: TypeAlias = "str | Expression | Wildcard"


@dataclass(frozen=True, slots=True)
class PathExpression:
    """`root.step["step"][0]`: a str is a step after a dot, an expression one in brackets."""

    root: "Expression"
    steps: tuple[Step, ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Call:
    """A function call; the name in lower case."""

    name: str
    arguments: tuple["Expression", ...]
    at: Position


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[a, b]`, or several expressions in parentheses."""

    elements: tuple["Expression", ...]
    at: Position


@dataclass(frozen=True, slots=True)
class BagLiteral:
    """`<<a, b>>`: a set."""

    elements: tuple["Expression", ...]
    at: Position


@dataclass(frozen=True, slots=True)
class DateLiteral:
    """`DATE '…'`: well formed, but no attribute has such a value."""

    at: Position


@dataclass(frozen=True, slots=True)
class StructLiteral:
    """`{'key': value}`: a map."""

    fields: tuple[tuple["Expression", "Expression"], ...]
    at: Position


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its operands, such as `and` with at least two.

    `is` has a type's name as `type_name` and one operand; negated operators are `not` around the plain one.
    """

    operator: str
    operands: tuple["Expression", ...]
    at: Position
    type_name: str = ""


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """A term of ORDER BY."""

    expression: "Expression"
    descending: bool


@dataclass(frozen=True, slots=True)
class UnsupportedClause:
    """A clause that PartiQL has and the service has not, such as LIMIT."""

    name: str
    at: Position


@dataclass(frozen=True, slots=True)
class SelectStatement:
    """SELECT; `items` is None for `*`."""

    items: tuple["Expression", ...] | None
    sources: tuple["Expression", ...]
    where: "Expression | None"
    order_by: tuple[OrderTerm, ...]
    has_alias: bool
    unsupported: UnsupportedClause | None
    at: Position


@dataclass(frozen=True, slots=True)
class Assignment:
    """SET target = value, or REMOVE target when there is no value."""

    target: "Expression"
    value: "Expression | None"


@dataclass(frozen=True, slots=True)
class InsertStatement:
    """INSERT INTO target VALUE value."""

    target: "Expression"
    value: "Expression"
    is_bag: bool
    returning: str
    at: Position


@dataclass(frozen=True, slots=True)
class UpdateStatement:
    """UPDATE, in either order of its clauses; `returning` is empty or such as `all old`."""

    targets: tuple["Expression", ...]
    assignments: tuple[Assignment, ...]
    where: "Expression | None"
    returning: str
    has_alias: bool
    at: Position


@dataclass(frozen=True, slots=True)
class DeleteStatement:
    """DELETE."""

    target: "Expression"
    where: "Expression | None"
    returning: str
    has_alias: bool
    at: Position


StatementSyntax: TypeAlias = SelectStatement | InsertStatement | UpdateStatement | DeleteStatement
Expression: TypeAlias = (
    Name
    | Scalar
    | Parameter
    | PathExpression
    | Call
    | ListLiteral
    | BagLiteral
    | DateLiteral
    | StructLiteral
    | Operation
    | StatementSyntax
)
