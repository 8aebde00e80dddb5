"""What `cluster_client` needs of the world, and its real forms: clock, scheduling, dialling."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, TypeAlias

from proto.link import LinkDialer, LinkHandler
from proto.messages import Hello


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None:
        """Forget it."""


class Environment(Protocol):
    """Clock and scheduling, as the client needs them (`raft.group.Environment` fits)."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        """Run after a delay."""


class Dialer(Protocol):
    """Keeps a link to one address (`proto.link.LinkDialer`, or the simulator's)."""

    def start(self) -> None:
        """Begin dialling."""

    def stop(self) -> None:
        """Close the link and dial no more."""


Dial: TypeAlias = Callable[[str, LinkHandler], Dialer]


class LoopEnvironment:
    """`Environment` on a running asyncio loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self._loop = loop
        self.now = now

    def call_later(self, delay_s: float, function: Callable[[], None]) -> Timer:
        """Run after a delay."""
        return self._loop.call_later(delay_s, function)


def tcp_dial(
    hello: Callable[[], Hello],
    loop: asyncio.AbstractEventLoop,
    tls: ssl.SSLContext | None = None,
) -> Dial:
    """Dial real addresses on `loop`."""
    return lambda address, handler: LinkDialer(address, hello, handler, loop, tls)


class _IdleTimer:
    """Stands for 'started, nothing scheduled'."""

    def cancel(self) -> None:
        """Nothing to forget."""


IDLE: Timer = _IdleTimer()
