"""Raft's messages between two nodes: typed, bounded, never unpickled.

    batch   := msgpack array [version, [message, ...]]
    message := msgpack array [tag, group, source, target, ...]       (one struct of this module)

Tags are never reused. A batch that does not decode to exactly these types is refused whole; which of its
contents make sense is `guard.py`'s to decide. `source` and `target` are replica ids inside `group`.
"""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec

WIRE_VERSION = 1

# No index, term or id of ours gets near the limit; below it, sums of two still fit the log's 64 bits.
Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
# As it stands in a log: command (first byte is its type), index, term.
Entry: TypeAlias = tuple[bytes, int, int]


class Append(msgspec.Struct, array_like=True, tag=1, gc=False, frozen=True):
    """Leader to follower: entries behind (`previous_index`, `previous_term`), or none of them.

    `previous_index` 0 verifies nothing: it is a sign of life, and its `commit` moves nothing. `sequence` and
    `sent_at` (the leader's own clock) come back in the ack; `sequence` 0 asks for no ack.
    """

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    commit: Natural
    sequence: Natural
    sent_at: float
    previous_index: Natural
    previous_term: Natural
    entries: list[Entry]


# What an ack says. A success claims that everything below `next_index` is durable and equal to the leader's.
ACK_HEARD = 0
ACK_SUCCESS = 1
ACK_RESET = 2


class Ack(msgspec.Struct, array_like=True, tag=2, gc=False, frozen=True):
    """Follower to leader: the answer to the append (or notice) of this term with this sequence."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    sequence: Natural
    sent_at: float
    next_index: Natural
    kind: Natural


class VoteRequest(msgspec.Struct, array_like=True, tag=3, gc=False, frozen=True):
    """Candidate to voter. `is_transfer`: the leader itself asked for this election."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    last_index: Natural
    last_term: Natural
    is_transfer: bool


class VoteGrant(msgspec.Struct, array_like=True, tag=4, gc=False, frozen=True):
    """Voter to candidate: my vote of `term` is durably yours."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural


class PreVoteRequest(msgspec.Struct, array_like=True, tag=5, gc=False, frozen=True):
    """Would you vote for me in `term`? Changes nothing on either side."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    round: Natural
    last_index: Natural
    last_term: Natural


class PreVoteAnswer(msgspec.Struct, array_like=True, tag=6, gc=False, frozen=True):
    """The answer to that round; `term` is the answerer's current one."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    round: Natural
    is_granted: bool


class TimeoutNow(msgspec.Struct, array_like=True, tag=7, gc=False, frozen=True):
    """Leader to its chosen successor: stand for election at once."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural


class StaleTerm(msgspec.Struct, array_like=True, tag=8, gc=False, frozen=True):
    """To whoever spoke in an older term: the term is `term`."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural


class SnapshotNotice(msgspec.Struct, array_like=True, tag=9, gc=False, frozen=True):
    """Leader to follower: my log begins behind what you lack; fetch a snapshot at or past (index, term)."""

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    index: Natural
    index_term: Natural
    sequence: Natural
    sent_at: float


class CommitRequest(msgspec.Struct, array_like=True, tag=10, gc=False, frozen=True):
    """Follower to leader: somebody waits here for `index` to be committed; tell me at once, without the usual
    pause. It claims nothing and changes nothing that is replicated.
    """

    group: Natural
    source: Natural
    target: Natural
    term: Natural
    index: Natural


Message: TypeAlias = (
    Append
    | Ack
    | VoteRequest
    | VoteGrant
    | PreVoteRequest
    | PreVoteAnswer
    | TimeoutNow
    | StaleTerm
    | SnapshotNotice
    | CommitRequest
)


class Batch(msgspec.Struct, array_like=True, gc=False):
    """All messages that one turn has for one peer."""

    version: int
    messages: list[Message]


class BadBatch(Exception):
    """The peer sent bytes that are no batch of this protocol."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


def encode_batch(messages: Sequence[Message]) -> bytes:
    """Bytes of one batch."""
    return _encode((WIRE_VERSION, messages))


def decode_batch(payload: bytes) -> list[Message]:
    """The messages of one batch.

    Raises:
        BadBatch: Not a batch of this version, or anything in it is of another type than declared.
    """
    try:
        batch = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBatch(str(error)) from error
    if batch.version != WIRE_VERSION:
        raise BadBatch(f"wire version {batch.version}, expected {WIRE_VERSION}")
    return batch.messages
