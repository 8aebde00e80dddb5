"""Where replicas go, which of them stands for election first, and when a leadership moves. Pure.

A partition's replicas are on different disks, spread over as many zones as possible; within that the nodes that
have least get the next one. Counts include what this very call has placed, so one call spreads evenly.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

REPLICAS: Final = 3
"""Replicas of a partition where there are nodes enough."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that can hold replicas.

    Attributes:
        node_id: Its disk.
        az: Its zone.
        replicas: How many replicas it has.
        leaders: How many of them lead.
        is_live: Whether it answered just now. One that did not is chosen only for its zone's sake.
    """

    node_id: str
    az: str
    replicas: int = 0
    leaders: int = 0
    is_live: bool = True


def replica_count(nodes: int) -> int:
    """How many replicas a partition gets on so many nodes: an odd number, as one more helps nobody."""
    return REPLICAS if nodes >= REPLICAS else min(nodes, 1)


def place_partitions(candidates: Sequence[Candidate], partitions: int) -> list[tuple[str, ...]]:
    """Node ids for each of so many new partitions, in an order that says nothing.

    Args:
        candidates: At least one, with distinct node ids.
        partitions: How many.
    """
    load = {candidate.node_id: candidate.replicas for candidate in candidates}
    placed = []
    for _ in range(partitions):
        members = _place_one(candidates, load)
        for node_id in members:
            load[node_id] += 1
        placed.append(members)
    return placed


def _place_one(candidates: Sequence[Candidate], load: Mapping[str, int]) -> tuple[str, ...]:
    zones: Counter[str] = Counter()
    zone_load: Counter[str] = Counter()
    for candidate in candidates:
        zone_load[candidate.az] += load[candidate.node_id]
    left = list(candidates)
    members: list[str] = []
    for _ in range(replica_count(len(candidates))):
        best = min(
            left,
            key=lambda c: (zones[c.az], not c.is_live, load[c.node_id], zone_load[c.az], c.node_id),
        )
        left.remove(best)
        zones[best.az] += 1
        members.append(best.node_id)
    return tuple(members)


def choose_first_leaders(
    groups: Mapping[int, Sequence[str]], candidates: Sequence[Candidate]
) -> dict[int, str]:
    """For each new group the node id of the member that shall stand for election first, so that leaders spread.

    Members that do not answer are passed over while another one does.
    """
    known = {candidate.node_id: candidate for candidate in candidates}
    leaders = Counter({candidate.node_id: candidate.leaders for candidate in candidates})
    chosen = {}
    for group in sorted(groups):
        members = groups[group]
        live = [m for m in members if m in known and known[m].is_live] or list(members)
        first = min(live, key=lambda node_id: (leaders[node_id], node_id))
        leaders[first] += 1
        chosen[group] = first
    return chosen


@dataclass(frozen=True, slots=True)
class LedGroup:
    """A group with a leader.

    Attributes:
        group: Which.
        leader: Node id of its leader.
        fit: Node ids of members that could take over at once: voters that answer and have nearly all of the log.
    """

    group: int
    leader: str
    fit: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A leadership to be moved."""

    group: int
    source: str
    target: str


def choose_transfers(groups: Sequence[LedGroup], nodes: Sequence[str]) -> list[Transfer]:
    """Leaderships to move so that nodes lead about as many groups each; none when that is so.

    Each move takes a leadership from a node that leads at least two more than its new leader, so moves never
    undo each other. The same input gives the same moves.

    Args:
        groups: All groups that have a leader.
        nodes: Node ids of those that may lead.
    """
    leaders = Counter(dict.fromkeys(nodes, 0))
    leaders.update(group.leader for group in groups)
    allowed = frozenset(nodes)
    moves = []
    for group in sorted(groups, key=lambda group: group.group):
        targets = [node for node in group.fit if node in allowed and node != group.leader]
        if not targets:
            continue
        target = min(targets, key=lambda node: (leaders[node], node))
        if leaders[group.leader] - leaders[target] >= 2:
            leaders[group.leader] -= 1
            leaders[target] += 1
            moves.append(Transfer(group.group, group.leader, target))
    return moves
