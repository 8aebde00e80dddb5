"""What every process shows of itself: `/metrics`, `/healthz`, `/readyz` on a small HTTP server of its own.

Never here: requests of clients.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX = 16 << 10
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64

_TEXT = "text/plain; charset=utf-8"


async def serve_metrics(
    host: str,
    port: int,
    readiness: Callable[[], bool],
    registry: CollectorRegistry = REGISTRY,
) -> asyncio.Server:
    """Serve `/metrics`, `/healthz` (200 while the loop turns) and `/readyz` (200 or 503) over HTTP/1.1.

    One answer per connection. At most `CONNECTIONS_MAX` connections, each `REQUEST_TIMEOUT_S` and
    `REQUEST_BYTES_MAX` of request at most; beyond that a connection is closed. Whatever arrives, nothing but
    that connection is affected.

    Args:
        host: Address to listen on.
        port: Port, 0 for a free one (`server.sockets[0].getsockname()[1]` tells which).
        readiness: Whether the process can do its work now.
        registry: What `/metrics` shows.
    """
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        if connections >= CONNECTIONS_MAX:
            writer.close()
            return
        connections += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_respond(head, readiness, registry))
                await writer.drain()
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            asyncio.CancelledError,
        ):
            # A prober that left, no HTTP at all, or the loop is closing; the task ends here either way, and
            # asyncio's stream server would report a cancelled one as an error.
            pass
        except Exception:
            log.exception("metrics request failed")
        finally:
            connections -= 1
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    return await asyncio.start_server(serve, host, port, limit=REQUEST_BYTES_MAX)


def _respond(head: bytes, readiness: Callable[[], bool], registry: CollectorRegistry) -> bytes:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _answer("400 Bad Request", b"not HTTP/1\n")
    method, target, _ = words
    if method not in (b"GET", b"HEAD"):
        return _answer("405 Method Not Allowed", b"only GET and HEAD\n")
    with_body = method == b"GET"
    match target.split(b"?", 1)[0]:
        case b"/metrics":
            body = generate_latest(registry)
            return _answer("200 OK", body, content_type=CONTENT_TYPE_LATEST, with_body=with_body)
        case b"/healthz":
            return _answer("200 OK", b"ok\n", with_body=with_body)
        case b"/readyz":
            if readiness():
                return _answer("200 OK", b"ready\n", with_body=with_body)
            return _answer("503 Service Unavailable", b"not ready\n", with_body=with_body)
        case _:
            return _answer("404 Not Found", b"/metrics, /healthz or /readyz\n", with_body=with_body)


def _answer(
    status: str, body: bytes, *, content_type: str = _TEXT, with_body: bool = True
) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body if with_body else head.encode()
