"""A small disk for one storage node, to be filled: a tmpfs on its data directory, or one of the user's own."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
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
        ballast.unlink(missing_ok=True)
