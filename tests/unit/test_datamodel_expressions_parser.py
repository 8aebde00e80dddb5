"""Expressions that are not well formed: each error to the letter."""

import contextlib
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        told = f" expression size: {size}" if kind == "condition" else ""
        assert error_of(kind, long) == (
            f"Expression size has exceeded the maximum allowed size;{told}"
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


WORDS = (
    "a b #a :v :n ( ) ( ) , . [ ] 0 12 AND OR NOT IN BETWEEN = < <> >= + - SET REMOVE ADD DELETE size "
    'contains attribute_exists begins_with if_not_exists list_append name f ! "x" é'
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["condition", "update", "projection"]), st.text(max_size=40))
def test_no_text_does_harm(kind, text):
    parse, _ = PARSERS[kind]
    with contextlib.suppress(ValidationError):
        parse(text)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join))
def test_no_expression_does_harm(text):
    values = {":v": {"S": "x"}, ":n": {"N": "1"}}
    item = {"a": {"N": "1"}, "b": {"M": {"a": {"L": [{"S": "x"}]}}}}
    with contextlib.suppress(ValidationError):
        condition = parse_condition(text, {"#a": "q"})
        condition.check_values(values)
        condition.evaluate(item, values)
    with contextlib.suppress(ValidationError):
        update = parse_update(text, {"#a": "q"})
        update.check_values(values)
        update.apply(item, values)
    with contextlib.suppress(ValidationError):
        parse_projection(text, {"#a": "q"}).apply(item)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("condition", "(" * 4096),
        ("condition", "not " * 1020 + "a<b"),
        ("condition", "a<b " + "or (a<b " * 449 + ")" * 449),
        ("condition", "a = " + "f(" * 1360 + "b" + ")" * 1360),
        ("condition", "a[" + "9" * 4000 + "] = :v"),
        ("condition", "'\"" * 2048),
        ("update", "SET a=" + "list_append(" * 300),
        ("update", "SET a=b " * 500),
        ("projection", ",".join(["name"] * 819)),
        ("projection", "a" + ".b" * 2047),
    ],
)
def test_hostile_expressions_are_refused_soon(kind, text):
    assert len(text) <= 4096
    started = time.perf_counter()
    error_of(kind, text)
    assert time.perf_counter() - started < 2


def test_parsing_needs_little_stack():
    def at_depth(depth, function):
        return at_depth(depth - 1, function) if depth else function()

    deep = sys.getrecursionlimit() // 3
    text = "NOT " * 299 + "a < b"
    assert at_depth(deep, lambda: parse_condition(text, None).evaluate({}, {})) is True
    text = "SET a=" + "if_not_exists(a," * 230 + "b" + ")" * 230
    item = {"b": {"N": "1"}}
    assert at_depth(deep, lambda: parse_update(text, None).apply(item, {})).item["a"] == {"N": "1"}
