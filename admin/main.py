"""One admin process: the composition root. Reads flags, builds everything, serves until SIGTERM.

Admins keep nothing: everything they know is in the catalog. Of several one acts, the one that holds the lease;
all answer questions. The only place of the control plane that reads clocks, randomness and the environment.
"""

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from prometheus_client import Gauge

from admin.admin_api import AdminApi, AdminServer
from admin.balance import Balance
from admin.jobs import JobMetrics, JobRunner
from admin.lease import Lease
from admin.nodes import GrpcStorageNodes
from admin.repair import REPLACE_AFTER_S, Repair
from admin.replica_jobs import ReplicaJobs
from admin.table_jobs import TableJobs
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

log = logging.getLogger(__name__)

STOP_GRACE_S = 1.0


def main(argv: Sequence[str]) -> int:
    """Run an admin until SIGTERM or SIGINT; returns the exit code."""
    flags = _parser().parse_args(argv)
    configure_logging(flags.name, flags.log_format)
    for address in (flags.grpc_listen, flags.metrics_listen):
        check_loopback(address, flags.insecure)
    try:
        uvloop.run(_serve(flags))
    except OSError as error:
        log.error("cannot start", extra={"reason": str(error)})  # noqa: TRY400 - no bug of ours
        return 1
    return 0


def _parser() -> FlagParser:
    parser = FlagParser(prog="quorate admin", description="Run one control plane process.")
    parser.add_argument("--name", default="admin-0", help="name of this process (admin-0)")
    parser.add_argument(
        "--grpc-listen", type=listen_address, default="127.0.0.1:50052", metavar="HOST:PORT"
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
    parser.add_argument(
        "--replace-after",
        type=float,
        default=REPLACE_AFTER_S,
        metavar="SECONDS",
        help="replace the replicas of a node that has not answered for so long; 0: never (600)",
    )
    parser.add_argument("--region", default="us-east-1", help="in ARNs (us-east-1)")
    parser.add_argument("--account-id", default="000000000000", help="in ARNs (000000000000)")
    add_process_flags(parser)
    return parser


async def _serve(flags: Any) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    now: Callable[[], float] = time.monotonic
    incarnation = secrets.token_hex(8)
    node_id = f"{flags.name}.{incarnation}"

    def hello() -> Hello:
        return Hello(PROTOCOL_VERSION, client.cluster_id, "admin", node_id, flags.name, "")

    client = ClusterClient(
        LoopEnvironment(loop, now),
        tcp_dial(hello, loop),
        flags.catalog,
        "",
        os.urandom(REQUEST_ID_PREFIX_SIZE),
    )
    catalog = CatalogClient(client)
    nodes = GrpcStorageNodes()
    handlers = {
        **TableJobs(catalog, client, nodes).handlers(),
        **ReplicaJobs(catalog, nodes).handlers(),
    }
    runner = JobRunner(catalog, handlers, JobMetrics())
    acts = Gauge("quorate_admin_acts", "1 while this admin holds the lease.")

    def on_lease(is_held: bool) -> None:
        acts.set(is_held)
        runner.act(is_held)

    lease = Lease(catalog, flags.name, incarnation, now, on_lease)
    repair = Repair(
        catalog, nodes, lambda: lease.is_held, replace_after_s=flags.replace_after, now=now
    )
    balance = Balance(catalog, nodes, lambda: lease.is_held)
    server = AdminServer(AdminApi(catalog, client, nodes, flags.region, flags.account_id))

    def is_ready() -> bool:
        return catalog.is_ready and not stop.is_set()

    port = await server.start(flags.grpc_listen)
    observed = await serve_metrics(*parse_listen(flags.metrics_listen), is_ready)
    log.info(
        "admin serves",
        extra={
            "grpc": format_address(parse_listen(flags.grpc_listen)[0], port),
            "metrics": format_address(*observed.sockets[0].getsockname()[:2]),
        },
    )
    client.start()
    catalog.start()

    async def work() -> None:
        await catalog.ready()
        await server.set_ready(True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(lease.run())
            tasks.create_task(repair.run())
            tasks.create_task(balance.run())

    working = loop.create_task(work())
    stopping = loop.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    stopping.cancel()
    failure = working.exception() if working.done() and not working.cancelled() else None
    log.info("admin stops")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await runner.stop()
    await lease.release()
    await server.stop(STOP_GRACE_S)
    observed.close()
    await catalog.stop()
    await nodes.close()
    client.stop()
    if failure is not None:
        raise failure  # a bug: the process ends, and its supervisor starts it anew
