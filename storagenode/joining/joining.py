"""A node's way into its cluster: found or find it, hold the catalog's replica if one is ours, register.

A node that holds a replica of the catalog and knows its cluster has only to register. Any other asks around first
(`bootstrap`), also one that knows its cluster: where the catalog is may have changed.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from datamodel.catalog_rows import CATALOG_RANGE, SYSTEM_TABLE_ID, NodeRow
from proto.addresses import format_address, parse_listen
from proto.cluster_client import ClusterClient
from raft.group import Configuration, Environment, GroupId, Host, Member, NodeId, ReplicaId
from storagenode.data_directory import Peer
from storagenode.joining.bootstrap import Belong, Bootstrap, InitialNode, has_forgotten
from storagenode.joining.catalog_watch import watch_catalog
from storagenode.joining.presence import Presence
from storagenode.joining.registration import register
from storagenode.node import CATALOG_GROUP, Node, ReplicaRefused
from storagenode.peers import Peers
from storagenode.replicas.log_entries import STATE_VERSION, ReplicaState

log = logging.getLogger(__name__)


class Joining:
    """Of one node, once per start."""

    def __init__(
        self,
        presence: Presence,
        initial: Sequence[InitialNode],
        node: Node,
        host: Host,
        peers: Peers,
        environment: Environment,
        wall_clock: Callable[[], float],
        connect: Callable[[Sequence[str]], ClusterClient],
        spawn: Callable[[Awaitable[None]], object],
        on_foreign: Callable[[], NoReturn],
    ) -> None:
        """Create; `start` begins.

        Args:
            presence: Who this node is.
            initial: Nodes that form, or formed, the cluster.
            node: Its replicas.
            host: Raft.
            peers: The other nodes.
            environment: Clock and scheduling.
            wall_clock: Unix seconds.
            connect: Makes a client of the cluster from addresses of storage nodes, not started.
            spawn: Runs something beside the loop's callbacks.
            on_foreign: The disk belongs to another cluster; ends the process.
        """
        self._presence = presence
        self._initial = initial
        self._node = node
        self._host = host
        self._peers = peers
        self._environment = environment
        self._wall_clock = wall_clock
        self._connect = connect
        self._spawn = spawn
        self._on_foreign = on_foreign
        self._bootstrap: Bootstrap | None = None

    def start(self) -> None:
        """Begin; the peers are being dialled."""
        presence = self._presence
        if presence.identity.cluster_id and CATALOG_GROUP in self._node.replicas:
            self._take_part()
        else:
            self._bootstrap = Bootstrap(
                presence.identity,
                presence.link,
                self._initial,
                self._peers,
                self._environment,
                self._found_cluster,
            )
            self._bootstrap.start()

    def stop(self) -> None:
        """Ask around no more."""
        if self._bootstrap is not None:
            self._bootstrap.stop()

    def _found_cluster(self, belong: Belong) -> None:
        """We know our cluster now: remember it, and hold the catalog's replica if one is ours."""
        identity = self._presence.identity
        if identity.cluster_id and identity.cluster_id != belong.cluster_id:
            log.critical(
                "this disk belongs to another cluster",
                extra={"ours": identity.cluster_id, "theirs": belong.cluster_id},
            )
            self._on_foreign()
        self._node.catalog = belong.replicas
        self._node.catalog_position = belong.position
        self._peers.learn(
            (
                Peer(replica.node_id, replica.node_id, replica.az, replica.address)
                for replica in belong.replicas
            ),
            hearsay=True,
        )
        if has_forgotten(identity, belong):
            log.error(
                "the catalog's replica is not on this disk any more: not created again. "
                "If its log was lost, empty the data directory: it returns as a new disk",
                extra={"node": identity.node_id, "replica": belong.replica_id},
            )
        elif belong.replica_id is not None:
            self._hold_catalog(belong, ReplicaId(belong.replica_id))
        elif any(
            replica.node_id.rpartition(".")[0] == identity.name for replica in belong.replicas
        ):
            log.warning(
                "an older disk of this node had a replica of the catalog: this one begins blank",
                extra={"node": identity.node_id},
            )
        self._host.when_durable(lambda: self._joined(belong))

    def _hold_catalog(self, belong: Belong, replica_id: ReplicaId) -> None:
        members = tuple(
            Member(ReplicaId(replica.replica_id), NodeId(replica.node_id))
            for replica in belong.replicas
        )
        start, end = CATALOG_RANGE
        state = ReplicaState(STATE_VERSION, SYSTEM_TABLE_ID, start, end, 1, feed_enabled=True)
        try:
            self._node.open_replica(
                GroupId(CATALOG_GROUP),
                replica_id,
                Configuration(members),
                state,
                campaign=replica_id == 1,
            )
        except ReplicaRefused as error:
            # It was moved away from here; whoever told us does not know yet.
            log.warning("no replica of the catalog here", extra={"reason": str(error)})

    def _joined(self, belong: Belong) -> None:
        # Only now: a node that says it belongs to a cluster must not forget its part in it.
        self._presence.belongs_to(belong.cluster_id)
        log.info(
            "cluster founded" if belong.created else "cluster found",
            extra={"cluster": belong.cluster_id, "replica": belong.replica_id},
        )
        self._take_part()

    def _take_part(self) -> None:
        presence = self._presence
        identity = presence.identity
        self._spawn(watch_catalog(self._node, self._peers))
        addresses = {presence.link, *(node.address for node in self._initial)}
        addresses.update(replica.address for replica in self._node.catalog)
        row = NodeRow(
            identity.node_id,
            identity.name,
            identity.az,
            presence.link,
            presence.grpc,
            format_address(parse_listen(presence.link)[0], parse_listen(presence.metrics)[1]),
            int(self._wall_clock() * 1000),
        )
        self._spawn(_register(self._connect(sorted(addresses)), row))


async def _register(client: ClusterClient, row: NodeRow) -> None:
    client.start()
    try:
        await register(client, row)
    finally:
        client.stop()
