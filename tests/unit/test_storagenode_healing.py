"""A damaged replica repairs itself from its leader; a damaged directory is set aside."""

import asyncio

import pytest

from proto import control_pb2
from raft.group import Configuration, GroupId, Member, NodeId, ReplicaId, Role
from storagenode import healing
from storagenode.data_directory import (
    ASIDE_MAX,
    DataDirectory,
    note_damage,
    noted_damage,
    set_aside,
)
from storagenode.engines.engine import DATA, INSTALLING, EngineDamage, group_key
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.healing import Healer
from storagenode.replicas import replica as replica_module
from storagenode.snapshots import snapshots
from storagenode.snapshots.snapshot_sending import SnapshotSender
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
        self.at_least = []
        self.sent = None
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
        given = self.group.given
        if index > (given[-1][0] if given else self.replica.applied_index) + 1:
            self.group.give(index - 1, term, None)
        self.group.give(index, term, payload)
        self.node.round.flush()

    async def fetch(self, peer, group, at_least, file):
        self.fetched += 1
        self.at_least.append(at_least)
        assert peer.node_id == "node-2"
        assert not self.replica.standing.serves
        if self.refusals:
            self.refusals -= 1
            raise snapshots.BadSnapshot("the leader is busy")

        file.write_bytes(self.sent or await self.send(at_least))
        capture = snapshots.check_file(file, group)
        # Meanwhile the group goes on.
        self.source.written(put("h", text={"S": "late"}))
        self.apply(*self.source.group.log[-1])
        return capture

    async def send(self, at_least=0):
        """A snapshot of the leader's state of now, as it lies in a file."""
        sender = SnapshotSender(self.source.engine, self.source.environment, 0)
        request = control_pb2.FetchSnapshotRequest(group=7, at_least_index=at_least)
        chunks = [chunk async for chunk in stream(sender, self.source.replica, request)]
        return b"".join(snapshots.frame(chunk) for chunk in chunks)

    def write(self, key):
        """A write to the group, applied by both."""
        self.source.written(put(key, text={"S": key * 3}))
        self.apply(*self.source.group.log[-1])

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


def test_a_snapshot_that_is_older_than_what_was_applied_will_do(tmp_path, monkeypatch):
    """From one that was begun before an interruption, what was written since is applied out of the log, the members
    among it; only the last checkpoint bounds how old it may be.
    """
    monkeypatch.setattr(replica_module, "CATCH_UP_BYTES", 400)

    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.group.wants = False
        rig.write("i")
        captured = rig.replica.capture()
        rig.group.checkpoint(captured.index, captured.term, b"")
        rig.sent = await rig.send()
        for key in "bjcklmnb":
            rig.write(key)
        members = Configuration((*MEMBERS.members, Member(ReplicaId(4), NodeId("node-4"), True)))
        for group in (rig.source.group, rig.group):
            index = rig.source.group.given[-1][0] + (group is rig.source.group)
            group.give(index, rig.source.group.term, members)
            group.index = index
            group.round.flush()
        rig.write("o")
        before = rig.replica.applied_index
        rig.engine.write([(DATA + b"c", b"rotten"), (DATA + b"y", b"never written")])
        rig.replica.fail("record damaged")
        await rig.settle_durably()
        assert rig.at_least == [captured.index] < [before]
        assert rig.replica.standing.serves
        assert rig.replica.applied_index == rig.source.replica.applied_index > before
        assert rig.replica.configuration == members
        assert items(rig.engine) == items(rig.source.engine)
        assert rig.replica.capture().state == rig.source.replica.capture().state

    asyncio.run(run())


def test_what_is_committed_while_a_replica_catches_up_is_applied_once_and_in_order(
    tmp_path, monkeypatch
):
    """In steps, between which the node serves others, and the group goes on."""
    monkeypatch.setattr(replica_module, "CATCH_UP_BYTES", 400)

    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.group.wants = False
        rig.sent = await rig.send()
        for number in range(20):
            rig.write(f"k{number}")
        slices = []
        catch_up = rig.replica.catch_up

        def step():
            is_done = catch_up()
            slices.append(rig.replica.applied_index)
            assert rig.replica.standing.serves == is_done
            if len(slices) < 5:
                rig.write(f"late{len(slices)}")
            return is_done

        rig.replica.catch_up = step
        rig.replica.fail("record damaged")
        await rig.settle_durably()
        assert len(slices) > 10
        assert slices == sorted(slices)
        assert items(rig.engine) == items(rig.source.engine)
        assert rig.replica.capture().state == rig.source.replica.capture().state

    asyncio.run(run())


def test_without_a_snapshot_what_came_meanwhile_is_applied_all_the_same(tmp_path, monkeypatch):
    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.refusals = 1
        fetch = rig.healer._fetch

        async def fail(*arguments):
            rig.write("late")
            assert rig.replica.applied_index < rig.source.replica.applied_index
            monkeypatch.setattr(healing, "RETRY_S", 3600)
            return await fetch(*arguments)

        rig.healer._fetch = fail
        rig.replica.fail("record damaged")
        await asyncio.sleep(0.02)
        assert not rig.replica.standing.is_installing
        assert rig.replica.standing.fault == "record damaged"
        assert rig.replica.applied_index == rig.source.replica.applied_index
        assert items(rig.engine) == items(rig.source.engine)
        rig.tasks.pop().cancel()

    asyncio.run(run())


def test_whoever_is_elected_while_it_is_repaired_leads_once_it_is_whole(tmp_path, monkeypatch):
    """It asks the others to take over; if nobody does, nobody would ever lead."""

    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.group.wants = False
        fetch = rig.healer._fetch

        async def elected(*arguments):
            capture = await fetch(*arguments)
            rig.group.index = rig.group.given[-1][0]
            rig.group.lead()
            assert rig.group.transfers == 1
            assert not rig.replica.standing.is_leading
            return capture

        rig.healer._fetch = elected
        rig.replica.fail("record damaged")
        await rig.settle_durably()
        assert rig.replica.standing.serves
        assert rig.replica.standing.is_leading
        assert rig.replica.applied_index == rig.group.index

    asyncio.run(run())


def test_a_replica_that_is_closed_while_it_is_repaired_applies_nothing_any_more(
    tmp_path, monkeypatch
):
    async def run():
        rig = Rig(tmp_path, monkeypatch)
        rig.replica.begin_install()
        rig.write("late")
        rig.replica.stop()
        applied = rig.replica.applied_index
        await asyncio.wait_for(snapshots.catch_up(rig.replica), 5)
        assert rig.replica.applied_index == applied
        assert not rig.replica.standing.serves

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
