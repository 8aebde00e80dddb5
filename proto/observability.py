"""What every process shows of itself: `/metrics`, `/healthz`, `/readyz` on a small HTTP server of its own.

Also here, because all three kinds of process share it: reading `host:port`, and the rule that nothing listens
beyond loopback unless told to (`check_loopback`). Never here: requests of clients.
"""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

REQUEST_BYTES_MAX = 16 << 10
REQUEST_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 64

_TEXT = "text/plain; charset=utf-8"


class ListenRefused(SystemExit):
    """An address that this process may not listen on; uncaught, it ends the process with its message."""


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (every interface); port 0 picks a free one.

    Raises:
        ValueError: No such thing; argparse turns it into its own error.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r}: expected host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address is written [address]:port")
    if not (port_text.isascii() and port_text.isdigit()) or int(port_text) > 65535:
        raise ValueError(f"{text!r}: the port must be a number from 0 to 65535")
    return host or "0.0.0.0", int(port_text)


def format_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to `host`. Names other than localhost: no."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_loopback(address: str, insecure: bool) -> None:
    """Refuse an address beyond loopback unless `insecure`, and log a warning then.

    Requests are not authenticated and links are not encrypted: whoever reaches the port owns the data.

    Raises:
        ListenRefused: With the flag that would allow it.
        ValueError: `address` is not `host:port`.
    """
    host, _ = parse_listen(address)
    if is_loopback(host):
        return
    if not insecure:
        raise ListenRefused(
            f"quorate: refusing to listen on {address}: it is not a loopback address, and nothing "
            "authenticates those who connect. Keep the network closed to strangers and pass --insecure "
            "to allow it."
        )
    log.warning(
        "listening beyond loopback without authentication or encryption",
        extra={"address": address},
    )


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
