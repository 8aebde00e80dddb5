"""A small disk for one storage node, to be filled: a tmpfs on its data directory, or one of the user's own."""

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast-of-chaos"
PIECE = b"\0" * (1 << 20)


@contextmanager
def small_disk(directory: Path, size_mb: int) -> Iterator[None]:
    """A tmpfs of that size at `directory` (made if need be). Needs root; unmounted at the end.

    Raises:
        OSError: It cannot be mounted.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "quorate-chaos", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"cannot mount a tmpfs on {directory}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)


def why_not_mount() -> str:
    """What is missing to mount a small disk, empty if nothing."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    return "" if shutil.which("mount") else "mount is missing"


def is_own_disk(directory: Path) -> bool:
    """Whether the directory is the root of a file system, so that filling it harms nobody else."""
    return directory.is_dir() and directory.is_mount()


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    """No space is left in the file system of `directory` for as long as the block runs."""
    ballast = directory / BALLAST
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(PIECE)
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(PIECE[:4096])
        yield
    finally:
        remove_ballast(directory)


def remove_ballast(directory: Path) -> None:
    """There is space again."""
    (directory / BALLAST).unlink(missing_ok=True)


def empty(directory: Path, aside: Path) -> None:
    """Nothing is in the directory any more: it becomes `aside`, or, the root of a disk, loses its content."""
    try:
        directory.rename(aside)
    except OSError:
        for path in directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def set_asides(directory: Path) -> set[Path]:
    """Damaged directories that a storage node has put out of its way, beside its own or in it."""
    return {*directory.parent.glob(f"{directory.name}.damaged-*"), *directory.glob("damaged-*")}


def flip_bits(files: Sequence[Path], chance: random.Random) -> str:
    """Flip a few bits of each, in place; says what was done."""
    flips = 0
    for path in files:
        with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
            used = len(file.read().rstrip(b"\0"))
            for _ in range(chance.randrange(1, 9)):
                offset = chance.randrange(used * 3 // 4)
                file.seek(offset)
                (byte,) = file.read(1)
                file.seek(offset)
                file.write(bytes([byte ^ 1 << chance.randrange(8)]))
                flips += 1
    names = ", ".join(path.name for path in files[:3])
    return f"{flips} bits in {names}{' and more' if len(files) > 3 else ''}"
