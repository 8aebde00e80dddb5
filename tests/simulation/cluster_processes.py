"""The three kinds of processes, from the product's own parts. What stands in for sockets, clocks and disks is in
the modules beside this one; the storage node's composition root is reused where it does not touch the machine.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from admin.balance import Balance
from admin.jobs import JobMetrics, JobRunner
from admin.lease import Lease
from admin.nodes import GrpcStorageNodes
from admin.repair import Repair
from admin.replica_jobs import ReplicaJobs
from admin.table_jobs import TableJobs
from datamodel.catalog_rows import NodeRow
from proto import control_pb2_grpc
from proto.catalog_client import CatalogClient
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import ClusterClient
from proto.link import LinkDialer, TcpLink
from proto.messages import PROTOCOL_VERSION, Hello
from raft.group import NodeId, Settings
from raft.host import MultiRaftHost
from router.context import RequestContext, Services
from router.dispatch import Dispatcher, handlers
from router.metrics import RouterMetrics
from router.partition_map import PartitionMap
from storagenode.apply_round import ApplyRound
from storagenode.bootstrap import Bootstrap, InitialNode
from storagenode.catalog_watch import watch_catalog
from storagenode.checkpoints import Checkpoints
from storagenode.control_service import ControlService, fetch_snapshot
from storagenode.main import _Process
from storagenode.metrics import MeasuredLog
from storagenode.node import CATALOG_GROUP, Node
from storagenode.peers import Peers
from storagenode.replica import Replica
from tests.simulation.cluster_disk import LogFiles, Machine, SimEngine
from tests.simulation.cluster_network import Network, SimChannel
from tests.simulation.cluster_world import Process, World

# Small, so that a few seconds see segments freed, followers left behind and snapshots cut into pieces.
SETTINGS = Settings(log_segment_bytes=12_000, log_slack_entries=8, log_slack_bytes=3_000)


REPLACE_AFTER_S = 0.0  # replicas stay where they are


def address(name: str) -> str:
    return f"{name}:7000"


def grpc_address(name: str) -> str:
    return f"{name}:7100"


class SimEnvironment:
    """`raft.group.Environment` of one life of a process."""

    def __init__(self, process: Process) -> None:
        self.random = process.random
        self.now = process.now
        self.call_soon = process.loop.call_soon
        self.call_later = process.loop.call_later


class _NodeParts(_Process):
    """A storage node process over a simulated machine: the composition root's own steps where possible."""

    def __init__(self, process: "StorageProcess", initial: list[InitialNode]) -> None:
        machine, loop = process.machine, process.loop
        self._process = process
        self._flags = SimpleNamespace(initial_cluster=initial)
        self._directory = machine
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._identity = machine.identity
        self._address = address(process.name)
        self._grpc_address = grpc_address(process.name)
        self._environment = SimEnvironment(process)
        self._engine = process.engine = SimEngine(
            machine.store, process.at_sync, lambda: process.is_in_thread
        )
        self._round = ApplyRound(self._engine, process.fatal)
        self._peers = Peers(
            self._identity.node_id,
            lambda where, handler: LinkDialer(where, self._hello, handler, loop),
            machine.load_peers(),
            machine.store_peers,
        )
        self._files = process.files = LogFiles(process, machine.log)
        self._host = MultiRaftHost(
            NodeId(self._identity.node_id),
            self._environment,
            self._peers,
            MeasuredLog(self._files, self._environment.now),
            self._round,
            SETTINGS,
            lambda group, error: process.fatal(error),
        )
        self._peers.listen(self._host)
        open_channel = lambda where: SimChannel(process.network, process, where)  # noqa: E731
        self._node = Node(
            self._hello,
            self._environment,
            self._engine,
            self._round,
            self._host,
            self._peers,
            lambda: int(process.wall_s() * 1_000_000),
            machine.snapshots,
            partial(fetch_snapshot, open_channel=open_channel),
            self._spawn,
        )
        self._checkpoints = Checkpoints(
            self._engine, self._round, self._node.replicas.values, self._environment.now
        )
        self._bootstrap = None
        self._client = None
        self._grpc = SimpleNamespace(stop=lambda grace: asyncio.sleep(0))
        self._servers = []

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - as in the product: the process ends
                self._process.fatal(error)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def start(self) -> None:
        process = self._process
        self._node.recover()
        process.network.listen(
            self._address, process, lambda: TcpLink(self._hello(), self._node, self._loop)
        )
        servicer = ControlService(self._node, self._engine, self._peers, self._hello)
        process.network.serve(self._grpc_address, process, servicer)
        self._host.start()
        initial = self._flags.initial_cluster
        self._peers.start(self._address, [node.address for node in initial])
        self._spawn(self._checkpoints.run())
        if self._identity.cluster_id and CATALOG_GROUP in self._node.replicas:
            self._spawn(watch_catalog(self._node, self._peers))
            self._register()
        else:
            self._bootstrap = Bootstrap(
                self._identity,
                self._address,
                initial,
                self._peers,
                self._environment,
                self._found_cluster,
            )
            self._bootstrap.start()

    def _register(self) -> None:
        def hello() -> Hello:
            return msgspec.structs.replace(self._hello(), role="client")

        seeds = {self._address, *(node.address for node in self._flags.initial_cluster)}
        seeds.update(replica.address for replica in self._node.catalog)
        self._client = ClusterClient(
            self._environment,
            tcp_dial(hello, self._loop),
            sorted(seeds),
            self._identity.az,
            self._process.random.randbytes(8),
        )
        identity = self._identity
        row = NodeRow(
            identity.node_id,
            identity.name,
            identity.az,
            self._address,
            self._grpc_address,
            "",
            int(self._process.wall_s() * 1000),
        )
        self._spawn(self._register_and_leave(self._client, row))


class StorageProcess(Process):
    """A storage node and its machine."""

    def __init__(self, world: World, network: Network, name: str, az: str, directory: Path) -> None:
        super().__init__(world, network, name)
        node_id = f"{name}.{self.random.getrandbits(32):08x}"
        self.machine = Machine(name, az, node_id, directory / name)
        self.initial: list[InitialNode] = []
        self.on_sync: Callable[[StorageProcess], None] | None = None
        self.engine: SimEngine
        self.files: LogFiles
        self.parts: _NodeParts

    def build(self) -> None:
        self.parts = _NodeParts(self, self.initial)

    async def begin(self) -> None:
        try:
            await self.parts.start()
        except Exception as error:  # noqa: BLE001 - the process would not start
            self.fatal(error)
        self.network.restarted(self)

    @property
    def replicas(self) -> dict[int, Replica]:
        return self.parts._node.replicas if self.is_running else {}

    def fatal(self, error: BaseException) -> None:
        self.world.log("FATAL", self.name, repr(error))
        self.world.fatal = error

    def _end(self, *, machine: bool) -> None:
        self.files.crash(self.world.rng, machine=machine)
        super()._end(machine=machine)
        if machine:
            self.machine.crash(self.world.rng)

    def stop_planned(self, then: Callable[[], None]) -> None:
        """SIGTERM: everything in order, then gone."""
        if not self.is_running:
            return
        self.world.log("STOP", self.name)
        self.world.stats["planned stops"] += 1
        life = self.life

        async def stop() -> None:
            await self.parts.stop()
            # (Its own turn is still running.)
            self.world.after(0.0, gone)

        def gone() -> None:
            if self.life == life:
                super(StorageProcess, self)._end(machine=False)
                then()

        def begin() -> None:
            self.__dict__["stopping"] = self.loop.create_task(stop())

        self.post(begin)

    def at_sync(self) -> None:
        """The engine syncs: a moment that is followed by others which rely on it."""
        if self.on_sync is not None:
            self.on_sync(self)

    def thread_began(self, args: Any) -> object:
        if _calls(args, "make_durable"):
            return partial(self.machine.store.settle, self.machine.store.written)
        if _calls(args, "fsync"):
            try:
                return partial(self.machine.synced, os.fstat(args[-1]).st_ino)
            except OSError:
                return None  # closed under the thread, by a task that was cancelled
        return None

    def thread_done(self, args: Any, promise: Any) -> None:
        if promise is not None:
            promise()


def _calls(args: Any, name: str) -> bool:
    """Whether what `asyncio.to_thread` was given is this function."""
    return bool(args) and getattr(args[0], "__name__", "") == name


class ClientProcess(Process):
    """What routers and admins have in common. They keep nothing."""

    role = ""
    az = ""

    def __init__(self, world: World, network: Network, name: str, seeds: list[str]) -> None:
        super().__init__(world, network, name)
        self.seeds = seeds

    def build_client(self) -> None:
        loop = self.loop
        node_id = f"{self.name}.{self.life}"

        def hello() -> Hello:
            cluster_id = self.client.cluster_id
            return Hello(PROTOCOL_VERSION, cluster_id, self.role, node_id, self.name, self.az)

        self.client = ClusterClient(
            LoopEnvironment(loop, self.now),
            tcp_dial(hello, loop),
            self.seeds,
            self.az,
            self.random.randbytes(8),
        )
        self.catalog = CatalogClient(self.client)


class RouterProcess(ClientProcess):
    """A router, entered at its dispatcher."""

    role = "router"

    def build(self) -> None:
        self.build_client()
        self._tasks: dict[asyncio.Task[None], None] = {}

        def spawn(work: Any) -> None:
            task = self.loop.create_task(work)
            self._tasks[task] = None
            task.add_done_callback(lambda _: self._tasks.pop(task))

        metrics = RouterMetrics()
        tables = PartitionMap(self.catalog, metrics, self.now, spawn)
        services = Services(
            self.client, tables, self.catalog, metrics, "us-east-1", "000000000000", self.now,
            self.wall_s,
        )  # fmt: skip
        self._dispatcher = Dispatcher(services, handlers())
        self._requests = 0
        self._open: dict[RequestContext, Callable[[int, dict[str, Any]], None]] = {}

    async def begin(self) -> None:
        self.client.start()
        self.catalog.start()

    def _end(self, *, machine: bool) -> None:
        super()._end(machine=machine)
        for then in self._open.values():
            self.world.after(0.01 + 0.1 * self.world.rng.random(), then, 0, {})

    def call(
        self, operation: str, members: dict[str, Any], then: Callable[[int, dict[str, Any]], None]
    ) -> None:
        """One request, as the HTTP server passes it on; status 0 if the router dies before its reply."""
        if not self.is_running:
            self.world.after(0.1, then, 0, {})  # connection refused
            return
        self._requests += 1
        context = RequestContext(b"%052d" % self._requests)
        body = json.dumps(members).encode()
        replies: list[int] = []

        def reply(status: int, answer: bytes) -> None:
            replies.append(status)
            if len(replies) > 1:
                self.world.violate("two-replies", operation)
            self._open.pop(context, None)
            then(status, json.loads(answer))

        self._open[context] = then
        self.post(lambda: self._dispatcher.dispatch(operation, body, context, reply))


class _SimNodes(GrpcStorageNodes):
    """The product's client of `StorageControl` on simulated channels."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def _stub(self, node: NodeRow) -> control_pb2_grpc.StorageControlStub:
        if not node.grpc:
            return super()._stub(node)
        channel = SimChannel(self._process.network, self._process, node.grpc)
        return control_pb2_grpc.StorageControlStub(channel)


class AdminProcess(ClientProcess):
    """An admin: jobs, lease and repair."""

    role = "admin"

    def build(self) -> None:
        self.build_client()
        nodes = _SimNodes(self)
        jobs = {
            **TableJobs(self.catalog, self.client, nodes).handlers(),
            **ReplicaJobs(self.catalog, nodes).handlers(),
        }
        runner = JobRunner(self.catalog, jobs, JobMetrics(CollectorRegistry()))
        incarnation = self.random.randbytes(8).hex()
        self.lease = Lease(self.catalog, self.name, incarnation, self.now, runner.act)
        self.repair = Repair(
            self.catalog,
            nodes,
            lambda: self.lease.is_held,
            CollectorRegistry(),
            replace_after_s=REPLACE_AFTER_S,
            now=self.now,
        )
        self.balance = Balance(self.catalog, nodes, lambda: self.lease.is_held, CollectorRegistry())

    async def begin(self) -> None:
        self.client.start()
        self.catalog.start()
        await self.catalog.ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lease.run())
            tasks.create_task(self.repair.run())
            tasks.create_task(self.balance.run())
