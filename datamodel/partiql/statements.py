"""Statements as the service understands them, checked as far as that goes without the table.

`prepare_statement` takes a statement's text and parameters to one of `Select`, `Insert`, `Update`, `Delete`.
The order of complaints is the service's: syntax, parameters, then what the statement says, and only after that
whether the table exists.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from datamodel.attribute_values import AttributeValue
from datamodel.errors import ValidationError
from datamodel.expressions import parse_condition, parse_update
from datamodel.expressions.syntax_tree import (
    Action,
    Arithmetic,
    ArithmeticOperator,
    ConditionTree,
    Function,
    Literal,
    Operand,
    Path,
)
from datamodel.items import Item, normalise_item
from datamodel.limits import TABLE_NAME_LENGTH_MAX, TABLE_NAME_LENGTH_MIN
from datamodel.partiql.conditions import condition_of, path_of, unrecognised, unsupported
from datamodel.partiql.parser import parse_statement
from datamodel.partiql.rendering import ExpressionWriter
from datamodel.partiql.syntax import (
    BagLiteral,
    Call,
    DeleteStatement,
    Expression,
    InsertStatement,
    Name,
    Operation,
    Parameter,
    PathExpression,
    SelectStatement,
    StructLiteral,
    UpdateStatement,
)
from datamodel.partiql.values import PARAMETER_COUNT, Parameters, fields_of, is_value, value_of

_ALIASING: Final = "Aliasing is not supported"
_TYPE_NAMES: Final = "{B,NULL,SS,BOOL,L,BS,N,NS,S,M}"
_TYPE_NAMES_HERE: Final = "{N,BS,L,B,NULL,M,S,SS,NS,BOOL}"
_ON_INDEX: Final = "This operation is not supported on an index"
_ONE_NAME: Final = (
    "FROM clause may only contain a single table name in data manipulation statements"
)
_NAME_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
)


@dataclass(frozen=True, slots=True)
class Column:
    """What a SELECT returns of each item: the value at `path`, under `name`."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Select:
    """A read.

    Attributes:
        table: Name or ARN.
        index: Name of the index to read; None for the table itself.
        columns: What to return; None for whole items.
        where: The condition; None for every item.
        order_by: (attribute, whether descending) for each term of ORDER BY.
        nested_attributes: Attributes into which paths of the condition lead.
    """

    table: str
    index: str | None
    columns: tuple[Column, ...] | None
    where: ConditionTree | None
    order_by: tuple[tuple[str, bool], ...]
    nested_attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new item; `size` in bytes as the service counts them."""

    table: str
    item: Item
    size: int


@dataclass(frozen=True, slots=True)
class Update:
    """A change of one existing item; `returning` is empty or such as `all old`."""

    table: str
    actions: tuple[Action, ...]
    where: ConditionTree | None
    returning: str
    nested_attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """A removal of one item."""

    table: str
    where: ConditionTree | None
    returning: str
    nested_attributes: tuple[str, ...]


Statement: TypeAlias = Select | Insert | Update | Delete


def prepare_statement(text: str, parameters: Callable[[], Sequence[AttributeValue]]) -> Statement:
    """What a statement asks for.

    Args:
        text: The statement.
        parameters: Gives the request's parameters as normal values; called once the text is known to be well
            formed.

    Raises:
        SerializationError, ValidationError: With the service's text.
    """
    tree, count = parse_statement(text)
    values = parameters()
    if len(values) < count:
        raise ValidationError(PARAMETER_COUNT)
    match tree:
        case SelectStatement():
            return _select(tree, values)
        case InsertStatement():
            return _insert(tree, values)
        case UpdateStatement() if tree.targets:
            return _update(tree, values)
        case DeleteStatement():
            return _delete(tree, values)
        case Call(name="exists"):
            raise ValidationError("EXISTS can only be used in ExecuteTransaction write requests.")
        case _:
            raise unsupported(tree)


def check_condition(tree: ConditionTree | None) -> tuple[str, ...]:
    """Check a condition as an expression; returns the attributes into which its paths lead.

    Raises:
        ValidationError: An operand has the wrong type, there are too many operators, and so on.
    """
    if tree is None:
        return ()
    writer = ExpressionWriter()
    text = writer.condition(tree)
    try:
        condition = parse_condition(text, writer.names)
        condition.check_values(writer.values)
    except ValidationError as error:
        raise _without_member(error) from error
    return condition.nested_attributes


def _without_member(error: ValidationError) -> ValidationError:
    """The same error as statements have it: they have no request member to name."""
    message = error.message
    for member in ("ConditionExpression", "UpdateExpression"):
        message = message.removeprefix(f"Invalid {member}: ")
    return ValidationError(message.replace(_TYPE_NAMES, _TYPE_NAMES_HERE))


# --- tables ------------------------------------------------------------------------------------------------


def _table_of(source: Expression) -> tuple[str, str | None]:
    """Table and index that a path names."""
    if isinstance(source, Name):
        components: list[str] = [source.text]
    elif isinstance(source, PathExpression) and isinstance(source.root, Name):
        components = [source.root.text]
        for step in source.steps:
            if not isinstance(step, str):
                raise ValidationError(f"Unexpected path component at {source.at}")
            components.append(step)
    else:
        raise ValidationError(f"Unexpected path component at {source.at}")
    if len(components) > 2:
        raise ValidationError("A path may contain at most 2 components in the FROM clause")
    if not all(components):
        raise ValidationError("Path component cannot be an empty string")
    table = components[0]
    is_arn = table.startswith("arn:")
    if not is_arn and not (
        TABLE_NAME_LENGTH_MIN <= len(table) <= TABLE_NAME_LENGTH_MAX
        and _NAME_CHARACTERS.issuperset(table)
    ):
        raise ValidationError(
            "Table name should be within the length [3, 255] and only contain "
            "'a-z', 'A-Z', '0-9', '-', '_', '.'."
        )
    return table, components[1] if len(components) > 1 else None


def _written_table(
    targets: Sequence[Expression], *, has_alias: bool = False, is_insert: bool = False
) -> str:
    if len(targets) != 1:
        raise ValidationError("Only one table can be written by a statement")
    table, index = _table_of(targets[0])
    if has_alias:
        raise ValidationError(_ALIASING)
    if index is not None:
        raise ValidationError(f"{_ONE_NAME} at {targets[0].at}" if is_insert else _ON_INDEX)
    return table


# --- SELECT ------------------------------------------------------------------------------------------------


def _select(tree: SelectStatement, parameters: Parameters) -> Select:
    if tree.unsupported is not None:
        clause = tree.unsupported
        raise ValidationError(f"Unsupported clause: {clause.name} at {clause.at}")
    if len(tree.sources) > 1:
        raise ValidationError("Only select from a single table or index is supported.")
    table, index = _table_of(tree.sources[0])
    if tree.has_alias:
        raise ValidationError(_ALIASING)
    columns = None
    if tree.items is not None:
        columns = tuple([_column(item) for item in tree.items])
        _check_distinct(columns)
    where = None if tree.where is None else condition_of(tree.where, parameters)
    nested = check_condition(where)
    order_by = []
    for term in tree.order_by:
        if not isinstance(term.expression, Name):
            raise ValidationError(f"Unexpected path component at {term.expression.at}")
        order_by.append((term.expression.text, term.descending))
    if order_by and where is None:
        raise ValidationError("Must have WHERE clause in the statement when using ORDER BY clause.")
    return Select(table, index, columns, where, tuple(order_by), nested)


def _check_distinct(columns: Sequence[Column]) -> None:
    names: set[str] = set()
    for column in columns:
        if column.name in names:
            raise ValidationError(f"Duplicate identifiers in select clause: {column.name}")
        names.add(column.name)


def _column(item: Expression) -> Column:
    path = path_of(item)
    name = ""
    for element in path.elements:
        name = f"{name}[{element}]" if isinstance(element, int) else element
    return Column(name, path)


# --- writes ------------------------------------------------------------------------------------------------


def _insert(tree: InsertStatement, parameters: Parameters) -> Insert:
    if tree.returning:
        raise ValidationError(
            f"Invalid returning clause: RETURNING {tree.returning.upper()} *. "
            "RETURNING is not allowed in INSERT statements."
        )
    table = _written_table((tree.target,), is_insert=True)
    value = tree.value
    if tree.is_bag or not isinstance(value, StructLiteral | Parameter):
        raise unsupported(value)
    if isinstance(value, StructLiteral):
        fields = fields_of(value, parameters)
    else:
        given = value_of(value, parameters)
        if "M" not in given:
            raise unsupported(value)
        fields = given["M"]
    item, size = normalise_item(fields)
    return Insert(table, item, size)


def _update(tree: UpdateStatement, parameters: Parameters) -> Update:
    table = _written_table(tree.targets, has_alias=tree.has_alias)
    actions = tuple(
        [
            Action("REMOVE", path_of(assignment.target))
            if assignment.value is None
            else _assignment(path_of(assignment.target), assignment.value, parameters)
            for assignment in tree.assignments
        ]
    )
    where = None if tree.where is None else condition_of(tree.where, parameters)
    writer = ExpressionWriter()
    text = writer.update(actions)
    try:
        update = parse_update(text, writer.names)
        update.check_values(writer.values)
    except ValidationError as error:
        raise _without_member(error) from error
    nested = (*update.nested_attributes, *check_condition(where))
    return Update(table, actions, where, tree.returning, nested)


def _assignment(path: Path, value: Expression, parameters: Parameters) -> Action:
    if isinstance(value, Call) and value.name in ("set_add", "set_delete"):
        return _set_change(path, value, parameters)
    if isinstance(value, Operation):
        if value.operator not in ("+", "-"):
            raise unsupported(value)
        left, right = (_assigned(operand, parameters) for operand in value.operands)
        operator: ArithmeticOperator = "+" if value.operator == "+" else "-"
        return Action("SET", path, Arithmetic(operator, left, right))
    return Action("SET", path, _assigned(value, parameters))


def _assigned(value: Expression, parameters: Parameters) -> Operand:
    if is_value(value):
        return Literal(value_of(value, parameters))
    if isinstance(value, Name | PathExpression):
        return path_of(value)
    if isinstance(value, Call):
        if value.name != "list_append":
            raise unrecognised(value)
        if len(value.arguments) != 2:
            raise ValidationError(
                "Incorrect number of operands for operator or function; "
                f"operator or function: list_append, number of operands: {len(value.arguments)}"
            )
        first, second = (_assigned(argument, parameters) for argument in value.arguments)
        return Function("list_append", (first, second))
    raise unsupported(value)


def _set_change(path: Path, call: Call, parameters: Parameters) -> Action:
    """`a = set_add(a, …)`: the ADD and DELETE of expressions."""
    name = call.name.upper()
    if len(call.arguments) != 2:
        raise ValidationError(f"{name} must have exactly two arguments at {call.at}")
    first, second = call.arguments
    if not isinstance(first, Name | PathExpression) or path_of(first) != path:
        raise ValidationError(
            f"The first argument to {name} must equal the assignment value at {call.at}"
        )
    value = None
    if isinstance(second, BagLiteral | Parameter):
        value = value_of(second, parameters)
    if value is None or not {"SS", "NS", "BS"} & value.keys():
        raise ValidationError(
            f"The second argument to {name} must be a value with type SET at {first.at}"
        )
    return Action("ADD" if name == "SET_ADD" else "DELETE", path, Literal(value))


def _delete(tree: DeleteStatement, parameters: Parameters) -> Delete:
    table = _written_table((tree.target,), has_alias=tree.has_alias)
    if tree.returning not in ("", "all old"):
        raise ValidationError(
            f"Invalid returning clause: RETURNING {tree.returning.upper()} *. "
            "Only RETURNING ALL OLD * is allowed in DELETE statements."
        )
    where = None if tree.where is None else condition_of(tree.where, parameters)
    return Delete(table, where, tree.returning, check_condition(where))
