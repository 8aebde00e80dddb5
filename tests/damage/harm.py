"""Ways to harm a file. Each is a function of the bytes that were there, or None for a file that is gone."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
PAGE = 4096


@dataclass(frozen=True)
class Harm:
    """What is done to a file.

    Attributes:
        text: For people.
        change: From the bytes that were there to those that are; None removes the file.
    """

    text: str
    change: Callable[[bytes], bytes | None]

    def do(self, path: Path) -> None:
        """To the file at `path`, as a new file: it may be linked to from elsewhere."""
        changed = self.change(path.read_bytes())
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)

    def do_in_place(self, path: Path) -> None:
        """To the very file, also where it is open and mapped. Its length must stay."""
        changed = self.change(path.read_bytes())
        assert changed is not None
        assert len(changed) == path.stat().st_size
        with path.open("r+b") as file:
            file.write(changed)


def flip(offset: int, bit: int) -> Harm:
    """One bit is another one."""

    def change(data: bytes) -> bytes:
        return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]

    return Harm(f"bit {bit} of byte {offset} flipped", change)


def overwrite(offset: int, new: bytes, what: str) -> Harm:
    """Other bytes are there."""

    def change(data: bytes) -> bytes:
        return (data[:offset] + new + data[offset + len(new) :])[: len(data)]

    return Harm(f"{len(new)} bytes from {offset} on are {what}", change)


def truncate(size: int) -> Harm:
    """The end is missing."""
    return Harm(f"cut to {size} bytes", lambda data: data[:size])


def append(extra: bytes, what: str) -> Harm:
    """There is more than was written."""
    return Harm(f"{len(extra)} bytes of {what} behind the end", lambda data: data + extra)


REMOVE = Harm("removed", lambda data: None)


def replace(by: bytes, what: str) -> Harm:
    """A write went astray: another file's content."""
    return Harm(f"replaced by {what}", lambda data: by)


def flips(size: int, chance: random.Random, count: int) -> Iterator[Harm]:
    """Flipped bits, spread evenly over the file."""
    for part in range(count):
        low, high = size * part // count, max(size * (part + 1) // count, size * part // count + 1)
        yield flip(min(chance.randrange(low, high), size - 1), chance.randrange(8))


def every_flip(size: int) -> Iterator[Harm]:
    """One bit of each byte."""
    for offset in range(size):
        yield flip(offset, offset % 8)


def gross(data: bytes, chance: random.Random) -> Iterator[Harm]:
    """Larger damage: sectors and pages of zeros or of noise, lengths, a lost file."""
    size = len(data)
    for unit, name in ((SECTOR, "sector"), (PAGE, "page")):
        offset = chance.randrange(0, max(1, size - 1)) // unit * unit
        length = min(unit, size - offset)
        yield overwrite(offset, bytes(length), f"zeros ({name})")
        yield overwrite(offset, chance.randbytes(length), f"noise ({name})")
    offset = chance.randrange(size)
    yield overwrite(offset, bytes(size - offset), "zeros to the end")
    yield overwrite(0, bytes(size), "zeros: the whole file")
    yield truncate(chance.randrange(size))
    yield truncate(size - 1)
    yield truncate(0)
    yield append(chance.randbytes(300), "noise")
    yield append(bytes(5000), "zeros")
    yield append(data[: size // 2 + 1], "its own content")
    yield REMOVE
