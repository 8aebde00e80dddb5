"""Replies as bytes: heads from constants, one per second and kind, then the body.

Every reply carries `x-amzn-RequestId` and `x-amz-crc32`, as SDKs expect. The checksum is of the bytes as sent, so
of the compressed ones if they are (smithy-lang/smithy-rs issue 129, on what the service does).
"""

import zlib
from collections.abc import Callable, Mapping
from email.utils import formatdate

from router.transports.http_headers import sent_as

JSON_1_0 = b"application/x-amz-json-1.0"
JSON = b"application/json"
TEXT = b"text/plain"

COMPRESS_BYTES_MIN = 4 << 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_MANY_CONNECTIONS = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
UNKNOWN_OPERATION_PAGE = b"<UnknownOperationException/>\n"
DAMAGED_BODY = b'{"__type":"com.amazon.coral.service#SerializationException"}'

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    408: "Request Timeout",
    413: "Request Entity Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
# As the service sends them (ScyllaDB's Alternator, server.cc; the age: dynalite).
_CORS_LINES = (
    "Access-Control-Allow-Origin: *",
    "Access-Control-Expose-Headers: x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,Date",
)
_CORS_MAX_AGE_S = 172_800

_crc32 = zlib.crc32


class Responses:
    """Makes replies. Heads are kept until the `Date` in them is no longer true."""

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._date = ""
        self._heads: dict[tuple[int, bytes, bool, bytes, bool], bytes] = {}
        self.tick()

    def tick(self) -> None:
        """Look at the clock; to be called about once a second."""
        date = formatdate(self._wall_clock(), usegmt=True)
        if date != self._date:
            self._date = date
            self._heads.clear()

    def render(
        self,
        status: int,
        request_id: bytes,
        body: bytes,
        content_type: bytes,
        keep_alive: bool,
        coding: bytes = b"",
        cors: bool = False,
    ) -> bytes:
        """Head and body.

        Args:
            status: HTTP status.
            request_id: For `x-amzn-RequestId`.
            body: May be empty.
            content_type: Empty for no such header.
            keep_alive: Whether the connection goes on.
            coding: gzip or deflate if the client asks for it; small bodies are not worth it.
            cors: Whether a browser's script is to see the reply.
        """
        if coding:
            if len(body) >= COMPRESS_BYTES_MIN:
                body = _compress(body, coding)
            else:
                coding = b""
        head = self._heads.get((status, content_type, keep_alive, coding, cors))
        if head is None:
            head = self._make_head(status, content_type, keep_alive, coding, cors)
        return b"%b%b\r\nx-amz-crc32: %d\r\nContent-Length: %d\r\n\r\n%b" % (
            head,
            request_id,
            _crc32(body),
            len(body),
            body,
        )

    def _make_head(
        self, status: int, content_type: bytes, keep_alive: bool, coding: bytes, cors: bool
    ) -> bytes:
        """A head up to the value of x-amzn-RequestId."""
        lines = [
            f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}",
            "Server: Server",
            f"Date: {self._date}",
        ]
        if content_type:
            lines.append(f"Content-Type: {content_type.decode()}")
        if coding:
            lines.append(f"Content-Encoding: {coding.decode()}")
        if not keep_alive:
            lines.append("Connection: close")
        if cors:
            lines += _CORS_LINES
        lines.append("x-amzn-RequestId: ")
        head = "\r\n".join(lines).encode()
        self._heads[(status, content_type, keep_alive, coding, cors)] = head
        return head

    def render_preflight(
        self, request_id: bytes, headers: Mapping[bytes, bytes], keep_alive: bool
    ) -> bytes:
        """The answer to OPTIONS with an `Origin`: scripts may send what they ask for (nothing is authenticated)."""
        lines = [
            "HTTP/1.1 200 OK",
            "Server: Server",
            f"Date: {self._date}",
            "Content-Length: 0",
            *_CORS_LINES,
            f"Access-Control-Max-Age: {_CORS_MAX_AGE_S}",
            f"x-amzn-RequestId: {request_id.decode()}",
        ]
        for asked, granted in (
            (b"access-control-request-headers", "Access-Control-Allow-Headers"),
            (b"access-control-request-method", "Access-Control-Allow-Methods"),
        ):
            value = headers.get(sent_as(headers, asked))
            if value is not None:
                lines.append(f"{granted}: {value.decode('latin-1')}")
        if not keep_alive:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _compress(body: bytes, encoding: bytes) -> bytes:
    window = 31 if encoding == b"gzip" else 15
    compressor = zlib.compressobj(level=1, wbits=window)
    return compressor.compress(body) + compressor.flush()
