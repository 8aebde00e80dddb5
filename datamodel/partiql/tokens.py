"""The text of a statement cut into tokens.

    word       = (letter | _ | $) {letter | _ | $ | digit}     a keyword in any letter case, else an identifier
    quoted     = " {any but ", or ""} "                        an identifier, whatever the word
    string     = ' {any but ', or ''} '
    number     = digits [. {digit}] [exponent] | . digits [exponent]
    exponent   = (e | E) [+ | -] digits
    symbols    = ( ) [ ] { } << >> , . : ; ? * + - / % || = <> != < <= > >= @

Blanks and comments (-- to the end of the line, /* to */) separate tokens. Words that only mean something
together are one token: NOT IN, IS NOT, NOT BETWEEN, NOT LIKE, ORDER BY, INSERT INTO, DOUBLE PRECISION,
CHARACTER VARYING, and the four that follow RETURNING.

Keywords are those of SQL-92 and some more; none of them names an attribute unless it is quoted.
"""

import re
from enum import Enum
from typing import Final, NamedTuple

from datamodel.errors import ValidationError

NOT_WELL_FORMED: Final = "Statement wasn't well formed, can't be processed: "


def not_well_formed(detail: str = "") -> ValidationError:
    """The error for a text that is no statement."""
    return ValidationError(NOT_WELL_FORMED + detail)


class TokenType(Enum):
    """What a token is; the names are those that errors show."""

    END = "EOF"
    KEYWORD = "KEYWORD"
    OPERATOR = "OPERATOR"
    IDENTIFIER = "IDENTIFIER"
    QUOTED = "QUOTED_IDENTIFIER"
    STRING = "STRING"
    NUMBER = "NUMBER"
    BOOLEAN = "BOOLEAN"
    NULL = "NULL"
    MISSING = "MISSING"
    PARAMETER = "QUESTION_MARK"
    STAR = "STAR"
    LEFT_PAREN = "LEFT_PAREN"
    RIGHT_PAREN = "RIGHT_PAREN"
    LEFT_BRACKET = "LEFT_BRACKET"
    RIGHT_BRACKET = "RIGHT_BRACKET"
    LEFT_CURLY = "LEFT_CURLY"
    RIGHT_CURLY = "RIGHT_CURLY"
    LEFT_BAG = "LEFT_DOUBLE_ANGLE_BRACKET"
    RIGHT_BAG = "RIGHT_DOUBLE_ANGLE_BRACKET"
    COMMA = "COMMA"
    DOT = "DOT"
    COLON = "COLON"
    SEMICOLON = "SEMICOLON"


class Position(NamedTuple):
    """Where a token stands: line and column from 1, and how many characters it has."""

    line: int
    column: int
    length: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}:{self.length}"


class Token(NamedTuple):
    """One token.

    Attributes:
        type: What it is.
        text: A keyword or operator in lower case, words of one token joined by a blank; an identifier or
            string without its quotes; a number as written.
        at: Where it stands.
    """

    type: TokenType
    text: str
    at: Position


KEYWORDS: Final = frozenset(
    """
    absolute action add all allocate alter and any are as asc assertion at authorization avg begin between bit
    bit_length by cascade cascaded case cast catalog char character character_length char_length check close
    coalesce collate collation column commit connect connection constraint constraints continue convert
    corresponding count create cross current current_date current_time current_timestamp current_user cursor
    date deallocate dec decimal declare default deferrable deferred delete desc describe descriptor diagnostics
    disconnect distinct domain double drop else end escape except exception exec execute exists external extract
    date_add date_diff fetch first float for foreign found from full get global go goto grant group having
    identity immediate in indicator initially inner input insensitive insert int integer intersect interval into
    is isolation join key language last left level like local lower match max min module names national natural
    nchar next no not nullif numeric octet_length of on only open option or order outer output overlaps pad
    partial position precision prepare preserve primary prior privileges procedure public read real references
    relative restrict revoke right rollback rows schema scroll section select session session_user set size
    smallint some space sql sqlcode sqlerror sqlstate substring sum system_user table temporary then time
    timestamp to transaction translate translation trim union unique unknown update upper usage user using value
    values varchar varying view when whenever where with work write zone
    pivot unpivot limit tuple remove index conflict do nothing returning modified new old let
    bool boolean string symbol clob blob struct list sexp bag int4 int8
    """.split()  # noqa: SIM905 - words read better as text
)
_WORD_OPERATORS: Final = frozenset(
    ("and", "or", "not", "is", "in", "like", "between", "union", "except", "intersect")
)
_PAIRS: Final = {
    ("not", "in"): TokenType.OPERATOR,
    ("is", "not"): TokenType.OPERATOR,
    ("not", "between"): TokenType.OPERATOR,
    ("not", "like"): TokenType.OPERATOR,
    ("order", "by"): TokenType.KEYWORD,
    ("insert", "into"): TokenType.KEYWORD,
    ("double", "precision"): TokenType.KEYWORD,
    ("character", "varying"): TokenType.KEYWORD,
    ("all", "old"): TokenType.KEYWORD,
    ("all", "new"): TokenType.KEYWORD,
    ("modified", "old"): TokenType.KEYWORD,
    ("modified", "new"): TokenType.KEYWORD,
}
_SYMBOLS: Final = {
    "(": TokenType.LEFT_PAREN,
    ")": TokenType.RIGHT_PAREN,
    "[": TokenType.LEFT_BRACKET,
    "]": TokenType.RIGHT_BRACKET,
    "{": TokenType.LEFT_CURLY,
    "}": TokenType.RIGHT_CURLY,
    "<<": TokenType.LEFT_BAG,
    ">>": TokenType.RIGHT_BAG,
    ",": TokenType.COMMA,
    ".": TokenType.DOT,
    ":": TokenType.COLON,
    ";": TokenType.SEMICOLON,
    "?": TokenType.PARAMETER,
    "*": TokenType.STAR,
}

# Quantifiers give nothing back, so that no text takes more than one pass.
_scan = re.compile(
    r"""
        (?P<blank>[ \t\v\f\r\n]++|--[^\r\n]*+|/\*(?:[^*]++|\*(?!/))*+\*/)
      | (?P<number>(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?(?![A-Za-z0-9_$.]))
      | (?P<word>[A-Za-z_$][A-Za-z0-9_$]*+)
      | (?P<quoted>"(?:[^"]++|"")*+")
      | (?P<string>'(?:[^']++|'')*+')
      | (?P<symbol><<|>>|[()\[\]{},.:;?*])
      | (?P<operator><>|!=|<=|>=|\|\||/(?!\*)|[-+%=<>@])
    """,
    re.ASCII | re.VERBOSE,
).match
_exponent_of = re.compile(r"([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]+))?", re.ASCII).fullmatch

# Numbers are read as Java's BigDecimal: exponent and scale must each fit 32 bits.
_INT32: Final = range(-(2**31), 2**31)
_EXPONENT_DIGITS_MAX: Final = 12


def tokenise(text: str) -> list[Token]:
    """The tokens of a statement; the last one is of type END.

    Raises:
        ValidationError: A character, quote or comment that no statement has; the service says no more.
    """
    tokens: list[Token] = []
    position = 0
    line, line_start = 1, 0
    while position < len(text):
        match = _scan(text, position)
        if match is None:
            raise not_well_formed()
        group, start, position = match.lastgroup, position, match.end()
        source = match[0]
        at = Position(line, start - line_start + 1, len(source))
        if "\n" in source:
            line += source.count("\n")
            line_start = start + source.rindex("\n") + 1
        if group != "blank":
            assert group is not None
            _add(tokens, group, source, at)
    tokens.append(Token(TokenType.END, "", Position(line, len(text) - line_start + 1, 0)))
    return tokens


def _add(tokens: list[Token], group: str, source: str, at: Position) -> None:
    match group:
        case "word":
            _add_word(tokens, source, at)
        case "number":
            _check_exponent(source)
            tokens.append(Token(TokenType.NUMBER, source, at))
        case "quoted":
            tokens.append(Token(TokenType.QUOTED, source[1:-1].replace('""', '"'), at))
        case "string":
            tokens.append(Token(TokenType.STRING, source[1:-1].replace("''", "'"), at))
        case "symbol":
            tokens.append(Token(_SYMBOLS[source], source, at))
        case _:
            tokens.append(Token(TokenType.OPERATOR, "<>" if source == "!=" else source, at))


def _add_word(tokens: list[Token], source: str, at: Position) -> None:
    word = source.lower()
    if word in ("true", "false"):
        tokens.append(Token(TokenType.BOOLEAN, word, at))
    elif word == "null":
        tokens.append(Token(TokenType.NULL, word, at))
    elif word == "missing":
        tokens.append(Token(TokenType.MISSING, word, at))
    elif word not in KEYWORDS:
        tokens.append(Token(TokenType.IDENTIFIER, source, at))
    else:
        if tokens and tokens[-1].type in (TokenType.KEYWORD, TokenType.OPERATOR):
            pair = _PAIRS.get((tokens[-1].text, word))
            if pair is not None:
                first = tokens.pop()
                tokens.append(Token(pair, f"{first.text} {word}", first.at))
                return
        kind = TokenType.OPERATOR if word in _WORD_OPERATORS else TokenType.KEYWORD
        tokens.append(Token(kind, word, at))


def _check_exponent(number: str) -> None:
    match = _exponent_of(number)
    assert match is not None
    _, fraction, exponent = match.groups()
    if exponent is None:
        return
    digits = exponent.lstrip("+-0")
    if len(digits) > _EXPONENT_DIGITS_MAX:
        raise not_well_formed()
    power = int(exponent)
    if power not in _INT32 or len(fraction) - power not in _INT32:
        raise not_well_formed()
