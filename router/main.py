"""One router process: the composition root. Reads flags, builds everything, serves until SIGTERM.

The only place of this package that reads clocks, randomness and the environment; all else is handed them.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
import string
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

import uvloop
from prometheus_client import REGISTRY

from proto.addresses import check_loopback, format_address, parse_listen
from proto.catalog_client import CatalogClient
from proto.client_environment import LoopEnvironment, tcp_dial
from proto.cluster_client import (
    REQUEST_ID_PREFIX_SIZE,
    ClusterClient,
)
from proto.flags import FlagParser, add_process_flags, address_list, listen_address
from proto.logging_setup import configure_logging
from proto.messages import PROTOCOL_VERSION, Hello
from proto.observability import serve_metrics
from router.context import REQUEST_TIMEOUT_S, Services
from router.dispatch import Dispatcher, handlers
from router.grpc_server import serve_grpc
from router.http_server import HttpServer
from router.metrics import RouterMetrics
from router.partition_map import PartitionMap

log = logging.getLogger(__name__)

# How long requests in flight may take after SIGTERM: all the time that any request has.
STOP_GRACE_S = REQUEST_TIMEOUT_S + 1.0
# A router that shares its port gets its part of the clients from the moment it listens: it does so once it knows
# the catalog, or after this long, so that clients are told something if the catalog is away.
START_WAIT_S = 5.0
# What a router keeps for long is made before `gc.freeze` or lives in few objects; requests leave no cycles.
GC_THRESHOLDS = (50_000, 20, 100)
ID_PREFIX_LENGTH = 36
ID_ALPHABET = string.digits + string.ascii_uppercase


def main(argv: Sequence[str]) -> int:
    """Run a router until SIGTERM or SIGINT; returns the exit code."""
    flags = _parser().parse_args(argv)
    configure_logging(flags.name, flags.log_format)
    for address in (flags.http_listen, flags.grpc_listen, flags.metrics_listen):
        check_loopback(address, flags.insecure)
    try:
        uvloop.run(_serve(flags))
    except OSError as error:
        log.error("cannot start", extra={"reason": str(error)})  # noqa: TRY400 - no bug of ours
        return 1
    return 0


def _parser() -> FlagParser:
    parser = FlagParser(prog="quorate router", description="Run one request router.")
    parser.add_argument("--name", default="router-0", help="name of this process (router-0)")
    parser.add_argument("--az", default="az1", help="zone: its replicas are read first (az1)")
    parser.add_argument(
        "--http-listen", type=listen_address, default="127.0.0.1:8000", metavar="HOST:PORT"
    )
    parser.add_argument(
        "--grpc-listen", type=listen_address, default="127.0.0.1:50051", metavar="HOST:PORT"
    )
    parser.add_argument(
        "--metrics-listen", type=listen_address, default="127.0.0.1:0", metavar="HOST:PORT"
    )
    parser.add_argument(
        "--catalog",
        type=address_list,
        required=True,
        metavar="HOST:PORT,...",
        help="link addresses of storage nodes to ask where the catalog is",
    )
    parser.add_argument("--region", default="us-east-1", help="in ARNs (us-east-1)")
    parser.add_argument("--account-id", default="000000000000", help="in ARNs (000000000000)")
    add_process_flags(parser)
    return parser


def request_ids(choose: Callable[[str], str]) -> Callable[[], bytes]:
    """A source of request ids: 52 characters of [0-9A-Z], random per process, then a count.

    Args:
        choose: Picks a character of a string at random.
    """
    prefix = "".join(choose(ID_ALPHABET) for _ in range(ID_PREFIX_LENGTH)).encode()
    number = count()

    def next_request_id() -> bytes:
        return b"%b%016X" % (prefix, next(number))

    return next_request_id


async def _serve(flags: Any) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    now: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    node_id = f"{flags.name}.{secrets.token_hex(4)}"

    def hello() -> Hello:
        cluster_id = client.cluster_id
        return Hello(PROTOCOL_VERSION, cluster_id, "router", node_id, flags.name, flags.az)

    client = ClusterClient(
        LoopEnvironment(loop, now),
        tcp_dial(hello, loop),
        flags.catalog,
        flags.az,
        os.urandom(REQUEST_ID_PREFIX_SIZE),
    )
    tasks: set[asyncio.Task[None]] = set()

    def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    metrics = RouterMetrics()
    catalog = CatalogClient(client)
    tables = PartitionMap(catalog, metrics, now, spawn)
    services = Services(
        client, tables, catalog, metrics, flags.region, flags.account_id, now, wall_clock
    )
    dispatch = Dispatcher(services, handlers()).dispatch
    new_request_id = request_ids(secrets.choice)

    def is_ready() -> bool:
        return catalog.is_ready and not stop.is_set()

    http = HttpServer(dispatch, is_ready, new_request_id, now, wall_clock, flags.region)
    _add_gauges(metrics, http, client, catalog)
    REGISTRY.register(metrics)

    observed = await serve_metrics(*parse_listen(flags.metrics_listen), is_ready)
    client.start()
    catalog.start()
    starting = [loop.create_task(catalog.ready()), loop.create_task(stop.wait())]
    await asyncio.wait(starting, timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in starting:
        task.cancel()
    http_host, http_port = parse_listen(flags.http_listen)
    http_port = await http.serve(http_host, http_port)
    try:
        grpc = await serve_grpc(flags.grpc_listen, dispatch, is_ready, new_request_id)
    except RuntimeError as error:  # what grpc raises for an address in use
        raise OSError(str(error)) from error
    log.info(
        "router serves",
        extra={
            "http": format_address(http_host, http_port),
            "grpc": format_address(parse_listen(flags.grpc_listen)[0], grpc.port),
            "metrics": format_address(*observed.sockets[0].getsockname()[:2]),
            "region": flags.region,
        },
    )
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)

    await stop.wait()
    log.info("router stops")
    await asyncio.gather(http.stop(STOP_GRACE_S), grpc.stop(STOP_GRACE_S))
    observed.close()
    await catalog.stop()
    client.stop()


def _add_gauges(
    metrics: RouterMetrics, http: HttpServer, client: ClusterClient, catalog: CatalogClient
) -> None:
    metrics.gauge(
        "quorate_router_http_connections",
        "Open client connections.",
        lambda: float(len(http.connections)),
    )
    metrics.gauge(
        "quorate_router_http_requests_in_flight",
        "HTTP requests that wait for their reply.",
        lambda: float(http.in_flight),
    )
    metrics.gauge(
        "quorate_router_cluster_requests_in_flight",
        "Requests to storage nodes without a final answer.",
        lambda: float(client.in_flight),
    )
    metrics.gauge(
        "quorate_router_links_up",
        "Storage nodes that can be used right now.",
        lambda: float(sum(client.links().values())),
    )
    metrics.gauge(
        "quorate_router_catalog_current",
        "1 while the catalog's change feed is followed, 0 while the map may be old.",
        lambda: float(catalog.is_current),
    )
