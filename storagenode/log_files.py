"""The node's raft log on real files: `raft.group.LogStorage` with one thread that writes and syncs.

One file per segment, named by its number. Space is allocated ahead, so that most syncs need not write the
file's size; the log's format knows where its batches end. Order is kept by the thread's queue: what was handed
over first is on disk first.
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

PREALLOCATED_BYTES = 8 << 20
_SUFFIX = ".log"

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 1.0)


class SyncLatency:
    """How long appends took to become durable: a histogram. Written by the log's thread, read by metrics."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_S) + 1)  # the last one: longer than all
        self.sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """One more."""
        self.sum_s += duration_s
        for number, bound in enumerate(LATENCY_BUCKETS_S):
            if duration_s <= bound:
                self.counts[number] += 1
                return
        self.counts[-1] += 1


class LogFiles:
    """Segments in a directory.

    Attributes:
        latency: Of appends.
        appended_bytes: Since the start of the process.
    """

    def __init__(
        self,
        directory: Path,
        call_on_loop: Callable[[Callable[[], None]], object],
        on_failure: Callable[[OSError], None],
        clock: Callable[[], float],
        *,
        sync: bool = True,
    ) -> None:
        """Open the directory, creating it if need be.

        Args:
            directory: Of the segments.
            call_on_loop: `loop.call_soon_threadsafe`.
            on_failure: Called in the log's thread when the disk fails; must end the process.
            clock: For `latency`.
            sync: Whether appends wait for the disk. Without it nothing acknowledged survives the machine: for
                comparisons in benchmarks only.
        """
        self.latency = SyncLatency()
        self.appended_bytes = 0
        self._directory = directory
        self._call_on_loop = call_on_loop
        self._on_failure = on_failure
        self._clock = clock
        self._sync = sync
        directory.mkdir(parents=True, exist_ok=True)
        self._removed: set[int] = (
            set()
        )  # handed over for removal: gone, as far as our caller can tell
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # The thread's own: the open segment, where its next batch goes, how far space is allocated.
        self._file = -1
        self._offset = 0
        self._allocated = 0
        self._thread = threading.Thread(target=self._work, name="raft-log", daemon=True)
        self._thread.start()

    # LogStorage

    def append(self, data: bytes, on_durable: Callable[[], None]) -> None:
        """Hand a batch to the thread."""
        self._jobs.put(lambda: self._append(data, on_durable))

    def roll(self, segment: int) -> None:
        """Let the thread open the next file."""
        self._removed.discard(segment)
        self._jobs.put(lambda: self._roll(segment))

    def segments(self) -> Sequence[int]:
        """By the files' names."""
        names = (path.name for path in self._directory.iterdir())
        return sorted(
            int(name.removesuffix(_SUFFIX))
            for name in names
            if name.endswith(_SUFFIX)
            and name.removesuffix(_SUFFIX).isdigit()
            and int(name.removesuffix(_SUFFIX)) not in self._removed
        )

    def read(self, segment: int) -> bytes:
        """The whole file."""
        return self._path(segment).read_bytes()

    def truncate(self, segment: int, size: int) -> None:
        """Cut the file, durably, before returning."""
        file = os.open(self._path(segment), os.O_WRONLY)
        try:
            os.ftruncate(file, size)
            os.fsync(file)
        finally:
            os.close(file)

    def remove(self, segment: int) -> None:
        """Delete the file, after everything handed over before."""
        self._removed.add(segment)
        self._jobs.put(lambda: self._path(segment).unlink(missing_ok=True))

    # life

    def close(self) -> None:
        """Finish what was handed over, and end the thread."""
        self._jobs.put(None)
        self._thread.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # the thread

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self._on_failure(error)
                return

    def _append(self, data: bytes, on_durable: Callable[[], None]) -> None:
        begun = self._clock()
        end = self._offset + len(data)
        if end > self._allocated:
            self._allocated = end + PREALLOCATED_BYTES
            os.posix_fallocate(self._file, self._offset, self._allocated - self._offset)
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self._offset)
            self._offset += written
            view = view[written:]
        if self._sync:
            os.fdatasync(self._file)
        self.latency.observe(self._clock() - begun)
        self.appended_bytes += len(data)
        self._call_on_loop(on_durable)

    def _roll(self, segment: int) -> None:
        if self._file >= 0:
            os.ftruncate(self._file, self._offset)  # give back what was allocated ahead
            os.close(self._file)
        self._file = os.open(
            self._path(segment), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644
        )
        self._offset = self._allocated = 0
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # a batch in a file that has no name would be lost
        finally:
            os.close(directory)

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:016d}{_SUFFIX}"
