"""What the rest of the system sees of raft: a group, its state machine, and the world they run in.

A *group* replicates an ordered log of opaque payloads over its *replicas*, one of which leads in each term.
Whoever owns a state machine proposes payloads on the leader; every replica's state machine is told of each
committed one, in order, exactly once per life of the process (and again, idempotently, after a restart: from
the last checkpoint on).

Nothing here reads a clock, opens a socket or touches a disk: the world is passed in (`Environment`,
`Transport`, `LogStorage`), by `storagenode` in a process and by the simulator in a test.
"""

import enum
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, TypeAlias

GroupId = NewType("GroupId", int)
ReplicaId = NewType("ReplicaId", int)  # unique in its group, never reused
NodeId = NewType("NodeId", str)  # one disk of one storage node, never reused
LogIndex = NewType("LogIndex", int)
Term = NewType("Term", int)

# Every group begins behind a sentinel entry at this position, so that a blank replica (index 1) can never
# match a log whose base state it does not have; it must take a snapshot (raft-on-pysyncobj, "New groups").
BLANK_INDEX = LogIndex(1)
BLANK_TERM = Term(0)
SENTINEL_INDEX = LogIndex(10)
SENTINEL_TERM = Term(1)


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of a group: its id and the node that hosts it. Learners are replicated to, not counted."""

    replica_id: ReplicaId
    node_id: NodeId
    is_learner: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """All replicas of a group, effective from the log index at which it was applied."""

    members: tuple[Member, ...]


Applied: TypeAlias = tuple[LogIndex, Term, bytes | Configuration | None]
"""A committed entry: what `StateMachine.apply` or, with a configuration, `StateMachine.configure` is given."""


class Role(enum.Enum):
    """What a replica is right now. A hint; never permission to read (see `Group.lease_is_valid`)."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"
    FAILED = "failed"


class Outcome(enum.Enum):
    """How a proposal ended."""

    COMMITTED = "committed"  # applied by this replica's state machine
    REJECTED = "rejected"  # certainly not in the log, now or later
    UNKNOWN = "unknown"  # leadership was lost meanwhile: may or may not commit


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A replica's view of its group, for status pages and metrics."""

    group: GroupId
    replica_id: ReplicaId
    role: Role
    term: Term
    leader: Member | None
    commit_index: LogIndex
    applied_index: LogIndex
    first_index: LogIndex
    last_index: LogIndex
    configuration: Configuration
    match_index: Mapping[ReplicaId, LogIndex]  # leader only, else empty
    log_bytes: int


class StateMachine(Protocol):
    """What a group drives. Methods are called on the host's loop, never concurrently, and must not raise for
    reasons that lie in the payload: an ordinary failure is a value inside it. What raises ends the replica.
    """

    def apply(self, index: LogIndex, term: Term, payload: bytes | None) -> None:
        """Take the committed entry at `index` (None: an entry of raft's own). Writes are gathered, not done:
        `ApplySink.flush` performs them for all groups of the turn.
        """

    def configure(self, index: LogIndex, term: Term, configuration: Configuration) -> None:
        """The group's members changed by the entry at `index` (called instead of `apply`)."""

    def role_changed(self, role: Role, term: Term, leader: Member | None) -> None:
        """This replica's role, term or known leader changed. On losing leadership every proposal in flight
        has been or will be reported through its own callback.
        """

    def leader_ready(self, term: Term) -> None:
        """This replica leads `term` and has applied an entry of it: everything committed before is applied."""

    def snapshot_wanted(self, source: Member, index: LogIndex, term: Term) -> None:
        """The leader's log no longer reaches back to us: fetch a snapshot at or past `index` from `source`
        (out of band), then call `Group.install_snapshot`. May be called again; one fetch at a time is kept.
        """


class ApplySink(Protocol):
    """Node-wide end of an apply round."""

    def flush(self) -> None:
        """Write everything that `StateMachine.apply` gathered this turn, before outcomes are reported."""


class Transport(Protocol):
    """The way to other nodes' hosts. Batches between two nodes arrive in order, or the link goes down (the
    owner then calls `Host.peer_down` / `peer_up`).
    """

    def send(self, node: NodeId, payload: bytes) -> None:
        """Send one batch; may be lost."""

    def is_congested(self, node: NodeId) -> bool:
        """Whether bulk to that node should wait."""


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget it."""


class Environment(Protocol):
    """Clock, scheduling and chance. `now` must not stop while the machine is suspended (CLOCK_BOOTTIME)."""

    random: random.Random

    def now(self) -> float:
        """Seconds, monotonic."""

    def call_soon(self, function: Callable[[], None]) -> None:
        """Run at the end of this loop turn."""

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        """Run after a delay."""


class LogStorage(Protocol):
    """The append-only files under the node's log. One batch at a time; `node_log.py` cuts and reads records."""

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        """Append to the open segment and make it durable (off the loop); then call back on the loop.
        A disk error must end the process: what was acknowledged is no longer knowable.

        `receipt` is appended when the data is durable and before the callback. A process that ends leaves it; it
        outlives the machine from the next append on, or after a moment without one (a second at most).
        """

    def roll(self, segment: int) -> None:
        """Following appends go to a new segment file with this number."""

    def segments(self) -> Sequence[int]:
        """Numbers of the segments on disk, ascending."""

    def read(self, segment: int) -> bytes:
        """All bytes of a segment (recovery only)."""

    def truncate(self, segment: int, size: int) -> None:
        """Durably cut a torn tail, if there is one: what is before it is durable as well then (recovery only)."""

    def remove(self, segment: int) -> None:
        """Delete a segment that nothing needs any more."""


class Group(Protocol):
    """One replica of one group, as its owner uses it. All calls on the host's loop."""

    @property
    def group_id(self) -> GroupId:
        """Which group."""

    @property
    def is_leader(self) -> bool:
        """Whether this replica believes that it leads and its own-term entry is applied (hint only)."""

    @property
    def leader(self) -> Member | None:
        """The leader this replica knows of, itself included (hint only)."""

    @property
    def term(self) -> Term:
        """Current term."""

    @property
    def payload_bytes_max(self) -> int:
        """Largest payload that `propose` takes."""

    @property
    def accepts_proposals(self) -> bool:
        """Leader, ready, and no fsync of this group in flight. When it turns true again after having been
        false the host calls the `on_writable` given at creation, so that gathered writes go down in one
        proposal: natural group commit.
        """

    def propose(self, payload: bytes, on_outcome: Callable[[Outcome, LogIndex], None]) -> bool:
        """Append to the log if this replica leads and accepts; the callback comes exactly once, after the
        entry was applied and the turn's `ApplySink.flush`. False: not taken, no callback.
        """

    def lease_is_valid(self) -> bool:
        """Whether a strong read of applied state may be answered right now without asking anyone."""

    def read_barrier(self, on_ready: Callable[[bool], None]) -> None:
        """ReadIndex: calls back True once everything committed before this call is applied here and
        leadership was confirmed by a majority after this call; False when that cannot be had.
        """

    def ask_commit(self, index: LogIndex) -> None:
        """Somebody waits for `index` to be applied here: ask the leader to say at once that it is committed,
        instead of with its next append or within `commit_notice_s`. Costs a small message each way; may be lost,
        so it is no more than a help. Nothing happens where no leader is known.
        """

    def transfer_leadership(self, to: ReplicaId | None = None) -> bool:
        """Ask a replica to take over as soon as it is caught up (planned stop); until then no proposal is
        accepted. Asked again, asks again. False: no other voter can be reached, or we do not lead.
        """

    def change_configuration(
        self, configuration: Configuration, on_outcome: Callable[[Outcome, LogIndex], None]
    ) -> bool:
        """Propose new members; in force once applied. One change at a time, one voter per change; a voter joins
        out of the learners. False: this replica does not lead, does not accept, or a change is under way.

        Raises:
            ValueError: It may not follow the present configuration.
        """

    def may_change_configuration(self) -> bool:
        """Whether no change is under way."""

    def checkpoint(self, index: LogIndex, term: Term, state: bytes) -> None:
        """The owner has made everything up to `index` durable in its engine; `state` (opaque) comes back on
        restart. Lets the log be truncated behind it.
        """

    @property
    def checkpoint_index(self) -> LogIndex:
        """Of the last checkpoint (or installed snapshot): what the owner's engine holds must not be older."""

    def applied_after(self, index: LogIndex, bytes_max: int) -> list[Applied]:
        """What the state machine was given behind `index`, in order, and once more: for an owner whose state went
        back there. At least one entry if there is any, and no more than about `bytes_max`.

        Raises:
            ValueError: `index` is below the last checkpoint.
        """

    def hold_log(self, index: LogIndex | None) -> None:
        """Keep the log from `index` on, for who is being given a state as of there, within bounds
        (`Settings.log_held_bytes`, `log_held_segments`); None: no longer. Forgotten at a restart.
        """

    def install_snapshot(
        self, index: LogIndex, term: Term, configuration: Configuration, state: bytes
    ) -> bool:
        """The owner has durably replaced its engine state by a snapshot taken at (index, term). False when it
        is not newer than what is committed here (the owner must not have installed it then: ask
        `wants_snapshot` first, and install within the same loop turn).
        """

    def wants_snapshot(self, index: LogIndex) -> bool:
        """Whether a snapshot at `index` would move this replica forward."""

    def status(self) -> GroupStatus:
        """For status pages and metrics."""


@dataclass(frozen=True, slots=True)
class RecoveredGroup:
    """A group found in the node's log at start."""

    group_id: GroupId
    replica_id: ReplicaId
    configuration: Configuration
    checkpoint_index: LogIndex
    checkpoint_term: Term
    checkpoint_state: bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """Timing and sizes of raft on a node. Times in seconds.

    `election_min_s` must exceed three heartbeats (pysyncobj asserts it). A lease lasts
    election_min_s * (1 - clock_drift_margin) from the send time that a majority echoed.
    """

    heartbeat_s: float = 0.2
    election_min_s: float = 0.7
    election_max_s: float = 1.4
    clock_drift_margin: float = 0.2
    append_bytes_max: int = 8 << 20
    commit_notice_s: float = (
        0.005  # followers hear of a commit at most this much later, also when idle
    )
    log_segment_bytes: int = 32 << 20
    log_slack_entries: int = 512
    log_slack_bytes: int = 4 << 20
    # What `Group.hold_log` may hold back: entries of its group in memory, and segments of the node on disk.
    log_held_bytes: int = 128 << 20
    log_held_segments: int = 32
    # A leader's appends may leave while its own fsync of them runs (its term being durable already); everything
    # else that implies durability waits in any case.
    send_before_sync: bool = True


class Host(Protocol):
    """All groups of one storage node on one loop: frames -> cores -> one log batch -> fsync -> frames.

    The implementation is `host.MultiRaftHost(node_id, environment, transport, storage, sink, settings,
    on_fatal)`. `recover()` reads the log and returns the groups found in it; the owner then calls
    `open_group` for each (and only then `start()`).
    """

    def recover(self) -> list[RecoveredGroup]:
        """Read the log (repairing a torn tail)."""

    def open_group(
        self,
        group_id: GroupId,
        machine: StateMachine,
        on_writable: Callable[[], None],
        committed: tuple[LogIndex, Term] | None = None,
    ) -> Group:
        """Bring a recovered group to life; `machine` must stand at its checkpoint. `committed`: an entry that an
        earlier life of this very replica applied. The log may know less: it notes commits late. A log without
        that entry is damaged (`node_log.Corruption`).
        """

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
        """Create this node's replica of a new group at the sentinel (with the base state `state`), durable
        with the next batch. The same call with the same ids is idempotent. `campaign`: stand for election
        as soon as the creation is durable instead of after an election timeout. A replica created here has
        made no promise to any leader, so the quiet time after a process start does not bind it.
        """

    def join_group(
        self,
        group_id: GroupId,
        replica_id: ReplicaId,
        machine: StateMachine,
        on_writable: Callable[[], None],
        state: bytes,
    ) -> Group:
        """Create this node's blank replica of a group that exists elsewhere, before it is proposed there as a
        learner. It knows no members and no base state: the first thing it takes is a snapshot.
        """

    def remove_group(self, group_id: GroupId) -> None:
        """Forget the group for ever (durable with the next batch)."""

    def start(self) -> None:
        """Timers may run from now on."""

    def stop(self) -> None:
        """No more turns."""

    def receive(self, node: NodeId, payload: bytes) -> None:
        """One batch from a peer's host. Damaged or unknown content is dropped and logged."""

    def peer_up(self, node: NodeId) -> None:
        """A link to that node is usable."""

    def peer_down(self, node: NodeId) -> None:
        """The link to that node is gone, with whatever was in flight."""

    def when_durable(self, function: Callable[[], None]) -> None:
        """Call once everything handed to the log so far is durable."""

    def groups(self) -> Sequence[Group]:
        """All living groups."""
