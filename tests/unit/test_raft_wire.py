"""Raft's wire: what goes in comes out, and nothing else comes in."""

import msgspec
import pytest

from raft.wire import (
    ACK_SUCCESS,
    Ack,
    Append,
    BadBatch,
    PreVoteAnswer,
    PreVoteRequest,
    SnapshotNotice,
    StaleTerm,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
    decode_batch,
    encode_batch,
)

MESSAGES = [
    Append(1, 2, 3, 4, 5, 6, 7.5, 8, 4, [(b"\0x", 9, 4), (b"\x01", 10, 4)]),
    Ack(1, 2, 3, 4, 5, 6.5, 7, ACK_SUCCESS),
    VoteRequest(1, 2, 3, 4, 5, 6, True),
    VoteGrant(1, 2, 3, 4),
    PreVoteRequest(1, 2, 3, 4, 5, 6, 7),
    PreVoteAnswer(1, 2, 3, 4, 5, False),
    TimeoutNow(1, 2, 3, 4),
    StaleTerm(1, 2, 3, 4),
    SnapshotNotice(1, 2, 3, 4, 5, 6, 7, 8.5),
]


def test_round_trip():
    assert decode_batch(encode_batch(MESSAGES)) == MESSAGES


pack = msgspec.msgpack.encode


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        pack([2, []]),
        pack([1, [[99, 1, 2, 3]]]),
        pack([1, [["apply_command", b"x"]]]),
        pack([1, [[4, 1, 2, 3]]]),
        pack([1, [[4, 1, 2, 3, -4]]]),
        pack([1, [[4, 1, 2, 3, "4"]]]),
        pack([1, [[1, 1, 2, 3, 4, 5, 6, 7.5, 8, 4, [["text", 9, 4]]]]]),
        pack([1, [[1, 1, 2, 3, 4, 5, 6, 7.5, 8, 4, [[b"x", 9]]]]]),
        encode_batch(MESSAGES)[:-1],
        encode_batch(MESSAGES) + b"x",
    ],
)
def test_anything_else_is_refused(payload):
    with pytest.raises(BadBatch):
        decode_batch(payload)
