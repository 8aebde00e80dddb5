"""A raft host without raft, and a node on it."""

from proto.messages import Hello
from storagenode.data_directory import Peer
from storagenode.node import Node
from storagenode.peers import Peers
from storagenode.replicas.apply_round import ApplyRound
from tests.unit.storagenode_harness import FakeEnvironment, FakeGroup

OWN = Hello(1, "cluster", "storagenode", "node-1", "n1", "az1", "127.0.0.1:1", "127.0.0.1:11")


class FakeDialer:
    def __init__(self, address, handler):
        self.address, self.handler = address, handler
        self.started = self.stopped = False

    def start(self):
        self.started = True

    def stop(self):
        self.stopped = True


class FakeHost:
    """Groups are `FakeGroup`s; durability comes when the test says so."""

    def __init__(self, recovered=()):
        self.recovered = list(recovered)
        self.opened = {}
        self.created = {}
        self.joined = {}
        self.removed = []
        self.received = []
        self.waiting = []
        self.round = None

    def recover(self):
        return self.recovered

    def open_group(self, group_id, machine, on_writable, committed=None):
        group = self.opened[group_id] = FakeGroup(machine, self.round)
        return group

    def create_group(
        self, group_id, replica_id, configuration, machine, on_writable, state, campaign=False
    ):
        group = self.created[group_id] = FakeGroup(machine, self.round)
        return group

    def join_group(self, group_id, replica_id, machine, on_writable, state):
        group = self.joined[group_id] = FakeGroup(machine, self.round)
        return group

    def remove_group(self, group_id):
        self.removed.append(group_id)

    def receive(self, node, payload):
        self.received.append((node, payload))

    def when_durable(self, function):
        self.waiting.append(function)

    def make_durable(self):
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


def make_peers(known=(), dialers=None):
    made = {} if dialers is None else dialers
    saved = []

    def dial(address, handler):
        made[address] = FakeDialer(address, handler)
        return made[address]

    peers = Peers("node-1", dial, known, lambda book: saved.append(list(book)))
    peers.saved = saved
    return peers


def make_node(engine, host, directory, *, peers=None, fetch=None, spawn=None):
    environment = FakeEnvironment()
    apply_round = ApplyRound(engine, lambda error: None)
    host.round = apply_round
    node = Node(
        lambda: OWN,
        environment,
        engine,
        apply_round,
        host,
        peers
        or make_peers([Peer(f"node-{n}", f"n{n}", f"az{n}", f"127.0.0.1:{n}") for n in (2, 3)]),
        lambda: 1_000_000,
        directory,
        fetch,
        spawn or (lambda work: None),
    )
    node.environment = environment
    node.round = apply_round
    return node
