"""Who a node is and where it listens, as it presents itself to others; what of it is durable is written at once."""

from collections.abc import Callable

import msgspec

from proto.messages import PROTOCOL_VERSION, Hello
from storagenode.data_directory import Identity
from storagenode.peers import STORAGE_ROLE


class Presence:
    """One node's.

    Attributes:
        identity: Of its disk.
        link: Address of its links; empty until it listens.
        grpc: Of its gRPC services; likewise.
        metrics: Of `/metrics`; likewise.
    """

    def __init__(self, identity: Identity, store: Callable[[Identity], None]) -> None:
        """Create.

        Args:
            identity: As loaded from the disk.
            store: Keeps another one durably.
        """
        self.identity = identity
        self.link = ""
        self.grpc = ""
        self.metrics = ""
        self._store = store

    def hello(self) -> Hello:
        """What the node says on a link."""
        identity = self.identity
        return Hello(
            PROTOCOL_VERSION,
            identity.cluster_id,
            STORAGE_ROLE,
            identity.node_id,
            identity.name,
            identity.az,
            self.link,
            self.grpc,
        )

    def client_hello(self) -> Hello:
        """What it says as a client of the cluster: not in a storage node's role, this is no link for raft."""
        return msgspec.structs.replace(self.hello(), role="client")

    def belongs_to(self, cluster_id: str) -> None:
        """The node says so from now on, after restarts too."""
        self.identity = msgspec.structs.replace(self.identity, cluster_id=cluster_id)
        self._store(self.identity)
