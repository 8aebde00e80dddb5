"""The engine on LevelDB: the only file that imports plyvel.

Durability: LevelDB writes its own log without syncing it, which is all that is needed: what was applied is in
the synced raft log until a checkpoint. `make_durable` makes LevelDB write its memory table to a synced file: a
range compaction begins with exactly that, and over a range that holds no key it does nothing else
(`DBImpl::CompactRange`, `TEST_CompactMemTable`; the manifest's sync covers the directory too).
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import plyvel

from storagenode.engine import EngineDamage, EngineFailure, Mutation

WRITE_BUFFER_BYTES = 16 << 20
CACHE_BYTES = 64 << 20  # filled as blocks are read, not reserved
BLOOM_BITS_PER_KEY = 10
OPEN_FILES_MAX = 512

# No key begins with these bytes (`engine` lists the prefixes).
_NOWHERE = (b"\x00", b"\x00\x00")


def _failure(error: Exception, context: str = "") -> EngineFailure:
    """LevelDB tells damage from errors of the system beneath it (no space, no descriptors); a sector that cannot
    be read is damage too.
    """
    is_damage = isinstance(error, plyvel.CorruptionError) or os.strerror(errno.EIO) in str(error)
    return (EngineDamage if is_damage else EngineFailure)(f"{context}{error}")


class LevelCursor:
    """Iterates over a range; holds a LevelDB snapshot until closed."""

    __slots__ = ("_iterator", "_next")

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator
        self._next = iterator.__next__

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        try:
            pair: tuple[bytes, bytes] = self._next()
        except plyvel.Error as error:
            raise _failure(error) from error
        return pair

    def skip_to(self, key: bytes) -> None:
        """Seek."""
        try:
            self._iterator.seek(key)
        except plyvel.Error as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Release LevelDB's iterator."""
        self._iterator.close()


class LevelReverseCursor(LevelCursor):
    """Iterates downwards and ends at `start` by itself.

    plyvel 1.5.1 given `start` and `reverse` yields nothing when the range's only key is `start`.
    """

    __slots__ = ("_start",)

    def __init__(self, iterator: Any, start: bytes) -> None:
        super().__init__(iterator)
        self._start = start

    def __next__(self) -> tuple[bytes, bytes]:
        pair = super().__next__()
        if pair[0] < self._start:
            raise StopIteration
        return pair


def _iterate(source: Any, start: bytes, end: bytes, reverse: bool, **options: Any) -> LevelCursor:
    if reverse:
        return LevelReverseCursor(
            source.iterator(stop=end, reverse=True, verify_checksums=True, **options), start
        )
    return LevelCursor(source.iterator(start=start, stop=end, verify_checksums=True, **options))


class LevelSnapshot:
    """A LevelDB snapshot."""

    def __init__(self, snapshot: Any) -> None:
        self._snapshot = snapshot

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        try:
            value: bytes | None = self._snapshot.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _failure(error) from error
        return value

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> LevelCursor:
        """A range of this state. A snapshot is read from end to end: that must not push out the cache."""
        return _iterate(self._snapshot, start, end, reverse, fill_cache=False)

    def close(self) -> None:
        """Release it."""
        self._snapshot.close()


class LevelEngine:
    """The engine in a directory."""

    def __init__(self, directory: Path) -> None:
        """Open, creating it if need be.

        Raises:
            EngineFailure: Locked by another process, or damaged.
        """
        try:
            self._db = plyvel.DB(
                str(directory),
                create_if_missing=True,
                write_buffer_size=WRITE_BUFFER_BYTES,
                lru_cache_size=CACHE_BYTES,
                bloom_filter_bits=BLOOM_BITS_PER_KEY,
                max_open_files=OPEN_FILES_MAX,
            )
        except plyvel.Error as error:
            raise _failure(error, f"cannot open the engine in {directory}: ") from error
        self._get = self._db.get
        self._write_batch = self._db.write_batch

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        try:
            value: bytes | None = self._get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _failure(error) from error
        return value

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> LevelCursor:
        """A range as it is now."""
        return _iterate(self._db, start, end, reverse)

    def write(self, mutations: Iterable[Mutation], *, sync: bool = False) -> None:
        """One LevelDB write batch."""
        batch = self._write_batch(sync=sync)
        put, delete = batch.put, batch.delete
        for key, value in mutations:
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            batch.write()
        except plyvel.Error as error:
            raise _failure(error) from error

    def make_durable(self) -> None:
        """Flush the memory table to a synced file."""
        try:
            self._db.compact_range(start=_NOWHERE[0], stop=_NOWHERE[1])
        except plyvel.Error as error:
            raise _failure(error) from error

    def snapshot(self) -> LevelSnapshot:
        """A LevelDB snapshot."""
        return LevelSnapshot(self._db.snapshot())

    def approximate_size_bytes(self, start: bytes, end: bytes) -> int:
        """LevelDB's own estimate."""
        size: int = self._db.approximate_size(start, end)
        return size

    def close(self) -> None:
        """Close the database."""
        self._db.close()
