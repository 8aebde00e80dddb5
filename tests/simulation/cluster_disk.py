"""What a storage node's machine keeps: raft's log files, the engine's store, files of snapshots, identity.

Each distinguishes what a process has written (the page cache: it outlives the process) from what is durable (it
outlives the machine). A machine's crash keeps what is durable and some of the rest: of the log any part of the
last writes, of the engine any of the batches that were not synced.
"""

import random
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from storagenode.data_directory import Identity, Peer
from storagenode.engine import Mutation
from storagenode.memory_engine import MemoryEngine
from tests.simulation.cluster_world import Process
from tests.simulation.disk import ZEROS, torn


class LogFile:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0


class LogFiles:
    """`raft.group.LogStorage` of a process on files that outlive it."""

    def __init__(self, process: Process, files: dict[int, LogFile]) -> None:
        self._process = process
        self._files = files
        self._removed: set[int] = set()
        self._open = 0
        self._unlinked_at = 0.0
        self.in_flight: bytes | None = None

    def append(self, data: bytes, on_durable: Callable[[], None]) -> None:
        assert self.in_flight is None, "two appends at once"
        self.in_flight = data
        process = self._process
        process.world.after(process.disk_delay(), self._synced, process.life, on_durable)

    def _synced(self, life: int, on_durable: Callable[[], None]) -> None:
        if self._process.life != life:
            return
        assert self.in_flight is not None
        file = self._files[self._open]
        file.data += self.in_flight
        file.synced = len(file.data)
        self.in_flight = None
        self._process.post(on_durable)

    def roll(self, segment: int) -> None:
        assert segment not in self._files
        self._files[segment] = LogFile()
        self._open = segment

    def segments(self) -> list[int]:
        return sorted(s for s in self._files if s not in self._removed)

    def read(self, segment: int) -> bytes:
        return bytes(self._files[segment].data) + ZEROS

    def truncate(self, segment: int, size: int) -> None:
        file = self._files[segment]
        del file.data[size:]
        file.synced = len(file.data)

    def remove(self, segment: int) -> None:
        self._removed.add(segment)
        process, world = self._process, self._process.world
        # One thread unlinks them, in order, and syncs the directory each time.
        self._unlinked_at = max(world.now + process.disk_delay(), self._unlinked_at)
        world.at(self._unlinked_at, self._unlink, process.life, segment)

    def _unlink(self, life: int, segment: int) -> None:
        if self._process.life == life:
            self._removed.discard(segment)
            self._files.pop(segment, None)

    def close(self) -> None:
        """The thread ends after what it was given."""
        for segment in sorted(self._removed):
            self._files.pop(segment, None)

    def crash(self, rng: random.Random, *, machine: bool) -> None:
        """The process is gone. What it was writing may be in the page cache, whole or in part."""
        data, self.in_flight = self.in_flight, None
        if data is not None:
            draw = rng.random()
            if draw < 0.4:
                self._files[self._open].data += data
            elif draw < 0.6:
                self._files[self._open].data += data[: rng.randrange(len(data) + 1)]
        if machine:
            crash_log(rng, self._files)


def crash_log(rng: random.Random, files: dict[int, LogFile]) -> None:
    """The machine is gone: of what was not synced, any sectors are there."""
    for number in list(files):
        file = files[number]
        file.data[file.synced :] = torn(rng, bytes(file.data[file.synced :]))
        file.synced = len(file.data)  # what survived this survives the next
        if not file.data and rng.random() < 0.5:
            del files[number]  # the name of the new file was not durable yet


class Store:
    """An engine's content: what is durable, and the batches written since, in order."""

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.batches: list[tuple[list[Mutation], bool]] = []
        self._settled = 0

    @property
    def written(self) -> int:
        """Batches so far."""
        return self._settled + len(self.batches)

    def settle(self, written: int) -> None:
        """The first so many batches ever written are durable now."""
        count = max(written - self._settled, 0)
        self._settled += count
        for mutations, _ in self.batches[:count]:
            for key, value in mutations:
                if value is None:
                    self.durable.pop(key, None)
                else:
                    self.durable[key] = value
        del self.batches[:count]

    def crash(self, rng: random.Random) -> None:
        """The machine is gone: synced batches are there, of the others none, some or all."""
        draw = rng.random()
        if draw < 0.35:
            kept = [batch for batch in self.batches if batch[1]]
        elif draw < 0.7:
            last = rng.randrange(len(self.batches) + 1)
            kept = [b for number, b in enumerate(self.batches) if b[1] or number < last]
        else:
            kept = [batch for batch in self.batches if batch[1] or rng.random() < 0.5]
        self.batches = kept
        self.settle(self.written)


class SimEngine(MemoryEngine):
    """The engine of one process on a store that outlives it."""

    def __init__(
        self, store: Store, on_sync: Callable[[], None], is_in_thread: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._store = store
        self._on_sync = on_sync
        self._is_in_thread = is_in_thread
        super().write(list(store.durable.items()))
        for mutations, _ in store.batches:
            super().write(mutations)

    def write(self, mutations: Iterable[Mutation], *, sync: bool = False) -> None:
        batch = list(mutations)
        self._store.batches.append((batch, sync))
        super().write(batch)
        if sync:
            self._on_sync()

    def make_durable(self) -> None:
        """Called in a thread, what was written is durable when that has ended, not before; else at once."""
        super().make_durable()
        if not self._is_in_thread():
            self._store.settle(self._store.written)
        self._on_sync()

    def close(self) -> None:
        pass


class Machine:
    """The disk of one storage node."""

    def __init__(self, snapshots: Path) -> None:
        self.log: dict[int, LogFile] = {}
        self.store = Store()
        self.identity: Identity | None = None
        self.peers: bytes = b"[]"
        self.snapshots = snapshots
        self._synced: dict[int, int] = {}  # checksum of content by inode
        self._durable_names: list[str] = []
        snapshots.mkdir(parents=True, exist_ok=True)

    # storagenode.data_directory.DataDirectory

    def load_identity(self, name: str, az: str, random_suffix: str) -> Identity:
        if self.identity is None:
            self.identity = Identity(node_id=f"{name}.{random_suffix}", name=name, az=az)
        return self.identity

    def store_identity(self, identity: Identity) -> None:
        self.identity = identity

    def store_peers(self, peers: Iterable[Peer]) -> None:
        self.peers = msgspec.json.encode(list(peers))

    def load_peers(self) -> list[Peer]:
        return msgspec.json.decode(self.peers, type=list[Peer])

    # crashes

    def synced(self, inode: int) -> None:
        """An fsync of a file or of the directory has ended."""
        if inode == self.snapshots.stat().st_ino:
            self._durable_names = sorted(file.name for file in self.snapshots.iterdir())
        for file in self.snapshots.iterdir():
            if file.stat().st_ino == inode:
                self._synced[inode] = zlib.crc32(file.read_bytes())

    def crash(self, rng: random.Random) -> None:
        """The machine is gone, its process (told before) with it."""
        crash_log(rng, self.log)
        self.store.crash(rng)
        for file in sorted(self.snapshots.iterdir()):
            data = file.read_bytes()
            if self._synced.get(file.stat().st_ino) != zlib.crc32(data):
                file.write_bytes(data[: rng.randrange(len(data) + 1)])
            if file.name not in self._durable_names and rng.random() < 0.5:
                file.unlink()
