"""A cluster client's world: a clock that the test moves, and nodes that say what the test says."""

import heapq
import itertools
from collections.abc import Callable

from proto.cluster_client import ClusterClient
from proto.link import LinkHandler
from proto.messages import Answer, Discover, Get, Hello, Message, ReplicaAddress, Write


class FakeTimer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class World:
    """A clock, timers, and links whose other end is the test."""

    def __init__(self) -> None:
        self.time = 100.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer, Callable[[], None]]] = []
        self.dialers: dict[str, FakeDialer] = {}

    def now(self) -> float:
        return self.time

    def call_later(self, delay_s: float, function: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer()
        heapq.heappush(self._timers, (self.time + delay_s, next(self._order), timer, function))
        return timer

    def run(self, seconds: float) -> None:
        end = self.time + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer, function = heapq.heappop(self._timers)
            self.time = max(self.time, due)
            if not timer.cancelled:
                function()
        self.time = end

    @property
    def timers(self) -> int:
        return sum(not timer.cancelled for _, _, timer, _ in self._timers)

    def dial(self, address: str, handler: LinkHandler) -> "FakeDialer":
        dialer = self.dialers[address] = FakeDialer(address, handler)
        return dialer


class FakeLink:
    is_congested = False
    is_up = True

    def __init__(self, address: str) -> None:
        self.peer = Hello(1, "", "storagenode", f"id-{address}", address, "az1")
        self.sent: list[Message] = []
        self.closed: str | None = None

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def close(self, reason: str) -> None:
        self.closed = reason


class FakeDialer:
    def __init__(self, address: str, handler: LinkHandler) -> None:
        self.address, self.handler = address, handler
        self.link: FakeLink | None = None
        self.started = self.stopped = False

    def start(self) -> None:
        self.started = True

    def stop(self) -> None:
        self.stopped = True

    def up(self) -> FakeLink:
        self.link = FakeLink(self.address)
        self.handler.on_up(self.link)
        return self.link

    def down(self) -> None:
        link, self.link = self.link, None
        assert link is not None
        self.handler.on_down(link)

    def take(self) -> list[Message]:
        """What was sent since the last look, `Discover` left out."""
        assert self.link is not None
        sent, self.link.sent = self.link.sent, []
        return [message for message in sent if not isinstance(message, Discover)]

    def say(self, *messages: Message) -> None:
        assert self.link is not None
        self.handler.on_messages(self.link, list(messages))


GROUP = 7
REPLICAS = [ReplicaAddress(i, f"n{i}", f"h{i}:1", f"az{i}") for i in (1, 2, 3)]


def client_of(world: World, az: str = "az9") -> ClusterClient:
    return ClusterClient(world, world.dial, ["seed:1"], az, b"prefix00")


def nodes(world: World) -> list[FakeDialer]:
    return [world.dialers[replica.address] for replica in REPLICAS]


def get(
    client: ClusterClient, answers: list[Answer], *, strong: bool = True, s: float = 5.0
) -> None:
    request = Get(client.next_id(), GROUP, b"k", strong)
    client.call(request, answers.append, client.now() + s, leader=strong)


def write(client: ClusterClient, answers: list[Answer], s: float = 5.0) -> bytes:
    request_id = client.next_request_id()
    request = Write(client.next_id(), GROUP, request_id, [])
    client.call(request, answers.append, client.now() + s)
    return request_id


def node_id_of(node: FakeDialer) -> str:
    return next(replica.node_id for replica in REPLICAS if replica.address == node.address)


def asked(world: World) -> tuple[FakeDialer, Message]:
    """The one node that was sent something since the last look, and what."""
    found = [(node, message) for node in nodes(world) if node.link for message in node.take()]
    assert len(found) == 1, found
    return found[0]


def started_client(world: World) -> ClusterClient:
    """A started client that knows group 7 on three nodes with links up."""
    client = client_of(world)
    client.start()
    client.update_groups({GROUP: REPLICAS})
    for replica in REPLICAS:
        world.dialers[replica.address].up()
    return client
