"""One replica on a group that does what the test says: no raft, no sockets, no clock of its own."""

import itertools
import random
from collections import deque

import msgspec

from datamodel.stored_items import record_body
from proto.messages import DELETE, PUT, UPDATE, Action, Get, Hello, Write
from raft.group import (
    SENTINEL_INDEX,
    SENTINEL_TERM,
    Configuration,
    GroupId,
    GroupStatus,
    LogIndex,
    Member,
    NodeId,
    Outcome,
    ReplicaId,
    Role,
    Term,
)
from raft.membership import why_not
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.lagging import LaggingView
from storagenode.replicas.log_entries import STATE_VERSION, ReplicaState
from storagenode.replicas.replica import Replica, Surroundings
from storagenode.replicas.scans import ScanRunner

ABSENT = "attribute_not_exists(pk)"
PRESENT = "attribute_exists(pk)"
MEMBERS = Configuration(tuple(Member(ReplicaId(n), NodeId(f"node-{n}")) for n in (1, 2, 3)))


class FakeTimer:
    def __init__(self, at, function):
        self.at, self.function, self.cancelled = at, function, False

    def cancel(self):
        self.cancelled = True


class FakeEnvironment:
    def __init__(self):
        self.random = random.Random(1)
        self.time = 1000.0
        self.soon = deque()
        self.timers = []

    def now(self):
        return self.time

    def call_soon(self, function):
        self.soon.append(function)

    def call_later(self, delay_s, function):
        timer = FakeTimer(self.time + delay_s, function)
        self.timers.append(timer)
        return timer

    def turn(self):
        """Run what is scheduled for the end of this turn, and what that schedules."""
        while self.soon:
            self.soon.popleft()()

    def advance(self, delay_s):
        self.time += delay_s
        due = [t for t in self.timers if t.at <= self.time and not t.cancelled]
        self.timers = [t for t in self.timers if t.at > self.time and not t.cancelled]
        for timer in due:
            timer.function()
        self.turn()


class FakeLink:
    """A link whose sent messages are a list."""

    def __init__(self, role="router", node_id=""):
        self.peer = Hello(1, "", role, node_id, "peer", "az1", "127.0.0.1:1", "127.0.0.1:2")
        self.is_up = True
        self.is_congested = False
        self.sent = []
        self.closed = None

    def send(self, message):
        self.sent.append(message)

    def close(self, reason):
        self.closed = reason

    def take(self):
        sent, self.sent = self.sent, []
        return sent


class FakeGroup:
    """Holds proposals until the test commits or loses them."""

    def __init__(self, machine, apply_round):
        self.group_id = GroupId(7)
        self.machine = machine
        self.round = apply_round
        self.log = []  # (index, term, payload), committed
        self.given = []  # to the machine, all of it
        self.checkpoint_index = SENTINEL_INDEX
        self.index = SENTINEL_INDEX
        self.proposals = deque()
        self.barriers = []
        self.asked = []
        self.term = Term(1)
        self.is_leader = False
        self.in_flight = False
        self.lease = True
        self.payload_bytes_max = 1 << 20
        self.transfers = 0
        self.checkpoints = []
        self.installed = []
        self.wants = True
        self.held_log = None
        self.configuration = MEMBERS
        self.match_index = {}
        self.changes = []

    def give(self, index, term, content):
        """A committed entry, or what a configuration entry says."""
        self.given.append((LogIndex(index), term, content))
        if isinstance(content, Configuration):
            self.machine.configure(LogIndex(index), term, content)
        else:
            self.machine.apply(LogIndex(index), term, content)

    def applied_after(self, index, bytes_max):
        assert index >= self.checkpoint_index
        found = [entry for entry in self.given if entry[0] > index]
        return found[: max(1, bytes_max // 200)]

    @property
    def leader(self):
        return self.machine.standing.leader

    @property
    def accepts_proposals(self):
        return self.is_leader and not self.in_flight

    def lead(self):
        self.term = Term(self.term + 1)
        self.machine.role_changed(Role.LEADER, self.term, MEMBERS.members[0])
        self.index += 1
        self.give(self.index, self.term, None)
        self.round.flush()
        self.is_leader = True
        self.machine.leader_ready(self.term)

    def follow(self, leader=2):
        self.is_leader = False
        proposals, self.proposals = self.proposals, deque()
        barriers, self.barriers = self.barriers, []
        self.machine.role_changed(Role.FOLLOWER, self.term, MEMBERS.members[leader - 1])
        for _, on_outcome in proposals:
            on_outcome(Outcome.UNKNOWN, LogIndex(0))
        for on_ready in barriers:
            on_ready(False)
        self.in_flight = False

    def propose(self, payload, on_outcome):
        if not self.accepts_proposals:
            return False
        assert len(payload) <= self.payload_bytes_max
        self.in_flight = True
        self.proposals.append((payload, on_outcome))
        return True

    def synced(self):
        """The fsync ended; nothing is committed yet."""
        self.in_flight = False
        self.machine.on_writable()

    def commit(self, count=None):
        """The oldest proposals (all by default) are committed and applied, in one turn."""
        self.in_flight = False
        done = []
        for _ in range(len(self.proposals) if count is None else count):
            payload, on_outcome = self.proposals.popleft()
            self.index += 1
            self.log.append((LogIndex(self.index), self.term, payload))
            self.give(self.index, self.term, bytes(bytearray(payload)))
            done.append((on_outcome, LogIndex(self.index)))
        self.round.flush()
        for on_outcome, index in done:
            on_outcome(Outcome.COMMITTED, index)
        self.machine.on_writable()

    def lease_is_valid(self):
        return self.is_leader and self.lease

    def read_barrier(self, on_ready):
        self.barriers.append(on_ready)

    def ask_commit(self, index):
        self.asked.append(index)

    def pass_barriers(self, confirmed=True):
        barriers, self.barriers = self.barriers, []
        for on_ready in barriers:
            on_ready(confirmed)

    def may_change_configuration(self):
        return not self.changes

    def change_configuration(self, configuration, on_outcome):
        reason = why_not(self.configuration, configuration, ReplicaId(1))
        if reason is not None:
            raise ValueError(reason)
        self.changes.append((configuration, on_outcome))
        return True

    def apply_change(self):
        """The oldest change of members is committed."""
        configuration, on_outcome = self.changes.pop(0)
        self.index += 1
        self.configuration = configuration
        self.give(self.index, self.term, configuration)
        self.round.flush()
        on_outcome(Outcome.COMMITTED, LogIndex(self.index))

    def transfer_leadership(self, to=None):
        self.transfers += 1
        return True

    def checkpoint(self, index, term, state):
        self.checkpoints.append((index, term, state))
        self.checkpoint_index = index

    def hold_log(self, index):
        self.held_log = index

    def wants_snapshot(self, index):
        return self.wants

    def install_snapshot(self, index, term, configuration, state):
        self.installed.append((index, term, configuration, state))
        return True

    def status(self):
        role = Role.LEADER if self.is_leader else Role.FOLLOWER
        index = LogIndex(self.index)
        return GroupStatus(
            self.group_id, ReplicaId(1), role, self.term, self.leader, index, index,
            SENTINEL_INDEX, index, self.configuration, self.match_index, 0,
        )  # fmt: skip


def fresh_state(start=b"a", end=b"z", feed=False):
    return ReplicaState(STATE_VERSION, 300, start, end, 1, feed)


class World:
    """A replica, its engine and everything around it."""

    def __init__(
        self,
        *,
        feed=False,
        engine=None,
        state=None,
        index=None,
        term=None,
        local_indexes=(),
        collection_size_max=10 << 30,
        lag_s=0.0,
    ):
        self.local_indexes = list(local_indexes)
        self.environment = FakeEnvironment()
        self.engine = engine or MemoryEngine()
        self.failures = []
        self.round = ApplyRound(self.engine, self.failures.append)
        self.wall = 1_000_000_000
        self.wanted = []
        self.surroundings = Surroundings(
            self.environment,
            self.engine,
            self.round,
            ScanRunner(self.environment),
            lambda: self.wall,
            lambda *args: self.wanted.append(args),
            collection_size_max,
            LaggingView(self.engine, self.environment, lag_s) if lag_s else None,
        )
        self.replica = Replica(
            self.surroundings,
            GroupId(7),
            ReplicaId(1),
            state or fresh_state(feed=feed),
            MEMBERS,
            index or SENTINEL_INDEX,
            term or SENTINEL_TERM,
        )
        self.group = FakeGroup(self.replica, self.round)
        self.group.index = index or SENTINEL_INDEX
        self.replica.attach(self.group)
        self.link = FakeLink()
        self._ids = itertools.count(1)

    def lead(self):
        self.group.lead()
        return self

    def write(self, *actions, request_id=None, timeout_ms=0, link=None):
        number = next(self._ids)
        name = request_id or number.to_bytes(16, "big")
        self.replica.on_write(
            link or self.link,
            Write(number, 7, name, list(actions), timeout_ms, self.local_indexes),
        )
        return number

    def written(self, *actions, **kwargs):
        """Write, commit, and return the answer."""
        self.write(*actions, **kwargs)
        self.environment.turn()
        self.group.commit()
        (answer,) = self.link.take()
        return answer

    def next_id(self):
        return next(self._ids)


def item(key, **attributes):
    return {"pk": {"S": key}, **attributes}


def body(value):
    return msgspec.json.encode(value)


def put(key, condition=None, values=None, size=10, returns=0, **attributes):
    return Action(
        PUT,
        key.encode(),
        body(item(key, **attributes)),
        size,
        condition,
        values=None if values is None else body(values),
        returns=returns,
    )


def delete(key, **kwargs):
    return Action(DELETE, key.encode(), body(item(key)), **kwargs)


def update(key, text, values, **kwargs):
    return Action(UPDATE, key.encode(), body(item(key)), update=text, values=body(values), **kwargs)


def get(world, key, strong=True):
    number = world.next_id()
    world.replica.on_get(world.link, Get(number, 7, key.encode(), strong))
    return number


def read(world, key, strong=True):
    get(world, key, strong)
    (answer,) = world.link.take()
    return None if answer.value is None else msgspec.json.decode(record_body(answer.value))
