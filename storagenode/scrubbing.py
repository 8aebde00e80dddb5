"""Scrubbing: all replicas of a partition make a digest of their state at the same log position, and are compared.

    the leader lets a log entry ask for it -> each replica, when it has applied just that entry, keeps a snapshot of
    the engine and reads it through in small steps -> the leader collects the digests -> whoever differs from the
    majority goes out of service and is repaired from the leader (`healing`); a leader that differs hands over first

Every record's checksum is verified on the way, and LevelDB's own. A digest is made only where the engine holds what
the log says and nothing later: not while a restarted replica applies again what its engine has already. Without a
majority of voters that agree nothing is repaired: nobody knows then who is right.
"""

import asyncio
import enum
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from datamodel.errors import Corruption
from datamodel.stored_items import check_record
from raft.group import GroupId, LogIndex, Member, ReplicaId
from storagenode.data_directory import Peer
from storagenode.engines.engine import DATA, Engine, EngineFailure, Snapshot, data_range, feed_range
from storagenode.node import Node
from storagenode.peers import Peers
from storagenode.replicas.log_entries import ReplicaState
from storagenode.replicas.replica import Replica

log = logging.getLogger(__name__)

INTERVAL_S = 6 * 3600.0
"""Each partition is scrubbed about this often, unless configured."""
BYTES_PER_S = 16 << 20
STEP_BYTES = 128 << 10
STEP_RECORDS = 400
"""Read in one step: a few milliseconds."""
POLL_S = 1.0
PATIENCE_S = 900.0
"""How long the leader waits for the others' digests."""
DAMAGED = b""
"""Instead of a digest."""


class DigestClient(Protocol):
    """What is asked of other nodes; None or False when they do not answer."""

    async def digest(self, peer: Peer, group: int, index: int) -> bytes | None:
        """The digest of that node's replica at a log position, once it has one; `DAMAGED` when it met damage."""

    async def repair(self, peer: Peer, group: int, index: int, digest: bytes) -> bool:
        """Tell that node's replica that its digest is wrong."""


class NotCompared(Exception):
    """The replicas were not compared, or not to the end. Asking again may help."""


class Verdict(enum.Enum):
    """On a replica that was compared."""

    SAME = "same"
    DIFFERS = "differs"  # and is repaired
    DAMAGED = "damaged"  # it found that itself, and is repaired
    SILENT = "silent"
    UNDECIDED = "undecided"  # no majority agrees


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of a group's replicas, behind the entry at `index`."""

    index: int
    verdicts: dict[Member, Verdict]


@dataclass(frozen=True, slots=True)
class Digest:
    """Of a replica's state behind the entry at `index`; `DAMAGED` when it could not be made."""

    index: int
    digest: bytes


class Scrubber:
    """Makes digests of a node's replicas, and compares those of the groups that it leads.

    Attributes:
        scrubs: Comparisons completed here since the start.
        mismatches: Replicas found to differ from their majority, by comparisons made here.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        peers: Peers,
        client: DigestClient,
        spawn: Callable[[Awaitable[None]], object],
        now: Callable[[], float],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Create, and make digests from now on; `run` asks for them.

        Args:
            node: Whose replicas.
            engine: The store.
            peers: Where the others are.
            client: Asks them.
            spawn: Runs something beside the loop's callbacks.
            now: Monotonic clock.
            interval_s: How often each partition is scrubbed; 0: never.
        """
        self.scrubs = 0
        self.mismatches = 0
        self._node = node
        self._engine = engine
        self._peers = peers
        self._client = client
        self._spawn = spawn
        self._now = now
        self._interval_s = interval_s
        self._digests: dict[GroupId, Digest] = {}
        self._busy: set[GroupId] = set()
        self._one_at_a_time = asyncio.Semaphore(1)
        self._asked_at: dict[GroupId, float] = {}
        self._waiting: dict[GroupId, list[asyncio.Future[Comparison]]] = {}
        node.on_scrub = self._begin

    async def run(self) -> None:
        """Ask for a scrub of one partition led here at a time, for ever."""
        if not self._interval_s:
            return
        while True:
            await asyncio.sleep(min(self._interval_s / 10, 10.0))
            self.ask_next()

    def ask_next(self) -> None:
        """Ask for a scrub of the partition that has waited longest, if its time has come and none is under way."""
        now = self._now()
        leading = [r for r in self._node.replicas.values() if r.standing.is_leading]
        for replica in leading:
            # Not all at once after a start: the first of each comes within an interval of its own.
            first = now - self._interval_s * (replica.group_id % 16) / 16
            self._asked_at.setdefault(replica.group_id, first)
        due = [r for r in leading if now - self._asked_at[r.group_id] >= self._interval_s]
        if due and not self._busy:
            replica = min(due, key=lambda r: self._asked_at[r.group_id])
            self._asked_at[replica.group_id] = now
            replica.ask_scrub()

    async def scrub(self, group: int) -> Comparison:
        """Compare the replicas of a group that is led here, now.

        Raises:
            NotCompared: It is not led here, or not until the end; or our own replica is damaged.
        """
        key = GroupId(group)
        while key in self._busy:  # noqa: ASYNC110  # rare: with a state from before this call
            await asyncio.sleep(POLL_S)
        replica = self._node.replicas.get(key)
        if replica is None or not replica.standing.is_leading:
            raise NotCompared(f"group {group} is not led here")
        done: asyncio.Future[Comparison] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(done)
        self._asked_at[key] = self._now()
        replica.ask_scrub()
        while not done.done():
            await asyncio.wait([done], timeout=POLL_S)
            if not (done.done() or replica.standing.is_leading or key in self._busy):
                self._waiting.pop(key, None)
                raise NotCompared(f"group {group} is led elsewhere now")
        return done.result()

    def digest(self, group: int, index: int) -> bytes | None:
        """The digest of our replica at a log position, if it is there."""
        found = self._digests.get(GroupId(group))
        return None if found is None or found.index != index else found.digest

    def repair(self, group: int, index: int, digest: bytes) -> bool:
        """The majority has another digest: go out of service, which begins the repair; False if ours is that."""
        own = self.digest(group, index)
        replica = self._node.replicas.get(GroupId(group))
        if own is None or own == digest or replica is None:
            return False
        del self._digests[GroupId(group)]
        replica.fail(f"differs from the majority at {index}")
        return True

    # --- the digest ---

    def _begin(self, replica: Replica, index: LogIndex) -> None:
        if replica.group_id in self._busy:
            return
        self._busy.add(replica.group_id)
        self._spawn(self._scrub(replica, index, self._engine.snapshot(), replica.capture().state))

    async def _scrub(
        self, replica: Replica, index: LogIndex, snapshot: Snapshot, state: ReplicaState
    ) -> None:
        group = replica.group_id
        outcome: Comparison | NotCompared = NotCompared(f"group {group} is led elsewhere now")
        try:
            async with self._one_at_a_time:
                digest = await self._read_through(group, snapshot, state)
            self._digests[group] = Digest(index, digest)
            if replica.standing.is_leading:
                outcome = await self._compare(replica, index, digest)
        except (Corruption, EngineFailure) as error:
            log.error("scrub met damage", extra={"group": group, "reason": str(error)})  # noqa: TRY400
            self.mismatches += 1
            self._digests[group] = Digest(index, DAMAGED)
            outcome = NotCompared(f"the leader's replica is damaged, and is repaired: {error}")
            replica.fail(str(error))
        finally:
            snapshot.close()
            self._busy.discard(group)
            for done in self._waiting.pop(group, ()):
                if done.done():
                    continue
                if isinstance(outcome, Comparison):
                    done.set_result(outcome)
                else:
                    done.set_exception(outcome)

    async def _read_through(self, group: GroupId, snapshot: Snapshot, state: ReplicaState) -> bytes:
        figures = [state.item_count, state.size_bytes, state.feed_position, state.index_figures]
        digest = hashlib.blake2b(msgspec.msgpack.encode(figures), digest_size=16)
        size = records = 0
        for start, end in (data_range(state.start, state.end), feed_range(group)):
            cursor = snapshot.iterate(start, end)
            for key, value in cursor:
                if key.startswith(DATA):
                    check_record(value, "item")
                digest.update(len(key).to_bytes(4, "big"))
                digest.update(key)
                digest.update(len(value).to_bytes(4, "big"))
                digest.update(value)
                size += len(key) + len(value)
                records += 1
                if size >= STEP_BYTES or records >= STEP_RECORDS:
                    await asyncio.sleep(size / BYTES_PER_S)
                    size = records = 0
            cursor.close()
        return digest.digest()

    # --- the comparison ---

    async def _compare(self, replica: Replica, index: LogIndex, own: bytes) -> Comparison:
        voters = [m for m in replica.configuration.members if not m.is_learner]
        digests = await self._collect(replica, index, voters, own)
        sound = [digest for digest in digests.values() if digest != DAMAGED]
        ((majority, count),) = Counter(sound).most_common(1)
        extra = {"group": replica.group_id, "index": index}
        verdicts = {}
        for member in voters:
            digest = digests.get(member.replica_id)
            if digest is None:
                verdicts[member] = Verdict.SILENT
            elif digest == DAMAGED:
                verdicts[member] = Verdict.DAMAGED
            elif count * 2 <= len(voters):
                verdicts[member] = Verdict.UNDECIDED
            else:
                verdicts[member] = Verdict.SAME if digest == majority else Verdict.DIFFERS
        comparison = Comparison(index, verdicts)
        if count * 2 <= len(voters):
            if len(sound) * 2 > len(voters):
                self.mismatches += 1
                log.error(
                    "replicas differ and no majority agrees: nothing is repaired", extra=extra
                )
            return comparison
        self.scrubs += 1
        for member, verdict in verdicts.items():
            if verdict is not Verdict.DIFFERS:
                continue
            self.mismatches += 1
            log.error(
                "a replica differs from the majority: it is repaired",
                extra={**extra, "replica": member.replica_id, "node": member.node_id},
            )
            peer = self._peers.find(member.node_id)
            if member.replica_id == replica.replica_id:
                self.repair(replica.group_id, index, majority)
            elif peer is not None:
                await self._client.repair(peer, replica.group_id, index, majority)
        return comparison

    async def _collect(
        self, replica: Replica, index: LogIndex, voters: Sequence[Member], own: bytes
    ) -> dict[ReplicaId, bytes]:
        """The voters' digests, as far as they come in time while we lead and they belong to the group."""
        digests = {replica.replica_id: own}
        until = self._now() + PATIENCE_S
        while True:
            members = {member.replica_id for member in replica.configuration.members}
            missing = [m for m in voters if m.replica_id not in digests and m.replica_id in members]
            for member in missing:
                peer = self._peers.find(member.node_id)
                if peer is not None and peer.grpc:
                    answer = await self._client.digest(peer, replica.group_id, index)
                    if answer is not None:
                        digests[member.replica_id] = answer
            if all(member.replica_id in digests for member in missing):
                return digests
            await asyncio.sleep(POLL_S)
            if self._now() >= until or not replica.standing.is_leading:
                return digests
