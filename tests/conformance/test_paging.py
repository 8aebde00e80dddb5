"""What no transcript can say: that pages and segments together give every item once, in order, whatever the cut."""

import itertools
import json
import os
from typing import Any

import pytest

from tests.conformance.runner import Surroundings
from tests.conformance.tables import create_request, wait_for_table
from tests.conformance.transports import Transport

ITEMS = 60
PARTITIONS = 4


def ask(transport: Transport, operation: str, **members: Any) -> dict[str, Any]:
    outcome = transport.send(operation, json.dumps(members))
    assert not outcome.code, f"{operation} {members}: {outcome}"
    return outcome.members


def pages(transport: Transport, operation: str, **members: Any) -> list[dict[str, Any]]:
    """All pages, followed from LastEvaluatedKey to the end."""
    found = []
    for _ in range(ITEMS + 2):
        page = ask(transport, operation, **members)
        found.append(page)
        if "LastEvaluatedKey" not in page:
            return found
        members["ExclusiveStartKey"] = page["LastEvaluatedKey"]
    raise AssertionError("the pages do not end")


def items_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for page in found for item in page.get("Items", [])]


@pytest.fixture(scope="module")
def table(http_transport: Transport, surroundings: Surroundings) -> str:
    """Ten partition keys of six items each, over several partitions where the tag has an effect."""
    name = f"{surroundings.prefix}paging-{os.urandom(2).hex()}"
    tags = [{"Key": "quorate:partitions", "Value": str(PARTITIONS)}]
    ask(http_transport, "CreateTable", **create_request(name, "SN", Tags=tags))
    wait_for_table(http_transport, name)
    for number in range(ITEMS):
        ask(http_transport, "PutItem", TableName=name, Item=item(number))
    return name


def item(number: int) -> dict[str, Any]:
    return {
        "pk": {"S": f"p{number % 10}"},
        "sk": {"N": str(number // 10 - 3)},
        "odd": {"BOOL": number % 2 == 1},
    }


def identity(one: dict[str, Any]) -> tuple[str, int]:
    return one["pk"]["S"], int(one["sk"]["N"])


EVERYTHING = sorted(identity(item(number)) for number in range(ITEMS))


@pytest.mark.parametrize("transport_name", ["http", "grpc"])
@pytest.mark.parametrize("limit", [1, 2, 7, 30, 60, 61])
def test_scan_pages(
    transports: dict[str, Transport], table: str, transport_name: str, limit: int
) -> None:
    if transport_name not in transports:
        pytest.skip(f"no {transport_name} endpoint")
    found = pages(
        transports[transport_name], "Scan", TableName=table, Limit=limit, ConsistentRead=True
    )
    assert sorted(map(identity, items_of(found))) == EVERYTHING
    assert all(page["ScannedCount"] <= limit for page in found)
    # An item collection stays together, in the order of its sort keys.
    for _, collection in itertools.groupby(map(identity, items_of(found)), key=lambda i: i[0]):
        assert [sort for _, sort in collection] == [-3, -2, -1, 0, 1, 2]


@pytest.mark.parametrize("total", [1, 2, 3, 5, 8, 100])
def test_segments_divide_the_table(http_transport: Transport, table: str, total: int) -> None:
    found: list[tuple[str, int]] = []
    for segment in range(total):
        part = pages(
            http_transport, "Scan", TableName=table, Segment=segment, TotalSegments=total, Limit=4,
            ConsistentRead=True,
        )  # fmt: skip
        found += map(identity, items_of(part))
    assert sorted(found) == EVERYTHING


def test_a_start_key_of_another_segment(http_transport: Transport, table: str) -> None:
    by_segment = [
        items_of(
            pages(
                http_transport, "Scan", TableName=table, Segment=segment, TotalSegments=2,
                ConsistentRead=True,
            )
        )
        for segment in (0, 1)
    ]  # fmt: skip
    assert all(by_segment), "ten partition keys in one half of the hashes"
    start = {name: by_segment[1][0][name] for name in ("pk", "sk")}
    outcome = http_transport.send(
        "Scan",
        json.dumps(
            {"TableName": table, "Segment": 0, "TotalSegments": 2, "ExclusiveStartKey": start}
        ),
    )
    assert (outcome.code, outcome.message) == (
        "ValidationException",
        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
        "ExclusiveStartKey with correct Segment. TotalSegments: 2 Segment: 0",
    )


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 4, 6, 7])
@pytest.mark.parametrize(
    "condition", ["", " AND sk >= :s", " AND sk < :s", " AND sk BETWEEN :s AND :t"]
)
def test_query_pages(
    http_transport: Transport, table: str, forward: bool, limit: int, condition: str
) -> None:
    values = {":p": {"S": "p3"}, ":s": {"N": "-1"}, ":t": {"N": "1"}}
    used = {name: value for name, value in values.items() if name in f"pk = :p{condition}"}
    found = pages(
        http_transport, "Query", TableName=table, Limit=limit, ScanIndexForward=forward,
        KeyConditionExpression=f"pk = :p{condition}", ExpressionAttributeValues=used,
        ConsistentRead=True,
    )  # fmt: skip
    want = {
        "": range(-3, 3),
        " AND sk >= :s": range(-1, 3),
        " AND sk < :s": range(-3, -1),
        " AND sk BETWEEN :s AND :t": range(-1, 2),
    }[condition]
    assert [sort for _, sort in map(identity, items_of(found))] == (
        list(want) if forward else list(reversed(want))
    )
    assert sum(page["ScannedCount"] for page in found) == len(want)


def test_pages_of_a_filter(http_transport: Transport, table: str) -> None:
    found = pages(
        http_transport, "Scan", TableName=table, Limit=7, FilterExpression="odd = :t",
        ExpressionAttributeValues={":t": {"BOOL": True}}, ConsistentRead=True,
    )  # fmt: skip
    assert sorted(map(identity, items_of(found))) == sorted(
        identity(item(number)) for number in range(1, ITEMS, 2)
    )
    assert sum(page["ScannedCount"] for page in found) == ITEMS
    assert sum(page["Count"] for page in found) == ITEMS // 2


def test_pages_of_a_megabyte(http_transport: Transport, surroundings: Surroundings) -> None:
    name = f"{surroundings.prefix}sn"
    key = f"mb-{os.urandom(3).hex()}"
    for number in range(8):
        ask(
            http_transport, "PutItem", TableName=name,
            Item={"pk": {"S": key}, "sk": {"N": str(number)}, "b": {"S": "x" * 300_000}},
        )  # fmt: skip
    found = pages(
        http_transport, "Query", TableName=name, KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": key}}, ConsistentRead=True,
    )  # fmt: skip
    assert [int(one["sk"]["N"]) for one in items_of(found)] == list(range(8))
    assert len(found) >= 2
    # A page ends at the first item that takes it over 1 MB, or before it.
    assert all(page["ScannedCount"] in (3, 4) for page in found[:-1])
