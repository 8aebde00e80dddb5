"""Storage nodes in memory, as the control plane calls them."""

import asyncio

from admin.nodes import NodeRefused, NodeUnreachable, partition_message
from datamodel.catalog_rows import NodeRow
from proto import control_pb2
from proto.messages import ReplicaAddress
from tests.unit.catalog_fakes import FakeCluster

NODES = [
    NodeRow(f"n{i}.disk", f"n{i}", f"az{i}", f"h:{i}", f"g:{i}", started_ms=1) for i in (1, 2, 3)
]


class FakeNodes:
    """Nodes that open and close; a group leads when a majority of it is open and one stood for election.

    Attributes:
        down: Node ids that do not answer.
        replicas: What is open: node id -> group -> replica status.
        campaigns: (group, node id) in the order in which elections were called.
    """

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.down: set[str] = set()
        self.replicas: dict[str, dict[int, control_pb2.ReplicaStatus]] = {}
        self.closed: set[tuple[str, int]] = set()
        self.campaigns: list[tuple[int, str]] = []
        self.calls: list[tuple[str, str, int]] = []

    async def open_replica(self, node, partition, addresses, replica_id, *, campaign) -> None:
        await self._answer("open", node, partition.group)
        if (node.node_id, partition.group) in self.closed:
            raise NodeRefused("closed for good")
        assert {address.node_id for address in addresses} <= {r.node_id for r in partition.replicas}
        mine = self.replicas.setdefault(node.node_id, {})
        if partition.group not in mine:
            mine[partition.group] = control_pb2.ReplicaStatus(
                partition=partition_message(partition, addresses),
                replica_id=replica_id,
                role="follower",
                term=1,
            )
        if campaign:
            self.campaigns.append((partition.group, node.node_id))
        holders = [n for n, open_ in self.replicas.items() if partition.group in open_]
        if len(holders) * 2 > len(partition.replicas):
            self.cluster.stats[partition.group] = (0, 0)
            leader = next(
                (n for group, n in self.campaigns if group == partition.group), holders[0]
            )
            if leader in self.replicas:
                self.replicas[leader][partition.group].role = "leader"

    async def close_replica(self, node, group) -> None:
        await self._answer("close", node, group)
        if self.replicas.get(node.node_id, {}).pop(group, None) is not None:
            self.closed.add((node.node_id, group))

    async def status(self, node) -> control_pb2.NodeStatusResponse:
        await self._answer("status", node, 0)
        return control_pb2.NodeStatusResponse(
            node_id=node.node_id,
            name=node.name,
            az=node.az,
            cluster_id="fake",
            replicas=list(self.replicas.get(node.node_id, {}).values()),
        )

    async def transfer_leadership(self, node, group, to_replica_id) -> bool:
        await self._answer("transfer", node, group)
        source = self.replicas[node.node_id][group]
        if source.role != "leader":
            return False
        source.role = "follower"
        for mine in self.replicas.values():
            if group in mine and mine[group].replica_id == to_replica_id:
                mine[group].role = "leader"
        return True

    async def _answer(self, what: str, node: NodeRow, group: int) -> None:
        self.calls.append((what, node.node_id, group))
        await asyncio.sleep(0)
        if node.node_id in self.down or not node.grpc:
            raise NodeUnreachable("down")


def catalog_replicas() -> tuple[ReplicaAddress, ...]:
    """Where the fake catalog would be."""
    return tuple(
        ReplicaAddress(number, node.node_id, node.address, node.az)
        for number, node in enumerate(NODES, 1)
    )
