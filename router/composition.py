"""A router, assembled up to its front doors: `main.py` adds HTTP and gRPC, the simulator enters at `dispatch`."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from datamodel.wording import NEWEST, WORDINGS
from proto.catalog_client import CatalogClient
from proto.process import Platform, connect
from router.context import Services
from router.dispatch import Dispatcher, handlers
from router.metrics import RouterMetrics
from router.partition_map import PartitionMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a person decides of a router; its flags describe it."""

    name: str
    az: str
    catalog: Iterable[str]
    region: str
    account_id: str
    validation_wording: str = NEWEST


class Router:
    """One router.

    Attributes:
        client: Its links to the cluster.
        catalog: Its copy of the catalog.
        metrics: What it counts.
        dispatch: Executes a request.
    """

    def __init__(self, options: Options, platform: Platform) -> None:
        """Assemble it. In a coroutine or callback of the loop that it is to run on."""
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.metrics = RouterMetrics()
        self.client = connect(platform, "router", options.name, options.az, options.catalog)
        self.catalog = CatalogClient(self.client)
        services = Services(
            self.client,
            PartitionMap(self.catalog, self.metrics, platform.now, self._spawn),
            self.catalog,
            self.metrics,
            options.region,
            options.account_id,
            platform.now,
            platform.wall_clock,
        )
        self.dispatch = Dispatcher(
            services, handlers(), WORDINGS[options.validation_wording]
        ).dispatch

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def start(self) -> None:
        """Begin to look for the cluster, and to follow its catalog."""
        self.client.start()
        self.catalog.start()

    async def stop(self) -> None:
        """Leave the cluster."""
        await self.catalog.stop()
        self.client.stop()
