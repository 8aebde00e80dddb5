"""A node's row in the catalog: where its process listens. Written at every start, when the catalog is there."""

import asyncio
import logging
from dataclasses import replace

from datamodel.catalog_rows import (
    ABSENT,
    CATALOG_GROUP,
    UNCHANGED,
    NodeRow,
    node_key,
    parse_row,
    row_item,
    row_key,
    unchanged_values,
)
from datamodel.items import decode_item, encode_item, item_size
from datamodel.stored_items import record_body
from proto.cluster_client import ClusterClient
from proto.messages import PUT, Action, Get, Value, Write, Written

log = logging.getLogger(__name__)

RETRY_S = 1.0
TIMEOUT_S = 5.0


async def register(client: ClusterClient, row: NodeRow) -> None:
    """Write the row, over an older one of the same disk; tries until it is done."""
    while True:
        if await _try(client, row):
            log.info("registered in the catalog", extra={"node": row.node_id})
            return
        await asyncio.sleep(RETRY_S)


async def _try(client: ClusterClient, row: NodeRow) -> bool:
    answer = await client.request(Get(0, CATALOG_GROUP, node_key(row.node_id), True), TIMEOUT_S)
    if not isinstance(answer, Value):
        return False
    condition, values = ABSENT, None
    if answer.value is not None:
        known = parse_row(decode_item(record_body(answer.value)))
        if isinstance(known, NodeRow):
            row = replace(row, version=known.version + 1)
            condition, values = UNCHANGED, encode_item(unchanged_values(known.version))
    item = row_item(row)
    action = Action(PUT, row_key(row), encode_item(item), item_size(item), condition, values=values)
    write = Write(0, CATALOG_GROUP, client.next_request_id(), [action])
    return isinstance(await client.request(write, TIMEOUT_S), Written)
