"""The storage node's shell around its replicas: which groups live here, and where the others are.

A node owns the replicas and knows the engine and the raft host. It opens and closes replicas (durably),
recovers them at start, hands each request to its replica, fetches snapshots for those that need one. It has no
clock and opens no socket; `composition.py` gives it links.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from datamodel.limits import ITEM_COLLECTION_SIZE_BYTES_MAX
from proto.messages import Catalog, Hello, ReplicaAddress
from raft.group import (
    BLANK_INDEX,
    BLANK_TERM,
    SENTINEL_INDEX,
    SENTINEL_TERM,
    Configuration,
    Environment,
    GroupId,
    Host,
    LogIndex,
    Member,
    RecoveredGroup,
    ReplicaId,
    Term,
)
from storagenode.data_directory import Peer
from storagenode.engines.engine import (
    APPLIED,
    REMOVING,
    TOMBSTONE,
    Engine,
    EngineFailure,
    data_range,
    feed_range,
    group_key,
    group_of_key,
)
from storagenode.peers import Peers
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.lagging import LaggingView
from storagenode.replicas.log_entries import (
    ReplicaState,
    decode_applied,
    decode_state,
    encode_state,
)
from storagenode.replicas.replica import Capture, Replica, Surroundings
from storagenode.replicas.scans import ScanRunner
from storagenode.snapshots import snapshots

log = logging.getLogger(__name__)

CATALOG_GROUP = GroupId(0)
NOBODY = Configuration(())
STAGED_S = 600.0
"""How long what was received of a snapshot stays when nobody goes on with it."""

FetchSnapshot = Callable[[Peer, GroupId, LogIndex, Path], Awaitable[Capture]]
"""Stores a snapshot of a group, from a node, at or behind an index, in a file."""


class ReplicaRefused(Exception):
    """A replica cannot be opened as asked; asking again will not help."""


def _raise(error: EngineFailure) -> None:
    raise error


class Node:
    """All replicas of one storage node.

    Attributes:
        replicas: Living replicas by group.
        catalog: Where the catalog is, as far as this node was told without holding a replica of it.
        catalog_position: In group 0's log, of what `catalog` says.
        handler_failures: Exceptions of request handlers so far, for metrics.
        on_fault: Told that a replica went out of service (`healing.Healer` repairs it).
        on_scrub: Told that a replica stands where a digest of it is asked for (`scrubbing.Scrubber` makes it).
        on_engine_failure: Told that the engine failed while a snapshot was installed, or old data deleted.
        scans: Pages in the making.
    """

    def __init__(
        self,
        own: Callable[[], Hello],
        environment: Environment,
        engine: Engine,
        apply_round: ApplyRound,
        host: Host,
        peers: Peers,
        wall_micros: Callable[[], int],
        snapshot_directory: Path,
        fetch_snapshot: FetchSnapshot,
        spawn: Callable[[Awaitable[None]], object],
        collection_size_max: int = ITEM_COLLECTION_SIZE_BYTES_MAX,
        lagging: LaggingView | None = None,
    ) -> None:
        """Create; `recover` follows.

        Args:
            own: How this node presents itself.
            environment: Clock and scheduling.
            engine: The store.
            apply_round: The host's sink.
            host: Raft.
            peers: The other nodes.
            wall_micros: Wall clock, microseconds.
            snapshot_directory: Where snapshots are received.
            fetch_snapshot: Brings one.
            spawn: Runs something beside the loop's callbacks; its exceptions end the process.
            collection_size_max: Bytes that an item collection may have in a table with local indexes.
            lagging: What eventual reads see instead of the engine, if anything.
        """
        self.replicas: dict[GroupId, Replica] = {}
        self.catalog: tuple[ReplicaAddress, ...] = ()
        self.catalog_position = 0
        self.handler_failures = 0
        self.on_fault: Callable[[Replica], None] = lambda replica: None
        self.on_scrub: Callable[[Replica, LogIndex], None] = lambda replica, index: None
        self.on_engine_failure: Callable[[EngineFailure], None] = _raise
        self._own = own
        self._environment = environment
        self._engine = engine
        self._round = apply_round
        self._host = host
        self._peers = peers
        self._snapshot_directory = snapshot_directory
        self._fetch_snapshot = fetch_snapshot
        self._spawn = spawn
        self._transferring: set[GroupId] = set()
        self._staged: dict[GroupId, Callable[[], None]] = {}
        self.scans = ScanRunner(environment)
        self._surroundings = Surroundings(
            environment,
            engine,
            apply_round,
            self.scans,
            wall_micros,
            self._snapshot_wanted,
            collection_size_max,
            lagging,
            lambda replica: self.on_fault(replica),
            lambda replica, index: self.on_scrub(replica, index),
        )

    # --- life ---

    def recover(self) -> None:
        """Bring the replicas that the log knows to life, finishing first what a crash interrupted.

        Raises:
            EngineFailure, UnknownFormat, BadSnapshot, raft.node_log.Corruption: What is on disk cannot be used; the
                node must not start.
        """
        recovered = self._host.recover()
        installed = self._redo_installations([found.group_id for found in recovered])
        for found in recovered:
            if self._was_closed(found.group_id, found.replica_id):
                self._host.remove_group(found.group_id)
            else:
                self._recover_replica(found, installed.get(found.group_id))
        for key, value in self._engine.iterate(group_key(REMOVING, 0), REMOVING + b"\xff" * 9):
            group = GroupId(group_of_key(key))
            start, end = msgspec.msgpack.decode(value, type=tuple[bytes, bytes])
            self._spawn(self._delete_data(group, start, end))

    def _redo_installations(self, groups: Iterable[GroupId]) -> dict[GroupId, tuple[Path, Capture]]:
        installed = {}
        for group, installation in snapshots.noted(self._engine).items():
            file = self._snapshot_directory / installation.file
            capture = snapshots.check_file(file, group)
            for _ in snapshots.steps(self._engine, group, installation, file, capture):
                pass
            installed[group] = (file, capture)
            log.info("interrupted snapshot installed", extra={"group": group})
        if installed:
            self._engine.make_durable()
        kept = {file.name for file, _ in installed.values()}
        # What was received in part may be gone on with, for a while; what is left beside that serves nobody.
        begun = {
            snapshots.staging_file(self._snapshot_directory, group).name: group for group in groups
        }
        for file in sorted(self._snapshot_directory.iterdir()):
            if file.name in kept:
                continue
            if file.name in begun:
                self._keep_staged(begun[file.name])
            else:
                file.unlink()
        return installed

    def _recover_replica(
        self, found: RecoveredGroup, installed: tuple[Path, Capture] | None
    ) -> None:
        replica = Replica(
            self._surroundings,
            found.group_id,
            found.replica_id,
            decode_state(found.checkpoint_state),
            found.configuration,
            found.checkpoint_index,
            found.checkpoint_term,
        )
        mark = self._engine.get(group_key(APPLIED, found.group_id))
        if mark is not None:
            replica.engine_held = decode_applied(mark)
        held = replica.engine_held
        stands_at = max(held.index, SENTINEL_INDEX)
        if stands_at < found.checkpoint_index:
            # The log was cut behind a checkpoint that the engine does not hold: data is missing.
            replica.fail(f"engine stands at {stands_at}, checkpoint at {found.checkpoint_index}")
        replica.standing.is_blank = found.checkpoint_index < SENTINEL_INDEX
        if installed is not None:
            replica.begin_install()
        # Known at once, not when a majority is there again: until all of it is applied this replica has no state
        # to show, not even to the one that needs a snapshot to become part of that majority.
        committed = None
        if held.index and installed is None:
            committed = LogIndex(held.index), Term(held.term)
        group = self._host.open_group(found.group_id, replica, replica.on_writable, committed)
        replica.attach(group)
        self.replicas[found.group_id] = replica
        if installed is not None:
            file, capture = installed
            snapshots.finish(replica, group, self._engine, file, capture, self._host.when_durable)
            while not replica.catch_up():  # (nothing is applied yet)
                pass

    def stop(self) -> None:
        """Take no more requests. Raft goes on until the host is stopped."""
        for replica in self.replicas.values():
            replica.stop()

    # --- opening and closing replicas ---

    def open_replica(
        self,
        group_id: GroupId,
        replica_id: ReplicaId,
        configuration: Configuration,
        state: ReplicaState,
        *,
        campaign: bool,
    ) -> None:
        """Create this node's replica of a new group; durable once `host.when_durable` calls. Idempotent.

        Raises:
            ReplicaRefused: Closed here before, or open with another id or range.
        """
        replica = self.replicas.get(group_id)
        if replica is not None:
            same = (replica.replica_id, replica.start, replica.end, replica.table_id)
            if same != (replica_id, state.start, state.end, state.table_id):
                raise ReplicaRefused(f"group {group_id} is open with another replica id or range")
            return
        if self._engine.get(group_key(TOMBSTONE, group_id)) is not None:
            raise ReplicaRefused(f"the replica of group {group_id} was closed for good")
        replica = Replica(
            self._surroundings,
            group_id,
            replica_id,
            state,
            configuration,
            SENTINEL_INDEX,
            SENTINEL_TERM,
        )
        group = self._host.create_group(
            group_id,
            replica_id,
            configuration,
            replica,
            replica.on_writable,
            encode_state(state),
            campaign,
        )
        replica.attach(group)
        self.replicas[group_id] = replica
        log.info("replica opened", extra={"group": group_id, "replica": replica_id})

    def join_replica(self, group_id: GroupId, replica_id: ReplicaId, state: ReplicaState) -> None:
        """Create a blank replica of a group that exists elsewhere; durable once `host.when_durable` calls. It
        serves nothing before it got a snapshot. Idempotent.

        Raises:
            ReplicaRefused: This id was closed here before, another one is open, or what a closed one left is
                still being deleted.
        """
        replica = self.replicas.get(group_id)
        if replica is not None:
            if replica.replica_id != replica_id:
                raise ReplicaRefused(f"group {group_id} is open as replica {replica.replica_id}")
            return
        if self._was_closed(group_id, replica_id):
            raise ReplicaRefused(f"replica {replica_id} of group {group_id} was closed for good")
        if self._engine.get(group_key(REMOVING, group_id)) is not None:
            raise ReplicaRefused(f"an old replica of group {group_id} is still being deleted")
        replica = Replica(
            self._surroundings, group_id, replica_id, state, NOBODY, BLANK_INDEX, BLANK_TERM
        )
        replica.standing.is_blank = True
        group = self._host.join_group(
            group_id, replica_id, replica, replica.on_writable, encode_state(state)
        )
        replica.attach(group)
        self.replicas[group_id] = replica
        log.info("blank replica opened", extra={"group": group_id, "replica": replica_id})

    def _was_closed(self, group_id: GroupId, replica_id: ReplicaId) -> bool:
        """Whether this replica, or a later one of the group, was closed here: ids are given in order."""
        closed = self._engine.get(group_key(TOMBSTONE, group_id))
        return closed is not None and replica_id <= msgspec.msgpack.decode(closed, type=int)

    async def close_replica(self, group_id: GroupId, replica_id: ReplicaId | None = None) -> None:
        """Forget the replica (if it has that id) and its data, for good; returns when that is durable.
        Idempotent.
        """
        replica = self.replicas.get(group_id)
        if replica is None or replica_id not in (None, replica.replica_id):
            return
        del self.replicas[group_id]
        self._round.flush()
        replica.stop()
        if self.may_transfer(group_id):
            snapshots.forget_file(snapshots.staging_file(self._snapshot_directory, group_id))
        if group_id == CATALOG_GROUP:
            others = [m for m in replica.configuration.members if m.replica_id != replica_id]
            self.catalog = tuple(self.addresses(m for m in others if not m.is_learner))
            self.catalog_position = replica.applied_index
        start, end = replica.start, replica.end
        self._engine.write(
            [
                (group_key(TOMBSTONE, group_id), msgspec.msgpack.encode(replica.replica_id)),
                (group_key(REMOVING, group_id), msgspec.msgpack.encode((start, end))),
                (group_key(APPLIED, group_id), None),
            ],
            sync=True,
        )
        self._host.remove_group(group_id)
        await self.durable()
        self._spawn(self._delete_data(group_id, start, end))
        log.info("replica closed", extra={"group": group_id})

    async def durable(self) -> None:
        """Return once everything handed to the log so far is durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host.when_durable(lambda: None if future.done() else future.set_result(None))
        await future

    async def _delete_data(self, group: GroupId, start: bytes, end: bytes) -> None:
        """Delete what a closed replica left. Ranges of keys never come back under another group here: table
        ids are not reused.
        """
        for first, behind in (data_range(start, end), feed_range(group)):
            for _ in snapshots.delete_range(self._engine, first, behind):
                await asyncio.sleep(0)
        self._engine.write([(group_key(REMOVING, group), None)])

    # --- snapshots ---

    def _snapshot_wanted(self, replica: Replica, source: Member, index: LogIndex) -> None:
        standing = replica.standing
        is_busy = standing.is_installing or standing.is_forgetting
        if self.may_transfer(replica.group_id) and not is_busy:
            self._transferring.add(replica.group_id)
            self._spawn(self._fetch_and_install(replica, source, index))

    async def _fetch_and_install(self, replica: Replica, source: Member, index: LogIndex) -> None:
        """One attempt; raft asks again while the replica is behind."""
        group = replica.group_id
        file = self.begin_transfer(group)
        is_complete = False
        try:
            peer = self._peers.find(source.node_id)
            if peer is None or not peer.grpc:
                log.warning("no gRPC address of the leader", extra={"node": source.node_id})
                return
            try:
                capture = await self._fetch_snapshot(peer, group, index, file)
            except (snapshots.BadSnapshot, OSError) as error:
                log.warning("snapshot not fetched", extra={"group": group, "reason": str(error)})
                return
            is_complete = True
            if self.replicas.get(group) is replica:
                await snapshots.install(
                    replica, self._engine, file, capture, self._host.when_durable
                )
            else:
                snapshots.forget_file(file)
        except EngineFailure as error:
            self.on_engine_failure(error)
        finally:
            self.end_transfer(group, is_complete=is_complete)

    def may_transfer(self, group: GroupId) -> bool:
        """Whether no snapshot of this group is being received or installed: one at a time."""
        return group not in self._transferring

    def begin_transfer(self, group: GroupId) -> Path:
        """The staging file of the group is the caller's until `end_transfer`."""
        self._transferring.add(group)
        self._staged.pop(group, None)
        return snapshots.staging_file(self._snapshot_directory, group)

    def end_transfer(self, group: GroupId, *, is_complete: bool) -> None:
        """The transfer is over; what there is of an incomplete one stays for a while (`STAGED_S`)."""
        self._transferring.discard(group)
        if not is_complete:
            self._keep_staged(group)

    def _keep_staged(self, group: GroupId) -> None:
        def expire() -> None:
            if self._staged.get(group) is expire:
                del self._staged[group]
                snapshots.forget_file(snapshots.staging_file(self._snapshot_directory, group))

        self._staged[group] = expire
        self._environment.call_later(STAGED_S, expire)

    # --- where groups are ---

    def catalog_answer(self, request_id: int) -> Catalog:
        """Where the catalog is, for whoever asks."""
        own = self._own()
        replica = self.replicas.get(CATALOG_GROUP)
        if replica is None or replica.standing.is_blank:
            return Catalog(
                request_id, own.cluster_id, list(self.catalog), None, self.catalog_position
            )
        leader = replica.standing.leader
        voters = [member for member in replica.configuration.members if not member.is_learner]
        return Catalog(
            request_id,
            own.cluster_id,
            self.addresses(voters),
            None if leader is None else leader.node_id,
            replica.applied_index,
        )

    def hear_catalog(self, catalog: Catalog) -> None:
        """Another node says where the catalog is: the newest word counts."""
        if catalog.replicas and catalog.position >= self.catalog_position:
            self.catalog = tuple(catalog.replicas)
            self.catalog_position = catalog.position

    def addresses(self, members: Sequence[Member] | Iterable[Member]) -> list[ReplicaAddress]:
        """Where the replicas of a group are, as far as this node knows."""
        own = self._own()
        found = []
        for member in members:
            peer: Hello | Peer | None = (
                own if member.node_id == own.node_id else self._peers.find(member.node_id)
            )
            if peer is not None:
                found.append(
                    ReplicaAddress(member.replica_id, member.node_id, peer.address, peer.az)
                )
        return found
