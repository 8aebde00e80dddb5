"""What arrives on the links that others dialled: requests for replicas, and raft's batches."""

import logging
from collections.abc import Callable
from typing import Any, Final

from proto.link import Link
from proto.messages import (
    Discover,
    Get,
    Message,
    OutcomeUnknown,
    Query,
    RaftBatch,
    ReadFeed,
    Stats,
    Unavailable,
    Write,
    WrongPartition,
)
from raft.group import NodeId
from raft.host import MultiRaftHost
from storagenode.node import Node
from storagenode.peers import STORAGE_ROLE, Peers
from storagenode.replicas.replica import Replica

log = logging.getLogger(__name__)

REPLICA_REQUESTS: Final[dict[type[Any], Callable[[Replica, Link, Any], None]]] = {
    Get: Replica.on_get,
    Write: Replica.on_write,
    Query: Replica.on_query,
    ReadFeed: Replica.on_feed,
    Stats: Replica.on_stats,
}


class Requests:
    """A storage node's `proto.link.LinkHandler`."""

    def __init__(self, node: Node, host: MultiRaftHost, peers: Peers) -> None:
        """Create.

        Args:
            node: Whose replicas answer.
            host: Gets raft's batches.
            peers: Which links of other storage nodes count.
        """
        self._node = node
        self._replicas: dict[Any, Replica] = node.replicas
        self._host = host
        self._peers = peers

    def on_up(self, link: Link) -> None:
        """A router, an admin or a storage node is there."""
        if link.peer.role == STORAGE_ROLE:
            self._peers.accept(link)

    def on_down(self, link: Link) -> None:
        """It is gone."""
        if link.peer.role == STORAGE_ROLE:
            self._peers.forget(link)

    def on_messages(self, link: Link, messages: list[Message]) -> None:
        """One request's failure is its own."""
        for message in messages:
            if type(message) is RaftBatch:
                if self._peers.is_current(link):
                    self._host.receive(NodeId(link.peer.node_id), message.payload)
                continue
            try:
                self._answer(link, message)
            except Exception:  # the boundary between one request and the link that all share
                self._node.handler_failures += 1
                log.exception("request handler failed", extra={"kind": type(message).__name__})
                _answer_failure(link, message)

    def _answer(self, link: Link, message: Any) -> None:
        kind = type(message)
        handler = REPLICA_REQUESTS.get(kind)
        if handler is not None:
            replica = self._replicas.get(message.group)
            if replica is None:
                link.send(WrongPartition(message.id, message.group))
            else:
                handler(replica, link, message)
        elif kind is Discover:
            link.send(self._node.catalog_answer(message.id))
        else:
            log.warning("unexpected message", extra={"kind": kind.__name__})


def _answer_failure(link: Link, message: Message) -> None:
    if isinstance(message, Write):
        link.send(OutcomeUnknown(message.id, "internal error"))
    elif isinstance(message, Get | Query | ReadFeed | Stats | Discover):
        link.send(Unavailable(message.id, "internal error"))
