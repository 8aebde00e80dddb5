"""The state of the cluster as one answer: the catalog's rows beside what every node says of itself. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from datamodel.catalog_rows import ADMIN_LEASE, CATALOG_GROUP, CATALOG_RANGE, SYSTEM_TABLE_ID
from datamodel.table_descriptions import table_arn
from proto import admin_pb2, control_pb2
from proto.catalog_view import CatalogView
from proto.messages import ReplicaAddress

Report: TypeAlias = control_pb2.NodeStatusResponse

UNKNOWN_LAG: Final = -1


@dataclass(frozen=True, slots=True)
class _Member:
    """One replica of a partition, as it should be."""

    replica_id: int
    node_id: str
    az: str


@dataclass(frozen=True, slots=True)
class _Partition:
    """A partition, as it should be."""

    group: int
    table_id: int
    table_name: str
    start: bytes
    end: bytes
    epoch: int
    members: Sequence[_Member]


def cluster_status(
    view: CatalogView,
    reports: Mapping[str, Report | str],
    catalog_replicas: Sequence[ReplicaAddress],
    *,
    cluster_id: str,
    region: str,
    account_id: str,
    is_catalog_current: bool,
    table_name: str = "",
) -> admin_pb2.ClusterStatusResponse:
    """Everything that is known, in one message.

    Args:
        view: The catalog as last known.
        reports: By node id of the current nodes: what it says, or why it says nothing.
        catalog_replicas: Where group 0 is (it has no row of its own).
        cluster_id: Empty when unknown.
        region: For ARNs.
        account_id: Likewise.
        is_catalog_current: Whether `view` is up to date.
        table_name: Show this table's partitions only; empty for all.
    """
    states = {
        (replica.partition.group, node_id): replica
        for node_id, report in reports.items()
        if not isinstance(report, str)
        for replica in report.replicas
    }
    partitions = [
        _partition_state(partition, view, reports, states)
        for partition in _partitions(view, catalog_replicas)
    ]
    partitions_of: Counter[int] = Counter(p.table_id for p in partitions)
    led: Counter[int] = Counter(p.table_id for p in partitions if p.leader_node_id)
    items: Counter[int] = Counter()
    size: Counter[int] = Counter()
    for partition in partitions:
        items[partition.table_id] += partition.item_count
        size[partition.table_id] += partition.size_bytes
    lease = view.settings.get(ADMIN_LEASE)
    nodes = _nodes(view, reports)
    return admin_pb2.ClusterStatusResponse(
        cluster_id=cluster_id,
        nodes=nodes,
        tables=[
            admin_pb2.Table(
                name=table.name,
                table_id=table.table_id,
                status=table.status,
                billing_mode=table.billing_mode,
                partitions=partitions_of[table.table_id],
                partitions_with_leader=led[table.table_id],
                item_count=items[table.table_id],
                size_bytes=size[table.table_id],
                arn=table_arn(region, account_id, table.name),
            )
            for table in sorted(view.tables.values(), key=lambda table: table.name.encode())
            if not table_name or table.name == table_name
        ],
        partitions=[p for p in partitions if not table_name or p.table_name == table_name],
        jobs=[
            admin_pb2.Job(
                job_id=job.job_id,
                kind=job.kind,
                step=job.step,
                table_name=job.table_name,
                created_ms=job.created_ms,
            )
            for job in sorted(view.jobs.values(), key=lambda job: job.created_ms)
        ],
        acting_admin="" if lease is None else str(lease.values.get("holder", "")),
        is_healthy=(
            is_catalog_current
            and bool(nodes)
            and all(node.is_reachable for node in nodes if node.is_current)
            and all(_is_whole(partition, view) for partition in partitions)
        ),
        is_catalog_current=is_catalog_current,
    )


def _is_whole(partition: admin_pb2.PartitionState, view: CatalogView) -> bool:
    """Whether a partition has a leader and all replicas; one whose table is coming or going is let be."""
    table = view.tables_by_id.get(partition.table_id)
    if partition.table_id != SYSTEM_TABLE_ID and (table is None or not table.serves_items):
        return True
    return bool(partition.leader_node_id) and all(
        replica.role not in ("missing", "unreachable", "failed") for replica in partition.replicas
    )


def _nodes(view: CatalogView, reports: Mapping[str, Report | str]) -> list[admin_pb2.Node]:
    current = {node.node_id for node in view.current_nodes()}
    nodes = []
    for row in sorted(view.nodes.values(), key=lambda row: (row.name, row.started_ms)):
        report = reports.get(row.node_id, "replaced by a newer disk")
        node = admin_pb2.Node(
            node_id=row.node_id,
            name=row.name,
            az=row.az,
            address=row.address,
            grpc_address=row.grpc,
            metrics_address=row.metrics,
            started_ms=row.started_ms,
            is_current=row.node_id in current,
        )
        if isinstance(report, str):
            node.error = report
        else:
            node.is_reachable = True
            node.replicas = len(report.replicas)
            node.leaders = sum(replica.role == "leader" for replica in report.replicas)
        nodes.append(node)
    return nodes


def _partitions(view: CatalogView, catalog_replicas: Sequence[ReplicaAddress]) -> list[_Partition]:
    """All partitions, group 0 first, then by table and key."""
    found = []
    if catalog_replicas:
        members = [_Member(r.replica_id, r.node_id, r.az) for r in catalog_replicas]
        found.append(_Partition(CATALOG_GROUP, SYSTEM_TABLE_ID, "", *CATALOG_RANGE, 0, members))
    for row in sorted(view.groups(), key=lambda row: (row.table_id, row.start)):
        table = view.tables_by_id.get(row.table_id)
        name = "" if table is None else table.name
        members = [
            _Member(
                r.replica_id, r.node_id, view.nodes[r.node_id].az if r.node_id in view.nodes else ""
            )
            for r in row.replicas
        ]
        found.append(
            _Partition(row.group, row.table_id, name, row.start, row.end, row.epoch, members)
        )
    return found


def _partition_state(
    partition: _Partition,
    view: CatalogView,
    reports: Mapping[str, Report | str],
    states: Mapping[tuple[int, str], control_pb2.ReplicaStatus],
) -> admin_pb2.PartitionState:
    found = {m.node_id: states.get((partition.group, m.node_id)) for m in partition.members}
    leader_id, leader = "", None
    for node_id, status in found.items():
        # Of two that say they lead, the one of the higher term does.
        if (
            status is not None
            and status.role == "leader"
            and (leader is None or status.term > leader.term)
        ):
            leader_id, leader = node_id, status
    shown = admin_pb2.PartitionState(
        group=partition.group,
        table_id=partition.table_id,
        table_name=partition.table_name,
        start=partition.start,
        end=partition.end,
        epoch=partition.epoch,
        term=max((status.term for status in found.values() if status is not None), default=0),
        leader_node_id=leader_id,
        leader_node_name=_name(view, leader_id),
        item_count=0 if leader is None else leader.item_count,
        size_bytes=0 if leader is None else leader.size_bytes,
    )
    for member in partition.members:
        status = found[member.node_id]
        replica = admin_pb2.ReplicaState(
            replica_id=member.replica_id,
            node_id=member.node_id,
            node_name=_name(view, member.node_id),
            az=member.az,
            lag_entries=UNKNOWN_LAG,
        )
        if status is None:
            is_silent = isinstance(reports.get(member.node_id, ""), str)
            replica.role = "unreachable" if is_silent else "missing"
        else:
            replica.role = status.role
            replica.term = status.term
            replica.commit_index = status.commit_index
            replica.applied_index = status.applied_index
            replica.first_index = status.first_index
            replica.last_index = status.last_index
            if leader is not None:
                replica.lag_entries = max(leader.commit_index - status.applied_index, 0)
        shown.replicas.append(replica)
    return shown


def _name(view: CatalogView, node_id: str) -> str:
    node = view.nodes.get(node_id)
    return node_id.rpartition(".")[0] if node is None else node.name
