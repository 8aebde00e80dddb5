"""The node's one durable log: ordered, checksummed records of all groups, one batch and one fsync per turn.

    segment file := segment header, batch, receipt, batch, receipt, ..., zeros (preallocation)
    segment header := magic[8]  number:u64  first sequence:u64  crc32:u32                    (little endian)
    batch  := magic:u32  sequence:u64  length:u32  payload crc32:u32  header crc32:u32  payload[length]
    receipt := magic:u32  sequence:u64  crc32:u32                      or as many zeros
    payload := record, record, ...
    record := kind:u8  group:u64  length:u32  body[length]

    1 entry       index:u64 term:u64 command            appended behind index - 1
    2 truncation  index:u64 0:u64                       entries from index on are gone
    3 term        term:u64 (voted for + 1):u64          0: no vote in this term
    4 commit      index:u64 0:u64
    5 checkpoint  msgpack [index, term, first index, configuration, state]
    6 base        msgpack, all of a group but its entries, which follow as records; earlier ones do not count
    7 removal     the group is gone for ever

Checksums are seeded with the segment's number, so a recycled block is no batch. Batches are numbered without a
gap over all segments, and number N + 1 is written only when N is durable. A batch's receipt is written when the
batch is durable, before anybody hears of that, and is not waited for: it becomes durable with the next batch, or
after a moment of rest. Hence at recovery a damaged batch is a torn write, to be cut off, if neither its receipt nor
a valid batch with a higher number exists; otherwise something that may have been acknowledged is corrupt, and the
node must not start.

A process that dies leaves the receipt. So what is cut off was never acknowledged, unless the machine died within
that moment (`LogStorage.append`) and its disk had not kept what it said it had synced. Of that, only the other
replicas could tell. (Segments of format 1 have no receipts.)

A group needs the records since its latest base. To free the oldest segment, every group rooted there is written
anew (a base and its entries) a few at a time; then the file goes. Kinds are never reused.
"""

import struct
import zlib
from collections.abc import Callable

import msgspec

from raft.group import Configuration, LogIndex, LogStorage, ReplicaId, Term
from raft.journal import Checkpoint, GroupJournal
from raft.membership import SENTINEL_COMMAND, decode_configuration, encode_configuration
from raft.wire import Entry

SEGMENT_MAGIC = b"quorlog2"
BATCH_MAGIC = struct.pack("<I", 0x51C0B10C)
RECEIPT_MAGIC = struct.pack("<I", 0x51C0ACED)
SEGMENT_HEADER = struct.Struct("<8sQQI")
BATCH_HEADER = struct.Struct("<4sQIII")
RECEIPT = struct.Struct("<4sQI")
# Bytes kept for the receipt behind each batch, by the segment's format.
RECEIPT_SIZES = {b"quorlog1": 0, SEGMENT_MAGIC: RECEIPT.size}
_RECORD = struct.Struct("<BQI")
_HOT = struct.Struct("<BQIQQ")  # a record header with the two integers that begin most bodies
_PAIR = struct.Struct("<QQ")

KIND_ENTRY = 1
KIND_TRUNCATION = 2
KIND_TERM = 3
KIND_COMMIT = 4
KIND_CHECKPOINT = 5
KIND_BASE = 6
KIND_REMOVAL = 7

# Closed segments that stay before the oldest is freed: rewriting costs less the longer it waits.
SEGMENTS_KEPT = 3
# At most this much is rewritten with one batch to free a segment (one group may exceed it alone).
REWRITE_BYTES_PER_BATCH = 1 << 20

_encode = msgspec.msgpack.Encoder().encode


class _CheckpointBody(msgspec.Struct, array_like=True):
    index: int
    term: int
    first_index: int
    configuration: bytes
    state: bytes


class _BaseBody(msgspec.Struct, array_like=True):
    replica_id: int
    configuration: bytes
    checkpoint_index: int
    checkpoint_term: int
    state: bytes
    first_index: int
    first_term: int
    first_command: bytes
    term: int
    voted_for: int | None
    commit: int


_decode_checkpoint = msgspec.msgpack.Decoder(_CheckpointBody).decode
_decode_base = msgspec.msgpack.Decoder(_BaseBody).decode


class Corruption(Exception):
    """The log is damaged where it was once durable. The node must not start from it."""


class NodeLog:
    """Gathers records into batches and writes one batch at a time.

    `on_durable(groups)` is called on the loop after each batch with the journals that had records in it.
    """

    journal_class = GroupJournal

    def __init__(
        self,
        storage: LogStorage,
        segment_bytes: int,
        on_durable: Callable[[list[GroupJournal]], None],
    ) -> None:
        self._storage = storage
        self._segment_bytes = segment_bytes
        self._on_durable = on_durable
        self.journals: dict[int, GroupJournal] = {}
        self.batch = 1  # number of the batch that is gathering
        self.durable_batch = 0
        self.in_flight = False
        self._records: list[bytes] = []
        self._touched: dict[int, GroupJournal] = {}
        self._touched_in_flight: dict[int, GroupJournal] = {}
        self._lazy_commits: dict[int, GroupJournal] = {}
        self._must_sync = False
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self._segments: list[int] = []
        self._segment = 0
        self._segment_size = 0
        self._segment_fresh = False

    # gathering

    def touch(self, journal: GroupJournal) -> int:
        """This journal has a record in the gathering batch, whose number is returned."""
        self._touched[journal.group] = journal
        return self.batch

    def record_entry(self, group: int, command: bytes, index: int, term: int) -> None:
        """Queue an entry."""
        self._records.append(_HOT.pack(KIND_ENTRY, group, 16 + len(command), index, term))
        self._records.append(command)

    def record_truncation(self, group: int, index: int) -> None:
        """Queue a truncation."""
        self._records.append(_HOT.pack(KIND_TRUNCATION, group, 16, index, 0))

    def record_term(self, group: int, term: int, voted_for: int | None) -> None:
        """Queue a term and vote."""
        vote = 0 if voted_for is None else voted_for + 1
        self._records.append(_HOT.pack(KIND_TERM, group, 16, term, vote))

    def record_commit(self, group: int, commit: int) -> None:
        """Queue a commit index."""
        self._records.append(_HOT.pack(KIND_COMMIT, group, 16, commit, 0))

    def note_commit(self, journal: GroupJournal) -> None:
        """The commit index may go with the next batch, whenever that is."""
        self._lazy_commits[journal.group] = journal

    def record_checkpoint(self, journal: GroupJournal, first_index: int) -> None:
        """Queue the journal's checkpoint."""
        checkpoint = journal.checkpoint
        body = _encode(
            _CheckpointBody(
                checkpoint.index,
                checkpoint.term,
                first_index,
                encode_configuration(checkpoint.configuration),
                checkpoint.state,
            )
        )
        self._records.append(_RECORD.pack(KIND_CHECKPOINT, journal.group, len(body)))
        self._records.append(body)

    def record_base(self, journal: GroupJournal) -> None:
        """Queue the whole group."""
        checkpoint = journal.checkpoint
        command, index, term = journal[0]
        body = _encode(
            _BaseBody(
                journal.replica_id,
                encode_configuration(checkpoint.configuration),
                checkpoint.index,
                checkpoint.term,
                checkpoint.state,
                index,
                term,
                command,
                journal.term,
                journal.voted_for,
                journal.commit,
            )
        )
        self._records.append(_RECORD.pack(KIND_BASE, journal.group, len(body)))
        self._records.append(body)
        for entry in journal[1:]:
            self.record_entry(journal.group, *entry)
        journal.root_segment = self._segment
        journal.root_batch = self.batch
        self._lazy_commits.pop(journal.group, None)

    def create(
        self,
        group: int,
        replica_id: ReplicaId,
        configuration: Configuration,
        index: LogIndex,
        term: Term,
        state: bytes,
    ) -> GroupJournal:
        """A new group's journal, standing on a sentinel."""
        journal = self.journal_class(
            self,
            group,
            replica_id,
            Checkpoint(index, term, configuration, state),
            [(SENTINEL_COMMAND, index, term)],
            term=term,
            voted_for=None,
            commit=index,
        )
        self.journals[group] = journal
        journal.write_base()
        return journal

    def remove(self, group: int) -> None:
        """Forget the group."""
        journal = self.journals.pop(group)
        self._records.append(_RECORD.pack(KIND_REMOVAL, group, 0))
        self._lazy_commits.pop(group, None)
        self._touched.pop(group, None)
        self._must_sync = True
        journal.last_batch = self.batch

    def when_durable(self, function: Callable[[], None]) -> bool:
        """Call `function` once all that is queued is durable. False: it already is, nothing will be called."""
        if self._records or self._lazy_commits:
            self._must_sync = True
            self._waiters.append((self.batch, function))
            return True
        if self.in_flight:
            self._waiters.append((self.batch - 1, function))
            return True
        return False

    # writing

    @property
    def wants_sync(self) -> bool:
        """Whether something is queued that must not wait for a later batch."""
        return bool(self._touched) or self._must_sync

    def sync(self) -> list[GroupJournal]:
        """Write the gathered batch (nothing may be in flight). Returns the journals with records in it."""
        assert not self.in_flight
        for group, journal in self._lazy_commits.items():
            self.record_commit(group, journal.commit)
        self._lazy_commits.clear()
        if self._segment_size >= self._segment_bytes:
            self._roll()
        if len(self._segments) > SEGMENTS_KEPT + 1:
            self._rewrite_some()
        payload = b"".join(self._records)
        self._records.clear()
        data = self._frame(payload)
        if self._segment_fresh:
            self._segment_fresh = False
            head = SEGMENT_HEADER.pack(SEGMENT_MAGIC, self._segment, self.batch, 0)[:-4]
            data = head + struct.pack("<I", zlib.crc32(head)) + data
        receipt = _receipt(self.batch, self._segment)
        self._segment_size += len(data) + len(receipt)
        self.in_flight = True
        self.batch += 1
        self._must_sync = False
        self._touched_in_flight, self._touched = self._touched, {}
        touched = list(self._touched_in_flight.values())
        self._storage.append(data, self._written, receipt)
        return touched

    def _frame(self, payload: bytes) -> bytes:
        seed = self._segment & 0xFFFFFFFF
        head = BATCH_HEADER.pack(
            BATCH_MAGIC, self.batch, len(payload), zlib.crc32(payload, seed), 0
        )[:-4]
        return head + struct.pack("<I", zlib.crc32(head, seed)) + payload

    def _written(self) -> None:
        self.in_flight = False
        self.durable_batch = self.batch - 1
        touched = list(self._touched_in_flight.values())
        self._touched_in_flight = {}
        self._free_segments()
        due = [function for batch, function in self._waiters if batch <= self.durable_batch]
        self._waiters = [w for w in self._waiters if w[0] > self.durable_batch]
        self._on_durable(touched)
        for function in due:
            function()

    # segments

    @property
    def segment_count(self) -> int:
        """Segments on disk."""
        return len(self._segments)

    def _roll(self) -> None:
        self._segment += 1
        self._storage.roll(self._segment)
        self._segments.append(self._segment)
        self._segment_size = 0
        self._segment_fresh = True

    def _rewrite_some(self) -> None:
        oldest = self._segments[0]
        budget = REWRITE_BYTES_PER_BATCH
        for journal in self.journals.values():
            if journal.root_segment <= oldest:
                # A group that its owner has not checkpointed for long would be copied again and again.
                if journal.log_bytes > self._segment_bytes:
                    continue
                journal.write_base()
                budget -= journal.log_bytes + len(journal.checkpoint.state)
                if budget <= 0:
                    return

    def _free_segments(self) -> None:
        while len(self._segments) > SEGMENTS_KEPT + 1:
            oldest = self._segments[0]
            for journal in self.journals.values():
                if journal.root_segment <= oldest or journal.root_batch > self.durable_batch:
                    return
            del self._segments[0]
            self._storage.remove(oldest)

    # recovery

    def recover(self) -> None:
        """Read all segments, repair a torn tail, fill `journals`, and open a new segment.

        Raises:
            Corruption: Damage that a torn last write cannot explain.
        """
        replay = _Replay(self)
        numbers = sorted(self._storage.segments())
        expected: int | None = None
        for position, number in enumerate(numbers):
            is_last = position == len(numbers) - 1
            expected = self._read_segment(number, expected, replay, is_last=is_last)
        self.journals = replay.finish()
        self.batch = expected if expected is not None else 1
        self.durable_batch = self.batch - 1
        self._segments = sorted(self._storage.segments())
        self._segment = numbers[-1] if numbers else 0
        self._roll()

    def _read_segment(
        self, number: int, expected: int | None, replay: "_Replay", *, is_last: bool
    ) -> int | None:
        data = self._storage.read(number)
        position = 0
        header = _parse_segment_header(data, number)
        if header is not None:
            first, receipt_size = header
            if expected is not None and first != expected:
                raise Corruption(f"segment {number} begins at batch {first}, expected {expected}")
            expected = first
            position = SEGMENT_HEADER.size
            while (batch := _parse_batch(data, position, number)) is not None:
                sequence, start, end = batch
                if sequence != expected:
                    raise Corruption(f"batch {sequence} where {expected} belongs, segment {number}")
                replay.batch(data[start:end], number)
                expected += 1
                position = end + receipt_size
        self._check_tail(data, position, number, expected, is_last=is_last)
        if is_last or len(data.rstrip(b"\0")) > position:
            # The last one in any case: its last batch may be there only because the machine outlived the
            # process that wrote it. What is built on it from here on needs it durable.
            self._storage.truncate(number, position)
        if position == 0:
            # Nothing was ever durable in it. (Empty now, so that it is harmless should the removal not last.)
            self._storage.remove(number)
        return expected

    @staticmethod
    def _check_tail(
        data: bytes, position: int, number: int, expected: int | None, *, is_last: bool
    ) -> None:
        """What follows the last good batch must be nothing, or one torn write at the very end of the log."""
        if not is_last:
            if data[position:].strip(b"\0"):
                raise Corruption(f"segment {number} is damaged at {position}")
            return
        found: list[int] = []
        search = position
        while (search := data.find(BATCH_MAGIC, search)) >= 0:
            batch = _parse_batch(data, search, number)
            if batch is not None:
                found.append(batch[0])
            search += 1
        search = position
        while (search := data.find(RECEIPT_MAGIC, search)) >= 0:
            sequence = _parse_receipt(data, search, number)
            if sequence is not None and (expected is None or sequence >= expected):
                raise Corruption(
                    f"segment {number} is damaged at {position}, batch {sequence} was durable"
                )
            search += 1
        if (expected is not None and any(sequence > expected for sequence in found)) or len(
            set(found)
        ) > 1:
            raise Corruption(f"segment {number} is damaged at {position}, later batches are whole")


def _receipt(sequence: int, number: int) -> bytes:
    head = RECEIPT.pack(RECEIPT_MAGIC, sequence, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head, number & 0xFFFFFFFF))


def _parse_receipt(data: bytes, position: int, number: int) -> int | None:
    if position + RECEIPT.size > len(data):
        return None
    _, sequence, _ = RECEIPT.unpack_from(data, position)
    whole = data[position : position + RECEIPT.size] == _receipt(sequence, number)
    return int(sequence) if whole else None


def _parse_segment_header(data: bytes, number: int) -> tuple[int, int] | None:
    """(first batch, bytes of a receipt), None if it is damaged."""
    if len(data) < SEGMENT_HEADER.size:
        return None
    magic, written, first, checksum = SEGMENT_HEADER.unpack_from(data)
    if magic not in RECEIPT_SIZES or zlib.crc32(data[: SEGMENT_HEADER.size - 4]) != checksum:
        return None
    if written != number:
        raise Corruption(f"file of segment {number} holds segment {written}")
    return int(first), RECEIPT_SIZES[magic]


def _parse_batch(data: bytes, position: int, number: int) -> tuple[int, int, int] | None:
    """(sequence, payload start, payload end) of a whole batch at `position`, else None."""
    start = position + BATCH_HEADER.size
    if start > len(data):
        return None
    seed = number & 0xFFFFFFFF
    magic, sequence, length, checksum, own = BATCH_HEADER.unpack_from(data, position)
    if magic != BATCH_MAGIC or zlib.crc32(data[position : start - 4], seed) != own:
        return None
    end = start + length
    if end > len(data) or zlib.crc32(data[start:end], seed) != checksum:
        return None
    return sequence, start, end


class _Image:
    """A group as far as the log has been read."""

    __slots__ = ("checkpoint", "commit", "entries", "replica_id", "root", "term", "voted_for")

    def __init__(self, body: _BaseBody, root: int) -> None:
        self.replica_id = ReplicaId(body.replica_id)
        self.checkpoint = Checkpoint(
            LogIndex(body.checkpoint_index),
            Term(body.checkpoint_term),
            decode_configuration(body.configuration),
            body.state,
        )
        self.entries: list[Entry] = [(body.first_command, body.first_index, body.first_term)]
        self.term = body.term
        self.voted_for = body.voted_for
        self.commit = body.commit
        self.root = root

    def position(self, index: int) -> int:
        position = index - self.entries[0][1]
        if not 0 < position < len(self.entries):
            raise Corruption(f"index {index} is not in the log")
        return position


class _Replay:
    """Records, in order, into groups."""

    def __init__(self, log: NodeLog) -> None:
        self._log = log
        self._images: dict[int, _Image] = {}
        # Groups with records whose base was in a segment that is gone: a later base or removal must follow.
        self._orphans: set[int] = set()

    def batch(self, payload: bytes, segment: int) -> None:
        position, end = 0, len(payload)
        while position < end:
            kind, group, length = _RECORD.unpack_from(payload, position)
            position += _RECORD.size
            body = payload[position : position + length]
            position += length
            try:
                self._record(kind, group, body, segment)
            except (msgspec.MsgspecError, UnicodeDecodeError, struct.error) as error:
                raise Corruption(f"record of kind {kind}, group {group}: {error}") from error

    def _record(self, kind: int, group: int, body: bytes, segment: int) -> None:
        if kind == KIND_BASE:
            self._orphans.discard(group)
            self._images[group] = _Image(_decode_base(body), segment)
            return
        if kind == KIND_REMOVAL:
            self._orphans.discard(group)
            self._images.pop(group, None)
            return
        image = self._images.get(group)
        if image is None:
            self._orphans.add(group)
            return
        if kind == KIND_CHECKPOINT:
            _replay_checkpoint(image, _decode_checkpoint(body))
            return
        first, second = _PAIR.unpack_from(body)
        if kind == KIND_ENTRY:
            if first != image.entries[-1][1] + 1:
                raise Corruption(f"entry {first} behind {image.entries[-1][1]}, group {group}")
            image.entries.append((body[_PAIR.size :], first, second))
        elif kind == KIND_TRUNCATION:
            del image.entries[image.position(first) :]
        elif kind == KIND_TERM:
            image.term = first
            image.voted_for = second - 1 if second else None
        elif kind == KIND_COMMIT:
            image.commit = max(image.commit, first)
        else:
            raise Corruption(f"record of unknown kind {kind}")

    def finish(self) -> dict[int, GroupJournal]:
        if self._orphans:
            raise Corruption(f"records without a base: groups {sorted(self._orphans)}")
        journals = {}
        for group, image in self._images.items():
            journal = self._log.journal_class(
                self._log,
                group,
                image.replica_id,
                image.checkpoint,
                image.entries,
                term=image.term,
                voted_for=image.voted_for,
                commit=image.commit,
            )
            journal.root_segment = image.root
            journals[group] = journal
        return journals


def _replay_checkpoint(image: _Image, body: _CheckpointBody) -> None:
    first = image.entries[0][1]
    position = body.first_index - first
    if not 0 <= position < len(image.entries):
        raise Corruption(f"checkpoint cuts at {body.first_index}, log begins at {first}")
    if position:
        del image.entries[:position]
    image.checkpoint = Checkpoint(
        LogIndex(body.index),
        Term(body.term),
        decode_configuration(body.configuration),
        body.state,
    )
