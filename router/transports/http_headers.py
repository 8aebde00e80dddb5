"""Headers of a request: finding them however a client spells them, and what the coding headers ask for."""

import zlib
from collections.abc import Iterable
from functools import lru_cache

from datamodel.limits import REQUEST_SIZE_BYTES_MAX

TARGET_PREFIXES = (b"DynamoDB_20120810.", b"DynamoDBStreams_20120810.")

# How header names were spelled, by the tuple of them; SDKs send few different ones. When there are so many, all are
# forgotten.
SPELLINGS_MAX = 256
# Names that are longer together than those of any SDK are not worth remembering.
SPELLING_BYTES_MAX = 2048
# How a gzip member begins, how many one body may have (each costs a fresh inflater), how much is inflated at once.
GZIP_MEMBER = b"\x1f\x8b\x08"
GZIP_MEMBERS_MAX = 1024
INFLATED_PIECE_BYTES = 64 << 10


class Spelling:
    """The names of the headers that matter, as one kind of client sends them; empty for those it does not.

    Attributes:
        has_origin: Whether a browser's script asks.
        size: Bytes of all headers on the wire but for their values.
    """

    __slots__ = (
        "accept_encoding",
        "content_encoding",
        "content_length",
        "content_type",
        "expect",
        "has_origin",
        "size",
        "target",
        "transfer_encoding",
    )

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self.accept_encoding = sent_as(names, b"accept-encoding")
        self.content_encoding = sent_as(names, b"content-encoding")
        self.content_length = sent_as(names, b"content-length")
        self.content_type = sent_as(names, b"content-type")
        self.expect = sent_as(names, b"expect")
        self.has_origin = bool(sent_as(names, b"origin"))
        self.size = sum(len(name) + len(": \r\n") for name in names)
        self.target = sent_as(names, b"x-amz-target")
        self.transfer_encoding = sent_as(names, b"transfer-encoding")


_known_spellings: dict[tuple[bytes, ...], Spelling] = {}


def spelling_of(names: tuple[bytes, ...]) -> Spelling:
    """How this request spells its headers.

    Looking a known spelling up is cheaper than lower-casing every name of every request.
    """
    return _known_spellings.get(names) or _learn(names)


def _learn(names: tuple[bytes, ...]) -> Spelling:
    spelling = Spelling(names)
    if spelling.size <= SPELLING_BYTES_MAX:
        if len(_known_spellings) >= SPELLINGS_MAX:
            _known_spellings.clear()
        _known_spellings[names] = spelling
    return spelling


def sent_as(headers: Iterable[bytes], name: bytes) -> bytes:
    """The name under which a header was sent, by its lower-case form; empty if it was not."""
    return next((sent for sent in headers if sent.lower() == name), b"")


@lru_cache(maxsize=256)
def operation_of(target: bytes | None) -> str:
    """The operation that an X-Amz-Target names; empty if it names none."""
    if target is not None:
        for prefix in TARGET_PREFIXES:
            if target.startswith(prefix):
                return target[len(prefix) :].decode("latin-1")
    return ""


def path_of(url: bytes) -> bytes:
    """The path that a request names, without its query: `/x?y`, or `http://host/x?y` as proxies are asked."""
    if not url.startswith(b"/"):
        url = b"/" + url.partition(b"://")[2].partition(b"/")[2]
    return url.partition(b"?")[0]


def reply_coding(accept: bytes) -> bytes:
    """The encoding of a large reply that the client asks for; empty for none."""
    for offer in accept.lower().split(b","):
        coding, _, quality = offer.partition(b";")
        coding = coding.strip()
        refused = quality.replace(b" ", b"").rstrip(b"0.") == b"q="
        if coding in (b"gzip", b"deflate") and not refused:
            return coding
    return b""


def decompress(body: bytes, coding: bytes) -> bytes | None:
    """The body as it was before compression; never much more than a request may have. None: it is damaged."""
    name = coding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    try:
        return _inflate(body)
    except zlib.error:
        return None


def _inflate(body: bytes) -> bytes | None:
    """Several gzip members are one body (RFC 1952, 2.2). What follows the last is ignored, as on the service."""
    parts: list[bytes] = []
    room = REQUEST_SIZE_BYTES_MAX + 1
    at = 0
    members = 0
    view = memoryview(body)
    while members == 0 or body.startswith(GZIP_MEMBER, at):
        members += 1
        if members > GZIP_MEMBERS_MAX:
            return None
        # 47: gzip or zlib, as its header says.
        inflater = zlib.decompressobj(wbits=47)
        while not inflater.eof:
            # In pieces, because what is behind a member's end is copied.
            piece = view[at : at + INFLATED_PIECE_BYTES]
            if not piece:
                return None
            part = inflater.decompress(piece, room)
            parts.append(part)
            room -= len(part)
            if room == 0:
                return b"".join(parts)
            at += len(piece) - len(inflater.unused_data)
    return b"".join(parts)
