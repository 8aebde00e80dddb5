"""A node's way into its cluster: what it opens, what it says of itself, and from when on."""

from types import SimpleNamespace

import pytest

from proto.messages import Catalog, Hello, ReplicaAddress
from storagenode.data_directory import Identity
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.joining.bootstrap import Belong, InitialNode
from storagenode.joining.joining import Joining
from storagenode.joining.presence import Presence
from tests.unit.storagenode_fake_host import FakeHost, make_node, make_peers
from tests.unit.storagenode_harness import FakeLink

REPLICAS = tuple(ReplicaAddress(n, f"n{n}.a", f"h:{n}", f"az{n}") for n in (1, 2, 3))


class Foreign(Exception):
    pass


class Rig:
    """Node n1, about to join."""

    def __init__(self, tmp_path, *, node_id="n1.a", cluster_id=""):
        self.stored = []
        identity = Identity(node_id=node_id, name="n1", az="az1", cluster_id=cluster_id)
        self.presence = Presence(identity, self.stored.append)
        self.presence.link = self.presence.metrics = "h:1"
        self.host = FakeHost()
        self.peers = make_peers()
        self.node = make_node(MemoryEngine(), self.host, tmp_path, peers=self.peers)
        self.work = []
        self.asked = []
        self.joining = Joining(
            self.presence,
            [InitialNode(f"n{n}", f"az{n}", f"h:{n}") for n in (1, 2, 3)],
            self.node,
            self.host,
            self.peers,
            self.node.environment,
            lambda: 1_700_000_000.5,
            self._connect,
            self.work.append,
            self._foreign,
        )

    def _connect(self, addresses):
        self.asked = addresses
        return SimpleNamespace()

    def _foreign(self):
        raise Foreign

    def belong(self, replica_id, cluster_id="c"):
        return Belong(cluster_id, REPLICAS, replica_id, created=True, position=7)

    def end(self):
        for coroutine in self.work:
            coroutine.close()


@pytest.fixture
def make(tmp_path):
    made = []

    def make_rig(**changes):
        made.append(Rig(tmp_path, **changes))
        return made[-1]

    yield make_rig
    for rig in made:
        rig.end()


def test_a_founder_holds_the_catalog_and_says_so_only_once_that_is_durable(make):
    rig = make()
    rig.joining._found_cluster(rig.belong(1))
    replica = rig.node.replicas[0]
    assert replica.replica_id == 1
    assert replica.capture().state.feed_enabled
    assert rig.presence.hello().cluster_id == ""
    assert rig.stored == []
    assert rig.work == []
    rig.host.make_durable()
    assert rig.presence.hello().cluster_id == "c"
    assert [identity.cluster_id for identity in rig.stored] == ["c"]
    assert rig.asked == ["h:1", "h:2", "h:3"]
    assert len(rig.work) == 2  # watches the catalog, registers


def test_a_node_without_a_part_in_the_catalog_only_learns_where_it_is(make):
    rig = make(node_id="n4.a")
    rig.joining._found_cluster(rig.belong(None))
    rig.host.make_durable()
    assert rig.host.created == {}
    assert rig.node.catalog_answer(5) == Catalog(5, "cluster", list(REPLICAS), None, 7)
    assert rig.peers.find("n2.a").address == "h:2"


@pytest.mark.parametrize(
    ("changes", "replica_id", "level"),
    [
        ({"cluster_id": "c"}, 1, "ERROR"),  # it was there once: its votes are gone with the log
        ({"node_id": "n1.new"}, None, "WARNING"),
    ],
)
def test_what_a_disk_lost_is_not_created_again(make, caplog, changes, replica_id, level):
    rig = make(**changes)
    rig.joining._found_cluster(rig.belong(replica_id))
    rig.host.make_durable()
    assert rig.host.created == {}
    assert [record.levelname for record in caplog.records] == [level]
    assert rig.presence.hello().cluster_id == "c"


def test_a_disk_of_another_cluster_is_refused(make):
    rig = make(cluster_id="other")
    with pytest.raises(Foreign):
        rig.joining._found_cluster(rig.belong(1))
    assert rig.host.created == {}


def test_a_node_that_has_its_part_asks_nobody(make):
    rig = make()
    rig.joining._found_cluster(rig.belong(1))
    rig.host.make_durable()
    again = make(cluster_id="c")
    again.node.replicas[0] = rig.node.replicas[0]
    again.joining.start()
    assert len(again.work) == 2
    assert again.joining._bootstrap is None


def test_a_blank_node_asks_around_until_it_knows(make):
    rig = make(node_id="n9.a")
    rig.joining.start()
    link = FakeLink("storagenode", "n2.a")
    link.peer = Hello(1, "c", "storagenode", "n2.a", "n2", "az2", "h:2", "g:2")
    rig.peers.on_up(link)
    rig.peers.on_messages(link, [Catalog(1, "c", list(REPLICAS), None, 7)])
    rig.host.make_durable()
    assert rig.presence.hello().cluster_id == "c"
    assert len(rig.work) == 2


def test_a_client_of_the_cluster_is_no_storage_node():
    presence = Presence(Identity(node_id="n1.a", name="n1", az="az1"), lambda identity: None)
    assert presence.client_hello().role == "client"
    assert presence.hello().role == "storagenode"
