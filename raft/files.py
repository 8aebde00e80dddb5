"""The log's files: a dedicated writer thread, preallocated segments, one fdatasync per batch (and one at rest).

All file work after recovery happens in the one thread, in order; the loop hears of a batch when it is durable.
A disk error ends the process at once: what was acknowledged is no longer knowable, and a later fsync that
succeeds would prove nothing about the pages of the one that failed.
"""

import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from raft.log_check import check_segment
from raft.node_log import Corruption

log = logging.getLogger(__name__)

_SUFFIX = ".raftlog"
# After so much rest the last receipt is made durable.
REST_S = 0.25
# Exit status of a process whose disk failed (EX_IOERR).
DISK_ERROR_EXIT_STATUS = 74

_Job = tuple[Callable[[], None], Callable[[], None] | None]


class FileLogStorage:
    """`group.LogStorage` in a directory. Made and used on the loop; `close` when the host has stopped.

    Args:
        directory: Holds nothing but the log; created if missing.
        call_on_loop: Runs a function on the loop from another thread (`loop.call_soon_threadsafe`).
        segment_bytes: Preallocated per segment; a batch that reaches past it just makes the file longer.
        fsync: False only to measure what the disk costs; such a log survives a crash of the process, not of
            the machine.
    """

    def __init__(
        self,
        directory: Path,
        call_on_loop: Callable[[Callable[[], None]], object],
        segment_bytes: int,
        *,
        fsync: bool = True,
    ) -> None:
        self._directory = directory
        self._call_on_loop = call_on_loop
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._file = -1
        self._offset = 0
        self._segment = 0
        self._durable = (0, 0)  # the open segment, and how much of it is synced
        # The segment that was read again last, and the batch that must follow it.
        self._checked = 0
        self._expected: int | None = None
        self._has_receipt = False  # written since the last sync
        directory.mkdir(parents=True, exist_ok=True)
        self._numbers = sorted(
            int(path.name.removesuffix(_SUFFIX)) for path in directory.glob("*" + _SUFFIX)
        )
        self._thread = threading.Thread(target=self._run, name="raft-log", daemon=True)
        self._thread.start()

    def _path(self, segment: int) -> Path:
        return self._directory / f"{segment:016d}{_SUFFIX}"

    # LogStorage

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        """Write behind what is there and make it durable, off the loop; then the receipt; call back on the loop."""
        self._jobs.put((lambda: self._write(data, receipt), on_durable))

    def roll(self, segment: int) -> None:
        """Following appends go to a new segment file."""
        self._numbers.append(segment)
        self._jobs.put((lambda: self._open(segment), None))

    def segments(self) -> Sequence[int]:
        """Numbers of the segments, ascending."""
        return list(self._numbers)

    def read(self, segment: int) -> bytes:
        """All bytes of a segment, preallocated zeros included (recovery only)."""
        return self._path(segment).read_bytes()

    def check_next(self) -> None:
        """Read what is durable of one more segment again, in turns. Call it in a thread of its own.

        Raises:
            raft.node_log.Corruption: It is not as it was written, or cannot be read.
        """
        numbers = list(self._numbers)
        before, self._checked = self._checked, 0
        number = next((n for n in numbers if n > before), numbers[0] if numbers else 0)
        open_segment, synced = self._durable
        if not 0 < number <= open_segment:
            return  # it is being made
        follows = before in numbers and numbers.index(before) + 1 == numbers.index(number)
        try:
            with self._path(number).open("rb", buffering=1 << 18) as file:
                # The system's copy in memory says nothing about the disk.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                is_open = number == open_segment
                following = check_segment(
                    file,
                    number,
                    synced if is_open else None,
                    self._expected if follows else None,
                )
                # Behind what was looked at now, the open one will get more before it is closed.
                self._expected = None if is_open else following
        except FileNotFoundError:
            if number in self._numbers:
                raise Corruption(f"segment {number} is gone") from None
            return
        except OSError as error:
            raise Corruption(f"segment {number}: {error}") from error
        self._checked = number

    def truncate(self, segment: int, size: int) -> None:
        """Durably cut a torn tail; what is before it is durable as well then (recovery only)."""
        with self._path(segment).open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def remove(self, segment: int) -> None:
        """Delete a segment."""
        self._numbers.remove(segment)
        self._jobs.put((lambda: self._delete(segment), None))

    def close(self) -> None:
        """Finish what was handed over and end the thread. Nothing is called back any more."""
        self._jobs.put((self._settle, None))
        self._jobs.put(None)
        self._thread.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # the thread

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            work, then = job
            try:
                work()
            except OSError:
                log.critical("the raft log cannot be written", exc_info=True)
                os._exit(DISK_ERROR_EXIT_STATUS)
            if then is not None:
                try:
                    self._call_on_loop(then)
                except RuntimeError:
                    return  # the loop is closed: nobody is left to be told

    def _next_job(self) -> _Job | None:
        if self._has_receipt:
            try:
                return self._jobs.get(timeout=REST_S)
            except queue.Empty:
                return self._settle, None
        return self._jobs.get()

    def _settle(self) -> None:
        if self._has_receipt and self._fsync:
            os.fdatasync(self._file)
        self._has_receipt = False

    def _write(self, data: bytes, receipt: bytes) -> None:
        self._put(data)
        if self._fsync:
            os.fdatasync(self._file)
        self._durable = (self._segment, self._offset)
        # In one write, and in the page cache before anybody may rely on the data.
        self._put(receipt)
        self._has_receipt = True

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, self._offset)
            self._offset += written
            view = view[written:]

    def _open(self, segment: int) -> None:
        if self._file >= 0:
            # (The receipt of its last batch: the next batch, in this one, will say the same.)
            os.close(self._file)
            self._has_receipt = False
        self._file = os.open(self._path(segment), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._offset = 0
        self._segment = segment
        # So that fdatasync of a batch need not also make a new file size durable.
        os.posix_fallocate(self._file, 0, self._segment_bytes)
        if self._fsync:
            os.fsync(self._file)
            self._sync_directory()
        self._durable = (segment, 0)

    def _delete(self, segment: int) -> None:
        self._path(segment).unlink()
        if self._fsync:
            self._sync_directory()

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
