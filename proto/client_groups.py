"""What a cluster client remembers: of each request until its final answer, and of each group's replicas.

Kept and used by `cluster_client`, which has the rules.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from proto.messages import Answer, Get, Query, ReadFeed, ReplicaAddress, Stats, Write

if TYPE_CHECKING:
    from proto.cluster_client import Node

GroupRequest: TypeAlias = Get | Write | Query | ReadFeed | Stats
OnAnswer: TypeAlias = Callable[[Answer], None]


class Call:
    """One request until its final answer."""

    __slots__ = (
        "attempts",
        "avoid",
        "backoffs",
        "deadline",
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


class Group:
    """Where a partition group's replicas are, and which of them is believed to lead."""

    __slots__ = ("addresses", "by_node_id", "leader", "nearest", "nodes", "turn", "waiting")

    def __init__(self, addresses: tuple[ReplicaAddress, ...], nodes: "list[Node]", az: str) -> None:
        self.addresses = addresses
        self.nodes = nodes
        self.by_node_id = {a.node_id: n for a, n in zip(addresses, nodes, strict=True)}
        self.leader: Node | None = None
        self.waiting: list[int] = []  # ids of abandoned attempts whose calls back off, some no more
        self.turn = 0
        self.nearest = [n for a, n in zip(addresses, nodes, strict=True) if a.az == az]

    def near(self) -> "Node | None":
        """A usable replica for an eventually consistent read: of our zone if there is one, else in turn."""
        for node in self.nearest:
            if node.usable:
                return node
        return self.any_but(None)

    def any_but(self, avoid: "Node | None") -> "Node | None":
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
