"""A damaged replica repairs itself from its leader; a damaged directory is set aside."""

import asyncio

import pytest

from proto import control_pb2
from raft.group import GroupId, Role
from storagenode import healing, snapshots
from storagenode.data_directory import (
    ASIDE_MAX,
    DataDirectory,
    note_damage,
    noted_damage,
    set_aside,
)
from storagenode.engine import DATA, INSTALLING, EngineDamage, group_key
from storagenode.healing import Healer
from storagenode.memory_engine import MemoryEngine
from storagenode.snapshot_sending import SnapshotSender
from tests.unit.storagenode_fake_host import FakeHost, make_node, make_peers
from tests.unit.storagenode_harness import MEMBERS, World, fresh_state, put
from tests.unit.storagenode_transfers import stream


class FailingEngine(MemoryEngine):
    """Fails when a range that lies in this one is read."""

    failing = None

    def iterate(self, start, end, *, reverse=False):
        if self.failing is not None and start.startswith(DATA) and start >= self.failing:
            raise EngineDamage("block checksum mismatch")
        return super().iterate(start, end, reverse=reverse)


class Rig:
    """A follower of group 7 whose leader, node-2, is a world of its own."""

    def __init__(self, tmp_path, monkeypatch):
        monkeypatch.setattr(healing, "RETRY_S", 0.001)
        self.source = World().lead()
        for key in "bcdefg":
            self.source.written(put(key, text={"S": key * 20}))
        self.engine = FailingEngine()
        self.host = FakeHost()
        self.tasks = []
        self.hopeless = []
        self.refusals = 0
        self.fetched = 0
        directory = tmp_path / "snapshots"
        directory.mkdir()
        self.peers = make_peers()
        self.node = make_node(self.engine, self.host, directory, peers=self.peers)
        self.healer = Healer(
            self.node, self.engine, self.host, self.peers, self.fetch,
            lambda work: self.tasks.append(asyncio.ensure_future(work)), self.hopeless.append,
        )  # fmt: skip
        self.node.open_replica(GroupId(7), 1, MEMBERS, fresh_state(), campaign=False)
        self.replica = self.node.replicas[7]
        self.group = self.host.created[7]
        for index, term, payload in self.source.group.log:
            self.apply(index, term, payload)
        self.follow()

    def follow(self):
        from storagenode.data_directory import Peer

        self.peers.learn([Peer("node-2", "n2", "az2", "h:2", "g:2")])
        self.replica.role_changed(Role.FOLLOWER, 2, MEMBERS.members[1])

    def apply(self, index, term, payload):
        if self.replica.applied_index < index - 1 and not self.replica.standing.is_installing:
            self.replica.apply(index - 1, term, None)
        self.replica.apply(index, term, payload)
        self.node.round.flush()

    async def fetch(self, peer, group, at_least, file):
        self.fetched += 1
        assert peer.node_id == "node-2"
        assert not self.replica.standing.serves
        if self.refusals:
            self.refusals -= 1
            raise snapshots.BadSnapshot("the leader is busy")

        sender = SnapshotSender(self.source.engine, self.source.environment, 0)
        request = control_pb2.FetchSnapshotRequest(group=group, at_least_index=at_least)
        chunks = [chunk async for chunk in stream(sender, self.source.replica, request)]
        file.write_bytes(b"".join(snapshots.frame(chunk) for chunk in chunks))
        capture = snapshots.check_file(file, group)
        # Meanwhile the group goes on.
        self.source.written(put("h", text={"S": "late"}))
        self.apply(*self.source.group.log[-1])
        return capture

    async def settle(self):
        while self.tasks:
            await asyncio.wait_for(self.tasks.pop(), 5)
        self.host.make_durable()

    async def settle_durably(self):
        self.host.make_durable()
        await self.settle()


def items(engine):
    return dict(engine.iterate(DATA, DATA + b"\xff"))


@pytest.mark.parametrize("refusals", [0, 3])
def test_a_damaged_replica_is_replaced_from_the_leader_and_serves_again(
    tmp_path, monkeypatch, refusals
):
    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.group.wants = False  # raft's log is whole: it asks for nothing
        rig.refusals = refusals
        rig.engine.write([(DATA + b"c", b"rotten"), (DATA + b"y", b"never written")])
        rig.replica.fail("record damaged")
        assert not rig.replica.standing.serves
        await rig.settle()
        assert rig.fetched == refusals + 1
        assert items(rig.engine) == items(rig.source.engine)
        assert rig.replica.standing.serves
        assert rig.replica.applied_index == rig.source.replica.applied_index
        assert rig.replica.capture().state == rig.source.replica.capture().state
        assert rig.healer.healed == 1
        assert not rig.group.installed, "identity, log and vote are as they were"
        assert not rig.hopeless

    asyncio.run(run())


def test_a_leader_hands_over_before_it_is_repaired(tmp_path, monkeypatch):
    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.replica.role_changed(Role.LEADER, 3, MEMBERS.members[0])
        rig.group.wants = False

        def hand_over(to=None):
            rig.follow()
            return True

        rig.group.transfer_leadership = hand_over
        rig.replica.fail("record damaged")
        await rig.settle()
        assert rig.healer.healed == 1
        assert rig.replica.standing.serves

    asyncio.run(run())


def test_the_next_repair_waits_until_the_traces_of_the_last_are_gone(tmp_path, monkeypatch):
    """Its file has the same name, and so has the note of it: the end of one would take those of the other away."""

    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.group.wants = False
        note, files = group_key(INSTALLING, 7), tmp_path / "snapshots"
        rig.replica.fail("record damaged")
        await asyncio.wait_for(rig.tasks.pop(), 5)
        assert rig.healer.healed == 1
        assert rig.engine.get(note) is not None  # raft's log is not durable yet
        rig.replica.fail("another record damaged")
        await asyncio.sleep(0.02)  # twenty times as long as it waits between attempts
        assert rig.fetched == 1
        assert [file.name for file in files.iterdir()] == ["7.snapshot"]
        await rig.settle_durably()
        assert rig.healer.healed == rig.fetched == 2
        assert rig.replica.standing.serves
        assert rig.engine.get(note) is None
        assert not list(files.iterdir())
        assert items(rig.engine) == items(rig.source.engine)

    asyncio.run(run())


def test_an_engine_that_fails_under_the_repair_is_given_up(tmp_path, monkeypatch):
    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.engine.failing = DATA + b"a"
        rig.replica.fail("block damaged")
        await rig.settle()
        assert [type(error) for error in rig.hopeless] == [EngineDamage]
        assert not rig.replica.standing.serves

    asyncio.run(run())


# --- directories


def fill(path):
    directory = DataDirectory(path)
    identity = directory.load_identity("n1", "az1", "first")
    (path / "engine").mkdir()
    (path / "engine" / "data").write_text("x")
    directory.close()
    return identity.node_id


def test_a_directory_that_is_set_aside_leaves_room_for_a_new_disk(tmp_path):
    path = tmp_path / "data"
    old = fill(path)
    note_damage(path, "checksum mismatch")
    assert noted_damage(path) == "checksum mismatch"
    aside = set_aside(path, "checksum mismatch")
    assert aside == tmp_path / "data.damaged-1"
    assert (aside / "engine" / "data").read_text() == "x"
    assert (aside / "damaged").read_text() == "checksum mismatch"
    directory = DataDirectory(path)
    assert noted_damage(path) is None
    identity = directory.load_identity("n1", "az1", "second")
    assert identity.node_id != old
    assert identity.replaces_damaged
    directory.close()
    assert set_aside(path, "again") == tmp_path / "data.damaged-2"


def test_the_root_of_a_volume_is_emptied_in_place(tmp_path, monkeypatch):
    path = tmp_path / "data"
    fill(path)

    rename = type(path).rename

    def busy(self, target):
        if self == path:
            raise OSError("busy")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", busy)
    aside = set_aside(path, "checksum mismatch")
    assert aside == path / "damaged-1"
    assert sorted(entry.name for entry in path.iterdir()) == ["damaged-1"]
    assert (aside / "node.json").exists()
    assert noted_damage(path) is None


def test_directories_are_not_set_aside_for_ever(tmp_path):
    path = tmp_path / "data"
    for _ in range(ASIDE_MAX):
        fill(path)
        set_aside(path, "again")
    fill(path)
    with pytest.raises(OSError, match="kept already"):
        set_aside(path, "again")
    assert (path / "node.json").exists()
