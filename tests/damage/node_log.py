"""A raft log of several segments of which everything is known, and the verdict on a damaged copy of it."""

import queue
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raft.files import FileLogStorage
from raft.group import Configuration, LogIndex, Member, NodeId, ReplicaId, Term
from raft.journal import Checkpoint
from raft.node_log import Corruption, NodeLog
from tests.damage.engine_store import Wrong
from tests.damage.harm import Harm

SEGMENT_BYTES = 4096
CONFIGURATION = Configuration(tuple(Member(ReplicaId(n), NodeId(f"node-{n}")) for n in (1, 2, 3)))
Image = dict[int, Any]


class OpenLog:
    """A log on real files, written batch by batch."""

    def __init__(self, directory: Path) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.files = FileLogStorage(directory, self._calls.put, SEGMENT_BYTES)
        self.log = NodeLog(self.files, SEGMENT_BYTES, lambda journals: None)

    def sync(self) -> None:
        self.log.sync()
        self._calls.get(timeout=20)()

    def image(self) -> Image:
        return {
            group: (list(journal), journal.term, journal.voted_for, journal.checkpoint)
            for group, journal in self.log.journals.items()
        }


class Log:
    """Written once into `directory`; copies of it are damaged."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.directory = directory
        chance = random.Random(seed)
        opened = OpenLog(directory)
        opened.log.recover()
        journals = [
            opened.log.create(group, ReplicaId(1), CONFIGURATION, LogIndex(10), Term(1), b"state")
            for group in (0, 7, 300)
        ]
        for number in range(90):
            journal = chance.choice(journals)
            if chance.random() < 0.2:
                journal.setCurrentTerm(journal.term + 1, chance.choice([None, 1, 2]))
            for _ in range(chance.randrange(1, 4)):
                command = b"\0" + chance.randbytes(chance.randrange(1, 200))
                journal.add(command, journal[-1][1] + 1, journal.term)
            if number % 8 == 7:
                journal.setRaftCommitIndex(journal[-2][1])
                at = journal[-2]
                checkpoint = Checkpoint(LogIndex(at[1]), Term(at[2]), CONFIGURATION, b"later")
                journal.set_checkpoint(checkpoint, at[1])
            opened.sync()
        self.image = opened.image()
        opened.files.close()
        self.segments = sorted(directory.iterdir())
        assert len(self.segments) >= 3

    def copy(self, target: Path) -> Path:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.directory, target)
        return target

    def judge(self, harm: Harm, name: str, target: Path) -> str:
        """Damage segment `name` of a copy at `target` and recover from it: everything, or an error."""
        harm.do(self.copy(target) / name)
        opened = OpenLog(target)
        try:
            opened.log.recover()
        except Corruption:
            return "found: Corruption"
        finally:
            opened.files.close()
        image = opened.image()
        if image == self.image:
            return "right"
        raise Wrong(f"{name}, {harm.text}: recovered something else")
