"""An admin, assembled: what acts on the cluster while it holds the lease, and what answers questions always."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import Gauge

from admin.admin_api import AdminApi, AdminServer
from admin.balance import Balance
from admin.jobs import JobMetrics, JobRunner
from admin.lease import Lease
from admin.nodes import StorageNodes
from admin.repair import REPLACE_AFTER_S, Repair
from admin.replica_jobs import ReplicaJobs
from admin.table_jobs import TableJobs
from proto.catalog_client import CatalogClient
from proto.process import Platform, connect

STOP_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person decides of an admin; its flags describe it."""

    name: str
    grpc_listen: str
    catalog: Iterable[str]
    region: str
    account_id: str
    replace_after_s: float = REPLACE_AFTER_S


class Admin:
    """One admin.

    Attributes:
        catalog: Its copy of the catalog.
        lease: Its part in deciding which admin acts.
    """

    def __init__(self, options: Options, platform: Platform) -> None:
        """Assemble it. In a coroutine or callback of the loop that it is to run on."""
        self._listen = options.grpc_listen
        self._client = connect(platform, "admin", options.name, "", options.catalog)
        self.catalog = catalog = CatalogClient(self._client)
        self._nodes = StorageNodes(platform.open_channel)
        handlers = {
            **TableJobs(catalog, self._client, self._nodes).handlers(),
            **ReplicaJobs(catalog, self._nodes).handlers(),
        }
        registry = platform.registry
        self._runner = JobRunner(catalog, handlers, JobMetrics(registry))
        self._acts = Gauge(
            "quorate_admin_acts", "1 while this admin holds the lease.", registry=registry
        )
        incarnation = platform.random_bytes(8).hex()
        self.lease = Lease(catalog, options.name, incarnation, platform.now, self._on_lease)
        self._repair = Repair(
            catalog,
            self._nodes,
            lambda: self.lease.is_held,
            registry,
            replace_after_s=options.replace_after_s,
            now=platform.now,
        )
        self._balance = Balance(catalog, self._nodes, lambda: self.lease.is_held, registry)
        api = AdminApi(catalog, self._client, self._nodes, options.region, options.account_id)
        self._server = AdminServer(api, platform.grpc_server())

    def _on_lease(self, is_held: bool) -> None:
        self._acts.set(is_held)
        self._runner.act(is_held)

    async def start(self) -> int:
        """Listen, and begin to look for the cluster; returns the port of the gRPC server.

        Raises:
            OSError: It cannot listen.
        """
        port = await self._server.start(self._listen)
        self._client.start()
        self.catalog.start()
        return port

    async def run(self) -> None:
        """Do an admin's work until cancelled."""
        await self.catalog.ready()
        await self._server.set_ready(True)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.lease.run())
            tasks.create_task(self._repair.run())
            tasks.create_task(self._balance.run())

    async def stop(self) -> None:
        """After `run` has ended: let another admin act, answer nothing more, leave the cluster."""
        await self._runner.stop()
        await self.lease.release()
        await self._server.stop(STOP_GRACE_S)
        await self.catalog.stop()
        await self._nodes.close()
        self._client.stop()
