"""What conditions say of items, as tables: expression, result."""

import time
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.attribute_values import TYPES
from datamodel.expressions import Condition, parse_condition
from datamodel.expressions.syntax_tree import (
    And,
    Between,
    Comparison,
    Function,
    In,
    Literal,
    Not,
    Or,
    Path,
)


def binary(raw):
    return {"B": b64encode(raw).decode()}


def numbers(*texts):
    return {"L": [{"N": text} for text in texts]}


ITEM = {
    "p": {"S": "key"},
    "n": {"N": "3"},
    "five": {"N": "5"},
    "s": {"S": "hello"},
    "b": binary(b"\x00hi there\xff"),
    "t": {"BOOL": True},
    "z": {"NULL": True},
    "ss": {"SS": ["x", "y", "z"]},
    "ns": {"NS": ["1", "2.5"]},
    "bs": {"BS": [binary(b"a")["B"], binary(b"b")["B"]]},
    "l": {"L": [{"N": "1"}, {"S": "two"}, {"NS": ["1", "2"]}, {"L": [{"SS": ["q", "r"]}]}]},
    "m": {"M": {"x": {"N": "1"}, "y": numbers("-1", "2", "0"), "blank": {"M": {}}}},
    "emptylist": {"L": []},
    "emptystring": {"S": ""},
    "unicode": {"S": "aé𝄞"},
    "a.b": {"S": "dotted"},
    "big": {"N": "99999999999999999999999999999999999999"},
}

VALUES = {
    ":0": {"N": "0"},
    ":1": {"N": "1"},
    ":2": {"N": "2"},
    ":3": {"N": "3"},
    ":4": {"N": "4"},
    ":5": {"N": "5"},
    ":10": {"N": "10"},
    ":11": {"N": "11"},
    ":m1": {"N": "-1"},
    ":half": {"N": "2.5"},
    ":s3": {"S": "3"},
    ":hello": {"S": "hello"},
    ":hell": {"S": "hell"},
    ":ell": {"S": "ell"},
    ":help": {"S": "help"},
    ":es": {"S": ""},
    ":x": {"S": "x"},
    ":b": binary(b"\x00hi there\xff"),
    ":bhi": binary(b"\x00hi"),
    ":bthere": binary(b"there"),
    ":ba": binary(b"a"),
    ":bff": binary(b"\xff"),
    ":t": {"BOOL": True},
    ":f": {"BOOL": False},
    ":z": {"NULL": True},
    ":ss": {"SS": ["z", "y", "x"]},
    ":ss2": {"SS": ["x", "y"]},
    ":ns": {"NS": ["2.5", "1"]},
    ":l12": {"NS": ["2", "1"]},
    ":lset": {"L": [{"SS": ["r", "q"]}]},
    ":mx": {"M": {"x": {"N": "1"}}},
    ":big": {"N": "99999999999999999999999999999999999998"},
    **{f":T{kind}": {"S": kind} for kind in sorted(TYPES)},
}

HOLDS = """
n = :3 | n <> :4 | n < :4 | n <= :3 | n > :2 | n >= :3 | :3 = n | :2 < n
s = :hello | s < :help | s > :hell | s >= :hello | s <> :hell | s <> n
b = :b | b < :bff | b <> :ba
t = :t | t <> :f | z = :z | z <> :t
ss = :ss | ss <> :ss2 | ns = :ns | ns <> :l12
l[0] = :1 | l[2] = :l12 | l[3] = :lset | m.x = :1 | m.y[1] = :2 | m.y[1] = l[2] OR m.x = l[0]
m.x < m.y[1] | m.y[0] < m.x
#dotted = #dotted2 OR #dotted <> :x
emptystring = :es | emptystring < :x
n <> nowhere | nowhere <> n | nowhere <> gone | m.nowhere <> :1 | n.x <> :1 | n[0] <> :1 | m[0] <> :1
l.x <> :1 | nowhere.x.y[3] <> :1
big > :big | big <> :big
n BETWEEN :2 AND :4 | n BETWEEN :3 AND :3 | n between :0 and five | :3 BETWEEN n AND five
s BETWEEN :hell AND :help | b BETWEEN :bhi AND :bff | :4 BETWEEN :3 AND :5
n IN (:1, :2, :3) | n IN (:hello, n2, :3) | n in (:3) | s IN (five, :hello) | ss IN (:1, :ss)
l[3] IN (:lset) | :3 IN (n)
attribute_exists(n) | attribute_exists (m.x) | attribute_exists(l[3][0]) | attribute_exists(#dotted)
attribute_not_exists(nowhere) | attribute_not_exists(m.z) | attribute_not_exists(l[4])
attribute_not_exists(n.x) | attribute_not_exists(m[0]) | attribute_not_exists(l.x)
attribute_type(s, :TS) | attribute_type(n, :TN) | attribute_type(b, :TB) | attribute_type(t, :TBOOL)
attribute_type(z, :TNULL) | attribute_type(m, :TM) | attribute_type(l, :TL)
attribute_type(ss, :TSS) | attribute_type(ns, :TNS) | attribute_type(bs, :TBS) | attribute_type(:3, :TN)
begins_with(s, :hell) | begins_with(s, :hello) | begins_with(s, :es) | begins_with(b, :bhi)
begins_with(:hello, s) | begins_with(:hello, emptystring)
contains(s, :ell) | contains(s, :es) | contains(b, :bthere) | contains(ss, :x) | contains(ns, :half)
contains(bs, :ba) | contains(l, :1) | contains(l, :l12) | contains(l, :lset) | contains(:hello, s)
contains(l[2], :1) | contains(m.y, :m1)
size(s) = :5 | size(b) = :10 | size(ss) = :3 | size(ns) = :2 | size(bs) = :2 | size(l) = :4
size(m) = :3 | size(m.blank) = :0 | size(emptylist) = :0 | size(emptystring) = :0 | size(unicode) = :4
size(s) = five | size(s) > :4 | size(s) < :10 | size(s) >= :5 | size(s) <= :5 | size(s) <> :4
size(:hello) = :5 | :5 = size(s) | size(s) BETWEEN :4 AND :5 | size(s) IN (:1, :5) | (size(s)) = (five)
size(ss) = size(m) | size(n) <> :1 | size(s) <> :hello | size(nowhere) <> :1
NOT n = :4 | NOT (n = :4) | not nowhere = :3 | NOT NOT n = :3 | NOT nowhere < :3 | NOT n < :s3
n = :3 AND s = :hello | n = :3 and s = :hello AND t = :t AND z = :z | n = :4 OR s = :hello
n = :4 OR s = :x OR t = :t | n = :3 OR n = :4 AND s = :x | (n = :3 OR n = :4) AND s = :hello
NOT n = :4 AND s = :hello | NOT (n = :4 AND s = :hello) | NOT n = :4 OR s = :x
n = :3 AND (s = :x OR (t = :t AND NOT z = :t)) | (n) = (:3) | (contains(s, :ell))
n = :3 AND n BETWEEN :2 AND :4 AND s = :hello | NOT n BETWEEN :4 AND :5 | NOT n IN (:4, :5)
"""

DOES_NOT_HOLD = """
n = :4 | n <> :3 | n < :3 | n <= :2 | n > :3 | n >= :4 | n = :s3 | n < :s3 | n > :s3 | :s3 >= n
s = :hell | s < :hell | s = n | b = :bhi | t = :f | z = :t | t = :1 | n = :t
ss = :ss2 | ns = :l12 | l[2] = :ns | m = :mx | ss <> :ss
n = nowhere | nowhere = n | nowhere = gone | nowhere < :1 | nowhere <= gone | :1 > nowhere
nowhere >= :1 | nowhere BETWEEN :1 AND :2 | n BETWEEN nowhere AND :4 | n BETWEEN :2 AND nowhere
t < n | n < t | l > :1 | :1 > l | ss >= s | m < n
n BETWEEN :4 AND :5 | n BETWEEN :0 AND :2 | n BETWEEN :hell AND :hello | n BETWEEN five AND :1
s BETWEEN :0 AND :5 | n IN (:1, :2) | n IN (:s3) | nowhere IN (:1, gone) | n IN (nowhere)
attribute_exists(nowhere) | attribute_exists(m.z) | attribute_exists(l[4]) | attribute_exists(s.x)
attribute_not_exists(n) | attribute_not_exists(m.x) | attribute_not_exists(l[0])
attribute_type(s, :TN) | attribute_type(nowhere, :TS) | attribute_type(n, :TNS) | attribute_type(:3, :TS)
begins_with(s, :ell) | begins_with(n, :hell) | begins_with(nowhere, :hell) | begins_with(s, nowhere)
begins_with(b, :hell) | begins_with(s, :bhi) | begins_with(ss, :x) | begins_with(s, n)
contains(s, :x) | contains(s, :1) | contains(n, :3) | contains(ss, :hello) | contains(ss, :1)
contains(ns, :2) | contains(ns, :s3) | contains(bs, :bff) | contains(bs, :x) | contains(l, :ns)
contains(l, :x) | contains(m, :1) | contains(m, :x) | contains(nowhere, :1) | contains(s, nowhere)
contains(ss, :ss) | contains(t, :t) | contains(b, :hello)
size(s) = :4 | size(n) = :1 | size(t) = :1 | size(z) = :1 | size(nowhere) = :0 | size(n) < :10
size(s) = :hello | size(s) < :hello | size(n) BETWEEN :0 AND :10 | size(unicode) = :3
NOT n = :3 | NOT nowhere <> :3 | NOT NOT n = :4 | NOT attribute_exists(n)
n = :3 AND s = :x | n = :4 AND s = :hello | n = :4 OR s = :x | (n = :3 OR n = :4) AND s = :x
NOT (n = :3 OR s = :x) | NOT n = :3 AND s = :x | NOT n = :3 OR s = :x
"""

NAMES = {"#dotted": "a.b", "#dotted2": "nowhere"}


def cases(table):
    return [case.strip() for line in table.strip().splitlines() for case in line.split("|")]


def evaluate(expression, item=ITEM):
    condition = parse_condition(expression, NAMES)
    condition.check_values(VALUES)
    return condition.evaluate(item, VALUES)


@pytest.mark.parametrize("expression", cases(HOLDS))
def test_holds(expression):
    assert evaluate(expression) is True


@pytest.mark.parametrize("expression", cases(DOES_NOT_HOLD))
def test_does_not_hold(expression):
    assert evaluate(expression) is False


@pytest.mark.parametrize("expression", cases(HOLDS))
def test_not_inverts(expression):
    if " " in expression and not expression.startswith("("):
        expression = f"({expression})"
    assert evaluate(f"NOT {expression}") is False


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("attribute_not_exists(p)", True),
        ("attribute_exists(p)", False),
        ("p = :x", False),
        ("p <> :x", True),
        ("NOT p = :x", True),
        ("size(p) = :1", False),
        ("m.x < :1", False),
    ],
)
def test_an_absent_item_has_no_attributes(expression, expected):
    assert evaluate(expression, None) is expected


def test_usage():
    condition = parse_condition(
        "#a.b = :x AND size(c) > :y OR #b[0] IN (:x, c, #a)", {"#a": "A", "#b": "B"}
    )
    assert condition.names_used == {"#a", "#b"}
    assert condition.values_used == {":x", ":y"}
    assert condition.top_level_attributes == ("A", "c", "B")
    assert condition.nested_attributes == ("A", "B")


def test_results_are_shared_by_text_and_names():
    assert parse_condition("#a = :v", {"#a": "x"}) is parse_condition("#a = :v", {"#a": "x"})
    assert parse_condition("#a = :v", {"#a": "x"}) is not parse_condition("#a = :v", {"#a": "y"})
    assert parse_condition("a = :v", None) is parse_condition("a = :v", {})
    assert parse_condition("a = :v", None) is not parse_condition(
        "a = :v", None, "FilterExpression"
    )
    long = "a = :v" + " " * 2000
    assert parse_condition(long, None) is parse_condition(long, None)
    names = {"#a": "x" * 20_000}
    assert parse_condition("#a = :v", names).evaluate(
        {"x" * 20_000: {"S": "1"}}, {":v": {"S": "1"}}
    )


def test_trees_without_text():
    one, two = Literal({"N": "1"}), Literal({"N": "2"})
    a, b = Path(("a",)), Path(("b", 0))
    item = {"a": {"N": "1"}, "b": {"L": [{"N": "2"}]}}
    holding = [
        Comparison("=", a, one),
        Comparison("<", a, b),
        Between(b, one, two),
        In(a, (two, one)),
        Not(Comparison("=", a, two)),
        Function("contains", (Path(("b",)), two)),
        Function("attribute_exists", (b,)),
    ]
    for tree in holding:
        assert Condition(tree).evaluate(item, {}) is True
    assert Condition(And(tuple(holding))).evaluate(item, {}) is True
    assert Condition(And((*holding, Comparison("=", a, two)))).evaluate(item, {}) is False
    assert Condition(Or((Comparison("=", a, two), holding[0]))).evaluate(item, {}) is True


def test_deep_and_wide_expressions_are_evaluated_within_the_stack():
    item = {"a": {"N": "1"}, "b": {"N": "2"}}
    for expression, expected in [
        ("a<b " + "or (a<b " * 149 + ")" * 149, True),
        ("a<b " + "and (a<b " * 149 + ")" * 149, True),
        ("a>b " + "or (a>b " * 149 + ")" * 149, False),
        ("NOT " * 299 + "a<b", False),
        ("NOT (" * 298 + "a<b" + ")" * 298, True),
        (" AND ".join(["a<b"] * 150), True),
        (" OR ".join(["a>b"] * 150), False),
    ]:
        assert parse_condition(expression, None).evaluate(item, {}) is expected, expression[:40]


@pytest.mark.parametrize("needle", [{"S": "no"}, {"SS": ["no"]}, {"L": [{"S": "no"}]}])
def test_searching_a_large_list_many_times_ends_soon(needle):
    item = {"a": {"L": [{"NULL": True}] * 200_000}}
    expression = " OR ".join(["contains(a, :v)"] * 100)
    started = time.perf_counter()
    assert parse_condition(expression, None).evaluate(item, {":v": needle}) is False
    assert time.perf_counter() - started < 20


# --- against a naive reading of the rules -------------------------------------------------------------------

attributes = st.sampled_from(["a", "b", "c"])
values = st.sampled_from([":1", ":2", ":x"])
operands = attributes | values
comparisons = st.builds(
    lambda left, operator, right: (left, operator, right),
    attributes,
    st.sampled_from(["=", "<>", "<", "<=", ">", ">="]),
    values,
)
trees = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner),
        st.tuples(st.just("AND"), inner, inner),
        st.tuples(st.just("OR"), inner, inner),
    ),
    max_leaves=12,
)
scalars = st.sampled_from([{"N": "1"}, {"N": "2"}, {"S": "x"}, {"S": "y"}])
PRECEDENCE = {"OR": 1, "AND": 2, "NOT": 3}


def written(tree, outer=0):
    """The tree as text with only the parentheses it needs."""
    if tree[0] == "NOT":
        return f"NOT {written(tree[1], 3)}"
    if tree[0] not in PRECEDENCE:
        return " ".join(tree)
    level = PRECEDENCE[tree[0]]
    text = f"{written(tree[1], level)} {tree[0]} {written(tree[2], level)}"
    return f"({text})" if level < outer else text


def naive(tree, item):
    if tree[0] == "NOT":
        return not naive(tree[1], item)
    if tree[0] == "AND":
        return naive(tree[1], item) and naive(tree[2], item)
    if tree[0] == "OR":
        return naive(tree[1], item) or naive(tree[2], item)
    left, operator, right = tree
    a, b = item.get(left), VALUES[right]
    if operator == "<>":
        return a != b
    if a is None or a.keys() != b.keys():
        return False
    (x,), (y,) = a.values(), b.values()
    return {"=": x == y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y}[operator]


@settings(max_examples=200, deadline=None)
@given(trees, st.dictionaries(attributes, scalars))
def test_precedence_and_logic_match_a_naive_reading(tree, item):
    condition = parse_condition(written(tree), None)
    condition.check_values(VALUES)
    assert condition.evaluate(item, VALUES) is naive(tree, item)
