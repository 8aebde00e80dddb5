"""Jobs on tables and the repair pass, against a catalog and storage nodes in memory."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from admin.jobs import JobMetrics, JobRunner
from admin.repair import REPLACEMENTS_MAX, Repair, compare
from admin.table_jobs import TableJobs
from datamodel.catalog_rows import (
    NEXT_GROUP_ID,
    JobRow,
    NodeRow,
    PartitionRow,
    ReplicaRow,
    SettingRow,
    job_key,
    setting_key,
    table_key,
)
from datamodel.key_encoding import KeySchema, table_range
from datamodel.table_descriptions import TableDescription
from proto.catalog_client import CatalogClient
from tests.unit.admin_fakes import NODES, FakeNodes, catalog_replicas
from tests.unit.catalog_fakes import FakeCluster

TABLE = TableDescription(
    name="orders",
    table_id=256,
    uuid="u",
    status="CREATING",
    key_schema=KeySchema("pk", "S"),
    attribute_definitions=(("pk", "S"),),
    billing_mode="PAY_PER_REQUEST",
    created_ms=1,
    tags=(("quorate:partitions", "6"),),
    warm_read_units=12_000,
    warm_write_units=4_000,
)
CREATE = JobRow("create-table-256", "create_table", "place", "orders", 256, 1)
DELETE = JobRow("delete-table-256", "delete_table", "close", "orders", 256, 1)


def is_active(view):
    return "orders" in view.tables and view.tables["orders"].status == "ACTIVE"


class Control:
    """A control plane's parts over fakes."""

    def __init__(self, cluster, catalog):
        self.cluster = cluster
        self.catalog = catalog
        self.nodes = FakeNodes(cluster)
        self.registry = CollectorRegistry()
        self.runner = self.new_runner()
        self.repair = Repair(catalog, self.nodes, lambda: True, self.registry)

    def new_runner(self):
        jobs = TableJobs(self.catalog, self.cluster, self.nodes)
        return JobRunner(self.catalog, jobs.handlers(), JobMetrics(CollectorRegistry()))

    def ask(self, *rows):
        for row in rows:
            self.cluster.put(row)

    async def until(self, holds, timeout_s=8):
        assert await self.catalog.wait_for(holds, timeout_s)

    async def created(self):
        self.ask(TABLE, CREATE)
        await self.until(lambda view: not view.jobs and is_active(view))


def run(scenario, nodes=NODES):
    async def wrapped():
        cluster = FakeCluster(nodes)
        cluster.groups[0] = list(catalog_replicas())
        catalog = CatalogClient(cluster)
        control = Control(cluster, catalog)
        catalog.start()
        try:
            async with asyncio.timeout(15):
                await catalog.ready()
                control.runner.act(True)
                await scenario(control)
        finally:
            await control.runner.stop()
            await catalog.stop()

    asyncio.run(wrapped())


def test_a_table_is_created_with_replicas_in_each_zone_and_leaders_on_all_nodes():
    async def scenario(control):
        await control.created()
        rows = control.catalog.view.partitions(256)
        assert len(rows) == 6
        assert rows.is_whole(*table_range(256))
        assert sorted(row.group for row in rows) == [1, 2, 3, 4, 5, 6]
        for row in rows:
            assert {replica.node_id for replica in row.replicas} == {n.node_id for n in NODES}
            assert sorted(replica.replica_id for replica in row.replicas) == [1, 2, 3]
            for replica in row.replicas:
                assert (
                    control.nodes.replicas[replica.node_id][row.group].replica_id
                    == replica.replica_id
                )
        leaders = Counter(node for _, node in control.nodes.campaigns)
        assert leaders == {node.node_id: 2 for node in NODES}
        assert control.cluster.row(setting_key(NEXT_GROUP_ID)) == SettingRow(
            NEXT_GROUP_ID, {"value": 7}
        )
        await asyncio.sleep(0.01)
        assert not control.runner.running

    run(scenario)


def test_the_one_that_stands_for_election_opens_last():
    async def scenario(control):
        await control.created()
        opens = [(group, node) for what, node, group in control.nodes.calls if what == "open"]
        for group, first in control.nodes.campaigns:
            assert [node for g, node in opens if g == group][-1] == first

    run(scenario)


def test_group_numbers_go_on_where_they_were():
    async def scenario(control):
        control.cluster.put(SettingRow(NEXT_GROUP_ID, {"value": 40}, 9))
        await control.created()
        assert min(row.group for row in control.catalog.view.partitions(256)) == 40
        assert control.cluster.row(setting_key(NEXT_GROUP_ID)).values == {"value": 46}

    run(scenario)


def test_a_node_that_is_down_does_not_hold_up_a_table_and_is_repaired_later():
    async def scenario(control):
        control.nodes.down = {"n2.disk"}
        await control.created()
        assert "n2.disk" not in {node for _, node in control.nodes.campaigns}
        await control.repair.make_pass()
        assert "n2.disk" not in control.nodes.replicas
        control.nodes.down = set()
        await control.repair.make_pass()
        assert sorted(control.nodes.replicas["n2.disk"]) == [1, 2, 3, 4, 5, 6]
        ids = {
            row.group: replica.replica_id
            for row in control.catalog.view.partitions(256)
            for replica in row.replicas
            if replica.node_id == "n2.disk"
        }
        opened = control.nodes.replicas["n2.disk"]
        assert {group: status.replica_id for group, status in opened.items()} == ids

    run(scenario)


def test_without_a_majority_a_table_waits():
    async def scenario(control):
        control.nodes.down = {"n1.disk", "n2.disk"}
        control.ask(TABLE, CREATE)
        await control.until(lambda view: len(view.partitions(256)) == 6)
        await asyncio.sleep(0.3)
        assert control.catalog.view.tables["orders"].status == "CREATING"
        control.nodes.down = set()
        await control.until(is_active)

    run(scenario)


def test_a_node_that_has_not_registered_counts():
    async def scenario(control):
        await control.created()
        for row in control.catalog.view.partitions(256):
            assert {replica.node_id for replica in row.replicas} == {n.node_id for n in NODES}
        assert "n3.disk" not in control.nodes.replicas
        control.cluster.put(NODES[2])
        await control.until(lambda view: "n3.disk" in view.nodes)
        await control.repair.make_pass()
        assert len(control.nodes.replicas["n3.disk"]) == 6

    run(scenario, NODES[:2])


@pytest.mark.parametrize("lost", range(1, 3))
def test_a_step_whose_outcome_was_lost_is_not_done_twice(lost):
    async def scenario(control):
        writes = []

        def lose(request):
            if type(request).__name__ == "Write":
                writes.append(request)
                if len(writes) == lost:
                    control.cluster.lose_answers = 1

        control.cluster.on_request = lose
        await control.created()
        assert len(control.catalog.view.partitions(256)) == 6
        assert control.cluster.row(setting_key(NEXT_GROUP_ID)).values == {"value": 7}

    run(scenario)


def test_another_admin_goes_on_where_the_first_stopped():
    async def scenario(control):
        control.nodes.down = {"n1.disk", "n2.disk"}
        control.ask(TABLE, CREATE)
        await control.until(lambda view: len(view.partitions(256)) == 6)
        await control.runner.stop()
        control.nodes.down = set()
        await asyncio.sleep(0.05)
        assert control.cluster.row(job_key(CREATE.job_id)).step == "open"
        control.runner = control.new_runner()
        control.runner.act(True)
        await control.until(is_active)
        assert len(control.catalog.view.partitions(256)) == 6

    run(scenario)


def test_a_job_whose_table_is_gone_ends():
    async def scenario(control):
        control.ask(CREATE)
        await control.until(lambda view: not view.jobs)
        assert not control.nodes.replicas

    run(scenario)


def test_a_table_is_deleted_with_all_it_had():
    async def scenario(control):
        await control.created()
        table = control.cluster.row(table_key("orders"))
        control.ask(table.with_status("DELETING"), DELETE)
        await control.until(lambda view: "orders" not in view.tables and not view.jobs)
        assert not control.catalog.view.partitions(256)
        assert not any(control.nodes.replicas.values())

    run(scenario)


def test_what_a_node_missed_of_a_deletion_is_closed_by_repair():
    async def scenario(control):
        await control.created()
        control.nodes.down = {"n3.disk"}
        table = control.cluster.row(table_key("orders"))
        control.ask(table.with_status("DELETING"), DELETE)
        await control.until(lambda view: "orders" not in view.tables)
        control.nodes.down = set()
        assert len(control.nodes.replicas["n3.disk"]) == 6
        await control.repair.make_pass()
        assert not control.nodes.replicas["n3.disk"]

    run(scenario)


def test_many_partitions_are_deleted_in_several_writes():
    async def scenario(control):
        many = replace(TABLE, tags=(("quorate:partitions", "200"),))
        control.ask(many, CREATE)
        await control.until(is_active)
        assert len(control.catalog.view.partitions(256)) == 200
        table = control.cluster.row(table_key("orders"))
        control.ask(table.with_status("DELETING"), DELETE)
        await control.until(lambda view: "orders" not in view.tables and not view.jobs)
        assert not control.catalog.view.partitions(256)

    run(scenario)


def test_replicas_on_a_lost_disk_are_reported_and_replaced_a_few_at_a_time():
    async def scenario(control):
        await control.created()
        control.cluster.put(NodeRow("n2.new", "n2", "az2", "h:2", "g:2", started_ms=2))
        await control.until(lambda view: "n2.new" in view.nodes)
        view = control.catalog.view
        reports = {node.node_id: await control.nodes.status(node) for node in view.current_nodes()}
        findings = compare(view, reports)
        assert sorted((r.group, r.node_id) for r in findings.lost) == [
            (group, "n2.disk") for group in range(1, 7)
        ]
        assert not findings.missing
        assert not findings.leftover
        control.runner.act(False)
        await control.repair.make_pass()
        assert control.registry.get_sample_value("quorate_admin_replicas_lost") == 6
        jobs = [job for job in view.jobs.values() if job.kind == "replace_replica"]
        assert 0 < len(jobs) <= REPLACEMENTS_MAX
        assert {job.args["target"] for job in jobs} == {"n2.new"}
        assert len({job.args["new"] for job in jobs}) == len(jobs), "ids are never used twice"

    run(scenario)


def test_repair_asks_the_catalog_itself_before_it_closes_anything():
    async def scenario(control):
        row = PartitionRow(9, 256, b"a", b"b", 1, (ReplicaRow(1, "n1.disk"),))
        await control.nodes.open_replica(NODES[0], row, [], 1, campaign=False)
        control.catalog._follower.cancel()
        control.cluster.put(row)
        assert control.catalog.view.group(9) is None, "the copy lags"
        await control.repair.make_pass()
        assert 9 in control.nodes.replicas["n1.disk"]

    run(scenario)
