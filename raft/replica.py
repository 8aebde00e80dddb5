"""One replica: guard, core and journal of a group, joined to the owner's state machine. Implements `Group`.

The host drives it through a turn: `receive` for each message, then `advance` (tick, apply, roles), then, when
all machines of the turn are flushed, `report` and `finish` (reads, sends), then `route` (what may leave does).
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from raft.consensus import Moment
from raft.elections import NEVER
from raft.group import (
    Applied,
    Configuration,
    GroupId,
    GroupStatus,
    LogIndex,
    Member,
    NodeId,
    Outcome,
    ReplicaId,
    Role,
    Settings,
    StateMachine,
    Term,
)
from raft.guard import Guard
from raft.journal import ENTRY_OVERHEAD_BYTES, Checkpoint, GroupJournal
from raft.membership import (
    COMMAND_CONFIGURATION,
    COMMAND_PAYLOAD,
    ConfigurationHistory,
    decode_configuration,
    encode_configuration,
    member_of,
    why_not,
)
from raft.pysyncobj_group import Core
from raft.snapshots import is_useful
from raft.voting import EAGER_FOR_S
from raft.wire import Entry, Message

# Proposals that wait for their outcome; above it the replica does not accept more.
PENDING_MAX = 1024
# Messages that wait for an fsync of their group to end; above it the newest are dropped, as if lost on the way.
INBOX_MAX = 4096
# Replicas whose node is remembered without their being members; above it messages of further ones are dropped.
STRANGERS_MAX = 256

_PAYLOAD_TYPE: Final = bytes([COMMAND_PAYLOAD])
_CONFIGURATION_TYPE: Final = bytes([COMMAND_CONFIGURATION])


def outcome_of(proposed_in: int, term: int) -> Outcome:
    """What became of a proposal at whose index an entry of `term` was applied."""
    return Outcome.COMMITTED if proposed_in == term else Outcome.REJECTED


def _applied(index: int, term: int, command: bytes) -> Applied:
    """An entry as the machine is given it."""
    content: bytes | Configuration | None = None
    if command[0] == COMMAND_PAYLOAD:
        content = command[1:]
    elif command[0] == COMMAND_CONFIGURATION:
        content = decode_configuration(command[1:])
    return LogIndex(index), Term(term), content


class ReplicaHost(Protocol):
    """What a replica asks of the host that drives it; there is one, `host.MultiRaftHost`."""

    settings: Settings
    core_settings: object
    moment: Moment
    now: Callable[[], float]

    def enter(self) -> None:
        """Take the time: cores, guards and the host read it from the moment."""

    @property
    def is_writing(self) -> bool:
        """Whether a batch is in flight, so that what is proposed now could not be written before it ends."""

    @property
    def has_room_for_held_log(self) -> bool:
        """Whether the node's log may grow for the sake of who is being sent a snapshot."""

    def is_up(self, node: NodeId) -> bool:
        """Whether a link to that node is usable."""

    def is_bulk_blocked(self, node: NodeId, entries: list[Entry]) -> bool:
        """Whether entries for that node must wait: its link is full, or it had its share of this turn."""

    def activate(self, replica: "Replica") -> None:
        """This replica has something to do in the coming turn (or the present one)."""

    def call_when_writable(self, replica: "Replica") -> None:
        """Its owner was refused a proposal although it leads: call it when that changes."""

    def note_applied(self, replica: "Replica") -> None:
        """This replica's machine holds back writes for the flush."""

    def notify_commit_soon(self, replica: "Replica") -> None:
        """Followers should hear of a commit: with the next append, or by themselves a little later."""


class Replica:
    """See `group.Group` for what the owner may count on."""

    __slots__ = (
        "_core",
        "_held_index",
        "_history",
        "_host",
        "_led_term",
        "_new_reads",
        "_pending",
        "_pending_configuration",
        "_ready_term",
        "_seen",
        "_transfer_target",
        "_transferring_until",
        "_wants_transfer",
        "bucket",
        "group",
        "guard",
        "inbox",
        "is_failed",
        "is_in_flight",
        "journal",
        "machine",
        "on_writable",
        "outcomes",
        "replica_id",
        "routes",
        "wants_write",
    )

    def __init__(
        self,
        host: ReplicaHost,
        journal: GroupJournal,
        machine: StateMachine,
        on_writable: Callable[[], None],
        quiet_until: float,
    ) -> None:
        self._host = host
        self.journal = journal
        self.group = journal.group
        self.replica_id = journal.replica_id
        self.machine = machine
        self.on_writable = on_writable
        checkpoint = journal.checkpoint
        self._history = ConfigurationHistory(checkpoint.index, checkpoint.configuration)
        self.guard = guard = Guard(
            journal.group,
            journal.replica_id,
            journal,
            host.moment,
            host.settings,
            quiet_until,
        )
        guard.on_snapshot_notice = self._on_snapshot_notice
        guard.is_bulk_blocked = self._is_bulk_blocked
        self._core = Core(guard, journal, host.core_settings, self._apply, self._on_elected)
        self.routes: dict[int, NodeId] = {}
        self._learn_routes()
        self.inbox: list[tuple[NodeId, Message]] = []
        self.is_in_flight = False
        self.is_failed = False
        self.wants_write = False
        self.bucket: float = float("inf")  # the earliest timer bucket that this replica stands in
        self.outcomes: list[tuple[Callable[[Outcome, LogIndex], None], Outcome, LogIndex]] = []
        self._pending: dict[int, tuple[int, Callable[[Outcome, LogIndex], None]]] = {}
        self._pending_configuration = 0
        self._held_index: LogIndex | None = None
        self._new_reads: list[Callable[[bool], None]] = []
        self._led_term = -1  # the term that the machine was told we lead
        self._ready_term = -1  # the term in which the machine was told that it may serve
        self._transferring_until = NEVER
        self._wants_transfer = False  # asked for, and not sent yet
        self._transfer_target: ReplicaId | None = None
        self._seen: tuple[int, bool, bool, int | None, bool] = (-1, False, False, None, False)

    def _learn_routes(self) -> None:
        for member in self._history.current.members:
            self.routes[member.replica_id] = member.node_id

    # Group: what the owner sees

    @property
    def group_id(self) -> GroupId:
        """Which group."""
        return GroupId(self.group)

    @property
    def is_leader(self) -> bool:
        """Leading, with an entry of this term applied. A hint."""
        core = self._core
        return core.is_leader and self._ready_term == core.term and not self.is_failed

    @property
    def leader(self) -> Member | None:
        """The leader known of. A hint."""
        leader = self._core.leader
        return None if leader is None or self.is_failed else self._member(leader)

    def _member(self, replica_id: int) -> Member | None:
        member = member_of(self._history.current, replica_id)
        if member is None and replica_id in self.routes:
            # A leader that joined by a change which we have not applied yet.
            member = Member(ReplicaId(int(replica_id)), self.routes[replica_id])
        return member

    @property
    def term(self) -> Term:
        """Current term."""
        return Term(self._core.term)

    @property
    def payload_bytes_max(self) -> int:
        """With its type byte a command must stay below the size at which the core would cut it in pieces."""
        return self._host.settings.append_bytes_max - 2

    @property
    def accepts_proposals(self) -> bool:
        """Leader, ready, nothing being written. Whoever is told no will be called back (`on_writable`)."""
        core = self._core
        if core.is_leader and self._ready_term == core.term and not self.is_failed:
            if (
                not self._host.is_writing
                and len(self._pending) < PENDING_MAX
                and self._transferring_until < self._host.now()
            ):
                return True
            self._host.call_when_writable(self)
        self.wants_write = True
        return False

    def propose(self, payload: bytes, on_outcome: Callable[[Outcome, LogIndex], None]) -> bool:
        """Append to the log; the callback comes exactly once, after the turn that applied it flushed."""
        if len(payload) > self.payload_bytes_max:
            raise ValueError(f"payload of {len(payload)} bytes, limit {self.payload_bytes_max}")
        return self._propose(_PAYLOAD_TYPE + payload, on_outcome) is not None

    def _propose(
        self, command: bytes, on_outcome: Callable[[Outcome, LogIndex], None]
    ) -> int | None:
        if not self.accepts_proposals:
            return None
        self._host.enter()
        index = self._core.propose(command)
        self._pending[index] = (self._core.term, on_outcome)
        self.guard.needs_push = True
        self._host.activate(self)
        return index

    def change_configuration(
        self, configuration: Configuration, on_outcome: Callable[[Outcome, LogIndex], None]
    ) -> bool:
        """Propose new members; in force once applied. One change at a time, one voter per change.

        False: we do not lead, do not accept, or a change is under way. ValueError: it may not follow the
        present configuration (`membership.why_not`).
        """
        reason = why_not(self._history.current, configuration, self.replica_id)
        if reason is not None:
            raise ValueError(reason)
        if not self.may_change_configuration():
            return False
        command = _CONFIGURATION_TYPE + encode_configuration(configuration)
        index = self._propose(command, on_outcome)
        if index is None:
            return False
        self._pending_configuration = index
        return True

    def may_change_configuration(self) -> bool:
        """Whether no change is under way; on election all of the log counts as one."""
        return self.guard.is_readable and self._pending_configuration <= self._core.applied_index

    def lease_is_valid(self) -> bool:
        """Whether a strong read of applied state may be answered right now."""
        core, leadership = self._core, self.guard.leadership
        if not core.is_leader or self.is_failed:
            return False
        now = self._host.now()
        if (
            now < leadership.lease_until
            and leadership.term == core.term
            and core.commit_index <= core.applied_index
        ):
            return True
        return self.guard.renew_lease(now)

    def read_barrier(self, on_ready: Callable[[bool], None]) -> None:
        """ReadIndex; all barriers of one turn share one round."""
        if self.is_failed or not self.guard.is_readable:
            on_ready(False)
            return
        self._new_reads.append(on_ready)
        self._host.activate(self)

    def ask_commit(self, index: LogIndex) -> None:
        """Ask the leader to tell us at once when `index` is committed."""
        if not self.is_failed and not self._core.is_leader:
            self.guard.ask_commit(index)
            self._host.activate(self)

    def transfer_leadership(self, to: ReplicaId | None = None) -> bool:
        """Hand over as soon as a follower has the whole log. Proposals rest from now on until that must have
        happened (`election_max_s`), so that it comes to be; leases, once asked, until the term ends.
        """
        guard = self.guard
        if not self.is_leader or not guard.other_voters & guard.up:
            return False
        self._host.enter()
        self._wants_transfer = True
        self._transfer_target = to
        self._transferring_until = guard.moment.now + self._host.settings.election_max_s
        self._host.activate(self)
        return True

    def _try_transfer(self) -> None:
        """Every turn until it is sent: what was proposed before may still be on its way to the follower."""
        if not self._core.is_leader or self.guard.moment.now >= self._transferring_until:
            self._wants_transfer = False
            return
        if self.journal.is_durable and self._core.transfer(self._transfer_target):
            self._wants_transfer = False

    def checkpoint(self, index: LogIndex, term: Term, state: bytes) -> None:
        """The owner is durable up to `index`: the log may be cut behind it."""
        journal = self.journal
        if self.is_failed or index < journal.checkpoint.index:
            return
        assert index <= self._core.applied_index, "checkpoint past what was applied"
        assert journal.term_at(index) == term, "checkpoint of another history"
        settings = self._host.settings
        end = journal[-1][1]
        peers = min(self._core.match_index.values(), default=end) if self._core.is_leader else end
        first = journal.keep_from(
            index, settings.log_slack_entries, settings.log_slack_bytes, peers
        )
        if self._held_index is not None and self._host.has_room_for_held_log:
            first = min(first, journal.reach(self._held_index, settings.log_held_bytes))
        journal.set_checkpoint(Checkpoint(index, term, self._history.at(index), state), first)
        self._history.forget_before(index)
        self._host.activate(self)

    @property
    def checkpoint_index(self) -> LogIndex:
        """Of the last checkpoint."""
        return self.journal.checkpoint.index

    def applied_after(self, index: LogIndex, bytes_max: int) -> list[Applied]:
        """What the machine was given behind `index`, once more, and no more than about `bytes_max` of it."""
        if index < self.checkpoint_index:
            raise ValueError(f"{index} is below the checkpoint at {self.checkpoint_index}")
        found = []
        size = 0
        for at in range(index + 1, self._core.applied_index + 1):
            command, _, term = self.journal.entry_at(at)
            found.append(_applied(at, term, command))
            size += len(command) + ENTRY_OVERHEAD_BYTES
            if size >= bytes_max:
                break
        return found

    def hold_log(self, index: LogIndex | None) -> None:
        """Keep the log from `index` on at the checkpoints to come, within bounds; None: no longer."""
        self._held_index = index

    def wants_snapshot(self, index: LogIndex) -> bool:
        """Whether a snapshot at `index` would move this replica forward."""
        core = self._core
        return (
            not self.is_failed
            and not core.is_leader
            and is_useful(index, core.commit_index, core.applied_index)
        )

    def install_snapshot(
        self, index: LogIndex, term: Term, configuration: Configuration, state: bytes
    ) -> bool:
        """Stand on a snapshot that the owner's engine already stands on, durably."""
        if not self.wants_snapshot(index):
            return False
        self._host.enter()
        self.guard.reach_term(term)
        self.journal.reset(Checkpoint(index, term, configuration, state))
        self._history = ConfigurationHistory(index, configuration)
        self._learn_routes()
        self._core.stand_on_snapshot()
        self._core.configure(configuration)
        self._fail_pending()
        self.guard.snapshot_installed(index)
        self._learn_links()
        self._host.activate(self)
        return True

    def status(self) -> GroupStatus:
        """For status pages and metrics."""
        core, journal = self._core, self.journal
        match: Mapping[ReplicaId, LogIndex] = {}
        if core.is_leader:
            match = {
                ReplicaId(int(peer)): LogIndex(index)
                for peer, index in sorted(core.match_index.items())
            }
        return GroupStatus(
            group=self.group_id,
            replica_id=self.replica_id,
            role=self._role(),
            term=self.term,
            leader=self.leader,
            commit_index=LogIndex(core.commit_index),
            applied_index=LogIndex(core.applied_index),
            first_index=LogIndex(journal[0][1]),
            last_index=LogIndex(journal[-1][1]),
            configuration=self._history.current,
            match_index=match,
            log_bytes=journal.log_bytes,
        )

    def _role(self) -> Role:
        core = self._core
        if self.is_failed:
            return Role.FAILED
        if core.is_leader:
            return Role.LEADER
        if not self.guard.is_voter:
            return Role.LEARNER
        return Role.CANDIDATE if core.is_candidate else Role.FOLLOWER

    # the turn, for the host

    def receive(self, node: NodeId, message: Message) -> None:
        """One message for this replica; not while an fsync of this group is in flight."""
        source = message.source
        if self.routes.get(source) != node and not self._accept_route(source, node):
            return
        self.guard.receive(message)

    def _accept_route(self, source: int, node: NodeId) -> bool:
        """Whether that replica may speak from that node: members from theirs only, strangers from anywhere."""
        if source == self.replica_id or member_of(self._history.current, source) is not None:
            return False
        if source not in self.routes and len(self.routes) >= STRANGERS_MAX:
            return False
        self.routes[source] = node
        return True

    def synced(self) -> None:
        """An fsync of this group is over. A lone voter has its majority by that; others wait for acks."""
        if not self.guard.other_voters:
            self.guard.needs_tick = True

    def advance(self) -> None:
        """Tick if asked for and possible; tell the machine what changed."""
        guard, core = self.guard, self._core
        if guard.needs_tick and self.journal.is_durable:
            guard.needs_tick = False
            before = core.commit_index
            core.tick()
            if core.commit_index > before and core.is_leader:
                guard.wants_notice = True
        seen = (core.term, core.is_leader, core.is_candidate, core.leader, guard.is_voter)
        if seen != self._seen:
            self._seen = seen
            self._role_changed()
        if (
            self._ready_term != core.term
            and core.is_leader
            and core.applied_index >= (core.own_term_index or 0)
            and guard.is_readable
        ):
            self._ready_term = core.term
            self.machine.leader_ready(Term(core.term))
            if self.wants_write:
                self._host.call_when_writable(self)

    def _role_changed(self) -> None:
        core = self._core
        if self._led_term >= 0 and not (core.is_leader and core.term == self._led_term):
            self._led_term = -1
            self._fail_pending()
        if core.is_leader:
            self._led_term = core.term
        self.machine.role_changed(self._role(), Term(core.term), self.leader)

    def _fail_pending(self) -> None:
        """Leadership is lost: nothing more can be said of what was proposed, nor of reads."""
        pending, self._pending = self._pending, {}
        self.outcomes.extend(
            (callback, Outcome.UNKNOWN, LogIndex(index)) for index, (_, callback) in pending.items()
        )
        leadership = self.guard.leadership
        reads, leadership.reads = [r[2] for r in leadership.reads], []
        fresh, self._new_reads = self._new_reads, []
        for callback in (*reads, *fresh):
            callback(False)

    def _on_elected(self) -> None:
        self._pending_configuration = self.journal[-1][1]

    def _apply(self, index: int, term: int, command: bytes) -> None:
        at, in_term, content = _applied(index, term, command)
        if isinstance(content, Configuration):
            self._history.apply(index, content)
            self._learn_routes()
            self._learn_links()
            self._core.configure(content)
            self.machine.configure(at, in_term, content)
        else:
            self.machine.apply(at, in_term, content)
        self._host.note_applied(self)
        pending = self._pending.pop(index, None)
        if pending is not None:
            self.outcomes.append((pending[1], outcome_of(pending[0], term), at))

    def report(self) -> None:
        """Tell proposers, after the flush; not before a committed configuration entry is durably known."""
        if self.outcomes and (self.journal.is_configuration_durable or self.is_failed):
            outcomes, self.outcomes = self.outcomes, []
            for callback, outcome, index in outcomes:
                callback(outcome, index)

    def finish(self) -> None:
        """Send what the turn asks for (into the guard's queues) and answer reads."""
        guard, core = self.guard, self._core
        if self._new_reads:
            reads, self._new_reads = self._new_reads, []
            if guard.is_readable:
                guard.begin_reads(reads)
            else:
                for callback in reads:
                    callback(False)
        if guard.needs_push:
            guard.needs_push = False
            if core.is_leader:
                core.push()
        guard.unpark()
        if self._wants_transfer:
            self._try_transfer()
        if guard.leadership.reads:
            for callback in guard.ready_reads():
                callback(True)
        if guard.leadership.asked_commit:
            guard.answer_commit_requests()
        if guard.wants_notice:
            guard.wants_notice = False
            if core.is_leader and guard.has_untold_commit:
                self._host.notify_commit_soon(self)

    def route(self, send: Callable[[NodeId, Message], None]) -> None:
        """Hand over what may leave now: everything if all is durable, else at most a leader's appends."""
        guard, journal = self.guard, self.journal
        routes = self.routes
        if guard.appends and (
            journal.is_durable
            or (
                self._host.settings.send_before_sync
                and journal.is_term_durable
                and journal.is_configuration_durable
            )
        ):
            for append in guard.appends:
                node = routes.get(append.target)
                if node is not None:
                    send(node, append)
            guard.appends.clear()
        if guard.others and journal.is_durable:
            for message in guard.others:
                node = routes.get(message.target)
                if node is not None:
                    send(node, message)
            guard.others.clear()

    def due_at(self) -> float:
        """When this replica wants a tick if nothing happens before."""
        core, guard = self._core, self.guard
        due = core.due_at
        if core.is_leader:
            return due
        elections = guard.elections
        if not guard.is_voter:
            return max(due, guard.moment.now + self._host.settings.election_min_s)
        # The deadline stays over while pre-votes are asked for.
        return max(due, elections.next_round_at)

    def campaign(self) -> None:
        """Stand for election as soon as everything is durable."""
        self.guard.elections.eager_until = self.guard.moment.now + EAGER_FOR_S
        self._core.campaign()
        self.guard.needs_tick = True

    def send_commit_notices(self) -> None:
        """The pause after a commit is over."""
        self.guard.send_notices()

    # links

    def link_changed(self, node: NodeId, *, is_up: bool) -> None:
        """The link to a node came or went."""
        for replica_id, home in self.routes.items():
            if home == node and replica_id != self.replica_id:
                self._set_link(replica_id, is_up=is_up)

    def _learn_links(self) -> None:
        for replica_id, home in self.routes.items():
            if replica_id != self.replica_id:
                self._set_link(replica_id, is_up=self._host.is_up(home))

    def connect_all(self) -> None:
        """Take over the links that are up at the start."""
        self._learn_links()

    def _set_link(self, replica_id: int, *, is_up: bool) -> None:
        guard, core = self.guard, self._core
        if is_up:
            guard.up.add(replica_id)
            core.connect(replica_id)
        else:
            guard.up.discard(replica_id)
            core.disconnect(replica_id)

    def _is_bulk_blocked(self, target: int, entries: list[Entry]) -> bool:
        node = self.routes.get(target)
        return node is None or self._host.is_bulk_blocked(node, entries)

    def _on_snapshot_notice(self, source: int, index: LogIndex, term: Term) -> None:
        member = self._member(source)
        if member is not None:
            self.machine.snapshot_wanted(member, index, term)

    # the end

    def fail(self) -> None:
        """The core or the machine raised: this replica is finished until the process starts again."""
        self.is_failed = True
        self.guard.drop_outbox()
        self.inbox.clear()
        self._fail_pending()
        self._led_term = -1
        self.machine.role_changed(Role.FAILED, self.term, None)
        self.report()

    def close(self) -> None:
        """The group is removed from this node."""
        self.is_failed = True
        self.guard.drop_outbox()
        self.inbox.clear()
        self._fail_pending()
        self.report()
