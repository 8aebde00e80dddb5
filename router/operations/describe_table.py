"""DescribeTable: the table's row, and its size as its partitions know it."""

from collections.abc import Mapping
from typing import Any

from datamodel.requests import DescribeTableInput
from datamodel.table_descriptions import table_not_found
from router.context import Call
from router.operations.table_access import fetch_or_recall, named_table, show
from router.table_sizes import NO_SIZE


async def handle(request: DescribeTableInput, call: Call) -> Mapping[str, Any]:
    """Describe the table as it is now; while the catalog is away, as it was last known."""
    name = named_table(request.TableName, call)
    table = await fetch_or_recall(name, call)
    if table is None:
        raise table_not_found(name)
    services = call.services
    sizes = NO_SIZE
    if table.status != "CREATING":
        partitions = services.catalog.view.partitions(table.table_id)
        sizes = await services.sizes.fetch(services.client, partitions.rows)
    return {"Table": show(table, call, sizes)}
