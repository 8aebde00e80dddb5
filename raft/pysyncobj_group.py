"""The consensus core: pysyncobj 0.3.17 behind a guard. The only file that imports it.

What is used of it: roles and terms, the vote rule, the log-matching check, commit by a majority of the current
term, next and match index. What is replaced: clock, chance, poller, journal, serializer and transport; the
election gate, apply and the step into leadership are overridden. All of that rests on private names, so the
package is pinned and its reviewed source is checked before anything runs (`check_source`).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pysyncobj import syncobj as _source
from pysyncobj.config import SERIALIZER_STATE, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.syncobj import SyncObj
from pysyncobj.version import VERSION

from raft.consensus import Moment
from raft.elections import NEVER
from raft.group import Configuration, LogIndex, Settings
from raft.guard import Guard
from raft.journal import GroupJournal, ReplicaFailure
from raft.membership import (
    COMMAND_CONFIGURATION,
    COMMAND_NOOP,
    COMMAND_PAYLOAD,
    COMMAND_SENTINEL,
    learners_of,
    voters_of,
)

REVIEWED_VERSION = "0.3.17"
REVIEWED_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"

_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2
_FOREVER = 10**9


class UnreviewedSource(Exception):
    """The installed pysyncobj is not the one that was reviewed; raft refuses to start on it."""


def check_source() -> None:
    """Refuse any pysyncobj but the reviewed one: every rule in `guard.py` was proven against that text.

    Raises:
        UnreviewedSource: Another version, or the same version with another text.
    """
    path = _source.__file__
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if VERSION != REVIEWED_VERSION or digest != REVIEWED_SHA256:
        raise UnreviewedSource(
            f"pysyncobj {VERSION} with sha256 {digest} at {path}; "
            f"reviewed: {REVIEWED_VERSION} with {REVIEWED_SHA256}"
        )


class _World:
    """What the core's module-level clock and dice are bound to: the moment of the host whose turn it is."""

    moment: Moment


class _Dice:
    """Stands for the module `random` inside the core."""

    @staticmethod
    def random() -> float:
        return _World.moment.random.random()


class _NullPoller:
    """Stands for the core's socket poller."""

    def subscribe(self, *_: object) -> None:
        """Nothing to watch."""

    def unsubscribe(self, *_: object) -> None:
        """Nothing to watch."""

    def poll(self, _: float) -> None:
        """Nothing to wait for."""


def _monotonic() -> float:
    return _World.moment.now


def _patch() -> None:
    poller = _NullPoller()
    _source.monotonicTime = _monotonic
    _source.random = _Dice
    _source.createPoller = lambda _: poller
    _source.createJournal = lambda journal: journal
    _source.PIPE_NOTIFIER_ENABLED = False


_patch()


def enter(moment: Moment) -> None:
    """From now on cores read this moment. Each host calls it at the start of whatever it does."""
    _World.moment = moment


class Peer(int, Node):  # type: ignore[misc]
    """A replica id as the core's node: hashes and compares as the integer, in C."""

    @property
    def id(self) -> int:
        """The replica id."""
        return int(self)

    def __repr__(self) -> str:
        return f"Peer({int(self)})"


_peers: dict[int, Peer] = {}


def _peer(replica_id: int) -> Peer:
    peer = _peers.get(replica_id)
    if peer is None:
        peer = _peers[replica_id] = Peer(replica_id)
    return peer


class _ElectedAlone(Exception):
    """Leaves the electing tick of a single voter, which would commit its no-op before it is durable."""


class _Outlet:
    """The core's transport: what it sends goes to the guard; whom it may send to is said by `connect`."""

    __slots__ = ("_guard",)

    ready = True

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def send(self, node: Peer, message: dict[str, Any]) -> bool:
        return self._guard.send(node, message)

    def addNode(self, node: Peer) -> None:  # noqa: N802
        """Links are reported by the host."""

    def dropNode(self, node: Peer) -> None:  # noqa: N802
        """Links are reported by the host."""

    def _ignore(self, *_: object) -> None:
        """Callbacks are called directly."""

    setOnNodeConnectedCallback = _ignore  # noqa: N815
    setOnNodeDisconnectedCallback = _ignore  # noqa: N815
    setOnMessageReceivedCallback = _ignore  # noqa: N815
    setOnReadonlyNodeConnectedCallback = _ignore  # noqa: N815
    setOnReadonlyNodeDisconnectedCallback = _ignore  # noqa: N815
    setOnUtilityMessageCallback = _ignore  # noqa: N815


class _SnapshotsElsewhere:
    """The core's serializer: never has anything to transmit, but notes who would need it."""

    __slots__ = ("_guard",)

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def checkSerializing(self) -> tuple[int, None]:  # noqa: N802
        return SERIALIZER_STATE.NOT_SERIALIZING, None

    def getTransmissionData(self, node: Peer) -> None:  # noqa: N802
        self._guard.need_snapshot(int(node))

    def cancelTransmisstion(self, node: Peer) -> None:  # noqa: N802
        """There is none."""

    def setTransmissionData(self, data: object) -> bool:  # noqa: N802
        raise ReplicaFailure("the core was given a snapshot")


def core_settings(settings: Settings, heartbeat_s: float) -> SyncObjConf:
    """One configuration object, shared by all cores of a host (they read their journal from it when built)."""
    return SyncObjConf(
        autoTick=False,
        raftMinTimeout=settings.election_min_s,
        raftMaxTimeout=settings.election_max_s,
        leaderFallbackTimeout=settings.election_max_s,
        connectionTimeout=settings.election_max_s,
        appendEntriesPeriod=heartbeat_s,
        appendEntriesUseBatch=True,
        appendEntriesBatchSizeBytes=settings.append_bytes_max,
        commandsQueueSize=0,
        commandsWaitLeader=False,
        logCompactionMinEntries=_FOREVER,
        logCompactionMinTime=_FOREVER,
        dynamicMembershipChange=False,
        fullDumpFile=None,
        password=None,
    )


class Core(SyncObj):  # type: ignore[misc]
    """One replica's core. Never raises for what a peer sent through the guard; if it raises, it is finished."""

    def __init__(
        self,
        guard: Guard,
        journal: GroupJournal,
        conf: SyncObjConf,
        apply: Callable[[int, int, bytes], None],
        on_elected: Callable[[], None],
    ) -> None:
        self._guard = guard
        self._journal = journal
        self._apply = apply
        self._on_elected = on_elected
        guard.core = self
        configuration = journal.checkpoint.configuration
        others = [_peer(v) for v in voters_of(configuration) if v != journal.replica_id]
        conf.journalFile = journal
        super().__init__(_peer(journal.replica_id), others, conf, transport=_Outlet(guard))
        conf.journalFile = None
        self._SyncObj__serializer = _SnapshotsElsewhere(guard)
        self._SyncObj__properies: frozenset[str] = (
            frozenset()
        )  # only dumps would read it; a few KiB per replica
        self._stand_on(journal.checkpoint.index)
        if learners_of(configuration):
            self.configure(configuration)

    def _stand_on(self, applied: LogIndex) -> None:
        """The state machine stands at `applied`; what is committed behind it will be applied by ticks."""
        end = self._journal[-1][1]
        self._SyncObj__raftLastApplied = int(applied)
        self._SyncObj__raftCommitIndex = min(max(self._journal.commit, int(applied)), end)

    # what the guard and the replica read

    @property
    def term(self) -> int:
        """Current term."""
        return self._SyncObj__raftCurrentTerm  # type: ignore[no-any-return]

    @property
    def is_leader(self) -> bool:
        """A hint: another replica may lead a higher term."""
        return self._SyncObj__raftState == _LEADER  # type: ignore[no-any-return]

    @property
    def is_candidate(self) -> bool:
        """Standing for election."""
        return self._SyncObj__raftState == _CANDIDATE  # type: ignore[no-any-return]

    @property
    def leader(self) -> int | None:
        """The leader heard of in this term."""
        return self._SyncObj__raftLeader

    @property
    def commit_index(self) -> int:
        """Known to be committed."""
        return self._SyncObj__raftCommitIndex

    @property
    def applied_index(self) -> int:
        """Given to the state machine."""
        return self._SyncObj__raftLastApplied

    @property
    def own_term_index(self) -> int | None:
        """The no-op with which this replica began to lead last."""
        return self._SyncObj__noopIDx  # type: ignore[no-any-return]

    @property
    def match_index(self) -> dict[int, int]:
        """Leader: how far each other replica's log is known to equal ours."""
        return self._SyncObj__raftMatchIndex  # type: ignore[no-any-return]

    @property
    def next_index(self) -> dict[int, int]:
        """Leader: what is sent to each other replica next."""
        return self._SyncObj__raftNextIndex  # type: ignore[no-any-return]

    @property
    def due_at(self) -> float:
        """When the next tick is due if nothing arrives before."""
        if self._SyncObj__raftState == _LEADER:
            return self._SyncObj__newAppendEntriesTime  # type: ignore[no-any-return]
        return self._SyncObj__raftElectionDeadline

    # what drives it

    def tick(self) -> None:
        """Elections, commit, apply, heartbeats: whatever is due. Only while all records are durable."""
        try:
            self._onTick(0.0)
        except _ElectedAlone:
            return

    def deliver(self, source: int, message: dict[str, Any]) -> None:
        """A message that the guard has built."""
        self._SyncObj__onMessageReceived(_peer(source), message)

    def propose(self, command: bytes) -> int:
        """Append a command (type byte first) as leader; returns its index."""
        assert self.is_leader
        self._applyCommand(command, None)
        self._checkCommandsToApply()
        return self._journal[-1][1]

    def push(self) -> None:
        """Send what followers lack, or a heartbeat."""
        self._SyncObj__sendAppendEntries()

    def campaign(self) -> None:
        """Let the election deadline be over."""
        self._SyncObj__raftElectionDeadline = NEVER

    def connect(self, peer: int) -> None:
        """A peer can be sent to."""
        self._SyncObj__connectedNodes.add(_peer(peer))

    def disconnect(self, peer: int) -> None:
        """A peer is left out of the send loop."""
        self._SyncObj__connectedNodes.discard(_peer(peer))

    def transfer(self, to: int | None) -> bool:
        """Ask a caught-up voter to take over."""
        sent: list[bool] = []
        target = None if to is None else _peer(to)
        self.transferLeadership(target, lambda _, error: sent.append(error == 0))
        return sent == [True]

    def stand_on_snapshot(self) -> None:
        """The journal was reset to a snapshot that is newer than what was applied."""
        self._stand_on(self._journal.checkpoint.index)

    def configure(self, configuration: Configuration) -> None:
        """Members as of the applied index. Learners ride on the core's read-only nodes: fed, never counted."""
        guard = self._guard
        guard.set_configuration(configuration)
        own = guard.replica_id
        learners = {_peer(r) for r in learners_of(configuration) if r != own}
        for node in sorted(self._SyncObj__readonlyNodes - learners):
            self._SyncObj__onReadonlyNodeDisconnected(node)
        before = self._SyncObj__otherNodes
        voters = [_peer(r) for r in voters_of(configuration) if r != own]
        self._SyncObj__updateClusterConfiguration(voters)
        end = self._journal[-1][1]
        for node in voters:
            if node not in before:
                self._SyncObj__lastResponseTime[node] = guard.moment.now
            self._SyncObj__raftNextIndex.setdefault(node, end + 1)
            self._SyncObj__raftMatchIndex.setdefault(node, 0)
            if node in guard.up:
                self.connect(node)
        for node in sorted(learners - self._SyncObj__readonlyNodes):
            self._SyncObj__onReadonlyNodeConnected(node)
            if node not in guard.up:
                self.disconnect(node)
        if self.is_leader and not guard.is_voter:
            # Elected with its own removal in the log, now applied. The core would go on counting itself.
            self._SyncObj__setState(_FOLLOWER)
            self._SyncObj__raftLeader = None

    # overridden

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """The election gate: called by a tick only once the election deadline is over."""
        return self._guard.may_campaign()

    def _SyncObj__onBecomeLeader(self) -> None:  # noqa: N802
        self._guard.became_leader(self.term)
        SyncObj._SyncObj__onBecomeLeader(self)
        self._on_elected()
        if not self._SyncObj__otherNodes:
            raise _ElectedAlone

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:  # noqa: N802
        index = self._SyncObj__raftLastApplied + 1
        if command[0] not in _KNOWN_COMMANDS:
            raise ReplicaFailure(f"command of unknown type {command[0]} at {index}")
        self._apply(index, self._journal.term_at(index), command)


_KNOWN_COMMANDS = frozenset(
    (COMMAND_PAYLOAD, COMMAND_NOOP, COMMAND_CONFIGURATION, COMMAND_SENTINEL)
)

__all__ = [
    "Core",
    "UnreviewedSource",
    "check_source",
    "core_settings",
    "enter",
]
