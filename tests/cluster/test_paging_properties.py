"""Any way of cutting a read into pages gives every item once and in order: random limits, one partition or many,
large items, indexes, filters, statements, and leaders that move while the client pages.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, groupby
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proto import control_pb2, control_pb2_grpc
from tests.cluster.harness import LocalCluster, wait_until
from tests.cluster.workload import WireClient
from tests.conformance.tables import create_request

ONE, MANY = 1, 8
# Items of each collection, and bytes of each item: the last one fills more than one page of a megabyte.
COLLECTIONS = {
    "many": (40, 10), "few": (5, 10), "alone": (1, 10), "b": (7, 2000), "c": (3, 10), "large": (12, 120_000),
}  # fmt: skip
INDEX = {
    "LocalSecondaryIndexes": [
        {
            "IndexName": "by-n",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "n", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": kind}
        for name, kind in (("pk", "S"), ("sk", "N"), ("n", "N"))
    ],
}
Identity = tuple[str, int]


def make_item(collection: str, number: int) -> dict[str, Any]:
    item = {
        "pk": {"S": collection},
        "sk": {"N": str(number - 3)},
        "odd": {"BOOL": number % 2 == 1},
        "text": {"S": "x" * COLLECTIONS[collection][1]},
    }
    if number % 3:
        item["n"] = {"N": str(-(number // 2))}  # several items for most values
    return item


ITEMS = [make_item(name, n) for name, (count, _) in COLLECTIONS.items() for n in range(count)]


def identity(item: dict[str, Any]) -> Identity:
    return item["pk"]["S"], int(item["sk"]["N"])


BY_IDENTITY = {identity(item): item for item in ITEMS}


def by_table(item: dict[str, Any]) -> tuple[str, int, int]:
    pk, sk = identity(item)
    return pk, 0, sk


def by_index(item: dict[str, Any]) -> tuple[str, int, int]:
    pk, sk = identity(item)
    return pk, int(item["n"]["N"]), sk


@dataclass(frozen=True)
class Read:
    """A read and how it is cut into pages.

    Attributes:
        partitions: Which table, by its number of partitions.
        collection: The partition key of a Query; None for a Scan.
        index: Whether the local index is read.
        statement: Whether PartiQL asks.
        forward: Direction of a Query.
        limits: Of the pages, over and over; 0 for none.
        only_odd: Whether there is a filter.
        strong: Whether reads are strongly consistent.
        segments: Of a parallel Scan.
    """

    partitions: int
    collection: str | None
    index: bool
    statement: bool
    forward: bool
    limits: tuple[int, ...]
    only_odd: bool
    strong: bool
    segments: int


READS = st.builds(
    Read,
    partitions=st.sampled_from([ONE, MANY]),
    collection=st.one_of(st.none(), st.sampled_from([*COLLECTIONS, "nobody"])),
    index=st.booleans(),
    statement=st.booleans(),
    forward=st.booleans(),
    limits=st.lists(st.sampled_from([0, 1, 2, 3, 7, 39, 40, 41, 68, 100]), min_size=1, max_size=3).map(tuple),
    only_odd=st.booleans(),
    strong=st.booleans(),
    segments=st.sampled_from([1, 1, 2, 5, 30]),
)  # fmt: skip


def expected(read: Read) -> list[dict[str, Any]]:
    """What the read passes over, in the order of a Query; a filter comes after that."""
    found = [
        item
        for item in ITEMS
        if read.collection in (None, item["pk"]["S"]) and ("n" in item or not read.index)
    ]
    found.sort(key=by_index if read.index else by_table)
    return found if read.forward or read.collection is None else found[::-1]


def pages(
    client: WireClient, operation: str, limits: tuple[int, ...], **members: Any
) -> Iterator[Any]:
    """All pages from the first to the last, each with its limit."""
    token, last = ("NextToken", "NextToken")
    if operation != "ExecuteStatement":
        token, last = "ExclusiveStartKey", "LastEvaluatedKey"
    for limit in cycle(limits):
        page = client.call(operation, **members, **({"Limit": limit} if limit else {}))
        assert not limit or page.get("ScannedCount", len(page["Items"])) <= limit
        yield page
        if last not in page:
            return
        members[token] = page[last]


def run(client: WireClient, tables: dict[int, str], read: Read) -> None:
    table = tables[read.partitions]
    members: dict[str, Any] = {"ConsistentRead": read.strong}
    want = expected(read)
    wanted = [item for item in want if item["odd"]["BOOL"] or not read.only_odd]
    if read.statement:
        source = f'"{table}"."by-n"' if read.index else f'"{table}"'
        conditions = [] if read.collection is None else [f"pk = '{read.collection}'"]
        conditions += ["odd = true"] if read.only_odd else []
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        members["Statement"] = f"SELECT * FROM {source}{where}"
        parts = [list(pages(client, "ExecuteStatement", read.limits, **members))]
        if read.collection is not None and not read.forward:
            want.reverse()
            wanted.reverse()  # a statement without ORDER BY goes forward
    else:
        members["TableName"] = table
        values = {}
        if read.index:
            members["IndexName"] = "by-n"
        if read.only_odd:
            members["FilterExpression"] = "odd = :t"
            values[":t"] = {"BOOL": True}
        if read.collection is None:
            parts = [
                list(
                    pages(
                        client, "Scan", read.limits, **members,
                        **({"ExpressionAttributeValues": values} if values else {}),
                        Segment=segment, TotalSegments=read.segments,
                    )
                )
                for segment in range(read.segments)
            ]  # fmt: skip
        else:
            values[":p"] = {"S": read.collection}
            members |= {
                "KeyConditionExpression": "pk = :p",
                "ExpressionAttributeValues": values,
                "ScanIndexForward": read.forward,
            }
            parts = [list(pages(client, "Query", read.limits, **members))]
        every = [page for part in parts for page in part]
        assert sum(page["ScannedCount"] for page in every) == len(want)
        assert all(page["Count"] == len(page["Items"]) for page in every)
    found = [item for part in parts for page in part for item in page["Items"]]
    if read.collection is not None:
        assert list(map(identity, found)) == list(map(identity, wanted))
    else:
        assert sorted(map(identity, found)) == sorted(map(identity, wanted))
        # Collections come in the order of hashes, each whole and in its own order.
        order = by_index if read.index else by_table
        seen = [
            (name, list(collection)) for name, collection in groupby(found, lambda i: i["pk"]["S"])
        ]
        assert len({name for name, _ in seen}) == len(seen)
        for _, collection in seen:
            assert collection == sorted(collection, key=order)
    assert all(item == BY_IDENTITY[identity(item)] for item in found)


@pytest.fixture(scope="module")
def tables(cluster: LocalCluster) -> Iterator[dict[int, str]]:
    client = WireClient(cluster.http)
    made = {
        partitions: f"paged-{partitions}-{random.randrange(1 << 30):x}"
        for partitions in (ONE, MANY)
    }
    for partitions, name in made.items():
        tags = [{"Key": "quorate:partitions", "Value": str(partitions)}]
        client.call("CreateTable", **create_request(name, "SN", Tags=tags, **INDEX))
    for name in made.values():
        described = lambda name=name: client.call("DescribeTable", TableName=name)["Table"]  # noqa: E731
        wait_until(lambda: described()["TableStatus"] == "ACTIVE", 30, f"{name} active")  # noqa: B023
        for item in ITEMS:
            client.call("PutItem", TableName=name, Item=item)

        def is_everywhere(name: str = name) -> bool:
            # Weak reads go to any replica, so several in a row must be complete.
            return all(
                sum(
                    page["Count"]
                    for page in pages(client, "Scan", (0,), TableName=name, Select="COUNT")
                )
                == len(ITEMS)
                for _ in range(9)
            )

        wait_until(is_everywhere, 30, "all replicas have all items")
    yield made
    for name in made.values():
        client.call("DeleteTable", TableName=name)
    client.close()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(read=READS)
def test_any_cut_into_pages(cluster: LocalCluster, tables: dict[int, str], read: Read):
    client = WireClient(cluster.http)
    run(client, tables, read)
    client.close()


@contextmanager
def moving_leaders(cluster: LocalCluster, table: str) -> Iterator[list[int]]:
    """Hands over one partition after the other; gives the groups that were."""
    (state,) = (t for t in cluster.status()["tables"] if t["name"] == table)
    groups = [partition["group"] for partition in state["partitions"]]
    channels = [grpc.insecure_channel(p["grpc"]) for p in cluster.processes("storagenode")]
    stubs = [control_pb2_grpc.StorageControlStub(channel) for channel in channels]
    moved: list[int] = []
    stop = threading.Event()

    def move() -> None:
        for group in cycle(groups):
            request = control_pb2.TransferLeadershipRequest(group=group)
            moved.extend(
                group for stub in stubs if stub.TransferLeadership(request, timeout=10).transferred
            )
            if stop.wait(0.02):
                return

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield moved
    finally:
        stop.set()
        thread.join(30)
        for channel in channels:
            channel.close()
    assert not thread.is_alive()


def test_leaders_move_while_a_client_pages(cluster: LocalCluster, tables: dict[int, str]):
    client = WireClient(cluster.http)

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(read=READS.filter(lambda read: read.partitions == MANY and read.strong))
    def page(read: Read) -> None:
        run(client, tables, read)

    with moving_leaders(cluster, tables[MANY]) as moved:
        page()
        ends = time.monotonic() + 20
        while len(set(moved)) < MANY and time.monotonic() < ends:
            page()
    assert len(moved) >= MANY, moved
    client.close()
