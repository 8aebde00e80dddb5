"""`quorate status`: asks an admin process for the cluster's state and shows it to a person or a program."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

import grpc
from google.protobuf.message import Message

from admin.cluster_file import DEAD, ClusterFile
from proto import admin_pb2, admin_pb2_grpc

TIMEOUT_S = 10.0

# Cells of these columns line up on the right.
_NUMERIC = frozenset(
    {"ITEMS", "BYTES", "REPLICAS", "LEADERS", "PARTITIONS", "WITH LEADER", "PID", "GROUP"}
    | {"TERM", "COMMIT", "APPLIED", "LAG", "EPOCH", "REPLICA"}
)


def fetch_status(address: str, timeout_s: float = TIMEOUT_S) -> admin_pb2.ClusterStatusResponse:
    """What the admin process at `address` knows now.

    Raises:
        grpc.RpcError: It does not answer.
    """
    with grpc.insecure_channel(address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        answer: admin_pb2.ClusterStatusResponse = stub.ClusterStatus(
            admin_pb2.ClusterStatusRequest(), timeout=timeout_s
        )
        return answer


def show_status(
    address: str, cluster: ClusterFile | None, *, as_json: bool, out: TextIO, err: TextIO
) -> int:
    """Print the status; returns the exit code: 0, or 1 when the admin process does not answer."""
    try:
        status = fetch_status(address)
    except grpc.RpcError as error:
        reason = error.details() if isinstance(error, grpc.Call) else str(error)
        print(f"quorate: the admin process at {address} does not answer: {reason}", file=err)
        return 1
    if as_json:
        print(json.dumps(status_as_dict(status, cluster), indent=2), file=out)
    else:
        out.write(render_status(status, cluster))
    return 0


def status_as_dict(
    status: admin_pb2.ClusterStatusResponse, cluster: ClusterFile | None
) -> dict[str, Any]:
    """The answer as JSON has it: every partition inside its table, the catalog's own apart.

    Members have the names of `proto/admin.proto`; bytes are hexadecimal text. A replica's `lag` is None when
    it is not known.
    """
    result = _plain(status)
    of_table: dict[str, list[dict[str, Any]]] = {}
    for partition in result.pop("partitions"):
        for replica in partition["replicas"]:
            lag = replica.pop("lag_entries")
            replica["lag"] = None if lag < 0 else lag
        of_table.setdefault(partition["table_name"], []).append(partition)
    for table in result["tables"]:
        table["partitions"] = of_table.pop(table["name"], [])
    result["catalog"] = of_table.pop("", [])
    # Of tables that are being created or deleted: partitions that no listed table has.
    result["other_partitions"] = [part for parts in of_table.values() for part in parts]
    if cluster is not None:
        result["endpoints"] = {"http": cluster.http, "grpc": cluster.grpc}
        result["processes"] = [
            {
                "name": process.name,
                "role": process.role,
                "az": process.az,
                "pid": process.pid,
                "state": process.state,
                "address": process.address,
            }
            for process in cluster.processes
        ]
    return result


def _plain(message: Message) -> dict[str, Any]:
    # Not protobuf's own JSON: that writes 64-bit integers as text.
    return {
        field.name: _plain_value(getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain_value(part) for part in value]
    return value


def render_status(
    status: admin_pb2.ClusterStatusResponse, cluster: ClusterFile | None = None
) -> str:
    """Tables for a person: the whole cluster on one screen while it is small."""
    blocks = ["\n".join(_headlines(status, cluster))]
    if cluster is not None:
        rows = [
            [p.name, p.role, p.az, "dead" if p.state == DEAD else str(p.pid), p.address]
            for p in cluster.processes
        ]
        blocks.append(_table(["PROCESS", "ROLE", "ZONE", "PID", "ADDRESS"], rows))
    nodes = [
        [n.name, n.az, n.address, str(n.replicas), str(n.leaders), _node_state(n), n.node_id]
        for n in status.nodes
    ]
    blocks.append(
        _table(["STORAGE NODE", "ZONE", "ADDRESS", "REPLICAS", "LEADERS", "STATE", "DISK"], nodes)
    )
    if status.tables:
        tables = [
            [
                table.name,
                table.status,
                table.billing_mode,
                str(table.partitions),
                str(table.partitions_with_leader),
                str(table.item_count),
                str(table.size_bytes),
            ]
            for table in status.tables
        ]
        head = ["TABLE", "STATUS", "BILLING", "PARTITIONS", "WITH LEADER", "ITEMS", "BYTES"]
        blocks.append(_table(head, tables))
    head = ["GROUP", "TABLE", "REPLICA", "NODE", "ZONE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG"]
    blocks.append(_table(head, list(_replica_rows(status.partitions))))
    if status.jobs:
        jobs = [[job.job_id, job.kind, job.step, job.table_name] for job in status.jobs]
        blocks.append(_table(["JOB", "KIND", "STEP", "TABLE"], jobs))
    return "\n\n".join(blocks) + "\n"


def _headlines(
    status: admin_pb2.ClusterStatusResponse, cluster: ClusterFile | None
) -> Iterable[str]:
    yield f"cluster {status.cluster_id or '(not formed yet)'}: " + (
        "healthy" if status.is_healthy else "NOT HEALTHY"
    )
    if cluster is not None:
        yield f"HTTP {cluster.http}   gRPC {cluster.grpc}"
    if status.acting_admin:
        yield f"acting admin {status.acting_admin}"
    if not status.is_catalog_current:
        yield "the catalog does not answer: tables and jobs are as last known"


def _node_state(node: admin_pb2.Node) -> str:
    if not node.is_current:
        return "replaced"
    return "up" if node.is_reachable else f"unreachable: {node.error or 'no answer'}"


def _replica_rows(partitions: Iterable[admin_pb2.PartitionState]) -> Iterable[list[str]]:
    for partition in partitions:
        for replica in partition.replicas:
            yield [
                str(partition.group),
                partition.table_name or "(catalog)",
                str(replica.replica_id),
                replica.node_name or replica.node_id,
                replica.az,
                replica.role,
                str(replica.term),
                str(replica.commit_index),
                str(replica.applied_index),
                "?" if replica.lag_entries < 0 else str(replica.lag_entries),
            ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [
            f"{cell:>{width}}" if name in _NUMERIC else f"{cell:<{width}}"
            for cell, width, name in zip(row, widths, head, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
