"""One client's connection to the HTTP front door: bytes to requests, replies to bytes.

Here: parsing (httptools does it), bounds and timeouts, the order of transport-level checks. Not here: what an
operation does (`dispatch`). Requests are not authenticated yet: anonymous ones and any signature are accepted, and
no time is spent on either.

Requests may be pipelined; replies leave in the order of the requests, each head and body in one write. After
`connection_lost` a late reply is dropped.

Order of checks, as observed on the service by the authors of dynalite: body too large, GET, OPTIONS with an
`Origin`, other methods and content types, unparsable body, target, empty body; then the operation's own. Paths
other than `/` are unknown, and only a request with an `Origin` is answered with CORS headers (ScyllaDB's tests of
Alternator, which pass on the service).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from datamodel.limits import REQUEST_SIZE_BYTES_MAX
from router.context import Dispatch, RequestContext
from router.transports.http_headers import (
    decompress,
    operation_of,
    path_of,
    reply_coding,
    sent_as,
    spelling_of,
)
from router.transports.responses import (
    CONTINUE,
    DAMAGED_BODY,
    JSON,
    JSON_1_0,
    TEXT,
    TOO_MANY_CONNECTIONS,
    UNKNOWN_OPERATION_PAGE,
    Responses,
)

log = logging.getLogger(__name__)

# What the service takes (scylladb #23438, #23442); more is a bad request. A header that is sent twice counts once.
REQUEST_LINE_BYTES_MAX = 16 << 10
HEADERS_BYTES_MAX = 16 << 10
# Requests of one connection that wait for their reply; past that we do not read on.
PIPELINED_MAX = 32
# Bytes of replies that a client has not taken yet; past that we do not read on.
UNREAD_REPLY_BYTES_MAX = 1 << 20
CONNECTIONS_MAX = 10_000
# Bytes of bodies that are still arriving, over all connections; past that a request is told to come back later.
# Bodies that arrive in one piece are not counted: they are handed on at once.
ARRIVING_BYTES_MAX = 256 << 20
# Where GET is answered that the service is healthy.
GREETED_PATHS = (b"/", b"/ping")
IDLE_TIMEOUT_S = 120.0
# From a request's first byte to its last.
RECEIVE_TIMEOUT_S = 30.0
# How long a client may leave replies unread.
UNREAD_TIMEOUT_S = 60.0
# After an error that ends the connection, what the client still sends is read away for this long, so that it
# gets to read the reply instead of a reset.
LINGER_S = 2.0


class Doorway:
    """What the connections of one router share.

    Attributes:
        dispatch: Executes requests.
        is_ready: What `/readyz` says.
        new_request_id: 52 characters of [0-9A-Z], different each time.
        host_name: What the answer to GET calls us if the client does not.
        responses: Makes heads of replies.
        connections: Those that are open.
        time: Monotonic seconds as of the last sweep: timeouts need no better.
        is_draining: Whether every reply ends its connection.
        arriving_bytes: Of bodies that are still arriving.
        on_empty: Called when the last connection of a draining router is gone.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        is_ready: Callable[[], bool],
        new_request_id: Callable[[], bytes],
        responses: Responses,
        host_name: bytes,
        time: float,
    ) -> None:
        self.dispatch = dispatch
        self.is_ready = is_ready
        self.new_request_id = new_request_id
        self.host_name = host_name
        self.responses = responses
        self.connections: set[Connection] = set()
        self.time = time
        self.is_draining = False
        self.arriving_bytes = 0
        self.on_empty: Callable[[], None] = lambda: None

    def forget(self, connection: "Connection") -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.is_draining and not self.connections:
            self.on_empty()


class Exchange(RequestContext):
    """One request and, once it is there, its reply."""

    __slots__ = ("coding", "connection", "content_type", "cors", "data", "is_head", "keep_alive")

    def __init__(
        self,
        request_id: bytes,
        connection: "Connection",
        content_type: bytes,
        keep_alive: bool,
        coding: bytes,
        cors: bool,
    ) -> None:
        self.request_id = request_id
        self.connection = connection
        self.content_type = content_type
        self.keep_alive = keep_alive
        self.coding = coding
        self.cors = cors
        self.is_head = False  # its reply is one to GET without the body
        self.data: bytes | None = None

    def host(self) -> bytes:
        """The Host header."""
        return self.connection.host()

    def reply(self, status: int, body: bytes) -> None:
        """Send, or hold until the replies before it are out."""
        connection = self.connection
        doorway = connection.doorway
        if doorway.is_draining:
            self.keep_alive = False
        self.data = doorway.responses.render(
            status,
            self.request_id,
            body,
            self.content_type,
            self.keep_alive,
            self.coding,
            self.cors,
        )
        if self.is_head:
            self.data = self.data.removesuffix(body)
        connection.replied(self)


class Connection(asyncio.Protocol):
    """One client socket. `on_*` are called by the parser from within `data_received`."""

    def __init__(self, doorway: Doorway) -> None:
        self.doorway = doorway
        self._transport: asyncio.Transport | None = None
        # The parser stores headers straight into the dictionary: names as sent, later ones win.
        self._headers: dict[bytes, bytes] = {}
        self.on_header = self._headers.__setitem__
        self._parser = httptools.HttpRequestParser(self)
        self._spelling = spelling_of(())
        self._url = b""
        self._body = b""
        self._body_parts: list[bytes] | None = None
        self._body_size = 0
        self._arriving_bytes = 0  # what of `doorway.arriving_bytes` is ours
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0
        self._piece_bytes = 0
        self._waiting: deque[Exchange] = deque()
        self._continue_wanted = False
        self._read_paused = False
        self._write_paused = False
        self._deaf = False  # no further request is taken from this connection
        self._since = doorway.time  # of what the timeouts measure: see `check_timeouts`

    @property
    def waiting(self) -> int:
        """Requests without a reply."""
        return len(self._waiting)

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; past the cap it is told so and let go."""
        self._transport = cast("asyncio.Transport", transport)
        self._since = self.doorway.time
        if len(self.doorway.connections) >= CONNECTIONS_MAX:
            self._deaf = True
            self._transport.write(TOO_MANY_CONNECTIONS)
            self._transport.close()
            return
        self._transport.set_write_buffer_limits(high=UNREAD_REPLY_BYTES_MAX)
        self.doorway.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; replies still to come are dropped."""
        self._transport = None
        self._deaf = True
        self._waiting.clear()
        self._drop_parts()
        self.doorway.forget(self)
        del self._parser  # it holds this connection in turn; no byte comes any more

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._deaf:
            return
        self._piece_bytes = len(data)
        rest = data
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self._deaf:
                    return
                head = self._head_without_upgrade()
                self._parser = httptools.HttpRequestParser(self)
                rest = head + rest[upgrade.args[0] :]
            except httptools.HttpParserCallbackError:
                log.exception("http callback failed")
                self.abort()
                return
            except httptools.HttpParserError as error:
                log.debug("malformed http", extra={"reason": str(error)})
                self._refuse(400)
                return
        if self._in_head:
            if self._head_bytes < 0:
                self._head_bytes = 0  # the head began in this piece
            else:
                self._head_bytes += len(data)
                if self._head_bytes > REQUEST_LINE_BYTES_MAX + HEADERS_BYTES_MAX:
                    self._refuse(400)

    def eof_received(self) -> bool:
        """The client sends no more; it may still read replies."""
        if not self._waiting and not self._deaf:
            return False
        self._deaf = True
        if self._waiting:
            self._waiting[-1].keep_alive = False
            return True
        return False

    def pause_writing(self) -> None:
        """The client does not take its replies: take no more requests from it."""
        self._write_paused = True
        self._since = self.doorway.time
        self._balance()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self._since = self.doorway.time
        self._balance()

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        """A request begins."""
        self._headers.clear()
        self._url = b""
        self._body = b""
        self._body_size = 0
        self._in_head = True
        self._in_body = False
        self._head_bytes = -1
        self._since = self.doorway.time

    def on_url(self, url: bytes) -> None:
        """The request target, perhaps in pieces."""
        self._url += url

    def on_headers_complete(self) -> None:
        """The head is there: refuse a body that is too large before it comes."""
        self._in_head = False
        if self._parser.should_upgrade():
            # The parser leaves off behind the head of such a request; `data_received` takes it up again.
            if self._parser.get_method() == b"CONNECT":
                self._refuse(400)
            return
        self._in_body = True
        headers = self._headers
        self._spelling = spelling = spelling_of(tuple(headers))
        # A head that came as a part of one piece of usual size needs no look.
        if (self._head_bytes >= 0 or self._piece_bytes > HEADERS_BYTES_MAX) and (
            spelling.size + sum(map(len, headers.values())) > HEADERS_BYTES_MAX
            or len(self._url) + len("POST  HTTP/1.1") > REQUEST_LINE_BYTES_MAX
        ):
            self._refuse(400)
            return
        if spelling.transfer_encoding and headers[spelling.transfer_encoding].lower() != b"chunked":
            self._refuse(
                400
            )  # another coding around or before the chunks: we would take it for the body
            return
        length = headers.get(spelling.content_length)
        # Numbers of fewer digits than the bound's are below it.
        if length is not None and len(length) > 7 and int(length) > REQUEST_SIZE_BYTES_MAX:
            self._refuse(413)
        elif spelling.expect and headers[spelling.expect].lower() == b"100-continue":
            if self._waiting:
                self._continue_wanted = True
            elif self._transport is not None:
                self._transport.write(CONTINUE)

    def on_body(self, piece: bytes) -> None:
        """Part of the body."""
        if self._deaf:
            return
        self._body_size += len(piece)
        if self._body_size > REQUEST_SIZE_BYTES_MAX:
            self._refuse(413)
        elif not self._body:
            self._body = piece
        else:
            if self._body_parts is None:
                self._body_parts = [self._body]
            self._body_parts.append(piece)
            self.doorway.arriving_bytes += len(piece)
            self._arriving_bytes += len(piece)
            if self.doorway.arriving_bytes > ARRIVING_BYTES_MAX:
                self._refuse(503)

    def _drop_parts(self) -> None:
        self._body_parts = None
        self.doorway.arriving_bytes -= self._arriving_bytes
        self._arriving_bytes = 0

    def on_message_complete(self) -> None:
        """A request is whole: execute it."""
        if self._deaf or not self._in_body:
            return
        self._in_body = False
        self._continue_wanted = False
        body = self._body
        if self._body_parts is not None:
            body = b"".join(self._body_parts)
            self._drop_parts()
        self._body = b""
        headers = self._headers
        parser = self._parser
        spelling = self._spelling
        content_type = headers.get(spelling.content_type)
        accept = headers.get(spelling.accept_encoding)
        exchange = Exchange(
            self.doorway.new_request_id(),
            self,
            JSON_1_0,
            parser.should_keep_alive(),
            b"" if accept is None or accept == b"identity" else reply_coding(accept),
            spelling.has_origin,
        )
        self._waiting.append(exchange)
        if not exchange.keep_alive:
            self._deaf = True
        if len(self._waiting) >= PIPELINED_MAX:
            self._balance()
        if parser.get_method() != b"POST":
            self._answer_other_method(exchange, parser.get_method())
            return
        if self._url != b"/" and path_of(self._url) != b"/":
            self._answer_unknown_page(exchange)
            return
        if content_type != JSON_1_0:
            media_type = (content_type or b"").split(b";", 1)[0].strip().lower()
            if media_type == JSON:
                exchange.content_type = JSON
            elif media_type != JSON_1_0:
                self._answer_unknown_page(exchange)
                return
        if spelling.content_encoding:
            inflated = decompress(body, headers[spelling.content_encoding])
            if inflated is None:
                exchange.reply(400, DAMAGED_BODY)
                return
            if len(inflated) > REQUEST_SIZE_BYTES_MAX:
                exchange.content_type = b""
                exchange.reply(413, b"")
                return
            body = inflated
        operation = operation_of(headers.get(spelling.target))
        self.doorway.dispatch(operation, body, exchange, exchange.reply)

    def _head_without_upgrade(self) -> bytes:
        """The head of the request at hand without its wish to change the protocol, which may be ignored."""
        lines = [b"%b %b HTTP/1.1" % (self._parser.get_method(), self._url)]
        lines += [
            b"%b: %b" % (name, value)
            for name, value in self._headers.items()
            if name.lower() not in (b"upgrade", b"connection", b"http2-settings")
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    # --- answers without an operation ---

    def _answer_other_method(self, exchange: Exchange, method: bytes) -> None:
        path = path_of(self._url)
        exchange.content_type = TEXT
        exchange.coding = b""
        if method == b"GET" or (method == b"HEAD" and path in (b"/readyz", b"/healthz")):
            exchange.is_head = method == b"HEAD"
            if path == b"/readyz":
                ready = self.doorway.is_ready()
                exchange.reply(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
            elif path == b"/healthz":
                exchange.reply(200, b"ok\n")
            elif path in GREETED_PATHS:
                exchange.reply(200, b"healthy: %b " % (self.host() or self.doorway.host_name))
            else:
                self._answer_unknown_page(exchange)
        elif method == b"OPTIONS" and exchange.cors and path == b"/":
            exchange.data = self.doorway.responses.render_preflight(
                exchange.request_id, self._headers, exchange.keep_alive
            )
            self.replied(exchange)
        else:
            self._answer_unknown_page(exchange)

    def _answer_unknown_page(self, exchange: Exchange) -> None:
        exchange.content_type = b""
        exchange.coding = b""
        exchange.is_head = self._parser.get_method() == b"HEAD"
        exchange.reply(404, UNKNOWN_OPERATION_PAGE)

    def _refuse(self, status: int) -> None:
        """Answer without a body and take nothing more from this connection."""
        if self._deaf:
            return
        self._deaf = True
        self._body = b""
        self._drop_parts()
        # Before the body, the spelling is of the last request.
        cors = self._in_body and self._spelling.has_origin
        exchange = Exchange(self.doorway.new_request_id(), self, b"", False, b"", cors)
        self._waiting.append(exchange)
        exchange.reply(status, b"")

    # --- replies ---

    def replied(self, exchange: Exchange) -> None:
        """A reply is there: send it and those it held back, in order."""
        transport = self._transport
        waiting = self._waiting
        if transport is None or not waiting:
            return
        if waiting[0] is not exchange:
            return
        waiting.popleft()
        data = exchange.data
        assert data is not None
        keep_alive = exchange.keep_alive
        if waiting and waiting[0].data is not None:
            parts = [data]
            while waiting and waiting[0].data is not None:
                exchange = waiting.popleft()
                parts.append(cast("bytes", exchange.data))
                keep_alive = keep_alive and exchange.keep_alive
            data = b"".join(parts)
        transport.write(data)
        self._since = self.doorway.time
        if not keep_alive:
            self._finish(transport)
            return
        if self._continue_wanted and not waiting:
            self._continue_wanted = False
            transport.write(CONTINUE)
        if self._read_paused:
            self._balance()

    def _finish(self, transport: asyncio.Transport) -> None:
        """The last reply is out: close, reading away for a moment what may still come."""
        self._deaf = True
        self._waiting.clear()
        if transport.can_write_eof():
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, transport.close)
        else:
            transport.close()

    def _balance(self) -> None:
        """Read only while the client takes its replies and not too many requests wait."""
        transport = self._transport
        pause = self._write_paused or len(self._waiting) >= PIPELINED_MAX
        if transport is None or pause == self._read_paused or transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def host(self) -> bytes:
        """The Host header of the request that came last."""
        return self._headers.get(sent_as(self._headers, b"host"), b"")

    # --- time and the end ---

    def check_timeouts(self, now: float) -> None:
        """Called every `SWEEP_INTERVAL_S`: end a connection that takes too long."""
        silent_s = now - self._since
        if self._write_paused:
            if silent_s > UNREAD_TIMEOUT_S:
                self.abort()
        elif self._in_head or self._in_body:
            if silent_s > RECEIVE_TIMEOUT_S and not self._waiting:
                self._refuse(408)
        elif not self._waiting and silent_s > IDLE_TIMEOUT_S:
            self.abort()

    def close_when_idle(self) -> None:
        """Close now, or with the reply to the request that is arriving or in flight."""
        busy = self._waiting or self._in_head or self._in_body
        if not busy and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
