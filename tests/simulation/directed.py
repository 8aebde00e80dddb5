"""Event sequences that chance does not find: messages are delivered by hand, time moves when told.

Each scenario returns what went wrong ("" if nothing); `test_raft_simulation.py` runs it with all rules, where
nothing may, and with the rule switched off that it is about, where something must.
"""

from collections import deque
from dataclasses import replace
from functools import partial

from raft.elections import NEVER
from raft.group import Configuration, Member, Role
from raft.wire import Ack, decode_batch, encode_batch
from tests.simulation.checkers import Operation
from tests.simulation.node import SimNode
from tests.simulation.options import SETTINGS, Options, Violation
from tests.simulation.workloads import Driver
from tests.simulation.world import World

GROUP = 1
FAR = 1000.0


class Stage:
    """A world whose links deliver only when told."""

    def __init__(self, replicas: int = 3, **options: object) -> None:
        self.world = World(
            1,
            Options(network="manual", instant=True, replicas=replicas, drift=0.0, **options),
        )
        self.names = "".join(self.world.nodes)
        self._driver = Driver(self.world)
        self.pause(0.0)

    def node(self, name: str) -> SimNode:
        return self.world.nodes[name]

    def replica(self, name: str):
        return self.node(name).replica(GROUP)

    def leads(self, name: str) -> bool:
        return self.node(name).leads(GROUP)

    def pause(self, seconds: float) -> None:
        """Time passes; nothing is delivered."""
        self.world.run(self.world.now + seconds)

    def deliver(self, source: str, target: str) -> None:
        """All that is queued in this direction now."""
        queue = self.world.queues.get((source, target), deque())
        for _ in range(len(queue)):
            self.world.deliver(source, target, 0, queue.popleft())
            self.pause(0.0)

    def exchange(self, names: str, seconds: float, step: float = 0.005) -> None:
        """Time passes while these nodes talk to each other."""
        until = self.world.now + seconds
        while self.world.now < until:
            for source in names:
                for target in names:
                    if source != target:
                        self.deliver(source, target)
            self.pause(step)

    def forget_messages(self) -> None:
        self.world.queues.clear()

    def campaign(self, name: str, names: str, seconds: float = 0.1) -> bool:
        """This node stands for election, nobody else does; only these nodes talk."""
        for node in self.world.nodes.values():
            replica = node.replica(GROUP)
            if replica is not None:
                replica._core._SyncObj__raftElectionDeadline = self.world.now + FAR
        candidate = self.replica(name)

        def stand() -> None:
            candidate._host.enter()
            candidate.campaign()
            candidate.guard.elections.next_round_at = NEVER
            candidate._host.activate(candidate)

        self.node(name).step(stand)
        self.pause(0.0)
        self.exchange(names, seconds)
        return self.leads(name)

    def lead(self, name: str) -> None:
        """This node is elected by all, and everybody has heard of everything."""
        assert self.campaign(name, self.names)
        self.exchange(self.names, 0.5)
        self.forget_messages()

    def put(self, name: str) -> Operation:
        operation = self._driver.write(self.node(name), GROUP)
        assert operation is not None
        self.pause(0.0)
        return operation

    def end(self, name: str) -> tuple[int, int]:
        return self.node(name).journal(GROUP)[-1][1:]


def stale_lease(stage: Stage, old: str, new: str, others: str) -> str:
    """A write acknowledged by a new leader while the old one would still answer reads alone."""
    if not stage.leads(new):
        return ""
    operation = stage.put(new)
    stage.exchange(others, 0.03, 0.001)
    if operation.acked_at is not None and stage.replica(old).lease_is_valid():
        return "stale lease"
    return ""


def stickiness() -> str:
    """C lost A long ago, B heard A just now: B must not help C."""
    stage = Stage()
    stage.lead("A")
    stage.replica("C").guard.elections.heard_leader_at = NEVER
    stage.campaign("C", "BC", 0.06)
    return stale_lease(stage, "A", "C", "BC")


def quiet_time() -> str:
    """B promised A, restarts and forgets: it must not help C yet."""
    stage = Stage()
    stage.lead("A")
    stage.replica("C").guard.elections.heard_leader_at = NEVER
    stage.node("B").crash()
    stage.forget_messages()
    stage.node("B").restart()
    stage.campaign("C", "BC", 0.06)
    return stale_lease(stage, "A", "C", "BC")


def lease_ends_on_transfer() -> str:
    """A asked B to take over; B's election passes stickiness, so A's lease must be over."""
    stage = Stage()
    stage.lead("A")
    assert stage.replica("A").lease_is_valid()
    replica = stage.replica("A")
    stage.node("A").step(lambda: replica.transfer_leadership(2))
    stage.pause(0.0)
    stage.deliver("A", "B")
    stage.exchange("BC", 0.06)
    assert stage.leads("B")
    return stale_lease(stage, "A", "B", "BC")


def acks_of_another_term() -> str:
    """A's term-2 entries are overwritten and replaced; B's late ack of term 2 must not count for them."""
    stage = Stage(replicas=5)
    stage.lead("A")
    for _ in range(4):
        stage.put("A")
    stage.deliver("A", "B")
    held = [
        message
        for payload in stage.world.queues.pop(("B", "A"), ())
        for message in decode_batch(payload)
        if isinstance(message, Ack)
    ]
    high = max(ack.next_index for ack in held) - 1
    stage.forget_messages()
    stage.pause(1.0)
    stage.forget_messages()
    assert stage.campaign("C", "CDE")
    stage.exchange("ACDE", 0.5)  # A's tail is overwritten
    stage.forget_messages()
    stage.pause(1.0)
    stage.forget_messages()
    assert stage.campaign("A", "ADE")
    stage.exchange("ADE", 0.2)
    stage.forget_messages()
    while stage.end("A")[0] < high:
        stage.put("A")
    stage.deliver("A", "D")
    stage.deliver("D", "A")
    try:
        for ack in held:
            stage.world.deliver("B", "A", 0, encode_batch([ack]))
        stage.pause(0.0)
    except Violation as violation:
        return violation.kind
    return ""


def one_voter_counts_once() -> str:
    """The same grant delivered twice must not make a leader of five with one voter."""
    stage = Stage(replicas=5)
    stage.campaign("A", "", 0.0)
    stage.deliver("A", "B")
    stage.deliver("A", "C")
    stage.deliver("B", "A")
    stage.deliver("C", "A")  # the pre-vote majority: A asks for votes
    stage.deliver("A", "B")
    answers = list(stage.world.queues.get(("B", "A"), ()))
    for _ in range(2):
        for payload in answers:
            stage.world.deliver("B", "A", 0, payload)
            stage.pause(0.0)
    return "leader with one voter of five" if stage.leads("A") else ""


def followers_hear_of_commits() -> str:
    """A commit reaches an idle follower long before the next heartbeat, by an append that verifies it."""
    stage = Stage()
    stage.lead("A")
    stage.exchange("ABC", 0.02)
    operation = stage.put("A")
    stage.exchange("ABC", 0.02, 0.001)
    if operation.acked_at is None:
        return "not acknowledged"
    lag = [n for n in "BC" if stage.replica(n).status().applied_index < operation.index]
    return f"{lag} did not hear" if lag else ""


def followers_that_wait_hear_at_once() -> str:
    """Followers on which somebody waits for a commit hear of it before the usual pause is over: one that has the
    entry already, and one that asked before it had it; also when what they ask for is not committed yet.
    """
    for delivered in ("BC", "B"):
        stage = Stage()
        stage.lead("A")
        stage.exchange("ABC", 0.02)
        operation = stage.put("A")
        for name in delivered:
            stage.deliver("A", name)
        for name in "BC":
            replica = stage.replica(name)
            stage.node(name).step(partial(replica.ask_commit, operation.index))
            stage.pause(0.0)
            stage.deliver(name, "A")
        for _ in range(4):
            for name in "BC":
                stage.deliver("A", name)
                stage.deliver(name, "A")
        lag = [n for n in "BC" if stage.replica(n).status().applied_index < operation.index]
        if lag:
            return f"{lag} did not hear"
    return ""


def early_appends_of_a_crashed_leader() -> str:
    """A's append left, its own disk lost it: B holds what A never had, and all agree in the end."""
    stage = Stage()
    stage.lead("A")
    node = stage.node("A")
    held: list = []
    node.disk.append, honest = (lambda *what: held.append(what)), node.disk.append
    stage.put("A")
    stage.deliver("A", "B")
    node.disk.append = honest
    before = stage.end("B")
    node._gathering.clear()
    node.crash()
    stage.forget_messages()
    node.restart()
    stage.pause(1.0)
    stage.forget_messages()
    if stage.end("A") >= before:
        return "the append did not leave early"
    if stage.campaign("A", "AB"):
        return "A was elected by B although its log is shorter"
    stage.forget_messages()
    stage.pause(1.0)
    assert stage.campaign("B", "ABC")
    stage.exchange("ABC", 1.0)
    return "" if len({stage.end(n) for n in "ABC"}) == 1 else "logs differ"


def conflicting_tail_converges() -> str:
    """A has a tail nobody else has, C much more than one batch to send: no livelock of resets."""
    stage = Stage(settings=replace(SETTINGS, append_bytes_max=45))
    stage.lead("A")
    for _ in range(3):
        stage.put("A")
    stage.forget_messages()
    stage.pause(1.0)
    stage.forget_messages()
    assert stage.campaign("C", "BC")
    for _ in range(30):
        stage.put("C")
        stage.exchange("BC", 0.01)
    stage.forget_messages()
    stage.exchange("ABC", 3.0)
    return "" if stage.end("A") == stage.end("C") else "livelock"


def owners_hear_of_promotion() -> str:
    """C is made a learner and a voter again: its owner is told each time, though leader and term stay."""
    stage = Stage()
    stage.lead("A")
    told: list[Role] = []
    machine = stage.node("C").machines[GROUP]
    machine.role_changed = lambda role, *_: told.append(role)
    leader = stage.replica("A")
    for is_learner in (True, False):
        members = tuple(
            Member(m.replica_id, m.node_id, is_learner=is_learner and m.node_id == "C")
            for m in leader.status().configuration.members
        )
        proposed = Configuration(members)
        taken = []
        stage.node("A").step(
            lambda proposed=proposed, taken=taken: taken.append(
                leader.change_configuration(proposed, lambda *_: None)
            )
        )
        assert taken == [True]
        stage.exchange("ABC", 0.5)
    return "" if told == [Role.LEARNER, Role.FOLLOWER] else f"told {told}"
