"""Receiving snapshots: into a staging file, checked chunk by chunk, and on from there after a cut.

The staging file is the only record of a transfer: it begins with the head, which names the snapshot and its sender,
and whatever of it can be read and checked was received. So it does not matter how a transfer ended. The next one
asks the same sender for the rest of the very same snapshot; a sender that does not hold it any more (its process
ended, its patience did) begins with another one, and the file is begun anew. Nothing is ever put together of two.

A former leader that still holds the snapshot is asked before the present one, if its state is new enough for the
present leader's log to follow on.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO

import grpc

from proto import control_pb2, control_pb2_grpc
from raft.group import GroupId, LogIndex
from storagenode.data_directory import Peer
from storagenode.replicas.replica import Capture
from storagenode.snapshots.snapshot_sending import RATE_BYTES, rate_limit
from storagenode.snapshots.snapshots import (
    BadSnapshot,
    Progress,
    checked_chunks,
    forget_file,
    frame,
)

log = logging.getLogger(__name__)

TRANSFERS_MAX = 4
"""Snapshots that a node receives at once; more wait their turn."""
STALL_S = 30.0
"""A sender that is silent for so long is taken for dead."""
TRANSFER_S_MAX = 3600.0
"""A stream ends after this in any case; the next one goes on."""
_CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 64 << 20)]
SYNC_BYTES = 8 << 20
"""Made durable in such pieces: one sync of everything at the end would hold up the log's."""


class SnapshotReceiver:
    """All snapshots that a node receives.

    Attributes:
        received: Complete ones.
        continued: Transfers that went on where an earlier one had stopped.
        bytes_received: Keys and values.
    """

    def __init__(
        self,
        find_peer: Callable[[str], Peer | None],
        now: Callable[[], float],
        rate_bytes: int = RATE_BYTES,
        open_channel: Callable[..., Any] = grpc.aio.insecure_channel,
    ) -> None:
        """Create.

        Args:
            find_peer: Where a node is that can be reached right now.
            now: Seconds, monotonic.
            rate_bytes: Per second, over all transfers; 0: no limit.
            open_channel: As `grpc.aio.insecure_channel`.
        """
        self.received = 0
        self.continued = 0
        self.bytes_received = 0
        self._find_peer = find_peer
        self._now = now
        self._bucket = rate_limit(rate_bytes)
        self._open_channel = open_channel
        self._turns = asyncio.Semaphore(TRANSFERS_MAX)

    async def fetch(self, peer: Peer, group: GroupId, at_least: LogIndex, file: Path) -> Capture:
        """Receive a snapshot of `group` into `file` (`node.FetchSnapshot`): from where an earlier attempt stopped,
        if that can be had, else one of now from `peer`. When this returns the file is complete, checked and
        durable with its name; when it raises, the file is what a later attempt may go on from.

        Raises:
            BadSnapshot: What came is damaged or too old, or nobody has it or can be reached.
        """
        async with self._turns:
            kept = await _kept(file, group)
            if kept is not None and kept.capture.index < at_least:
                kept = None
            if kept is not None and not kept.is_complete:
                kept = await self._go_on(kept, peer, group, at_least, file)
            if kept is None:
                kept = await self._receive(peer, group, at_least, file, None)
            assert kept is not None
            await _sync_directory(file.parent)
            self.received += 1
            log.info("snapshot received", extra={"group": group, "index": kept.capture.index})
            return kept.capture

    async def _go_on(
        self, kept: Progress, peer: Peer, group: GroupId, at_least: LogIndex, file: Path
    ) -> Progress | None:
        """The rest of what is kept, from whom it came; None if that cannot be had there."""
        assert kept.head is not None
        if kept.head.node_id == peer.node_id:
            return await self._receive(peer, group, at_least, file, kept)
        former = self._find_peer(kept.head.node_id)
        if former is None or not former.grpc:
            return None
        before = kept.last_key
        try:
            return await self._receive(former, group, at_least, file, kept)
        except BadSnapshot as error:
            if kept.last_key > before:
                raise
            log.info("the former sender is of no use", extra={"group": group, "reason": str(error)})
            return None

    async def _receive(
        self,
        peer: Peer,
        group: GroupId,
        at_least: LogIndex,
        file: Path,
        kept: Progress | None,
    ) -> Progress:
        request = control_pb2.FetchSnapshotRequest(group=group, at_least_index=at_least)
        if kept is not None and kept.head is not None and kept.last_key:
            request.snapshot_id = kept.head.snapshot_id
            request.after_key = kept.last_key
            request.crc32 = kept.crc32
        async with self._open_channel(peer.grpc, options=_CHANNEL_OPTIONS) as channel:
            stub = control_pb2_grpc.StorageControlStub(channel)  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(STALL_S) as stall:
                    chunks = self._paced(stub.FetchSnapshot(request, timeout=TRANSFER_S_MAX), stall)
                    return await self._store(chunks, group, at_least, file, kept)
            except grpc.aio.AioRpcError as error:
                reason = f"{peer.grpc}: {error.code()}: {error.details()}"
                raise BadSnapshot(reason) from error
            except TimeoutError as error:
                raise BadSnapshot(f"{peer.grpc} is silent") from error

    async def _paced(
        self, chunks: AsyncIterator[control_pb2.SnapshotChunk], stall: asyncio.Timeout
    ) -> AsyncIterator[control_pb2.SnapshotChunk]:
        """The chunks at no more than our rate; only the sender's silence counts against `stall`."""
        now = asyncio.get_running_loop().time
        async for chunk in chunks:
            size = sum(len(record.key) + len(record.value) for record in chunk.records)
            self.bytes_received += size
            wait_s = self._bucket.take(size, self._now())
            stall.reschedule(now() + wait_s + STALL_S)
            if wait_s:
                await asyncio.sleep(wait_s)
            yield chunk

    async def _store(
        self,
        chunks: AsyncIterator[control_pb2.SnapshotChunk],
        group: GroupId,
        at_least: LogIndex,
        file: Path,
        kept: Progress | None,
    ) -> Progress:
        """Append the chunks to what is kept, or begin anew if they are of another snapshot."""
        progress: Progress | None = None
        with file.open("ab") as target:
            written = 0
            async for chunk in chunks:
                if progress is None:
                    progress = self._begin(chunk, group, kept, target)
                try:
                    progress.take(chunk)
                    if progress.capture.index < at_least:
                        reason = f"snapshot at {progress.capture.index}, wanted one at {at_least}"
                        raise BadSnapshot(f"{reason} or later")
                except BadSnapshot:
                    # Going on would meet it again.
                    forget_file(file)
                    raise
                data = frame(chunk)
                target.write(data)
                written += len(data)
                if written >= SYNC_BYTES:
                    written = 0
                    await _sync(target)
            if progress is None or not progress.is_complete:
                raise BadSnapshot("incomplete")
            await _sync(target)
        return progress

    def _begin(
        self,
        chunk: control_pb2.SnapshotChunk,
        group: GroupId,
        kept: Progress | None,
        target: BinaryIO,
    ) -> Progress:
        extra = {"group": group, "index": chunk.head.index, "sender": chunk.head.node_id}
        if (
            kept is not None
            and kept.head is not None
            and kept.last_key
            and kept.head.snapshot_id == chunk.head.snapshot_id
        ):
            chunk.ClearField("head")
            self.continued += 1
            log.info("going on with a snapshot", extra={**extra, "bytes": target.tell()})
            return kept
        target.truncate(0)
        log.info("receiving a snapshot", extra=extra)
        return Progress(group)


async def _kept(file: Path, group: int) -> Progress | None:
    """What an earlier attempt left in the file, which is cut back to that; None: nothing of use."""
    progress: Progress | None = None
    try:
        source = file.open("r+b")
    except FileNotFoundError:
        return None
    with source:
        end = 0
        try:
            for _, progress in checked_chunks(source, group):  # noqa: B007
                end = source.tell()
                await asyncio.sleep(0)
        except BadSnapshot as error:
            log.info("what is kept ends here", extra={"group": group, "reason": str(error)})
        source.truncate(end)
        if progress is not None and progress.is_complete:
            await _sync(source)
    return progress


async def _sync(file: BinaryIO) -> None:
    file.flush()
    await asyncio.to_thread(os.fsync, file.fileno())


async def _sync_directory(path: Path) -> None:
    """Makes names in it durable as well: the engine is going to note, durably, that the file is there."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        await asyncio.to_thread(os.fsync, directory)
    finally:
        os.close(directory)
