"""Which disks are gone for good, and where the replicas that they had go. Pure.

A disk (node id) is gone when a newer disk registered under the node's name, or when its node has not answered
for a long time. The first is certain: a node whose data directory was lost or set aside starts with a new node
id, and the old one is never used again. The second is a judgement, hence the long time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from admin.placement import Candidate
from datamodel.catalog_rows import PartitionRow, ReplicaRow
from proto.catalog_view import CatalogView


@dataclass(frozen=True, slots=True)
class LostReplica:
    """A replica on a disk that is gone."""

    group: int
    replica_id: int
    node_id: str


def is_superseded(view: CatalogView, node_id: str) -> bool:
    """Whether a newer disk of the same node has registered. An unregistered disk has its name in its id."""
    row = view.nodes.get(node_id)
    name = node_id.rpartition(".")[0] if row is None else row.name
    return any(n.name == name and n.node_id != node_id for n in view.current_nodes())


def choose_target(
    members: Mapping[int, str], lost: LostReplica, candidates: Sequence[Candidate]
) -> str | None:
    """The node that is to hold a replica instead of the lost one; None if there is no suitable one now.

    Args:
        members: Node ids of all of the group's members, by replica id.
        lost: One of them.
        candidates: All current nodes with their load.
    """
    taken = set(members.values())
    zones = Counter(
        candidate.az
        for candidate in candidates
        if candidate.node_id in taken and candidate.node_id != lost.node_id
    )
    free = [c for c in candidates if c.is_live and c.node_id not in taken]
    best = min(free, key=lambda c: (zones[c.az], c.replicas, c.node_id), default=None)
    return None if best is None else best.node_id


def with_replicas(partition: PartitionRow, replicas: Mapping[int, str]) -> PartitionRow:
    """The next version of a partition's row, with these replicas (node ids by replica id)."""
    return replace(
        partition,
        replicas=tuple(ReplicaRow(number, node) for number, node in sorted(replicas.items())),
        epoch=partition.epoch + 1,
        version=partition.version + 1,
    )
