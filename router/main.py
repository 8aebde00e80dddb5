"""One router process: reads flags, assembles the router and its front doors, serves until SIGTERM.

The only place of this package that reads clocks, randomness and the environment; all else is handed them.
"""

import argparse
import asyncio
import gc
import logging
import secrets
import string
import time
from collections.abc import Callable, Sequence
from itertools import count

from datamodel.wording import NEWEST, WORDINGS
from proto.addresses import format_address, parse_listen
from proto.flags import FlagParser, add_cluster_flags, add_listen_flag, add_process_flags
from proto.observability import serve_metrics
from proto.process import Platform, run_process, stop_event
from router.composition import Options, Router
from router.context import REQUEST_TIMEOUT_S
from router.transports.grpc_server import serve_grpc
from router.transports.http_server import HttpServer

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
    return run_process(flags, (flags.http_listen, flags.grpc_listen, flags.metrics_listen), _serve)


def _parser() -> FlagParser:
    parser = FlagParser(prog="quorate router", description="Run one request router.")
    parser.add_argument("--name", default="router-0", help="name of this process (router-0)")
    parser.add_argument("--az", default="az1", help="zone: its replicas are read first (az1)")
    add_listen_flag(parser, "--http-listen", "127.0.0.1:8000", "for the AWS protocol")
    add_listen_flag(parser, "--grpc-listen", "127.0.0.1:50051", "for gRPC")
    add_listen_flag(parser, "--metrics-listen", "127.0.0.1:0", "for /metrics")
    add_cluster_flags(parser)
    parser.add_argument(
        "--validation-wording",
        choices=sorted(WORDINGS),
        default=NEWEST,
        help="year of the service's texts for wrong requests; 2025 for tests that pin the older ones",
    )
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


async def _serve(flags: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = stop_event()
    platform = Platform(now=time.monotonic, wall_clock=time.time, random_bytes=secrets.token_bytes)
    router = Router(
        Options(
            name=flags.name,
            az=flags.az,
            catalog=flags.catalog,
            region=flags.region,
            account_id=flags.account_id,
            validation_wording=flags.validation_wording,
        ),
        platform,
    )
    new_request_id = request_ids(secrets.choice)

    def is_ready() -> bool:
        return router.catalog.is_ready and not stop.is_set()

    http = HttpServer(
        router.dispatch, is_ready, new_request_id, platform.now, platform.wall_clock, flags.region
    )
    _add_gauges(router, http)
    platform.registry.register(router.metrics)

    observed = await serve_metrics(*parse_listen(flags.metrics_listen), is_ready)
    router.start()
    starting = [loop.create_task(router.catalog.ready()), loop.create_task(stop.wait())]
    await asyncio.wait(starting, timeout=START_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in starting:
        task.cancel()
    http_host, http_port = parse_listen(flags.http_listen)
    http_port = await http.serve(http_host, http_port)
    try:
        grpc = await serve_grpc(flags.grpc_listen, router.dispatch, is_ready, new_request_id)
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
    await router.stop()


def _add_gauges(router: Router, http: HttpServer) -> None:
    metrics, client, catalog = router.metrics, router.client, router.catalog
    metrics.gauge(
        "quorate_router_session_reads_waived",
        "Eventual reads, since the start, that no replica could answer as new as this router had seen.",
        lambda: float(client.waived_reads),
    )
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
