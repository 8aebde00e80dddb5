"""What an owner may count on, on simulated nodes whose messages are delivered by hand."""

from dataclasses import replace

import pytest

from raft.group import Configuration, Member, NodeId, Outcome, ReplicaId, Role
from tests.simulation.directed import GROUP, Stage


def test_a_failing_machine_ends_its_replica_and_no_other():
    stage = Stage(groups=2)
    node = stage.node("B")
    fatal = []
    node.host._on_fatal = lambda group, error: fatal.append((group, str(error)))

    def broken(index, term, payload):
        raise OSError("engine is gone")

    stage.lead("A")
    node.machines[GROUP].apply = broken
    operation = stage.put("A")
    stage.exchange("ABC", 0.3)
    assert operation.acked_at is not None
    assert fatal == [(GROUP, "engine is gone")]
    assert [group.group_id for group in node.host.groups()] == [2]
    stage.exchange("ABC", 3.0)
    assert node.replica(2).leader is not None
    assert node.replica(2).status().applied_index > 10


def test_a_leader_that_hears_nobody_gives_up_and_says_unknown():
    stage = Stage()
    stage.lead("A")
    replica = stage.replica("A")
    outcomes, barriers = [], []
    stage.node("A").step(lambda: replica.propose(b"9|x|", lambda *what: outcomes.append(what)))
    stage.node("A").step(lambda: replica.read_barrier(barriers.append))
    stage.forget_messages()
    stage.pause(2.0)
    assert not stage.leads("A")
    assert outcomes == [(Outcome.UNKNOWN, 12)]
    assert barriers == [False]
    assert not replica.lease_is_valid()
    assert not replica.propose(b"10|x|", lambda *what: outcomes.append(what))
    assert replica.status().role is not Role.LEADER


def test_too_large_a_payload_is_refused_early():
    stage = Stage()
    stage.lead("A")
    replica = stage.replica("A")
    with pytest.raises(ValueError, match="limit"):
        replica.propose(b"x" * (replica.payload_bytes_max + 1), lambda *_: None)


def test_owners_are_called_back_when_the_fsync_is_over():
    stage = Stage()
    stage.lead("A")
    replica, node = stage.replica("A"), stage.node("A")
    called = []
    replica.on_writable = lambda: called.append(replica.accepts_proposals)
    held = []
    honest, node.disk.append = node.disk.append, lambda *what: held.append(what)
    assert replica.accepts_proposals
    node.step(lambda: replica.propose(b"1|x|", lambda *_: None))
    stage.pause(0.0)
    assert len(held) == 1
    assert not replica.accepts_proposals
    assert called == []
    node.disk.append = honest
    honest(*held[0])
    stage.pause(0.0)
    assert called == [True]


def test_creation_is_idempotent_and_ids_are_not_mixed_up():
    stage = Stage()
    node = stage.node("A")
    existing = stage.replica("A")
    configuration = node.founding[GROUP]
    arguments = (configuration, None, lambda: None, b"")
    assert node.host.create_group(GROUP, 1, *arguments) is existing
    with pytest.raises(ValueError, match="replica 1"):
        node.host.create_group(GROUP, 9, *arguments)


def test_damaged_batches_and_strangers_are_dropped():
    stage = Stage()
    stage.lead("A")
    host = stage.node("A").host
    for payload in (b"", b"\x80\x04K\x01.", b"\x92\x01\x91\x94\x63\x01\x01\x01"):
        stage.node("A").step(lambda payload=payload: host.receive("B", payload))
    stage.exchange("ABC", 0.5)
    assert stage.leads("A")


@pytest.mark.parametrize(
    ("held", "room", "expected"),
    [
        (None, True, "end"),
        (15, True, 15),  # for who is being sent the state as of there
        (2, True, 10),  # nothing more than there is
        (15, False, "end"),  # the node's log has grown enough
    ],
)
def test_the_log_is_held_for_a_receiver_within_bounds(monkeypatch, held, room, expected):
    stage = Stage()
    stage.lead("A")
    replica, node = stage.replica("A"), stage.node("A")
    for _ in range(30):
        stage.put("A")
        stage.exchange("ABC", 0.1)
    node.host.settings = replace(node.host.settings, log_slack_entries=1)
    end = replica.status().applied_index
    assert end >= 40
    if not room:
        monkeypatch.setattr(type(node.host), "has_room_for_held_log", False)
    replica.hold_log(held)
    node.step(lambda: replica.checkpoint(end, replica.journal.term_at(end), b"state"))
    first = replica.status().first_index
    assert first == (end - 1 if expected == "end" else expected)
    # Let go of, it is cut at the next checkpoint.
    replica.hold_log(None)
    stage.exchange("ABC", 0.1)
    node.step(lambda: replica.checkpoint(end, replica.journal.term_at(end), b"state"))
    assert replica.status().first_index == end - 1


def test_no_more_is_held_than_the_bytes_allowed():
    stage = Stage()
    stage.lead("A")
    replica, node = stage.replica("A"), stage.node("A")
    for _ in range(30):
        stage.put("A")
        stage.exchange("ABC", 0.1)
    node.host.settings = replace(node.host.settings, log_slack_entries=1, log_held_bytes=500)
    end = replica.status().applied_index
    replica.hold_log(12)
    node.step(lambda: replica.checkpoint(end, replica.journal.term_at(end), b"state"))
    assert end - 8 < replica.status().first_index < end - 1


def test_an_owner_is_told_again_what_it_was_told():
    """Nothing that is not committed and applied here, everything else, whatever it is asked to begin with."""
    stage = Stage()
    stage.lead("A")
    node, replica = stage.node("A"), stage.replica("A")
    told = []
    machine = node.machines[GROUP]
    apply, configure = machine.apply, machine.configure
    machine.apply = lambda *entry: (told.append(entry), apply(*entry))
    machine.configure = lambda *entry: (told.append(entry), configure(*entry))
    first = replica.status().applied_index
    learner = Member(ReplicaId(9), NodeId("D"), is_learner=True)
    configuration = Configuration((*node.founding[GROUP].members, learner))
    for number in range(12):
        stage.put("A")
        stage.exchange("ABC", 0.05)
        if number == 6:
            node.step(lambda: replica.change_configuration(configuration, lambda *_: None))
            stage.exchange("ABC", 0.3)
    stage.put("A")  # and this one is in the log, no more
    assert configuration in [content for _, _, content in told]
    assert replica.status().last_index == replica.status().applied_index + 1
    assert replica.checkpoint_index == 10
    assert replica.applied_after(first, 1 << 20) == told
    assert replica.applied_after(told[4][0], 1 << 20) == told[5:]
    assert replica.applied_after(told[-1][0], 1 << 20) == []
    assert (
        replica.applied_after(told[-1][0] + 5, 1 << 20) == []
    )  # a snapshot may be ahead of what is applied
    assert replica.applied_after(first, 1) == told[:1]
    assert 1 < len(replica.applied_after(first, 400)) < 6

    index, term, _ = told[3]
    node.step(lambda: replica.checkpoint(index, term, b"state"))
    assert replica.checkpoint_index == index
    assert replica.applied_after(index, 1 << 20) == told[4:]
    with pytest.raises(ValueError, match=f"below the checkpoint at {index}"):
        replica.applied_after(index - 1, 1 << 20)
