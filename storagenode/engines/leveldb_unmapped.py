"""Keeping LevelDB from mapping its tables into memory, so that it uses no byte that it has not verified.

LevelDB verifies a block when it takes it from the file. A block that is stored uncompressed (a filter always, an
index or data now and then) it uses where it lies, if the file is mapped: then what is read later is what the disk
returns *then*, without a checksum, and a sector that cannot be read is the end of the process instead of an error.
A file that is not mapped is read into memory first and verified there.

LevelDB maps the first thousand tables that a process opens, counted over all its databases, and reads the others
(`kDefaultMmapLimit` in its util/env_posix.cc). Nothing that can be set changes that. So the thousand are opened
here, once, before any other: all of them are one file of some two hundred bytes, by a thousand names.

    scratch directory: a database with one table, written by LevelDB itself
    more names for that table's file, and one more record in the manifest, which lists them    (doc/log_format.md)
    the database is opened, each table is looked at, and stays open until the process ends; the directory goes
"""

import os
import shutil
import struct
from pathlib import Path
from typing import Any

import plyvel

from storagenode.engines.leveldb_log import FULL, HEADER, NEW_FILE, NEXT_FILE, masked_crc32c

MAPPED_MAX = 1000
_OPEN_FILES_MAX = (
    50_000  # as many as LevelDB allows: none of the tables is to be closed for another
)
_FIRST_NUMBER = 1000  # behind those that LevelDB has given by then
_DEEPEST_LEVEL = 6  # where nothing is ever compacted
_TAG = struct.pack("<Q", 1 << 8 | 1)  # of a key in a table: sequence number 1, a value

# The database, open as long as the process lives. LevelDB's count is the process's as well.
_tables: list[Any] = []


class StillMapped(Exception):
    """This LevelDB maps more tables than any release that this was made for."""


def prevent_mapping(scratch: Path) -> None:
    """From now on, let LevelDB map none of the tables that this process opens. Further calls do nothing.

    Takes some tens of milliseconds, a megabyte of memory and a thousand mappings of one page.

    Args:
        scratch: A directory to be made, used and removed; one that is there was left behind by a crash.

    Raises:
        OSError, plyvel.Error: The files cannot be written.
        StillMapped: It did not help.
    """
    if _tables:
        return
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        _write(scratch, MAPPED_MAX + 1)
        database = plyvel.DB(str(scratch), max_open_files=_OPEN_FILES_MAX, lru_cache_size=1)
        for number in range(MAPPED_MAX + 1):
            database.get(_key(number))
        mapped = mapped_tables(scratch)
        if mapped is not None and mapped > MAPPED_MAX:
            database.close()
            raise StillMapped(f"this LevelDB maps more than {MAPPED_MAX} tables into memory")
        _tables.append(database)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def mapped_tables(directory: Path) -> int | None:
    """How many tables in `directory` this process has mapped; None where the system does not tell."""
    try:
        maps = Path("/proc/self/maps").read_bytes()
    except OSError:
        return None
    inside = os.fsencode(directory.resolve()) + b"/"
    return sum(inside in line and b".ldb" in line for line in maps.splitlines())


def _key(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _write(directory: Path, count: int) -> None:
    """A database of `count` tables, one key each, in order."""
    database = plyvel.DB(str(directory), create_if_missing=True)
    database.put(_key(0), b"")
    database.compact_range(start=b"\x00", stop=b"\x00\x00")  # (writes the table)
    database.close()
    (table,) = directory.glob("*.ldb")
    size = table.stat().st_size
    edit = _varint(NEXT_FILE) + _varint(_FIRST_NUMBER + count)
    for number in range(1, count):
        name = _FIRST_NUMBER + number
        _name(table, directory / f"{name:06d}.ldb")
        key = _key(number) + _TAG
        bound = _varint(len(key)) + key
        edit += b"".join(map(_varint, (NEW_FILE, _DEEPEST_LEVEL, name, size))) + bound * 2
    manifest = directory / (directory / "CURRENT").read_text("ascii").rstrip("\n")
    header = HEADER.pack(masked_crc32c(bytes([FULL]) + edit), len(edit), FULL)
    with manifest.open("ab") as file:
        file.write(header + edit)  # (a fraction of a block)


def _name(file: Path, other: Path) -> None:
    """One more name of a file, or, where the file system has no such thing, a copy."""
    try:
        os.link(file, other)
    except OSError:
        other.write_bytes(file.read_bytes())


def _varint(number: int) -> bytes:
    text = bytearray()
    while number >= 0x80:
        text.append(number & 0x7F | 0x80)
        number >>= 7
    text.append(number)
    return bytes(text)
