"""Tokens, reserved words and how syntax errors point at tokens."""

import pytest

from datamodel.expressions.reserved_words import RESERVED_WORDS, is_reserved
from datamodel.expressions.tokens import TokenType, syntax_error, tokenise


def texts(expression):
    return [token.text for token in tokenise(expression)[:-1]]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", []),
        (" \t\r\n ", []),
        ("a=:b", ["a", "=", ":b"]),
        ("a<>b<=c>=d<e>f", ["a", "<>", "b", "<=", "c", ">=", "d", "<", "e", ">", "f"]),
        ("a.#b[12]", ["a", ".", "#b", "[", "12", "]"]),
        ("sEt a nOt", ["SET", "a", "NOT"]),
        ("settle android", ["settle", "android"]),
        ("#1 :1 #_ :_", ["#1", ":1", "#_", ":_"]),
        ("007", ["0", "0", "7"]),
        ("a1_B", ["a1_B"]),
        ("_a", ["_", "a"]),
        ("a-b+c", ["a", "-", "b", "+", "c"]),
        ("f(a,b)", ["f", "(", "a", ",", "b", ")"]),
    ],
)
def test_tokens(expression, expected):
    assert texts(expression) == expected


@pytest.mark.parametrize("odd", ['"a b"', "'a b'", '"', "#", ":", "!", "é", "_", "@", "\x00", "𝄞"])
def test_an_odd_token_is_one_token_and_the_last_but_one(odd):
    tokens = tokenise(f"a {odd} b c d")
    assert [token.text for token in tokens][:2] == ["a", odd]
    assert tokens[1].type is TokenType.OTHER
    assert len(tokens) == 4


def test_types():
    kinds = [token.type for token in tokenise("AND a #a :a 1 ( !")]
    assert kinds == [
        TokenType.KEYWORD,
        TokenType.IDENTIFIER,
        TokenType.NAME,
        TokenType.VALUE,
        TokenType.INDEX,
        TokenType.SYMBOL,
        TokenType.OTHER,
        TokenType.END,
    ]


@pytest.mark.parametrize(
    ("expression", "index", "token", "near"),
    [
        ("INVALID SYNTAX HERE", 0, "INVALID", "INVALID SYNTAX"),
        ("SET  a , 0)", 3, "0", ", 0)"),
        ("a b", 1, "b", "a b"),
        ("foo", 1, "<EOF>", "foo"),
        ("a = ", 2, "<EOF>", "= "),
        ("SET _123", 1, "_", "SET _123"),
        ("a and b", 1, "and", "a and b"),
    ],
)
def test_syntax_errors_show_one_token_on_either_side(expression, index, token, near):
    error = syntax_error("ConditionExpression", expression, tokenise(expression), index)
    assert error.message == (
        f'Invalid ConditionExpression: Syntax error; token: "{token}", near: "{near}"'
    )


def test_quotes_without_end_cost_little():
    assert len(tokenise("'\"" * 2048)) == 3


def test_reserved_words():
    assert len(RESERVED_WORDS) == 573
    assert all(word == word.upper() and word.isalpha() for word in RESERVED_WORDS)
    reserved = "Name Status Count Data Type TTL Items Year Timestamp Date Users Role Value Key Size"
    reserved += (
        " Region State Location Language Owner Group Order Index Token Total Url Hour Month Day"
    )
    assert [word for word in reserved.split() if not is_reserved(word)] == []
    free = "Version Tags Address Age Email Balance Stock Price Amount Category City pk sk id a"
    assert [word for word in free.split() if is_reserved(word)] == []
