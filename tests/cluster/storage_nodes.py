"""Three real storage node processes and nothing else. Requests come over the links as a router's do. No port is
fixed and no wait is for a length of time.
"""

import asyncio
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import grpc
import msgspec

from datamodel.items import encode_item
from datamodel.key_encoding import KeySchema, encode_key, table_range
from datamodel.stored_items import record_body
from proto import control_pb2, control_pb2_grpc
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import ClusterClient
from proto.messages import (
    PROTOCOL_VERSION,
    PUT,
    Action,
    Get,
    Hello,
    Query,
    ReplicaAddress,
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

    def __init__(self, root, flags=()):
        self.root = root
        self.flags = list(flags)
        self.names = ["a", "b", "c"]
        ports = [f"127.0.0.1:{port}" for port in free_ports(9)]
        self.links = dict(zip(self.names, ports[:3], strict=True))
        self.grpc = dict(zip(self.names, ports[3:6], strict=True))
        self.metrics = dict(zip(self.names, ports[6:], strict=True))
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
                        *("--metrics-listen", self.metrics[name], "--log-format", "json"),
                        *self.flags,
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

    async def metric(self, name, metric):
        """A metric's value, 0 while the node does not answer."""
        address = f"http://{self.metrics[name]}/metrics"
        try:
            text = await asyncio.to_thread(lambda: urlopen(address, timeout=5).read().decode())
        except OSError:
            return 0.0
        values = [
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith(f"quorate_storagenode_{metric} ")
        ]
        return values[0] if values else 0.0

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
async def storage_nodes(root, *flags):
    nodes = StorageNodes(root, flags)
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
