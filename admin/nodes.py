"""Storage nodes as the control plane calls them: `StorageControl` over gRPC, one channel per node."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from datamodel.catalog_rows import NodeRow, PartitionRow
from proto import control_pb2, control_pb2_grpc
from proto.messages import ReplicaAddress

CALL_TIMEOUT_S: Final = 2.0
CHANGE_TIMEOUT_S: Final = 5.0
STATUS_TIMEOUT_S: Final = 1.0
"""Short: a new table waits for this answer of every node, and a stopped node never gives it."""
SCRUB_TIMEOUT_S: Final = 6 * 3600.0
CALLS_MAX: Final = 32
"""Calls in flight over all nodes: creating a table of many partitions must not swamp them."""
MESSAGE_BYTES_MAX: Final = 64 << 20

_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A restarted node is to be found at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

Answer = TypeVar("Answer")
Members: TypeAlias = Mapping[int, control_pb2.Replica]
"""A group's members by replica id, learners included."""


class NodeUnreachable(Exception):
    """The node did not answer in time. What it was asked may or may not have been done; ask again."""


class NodeRefused(Exception):
    """The node answered that it will not, and will not for as long as the question stays the same."""


class StorageNodes:
    """What is asked of storage nodes. Every call is idempotent."""

    def __init__(self, open_channel: Callable[..., Any] = grpc.aio.insecure_channel) -> None:
        """Create; `open_channel` as `grpc.aio.insecure_channel`."""
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._slots = asyncio.Semaphore(CALLS_MAX)

    async def open_replica(
        self,
        node: NodeRow,
        partition: PartitionRow,
        addresses: Sequence[ReplicaAddress],
        replica_id: int,
        *,
        campaign: bool,
    ) -> None:
        """Open the node's replica of a partition; returns when that is durable.

        Raises:
            NodeUnreachable: No answer.
            NodeRefused: The group was closed there before, or is open with another id.
        """
        request = control_pb2.OpenReplicaRequest(
            partition=partition_message(partition, addresses),
            replica_id=replica_id,
            campaign=campaign,
        )
        stub = self._stub(node)
        await self._call(lambda: stub.OpenReplica(request, timeout=CALL_TIMEOUT_S))

    async def join_replica(
        self,
        node: NodeRow,
        partition: PartitionRow,
        addresses: Sequence[ReplicaAddress],
        replica_id: int,
    ) -> None:
        """Open a blank replica of a group that exists elsewhere; returns when that is durable.

        Raises:
            NodeUnreachable: No answer.
            NodeRefused: That replica was closed there, or another one of the group is there.
        """
        request = control_pb2.JoinReplicaRequest(
            partition=partition_message(partition, addresses), replica_id=replica_id
        )
        stub = self._stub(node)
        await self._call(lambda: stub.JoinReplica(request, timeout=CALL_TIMEOUT_S))

    async def close_replica(self, node: NodeRow, group: int, replica_id: int) -> None:
        """Close that replica of a group for good; returns when that is durable.

        Raises:
            NodeUnreachable: No answer.
            NodeRefused: Such a replica is never closed.
        """
        request = control_pb2.CloseReplicaRequest(group=group, replica_id=replica_id)
        stub = self._stub(node)
        await self._call(lambda: stub.CloseReplica(request, timeout=CALL_TIMEOUT_S))

    async def change_members(
        self, node: NodeRow, group: int, expected: Members, proposed: Members
    ) -> None:
        """Change the members of a group that the node leads, if they are the expected ones.

        Raises:
            NodeUnreachable: Not the leader, busy, or no answer.
            NodeRefused: The members are other ones, or must not become these.
        """
        request = control_pb2.ChangeMembersRequest(
            group=group, expected=expected.values(), proposed=proposed.values()
        )
        stub = self._stub(node)
        await self._call(lambda: stub.ChangeMembers(request, timeout=CHANGE_TIMEOUT_S))

    async def status(
        self, node: NodeRow, groups: Sequence[int] = ()
    ) -> control_pb2.NodeStatusResponse:
        """The node's replicas; of these groups, or all.

        Raises:
            NodeUnreachable: No answer, or another disk than the row's answers.
        """
        request = control_pb2.NodeStatusRequest(groups=groups)
        stub = self._stub(node)
        answer: control_pb2.NodeStatusResponse = await self._call(
            lambda: stub.NodeStatus(request, timeout=STATUS_TIMEOUT_S)
        )
        if answer.node_id != node.node_id:
            raise NodeUnreachable(f"{node.grpc} is {answer.node_id} now")
        return answer

    async def transfer_leadership(self, node: NodeRow, group: int, to_replica_id: int) -> bool:
        """Let the node hand a group that it leads to another replica (0: any that can); whether it will try.

        Raises:
            NodeUnreachable: No answer.
        """
        request = control_pb2.TransferLeadershipRequest(group=group, to_replica_id=to_replica_id)
        stub = self._stub(node)
        answer: control_pb2.TransferLeadershipResponse = await self._call(
            lambda: stub.TransferLeadership(request, timeout=CALL_TIMEOUT_S)
        )
        return answer.transferred > 0

    async def scrub(self, node: NodeRow, group: int) -> control_pb2.ScrubResponse:
        """Let the node compare the replicas of a group that it leads. Takes as long as reading the data.

        Raises:
            NodeUnreachable: They were not compared, or no answer.
        """
        stub = self._stub(node)
        try:
            answer: control_pb2.ScrubResponse = await stub.Scrub(
                control_pb2.ScrubRequest(group=group), timeout=SCRUB_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise NodeUnreachable(f"{error.code().name}: {error.details()}") from error
        return answer

    async def close(self) -> None:
        """Close all channels."""
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))

    def _stub(self, node: NodeRow) -> control_pb2_grpc.StorageControlStub:
        if not node.grpc:
            raise NodeUnreachable(f"{node.node_id} has not registered yet")
        channel = self._channels.get(node.grpc)
        if channel is None:
            channel = self._open_channel(node.grpc, options=_OPTIONS)
            self._channels[node.grpc] = channel
        return control_pb2_grpc.StorageControlStub(channel)  # type: ignore[no-untyped-call]

    async def _call(self, begin: Callable[[], Awaitable[Answer]]) -> Answer:
        async with self._slots:
            try:
                return await begin()
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                if error.code() in _REFUSALS:
                    raise NodeRefused(reason) from error
                raise NodeUnreachable(reason) from error


_REFUSALS: Final = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)


def partition_message(
    partition: PartitionRow, addresses: Iterable[ReplicaAddress]
) -> control_pb2.Partition:
    """A partition as storage nodes are told of it: every member, with its address if that is known."""
    known = {address.node_id: address for address in addresses}
    replicas = []
    for replica in partition.replicas:
        address = known.get(replica.node_id)
        replicas.append(
            control_pb2.Replica(
                replica_id=replica.replica_id,
                node_id=replica.node_id,
                address="" if address is None else address.address,
                az="" if address is None else address.az,
            )
        )
    return control_pb2.Partition(
        group=partition.group,
        table_id=partition.table_id,
        start=partition.start,
        end=partition.end,
        epoch=partition.epoch,
        replicas=replicas,
    )


async def fetch_statuses(
    nodes: StorageNodes, rows: Iterable[NodeRow], groups: Sequence[int] = ()
) -> dict[str, control_pb2.NodeStatusResponse | str]:
    """What each node says of itself, by node id; text where it says nothing, and why."""

    async def ask(row: NodeRow) -> control_pb2.NodeStatusResponse | str:
        try:
            return await nodes.status(row, groups)
        except (NodeUnreachable, NodeRefused) as error:
            return str(error) or "no answer"

    asked = list(rows)
    answers = await asyncio.gather(*(ask(row) for row in asked))
    return {row.node_id: answer for row, answer in zip(asked, answers, strict=True)}


def leaders(
    reports: Iterable[control_pb2.NodeStatusResponse | str],
) -> dict[int, tuple[str, control_pb2.ReplicaStatus]]:
    """By group: the node that leads it by these reports, and its replica. Of two that say so, the later term's."""
    found: dict[int, tuple[str, control_pb2.ReplicaStatus]] = {}
    for report in reports:
        if isinstance(report, str):
            continue
        for status in report.replicas:
            if status.role == "leader":
                known = found.get(status.partition.group)
                if known is None or known[1].term < status.term:
                    found[status.partition.group] = report.node_id, status
    return found
