"""Reading an engine's tables again and again, as files: they never change, so any other byte is damage.

LevelDB verifies a block when it reads it. What it holds in memory, a block in its cache, a table's index and
filter, it does not read again: damage beneath shows at the next start only, when other disks may have suffered too.
"""

import zlib
from collections.abc import Iterable
from pathlib import Path

from storagenode.engines.engine import EngineDamage

PIECE_BYTES = 1 << 20


class TableChecksums:
    """Of the tables in a directory, by number. The first reading of a table says what the later ones must find."""

    def __init__(self, directory: Path, bytes_per_look: int) -> None:
        """Create; `look` reads about so many bytes at a time."""
        self._directory = directory
        self._bytes_per_look = bytes_per_look
        self._known: dict[int, int] = {}
        self._number = 0  # the table being read
        self._offset = 0
        self._crc = 0

    def look(self, numbers: Iterable[int]) -> None:
        """Read on, where the last call ended. Blocks; call it off the loop.

        Args:
            numbers: The tables in use now.

        Raises:
            EngineDamage: A table is not what it was, or cannot be read.
        """
        in_use = sorted(numbers)
        present = set(in_use)
        self._known = {n: crc for n, crc in self._known.items() if n in present}
        left = self._bytes_per_look
        begun: set[int] = set()
        while left > 0 and in_use:
            if self._number not in present or not self._offset:
                self._number = next((n for n in in_use if n > self._number), in_use[0])
                self._offset = self._crc = 0
                if self._number in begun:
                    return  # all of them, in one call
                begun.add(self._number)
            left -= self._read_on(left)

    def _read_on(self, limit: int) -> int:
        path = self._directory / f"{self._number:06d}.ldb"
        read = 0
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(self._offset)
                while read < limit:
                    data = file.read(PIECE_BYTES)
                    if not data:
                        self._end()
                        return read + PIECE_BYTES // 16  # (many small tables take time too)
                    self._crc = zlib.crc32(data, self._crc)
                    self._offset += len(data)
                    read += len(data)
        except FileNotFoundError:
            self._offset = 0  # deleted by a compaction
        except OSError as error:
            raise EngineDamage(f"{path}: {error}") from error
        return read + PIECE_BYTES // 16

    def _end(self) -> None:
        known = self._known.setdefault(self._number, self._crc)
        if known != self._crc:
            raise EngineDamage(f"table {self._number} in {self._directory} is not what it was")
        self._offset = 0
