"""The fate of a simulated cluster, and one whole run of it."""

import gc
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import admin.repair
import storagenode.change_feed
import storagenode.checkpoints
import storagenode.replica
import storagenode.snapshots
from datamodel.catalog_rows import CATALOG_GROUP
from storagenode.bootstrap import InitialNode
from tests.simulation.cluster_checks import Checker, check_histories
from tests.simulation.cluster_clients import COUNTERS, REGISTERS, TABLE, Clients
from tests.simulation.cluster_network import Network
from tests.simulation.cluster_processes import (
    AdminProcess,
    RouterProcess,
    StorageProcess,
    address,
)
from tests.simulation.cluster_world import BadNews, Process, World

FAULTS_S = 8.0
RECOVERY_S = 40.0
# Bounds made small, so that seconds of simulated life reach them: each is (module, name, value).
SMALL = (
    (storagenode.snapshots, "CHUNK_BYTES", 400),
    (storagenode.snapshots, "INSTALL_BATCH_BYTES", 700),
    (storagenode.snapshots, "DELETE_BATCH_KEYS", 3),
    (storagenode.checkpoints, "CHECKPOINT_BYTES", 4_000),
    (storagenode.checkpoints, "CHECKPOINT_IDLE_S", 1.0),
    (storagenode.checkpoints, "LOOK_INTERVAL_S", 0.2),
    (storagenode.change_feed, "RECORDS_KEPT", 12),
    (storagenode.replica, "RECORDS_KEPT", 12),
    (admin.repair, "INTERVAL_S", 2.0),
)


@contextmanager
def small_bounds() -> Iterator[None]:
    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


class Cluster:
    """The processes of a run."""

    def __init__(self, world: World, directory: Path) -> None:
        rng = world.rng
        self.world = world
        self.network = network = Network(world)
        count = rng.choice((3, 3, 3, 4, 5))
        self.nodes = [
            StorageProcess(world, network, f"s{n}", f"az{n % 3}", directory) for n in range(count)
        ]
        initial = [InitialNode(n.name, n.az, address(n.name)) for n in self.nodes]
        for node in self.nodes:
            node.initial = initial
        seeds = [node.address for node in initial]
        self.routers = [RouterProcess(world, network, f"r{n}", f"az{n}", seeds) for n in range(2)]
        self.admins = [
            AdminProcess(world, network, f"m{n}", seeds) for n in range(rng.choice((1, 2)))
        ]
        self.processes: list[Process] = [*self.nodes, *self.routers, *self.admins]
        for process in self.processes:
            world.after(0.3 * rng.random(), self.restart, process)

    def restart(self, process: Process) -> None:
        if not process.is_running:
            process.start()


class Fate:
    """Faults, each kind at a rate of this seed's own, until told to end."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self.is_on = True

    def begin(self) -> None:
        rng = self._world.rng
        for rate, action in (
            (0.8, self._block),
            (0.5, self._isolate),
            (1.0, self._reset),
            (0.5, self._kill),
            (0.4, self._crash),
            (0.1, self._crash_many),
            (0.6, self._pause),
            (0.4, self._slow_disk),
            (0.4, self._jump),
            (0.3, self._stop),
        ):
            # Some kinds not at all, some often: what masks what differs from seed to seed.
            self._repeat(rate * rng.choice((0, 0.5, 1, 1, 2)), action)
        self._sync_crashes = rng.choice((0, 0, 0.05, 0.3))
        for node in self._cluster.nodes:
            node.on_sync = self._at_sync

    def _at_sync(self, node: StorageProcess) -> None:
        """A crash just behind a sync of the engine finds steps half done."""
        world, rng = self._world, self._world.rng
        if not self.is_on or rng.random() >= self._sync_crashes:
            return
        life, machine = node.life, rng.random() < 0.6

        def crash() -> None:
            if node.life == life and self.is_on:
                node.end(machine=machine)
                self._later(node)

        world.after(rng.choice((0.0005, 0.005, 0.05)) * rng.random(), crash)

    def _repeat(self, rate: float, action: Callable[[], None]) -> None:
        world = self._world

        def again() -> None:
            if self.is_on:
                action()
                world.after(world.rng.expovariate(rate), again)

        if rate > 0:
            world.after(world.rng.expovariate(rate), again)

    def end(self) -> None:
        """All faults end; whatever is down starts."""
        self.is_on = False
        self._world.log("HEAL")
        self._cluster.network.heal()
        for process in self._cluster.processes:
            process.paused_until = process.slow_until = 0.0
            process.arm()
            self._cluster.restart(process)

    def _any(self, processes: list[Any] | None = None) -> Any:
        return self._world.rng.choice(processes or self._cluster.processes)

    def _node(self) -> StorageProcess:
        """A storage node, one that leads something more often than not."""
        rng = self._world.rng
        leaders = [
            node
            for node in self._cluster.nodes
            if any(replica.standing.is_leading for replica in node.replicas.values())
        ]
        return rng.choice(leaders if leaders and rng.random() < 0.6 else self._cluster.nodes)

    def _later(self, process: Process) -> None:
        rng = self._world.rng
        delay = rng.choice((0.05, 0.5, 3.0)) * (0.1 + rng.random())
        self._world.after(delay, self._cluster.restart, process)

    def _block(self) -> None:
        rng, network = self._world.rng, self._cluster.network
        a, b = self._node(), self._any()
        if a is b:
            return
        duration = rng.choice((0.2, 1.0, 4.0)) * rng.random()
        if rng.random() < 0.7:
            network.block(a, b, duration)
        if rng.random() < 0.6:
            network.block(b, a, duration)

    def _isolate(self) -> None:
        rng, network = self._world.rng, self._cluster.network
        a = self._node() if rng.random() < 0.8 else self._any()
        duration = 0.2 + 3 * rng.random()
        both, only_nodes = rng.random() < 0.6, rng.random() < 0.4
        inward = rng.random() < 0.5
        for b in self._cluster.nodes if only_nodes else self._cluster.processes:
            if b is not a:
                if both or inward:
                    network.block(b, a, duration)
                if both or not inward:
                    network.block(a, b, duration)

    def _reset(self) -> None:
        a, b = self._node(), self._any()
        if a is not b:
            self._cluster.network.reset(a, b)

    def _kill(self) -> None:
        process = self._node() if self._world.rng.random() < 0.6 else self._any()
        process.end(machine=False)
        self._later(process)

    def _crash(self) -> None:
        process = self._node()
        process.end(machine=True)
        self._later(process)

    def _crash_many(self) -> None:
        rng = self._world.rng
        for process in self._cluster.nodes:
            if rng.random() < 0.75:
                process.end(machine=rng.random() < 0.8)
                self._later(process)

    def _pause(self) -> None:
        rng = self._world.rng
        process = self._node() if rng.random() < 0.7 else self._any()
        process.pause(rng.choice((0.2, 1.5, 5.0)) * rng.random())

    def _slow_disk(self) -> None:
        node, rng = self._node(), self._world.rng
        node.slow_until = self._world.now + 3 * rng.random()
        self._world.log("SLOW DISK", node.name)
        self._world.stats["slow disks"] += 1

    def _jump(self) -> None:
        """The wall clock is set: by a little as by NTP, or by a lot as by hand."""
        node, rng = self._node(), self._world.rng
        jump = rng.choice((0.1, 3.0, 100.0)) * (2 * rng.random() - 1)
        node.wall_offset_s += jump
        self._world.log("WALL CLOCK", node.name, f"{jump:+.3f}")
        self._world.stats["clock jumps"] += 1

    def _stop(self) -> None:
        process = self._node()
        process.stop_planned(lambda: self._later(process))


class Run:
    """One seed."""

    def __init__(self, world: World, directory: Path, news: BadNews) -> None:
        self.world = world
        self.cluster = Cluster(world, directory)
        self.clients = Clients(world, self.cluster.routers)
        self.fate = Fate(self.cluster)
        self.checker = Checker(world, self.cluster.nodes, news)
        self._is_table_active = False

    def play(self) -> None:
        world, rng = self.world, self.world.rng
        is_rough_start = rng.random() < 0.3
        world.after(0.5, self._create_table)
        if rng.random() < 0.3:
            world.after(3.0, self._other_tables)
        if is_rough_start:
            self.fate.begin()
        elif not world.run(20.0, lambda: self._is_table_active):
            world.violate("no-table", "after 20 s without faults")
        else:
            self.fate.begin()
        world.run(world.now + FAULTS_S * (0.6 + 0.6 * rng.random()))
        self.fate.end()
        self._recover()

    # the table

    def _create_table(self) -> None:
        rng = self.world.rng
        members = self._definition(rng.choice((1, 2, 3)))
        router = rng.choice(self.cluster.routers)
        router.call("CreateTable", members, lambda *answer: self._answered("CreateTable", *answer))
        router.call(
            "DescribeTable",
            {"TableName": TABLE},
            lambda *answer: self._answered("DescribeTable", *answer),
        )
        if not self._is_table_active:
            self.world.after(0.5, self._create_table)

    def _definition(self, partitions: int) -> dict[str, Any]:
        return {
            "TableName": TABLE,
            "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            "Tags": [{"Key": "quorate:partitions", "Value": str(partitions)}],
        }

    def _other_tables(self) -> None:
        """Somebody creates and deletes another table again and again."""
        rng = self.world.rng
        if self.fate.is_on:
            members = {**self._definition(rng.choice((1, 2))), "TableName": "others"}
            operation = rng.choice(("CreateTable", "DeleteTable"))
            if operation == "DeleteTable":
                members = {"TableName": "others"}
            rng.choice(self.cluster.routers).call(
                operation, members, lambda *answer: self._answered(operation, *answer)
            )
            self.world.after(rng.expovariate(1.0), self._other_tables)

    def _answered(self, operation: str, status: int, body: dict[str, Any]) -> None:
        code = str(body.get("__type", "")).rpartition("#")[2]
        self.world.log("TABLE", operation, status, code)
        if status == 200:
            table = body.get("Table") or body["TableDescription"]
            is_ours = table["TableName"] == TABLE
            if is_ours and table["TableStatus"] == "ACTIVE" and not self._is_table_active:
                self._is_table_active = True
                self.clients.begin(4)
        elif status and code not in (
            "ResourceInUseException",
            "ResourceNotFoundException",
            "ServiceUnavailable",
            "InternalServerError",
        ):
            self.world.violate("answer", (operation, status, body))

    # the end

    def _recover(self) -> None:
        world = self.world
        deadline = world.now + RECOVERY_S
        if not world.run(deadline, lambda: self._is_table_active):
            world.violate("no-table", "after healing")
        world.run(world.now + 1.5)
        self.clients.is_on = False
        served: set[tuple[str, str]] = set()
        for router in self.cluster.routers:
            for key in REGISTERS + COUNTERS:
                self._serve(router, key, served)
        expected = len(self.cluster.routers) * len(REGISTERS + COUNTERS)
        if not world.run(deadline, lambda: len(served) == expected):
            world.violate("not-served", f"{len(served)} of {expected}")
        # Calls that were under way when faults ended.
        world.run(world.now + 0.5)
        while reason := self._difference():
            if world.now > deadline:
                world.violate("not-converged", reason)
            world.run(world.now + 0.5)
        self.clients.give_up()
        check_histories(world, self.clients.histories)

    def _serve(self, router: RouterProcess, key: str, served: set[tuple[str, str]]) -> None:
        kinds = iter(("add" if key in COUNTERS else "write", "read", "glance"))
        kind = next(kinds)

        def done(ok: bool) -> None:
            nonlocal kind
            if ok:
                kind = next(kinds, "")
            if kind:
                self.world.after(0.05, self.clients.perform, router, kind, key, done)
            else:
                served.add((router.name, key))

        self.clients.perform(router, kind, key, done)

    def _difference(self) -> str:
        view = self.cluster.routers[0].product.catalog.view
        if view.jobs or any(table.status != "ACTIVE" for table in view.tables.values()):
            return f"jobs {sorted(view.jobs)}"
        expected = {p.group: {r.node_id for r in p.replicas} for p in view.groups()}
        catalog = self.cluster.routers[0].product.client.replicas(CATALOG_GROUP)
        expected[CATALOG_GROUP] = {replica.node_id for replica in catalog}
        return self.checker.differences(expected)


def simulate(seed: int, *, is_tracing: bool = False) -> World:
    """One run; what it raises carries the world as `.world`."""
    world = World(seed, is_tracing=is_tracing)
    directory = Path(tempfile.mkdtemp(prefix="quorate-simulation-"))
    try:
        with BadNews(world) as news, small_bounds():
            Run(world, directory, news).play()
    except Exception as error:
        error.world = world  # type: ignore[attr-defined]
        raise
    finally:
        world.end()
        shutil.rmtree(directory, ignore_errors=True)
        collect()
    return world


def collect() -> None:
    """Let go of the dead: some of what they had begun never had its turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
