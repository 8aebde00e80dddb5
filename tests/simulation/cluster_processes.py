"""The three kinds of processes, as the product assembles them. What stands in for sockets, clocks and disks is in
the modules beside this one.
"""

import errno
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry

import admin.composition
import router.composition
from proto.process import Platform
from raft.group import Settings
from raft.node_log import Corruption
from router.context import RequestContext
from storagenode.composition import EXIT_CONFIGURATION, EXIT_DISK, Disk, Options, StorageNode
from storagenode.engines.engine import EngineDamage, EngineFailure
from storagenode.joining.bootstrap import InitialNode
from storagenode.replicas.replica import Replica
from storagenode.snapshots.snapshots import BadSnapshot
from tests.simulation.cluster_disk import LogFiles, Machine, SimEngine
from tests.simulation.cluster_network import Network, SimChannel, SimGrpcServer
from tests.simulation.cluster_world import Exited, Process, World

# Small, so that a few seconds see segments freed, followers left behind and snapshots cut into pieces.
SETTINGS = Settings(log_segment_bytes=12_000, log_slack_entries=8, log_slack_bytes=3_000)
# Bytes per second: transfers take long enough to be cut.
SNAPSHOT_RATE = 4_000


REPLACE_AFTER_S = 4.0
SCRUB_INTERVAL_S = 3.0
FILES_CHECK_S = 1.0


def address(name: str) -> str:
    return f"{name}:7000"


def grpc_address(name: str) -> str:
    return f"{name}:7100"


def platform(process: Process) -> Platform:
    """What the product gets of one life of a process."""
    return Platform(
        now=process.now,
        wall_clock=process.wall_s,
        random_bytes=process.random.randbytes,
        grpc_server=lambda **_: SimGrpcServer(process.network, process),
        open_channel=lambda where, **_: SimChannel(process.network, process, where),
        registry=CollectorRegistry(),
    )


class StorageProcess(Process):
    """A storage node and its machine."""

    def __init__(self, world: World, network: Network, name: str, az: str, directory: Path) -> None:
        super().__init__(world, network, name)
        self.az = az
        self.machine = Machine(directory / name)
        self.initial: list[InitialNode] = []
        self.on_sync: Callable[[StorageProcess], None] | None = None
        self.files: LogFiles
        self.product: StorageNode
        self._is_set_aside = False
        self._stops = 0  # the life that is being ended in order

    def build(self) -> None:
        options = Options(
            name=self.name,
            az=self.az,
            link_listen=address(self.name),
            grpc_listen=grpc_address(self.name),
            metrics_listen=f"{self.name}:9100",
            initial_cluster=self.initial,
            scrub_interval_s=SCRUB_INTERVAL_S,
            snapshot_rate=SNAPSHOT_RATE,
            raft=SETTINGS,
        )
        disk = Disk(
            directory=self.machine,
            open_engine=self._open_engine,
            open_log=self._open_log,
            exit=self._exit,
            replace=self._replace,
        )
        try:
            self.product = StorageNode(options, platform(self), disk)
        except OSError:
            self._exit(EXIT_CONFIGURATION)

    def _open_engine(self) -> SimEngine:
        self.machine.engine = SimEngine(self.machine, self.at_sync, lambda: self.is_in_thread)
        return self.machine.engine

    def _open_log(self, segment_bytes: int) -> LogFiles:
        self.files = LogFiles(self, self.machine)
        return self.files

    async def begin(self) -> None:
        try:
            await self.product.start()
            self.product.watch_files(FILES_CHECK_S, FILES_CHECK_S)
        except (EngineDamage, BadSnapshot, Corruption) as error:  # as in `main`
            self._replace(str(error))
        except (EngineFailure, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.EIO:
                self._replace(str(error))
            self._exit(EXIT_DISK)
        self.network.restarted(self)

    @property
    def node_id(self) -> str:
        """Of its disk, empty while it has none yet."""
        identity = self.machine.identity
        return "" if identity is None else identity.node_id

    @property
    def has_cluster(self) -> bool:
        """Whether the disk says to which cluster it belongs."""
        identity = self.machine.identity
        return identity is not None and bool(identity.cluster_id)

    @property
    def replicas(self) -> dict[int, Replica]:
        return self.product.node.replicas if self.is_running else {}

    # the end

    def _exit(self, status: int) -> NoReturn:
        """The product ends its process by itself: only a disk gives it a reason to."""
        if not self.machine.was_full:
            self.world.violate("fatal", f"{self.name}: exit {status}")
        raise Exited(status)

    def _replace(self, reason: str) -> NoReturn:
        """The product sets its disk aside and begins again with an empty one."""
        self.world.log("SET ASIDE", self.name, reason)
        self.world.stats["disks set aside"] += 1
        if not self.machine.was_damaged:
            self.world.violate("set-aside", f"{self.name}: {reason}")
        self._is_set_aside = True
        raise Exited(0)

    def exited(self, status: int) -> None:
        super().exited(status)
        if self._is_set_aside:
            self._is_set_aside = False
            self.machine.wipe()

    def _end(self, *, machine: bool) -> None:
        self.files.crash(self.world.rng, machine=machine)
        super()._end(machine=machine)
        self.machine.engine = None
        if machine:
            self.machine.crash(self.world.rng)

    def stop_planned(self, then: Callable[[], None]) -> None:
        """SIGTERM: everything in order, then gone."""
        if not self.is_running or self._stops == self.life:
            return
        self._stops = self.life
        self.world.log("STOP", self.name)
        self.world.stats["planned stops"] += 1
        life = self.life

        async def stop() -> None:
            try:
                await self.product.stop()
            except EngineFailure:  # as in `main`
                self._exit(EXIT_DISK)
            # (Its own turn is still running.)
            self.world.after(0.0, gone)

        def gone() -> None:
            if self.life == life:
                super(StorageProcess, self)._end(machine=False)
                self.machine.engine = None
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


class RouterProcess(Process):
    """A router, entered at its dispatcher."""

    def __init__(
        self, world: World, network: Network, name: str, az: str, seeds: list[str]
    ) -> None:
        super().__init__(world, network, name)
        self.options = router.composition.Options(
            name=name, az=az, catalog=seeds, region="us-east-1", account_id="000000000000"
        )
        self.product: router.composition.Router

    def build(self) -> None:
        self.product = router.composition.Router(self.options, platform(self))
        self._requests = 0
        self._open: dict[RequestContext, Callable[[int, dict[str, Any]], None]] = {}

    async def begin(self) -> None:
        self.product.start()

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
        self.post(lambda: self.product.dispatch(operation, body, context, reply))


class AdminProcess(Process):
    """An admin: jobs, lease, repair and balance."""

    def __init__(self, world: World, network: Network, name: str, seeds: list[str]) -> None:
        super().__init__(world, network, name)
        self.options = admin.composition.Options(
            name=name,
            grpc_listen=grpc_address(name),
            catalog=seeds,
            region="us-east-1",
            account_id="000000000000",
            replace_after_s=REPLACE_AFTER_S,
        )
        self.product: admin.composition.Admin

    def build(self) -> None:
        self.product = admin.composition.Admin(self.options, platform(self))

    async def begin(self) -> None:
        await self.product.start()
        await self.product.run()
