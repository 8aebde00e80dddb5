"""The product's journal and guard, telling the checkers what happens to them."""

from typing import TYPE_CHECKING

from raft.guard import Guard
from raft.journal import GroupJournal

if TYPE_CHECKING:
    from tests.simulation.checkers import GroupChecker
    from tests.simulation.node import SimNode


class ObservedJournal(GroupJournal):
    """The product's journal, telling the checkers what happens to it."""

    __slots__ = ("node", "seen")

    def __init__(self, node: "SimNode", *args: object, **named: object) -> None:
        super().__init__(*args, **named)
        self.node = node
        self.seen = self.checkpoint.index

    def _checker(self) -> "GroupChecker":
        return self.node.world.checkers[self.group]

    def add(self, command: bytes, index: int, term: int) -> None:
        self._checker().added(self.node, self[-1], (command, index, term))
        super().add(command, index, term)
        self.node.shadow_note(self.group, "add", (command, index, term))

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        removed = list(self[position:])
        super().deleteEntriesFrom(position)
        if removed:
            self.node.world.stats["truncations"] += 1
            self.node.removed.setdefault(self.group, []).extend(removed)
            self.node.shadow_note(self.group, "from", removed[0][1])

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:  # noqa: N802
        super().setCurrentTerm(term, voted_for)
        self.node.shadow_note(self.group, "term", (self.term, self.voted_for))

    def set_checkpoint(self, checkpoint: object, first_index: int) -> None:
        super().set_checkpoint(checkpoint, first_index)
        self.node.shadow_note(self.group, "to", first_index)

    def reset(self, checkpoint: object) -> None:
        removed = list(self)
        super().reset(checkpoint)
        self.seen = max(self.seen, checkpoint.index)
        self.node.removed.setdefault(self.group, []).extend(removed)

    def write_base(self) -> None:
        super().write_base()
        self.node.shadow_note(self.group, "base", (list(self), (self.term, self.voted_for)))

    def setRaftCommitIndex(self, commit: int) -> None:  # noqa: N802
        super().setRaftCommitIndex(commit)
        checker = self._checker()
        first, last = self[0][1], self[-1][1]
        for index in range(max(self.seen, first) + 1, min(commit, last) + 1):
            checker.committed(self.node, self[index - first])
        self.seen = max(self.seen, commit)


def _observe_leadership() -> None:
    became_leader = Guard.became_leader

    def observed(guard: Guard, term: int) -> None:
        became_leader(guard, term)
        journal = guard.journal
        if isinstance(journal, ObservedJournal):
            journal.node.world.checkers[guard.group].became_leader(journal.node, term)

    Guard.became_leader = observed


_observe_leadership()
