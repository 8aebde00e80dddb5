"""A LevelDB directory of which everything is known, and the verdict on what is read from a damaged copy of it.

It is written and read as a storage node does it: items of group 7 with the engine's note of what was applied, some
of it durable (a checkpoint), the rest in LevelDB's own log only. As after a restart, that rest is applied again
before anything is read; then items are read by Get, Query and Scan. Either everything is right, or the damage was
noticed: anything else is wrong.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from datamodel.items import encode_item
from datamodel.stored_items import HEADER_SIZE, check_record, pack_record
from proto.messages import Get, Page, Query, Unavailable, Value
from storagenode.engines.engine import (
    APPLIED,
    DATA,
    EngineDamage,
    EngineFailure,
    Mutation,
    group_key,
)
from storagenode.engines.leveldb_engine import LevelEngine
from storagenode.replicas.log_entries import AppliedState, decode_applied, encode_applied
from tests.damage.harm import Harm
from tests.unit.storagenode_harness import World, fresh_state

GROUP = 7
KEYS = 260
ABSENT = [b"k%05d" % (5 * n + 1) for n in range(0, KEYS, 13)]
TERM = 3


class Wrong(AssertionError):
    """Something was served that was not written, or not served that was."""


def key_of(number: int) -> bytes:
    """The keys are five apart, so that some keys are never written."""
    return b"k%05d" % (5 * number)


class Store:
    """Written once into `directory`; copies of it are damaged."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.directory = directory
        self.items: dict[bytes, bytes] = {}
        self.checkpoint = 0  # what the node's log says that the engine holds
        self.again: list[list[Mutation]] = []  # what the node's log has behind that
        self._chance = random.Random(seed)
        self._index = 10
        engine = LevelEngine(directory)
        # Three tables, of which later ones cover and delete what earlier ones hold, and what is not flushed.
        for share in (1.0, 0.3, 0.25):
            for batch in self._batches(share):
                engine.write(batch)
            engine.make_durable()
            self.checkpoint = self._index
        for batch in self._batches(0.2):
            engine.write(batch)
            self.again.append(batch)
        engine.close()
        self.tables = sorted(directory.glob("*.ldb"))
        assert len(self.tables) >= 2
        self.sorted_items = sorted(self.items.items())

    def _batches(self, share: float) -> Iterator[list[Mutation]]:
        chance = self._chance
        numbers = [n for n in range(KEYS) if share == 1.0 or chance.random() < share]
        for first in range(0, len(numbers), 20):
            self._index += 1
            batch: list[Mutation] = []
            for number in numbers[first : first + 20]:
                key = key_of(number)
                if share < 1.0 and chance.random() < 0.25:
                    self.items.pop(key, None)
                    batch.append((DATA + key, None))
                else:
                    record = self._record(key)
                    self.items[key] = record
                    batch.append((DATA + key, record))
            mark = encode_applied(AppliedState(self._index, TERM))
            batch.append((group_key(APPLIED, GROUP), mark))
            yield batch

    def _record(self, key: bytes) -> bytes:
        noise = self._chance.randbytes(self._chance.randrange(10, 40)).hex()
        item = {"pk": {"S": key.decode()}, "text": {"S": noise}}
        return pack_record(encode_item(item), 100, 1_000_000 + self._index, self._index)

    # --- damaged copies ---

    def copy(self, target: Path) -> Path:
        """Files are linked: LevelDB never writes to one that is there, nor may the damage (`Harm.do`)."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for path in self.directory.iterdir():
            if not path.name.startswith("LOG"):
                os.link(path, target / path.name)
        return target

    def judge(self, harm: Harm, name: str, target: Path, *, compact: bool = False) -> str:
        """Damage file `name` of a copy at `target`, start on it, and read everything.

        Args:
            harm: What happens to the file.
            name: Which file.
            target: Where the copy is made.
            compact: Let LevelDB write all tables anew first.

        Returns:
            "right" or how the damage was found.

        Raises:
            Wrong: Otherwise.
        """
        harm.do(self.copy(target) / name)
        try:
            engine = LevelEngine(target)
        except EngineDamage as error:
            return f"found: {type(error).__name__} at the start"
        except EngineFailure as error:
            raise Wrong(f"{name}, {harm.text}: not known as damage: {error}") from error
        try:
            return self._use(engine, compact=compact)
        except EngineDamage:
            return "found: EngineDamage"
        except EngineFailure as error:
            raise Wrong(f"{name}, {harm.text}: not known as damage: {error}") from error
        except Wrong as error:
            raise Wrong(f"{name}, {harm.text}: {error}") from error
        finally:
            engine.close()

    def _use(self, engine: LevelEngine, *, compact: bool) -> str:
        mark = engine.get(group_key(APPLIED, GROUP))
        if mark is None or decode_applied(mark).index < self.checkpoint:
            return "found: the engine is behind the checkpoint"
        for batch in self.again:
            engine.write(batch)
        if compact:
            engine._db.compact_range(start=b"\0", stop=b"\xff")
            engine.write((), sync=True)
        return self.read(engine)

    def read(self, engine: LevelEngine) -> str:
        """Everything, in every way. Returns and raises as `judge`."""
        reader = _Reader(engine)
        found = reader.faults
        for key in [*self.items, *ABSENT]:
            record = reader.get(key)
            if not found() and record != self.items.get(key):
                raise Wrong(f"Get of {key!r}")
        for reverse in (False, True):
            for start, end, limit in (
                (b"a", b"z", 0),
                (b"a", b"z", 37),
                (key_of(3), key_of(9), 0),
                (key_of(KEYS - 5), b"z", 0),
                (key_of(100), key_of(101), 0),
            ):
                expected = [record[HEADER_SIZE:] for key, record in self._between(start, end)]
                if reverse:
                    expected.reverse()
                bodies = reader.range(start, end, reverse, limit)
                if not found() and bodies != expected:
                    raise Wrong(
                        f"{len(bodies)} items from {start!r} to {end!r} (reverse: {reverse}),"
                        f" expected {len(expected)}"
                    )
        return "right" if not found() else "found: the replica goes out of service"

    def _between(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, record) for key, record in self.sorted_items if start <= key < end]


class _Reader:
    """Reads through a replica; once that is out of service it must stay so."""

    def __init__(self, engine: LevelEngine) -> None:
        self._world = World(engine=engine, state=fresh_state(b"a", b"z"))
        self._world.replica.standing.leader_seen = True

    def faults(self) -> bool:
        return self._world.replica.standing.fault is not None

    def get(self, key: bytes) -> bytes | None:
        world = self._world
        was_out = self.faults()
        world.replica.on_get(world.link, Get(1, GROUP, key, False))
        (answer,) = world.link.take()
        if isinstance(answer, Value) and not was_out:
            if answer.value is not None:
                check_record(answer.value, "served")
            return answer.value
        assert isinstance(answer, Unavailable), answer
        return None

    def range(self, start: bytes, end: bytes, reverse: bool, limit: int) -> list[bytes]:
        world = self._world
        bodies: list[bytes] = []
        while True:
            query = Query(1, GROUP, start, end, False, reverse=reverse, limit=limit)
            world.replica.on_query(world.link, query)
            world.environment.turn()
            (answer,) = world.link.take()
            if not isinstance(answer, Page):
                assert isinstance(answer, Unavailable), answer
                assert self.faults()
                return []
            bodies += split_bodies(answer.items)
            if answer.last is None:
                return bodies
            last = json.loads(answer.last)["pk"]["S"].encode()
            if reverse:
                end = last
            else:
                start = last + b"\0"


def split_bodies(text: bytes) -> list[bytes]:
    """The items of a page, as their bodies."""
    return [
        json.dumps(item, separators=(",", ":")).encode() for item in json.loads(b"[" + text + b"]")
    ]
