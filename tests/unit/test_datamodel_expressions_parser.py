"""Expressions that are not well formed: each error to the letter."""

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import parse_condition, parse_projection, parse_update

PARSERS = {
    "condition": (lambda text: parse_condition(text, None, "FilterExpression"), "FilterExpression"),
    "update": (lambda text: parse_update(text, None), "UpdateExpression"),
    "projection": (lambda text: parse_projection(text, None), "ProjectionExpression"),
}


def error_of(kind, expression):
    parse, member = PARSERS[kind]
    with pytest.raises(ValidationError) as caught:
        parse(expression)
    assert caught.value.message.startswith(f"Invalid {member}: ")
    return caught.value.message.removeprefix(f"Invalid {member}: ")


def syntax(token, near):
    return f'Syntax error; token: "{token}", near: "{near}"'


CONDITION_SYNTAX = [
    ("foo", "<EOF>", "foo"),
    ("foo ", "<EOF>", "foo "),
    ("a =", "<EOF>", "="),
    ("a = ", "<EOF>", "= "),
    ("a = :v )", ")", ":v )"),
    ("a = :v b", "b", ":v b"),
    ("= :v", "=", "= :v"),
    ("a = = :v", "=", "= = :v"),
    ("a == :v", "=", "== :v"),
    ("a != :v", "!", "a !="),
    ("a AND b", "AND", "a AND b"),
    ("a = :v AND", "<EOF>", "AND"),
    ("a = :v and and b = :v", "and", "and and b"),
    ("a = :v AND b", "<EOF>", "b"),
    ("AND", "AND", "AND"),
    ("NOT", "<EOF>", "NOT"),
    ("NOT a", "<EOF>", "a"),
    ("(a = :v", "<EOF>", ":v"),
    ("(a", "<EOF>", "a"),
    ("(a) AND b = :v", "AND", ") AND b"),
    ("(a = :v) = :v", "=", ") = :v"),
    ("(NOT a = :v) = :v", "=", ") = :v"),
    ("NOT (a)", "<EOF>", ")"),
    ("()", ")", "()"),
    ("((((", "<EOF>", "("),
    ("a = (b = :v)", "=", "b = :v"),
    ("a = NOT b", "NOT", "= NOT b"),
    ("a BETWEEN :a", "<EOF>", ":a"),
    ("a BETWEEN :a OR :b", "OR", ":a OR :b"),
    ("a > between", "between", "> between"),
    ("a IN :v", ":v", "IN :v"),
    ("a IN ()", ")", "()"),
    ("a in b, c", "b", "in b,"),
    ("a in (b,c,)", ")", ",)"),
    ("a in (b c)", "c", "b c)"),
    ("a > 4", "4", "> 4"),
    ('a = "x y"', '"x y"', '= "x y"'),
    ("a = 'x'", "'x'", "= 'x'"),
    ("attribute_exists([1])", "[", "([1"),
    ("attribute_type()", ")", "()"),
    ("attribute_exists(a", "<EOF>", "a"),
    ("attribute_exists(a,", "<EOF>", ","),
    ("attribute_exists(Pictures-RearView)", "-", "Pictures-RearView"),
    ('attribute_exists("a.b")', '"a.b"', '("a.b")'),
    ("attribute_exists(a..b)", ".", "..b"),
    ("attribute_exists(Pi#ctures.RearView)", "#ctures", "Pi#ctures."),
    ("attribute_exists(a[b])", "b", "[b]"),
    ("a[:v] > b", ":v", "[:v]"),
    ("a[#_] > b", "#_", "[#_]"),
    ("a[-1] > b", "-", "[-1"),
    ("a[] > b", "]", "[] >"),
    ("a[01] > b", "1", "01]"),
    ("a[1.5] > b", ".", "1.5"),
    ("a.1 > b", "1", ".1 >"),
    ("a.:v < b", ":v", ".:v <"),
    ("a > :things.stuff", ".", ":things.stuff"),
    ("#$.b > a", "#", "#$"),
    ("# > a", "#", "# >"),
    ("a > :", ":", "> :"),
    ("ü > a", "ü", "ü >"),
    ("_a > b", "_", "_a"),
    ("1a > b", "1", "1a"),
    ("set = :v", "set", "set ="),
    ("size(a).b > a", ".", ").b"),
    ("(size(a)).b > a", ".", ").b"),
    ("size(a)[0] > a", "[", ")[0"),
    ("(size(a))[0] > a", "[", ")[0"),
    ("(a)between(b.(c.d))and(c)", "(", ".(c"),
    ("(a)between(b.c.d)and((c)", "<EOF>", ")"),
    ("(a.b).c = :v", ".", ").c"),
    ("a + :v > b", "+", "a + :v"),
    ("a = :v, b = :v", ",", ":v, b"),
    ("things are not gonna be ok", "are", "things are not"),
    (":v", "<EOF>", ":v"),
]


@pytest.mark.parametrize(("expression", "token", "near"), CONDITION_SYNTAX)
def test_syntax_of_conditions(expression, token, near):
    assert error_of("condition", expression) == syntax(token, near)


UPDATE_SYNTAX = [
    ("whatever", "whatever", "whatever"),
    ("INVALID SYNTAX HERE", "INVALID", "INVALID SYNTAX"),
    ("SET", "<EOF>", "SET"),
    ("set a", "<EOF>", "a"),
    ("set a=", "<EOF>", "="),
    ("set a=set", "set", "=set"),
    ("set a b", "b", "a b"),
    ("set :a = b", ":a", "set :a ="),
    ("set a = b,", "<EOF>", ","),
    ("set a = b c", "c", "b c"),
    ("set a = b / c", "/", "b / c"),
    ("set a = b * c", "*", "b * c"),
    ("set a = b +", "<EOF>", "+"),
    ("set a = b + c + d", "+", "c + d"),
    ("set a = (b + c) + d", "+", ") + d"),
    ("set a = b + (c + d)", "+", "c + d"),
    ("set (a = (b + c))", "(", "set (a"),
    ("set a = (b.c).d + e", ".", ").d"),
    ("set a = (b.c)[0] + e", "[", ")[0"),
    ("set a[1] = 1", "1", "= 1"),
    ('set a[1] = "eight"', '"eight"', '= "eight"'),
    ("set a = if_not_exists(a, 0)", "0", ", 0)"),
    ("SET a = if_not_exists(a, :n+:n2)", "+", ":n+:n2"),
    ("SET if_not_exists(a, b) = a", "(", "if_not_exists(a"),
    ("SET a = list_append(a, b", "<EOF>", "b"),
    ("SET a = (b", "<EOF>", "b"),
    ("SET a = ()", ")", "()"),
    ("SET a = NOT b", "NOT", "= NOT b"),
    ("SET _123 = :n", "_", "SET _123"),
    ("SET hi-there = :n", "-", "hi-there"),
    ("SET hi$there = :n", "$", "hi$there"),
    ("add a", "<EOF>", "a"),
    ("add a b", "b", "a b"),
    ("add a = b", "=", "a = b"),
    ("add a 1", "1", "a 1"),
    ("add :a b", ":a", "add :a b"),
    ("add a if_not_exists(b)", "if_not_exists", "a if_not_exists("),
    ("add a (:n)", "(", "a (:n"),
    ("add a :n + :n", "+", ":n + :n"),
    ("delete a", "<EOF>", "a"),
    ("delete a b", "b", "a b"),
    ("delete a = b", "=", "a = b"),
    ("remove :a", ":a", "remove :a"),
    ("remove a b", "b", "a b"),
    ("remove a = b", "=", "a = b"),
    ("remove a,", "<EOF>", ","),
    ("remove (a)", "(", "remove (a"),
    ("SET a = :n; REMOVE b", ";", ":n; REMOVE"),
]


@pytest.mark.parametrize(("expression", "token", "near"), UPDATE_SYNTAX)
def test_syntax_of_updates(expression, token, near):
    assert error_of("update", expression) == syntax(token, near)


PROJECTION_SYNTAX = [
    ("a b", "b", "a b"),
    ("a,", "<EOF>", ","),
    ("a,,b", ",", ",,b"),
    (",a", ",", ",a"),
    ("a..b", ".", "..b"),
    ("a.", "<EOF>", "."),
    ("a[b]", "b", "[b]"),
    ("a[]", "]", "[]"),
    ("a[0", "<EOF>", "0"),
    ("a-b", "-", "a-b"),
    (":a", ":a", ":a"),
    ("(a)", "(", "(a"),
    ("(a.b).c", "(", "(a"),
    ("whatever(stuff)", "(", "whatever(stuff"),
    ("a!!", "!", "a!!"),
]


@pytest.mark.parametrize(("expression", "token", "near"), PROJECTION_SYNTAX)
def test_syntax_of_projections(expression, token, near):
    assert error_of("projection", expression) == syntax(token, near)


@pytest.mark.parametrize("kind", ["condition", "update", "projection"])
def test_empty_and_too_long(kind):
    for blank in ["", " ", "\t\r\n"]:
        assert error_of(kind, blank) == "The expression can not be empty;"
    for long, size in [("(" * 4097, 4097), ("é" * 2049, 4098), (" " * 5000, 5000)]:
        assert error_of(kind, long) == (
            f"Expression size has exceeded the maximum allowed size; expression size: {size}"
        )


def test_the_longest_expressions_are_fine():
    assert parse_projection("x" * 4096, None).apply({"x" * 4096: {"S": "1"}})
    assert parse_condition("a" + " " * 4089 + " = :v", None).values_used == {":v"}
    update = parse_update("SET" + " " * 4085 + "a = :val", None)
    assert update.apply({}, {":val": {"N": "1"}}).item == {"a": {"N": "1"}}


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("condition", "((a = :s))"),
        ("condition", "((attribute_not_exists(a)))"),
        ("condition", "a = ((:s))"),
        ("condition", "((a)) = :s"),
        ("condition", "a BETWEEN ((b)) AND c"),
        ("condition", "a IN (((b)), c)"),
        ("condition", "a > whatever((:things), ((a)))"),
        ("condition", "a=:s and a > ((views))"),
        ("condition", "(a)between(((b.c)).d)and(c)"),
        ("condition", "a=:s AND ((b=:s AND c=:s)) AND d=:s"),
        ("condition", "a=:s OR ((a=:s OR (b=:s OR c=:s)))"),
        ("condition", "((NOT a = :s))"),
        ("condition", "(" * 2046 + "a<b" + ")" * 2046),
        ("update", "SET a = ((b))"),
        ("update", "SET a = ((b + c))"),
        ("update", "SET a = ((b)) + c"),
        ("update", "SET a = list_append(((b)), c)"),
        ("update", "SET a = " + "(" * 2000 + "b" + ")" * 2000),
    ],
)
def test_redundant_parentheses(kind, expression):
    assert error_of(kind, expression) == "The expression has redundant parentheses;"


@pytest.mark.parametrize(
    "expression",
    [
        "(a = :s)",
        "(a) = (:s)",
        "((a) = (:s))",
        "((a = :s) AND (b = :s))",
        "(NOT (a = :s))",
        "(((a) = :s) OR b = :s)",
        "(size((a))) > (:n)",
        "(contains((a), (:s)))",
        "(a) BETWEEN (:s) AND (:s2) AND (b) IN ((:s), (c))",
    ],
)
def test_parentheses_that_are_not_redundant(expression):
    parse_condition(expression, None)
