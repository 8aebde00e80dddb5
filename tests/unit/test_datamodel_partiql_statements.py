"""Statements made sense of: conditions, changes, values, and the expressions that they become."""

from itertools import pairwise

import pytest

from datamodel.errors import ValidationError
from datamodel.expressions import parse_condition, parse_update
from datamodel.key_encoding import KeySchema
from datamodel.partiql import (
    Delete,
    ExpressionWriter,
    Insert,
    Select,
    Update,
    plan_keys,
    prepare_parameters,
    prepare_statement,
    split_key,
    whole_key,
)

SCHEMA = KeySchema("pk", "S", "sk", "N")


def prepare(text, *parameters):
    return prepare_statement(text, lambda: prepare_parameters(parameters))


def where(condition, *parameters):
    return prepare(f"SELECT * FROM Tab WHERE {condition}", *parameters).where


def rendered(tree):
    """An expression with its placeholders filled in."""
    writer = ExpressionWriter()
    text = writer.condition(tree)
    parse_condition(text, writer.names).check_values(writer.values)
    return filled(text, writer)


def filled(text, writer):
    for index in reversed(range(len(writer.values))):
        ((kind, content),) = writer.values[f":{index}"].items()
        text = text.replace(f":{index}", f"{kind}<{content}>")
    for index in reversed(range(len(writer.names))):
        text = text.replace(f"#{index}", writer.names[f"#{index}"])
    return text


@pytest.mark.parametrize(
    ("condition", "expression"),
    [
        ("a = 1", "a = N<1>"),
        ("a.b[0].\"c\" <> 'x'", "a.b[0].c <> S<x>"),
        ("1 < a", "N<1> < a"),
        ("a = b", "a = b"),
        ("a BETWEEN 1 AND b", "a BETWEEN N<1> AND b"),
        ("a IN (1, b)", "a IN (N<1>,b)"),
        ("a NOT IN (1)", "NOT a IN (N<1>)"),
        ("a IS NULL", "attribute_type(a, S<NULL>)"),
        ("a IS NOT NULL", "NOT attribute_type(a, S<NULL>)"),
        ("a IS MISSING", "attribute_not_exists(a)"),
        ("a IS NOT MISSING", "NOT attribute_not_exists(a)"),
        ("a IS STRING", "attribute_type(a, S<S>)"),
        ("a IS DECIMAL", "attribute_type(a, S<N>)"),
        ("a IS LIST", "attribute_type(a, S<L>)"),
        (
            "a IS BAG",
            "attribute_type(a, S<SS>) OR attribute_type(a, S<NS>) OR attribute_type(a, S<BS>)",
        ),
        ("size(a) > 3", "size(a) > N<3>"),
        ("a = 1 AND b = 2 AND c = 3", "a = N<1> AND b = N<2> AND c = N<3>"),
        ("a = 1 AND (b = 2 OR c = 3)", "a = N<1> AND (b = N<2> OR c = N<3>)"),
        ("a = 1 AND b = 2 OR c = 3", "a = N<1> AND b = N<2> OR c = N<3>"),
        ("a = 1 OR (b = 2 OR c = 3)", "a = N<1> OR b = N<2> OR c = N<3>"),
        ("NOT (a = 1 AND b = 2)", "NOT (a = N<1> AND b = N<2>)"),
        ("NOT NOT a = 1", "NOT NOT a = N<1>"),
        ("(((a = 1)))", "a = N<1>"),
        ("contains(a, 'x') = true", "contains(a, S<x>)"),
        ("false = contains(a, 'x')", "NOT contains(a, S<x>)"),
        ("begins_with(a, 'x') <> true", "NOT begins_with(a, S<x>)"),
    ],
)
def test_conditions_become_expressions(condition, expression):
    assert rendered(where(condition)) == expression


@pytest.mark.parametrize(
    ("changes", "expression"),
    [
        ("SET a = 1", "SET a = N<1>"),
        ("SET a = b", "SET a = b"),
        ("SET a = b + 1, c = 1 - d", "SET a = b + N<1>, c = N<1> - d"),
        ("SET a.b[1] = null REMOVE c SET d = 2", "SET a.b[1] = NULL<True>, d = N<2> REMOVE c"),
        ("SET a = list_append(a, b)", "SET a = list_append(a, b)"),
        ("SET a = set_delete(a, <<'x'>>) REMOVE b", "REMOVE b DELETE a SS<['x']>"),
        ('SET a."b" = set_add(a.b, <<1>>)', "ADD a.b NS<['1']>"),
    ],
)
def test_changes_become_expressions(changes, expression):
    update = prepare(f"UPDATE Tab {changes} WHERE pk = 'x'")
    assert isinstance(update, Update)
    writer = ExpressionWriter()
    text = writer.update(update.actions)
    parse_update(text, writer.names).check_values(writer.values)
    assert filled(text, writer) == expression


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM Tab WHERE a", "Unsupported operation: Id"),
        ("SELECT * FROM Tab WHERE true", "Unsupported operation: Lit"),
        ("SELECT * FROM Tab WHERE a + 1", "Unsupported operation: Plus"),
        ("SELECT * FROM Tab WHERE a + 1 = 2", "Unsupported operation: Plus"),
        ("SELECT * FROM Tab WHERE a LIKE 'x'", "Unsupported operation: Like"),
        ("SELECT * FROM Tab WHERE a = (SELECT b FROM Tab)", "Unsupported operation: Select"),
        ("SELECT * FROM Tab WHERE a IN (SELECT b FROM Tab)", "Unsupported operation: Select"),
        ("SELECT * FROM Tab WHERE a IN b", "Unsupported operation: Id"),
        ("SELECT * FROM Tab WHERE a IS TIMESTAMP", "Unsupported data type: TIMESTAMP"),
        ("SELECT * FROM Tab WHERE a[-1] = 1", "Unexpected path component at 1:25:1"),
        ("SELECT * FROM Tab WHERE a[*] = 1", "Unexpected path component at 1:27:1"),
        ('SELECT * FROM Tab WHERE "" = 1', "Path component cannot be an empty string"),
        (
            "SELECT * FROM Tab WHERE a[99999999999] = 1",
            "List index is not within the allowable range; index: [99999999999]",
        ),
        (
            "SELECT * FROM Tab WHERE a = a",
            "The first operand must be distinct from the remaining operands for this operator "
            "or function; operator: =, first operand: [a]",
        ),
        (
            "SELECT * FROM Tab WHERE a BETWEEN 2 AND 1",
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            "lower bound operand: AttributeValue: {N:2}, upper bound operand: AttributeValue: {N:1}",
        ),
        (
            "SELECT * FROM Tab WHERE " + " OR ".join(["a = 1"] * 155),
            "The expression contains too many operators; operator count: 301",
        ),
        ("SELECT * FROM Tab, Other", "Only select from a single table or index is supported."),
        (
            "SELECT * FROM Tab JOIN Other ON a = b",
            "Only select from a single table or index is supported.",
        ),
        ("SELECT * FROM Tab[0]", "Unexpected path component at 1:15:3"),
        ("SELECT * FROM <<1>>", "Unexpected path component at 1:15:2"),
        ("SELECT a AS b FROM Tab", "Aliasing is not supported"),
        ("SELECT DISTINCT a FROM Tab", "Unsupported clause: DISTINCT at 1:8:8"),
        ("SELECT 1 FROM Tab", "Unexpected path component at 1:8:1"),
        ("SELECT * FROM Tab WHERE a = 1 ORDER BY a.b", "Unexpected path component at 1:40:1"),
        ("INSERT INTO Tab {'pk': 'x'}", "Unsupported operation: Struct"),
        ("INSERT INTO Tab VALUE 'x'", "Unsupported operation: Lit"),
        (
            "INSERT INTO Tab.ix VALUE {'pk': 'x'}",
            "FROM clause may only contain a single table name in data manipulation statements at 1:13:3",
        ),
        (
            "INSERT INTO Tab VALUE {'pk': missing}",
            "Unsupported data type: MISSING under key root at 1:30:7",
        ),
        (
            "INSERT INTO Tab VALUE {'pk': a}",
            "Unsupported data type: UNKNOWN under key root at 1:30:1",
        ),
        ("INSERT INTO Tab VALUE {1: 1}", "Unsupported key in a map: it must be a string at 1:24:1"),
        ("SET a = 1", "Unsupported operation: Dml"),
        ("UPDATE Tab SET a = b * 2 WHERE pk = 'x'", "Unsupported operation: Times"),
        ("UPDATE Tab SET a = b + 1 + 1 WHERE pk = 'x'", "Unsupported operation: Plus"),
        (
            "UPDATE Tab SET a = if_not_exists(a, 1) WHERE pk = 'x'",
            "Unrecognized function: if_not_exists at 1:20:13",
        ),
        (
            "UPDATE Tab SET a = 1 REMOVE a.b WHERE pk = 'x'",
            "Two document paths overlap with each other; must remove or rewrite one of these paths; "
            "path one: [a], path two: [a, b]",
        ),
        (
            "UPDATE Tab SET a = 'x' + 1 WHERE pk = 'x'",
            "Incorrect operand type for operator or function; operator or function: +, operand type: S",
        ),
        (
            "SELECT * FROM ab",
            "Table name should be within the length [3, 255] and only contain "
            "'a-z', 'A-Z', '0-9', '-', '_', '.'.",
        ),
    ],
)
def test_what_the_service_refuses(statement, message):
    with pytest.raises(ValidationError) as raised:
        prepare(statement)
    assert raised.value.message == message


def test_statements_by_kind():
    assert isinstance(prepare("SELECT * FROM Tab"), Select)
    assert prepare('SELECT * FROM "Tab"."ix"').index == "ix"
    assert isinstance(prepare("INSERT INTO Tab VALUE {'pk': 'x'}"), Insert)
    assert isinstance(prepare("DELETE FROM Tab WHERE pk = 'x'"), Delete)
    insert = prepare("INSERT INTO Tab VALUE {'pk': 'x', 'n': ?}", {"N": "1.0"})
    assert (insert.item, insert.size) == ({"pk": {"S": "x"}, "n": {"N": "1"}}, 6)


# --- keys --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "partitions", "ranges", "rest"),
    [
        ("pk = 'a'", "a", 1, None),
        ("'a' = pk", "a", 1, None),
        ("pk = 'a' AND sk = 1", "a", 1, None),
        ("pk = 'a' AND 1 <= sk AND x = 2", "a", 1, "x = N<2>"),
        ("pk = 'a' AND sk <> 1", "a", 1, "sk <> N<1>"),
        ("pk = 'a' AND NOT sk = 1", "a", 1, "NOT sk = N<1>"),
        ("pk = 'a' AND sk IN (1, 2, 2)", "a", 2, None),
        ("pk IN ('a', 'b', 'a')", "a b", 2, None),
        ("pk IN ('a', 'b') AND sk BETWEEN 1 AND 2", "a b", 2, None),
        ("pk = 'a' AND sk > 5 AND sk < 3", "a", 0, None),
        ("pk = 'a' AND pk = 'b'", "", 0, None),
        ("pk = 'a' AND pk = 'a'", "a", 1, None),
        ("pk = 'a' OR pk = 'b'", "a b", 2, "pk = S<a> OR pk = S<b>"),
        ("(pk = 'a' OR pk = 'b') AND sk = 1", "a b", 2, "(pk = S<a> OR pk = S<b>) AND sk = N<1>"),
        ("pk = 'a' AND (x = 1 OR y = 2)", "a", 1, "x = N<1> OR y = N<2>"),
        ("pk = 'a' AND sk = 1 OR pk = 'a' AND sk > 3", "a", 2,
         "pk = S<a> AND sk = N<1> OR pk = S<a> AND sk > N<3>"),
        ("pk = 'a' AND size(sk) = 1", "a", 1, "size(sk) = N<1>"),
        ("pk = 'a' AND pk.x = 1", "a", 1, "pk.x = N<1>"),
    ],
)  # fmt: skip
def test_queries(condition, partitions, ranges, rest):
    plan = plan_keys(where(condition), SCHEMA)
    assert not plan.is_scan
    assert " ".join(value["S"] for value in plan.partition_values) == partitions
    assert len(plan.ranges(300)) == ranges
    assert (None if plan.filter is None else rendered(plan.filter)) == rest
    plan.check_no_overlap(300)
    for descending in (False, True):
        bounds = sorted(plan.ranges(300, descending=descending))
        assert all(start < end for start, end in bounds)
        assert all(one[1] <= two[0] for one, two in pairwise(bounds))


@pytest.mark.parametrize(
    "condition",
    ["x = 1", "pk <> 'a'", "pk > 'a'", "NOT pk = 'a'", "pk = 'a' OR x = 1", "sk = 1", "pk = x",
     "begins_with(pk, 'a')", "x IN (1, 2)", "pk IN ('a', x)"],
)  # fmt: skip
def test_scans(condition):
    tree = where(condition)
    plan = plan_keys(tree, SCHEMA)
    assert plan.is_scan
    assert plan.filter is tree


def test_too_many_reads():
    many = ",".join(f"'{n}'" for n in range(50))
    assert len(plan_keys(where(f"pk IN ({many})"), SCHEMA).ranges(300)) == 50
    for condition in (
        f"pk IN ({many}, 'x')",
        "pk IN ('a', 'b') AND sk IN (" + ",".join(map(str, range(26))) + ")",
        "pk = 'a' AND " + " AND ".join(["(sk = 1 OR sk = 2)"] * 60),
    ):
        with pytest.raises(ValidationError, match="Too many decomposed read operations"):
            plan_keys(where(condition), SCHEMA)
    assert plan_keys(
        where("x = 1 AND sk IN (" + ",".join(map(str, range(99))) + ")"), SCHEMA
    ).is_scan


@pytest.mark.parametrize(
    ("condition", "key", "rest"),
    [
        ("pk = 'a' AND sk = 1", {"pk": {"S": "a"}, "sk": {"N": "1"}}, None),
        ("1 = sk AND x = 2 AND pk = 'a'", {"sk": {"N": "1"}, "pk": {"S": "a"}}, "x = N<2>"),
        ("pk = 'a' AND sk = 1 AND sk = 1.0", {"pk": {"S": "a"}, "sk": {"N": "1"}}, None),
        ("pk = 'a' AND sk = 1 AND sk > 0", {"pk": {"S": "a"}, "sk": {"N": "1"}}, "sk > N<0>"),
        ("(pk = 'a' AND sk = 1)", {"pk": {"S": "a"}, "sk": {"N": "1"}}, None),
    ],
)
def test_keys_of_writes(condition, key, rest):
    found, left = split_key(where(condition), SCHEMA)
    assert found == key
    assert (None if left is None else rendered(left)) == rest


@pytest.mark.parametrize(
    ("condition", "whole"),
    [
        ("pk = 'a' AND sk = 1", True),
        ("pk IN ['a'] AND sk = 1", True),
        ("pk = 'a'", False),
        ("pk = 'a' AND sk >= 1", False),
        ("pk = 'a' AND sk = 1 AND x = 1", False),
        ("pk = 'a' AND sk = 1 OR pk = 'b' AND sk = 1", False),
    ],
)
def test_whole_keys(condition, whole):
    assert (whole_key(where(condition), SCHEMA) is not None) == whole
    assert whole_key(None, SCHEMA) is None
