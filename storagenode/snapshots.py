"""Snapshots: a replica's whole state from one node to another, and its installation.

The bytes travel as a gRPC stream (`proto/control.proto`), read from an engine snapshot. The receiver first
stores the whole stream in a file and checks it; only then does it touch its own state:

    1  the file is complete, checked and durable
    2  the engine notes, durably, that this file is being installed                 (`Installation`)
    3  the old range is deleted and the file's records are written, in pieces
    4  the engine is made durable
    5  raft is told, entries that came meanwhile are applied
    6  once raft's log is durable: the note and the file go

A crash after 2 leaves the note and the file: the next start does 3 to 6 again before the group comes to life,
so a half-installed state is never served. A crash before 2 leaves the old state untouched, and raft asks again.
"""

import asyncio
import logging
import os
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from google.protobuf.message import DecodeError

from datamodel.errors import Corruption
from datamodel.stored_items import check_record
from proto import control_pb2
from raft.group import Group, GroupId, LogIndex, Term
from raft.membership import BadConfiguration, decode_configuration, encode_configuration
from storagenode.engine import (
    APPLIED,
    DATA,
    FEED,
    INSTALLING,
    Engine,
    Mutation,
    Snapshot,
    data_range,
    feed_range,
    group_key,
    group_of_key,
)
from storagenode.log_entries import (
    AppliedState,
    ReplicaState,
    UnknownFormat,
    decode_state,
    encode_applied,
    encode_state,
)
from storagenode.replica import Capture, Replica

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
INSTALL_BATCH_BYTES = 2 << 20
DELETE_BATCH_KEYS = 10_000
_LENGTH = struct.Struct("<I")


class BadSnapshot(Exception):
    """The stream or file is incomplete, damaged, or not what was asked for."""


class Installation(msgspec.Struct, array_like=True, frozen=True):
    """The engine's note that a file's content is replacing a group's state. `ranges` are deleted first."""

    file: str
    ranges: list[tuple[bytes, bytes]]


# --- sending ---------------------------------------------------------------------------------------------


async def stream(replica: Replica, engine: Engine) -> AsyncIterator[control_pb2.SnapshotChunk]:
    """The replica's state of now, chunk by chunk. The caller's pace is the stream's pace.

    Raises:
        Corruption: A record is damaged; what was sent so far must not be used (it lacks its last chunk).
    """
    capture = replica.capture()
    snapshot: Snapshot = engine.snapshot()
    try:
        chunk = control_pb2.SnapshotChunk(
            head=control_pb2.SnapshotHead(
                index=capture.index,
                term=capture.term,
                configuration=encode_configuration(capture.configuration),
                state=encode_state(capture.state),
            )
        )
        crc = size = 0
        ranges = (
            data_range(capture.state.start, capture.state.end),
            feed_range(replica.group_id),
        )
        for start, end in ranges:
            cursor = snapshot.iterate(start, end)
            for key, value in cursor:
                if key.startswith(DATA):
                    check_record(value, "item")
                crc = zlib.crc32(value, zlib.crc32(key, crc))
                chunk.records.add(key=key, value=value)
                size += len(key) + len(value)
                if size >= CHUNK_BYTES:
                    yield chunk
                    await asyncio.sleep(0)
                    chunk, size = control_pb2.SnapshotChunk(), 0
            cursor.close()
        chunk.crc32 = crc
        chunk.last = True
        yield chunk
    finally:
        snapshot.close()


# --- receiving -------------------------------------------------------------------------------------------


async def store(
    chunks: AsyncIterator[control_pb2.SnapshotChunk], file: Path, group: int, at_least: int
) -> Capture:
    """Store a stream durably in `file` and check it.

    Raises:
        BadSnapshot: It is damaged, incomplete or too old; the file is to be ignored.
    """
    with file.open("wb") as target:
        async for chunk in chunks:
            data = chunk.SerializeToString()
            target.write(_LENGTH.pack(len(data)))
            target.write(data)
        target.flush()
        await asyncio.to_thread(os.fsync, target.fileno())
    # Its name as well: the engine is going to note, durably, that it is there.
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await asyncio.to_thread(os.fsync, directory)
    finally:
        os.close(directory)
    capture = await asyncio.to_thread(check_file, file, group)
    if capture.index < at_least:
        raise BadSnapshot(f"snapshot at {capture.index}, wanted one at {at_least} or later")
    return capture


def check_file(file: Path, group: int) -> Capture:
    """Read a stored stream from end to end; returns what its head says.

    Raises:
        BadSnapshot: It is damaged or incomplete.
    """
    capture: Capture | None = None
    start = end = b""
    feed_start, feed_end = feed_range(group)
    crc = 0
    complete = False
    for chunk in _chunks(file):
        if complete:
            raise BadSnapshot("chunks behind the last one")
        if capture is None:
            capture = _capture(chunk)
            start, end = data_range(capture.state.start, capture.state.end)
        for record in chunk.records:
            key, value = record.key, record.value
            if start <= key < end:
                try:
                    check_record(value, "snapshot record")
                except Corruption as error:
                    raise BadSnapshot(str(error)) from error
            elif not (key.startswith(FEED) and feed_start <= key < feed_end):
                raise BadSnapshot("a key outside the partition")
            crc = zlib.crc32(value, zlib.crc32(key, crc))
        if chunk.last:
            complete = True
            if chunk.crc32 != crc:
                raise BadSnapshot(f"checksum {crc:#010x}, expected {chunk.crc32:#010x}")
    if capture is None or not complete:
        raise BadSnapshot("incomplete")
    return capture


def _capture(chunk: control_pb2.SnapshotChunk) -> Capture:
    if not chunk.HasField("head"):
        raise BadSnapshot("the first chunk has no head")
    head = chunk.head
    try:
        return Capture(
            LogIndex(head.index),
            Term(head.term),
            decode_configuration(head.configuration),
            decode_state(head.state),
        )
    except (UnknownFormat, BadConfiguration) as error:
        raise BadSnapshot(str(error)) from error


def _chunks(file: Path) -> Iterator[control_pb2.SnapshotChunk]:
    with file.open("rb") as source:
        while head := source.read(_LENGTH.size):
            if len(head) < _LENGTH.size:
                raise BadSnapshot("cut off")
            (length,) = _LENGTH.unpack(head)
            yield _parse(source, length)


def _parse(source: BinaryIO, length: int) -> control_pb2.SnapshotChunk:
    data = source.read(length)
    if len(data) < length:
        raise BadSnapshot("cut off")
    try:
        return control_pb2.SnapshotChunk.FromString(data)
    except DecodeError as error:
        raise BadSnapshot("a chunk that is none") from error


# --- installing ------------------------------------------------------------------------------------------


def forget_file(file: Path) -> None:
    """Delete a stored stream."""
    file.unlink(missing_ok=True)


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
    """Replace the state, a piece per step."""
    for start, end in installation.ranges:
        yield from delete_range(engine, start, end)
    batch: list[Mutation] = []
    size = 0
    for chunk in _chunks(file):
        for record in chunk.records:
            batch.append((record.key, record.value))
            size += len(record.key) + len(record.value)
        if size >= INSTALL_BATCH_BYTES:
            engine.write(batch)
            batch, size = [], 0
            yield
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


def finish(
    replica: Replica,
    group: Group,
    engine: Engine,
    file: Path,
    capture: Capture,
    when_durable: Callable[[Callable[[], None]], None],
) -> None:
    """The engine durably holds the snapshot: tell raft, in the same turn as the replica moves there."""
    if group.wants_snapshot(capture.index):
        group.install_snapshot(
            capture.index, capture.term, capture.configuration, encode_state(capture.state)
        )
    # Otherwise raft's log got past the snapshot meanwhile; the replica held those entries back and applies
    # them now, on top of it.
    replica.finish_install(capture)
    log.info("snapshot installed", extra={"group": replica.group_id, "index": capture.index})

    def forget() -> None:
        engine.write([(group_key(INSTALLING, replica.group_id), None)], sync=True)
        forget_file(file)

    when_durable(forget)
