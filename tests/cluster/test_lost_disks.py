"""Disks that are lost under load: real processes, kill -9, an emptied data directory."""

import json
import shutil
import time
from pathlib import Path

from tests.cluster.harness import LocalCluster, wait_until
from tests.cluster.test_faults import (
    TABLE,
    assert_linearizable,
    create_table,
    get,
    put,
    wait_writable,
)
from tests.cluster.workload import WireClient, Workload


def data_directory(cluster: LocalCluster, name: str) -> Path:
    argv = cluster.process(name)["argv"]
    return Path(argv[argv.index("--data-dir") + 1])


def is_whole(cluster: LocalCluster, lost: set[str]) -> bool:
    """Each partition, the catalog's too, has three replicas on disks that are there, all of them in service."""
    status = cluster.status()
    partitions = [p for t in status["tables"] for p in t["partitions"]] + status["catalog"]
    for partition in partitions:
        replicas = partition["replicas"]
        if len(replicas) != 3 or {r["node_id"] for r in replicas} & lost:
            return False
        if sorted(r["role"] for r in replicas) != ["follower", "follower", "leader"]:
            return False
    return len(partitions) > 1


def node_id(cluster: LocalCluster, name: str) -> str:
    return str(json.loads((data_directory(cluster, name) / "node.json").read_text())["node_id"])


def test_an_emptied_disk_is_whole_again_by_itself_under_load(own_cluster: LocalCluster):
    create_table(own_cluster)
    client = WireClient(own_cluster.http)
    for n in range(300):
        put(client, f"before-{n}", n)
    victim = wait_until(lambda: own_cluster.leader_of(0), 10, "a catalog leader")
    lost = {node_id(own_cluster, victim)}
    with Workload(lambda: own_cluster.http, TABLE, clients=4, keys=12, seed=11) as load:
        time.sleep(1.5)
        own_cluster.kill(victim)
        shutil.rmtree(data_directory(own_cluster, victim))
        own_cluster.restart(victim)
        began = time.monotonic()
        wait_until(lambda: is_whole(own_cluster, lost), 60, "whole again", 0.5)
        print(f"whole again after {time.monotonic() - began:.1f} s")
        time.sleep(1.0)
        # The other old disks in turn: only what was rebuilt can keep the majority now.
        other = next(p["name"] for p in own_cluster.processes("storagenode") if p["name"] != victim)
        own_cluster.kill(other)
        wait_writable(own_cluster, 40)
        own_cluster.restart(other)
    wait_writable(own_cluster, 40)
    load.read_back()
    assert sum(map(len, load.histories.values())) > 200
    assert_linearizable(load)
    for n in range(300):
        assert get(client, f"before-{n}") == n
    # The catalog takes part: tables can still be made.
    client.call(
        "CreateTable",
        TableName="after",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    wait_until(
        lambda: client.call("DescribeTable", TableName="after")["Table"]["TableStatus"] == "ACTIVE",
        30,
        "table active",
    )
    client.close()
