"""Repairing a replica that found its data damaged, from its leader, while its node goes on.

The replica's log and vote are whole: it stays the member that it is. Only its range of the engine is replaced:

    apply nothing any more -> fetch a snapshot at or past the last checkpoint -> replace the range
        -> apply what the log has behind the snapshot

No checkpoint is taken of such a replica, so its log reaches back far enough. A snapshot need not be newer than what
was applied: a transfer that was cut off goes on, however much was written meanwhile.

A replica that leads hands leadership over first. It serves nothing from the first sign of damage to the end. If
the engine fails under the replacement, the disk is damaged, not the replica: `on_hopeless`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from raft.group import Host, Role
from storagenode.engines.engine import Engine, EngineFailure
from storagenode.node import FetchSnapshot, Node
from storagenode.peers import Peers
from storagenode.replicas.replica import Replica
from storagenode.snapshots import snapshots

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Healer:
    """Repairs replicas out of service.

    Attributes:
        healed: Replicas repaired since the start.
    """

    def __init__(
        self,
        node: Node,
        engine: Engine,
        host: Host,
        peers: Peers,
        fetch_snapshot: FetchSnapshot,
        spawn: Callable[[Awaitable[None]], object],
        on_hopeless: Callable[[EngineFailure], None],
    ) -> None:
        """Create, and take over the node's faults. Arguments as those of `Node`."""
        self.healed = 0
        self._node = node
        self._engine = engine
        self._host = host
        self._peers = peers
        self._fetch = fetch_snapshot
        self._spawn = spawn
        self._on_hopeless = on_hopeless
        self._busy: set[Replica] = set()
        node.on_fault = self.heal
        node.on_engine_failure = on_hopeless

    def heal(self, replica: Replica) -> None:
        """Begin to repair a replica that just went out of service."""
        if replica not in self._busy:
            self._busy.add(replica)
            self._spawn(self._run(replica))

    async def _run(self, replica: Replica) -> None:
        try:
            while True:
                await asyncio.sleep(0)
                if not self._needs(replica):
                    return
                if not replica.standing.is_installing:  # else a snapshot comes anyway
                    await self._attempt(replica)
                if self._needs(replica):
                    await asyncio.sleep(RETRY_S)
        except EngineFailure as error:
            self._on_hopeless(error)
        finally:
            self._busy.discard(replica)

    def _needs(self, replica: Replica) -> bool:
        standing = replica.standing
        return (
            self._node.replicas.get(replica.group_id) is replica
            and standing.fault is not None
            and not standing.is_stopping
            and standing.role is not Role.FAILED
        )

    async def _attempt(self, replica: Replica) -> None:
        standing, group = replica.standing, replica.group_id
        if standing.role is Role.LEADER:
            standing.group.transfer_leadership()
            return
        leader = standing.leader
        peer = None if leader is None else self._peers.find(leader.node_id)
        if peer is None or not peer.grpc or not self._node.may_transfer(group):
            return
        if standing.is_forgetting:
            return
        file = self._node.begin_transfer(group)
        replica.begin_install()
        is_complete = False
        try:
            try:
                capture = await self._fetch(peer, group, standing.group.checkpoint_index, file)
            except (snapshots.BadSnapshot, OSError) as error:
                log.warning("repair has to wait", extra={"group": group, "reason": str(error)})
                await snapshots.catch_up(replica)
                return
            is_complete = True
            if self._node.replicas.get(group) is not replica:
                snapshots.forget_file(file)
                return
            await snapshots.replace_state(
                replica, self._engine, file, capture, self._host.when_durable
            )
        finally:
            self._node.end_transfer(group, is_complete=is_complete)
        self.healed += 1
        log.warning(
            "damaged replica repaired from its leader",
            extra={"group": group, "index": capture.index, "leader": peer.node_id},
        )
