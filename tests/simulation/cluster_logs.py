"""Raft's own invariants, on the logs of a simulated cluster: looked at after every turn of a storage node.

Log matching (the same index and term: the same entry behind the same predecessor, hence the same log up to there),
one term for each committed index, and leader completeness (a new leader's log has all that leaders of lower terms
committed). Entries are known by a checksum: nothing is kept of them.
"""

import zlib
from typing import Any

from raft.membership import COMMAND_SENTINEL
from tests.simulation.cluster_world import World


class Logs:
    """Everything that the logs of all groups ever said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._entries: dict[tuple[int, int, int], tuple[int, int]] = {}
        # By group and index: the term of what is committed there, and of the leader under which it was seen to be.
        self._committed: dict[int, dict[int, tuple[int, int]]] = {}
        # By group and replica of one life: (last index, its term, commit index) as last looked at.
        self._seen: dict[tuple[int, str, int, int], tuple[int, int, int]] = {}

    def look(self, node: str, life: int, raft: Any) -> None:
        """At one replica (`raft.replica.Replica`)."""
        journal, commit = raft.journal, raft._core.commit_index
        key = (raft.group, node, life, raft.replica_id)
        last, term, seen_commit = self._seen.get(key, (-1, -1, 0))
        end = journal[-1]
        if (last, term, seen_commit) == (end[1], end[2], commit):
            return
        self._seen[key] = (end[1], end[2], commit)
        first = journal[0][1]
        is_longer = first <= last <= end[1] and journal[last - first][2] == term
        for position in range(last - first + 1 if is_longer else 1, len(journal)):
            self._entry(node, raft.group, journal[position - 1], journal[position])
        known = self._committed.setdefault(raft.group, {})
        for index in range(max(seen_commit, first) + 1, min(commit, end[1]) + 1):
            committed = (journal[index - first][2], raft._core.term)
            if known.setdefault(index, committed)[0] != committed[0]:
                self._world.violate("commit-mismatch", (node, raft.group, index, known, committed))

    def _entry(self, node: str, group: int, before: Any, entry: Any) -> None:
        command, index, term = entry
        if before[1] + 1 != index:
            self._world.violate("log-gap", (node, group, before[1], index))
        new = (zlib.crc32(command), before[2])
        known = self._entries.setdefault((group, index, term), new)
        if known[0] != new[0] or (known[1] != new[1] and before[0][0] != COMMAND_SENTINEL):
            self._world.violate("log-matching", (node, group, index, term))

    def elected(self, node: str, raft: Any) -> None:
        """It leads a term now."""
        journal, term = raft.journal, raft._core.term
        first, last = journal[0][1], journal[-1][1]
        for index, (committed, under) in self._committed.get(raft.group, {}).items():
            is_there = index <= first or (index <= last and journal[index - first][2] == committed)
            if under < term and not is_there:
                self._world.violate("leader-incomplete", (node, raft.group, term, index))
