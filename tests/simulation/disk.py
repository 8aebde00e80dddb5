"""A disk that tears the write in flight when its node crashes, and the record of what it must still hold."""

import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from raft.node_log import RECEIPT, RECEIPT_MAGIC, SEGMENT_HEADER

if TYPE_CHECKING:
    from tests.simulation.node import SimNode


ZEROS = b"\0" * 300
"""Preallocated, not yet written."""


def torn(rng: random.Random, data: bytes) -> bytes:
    """What a crash of the machine leaves of a write: nothing, a part, any of its sectors, or all of it."""
    draw = rng.random()
    if draw < 0.3:
        return b""
    if draw < 0.5:
        return data[: rng.randrange(len(data) + 1)]
    if draw < 0.8:
        size = rng.choice((16, 64, 512))
        sectors = (data[at : at + size] for at in range(0, len(data), size))
        return b"".join(s if rng.random() < 0.6 else b"\0" * len(s) for s in sectors)
    return data


class SimDisk:
    """Segments of bytes. Knows what is durable; a crash tears the append in flight."""

    def __init__(self, node: "SimNode") -> None:
        self._node = node
        self._world = node.world
        self.files: dict[int, bytearray] = {}
        self._open = 0
        self._in_flight: bytes | None = None
        self.is_broken = False  # full, or it answers with errors
        self._receipt = 0  # bytes at the end that were written since the last sync
        self._last_batch = (0, 0)  # where the last durable one begins; a torn one may follow
        self.removals: list[int] = []

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        assert self._in_flight is None, "two appends at once"
        self._in_flight = data
        node, world = self._node, self._world
        node.shadow_cut()
        delay = 0.0
        if not world.options.instant:
            delay = 0.0005 + 0.02 * world.rng.random()
            if world.rng.random() < world.options.slow_disk:
                delay = world.slow_disk_s * world.rng.random()
        world.after(delay, self._synced, node.life, on_durable, receipt)

    def _synced(self, life: int, on_durable: Callable[[], None], receipt: bytes) -> None:
        node = self._node
        if node.host is None or node.life != life:
            return
        assert self._in_flight is not None
        if self.is_broken:
            # What was acknowledged is no longer knowable: the process ends, with any part of this written.
            self._world.stats["failed writes"] += 1
            node.crash()
            self._world.after(0.05 + 2 * self._world.rng.random(), node.restart)
            return
        self._last_batch = (self._open, len(self.files[self._open]))
        self.files[self._open] += self._in_flight + receipt
        self._in_flight = None
        self._receipt = len(receipt)
        node.shadow_durable()
        node.step(on_durable)

    def roll(self, segment: int) -> None:
        assert segment not in self.files
        self.files[segment] = bytearray()
        self._open = segment
        self._receipt = 0

    def segments(self) -> list[int]:
        return sorted(s for s in self.files if s not in self.removals)

    def read(self, segment: int) -> bytes:
        return bytes(self.files[segment]) + ZEROS

    def truncate(self, segment: int, size: int) -> None:
        del self.files[segment][size:]

    def remove(self, segment: int) -> None:
        self.removals.append(segment)
        self._world.after(0.02 * self._world.rng.random(), self._removed, self._node.life, segment)

    def _removed(self, life: int, segment: int) -> None:
        if life == self._node.life and segment in self.removals:
            self.removals.remove(segment)
            del self.files[segment]

    def rot(self) -> bool:
        """Flip a bit in what is durable, but not in the last batch; False if there is nothing else."""
        rng = self._world.rng
        number, last = self._last_batch
        if number not in self.files or last <= SEGMENT_HEADER.size:
            return False
        data = self.files[number]
        # (Nor in a receipt: those are of use only behind the last batch.)
        receipts = [at.start() for at in re.finditer(re.escape(RECEIPT_MAGIC), data)]
        where = rng.randrange(last)
        while any(at <= where < at + RECEIPT.size for at in receipts):
            where = rng.randrange(last)
        data[where] ^= 1 << rng.randrange(8)
        return True

    def lose_receipt(self) -> None:
        """That of the last durable batch was not synced."""
        if self._receipt:
            self.files[self._open][-self._receipt :] = bytes(self._receipt)
            self._receipt = 0

    def crash(self) -> None:
        """Keep what was durable and any part of the write in flight."""
        rng = self._world.rng
        self.removals.clear()  # files whose unlink had not happened are still there
        if self._receipt and rng.random() < 0.5:
            self.lose_receipt()
        data, self._in_flight = self._in_flight, None
        if data is not None:
            self.files[self._open] += torn(rng, data)
        elif not self.files.get(self._open) and rng.random() < 0.5:
            self.files.pop(self._open, None)  # the new file's name was not durable yet


class Shadow:
    """What the disk must hold of one group, by the records that were handed over."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, int, int]] = []
        self.hard_state: tuple[int, int | None] = (0, None)

    def copy(self) -> "Shadow":
        other = Shadow()
        other.entries = list(self.entries)
        other.hard_state = self.hard_state
        return other

    def play(self, operation: str, value: object) -> None:
        if operation == "add":
            self.entries.append(value)
        elif operation == "from":
            first = self.entries[0][1]
            del self.entries[value - first :]
        elif operation == "to":
            first = self.entries[0][1]
            del self.entries[: value - first]
        elif operation == "term":
            self.hard_state = value
        else:
            self.entries, self.hard_state = list(value[0]), value[1]

    def holds(self, index: int, term: int) -> bool:
        if not self.entries:
            return False
        first = self.entries[0][1]
        if index < first:
            return True
        position = index - first
        return position < len(self.entries) and self.entries[position][2] == term
