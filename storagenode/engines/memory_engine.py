"""An engine that keeps everything in memory: the reference beside LevelDB, for tests and the simulator.

Copy-on-write: a snapshot shares the state until the next write. Not for large data.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from storagenode.engines.engine import Mutation


class MemoryCursor:
    """Iterates over a range of one state."""

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self._items = iter(items)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._items)

    def skip_to(self, key: bytes) -> None:
        """Look for it from here on."""
        left = list(self._items)
        self._items = iter(left[bisect_left(left, key, key=lambda pair: pair[0]) :])

    def close(self) -> None:
        """Nothing to let go of but the list."""
        self._items = iter([])


class MemoryView:
    """One state: sorted keys and their values."""

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self._keys = keys
        self._values = values

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self._values.get(key)

    def iterate(self, start: bytes, end: bytes, *, reverse: bool = False) -> MemoryCursor:
        """The range as it is now."""
        low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
        keys = self._keys[low:high]
        if reverse:
            keys.reverse()
        return MemoryCursor([(key, self._values[key]) for key in keys])

    def close(self) -> None:
        """Nothing to do."""


class MemoryEngine(MemoryView):
    """The engine. `durable_writes` counts `make_durable` calls, for tests."""

    def __init__(self) -> None:
        super().__init__([], {})
        self._shared = False  # a snapshot holds our lists: copy before the next write
        self.durable_writes = 0

    def write(self, mutations: Iterable[Mutation], *, sync: bool = False) -> None:
        """Perform all mutations in order."""
        del sync
        if self._shared:
            self._keys, self._values = list(self._keys), dict(self._values)
            self._shared = False
        for key, value in mutations:
            if value is not None:
                if key not in self._values:
                    insort(self._keys, key)
                self._values[key] = value
            elif self._values.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    def make_durable(self) -> None:
        """As durable as memory can be."""
        self.durable_writes += 1

    def check_files(self) -> None:
        """There are none."""

    def snapshot(self) -> MemoryView:
        """The state of now."""
        self._shared = True
        return MemoryView(self._keys, self._values)

    def approximate_size_bytes(self, start: bytes, end: bytes) -> int:
        """Exact, here."""
        return sum(len(key) + len(value) for key, value in self.iterate(start, end))
