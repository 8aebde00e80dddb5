"""One admin process: reads flags, assembles the admin, serves until SIGTERM.

Admins keep nothing: everything they know is in the catalog. Of several one acts, the one that holds the lease;
all answer questions. The only place of the control plane that reads clocks, randomness and the environment.
"""

import argparse
import asyncio
import logging
import secrets
import time
from collections.abc import Sequence

from admin.composition import Admin, Options
from admin.repair import REPLACE_AFTER_S
from proto.addresses import format_address, parse_listen
from proto.flags import FlagParser, add_cluster_flags, add_listen_flag, add_process_flags
from proto.observability import serve_metrics
from proto.process import Platform, run_process, stop_event

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run an admin until SIGTERM or SIGINT; returns the exit code."""
    flags = _parser().parse_args(argv)
    return run_process(flags, (flags.grpc_listen, flags.metrics_listen), _serve)


def _parser() -> FlagParser:
    parser = FlagParser(prog="quorate admin", description="Run one control plane process.")
    parser.add_argument("--name", default="admin-0", help="name of this process (admin-0)")
    add_listen_flag(parser, "--grpc-listen", "127.0.0.1:50052", "for gRPC")
    add_listen_flag(parser, "--metrics-listen", "127.0.0.1:0", "for /metrics")
    parser.add_argument(
        "--replace-after",
        type=float,
        default=REPLACE_AFTER_S,
        metavar="SECONDS",
        help="replace the replicas of a node that has not answered for so long; 0: never (600)",
    )
    add_cluster_flags(parser)
    add_process_flags(parser)
    return parser


async def _serve(flags: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = stop_event()
    platform = Platform(now=time.monotonic, wall_clock=time.time, random_bytes=secrets.token_bytes)
    admin = Admin(
        Options(
            name=flags.name,
            grpc_listen=flags.grpc_listen,
            catalog=flags.catalog,
            region=flags.region,
            account_id=flags.account_id,
            replace_after_s=flags.replace_after,
        ),
        platform,
    )

    def is_ready() -> bool:
        return admin.catalog.is_ready and not stop.is_set()

    port = await admin.start()
    observed = await serve_metrics(*parse_listen(flags.metrics_listen), is_ready)
    log.info(
        "admin serves",
        extra={
            "grpc": format_address(parse_listen(flags.grpc_listen)[0], port),
            "metrics": format_address(*observed.sockets[0].getsockname()[:2]),
        },
    )
    working = loop.create_task(admin.run())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    stopping.cancel()
    failure = working.exception() if working.done() and not working.cancelled() else None
    log.info("admin stops")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await admin.stop()
    observed.close()
    if failure is not None:
        raise failure  # a bug: the process ends, and its supervisor starts it anew
