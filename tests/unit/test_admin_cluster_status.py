"""The status answer, and the service that gives it over gRPC."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from admin.admin_api import AdminApi, AdminServer
from admin.cluster_status import cluster_status
from datamodel.catalog_rows import (
    ADMIN_LEASE,
    JobRow,
    PartitionRow,
    ReplicaRow,
    SettingRow,
)
from datamodel.key_encoding import KeySchema, partition_bounds
from datamodel.table_descriptions import TableDescription
from proto import admin_pb2, admin_pb2_grpc, control_pb2
from proto.catalog_client import CatalogClient
from proto.catalog_view import CatalogView
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
)
BOUNDS = partition_bounds(256, 2)
PARTITIONS = [
    PartitionRow(
        group,
        256,
        BOUNDS[group - 1],
        BOUNDS[group],
        1,
        tuple(ReplicaRow(i, node.node_id) for i, node in enumerate(NODES, 1)),
    )
    for group in (1, 2)
]
ROWS = [
    TABLE,
    *PARTITIONS,
    *NODES,
    JobRow("j", "create_table", "place", "more", 257, 5),
    SettingRow(ADMIN_LEASE, {"holder": "admin-0"}),
]


def report(node, leads=()):
    return control_pb2.NodeStatusResponse(
        node_id=node.node_id,
        replicas=[
            control_pb2.ReplicaStatus(
                partition=control_pb2.Partition(group=group),
                replica_id=1,
                role="leader" if group in leads else "follower",
                term=3,
                commit_index=20 if group in leads else 19,
                applied_index=20 if group in leads else 17,
                item_count=5 if group in leads else 4,
                size_bytes=50,
            )
            for group in (0, 1, 2)
        ],
    )


REPORTS = {
    NODES[0].node_id: report(NODES[0], leads=(0, 1)),
    NODES[1].node_id: report(NODES[1], leads=(2,)),
    NODES[2].node_id: report(NODES[2]),
}


def status(reports, **changes):
    view = CatalogView()
    view.replace_all(ROWS)
    arguments = {
        "cluster_id": "c",
        "region": "us-east-1",
        "account_id": "000000000000",
        "is_catalog_current": True,
    }
    return cluster_status(view, reports, catalog_replicas(), **(arguments | changes))


def test_everything_is_shown():
    shown = status(REPORTS)
    assert shown.is_healthy
    assert shown.acting_admin == "admin-0"
    assert [job.job_id for job in shown.jobs] == ["j"]
    assert [(node.name, node.replicas, node.leaders) for node in shown.nodes] == [
        ("n1", 3, 2),
        ("n2", 3, 1),
        ("n3", 3, 0),
    ]
    (table,) = shown.tables
    assert (table.partitions, table.partitions_with_leader) == (2, 2)
    assert (table.item_count, table.size_bytes) == (10, 100)
    assert table.arn == "arn:aws:dynamodb:us-east-1:000000000000:table/orders"
    assert [(p.group, p.table_name, p.leader_node_name) for p in shown.partitions] == [
        (0, "", "n1"),
        (1, "orders", "n1"),
        (2, "orders", "n2"),
    ]
    replica = shown.partitions[1].replicas[2]
    assert (replica.node_name, replica.az, replica.role) == ("n3", "az3", "follower")
    assert (replica.term, replica.applied_index, replica.lag_entries) == (3, 17, 3)
    assert shown.partitions[1].replicas[0].lag_entries == 0


def test_one_tables_partitions():
    shown = status(REPORTS, table_name="orders")
    assert [p.group for p in shown.partitions] == [1, 2]
    assert not status(REPORTS, table_name="nobody").partitions


def test_a_node_that_does_not_answer():
    shown = status(REPORTS | {NODES[0].node_id: "connection refused"})
    assert not shown.is_healthy
    assert shown.nodes[0].error == "connection refused"
    assert not shown.nodes[0].is_reachable
    partition = shown.partitions[1]
    assert partition.leader_node_id == ""
    assert partition.replicas[0].role == "unreachable"
    assert [replica.lag_entries for replica in partition.replicas] == [-1, -1, -1]


def test_a_replica_that_is_missing():
    empty = control_pb2.NodeStatusResponse(node_id=NODES[2].node_id)
    shown = status(REPORTS | {NODES[2].node_id: empty})
    assert not shown.is_healthy
    assert shown.partitions[1].replicas[2].role == "missing"


def test_an_old_copy_of_the_catalog_is_no_health():
    shown = status(REPORTS, is_catalog_current=False)
    assert not shown.is_healthy
    assert not shown.is_catalog_current


def test_the_service_answers_over_grpc_and_has_health():
    async def scenario():
        cluster = FakeCluster(ROWS)
        cluster.groups[0] = list(catalog_replicas())
        catalog = CatalogClient(cluster)
        nodes = FakeNodes(cluster)
        nodes.down = {"n3.disk"}
        server = AdminServer(
            AdminApi(catalog, cluster, nodes, "us-east-1", "000000000000"), grpc.aio.server()
        )
        port = await server.start("127.0.0.1:0")
        catalog.start()
        try:
            await catalog.ready()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                stub = admin_pb2_grpc.AdminServiceStub(channel)
                await server.set_ready(True)
                service = "quorate.admin.v1.AdminService"
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                request = admin_pb2.ClusterStatusRequest()
                shown = await stub.ClusterStatus(request, timeout=5)
            assert shown.cluster_id == "fake"
            assert [node.is_reachable for node in shown.nodes] == [True, True, False]
            assert [table.name for table in shown.tables] == ["orders"]
        finally:
            await server.stop(0)
            await catalog.stop()

    asyncio.run(scenario())
