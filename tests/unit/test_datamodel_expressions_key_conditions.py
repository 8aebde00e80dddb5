"""Key conditions: what a Query asks for, and every way to ask wrongly."""

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import parse_key_condition, parse_key_expression
from datamodel.key_encoding import KeySchema, SortCondition

TABLE = KeySchema("p", "S", "c", "N")
TEXT = KeySchema("p", "S", "c", "S")
BINARY = KeySchema("p", "B", "c", "B")
HASH_ONLY = KeySchema("p", "S")
V = {
    ":p": {"S": "x"},
    ":1": {"N": "1"},
    ":2": {"N": "2"},
    ":s": {"S": "a"},
    ":b": {"B": "YQ=="},
    ":e": {"S": ""},
    ":eb": {"B": ""},
    ":l": {"L": []},
}
N = {"#p": "p", "#c": "c"}
ONE, TWO = V[":1"], V[":2"]


@pytest.mark.parametrize(
    ("expression", "op", "operands"),
    [
        ("p = :p", None, ()),
        (":p = p", None, ()),
        ("(p = :p)", None, ()),
        ("p = :p AND c = :1", "=", (ONE,)),
        ("c = :1 AND p = :p", "=", (ONE,)),
        ("p = :p and c < :1", "<", (ONE,)),
        ("p = :p AND c <= :1", "<=", (ONE,)),
        ("p = :p AND c > :1", ">", (ONE,)),
        ("p = :p AND c >= :1", ">=", (ONE,)),
        (":p = p AND :1 = c", "=", (ONE,)),
        ("p = :p AND :1 < c", ">", (ONE,)),
        ("p = :p AND :1 <= c", ">=", (ONE,)),
        ("p = :p AND :1 > c", "<", (ONE,)),
        ("p = :p AND :1 >= c", "<=", (ONE,)),
        ("p = :p AND c BETWEEN :1 AND :2", "BETWEEN", (ONE, TWO)),
        ("c BeTwEeN :1 aNd :2 AnD p = :p", "BETWEEN", (ONE, TWO)),
        ("#p = :p AND #c = :1", "=", (ONE,)),
        ("((c = :1) AND (p = :p))", "=", (ONE,)),
        ("((p) = (:p)) AND (c) BETWEEN (:1) AND (:2)", "BETWEEN", (ONE, TWO)),
    ],
)
def test_key_conditions(expression, op, operands):
    condition = parse_key_condition(expression, N, V, TABLE)
    assert condition.partition_value == {"S": "x"}
    assert condition.sort == (None if op is None else SortCondition(op, operands))


def test_prefixes():
    condition = parse_key_condition("p = :p AND begins_with(c, :s)", None, V, TEXT)
    assert condition.sort == SortCondition("begins_with", ({"S": "a"},))
    condition = parse_key_condition("p = :b AND begins_with(c, :b)", None, V, BINARY)
    assert condition.sort == SortCondition("begins_with", ({"B": "YQ=="},))
    assert condition.partition_value == {"B": "YQ=="}


def test_usage():
    condition = parse_key_condition("#p = :p AND #c = :1", N, V, TABLE)
    assert condition.names_used == {"#p", "#c"}
    assert condition.values_used == {":p", ":1"}


OPERATOR = "Invalid operator used in KeyConditionExpression: "
MULTIPLE = (
    "Invalid condition in KeyConditionExpression: Multiple attribute names used in one condition"
)
NESTED = "Invalid KeyConditionExpression: KeyConditionExpressions cannot have conditions on nested attributes"
OPERATIONS = "KeyConditionExpressions cannot contain nested operations"
TOO_MANY = "The number of query conditions ({}) exceeds the number of key attributes defined in the schema ({})"
TWICE = "Invalid KeyConditionExpression: KeyConditionExpressions must only contain one condition per key"
NO_KEY = "Invalid condition in KeyConditionExpression: No key attribute specified"
FIRST = (
    "Invalid condition in KeyConditionExpression: "
    "{} operator must have the key attribute as its first operand"
)
MISSED = "Query condition missed key schema element: "
NOT_SUPPORTED = "Query key condition not supported"
TYPE = (
    "One or more parameter values were invalid: Condition parameter type does not match schema type"
)
EMPTY = (
    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot "
    "contain an empty {} value. Key: {}"
)
INVALID = "Invalid KeyConditionExpression: "

ERRORS = [
    # as any condition
    ("", TABLE, INVALID + "The expression can not be empty;"),
    ("p = :p AND", TABLE, INVALID + 'Syntax error; token: "<EOF>", near: "AND"'),
    ("p", TABLE, INVALID + 'Syntax error; token: "<EOF>", near: "p"'),
    ("((p = :p))", TABLE, INVALID + "The expression has redundant parentheses;"),
    ("((c=:1) AND ((p=:p)))", TABLE, INVALID + "The expression has redundant parentheses;"),
    ("name = :p", TABLE, INVALID + "Attribute name is a reserved keyword; reserved keyword: name"),
    ("p = :p AND dog(c, :1)", TABLE, INVALID + "Invalid function name; function: dog"),
    (
        "p = :x",
        TABLE,
        INVALID
        + "An expression attribute value used in expression is not defined; attribute value: :x",
    ),
    (
        "#x = :p",
        TABLE,
        INVALID
        + "An expression attribute name used in the document path is not defined; attribute name: #x",
    ),
    (
        "p = :p AND begins_with(c, :1)",
        TABLE,
        INVALID + "Incorrect operand type for operator or function; "
        "operator or function: begins_with, operand type: N",
    ),
    (
        "p = :p AND c BETWEEN :2 AND :1",
        TABLE,
        INVALID + "The BETWEEN operator requires upper bound to be greater than or equal to lower "
        "bound; lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
    ),
    (
        "attribute_type(p, c)",
        TABLE,
        INVALID + "Incorrect operand type for operator or function; operator or function: "
        "attribute_type, operand type: {NS,SS,L,BS,N,M,B,BOOL,NULL,S}",
    ),
    # operators
    ("p = :p OR c = :1", TABLE, OPERATOR + "OR"),
    ("a > b and size(b) > c or a > c", TABLE, OPERATOR + "OR"),
    ("NOT c = :1 AND p = :p", TABLE, OPERATOR + "NOT"),
    ("p = :p AND c <> :1", TABLE, OPERATOR + "<>"),
    ("p = :p AND c IN (:1)", TABLE, OPERATOR + "IN"),
    ("a in (b, size(c), d)", TABLE, OPERATOR + "IN"),
    ("attribute_exists(p)", TABLE, OPERATOR + "attribute_exists"),
    ("attribute_not_exists(p)", TABLE, OPERATOR + "attribute_not_exists"),
    ("attribute_type(p, :type)", TABLE, OPERATOR + "attribute_type"),
    ("contains(a.d, b)", TABLE, OPERATOR + "contains"),
    # operands
    (":p between size(b) and size(a) and b > :1", TABLE, FIRST.format("BETWEEN")),
    ("begins_with(:s, b) and a > :1", TABLE, FIRST.format("begins_with")),
    ("size(b) > a AND a.b > b AND b > c", TABLE, OPERATIONS),
    ("a > size(b.d)", TABLE, OPERATIONS),
    ("a between size(b) and size(d)", TABLE, OPERATIONS),
    ("b > a.b", TABLE, MULTIPLE),
    ("b between c[1] and d", TABLE, MULTIPLE),
    ("a between b and size(d)", TABLE, MULTIPLE),
    ("begins_with(a, b)", TABLE, MULTIPLE),
    ("p = c", TABLE, MULTIPLE),
    ("b.d > a AND c.d > e.f", TABLE, NESTED),
    ("b[0] > a", TABLE, NESTED),
    ("p = :p AND a.b < :1", TABLE, NESTED),
    (":p > :s AND a < :s", TABLE, NO_KEY),
    (":1 > b AND :1 < :2", TABLE, NO_KEY),
    ("b > :1 AND b < :2 and c = :1 and d = :1", TABLE, TWICE),
    ("(a > :1 and b > :1) and (b > :1 and c > :1)", TABLE, TWICE),
    ("p = :p AND p = :p", TABLE, TWICE),
    ("p = :p AND c >= :1 AND c <= :2", TABLE, TWICE),
    ("p = :p AND c < :1 AND a < :1", TABLE, TOO_MANY.format(3, 2)),
    # the key
    ("c = :1", TABLE, MISSED + "p"),
    ("a = :p", TABLE, MISSED + "p"),
    ("p = :p AND a < :1", TABLE, MISSED + "c"),
    ("p = :p AND c = :1", HASH_ONLY, TOO_MANY.format(2, 1)),
    ("p < :p", TABLE, NOT_SUPPORTED),
    ("p < :p AND c = :1", TABLE, NOT_SUPPORTED),
    ("begins_with(p, :p)", TABLE, NOT_SUPPORTED),
    ("p BETWEEN :s AND :p", TABLE, NOT_SUPPORTED),
    ("p = :1", TABLE, TYPE),
    ("p = :p AND c = :s", TABLE, TYPE),
    ("p = :p AND begins_with(c, :s)", TABLE, TYPE),
    ("p = :p AND c BETWEEN :1 AND :2", TEXT, TYPE),
    ("p = :l", TABLE, TYPE),
    ("p = :e", TABLE, EMPTY.format("string", "p")),
    ("p = :p AND c > :e", TEXT, EMPTY.format("string", "c")),
    ("p = :eb", BINARY, EMPTY.format("binary", "p")),
]


@pytest.mark.parametrize(("expression", "schema", "message"), ERRORS)
def test_errors(expression, schema, message):
    with pytest.raises(ValidationError) as caught:
        parse_key_condition(expression, N, {**V, ":type": {"S": "S"}}, schema)
    assert caught.value.message == message


def test_the_form_is_checked_after_the_values_and_before_the_table():
    expression = parse_key_expression("p = :x OR c = :1", None)
    with pytest.raises(ValidationError, match="attribute value: :x"):
        expression.check_values(V)
    with pytest.raises(ValidationError, match="Invalid operator"):
        expression.check_shape()
    expression = parse_key_expression("q = :p", None)
    expression.check_values(V)
    expression.check_shape()
    with pytest.raises(ValidationError, match="missed key schema element: p"):
        expression.bind(V, TABLE)
    assert parse_key_expression("q = :p", None) is expression
