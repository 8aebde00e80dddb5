"""As `test_paging`, of a local secondary index: entries that share their key, and items that have none."""

import itertools
import json
import os
from typing import Any

import pytest

from tests.conformance.runner import Surroundings
from tests.conformance.tables import create_request, wait_for_table
from tests.conformance.test_paging import ask, items_of, pages
from tests.conformance.transports import Transport

COLLECTIONS = 8
ITEMS = 9
KEYS = ("pk", "sk", "g")
LIMITS = (1, 2, 5, 100)


def item(collection: int, number: int) -> dict[str, Any]:
    """Every third item has no key of the index; of the others, two or three share one."""
    key = {} if number % 3 == 2 else {"g": {"N": str(number % 2)}}
    return {"pk": {"S": f"p{collection}"}, "sk": {"N": str(number)}, "v": {"S": "v"}, **key}


def identity(one: dict[str, Any]) -> tuple[str, int, int]:
    return one["pk"]["S"], int(one["g"]["N"]), int(one["sk"]["N"])


INDEXED = sorted(
    identity(one)
    for one in itertools.starmap(item, itertools.product(range(COLLECTIONS), range(ITEMS)))
    if "g" in one
)


@pytest.fixture(scope="module")
def table(http_transport: Transport, surroundings: Surroundings) -> str:
    name = f"{surroundings.prefix}index-paging-{os.urandom(2).hex()}"
    schema = create_request(name, "SN")
    schema["AttributeDefinitions"].append({"AttributeName": "g", "AttributeType": "N"})
    schema["LocalSecondaryIndexes"] = [
        {
            "IndexName": "index",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "g", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ]
    schema["Tags"] = [{"Key": "quorate:partitions", "Value": "3"}]
    ask(http_transport, "CreateTable", **schema)
    wait_for_table(http_transport, name)
    for collection, number in itertools.product(range(COLLECTIONS), range(ITEMS)):
        ask(http_transport, "PutItem", TableName=name, Item=item(collection, number))
    return name


@pytest.fixture(params=["http", "grpc"])
def transport(transports: dict[str, Transport], request: pytest.FixtureRequest) -> Transport:
    if request.param not in transports:
        pytest.skip(f"no {request.param} endpoint")
    return transports[request.param]


@pytest.mark.parametrize("limit", LIMITS)
def test_scan_pages(transport: Transport, table: str, limit: int) -> None:
    found = pages(
        transport, "Scan", TableName=table, IndexName="index", Limit=limit, ConsistentRead=True
    )
    identities = [identity(one) for one in items_of(found)]
    assert sorted(identities) == INDEXED
    # A collection stays together, in the order of the index.
    for name, collection in itertools.groupby(identities, key=lambda one: one[0]):
        assert list(collection) == [one for one in INDEXED if one[0] == name]
    assert all(set(page["LastEvaluatedKey"]) == set(KEYS) for page in found[:-1])


@pytest.mark.parametrize("total", [1, 3, 20])
def test_segments_divide_the_index(transport: Transport, table: str, total: int) -> None:
    found: list[tuple[str, int, int]] = []
    for segment in range(total):
        part = pages(
            transport, "Scan", TableName=table, IndexName="index", Segment=segment,
            TotalSegments=total, Limit=3, ConsistentRead=True,
        )  # fmt: skip
        found += map(identity, items_of(part))
    assert sorted(found) == INDEXED


def test_a_start_key_of_another_segment(transport: Transport, table: str) -> None:
    def scan(segment: int, **more: Any) -> dict[str, Any]:
        return {
            "TableName": table,
            "IndexName": "index",
            "Segment": segment,
            "TotalSegments": 2,
            **more,
        }

    theirs = ask(transport, "Scan", **scan(1, Limit=1, ConsistentRead=True))["LastEvaluatedKey"]
    outcome = transport.send("Scan", json.dumps(scan(0, ExclusiveStartKey=theirs)))
    assert (outcome.code, outcome.message) == (
        "ValidationException",
        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
        "ExclusiveStartKey with correct Segment. TotalSegments: 2 Segment: 0",
    )


@pytest.mark.parametrize("select", ["ALL_PROJECTED_ATTRIBUTES", "ALL_ATTRIBUTES"])
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", LIMITS)
def test_query_pages(
    transport: Transport, table: str, limit: int, forward: bool, select: str
) -> None:
    found = pages(
        transport, "Query", TableName=table, IndexName="index", Limit=limit, Select=select,
        ScanIndexForward=forward, KeyConditionExpression="pk = :p AND g <= :g",
        ExpressionAttributeValues={":p": {"S": "p3"}, ":g": {"N": "1"}}, ConsistentRead=True,
    )  # fmt: skip
    want = [one for one in INDEXED if one[0] == "p3"]
    assert list(map(identity, items_of(found))) == (want if forward else want[::-1])
    assert sum(page["ScannedCount"] for page in found) == len(want)
    # What an index lacks comes from the table, and only then.
    wanted = {*KEYS, "v"} if select == "ALL_ATTRIBUTES" else {*KEYS}
    assert all(set(one) == wanted for one in items_of(found))
