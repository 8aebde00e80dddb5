"""Scenarios of what a replica does with a single message: one for each rule of the guard; see `directed.py`."""

from dataclasses import replace

from raft.elections import NEVER
from raft.group import NodeId, ReplicaId
from raft.wire import (
    ACK_RESET,
    ACK_SUCCESS,
    Ack,
    Append,
    Message,
    SnapshotNotice,
    TimeoutNow,
    VoteGrant,
    decode_batch,
    encode_batch,
)
from tests.simulation.directed import GROUP, Stage, stale_lease
from tests.simulation.options import SETTINGS, Violation


def tell(stage: Stage, source: str, target: str, message: Message) -> str:
    """That message arrives; what it broke."""
    host = stage.node(target).host
    payload = encode_batch([message])
    try:
        stage.node(target).step(lambda: host.receive(NodeId(source), payload))
        stage.pause(0.0)
    except Violation as violation:
        return violation.kind
    return ""


def queued(stage: Stage, source: str, target: str) -> list[Message]:
    """What is on its way."""
    return [m for p in stage.world.queues.get((source, target), ()) for m in decode_batch(p)]


def nonsense_from_a_peer() -> str:
    """Bytes that are no batch, and batches with members of other types, reach nothing."""
    stage = Stage()
    stage.lead("A")
    host = stage.node("A").host
    for payload in (
        b"",
        b"\x80\x04K\x01.",
        b"\x92\x01\x91\x94\x63\x01\x01\x01",
        b"\x92\x01\x91\xc0",
    ):
        try:
            stage.node("A").step(lambda payload=payload: host.receive(NodeId("B"), payload))
        except Exception as error:  # noqa: BLE001 - none may come out
            return repr(error)
    return "" if stage.leads("A") else "no longer leads"


def entries_that_no_leader_builds() -> str:
    """A gap, an empty command, terms that fall: the append is dropped, the log stays whole."""
    stage = Stage()
    stage.lead("A")
    last, term = stage.end("B")
    for entries in (
        [(b"\0x", last + 2, term)],
        [(b"", last + 1, term)],
        [(b"\0x", last + 1, term), (b"\0y", last + 2, term - 1)],
        [(b"\0x", last + 1, term + 1)],
    ):
        append = Append(GROUP, 1, 2, term, 0, 1, 0.0, last, term, entries)
        if broken := tell(stage, "A", "B", append):
            return broken
    return "" if stage.end("B") == (last, term) else "they are in the log"


def higher_term_ends_a_leadership() -> str:
    """An ack from a term that is already behind somebody else's election."""
    stage = Stage()
    stage.lead("A")
    term = stage.replica("A").term + 1
    tell(stage, "B", "A", Ack(GROUP, 2, 1, term, 1, 0.0, 0, 0))
    return "still leads" if stage.leads("A") else ""


def stranded_by_a_higher_term() -> str:
    """C was a candidate nobody heard of: it hears the leader only once the leader has its term."""
    stage = Stage()
    stage.lead("A")
    stage.replica("C").guard.reach_term(stage.replica("A").term + 5)
    stage.exchange("ABC", 4.0)
    leaders = [name for name in "ABC" if stage.leads(name)]
    if not leaders:
        return "no leader"
    operation = stage.put(leaders[0])
    stage.exchange("ABC", 0.3)
    if operation.acked_at is None or stage.end("C")[0] < operation.index:
        return "C is left behind"
    return ""


def late_append() -> str:
    """An append is delivered again when B has acknowledged much more: nothing is cut off."""
    stage = Stage()
    stage.lead("A")
    stage.put("A")
    late = list(stage.world.queues[("A", "B")])
    for _ in range(3):
        stage.put("A")
    stage.exchange("AB", 0.003, 0.001)
    stage.put("A")
    stage.deliver("A", "B")
    before = stage.end("B")
    try:
        for payload in late:
            stage.world.deliver("A", "B", 0, payload)
            stage.pause(0.0)
    except Violation as violation:
        return violation.kind
    return "" if stage.end("B") == before else "B forgot what it acknowledged"


def conflict_with_the_committed() -> str:
    """A leader that contradicts what is committed here: the replica stops, its log stays."""
    stage = Stage()
    stage.lead("A")
    for _ in range(3):
        stage.put("A")
    stage.exchange("ABC", 0.5)
    last, term = stage.end("B")
    append = Append(
        GROUP, 3, 2, term + 1, 0, 1, 0.0, last - 2, term, [(b"\0x", last - 1, term + 1)]
    )
    broken = tell(stage, "C", "B", append)
    return "" if broken == "fatal" and stage.end("B") == (last, term) else broken or "it goes on"


def _tail_nobody_committed() -> tuple[Stage, int, int]:
    """B holds a tail of A's term; C, D and E have committed something else there."""
    stage = Stage(replicas=5)
    stage.lead("A")
    verified, term = stage.end("A")
    for _ in range(3):
        stage.put("A")
    stage.deliver("A", "B")
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    assert stage.campaign("C", "CDE")
    for _ in range(3):
        stage.put("C")
        stage.exchange("CDE", 0.05)
    assert stage.replica("C").status().commit_index >= stage.end("B")[0]
    stage.forget_messages()
    return stage, verified, term


def _commits_its_tail(stage: Stage, previous: int, previous_term: int) -> str:
    leader = stage.replica("C")
    commit = leader.status().commit_index
    return tell(
        stage,
        "C",
        "B",
        Append(GROUP, 3, 2, leader.term, commit, 1, 0.0, previous, previous_term, []),
    )


def commit_past_what_was_verified() -> str:
    """The new leader's append matches below B's tail, and names a commit index above it."""
    return _commits_its_tail(*_tail_nobody_committed())


def commit_without_verification() -> str:
    """A sign of life that verifies nothing names a commit index."""
    stage, _, _ = _tail_nobody_committed()
    return _commits_its_tail(stage, 0, 0)


def conflict_in_one_round_trip() -> str:
    """A has a long tail that nobody else has: it learns in a round trip or two where it goes on."""
    stage = Stage(replicas=3)
    stage.lead("A")
    for _ in range(30):
        stage.put("A")
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    assert stage.campaign("C", "BC")
    for _ in range(30):
        stage.put("C")
        stage.exchange("BC", 0.004, 0.002)
    stage.forget_messages()
    resets = 0
    for _ in range(80):
        stage.deliver("C", "A")
        resets += sum(isinstance(m, Ack) and m.kind == ACK_RESET for m in queued(stage, "A", "C"))
        stage.deliver("A", "C")
        stage.pause(0.01)
        if stage.end("A") == stage.end("C"):
            break
    return "" if resets <= 3 else f"{resets} resets"


def one_reset_per_round() -> str:
    """The first of many appends is lost: all that follow are refused, and sent again once, not once for each."""
    stage = Stage()
    stage.lead("A")
    stage.put("A")
    stage.forget_messages()
    for _ in range(10):
        stage.put("A")
    stage.deliver("A", "B")
    stage.deliver("B", "A")
    sent = sum(len(m.entries) for m in queued(stage, "A", "B") if isinstance(m, Append))
    return "" if sent <= 11 else f"{sent} entries for 11"


def reset_out_of_range() -> str:
    """A reset to somewhere past the leader's end, or to what is known to be held, costs nothing."""
    stage = Stage()
    stage.lead("A")
    for _ in range(20):
        stage.put("A")
        stage.exchange("ABC", 0.02)
    stage.node("A").checkpoint(GROUP)
    stage.exchange("ABC", 0.3)
    stage.forget_messages()
    replica = stage.replica("A")
    for next_index in (1, stage.end("A")[0] + 100):
        sequence = replica.guard.leadership.success_sequence[2]  # late: more is known by now
        ack = Ack(GROUP, 2, 1, replica.term, sequence, 0.0, next_index, ACK_RESET)
        if broken := tell(stage, "B", "A", ack):
            return broken
        stage.pause(0.3)
        if any(isinstance(m, SnapshotNotice) for m in queued(stage, "A", "B")):
            return "a snapshot for nothing"
        stage.exchange("ABC", 0.3)
    return ""


def ack_of_a_part() -> str:
    """B acknowledges the first of two entries: the second, still on its way, is not sent again."""
    stage = Stage()
    stage.lead("A")
    stage.put("A")
    stage.deliver("A", "B")
    stage.put("A")
    stage.deliver("B", "A")
    again = [m.entries for m in queued(stage, "A", "B") if isinstance(m, Append)]
    return "" if sum(map(len, again)) == 1 else f"sent: {again}"


def votes_of_strangers() -> str:
    """Replicas that are no members vote for A: that elects nobody."""
    stage = Stage(replicas=5)
    stage.campaign("A", "", 0.0)
    for voter in "BC":
        stage.deliver("A", voter)
        stage.deliver(voter, "A")
    term = stage.replica("A").term
    for stranger in (8, 9):
        tell(stage, "E", "A", VoteGrant(GROUP, stranger, 1, term))
    return "elected by strangers" if stage.leads("A") else ""


def takeover_asked_by_another() -> str:
    """C, which does not lead, asks B to take over while A holds its lease."""
    stage = Stage()
    stage.lead("A")
    tell(stage, "C", "B", TimeoutNow(GROUP, 3, 2, stage.replica("A").term))
    stage.forget_messages()
    stage.replica("B").guard.elections.heard_leader_at = NEVER  # its own promise does not bind it
    stage.campaign("B", "BC", 0.06)
    return stale_lease(stage, "A", "B", "BC")


def acks_past_the_end() -> str:
    """A follower acknowledges what its leader never had: the leader's memory is not to be trusted."""
    stage = Stage()
    stage.lead("A")
    replica = stage.replica("A")
    ack = Ack(GROUP, 2, 1, replica.term, 1, 0.0, stage.end("A")[0] + 50, ACK_SUCCESS)
    if tell(stage, "B", "A", ack) != "fatal":
        return "it goes on"
    held = replica.status().match_index.get(ReplicaId(2), 0)
    return "" if held <= stage.end("A")[0] else "it counted that"


def no_spinning_for_a_snapshot() -> str:
    """C needs a snapshot: it is told so once in a while, and gets one sign of life per heartbeat."""
    stage = Stage()
    stage.lead("A")
    for _ in range(30):
        stage.put("A")
        stage.exchange("AB", 0.004, 0.002)
    for _ in range(2):
        stage.node("A").checkpoint(GROUP)
        stage.exchange("AB", 0.3)
    stage.forget_messages()
    stage.node("C").machines[GROUP].snapshot_wanted = lambda *_: None
    try:
        stage.exchange("ABC", 2.0)
    except Violation as violation:
        return violation.kind
    return ""


def bulk_waits_for_the_link() -> str:
    """The link to B is full: B gets signs of life, and the entries when there is room again."""
    stage = Stage()
    stage.lead("A")
    transport = stage.node("A").host._transport
    transport.is_congested = lambda node: node == "B"
    for _ in range(5):
        stage.put("A")
    if any(m.entries for m in queued(stage, "A", "B") if isinstance(m, Append)):
        return "entries went into a full link"
    stage.exchange("ABC", 0.3)
    transport.is_congested = lambda node: False
    stage.exchange("ABC", 0.5)
    return "" if stage.end("B") == stage.end("A") else "B never got them"


def too_large_a_proposal() -> str:
    """The core would cut it into pieces that can be joined wrongly."""
    stage = Stage(settings=replace(SETTINGS, append_bytes_max=100))
    stage.lead("A")
    replica = stage.replica("A")
    try:
        stage.node("A").step(lambda: replica.propose(b"x" * 200, lambda *_: None))
        stage.pause(0.0)
    except ValueError:
        return ""
    except Violation as violation:
        return violation.kind
    return "taken"
