"""WHERE clauses to the condition trees of `datamodel.expressions`, and paths.

What the two languages call differently: IS MISSING is attribute_not_exists, IS with a type's name is
attribute_type, function names are in any letter case, and a function that is a condition may be compared with
true or false.
"""

from typing import Final, cast

from datamodel.attribute_values import AttributeValue
from datamodel.errors import ValidationError
from datamodel.expressions.syntax_tree import (
    And,
    Between,
    Comparison,
    ComparisonOperator,
    ConditionTree,
    Function,
    In,
    Literal,
    Not,
    Operand,
    Or,
    Path,
)
from datamodel.partiql.syntax import (
    Call,
    DeleteStatement,
    Expression,
    InsertStatement,
    ListLiteral,
    Name,
    Operation,
    Parameter,
    PathExpression,
    Scalar,
    SelectStatement,
    UpdateStatement,
    Wildcard,
)
from datamodel.partiql.values import Parameters, is_value, value_of

_OPERAND_COUNTS: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
}
_CONDITION_FUNCTIONS: Final = frozenset(_OPERAND_COUNTS) - {"size"}
_COMPARISONS: Final = frozenset(("=", "<>", "<", "<=", ">", ">="))
# Types of IS, and the attribute types that they mean.
_TYPES: Final = {
    "null": ("NULL",),
    "bool": ("BOOL",),
    "boolean": ("BOOL",),
    "string": ("S",),
    "char": ("S",),
    "character": ("S",),
    "varchar": ("S",),
    "character varying": ("S",),
    "smallint": ("N",),
    "int": ("N",),
    "integer": ("N",),
    "int4": ("N",),
    "int8": ("N",),
    "float": ("N",),
    "real": ("N",),
    "double precision": ("N",),
    "dec": ("N",),
    "decimal": ("N",),
    "numeric": ("N",),
    "blob": ("B",),
    "struct": ("M",),
    "tuple": ("M",),
    "list": ("L",),
    "bag": ("SS", "NS", "BS"),
}
# What errors call an expression that cannot stand where it stands.
_OPERATION_NAMES: Final = {
    "and": "And",
    "or": "Or",
    "not": "Not",
    "pos": "Pos",
    "neg": "Neg",
    "+": "Plus",
    "-": "Minus",
    "*": "Times",
    "/": "Divide",
    "%": "Modulo",
    "||": "Concat",
    "=": "Eq",
    "<>": "Ne",
    "<": "Lt",
    "<=": "Lte",
    ">": "Gt",
    ">=": "Gte",
    "is": "IsType",
    "in": "InCollection",
    "between": "Between",
    "like": "Like",
    "union": "Union",
    "except": "Except",
    "intersect": "Intersect",
}


def unsupported(expression: Expression) -> ValidationError:
    """The error for a well-formed expression that the service has no use for."""
    match expression:
        case Operation():
            name = _OPERATION_NAMES[expression.operator]
        case Name():
            name = "Id"
        case Scalar():
            name = "Missing" if expression.kind == "MISSING" else "Lit"
        case PathExpression():
            name = "Path"
        case SelectStatement():
            name = "Select"
        case InsertStatement() | UpdateStatement() | DeleteStatement():
            name = "Dml"
        case _:
            name = type(expression).__name__.removesuffix("Literal")
    return ValidationError(f"Unsupported operation: {name}")


def unrecognised(call: Call) -> ValidationError:
    """The error for a function that the service has not, or not here."""
    return ValidationError(f"Unrecognized function: {call.name} at {call.at}")


# --- paths -------------------------------------------------------------------------------------------------


def path_of(expression: Expression) -> Path:
    """A document path.

    Raises:
        ValidationError: It is none.
    """
    if isinstance(expression, Name):
        return Path((_named(expression.text),))
    if not isinstance(expression, PathExpression) or not isinstance(expression.root, Name):
        raise ValidationError(f"Unexpected path component at {expression.at}")
    elements: list[str | int] = [_named(expression.root.text)]
    for step in expression.steps:
        if isinstance(step, str):
            elements.append(_named(step))
        elif isinstance(step, Scalar) and step.kind == "N" and step.text.isdecimal():
            # Ten digits are more than any index has; the text of more must not even become a number.
            elements.append(int(step.text[:11]))
        elif isinstance(step, Scalar) and step.kind == "S":
            elements.append(_named(step.text))
        else:
            at = step.at if isinstance(step, Wildcard) else expression.at
            raise ValidationError(f"Unexpected path component at {at}")
    return Path(tuple(elements))


def _named(text: str) -> str:
    if not text:
        raise ValidationError("Path component cannot be an empty string")
    return text


# --- conditions --------------------------------------------------------------------------------------------


def condition_of(expression: Expression, parameters: Parameters) -> ConditionTree:
    """The condition that an expression is, its values put in.

    Operands are not checked for their types here; see `statements.check_condition`.

    Raises:
        ValidationError: The service has no such condition.
    """
    if isinstance(expression, Call):
        return _function_condition(expression, parameters)
    if not isinstance(expression, Operation):
        raise unsupported(expression)
    operands = expression.operands
    match expression.operator:
        case "and" | "or" as operator:
            terms = tuple([condition_of(operand, parameters) for operand in operands])
            return And(terms) if operator == "and" else Or(terms)
        case "not":
            return Not(condition_of(operands[0], parameters))
        case "is":
            return _type_test(operands[0], expression.type_name)
        case "in":
            return _membership(operands[0], operands[1], parameters)
        case "between":
            value, low, high = (_operand(operand, parameters) for operand in operands)
            return Between(value, low, high)
        case operator if operator in _COMPARISONS:
            left, right = operands
            return _comparison(cast("ComparisonOperator", operator), left, right, parameters)
        case _:
            raise unsupported(expression)


def _comparison(
    operator: ComparisonOperator, left: Expression, right: Expression, parameters: Parameters
) -> ConditionTree:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Call) and one.name in _CONDITION_FUNCTIONS and is_value(other):
            truth = value_of(other, parameters)
            if "BOOL" in truth and operator in ("=", "<>"):
                condition = _function_condition(one, parameters)
                return condition if truth["BOOL"] == (operator == "=") else Not(condition)
    return Comparison(operator, _operand(left, parameters), _operand(right, parameters))


def _operand(expression: Expression, parameters: Parameters) -> Operand:
    if is_value(expression):
        return Literal(value_of(expression, parameters))
    if isinstance(expression, Name | PathExpression):
        return path_of(expression)
    if isinstance(expression, Call):
        if expression.name != "size":
            raise unrecognised(expression)
        return _function(expression, parameters)
    raise unsupported(expression)


def _function_condition(call: Call, parameters: Parameters) -> Function:
    if call.name not in _CONDITION_FUNCTIONS:
        raise unsupported(call) if call.name == "size" else unrecognised(call)
    return _function(call, parameters)


def _function(call: Call, parameters: Parameters) -> Function:
    if len(call.arguments) != _OPERAND_COUNTS[call.name]:
        raise ValidationError(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {call.name}, number of operands: {len(call.arguments)}"
        )
    return Function(
        call.name, tuple([_operand(argument, parameters) for argument in call.arguments])
    )


def _type_test(operand: Expression, type_name: str) -> ConditionTree:
    path = path_of(operand)
    if type_name == "missing":
        return Function("attribute_not_exists", (path,))
    kinds = _TYPES.get(type_name)
    if kinds is None:
        raise ValidationError(f"Unsupported data type: {type_name.upper()}")
    tests = tuple([Function("attribute_type", (path, Literal({"S": kind}))) for kind in kinds])
    return tests[0] if len(tests) == 1 else Or(tests)


def _membership(operand: Expression, candidates: Expression, parameters: Parameters) -> In:
    left = _operand(operand, parameters)
    if isinstance(candidates, ListLiteral):
        found = tuple([_operand(candidate, parameters) for candidate in candidates.elements])
    elif isinstance(candidates, Parameter):
        value: AttributeValue = value_of(candidates, parameters)
        found = tuple([Literal(element) for element in value.get("L", (value,))])
    else:
        raise unsupported(candidates)
    if not found:
        raise ValidationError(
            "Incorrect number of operands for operator or function; "
            "operator or function: IN, number of operands: 0"
        )
    return In(left, found)
