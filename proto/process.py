"""What all kinds of processes have in common: what they get from their machine, how they start and are stopped.

A process is assembled by the `composition` module of its package from a `Platform`, its options and the running
loop. `main.py` passes the machine's own; the simulator passes others, so that it runs what production runs.
"""

import argparse
import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop
from prometheus_client import REGISTRY, CollectorRegistry

from proto.addresses import check_loopback
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import REQUEST_ID_PREFIX_SIZE, ClusterClient
from proto.logging_setup import configure_logging
from proto.messages import PROTOCOL_VERSION, Hello

log = logging.getLogger(__name__)

EXIT_CANNOT_START = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a process gets from its machine. Sockets and threads it has from the running loop.

    Attributes:
        now: Monotonic seconds.
        wall_clock: Unix seconds.
        random_bytes: So many of them.
        grpc_server: Makes a gRPC server, as `grpc.aio.server`.
        open_channel: Opens a gRPC channel to an address, as `grpc.aio.insecure_channel`.
        registry: What `/metrics` shows.
    """

    now: Callable[[], float]
    wall_clock: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    grpc_server: Callable[..., Any] = grpc.aio.server
    open_channel: Callable[..., Any] = grpc.aio.insecure_channel
    registry: CollectorRegistry = REGISTRY


def connect(
    platform: Platform, role: str, name: str, az: str, addresses: Iterable[str]
) -> ClusterClient:
    """A client of the cluster for a process that keeps nothing; not started.

    Args:
        platform: Of the process.
        role: What it is: router or admin.
        name: Its stable name.
        az: Its zone, whose replicas are read first; empty for none.
        addresses: Storage nodes to ask where the catalog is.
    """
    loop = asyncio.get_running_loop()
    node_id = f"{name}.{platform.random_bytes(8).hex()}"

    def hello() -> Hello:
        return Hello(PROTOCOL_VERSION, client.cluster_id, role, node_id, name, az)

    client = ClusterClient(
        LoopEnvironment(loop, platform.now),
        tcp_dial(hello, loop),
        list(addresses),
        az,
        platform.random_bytes(REQUEST_ID_PREFIX_SIZE),
    )
    return client


def run_process(
    flags: argparse.Namespace,
    listens: Iterable[str],
    serve: Callable[[argparse.Namespace], Awaitable[None]],
) -> int:
    """Run a process that keeps nothing until `serve` returns; its exit status.

    Args:
        flags: With those of `flags.add_process_flags`, and `name`.
        listens: Where it will listen.
        serve: The process.

    Raises:
        ListenRefused: An address is open to strangers.
    """
    configure_logging(flags.name, flags.log_format)
    for address in listens:
        check_loopback(address, flags.insecure)

    async def run() -> None:
        await serve(flags)

    try:
        uvloop.run(run())
    except OSError as error:
        log.error("cannot start", extra={"reason": str(error)})  # noqa: TRY400 - no bug of ours
        return EXIT_CANNOT_START
    return 0


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
