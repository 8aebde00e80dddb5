"""The HTTP/1.1 front door of the AWS JSON 1.0 protocol: listens, lets connections drain when it stops.

One `http_connection.Connection` per client socket does all else.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection
from typing import Any

from router.context import Dispatch
from router.transports.http_connection import Connection, Doorway
from router.transports.responses import Responses

SWEEP_INTERVAL_S = 1.0
BACKLOG = 1024
# How long a stopping router leaves connections open that have nothing in flight: a client that comes back in this
# time is served once more and told to go elsewhere, instead of finding its connection closed under its request.
IDLE_GRACE_S = 0.5


class HttpServer:
    """All connections of one router. `serve` listens; several processes may share the port."""

    def __init__(
        self,
        dispatch: Dispatch,
        is_ready: Callable[[], bool],
        new_request_id: Callable[[], bytes],
        now: Callable[[], float],
        wall_clock: Callable[[], float],
        region: str,
    ) -> None:
        """Create.

        Args:
            dispatch: Executes requests.
            is_ready: What `/readyz` says.
            new_request_id: 52 characters of [0-9A-Z], different each time.
            now: Monotonic seconds, for timeouts.
            wall_clock: Unix seconds, for the `Date` header.
            region: In the name that the answer to GET has for a client that gives none.
        """
        host_name = f"dynamodb.{region}.amazonaws.com".encode()
        self._now = now
        self._doorway = Doorway(
            dispatch, is_ready, new_request_id, Responses(wall_clock), host_name, now()
        )
        self._listening: list[tuple[asyncio.Server, socket.socket]] = []
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._doorway.on_empty = self._empty.set

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._doorway.connections

    async def serve(self, host: str, port: int) -> int:
        """Listen (SO_REUSEPORT: other routers on this machine may listen on the same port).

        Returns:
            The port, chosen by the system if 0 was asked for.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            listener = _listener(family, address)
            server = await loop.create_server(
                lambda: Connection(self._doorway), sock=listener, backlog=BACKLOG
            )
            self._listening.append((server, listener))
        self._sweep()
        bound: int = self._listening[0][1].getsockname()[1]
        return bound

    async def stop(self, grace_s: float) -> None:
        """Listen no more, let requests in flight finish for at most `grace_s`, then close everything.

        Every reply from now on says that its connection ends. Connections that the kernel has accepted but we have
        not are served too: closing the socket would reset them.
        """
        self._doorway.is_draining = True
        loop = asyncio.get_running_loop()
        for server, listener in self._listening:
            queued = _accept_all(listener)
            server.close()
            for client in queued:
                with contextlib.suppress(OSError):
                    await loop.connect_accepted_socket(lambda: Connection(self._doorway), client)
        idle_s = min(IDLE_GRACE_S, grace_s)
        await self._wait_empty(idle_s)
        for connection in list(self.connections):
            connection.close_when_idle()
        await self._wait_empty(grace_s - idle_s)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _wait_empty(self, timeout_s: float) -> None:
        if self.connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout_s)

    @property
    def in_flight(self) -> int:
        """Requests that wait for their reply."""
        return sum(connection.waiting for connection in self.connections)

    def _sweep(self) -> None:
        doorway = self._doorway
        doorway.time = self._now()
        doorway.responses.tick()
        for connection in list(doorway.connections):
            connection.check_timeouts(doorway.time)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_INTERVAL_S, self._sweep)


def _listener(family: int, address: Any) -> socket.socket:
    """A listening socket that other processes may share the port of."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """Every connection that waits to be accepted."""
    queued: list[socket.socket] = []
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # BlockingIOError: that was all; anything else: there is no more to be had
            return queued
        client.setblocking(False)
        queued.append(client)
