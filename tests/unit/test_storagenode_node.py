"""The node around its replicas: messages, opening and closing, recovery."""

import asyncio

import msgspec
import pytest

from proto.messages import (
    Catalog,
    Discover,
    Get,
    OutcomeUnknown,
    Query,
    RaftBatch,
    ReadFeed,
    ReplicaAddress,
    Stats,
    Unavailable,
    Value,
    Write,
    WrongPartition,
)
from raft.group import Configuration, GroupId, LogIndex, Member, NodeId, RecoveredGroup, ReplicaId
from storagenode.data_directory import Peer
from storagenode.engines.engine import APPLIED, DATA, REMOVING, TOMBSTONE, group_key
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.node import ReplicaRefused
from storagenode.replicas.log_entries import AppliedState, encode_applied, encode_state
from storagenode.requests import REPLICA_REQUESTS, Requests
from storagenode.snapshots.snapshots import BadSnapshot
from tests.unit.storagenode_fake_host import FakeHost, make_node, make_peers
from tests.unit.storagenode_harness import MEMBERS, FakeLink, fresh_state, put


class Rig:
    """A node with group 7 open and leading, unless told otherwise."""

    def __init__(self, tmp_path, *, recovered=(), engine=None, open_group=True, fetch=None):
        self.engine = engine or MemoryEngine()
        self.host = FakeHost(recovered)
        self.work = []
        self.node = make_node(self.engine, self.host, tmp_path, fetch=fetch, spawn=self.work.append)
        self.requests = Requests(self.node, self.host, self.node._peers)
        self.node.recover()
        self.link = FakeLink()
        if open_group:
            self.open()
            self.group = self.host.created[7]
            self.group.lead()

    def open(self, group=7, replica=1, state=None, configuration=MEMBERS):
        self.node.open_replica(
            GroupId(group),
            ReplicaId(replica),
            configuration,
            state or fresh_state(),
            campaign=False,
        )

    def close(self, group=7):
        async def run():
            task = asyncio.create_task(self.node.close_replica(GroupId(group)))
            await asyncio.sleep(0)
            self.host.make_durable()
            await task

        asyncio.run(run())

    def run_spawned(self):
        work, self.work[:] = list(self.work), []
        for each in work:
            asyncio.run(each)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


REQUESTS = [
    Get(1, 8, b"b", True),
    Write(2, 8, bytes(16), [put("b")]),
    Query(3, 8, b"a", b"b", True),
    ReadFeed(4, 8, 0, 1, 0),
    Stats(5, 8),
]


def test_requests_for_groups_that_are_elsewhere(rig):
    rig.requests.on_messages(rig.link, REQUESTS)
    assert rig.link.take() == [WrongPartition(number, 8) for number in (1, 2, 3, 4, 5)]


def test_one_requests_failure_is_its_own(rig, monkeypatch):
    def broken(replica, link, request):
        raise RuntimeError("bug")

    monkeypatch.setitem(REPLICA_REQUESTS, Write, broken)
    monkeypatch.setitem(REPLICA_REQUESTS, Query, broken)
    rig.requests.on_messages(
        rig.link,
        [
            Write(1, 7, bytes(16), [put("b")]),
            Query(2, 7, b"a", b"b", True),
            Get(3, 7, b"b", True),
        ],
    )
    assert rig.link.take() == [
        OutcomeUnknown(1, "internal error"),
        Unavailable(2, "internal error"),
        Value(3, None, rig.group.index),
    ]
    assert rig.node.handler_failures == 2


def test_a_write_whose_evaluation_fails_harms_no_other(rig, monkeypatch):
    import storagenode.replicas.writing as writing

    evaluate = writing.evaluate

    def sometimes(actions, read, *, keep_images):
        if actions[0].key == b"c":
            raise RuntimeError("bug")
        return evaluate(actions, read, keep_images=keep_images)

    monkeypatch.setattr(writing, "evaluate", sometimes)
    rig.requests.on_messages(
        rig.link, [Write(n, 7, bytes([n]) * 16, [put(key)]) for n, key in enumerate("bcd")]
    )
    rig.node.environment.turn()
    rig.group.commit()
    answers = {answer.id: type(answer).__name__ for answer in rig.link.take()}
    assert answers == {0: "Written", 1: "Unavailable", 2: "Written"}


def test_answers_are_no_requests(rig):
    rig.requests.on_messages(rig.link, [Value(1, None), Get(2, 7, b"b", True)])
    assert rig.link.take() == [Value(2, None, rig.group.index)]


def test_raft_batches_count_from_a_nodes_newest_link_only(rig):
    old, new = FakeLink("storagenode", "node-2"), FakeLink("storagenode", "node-2")
    rig.requests.on_messages(old, [RaftBatch(b"0")])
    rig.requests.on_up(old)
    rig.requests.on_messages(old, [RaftBatch(b"1")])
    rig.requests.on_up(new)
    assert old.closed
    rig.requests.on_messages(old, [RaftBatch(b"2")])
    rig.requests.on_down(old)
    rig.requests.on_messages(new, [RaftBatch(b"3")])
    rig.requests.on_messages(FakeLink("router", "node-2"), [RaftBatch(b"4")])
    assert rig.host.received == [("node-2", b"1"), ("node-2", b"3")]


def test_where_the_catalog_is(tmp_path):
    rig = Rig(tmp_path, open_group=False)
    rig.requests.on_messages(rig.link, [Discover(1)])
    assert rig.link.take() == [Catalog(1, "cluster", [])]
    rig.open(0, state=fresh_state(b"", b"z", feed=True))
    rig.host.created[0].lead()
    rig.requests.on_messages(rig.link, [Discover(2)])
    (catalog,) = rig.link.take()
    assert [(r.replica_id, r.address) for r in catalog.replicas] == [
        (1, "127.0.0.1:1"), (2, "127.0.0.1:2"), (3, "127.0.0.1:3"),
    ]  # fmt: skip
    assert catalog.leader_node == "node-1"


def test_opening_is_idempotent_and_refuses_contradictions(rig):
    rig.open()
    assert len(rig.node.replicas) == 1
    with pytest.raises(ReplicaRefused):
        rig.open(replica=2)
    with pytest.raises(ReplicaRefused):
        rig.open(state=fresh_state(b"a", b"y"))


def test_closing_deletes_the_data_and_is_for_good(rig, tmp_path):
    for number, key in enumerate("bcd"):
        rig.requests.on_messages(rig.link, [Write(number, 7, bytes([number]) * 16, [put(key)])])
    rig.node.environment.turn()
    rig.group.commit()
    rig.engine.write([(DATA + b"zz", b"another partition's")])
    rig.close()
    assert rig.host.removed == [7]
    assert not rig.node.replicas
    rig.close()  # idempotent
    with pytest.raises(ReplicaRefused):
        rig.open()
    # A crash before the data was deleted: the next start goes on.
    later = Rig(tmp_path, engine=rig.engine, open_group=False)
    later.run_spawned()
    rig.work[0].close()
    assert dict(later.engine.iterate(b"", b"\xff")) == {
        DATA + b"zz": b"another partition's",
        group_key(TOMBSTONE, 7): b"\x01",
    }


def test_a_crash_between_tombstone_and_log(tmp_path):
    engine = MemoryEngine()
    engine.write([(group_key(TOMBSTONE, 7), b"\x01")])
    engine.write([(group_key(REMOVING, 7), msgspec.msgpack.encode((b"a", b"z")))])
    rig = Rig(tmp_path, engine=engine, recovered=[recovered(11)], open_group=False)
    assert rig.host.removed == [7]
    assert not rig.node.replicas
    rig.run_spawned()


def recovered(index):
    return RecoveredGroup(
        GroupId(7), ReplicaId(1), MEMBERS, LogIndex(index), 1, encode_state(fresh_state())
    )


@pytest.mark.parametrize(
    ("checkpoint", "mark", "sound"),
    [(10, None, True), (11, None, False), (20, 19, False), (20, 20, True), (20, 25, True)],
)
def test_an_engine_behind_its_checkpoint_is_found_out(tmp_path, checkpoint, mark, sound):
    engine = MemoryEngine()
    if mark is not None:
        engine.write([(group_key(APPLIED, 7), encode_applied(AppliedState(mark, 1)))])
    rig = Rig(tmp_path, engine=engine, recovered=[recovered(checkpoint)], open_group=False)
    replica = rig.node.replicas[7]
    assert (replica.standing.fault is None) is sound
    rig.host.opened[7].index = checkpoint
    rig.host.opened[7].lead()
    rig.requests.on_messages(rig.link, [Get(1, 7, b"b", True)])
    expected = Value(1, None, checkpoint + 1) if sound else Unavailable(1, "replica out of service")
    assert rig.link.take() == [expected]
    assert rig.host.opened[7].transfers == (0 if sound else 1)


def test_a_snapshot_is_fetched_once_at_a_time_and_a_failure_is_survived(tmp_path):
    asked = []

    async def fetch(peer, group, index, file):
        asked.append((peer.node_id, group, index))
        raise BadSnapshot("no")

    rig = Rig(tmp_path, fetch=fetch)
    replica = rig.node.replicas[7]
    for _ in range(2):
        for _ in range(2):
            replica.snapshot_wanted(MEMBERS.members[1], LogIndex(50), 1)
        assert len(rig.work) == 1
        rig.run_spawned()
    assert asked == []  # no gRPC address is known yet
    rig.node._peers.learn([Peer("node-2", "n2", "az2", "127.0.0.1:2", "127.0.0.1:22")])
    replica.snapshot_wanted(MEMBERS.members[1], LogIndex(50), 1)
    rig.run_spawned()
    assert asked == [("node-2", 7, 50)]
    assert replica.standing.serves
    replica.standing.is_forgetting = True  # the file and the note of the last one are still to go
    replica.snapshot_wanted(MEMBERS.members[1], LogIndex(60), 1)
    assert not rig.work


def test_addresses_leave_out_who_is_unknown(rig):
    members = (*MEMBERS.members, Member(ReplicaId(9), NodeId("nobody")))
    assert [a.node_id for a in rig.node.addresses(Configuration(members).members)] == [
        "node-1", "node-2", "node-3",
    ]  # fmt: skip


# --- peers ---


def storage_link(node_id, address="127.0.0.1:9", grpc="127.0.0.1:99"):
    link = FakeLink("storagenode", node_id)
    link.peer = msgspec.structs.replace(link.peer, address=address, grpc=grpc)
    return link


def test_peers_are_dialled_and_remembered():
    dialers = {}
    peers = make_peers([Peer("node-2", "n2", "az2", "h:2")], dialers)
    assert not dialers
    peers.start("h:1", ["h:1", "h:2", "h:3"])
    assert sorted(dialers) == ["h:2", "h:3"]
    peers.learn([Peer("node-4", "n4", "az1", "h:4"), Peer("node-1", "me", "az1", "h:1")])
    assert sorted(dialers) == ["h:2", "h:3", "h:4"]
    peers.on_up(storage_link("node-2", "h:22", "g:22"))  # moved
    assert dialers["h:2"].stopped
    assert "h:22" in dialers
    peers.learn([Peer("node-2", "n2", "az2", "h:22")])  # says nothing of gRPC
    assert peers.find("node-2").grpc == "g:22"
    peers.learn([Peer("node-2", "n2", "az2", "h:old")], hearsay=True)
    assert peers.find("node-2").address == "h:22"  # a link that works knows better
    assert {peer.node_id for peer in peers.saved[-1]} == {"node-2", "node-4"}


def test_raft_goes_to_the_disk_that_it_is_for():
    peers = make_peers()
    peers.start("h:1", [])
    events = []

    class Listener:
        def peer_up(self, node):
            events.append(("up", node))

        def peer_down(self, node):
            events.append(("down", node))

    peers.listen(Listener())
    link = storage_link("node-2")
    peers.on_up(link)
    peers.send(NodeId("node-2"), b"x")
    peers.send(NodeId("node-3"), b"y")
    assert link.take() == [RaftBatch(b"x")]
    link.is_congested = True
    assert peers.is_congested(NodeId("node-2"))
    newer = storage_link("node-2")
    peers.on_up(newer)
    peers.on_down(link)
    peers.send(NodeId("node-2"), b"z")
    assert newer.take() == [RaftBatch(b"z")]
    peers.on_down(newer)
    assert events == [(e, "node-2") for e in ("up", "down", "up", "down")]


@pytest.mark.parametrize(("role", "node_id"), [("router", "x"), ("storagenode", "node-1")])
def test_who_is_no_other_storage_node_is_left(role, node_id):
    peers = make_peers()
    link = FakeLink(role, node_id)
    peers.on_up(link)
    assert link.closed
    assert peers.up() == []


def replica_ids(rig):
    return {group: int(replica.replica_id) for group, replica in rig.node.replicas.items()}


def test_a_blank_replica_serves_nothing_and_is_opened_once(rig):
    state = fresh_state()
    rig.node.join_replica(GroupId(8), ReplicaId(1000), state)
    rig.node.join_replica(GroupId(8), ReplicaId(1000), state)
    assert replica_ids(rig) == {7: 1, 8: 1000}
    with pytest.raises(ReplicaRefused):
        rig.node.join_replica(GroupId(8), ReplicaId(1001), state)
    replica = rig.node.replicas[8]
    replica.standing.leader_seen = True
    rig.requests.on_messages(rig.link, [Get(1, 8, b"b", False), Get(2, 8, b"b", True)])
    assert [type(answer) for answer in rig.link.take()] == [Unavailable, Unavailable]
    rig.host.joined[8].lead()
    assert not replica.standing.is_leading, "it has nothing to lead with"


def test_a_blank_replica_is_blank_after_a_restart(tmp_path):
    found = RecoveredGroup(
        GroupId(8), ReplicaId(1000), Configuration(()), 1, 0, encode_state(fresh_state())
    )
    rig = Rig(tmp_path, recovered=[found], open_group=False)
    assert rig.node.replicas[8].standing.is_blank
    assert not rig.node.replicas[8].standing.serves


def test_a_group_may_come_back_under_a_later_id_once_the_old_data_is_gone(rig, tmp_path):
    rig.close(7)
    state = fresh_state()
    with pytest.raises(ReplicaRefused, match="still being deleted"):
        rig.node.join_replica(GroupId(7), ReplicaId(1000), state)
    rig.run_spawned()
    with pytest.raises(ReplicaRefused, match="closed for good"):
        rig.node.join_replica(GroupId(7), ReplicaId(1), state)
    rig.node.join_replica(GroupId(7), ReplicaId(1000), state)
    assert replica_ids(rig) == {7: 1000}
    # The tombstone is of the old one: a restart keeps the new one.
    found = RecoveredGroup(
        GroupId(7), ReplicaId(1000), Configuration(()), 1, 0, encode_state(state)
    )
    again = Rig(tmp_path, recovered=[found], engine=rig.engine, open_group=False)
    assert replica_ids(again) == {7: 1000}
    older = RecoveredGroup(GroupId(7), ReplicaId(1), MEMBERS, 10, 1, encode_state(state))
    again = Rig(tmp_path, recovered=[older], engine=rig.engine, open_group=False)
    assert again.host.removed == [7]


def test_only_the_replica_that_was_meant_is_closed(rig):
    async def run(replica_id):
        task = asyncio.create_task(rig.node.close_replica(GroupId(7), ReplicaId(replica_id)))
        await asyncio.sleep(0)
        rig.host.make_durable()
        await task

    asyncio.run(run(2))
    assert 7 in rig.node.replicas
    asyncio.run(run(1))
    assert 7 not in rig.node.replicas
    rig.run_spawned()


def test_of_two_words_on_the_catalog_the_newer_counts(tmp_path):
    rig = Rig(tmp_path, open_group=False)
    old = [ReplicaAddress(1, "node-2", "127.0.0.1:2", "az2")]
    new = [ReplicaAddress(1000, "node-3", "127.0.0.1:3", "az3")]
    rig.node.hear_catalog(Catalog(1, "cluster", new, None, 50))
    rig.node.hear_catalog(Catalog(2, "cluster", old, None, 49))
    rig.node.hear_catalog(Catalog(3, "cluster", [], None, 99))
    rig.requests.on_messages(rig.link, [Discover(4)])
    assert rig.link.take() == [Catalog(4, "cluster", new, None, 50)]


def test_the_catalogs_learners_are_nobodys_address(tmp_path):
    rig = Rig(tmp_path, open_group=False)
    members = (*MEMBERS.members[:2], Member(ReplicaId(1000), NodeId("node-3"), is_learner=True))
    rig.open(group=0, configuration=Configuration(members))
    rig.requests.on_messages(rig.link, [Discover(4)])
    (answer,) = rig.link.take()
    assert [replica.replica_id for replica in answer.replicas] == [1, 2]
    assert answer.position == rig.node.replicas[0].applied_index
