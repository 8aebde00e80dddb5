"""Snapshots: a replica's whole state in a file, checked, and its installation.

The bytes come as a gRPC stream (`proto/control.proto`): chunks of records in the order of their keys, each with
the checksum of everything up to it. They are kept in a file of that very form, so that a file that was cut off
anywhere is a shorter whole one (`snapshot_receiving`). Only a complete one touches the replica's state:

    1  the file is complete, checked and durable
    2  the engine notes, durably, that this file is being installed                 (`Installation`)
    3  the old range is deleted and the file's records are written, in pieces
    4  the engine is made durable
    5  raft is told, entries that came meanwhile are applied, out of its log
    6  once raft's log is durable: the note and the file go

A crash after 2 leaves the note and the file: the next start does 3 to 6 again before the group comes to life,
so a half-installed state is never served. A crash before 2 leaves the old state untouched, and raft asks again.
"""

import asyncio
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from google.protobuf.message import DecodeError

from datamodel.errors import Corruption
from datamodel.stored_items import check_record
from proto import control_pb2
from raft.group import Group, GroupId, LogIndex, Term
from raft.membership import BadConfiguration, decode_configuration
from storagenode.engines.engine import (
    APPLIED,
    INSTALLING,
    Engine,
    Mutation,
    data_range,
    feed_range,
    group_key,
    group_of_key,
)
from storagenode.replicas.log_entries import (
    AppliedState,
    ReplicaState,
    UnknownFormat,
    decode_state,
    encode_applied,
    encode_state,
)
from storagenode.replicas.replica import Capture, Replica

log = logging.getLogger(__name__)

STAGING_SUFFIX = ".snapshot"
INSTALL_BATCH_BYTES = 2 << 20
DELETE_BATCH_KEYS = 10_000
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<QQ")


class BadSnapshot(Exception):
    """The stream or file is incomplete, damaged, or not what was asked for."""


class Installation(msgspec.Struct, array_like=True, frozen=True):
    """The engine's note that a file's content is replacing a group's state. `ranges` are deleted first."""

    file: str
    ranges: list[tuple[bytes, bytes]]


# --- the form ---------------------------------------------------------------------------------------------


def head_checksum(head: control_pb2.SnapshotHead) -> int:
    """Where a snapshot's running checksum begins."""
    crc = zlib.crc32(_HEAD.pack(head.index, head.term))
    for field in (head.configuration, head.state, head.snapshot_id, head.node_id.encode()):
        crc = zlib.crc32(field, crc)
    return crc


def crc32_of(key: bytes, value: bytes, crc: int) -> int:
    """A snapshot's running checksum behind a record."""
    return zlib.crc32(value, zlib.crc32(key, crc))


class Progress:
    """Checks a snapshot chunk by chunk, and says how far it is.

    Attributes:
        head: None before the first chunk.
        capture: What the head says.
        crc32: Running checksum.
        last_key: Of the last record, empty before the first.
        is_complete: The last chunk was there.
    """

    def __init__(self, group: int) -> None:
        self.head: control_pb2.SnapshotHead | None = None
        self.crc32 = 0
        self.last_key = b""
        self.is_complete = False
        self._capture: Capture | None = None
        self._data_start = self._data_end = b""
        self._feed_start, self._feed_end = feed_range(group)

    @property
    def capture(self) -> Capture:
        """Of the state that this is. Only once there is a head."""
        assert self._capture is not None
        return self._capture

    def take(self, chunk: control_pb2.SnapshotChunk) -> None:
        """The next chunk. An error leaves everything as it was, unless it was the first one.

        Raises:
            BadSnapshot: It is damaged, or does not belong here.
        """
        if self.is_complete:
            raise BadSnapshot("chunks behind the last one")
        if self.head is None:
            self._begin(chunk)
        elif chunk.HasField("head"):
            raise BadSnapshot("a second head")
        crc, last_key = self.crc32, self.last_key
        for record in chunk.records:
            key, value = record.key, record.value
            # In order: none is missing between two, none is there twice, none comes from another snapshot.
            if key <= last_key:
                raise BadSnapshot("keys out of order")
            last_key = key
            if self._data_start <= key < self._data_end:
                try:
                    check_record(value, "snapshot record")
                except Corruption as error:
                    raise BadSnapshot(str(error)) from error
            elif not self._feed_start <= key < self._feed_end:
                raise BadSnapshot("a key outside the partition")
            crc = crc32_of(key, value, crc)
        if chunk.crc32 != crc:
            raise BadSnapshot(f"checksum {crc:#010x}, expected {chunk.crc32:#010x}")
        self.crc32, self.last_key = crc, last_key
        self.is_complete = chunk.last

    def _begin(self, chunk: control_pb2.SnapshotChunk) -> None:
        if not chunk.HasField("head"):
            raise BadSnapshot("the first chunk has no head")
        head = chunk.head
        try:
            self._capture = Capture(
                LogIndex(head.index),
                Term(head.term),
                decode_configuration(head.configuration),
                decode_state(head.state),
            )
        except (UnknownFormat, BadConfiguration) as error:
            raise BadSnapshot(str(error)) from error
        self.head = head
        self.crc32 = head_checksum(head)
        state = self._capture.state
        self._data_start, self._data_end = data_range(state.start, state.end)


# --- files ------------------------------------------------------------------------------------------------


def staging_file(directory: Path, group: int) -> Path:
    """Where a snapshot of a group is received. One per group at most."""
    return directory / f"{group}{STAGING_SUFFIX}"


def frame(chunk: control_pb2.SnapshotChunk) -> bytes:
    """A chunk as it lies in a file."""
    data = chunk.SerializeToString()
    return _LENGTH.pack(len(data)) + data


def checked_chunks(
    source: BinaryIO, group: int
) -> Iterator[tuple[control_pb2.SnapshotChunk, Progress]]:
    """Chunks of a file, each with how far the snapshot is behind it (always the same object); ends with the
    file, complete or not.

    Raises:
        BadSnapshot: It is damaged here; `source` was at the end of the last good chunk before.
    """
    progress = Progress(group)
    while head := source.read(_LENGTH.size):
        if len(head) < _LENGTH.size:
            raise BadSnapshot("cut off")
        (length,) = _LENGTH.unpack(head)
        data = source.read(length)
        if len(data) < length:
            raise BadSnapshot("cut off")
        try:
            chunk = control_pb2.SnapshotChunk.FromString(data)
        except DecodeError as error:
            raise BadSnapshot("a chunk that is none") from error
        progress.take(chunk)
        yield chunk, progress


def check_file(file: Path, group: int) -> Capture:
    """Read a stored snapshot from end to end; returns what its head says.

    Raises:
        BadSnapshot: It is damaged or incomplete.
    """
    progress: Progress | None = None
    try:
        source = file.open("rb")
    except FileNotFoundError as error:
        raise BadSnapshot(f"{file} is not there") from error
    with source:
        for _, progress in checked_chunks(source, group):  # noqa: B007
            pass
    if progress is None or not progress.is_complete:
        raise BadSnapshot("incomplete")
    return progress.capture


def forget_file(file: Path) -> None:
    """Delete a stored snapshot."""
    file.unlink(missing_ok=True)


# --- installing ------------------------------------------------------------------------------------------


def note(engine: Engine, group: int, file: Path, states: list[ReplicaState]) -> Installation:
    """Note, durably, that `file` is being installed over the ranges of `states` (the old and the new)."""
    ranges = [data_range(state.start, state.end) for state in states] + [feed_range(group)]
    installation = Installation(file.name, ranges)
    engine.write([(group_key(INSTALLING, group), msgspec.msgpack.encode(installation))], sync=True)
    return installation


def noted(engine: Engine) -> dict[GroupId, Installation]:
    """Installations that a crash interrupted."""
    found = {}
    for key, value in engine.iterate(group_key(INSTALLING, 0), INSTALLING + b"\xff" * 9):
        found[GroupId(group_of_key(key))] = msgspec.msgpack.decode(value, type=Installation)
    return found


def steps(
    engine: Engine, group: int, installation: Installation, file: Path, capture: Capture
) -> Iterator[None]:
    """Replace the state, a piece per step.

    Raises:
        BadSnapshot: The file is damaged since it was checked. What is installed so far must not be served.
    """
    for start, end in installation.ranges:
        yield from delete_range(engine, start, end)
    batch: list[Mutation] = []
    size = 0
    complete = False
    with file.open("rb") as source:
        for chunk, progress in checked_chunks(source, group):
            for record in chunk.records:
                batch.append((record.key, record.value))
                size += len(record.key) + len(record.value)
            if size >= INSTALL_BATCH_BYTES:
                engine.write(batch)
                batch, size = [], 0
            complete = progress.is_complete
            yield
    if not complete:
        raise BadSnapshot("incomplete")
    mark = encode_applied(AppliedState(capture.index, capture.term))
    batch.append((group_key(APPLIED, group), mark))
    engine.write(batch)


def delete_range(engine: Engine, start: bytes, end: bytes) -> Iterator[None]:
    """Delete all keys of an engine range, a piece per step."""
    while True:
        cursor = engine.iterate(start, end)
        keys = [key for key, _ in _first(cursor, DELETE_BATCH_KEYS)]
        cursor.close()
        if not keys:
            return
        engine.write([(key, None) for key in keys])
        yield


def _first(cursor: Iterator[tuple[bytes, bytes]], count: int) -> Iterator[tuple[bytes, bytes]]:
    for _, pair in zip(range(count), cursor, strict=False):
        yield pair


async def install(
    replica: Replica,
    engine: Engine,
    file: Path,
    capture: Capture,
    when_durable: Callable[[Callable[[], None]], None],
) -> None:
    """Replace a living replica's state by a stored snapshot. Serves nothing meanwhile."""
    group = replica.standing.group
    if not group.wants_snapshot(capture.index):
        forget_file(file)
        return
    replica.begin_install()
    await replace_state(replica, engine, file, capture, when_durable)


async def replace_state(
    replica: Replica,
    engine: Engine,
    file: Path,
    capture: Capture,
    when_durable: Callable[[Callable[[], None]], None],
) -> None:
    """Replace the state of a replica that is installing, at or behind what it has applied; then it serves."""
    group = replica.standing.group
    old = replica.capture().state
    installation = note(engine, replica.group_id, file, [old, capture.state])
    for _ in steps(engine, replica.group_id, installation, file, capture):
        await asyncio.sleep(0)
    await asyncio.to_thread(engine.make_durable)
    finish(replica, group, engine, file, capture, when_durable)
    await catch_up(replica)


async def catch_up(replica: Replica) -> None:
    """Let a replica that was installing apply what came meanwhile, in steps: it can be more than the snapshot."""
    while not replica.catch_up():  # noqa: ASYNC110  # each round does a part of the work
        await asyncio.sleep(0)


def finish(
    replica: Replica,
    group: Group,
    engine: Engine,
    file: Path,
    capture: Capture,
    when_durable: Callable[[Callable[[], None]], None],
) -> None:
    """The engine durably holds the snapshot: tell raft, in the same turn as the replica moves there. What the
    replica missed meanwhile follows (`catch_up`).
    """
    if group.wants_snapshot(capture.index):
        group.install_snapshot(
            capture.index, capture.term, capture.configuration, encode_state(capture.state)
        )
    # Otherwise raft's log got past the snapshot meanwhile, or was so before.
    replica.stand_on(capture)
    log.info("snapshot installed", extra={"group": replica.group_id, "index": capture.index})

    replica.standing.is_forgetting = True

    def forget() -> None:
        engine.write([(group_key(INSTALLING, replica.group_id), None)], sync=True)
        forget_file(file)
        replica.standing.is_forgetting = False

    when_durable(forget)
