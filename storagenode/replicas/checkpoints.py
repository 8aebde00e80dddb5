"""Checkpoints: making the engine durable from time to time, so that the log can be cut behind it.

A checkpoint notes where every replica stands, makes everything written so far durable in a thread, and then
tells each group. What is applied meanwhile belongs to the next one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from storagenode.engines.engine import Engine
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.log_entries import encode_state
from storagenode.replicas.replica import Replica

log = logging.getLogger(__name__)

CHECKPOINT_BYTES = 32 << 20
"""Applied log bytes after which a checkpoint is due: what a restart re-applies at most, roughly."""
CHECKPOINT_IDLE_S = 10.0
"""Quiet after the last change, after which one is due: then a restart re-applies nothing."""
LOOK_INTERVAL_S = 1.0


class Checkpoints:
    """Takes checkpoints of all replicas of a node.

    Attributes:
        taken: Since the start of the process.
        last_duration_s: Of the newest one.
    """

    def __init__(
        self,
        engine: Engine,
        apply_round: ApplyRound,
        replicas: Callable[[], Iterable[Replica]],
        now: Callable[[], float],
    ) -> None:
        self.taken = 0
        self.last_duration_s = 0.0
        self._engine = engine
        self._round = apply_round
        self._replicas = replicas
        self._now = now
        self._seen_entries = 0
        self._changed_at = now()
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Take one whenever it is due, for ever."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            if self.is_due():
                await self.take()

    def is_due(self) -> bool:
        """By bytes applied, or by quiet after a change."""
        now = self._now()
        if self._round.applied_entries != self._seen_entries:
            self._seen_entries = self._round.applied_entries
            self._changed_at = now
        if self._round.applied_bytes >= CHECKPOINT_BYTES:
            return True
        quiet = now - CHECKPOINT_IDLE_S
        return self._changed_at <= quiet and any(
            replica.dirty_since <= quiet for replica in self._replicas()
        )

    async def take(self) -> None:
        """Take one now. Returns when the groups were told; one at a time."""
        async with self._lock:
            began = self._now()
            self._round.flush()
            self._round.applied_bytes = 0
            captured = []
            for replica in list(self._replicas()):
                # A replica that gets a snapshot or is damaged has no state worth keeping.
                if replica.dirty_since < float("inf") and replica.standing.is_sound:
                    captured.append((replica, replica.capture()))
                    replica.clean()
            await asyncio.to_thread(self._engine.make_durable)
            alive = set(self._replicas())
            for replica, capture in captured:
                if replica in alive and replica.standing.is_sound:
                    replica.standing.group.checkpoint(
                        capture.index, capture.term, encode_state(capture.state)
                    )
            self.taken += 1
            self.last_duration_s = self._now() - began
            log.debug("checkpoint", extra={"groups": len(captured)})
