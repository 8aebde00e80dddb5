"""Scenarios of logs, snapshots, reads and members; see `directed.py`."""

from raft.elections import NEVER
from raft.group import Configuration, Member, NodeId, Outcome, ReplicaId
from raft.wire import Append
from tests.simulation.directed import GROUP, Stage
from tests.simulation.directed_messages import tell
from tests.simulation.options import SETTINGS, Violation
from tests.simulation.patching import mutated
from tests.simulation.workloads import NO_PRE_VOTES


def change(stage: Stage, leader: str, members: tuple[Member, ...]) -> bool:
    """Whether that leader takes this configuration."""
    replica, taken = stage.replica(leader), []
    stage.node(leader).step(
        lambda: taken.append(replica.change_configuration(Configuration(members), lambda *_: None))
    )
    stage.pause(0.0)
    return taken == [True]


def members_with(stage: Stage, leader: str, **learners: bool) -> tuple[Member, ...]:
    """The leader's members, some of them made learners or voters; new ones get the next ids."""
    current = stage.replica(leader).status().configuration.members
    known = {m.node_id: m for m in current}
    for name, is_learner in learners.items():
        member = known.get(NodeId(name))
        replica_id = ReplicaId(ord(name) - ord("A") + 1) if member is None else member.replica_id
        known[NodeId(name)] = Member(replica_id, NodeId(name), is_learner=is_learner)
    return tuple(known.values())


# elections


def comeback_disturbs_nobody() -> str:
    """C was alone for long: it comes back as a follower of the leader that is there, in the same term."""
    stage = Stage()
    stage.lead("A")
    term = stage.replica("A").term
    stage.exchange("AB", 3.0)
    stage.forget_messages()
    stage.exchange("ABC", 2.0)
    if not stage.leads("A") or stage.replica("A").term != term:
        return f"term {stage.replica('A').term} after {term}"
    return "" if stage.replica("C").term == term else "C is not with us"


def learners_do_not_stand() -> str:
    """C is a learner, hears nobody, and B would vote for it."""
    stage = Stage()
    stage.lead("A")
    assert change(stage, "A", members_with(stage, "A", C=True))
    stage.exchange("ABC", 0.5)
    stage.pause(2.0)
    stage.forget_messages()
    try:
        stage.campaign("C", "BC", 1.0)
    except Violation as violation:
        return violation.kind
    return "a learner leads" if stage.leads("C") else ""


def campaign_before_applying() -> str:
    """B hears of a committed change, and writes for so long that its deadline is over before it applies that: it
    must not ask the members of the past for their votes. (Candidates do not ask first here: their questions take
    longer than applying does.)
    """
    with mutated(NO_PRE_VOTES):
        stage = Stage(pool=4)
        stage.lead("A")
        stage.node("D").step(lambda: stage.node("D").join(GROUP, 4))
        assert change(stage, "A", members_with(stage, "A", D=True))
        stage.exchange("ABCD", 1.5)
        assert change(stage, "A", members_with(stage, "A", D=False))
        stage.exchange("ACD", 0.05)
        stage.forget_messages()
        held: list = []
        node, replica = stage.node("B"), stage.replica("B")
        node.disk.append, honest = (lambda *what: held.append(what)), node.disk.append
        stage.pause(0.11)
        for link in ("AB", "BA", "AB"):
            stage.deliver(*link)
        assert stage.end("B") == stage.end("A")
        assert len(held) == 1
        term = replica.term
        stage.pause(1.2 * SETTINGS.election_min_s)
        replica._core._SyncObj__raftElectionDeadline = NEVER
        node.disk.append = honest
        honest(*held[0])
        stage.pause(0.0)
        return "stands" if replica.term > term else ""


# logs


def commit_beyond_the_end() -> str:
    """The disk knows a commit index whose entries it lost: what comes instead is not taken for committed."""
    stage = Stage(replicas=5)
    stage.lead("A")
    node = stage.node("B")
    log = node.host._log
    log.record_commit(GROUP, stage.end("B")[0] + 20)
    log.touch(node.journal(GROUP))
    node.host.activate(stage.replica("B"))
    stage.pause(0.1)
    node.crash()
    stage.forget_messages()
    try:
        node.restart()
        stage.pause(0.1)
        stage.forget_messages()
        for _ in range(3):
            stage.put("A")
        stage.deliver("A", "B")
        stage.pause(0.1)
    except Violation as violation:
        return violation.kind
    return ""


def restart_stands_on_the_checkpoint() -> str:
    """What the machine holds is not applied again, what it lacks is."""
    stage = Stage()
    stage.lead("A")
    for _ in range(3):
        stage.put("A")
        stage.exchange("ABC", 0.05)
    stage.node("B").checkpoint(GROUP)
    stage.exchange("ABC", 0.3)
    stage.node("B").crash()
    stage.forget_messages()
    try:
        stage.node("B").restart()
        stage.exchange("ABC", 1.0)
    except Violation as violation:
        return violation.kind
    histories = [stage.node(name).machines[GROUP].image.history for name in "AB"]
    return "" if histories[0] == histories[1] else "histories differ"


def input_waits_for_the_fsync() -> str:
    """B writes: what arrives meanwhile is looked at when that is over."""
    stage = Stage()
    stage.lead("A")
    node = stage.node("B")
    held: list = []
    node.disk.append, honest = (lambda *what: held.append(what)), node.disk.append
    stage.put("A")
    stage.deliver("A", "B")
    before = stage.end("B")
    stage.put("A")
    stage.deliver("A", "B")
    if stage.end("B") != before:
        return "taken while the disk wrote"
    node.disk.append = honest
    honest(*held[0])
    stage.exchange("ABC", 0.5)
    return "" if stage.end("B") == stage.end("A") else "forgotten"


def unknown_command() -> str:
    """A command of a type that is unknown here is committed: this replica stops, for it cannot apply it."""
    stage = Stage()
    stage.lead("A")
    last, term = stage.end("B")
    entries = [(b"\x77new", last + 1, term)]
    append = Append(GROUP, 1, 2, term, last + 1, 10**6, 0.0, last, term, entries)
    stage.world.checkers[GROUP].committed = lambda *_: None
    return "" if tell(stage, "A", "B", append) == "fatal" else "skipped"


def outcome_of_what_was_overwritten() -> str:
    """A's proposal never left it; C leads, and something else is applied at its index."""
    stage = Stage()
    stage.lead("A")
    replica, outcomes = stage.replica("A"), []
    stage.node("A").step(lambda: replica.propose(b"9|x|", lambda what, _: outcomes.append(what)))
    stage.pause(0.0)
    stage.forget_messages()
    stage.pause(0.5)
    stage.forget_messages()
    for name in "BC":
        stage.replica(name).guard.elections.heard_leader_at = NEVER
    assert stage.campaign("C", "BC")
    for _ in range(3):
        stage.put("C")
        stage.exchange("BC", 0.05)
    stage.forget_messages()
    stage.exchange("ABC", 1.0)
    assert stage.end("A") == stage.end("C")
    return "" if outcomes in ([Outcome.UNKNOWN], [Outcome.REJECTED]) else f"{outcomes}"


# snapshots and new groups


def snapshot_over_a_foreign_tail() -> str:
    """C holds entries of a leader that is over, and installs a snapshot that stands on others: they go."""
    stage = Stage(replicas=5)
    stage.lead("A")
    for name in "CDE":
        stage.replica(name).guard.elections.heard_leader_at = NEVER
    for _ in range(8):
        stage.put("A")
    stage.deliver("A", "C")
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    assert stage.campaign("B", "BDE")
    stage.put("B")
    stage.exchange("BDE", 0.2)
    image = stage.node("B").machines[GROUP].image.copy()
    replica, machine = stage.replica("C"), stage.node("C").machines[GROUP]
    stage.world.images[b"other"] = image.copy()
    stage.forget_messages()

    def install() -> None:
        machine.stand_on(image.copy())
        replica.install_snapshot(image.applied, image.term, image.configuration, b"other")

    stage.node("C").step(install)
    stage.pause(0.1)
    terms = [entry[2] for entry in stage.node("C").journal(GROUP)]
    return "" if terms == [image.term] else f"kept: {terms}"


def snapshot_that_is_not_newer() -> str:
    """B holds more than the snapshot that arrives: it is not installed."""
    stage = Stage()
    stage.lead("A")
    image = stage.node("A").machines[GROUP].image.copy()
    stage.world.images[b"old"] = image.copy()
    for _ in range(3):
        stage.put("A")
        stage.exchange("ABC", 0.05)
    replica = stage.replica("B")
    taken: list[bool] = []
    stage.node("B").step(
        lambda: taken.append(
            replica.install_snapshot(image.applied, image.term, image.configuration, b"old")
        )
    )
    return "" if taken == [False] else "installed"


def blank_replica_of_a_child_group() -> str:
    """The group began with data that no entry carries; its log still reaches back to its first entry. D joins
    blank, and must get that data.
    """
    stage = Stage(pool=4)
    stage.lead("A")
    for _ in range(3):
        stage.put("A")
        stage.exchange("ABC", 0.05)
    stage.node("D").step(lambda: stage.node("D").join(GROUP, 4))
    assert change(stage, "A", members_with(stage, "A", D=True))
    stage.exchange("ABCD", 4.0)
    histories = [stage.node(name).machines[GROUP].image.history for name in "AD"]
    return "" if histories[0] == histories[1] else "D lacks what the group began with"


# reads and leases


def barrier_of_a_deposed_leader() -> str:
    """A hears nobody: it cannot know whether it still leads."""
    stage = Stage()
    stage.lead("A")
    replica, answers = stage.replica("A"), []
    stage.node("A").step(lambda: replica.read_barrier(answers.append))
    stage.pause(0.3)
    return "answered alone" if True in answers else ""


def lease_counts_from_the_sending() -> str:
    """Acks were long on their way: what they echo counts, not when they arrive."""
    stage = Stage()
    stage.lead("A")
    stage.exchange("ABC", 0.2)
    stage.forget_messages()
    stage.pause(0.11)
    for name in "BC":
        stage.deliver("A", name)
    stage.pause(0.3)
    sent = stage.world.now - 0.3
    for name in "BC":
        stage.deliver(name, "A")
    until = sent + SETTINGS.election_min_s
    stage.pause(until - stage.world.now)
    return "a lease past the promise" if stage.replica("A").lease_is_valid() else ""


# members


def learners_do_not_count() -> str:
    """Two voters and a learner: the learner's ack makes no majority."""
    stage = Stage()
    stage.lead("A")
    assert change(stage, "A", members_with(stage, "A", C=True))
    stage.exchange("ABC", 0.5)
    operation = stage.put("A")
    try:
        stage.exchange("AC", 0.1)
    except Violation as violation:
        return violation.kind
    return "acknowledged by a learner" if operation.acked_at is not None else ""


def two_changes_at_once() -> str:
    """A second change is not taken while the first is not applied."""
    stage = Stage(pool=5)
    stage.lead("A")
    assert change(stage, "A", members_with(stage, "A", D=True))
    return "taken" if change(stage, "A", members_with(stage, "A", E=True)) else ""


def change_of_a_new_leader() -> str:
    """A new leader may hold a change that it does not know to be committed: its whole log counts as one."""
    stage = Stage(pool=5)
    stage.lead("A")
    assert change(stage, "A", members_with(stage, "A", D=True))
    stage.deliver("A", "B")
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    stage.campaign("B", "", 0.0)
    for _ in range(2):
        stage.deliver("B", "C")
        stage.deliver("C", "B")
    assert stage.leads("B")
    replica = stage.replica("B")
    stage.node("B").step(lambda: None)
    return "taken" if replica.may_change_configuration() else ""
