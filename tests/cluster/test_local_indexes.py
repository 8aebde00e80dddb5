"""Local secondary indexes through the AWS SDK: whole tables against their indexes, and through crashes."""

import random
import threading
import time
from collections import defaultdict
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.harness import LocalCluster, wait_until

INDEXES = {
    "all": ("n", {"ProjectionType": "ALL"}),
    "keys": ("s", {"ProjectionType": "KEYS_ONLY"}),
    "some": ("n", {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["v"]}),
}
PROJECTED = {"all": None, "keys": {"pk", "sk", "s"}, "some": {"pk", "sk", "n", "v"}}


def create_table(client: Any, name: str, partitions: int = 3) -> None:
    client.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": attribute, "AttributeType": kind}
            for attribute, kind in (("pk", "S"), ("sk", "S"), ("n", "N"), ("s", "S"))
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": sort, "KeyType": "RANGE"},
                ],
                "Projection": projection,
            }
            for index, (sort, projection) in INDEXES.items()
        ],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "quorate:partitions", "Value": str(partitions)}],
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def random_item(chance: random.Random, pk: str, sk: str) -> dict[str, Any]:
    item: dict[str, Any] = {"pk": {"S": pk}, "sk": {"S": sk}}
    if chance.random() < 0.7:
        item["n"] = {"N": str(chance.randint(-5, 5))}
    if chance.random() < 0.7:
        item["s"] = {"S": chance.choice(["a", "b", "b\x00", "c"])}
    item["v"] = {"S": "x" * chance.randint(0, 50)}
    item["rest"] = {"L": [{"N": str(chance.randint(0, 9))}]}
    return item


def scan_all(client: Any, **request: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(
        ConsistentRead=True, PaginationConfig={"PageSize": 7}, **request
    )
    return [item for page in pages for item in page["Items"]]


def query_all(client: Any, pk: str, **request: Any) -> list[dict[str, Any]]:
    pages = client.get_paginator("query").paginate(
        ConsistentRead=True,
        KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": pk}},
        PaginationConfig={"PageSize": 3},
        **request,
    )
    return [item for page in pages for item in page["Items"]]


def assert_indexes_hold_the_table(client: Any, table: str) -> int:
    """Each index has exactly what the table's items have for it; returns the number of items."""
    items = scan_all(client, TableName=table)
    by_partition = defaultdict(list)
    for item in items:
        by_partition[item["pk"]["S"]].append(item)
    for index, (sort, _) in INDEXES.items():
        kept = PROJECTED[index]
        expected = [item for item in items if sort in item]
        entries = scan_all(client, TableName=table, IndexName=index)
        assert sorted(map(repr_of, entries)) == sorted(
            repr_of(projection(item, kept)) for item in expected
        )
        for pk, members in by_partition.items():
            ordered = sorted(
                (item for item in members if sort in item),
                key=lambda item: (order(item[sort]), item["sk"]["S"]),
            )
            answer = query_all(client, pk, TableName=table, IndexName=index)
            assert answer == [projection(item, kept) for item in ordered]
            whole = query_all(
                client,
                pk,
                TableName=table,
                IndexName=index,
                Select="ALL_ATTRIBUTES",
                ScanIndexForward=False,
            )
            assert whole == ordered[::-1]
    shown = client.describe_table(TableName=table)["Table"]
    assert shown["ItemCount"] == len(items)
    for index in shown["LocalSecondaryIndexes"]:
        sort = INDEXES[index["IndexName"]][0]
        assert index["ItemCount"] == sum(sort in item for item in items)
        assert (index["IndexSizeBytes"] > 0) == (index["ItemCount"] > 0)
    return len(items)


def projection(item: dict[str, Any], kept: set[str] | None) -> dict[str, Any]:
    return {name: value for name, value in item.items() if kept is None or name in kept}


def repr_of(item: dict[str, Any]) -> str:
    return repr(sorted(item.items()))


def order(value: dict[str, str]) -> Any:
    return float(value["N"]) if "N" in value else value["S"].encode()


def test_every_write_is_in_the_indexes(client):
    table = "lsi-writes"
    create_table(client, table)
    shown = client.describe_table(TableName=table)["Table"]
    assert [index["IndexName"] for index in shown["LocalSecondaryIndexes"]] == list(INDEXES)
    for index in shown["LocalSecondaryIndexes"]:
        assert index["IndexArn"] == f"{shown['TableArn']}/index/{index['IndexName']}"
        assert index["Projection"] == INDEXES[index["IndexName"]][1]
        assert (index["ItemCount"], index["IndexSizeBytes"]) == (0, 0)
        assert "IndexStatus" not in index
    chance = random.Random(1)
    for number in range(150):
        pk, sk = f"p{number % 4}", chance.choice(["a", "b", "c\x00", "c\x00\x01", "d", "e", "f"])
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        kind = chance.random()
        if kind < 0.6:
            client.put_item(TableName=table, Item=random_item(chance, pk, sk))
        elif kind < 0.75:
            client.delete_item(TableName=table, Key=key)
        elif kind < 0.9:
            client.update_item(
                TableName=table,
                Key=key,
                UpdateExpression="SET n = if_not_exists(n, :z) + :d, v = :v",
                ExpressionAttributeValues={
                    ":z": {"N": "0"},
                    ":d": {"N": str(chance.randint(-2, 2))},
                    ":v": {"S": chance.choice("uvw")},
                },
            )
        else:
            client.update_item(TableName=table, Key=key, UpdateExpression="REMOVE n, s")
    assert assert_indexes_hold_the_table(client, table) > 10
    segments = [
        entry["sk"]["S"] + entry["pk"]["S"]
        for segment in range(5)
        for entry in scan_all(
            client, TableName=table, IndexName="keys", Segment=segment, TotalSegments=5
        )
    ]
    whole = [
        entry["sk"]["S"] + entry["pk"]["S"]
        for entry in scan_all(client, TableName=table, IndexName="keys")
    ]
    assert sorted(segments) == sorted(whole)
    client.delete_table(TableName=table)


def test_fetching_what_an_index_does_not_have(client):
    table = "lsi-fetch"
    create_table(client, table, partitions=1)
    for number in range(10):
        client.put_item(
            TableName=table,
            Item={
                "pk": {"S": "p"},
                "sk": {"S": f"{number}"},
                "s": {"S": "same"},
                "big": {"S": "x" * 150_000},
            },
        )
    request = {
        "TableName": table,
        "IndexName": "keys",
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": "p"}},
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "INDEXES",
    }
    projected = client.query(**request)
    assert (projected["Count"], "LastEvaluatedKey" in projected) == (10, False)
    assert projected["ConsumedCapacity"]["CapacityUnits"] == 1
    whole = client.query(**request, Select="ALL_ATTRIBUTES")
    assert whole["Count"] == 7, "a page ends with the item that reaches a megabyte"
    assert whole["LastEvaluatedKey"] == {
        "pk": {"S": "p"},
        "sk": {"S": "6"},
        "s": {"S": "same"},
    }
    assert whole["ConsumedCapacity"] == {
        "TableName": table,
        "CapacityUnits": 7 * 37 + 1,
        "Table": {"CapacityUnits": 7 * 37},
        "LocalSecondaryIndexes": {"keys": {"CapacityUnits": 1}},
    }
    rest = client.query(
        **request, Select="ALL_ATTRIBUTES", ExclusiveStartKey=whole["LastEvaluatedKey"]
    )
    assert [item["sk"]["S"] for item in rest["Items"]] == ["7", "8", "9"]
    client.delete_table(TableName=table)


@pytest.mark.parametrize("times", [2])
def test_killed_leaders_leave_indexes_as_the_items_are(own_cluster: LocalCluster, times: int):
    table = "lsi-crash"
    client = own_cluster.client()
    create_table(client, table, partitions=2)
    done = threading.Event()
    written = [0] * 4

    def write(number: int) -> None:
        own_client = own_cluster.client()
        chance = random.Random(number)
        while not done.is_set():
            pk, sk = f"p{chance.randint(0, 5)}", f"{chance.randint(0, 9)}"
            try:
                if chance.random() < 0.8:
                    own_client.put_item(TableName=table, Item=random_item(chance, pk, sk))
                else:
                    own_client.delete_item(TableName=table, Key={"pk": {"S": pk}, "sk": {"S": sk}})
            except (ClientError, BotoCoreError):
                continue  # leaders are dying
            written[number] += 1

    def wait_for_writes(what: str) -> None:
        before = sum(written)
        wait_until(lambda: sum(written) > before + 100, 60, what)

    def leader_of(group: int) -> str:
        return wait_until(lambda: own_cluster.leader_of(group), 30, "a leader")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(written))]
    for thread in threads:
        thread.start()
    try:
        groups = [
            partition["group"]
            for shown in own_cluster.status()["tables"]
            if shown["name"] == table
            for partition in shown["partitions"]
        ]
        for turn in range(times):
            wait_for_writes("writes go on")
            leader = leader_of(groups[turn % len(groups)])
            own_cluster.kill(leader)
            time.sleep(0.5)
            own_cluster.restart(leader)
        wait_for_writes("writes go on after the crashes")
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    wait_until(own_cluster.is_ready, 60, "the cluster is whole")
    assert assert_indexes_hold_the_table(client, table) > 10
