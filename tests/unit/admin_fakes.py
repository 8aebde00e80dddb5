"""Storage nodes in memory, as the control plane calls them."""

import asyncio

from admin.nodes import NodeRefused, NodeUnreachable, partition_message
from datamodel.catalog_rows import NodeRow
from proto import control_pb2
from proto.messages import ReplicaAddress
from raft.group import Configuration, Member, NodeId, ReplicaId
from raft.membership import why_not
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
        self.closed_ids: set[tuple[str, int, int]] = set()
        self.members: dict[int, Configuration] = {}
        self.history: dict[int, list[Configuration]] = {}
        self.level = 5_000
        self.lose_changes = 0

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

    async def join_replica(self, node, partition, addresses, replica_id) -> None:
        await self._answer("join", node, partition.group)
        if (node.node_id, partition.group, replica_id) in self.closed_ids:
            raise NodeRefused("closed for good")
        mine = self.replicas.setdefault(node.node_id, {})
        there = mine.get(partition.group)
        if there is not None:
            if there.replica_id != replica_id:
                raise NodeRefused("open with another id")
            return
        mine[partition.group] = control_pb2.ReplicaStatus(
            partition=partition_message(partition, addresses),
            replica_id=replica_id,
            role="learner",
        )

    async def change_members(self, node, group, expected, proposed) -> None:
        await self._answer("change", node, group)
        status = self.replicas.get(node.node_id, {}).get(group)
        if status is None or status.role != "leader":
            raise NodeUnreachable("not the leader")
        current = self.members[group]
        want = as_members(proposed)
        if want == current:
            return
        if as_members(expected) != current:
            raise NodeRefused("other members")
        reason = why_not(current, want, status.replica_id)
        if reason is not None:
            raise NodeRefused(reason)
        self.members[group] = want
        self.history.setdefault(group, []).append(want)
        if self.lose_changes > 0:
            self.lose_changes -= 1
            raise NodeUnreachable("the answer was lost")

    async def transfer_leadership(self, node, group, to_replica_id) -> bool:
        await self._answer("transfer", node, group)
        source = self.replicas[node.node_id][group]
        if source.role != "leader":
            return False
        for mine in self.replicas.values():
            chosen = to_replica_id or next(
                (
                    r[group].replica_id
                    for n, r in self.replicas.items()
                    if n != node.node_id and group in r
                ),
                0,
            )
            if group in mine and mine[group].replica_id == chosen:
                source.role, mine[group].role = "follower", "leader"
                mine[group].term = source.term + 1
                return True
        return False

    def lead(self, group, members, leader) -> None:
        """Open a group that exists: its members, and which node leads."""
        self.members[group] = as_members(members)
        for member in members.values():
            status = control_pb2.ReplicaStatus(
                replica_id=member.replica_id, role="follower", term=1
            )
            status.partition.group = group
            status.role = "leader" if member.node_id == leader else "follower"
            self.replicas.setdefault(member.node_id, {})[group] = status

    async def close_replica(self, node, group, replica_id) -> None:
        await self._answer("close", node, group)
        there = self.replicas.get(node.node_id, {}).get(group)
        if there is not None and there.replica_id == replica_id:
            del self.replicas[node.node_id][group]
            self.closed.add((node.node_id, group))
            self.closed_ids.add((node.node_id, group, replica_id))

    async def status(self, node, groups=()) -> control_pb2.NodeStatusResponse:
        await self._answer("status", node, 0)
        return control_pb2.NodeStatusResponse(
            node_id=node.node_id,
            name=node.name,
            az=node.az,
            cluster_id="fake",
            replicas=[
                self._with_members(group, status)
                for group, status in self.replicas.get(node.node_id, {}).items()
                if not groups or group in groups
            ],
        )

    def _with_members(self, group, status) -> control_pb2.ReplicaStatus:
        full = control_pb2.ReplicaStatus()
        full.CopyFrom(status)
        full.commit_index = 5_000
        if group not in self.members:
            self.members[group] = as_members({r.replica_id: r for r in status.partition.replicas})
        for member in self.members[group].members:
            full.members.add(
                replica_id=member.replica_id, node_id=member.node_id, is_learner=member.is_learner
            )
            if status.role == "leader" and group in self.replicas.get(member.node_id, {}):
                full.match_index[member.replica_id] = self.level
        return full

    async def _answer(self, what: str, node: NodeRow, group: int) -> None:
        self.calls.append((what, node.node_id, group))
        await asyncio.sleep(0)
        if node.node_id in self.down or not node.grpc:
            raise NodeUnreachable("down")


def as_members(replicas) -> Configuration:
    """Members as raft has them, from the control plane's messages."""
    return Configuration(
        tuple(
            Member(ReplicaId(r.replica_id), NodeId(r.node_id), r.is_learner)
            for _, r in sorted(replicas.items())
        )
    )


def catalog_replicas() -> tuple[ReplicaAddress, ...]:
    """Where the fake catalog would be."""
    return tuple(
        ReplicaAddress(number, node.node_id, node.address, node.az)
        for number, node in enumerate(NODES, 1)
    )
