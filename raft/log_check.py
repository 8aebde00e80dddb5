"""Reading a segment of the node's log again while the node runs: is it still what was written?

Nothing else reads the log before the next start, when other disks may have suffered as well.
"""

import time
import zlib
from typing import BinaryIO

from raft.node_log import (
    BATCH_HEADER,
    BATCH_MAGIC,
    RECEIPT_SIZES,
    SEGMENT_HEADER,
    Corruption,
)

PAUSE_BYTES = 256 << 10
PAUSE_S = 0.002
"""After so many bytes the thread lets others run for so long."""
_ZEROS_BYTES = 1 << 20


def check_segment(file: BinaryIO, number: int, synced: int | None, first: int | None) -> int | None:
    """Verify every batch of a segment.

    Args:
        file: Its content, from the beginning.
        number: Of the segment.
        synced: Bytes of it that must be there, what follows may be half written; None: it is complete, and nothing
            but zeros may follow its last batch.
        first: Number of the batch that it must begin with; None if that is not known.

    Returns:
        Number of the batch behind its last one; None for a segment with nothing durable in it.

    Raises:
        Corruption: It is not whole.
    """
    if synced == 0:
        return None
    head = file.read(SEGMENT_HEADER.size)
    if len(head) < SEGMENT_HEADER.size:
        raise Corruption(f"segment {number} is cut off")
    magic, written, expected, checksum = SEGMENT_HEADER.unpack(head)
    if magic not in RECEIPT_SIZES or (written, checksum) != (number, zlib.crc32(head[:-4])):
        raise Corruption(f"segment {number} has a damaged header")
    if first not in (None, expected):
        raise Corruption(f"segment {number} begins at batch {expected}, expected {first}")
    receipt_size = RECEIPT_SIZES[magic]
    seed = number & 0xFFFFFFFF
    position = SEGMENT_HEADER.size
    pause = PAUSE_BYTES
    while synced is None or position < synced:
        head = file.read(BATCH_HEADER.size)
        if synced is None and not head.strip(b"\0"):
            break
        if len(head) < BATCH_HEADER.size:
            raise Corruption(f"segment {number} is damaged at {position}")
        magic, sequence, length, checksum, own = BATCH_HEADER.unpack(head)
        is_whole = (magic, sequence, own) == (BATCH_MAGIC, expected, zlib.crc32(head[:-4], seed))
        # (A length is believed only when its header's checksum is good.)
        if not is_whole or zlib.crc32(file.read(length), seed) != checksum:
            raise Corruption(f"segment {number} is damaged at {position}")
        # (A receipt says something only while its batch is the last, and may not be there yet.)
        file.read(receipt_size)
        position += BATCH_HEADER.size + length + receipt_size
        expected += 1
        if position > pause:
            pause = position + PAUSE_BYTES
            time.sleep(PAUSE_S)
    if synced is None:
        while rest := file.read(_ZEROS_BYTES):
            if rest.strip(b"\0"):
                raise Corruption(f"segment {number} is damaged behind {position}")
    return int(expected)
