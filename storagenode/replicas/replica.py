"""A replica of a partition: what it does with log entries, and where it sends requests for it.

The state machine of the group. `apply` gathers an entry's mutations, the same on every replica; the node's
`ApplyRound` writes those of all groups at once. Requests go to the two halves beside this one: `reading.Reads`
and `writing.Writes`. Everything runs in callbacks on the node's loop; no method waits.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from datamodel.limits import ITEM_COLLECTION_SIZE_BYTES_MAX
from datamodel.stored_items import pack_record
from proto.link import Link
from proto.messages import (
    FeedRecord,
    Get,
    Query,
    ReadFeed,
    Refused,
    Stats,
    StatsReply,
    Write,
    WrongPartition,
)
from raft.group import (
    Configuration,
    Environment,
    Group,
    GroupId,
    LogIndex,
    Member,
    ReplicaId,
    Role,
    Term,
)
from storagenode.engines.engine import (
    APPLIED,
    DATA,
    Engine,
    EngineFailure,
    Mutation,
    feed_key,
    group_key,
)
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.change_feed import RECORDS_KEPT, FeedReaders
from storagenode.replicas.lagging import LaggingView
from storagenode.replicas.log_entries import (
    STATE_VERSION,
    AppliedState,
    Entry,
    ReplicaState,
    UnknownFormat,
    decode_entry,
    encode_applied,
    encode_feed_record,
)
from storagenode.replicas.reading import Reads
from storagenode.replicas.request_memory import RequestMemory
from storagenode.replicas.scans import ScanRunner
from storagenode.replicas.standing import Standing
from storagenode.replicas.writing import Writes

log = logging.getLogger(__name__)

CATCH_UP_BYTES = 64 << 10
"""Of the log that is applied in one go: a few milliseconds, unless one entry is larger."""

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all replicas of a node share.

    Attributes:
        environment: Clock and scheduling.
        engine: The store.
        round: Where `apply` leaves its mutations.
        scans: Runs pages in steps.
        wall_micros: Wall clock in microseconds: what the leader stamps writes with.
        snapshot_wanted: Told that a replica needs a snapshot (replica, source, index).
        collection_size_max: Bytes that an item collection may have in a table with local indexes.
        lagging: What eventual reads see instead of the engine, if anything.
        on_fault: Told that a replica went out of service.
        on_scrub: Told that the engine holds just what an entry left that asks for a digest (replica, index).
    """

    environment: Environment
    engine: Engine
    round: ApplyRound
    scans: ScanRunner
    wall_micros: Callable[[], int]
    snapshot_wanted: "Callable[[Replica, Member, LogIndex], None]"
    collection_size_max: int = ITEM_COLLECTION_SIZE_BYTES_MAX
    lagging: LaggingView | None = None
    on_fault: "Callable[[Replica], None]" = lambda replica: None
    on_scrub: "Callable[[Replica, LogIndex], None]" = lambda replica, index: None


@dataclass(frozen=True, slots=True)
class Capture:
    """A replica's state at a log position, as checkpoints and snapshots need it."""

    index: LogIndex
    term: Term
    configuration: Configuration
    state: ReplicaState


class Replica:
    """One replica of one partition group: the group's `StateMachine`, and the answerer of requests for it.

    Attributes:
        group_id: Which group.
        replica_id: Which of its replicas.
        standing: Role, leader, fault.
        table_id: Whose items these are.
        start: First keyspace key of the partition.
        end: First keyspace key behind it.
        epoch: Of the partition's description, as far as this replica was told.
        item_count: Items in the partition.
        size_bytes: Their size by DynamoDB's rule.
        index_figures: Count and bytes of the entries of each local index in turn.
        configuration: Members of the group.
        applied_index: Last log entry applied.
        applied_term: Its term.
        engine_held: What an earlier life had applied, as the engine found at the start says. Below that index
            the engine is ahead of what is applied (all of it committed, and applied again): it shows no state.
        dirty_since: Environment's time of the first apply after the last checkpoint; infinite if none.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        group_id: GroupId,
        replica_id: ReplicaId,
        state: ReplicaState,
        configuration: Configuration,
        index: LogIndex,
        term: Term,
    ) -> None:
        """Create, standing at (`index`, `term`) with `state`; `attach` follows."""
        self.group_id = group_id
        self.replica_id = replica_id
        self.standing = Standing()
        self.dirty_since = _NEVER
        self.engine_held = AppliedState(0, 0)
        environment, engine = surroundings.environment, surroundings.engine
        self._environment = environment
        self._round = surroundings.round
        self._snapshot_wanted = surroundings.snapshot_wanted
        self._on_fault = surroundings.on_fault
        self._on_scrub = surroundings.on_scrub
        self._applied_key = group_key(APPLIED, group_id)
        self._gathering = False  # joined this turn's round
        self._reads = Reads(
            self.standing,
            environment,
            engine,
            surroundings.round,
            surroundings.scans,
            self.fail,
            surroundings.lagging,
        )
        self._writes = Writes(
            self.standing,
            environment,
            engine,
            surroundings.round,
            surroundings.wall_micros,
            self._reads.confirm,
            self.fail,
            surroundings.collection_size_max,
        )
        self._feed = FeedReaders(group_id, engine, environment, lambda: self._flushed_feed_position)
        self._load(state, configuration, index, term)
        self.on_writable = self._writes.on_writable

    def _load(
        self, state: ReplicaState, configuration: Configuration, index: LogIndex, term: Term
    ) -> None:
        self.table_id = state.table_id
        self.start = state.start
        self.end = state.end
        self.epoch = state.epoch
        self.item_count = state.item_count
        self.size_bytes = state.size_bytes
        self.index_figures = state.index_figures
        self._feed_position = state.feed_position
        self._flushed_feed_position = state.feed_position
        self._timestamp = state.timestamp
        self._memory = RequestMemory(state.requests, self._now_us())
        self._writes.memory = self._memory
        self._writes.feed_enabled = state.feed_enabled
        self.configuration = configuration
        self.applied_index = index
        self.applied_term = term
        self.standing.position = index

    def attach(self, group: Group) -> None:
        """The group that drives this state machine."""
        self.standing.attach(group)

    # --- what others want to know ---

    @property
    def role(self) -> Role:
        """The raft role, or FAILED for a replica out of service."""
        return self.standing.role if self.standing.fault is None else Role.FAILED

    @property
    def queued_writes(self) -> int:
        """Writes waiting to be proposed."""
        return self._writes.queued

    @property
    def proposed_entries(self) -> int:
        """Log entries proposed and without outcome."""
        return self._writes.proposed

    @property
    def remembered_requests(self) -> int:
        """Size of the request memory."""
        return len(self._memory)

    def capture(self) -> Capture:
        """The state at the applied index. The engine holds exactly this once the round is flushed."""
        state = ReplicaState(
            STATE_VERSION,
            self.table_id,
            self.start,
            self.end,
            self.epoch,
            self._writes.feed_enabled,
            self.item_count,
            self.size_bytes,
            self._feed_position,
            self._timestamp,
            self._memory.content(),
            self.index_figures,
        )
        return Capture(self.applied_index, self.applied_term, self.configuration, state)

    # --- StateMachine ---

    def apply(self, index: LogIndex, term: Term, payload: bytes | None) -> None:
        """Gather what the committed entry does.

        Raises:
            UnknownFormat: The entry cannot be read; the replica must end.
        """
        if not self.standing.is_installing:  # else `catch_up` takes it from the log
            self._take(index, term, payload)

    def _take(self, index: LogIndex, term: Term, payload: bytes | None) -> None:
        if index <= self.applied_index:
            return  # a snapshot that was installed meanwhile holds it
        if not self._gathering:
            self._gathering = True
            self._round.join(self)
            if self.dirty_since == _NEVER:
                self.dirty_since = self._environment.now()
        self.applied_index = index
        self.applied_term = term
        if payload is not None:
            self._round.applied_bytes += len(payload)
            self._round.applied_entries += 1
            entry = self._writes.take_applied(payload) or decode_entry(payload)
            self._perform(entry, index)
            if entry.scrub and index > self.engine_held.index and self.standing.has_state:
                self._round.flush()
                self._on_scrub(self, index)

    def _now_us(self) -> int:
        return int(self._environment.now() * 1_000_000)

    def _perform(self, entry: Entry, index: LogIndex) -> None:
        timestamp = entry.timestamp
        now = self._now_us()
        append = self._round.mutations.append
        remember = self._memory.remember
        images = 0
        for outcome in entry.outcomes:
            for key, body, size in outcome.mutations:
                if body is None:
                    append((DATA + key, None))
                else:
                    append((DATA + key, pack_record(body, size, timestamp, index)))
            images += len(outcome.images)
            remember(outcome.request_id, timestamp, outcome.results, now)
        self._memory.expire(now)
        self.item_count = entry.item_count
        self.size_bytes = entry.size_bytes
        self.index_figures = entry.index_figures
        self._feed_position = entry.feed_position
        if timestamp > self._timestamp:
            self._timestamp = timestamp
        if images:
            position = entry.feed_position - images
            for outcome in entry.outcomes:
                for key, old, new in outcome.images:
                    position += 1
                    record = FeedRecord(position, key, old, new, timestamp)
                    append((feed_key(self.group_id, position), encode_feed_record(record)))
                    if position > RECORDS_KEPT:
                        append((feed_key(self.group_id, position - RECORDS_KEPT), None))

    def configure(self, index: LogIndex, term: Term, configuration: Configuration) -> None:
        """The group's members changed."""
        if not self.standing.is_installing:
            self._take_configuration(index, term, configuration)

    def _take_configuration(
        self, index: LogIndex, term: Term, configuration: Configuration
    ) -> None:
        if index > self.applied_index:
            self._take(index, term, None)
            self.configuration = configuration

    def role_changed(self, role: Role, term: Term, leader: Member | None) -> None:
        """Stop leading, when we did; whoever waits is told where to go."""
        del term
        standing = self.standing
        standing.role = role
        standing.leader = leader
        if leader is not None:
            standing.leader_seen = True
        if role is Role.FAILED and standing.fault is None:
            standing.fault = "raft gave the replica up"
        if role is not Role.LEADER:
            standing.is_leading = False
            self._refuse_waiting()

    def leader_ready(self, term: Term) -> None:
        """Lead: all that earlier leaders committed is applied, so evaluation may begin."""
        del term
        standing = self.standing
        standing.leader_seen = True
        if not standing.is_sound:
            standing.group.transfer_leadership()
            return
        standing.is_leading = True
        self._writes.lead(
            self.item_count,
            self.size_bytes,
            self._feed_position,
            self._timestamp,
            self.index_figures,
        )
        self._reads.lead()

    def snapshot_wanted(self, source: Member, index: LogIndex, term: Term) -> None:
        """Our log cannot be completed from the leader's."""
        del term
        self._snapshot_wanted(self, source, index)

    # --- ApplyRound's side ---

    def applied_mark(self) -> Mutation:
        """The engine's note of what it holds of this group. It never goes back while entries are applied again."""
        mark = AppliedState(self.applied_index, self.applied_term)
        if mark.index < self.engine_held.index:
            mark = self.engine_held
        return self._applied_key, encode_applied(mark)

    def flushed(self) -> None:
        """The engine has everything applied."""
        self._gathering = False
        self.standing.position = self.applied_index
        self._reads.moved_on()
        if self._flushed_feed_position != self._feed_position:
            self._flushed_feed_position = self._feed_position
            try:
                self._feed.wake()
            except (EngineFailure, UnknownFormat) as error:
                self.fail(str(error))

    # --- checkpoints and snapshots ---

    def clean(self) -> None:
        """A checkpoint is being taken of what `capture` returns now."""
        self.dirty_since = _NEVER

    def begin_install(self) -> None:
        """The engine's state of this group is about to be replaced: serve nothing and apply nothing."""
        self._round.flush()
        self.standing.is_installing = True
        self.standing.is_leading = False
        self._refuse_waiting()
        self._reads.refuse_behind()

    def stand_on(self, capture: Capture) -> None:
        """The engine holds the state of `capture`; `catch_up` follows."""
        assert self.standing.is_installing
        self.standing.is_blank = False
        self.standing.fault = None
        self.engine_held = AppliedState(0, 0)
        self._load(capture.state, capture.configuration, capture.index, capture.term)
        self._reads.begin_state()

    def catch_up(self) -> bool:
        """Apply some of what was committed here since `begin_install`, from the log. When nothing is left of it
        the replica goes on like any other, and serves if it stands on a new state; then True. (When it is stopping
        too: then it applies nothing any more.)
        """
        standing = self.standing
        if standing.is_stopping:
            return True
        entries = standing.group.applied_after(self.applied_index, CATCH_UP_BYTES)
        for index, term, content in entries:
            if isinstance(content, Configuration):
                self._take_configuration(index, term, content)
            else:
                self._take(index, term, content)
        self._round.flush()
        if entries:
            return False
        standing.is_installing = False
        if standing.is_sound:
            self._feed.wake()
            if standing.group.is_leader:  # elected meanwhile, and nobody was there to take over
                self.leader_ready(standing.group.term)
        return True

    # --- end of service ---

    def fail(self, reason: str) -> None:
        """Take the replica out of service: its data is damaged. Raft goes on: its log and vote still count."""
        standing = self.standing
        if standing.fault is None:
            log.error("replica out of service", extra={"group": self.group_id, "reason": reason})
            standing.fault = reason
            standing.faults += 1
            standing.is_leading = False
            self._refuse_waiting()
            self._reads.refuse_behind()
            if standing.role is Role.LEADER:
                standing.group.transfer_leadership()
            self._on_fault(self)

    def ask_scrub(self) -> None:
        """As leader, let all replicas make a digest at the same log position."""
        if self.standing.is_leading:
            self._writes.ask_scrub()

    def stop(self) -> None:
        """Take no new requests: the process or the replica is about to go."""
        self.standing.is_stopping = True
        self.standing.is_leading = False
        self._refuse_waiting()
        self._reads.refuse_behind()
        self._feed.end()

    def _refuse_waiting(self) -> None:
        self._writes.refuse_waiting()
        self._reads.refuse_waiting()

    # --- requests ---

    def on_get(self, link: Link, request: Get) -> None:
        """Answer with the record, now or when leadership is confirmed."""
        if self.start <= request.key < self.end:
            self._reads.read(link, request, self.start, self.end)
        else:
            link.send(WrongPartition(request.id, self.group_id))

    def on_query(self, link: Link, request: Query) -> None:
        """Answer with a page. Its range must lie in this partition: whoever asks for more has an old map, and
        would take the page for the end of its range.
        """
        start, end = self.start, self.end
        inside = start <= request.start < end and start < request.end <= end
        if inside:
            self._reads.read(link, request, self.start, self.end)
        else:
            link.send(WrongPartition(request.id, self.group_id))

    def on_write(self, link: Link, request: Write) -> None:
        """Queue a write; `writing.Writes` answers it."""
        start, end = self.start, self.end
        for action in request.actions:
            if not start <= action.key < end:
                link.send(WrongPartition(request.id, self.group_id))
                return
        self._writes.take(link, request)

    def on_feed(self, link: Link, request: ReadFeed) -> None:
        """Answer with feed records, now or when there are some."""
        if not self._writes.feed_enabled:
            link.send(Refused(request.id, "ValidationException", "the partition keeps no feed"))
        elif not self.standing.serves:
            link.send(self.standing.refusal(request.id))
        else:
            try:
                self._feed.read(link, request)
            except (EngineFailure, UnknownFormat) as error:
                self.fail(str(error))
                link.send(self.standing.refusal(request.id))

    def on_stats(self, link: Link, request: Stats) -> None:
        """Answer with the partition's figures."""
        if self.standing.is_leading:
            link.send(StatsReply(request.id, self.item_count, self.size_bytes, self.index_figures))
        else:
            link.send(self.standing.refusal(request.id))
