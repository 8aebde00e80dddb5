"""Where what is in a LevelDB table file (its doc/table_format.md)."""

import struct

MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48
TRAILER_BYTES = 5
_U64 = struct.Struct("<Q")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def regions(table: bytes) -> dict[str, range]:
    """Byte ranges by what they hold, in file order; each block's trailer (type and checksum) is named apart."""
    footer = len(table) - FOOTER_BYTES
    assert _U64.unpack_from(table, len(table) - 8)[0] == MAGIC
    numbers = []
    position = footer
    for _ in range(4):
        number, position = _varint(table, position)
        numbers.append(number)
    metaindex, metaindex_size, index, index_size = numbers
    # The metaindex has one entry, whose value is the place of the filter. Short blocks are stored as they are.
    assert table[metaindex + metaindex_size] == 0
    _, at = _varint(table, metaindex)
    key_size, at = _varint(table, at)
    _, at = _varint(table, at)
    assert table[at : at + key_size].startswith(b"filter.")
    filter_, at = _varint(table, at + key_size)
    filter_size, at = _varint(table, at)
    found = {"data": range(filter_ - TRAILER_BYTES)}
    for name, start, size in (
        ("filter", filter_, filter_size),
        ("metaindex", metaindex, metaindex_size),
        ("index", index, index_size),
    ):
        found[name] = range(start, start + size)
        found[f"{name} trailer"] = range(start + size, start + size + TRAILER_BYTES)
    found["last data trailer"] = range(filter_ - TRAILER_BYTES, filter_)
    found["footer"] = range(footer, position)
    found["padding"] = range(position, len(table) - 8)
    found["magic"] = range(len(table) - 8, len(table))
    return found
