"""Which validation layer words what, and that the wording of 2025 can still be had."""

import pytest

from datamodel.errors import ConditionalCheckFailedError, ValidationError
from datamodel.wording import NEWEST, OLDER, WORDINGS, is_for_older_layer, worded
from router.composition import Options
from tests.unit.router_harness import VALIDATION, Harness

ENVELOPE = "1 validation error detected: "
INVALID = "One or more parameter values were invalid: "
LEAST_ONE = "failed to satisfy constraint: Member must have {} greater than or equal to 1"


def deep(levels, kind="M"):
    value = {"S": "x"}
    for _ in range(levels):
        value = {kind: {"a": value} if kind == "M" else [value]}
    return value


def test_a_fault_in_the_words_of_an_operation():
    fault = ValidationError("old", newer="new")
    put, get = WORDINGS["2026"]["PutItem"], WORDINGS["2026"]["GetItem"]
    assert worded(fault, OLDER, is_by_itself=True) is fault
    assert worded(fault, get, is_by_itself=True).message == "new"
    assert worded(fault, put, is_by_itself=False).message == "new"
    once = worded(fault, put, is_by_itself=True)
    assert once.message == worded(once, put, is_by_itself=True).message == f"{ENVELOPE}new"
    other = ConditionalCheckFailedError()
    assert worded(other, put, is_by_itself=True) is other


@pytest.mark.parametrize(
    ("operation", "members", "is_older"),
    [
        ("UpdateItem", {}, True),
        ("UpdateItem", {"Key": {}}, False),
        ("PutItem", {}, False),
        ("PutItem", {"Item": {"a": deep(62)}}, False),
        ("PutItem", {"Item": {"a": deep(63)}}, True),
        ("PutItem", {"Item": {"a": deep(63, "L")}}, True),
        ("DeleteItem", {"Key": {}, "Expected": {"x": {"Value": deep(63)}}}, True),
        ("Query", {"ExclusiveStartKey": {"a": deep(70)}}, False),
    ],
)
def test_when_the_older_layer_answers_as_a_whole(operation, members, is_older):
    assert is_for_older_layer(operation, members) is is_older


def test_a_hundred_thousand_levels_do_not_exhaust_the_stack():
    value = deep(100_000)
    assert is_for_older_layer("PutItem", {"Item": {"a": value}})
    while "M" in value:
        value = value["M"].pop("a")


@pytest.mark.parametrize(
    ("operation", "members", "older", "newer"),
    [
        (
            "PutItem",
            {"Item": {"pk": {"S": "a"}, "s": {"SS": ["b", "a", "b"]}}},
            f"{INVALID}Input collection [b, a, b] contains duplicates.",
            f'{ENVELOPE}{INVALID}Input collection ["a", "b", "b"] contains duplicates.',
        ),
        (
            "GetItem",
            {"Key": {"pk": {"N": ""}}},
            "The parameter cannot be converted to a numeric value",
            "The parameter cannot be converted to a numeric value: ",
        ),
        (
            "Query",
            {"Limit": 0},
            f"{ENVELOPE}Value '0' at 'limit' {LEAST_ONE.format('value')}",
            f"{ENVELOPE}Value at 'Limit' {LEAST_ONE.format('value')}",
        ),
        (
            "BatchGetItem",
            {"TableName": None, "RequestItems": {}},
            "The requestItems parameter is required for BatchGetItem",
            f"{ENVELOPE}Value at 'RequestItems' {LEAST_ONE.format('length')}",
        ),
        (
            "DeleteItem",
            {"Key": {"pk": {"S": "a"}}, "ConditionExpression": ""},
            "Invalid ConditionExpression: The expression can not be empty;",
            f"{ENVELOPE}Invalid ConditionExpression: The expression can not be empty;",
        ),
    ],
)
def test_both_wordings(operation, members, older, newer):
    for year, expected in (("2025", older), ("2026", newer)):
        harness = Harness(WORDINGS[year]).add_table()
        assert harness.error(operation, **members) == (*VALIDATION, expected), year


def test_routers_have_the_newest():
    options = Options(name="r", az="a", catalog=[], region="r", account_id="1")
    assert options.validation_wording == NEWEST == max(WORDINGS)
