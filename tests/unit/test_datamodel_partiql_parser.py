"""Tokens and syntax trees of PartiQL."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.partiql.parser import NESTING_MAX, parse_statement
from datamodel.partiql.syntax import (
    BagLiteral,
    Call,
    ListLiteral,
    Name,
    Operation,
    Parameter,
    PathExpression,
    Scalar,
    SelectStatement,
    StructLiteral,
    UpdateStatement,
    Wildcard,
)
from datamodel.partiql.tokens import NOT_WELL_FORMED, TokenType, tokenise


def shown(tree):
    """A tree in brief."""
    match tree:
        case Name():
            return tree.text
        case Scalar():
            return f"{tree.kind}:{tree.text}"
        case Parameter():
            return f"?{tree.index}"
        case Wildcard():
            return "*"
        case PathExpression():
            steps = [step if isinstance(step, str) else f"[{shown(step)}]" for step in tree.steps]
            return ".".join([shown(tree.root), *steps])
        case Call():
            return f"{tree.name}({', '.join(map(shown, tree.arguments))})"
        case ListLiteral():
            return f"[{', '.join(map(shown, tree.elements))}]"
        case BagLiteral():
            return f"<<{', '.join(map(shown, tree.elements))}>>"
        case StructLiteral():
            return "{" + ", ".join(f"{shown(k)}: {shown(v)}" for k, v in tree.fields) + "}"
        case Operation():
            kind = f" {tree.type_name}" if tree.type_name else ""
            return f"({' '.join([tree.operator, *map(shown, tree.operands)])}{kind})"
        case _:
            return type(tree).__name__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", "a"),
        ('"a b"', "a b"),
        ('"a""b"', 'a"b'),
        ("$1", "$1"),
        ("'x'", "S:x"),
        ("'it''s'", "S:it's"),
        ("''", "S:"),
        ("1", "N:1"),
        ("1.50", "N:1.50"),
        (".5", "N:.5"),
        ("5.", "N:5."),
        ("1e5", "N:1e5"),
        ("1E+5", "N:1E+5"),
        ("-1", "N:-1"),
        ("- 1", "N:-1"),
        ("+1", "N:1"),
        ("-(-1)", "N:1"),
        ("-a", "(neg a)"),
        ("true", "BOOL:true"),
        ("FALSE", "BOOL:false"),
        ("null", "NULL:null"),
        ("missing", "MISSING:missing"),
        ("?", "?0"),
        ("? = ?", "(= ?0 ?1)"),
        ("'?'", "S:?"),
        ("[]", "[]"),
        ("[1, [a]]", "[N:1, [a]]"),
        ("(1, 2)", "[N:1, N:2]"),
        ("(1)", "N:1"),
        ("<<>>", "<<>>"),
        ("<<1,'a'>>", "<<N:1, S:a>>"),
        ("{}", "{}"),
        ("{'a': 1, 'b': {'c': []}}", "{S:a: N:1, S:b: {S:c: []}}"),
        ("a.b", "a.b"),
        ("a[0]", "a.[N:0]"),
        ("a['b'].c[1]", "a.[S:b].c.[N:1]"),
        ('a."c d"', "a.c d"),
        ("a.*", "a.[*]"),
        ("a[*]", "a.[*]"),
        ("f()", "f()"),
        ("F(a, 1)", "f(a, N:1)"),
        ("size(a)", "size(a)"),
        ("COUNT(*)", "count()"),
        ("a = 1", "(= a N:1)"),
        ("a != 1", "(<> a N:1)"),
        ("a<>1", "(<> a N:1)"),
        ("a<=-1", "(<= a N:-1)"),
        ("a = 1 AND b = 2", "(and (= a N:1) (= b N:2))"),
        ("a AND b AND c OR d OR e", "(or (and a b c) d e)"),
        ("a OR b AND c", "(or a (and b c))"),
        ("(a OR b) AND c", "(and (or a b) c)"),
        ("NOT a = 1 AND b", "(and (not (= a N:1)) b)"),
        ("NOT NOT a", "(not (not a))"),
        ("NOT (a AND b)", "(not (and a b))"),
        ("a BETWEEN 1 AND 2 AND b", "(and (between a N:1 N:2) b)"),
        ("a NOT BETWEEN 1 AND 2", "(not (between a N:1 N:2))"),
        ("a IN (1, 2)", "(in a [N:1, N:2])"),
        ("a IN [1]", "(in a [N:1])"),
        ("a IN (1)", "(in a [N:1])"),
        ("a IN ?", "(in a ?0)"),
        ("a not in (1)", "(not (in a [N:1]))"),
        ("a IS NULL", "(is a null)"),
        ("a IS NOT MISSING", "(not (is a missing))"),
        ("a is double precision", "(is a double precision)"),
        ("a IS VARCHAR(10)", "(is a varchar)"),
        ("a LIKE 'x'", "(like a S:x)"),
        ("a NOT LIKE 'x' ESCAPE 'y'", "(not (like a S:x S:y))"),
        ("1 + 2 * 3 - 4", "(- (+ N:1 (* N:2 N:3)) N:4)"),
        ("a || b", "(|| a b)"),
        ("a = b < c", "(= a (< b c))"),
        ("a -- note\n = 1 /* x\ny */ ;", "(= a N:1)"),
        ("a /**/ = /***/ 1", "(= a N:1)"),
    ],
)
def test_expressions(text, expected):
    assert shown(parse_statement(text)[0]) == expected


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "Unexpected term"),
        (";", "Unexpected term"),
        ("a b", "Unexpected token after expression"),
        ("a;;", "Unexpected token after expression"),
        ("a AND", "Missing right-hand side expression of infix operator"),
        ("a BETWEEN 1", "Expected keyword AND"),
        ("a BETWEEN 1 AND", "Expected expression after AND"),
        ("a IS", "Expected type name"),
        ("a IS 5", "Expected type name"),
        ("a.1", "Unexpected token after expression"),
        ("a.size", "Invalid path dot component"),
        ("a[0", "Expected RIGHT_BRACKET"),
        ("a.", "Invalid path dot component"),
        ("f(1", "Expected RIGHT_PAREN"),
        ("f(*)", "f(*) is not allowed"),
        ("[1,", "Unexpected term"),
        ("{1}", "Expected COLON"),
        ("date", "Unexpected keyword"),
        ("select", "Unexpected term"),
        ("SELECT a b c FROM t", "Expected FROM after SELECT list"),
        ("SELECT a FROM t ORDER BY", "Unexpected term"),
        ("SELECT a FROM t ORDER BY a ORDER BY b", "Unexpected token after expression"),
        ("INSERT INTO", "Expected identifier for simple path"),
        ("INSERT t", "Unexpected keyword"),
        ("UPDATE t", "Expected data manipulation"),
        ("UPDATE t SET", "Expected identifier for simple path"),
        ("UPDATE t SET a.* = 1", "Invalid path dot component for simple path"),
        ("UPDATE t SET a[b] = 1", "Invalid path component for simple path"),
        ("UPDATE t REMOVE 1", "Expected identifier for simple path"),
        ("UPDATE t SET a = 1 WHERE a = 1 RETURNING x",
         "Expected ( MODIFIED | ALL ) ( NEW | OLD ) in a returning element."),
        ("DELETE FROM t RETURNING ALL OLD", "Expected STAR"),
        ("'x", ""),
        ('"x', ""),
        ("`x`", ""),
        ("a # b", ""),
        ("a /* b", ""),
        ("1abc", ""),
        ("1.5.2", ""),
        ("1e99999999999999999999", ""),
        ("a ~ b", ""),
        ("ä", ""),
    ],
)  # fmt: skip
def test_syntax_errors(text, detail):
    with pytest.raises(ValidationError) as raised:
        parse_statement(text)
    assert raised.value.message == NOT_WELL_FORMED + detail


def test_positions():
    tokens = tokenise("SELECT *\n  FROM \"t\"\r\nWHERE a = 'b\nc' AND d")
    assert [str(token.at) for token in tokens if token.type is not TokenType.END] == [
        "1:1:6", "1:8:1", "2:3:4", "2:8:3", "3:1:5", "3:7:1", "3:9:1", "3:11:5", "4:4:3", "4:8:1",
    ]  # fmt: skip


def test_statements():
    tree, parameters = parse_statement(
        "SELECT a, b.c FROM t WHERE pk = ? ORDER BY sk DESC, pk ASC, x"
    )
    assert isinstance(tree, SelectStatement)
    assert parameters == 1
    assert [term.descending for term in tree.order_by] == [True, False, False]
    tree, _ = parse_statement(
        "UPDATE t SET a = 1, b = 2 REMOVE c SET d = 3 RETURNING MODIFIED old *"
    )
    assert isinstance(tree, UpdateStatement)
    assert [(shown(a.target), a.value and shown(a.value)) for a in tree.assignments] == [
        ("a", "N:1"), ("b", "N:2"), ("c", None), ("d", "N:3"),
    ]  # fmt: skip
    assert tree.returning == "modified old"


@pytest.mark.parametrize(
    "nested",
    ["({})", "NOT {}", "[{}]", "<<{}>>", "{{'a': {}}}", "f({})", "- {}", "a[{}]", "a = ({})"],
)
def test_nesting_is_bounded(nested):
    inner = "x"
    for _ in range(NESTING_MAX // 2 - 1):
        inner = nested.format(inner)
    parse_statement(inner)
    while len(inner) < 8000:
        inner = nested.format(inner)
    with pytest.raises(ValidationError) as raised:
        parse_statement(inner)
    assert raised.value.message == NOT_WELL_FORMED + "Nesting is too deep"


words = st.sampled_from(
    """
    SELECT * FROM t WHERE a = 1 AND ( ) [ ] { } << >> , . : ; ? 'x' "y" NOT IN IS NULL MISSING BETWEEN OR
    UPDATE SET REMOVE INSERT INTO VALUE DELETE RETURNING ALL OLD ORDER BY + - size 1e5 -- /* LIKE
    """.split()  # noqa: SIM905 - words read better as text
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(words, max_size=30).map(" ".join), st.text(max_size=60)))
def test_any_text_is_parsed_or_refused(text):
    try:
        parse_statement(text)
    except ValidationError as error:
        assert error.message.startswith(NOT_WELL_FORMED)
