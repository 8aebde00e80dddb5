"""Stored items: an item's body behind a small binary header.

    record  = header body
    header  = version u8 · flags u8 · region u16 · item size u32 · timestamp u64 · log index u64 · checksum u32
    body    = JSON of the normal item (`items.encode_item`)

All numbers are big-endian. The checksum is the CRC-32 of everything else: the header before it, then the body.
`version` 1 is the only one so far; versions and flags are never reused, and whoever writes a new version keeps
reading the old. No flag is defined yet.

Readers on the hot path trust what the engine returns and take the body as it is; `check_record` is for
scrubbing, copying between nodes, backups and whenever bytes have been at rest or on a wire.
"""

import struct
from typing import Final
from zlib import crc32

from datamodel.errors import Corruption

FORMAT_VERSION: Final = 1

_FIELDS = struct.Struct(">BBHIQQ")
_CHECKSUM_OFFSET: Final = _FIELDS.size
HEADER_SIZE: Final = _CHECKSUM_OFFSET + 4

_pack = _FIELDS.pack


def pack_record(body: bytes, size: int, timestamp: int, log_index: int, region: int = 0) -> bytes:
    """The record of an item.

    Args:
        body: The item's body.
        size: Item size in bytes by the service's rule (not the length of the body).
        timestamp: Time of the write, microseconds of the hybrid logical clock.
        log_index: Position of the write in its partition group's log.
        region: Number of the region where the write was made; 0 is this one.
    """
    fields = _pack(FORMAT_VERSION, 0, region, size, timestamp, log_index)
    return fields + crc32(body, crc32(fields)).to_bytes(4, "big") + body


def record_body(record: bytes) -> bytes:
    """The item's body."""
    return record[HEADER_SIZE:]


def record_size(record: bytes) -> int:
    """The item's size in bytes by the service's rule."""
    return int.from_bytes(record[4:8], "big")


def record_timestamp(record: bytes) -> int:
    """Time of the write, microseconds of the hybrid logical clock."""
    return int.from_bytes(record[8:16], "big")


def record_log_index(record: bytes) -> int:
    """Position of the write in its partition group's log."""
    return int.from_bytes(record[16:24], "big")


def record_region(record: bytes) -> int:
    """Number of the region where the write was made."""
    return int.from_bytes(record[2:4], "big")


def check_record(record: bytes, where: str) -> None:
    """Verify a record against its own header.

    Args:
        record: The bytes as found.
        where: What the error says about the place, such as the key in hexadecimal.

    Raises:
        Corruption: Too short, of an unknown version, with unknown flags, or the checksum does not match.
    """
    if len(record) < HEADER_SIZE:
        raise Corruption(where, f"at least {HEADER_SIZE} bytes", f"{len(record)} bytes")
    if record[0] != FORMAT_VERSION:
        raise Corruption(where, f"format version {FORMAT_VERSION}", f"version {record[0]}")
    if record[1] != 0:
        raise Corruption(where, "no flags", f"flags {record[1]:#04x}")
    view = memoryview(record)
    expected = int.from_bytes(view[_CHECKSUM_OFFSET:HEADER_SIZE], "big")
    found = crc32(view[HEADER_SIZE:], crc32(view[:_CHECKSUM_OFFSET]))
    if found != expected:
        raise Corruption(where, f"checksum {expected:#010x}", f"{found:#010x}")
