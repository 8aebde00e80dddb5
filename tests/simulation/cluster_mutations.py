"""Rules of the product switched off, one at a time: each must be missed within a number of seeds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec

import datamodel.stored_items
import proto.cluster_client
import storagenode.joining.registration
from proto.messages import Value, Written
from raft.journal import GroupJournal
from raft.node_log import NodeLog
from raft.replica import Replica as RaftReplica
from storagenode.replicas.indexing import Indexing
from storagenode.replicas.reading import Reads
from storagenode.replicas.replica import Replica
from storagenode.replicas.request_memory import RequestMemory
from storagenode.replicas.writing import Writes
from storagenode.scrubbing import Scrubber
from tests.simulation.cluster_disk import LogFiles, Machine


def _acknowledge_before_sync(
    self: LogFiles, data: bytes, on_durable: Callable[[], None], receipt: bytes
) -> None:
    """Written, and called durable at once: what a disk that lies does."""
    self._files[self._open].data += data + receipt
    self._process.post(on_durable)


def _expire_by_wall_clock(self: RequestMemory, now: int) -> None:
    newest = self._runs[-1][0] if self._runs else 0
    while self._runs and self._runs[0][0] < newest - 10_000_000:
        for _ in range(self._runs.popleft()[1]):
            self._results.pop(self._ids.popleft())


def _no_memory(self: RequestMemory, request_id: bytes) -> None:
    return None


def _refuse_at_once(self: Writes, pending: Any, effect: Any, depends_on: int) -> None:
    """Answer from what is proposed, before it is certain and without leadership confirmed."""
    self._proposals, proposals = {}, self._proposals
    with mock.patch.object(self, "_confirm", lambda finish: finish(True)):
        _ANSWER_UNWRITTEN(self, pending, effect, depends_on)
    self._proposals = proposals


_ANSWER_UNWRITTEN = Writes._answer_unwritten


def _read_unsynced(read: Any) -> Any:
    """Recovery that believes what it reads without making the last segment durable."""

    def read_segment(self: NodeLog, number: int, *args: Any, is_last: bool) -> int | None:
        truncate = self._storage.truncate

        def cut(segment: int, size: int) -> None:
            if self._storage.read(segment)[size:].strip(b"\0"):
                truncate(segment, size)

        with mock.patch.object(self._storage, "truncate", cut):
            return read(self, number, *args, is_last=is_last)  # type: ignore[no-any-return]

    return read_segment


def _acknowledge_on_full_disk(
    self: LogFiles, life: int, on_durable: Callable[[], None], receipt: bytes
) -> None:
    """The error of a write that found no space is not looked at."""
    if self._process.life == life and self._machine.is_full:
        self.in_flight = None
        self._process.post(on_durable)
    else:
        _SYNCED(self, life, on_durable, receipt)


_SYNCED = LogFiles._synced


def _wipe_but_for_identity(self: Machine) -> None:
    """An empty disk passes for the one that it replaces."""
    identity = self.identity
    _WIPE(self)
    if identity is not None:
        self.identity = msgspec.structs.replace(identity, cluster_id="")


_WIPE = Machine.wipe


def _keep_entries(self: Indexing) -> list[Any]:
    """What is not in an index any more stays there."""
    return [mutation for mutation in _MUTATIONS(self) if mutation[1] is not None]


_MUTATIONS = Indexing.mutations


def _forget_what_came_meanwhile(self: Replica) -> bool:
    """An installed snapshot is all there is."""
    self.standing.is_installing = False
    return True


def _as_the_clock_says(row: Any, *, started_ms: int = 0, **changes: Any) -> Any:
    return replace(row, **changes)


MUTATIONS: dict[str, tuple[Any, str, Any]] = {
    "ack before fsync": (LogFiles, "append", _acknowledge_before_sync),
    "no memory of requests": (RequestMemory, "get", _no_memory),
    "memory by wall clock": (RequestMemory, "expire", _expire_by_wall_clock),
    "queued retries done again": (Writes, "_answer_done", lambda self: None),
    "refusals before they are certain": (Writes, "_answer_unwritten", _refuse_at_once),
    "a lease without end": (RaftReplica, "lease_is_valid", lambda self: self._core.is_leader),
    "unsynced tail believed": (NodeLog, "_read_segment", _read_unsynced(NodeLog._read_segment)),
    "full disk acknowledged": (LogFiles, "_synced", _acknowledge_on_full_disk),
    "damaged log taken for torn": (NodeLog, "_check_tail", staticmethod(lambda *_, **__: None)),
    "items without a checksum": (datamodel.stored_items, "crc32", lambda *_: 0),
    "wiped disk taken for the old one": (Machine, "wipe", _wipe_but_for_identity),
    "difference found and left": (Scrubber, "repair", lambda self, *_: False),
    "entries stay in indexes": (Indexing, "mutations", _keep_entries),
    "nothing behind a snapshot": (Replica, "catch_up", _forget_what_came_meanwhile),
    "newest disk by its clock": (storagenode.joining.registration, "replace", _as_the_clock_says),
    "writes forgotten by their router": (proto.cluster_client, "_POSITIONED", frozenset({Value})),
    "reads forgotten by their router": (proto.cluster_client, "_POSITIONED", frozenset({Written})),
    "eventual reads of whatever is there": (Reads, "_wait", Reads._answer),
    "commit known late after a start": (GroupJournal, "learn_commit", lambda self, *_: True),
}
