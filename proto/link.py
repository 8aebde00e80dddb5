"""The framed link: long-lived, multiplexed, one frame per turn of the event loop.

`Link` is the interface that everything above is written against; `TcpLink` is the real one, the simulator
has its own. What a link promises: messages of one link arrive in order and whole, or the link goes down.
What it does not: that a sent message arrives. Nobody re-sends on a link's behalf.

Back-pressure: `is_congested` says that more than `CONGESTED_BYTES` wait unsent; whoever sends bulk checks it.
Past `QUEUED_BYTES_MAX` the peer does not read any more, and the link is closed.

A network that loses everything for a while is noticed by what it does not acknowledge: TCP would try again after
ever longer pauses, and go on with that long after the network has healed. So a connection is given up after
`UNACKED_S`, and one that is being made after `DIAL_S`; the next one is made as soon as one can be.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from proto.frames import BadFrame, FrameReader, encode_frame
from proto.messages import PROTOCOL_VERSION, Hello, Message

log = logging.getLogger(__name__)

CONGESTED_BYTES = 4 << 20
QUEUED_BYTES_MAX = 256 << 20
HELLO_TIMEOUT_S = 5.0
UNACKED_S = 3.0
"""Four repetitions, at 0.2, 0.6, 1.4 and 3.0 s, as Linux counts. Only there; elsewhere TCP decides."""
DIAL_S = 1.5
"""One repetition, after a second."""
DIAL_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class Link(Protocol):
    """One side of a connection to a peer process."""

    @property
    def peer(self) -> Hello:
        """Who is at the other end, by its own words."""

    @property
    def is_up(self) -> bool:
        """Whether messages can still be sent."""

    @property
    def is_congested(self) -> bool:
        """Whether the peer is slower than what is being sent to it."""

    def send(self, message: Message) -> None:
        """Queue a message; it leaves with the frame of this loop turn. Does nothing on a link that is down."""

    def close(self, reason: str) -> None:
        """End the link; `on_down` follows."""


class LinkHandler(Protocol):
    """What a link tells its owner. Exceptions from these methods close the link and harm no other."""

    def on_up(self, link: Link) -> None:
        """Both sides said hello."""

    def on_messages(self, link: Link, messages: list[Message]) -> None:
        """One frame arrived."""

    def on_down(self, link: Link) -> None:
        """The link ended after it had been up."""


class TcpLink(asyncio.Protocol):
    """A `Link` over one TCP connection (optionally TLS)."""

    __slots__ = (
        "_closing",
        "_handler",
        "_hello",
        "_hello_timer",
        "_loop",
        "_out",
        "_paused",
        "_peer",
        "_reader",
        "_scheduled",
        "_transport",
        "_up",
    )

    def __init__(self, hello: Hello, handler: LinkHandler, loop: asyncio.AbstractEventLoop) -> None:
        self._hello = hello
        self._handler = handler
        self._loop = loop
        self._reader = FrameReader()
        self._out: list[Message] = []
        self._scheduled = False
        self._transport: asyncio.Transport | None = None
        self._peer: Hello | None = None
        self._up = False
        self._closing = False
        self._hello_timer: asyncio.TimerHandle | None = None

    @property
    def peer(self) -> Hello:
        """The other side's hello. Only valid once the link is up."""
        assert self._peer is not None
        return self._peer

    @property
    def is_up(self) -> bool:
        """True between `on_up` and `on_down`."""
        return self._up

    @property
    def is_congested(self) -> bool:
        """True while more than `CONGESTED_BYTES` wait in the socket's write buffer."""
        transport = self._transport
        return transport is None or transport.get_write_buffer_size() > CONGESTED_BYTES

    def send(self, message: Message) -> None:
        """Queue for this turn's frame."""
        self._out.append(message)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        out, self._out = self._out, []
        transport = self._transport
        if transport is None or self._closing or not out:
            return
        transport.write(encode_frame(out))
        if transport.get_write_buffer_size() > QUEUED_BYTES_MAX:
            self.close("peer does not read")

    def close(self, reason: str) -> None:
        """Close at once; what is queued is dropped."""
        if not self._closing:
            self._closing = True
            log.info("link closed", extra={"peer": self._peer_name(), "reason": reason})
            if self._transport is not None:
                self._transport.abort()

    def _peer_name(self) -> str:
        return self._peer.name if self._peer is not None else "?"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there: say hello, wait for theirs."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=CONGESTED_BYTES)
        connection = transport.get_extra_info("socket")
        if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = int(UNACKED_S * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        self._hello_timer = self._loop.call_later(HELLO_TIMEOUT_S, self.close, "no hello in time")
        self.send(self._hello)

    def data_received(self, data: bytes) -> None:
        """Bytes arrived. Anything that is not the protocol closes this link and nothing else."""
        try:
            for messages in self._reader.feed(data):
                if self._peer is None:
                    messages = self._greet(messages)
                if messages and not self._closing:
                    self._handler.on_messages(self, messages)
        except BadFrame as error:
            log.warning("bad frame", extra={"peer": self._peer_name(), "reason": str(error)})
            self.close(str(error))
        except Exception:
            log.exception("link handler failed", extra={"peer": self._peer_name()})
            self.close("handler failed")

    def _greet(self, messages: list[Message]) -> list[Message]:
        first = messages[0] if messages else None
        if not isinstance(first, Hello):
            raise BadFrame("the first message is no hello")
        if first.version != PROTOCOL_VERSION:
            raise BadFrame(f"protocol version {first.version}, expected {PROTOCOL_VERSION}")
        ours = self._hello.cluster_id
        if ours and first.cluster_id and first.cluster_id != ours:
            raise BadFrame(f"cluster {first.cluster_id!r}, expected {ours!r}")
        self._peer = first
        self._up = True
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._handler.on_up(self)
        return messages[1:]

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._closing = True
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._up:
            self._up = False
            self._handler.on_down(self)


class LinkDialer:
    """Keeps one link to an address alive: dials, and dials again with backoff when it goes down."""

    def __init__(
        self,
        address: str,
        hello: Callable[[], Hello],
        handler: LinkHandler,
        loop: asyncio.AbstractEventLoop,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self.link: Link | None = None
        self._hello = hello
        self._handler = handler
        self._loop = loop
        self._tls = tls
        self._attempt = 0
        self._stopped = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin dialling. Idempotent."""
        if self._task is None and self._timer is None and self.link is None and not self._stopped:
            self._task = self._loop.create_task(self._dial())

    def stop(self) -> None:
        """Close the link and dial no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.link is not None:
            self.link.close("stopped")

    async def _dial(self) -> None:
        host, _, port = self.address.rpartition(":")
        try:
            await asyncio.wait_for(
                self._loop.create_connection(
                    lambda: TcpLink(self._hello(), self, self._loop),
                    host.strip("[]"),
                    int(port),
                    ssl=self._tls,
                ),
                DIAL_S,
            )
            connected = True
        except (OSError, TimeoutError):
            connected = False
        self._task = None
        if not connected:
            self._retry()
        else:
            # Should the connection end before both hellos, nobody hears on_down: look again.
            self._timer = self._loop.call_later(HELLO_TIMEOUT_S + 0.5, self._check)

    def _check(self) -> None:
        self._timer = None
        if self.link is None:
            self.start()

    def _retry(self) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = DIAL_BACKOFF_S[min(self._attempt, len(DIAL_BACKOFF_S) - 1)]
        self._attempt += 1
        self._timer = self._loop.call_later(delay, self._check)

    # LinkHandler, passed on to the owner

    def on_up(self, link: Link) -> None:
        """Both sides said hello."""
        self._attempt = 0
        self.link = link
        self._handler.on_up(link)

    def on_messages(self, link: Link, messages: list[Message]) -> None:
        """One frame arrived."""
        self._handler.on_messages(link, messages)

    def on_down(self, link: Link) -> None:
        """Dial again soon."""
        if self.link is link:
            self.link = None
        self._handler.on_down(link)
        self._retry()


async def serve_links(
    host: str,
    port: int,
    hello: Callable[[], Hello],
    handler: LinkHandler,
    loop: asyncio.AbstractEventLoop,
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Accept links on `host:port` (0 picks a free port); every link reports to `handler`."""
    return await loop.create_server(lambda: TcpLink(hello(), handler, loop), host, port, ssl=tls)
