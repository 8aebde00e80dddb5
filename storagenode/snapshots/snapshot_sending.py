"""Sending snapshots: one state of a replica, held while somebody receives it, in chunks at a bounded rate.

A snapshot that is being sent is *held*: the engine's state is pinned, under an id that is never given twice, and
the group's log is kept from there on, so that who installs it can go on from the log. When the stream is cut
off, it stays held for a while: who comes back for it gets the rest, out of the very same state. Nothing else is
ever continued; if it is no longer held, another snapshot begins.

Bounds: `HELD_MAX` snapshots at once (idle ones, and those whose receivers take nothing, make room, the longest
idle first; beyond that, `Busy`), each held for a time that follows from how long its transfer took. All streams of
a node share one rate.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from datamodel.stored_items import check_record
from proto import control_pb2
from raft.group import Environment, GroupId, LogIndex, Timer
from raft.membership import encode_configuration
from storagenode.engines.engine import DATA, Engine, Snapshot, data_range, feed_range
from storagenode.replicas.log_entries import encode_state
from storagenode.replicas.replica import Capture, Replica
from storagenode.snapshots.snapshots import crc32_of, head_checksum
from storagenode.snapshots.token_bucket import TokenBucket

log = logging.getLogger(__name__)

CHUNK_BYTES = 64 << 10
CHUNK_RECORDS = 256
"""A chunk ends at either: what is done for one, here and where it arrives, holds up the node's loop for a
millisecond or two."""
HELD_MAX = 8
HELD_S = 60.0
"""A snapshot is held at least so long behind its last stream."""
HELD_S_MAX = 1800.0
SILENT_S = 60.0
"""A receiver that takes nothing for so long makes room when somebody else wants it."""
RATE_BYTES = 32 << 20
"""Bytes per second that a node sends, and that it takes in, unless told otherwise."""
RATE_BYTES_MIN = 64 << 10
"""With less, a receiver would take a slow sender for a dead one."""
BURST_S = 0.1
_ID_BYTES = 16


class Busy(Exception):
    """As many snapshots are being sent as may be. Another try may succeed."""


class Unsound(Exception):
    """The replica was found damaged while its state was sent: what was sent must not be used."""


class HeldSnapshot:
    """A snapshot and who reads it. Made by `SnapshotSender`."""

    __slots__ = (
        "active_at",
        "capture",
        "faults",
        "id",
        "readers",
        "replica",
        "snapshot",
        "taken_at",
        "timer",
    )

    def __init__(self, number: bytes, replica: Replica, snapshot: Snapshot, now: float) -> None:
        self.id = number
        self.replica = replica
        self.capture: Capture = replica.capture()
        self.snapshot = snapshot
        self.faults = replica.standing.faults
        self.taken_at = self.active_at = now  # the latter: when something was last sent of it
        self.readers = 0
        self.timer: Timer | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found wrong with the replica since."""
        return self.replica.standing.faults == self.faults

    def lease_s(self, now: float) -> float:
        """How long to hold it from now on: a transfer that took long may take long to go on, and to install."""
        return min(HELD_S_MAX, max(HELD_S, now - self.taken_at))


def rate_limit(bytes_per_s: int) -> TokenBucket:
    """A node's budget for one direction."""
    return TokenBucket(bytes_per_s, bytes_per_s * BURST_S)


class SnapshotSender:
    """All snapshots that a node sends.

    Attributes:
        sent: Streams that reached their end.
        continued: Of those begun, how many went on where an earlier one had stopped.
        bytes_sent: Keys and values.
    """

    def __init__(
        self, engine: Engine, environment: Environment, rate_bytes: int = RATE_BYTES
    ) -> None:
        """Create. `rate_bytes` per second, over all streams; 0: no limit."""
        self.sent = 0
        self.continued = 0
        self.bytes_sent = 0
        self._engine = engine
        self._environment = environment
        self._bucket = rate_limit(rate_bytes)
        self._held: dict[bytes, HeldSnapshot] = {}

    @property
    def held(self) -> int:
        """Snapshots held now."""
        return len(self._held)

    @contextmanager
    def hold(
        self, replica: Replica, request: control_pb2.FetchSnapshotRequest
    ) -> Iterator[HeldSnapshot]:
        """A state of `replica` to stream: the one that the request names, if it is held and new enough, else that
        of now. It stays held for a while afterwards.

        Raises:
            Busy: Too many are.
        """
        held = self._held.get(request.snapshot_id)
        if (
            held is None
            or held.replica is not replica
            or not held.is_sound
            or held.capture.index < request.at_least_index
        ):
            held = self._capture(replica)
        held.readers += 1
        if held.timer is not None:
            held.timer.cancel()
            held.timer = None
        try:
            yield held
        finally:
            held.readers -= 1
            if not held.readers and held.id in self._held:
                self._hold_for_a_while(held)

    async def stream(
        self, held: HeldSnapshot, request: control_pb2.FetchSnapshotRequest, node_id: str
    ) -> AsyncIterator[control_pb2.SnapshotChunk]:
        """Its chunks: from where the request says, if it names this one. The slower of the caller and the rate is
        the stream's pace.

        Raises:
            Busy: The receiver was silent for so long that others got its place.
            Corruption, EngineFailure, Unsound: What was sent so far must not be used (it lacks its last chunk).
        """
        after, crc = b"", 0
        if request.snapshot_id == held.id:
            after, crc = request.after_key, request.crc32
            self.continued += 1
        group, index = held.replica.group_id, held.capture.index
        extra = {"group": group, "index": index, "continued": bool(after)}
        log.info("sending a snapshot", extra=extra)
        for chunk, size in _chunks(held, node_id, after, crc):
            wait_s = self._bucket.take(size, self._environment.now())
            # (At least a turn of the loop for the others.)
            await asyncio.sleep(wait_s)
            if not held.is_sound:
                raise Unsound("found damaged while it was sent")
            self.bytes_sent += size
            held.active_at = self._environment.now()
            yield chunk
            if held.id not in self._held:
                raise Busy("its receiver was silent, and others wait")
        self.sent += 1
        log.info("snapshot sent", extra=extra)

    def close(self) -> None:
        """Let go of everything."""
        for held in list(self._held.values()):
            self._release(held)

    def _capture(self, replica: Replica) -> HeldSnapshot:
        if len(self._held) >= HELD_MAX:
            silent = self._environment.now() - SILENT_S
            idle = [h for h in self._held.values() if not h.readers or h.active_at < silent]
            if not idle:
                raise Busy(f"{HELD_MAX} snapshots are being sent")
            self._release(min(idle, key=lambda held: held.active_at))
        number = self._environment.random.randbytes(_ID_BYTES)
        held = HeldSnapshot(number, replica, self._engine.snapshot(), self._environment.now())
        self._held[number] = held
        self._hold_log(replica)
        return held

    def _hold_for_a_while(self, held: HeldSnapshot) -> None:
        now = held.active_at = self._environment.now()
        held.timer = self._environment.call_later(held.lease_s(now), lambda: self._release(held))

    def _release(self, held: HeldSnapshot) -> None:
        if self._held.pop(held.id, None) is None:
            return
        if held.timer is not None:
            held.timer.cancel()
        held.snapshot.close()
        self._hold_log(held.replica)

    def _hold_log(self, replica: Replica) -> None:
        indexes = [h.capture.index for h in self._held.values() if h.replica is replica]
        replica.standing.group.hold_log(LogIndex(min(indexes)) if indexes else None)


def _chunks(
    held: HeldSnapshot, node_id: str, after: bytes, crc: int
) -> Iterator[tuple[control_pb2.SnapshotChunk, int]]:
    """Chunks behind the key `after`, where the running checksum was `crc`, and how many bytes each has."""
    capture, group = held.capture, GroupId(held.replica.group_id)
    head = control_pb2.SnapshotHead(
        index=capture.index,
        term=capture.term,
        configuration=encode_configuration(capture.configuration),
        state=encode_state(capture.state),
        snapshot_id=held.id,
        node_id=node_id,
    )
    if not after:
        crc = head_checksum(head)
    chunk, size, records = control_pb2.SnapshotChunk(head=head), 0, 0
    # (In the order of keys: data before feed.)
    for start, end in (data_range(capture.state.start, capture.state.end), feed_range(group)):
        begin = max(start, after + b"\0")
        if begin >= end:
            continue
        cursor = held.snapshot.iterate(begin, end)
        try:
            for key, value in cursor:
                if key.startswith(DATA):
                    check_record(value, "item")
                crc = crc32_of(key, value, crc)
                chunk.records.add(key=key, value=value)
                size += len(key) + len(value)
                records += 1
                if size >= CHUNK_BYTES or records >= CHUNK_RECORDS:
                    chunk.crc32 = crc
                    yield chunk, size
                    chunk, size, records = control_pb2.SnapshotChunk(), 0, 0
        finally:
            cursor.close()
    chunk.crc32 = crc
    chunk.last = True
    yield chunk, size
