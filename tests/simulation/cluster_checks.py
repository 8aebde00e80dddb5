"""What must hold of a simulated cluster: after every turn, at moments of rest, and in the end."""

import zlib
from typing import Any

from msgspec import structs

from datamodel.stored_items import check_record, record_size
from storagenode.engine import data_range, feed_range
from storagenode.log_entries import encode_state
from storagenode.replica import Replica
from storagenode.request_memory import RememberedRequests
from tests.cluster.linearizability import Operation, find_violation, register_model
from tests.simulation.cluster_processes import StorageProcess
from tests.simulation.cluster_world import BadNews, Process, World

SAMPLE_S = 0.2
STEPS_MAX = 300_000


def model(state: Any, operation: Operation) -> tuple[Any] | None:
    """`register_model`, and writes that return what was there or compare it."""
    argument, result, unknown = operation.argument, operation.result, operation.is_unknown
    match operation.kind:
        case "exchange" | "take":  # PutItem and DeleteItem that return the old value
            return (argument,) if unknown or result == state else None
        case "swap":
            expected, new = argument
            done = state == expected
            if not unknown and result is not done:
                return None
            return (new,) if done else (state,)
    return register_model(state, operation)


class Checker:
    """Watches the storage nodes of a world."""

    def __init__(self, world: World, nodes: list[StorageProcess], news: BadNews) -> None:
        self._world = world
        self._nodes = nodes
        self._news = news
        self._leaders: dict[tuple[int, int], tuple[str, int]] = {}
        self._digests: dict[tuple[int, int], tuple[int, str]] = {}
        # By node and group: what its engine may hold already, although a new life has not applied it yet.
        self._high: dict[tuple[str, int], int] = {}
        world.after_turn = self.after_turn
        world.after(SAMPLE_S, self._sample)

    def after_turn(self, process: Process) -> None:
        if self._news.found:
            self._world.violate(*self._news.found[0])
        if isinstance(process, StorageProcess):
            for group, replica in process.replicas.items():
                self._check_leader(process, group, replica)

    def _check_leader(self, process: StorageProcess, group: int, replica: Replica) -> None:
        """One incarnation leads a term; leases of two replicas never overlap."""
        standing = replica.standing
        high = self._high.get((process.name, group), 0)
        if replica.applied_index > high:
            self._high[process.name, group] = replica.applied_index
        raft = standing.group
        if not raft._core.is_leader:
            return
        key = (group, raft.term)
        life = (process.name, process.life)
        if key not in self._leaders:
            self._leaders[key] = life
            self._world.log("LEADER", process.name, f"group {group} term {raft.term}")
            self._world.stats["elections"] += 1
        elif self._leaders[key] != life:
            self._world.violate("two-leaders", (key, self._leaders[key], life))
        if _has_lease(raft):
            for other in self._nodes:
                if other is not process and other.is_running:
                    theirs = other.replicas.get(group)
                    if theirs is not None and _has_lease(theirs.standing.group):
                        self._world.violate("leases-overlap", (group, process.name, other.name))

    # states

    def _sample(self) -> None:
        for node in self._nodes:
            if node.is_running and not node.product.apply_round.is_dirty:
                for group, replica in node.replicas.items():
                    self._compare(node, group, replica)
        self._world.after(SAMPLE_S, self._sample)

    def _compare(self, node: StorageProcess, group: int, replica: Replica) -> None:
        """Replicas at the same index hold the same; their counters count it."""
        index = replica.applied_index
        if not replica.standing.is_sound or index < self._high.get((node.name, group), 0):
            return
        self._world.stats["states compared"] += 1
        digest = self.digest(node, replica)
        known = self._digests.setdefault((group, index), (digest, node.name))
        if known[0] != digest:
            self._world.violate("replicas-differ", (group, index, known[1], node.name))

    def digest(self, node: StorageProcess, replica: Replica) -> int:
        count = size = 0
        # (How long requests are remembered is each replica's own affair.)
        state = structs.replace(replica.capture().state, requests=RememberedRequests())
        crc = zlib.crc32(encode_state(state))
        for key, value in node.engine.iterate(*data_range(replica.start, replica.end)):
            check_record(value, "item")
            count += 1
            size += record_size(value)
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        for key, value in node.engine.iterate(*feed_range(replica.group_id)):
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        if (count, size) != (replica.item_count, replica.size_bytes):
            told = (replica.item_count, replica.size_bytes)
            self._world.violate("counters", (node.name, replica.group_id, told, (count, size)))
        return crc

    def differences(self, expected: dict[int, set[str]]) -> str:
        """Why the replicas of these groups (node ids by group) are not all there and equal; empty if they are."""
        for group, members in sorted(expected.items()):
            found: dict[tuple[int, int], list[str]] = {}
            for node in self._nodes:
                if node.machine.identity.node_id not in members:
                    continue
                replica = node.replicas.get(group)
                if replica is None or not replica.standing.serves:
                    return f"group {group} is not served by {node.name}"
                if replica.applied_index < self._high.get((node.name, group), 0):
                    return f"group {group}: {node.name} is behind its engine"
                state = (replica.applied_index, self.digest(node, replica))
                found.setdefault(state, []).append(node.name)
            if len(found) != 1:
                return f"group {group}: {found}"
        return ""


def _has_lease(raft: Any) -> bool:
    """Whether it would answer strong reads by its lease, without any effect."""
    leadership = raft.guard.leadership
    return (
        raft._core.is_leader
        and not raft.is_failed
        and leadership.term == raft._core.term
        and raft._host.now() < leadership.lease_until
    )


def check_histories(world: World, histories: dict[str, list[Operation]]) -> None:
    for key, history in histories.items():
        try:
            found = find_violation(history, model, steps_max=STEPS_MAX)
        except RuntimeError:
            world.stats["undecided"] += 1
            continue
        world.stats["histories"] += 1
        if found is not None:
            for operation in sorted(history, key=lambda o: o.invoked):
                world.log("HISTORY", key, operation)
            world.violate("not-linearizable", (key, found))
