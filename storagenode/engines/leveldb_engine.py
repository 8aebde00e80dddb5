"""The engine on LevelDB: only this file and `leveldb_unmapped` import plyvel.

Durability: LevelDB writes its own log without syncing it, which is all that is needed: what was applied is in
the synced raft log until a checkpoint. `make_durable` makes LevelDB write its memory table to a synced file: a
range compaction begins with exactly that, and over a range that holds no key it does nothing else
(`DBImpl::CompactRange`, `TEST_CompactMemTable`; the manifest's sync covers the directory too).

Damage: blocks are verified whenever they are read, indexes and filters too (`paranoid_checks`), and by
compactions, which would else write damage anew under a good checksum. What was verified stays as it was, because it
was read into memory, never mapped (`leveldb_unmapped`). Where LevelDB or plyvel tell less than they know, this
module looks itself: an iterator that ran out of entries may have skipped a block that it could not read; a table
that is gone counts as "not found"; a lost `CURRENT` as a new database.
"""

import errno
import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import plyvel

from storagenode.engines import leveldb_log, leveldb_unmapped
from storagenode.engines.engine import EngineDamage, EngineFailure, Mutation
from storagenode.engines.table_checksums import TableChecksums

log = logging.getLogger(__name__)

WRITE_BUFFER_BYTES = 16 << 20
CACHE_BYTES = 64 << 20  # filled as blocks are read, not reserved
BLOOM_BITS_PER_KEY = 10
OPEN_FILES_MAX = 512
CHECK_BYTES = 32 << 20
"""Of tables that a call of `check_files` reads again: some tens of milliseconds."""

# A directory that LevelDB takes no notice of.
_SCRATCH = "unmapped"

# No key begins with these bytes (`engine` lists the prefixes).
_NOWHERE = (b"\x00", b"\x00\x00")

# Damage that LevelDB takes for an error of the system: a sector that cannot be read, a table that is gone, a
# mapping shorter than its table. Never a full disk or too many open files.
_DAMAGED = re.compile(
    f"{os.strerror(errno.EIO)}|(ldb|sst): ({os.strerror(errno.ENOENT)}|{os.strerror(errno.EINVAL)})"
)
# A line of the property leveldb.sstables: number, size, and keys, which are escaped.
_TABLE = re.compile(rb"^ (\d+):(\d+)\[", re.MULTILINE)


def _failure(error: Exception, context: str = "") -> EngineFailure:
    """LevelDB tells damage from errors of the system beneath it; some of those are damage too."""
    text = str(error)
    is_damage = isinstance(error, plyvel.CorruptionError) or _DAMAGED.search(text)
    return (EngineDamage if is_damage else EngineFailure)(f"{context}{text}")


class _Cursor:
    """An iteration; holds a LevelDB snapshot until closed.

    The end of the range is found here, not by plyvel: so plyvel runs out of entries only behind the store's last
    one, or because it could not read what follows, which it does not tell. Then that is looked at.
    """

    __slots__ = ("_at", "_iterator", "_next", "_source")

    def __init__(self, source: Any, at: bytes, **options: Any) -> None:
        self._source = source
        self._at = at
        self._iterator = source.iterator(verify_checksums=True, **options)
        self._next = self._iterator.__next__

    def _check_nothing_follows(self, *, is_reverse: bool) -> None:
        """From the last key on: every step of this kind of iterator tells what went wrong."""
        try:
            iterator = self._source.raw_iterator(verify_checksums=True, fill_cache=False)
            try:
                iterator.seek(self._at)
                if is_reverse and not iterator.valid():
                    iterator.seek_to_last()
                step = iterator.prev if is_reverse else iterator.next
                while iterator.valid():
                    step()
            finally:
                iterator.close()
        except plyvel.Error as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Release LevelDB's iterator."""
        self._iterator.close()


class LevelCursor(_Cursor):
    """Iterates over a range."""

    __slots__ = ("_end",)

    def __init__(self, source: Any, start: bytes, end: bytes, **options: Any) -> None:
        super().__init__(source, start, start=start, **options)
        self._end = end

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        try:
            pair: tuple[bytes, bytes] = self._next()
        except plyvel.Error as error:
            raise _failure(error) from error
        except StopIteration:
            self._check_nothing_follows(is_reverse=False)
            raise
        key = pair[0]
        if key >= self._end:
            raise StopIteration
        self._at = key
        return pair

    def skip_to(self, key: bytes) -> None:
        """Seek."""
        self._at = key
        try:
            self._iterator.seek(key)
        except plyvel.Error as error:
            raise _failure(error) from error


class LevelReverseCursor(_Cursor):
    """Iterates downwards.

    (plyvel 1.5.1 given `start` and `reverse` also yields nothing when the range's only key is `start`.)
    """

    __slots__ = ("_start",)

    def __init__(self, source: Any, start: bytes, end: bytes, **options: Any) -> None:
        super().__init__(source, end, stop=end, reverse=True, **options)
        self._start = start

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        try:
            pair: tuple[bytes, bytes] = self._next()
        except plyvel.Error as error:
            raise _failure(error) from error
        except StopIteration:
            self._check_nothing_follows(is_reverse=True)
            raise
        key = pair[0]
        if key < self._start:
            raise StopIteration
        self._at = key
        return pair

    def skip_to(self, key: bytes) -> None:
        """Not for cursors that go backwards."""
        raise NotImplementedError


AnyCursor = LevelCursor | LevelReverseCursor


def _iterate(source: Any, start: bytes, end: bytes, reverse: bool, **options: Any) -> AnyCursor:
    try:
        return (LevelReverseCursor if reverse else LevelCursor)(source, start, end, **options)
    except plyvel.Error as error:  # a table that cannot be opened is known at once
        raise _failure(error) from error


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

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> AnyCursor:
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
        self._directory = directory
        self._db = _open(directory)
        self._get = self._db.get
        self._write_batch = self._db.write_batch
        self._checksums = TableChecksums(directory, CHECK_BYTES)
        try:
            self._check_sizes(self._tables())
        except EngineFailure:
            self._db.close()
            raise

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        try:
            value: bytes | None = self._get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _failure(error) from error
        return value

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> AnyCursor:
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
        self._db.compact_range(start=_NOWHERE[0], stop=_NOWHERE[1])
        # It does not tell whether that worked. If it did not, LevelDB refuses every later write, or, when it could
        # not even begin a new log, has everything in the present one, which is synced hereby.
        self.write((), sync=True)

    def check_files(self) -> None:
        """Compare the tables in use with the directory, and read some of them again."""
        tables = self._tables()
        self._check_sizes(tables)
        self._checksums.look(number for number, _ in tables)

    def _check_sizes(self, tables: set[tuple[int, int]]) -> None:
        missing = {table for table in tables if _size_of(self._directory, table[0]) != table[1]}
        if missing:
            missing &= (
                self._tables()
            )  # a compaction that has just deleted one does not use it any more
        if missing:
            number, size = min(missing)
            raise EngineDamage(
                f"{self._directory}: table {number} is missing or not {size} bytes long any more"
            )

    def _tables(self) -> set[tuple[int, int]]:
        """Number and size of each table in use."""
        text = self._db.get_property(b"leveldb.sstables")
        return {(int(number), int(size)) for number, size in _TABLE.findall(text)}

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


def _open(directory: Path) -> Any:
    context = f"cannot open the engine in {directory}: "
    try:
        leveldb_unmapped.prevent_mapping(directory / _SCRATCH)
    except (plyvel.Error, leveldb_unmapped.StillMapped) as error:
        raise EngineFailure(f"{context}{error}") from error
    try:
        first_log = leveldb_log.first_log(directory)
        try:
            return _open_as_it_is(directory)
        except plyvel.CorruptionError as error:
            # LevelDB's own log is not synced, so after a crash of the machine its tail may be anything; so may a
            # record of the manifest that was being written. What they held since the last `make_durable` is applied
            # again from the node's log: without the damaged part the store is as it once was.
            cut = leveldb_log.cut_manifest(directory) + leveldb_log.cut_damage(directory, first_log)
            if not cut:
                raise
            extra = {"files": cut, "reason": str(error)}
            log.warning("the engine's own log was damaged and is cut there", extra=extra)
        leveldb_log.first_log(directory)
        return _open_as_it_is(directory)
    except leveldb_log.OldManifest as error:
        raise EngineDamage(f"{context}{error}") from error
    except plyvel.Error as error:
        raise _failure(error, context) from error


def _open_as_it_is(directory: Path) -> Any:
    return plyvel.DB(
        str(directory),
        create_if_missing=True,
        paranoid_checks=True,
        write_buffer_size=WRITE_BUFFER_BYTES,
        lru_cache_size=CACHE_BYTES,
        bloom_filter_bits=BLOOM_BITS_PER_KEY,
        max_open_files=OPEN_FILES_MAX,
    )


def _size_of(directory: Path, number: int) -> int | None:
    for suffix in ("ldb", "sst"):
        try:
            return os.stat(directory / f"{number:06d}.{suffix}").st_size
        except FileNotFoundError:
            continue
    return None
