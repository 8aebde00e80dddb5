"""What must hold of a simulated cluster: after every turn, at moments of rest, and in the end."""

import zlib
from typing import Any

from msgspec import structs

from datamodel.items import Item, decode_item, item_size
from datamodel.key_encoding import (
    ITEMS_PART,
    SIZE_PART,
    collection_size_key,
    encode_entry_key,
    part_of,
)
from datamodel.stored_items import check_record, record_body, record_size
from storagenode.engines.engine import DATA, data_range, feed_range
from storagenode.replicas.log_entries import encode_state
from storagenode.replicas.replica import Replica
from storagenode.replicas.request_memory import RememberedRequests
from tests.cluster.linearizability import Operation, find_violation, register_model
from tests.simulation.cluster_logs import Logs
from tests.simulation.cluster_processes import StorageProcess
from tests.simulation.cluster_walks import INDEXES
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
        self._logs = Logs(world)
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
        high = self._high.get((process.node_id, group), 0)
        if replica.applied_index > high:
            self._high[process.node_id, group] = replica.applied_index
        raft: Any = standing.group
        if raft.is_failed:
            return
        self._logs.look(process.name, process.life, raft)
        if not raft._core.is_leader:
            return
        key = (group, raft.term)
        life = (process.name, process.life)
        if key not in self._leaders:
            self._leaders[key] = life
            self._world.log("LEADER", process.name, f"group {group} term {raft.term}")
            self._world.stats["elections"] += 1
            self._logs.elected(process.name, raft)
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
            if (
                node.is_running
                and not node.product.apply_round.is_dirty
                and not node.machine.is_damaged
            ):
                for group, replica in node.replicas.items():
                    self._compare(node, group, replica)
        self._world.after(SAMPLE_S, self._sample)

    def _compare(self, node: StorageProcess, group: int, replica: Replica) -> None:
        """Replicas at the same index hold the same; their counters count it."""
        index = replica.applied_index
        if not replica.standing.is_sound or index < self._high.get((node.node_id, group), 0):
            return
        self._world.stats["states compared"] += 1
        digest = self.digest(node, replica)
        known = self._digests.setdefault((group, index), (digest, node.name))
        if known[0] != digest:
            self._world.violate("replicas-differ", (group, index, known[1], node.name))

    def digest(self, node: StorageProcess, replica: Replica) -> int:
        engine = node.machine.engine
        assert engine is not None
        count = size = 0
        items: dict[bytes, Item] = {}
        entries: dict[bytes, bytes] = {}
        # (How long requests are remembered is each replica's own affair.)
        state = structs.replace(replica.capture().state, requests=RememberedRequests())
        crc = zlib.crc32(encode_state(state))
        for key, value in engine.raw(*data_range(replica.start, replica.end)):
            check_record(value, "item")
            if part_of(key, len(DATA)) == ITEMS_PART:
                count += 1
                size += record_size(value)
                items[key[len(DATA) :]] = decode_item(record_body(value))
            else:
                entries[key[len(DATA) :]] = record_body(value)
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        for key, value in engine.raw(*feed_range(replica.group_id)):
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        if (count, size) != (replica.item_count, replica.size_bytes):
            told = (replica.item_count, replica.size_bytes)
            self._world.violate("counters", (node.name, replica.group_id, told, (count, size)))
        if replica.index_figures:
            self._check_indexes(node, replica, items, entries)
        return crc

    def _check_indexes(
        self,
        node: StorageProcess,
        replica: Replica,
        items: dict[bytes, Item],
        entries: dict[bytes, bytes],
    ) -> None:
        """The local indexes hold an entry for each item that has their key, and nothing else."""
        expected: dict[bytes, Item] = {}
        figures = [0] * len(replica.index_figures)
        sizes: dict[bytes, int] = {}
        for key, item in items.items():
            collection = collection_size_key(key)
            sizes[collection] = sizes.get(collection, 0) + item_size(item)
            for number, (attribute, whole) in enumerate(INDEXES.values(), 1):
                if attribute in item:
                    entry = {
                        name: value
                        for name, value in item.items()
                        if whole or name in ("pk", "sk", attribute)
                    }
                    expected[encode_entry_key(key, number, item[attribute])] = entry
                    figures[2 * number - 2] += 1
                    figures[2 * number - 1] += item_size(entry)
                    sizes[collection] += item_size(entry)
        found = {k: decode_item(v) for k, v in entries.items() if part_of(k) != SIZE_PART}
        told = {k: int(v) for k, v in entries.items() if part_of(k) == SIZE_PART}
        if (found, told, replica.index_figures) != (expected, sizes, figures):
            detail = (node.name, replica.group_id, replica.applied_index)
            self._world.violate("index-differs", (detail, found, expected, told, sizes))

    def differences(self, expected: dict[int, set[str]]) -> str:
        """Why the replicas of these groups (node ids by group) are not all there and equal; empty if they are."""
        for group, members in sorted(expected.items()):
            found: dict[tuple[int, int], list[str]] = {}
            for node in self._nodes:
                if node.node_id not in members:
                    continue
                if node.machine.is_damaged:
                    return f"{node.name} is damaged"
                replica = node.replicas.get(group)
                if replica is None or not replica.standing.serves:
                    return f"group {group} is not served by {node.name}"
                if replica.applied_index < self._high.get((node.node_id, group), 0):
                    return f"group {group}: {node.name} is behind its engine"
                state = (replica.applied_index, self.digest(node, replica))
                found.setdefault(state, []).append(node.name)
            there = {name for names in found.values() for name in names}
            if len(found) != 1 or len(there) != len(members):
                return f"group {group}: {found}, members {sorted(members)}"
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
