"""Composition root of a storage node: reads flags and clocks, opens disks and sockets, joins the parts.

Start: lock the data directory, open the engine, recover the replicas from the log, listen, dial the others, and
(an empty disk) find or found the cluster. Stop (SIGTERM, SIGINT): hand leadership away, refuse requests, take
a checkpoint, close. A disk error or a bug in the consensus core ends the process at once; it restarts from its
log.
"""

import argparse
import asyncio
import gc
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import grpc
import msgspec
import uvloop
from prometheus_client import REGISTRY

from datamodel.catalog_rows import CATALOG_RANGE, SYSTEM_TABLE_ID, NodeRow
from datamodel.limits import ITEM_COLLECTION_SIZE_BYTES_MAX
from proto import control_pb2_grpc
from proto.addresses import check_loopback, format_address, parse_listen
from proto.client_environment import tcp_dial
from proto.cluster_client import ClusterClient
from proto.flags import FlagParser, add_process_flags, listen_address
from proto.link import LinkDialer, serve_links
from proto.logging_setup import configure_logging
from proto.messages import PROTOCOL_VERSION, Hello
from proto.observability import serve_metrics
from raft.files import FileLogStorage
from raft.group import Configuration, GroupId, Member, NodeId, ReplicaId, Settings, Timer
from raft.host import MultiRaftHost
from raft.node_log import Corruption as LogCorruption
from storagenode.apply_round import ApplyRound
from storagenode.bootstrap import Belong, Bootstrap, InitialNode, has_forgotten
from storagenode.catalog_watch import watch_catalog
from storagenode.checkpoints import Checkpoints
from storagenode.control_service import ControlService, GrpcDigests, fetch_snapshot
from storagenode.data_directory import (
    DataDirectory,
    DirectoryInUse,
    ForeignDirectory,
    Identity,
    Peer,
    note_damage,
    noted_damage,
    set_aside,
)
from storagenode.engine import EngineDamage, EngineFailure
from storagenode.healing import Healer
from storagenode.leveldb_engine import LevelEngine
from storagenode.log_entries import STATE_VERSION, ReplicaState, UnknownFormat
from storagenode.metrics import MeasuredLog, NodeCollector
from storagenode.node import CATALOG_GROUP, Node, ReplicaRefused
from storagenode.peers import STORAGE_ROLE, Peers
from storagenode.registration import register
from storagenode.scrubbing import INTERVAL_S, Scrubber
from storagenode.snapshots import BadSnapshot

log = logging.getLogger(__name__)

HAND_OVER_POLL_S = 0.005
HAND_OVER_S = 2.0
"""A planned stop waits at most this long for others to take over leadership."""
HAND_OVER_AGAIN_S = 0.5
"""After this long whoever still leads asks anew: a request to take over can be lost."""
EXIT_FAILED = 70  # EX_SOFTWARE: an error that a restart from disk may heal
EXIT_DISK = 74  # EX_IOERR
EXIT_CONFIGURATION = 78  # EX_CONFIG
GC_THRESHOLDS = (50_000, 20, 100)


class AsyncioEnvironment:
    """`raft.group.Environment` on the running loop, with a clock that goes on while the machine sleeps."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.random = random.Random(secrets.randbits(64))  # jitter, nothing secret
        self._loop = loop

    def now(self) -> float:
        """Seconds since boot, suspension included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def call_soon(self, function: Callable[[], None]) -> None:
        """At the end of this loop turn."""
        self._loop.call_soon(function)

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        """After a delay."""
        return self._loop.call_later(delay_s, function)


def initial_cluster(text: str) -> list[InitialNode]:
    """An argparse `type`: `name@az=host:port,...`."""
    nodes = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name_az, equals, address = part.partition("=")
        name, at, az = name_az.partition("@")
        if not (equals and at and name and az):
            raise argparse.ArgumentTypeError(f"{part!r}: expected name@az=host:port")
        nodes.append(InitialNode(name, az, listen_address(address)))
    if len({node.name for node in nodes}) != len(nodes):
        raise argparse.ArgumentTypeError("a node is listed twice")
    return nodes


def parse_flags(argv: list[str]) -> argparse.Namespace:
    """Flags and environment variables of a storage node."""
    parser = FlagParser(prog="quorate storagenode", description="Run one storage node.")
    parser.add_argument("--name", required=True, help="stable name of the node: storage-az1-0")
    parser.add_argument("--az", required=True, help="availability zone: az1")
    parser.add_argument("--data-dir", required=True, type=Path, help="where its data lives")
    parser.add_argument(
        "--link-listen", type=listen_address, default="127.0.0.1:0", help="for links"
    )
    parser.add_argument(
        "--grpc-listen", type=listen_address, default="127.0.0.1:0", help="for gRPC"
    )
    parser.add_argument(
        "--metrics-listen", type=listen_address, default="127.0.0.1:0", help="for /metrics"
    )
    parser.add_argument(
        "--initial-cluster",
        type=initial_cluster,
        default=[],
        help="nodes that form, or formed, the first cluster: name@az=host:port,...",
    )
    parser.add_argument(
        "--advertise",
        type=listen_address,
        help="link address under which others reach this node (default: where it listens)",
    )
    parser.add_argument(
        "--item-collection-size-max",
        type=int,
        default=ITEM_COLLECTION_SIZE_BYTES_MAX,
        help="bytes that an item collection may have in a table with local indexes (default: 10 GB)",
    )
    parser.add_argument(
        "--scrub-interval",
        type=float,
        default=INTERVAL_S,
        metavar="SECONDS",
        help="how often the replicas of each partition are compared; 0: never (21600)",
    )
    parser.add_argument(
        "--keep-damaged",
        action="store_true",
        help="refuse to start on damaged data, instead of setting it aside and starting as a new disk",
    )
    parser.add_argument(
        "--no-fsync",
        action="store_true",
        help="do not wait for the disk: loses acknowledged writes, for benchmarks only",
    )
    add_process_flags(parser)
    flags: argparse.Namespace = parser.parse_args(argv)
    return flags


def main(argv: list[str]) -> int:
    """Run a storage node until it is told to stop. Returns the process's exit status."""
    flags = parse_flags(argv)
    configure_logging(flags.name, flags.log_format)
    for address in (flags.link_listen, flags.grpc_listen, flags.metrics_listen):
        check_loopback(address, flags.insecure)
    if flags.no_fsync:
        log.warning("not waiting for the disk (--no-fsync): acknowledged writes can be lost")
    try:
        uvloop.run(_run(flags))
    except (DirectoryInUse, ForeignDirectory) as error:
        log.critical("cannot start: %s", error)
        return EXIT_CONFIGURATION
    except (EngineDamage, BadSnapshot, LogCorruption) as error:
        log.critical("the data directory is damaged: %s", error)
        if flags.keep_damaged:
            return EXIT_DISK
        try:
            set_aside(flags.data_dir, str(error))
        except OSError as failure:
            log.critical("cannot set the data directory aside: %s", failure)
            return EXIT_DISK
        _start_again()
    except (EngineFailure, UnknownFormat) as error:
        log.critical("cannot use the data directory: %s", error)
        return EXIT_DISK
    except OSError as error:
        log.critical("cannot start: %s", error)
        return EXIT_CONFIGURATION
    return 0


async def _run(flags: argparse.Namespace) -> None:
    directory = DataDirectory(flags.data_dir)
    reason = noted_damage(flags.data_dir)
    if reason is not None:
        if flags.keep_damaged:
            directory.close()
            raise EngineDamage(reason)
        set_aside(flags.data_dir, reason)
        directory.close()
        directory = DataDirectory(flags.data_dir)
    try:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        process = _Process(flags, directory)
        await process.start()
        await stop.wait()
        await process.stop()
    finally:
        directory.close()


class _Process:
    """One storage node process, from its parts."""

    def __init__(self, flags: argparse.Namespace, directory: DataDirectory) -> None:
        loop = asyncio.get_running_loop()
        self._flags = flags
        self._directory = directory
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._identity: Identity = directory.load_identity(
            flags.name, flags.az, secrets.token_hex(4)
        )
        self._address = ""
        self._grpc_address = ""
        self._environment = AsyncioEnvironment(loop)
        self._engine = LevelEngine(directory.engine)
        self._round = ApplyRound(self._engine, self._engine_failed)
        self._peers = Peers(
            self._identity.node_id,
            lambda address, handler: LinkDialer(address, self._hello, handler, loop),
            directory.load_peers(),
            directory.store_peers,
        )
        settings = Settings()
        self._files = FileLogStorage(
            directory.log,
            loop.call_soon_threadsafe,
            settings.log_segment_bytes,
            fsync=not flags.no_fsync,
        )
        self._log = MeasuredLog(self._files, self._environment.now)
        self._host = MultiRaftHost(
            NodeId(self._identity.node_id),
            self._environment,
            self._peers,
            self._log,
            self._round,
            settings,
            _replica_failed,
        )
        self._peers.listen(self._host)
        self._node = Node(
            self._hello,
            self._environment,
            self._engine,
            self._round,
            self._host,
            self._peers,
            lambda: time.time_ns() // 1000,
            directory.snapshots,
            fetch_snapshot,
            self._spawn,
            flags.item_collection_size_max,
        )
        self._healer = Healer(
            self._node,
            self._engine,
            self._host,
            self._peers,
            directory.snapshots,
            fetch_snapshot,
            self._spawn,
            self._engine_hopeless,
        )
        self._scrubber = Scrubber(
            self._node,
            self._engine,
            self._peers,
            GrpcDigests(),
            self._spawn,
            self._environment.now,
            flags.scrub_interval,
        )
        self._checkpoints = Checkpoints(
            self._engine, self._round, self._node.replicas.values, self._environment.now
        )
        self._bootstrap: Bootstrap | None = None
        self._client: ClusterClient | None = None
        self._grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._servers: list[asyncio.Server] = []

    def _hello(self) -> Hello:
        identity = self._identity
        return Hello(
            PROTOCOL_VERSION,
            identity.cluster_id,
            STORAGE_ROLE,
            identity.node_id,
            identity.name,
            identity.az,
            self._address,
            self._grpc_address,
        )

    def _engine_failed(self, error: EngineFailure) -> None:
        """What the engine holds is not known any more."""
        log.critical("the engine failed: %s", error)
        if isinstance(error, EngineDamage):
            self._engine_hopeless(error)
        os._exit(EXIT_DISK)

    def _engine_hopeless(self, error: EngineFailure) -> None:
        """The engine cannot be repaired from within: this disk is given up, the others have what it had."""
        log.critical("the engine cannot be used: %s", error)
        if self._flags.keep_damaged or not isinstance(error, EngineDamage):
            os._exit(EXIT_DISK)
        note_damage(self._flags.data_dir, str(error))
        _start_again()

    def _spawn(self, work: Awaitable[None]) -> None:
        """Run something beside the callbacks. What it raises is our bug: the process ends."""

        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                log.critical("background work failed", exc_info=True)
                os._exit(EXIT_FAILED)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- start ---

    async def start(self) -> None:
        """Returns once the node serves what it has; joining a cluster may take longer."""
        flags = self._flags
        self._node.recover()
        links = await self._listen_for_links(flags.link_listen)
        grpc_host, grpc_port = parse_listen(flags.grpc_listen)
        control_pb2_grpc.add_StorageControlServicer_to_server(  # type: ignore[no-untyped-call]
            ControlService(self._node, self._engine, self._peers, self._hello, self._scrubber),
            self._grpc,
        )
        grpc_port = self._grpc.add_insecure_port(format_address(grpc_host, grpc_port))
        self._address = flags.advertise or _reachable(links)
        self._grpc_address = format_address(parse_listen(self._address)[0], grpc_port)
        await self._grpc.start()
        metrics_host, metrics_port = parse_listen(flags.metrics_listen)
        REGISTRY.register(
            NodeCollector(
                self._node,
                self._engine,
                self._round,
                self._checkpoints,
                self._log,
                self._healer,
                self._scrubber,
            )
        )
        metrics = await serve_metrics(metrics_host, metrics_port, self._is_ready)
        self._servers.append(metrics)
        self._host.start()
        self._peers.start(self._address, [node.address for node in flags.initial_cluster])
        self._spawn(self._checkpoints.run())
        self._spawn(self._scrubber.run())
        if self._identity.cluster_id and CATALOG_GROUP in self._node.replicas:
            self._spawn(watch_catalog(self._node, self._peers))
            self._register()
        else:
            self._bootstrap = Bootstrap(
                self._identity,
                self._address,
                flags.initial_cluster,
                self._peers,
                self._environment,
                self._found_cluster,
            )
            self._bootstrap.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        log.info(
            "storage node listening",
            extra={
                "node": self._identity.node_id,
                "link": self._address,
                "grpc": self._grpc_address,
                "metrics": format_address(*metrics.sockets[0].getsockname()[:2]),
            },
        )

    async def _listen_for_links(self, listen: str) -> str:
        host, port = parse_listen(listen)
        server = await serve_links(host, port, self._hello, self._node, self._loop)
        self._servers.append(server)
        return format_address(*server.sockets[0].getsockname()[:2])

    def _found_cluster(self, belong: Belong) -> None:
        """We know our cluster now: remember it, and hold the catalog's replica if one is ours."""
        if self._identity.cluster_id and self._identity.cluster_id != belong.cluster_id:
            log.critical(
                "this disk belongs to another cluster",
                extra={"ours": self._identity.cluster_id, "theirs": belong.cluster_id},
            )
            os._exit(EXIT_CONFIGURATION)
        self._node.catalog = belong.replicas
        self._node.catalog_position = belong.position
        self._peers.learn(
            (
                Peer(replica.node_id, replica.node_id, replica.az, replica.address)
                for replica in belong.replicas
            ),
            hearsay=True,
        )
        if has_forgotten(self._identity, belong):
            log.error(
                "the catalog's replica is not on this disk any more: not created again. "
                "If its log was lost, empty the data directory: it returns as a new disk",
                extra={"node": self._identity.node_id, "replica": belong.replica_id},
            )
        elif belong.replica_id is not None:
            members = tuple(
                Member(ReplicaId(replica.replica_id), NodeId(replica.node_id))
                for replica in belong.replicas
            )
            start, end = CATALOG_RANGE
            state = ReplicaState(STATE_VERSION, SYSTEM_TABLE_ID, start, end, 1, feed_enabled=True)
            try:
                self._node.open_replica(
                    GroupId(CATALOG_GROUP),
                    ReplicaId(belong.replica_id),
                    Configuration(members),
                    state,
                    campaign=belong.replica_id == 1,
                )
            except (
                ReplicaRefused
            ) as error:  # moved away from here; whoever told us does not know yet
                log.warning("no replica of the catalog here", extra={"reason": str(error)})
        elif any(
            replica.node_id.rpartition(".")[0] == self._identity.name for replica in belong.replicas
        ):
            log.warning(
                "an older disk of this node had a replica of the catalog: this one begins blank",
                extra={"node": self._identity.node_id},
            )
        self._host.when_durable(lambda: self._joined(belong))

    def _joined(self, belong: Belong) -> None:
        self._spawn(watch_catalog(self._node, self._peers))
        # Only now: a node that says it belongs to a cluster must not forget its part in it.
        self._identity = msgspec.structs.replace(self._identity, cluster_id=belong.cluster_id)
        self._directory.store_identity(self._identity)
        log.info(
            "cluster founded" if belong.created else "cluster found",
            extra={"cluster": belong.cluster_id, "replica": belong.replica_id},
        )
        self._register()

    def _register(self) -> None:
        def hello() -> Hello:
            # Not in a storage node's role: this is no link for raft.
            return msgspec.structs.replace(self._hello(), role="client")

        seeds = {self._address, *(node.address for node in self._flags.initial_cluster)}
        seeds.update(replica.address for replica in self._node.catalog)
        self._client = ClusterClient(
            self._environment,
            tcp_dial(hello, self._loop),
            sorted(seeds),
            self._identity.az,
            secrets.token_bytes(8),
        )
        metrics = format_address(*self._servers[-1].sockets[0].getsockname()[:2])
        row = NodeRow(
            self._identity.node_id,
            self._identity.name,
            self._identity.az,
            self._address,
            self._grpc_address,
            format_address(parse_listen(self._address)[0], parse_listen(metrics)[1]),
            time.time_ns() // 1_000_000,
        )
        self._spawn(self._register_and_leave(self._client, row))

    async def _register_and_leave(self, client: ClusterClient, row: NodeRow) -> None:
        client.start()
        try:
            await register(client, row)
        finally:
            client.stop()

    def _is_ready(self) -> bool:
        """In the cluster, and every replica follows a leader: only then may the next node of a rolling restart
        be stopped.
        """
        return bool(self._identity.cluster_id) and all(
            replica.standing.leader is not None or not replica.standing.is_sound
            for replica in self._node.replicas.values()
        )

    # --- stop ---

    async def stop(self) -> None:
        """Hand over, refuse, make durable, close."""
        log.info("stopping")
        if self._bootstrap is not None:
            self._bootstrap.stop()
        await self._hand_over()
        self._node.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._checkpoints.take()
        await self._node.durable()
        for server in self._servers:
            server.close()
        await self._grpc.stop(0.5)
        self._peers.stop()
        self._host.stop()
        self._files.close()
        self._engine.close()
        log.info("stopped")

    async def _hand_over(self) -> None:
        """Return once nothing is led here that somebody else could lead, or time is up. Others that stop at
        the same time may hand us what they led: that is passed on too.
        """
        now = self._environment.now
        asked: dict[GroupId, float] = {}
        deadline = now() + HAND_OVER_S
        while now() < deadline:
            waits = False
            for group, replica in self._node.replicas.items():
                if not replica.standing.is_leading:
                    continue
                if now() >= asked.get(group, 0.0) + HAND_OVER_AGAIN_S:
                    if not replica.standing.group.transfer_leadership():
                        continue  # nobody is there to take it
                    asked[group] = now()
                waits = True
            if not waits:
                return
            await asyncio.sleep(HAND_OVER_POLL_S)
        log.warning("stopping while leading: nobody took over in time")


def _reachable(listening: str) -> str:
    """An address for others: that of the socket, or the machine's name when it listens on every interface."""
    host, port = parse_listen(listening)
    return format_address(socket.gethostname() if host in ("0.0.0.0", "::") else host, port)


def _start_again() -> NoReturn:
    """Become the same process anew: what was open is closed by that."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    os.execv(sys.executable, sys.orig_argv)


def _replica_failed(group: GroupId, error: BaseException) -> None:
    """A replica cannot go on from its memory. Damaged input stays damaged; anything else restarts from disk."""
    if isinstance(error, UnknownFormat):
        log.error("replica out of service: %s", error, extra={"group": group})
        return
    log.critical("a replica failed; restarting from disk", extra={"group": group})
    os._exit(EXIT_FAILED)
