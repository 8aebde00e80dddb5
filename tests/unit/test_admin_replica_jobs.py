"""Moving replicas, against a catalog and storage nodes in memory; interrupted after every call."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from admin.jobs import JobMetrics, JobRunner
from admin.lost_disks import LostReplica, choose_target, is_superseded
from admin.placement import Candidate
from admin.repair import Repair
from admin.replica_jobs import ReplicaJobs, new_job
from datamodel.catalog_rows import NodeRow, PartitionRow, ReplicaRow, partition_key
from datamodel.key_encoding import KeySchema, table_range
from datamodel.table_descriptions import TableDescription
from proto import control_pb2
from proto.catalog_client import CatalogClient
from raft.membership import voters_of
from tests.unit.admin_fakes import NODES, FakeNodes, catalog_replicas
from tests.unit.catalog_fakes import FakeCluster

TABLE = TableDescription(
    name="orders",
    table_id=256,
    uuid="u",
    status="ACTIVE",
    key_schema=KeySchema("pk", "S"),
    attribute_definitions=(("pk", "S"),),
    billing_mode="PAY_PER_REQUEST",
    created_ms=1,
    tags=(),
    warm_read_units=12_000,
    warm_write_units=4_000,
)
OLD_NODES = [node.node_id for node in NODES]
ROW = PartitionRow(
    9, 256, *table_range(256), 1, tuple(ReplicaRow(i, n) for i, n in enumerate(OLD_NODES, 1))
)
NEW = NodeRow("n2.new", "n2", "az2", "h:2", "g:2", started_ms=2)


def members(*pairs):
    return {i: control_pb2.Replica(replica_id=i, node_id=n) for i, n in pairs}


class World:
    def __init__(self, cluster, catalog, replace_after_s=600.0):
        self.cluster, self.catalog = cluster, catalog
        self.nodes = FakeNodes(cluster)
        self.time = 0.0
        self.repair = Repair(
            catalog,
            self.nodes,
            lambda: True,
            CollectorRegistry(),
            replace_after_s=replace_after_s,
            now=lambda: self.time,
        )
        for group in (0, 9):
            self.nodes.lead(group, members(*enumerate(OLD_NODES, 1)), "n1.disk")

    def runner(self):
        return JobRunner(
            self.catalog,
            ReplicaJobs(self.catalog, self.nodes).handlers(),
            JobMetrics(CollectorRegistry()),
        )

    def lose(self, node_id="n2.disk", new=NEW):
        """A data directory is emptied and its node started again."""
        del self.nodes.replicas[node_id]
        self.cluster.put(new)

    def row(self):
        return self.cluster.row(partition_key(256, 9))

    def homes(self, group):
        return {int(m.replica_id): m.node_id for m in self.nodes.members[group].members}

    async def until(self, holds):
        assert await self.catalog.wait_for(holds, 8)


def run(scenario, **options):
    async def wrapped():
        cluster = FakeCluster([*NODES, TABLE, ROW])
        cluster.groups[0] = list(catalog_replicas())
        catalog = CatalogClient(cluster)
        world = World(cluster, catalog, **options)
        catalog.start()
        try:
            async with asyncio.timeout(20):
                await catalog.ready()
                await scenario(world)
        finally:
            await catalog.stop()

    asyncio.run(wrapped())


def check_history(world, group):
    """Never fewer than three voters; each step changes one member."""
    for configuration in world.nodes.history[group]:
        assert len(voters_of(configuration)) >= 3


def test_a_lost_disk_is_replaced_in_all_groups_the_catalogs_included():
    async def scenario(world):
        runner = world.runner()
        world.lose()
        await world.until(lambda view: "n2.new" in view.nodes)
        runner.act(True)
        await world.repair.make_pass()
        await world.until(lambda view: not view.jobs)
        for group in (0, 9):
            assert sorted(world.homes(group).values()) == ["n1.disk", "n2.new", "n3.disk"]
            check_history(world, group)
            assert world.nodes.replicas["n2.new"][group].replica_id >= 1000
        row = world.row()
        assert {r.replica_id: r.node_id for r in row.replicas} == world.homes(9)
        assert row.epoch > ROW.epoch
        await world.repair.make_pass()
        assert not world.catalog.view.jobs
        await runner.stop()

    run(scenario)


@pytest.mark.parametrize("calls", range(14))
def test_an_admin_that_dies_after_any_call_is_followed_by_one_that_goes_on(calls):
    async def scenario(world):
        world.lose()
        world.nodes.lose_changes = 1
        await world.until(lambda view: "n2.new" in view.nodes)
        world.cluster.put(new_job(LostReplica(9, 2, "n2.disk"), 256, 1000, "n2.new"))
        first = world.runner()
        made = []

        def count(request):
            made.append(request)
            if len(made) == calls:
                first.act(False)

        world.cluster.on_request = count
        await world.until(lambda view: view.jobs)
        first.act(True)
        for _ in range(300):
            await asyncio.sleep(0)
        await first.stop()
        world.cluster.on_request = lambda request: None
        second = world.runner()
        second.act(True)
        await world.until(lambda view: not view.jobs)
        assert world.homes(9) == {1: "n1.disk", 3: "n3.disk", 1000: "n2.new"}
        assert {r.replica_id: r.node_id for r in world.row().replicas} == world.homes(9)
        check_history(world, 9)
        await second.stop()

    run(scenario)


def test_a_leader_hands_over_before_it_goes_and_its_replica_is_closed():
    async def scenario(world):
        world.cluster.put(NodeRow("n4.disk", "n4", "az1", "h:4", "g:4", started_ms=1))
        await world.until(lambda view: "n4.disk" in view.nodes)
        world.cluster.put(new_job(LostReplica(9, 1, "n1.disk"), 256, 1000, "n4.disk"))
        runner = world.runner()
        runner.act(True)
        await world.until(lambda view: view.jobs)
        await world.until(lambda view: not view.jobs)
        assert ("transfer", "n1.disk", 9) in world.nodes.calls
        assert 9 not in world.nodes.replicas["n1.disk"]
        assert world.homes(9) == {2: "n2.disk", 3: "n3.disk", 1000: "n4.disk"}
        await runner.stop()

    run(scenario)


def test_who_lags_is_not_promoted():
    async def scenario(world):
        world.lose()
        world.nodes.level = 100
        await world.until(lambda view: "n2.new" in view.nodes)
        world.cluster.put(new_job(LostReplica(9, 2, "n2.disk"), 256, 1000, "n2.new"))
        runner = world.runner()
        runner.act(True)
        await world.until(lambda view: any(j.step == "catch_up" for j in view.jobs.values()))
        await asyncio.sleep(0.3)
        assert [m.replica_id for m in world.nodes.members[9].members if m.is_learner] == [1000]
        assert world.row() == ROW, "routers are not sent to a replica that lags"
        world.nodes.level = 4_900
        await world.until(lambda view: not view.jobs)
        await runner.stop()

    run(scenario)


def test_a_target_that_is_lost_too_is_given_up():
    async def scenario(world):
        world.lose()
        world.nodes.level = 0
        await world.until(lambda view: "n2.new" in view.nodes)
        runner = world.runner()
        runner.act(True)
        await world.repair.make_pass()
        await world.until(lambda view: all(j.step == "catch_up" for j in view.jobs.values()))
        world.lose("n2.new", NodeRow("n2.newer", "n2", "az2", "h:2", "g:2", started_ms=3))
        await world.until(lambda view: not view.jobs)
        assert world.homes(9) == dict(enumerate(OLD_NODES, 1))
        world.nodes.level = 5_000
        await world.repair.make_pass()
        await world.until(lambda view: not view.jobs)
        assert sorted(world.homes(9).values()) == ["n1.disk", "n2.newer", "n3.disk"]
        await runner.stop()

    run(scenario)


def test_a_table_that_is_deleted_meanwhile_ends_the_job():
    async def scenario(world):
        world.cluster.put(new_job(LostReplica(9, 2, "n2.disk"), 256, 1000, "n3.disk"))
        world.cluster.remove(ROW)
        runner = world.runner()
        runner.act(True)
        await world.until(lambda view: view.jobs)
        await world.until(lambda view: not view.jobs)
        await runner.stop()

    run(scenario)


def test_a_silent_node_is_replaced_after_a_while_and_never_when_most_are_silent():
    async def scenario(world):
        world.cluster.put(NodeRow("n4.disk", "n4", "az2", "h:4", "g:4", started_ms=1))
        await world.until(lambda view: "n4.disk" in view.nodes)
        world.nodes.down.add("n2.disk")
        await world.repair.make_pass()
        world.time = 59.0
        await world.repair.make_pass()
        assert not world.catalog.view.jobs
        world.nodes.down |= {"n3.disk", "n4.disk"}
        world.time = 200.0
        await world.repair.make_pass()
        assert not world.catalog.view.jobs, "it is this admin that is cut off"
        world.nodes.down -= {"n3.disk", "n4.disk"}
        await world.repair.make_pass()
        targets = {job.args["target"] for job in world.catalog.view.jobs.values()}
        assert targets == {"n4.disk"}

    run(scenario, replace_after_s=60.0)


def test_what_moved_away_while_its_node_was_silent_is_closed_when_it_is_back():
    async def scenario(world):
        moved = replace(
            ROW,
            replicas=(ReplicaRow(1, "n1.disk"), ReplicaRow(3, "n3.disk"), ReplicaRow(1000, "n4")),
            epoch=3,
            version=2,
        )
        world.cluster.put(moved)
        await world.until(lambda view: view.group(9).version == 2)
        world.nodes.lead(0, members((1, "n1.disk"), (3, "n3.disk"), (1001, "n2.disk")), "n1.disk")
        world.nodes.replicas["n2.disk"][0].replica_id = 2  # the one that was removed
        await world.repair.make_pass()
        assert world.nodes.replicas["n2.disk"] == {}
        assert 9 in world.nodes.replicas["n1.disk"]

    run(scenario)


def test_a_replica_that_came_later_is_opened_blank_where_it_is_missing():
    async def scenario(world):
        del world.nodes.replicas["n2.disk"][9]
        world.cluster.put(replace(ROW, epoch=2, version=2))
        await world.until(lambda view: view.group(9).version == 2)
        await world.repair.make_pass()
        assert ("join", "n2.disk", 9) in world.nodes.calls
        assert not any(call[0] == "open" for call in world.nodes.calls)

    run(scenario)


@pytest.mark.parametrize(
    ("loads", "target"),
    [
        ({"new2": ("az2", 5), "n4": ("az1", 0)}, "new2"),  # zones first
        ({"n5": ("az2", 5), "n6": ("az2", 3)}, "n6"),  # then load
        ({}, None),
    ],
)
def test_the_target_is_where_the_lost_replica_is_missed_most(loads, target):
    candidates = [Candidate("n1", "az1"), Candidate("n3", "az3")]
    candidates += [Candidate(name, az, load) for name, (az, load) in loads.items()]
    candidates.append(Candidate("dead", "az2", 0, is_live=False))
    chosen = choose_target({1: "n1", 2: "n2", 3: "n3"}, LostReplica(9, 2, "n2"), candidates)
    assert chosen == target


def test_a_disk_is_superseded_by_a_newer_one_of_its_node_only():
    async def scenario(world):
        world.cluster.put(NEW)
        await world.until(lambda view: "n2.new" in view.nodes)
        view = world.catalog.view
        assert is_superseded(view, "n2.disk")
        assert is_superseded(view, "n2.neverseen")
        assert not is_superseded(view, "n2.new")
        assert not is_superseded(view, "n1.disk")
        assert not is_superseded(view, "n7.unknown")

    run(scenario)
