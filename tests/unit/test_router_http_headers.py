"""The body of a request as its coding headers say."""

import gzip
import time
import zlib

import pytest

from datamodel.limits import REQUEST_SIZE_BYTES_MAX
from router.transports.http_headers import GZIP_MEMBERS_MAX, decompress


def _members(*parts):
    return b"".join(gzip.compress(part, mtime=0) for part in parts)


@pytest.mark.parametrize(
    ("body", "coding", "found"),
    [
        (b"{}", b"", b"{}"),
        (b"{}", b"identity", b"{}"),
        (b"{}", b"br", None),
        (zlib.compress(b"{}"), b"deflate", b"{}"),
        (_members(b"{}"), b"GZIP ", b"{}"),
        (_members(b"{", b"", b"}"), b"gzip", b"{}"),
        (_members(b"{}") + b"more", b"gzip", b"{}"),
        (_members(b"{}") + bytes(20), b"gzip", b"{}"),
        (_members(b"{}")[:-1], b"gzip", None),
        (_members(b"{}", b" ")[:-1], b"gzip", None),
        (_members(b"{}") + b"\x1f\x8b\x08 is no member", b"gzip", None),
        (b"", b"gzip", None),
        (b"{}", b"gzip", None),
        (_members(b"{}", *[b""] * GZIP_MEMBERS_MAX), b"gzip", None),
        (_members(bytes(100_000), b"x" * 200_000), b"gzip", bytes(100_000) + b"x" * 200_000),
    ],
)
def test_the_body_as_it_was_before_compression(body, coding, found):
    assert decompress(body, coding) == found


def test_several_members_together_have_the_bound_of_one():
    half = gzip.compress(b" " * (REQUEST_SIZE_BYTES_MAX // 2))
    assert decompress(half + half, b"gzip") == b" " * REQUEST_SIZE_BYTES_MAX
    beyond = decompress(half * 3, b"gzip")
    assert beyond is not None
    assert len(beyond) == REQUEST_SIZE_BYTES_MAX + 1


def test_many_empty_members_cost_little():
    """Each member copied all that was behind it: the square of the body's length, minutes for 16 MB."""
    member = gzip.compress(b"")
    body = member * (REQUEST_SIZE_BYTES_MAX // len(member))
    started = time.process_time()
    assert decompress(body, b"gzip") is None
    assert time.process_time() - started < 2
