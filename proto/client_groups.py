"""What a cluster client remembers: of requests until their final answers, of nodes, and of groups' replicas.

Kept and used by `cluster_client`, which has the rules.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from proto.client_environment import Dialer
from proto.link import Link
from proto.messages import Answer, Get, Message, Query, ReadFeed, ReplicaAddress, Stats, Write

GroupRequest: TypeAlias = Get | Write | Query | ReadFeed | Stats
OnAnswer: TypeAlias = Callable[[Answer], None]


class NodeOwner(Protocol):
    """Who keeps links to nodes; `cluster_client.ClusterClient`."""

    def node_up(self, node: "Node") -> None:
        """It can be used from now on."""

    def node_down(self, node: "Node") -> None:
        """It cannot any more."""

    def take(self, node: "Node", messages: Sequence[Message]) -> None:
        """It says something."""


class Node:
    """A node that a client keeps a link to, by address. Receives what arrives on that link.

    Attributes:
        usable: The link is up and the peer is not suspected of being stopped.
        references: Groups that have a replica here.
        pinned: A seed: kept without references.
    """

    __slots__ = (
        "_owner",
        "address",
        "dialer",
        "heard_tick",
        "link",
        "pinned",
        "references",
        "usable",
    )

    def __init__(self, address: str, owner: NodeOwner) -> None:
        self._owner = owner
        self.address = address
        self.link: Link | None = None
        self.usable = False
        self.heard_tick = 0
        self.references = 0
        self.pinned = False
        self.dialer: Dialer | None = None

    def on_up(self, link: Link) -> None:
        """Usable from now on."""
        self.link = link
        self.usable = True
        self._owner.node_up(self)

    def on_down(self, link: Link) -> None:
        """What was out with it goes elsewhere."""
        if self.link is link:
            self.link = None
            self.usable = False
            self._owner.node_down(self)

    def on_messages(self, link: Link, messages: list[Message]) -> None:
        """Whatever it says shows that it is there."""
        if not self.usable and self.link is link:
            self.usable = True
        self._owner.take(self, messages)


class Call:
    """One request until its final answer."""

    __slots__ = (
        "attempts",
        "avoid",
        "backoffs",
        "behind_since",
        "deadline",
        "is_waived",
        "leader",
        "node",
        "old_ids",
        "on_answer",
        "redirects",
        "request",
        "sent_tick",
        "uncertain",
    )

    def __init__(
        self, request: GroupRequest, on_answer: OnAnswer, deadline: float, leader: bool
    ) -> None:
        self.request = request  # as last sent; its id names the current attempt
        self.on_answer = on_answer
        self.deadline = deadline
        self.leader = leader
        self.node: Node | None = None  # where the current attempt is; None while backing off
        self.avoid: Node | None = None  # do not try this one next if there is another
        self.attempts = 0
        self.backoffs = 0
        self.redirects = 0
        self.sent_tick = 0
        self.uncertain = False  # an abandoned attempt may have been executed
        self.old_ids: list[int] | None = None
        # When the first replica was not up to date enough for it.
        self.behind_since: float | None = None
        self.is_waived = False  # it no longer asks for that


class Group:
    """Where a partition group's replicas are, which of them is believed to lead, and what was seen of it.

    Attributes:
        position: Highest index of the group's log that an answer to this process spoke of: eventual reads see all
            up to there.
        lagging: Replicas that were behind that lately; others are asked first.
    """

    __slots__ = (
        "addresses",
        "by_node_id",
        "lagging",
        "leader",
        "nearest",
        "nodes",
        "position",
        "turn",
        "waiting",
    )

    def __init__(self, addresses: tuple[ReplicaAddress, ...], nodes: list[Node], az: str) -> None:
        self.addresses = addresses
        self.nodes = nodes
        self.by_node_id = {a.node_id: n for a, n in zip(addresses, nodes, strict=True)}
        self.leader: Node | None = None
        self.waiting: list[int] = []  # ids of abandoned attempts whose calls back off, some no more
        self.turn = 0
        self.position = 0
        self.lagging: set[Node] = set()
        self.nearest = [n for a, n in zip(addresses, nodes, strict=True) if a.az == az]

    def near(self) -> Node | None:
        """A usable replica for an eventually consistent read: of our zone if there is one that is up to date, else
        in turn.
        """
        for node in self.nearest:
            if node.usable and node not in self.lagging:
                return node
        return self.any_but(None)

    def any_but(self, avoid: Node | None) -> Node | None:
        """The next usable replica in turn; `avoid` only if there is no other."""
        count = len(self.nodes)
        found = None
        for _ in range(count):
            self.turn = (self.turn + 1) % count
            node = self.nodes[self.turn]
            if node.usable:
                found = node
                if node is not avoid:
                    break
        return found
