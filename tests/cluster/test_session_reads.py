"""Eventually consistent reads through one router see what it acknowledged, and never go back in time.

As long as no process dies: leaders change here because they are stopped for a while, or hand over.
"""

import os
import random
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.harness import CREDENTIALS, LocalCluster, http_get, running_cluster, wait_until

TABLES = 4
SECONDS = 10.0
# A pause is longer than an election, so that somebody else leads.
PAUSE_S = 2.0


def client_of(url: str) -> Any:
    """Its own retries would hide which read was the first one."""
    config = Config(retries={"total_max_attempts": 1}, read_timeout=10, max_pool_connections=1)
    return boto3.client("dynamodb", endpoint_url=url, **CREDENTIALS, config=config)


@contextmanager
def second_router(cluster: LocalCluster) -> Iterator[str]:
    """A router with a port of its own, in another zone."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (entry,) = cluster.processes("router")
    at = entry["argv"].index("router")
    given = entry["argv"][at + 1 :]
    flags = dict(zip(given[::2], given[1::2], strict=True))
    own = {
        "--name": "router-other",
        "--az": "az2",
        "--http-listen": f"127.0.0.1:{port}",
        "--grpc-listen": "127.0.0.1:0",
        "--metrics-listen": "127.0.0.1:0",
    }
    start = entry["argv"][: at + 1]
    arguments = [text for pair in {**flags, **own}.items() for text in pair]
    with cluster.log_path.open("ab") as log:
        process = subprocess.Popen(
            [*start, *arguments], env={**os.environ, **entry["env"]}, cwd=entry["cwd"],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: http_get(url)[0] == 200, 30, "second router ready")
        yield url
    finally:
        process.terminate()
        assert process.wait(30) == 0


def create(client: Any, name: str, partitions: int) -> None:
    attributes = {"pk": "S", "sk": "N", "also": "N"}

    def schema(sort: str) -> list[Any]:
        return [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": sort, "KeyType": "RANGE"},
        ]

    client.create_table(
        TableName=name,
        KeySchema=schema("sk"),
        AttributeDefinitions=[
            {"AttributeName": n, "AttributeType": t} for n, t in attributes.items()
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "by-also",
                "KeySchema": schema("also"),
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "quorate:partitions", "Value": str(partitions)}],
    )
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def key_of(pk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"N": "1"}}


def _query(client: Any, table: str, pk: str, **members: Any) -> list[Any]:
    return client.query(
        TableName=table, KeyConditionExpression="pk = :p",
        ExpressionAttributeValues={":p": {"S": pk}}, **members,
    )["Items"]  # fmt: skip


READS: dict[str, Callable[[Any, str, str], list[Any]]] = {
    "GetItem": lambda c, t, pk: [c.get_item(TableName=t, Key=key_of(pk)).get("Item")],
    "Query": _query,
    "Query of an index": lambda c, t, pk: _query(c, t, pk, IndexName="by-also"),
    "BatchGetItem": lambda c, t, pk: c.batch_get_item(
        RequestItems={t: {"Keys": [key_of(pk)]}}
    )["Responses"][t],
    "Scan": lambda c, t, pk: [
        i for i in c.get_paginator("scan").paginate(TableName=t).build_full_result()["Items"]
        if i["pk"]["S"] == pk
    ],
    "ExecuteStatement": lambda c, t, pk: c.execute_statement(
        Statement=f'SELECT * FROM "{t}" WHERE pk = ? AND sk = 1', Parameters=[{"S": pk}]
    )["Items"],
}  # fmt: skip


def number_of(items: list[Any]) -> int:
    """What the one item says; 0 if there is none."""
    return max((int(item["n"]["N"]) for item in items if item), default=0)


class Session(threading.Thread):
    """Somebody who writes items of its own and reads them, and reads those of others, through one router."""

    def __init__(self, url: str, tables: list[str], name: str, shared: str, stop: threading.Event):
        super().__init__(name=name)
        self.client = client_of(url)
        self.tables, self.shared, self.stop = tables, shared, stop
        self.random = random.Random(name)
        self.written: dict[str, int] = {}
        self.seen: dict[str, int] = {}
        self.reads = 0
        self.misses: list[str] = []
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._step()
            except (ClientError, BotoCoreError) as error:
                self.errors.append(str(error))
                time.sleep(0.05)

    def _step(self) -> None:
        table = self.random.choice(self.tables)
        pk, n = self.name, self.written.get(table, 0) + 1
        self.written[table] = n  # it may be there from now on, whatever the answer
        self.client.put_item(
            TableName=table, Item={**key_of(pk), "n": {"N": str(n)}, "also": {"N": str(n)}}
        )
        what = self.random.choice(list(READS))
        found = number_of(READS[what](self.client, table, pk))
        self._judge(what, found, n)
        # Of what somebody else writes, nothing is ever taken back.
        if self.shared != pk:
            what = self.random.choice(("GetItem", "GetItem", "BatchGetItem"))
            found = number_of(READS[what](self.client, table, self.shared))
            self._judge(f"{what} of another's", found, self.seen.get(table, 0))
            self.seen[table] = max(found, self.seen.get(table, 0))

    def _judge(self, what: str, found: int, least: int) -> None:
        self.reads += 1
        if found < least:
            self.misses.append(f"{self.name}: {what} found {found}, known {least}")


def test_reads_see_what_their_router_acknowledged_while_leaders_change(
    own_cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    setup = own_cluster.client()
    tables = [f"table-{number}" for number in range(TABLES)]
    for number, table in enumerate(tables):
        create(setup, table, 1 + number % 3)
    stop = threading.Event()
    with second_router(own_cluster) as other:
        sessions = [
            Session(url, tables, f"{place}{n}", "a0", stop)
            for place, url in (("a", own_cluster.http), ("b", other))
            for n in range(2)
        ]
        for session in sessions:
            session.start()
        try:
            end = time.monotonic() + SECONDS
            for process in own_cluster.processes("storagenode"):
                time.sleep(1.0)
                own_cluster.pause(process["name"])
                time.sleep(PAUSE_S)
                own_cluster.resume(process["name"])
            time.sleep(max(0.0, end - time.monotonic()))
        finally:
            stop.set()
            for session in sessions:
                session.join()
    reads = sum(session.reads for session in sessions)
    misses = [miss for session in sessions for miss in session.misses]
    errors = [error for session in sessions for error in session.errors]
    tell(f"{reads} eventual reads, {len(misses)} missed; {len(errors)} requests failed")
    assert not misses, misses[:10]
    assert reads > 200
    (router,) = own_cluster.processes("router")
    assert "quorate_router_session_reads_waived 0.0" in http_get(router["metrics"])[1]


def test_across_routers_the_lag_is_small(
    own_cluster: LocalCluster, tell: Callable[[str], None]
) -> None:
    here = own_cluster.client()
    create(here, "things", 1)
    lags = []
    with second_router(own_cluster) as other:
        there = client_of(other)
        for n in range(1, 101):
            here.put_item(
                TableName="things", Item={**key_of("x"), "n": {"N": str(n)}, "also": {"N": "1"}}
            )
            began = time.monotonic()
            while number_of(READS["GetItem"](there, "things", "x")) < n:
                assert time.monotonic() < began + 5, "never seen"
            lags.append(time.monotonic() - began)
    tell(
        f"seen through another router after {1000 * statistics.median(lags):.1f} ms (median),"
        f" {1000 * max(lags):.1f} ms at most, a read included"
    )


def test_reads_that_lag_on_purpose(tmp_path: Any) -> None:
    with running_cluster(tmp_path / "data", "--eventual-read-lag", "400") as cluster:
        client = cluster.client()
        create(client, "things", 1)
        client.put_item(
            TableName="things", Item={**key_of("x"), "n": {"N": "1"}, "also": {"N": "1"}}
        )
        read = READS["GetItem"]
        wait_until(lambda: number_of(read(client, "things", "x")) == 1, 10, "seen at last")
        for n in range(2, 6):
            began = time.monotonic()
            client.put_item(
                TableName="things", Item={**key_of("x"), "n": {"N": str(n)}, "also": {"N": "1"}}
            )
            strong = client.get_item(TableName="things", Key=key_of("x"), ConsistentRead=True)
            assert number_of([strong["Item"]]) == n
            found = {what: number_of(way(client, "things", "x")) for what, way in READS.items()}
            if time.monotonic() < began + 0.4:
                assert set(found.values()) == {n - 1}, found
            wait_until(lambda n=n: number_of(read(client, "things", "x")) == n, 10, "seen at last")
            assert time.monotonic() >= began + 0.4
