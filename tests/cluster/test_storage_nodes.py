"""Three real storage node processes and nothing else: bootstrap, writes, kill -9, restart, snapshots.

Requests come over the links as a router's do. No port is fixed and no wait is for a length of time.
"""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import msgspec
import pytest

from datamodel.items import encode_item
from datamodel.key_encoding import KeySchema, encode_key, table_range
from datamodel.stored_items import record_body
from proto import control_pb2, control_pb2_grpc
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import ClusterClient
from proto.messages import (
    PROTOCOL_VERSION,
    PUT,
    RETURN_UPDATED_NEW,
    UPDATE,
    Action,
    Get,
    Hello,
    Query,
    ReplicaAddress,
    Stats,
    StatsReply,
    Value,
    Write,
    Written,
)

ROOT = Path(__file__).resolve().parents[2]
GROUP, TABLE = 1, 300
SCHEMA = KeySchema("pk", "S", None, None)
RUN = "import sys; from storagenode.main import main; sys.exit(main(sys.argv[1:]))"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class StorageNodes:
    """Three storage nodes in three zones, with partition group 1 on all of them."""

    def __init__(self, root):
        self.root = root
        self.names = ["a", "b", "c"]
        ports = free_ports(6)
        self.links = {n: f"127.0.0.1:{p}" for n, p in zip(self.names, ports, strict=False)}
        self.grpc = {n: f"127.0.0.1:{p}" for n, p in zip(self.names, ports[3:], strict=True)}
        self.processes = {}
        self.client = None

    def start(self, *names):
        initial = ",".join(f"{n}@az-{n}={self.links[n]}" for n in self.names)
        for name in names or self.names:
            with (self.root / f"{name}.log").open("ab") as stderr:
                self.processes[name] = subprocess.Popen(
                    [
                        *(sys.executable, "-c", RUN, "--name", name, "--az", f"az-{name}"),
                        *("--data-dir", str(self.root / name), "--initial-cluster", initial),
                        *("--link-listen", self.links[name], "--grpc-listen", self.grpc[name]),
                        *("--log-format", "json"),
                    ],
                    cwd=ROOT,
                    stderr=stderr,
                )

    def kill(self, *names, signal_number=signal.SIGKILL):
        for name in names:
            self.processes[name].send_signal(signal_number)
        return [self.processes[name].wait(20) for name in names]

    def log_has(self, name, text):
        return text in (self.root / f"{name}.log").read_text()

    async def status(self, name):
        """NodeStatus, or None while the node does not answer."""
        async with grpc.aio.insecure_channel(self.grpc[name]) as channel:
            stub = control_pb2_grpc.StorageControlStub(channel)
            try:
                return await stub.NodeStatus(control_pb2.NodeStatusRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return None

    async def replica(self, name, group=GROUP):
        status = await self.status(name)
        found = [r for r in status.replicas if r.partition.group == group] if status else []
        return found[0] if found else None

    async def leader(self, group=GROUP):
        async def find():
            for name in self.names:
                if self.processes[name].poll() is None:
                    replica = await self.replica(name, group)
                    if replica is not None and replica.role == "leader":
                        return name
            return None

        return await until(find, "a leader")

    async def open_group(self):
        nodes = [await until(lambda n=n: self.status(n), "status") for n in self.names]

        async def bootstrapped():
            replicas = [await self.replica(name, 0) for name in self.names]
            return all(replicas) and any(r.leader_node_id for r in replicas)

        await until(bootstrapped, "group 0")
        self.addresses = [
            ReplicaAddress(number, node.node_id, self.links[node.name], node.az)
            for number, node in enumerate(nodes, 1)
        ]
        start, end = table_range(TABLE)
        partition = control_pb2.Partition(
            group=GROUP,
            table_id=TABLE,
            start=start,
            end=end,
            epoch=1,
            replicas=[
                control_pb2.Replica(
                    replica_id=a.replica_id, node_id=a.node_id, address=a.address, az=a.az
                )
                for a in self.addresses
            ],
        )
        for _ in range(2):  # idempotent
            for number, name in enumerate(self.names, 1):
                await self.control(
                    name,
                    "OpenReplica",
                    control_pb2.OpenReplicaRequest(
                        partition=partition, replica_id=number, campaign=number == 3
                    ),
                )
        self.client.update_groups({GROUP: self.addresses})
        return partition

    async def control(self, name, method, request):
        async with grpc.aio.insecure_channel(self.grpc[name]) as channel:
            return await getattr(control_pb2_grpc.StorageControlStub(channel), method)(
                request, timeout=10
            )

    # data

    async def write(self, action, request_id=None, timeout_s=15):
        write = Write(0, GROUP, request_id or self.client.next_request_id(), [action])
        return await self.client.request(write, timeout_s)

    async def put(self, key, text="x"):
        item = {"pk": {"S": key}, "v": {"S": text}}
        action = Action(
            PUT, encode_key(TABLE, SCHEMA, item), encode_item(item), len(key) + len(text) + 3
        )
        return isinstance(await self.write(action), Written)

    async def get(self, key, strong=True):
        request = Get(0, GROUP, encode_key(TABLE, SCHEMA, {"pk": {"S": key}}), strong)
        answer = await self.client.request(request, 15, leader=strong)
        assert isinstance(answer, Value), answer
        if answer.value is None:
            return None
        return msgspec.json.decode(record_body(answer.value))["v"]["S"]

    async def keys(self):
        start, end = table_range(TABLE)
        found = []
        while True:
            page = await self.client.request(Query(0, GROUP, start, end, True), 15)
            found += [i["pk"]["S"] for i in msgspec.json.decode(b"[" + page.items + b"]")]
            if page.last is None:
                return sorted(found)
            start = encode_key(TABLE, SCHEMA, msgspec.json.decode(page.last)) + b"\0"


async def until(function, what, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not (value := await function()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        await asyncio.sleep(0.05)
    return value


@asynccontextmanager
async def storage_nodes(root):
    nodes = StorageNodes(root)
    loop = asyncio.get_running_loop()
    hello = Hello(PROTOCOL_VERSION, "", "router", "router-1", "router-1", "az-a")
    nodes.client = ClusterClient(
        LoopEnvironment(loop, time.monotonic),
        tcp_dial(lambda: hello, loop),
        nodes.links.values(),
        "az-a",
        secrets.token_bytes(8),
    )
    try:
        nodes.start()
        nodes.client.start()
        await nodes.open_group()
        yield nodes
    finally:
        nodes.client.stop()
        for process in nodes.processes.values():
            process.kill()
            process.wait()
        await asyncio.sleep(0)  # links that were just closed leave the loop


def test_a_disk_that_lost_its_log_is_not_taken_for_what_it_was(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            assert await nodes.put("before")
            nodes.kill("b")
            shutil.rmtree(tmp_path / "b" / "log")
            nodes.start("b")

            async def refused():
                return nodes.log_has("b", "the catalog's replica is not on this disk any more")

            await until(refused, "b knows what it lost")
            assert await nodes.replica("b", 0) is None
            assert await nodes.put("after")
            assert await nodes.get("before") == "x"

    asyncio.run(run())


def test_acknowledged_writes_survive_kill_9_of_the_leader_and_of_all(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            acknowledged, ended = set(), asyncio.Event()

            async def writer(name):
                number = 0
                while not ended.is_set():
                    key = f"{name}-{number}"
                    if await nodes.put(key):
                        acknowledged.add(key)
                    number += 1

            async def progress(count):
                goal = len(acknowledged) + count

                async def reached():
                    return len(acknowledged) >= goal

                await until(reached, f"{count} more writes")

            writers = [asyncio.create_task(writer(f"w{n}")) for n in range(8)]
            await progress(100)
            leader = await nodes.leader()
            nodes.kill(leader)
            await progress(100)
            nodes.start(leader)
            await progress(100)
            nodes.kill(*nodes.names)
            nodes.start()
            await progress(100)
            ended.set()
            await asyncio.gather(*writers)

            keys = set(await nodes.keys())
            assert acknowledged <= keys
            stats = await nodes.client.request(Stats(0, GROUP), 15)
            assert isinstance(stats, StatsReply)
            assert stats.item_count == len(keys)

            # Every replica comes to the same state.
            async def agree():
                replicas = [await nodes.replica(name) for name in nodes.names]
                return (
                    all(replicas)
                    and len({(r.applied_index, r.item_count, r.size_bytes) for r in replicas}) == 1
                )

            await until(agree, "all replicas at the same state")

    asyncio.run(run())


def test_a_retry_of_a_write_applies_once_across_a_leader_change_and_a_restart(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            key = {"pk": {"S": "counter"}}
            add = Action(
                UPDATE,
                encode_key(TABLE, SCHEMA, key),
                encode_item(key),
                update="ADD v :one",
                values=b'{":one":{"N":"1"}}',
                returns=RETURN_UPDATED_NEW,
            )
            request_id = secrets.token_bytes(16)
            first = await nodes.write(add, request_id)
            assert first.results[0].attributes == b'{"v":{"N":"1"}}'
            nodes.kill(await nodes.leader())
            again = await nodes.write(add, request_id)
            assert again.results == first.results
            nodes.kill(*(n for n in nodes.names if nodes.processes[n].poll() is None))
            nodes.start()
            again = await nodes.write(add, request_id)
            assert again.results == first.results
            second = await nodes.write(add)
            assert second.results[0].attributes == b'{"v":{"N":"2"}}'

    asyncio.run(run())


def test_a_node_that_was_away_too_long_is_brought_back_by_a_snapshot(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            leader = await nodes.leader()
            away = next(name for name in nodes.names if name != leader)
            others = [name for name in nodes.names if name != away]
            await nodes.put("before")
            nodes.kill(away)
            # More than the log keeps for those who lag; a planned stop takes a checkpoint, behind which the
            # log is cut.
            text = "y" * 100_000
            for first in range(0, 80, 10):
                puts = (nodes.put(f"big-{n}", text) for n in range(first, first + 10))
                assert all(await asyncio.gather(*puts))
            for name in others:
                assert nodes.kill(name, signal_number=signal.SIGTERM) == [0]
                nodes.start(name)
                await nodes.leader()
            behind = await nodes.replica(await nodes.leader())
            assert behind.first_index > 14
            nodes.start(away)

            async def caught_up():
                replica = await nodes.replica(away)
                return replica and replica.item_count == 81

            await until(caught_up, "the node catches up")
            assert nodes.log_has(away, "snapshot installed")
            # It serves what it was sent, also after a crash and with another node away.
            nodes.kill(away, others[0])
            nodes.start(away)
            assert await nodes.put("after")
            assert len(await nodes.keys()) == 82
            assert await nodes.get("big-79") == text

    asyncio.run(run())


def test_a_planned_stop_hands_leadership_over(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            leader = await nodes.leader()
            assert await nodes.put("a")
            began = time.monotonic()
            assert nodes.kill(leader, signal_number=signal.SIGTERM) == [0]
            assert await nodes.put("b")
            assert time.monotonic() - began < 3
            assert await nodes.get("a") == "x"

    asyncio.run(run())


def test_closing_a_replica_deletes_its_data_for_good(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            assert await nodes.put("a")
            partition = await nodes.open_group()
            for _ in range(2):  # idempotent
                for name in nodes.names:
                    request = control_pb2.CloseReplicaRequest(group=GROUP)
                    await nodes.control(name, "CloseReplica", request)
            assert all([await nodes.replica(name) is None for name in nodes.names])
            nodes.kill(*nodes.names)
            nodes.start()
            for name in nodes.names:
                await until(lambda name=name: nodes.status(name), "status")
                assert await nodes.replica(name) is None
            request = control_pb2.OpenReplicaRequest(partition=partition, replica_id=1)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await nodes.control("a", "OpenReplica", request)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(run())


def test_a_data_directory_serves_one_process_and_one_name(tmp_path):
    def attempt(name, data):
        return subprocess.run(
            [sys.executable, "-c", RUN, "--name", name, "--az", "az1", "--data-dir", str(data)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    data = tmp_path / "data"
    with (tmp_path / "log").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "--name", "a", "--az", "az1", "--data-dir", str(data),
             "--initial-cluster", "a@az1=127.0.0.1:1"],
            cwd=ROOT, stderr=stderr,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while "cluster founded" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = attempt("a", data)
        assert second.returncode == 78
        assert "is in use by another storage node process" in second.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    foreign = attempt("b", data)
    assert foreign.returncode == 78
    assert "is the disk of a, not of b" in foreign.stderr
    assert not os.listdir(data / "snapshots")


def test_nothing_listens_beyond_loopback_unasked(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, "--name", "a", "--az", "az1", "--data-dir", str(tmp_path / "d"),
         "--link-listen", "0.0.0.0:0"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--insecure" in done.stderr
