"""Query and Scan through the dispatcher, over partition groups in memory."""

import pytest

from datamodel.key_encoding import partition_bounds, segment_range
from tests.unit.router_harness import VALIDATION, Harness, table, thing


@pytest.fixture
def plain():
    """A table with a partition key only, in four partitions."""
    return Harness().add_table(count=4)


@pytest.fixture
def sorted_table():
    """A table with a numeric sort key, in three partitions."""
    return Harness().add_table(table(sort="N"), count=3)


def sized(pk, size):
    """An item of exactly `size` bytes."""
    return thing(pk, x={"S": "x" * (size - len("pk") - len(pk) - len("x"))})


# --- Query -------------------------------------------------------------------------------------------------


def query(harness, expression="pk = :p", values=None, **members):
    return harness.ok(
        "Query",
        KeyConditionExpression=expression,
        ExpressionAttributeValues={":p": {"S": "a"}, **(values or {})},
        **members,
    )


def sort_keys(body):
    return [int(item["sk"]["N"]) for item in body["Items"]]


def fill(harness, count=10):
    harness.put(*(thing("a", n, v={"S": str(n % 2)}) for n in range(count)))
    harness.put(thing("other", 5))


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        ("pk = :p", {}, list(range(10))),
        ("pk = :p AND sk = :x", {":x": {"N": "3"}}, [3]),
        ("pk = :p AND sk < :x", {":x": {"N": "3"}}, [0, 1, 2]),
        ("pk = :p AND sk >= :x", {":x": {"N": "8"}}, [8, 9]),
        ("sk BETWEEN :x AND :y AND pk = :p", {":x": {"N": "2"}, ":y": {"N": "4.0"}}, [2, 3, 4]),
    ],
)
def test_query_in_both_directions(sorted_table, condition, values, expected):
    fill(sorted_table)
    body = query(sorted_table, condition, values)
    assert sort_keys(body) == expected
    assert body["Count"] == body["ScannedCount"] == len(expected)
    assert "LastEvaluatedKey" not in body
    backwards = query(sorted_table, condition, values, ScanIndexForward=False)
    assert sort_keys(backwards) == expected[::-1]


@pytest.mark.parametrize("forward", [True, False])
def test_query_pages(sorted_table, forward):
    fill(sorted_table)
    seen = []
    start = {}
    pages = 0
    while True:
        body = query(sorted_table, Limit=3, ScanIndexForward=forward, **start)
        seen += sort_keys(body)
        pages += 1
        if "LastEvaluatedKey" not in body:
            break
        assert body["LastEvaluatedKey"] == thing("a", seen[-1])
        start = {"ExclusiveStartKey": body["LastEvaluatedKey"]}
    assert seen == list(range(10)) if forward else list(range(10))[::-1]
    assert pages == 4


def test_query_filter_counts_what_it_drops(sorted_table):
    fill(sorted_table)
    body = query(
        sorted_table,
        values={":one": {"S": "1"}},
        FilterExpression="v = :one",
        ProjectionExpression="sk",
        ReturnConsumedCapacity="TOTAL",
        ConsistentRead=True,
    )
    assert body == {
        "Items": [{"sk": {"N": str(n)}} for n in (1, 3, 5, 7, 9)],
        "Count": 5,
        "ScannedCount": 10,
        "ConsumedCapacity": {"TableName": "Things", "CapacityUnits": 1.0},
    }
    count = query(
        sorted_table, values={":one": {"S": "1"}}, FilterExpression="v = :one", Select="COUNT"
    )
    assert count == {"Count": 5, "ScannedCount": 10}


def test_query_of_nothing_costs_the_minimum(sorted_table):
    body = query(sorted_table, ReturnConsumedCapacity="TOTAL")
    assert body == {
        "Items": [],
        "Count": 0,
        "ScannedCount": 0,
        "ConsumedCapacity": {"TableName": "Things", "CapacityUnits": 0.5},
    }


def test_attributes_to_get_are_names_not_paths(sorted_table):
    sorted_table.put(thing("a", 1, **{"x.y": {"S": "dotted"}, "x": {"S": "plain"}}))
    body = sorted_table.ok("Scan", AttributesToGet=["x.y", "sk"])
    assert body["Items"] == [{"x.y": {"S": "dotted"}, "sk": {"N": "1"}}]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"KeyConditionExpression": None, "ExpressionAttributeValues": None},
            "Either the KeyConditions or KeyConditionExpression parameter must be specified "
            "in the request.",
        ),
        (
            {"KeyConditionExpression": "sk = :p"},
            "Query condition missed key schema element: pk",
        ),
        (
            {"IndexName": "nope"},
            "The table does not have the specified index: nope",
        ),
        (
            {"FilterExpression": "sk > :p"},
            "Filter Expression can only contain non-primary key attributes: "
            "Primary key attribute: sk",
        ),
        (
            {"Select": "SPECIFIC_ATTRIBUTES"},
            "1 validation error detected: Must specify the AttributesToGet or ProjectionExpression "
            "when choosing to get SPECIFIC_ATTRIBUTES",
        ),
        (
            {"Select": "COUNT", "ProjectionExpression": "v"},
            "1 validation error detected: Cannot specify the ProjectionExpression when choosing "
            "to get only the Count",
        ),
        (
            {"Select": "ALL_PROJECTED_ATTRIBUTES"},
            "1 validation error detected: ALL_PROJECTED_ATTRIBUTES can be used only when Querying "
            "using an IndexName",
        ),
        ({"ExclusiveStartKey": {"pk": {"S": "a"}}}, "The provided starting key is invalid"),
        (
            {"ExclusiveStartKey": {"pk": {"S": "a"}, "x": {"N": "1"}}},
            "The provided starting key is invalid",
        ),
        (
            {"ExclusiveStartKey": thing("b", 1)},
            "The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            {
                "KeyConditionExpression": "pk = :p AND sk > :x",
                "ExpressionAttributeValues": {":p": {"S": "a"}, ":x": {"N": "5"}},
                "ExclusiveStartKey": thing("a", 5),
            },
            "The provided starting key does not match the range key predicate",
        ),
        (
            {
                "KeyConditionExpression": None,
                "ExpressionAttributeValues": None,
                "KeyConditions": {},
            },
            "Conditions can be of length 1 or 2 only",
        ),
    ],
)
def test_query_complaints(sorted_table, members, message):
    request = {
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": "a"}},
        **members,
    }
    assert sorted_table.error("Query", **request) == (*VALIDATION, message)


# --- Scan --------------------------------------------------------------------------------------------------


def scan_all(harness, **members):
    items, pages = [], 0
    while True:
        body = harness.ok("Scan", **members)
        items += body["Items"]
        pages += 1
        if "LastEvaluatedKey" not in body:
            return items, pages
        members["ExclusiveStartKey"] = body["LastEvaluatedKey"]


def test_scan_crosses_partitions_without_a_seam(plain):
    names = {f"k{n}" for n in range(50)}
    plain.put(*(thing(name) for name in names))
    body = plain.ok("Scan")
    assert {item["pk"]["S"] for item in body["Items"]} == names
    assert (body["Count"], body["ScannedCount"]) == (50, 50)
    assert len({request.group for request in plain.storage.requests[-4:]}) == 4


@pytest.mark.parametrize("limit", [1, 7, 49, 50, 51])
def test_scan_pages(plain, limit):
    plain.put(*(thing(f"k{n}") for n in range(50)))
    items, pages = scan_all(plain, Limit=limit)
    assert sorted(item["pk"]["S"] for item in items) == sorted(f"k{n}" for n in range(50))
    # The key is there whenever the limit ended the page, even if nothing follows.
    assert pages == 50 // limit + 1


def test_a_page_ends_at_one_megabyte_over_all_partitions(plain):
    plain.put(*(sized(f"k{n}", 100_000) for n in range(25)))
    body = plain.ok("Scan", ReturnConsumedCapacity="TOTAL")
    assert body["Count"] == 11  # the item that crosses 1 MB is included
    assert body["ConsumedCapacity"]["CapacityUnits"] == 134.5  # 1,100,000 bytes
    items, pages = scan_all(plain)
    assert len(items) == 25
    assert pages == 3


@pytest.mark.parametrize("total", [1, 3, 7])
def test_segments_cover_the_table_once(plain, total):
    plain.put(*(thing(f"k{n}") for n in range(50)))
    found = []
    for segment in range(total):
        items, _ = scan_all(plain, Segment=segment, TotalSegments=total, Limit=9)
        found += [item["pk"]["S"] for item in items]
    assert sorted(found) == sorted(f"k{n}" for n in range(50))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"Segment": 0},
            "The TotalSegments parameter is required but was not present in the request "
            "when Segment parameter is present",
        ),
        (
            {"TotalSegments": 2},
            "The Segment parameter is required but was not present in the request "
            "when parameter TotalSegments is present",
        ),
        (
            {"Segment": 5, "TotalSegments": 5},
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            "Segment: 5 is not less than TotalSegments: 5",
        ),
        (
            {"ExclusiveStartKey": {"x": {"S": "a"}}},
            "The provided starting key is invalid: "
            "The provided key element does not match the schema",
        ),
        (
            {"Select": "SPECIFIC_ATTRIBUTES"},
            "Must specify the AttributesToGet or ProjectionExpression "
            "when choosing to get SPECIFIC_ATTRIBUTES",
        ),
        ({"IndexName": "nope"}, "The table does not have the specified index: nope"),
        (
            {
                "ScanFilter": {
                    "v": {
                        "ComparisonOperator": "IN",
                        "AttributeValueList": [{"N": str(n)} for n in range(2_000)],
                    }
                }
            },
            "One or more parameter values were invalid: More than 2000 conditions and operands",
        ),
        (
            {"ScanFilter": {}, "ConditionalOperator": "OR"},
            "ConditionalOperator cannot be used without Filter or Expected",
        ),
    ],
)
def test_scan_complaints(plain, members, message):
    assert plain.error("Scan", **members) == (*VALIDATION, message)


def test_a_start_key_must_lie_in_the_segment(plain):
    plain.put(thing("a"))
    codes = []
    for segment in range(4):
        status, body = plain.request(
            "Scan",
            {
                "TableName": "Things",
                "Segment": segment,
                "TotalSegments": 4,
                "ExclusiveStartKey": thing("a"),
            },
        )
        codes.append(status)
        if status == 400:
            assert body["message"] == (
                "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
                f"ExclusiveStartKey with correct Segment. TotalSegments: 4 Segment: {segment}"
            )
    assert sorted(codes) == [200, 400, 400, 400]
    assert segment_range(300, 0, 4)[0] == partition_bounds(300, 4)[0]
