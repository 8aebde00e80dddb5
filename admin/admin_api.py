"""The gRPC service `AdminService`: what `quorate status` and other tools ask of an admin."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from admin.cluster_status import cluster_status
from admin.nodes import StorageNodes, fetch_statuses
from admin.scrub import scrub_partitions
from datamodel.catalog_rows import CATALOG_GROUP
from proto import admin_pb2, admin_pb2_grpc
from proto.catalog_client import CatalogClient
from proto.cluster_client import ClusterClient

log = logging.getLogger(__name__)

SERVICE = "quorate.admin.v1.AdminService"


class AdminApi(admin_pb2_grpc.AdminServiceServicer):
    """The service. Answers also while the catalog or nodes are away, and says so."""

    def __init__(
        self,
        catalog: CatalogClient,
        client: ClusterClient,
        nodes: StorageNodes,
        region: str,
        account_id: str,
    ) -> None:
        """Create; region and account number appear in ARNs."""
        self._catalog = catalog
        self._client = client
        self._nodes = nodes
        self._region = region
        self._account_id = account_id

    async def ClusterStatus(  # noqa: N802  # the names of gRPC methods are the schema's
        self, request: admin_pb2.ClusterStatusRequest, context: Any
    ) -> admin_pb2.ClusterStatusResponse:
        """Ask every node, and put the answers beside the catalog."""
        del context
        view = self._catalog.view
        reports = await fetch_statuses(self._nodes, view.current_nodes())
        return cluster_status(
            view,
            reports,
            self._client.replicas(CATALOG_GROUP),
            cluster_id=self._client.cluster_id,
            region=self._region,
            account_id=self._account_id,
            is_catalog_current=self._catalog.is_current,
            table_name=request.table_name,
        )

    async def Scrub(  # noqa: N802
        self, request: admin_pb2.ScrubRequest, context: Any
    ) -> AsyncIterator[admin_pb2.PartitionScrub]:
        """Let the leaders compare the replicas of their partitions."""
        view = self._catalog.view
        name = request.table_name
        if name and name not in view.tables:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no table {name}")
        async for result in scrub_partitions(self._nodes, view, name):
            yield result


class AdminServer:
    """The gRPC server of an admin, with health and reflection."""

    def __init__(self, api: AdminApi, server: grpc.aio.Server) -> None:
        """Create, not yet listening."""
        self._server = server
        self._health = health.aio.HealthServicer()
        admin_pb2_grpc.add_AdminServiceServicer_to_server(api, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Listen on `host:port`; returns the port.

        Raises:
            OSError: The address cannot be listened on.
        """
        try:
            port: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await self._server.start()
        return port

    async def set_ready(self, is_ready: bool) -> None:
        """What the health service says from now on."""
        serving = health_pb2.HealthCheckResponse.SERVING
        status = serving if is_ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let running ones end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
