"""How a set of empty storage nodes becomes a cluster, and how a node finds the cluster it belongs to.

`decide` is the decision, pure. Nodes that hear of the same disks decide the same, so no node has to tell
another: group 0's members and the cluster's id follow from the node ids of the initial nodes. A cluster is
created only when all initial nodes are there and say, asked after all of them were there, that they know none.

A disk that lost its data has a new node id. It never becomes the member that the old disk was: the
acknowledgements of the old one were counted (raft-on-pysyncobj, hazard R).
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from proto.messages import Catalog, Hello, ReplicaAddress
from raft.group import Environment, NodeId, Timer
from storagenode.data_directory import Identity
from storagenode.peers import Peers

log = logging.getLogger(__name__)

CATALOG_REPLICAS_MAX = 3
ASK_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class InitialNode:
    """One node of `--initial-cluster`."""

    name: str
    az: str
    address: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a reachable node says: who it is, and the cluster it knows of (None while it was not asked)."""

    node_id: str
    name: str
    az: str
    address: str
    catalog: Catalog | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Not enough is known; `reason` is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Belong:
    """There is (now) a cluster with these replicas of the catalog; `replica_id` is ours, if we hold one."""

    cluster_id: str
    replicas: tuple[ReplicaAddress, ...]
    replica_id: int | None
    created: bool
    position: int = 0


Decision: TypeAlias = Wait | Belong


def decide(
    own: Identity, own_address: str, initial: Sequence[InitialNode], reports: Sequence[Report]
) -> Decision:
    """What an empty node is to do.

    Args:
        own: Our disk.
        own_address: Where others reach our link port.
        initial: Nodes that form the first cluster.
        reports: What the nodes that we reach said, each since all of `initial` were reachable.
    """
    known = [r.catalog for r in reports if r.catalog is not None and r.catalog.replicas]
    if known:
        newest = max(known, key=lambda catalog: catalog.position)
        if not newest.cluster_id:
            return Wait("a cluster is being founded")  # its founder's disk does not have it yet
        return Belong(
            newest.cluster_id,
            tuple(newest.replicas),
            _founding_replica(own, initial, newest.replicas),
            created=False,
            position=newest.position,
        )
    if any(report.catalog is not None and report.catalog.cluster_id for report in reports):
        return Wait("a cluster exists, but nobody has said yet where its catalog is")
    if own.replaces_damaged:
        # Were the data of all nodes set aside at once, an empty cluster would else take the place of theirs.
        return Wait("damaged data of this node was set aside: it founds no new cluster")
    if all(node.name != own.name for node in initial):
        return Wait("not an initial node, and no cluster found yet")
    by_name = {report.name: report for report in reports}
    others = [node for node in initial if node.name != own.name]
    missing = sorted(node.name for node in others if node.name not in by_name)
    if missing:
        return Wait(f"initial nodes not heard from: {', '.join(missing)}")
    if any(by_name[node.name].catalog is None for node in others):
        return Wait("initial nodes have not said yet whether they know a cluster")
    disks = {own.name: Report(own.node_id, own.name, own.az, own_address, None)}
    disks.update((node.name, by_name[node.name]) for node in others)
    members = _first_members(disks)
    cluster_id = hashlib.sha256(
        "\n".join(sorted(disk.node_id for disk in disks.values())).encode()
    ).hexdigest()
    replicas = tuple(
        ReplicaAddress(number, disks[name].node_id, disks[name].address, disks[name].az)
        for number, name in enumerate(members, 1)
    )
    replica_id = members.index(own.name) + 1 if own.name in members else None
    return Belong(cluster_id, replicas, replica_id, created=True)


def _founding_replica(
    own: Identity, initial: Sequence[InitialNode], replicas: Sequence[ReplicaAddress]
) -> int | None:
    """Our replica of the catalog, if the catalog's members are still the founding ones: we may have missed the
    founding. Members that came later are opened blank, by the control plane.
    """
    count = min(CATALOG_REPLICAS_MAX, len(initial))
    if sorted(replica.replica_id for replica in replicas) != list(range(1, count + 1)):
        return None
    return next((r.replica_id for r in replicas if r.node_id == own.node_id), None)


def _first_members(disks: Mapping[str, Report]) -> list[str]:
    """Names of the nodes that hold the catalog: one per zone first, then whoever is left, in order of names."""
    names = sorted(disks)
    zones: set[str] = set()
    members = []
    for name in names:
        if disks[name].az not in zones:
            zones.add(disks[name].az)
            members.append(name)
    members += [name for name in names if name not in members]
    return sorted(members[:CATALOG_REPLICAS_MAX])


def has_forgotten(own: Identity, belong: Belong) -> bool:
    """Whether a founding replica of ours that is not in the log was there once: asked when it is not found.

    The identity names its cluster only once that replica is durable. Its votes and acknowledged writes are gone
    with the log; created anew under its old id it would be counted as still holding them.
    """
    return belong.replica_id is not None and bool(own.cluster_id)


class Bootstrap:
    """Asks around until the node knows its cluster, then calls `on_cluster` once."""

    def __init__(
        self,
        own: Identity,
        own_address: str,
        initial: Sequence[InitialNode],
        peers: Peers,
        environment: Environment,
        on_cluster: Callable[[Belong], None],
    ) -> None:
        self._own = own
        self._own_address = own_address
        self._initial = initial
        self._peers = peers
        self._environment = environment
        self._on_cluster = on_cluster
        self._answers: dict[
            str, Catalog
        ] = {}  # by node id, since the last change of who is reachable
        self._timer: Timer | None = None
        self._reason = ""
        self._ended = False

    def start(self) -> None:
        """Begin to ask."""
        self._peers.on_catalog = self._heard
        self._peers.listen(self)
        self._ask()
        self._consider()

    def stop(self) -> None:
        """Ask no more."""
        self._ended = True
        self._peers.on_catalog = None
        if self._timer is not None:
            self._timer.cancel()

    def peer_up(self, node: NodeId) -> None:
        """Answers from before count no more: somebody may have another disk now."""
        del node
        if not self._ended:
            self._answers.clear()
            self._peers.discover()

    def peer_down(self, node: NodeId) -> None:
        """Likewise."""
        self.peer_up(node)

    def _ask(self) -> None:
        if not self._ended:
            self._peers.discover()
            self._timer = self._environment.call_later(ASK_INTERVAL_S, self._ask)

    def _heard(self, hello: Hello, catalog: Catalog) -> None:
        if not self._ended:
            self._answers[hello.node_id] = catalog
            self._consider()

    def _consider(self) -> None:
        reports = [
            Report(h.node_id, h.name, h.az, h.address, self._answers.get(h.node_id))
            for h in self._peers.up()
        ]
        decision = decide(self._own, self._own_address, self._initial, reports)
        if isinstance(decision, Wait):
            if decision.reason != self._reason:
                self._reason = decision.reason
                log.info("waiting for a cluster", extra={"reason": decision.reason})
            return
        self.stop()
        self._on_cluster(decision)
