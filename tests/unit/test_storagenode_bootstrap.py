"""Who founds a cluster, who joins one, and who waits."""

import msgspec
import pytest

from proto.messages import Catalog, Hello, ReplicaAddress
from storagenode.data_directory import Identity
from storagenode.joining.bootstrap import (
    Belong,
    Bootstrap,
    InitialNode,
    Report,
    Wait,
    decide,
    has_forgotten,
)
from tests.unit.storagenode_harness import FakeEnvironment

NONE = Catalog(1, "", [])


def initial(*azs):
    return [InitialNode(f"n{i}", az, f"h:{i}") for i, az in enumerate(azs, 1)]


def own(number, az="az1"):
    return Identity(node_id=f"n{number}.x", name=f"n{number}", az=az)


def report(number, az="az1", catalog=NONE, disk="x"):
    return Report(f"n{number}.{disk}", f"n{number}", az, f"h:{number}", catalog)


def existing(*node_ids):
    replicas = [ReplicaAddress(i, n, f"h:{i}", "az1") for i, n in enumerate(node_ids, 1)]
    return Catalog(1, "c", replicas)


THREE = initial("az1", "az2", "az3")


def test_all_nodes_of_a_first_start_found_the_same_cluster():
    azs = ["az1", "az2", "az3"]
    decisions = []
    for me in (1, 2, 3):
        reports = [report(n, azs[n - 1]) for n in (3, 2, 1) if n != me]
        decision = decide(own(me, azs[me - 1]), f"h:{me}", THREE, reports)
        assert isinstance(decision, Belong)
        assert decision.created
        assert decision.replica_id == me
        decisions.append((decision.cluster_id, decision.replicas))
    assert len(set(decisions)) == 1
    assert len(decisions[0][0]) == 64


def test_nodes_whose_damaged_data_was_set_aside_join_a_cluster_and_found_none():
    me = msgspec.structs.replace(own(1), replaces_damaged=True)
    decision = decide(me, "h:1", THREE, [report(2), report(3)])
    assert isinstance(decision, Wait)
    assert "damaged data" in decision.reason
    catalog = existing("n1.old", "n2.x", "n3.x")
    decision = decide(me, "h:1", THREE, [report(2, catalog=catalog), report(3)])
    assert isinstance(decision, Belong)
    assert not decision.created
    assert decision.replica_id is None


@pytest.mark.parametrize(
    ("azs", "members"),
    [
        (["az1"], [1]),
        (["az1", "az2"], [1, 2]),
        (["az1", "az1", "az2", "az2", "az3"], [1, 3, 5]),
        (["az1", "az1", "az1", "az2"], [1, 2, 4]),
        (["az1", "az1", "az1", "az1"], [1, 2, 3]),
        (["az1", "az2", "az3", "az4"], [1, 2, 3]),
    ],
)
def test_the_catalog_is_spread_over_zones(azs, members):
    reports = [report(n, az) for n, az in enumerate(azs, 1) if n != 1]
    decision = decide(own(1), "h:1", initial(*azs), reports)
    assert [r.node_id for r in decision.replicas] == [f"n{n}.x" for n in members]
    assert [r.replica_id for r in decision.replicas] == list(range(1, len(members) + 1))


# What a founder says while its disk does not have the cluster yet.
FOUNDING = Catalog(1, "", [ReplicaAddress(1, "n1.x", "h:1", "az1")])


@pytest.mark.parametrize(
    ("reports", "reason"),
    [
        ([], "n2, n3"),
        ([report(2)], "n3"),
        ([report(2), report(3, catalog=None)], "have not said"),
        ([report(2), report(3, catalog=Catalog(1, "c", []))], "a cluster exists"),
        ([report(3, catalog=Catalog(1, "c", []))], "a cluster exists"),
        ([report(3, catalog=FOUNDING)], "being founded"),
        ([report(2), report(3, catalog=FOUNDING)], "being founded"),
    ],
)
def test_waiting(reports, reason):
    decision = decide(own(1), "h:1", THREE, reports)
    assert isinstance(decision, Wait)
    assert reason in decision.reason


def test_a_member_of_an_existing_cluster_takes_its_place():
    catalog = existing("n1.x", "n2.x", "n3.x")
    decision = decide(own(2), "h:2", THREE, [report(1, catalog=catalog)])
    assert decision == Belong("c", tuple(catalog.replicas), 2, created=False)


def test_a_member_that_was_there_before_has_forgotten():
    me = own(2)
    belong = decide(me, "h:2", THREE, [report(1, catalog=existing("n1.x", "n2.x", "n3.x"))])
    assert not has_forgotten(me, belong)
    assert has_forgotten(msgspec.structs.replace(me, cluster_id="c"), belong)
    elsewhere = decide(own(4), "h:9", THREE, [report(1, catalog=existing("n1.x", "n2.x"))])
    assert not has_forgotten(msgspec.structs.replace(own(4), cluster_id="c"), elsewhere)


@pytest.mark.parametrize("me", [2, 4])
def test_a_new_disk_and_a_new_node_hold_no_replica(me):
    catalog = existing("n1.x", "n2.old", "n3.x")
    decision = decide(own(me), "h:9", THREE, [report(1, catalog=catalog)])
    assert decision.replica_id is None
    assert decision.cluster_id == "c"


def test_a_new_node_waits_for_a_cluster_and_founds_none():
    decision = decide(own(4), "h:4", THREE, [report(n) for n in (1, 2, 3)])
    assert isinstance(decision, Wait)


class FakePeers:
    def __init__(self):
        self.hellos = []
        self.on_catalog = None
        self.asked = 0

    def listen(self, listener):
        self.listener = listener

    def up(self):
        return self.hellos

    def discover(self):
        self.asked += 1

    def connect(self, number):
        hello = Hello(
            1, "", "storagenode", f"n{number}.x", f"n{number}", f"az{number}", f"h:{number}"
        )
        self.hellos.append(hello)
        self.listener.peer_up(hello.node_id)
        return hello


def test_only_answers_given_after_all_are_there_count():
    peers, environment, found = FakePeers(), FakeEnvironment(), []
    bootstrap = Bootstrap(own(1), "h:1", THREE, peers, environment, found.append)
    bootstrap.start()
    two = peers.connect(2)
    peers.on_catalog(two, NONE)
    three = peers.connect(3)
    peers.on_catalog(three, NONE)
    assert not found  # the second node was not asked again yet
    asked = peers.asked
    environment.advance(0.3)
    assert peers.asked == asked + 1
    peers.on_catalog(two, NONE)
    assert len(found) == 1
    assert found[0].created
    assert peers.on_catalog is None
    environment.advance(1)
    assert peers.asked == asked + 1


def test_a_single_node_needs_nobody():
    found = []
    Bootstrap(own(1), "h:1", initial("az1"), FakePeers(), FakeEnvironment(), found.append).start()
    assert found[0].replica_id == 1


def test_of_several_words_on_the_catalog_the_newest_counts():
    old = Catalog(1, "c", [ReplicaAddress(i, f"n{i}.x", f"h:{i}", "az1") for i in (1, 2, 3)])
    new = Catalog(
        1, "c", [ReplicaAddress(i, f"n{i % 998}.x", "h", "az1") for i in (1, 2, 1000)], None, 40
    )
    decision = decide(own(3), "h:3", THREE, [report(1, catalog=old), report(2, catalog=new)])
    assert isinstance(decision, Belong)
    assert decision.replicas == tuple(new.replicas)
    assert decision.position == 40


def test_a_member_that_came_later_is_not_opened_as_if_it_had_founded():
    replicas = [
        ReplicaAddress(i, n, "h", "az1") for i, n in ((1, "n1.x"), (2, "n2.x"), (1000, "n3.x"))
    ]
    decision = decide(
        own(3), "h:3", THREE, [report(1, catalog=Catalog(1, "c", replicas, None, 40))]
    )
    assert isinstance(decision, Belong)
    assert decision.replica_id is None
