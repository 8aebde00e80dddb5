"""LevelDB's own log files, read as strictly as LevelDB writes them (its doc/log_format.md).

    file  := block[32 KiB] ...
    block := record ... , zeros where no header fits any more
    record := masked CRC-32C of type and data: u32 LE  length: u16 LE  type: u8  data[length]

LevelDB either skips what is damaged and goes on behind it (a hole), or refuses the database. Neither is right for a
log that is not synced: after a crash of the machine its tail may hold anything. Here it is cut at the first record
that is not whole, later files included: what remains is a state that the store once had.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 32 << 10
HEADER = struct.Struct("<IHB")
FULL, _FIRST, _MIDDLE, _LAST = _TYPES = range(1, 5)


def _make_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_CRC_TABLE = _make_table()


def masked_crc32c(data: bytes) -> int:
    """As LevelDB stores it: rotated and shifted, so that a checksum of data with checksums in it is none."""
    crc = 0xFFFFFFFF
    table = _CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _records(data: bytes, *, is_verified: bool = True) -> Iterator[tuple[int, int, bytes]]:
    """Whole records from the beginning on, up to the first that is not: (end, type, data)."""
    position = 0
    while position < len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER.size:
            if any(data[position : position + left]):
                return
            position += left
            continue
        if position + HEADER.size > len(data):
            return
        checksum, length, kind = HEADER.unpack_from(data, position)
        start = position + HEADER.size
        end = start + length
        if kind not in _TYPES or end > len(data) or length > left - HEADER.size:
            return
        # The checksum covers the type, which is the header's last byte, and the data.
        if is_verified and masked_crc32c(data[start - 1 : end]) != checksum:
            return
        yield end, kind, data[start:end]
        position = end


def whole_bytes(data: bytes) -> int:
    """Length of the longest beginning that consists of whole records."""
    end = 0
    for record in _records(data):
        end = record[0]
    return end


def cut_damage(directory: Path, first: int) -> list[str]:
    """Cut a database's logs from number `first` on at the first damage; returns the names of the files that lost
    something. The database must not be open.

    Reads at some megabytes a second: for a database that does not open otherwise.
    """
    changed: list[str] = []
    numbered = sorted((int(path.stem), path) for path in directory.glob("*.log"))
    for number, path in numbered:
        if number < first:
            continue
        if changed:
            path.unlink()
            changed.append(path.name)
            continue
        data = path.read_bytes()
        whole = whole_bytes(data)
        if whole < len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
            changed.append(path.name)
    return changed


# --- the manifest: a log of version edits, of which only the log number matters here ---

_COMPARATOR, _LOG_NUMBER, NEXT_FILE, _LAST_SEQUENCE, _POINTER, _DELETED, NEW_FILE = range(1, 8)
_PREVIOUS_LOG = 9
# What follows each tag: v a number, s a string.
_FIELDS = {
    _COMPARATOR: "s", _LOG_NUMBER: "v", NEXT_FILE: "v", _LAST_SEQUENCE: "v", _POINTER: "vs",
    _DELETED: "vv", NEW_FILE: "vvvss", _PREVIOUS_LOG: "v",
}  # fmt: skip


class OldManifest(Exception):
    """The manifest in use is not as it was last written."""


def cut_manifest(directory: Path) -> list[str]:
    """Cut the manifest in use at the first damage; returns its name if it lost something.

    It is synced record by record, but a crash of the machine can tear the one that was being written. An older
    version that still has everything is as good as a newer one; `first_log` and LevelDB refuse any other.
    """
    try:
        path = directory / (directory / "CURRENT").read_text("ascii").rstrip("\n")
        data = path.read_bytes()
    except (OSError, ValueError):
        return []
    whole = whole_bytes(data)
    if not 0 < whole < len(data):
        return []
    with path.open("r+b") as file:
        file.truncate(whole)
    return [path.name]


def first_log(directory: Path) -> int:
    """Number of the log that recovery begins with, by the manifest in use; 0 for a database without one.

    LevelDB takes a record that reaches past the file's end for one that was never completed. So a damaged length,
    or a shorter file, takes the database back to an older version, whose tables look complete. But when a version
    made a log obsolete, the log was deleted: an older version names one that is not there. (LevelDB itself looks
    for the tables, which compactions delete.)

    Raises:
        OldManifest: That is so, or there is none although there are tables or logs.
    """
    tables = any(directory.glob("*.ldb"))
    if not tables and not any(directory.glob("*.log")):
        return 0  # it was about to be created
    try:
        name = (directory / "CURRENT").read_text("ascii").rstrip("\n")
        data = (directory / name).read_bytes()
    except (OSError, ValueError) as error:
        raise OldManifest(str(error)) from error
    edit = b""
    whole = number = 0
    # (LevelDB verifies the checksums itself, and refuses.)
    for end, kind, fragment in _records(data, is_verified=False):
        whole = end
        edit = fragment if kind in (FULL, _FIRST) else edit + fragment
        if kind in (FULL, _LAST):
            try:
                number = _log_number(edit, number)
            except IndexError as error:
                raise OldManifest(f"{name} is damaged before {whole}") from error
    if whole // BLOCK_BYTES < (len(data) - 1) // BLOCK_BYTES:
        raise OldManifest(f"{name} is damaged at {whole}")
    if number and not (directory / f"{number:06d}.log").exists():
        raise OldManifest(f"{name} is not the newest: log {number} is gone")
    if not number and tables:
        raise OldManifest(f"{name} lists nothing, but there are tables")
    return number


def _log_number(edit: bytes, before: int) -> int:
    """The log that recovery begins with, by one more edit. Raises IndexError if that is none."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = edit[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    found = before
    while position < len(edit):
        tag = number()
        if tag not in _FIELDS:
            break  # LevelDB will refuse it
        for field in _FIELDS[tag]:
            value = number()
            if field == "s":
                position += value
            elif tag == _LOG_NUMBER:
                found = value
    return found
