"""Where a page of a megabyte ends, to the byte.

The documentation says 1 MB and no more; the service counts some bytes of its own beside those of items, so these
tests hold here and not there. What they share with it: the item that reaches the border is the last of its page,
and a page that ends so has a LastEvaluatedKey even if nothing follows.
"""

import json
import os
from typing import Any

import pytest

from tests.conformance.runner import Surroundings
from tests.conformance.tables import LOCAL_INDEXES, create_request, wait_for_table
from tests.conformance.transports import Transport

MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def only_here(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--endpoint"):
        pytest.skip("the service's own bytes are not known")


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest, transports: dict[str, Transport]) -> Transport:
    return transports[request.param]


def ask(transport: Transport, operation: str, **members: Any) -> dict[str, Any]:
    outcome = transport.send(operation, json.dumps(members))
    assert not outcome.code, f"{operation}: {outcome}"
    return outcome.members


def put(transport: Transport, table: str, partition: str, sizes: list[int], **more: Any) -> None:
    """Items of exactly these sizes, sort keys 1, 2, ..."""
    for number, size in enumerate(sizes, 1):
        rest = size - len("pk") - len(partition) - len("sk") - 1 - len("w")
        rest -= sum(len(name) + len(value["S"]) for name, value in more.items())
        item = {"pk": {"S": partition}, "sk": {"S": str(number)}, "w": {"S": "x" * rest}, **more}
        ask(transport, "PutItem", TableName=table, Item=item)


def query(transport: Transport, table: str, partition: str, **more: Any) -> dict[str, Any]:
    values = {":p": {"S": partition}, **more.pop("ExpressionAttributeValues", {})}
    return ask(
        transport, "Query", TableName=table, KeyConditionExpression="pk = :p",
        ExpressionAttributeValues=values, ConsistentRead=True, ReturnConsumedCapacity="TOTAL", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "scanned", "units"),
    [
        ([400_000, 400_000, MEGABYTE - 800_001], 3, None),
        ([400_000, 400_000, MEGABYTE - 800_000], 3, 256),
        ([400_000, 400_000, MEGABYTE - 800_000, 100], 3, 256),
        ([400_000, 400_000, MEGABYTE - 800_001, 100, 100], 4, 257),
        ([400_000, 400_000, 400_000, 400_000], 3, 293),
    ],
    ids=[
        "a byte short of it",
        "just it",
        "just it, and more",
        "the next item reaches it",
        "far over it",
    ],
)
def test_the_item_that_reaches_a_megabyte_is_the_last(
    transport: Transport,
    surroundings: Surroundings,
    sizes: list[int],
    scanned: int,
    units: int | None,
) -> None:
    table, partition = f"{surroundings.prefix}ss", f"b-{os.urandom(4).hex()}"
    put(transport, table, partition, sizes)
    for more in (
        {},
        {"Select": "COUNT"},
        {"ProjectionExpression": "sk"},
        {"FilterExpression": "w = :w", "ExpressionAttributeValues": {":w": {"S": ""}}},
        {"Limit": len(sizes) + 1},
    ):
        page = query(transport, table, partition, **more)
        assert page["ScannedCount"] == scanned, more
        if units is None:
            assert "LastEvaluatedKey" not in page, more
        else:
            assert page["LastEvaluatedKey"]["sk"] == {"S": str(scanned)}, more
            assert page["ConsumedCapacity"]["CapacityUnits"] == units
    rest = len(sizes) - scanned
    if units is not None:
        following = query(transport, table, partition, ExclusiveStartKey=page["LastEvaluatedKey"])
        assert (following["Count"], following["ScannedCount"]) == (rest, rest)
        assert "LastEvaluatedKey" not in following


def test_backwards(transport: Transport, surroundings: Surroundings) -> None:
    table, partition = f"{surroundings.prefix}ss", f"b-{os.urandom(4).hex()}"
    put(transport, table, partition, [100, MEGABYTE - 800_000, 400_000, 400_000])
    page = query(transport, table, partition, ScanIndexForward=False, Select="COUNT")
    assert (page["Count"], page["LastEvaluatedKey"]["sk"]) == (3, {"S": "2"})


def test_an_index_is_counted_by_its_entries(
    transport: Transport, surroundings: Surroundings
) -> None:
    table, partition = f"{surroundings.prefix}li", f"b-{os.urandom(4).hex()}"
    put(transport, table, partition, [350_000] * 4, s={"S": "s"})
    page = query(transport, table, partition, IndexName="keys", Select="COUNT")
    assert page["Count"] == 4
    assert "LastEvaluatedKey" not in page
    assert page["ConsumedCapacity"]["CapacityUnits"] == 1
    page = query(transport, table, partition, Select="COUNT")
    assert (page["Count"], page["LastEvaluatedKey"]["sk"]) == (3, {"S": "3"})


def test_a_scan_over_partitions(transport: Transport, surroundings: Surroundings) -> None:
    table = f"{surroundings.prefix}border-{os.urandom(3).hex()}"
    more = {**LOCAL_INDEXES, "Tags": [{"Key": "quorate:partitions", "Value": "4"}]}
    ask(transport, "CreateTable", **create_request(table, "SS", **more))
    wait_for_table(transport, table)
    for number in range(8):
        put(transport, table, f"p{number}", [MEGABYTE // 4])
    pages: list[int] = []
    start: dict[str, Any] = {}
    while True:
        page = ask(
            transport, "Scan", TableName=table, Select="COUNT", ConsistentRead=True,
            ReturnConsumedCapacity="TOTAL", **start,
        )  # fmt: skip
        pages.append(page["Count"])
        if "LastEvaluatedKey" not in page:
            break
        assert page["ConsumedCapacity"]["CapacityUnits"] == 256
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert pages == [4, 4, 0], "a page that is full has a LastEvaluatedKey, even the last one"
    ask(transport, "DeleteTable", TableName=table)
