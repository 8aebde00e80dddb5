"""A storage node, assembled: everything between its sockets, clocks and files, and how it starts and stops.

`main.py` gives it the machine's own, the simulator others. Start: recover the replicas from the log, listen, dial
the others, and find or found the cluster. Stop: hand leadership away, refuse requests, take a checkpoint, close. A
disk error or a bug in the consensus core ends the process at once; it restarts from its log.
"""

import asyncio
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

from datamodel.limits import ITEM_COLLECTION_SIZE_BYTES_MAX
from proto import control_pb2_grpc
from proto.addresses import format_address, parse_listen
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import REQUEST_ID_PREFIX_SIZE, ClusterClient
from proto.link import serve_links
from proto.observability import serve_metrics
from proto.process import Platform
from raft.group import GroupId, LogStorage, NodeId, Settings
from raft.host import MultiRaftHost
from raft.node_log import Corruption as LogCorruption
from storagenode.control_service import ControlService, GrpcDigests
from storagenode.data_directory import Identity, Peer
from storagenode.engines.engine import Engine, EngineDamage, EngineFailure
from storagenode.healing import Healer
from storagenode.joining.bootstrap import InitialNode
from storagenode.joining.hand_over import hand_over
from storagenode.joining.joining import Joining
from storagenode.joining.presence import Presence
from storagenode.metrics import MeasuredLog, NodeCollector
from storagenode.node import Node
from storagenode.peers import Peers
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.checkpoints import Checkpoints
from storagenode.replicas.lagging import LaggingView
from storagenode.replicas.log_entries import UnknownFormat
from storagenode.requests import Requests
from storagenode.scrubbing import INTERVAL_S, Scrubber
from storagenode.snapshots.snapshot_receiving import SnapshotReceiver
from storagenode.snapshots.snapshot_sending import RATE_BYTES, SnapshotSender

log = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE: an error that a restart from disk may heal
EXIT_DISK = 74  # EX_IOERR
EXIT_CONFIGURATION = 78  # EX_CONFIG
GRPC_GRACE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person decides of a node; `main.parse_flags` describes it.

    Attributes:
        name: Stable name.
        az: Availability zone.
        link_listen: Address for links.
        grpc_listen: For gRPC.
        metrics_listen: For `/metrics`.
        initial_cluster: Nodes that form, or formed, the first cluster.
        advertise: Link address under which others reach this node; None: where it listens.
        item_collection_size_max: Bytes of an item collection in a table with local indexes.
        scrub_interval_s: How often the replicas of each partition are compared; 0: never.
        snapshot_rate: Bytes per second of snapshots sent, and as many received; 0: no limit.
        eventual_read_lag_s: How old eventual reads are, on purpose; 0: as new as can be.
        keep_damaged: Stop on damage, instead of starting again as a new disk.
        raft: Of replication.
    """

    name: str
    az: str
    link_listen: str
    grpc_listen: str
    metrics_listen: str
    initial_cluster: Sequence[InitialNode]
    advertise: str | None = None
    item_collection_size_max: int = ITEM_COLLECTION_SIZE_BYTES_MAX
    scrub_interval_s: float = INTERVAL_S
    snapshot_rate: int = RATE_BYTES
    eventual_read_lag_s: float = 0.0
    keep_damaged: bool = False
    raft: Settings = field(default_factory=Settings)


class Directory(Protocol):
    """What is needed of `data_directory.DataDirectory`."""

    snapshots: Path

    def load_identity(self, name: str, az: str, random_suffix: str) -> Identity:
        """The identity of this disk; a fresh one for an empty disk."""

    def store_identity(self, identity: Identity) -> None:
        """Durably."""

    def load_peers(self) -> list[Peer]:
        """Peers of an earlier life."""

    def store_peers(self, peers: Iterable[Peer]) -> None:
        """Durably."""


class LogFiles(LogStorage, Protocol):
    """The raft log's files, open."""

    def check_next(self) -> None:
        """Read what is durable of one more segment again. Blocks; call it off the loop.

        Raises:
            node_log.Corruption: It is not as it was written.
        """

    def close(self) -> None:
        """Finish what was handed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a node keeps, and how its process ends when that fails.

    Attributes:
        directory: Its files besides engine and log.
        open_engine: Opens the engine.
        open_log: Opens the raft log, with segments of so many bytes.
        exit: Ends the process at once with a status. Nothing of it happens afterwards.
        replace: Notes why the disk's content cannot be used and starts again, as a new disk.
    """

    directory: Directory
    open_engine: Callable[[], Engine]
    open_log: Callable[[int], LogFiles]
    exit: Callable[[int], NoReturn]
    replace: Callable[[str], NoReturn]


class RaftEnvironment(LoopEnvironment):
    """`raft.group.Environment` on the running loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, platform: Platform) -> None:
        super().__init__(loop, platform.now)
        self.random = random.Random(platform.random_bytes(8))  # jitter, nothing secret

    def call_soon(self, function: Callable[[], None]) -> None:
        """At the end of this loop turn."""
        self._loop.call_soon(function)


class StorageNode:
    """One storage node process, from its parts.

    Attributes:
        node: Its replicas.
        apply_round: What they apply, on its way into the engine.
    """

    def __init__(self, options: Options, platform: Platform, disk: Disk) -> None:
        """Open what is on the disk. In a coroutine or callback of the loop that the node is to run on.

        Raises:
            ForeignDirectory, EngineFailure: The disk cannot be used.
        """
        loop = asyncio.get_running_loop()
        directory = disk.directory
        self._options = options
        self._platform = platform
        self._disk = disk
        self._loop = loop
        # In the order in which they began, which is the order in which they end.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._presence = Presence(
            directory.load_identity(options.name, options.az, platform.random_bytes(4).hex()),
            self._store_identity,
        )
        hello = self._presence.hello
        self._environment = RaftEnvironment(loop, platform)
        self._engine = disk.open_engine()
        self.apply_round = ApplyRound(self._engine, self._engine_failed)
        self._peers = Peers(
            self._presence.identity.node_id,
            tcp_dial(hello, loop),
            directory.load_peers(),
            directory.store_peers,
        )
        self._files = disk.open_log(options.raft.log_segment_bytes)
        self._log = MeasuredLog(self._files, platform.now)
        self._host = MultiRaftHost(
            NodeId(self._presence.identity.node_id),
            self._environment,
            self._peers,
            self._log,
            self.apply_round,
            options.raft,
            self._replica_failed,
        )
        self._peers.listen(self._host)
        lag_s = options.eventual_read_lag_s
        self._lagging = LaggingView(self._engine, self._environment, lag_s) if lag_s else None
        self._sender = SnapshotSender(self._engine, self._environment, options.snapshot_rate)
        self._receiver = SnapshotReceiver(
            self._peers.reachable, platform.now, options.snapshot_rate, platform.open_channel
        )
        self.node = Node(
            hello,
            self._environment,
            self._engine,
            self.apply_round,
            self._host,
            self._peers,
            lambda: int(platform.wall_clock() * 1_000_000),
            directory.snapshots,
            self._receiver.fetch,
            self._spawn,
            options.item_collection_size_max,
            self._lagging,
        )
        self._requests = Requests(self.node, self._host, self._peers)
        self._healer = Healer(
            self.node,
            self._engine,
            self._host,
            self._peers,
            self._receiver.fetch,
            self._spawn,
            self._engine_hopeless,
        )
        self._scrubber = Scrubber(
            self.node,
            self._engine,
            self._peers,
            GrpcDigests(platform.open_channel),
            self._spawn,
            platform.now,
            options.scrub_interval_s,
        )
        self._checkpoints = Checkpoints(
            self._engine, self.apply_round, self.node.replicas.values, platform.now
        )
        self._joining = Joining(
            self._presence,
            options.initial_cluster,
            self.node,
            self._host,
            self._peers,
            self._environment,
            platform.wall_clock,
            self._connect,
            self._spawn,
            lambda: disk.exit(EXIT_CONFIGURATION),
        )
        self._grpc = platform.grpc_server(options=[("grpc.so_reuseport", 0)])
        self._servers: list[asyncio.Server] = []

    def _connect(self, addresses: Sequence[str]) -> ClusterClient:
        return ClusterClient(
            self._environment,
            tcp_dial(self._presence.client_hello, self._loop),
            addresses,
            self._presence.identity.az,
            self._platform.random_bytes(REQUEST_ID_PREFIX_SIZE),
        )

    # --- what fails ---

    def _store_identity(self, identity: Identity) -> None:
        try:
            self._disk.directory.store_identity(identity)
        except OSError as error:
            log.critical("the node's identity cannot be stored: %s", error)
            self._disk.exit(EXIT_DISK)

    def _engine_failed(self, error: EngineFailure) -> None:
        """What the engine holds is not known any more."""
        log.critical("the engine failed: %s", error)
        if isinstance(error, EngineDamage):
            self._engine_hopeless(error)
        self._disk.exit(EXIT_DISK)

    def _engine_hopeless(self, error: EngineFailure) -> None:
        """The engine cannot be repaired from within: this disk is given up, the others have what it had."""
        log.critical("the engine cannot be used: %s", error)
        if not isinstance(error, EngineDamage):
            self._disk.exit(EXIT_DISK)
        self._disk_damaged(str(error))

    def _disk_damaged(self, reason: str) -> NoReturn:
        log.critical("the disk is damaged: %s", reason)
        if self._options.keep_damaged:
            self._disk.exit(EXIT_DISK)
        self._disk.replace(reason)

    def _replica_failed(self, group: GroupId, error: BaseException) -> None:
        """A replica cannot go on from its memory. Damaged input stays damaged; anything else restarts from disk."""
        if isinstance(error, UnknownFormat):
            log.error("replica out of service: %s", error, extra={"group": group})
            return
        log.critical("a replica failed; restarting from disk", extra={"group": group})
        self._disk.exit(EXIT_FAILED)

    def _spawn(self, work: Awaitable[None]) -> None:
        """Run something beside the callbacks. What it raises, if not the engine's failure, is our bug: the process
        ends.
        """

        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except EngineFailure as error:
                self._engine_failed(error)
            except LogCorruption as error:
                self._disk_damaged(f"the log is damaged: {error}")
            except Exception:
                log.critical("background work failed", exc_info=True)
                self._disk.exit(EXIT_FAILED)

        task = self._loop.create_task(run())
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    # --- start ---

    async def start(self) -> None:
        """Returns once the node serves what it has; joining a cluster may take longer.

        Raises:
            OSError: It cannot listen.
            EngineFailure, UnknownFormat, BadSnapshot, node_log.Corruption: What is on the disk cannot be used.
        """
        options, presence = self._options, self._presence
        self.node.recover()
        links = await serve_links(
            *parse_listen(options.link_listen), presence.hello, self._requests, self._loop
        )
        self._servers.append(links)
        grpc_host, grpc_port = parse_listen(options.grpc_listen)
        control_pb2_grpc.add_StorageControlServicer_to_server(  # type: ignore[no-untyped-call]
            ControlService(self.node, self._sender, self._peers, presence.hello, self._scrubber),
            self._grpc,
        )
        grpc_port = self._grpc.add_insecure_port(format_address(grpc_host, grpc_port))
        presence.link = options.advertise or _reachable(links)
        presence.grpc = format_address(parse_listen(presence.link)[0], grpc_port)
        await self._grpc.start()
        self._platform.registry.register(
            NodeCollector(
                self.node,
                self._engine,
                self.apply_round,
                self._checkpoints,
                self._log,
                self._healer,
                self._scrubber,
                self._sender,
                self._receiver,
            )
        )
        metrics = await serve_metrics(
            *parse_listen(options.metrics_listen), self._is_ready, self._platform.registry
        )
        self._servers.append(metrics)
        presence.metrics = _address(metrics)
        self._host.start()
        self._peers.start(presence.link, [node.address for node in options.initial_cluster])
        self._spawn(self._checkpoints.run())
        self._spawn(self._scrubber.run())
        self._joining.start()
        log.info(
            "storage node listening",
            extra={
                "node": presence.identity.node_id,
                "link": presence.link,
                "grpc": presence.grpc,
                "metrics": presence.metrics,
            },
        )

    def watch_files(self, engine_interval_s: float, log_interval_s: float) -> None:
        """From now on, look after files that nobody reads as long as all is well: a table that is gone counts as
        "not found", and the log is read at the next start only, when other disks may have suffered as well.

        Args:
            engine_interval_s: How often the engine's files are compared with the directory.
            log_interval_s: How often a segment of the log is read, in turns.
        """

        async def watch(check: Callable[[], None], interval_s: float) -> None:
            while True:
                await asyncio.sleep(interval_s)
                await asyncio.to_thread(check)

        self._spawn(watch(self._engine.check_files, engine_interval_s))
        self._spawn(watch(self._files.check_next, log_interval_s))

    def _is_ready(self) -> bool:
        """In the cluster, and every replica follows a leader: only then may the next node of a rolling restart
        be stopped.
        """
        return bool(self._presence.identity.cluster_id) and all(
            replica.standing.leader is not None or not replica.standing.is_sound
            for replica in self.node.replicas.values()
        )

    # --- stop ---

    async def stop(self) -> None:
        """Hand over, refuse, make durable, close."""
        log.info("stopping")
        self._joining.stop()
        await hand_over(self.node, self._platform.now)
        self.node.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._checkpoints.take()
        await self.node.durable()
        for server in self._servers:
            server.close()
        await self._grpc.stop(GRPC_GRACE_S)
        self._peers.stop()
        self._host.stop()
        self._files.close()
        self._sender.close()
        if self._lagging is not None:
            self._lagging.stop()
        self._engine.close()
        log.info("stopped")


def _address(server: asyncio.Server) -> str:
    return format_address(*server.sockets[0].getsockname()[:2])


def _reachable(server: asyncio.Server) -> str:
    """An address for others: that of the socket, or the machine's name when it listens on every interface."""
    address = _address(server)
    host, port = parse_listen(address)
    return format_address(socket.gethostname(), port) if host in ("0.0.0.0", "::") else address
