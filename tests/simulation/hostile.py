"""Batches that no honest host sends: damaged bytes, and messages of the right types that make no sense.

Links carry a checksum (`proto/frames.py`), so this is what a faulty or foreign peer sends, not a bad cable. What
is promised: the host lives, the replica that is spoken to fails at worst, and no other group notices, not even
at the next recovery of the log.
"""

import random

import msgspec

from raft.wire import Append, BadBatch, Message, decode_batch, encode_batch

# Type-correct and absurd; also what lies just past the borders of the types.
NUMBERS = (0, 1, 2, 9, 11, 1 << 20, 1 << 40, 1 << 61, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1)
TIMES = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e18)
COMMANDS = (
    b"",
    b"\x00",
    b"\x01",
    b"\x02",
    b"\x03x",
    b"\x10",
    b"\x10\x93",
    b"\xfe",
    b"\xff",
    b"\x00junk",
)


def damaged(rng: random.Random, payload: bytes, group: int) -> bytes:
    """A broken copy of a batch; nonsense that decodes is about this group alone."""
    if rng.random() < 0.3:
        noise = _noise(rng, payload)
        if not _decodes(noise):
            return noise
    candidates = [m for m in decode_batch(payload) if m.group == group]
    if not candidates:
        return _noise(rng, payload)[: rng.randrange(3)]
    return encode_batch([_absurd(rng, rng.choice(candidates)) for _ in range(rng.randint(1, 3))])


def _decodes(payload: bytes) -> bool:
    try:
        decode_batch(payload)
    except BadBatch:
        return False
    return True


def _noise(rng: random.Random, payload: bytes) -> bytes:
    data = bytearray(payload)
    draw = rng.random()
    if draw < 0.3:
        return bytes(data[: rng.randrange(len(data) + 1)])
    if draw < 0.5:
        return rng.randbytes(rng.randrange(200))
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _absurd(rng: random.Random, message: Message) -> Message:
    """The message with one to three of its members replaced (its group and target stay)."""
    changes: dict[str, object] = {}
    names = [n for n in message.__struct_fields__ if n not in ("group", "target")]
    for name in rng.sample(names, min(len(names), rng.randint(1, 3))):
        value = getattr(message, name)
        if name == "entries":
            changes[name] = _entries(rng, message)
        elif isinstance(value, bool):
            changes[name] = not value
        elif isinstance(value, float):
            changes[name] = rng.choice(TIMES)
        else:
            near = value + rng.randint(-3, 3)
            changes[name] = rng.choice((rng.choice(NUMBERS), near))
    return msgspec.structs.replace(message, **changes)


def _entries(rng: random.Random, message: Message) -> list[tuple[bytes, int, int]]:
    assert isinstance(message, Append)
    index, entries = message.previous_index, []
    for _ in range(rng.randint(0, 4)):
        index += rng.choice((1, 1, 1, 0, 2, -1))
        term = rng.choice((message.term, message.term, message.previous_term, -1, 1 << 63))
        entries.append((rng.choice(COMMANDS), index, term))
    return entries
