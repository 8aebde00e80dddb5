"""Links to the other storage nodes, and raft's way through them.

To each known node goes one link that we dial; our raft batches go out on it. What a peer has for us comes in on
the link that *it* dialled: only its newest one counts, so batches of an earlier life of the peer never mix with
those of the present one.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from proto.link import Link, LinkHandler
from proto.messages import Catalog, Discover, Hello, Message, RaftBatch
from raft.group import NodeId
from storagenode.data_directory import Peer

log = logging.getLogger(__name__)

STORAGE_ROLE = "storagenode"
PEERS_MAX = 10_000


class Dialer(Protocol):
    """Keeps a link to one address alive (`proto.link.LinkDialer`)."""

    def start(self) -> None:
        """Begin dialling."""

    def stop(self) -> None:
        """Close the link and dial no more."""


Dial: TypeAlias = Callable[[str, LinkHandler], Dialer]


class PeerListener(Protocol):
    """Who wants to know of peers."""

    def peer_up(self, node: NodeId) -> None:
        """Our link to it is usable."""

    def peer_down(self, node: NodeId) -> None:
        """Our link to it is gone."""


class Peers:
    """The peer book, the links we dial, and `raft.group.Transport`."""

    def __init__(
        self,
        own_node_id: str,
        dial: Dial,
        known: Iterable[Peer],
        store: Callable[[Iterable[Peer]], None],
    ) -> None:
        """Create; `start` begins to dial.

        Args:
            own_node_id: Never dialled.
            dial: Makes links.
            known: Peers of an earlier life.
            store: Keeps peers for the next one.
        """
        self._own_node_id = own_node_id
        self._own_address = ""
        self._dial = dial
        self._store = store
        self._book = {peer.node_id: peer for peer in known if peer.node_id != own_node_id}
        self._dialers: dict[str, Dialer] = {}
        self._links: dict[str, Link] = {}  # those we dialled, by the node at their other end
        self._inbound: dict[str, Link] = {}  # the newest that each node dialled
        self._listeners: list[PeerListener] = []
        self.on_catalog: Callable[[Hello, Catalog], None] | None = None
        self._started = False
        self._discover_id = 0

    # --- life ---

    def start(self, own_address: str, addresses: Iterable[str]) -> None:
        """Dial everybody known, and whoever is at these addresses; never ourselves."""
        self._started = True
        self._own_address = own_address
        for address in sorted({*addresses, *(peer.address for peer in self._book.values())}):
            self._dial_address(address)

    def stop(self) -> None:
        """Close all links that we dialled."""
        self._started = False
        for dialer in self._dialers.values():
            dialer.stop()

    def listen(self, listener: PeerListener) -> None:
        """Tell `listener` of links coming and going from now on."""
        self._listeners.append(listener)

    # --- the book ---

    def find(self, node_id: str) -> Peer | None:
        """What is known of a node."""
        return self._book.get(node_id)

    def up(self) -> list[Hello]:
        """The nodes that our links reach now."""
        return [link.peer for link in self._links.values()]

    def reachable(self, node_id: str) -> Peer | None:
        """A node that our link reaches now."""
        return self._book.get(node_id) if node_id in self._links else None

    def learn(self, peers: Iterable[Peer], *, hearsay: bool = False) -> None:
        """Take what is said of nodes: the newest word wins, but never hides a known gRPC address. `hearsay`,
        what one node says of another, says nothing against a link that works.
        """
        changed = False
        for peer in peers:
            if not peer.node_id or peer.node_id == self._own_node_id or not peer.address:
                continue
            known = self._book.get(peer.node_id)
            if known is not None and not peer.grpc and known.address == peer.address:
                continue
            if hearsay and known is not None and peer.node_id in self._links:
                continue
            if peer == known or (known is None and len(self._book) >= PEERS_MAX):
                continue
            self._book[peer.node_id] = peer
            changed = True
            if known is not None and known.address != peer.address:
                self._drop_address(known.address)
            if self._started:
                self._dial_address(peer.address)
        if changed:
            try:
                self._store(self._book.values())
            except OSError as error:  # the next life asks around longer; this one knows
                log.warning("peers not stored", extra={"reason": str(error)})

    def _dial_address(self, address: str) -> None:
        if address and address != self._own_address and address not in self._dialers:
            dialer = self._dial(address, self)
            self._dialers[address] = dialer
            dialer.start()

    def _drop_address(self, address: str) -> None:
        if all(peer.address != address for peer in self._book.values()):
            dialer = self._dialers.pop(address, None)
            if dialer is not None:
                dialer.stop()

    # --- Transport ---

    def send(self, node: NodeId, payload: bytes) -> None:
        """Send one raft batch; lost when there is no link."""
        link = self._links.get(node)
        if link is not None:
            link.send(RaftBatch(payload))

    def is_congested(self, node: NodeId) -> bool:
        """Whether bulk to that node should wait."""
        link = self._links.get(node)
        return link is not None and link.is_congested

    # --- LinkHandler of the links that we dial ---

    def on_up(self, link: Link) -> None:
        """Somebody answers at an address that we dialled."""
        hello = link.peer
        if hello.role != STORAGE_ROLE or hello.node_id == self._own_node_id:
            link.close("not another storage node")
            return
        previous = self._links.get(hello.node_id)
        if previous is not None:
            previous.close("replaced by a newer link")
            self.on_down(previous)
        self._links[hello.node_id] = link
        self.learn([Peer(hello.node_id, hello.name, hello.az, hello.address, hello.grpc)])
        for listener in self._listeners:
            listener.peer_up(NodeId(hello.node_id))

    def on_messages(self, link: Link, messages: list[Message]) -> None:
        """Answers to `Discover`."""
        for message in messages:
            if isinstance(message, Catalog) and self.on_catalog is not None:
                self.on_catalog(link.peer, message)

    def on_down(self, link: Link) -> None:
        """The link ended."""
        node_id = link.peer.node_id
        if self._links.get(node_id) is link:
            del self._links[node_id]
            for listener in self._listeners:
                listener.peer_down(NodeId(node_id))

    def discover(self) -> None:
        """Ask every node that we reach where the catalog is; answers come through `on_catalog`."""
        for link in self._links.values():
            self._discover_id += 1
            link.send(Discover(self._discover_id))

    # --- links that peers dial ---

    def accept(self, link: Link) -> None:
        """A storage node dialled us."""
        hello = link.peer
        previous = self._inbound.get(hello.node_id)
        self._inbound[hello.node_id] = link
        if previous is not None and previous is not link:
            previous.close("replaced by a newer link")
        self.learn([Peer(hello.node_id, hello.name, hello.az, hello.address, hello.grpc)])

    def forget(self, link: Link) -> None:
        """A link that a peer dialled ended."""
        if self._inbound.get(link.peer.node_id) is link:
            del self._inbound[link.peer.node_id]

    def is_current(self, link: Link) -> bool:
        """Whether raft batches from this link count."""
        return self._inbound.get(link.peer.node_id) is link
