"""One whole run of a simulated cluster: a table, clients, faults, recovery, and what must hold in the end."""

import gc
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import admin.balance
import admin.repair
import storagenode.healing
import storagenode.replicas.change_feed
import storagenode.replicas.checkpoints
import storagenode.replicas.replica
import storagenode.scrubbing
import storagenode.snapshots.snapshot_sending
import storagenode.snapshots.snapshots
from datamodel.catalog_rows import CATALOG_GROUP
from router.context import REQUEST_TIMEOUT_S
from tests.simulation.cluster_checks import Checker, check_histories
from tests.simulation.cluster_clients import COUNTERS, REGISTERS, Clients, definition
from tests.simulation.cluster_disk import DiskPath
from tests.simulation.cluster_faults import Fate
from tests.simulation.cluster_processes import RouterProcess
from tests.simulation.cluster_walks import TABLE
from tests.simulation.cluster_world import BadNews, World
from tests.simulation.clusters import Cluster

FAULTS_S = 8.0
RECOVERY_S = 60.0
REPAIR_S = 40.0
"""Within this time what is wrong with one disk is found and repaired, when nothing else is."""
# Bounds made small, so that seconds of simulated life reach them: each is (module, name, value).
SMALL = (
    (storagenode.snapshots.snapshot_sending, "CHUNK_BYTES", 400),
    (storagenode.snapshots.snapshots, "INSTALL_BATCH_BYTES", 700),
    (storagenode.snapshots.snapshots, "DELETE_BATCH_KEYS", 3),
    (storagenode.replicas.replica, "CATCH_UP_BYTES", 300),
    (storagenode.replicas.checkpoints, "CHECKPOINT_BYTES", 4_000),
    (storagenode.replicas.checkpoints, "CHECKPOINT_IDLE_S", 1.0),
    (storagenode.replicas.checkpoints, "LOOK_INTERVAL_S", 0.2),
    (storagenode.replicas.change_feed, "RECORDS_KEPT", 12),
    (storagenode.replicas.replica, "RECORDS_KEPT", 12),
    (storagenode.scrubbing, "STEP_RECORDS", 3),
    (storagenode.scrubbing, "POLL_S", 0.2),
    (storagenode.scrubbing, "PATIENCE_S", 4.0),
    (storagenode.healing, "RETRY_S", 0.3),
    (admin.repair, "INTERVAL_S", 2.0),
    (admin.balance, "INTERVAL_S", 1.5),
)


@contextmanager
def small_bounds() -> Iterator[None]:
    with ExitStack() as stack:
        for module, name, value in SMALL:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


class Run:
    """One seed."""

    def __init__(self, world: World, directory: Path, news: BadNews) -> None:
        self.world = world
        self.cluster = Cluster(world, directory)
        self._has_indexes = world.rng.random() < 0.7
        self.clients = Clients(world, self.cluster.routers, has_indexes=self._has_indexes)
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
        members = definition(TABLE, rng.choice((1, 2, 3)), has_indexes=self._has_indexes)
        router = rng.choice(self.cluster.routers)
        router.call("CreateTable", members, lambda *answer: self._answered("CreateTable", *answer))
        router.call(
            "DescribeTable",
            {"TableName": TABLE},
            lambda *answer: self._answered("DescribeTable", *answer),
        )
        if not self._is_table_active:
            self.world.after(0.5, self._create_table)

    def _other_tables(self) -> None:
        """Somebody creates and deletes another table again and again."""
        rng = self.world.rng
        if self.fate.is_on:
            members = definition("others", rng.choice((1, 2)), has_indexes=self._has_indexes)
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
        self._converge(deadline)
        are_left = self.clients.give_up()
        check_histories(world, self.clients.histories)
        self.clients.sessions.check(self.clients.histories)
        if world.rng.random() < 0.4:
            if (
                are_left
            ):  # routers go on with what nobody waits for; it must not meet what is broken now
                world.run(world.now + REQUEST_TIMEOUT_S + 1.0)
            self._break_one()

    def _converge(self, deadline: float) -> None:
        world = self.world
        while reason := self._difference():
            if world.now > deadline:
                world.violate("not-converged", reason)
            world.run(world.now + 0.5)

    def _break_one(self) -> None:
        """Whatever happens to one disk, when nothing else is wrong, is found and repaired: also what is sound in
        itself, and only not what the other replicas have.
        """
        world, rng = self.world, self.world.rng
        choices = [
            (node, replica)
            for node in self.cluster.nodes
            for replica in node.replicas.values()
            if replica.item_count and replica.group_id != CATALOG_GROUP
        ]
        node, replica = rng.choice(choices)
        machine = node.machine
        draw = rng.random()
        if draw < 0.5:
            what = "false " + machine.falsify(rng, replica.start, replica.end)
        elif draw < 0.8:
            damage = rng.choice((machine.flip_record, machine.lose_block, machine.flip_log))
            what = damage(rng)
        else:
            node.end(machine=True)
            machine.wipe()
            world.after(1.0, node.restart)
            what = "wipe"
        world.log("DAMAGE", node.name, what)
        world.stats[f"damage in the end: {what.partition(' ')[0]}"] += 1
        world.has_broken_disks = True
        self._converge(world.now + REPAIR_S)

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
        DiskPath.machines.clear()
        collect()
    return world


def collect() -> None:
    """Let go of the dead: some of what they had begun never had its turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gc.collect()
