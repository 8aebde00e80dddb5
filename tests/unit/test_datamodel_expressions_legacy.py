"""Conditions and updates from before expressions: their texts and what these do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ValidationError
from datamodel.expressions import parse_condition, parse_update, read_condition, read_update
from datamodel.expressions.legacy import condition_text, update_text

ITEM = {
    "pk": {"S": "a"},
    "n": {"N": "5"},
    "s": {"S": "hello"},
    "ss": {"SS": ["x", "y"]},
    "l": {"L": [{"N": "1"}]},
}


def holds(terms, values=(), operator="AND", item=ITEM):
    condition = read_condition(condition_text(terms, operator), None)
    condition.check_values({})
    return condition.evaluate(item, dict(values))


@pytest.mark.parametrize(
    ("term", "values", "expected"),
    [
        (("EQ", "n", ":a"), [{"N": "5"}], True),
        (("EQ", "q", ":a"), [{"N": "5"}], False),
        (("NE", "q", ":a"), [{"N": "5"}], True),
        (("NE", "n", ":a"), [{"S": "5"}], True),
        (("LE", "n", ":a"), [{"N": "5"}], True),
        (("LT", "n", ":a"), [{"N": "5"}], False),
        (("GE", "n", ":a"), [{"S": "0"}], False),
        (("GT", "s", ":a"), [{"S": "h"}], True),
        (("NULL", "q"), [], True),
        (("NOT_NULL", "q"), [], False),
        (("CONTAINS", "s", ":a"), [{"S": "ell"}], True),
        (("CONTAINS", "ss", ":a"), [{"S": "x"}], True),
        (("CONTAINS", "l", ":a"), [{"N": "1"}], True),
        (("NOT_CONTAINS", "l", ":a"), [{"N": "2"}], True),
        (("NOT_CONTAINS", "q", ":a"), [{"N": "2"}], False),
        (("BEGINS_WITH", "s", ":a"), [{"S": "hell"}], True),
        (("IN", "n", ":a", ":b"), [{"N": "4"}, {"N": "5"}], True),
        (("BETWEEN", "n", ":a", ":b"), [{"N": "4"}, {"N": "5"}], True),
        (("BETWEEN", "q", ":a", ":b"), [{"N": "4"}, {"N": "5"}], False),
    ],
)
def test_each_operator(term, values, expected):
    named = dict(zip((":a", ":b"), values, strict=False))
    assert holds([term], named) is expected
    if term[0] not in ("NE", "NULL"):
        assert not holds([term], named, item=None)


def test_terms_are_joined():
    terms = [("NULL", "n"), ("NULL", "q")]
    assert not holds(terms)
    assert holds(terms, operator="OR")
    assert not holds([("NULL", "n"), ("NULL", "s")], operator="OR")


def test_what_a_condition_reads_is_known():
    condition = read_condition(condition_text([("NULL", "a.b"), ("EQ", "c", ":x")], "AND"), None)
    assert condition.top_level_attributes == ("a.b", "c")
    assert condition.nested_attributes == ()
    assert condition.values_used == {":x"}


def test_no_limit_of_expressions_applies():
    operands = [f":v{n}" for n in range(2_000)]
    values = {name: {"N": str(n)} for n, name in enumerate(operands)}
    assert holds([("IN", "n", *operands)], values)
    assert holds([("NULL", f"attribute number {n}") for n in range(5_000)])


def test_the_same_text_is_read_once():
    text = condition_text([("EQ", "n", ":a")], "AND")
    assert read_condition(text, None) is read_condition(text, None)
    update = update_text([("PUT", "n", ":a")])
    assert read_update(update, None) is read_update(update, None)


def test_no_client_can_send_such_a_text_as_an_expression():
    with pytest.raises(ValidationError, match="Syntax error"):
        parse_condition(condition_text([("NULL", "n")], "AND"), None)
    with pytest.raises(ValidationError, match="Syntax error"):
        parse_update(update_text([("DELETE", "n", None)]), None)


def test_expressions_are_read_too():
    assert read_condition("n = :a", None) is parse_condition("n = :a", None)
    assert read_update("SET n = :a", None) is parse_update("SET n = :a", None)


def updated(actions, values, item=ITEM):
    return read_update(update_text(actions), None).apply(item, values, ("pk",)).item


def test_updates():
    actions = [
        ("PUT", "s", ":a"), ("ADD", "n", ":b"), ("ADD", "l", ":c"), ("ADD", "new", ":c"),
        ("DELETE", "ss", ":d"), ("DELETE", "nothing", None), ("DELETE", "gone", ":d"),
    ]  # fmt: skip
    values = {
        ":a": {"BOOL": True}, ":b": {"N": "-1"}, ":c": {"L": [{"S": "z"}]}, ":d": {"SS": ["x", "q"]},
    }  # fmt: skip
    assert updated(actions, values) == {
        "pk": {"S": "a"},
        "n": {"N": "4"},
        "s": {"BOOL": True},
        "ss": {"SS": ["y"]},
        "l": {"L": [{"N": "1"}, {"S": "z"}]},
        "new": {"L": [{"S": "z"}]},
    }
    assert ITEM["l"] == {"L": [{"N": "1"}]}


def test_deleting_the_last_element_removes_a_set():
    assert "ss" not in updated([("DELETE", "ss", ":d")], {":d": {"SS": ["y", "x"]}})


@pytest.mark.parametrize(
    ("action", "value"),
    [
        (("ADD", "s", ":a"), {"N": "1"}),
        (("ADD", "ss", ":a"), {"NS": ["1"]}),
        (("ADD", "ss", ":a"), {"L": []}),
        (("DELETE", "n", ":a"), {"NS": ["1"]}),
    ],
)
def test_types_that_do_not_go_together(action, value):
    with pytest.raises(ValidationError, match=r"^Type mismatch for attribute to update$"):
        updated([action], {":a": value})


def test_only_deletes_create_no_item():
    assert not read_update(update_text([("DELETE", "a", None)]), None).creates_item
    assert read_update(update_text([("DELETE", "a", None), ("ADD", "b", ":b")]), None).creates_item
    assert not parse_update("REMOVE a, b.c", None).creates_item
    assert parse_update("REMOVE a SET b = :b", None).creates_item


def test_key_attributes_stay():
    with pytest.raises(ValidationError, match="Cannot update attribute pk"):
        read_update(update_text([("PUT", "pk", ":a")]), None).check_key(("pk",))


NAMES = st.text(max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.data())
def test_names_are_whole_attributes_whatever_is_in_them(names, data):
    actions = [("PUT", name, f":{index}") for index, name in enumerate(names)]
    values = {f":{index}": {"N": str(index)} for index in range(len(names))}
    item = read_update(update_text(actions), None).apply({}, values).item
    assert item == {name: {"N": str(index)} for index, name in enumerate(names)}
    name = data.draw(st.sampled_from(names))
    assert holds([("EQ", name, ":v")], {":v": item[name]}, item=item)
    assert not holds([("NULL", name)], item=item)
