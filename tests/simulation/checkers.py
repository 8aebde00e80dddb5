"""What must hold after every step of a world, per group (raft-on-pysyncobj, section 7)."""

from typing import TYPE_CHECKING

from raft.membership import COMMAND_SENTINEL, voters_of

if TYPE_CHECKING:
    from tests.simulation.world import SimNode, World

Entry = tuple[bytes, int, int]


class Operation:
    """A write as its client saw it."""

    __slots__ = ("acked_at", "index", "is_rejected", "key", "must_exceed", "number")

    def __init__(self, number: int, key: str, must_exceed: int) -> None:
        self.number = number
        self.key = key
        self.must_exceed = must_exceed  # highest index acknowledged before this was invoked
        self.acked_at: float | None = None
        self.index = 0
        self.is_rejected = False


class GroupChecker:
    """History of one group over all replicas, and the invariants on it."""

    def __init__(self, world: "World", group: int, *, is_mute: bool = False) -> None:
        self._world = world
        self._group = group
        self._is_mute = is_mute  # a group that hostile peers speak of: nothing holds
        self._registry: dict[tuple[int, int], tuple[bytes, int]] = {}
        self._committed: dict[int, tuple[Entry, int]] = {}
        self._commit_max = 0
        self._leaders: dict[int, tuple[str, int]] = {}
        self._applied: dict[int, object] = {}
        self.operations: dict[int, Operation] = {}
        self.acked: dict[str, int] = {}
        self.acked_max = 0
        self.read: dict[str, int] = {}

    def _violate(self, kind: str, *detail: object) -> None:
        if not self._is_mute:
            self._world.violate(kind, (self._group, *detail))

    # logs

    def added(self, node: "SimNode", before: Entry, entry: Entry) -> None:
        """(2) One command and one predecessor for each (index, term) ever."""
        command, index, term = entry
        if before[1] + 1 != index:
            self._violate("log-gap", node.name, before[1], index)
        known = self._registry.get((index, term))
        if known is None:
            self._registry[index, term] = (command, before[2])
        elif known[0] != command:
            self._violate("log-matching", node.name, index, term, known[0], command)
        elif known[1] != before[2] and before[0][0] != COMMAND_SENTINEL:
            self._violate("log-matching-before", node.name, index, term, known[1], before[2])

    def removed(self, node: "SimNode", entries: list[Entry]) -> None:
        """(4) Nothing committed that a replica held is gone at the end of a step."""
        journal = node.journal(self._group)
        first = journal[0][1]
        for _, index, term in entries:
            known = self._committed.get(index)
            if known is None or known[0][2] != term or index <= first:
                continue
            position = index - first
            if position >= len(journal) or journal[position][2] != term:
                self._violate("committed-entry-removed", node.name, index, term)

    def committed(self, node: "SimNode", entry: Entry) -> None:
        """(3) First committed by a leader, durable on a majority of its voters; one term per index."""
        _, index, term = entry
        known = self._committed.get(index)
        if known is not None:
            if known[0][2] != term:
                self._violate("commit-mismatch", node.name, known[0], entry)
            return
        replica = node.replica(self._group)
        if replica is None or not replica._core.is_leader:
            self._violate("commit-by-follower", node.name, entry)
        self._committed[index] = (entry, replica._core.term)
        self._commit_max = max(self._commit_max, index)
        voters = set(voters_of(replica.guard.configuration))
        homes = [m for m in replica.guard.configuration.members if m.replica_id in voters]
        copies = 0
        for member in homes:
            home = self._world.nodes[member.node_id]
            # A disk that is lost counts for what it held: it was promised then, and it never comes back.
            shadow = home.lost.get((self._group, int(member.replica_id)))
            if shadow is None:
                shadow = home.shadows.get(self._group)
            copies += shadow is not None and shadow.holds(index, term)
        if 2 * copies <= len(homes):
            self._violate("commit-without-majority", node.name, entry, copies, len(homes))

    def became_leader(self, node: "SimNode", term: int) -> None:
        """(1) One incarnation leads a term. (5) It holds all that lower terms' leaders committed."""
        self._world.stats["elections"] += 1
        self._world.log("LEADER", node.name, self._group, term)
        life = (node.name, node.life)
        durable_term = node.shadows[self._group].hard_state[0] if node.life > 1 else 0
        if not node.replica(self._group).guard.other_voters and durable_term < term:
            # A lone voter's election takes place before its term is durable, and leaves no trace if it dies
            # before that: nothing has left the node.
            self._leaders.pop(term, None)
        if self._leaders.setdefault(term, life) != life:
            self._violate("two-leaders", term, self._leaders[term], life)
        journal = node.journal(self._group)
        first, last = journal[0][1], journal[-1][1]
        for index in range(first + 1, self._commit_max + 1):
            known = self._committed.get(index)
            if known is None or known[1] >= term:
                continue
            if index > last or journal[index - first][2] != known[0][2]:
                self._violate("leader-incomplete", node.name, term, known[0])

    # machines

    def applied(self, node: "SimNode", index: int, what: object) -> None:
        """(6) The same at every index on every replica."""
        if self._applied.setdefault(index, what) != what:
            self._violate("machines-differ", node.name, index, self._applied[index], what)

    # clients

    def acknowledge(self, operation: Operation, index: int) -> None:
        """(7) An acknowledged write comes behind all that were acknowledged before it was invoked."""
        operation.acked_at = self._world.now
        operation.index = index
        self._world.stats["acks"] += 1
        if index <= operation.must_exceed:
            self._violate("write-order", operation.number, index, operation.must_exceed)
        self.acked[operation.key] = max(self.acked.get(operation.key, 0), index)
        self.acked_max = max(self.acked_max, index)

    def read_floor(self, key: str) -> int:
        """What a read invoked now must see at least."""
        return max(self.acked.get(key, 0), self.read.get(key, 0))

    def answered(self, node: "SimNode", how: str, key: str, index: int, floor: int) -> None:
        """(8) A strong read sees what was acknowledged or read before it was invoked."""
        self._world.stats[how] += 1
        if index < floor:
            self._violate("stale-" + how, node.name, key, index, floor)
        self.read[key] = max(self.read.get(key, 0), index)

    def check_end(self, history: list[tuple[int, int]]) -> None:
        """(7) The final history holds what was acknowledged, and nothing that was rejected."""
        positions = {number: index for index, number in history}
        if len(positions) != len(history):
            self._violate("applied-twice", len(history) - len(positions))
        for operation in self.operations.values():
            index = positions.get(operation.number)
            if operation.acked_at is not None and index != operation.index:
                self._violate("acknowledged-write-lost", operation.number, operation.index, index)
            if operation.is_rejected and index is not None:
                self._violate("rejected-write-applied", operation.number, index)
