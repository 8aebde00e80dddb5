"""The frame: everything one turn of the event loop has for a peer, in one piece.

    frame   := length:u32  crc32:u32  version:u8  payload[length]        (little endian)
    payload := msgpack array of messages (`messages.py`)

`length` and `crc32` are those of the payload. A frame that is too long, of another version, with a wrong
checksum or with a payload that is no list of known messages raises `BadFrame`: the link is closed, nothing
of the frame is acted on.
"""

import struct
import zlib
from collections.abc import Sequence

import msgspec

from proto.messages import Message

FRAME_VERSION = 1
HEADER = struct.Struct("<IIB")
# Two full-size raft appends (raft.settings.append_bytes_max) fit with room to spare; nothing legal is larger.
FRAME_BYTES_MAX = 64 << 20

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Message]).decode
_HEADER_SIZE = HEADER.size
_crc32 = zlib.crc32


class BadFrame(Exception):
    """The peer sent bytes that are no frame of this protocol."""


def encode_frame(messages: Sequence[Message]) -> bytes:
    """Bytes of one frame that carries `messages` in order."""
    payload = _encode(messages)
    return HEADER.pack(len(payload), _crc32(payload), FRAME_VERSION) + payload


class FrameReader:
    """Cuts a byte stream into frames, whatever pieces the stream arrives in."""

    __slots__ = ("_buffer", "_bytes_max", "_need")

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max
        self._need = _HEADER_SIZE

    def feed(self, data: bytes) -> list[list[Message]]:
        """Take bytes as they came; return the messages of every frame now complete.

        Raises:
            BadFrame: The stream is damaged or not of this protocol; do not feed more.
        """
        # The common case: no remainder, and whole frames only.
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            source: bytes = bytes(self._buffer)
            self._buffer.clear()
        else:
            source = data
        frames: list[list[Message]] = []
        position, end = 0, len(source)
        self._need = _HEADER_SIZE
        while end - position >= _HEADER_SIZE:
            length, checksum, version = HEADER.unpack_from(source, position)
            if version != FRAME_VERSION:
                raise BadFrame(f"frame version {version}, expected {FRAME_VERSION}")
            if length > self._bytes_max:
                raise BadFrame(f"frame of {length} bytes, limit {self._bytes_max}")
            stop = position + _HEADER_SIZE + length
            if stop > end:
                self._need = _HEADER_SIZE + length
                break
            payload = source[position + _HEADER_SIZE : stop]
            if _crc32(payload) != checksum:
                raise BadFrame("frame checksum does not match")
            try:
                frames.append(_decode(payload))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise BadFrame(f"frame payload: {error}") from error
            position = stop
        if position < end:
            self._buffer += source[position:]
        return frames
