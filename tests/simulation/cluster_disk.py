"""What a storage node's machine keeps: raft's log files, the engine's store, files of snapshots, identity.

Each distinguishes what a process has written (the page cache: it outlives the process) from what is durable (it
outlives the machine). A machine's crash keeps what is durable and some of the rest: of the log any part of the
last writes, of the engine any of the batches that were not synced.

A disk can be slow, be full (writes fail, and the process that met that ends), and be damaged: bits of a record of
the engine flip, a block of it or a snapshot's file cannot be read, bits of the log flip. `Machine.is_damaged` says
whether any of that is still there.
"""

import errno
import io
import os
import random
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from raft.log_check import check_segment
from raft.node_log import RECEIPT, RECEIPT_MAGIC, Corruption
from storagenode.data_directory import Identity, Peer
from storagenode.engines.engine import DATA, EngineDamage, EngineFailure, Mutation, data_range
from storagenode.engines.memory_engine import MemoryCursor, MemoryEngine, MemoryView
from tests.simulation.cluster_world import Process
from tests.simulation.disk import ZEROS, torn

EXIT_DISK = 74


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_error() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


class LogFile:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0
        self.batches: list[tuple[int, int]] = []  # where those are that are durable
        self.is_unreadable = False


class LogFiles:
    """`raft.group.LogStorage` of a process on the files of a machine, which outlive it."""

    def __init__(self, process: Process, machine: "Machine") -> None:
        self._process = process
        self._machine = machine
        self._files = machine.log
        self._removed: set[int] = set()
        self._open = 0
        self._unlinked_at = 0.0
        self._checked = 0
        self.in_flight: bytes | None = None

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        assert self.in_flight is None, "two appends at once"
        self.in_flight = data
        process = self._process
        process.world.after(process.disk_delay(), self._synced, process.life, on_durable, receipt)

    def _synced(self, life: int, on_durable: Callable[[], None], receipt: bytes) -> None:
        process = self._process
        if process.life != life:
            return
        if self._machine.is_full:
            process.exited(EXIT_DISK)
            return
        assert self.in_flight is not None
        file = self._files[self._open]
        file.batches.append((len(file.data), len(file.data) + len(self.in_flight)))
        file.data += self.in_flight
        file.synced = len(file.data)
        file.data += receipt
        self.in_flight = None
        process.post(on_durable)

    def roll(self, segment: int) -> None:
        assert segment not in self._files
        self._files[segment] = LogFile()
        self._open = segment
        if self._machine.is_full:
            self._process.world.after(self._process.disk_delay(), self._failed, self._process.life)

    def _failed(self, life: int) -> None:
        if self._process.life == life:
            self._process.exited(EXIT_DISK)

    def segments(self) -> list[int]:
        return sorted(s for s in self._files if s not in self._removed)

    def check_next(self) -> None:
        """One more segment, as `raft.files` does it."""
        numbers = self.segments()
        number = next((n for n in numbers if n > self._checked), numbers[0])
        self._checked = number
        file = self._files[number]
        if file.is_unreadable:
            raise Corruption(f"segment {number}: {read_error()}")
        data = io.BytesIO(bytes(file.data) + ZEROS)
        check_segment(data, number, file.synced if number == self._open else None, None)

    def read(self, segment: int) -> bytes:
        if self._files[segment].is_unreadable:
            raise read_error()
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
            if draw < 0.4 and not self._machine.is_full:
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
    """An engine's content: what is durable, and the batches written since, in order.

    Attributes:
        unreadable: Keys whose block the disk does not return.
    """

    def __init__(self) -> None:
        self.durable: dict[bytes, bytes] = {}
        self.batches: list[tuple[list[Mutation], bool]] = []
        self.unreadable: set[bytes] = set()
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


class _Cursor(MemoryCursor):
    """Raises where the disk does not return what was written."""

    def __init__(self, items: list[tuple[bytes, bytes]], unreadable: set[bytes]) -> None:
        super().__init__(items)
        self._unreadable = unreadable

    def __next__(self) -> tuple[bytes, bytes]:
        pair = super().__next__()
        _check_readable(pair[0], self._unreadable)
        return pair


def _check_readable(key: bytes, unreadable: set[bytes]) -> None:
    if key in unreadable:
        raise EngineDamage(f"{key.hex()}: {os.strerror(errno.EIO)}")


class _View(MemoryView):
    def __init__(
        self, keys: list[bytes], values: dict[bytes, bytes], unreadable: set[bytes]
    ) -> None:
        super().__init__(keys, values)
        self._unreadable = unreadable

    def get(self, key: bytes) -> bytes | None:
        _check_readable(key, self._unreadable)
        return super().get(key)

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> MemoryCursor:
        return _Cursor(list(super().iterate(start, end, reverse=reverse)), self._unreadable)


class SimEngine(MemoryEngine):
    """The engine of one process on a store that outlives it."""

    def __init__(
        self, machine: "Machine", on_sync: Callable[[], None], is_in_thread: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._machine = machine
        self._store = machine.store
        self._on_sync = on_sync
        self._is_in_thread = is_in_thread
        self._is_failed = False  # once a write failed all do, as in LevelDB
        super().write(list(self._store.durable.items()))
        for mutations, _ in self._store.batches:
            super().write(mutations)

    def get(self, key: bytes) -> bytes | None:
        _check_readable(key, self._store.unreadable)
        return super().get(key)

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> MemoryCursor:
        items = list(super().iterate(start, end, reverse=reverse))
        return _Cursor(items, self._store.unreadable)

    def snapshot(self) -> MemoryView:
        self._shared = True
        return _View(self._keys, self._values, self._store.unreadable)

    def raw(self, start: bytes, end: bytes) -> Iterable[tuple[bytes, bytes]]:
        """What the simulator sees there, whatever the disk returns."""
        return super().iterate(start, end)

    def write(self, mutations: Iterable[Mutation], *, sync: bool = False) -> None:
        self._check_space()
        batch = list(mutations)
        self._store.batches.append((batch, sync))
        self._store.unreadable.difference_update(key for key, _ in batch)
        super().write(batch)
        if sync:
            self._on_sync()

    def make_durable(self) -> None:
        """Called in a thread, what was written is durable when that has ended, not before; else at once."""
        self._check_space()
        super().make_durable()
        if not self._is_in_thread():
            self._store.settle(self._store.written)
        self._on_sync()

    def _check_space(self) -> None:
        self._is_failed = self._is_failed or self._machine.is_full
        if self._is_failed:
            raise EngineFailure(os.strerror(errno.ENOSPC))

    def rot(self, key: bytes, value: bytes) -> None:
        """From now on this is what is read."""
        self._values[key] = value

    def close(self) -> None:
        pass


class DiskPath(type(Path())):  # type: ignore[misc]
    """A path on the disk of a machine, which may be full, or not return what it holds."""

    machines: ClassVar[dict[str, "Machine"]] = {}

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        machine = self.machines.get(str(self.parent))
        if machine is not None and machine.is_full and set(mode) & set("wax+"):
            raise no_space()
        if machine is not None and str(self) in machine.unreadable_files:
            if "w" not in mode:
                raise read_error()
            machine.unreadable_files.discard(str(self))  # other blocks
        return super().open(mode, *args, **kwargs)


class Machine:
    """The disk of one storage node.

    Attributes:
        engine: Of the process that runs.
        is_full: Nothing can be written.
        was_full: Whether that ever was so.
        unreadable_files: Paths of files of snapshots.
        wipes: How often it was replaced by an empty one.
        was_damaged: Whether anything on it ever was.
    """

    def __init__(self, snapshots: Path) -> None:
        self.log: dict[int, LogFile] = {}
        self.store = Store()
        self.identity: Identity | None = None
        self.peers: bytes = b"[]"
        self.snapshots = DiskPath(snapshots)
        self.is_full = False
        self.wipes = 0
        self.engine: SimEngine | None = None
        self.was_full = False
        self.was_damaged = False
        self.unreadable_files: set[str] = set()
        self._synced: dict[int, int] = {}  # checksum of content by inode
        self._durable_names: list[str] = []
        self._flipped: dict[bytes, bytes] = {}  # bad records by their keys
        self._flipped_log: list[tuple[LogFile, int, int]] = []
        self.snapshots.mkdir(parents=True, exist_ok=True)
        DiskPath.machines[str(snapshots)] = self

    # storagenode.data_directory.DataDirectory

    def load_identity(self, name: str, az: str, random_suffix: str) -> Identity:
        if self.identity is None:
            self.identity = Identity(node_id=f"{name}.{random_suffix}", name=name, az=az)
        return self.identity

    def store_identity(self, identity: Identity) -> None:
        self._check_space()
        self.identity = identity

    def store_peers(self, peers: Iterable[Peer]) -> None:
        self._check_space()
        self.peers = msgspec.json.encode(list(peers))

    def load_peers(self) -> list[Peer]:
        return msgspec.json.decode(self.peers, type=list[Peer])

    def _check_space(self) -> None:
        if self.is_full:
            raise no_space()

    # crashes

    def synced(self, inode: int) -> None:
        """An fsync of a file or of the directory has ended."""
        if inode == self.snapshots.stat().st_ino:
            self._durable_names = sorted(file.name for file in self.snapshots.iterdir())
        for file in self.snapshots.iterdir():
            if file.stat().st_ino == inode:
                self._synced[inode] = zlib.crc32(Path(file).read_bytes())

    def crash(self, rng: random.Random) -> None:
        """The machine is gone, its process (told before) with it."""
        crash_log(rng, self.log)
        self.store.crash(rng)
        for file in sorted(self.snapshots.iterdir()):
            data = Path(file).read_bytes()
            if self._synced.get(file.stat().st_ino) != zlib.crc32(data):
                Path(file).write_bytes(data[: rng.randrange(len(data) + 1)])
            if file.name not in self._durable_names and rng.random() < 0.5:
                file.unlink()

    # damage

    def wipe(self) -> None:
        """An empty disk takes its place."""
        self.log.clear()
        self.store = Store()
        self.identity = None
        self.peers = b"[]"
        for file in sorted(self.snapshots.iterdir()):
            file.unlink()
        self.unreadable_files.clear()
        self._flipped.clear()
        self._flipped_log.clear()
        self.wipes += 1
        self.was_damaged = True

    @property
    def is_damaged(self) -> bool:
        """Whether something on it is not what was written."""
        files = {id(file) for file in self.log.values()}
        self._flipped_log = [
            (file, at, bad)
            for file, at, bad in self._flipped_log
            if id(file) in files and at < len(file.data) and file.data[at] == bad
        ]
        found = [self.store.durable, *([] if self.engine is None else [self.engine._values])]
        return bool(
            self.store.unreadable
            or self._flipped_log
            or any(file.is_unreadable for file in self.log.values())
            or any(v.get(key, b"") == bad for key, bad in self._flipped.items() for v in found)
        )

    def flip_record(self, rng: random.Random) -> str:
        """A bit of an item's record; what was done, empty if there is none."""
        durable, engine = self.store.durable, self.engine
        keys = [
            key
            for key in sorted(durable)
            if key.startswith(DATA)
            and durable[key] != self._flipped.get(key)  # twice could make it whole again
            and (engine is None or engine._values.get(key) == durable[key])
        ]
        if not keys:
            return ""
        key = rng.choice(keys)
        value = bytearray(durable[key])
        digits = [at for at, byte in enumerate(value) if 0x30 <= byte <= 0x39]
        if digits and rng.random() < 0.7:
            at = rng.choice(digits)
            value[at] ^= 1  # another digit: what comes out looks sound
        else:
            at = rng.randrange(len(value))
            value[at] ^= 1 << rng.randrange(8)
        durable[key] = self._flipped[key] = bytes(value)
        self.was_damaged = True
        if engine is not None:
            engine.rot(key, bytes(value))
        return f"record {key.hex()} at {at}"

    def falsify(self, rng: random.Random, start: bytes, end: bytes) -> str:
        """A record in this range of the keyspace is another one's, or gone: sound in itself, but not what it
        should be, as if the disk had lost or misplaced a write.
        """
        engine = self.engine
        assert engine is not None
        keys = [key for key, _ in engine.raw(*data_range(start, end))]
        key, other = rng.choice(keys), rng.choice(keys)
        value: bytes | None = engine._values[other]
        if value == engine._values[key]:
            value = None
        MemoryEngine.write(engine, [(key, value)])
        for store in (self.store.durable, self._flipped):
            store[key] = value or b""
        if value is None:
            del self.store.durable[key]
        self.was_damaged = True
        return f"{key.hex()} {None if value is None else other.hex()}"

    def lose_block(self, rng: random.Random) -> str:
        """A few neighbouring keys of the engine cannot be read any more."""
        held = self.store.durable if self.engine is None else self.engine._values
        keys = sorted(self.store.durable.keys() & held.keys())
        if not keys:
            return ""
        first = rng.randrange(len(keys))
        block = keys[first : first + rng.choice((1, 1, 4))]
        self.store.unreadable.update(block)
        self.was_damaged = True
        return f"block of {len(block)} keys from {block[0].hex()}"

    def flip_log(self, rng: random.Random) -> str:
        """A bit of the log. (Of the last batch only if its receipt is there, and durable as after some rest.)"""
        batches = [
            (number, start, end)
            for number, file in sorted(self.log.items())
            for start, end in file.batches
            if end <= len(file.data)
        ]
        if not batches:
            return ""
        number, start, end = rng.choice((rng.choice(batches), batches[-1]))
        file, at = self.log[number], rng.randrange(start, end)
        if (number, start, end) == batches[-1]:
            if not file.data[end : end + RECEIPT.size].startswith(RECEIPT_MAGIC):
                return ""
            file.synced = len(file.data)
        if any(known is file and place == at for known, place, _ in self._flipped_log):
            return ""
        file.data[at] ^= 1 << rng.randrange(8)
        self._flipped_log.append((file, at, file.data[at]))
        self.was_damaged = True
        return f"log segment {number} at {at}"

    def lose_segment(self, rng: random.Random) -> str:
        """A segment of the log cannot be read any more."""
        if not self.log:
            return ""
        number = rng.choice(sorted(self.log))
        self.log[number].is_unreadable = True
        self.was_damaged = True
        return f"segment {number}"

    def damage_snapshot(self, rng: random.Random) -> str:
        """The file of a snapshot that was received cannot be read any more, or a bit of it flips."""
        files = [file for file in sorted(self.snapshots.iterdir()) if file.stat().st_size]
        if not files:
            return ""
        file = rng.choice(files)
        self.was_damaged = True
        if rng.random() < 0.3:
            self.unreadable_files.add(str(file))
            return f"snapshot {file.name}"
        data = bytearray(Path(file).read_bytes())
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        Path(file).write_bytes(data)
        self._synced[file.stat().st_ino] = zlib.crc32(data)
        return f"snapshot {file.name} at {at}"
