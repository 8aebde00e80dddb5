"""`quorate up`, `status` and `down` as a user meets them, and what an idle cluster costs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster.harness import (
    ROOT,
    LocalCluster,
    http_get,
    is_alive,
    running_cluster,
    wait_until,
)
from tests.cluster.workload import WireClient

IDLE_CLUSTER_BYTES_MAX = 400 * 1000 * 1000
IDLE_GROUP_BYTES_MAX = 200 * 1024


def quorate(*arguments: str, timeout: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "admin", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def create(client: WireClient, name: str, partitions: int = 1) -> None:
    client.call(
        "CreateTable",
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "quorate:partitions", "Value": str(partitions)}],
    )
    wait_until(
        lambda: client.call("DescribeTable", TableName=name)["Table"]["TableStatus"] == "ACTIVE",
        60,
        f"{name} active",
    )


def test_cluster_file_says_what_a_fault_script_needs(cluster: LocalCluster):
    description = cluster.description()
    assert description["http"].startswith("http://127.0.0.1:")
    assert description["grpc"].startswith("127.0.0.1:")
    roles = sorted(
        (p["role"], p["az"]) for p in description["processes"] if p["role"] == "storagenode"
    )
    assert roles == [("storagenode", "az1"), ("storagenode", "az2"), ("storagenode", "az3")]
    for process in description["processes"]:
        assert is_alive(process["pid"])
        assert process["argv"]
        assert os.path.isdir(process["cwd"])
        assert isinstance(process["env"], dict)
        status, text = http_get(process["metrics"])
        assert status == 200
        assert "# TYPE quorate_" in text, process["name"]
        base = process["metrics"].removesuffix("/metrics")
        assert http_get(base + "/healthz")[0] == 200
        assert http_get(base + "/readyz")[0] == 200
        host, port = process["address"].split(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port)), 5).close()


def test_nothing_listens_beyond_loopback(cluster: LocalCluster):
    inodes = set()
    for process in cluster.processes():
        folder = f"/proc/{process['pid']}/fd"
        for entry in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{entry}")
            except FileNotFoundError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    mapped = "0000000000000000FFFF00000100007F"  # ::ffff:127.0.0.1, as gRPC binds
    for family, loopback in (
        ("tcp", {"0100007F"}),
        ("tcp6", {"0" * 24 + "01000000", mapped}),
    ):
        with open(f"/proc/net/{family}") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    assert fields[1].split(":")[0] in loopback, line


def test_status_shows_tables_partitions_and_replicas(cluster: LocalCluster):
    client = WireClient(cluster.http)
    create(client, "status-table", partitions=4)
    client.call("PutItem", TableName="status-table", Item={"pk": {"S": "a"}})

    def settled():
        status = cluster.status()
        table = next((t for t in status["tables"] if t["name"] == "status-table"), None)
        if table is None:
            return None
        replicas = [r for p in table["partitions"] for r in p["replicas"]]
        if len(replicas) < 12 or any(r.get("lag") for r in replicas):
            return None
        return status, table

    status, table = wait_until(settled, 20, "all replicas reported without lag", 0.3)
    assert len(table["partitions"]) == 4
    for partition in table["partitions"]:
        assert sorted(r["az"] for r in partition["replicas"]) == ["az1", "az2", "az3"]
        assert [r["role"] for r in partition["replicas"]].count("leader") == 1
        for replica in partition["replicas"]:
            assert replica["term"] >= 1
            assert replica["applied_index"] >= 10
    assert len(status["nodes"]) == 3
    text = quorate("status", "--data-dir", str(cluster.data_dir)).stdout
    assert "status-table" in text
    assert "az3" in text


def test_metrics_count_what_happened(cluster: LocalCluster):
    client = WireClient(cluster.http)
    create(client, "metrics-table")
    for n in range(7):
        client.call("PutItem", TableName="metrics-table", Item={"pk": {"S": str(n)}})
    router = cluster.processes("router")[0]
    text = http_get(router["metrics"])[1]
    puts = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("quorate_router_requests_total{")
        and 'operation="PutItem"' in line
        and "200" in line
    ]
    assert sum(puts) >= 7, text[:3000]
    assert any(
        line.startswith("quorate_router_consumed_write_capacity_units_total{")
        and 'table="metrics-table"' in line
        and float(line.rpartition(" ")[2]) >= 7
        for line in text.splitlines()
    ), text[:3000]
    storage = http_get(cluster.processes("storagenode")[0]["metrics"])[1]
    for name in ("raft_term", "raft_applied_index", "log_sync_seconds"):
        assert f"quorate_storagenode_{name}" in storage, name


def test_dead_processes_are_restarted_and_the_file_stays_true(tmp_path):
    with running_cluster(tmp_path / "data", "--routers", "2") as cluster:
        client = WireClient(cluster.http)
        create(client, "kept")
        client.call("PutItem", TableName="kept", Item={"pk": {"S": "a"}})
        for name in ("storage-az2-0", "router-1"):
            before = cluster.process(name)["pid"]
            cluster.kill(name)
            wait_until(
                lambda n=name, b=before: (
                    cluster.process(n)["pid"] != b and is_alive(cluster.process(n)["pid"])
                ),
                15,
                f"{name} restarted",
            )
        wait_until(cluster.is_ready, 30, "ready again")
        client = WireClient(cluster.http)  # the old connection may have been the dead router's
        got = client.call("GetItem", TableName="kept", Key={"pk": {"S": "a"}}, ConsistentRead=True)
        assert got["Item"] == {"pk": {"S": "a"}}
        pids = [p["pid"] for p in cluster.processes()]
        again = quorate(
            "up", "--data-dir", str(cluster.data_dir), "--http-port", "0", "--grpc-port", "0"
        )
        assert again.returncode != 0
        assert "already" in again.stderr + again.stdout
        assert quorate("down", "--data-dir", str(cluster.data_dir)).returncode == 0
        assert cluster.up_process.wait(20) == 0
        assert not [pid for pid in pids if is_alive(pid)]
        assert not cluster.cluster_file.exists()
        # The same directory starts again, with its data.
        cluster.start()
        client = WireClient(cluster.http)
        got = client.call("GetItem", TableName="kept", Key={"pk": {"S": "a"}}, ConsistentRead=True)
        assert got["Item"] == {"pk": {"S": "a"}}


def test_ctrl_c_stops_cleanly_and_a_killed_supervisor_takes_its_children_along(tmp_path):
    with running_cluster(tmp_path / "data") as cluster:
        pids = [p["pid"] for p in cluster.processes()]
        cluster.up_process.send_signal(signal.SIGINT)
        assert cluster.up_process.wait(20) == 0
        assert not [pid for pid in pids if is_alive(pid)]
        cluster.start()
        pids = [p["pid"] for p in cluster.processes()]
        cluster.up_process.kill()
        cluster.up_process.wait()
        wait_until(lambda: not [p for p in pids if is_alive(p)], 10, "children ended")


def test_an_idle_cluster_is_small_and_idle_groups_cost_little(tmp_path):
    with running_cluster(tmp_path / "data") as cluster:
        assert cluster.resident_bytes() < IDLE_CLUSTER_BYTES_MAX
        client = WireClient(cluster.http, timeout_s=60)
        create(client, "warm-up", 8)
        time.sleep(1)
        storage = [p["pid"] for p in cluster.processes("storagenode")]
        before = cluster.resident_bytes()
        create(client, "many", 200)
        time.sleep(2)
        grown = cluster.resident_bytes() - before
        assert grown / (200 * 3) < IDLE_GROUP_BYTES_MAX, f"{grown / 600:.0f} bytes per replica"

        def cpu() -> float:
            ticks = 0
            for pid in storage:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
            return ticks / os.sysconf("SC_CLK_TCK")

        used = cpu()
        time.sleep(4)
        per_replica = (cpu() - used) / 4 / 600
        # "Next to no CPU": 600 idle replicas together stay below a quarter of a core.
        assert per_replica * 600 < 0.25, f"{per_replica * 1e6:.0f} us of CPU per second and replica"
        print(json.dumps({"bytes_per_replica": grown // 600, "cpu_s_per_replica_s": per_replica}))
