"""Batches while some partitions have lost their majority: what cannot be done comes back, nothing is lost.

Source of the rule that a batch fails only if none of it can be done: API reference, BatchGetItem (which says it
of throttling).
"""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from datamodel.key_encoding import KeySchema, encode_key
from tests.cluster.harness import LocalCluster, running_cluster, wait_until
from tests.cluster.workload import Answer, WireClient
from tests.conformance.tables import create_request

TABLE = "unreachable"
PARTITIONS = 8
# Six nodes: partitions are on the first of each zone or on the second. Two of the second go, the catalog stays.
LOST = ("storage-az1-1", "storage-az2-1")
SCHEMA = KeySchema("pk", "S", None, None)


@pytest.fixture
def cluster_of_six(tmp_path) -> Iterator[LocalCluster]:
    with running_cluster(tmp_path / "data", "--storage-nodes", "6", "--no-restart") as running:
        yield running


def partitions(cluster: LocalCluster) -> list[dict[str, Any]]:
    (table,) = (t for t in cluster.status()["tables"] if t["name"] == TABLE)
    found: list[dict[str, Any]] = table["partitions"]
    return found


def is_lost(partition: dict[str, Any]) -> bool:
    return sum(replica["node_name"] in LOST for replica in partition["replicas"]) >= 2


def lies_in(number: int, partition: dict[str, Any]) -> bool:
    encoded = encode_key(partition["table_id"], SCHEMA, key(number))
    return bytes.fromhex(partition["start"]) <= encoded < bytes.fromhex(partition["end"])


def key(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"k{number}"}}


def item(number: int, text: str) -> dict[str, Any]:
    return {**key(number), "v": {"S": text}}


def is_reachable(client: WireClient, number: int) -> bool:
    try:
        client.call("GetItem", TableName=TABLE, Key=key(number), ConsistentRead=True)
    except Answer as answer:
        assert answer.status >= 500, answer
        return False
    return True


def put_all(client: Any, numbers: list[int], text: str) -> None:
    """Put 25 items at a time, sending again what comes back, as the SDKs' guide has it."""
    requests = [{"PutRequest": {"Item": item(number, text)}} for number in numbers]
    while requests:
        answer = client.batch_write_item(RequestItems={TABLE: requests[:25]})
        requests = [*answer["UnprocessedItems"].get(TABLE, []), *requests[25:]]


def get_all(client: Any, numbers: list[int]) -> dict[str, str]:
    found = {}
    asked = {TABLE: {"Keys": [key(number) for number in numbers], "ConsistentRead": True}}
    while asked:
        answer = client.batch_get_item(RequestItems=asked)
        found.update({one["pk"]["S"]: one["v"]["S"] for one in answer["Responses"].get(TABLE, [])})
        asked = answer["UnprocessedKeys"]
    return found


@pytest.mark.timeout(240)
def test_batches_give_back_exactly_what_is_unreachable(cluster_of_six: LocalCluster):
    cluster = cluster_of_six
    wire = WireClient(cluster.http, timeout_s=30)
    tags = [{"Key": "quorate:partitions", "Value": str(PARTITIONS)}]
    wire.call("CreateTable", **create_request(TABLE, "S", Tags=tags))
    wait_until(
        lambda: wire.call("DescribeTable", TableName=TABLE)["Table"]["TableStatus"] == "ACTIVE",
        30,
        "table active",
    )
    numbers = list(range(40))
    lost = [partition for partition in partitions(cluster) if is_lost(partition)]
    assert 0 < len(lost) < PARTITIONS, "the table lies on lost and on other nodes"
    gone = [n for n in numbers if any(lies_in(n, partition) for partition in lost)]
    reachable = set(numbers) - set(gone)
    assert gone
    assert reachable
    client = cluster.client(retries={"max_attempts": 10, "mode": "standard"}, read_timeout=30)
    put_all(client, numbers, "before")

    for name in LOST:
        cluster.kill(name)
    wait_until(lambda: not is_reachable(wire, gone[0]), 30, "a lease has ended")

    asked_again = set()
    for start in (0, 20):
        batch = [{"PutRequest": {"Item": item(n, "during")}} for n in numbers[start : start + 20]]
        answer = wire.call("BatchWriteItem", RequestItems={TABLE: batch})
        back = answer["UnprocessedItems"].get(TABLE, [])
        assert all(request in batch for request in back), "given back as they were sent"
        asked_again |= {int(r["PutRequest"]["Item"]["pk"]["S"][1:]) for r in back}
    assert asked_again == set(gone)

    answer = wire.call(
        "BatchGetItem",
        RequestItems={TABLE: {"Keys": [key(n) for n in numbers], "ConsistentRead": True}},
    )
    found = {one["pk"]["S"]: one["v"]["S"] for one in answer["Responses"][TABLE]}
    assert found == {f"k{n}": "during" for n in reachable}
    unprocessed = answer["UnprocessedKeys"][TABLE]
    assert unprocessed["ConsistentRead"] is True
    assert unprocessed["Keys"] == [key(n) for n in gone]

    # The one replica that is left answers what need not be the latest, perhaps that there is nothing.
    weak = wire.call("BatchGetItem", RequestItems={TABLE: {"Keys": [key(n) for n in gone]}})
    assert not weak["UnprocessedKeys"]
    assert all(one["v"]["S"] == "before" for one in weak["Responses"][TABLE])

    # Nothing of it can be done: an error, and one that clients try again.
    impatient = cluster.client(
        retries={"total_max_attempts": 1, "mode": "standard"}, read_timeout=30
    )
    for ask in (
        lambda: impatient.batch_get_item(
            RequestItems={TABLE: {"Keys": [key(n) for n in gone[:5]], "ConsistentRead": True}}
        ),
        lambda: impatient.batch_write_item(
            RequestItems={TABLE: [{"PutRequest": {"Item": item(n, "during")}} for n in gone[:5]]}
        ),
    ):
        with pytest.raises(ClientError) as failed:
            ask()
        response = failed.value.response
        assert response["ResponseMetadata"]["HTTPStatusCode"] in (500, 503)
        assert response["Error"]["Code"] in ("InternalServerError", "ServiceUnavailable")

    for name in LOST:
        cluster.restart(name)
    wait_until(lambda: all(is_reachable(wire, n) for n in numbers), 60, "all is reachable again")
    put_all(client, gone, "during")
    assert get_all(client, numbers) == {f"k{n}": "during" for n in numbers}
    # The resource's own helper sends again by itself.
    with cluster.resource().Table(TABLE).batch_writer() as writer:
        for n in numbers:
            writer.put_item(Item={"pk": f"k{n}", "v": "after"})
    assert get_all(client, numbers) == {f"k{n}": "after" for n in numbers}
    wire.close()
