"""Digests at one log position, their comparison, and who is repaired."""

import asyncio

import pytest

from raft.group import GroupId, LogIndex, RecoveredGroup, ReplicaId, Role, Term
from storagenode import scrubbing
from storagenode.data_directory import Peer
from storagenode.engines.engine import APPLIED, DATA, group_key
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.replicas.log_entries import AppliedState, encode_applied, encode_state
from storagenode.scrubbing import NotCompared, Scrubber, Verdict
from tests.unit.storagenode_fake_host import FakeHost, make_node, make_peers
from tests.unit.storagenode_harness import MEMBERS, FakeLink, fresh_state, put

NAMES = ("node-1", "node-2", "node-3")


class Machine:
    """One node with a replica of group 7."""

    def __init__(self, cluster, number, directory, recovered=(), engine=None):
        self.engine = engine or MemoryEngine()
        self.host = FakeHost(recovered)
        peers = make_peers([Peer(n, n, "az", f"{n}:1", f"{n}:2") for n in NAMES])
        # (make_peers never knows itself as node-1: the address book has all others.)
        peers._book = {n: Peer(n, n, "az", f"{n}:1", f"{n}:2") for n in NAMES}
        self.node = make_node(self.engine, self.host, directory, peers=peers)
        self.tasks = []
        self.time = 0.0
        self.scrubber = Scrubber(
            self.node, self.engine, peers, cluster,
            lambda work: self.tasks.append(asyncio.ensure_future(work)), lambda: self.time, 100.0,
        )  # fmt: skip
        if recovered:
            self.node.recover()
            self.group = self.host.opened[7]
        else:
            self.node.open_replica(
                GroupId(7), ReplicaId(number), MEMBERS, fresh_state(feed=True), campaign=False
            )
            self.group = self.host.created[7]
        self.replica = self.node.replicas[7]


class Cluster:
    """Three machines; the first leads. Also the client through which they ask each other."""

    def __init__(self, tmp_path, monkeypatch):
        monkeypatch.setattr(scrubbing, "POLL_S", 0.001)
        monkeypatch.setattr(scrubbing, "STEP_RECORDS", 2)
        self.down = set()
        self.machines = {}
        for number, name in enumerate(NAMES, 1):
            (tmp_path / name).mkdir()
            self.machines[name] = Machine(self, number, tmp_path / name)
        self.leader = self.machines["node-1"]
        self.leader.group.lead()
        self.link = FakeLink()
        for follower in self.followers:
            follower.replica.role_changed(Role.FOLLOWER, 2, MEMBERS.members[0])
            follower.replica.apply(LogIndex(11), Term(2), None)

    @property
    def followers(self):
        return [self.machines[name] for name in NAMES[1:]]

    def write(self, *keys):
        from proto.messages import Write

        for number, key in enumerate(keys):
            name = key.encode().ljust(16, b"-")
            self.leader.replica.on_write(self.link, Write(number + 1, 7, name, [put(key)]))
        self.replicate()

    def replicate(self):
        self.leader.node.environment.turn()
        known = len(self.leader.group.log)
        if self.leader.group.proposals:
            self.leader.group.commit()
        entries = self.leader.group.log[known:]
        for follower in self.followers:
            # In one turn: what comes behind the scrub's entry must not be in the digest.
            for entry in entries:
                follower.replica.apply(*entry)
            follower.node.round.flush()
        return entries

    def scrub(self):
        self.leader.replica.ask_scrub()
        return self.replicate()

    async def digest(self, peer, group, index):
        machine = self.machines[peer.node_id]
        return None if peer.node_id in self.down else machine.scrubber.digest(group, index)

    async def repair(self, peer, group, index, digest):
        return self.machines[peer.node_id].scrubber.repair(group, index, digest)

    async def settle(self):
        for machine in self.machines.values():
            while machine.tasks:
                await asyncio.wait_for(machine.tasks.pop(), 5)

    def faults(self):
        return {n: m.replica.standing.fault is not None for n, m in self.machines.items()}


def run(scenario, tmp_path, monkeypatch):
    async def wrapped():
        cluster = Cluster(tmp_path, monkeypatch)
        cluster.write("b", "c", "d", "e", "f")
        await scenario(cluster)

    asyncio.run(wrapped())


def test_equal_replicas_are_found_equal_and_an_idle_partition_can_be_scrubbed(
    tmp_path, monkeypatch
):
    async def scenario(cluster):
        entries = cluster.scrub()
        assert len(entries) == 1, "an entry without a write"
        cluster.write("g")  # the group goes on while the digests are made
        await cluster.settle()
        assert (cluster.leader.scrubber.scrubs, cluster.leader.scrubber.mismatches) == (1, 0)
        assert not any(cluster.faults().values())

    run(scenario, tmp_path, monkeypatch)


def altered(engine):
    """The record of c holds what the record of b holds: whole by its checksum, and wrong."""
    engine.write([(DATA + b"c", engine.get(DATA + b"b"))])


def missing(engine):
    engine.write([(DATA + b"d", None)])


def surplus(engine):
    engine.write([(DATA + b"cc", engine.get(DATA + b"b"))])


def rotten(engine):
    engine.write([(DATA + b"d", engine.get(DATA + b"d")[:-1] + b"?")])


@pytest.mark.parametrize("damage", [altered, missing, surplus, rotten])
@pytest.mark.parametrize("victim", NAMES)
def test_the_odd_one_goes_out_of_service(tmp_path, monkeypatch, damage, victim):
    async def scenario(cluster):
        monkeypatch.setattr(scrubbing, "PATIENCE_S", 0.0 if damage is rotten else 900.0)
        damage(cluster.machines[victim].engine)
        cluster.scrub()
        await cluster.settle()
        assert cluster.faults() == {name: name == victim for name in NAMES}
        assert sum(m.scrubber.mismatches for m in cluster.machines.values()) == 1
        if victim == "node-1":
            assert cluster.leader.group.transfers, "it hands over"

    run(scenario, tmp_path, monkeypatch)


def test_without_a_majority_nothing_is_repaired(tmp_path, monkeypatch):
    async def scenario(cluster):
        altered(cluster.machines["node-2"].engine)
        missing(cluster.machines["node-3"].engine)
        cluster.scrub()
        await cluster.settle()
        assert not any(cluster.faults().values())
        assert cluster.leader.scrubber.mismatches == 1

    run(scenario, tmp_path, monkeypatch)


def test_two_of_three_suffice_when_one_is_away(tmp_path, monkeypatch):
    async def scenario(cluster):
        monkeypatch.setattr(scrubbing, "PATIENCE_S", -1.0)
        cluster.down.add("node-3")
        monkeypatch.setattr(scrubbing, "PATIENCE_S", 0.5)

        async def pass_time():
            await asyncio.sleep(0.05)
            cluster.leader.time = 1.0

        cluster.scrub()
        await asyncio.gather(pass_time(), cluster.settle())
        assert cluster.leader.scrubber.scrubs == 1
        assert not any(cluster.faults().values())

    run(scenario, tmp_path, monkeypatch)


def test_only_who_really_differs_obeys(tmp_path, monkeypatch):
    async def scenario(cluster):
        ((index, _, _),) = cluster.scrub()
        await cluster.settle()
        follower = cluster.machines["node-2"].scrubber
        own = follower.digest(7, index)
        assert own is not None
        assert not follower.repair(7, index, own)
        assert not follower.repair(7, index + 1, b"other")
        assert not follower.repair(8, index, b"other")
        assert not any(cluster.faults().values())

    run(scenario, tmp_path, monkeypatch)


def test_no_digest_while_entries_are_applied_a_second_time(tmp_path, monkeypatch):
    async def scenario(cluster):
        follower = cluster.machines["node-2"]
        checkpoint = follower.replica.capture()
        entries = cluster.scrub()
        cluster.write("g")
        await cluster.settle()
        # It restarts from the checkpoint; its engine has all that came behind.
        mark = encode_applied(AppliedState(follower.replica.applied_index, 2))
        follower.engine.write([(group_key(APPLIED, 7), mark)])
        found = RecoveredGroup(
            GroupId(7), ReplicaId(2), MEMBERS, checkpoint.index, checkpoint.term,
            encode_state(checkpoint.state),
        )  # fmt: skip
        (tmp_path / "again").mkdir()
        again = Machine(cluster, 2, tmp_path / "again", [found], follower.engine)
        for entry in entries:
            again.replica.apply(*entry)
        again.node.round.flush()
        assert not again.tasks
        assert again.scrubber.digest(7, entries[0][0]) is None

    run(scenario, tmp_path, monkeypatch)


def asked(cluster, leader=None):
    """Somebody asks for a comparison now; the log goes on until it is done."""

    async def ask():
        scrubber = (leader or cluster.leader).scrubber
        task = asyncio.ensure_future(scrubber.scrub(7))
        await asyncio.sleep(0)
        cluster.replicate()
        await cluster.settle()
        return await asyncio.wait_for(task, 5)

    return ask()


@pytest.mark.parametrize(
    ("damage", "victim", "verdict"),
    [
        (None, 1, Verdict.SAME),
        (altered, 2, Verdict.DIFFERS),
        (altered, 1, Verdict.DIFFERS),
        (rotten, 3, Verdict.DAMAGED),
    ],
)
def test_who_asks_is_told_what_was_found(tmp_path, monkeypatch, damage, victim, verdict):
    async def scenario(cluster):
        if damage is not None:
            damage(cluster.machines[f"node-{victim}"].engine)
        comparison = await asked(cluster)
        found = {member.replica_id: each for member, each in comparison.verdicts.items()}
        assert found == {1: Verdict.SAME, 2: Verdict.SAME, 3: Verdict.SAME, victim: verdict}
        assert cluster.faults()[f"node-{victim}"] == (damage is not None)
        scrubber = cluster.leader.scrubber
        assert scrubber._asked_at[7] == 0.0, "the next one of its own comes an interval later"

    run(scenario, tmp_path, monkeypatch)


def test_who_asks_is_told_why_nothing_was_compared(tmp_path, monkeypatch):
    async def scenario(cluster):
        with pytest.raises(NotCompared, match="not led here"):
            await cluster.machines["node-2"].scrubber.scrub(7)
        with pytest.raises(NotCompared, match="not led here"):
            await cluster.leader.scrubber.scrub(8)
        rotten(cluster.leader.engine)
        with pytest.raises(NotCompared, match="replica is damaged"):
            await asked(cluster)

    run(scenario, tmp_path, monkeypatch)


def test_a_leader_that_is_none_any_more_does_not_keep_anybody_waiting(tmp_path, monkeypatch):
    async def scenario(cluster):
        task = asyncio.ensure_future(cluster.leader.scrubber.scrub(7))
        await asyncio.sleep(0)
        cluster.leader.replica.role_changed(Role.FOLLOWER, 3, MEMBERS.members[1])
        with pytest.raises(NotCompared, match="elsewhere"):
            await asyncio.wait_for(task, 5)

    run(scenario, tmp_path, monkeypatch)


def test_partitions_take_turns(tmp_path, monkeypatch):
    async def scenario(cluster):
        scrubber = cluster.leader.scrubber
        scrubber.ask_next()
        cluster.leader.node.environment.turn()
        assert not cluster.leader.group.proposals, "not due yet"
        cluster.leader.time = 100.0
        scrubber.ask_next()
        assert len(cluster.replicate()) == 1
        await cluster.settle()
        scrubber.ask_next()
        assert not cluster.replicate(), "just done"

    run(scenario, tmp_path, monkeypatch)
