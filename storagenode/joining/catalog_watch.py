"""Keeps a node without a replica of the catalog up to date on where the catalog is.

Such a node is asked all the same: by clients whose only seed it is, by nodes that start. Group 0's members
change; so it asks its peers from time to time, and the newest answer counts (`Node.hear_catalog`).
"""

import asyncio

from proto.messages import Catalog, Hello
from storagenode.node import CATALOG_GROUP, Node
from storagenode.peers import Peers

INTERVAL_S = 5.0


async def watch_catalog(node: Node, peers: Peers) -> None:
    """Ask, for ever."""

    def heard(hello: Hello, catalog: Catalog) -> None:
        del hello
        node.hear_catalog(catalog)

    peers.on_catalog = heard
    while True:
        await asyncio.sleep(INTERVAL_S)
        replica = node.replicas.get(CATALOG_GROUP)
        if replica is None or replica.standing.is_blank:
            peers.discover()
