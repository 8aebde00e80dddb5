"""One group's log: in memory as a list of (command, index, term), on disk as records of the node's log.

The consensus core calls this object as its journal (hence pysyncobj's method names) and reads it as a list. The
first element is never sent or applied: it is what the log stands on (a sentinel, or the last entry that was cut
off). Everything that is changed here is handed to `NodeLog` in the order of the changes; nothing is written
lazily but the commit index, which waits for the next batch (it is volatile in Raft) unless it covers a
configuration entry: forgetting that one could revive an old majority.
"""

from dataclasses import dataclass
from typing import Protocol

from raft.group import Configuration, LogIndex, ReplicaId, Term
from raft.membership import COMMAND_CONFIGURATION, SENTINEL_COMMAND
from raft.wire import Entry

# What an entry takes beside its command, in memory and on disk; both are near this.
ENTRY_OVERHEAD_BYTES = 96


class ReplicaFailure(Exception):
    """This replica's state contradicts what Raft guarantees: it must stop and never go on from memory."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The owner's state at `index` is durable; `configuration` was in force there."""

    index: LogIndex
    term: Term
    configuration: Configuration
    state: bytes


class JournalRecords(Protocol):
    """Where a journal's changes go to become durable; there is one, `node_log.NodeLog`."""

    durable_batch: int

    def touch(self, journal: "GroupJournal") -> int:
        """This journal has a record in the gathering batch, whose number is returned."""

    def record_entry(self, group: int, command: bytes, index: int, term: int) -> None:
        """Queue an entry."""

    def record_truncation(self, group: int, index: int) -> None:
        """Queue a truncation."""

    def record_term(self, group: int, term: int, voted_for: int | None) -> None:
        """Queue a term and vote."""

    def record_commit(self, group: int, commit: int) -> None:
        """Queue a commit index."""

    def note_commit(self, journal: "GroupJournal") -> None:
        """The commit index may go with the next batch, whenever that is."""

    def record_checkpoint(self, journal: "GroupJournal", first_index: int) -> None:
        """Queue the journal's checkpoint."""

    def record_base(self, journal: "GroupJournal") -> None:
        """Queue all that the journal holds, anew."""


class GroupJournal(list[Entry]):
    """See the module. Built by `NodeLog` only."""

    __slots__ = (
        "_configuration_indexes",
        "_log",
        "checkpoint",
        "commit",
        "commit_batch",
        "group",
        "last_batch",
        "log_bytes",
        "replica_id",
        "root_batch",
        "root_segment",
        "term",
        "term_batch",
        "voted_for",
    )

    def __init__(
        self,
        log: JournalRecords,
        group: int,
        replica_id: ReplicaId,
        checkpoint: Checkpoint,
        entries: list[Entry],
        *,
        term: int,
        voted_for: int | None,
        commit: int,
    ) -> None:
        super().__init__(entries)
        self._log = log
        self.group = group
        self.replica_id = replica_id
        self.checkpoint = checkpoint
        self.term = term
        self.voted_for = voted_for
        self.commit = commit
        self.last_batch = 0  # number of the batch with this group's latest record
        self.term_batch = 0  # ... with its latest term or vote
        self.commit_batch = 0  # ... with the latest commit that covers a configuration entry
        self.root_segment = 0  # where this group's records begin that still count
        self.root_batch = 0
        self._recount()

    def _recount(self) -> None:
        self.log_bytes = sum(len(entry[0]) + ENTRY_OVERHEAD_BYTES for entry in self)
        self._configuration_indexes = [
            entry[1] for entry in self[1:] if entry[0][0] == COMMAND_CONFIGURATION
        ]

    @property
    def is_durable(self) -> bool:
        """Whether all that was recorded here (but commit indexes of ordinary entries) is on disk."""
        return self.last_batch <= self._log.durable_batch

    @property
    def is_term_durable(self) -> bool:
        """Whether the current term and vote are on disk."""
        return self.term_batch <= self._log.durable_batch

    @property
    def is_configuration_durable(self) -> bool:
        """Whether the disk knows of every committed configuration entry that memory knows of."""
        return self.commit_batch <= self._log.durable_batch

    def entry_at(self, index: int) -> Entry:
        """The entry at `index`, which must lie in the log."""
        return self[index - self[0][1]]

    def term_at(self, index: int) -> int:
        """Its term."""
        return self.entry_at(index)[2]

    def learn_commit(self, index: int, term: int) -> bool:
        """The entry was committed, by the owner's word, who applied it. False if the log cannot have held it."""
        if index <= self[0][1]:
            return True
        if index > self[-1][1] or self.term_at(index) != term:
            return False
        self.commit = max(self.commit, index)
        return True

    def _touch(self) -> None:
        self.last_batch = self._log.touch(self)

    # pysyncobj's journal

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append an entry."""
        self.append((command, index, term))
        self.log_bytes += len(command) + ENTRY_OVERHEAD_BYTES
        if command[0] == COMMAND_CONFIGURATION:
            self._configuration_indexes.append(index)
        self._log.record_entry(self.group, command, index, term)
        self._touch()

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        """Cut the tail off, from a list position on. Never at or below the commit index."""
        if position >= len(self):
            return
        index = self[position][1]
        if index <= self.commit or position < 1:
            raise ReplicaFailure(f"truncation at {index}, committed up to {self.commit}")
        self.log_bytes -= sum(len(entry[0]) + ENTRY_OVERHEAD_BYTES for entry in self[position:])
        del self[position:]
        while self._configuration_indexes and self._configuration_indexes[-1] >= index:
            self._configuration_indexes.pop()
        self._log.record_truncation(self.group, index)
        self._touch()

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:  # noqa: N802
        """Term and vote, always written together."""
        self.term = term
        self.voted_for = None if voted_for is None else int(voted_for)
        self._log.record_term(self.group, term, self.voted_for)
        self._touch()
        self.term_batch = self.last_batch

    def getCurrentTerm(self) -> int:  # noqa: N802
        """The term, as recovered."""
        return self.term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802
        """The vote, as recovered."""
        return self.voted_for

    def setRaftCommitIndex(self, commit: int) -> None:  # noqa: N802
        """Remember; write it with the next batch, or make a batch of it if a configuration entry is covered."""
        before = self.commit
        if commit == before:
            return
        self.commit = commit
        pending = self._configuration_indexes
        if pending and pending[0] <= commit:
            while pending and pending[0] <= commit:
                del pending[0]
            self._log.record_commit(self.group, commit)
            self._touch()
            self.commit_batch = self.last_batch
        else:
            self._log.note_commit(self)

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """The commit index, never past the end: what was committed may have outlived its entries' sync."""
        return min(self.commit, self[-1][1])

    def clear(self) -> None:
        """Never: the core would do so only when it loads a dump."""
        raise ReplicaFailure("the core tried to clear the log")

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """Never by the core: compaction is ours (`set_checkpoint`)."""
        raise ReplicaFailure("the core tried to compact the log")

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Nothing is written lazily."""

    def _destroy(self) -> None:
        """The node's log outlives a group."""

    # ours

    def set_checkpoint(self, checkpoint: Checkpoint, first_index: int) -> None:
        """Everything up to the checkpoint is durable in the engine; drop what is below `first_index`."""
        position = first_index - self[0][1]
        assert 0 <= position < len(self)
        assert first_index <= checkpoint.index <= self[-1][1]
        self.checkpoint = checkpoint
        if position:
            self.log_bytes -= sum(len(entry[0]) + ENTRY_OVERHEAD_BYTES for entry in self[:position])
            del self[:position]
        self._log.record_checkpoint(self, first_index)
        self._touch()

    def reset(self, checkpoint: Checkpoint) -> None:
        """A snapshot was installed: stand on it, keeping the tail only if it continues that very entry."""
        position = checkpoint.index - self[0][1]
        if 0 <= position < len(self) and self[position][2] == checkpoint.term:
            del self[:position]
        else:
            self[:] = [(SENTINEL_COMMAND, checkpoint.index, checkpoint.term)]
        self.checkpoint = checkpoint
        self.commit = max(self.commit, int(checkpoint.index))
        self._recount()
        self.write_base()
        self.commit_batch = self.last_batch

    def write_base(self) -> None:
        """Write the whole group anew, so that no earlier record of it is needed."""
        self._log.record_base(self)
        self._touch()
        self.term_batch = self.last_batch

    def keep_from(self, index: int, slack_entries: int, slack_bytes: int, peers: int) -> int:
        """Where the log may begin once the engine is durable up to `index`.

        Args:
            index: The new checkpoint.
            slack_entries: This many latest entries stay for followers that lag a little.
            slack_bytes: Entries stay for slack or for peers only while they take no more than this.
            peers: The lowest match index of the peers (this log's end if none is known).
        """
        wanted = min(index, self[-1][1] - slack_entries, peers)
        return min(index, self.reach(wanted, slack_bytes))

    def reach(self, wanted: int, bytes_max: int) -> int:
        """The lowest index from `wanted` on behind which the log has no more than `bytes_max`."""
        first = self[0][1]
        size = 0
        floor = self[-1][1]
        while floor > first and floor > wanted:
            size += len(self[floor - first][0]) + ENTRY_OVERHEAD_BYTES
            if size > bytes_max:
                break
            floor -= 1
        return floor
