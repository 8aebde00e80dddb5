"""A node's row in the catalog: where its process listens. Written at every start, when the catalog is there."""

import asyncio
import logging
from dataclasses import replace

from datamodel.catalog_rows import NodeRow
from proto.catalog_client import (
    CatalogClient,
    CatalogUnavailable,
    GroupClient,
    WriteConflict,
    insert,
    update,
)

log = logging.getLogger(__name__)

RETRY_S = 1.0
TIMEOUT_S = 5.0


async def register(client: GroupClient, row: NodeRow) -> None:
    """Write the row, over an older one of the same disk; tries until it is done."""
    catalog = CatalogClient(client)
    while True:
        if await _try(catalog, row):
            log.info("registered in the catalog", extra={"node": row.node_id})
            return
        await asyncio.sleep(RETRY_S)


async def _try(catalog: CatalogClient, row: NodeRow) -> bool:
    try:
        disks = [n for n in await catalog.fetch_nodes(TIMEOUT_S) if n.name == row.name]
        # The disk that registered last is the node's, whatever its clock says.
        latest = max((n.started_ms for n in disks if n.node_id != row.node_id), default=0)
        row = replace(row, started_ms=max(row.started_ms, latest + 1))
        known = next((n for n in disks if n.node_id == row.node_id), None)
        if known is None:
            await catalog.write([insert(row)], TIMEOUT_S)
        else:
            await catalog.write([update(replace(row, version=known.version + 1))], TIMEOUT_S)
    except (CatalogUnavailable, WriteConflict):
        return False
    return True
