"""The gRPC service `StorageControl`: what the control plane asks of a node, and snapshots for other nodes."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from datamodel.errors import Corruption
from proto import control_pb2, control_pb2_grpc
from proto.messages import Hello
from raft.group import Configuration, GroupId, Member, NodeId, ReplicaId
from raft.membership import BadConfiguration, check_configuration
from storagenode.data_directory import Peer
from storagenode.engines.engine import EngineFailure
from storagenode.node import CATALOG_GROUP, Node, ReplicaRefused
from storagenode.peers import Peers
from storagenode.replicas.log_entries import STATE_VERSION, ReplicaState
from storagenode.replicas.member_changes import Impossible, NotNow, change_members
from storagenode.replicas.replica import Replica
from storagenode.scrubbing import NotCompared, Scrubber
from storagenode.snapshots.snapshot_sending import Busy, SnapshotSender, Unsound

log = logging.getLogger(__name__)

DIGEST_TIMEOUT_S = 2.0


class ControlService(control_pb2_grpc.StorageControlServicer):
    """The service over a `Node`. Every call is idempotent."""

    def __init__(
        self,
        node: Node,
        sender: SnapshotSender,
        peers: Peers,
        own: Callable[[], Hello],
        scrubber: Scrubber | None = None,
    ) -> None:
        self._scrubber = scrubber
        self._node = node
        self._sender = sender
        self._peers = peers
        self._own = own

    @contextmanager
    def _engine_trouble(self) -> Iterator[None]:
        """A failing engine is not the caller's affair alone: the node does not go on with it."""
        try:
            yield
        except EngineFailure as error:
            self._node.on_engine_failure(error)
            raise

    async def OpenReplica(  # noqa: N802  # the names of gRPC methods are the schema's
        self, request: control_pb2.OpenReplicaRequest, context: Any
    ) -> control_pb2.OpenReplicaResponse:
        """Open a replica of a new group; answers once that is durable."""
        partition = request.partition
        self._learn(partition.replicas)
        members = tuple(
            Member(ReplicaId(replica.replica_id), NodeId(replica.node_id))
            for replica in partition.replicas
        )
        state = _first_state(partition)
        own = self._own()
        configuration = Configuration(members)
        try:
            check_configuration(configuration)
        except BadConfiguration as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if (request.replica_id, own.node_id) not in {(m.replica_id, m.node_id) for m in members}:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"replica {request.replica_id} is not on node {own.node_id}",
            )
        if partition.start >= partition.end:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the key range is empty")
        try:
            with self._engine_trouble():
                self._node.open_replica(
                    GroupId(partition.group),
                    ReplicaId(request.replica_id),
                    configuration,
                    state,
                    campaign=request.campaign,
                )
        except ReplicaRefused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        await self._node.durable()
        return control_pb2.OpenReplicaResponse()

    async def CloseReplica(  # noqa: N802
        self, request: control_pb2.CloseReplicaRequest, context: Any
    ) -> control_pb2.CloseReplicaResponse:
        """Close a replica for good; answers once that is durable. Its data is deleted afterwards."""
        replica_id = ReplicaId(request.replica_id) if request.replica_id else None
        if request.group == CATALOG_GROUP and replica_id is None:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "a replica of the catalog is closed by its id"
            )
        with self._engine_trouble():
            await self._node.close_replica(GroupId(request.group), replica_id)
        return control_pb2.CloseReplicaResponse()

    async def JoinReplica(  # noqa: N802
        self, request: control_pb2.JoinReplicaRequest, context: Any
    ) -> control_pb2.JoinReplicaResponse:
        """Open a blank replica of a group that exists elsewhere; answers once that is durable."""
        partition = request.partition
        self._learn(partition.replicas)
        if partition.start >= partition.end or not request.replica_id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no key range, or no replica id")
        try:
            with self._engine_trouble():
                self._node.join_replica(
                    GroupId(partition.group), ReplicaId(request.replica_id), _first_state(partition)
                )
        except ReplicaRefused as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        await self._node.durable()
        return control_pb2.JoinReplicaResponse()

    async def ChangeMembers(  # noqa: N802
        self, request: control_pb2.ChangeMembersRequest, context: Any
    ) -> control_pb2.ChangeMembersResponse:
        """Change the members of a group that is led here; answers once that is applied."""
        self._learn(request.proposed)
        replica = self._node.replicas.get(GroupId(request.group))
        try:
            if replica is None:
                raise NotNow(f"no replica of group {request.group}")
            await change_members(replica, _members(request.expected), _members(request.proposed))
        except NotNow as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Impossible as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return control_pb2.ChangeMembersResponse()

    def _learn(self, replicas: Iterable[control_pb2.Replica]) -> None:
        self._peers.learn(
            (Peer(each.node_id, each.node_id, each.az, each.address) for each in replicas),
            hearsay=True,
        )

    async def NodeStatus(  # noqa: N802
        self, request: control_pb2.NodeStatusRequest, context: Any
    ) -> control_pb2.NodeStatusResponse:
        """All replicas of this node."""
        del context
        own = self._own()
        asked = set(request.groups)
        return control_pb2.NodeStatusResponse(
            node_id=own.node_id,
            name=own.name,
            az=own.az,
            cluster_id=own.cluster_id,
            replicas=[
                self._status(replica)
                for group, replica in self._node.replicas.items()
                if not asked or group in asked
            ],
        )

    def _status(self, replica: Replica) -> control_pb2.ReplicaStatus:
        status = replica.standing.group.status()
        leader = replica.standing.leader
        return control_pb2.ReplicaStatus(
            partition=control_pb2.Partition(
                group=replica.group_id,
                table_id=replica.table_id,
                start=replica.start,
                end=replica.end,
                epoch=replica.epoch,
                replicas=[
                    control_pb2.Replica(
                        replica_id=address.replica_id,
                        node_id=address.node_id,
                        address=address.address,
                        az=address.az,
                    )
                    for address in self._node.addresses(replica.configuration.members)
                ],
            ),
            replica_id=replica.replica_id,
            role=replica.role.value,
            term=status.term,
            commit_index=status.commit_index,
            applied_index=replica.applied_index,
            first_index=status.first_index,
            last_index=status.last_index,
            leader_node_id="" if leader is None else leader.node_id,
            item_count=replica.item_count,
            size_bytes=replica.size_bytes,
            match_index={int(key): int(index) for key, index in status.match_index.items()},
            members=[
                control_pb2.Replica(
                    replica_id=member.replica_id,
                    node_id=member.node_id,
                    is_learner=member.is_learner,
                )
                for member in status.configuration.members
            ],
        )

    async def TransferLeadership(  # noqa: N802
        self, request: control_pb2.TransferLeadershipRequest, context: Any
    ) -> control_pb2.TransferLeadershipResponse:
        """Ask other replicas to take over; says how many were asked."""
        del context
        to = ReplicaId(request.to_replica_id) if request.to_replica_id else None
        transferred = 0
        for group, replica in self._node.replicas.items():
            if (
                (request.all or group == request.group)
                and replica.standing.is_leading
                and replica.standing.group.transfer_leadership(None if request.all else to)
            ):
                transferred += 1
        return control_pb2.TransferLeadershipResponse(transferred=transferred)

    async def ReplicaDigest(  # noqa: N802
        self, request: control_pb2.ReplicaDigestRequest, context: Any
    ) -> control_pb2.ReplicaDigestResponse:
        """The digest of our replica at a log position."""
        del context
        scrubber = self._scrubber
        digest = None if scrubber is None else scrubber.digest(request.group, request.index)
        return control_pb2.ReplicaDigestResponse(digest=digest)

    async def RepairReplica(  # noqa: N802
        self, request: control_pb2.RepairReplicaRequest, context: Any
    ) -> control_pb2.RepairReplicaResponse:
        """Our replica's digest is another one than the majority's."""
        del context
        if self._scrubber is not None:
            self._scrubber.repair(request.group, request.index, request.digest)
        return control_pb2.RepairReplicaResponse()

    async def Scrub(  # noqa: N802
        self, request: control_pb2.ScrubRequest, context: Any
    ) -> control_pb2.ScrubResponse:
        """Compare the replicas of a group that is led here; answers when that is done."""
        try:
            if self._scrubber is None:
                raise NotCompared("this node does not scrub")
            comparison = await self._scrubber.scrub(request.group)
        except NotCompared as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise  # never: abort does
        return control_pb2.ScrubResponse(
            index=comparison.index,
            replicas=[
                control_pb2.ScrubResponse.Verdict(
                    replica_id=member.replica_id, node_id=member.node_id, verdict=verdict.value
                )
                for member, verdict in comparison.verdicts.items()
            ],
        )

    async def FetchSnapshot(  # noqa: N802
        self, request: control_pb2.FetchSnapshotRequest, context: Any
    ) -> AsyncIterator[control_pb2.SnapshotChunk]:
        """Stream a replica's state, at the reader's pace or at the node's rate, whichever is slower."""
        replica = self._node.replicas.get(GroupId(request.group))
        if replica is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no replica of group {request.group}")
        assert replica is not None
        at_least = max(request.at_least_index, replica.engine_held.index)
        if not replica.standing.serves or replica.applied_index < at_least:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this replica has no sound state at {at_least}",
            )
        try:
            with self._sender.hold(replica, request) as held:
                async for chunk in self._sender.stream(held, request, self._own().node_id):
                    yield chunk
        except (Corruption, EngineFailure) as error:
            replica.fail(str(error))
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except Unsound as error:
            await context.abort(grpc.StatusCode.DATA_LOSS, str(error))
        except Busy as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))


def _first_state(partition: control_pb2.Partition) -> ReplicaState:
    return ReplicaState(
        STATE_VERSION,
        partition.table_id,
        partition.start,
        partition.end,
        partition.epoch,
        feed_enabled=partition.group == CATALOG_GROUP,
    )


def _members(replicas: Iterable[control_pb2.Replica]) -> Configuration:
    return Configuration(
        tuple(
            Member(ReplicaId(each.replica_id), NodeId(each.node_id), each.is_learner)
            for each in replicas
        )
    )


class GrpcDigests:
    """`scrubbing.DigestClient` over gRPC. Rare: a channel per question."""

    def __init__(self, open_channel: Callable[..., Any] = grpc.aio.insecure_channel) -> None:
        """Create; `open_channel` as `grpc.aio.insecure_channel`."""
        self._open_channel = open_channel

    async def digest(self, peer: Peer, group: int, index: int) -> bytes | None:
        """See `DigestClient`."""
        request = control_pb2.ReplicaDigestRequest(group=group, index=index)
        answer = await self._ask(peer, lambda s: s.ReplicaDigest(request, timeout=DIGEST_TIMEOUT_S))
        return bytes(answer.digest) if answer is not None and answer.HasField("digest") else None

    async def repair(self, peer: Peer, group: int, index: int, digest: bytes) -> bool:
        """See `DigestClient`."""
        request = control_pb2.RepairReplicaRequest(group=group, index=index, digest=digest)
        answer = await self._ask(peer, lambda s: s.RepairReplica(request, timeout=DIGEST_TIMEOUT_S))
        return answer is not None

    async def _ask(self, peer: Peer, call: Callable[[Any], Any]) -> Any:
        async with self._open_channel(peer.grpc) as channel:
            try:
                return await call(control_pb2_grpc.StorageControlStub(channel))  # type: ignore[no-untyped-call]
            except grpc.aio.AioRpcError as error:
                log.info("no digest", extra={"node": peer.node_id, "reason": str(error.code())})
                return None
