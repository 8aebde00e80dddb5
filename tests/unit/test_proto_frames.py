"""Frames: whatever pieces they arrive in, whole or refused."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.frames import FRAME_VERSION, HEADER, BadFrame, FrameReader, encode_frame
from proto.messages import Action, Get, Hello, NotLeader, RaftBatch, Value, Write

MESSAGES = [
    Hello(1, "c", "router", "n", "router-0", "az1"),
    Get(1, 2, b"\x00key", True, 500),
    Write(3, 4, b"r" * 16, [Action(0, b"k", b"{}", 5, condition="a = :b", values=b"{}")], 100),
    Value(1, None),
    Value(2, b"\xff" * 1000),
    RaftBatch(b"opaque"),
    NotLeader(9, None),
]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_any_cut_gives_the_same_frames(cuts):
    stream = encode_frame(MESSAGES) + encode_frame(MESSAGES[:1]) + encode_frame([])
    reader, got, position, n = FrameReader(), [], 0, 0
    while position < len(stream):
        size = cuts[n % len(cuts)]
        got += reader.feed(stream[position : position + size])
        position, n = position + size, n + 1
    assert got == [MESSAGES, MESSAGES[:1], []]


@pytest.mark.parametrize("position", range(HEADER.size + 3))
def test_a_flipped_bit_is_refused(position):
    frame = bytearray(encode_frame([Get(1, 2, b"key", True)]))
    frame[position] ^= 0x10
    with pytest.raises(BadFrame):
        # A changed length may wait for more bytes; give it enough of them.
        FrameReader(1 << 16).feed(bytes(frame) + b"\x00" * (1 << 17))


def frame_of(payload: bytes) -> bytes:
    return HEADER.pack(len(payload), zlib.crc32(payload), FRAME_VERSION) + payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x01",
        b"\x91\x01",
        b"\x91\x92\xcd\x7f\xff\x01",  # an unknown message code
        b"\x91\x93\x0b\x01\x02",  # a Get that lacks members
        b"\x91\x95\x0b\xa1x\x02\xc4\x01k\xc3",  # a Get whose id is a string
        b"\x91" * 5000,
    ],
)
def test_a_payload_that_is_no_list_of_messages_is_refused(payload):
    with pytest.raises(BadFrame):
        FrameReader().feed(frame_of(payload))


def test_an_oversized_frame_is_refused_before_it_is_read():
    with pytest.raises(BadFrame, match="limit"):
        FrameReader(1000).feed(struct.pack("<IIB", 1001, 0, FRAME_VERSION))
