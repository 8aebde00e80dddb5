"""The first step of a planned stop: others take over what the node leads, so that its clients hardly wait."""

import asyncio
import logging
from collections.abc import Callable

from raft.group import GroupId
from storagenode.node import Node

log = logging.getLogger(__name__)

POLL_S = 0.005
PATIENCE_S = 2.0
"""A planned stop waits at most this long for others to take over leadership."""
AGAIN_S = 0.5
"""After this long whoever still leads asks anew: a request to take over can be lost."""


async def hand_over(node: Node, now: Callable[[], float]) -> None:
    """Return once nothing is led here that somebody else could lead, or time is up. Others that stop at the same
    time may hand us what they led: that is passed on too.
    """
    asked: dict[GroupId, float] = {}
    deadline = now() + PATIENCE_S
    while now() < deadline:
        waits = False
        for group, replica in node.replicas.items():
            if not replica.standing.is_leading:
                continue
            if now() >= asked.get(group, 0.0) + AGAIN_S:
                if not replica.standing.group.transfer_leadership():
                    continue  # nobody is there to take it
                asked[group] = now()
            waits = True
        if not waits:
            return
        await asyncio.sleep(POLL_S)
    log.warning("stopping while leading: nobody took over in time")
