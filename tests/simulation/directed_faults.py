"""Scenarios of identity, suspended clocks, lost commits and nonsense from peers; see `directed.py`."""

from raft.elections import NEVER
from raft.group import Configuration, LogIndex, NodeId, Outcome
from raft.wire import (
    Ack,
    Append,
    PreVoteAnswer,
    SnapshotNotice,
    StaleTerm,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
    encode_batch,
)
from tests.simulation.directed import GROUP, Stage
from tests.simulation.options import SETTINGS, Violation


def suspended_leader(*, has_boot_clock: bool = True) -> str:
    """A sleeps past its lease; C is elected and acknowledges a write. The first thing A sees when it wakes up,
    before any message and any timer, is a strong read: its clock must have gone on meanwhile.
    """
    stage = Stage(has_boot_clock=has_boot_clock)
    stage.lead("A")
    if not stage.replica("A").lease_is_valid():
        return "no lease to begin with"
    node = stage.node("A")
    node.suspend(1000.0)
    stage.pause(2 * SETTINGS.election_min_s)
    stage.forget_messages()
    for name in "BC":
        stage.replica(name).guard.elections.heard_leader_at = NEVER
    assert stage.campaign("C", "BC")
    operation = stage.put("C")
    stage.exchange("BC", 0.1)
    assert operation.acked_at is not None
    answered = []
    stage.world.on_resume = lambda *_: answered.append(stage.replica("A").lease_is_valid())
    node.resume(node.life)
    return "stale lease" if answered != [False] else ""


def suspended_voter() -> str:
    """B promised A to elect nobody, slept, and wakes up to C's old request before A's appends: whatever B does
    then, A's lease may not outlive it.
    """
    stage = Stage()
    stage.lead("A")
    stage.node("B").suspend(1000.0)
    stage.pause(0.6 * SETTINGS.election_min_s)
    stage.exchange("AC", 0.02)
    stage.forget_messages()
    stage.replica("C").guard.elections.heard_leader_at = NEVER
    stage.node("B").resume(stage.node("B").life)
    stage.campaign("C", "BC", 0.06)
    if not stage.leads("C"):
        return ""
    operation = stage.put("C")
    stage.exchange("BC", 0.03, 0.001)
    if operation.acked_at is not None and stage.replica("A").lease_is_valid():
        return "stale lease"
    return ""


def blank_replica_under_a_known_id() -> str:
    """B votes for A. A blank disk D claims to be replica 2 as well, knows nothing of that vote, and votes for C
    in the same term: C must not take its word, since replica 2 is at home on B.
    """
    stage = Stage(pool=4)
    stage.node("D").step(lambda: stage.node("D").join(GROUP, 2))
    stage.pause(0.1)
    try:
        if not stage.campaign("A", "AB"):
            return "A was not elected"
        stage.campaign("C", "", 0.0)
        for _ in range(4):  # what C sends to replica 2 reaches D
            for payload in stage.world.queues.pop(("C", "B"), ()):
                stage.world.deliver("C", "D", 0, payload)
                stage.pause(0.0)
            stage.deliver("C", "D")
            stage.deliver("D", "C")
            stage.pause(0.01)
        if stage.leads("C"):
            return "C was elected by a replica that is not what it says"
    except Violation as violation:
        return violation.kind
    return ""


def told_of_a_removal() -> str:
    """A removes B, is told so, and the owner destroys B's replica; A loses power right then. A must know of the
    change when it comes back: a log that remembers two voters could never elect anybody again.

    (Why the sync of configuration commits is not needed for safety: commit indexes ride with every batch, so
    whoever durably holds a change durably knows the one before it as committed; and one step back the
    majorities still overlap.)
    """
    stage = Stage(replicas=2)
    stage.lead("A")
    replica = stage.replica("A")
    own = Configuration((stage.node("A").founding[GROUP].members[0],))
    outcomes: list[Outcome] = []

    def told(outcome: Outcome, _: LogIndex) -> None:
        outcomes.append(outcome)
        node.crash()

    node = stage.node("A")
    node.step(lambda: replica.change_configuration(own, told))
    for _ in range(200):
        if outcomes:
            break
        stage.exchange("AB", 0.005)
    assert outcomes == [Outcome.COMMITTED]
    stage.node("B").crash()
    stage.forget_messages()
    node.restart()
    stage.pause(5.0)
    return "" if stage.leads("A") else "nobody can lead any more"


ABSURD_TERM = 1 << 61


def absurd_terms() -> str:
    """A peer speaks of terms that no election can have reached: the group must neither follow nor fall over."""
    stage = Stage()
    stage.lead("A")
    term = ABSURD_TERM
    for source, target in ((2, 1), (3, 1), (1, 2), (1, 3), (9, 1), (9, 2)):
        to, by = "ABC"[target - 1], "ABC"[source - 1] if source < 4 else "Z"
        for message in (
            StaleTerm(GROUP, source, target, term),
            VoteRequest(GROUP, source, target, term, term, term, True),
            VoteGrant(GROUP, source, target, term),
            PreVoteAnswer(GROUP, source, target, term, 1, True),
            Append(GROUP, source, target, term, 0, 1, 0.0, 0, 0, []),
            Ack(GROUP, source, target, term, 1, 0.0, 0, 0),
            SnapshotNotice(GROUP, source, target, term, 99, term, 1, 0.0),
            TimeoutNow(GROUP, source, target, term),
        ):
            payload = encode_batch([message])
            host = stage.node(to).host
            stage.node(to).step(lambda h=host, b=by, p=payload: h.receive(NodeId(b), p))
            stage.pause(0.0)
    stage.exchange("ABC", 3.0)
    if any(stage.replica(name).term >= ABSURD_TERM for name in "ABC"):
        return "a term out of nowhere was adopted"
    leaders = [name for name in "ABC" if stage.leads(name)]
    if not leaders:
        return "no leader"
    operation = stage.put(leaders[0])
    stage.exchange("ABC", 0.2)
    return "" if operation.acked_at is not None else "not writable"


def crowd_of_strangers() -> str:
    """Replica ids without end from one peer: what is remembered of them has a bound, and members still get in."""
    stage = Stage()
    stage.lead("A")
    replica = stage.replica("A")
    for first in range(10, 10_000, 100):
        batch = [VoteGrant(GROUP, source, 1, 0) for source in range(first, first + 100)]
        payload = encode_batch(batch)
        stage.node("A").step(lambda p=payload: stage.node("A").host.receive(NodeId("Z"), p))
    if len(replica.routes) > 1000:
        return f"{len(replica.routes)} strangers remembered"
    operation = stage.put("A")
    stage.exchange("ABC", 0.2)
    return "" if operation.acked_at is not None else "not writable"
