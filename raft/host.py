"""All groups of one node on one loop: the turn.

    inputs (batches from peers, proposals, due timers) -> guards and cores -> records of ALL groups
       -> one write and fsync in the storage's thread -> messages, outcomes, then the next turn of those groups

What was proven in the simulator, and must stay so:

- Nothing that implies durability leaves before the fsync of the turn that made it. (A leader's appends of a
  term that is already durable may: they claim nothing about the leader's disk; `Settings.send_before_sync`.)
- A group with an fsync in flight takes no input: messages queue up, proposals are refused until it is over.
- A core ticks (elects, commits, applies) only while all its records are durable: that is what makes it true
  that a leader may count itself.
- At most one batch is in flight; the records of other groups form the next one meanwhile.

Nothing polls. A replica stands in a timer bucket of 50 ms; due times of all groups fall on the same instants,
so their heartbeats share one batch per peer, and an idle group costs nothing in between.
"""

import heapq
import logging
from collections.abc import Callable, Sequence

from raft.consensus import Moment
from raft.elections import NEVER
from raft.group import (
    BLANK_INDEX,
    BLANK_TERM,
    SENTINEL_INDEX,
    SENTINEL_TERM,
    ApplySink,
    Configuration,
    Environment,
    Group,
    GroupId,
    LogIndex,
    LogStorage,
    NodeId,
    RecoveredGroup,
    ReplicaId,
    Settings,
    StateMachine,
    Term,
    Timer,
    Transport,
)
from raft.journal import GroupJournal
from raft.membership import check_configuration
from raft.node_log import Corruption, NodeLog
from raft.pysyncobj_group import check_source, core_settings, enter
from raft.replica import INBOX_MAX, Replica
from raft.wire import BadBatch, Entry, Message, decode_batch, encode_batch

log = logging.getLogger(__name__)

TIMER_BUCKET_S = 0.05
# Entries that one turn sends to one peer, beyond the message that reaches it; the rest follows in later turns.
BULK_BYTES_PER_TURN = 8 << 20


class MultiRaftHost:
    """The implementation of `group.Host`. All calls on one loop."""

    def __init__(
        self,
        node_id: NodeId,
        environment: Environment,
        transport: Transport,
        storage: LogStorage,
        sink: ApplySink,
        settings: Settings,
        on_fatal: Callable[[GroupId, BaseException], None],
    ) -> None:
        check_source()
        self.node_id = node_id
        self.settings = settings
        self.now = environment.now
        self.moment = Moment(environment.random)
        self._environment = environment
        self._transport = transport
        self._sink = sink
        self._on_fatal = on_fatal
        # The bucket's rounding up is part of the heartbeat's period.
        self._bucket_s = min(TIMER_BUCKET_S, settings.heartbeat_s / 4)
        self.core_settings = core_settings(settings, settings.heartbeat_s - self._bucket_s)
        self._log = NodeLog(storage, settings.log_segment_bytes, self._batch_is_durable)
        self._replicas: dict[int, Replica] = {}
        self._up: set[NodeId] = set()
        self._is_started = False
        self._is_stopped = False
        # The turn. `_active`: replicas with something to do; `_applied`: those that await the flush.
        self._active: dict[Replica, None] = {}
        self._applied: dict[Replica, None] = {}
        self._is_turn_scheduled = False
        self._is_in_turn = False
        self._blocked_writers: dict[Replica, None] = {}
        self._outgoing: dict[NodeId, list[Message]] = {}
        self._bulk_bytes: dict[NodeId, int] = {}
        # Timers.
        self._buckets: dict[int, list[Replica]] = {}
        self._bucket_order: list[int] = []
        self._timer: Timer | None = None
        self._timer_bucket = 0
        self._notices: dict[Replica, None] = {}
        self._notice_timer: Timer | None = None

    # life

    def recover(self) -> list[RecoveredGroup]:
        """Read the log. Raises `node_log.Corruption` if it is damaged where it was durable."""
        self._log.recover()
        return [
            RecoveredGroup(
                GroupId(group),
                journal.replica_id,
                journal.checkpoint.configuration,
                journal.checkpoint.index,
                journal.checkpoint.term,
                journal.checkpoint.state,
            )
            for group, journal in sorted(self._log.journals.items())
        ]

    def open_group(
        self,
        group_id: GroupId,
        machine: StateMachine,
        on_writable: Callable[[], None],
        committed: tuple[LogIndex, Term] | None = None,
    ) -> Group:
        """Bring a recovered group to life; `machine` stands at its checkpoint.

        Raises:
            Corruption: The log has lost what `committed` names.
        """
        self.enter()
        journal = self._log.journals[group_id]
        if committed is not None and not journal.learn_commit(*committed):
            raise Corruption(
                f"group {group_id}: entry {committed} was applied and is not in the log"
            )
        # The process may have promised something to a leader just before it died.
        quiet_until = self.moment.now + self.settings.election_min_s
        replica = self._add(journal, machine, on_writable, quiet_until)
        replica.guard.needs_tick = True  # what was known to be committed is applied at once
        self.activate(replica)
        return replica

    def create_group(
        self,
        group_id: GroupId,
        replica_id: ReplicaId,
        configuration: Configuration,
        machine: StateMachine,
        on_writable: Callable[[], None],
        state: bytes,
        campaign: bool = False,
    ) -> Group:
        """Create this node's replica at the sentinel. With the ids of an existing one: returns that."""
        existing = self._existing(group_id, replica_id)
        if existing is not None:
            return existing
        check_configuration(configuration)
        self.enter()
        journal = self._log.create(
            group_id, replica_id, configuration, SENTINEL_INDEX, SENTINEL_TERM, state
        )
        replica = self._add(journal, machine, on_writable, NEVER)
        if campaign:
            replica.campaign()
        self.activate(replica)
        return replica

    def join_group(
        self,
        group_id: GroupId,
        replica_id: ReplicaId,
        machine: StateMachine,
        on_writable: Callable[[], None],
        state: bytes,
    ) -> Group:
        """Create a blank replica, which can only begin with a snapshot. Idempotent like `create_group`."""
        existing = self._existing(group_id, replica_id)
        if existing is not None:
            return existing
        self.enter()
        journal = self._log.create(
            group_id, replica_id, Configuration(()), BLANK_INDEX, BLANK_TERM, state
        )
        replica = self._add(journal, machine, on_writable, NEVER)
        self.activate(replica)
        return replica

    def _existing(self, group_id: GroupId, replica_id: ReplicaId) -> Replica | None:
        existing = self._replicas.get(group_id)
        if existing is not None:
            if existing.replica_id != replica_id:
                raise ValueError(f"group {group_id} exists here as replica {existing.replica_id}")
            return existing
        if group_id in self._log.journals:
            raise ValueError(f"group {group_id} is in the log: open it")
        return None

    def _add(
        self,
        journal: GroupJournal,
        machine: StateMachine,
        on_writable: Callable[[], None],
        quiet_until: float,
    ) -> Replica:
        replica = Replica(self, journal, machine, on_writable, quiet_until)
        replica.connect_all()
        self._replicas[journal.group] = replica
        self._set_timer(replica)
        return replica

    def remove_group(self, group_id: GroupId) -> None:
        """Forget the group, durably with the next batch."""
        replica = self._replicas.pop(group_id, None)
        if replica is not None:
            self._drop(replica)
            replica.close()
        if group_id in self._log.journals:
            self._log.remove(group_id)
            self._schedule_turn()

    def _drop(self, replica: Replica) -> None:
        self._active.pop(replica, None)
        self._applied.pop(replica, None)
        self._blocked_writers.pop(replica, None)
        self._notices.pop(replica, None)

    def start(self) -> None:
        """Timers may run from now on."""
        self._is_started = True
        self.enter()
        self._arm_timer()
        self._schedule_turn()

    def stop(self) -> None:
        """No more turns. What is being written will still reach the disk; nobody is told."""
        self._is_stopped = True
        for timer in (self._timer, self._notice_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._notice_timer = None

    def groups(self) -> Sequence[Group]:
        """All living groups."""
        return [replica for replica in self._replicas.values() if not replica.is_failed]

    def when_durable(self, function: Callable[[], None]) -> None:
        """Call once everything handed to the log so far is durable."""
        if self._log.when_durable(function):
            self._schedule_turn()
        else:
            self._environment.call_soon(function)

    @property
    def has_room_for_held_log(self) -> bool:
        """Whether the node's log may grow for the sake of who is being sent a snapshot."""
        return self._log.segment_count <= self.settings.log_held_segments

    # peers

    def peer_up(self, node: NodeId) -> None:
        """A link to that node is usable."""
        self._set_peer(node, is_up=True)

    def peer_down(self, node: NodeId) -> None:
        """The link to that node is gone."""
        self._set_peer(node, is_up=False)

    def _set_peer(self, node: NodeId, *, is_up: bool) -> None:
        if is_up:
            self._up.add(node)
        else:
            self._up.discard(node)
        for replica in self._replicas.values():
            replica.link_changed(node, is_up=is_up)

    def is_up(self, node: NodeId) -> bool:
        """Whether a link to that node is usable."""
        return node in self._up

    def is_bulk_blocked(self, node: NodeId, entries: list[Entry]) -> bool:
        """Whether entries for that node must wait: its link is full, or it had its share of this turn."""
        sent = self._bulk_bytes.get(node, 0)
        if sent > BULK_BYTES_PER_TURN or self._transport.is_congested(node):
            return True
        self._bulk_bytes[node] = sent + sum(len(entry[0]) for entry in entries)
        return False

    def receive(self, node: NodeId, payload: bytes) -> None:
        """One batch from a peer's host."""
        if self._is_stopped:
            return
        try:
            messages = decode_batch(payload)
        except BadBatch as error:
            log.warning("raft batch refused", extra={"peer": node, "reason": str(error)})
            return
        # Read after the batch arrived: a promise counts from no earlier than the message that asks for it.
        self.enter()
        replicas = self._replicas
        for message in messages:
            replica = replicas.get(message.group)
            if replica is None or replica.replica_id != message.target or replica.is_failed:
                continue
            if replica.is_in_flight:
                if len(replica.inbox) < INBOX_MAX:
                    replica.inbox.append((node, message))
                continue
            self._step(replica, node, message)

    def _step(self, replica: Replica, node: NodeId, message: Message) -> None:
        try:
            replica.receive(node, message)
        except Exception as error:  # noqa: BLE001 - the root of a replica: it alone ends
            self._fail(replica, error)
            return
        self.activate(replica)

    # the turn

    def enter(self) -> None:
        """Take the time: cores, guards and this host read it from the moment."""
        self.moment.now = self.now()
        enter(self.moment)

    @property
    def is_writing(self) -> bool:
        """Whether a batch is in flight, so that what is proposed now could not be written before it ends."""
        return self._log.in_flight

    def activate(self, replica: Replica) -> None:
        """This replica has something to do in the coming turn (or the present one)."""
        self._active[replica] = None
        if not self._is_turn_scheduled and not self._is_in_turn:
            self._schedule_turn()

    def _schedule_turn(self) -> None:
        if not self._is_turn_scheduled and self._is_started and not self._is_stopped:
            self._is_turn_scheduled = True
            self._environment.call_soon(self._scheduled_turn)

    def _scheduled_turn(self) -> None:
        self._is_turn_scheduled = False
        if not self._is_stopped and not self._is_in_turn:
            self.enter()
            self._turn()

    def _turn(self) -> None:
        self._is_in_turn = True
        try:
            active, self._active = self._active, {}
            self._each(active, Replica.advance)
            self._flush_machines()
            self._each(active, Replica.report)
            self._call_writers()
            # Callbacks may have brought more to do, here or in other groups: it goes with this turn.
            if self._active:
                active.update(self._active)
                self._active = {}
            self._each(active, Replica.finish)
            self._write(active)
        finally:
            self._is_in_turn = False
        if self._active:
            self._schedule_turn()

    def _each(self, replicas: dict[Replica, None], step: Callable[[Replica], None]) -> None:
        for replica in list(replicas):
            if replica.is_in_flight or replica.is_failed:
                continue
            try:
                step(replica)
            except Exception as error:  # noqa: BLE001 - the root of a replica: it alone ends
                self._fail(replica, error)

    def note_applied(self, replica: Replica) -> None:
        """This replica's machine holds back writes for the flush."""
        self._applied[replica] = None

    def _flush_machines(self) -> None:
        if not self._applied:
            return
        applied, self._applied = self._applied, {}
        try:
            self._sink.flush()
        except Exception as error:  # noqa: BLE001 - what was gathered is lost: none of them can go on
            for replica in applied:
                self._fail(replica, error)

    def call_when_writable(self, replica: Replica) -> None:
        """Its owner was refused a proposal although it leads: call it when that changes."""
        self._blocked_writers[replica] = None

    def _call_writers(self) -> None:
        if not self._blocked_writers or self._log.in_flight:
            return
        blocked, self._blocked_writers = self._blocked_writers, {}
        for replica in blocked:
            # (Asking puts it back among the blocked ones if it still does not accept.)
            if replica.is_failed or not replica.accepts_proposals:
                continue
            replica.wants_write = False
            try:
                replica.on_writable()
            except Exception as error:  # noqa: BLE001 - the root of a replica: it alone ends
                self._fail(replica, error)

    def _write(self, active: dict[Replica, None]) -> None:
        """Start the fsync if there is something to write, then send what may leave."""
        node_log = self._log
        if node_log.wants_sync and not node_log.in_flight:
            for journal in node_log.sync():
                replica = self._replicas.get(journal.group)
                if replica is not None and replica.journal is journal:
                    replica.is_in_flight = True
        for replica in active:
            if not replica.is_failed:
                replica.route(self._enqueue)
                self._set_timer(replica)
                if replica.guard.needs_tick and replica.journal.is_durable:
                    self._active[replica] = None  # it was drawn into this turn after the ticks
        self._send()

    def _enqueue(self, node: NodeId, message: Message) -> None:
        queue = self._outgoing.get(node)
        if queue is None:
            self._outgoing[node] = [message]
        else:
            queue.append(message)

    def _send(self) -> None:
        if not self._outgoing:
            return
        outgoing, self._outgoing = self._outgoing, {}
        self._bulk_bytes.clear()
        for node, messages in outgoing.items():
            if node in self._up:
                self._transport.send(node, encode_batch(messages))

    def _batch_is_durable(self, journals: list[GroupJournal]) -> None:
        """The fsync is over: what waited for it leaves, what came meanwhile is taken, and a turn follows."""
        if self._is_stopped:
            return
        self.enter()
        for journal in journals:
            replica = self._replicas.get(journal.group)
            if replica is None or replica.journal is not journal:
                continue
            replica.is_in_flight = False
            if replica.is_failed:
                continue
            replica.synced()
            replica.route(self._enqueue)
            self._active[replica] = None
            inbox, replica.inbox = replica.inbox, []
            for node, message in inbox:
                if not replica.is_failed:
                    self._step(replica, node, message)
        self._turn()

    def _fail(self, replica: Replica, error: Exception) -> None:
        if replica.is_failed:
            return
        log.error(
            "replica failed",
            extra={"group": replica.group, "replica": replica.replica_id},
            exc_info=error,
        )
        self._drop(replica)
        try:
            replica.fail()
        except Exception:
            log.exception("owner failed too", extra={"group": replica.group})
        self._on_fatal(GroupId(replica.group), error)

    # timers

    def _bucket_of(self, when: float) -> int:
        # A timer may fire a rounding error early; it must find its own bucket due, and none past it.
        return int(when / self._bucket_s + 1e-6)

    def _set_timer(self, replica: Replica) -> None:
        """Stand in the bucket of the due time, unless already in an earlier one."""
        due = replica.due_at()
        now = self.moment.now
        bucket = self._bucket_of(max(due, now)) + 1
        if bucket >= replica.bucket:
            return
        replica.bucket = bucket
        standing = self._buckets.get(bucket)
        if standing is None:
            self._buckets[bucket] = [replica]
            heapq.heappush(self._bucket_order, bucket)
            self._arm_timer()
        else:
            standing.append(replica)

    def _arm_timer(self) -> None:
        if not self._is_started or self._is_stopped or not self._bucket_order:
            return
        first = self._bucket_order[0]
        if self._timer is not None:
            if self._timer_bucket <= first:
                return
            self._timer.cancel()
        self._timer_bucket = first
        delay = max(0.0, first * self._bucket_s - self.moment.now)
        self._timer = self._environment.call_later(delay, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._is_stopped:
            return
        self.enter()
        now = self.moment.now
        current = self._bucket_of(now)
        while self._bucket_order and self._bucket_order[0] <= current:
            bucket = heapq.heappop(self._bucket_order)
            for replica in self._buckets.pop(bucket):
                if replica.bucket != bucket or replica.is_failed:
                    continue
                replica.bucket = float("inf")
                if replica.due_at() < now:
                    replica.guard.needs_tick = True
                    self.activate(replica)
                else:
                    self._set_timer(replica)
        self._arm_timer()

    def notify_commit_soon(self, replica: Replica) -> None:
        """Followers should hear of a commit: with the next append, or by themselves a little later."""
        self._notices[replica] = None
        if self._notice_timer is None and not self._is_stopped:
            self._notice_timer = self._environment.call_later(
                self.settings.commit_notice_s, self._notices_due
            )

    def _notices_due(self) -> None:
        self._notice_timer = None
        if self._is_stopped:
            return
        self.enter()
        notices, self._notices = self._notices, {}
        for replica in notices:
            if replica.is_failed:
                continue
            if replica.is_in_flight:
                self.notify_commit_soon(replica)
                continue
            replica.send_commit_notices()
            self.activate(replica)
