"""What an owner may count on, on simulated nodes whose messages are delivered by hand."""

import pytest

from raft.group import Outcome, Role
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
    honest, node.disk.append = node.disk.append, lambda data, then: held.append((data, then))
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
