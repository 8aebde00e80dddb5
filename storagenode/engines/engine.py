"""The ordered byte store under all replicas of a node: the interface, and what each call promises.

One engine serves every partition group of a node. Keys of this module's users:

    d <keyspace key>                         an item's record (`datamodel.stored_items`)
    f <group u64 BE> <position u64 BE>       a change feed record (`log_entries.encode_feed_record`)
    g <group u64 BE>                         what was applied last (`log_entries.AppliedState`)
    i <group u64 BE>                         a snapshot is being installed (`snapshots.Installation`)
    r <group u64 BE>                         a closed replica whose range is still to be deleted
    t <group u64 BE>                         tombstone: this node's replica of the group was closed for good

`memory_engine` is the reference, `leveldb_engine` the real thing; `tests/contracts/` holds both to this text.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

Mutation: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""

DATA = b"d"
FEED = b"f"
APPLIED = b"g"
INSTALLING = b"i"
REMOVING = b"r"
TOMBSTONE = b"t"

_U64 = struct.Struct(">Q")
_FEED = struct.Struct(">cQQ")


class EngineFailure(Exception):
    """The store cannot be read or written any more (disk error, damaged files). Never 'not found'."""


class EngineDamage(EngineFailure):
    """What is on disk is not what was written: trying again cannot help, another copy can."""


class Cursor(Protocol):
    """An iteration in progress over one consistent state of the store."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Itself."""

    def __next__(self) -> tuple[bytes, bytes]:
        """The next key and value.

        Raises:
            EngineFailure: The store is damaged here.
        """

    def skip_to(self, key: bytes) -> None:
        """Go on with the first key that is not below `key`. Not for cursors that go backwards."""

    def close(self) -> None:
        """Let go of the state. Idempotent."""


class View(Protocol):
    """Something to read from."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None if there is none.

        Raises:
            EngineFailure: The store is damaged here.
        """

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> Cursor:
        """Keys from `start` (inclusive) to `end` (exclusive) in byte order, or backwards. What is written
        after this call is not seen.
        """


class Snapshot(View, Protocol):
    """One consistent state of the whole store. May be read from another thread."""

    def close(self) -> None:
        """Let go of it. Idempotent."""


class Engine(View, Protocol):
    """The store."""

    def write(self, mutations: Iterable[Mutation], *, sync: bool = False) -> None:
        """Perform all mutations, in order, or (after a crash) none of them. Seen by every later read. Without
        `sync` they survive the end of the process but not of the machine, until `make_durable` returned.

        Raises:
            EngineFailure: Whether they were performed is not known; the process must end.
        """

    def make_durable(self) -> None:
        """Return once everything written before this call is on disk. Blocks; call it off the loop. Writes
        and reads may go on meanwhile.

        Raises:
            EngineFailure: It may not be; the process must end.
        """

    def check_files(self) -> None:
        """See whether every file that holds data is there, in its length; and of some of them, in turns, whether
        they are what they were. Blocks; call it off the loop.

        Raises:
            EngineDamage: One is not.
        """

    def snapshot(self) -> Snapshot:
        """The state of now."""

    def approximate_size_bytes(self, start: bytes, end: bytes) -> int:
        """About how much disk the keys of a range take (not counting what is still in memory)."""

    def close(self) -> None:
        """Close the store. Nothing may be called afterwards."""


def group_key(prefix: bytes, group: int) -> bytes:
    """The key of one of a group's own records."""
    return prefix + _U64.pack(group)


def group_of_key(key: bytes) -> int:
    """The group in a key made by `group_key`."""
    (group,) = _U64.unpack_from(key, 1)
    assert isinstance(group, int)
    return group


def feed_key(group: int, position: int) -> bytes:
    """The key of a change feed record."""
    return _FEED.pack(FEED, group, position)


def feed_range(group: int) -> tuple[bytes, bytes]:
    """All change feed records of a group: [start, end)."""
    return _FEED.pack(FEED, group, 0), _FEED.pack(FEED, group, (1 << 64) - 1)


def data_range(start: bytes, end: bytes) -> tuple[bytes, bytes]:
    """Engine range of a keyspace range."""
    return DATA + start, DATA + end
