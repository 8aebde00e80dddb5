"""What a partition's log carries, what its checkpoints hold, and what its feed stores: the formats.

An entry is a batch of write *outcomes*: what the leader decided, never an expression, so that applying it reads
nothing and decides nothing. All figures in it are absolute, so that applying it again changes nothing.

    entry   := [version, timestamp, item count, size bytes, feed position, outcomes, index figures]
    outcome := [request id, [[key, body | nil, item size], ...], results, [[key, old | nil, new | nil], ...]]

`item count` and `size bytes` are those of the partition after the entry, `feed position` that of the last feed
record in it (or before it, if it has none): records are numbered backwards from there. `index figures` are
count and bytes of the entries of each local index in turn, like those of the items. Among an outcome's mutations
are those of local indexes' entries and of collections' sizes: they are applied like items. `timestamp` is the
leader's hybrid logical clock in microseconds; all outcomes of an entry share it. Bodies are JSON as stored; the
record around a body is made while applying, when the log index is known.

An entry may ask every replica for a digest of its state right behind it (`scrubbing`).

Everything is msgpack. A version is never reused; old versions stay readable; fields are added at the end.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import msgspec

from proto.messages import ActionResult, FeedRecord
from storagenode.replicas.request_memory import RememberedRequests

ENTRY_VERSION = 1
STATE_VERSION = 1

Decoded = TypeVar("Decoded")

ItemMutation: TypeAlias = tuple[bytes, bytes | None, int]
"""Keyspace key, new body (None: deleted), item size in bytes (0 when deleted)."""

Images: TypeAlias = tuple[bytes, bytes | None, bytes | None]
"""Keyspace key, body before, body after: a feed record without its place."""


class UnknownFormat(Exception):
    """Bytes of a version that this release cannot read, or of none: never applied, never guessed at."""


class WriteOutcome(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What one `Write` request did."""

    request_id: bytes
    mutations: list[ItemMutation]
    results: list[ActionResult]
    images: list[Images] = []


class Entry(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A batch of outcomes in one log entry."""

    version: int
    timestamp: int
    item_count: int
    size_bytes: int
    feed_position: int
    outcomes: list[WriteOutcome]
    index_figures: list[int] = []
    scrub: bool = False


class ReplicaState(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Everything of a replica that is not an item: goes with checkpoints and snapshots.

    Attributes:
        version: Of this format.
        table_id: Whose items these are.
        start: First keyspace key of the partition.
        end: First keyspace key behind it.
        epoch: Of the partition's description in the catalog, as far as this replica was told.
        feed_enabled: Whether item changes are recorded.
        item_count: Items in the partition.
        size_bytes: Their size by DynamoDB's rule.
        feed_position: Position of the newest feed record.
        timestamp: Highest hybrid logical timestamp applied, microseconds.
        requests: Request memory.
        index_figures: Count and bytes of the entries of each local index in turn.
    """

    version: int
    table_id: int
    start: bytes
    end: bytes
    epoch: int
    feed_enabled: bool
    item_count: int = 0
    size_bytes: int = 0
    feed_position: int = 0
    timestamp: int = 0
    requests: RememberedRequests = RememberedRequests()
    index_figures: list[int] = []


class AppliedState(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The engine's own note of what it holds of a group, written with every apply."""

    index: int
    term: int


_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_state = msgspec.msgpack.Decoder(ReplicaState).decode
_decode_applied = msgspec.msgpack.Decoder(AppliedState).decode
_decode_feed_record = msgspec.msgpack.Decoder(FeedRecord).decode

encode_entry = _encode
encode_state = _encode
encode_applied = _encode
encode_feed_record = _encode


def decode_entry(payload: bytes) -> Entry:
    """The entry in a log payload.

    Raises:
        UnknownFormat: Damaged, or written by a newer release.
    """
    entry = _decode(_decode_entry, payload, "log entry")
    _check_version("log entry", entry.version, ENTRY_VERSION)
    return entry


def decode_state(data: bytes) -> ReplicaState:
    """The state in a checkpoint or snapshot.

    Raises:
        UnknownFormat: Damaged, or written by a newer release.
    """
    state = _decode(_decode_state, data, "replica state")
    _check_version("replica state", state.version, STATE_VERSION)
    return state


def decode_applied(data: bytes) -> AppliedState:
    """The engine's note of what it holds.

    Raises:
        UnknownFormat: Damaged.
    """
    return _decode(_decode_applied, data, "applied state")


def decode_feed_record(data: bytes) -> FeedRecord:
    """A stored feed record.

    Raises:
        UnknownFormat: Damaged.
    """
    return _decode(_decode_feed_record, data, "feed record")


def _decode(decoder: Callable[[bytes], Decoded], data: bytes, what: str) -> Decoded:
    try:
        return decoder(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnknownFormat(f"{what}: {error}") from error


def _check_version(what: str, version: int, known: int) -> None:
    if version != known:
        raise UnknownFormat(f"{what} of version {version}, this release reads {known}")
