"""The text of an expression cut into tokens, and how a syntax error points at one.

The tokens of all kinds of expression are the same, so that `set` is never an attribute's name, not even in a
condition:

    keyword     = IN | BETWEEN | NOT | AND | OR | SET | ADD | DELETE | REMOVE      in any letter case
    identifier  = letter (letter | digit | _)*
    name        = # (letter | digit | _)+
    value       = : (letter | digit | _)+
    index       = 0 | a digit other than 0, then digits
    operator    = = <> < <= > >= + -
    punctuation = ( ) [ ] , .
    literal     = text in quotes, single or double: no expression allows one, but it is one token in an error

Blanks are space, tab, line feed and carriage return. Any other character is a token by itself, of which a
syntax error will complain.

Source: texts of syntax errors as observed on the service.
"""

import re
from enum import IntEnum
from typing import Final, NamedTuple

from datamodel.errors import ValidationError


class TokenType(IntEnum):
    """What a token is."""

    END = 0
    KEYWORD = 1
    IDENTIFIER = 2
    NAME = 3
    VALUE = 4
    INDEX = 5
    SYMBOL = 6
    OTHER = 7


class Token(NamedTuple):
    """One token.

    Attributes:
        type: What it is.
        text: As written; a keyword in upper case; empty at the end.
        start: Offset of its first character in the expression.
        end: Offset after its last one.
    """

    type: TokenType
    text: str
    start: int
    end: int


KEYWORDS: Final = frozenset(("IN", "BETWEEN", "NOT", "AND", "OR", "SET", "ADD", "DELETE", "REMOVE"))

_scan = re.compile(
    r"""[ \t\r\n]*+(?:
        (?P<word>[A-Za-z][A-Za-z0-9_]*)
      | (?P<name>\#[A-Za-z0-9_]+)
      | (?P<value>:[A-Za-z0-9_]+)
      | (?P<index>0|[1-9][0-9]*)
      | (?P<symbol><>|<=|>=|[=<>+\-()\[\],.])
      | (?P<other>"[^"]*"|'[^']*'|.)
    )""",
    re.ASCII | re.DOTALL | re.VERBOSE,
).match

_TYPES: Final = {
    "name": TokenType.NAME,
    "value": TokenType.VALUE,
    "index": TokenType.INDEX,
    "symbol": TokenType.SYMBOL,
    "other": TokenType.OTHER,
}


def tokenise(text: str) -> list[Token]:
    """The tokens of an expression; the last one is of type END. Never fails.

    No expression allows a token of type OTHER. So at most one more follows it, for the error to show.
    """
    tokens: list[Token] = []
    position = 0
    last = False
    while not last and (match := _scan(text, position)) is not None:
        last = bool(tokens) and tokens[-1].type is TokenType.OTHER
        group = match.lastgroup
        assert group is not None
        word = match[group]
        position = match.end()
        if group == "word":
            upper = word.upper()
            if upper in KEYWORDS:
                kind, word = TokenType.KEYWORD, upper
            else:
                kind = TokenType.IDENTIFIER
        else:
            kind = _TYPES[group]
        tokens.append(Token(kind, word, match.start(group), position))
    tokens.append(Token(TokenType.END, "", len(text), len(text)))
    return tokens


def syntax_error(kind: str, text: str, tokens: list[Token], index: int) -> ValidationError:
    """The error for a token that cannot stand where it stands.

    Args:
        kind: Name of the request member, such as `ConditionExpression`.
        text: The expression.
        tokens: Its tokens.
        index: Which of them is wrong.

    Returns:
        An error that names the token and shows the text from the token before it to the one after it.
    """
    token = tokens[index]
    shown = "<EOF>" if token.type is TokenType.END else text[token.start : token.end]
    start = tokens[max(index - 1, 0)].start
    end = tokens[min(index + 1, len(tokens) - 1)].end
    return ValidationError(
        f'Invalid {kind}: Syntax error; token: "{shown}", near: "{text[start:end]}"'
    )
