"""ListTables: names in the order of their bytes, a page at a time."""

from collections.abc import Mapping
from typing import Any

from datamodel.catalog_rows import table_key, tables_range
from datamodel.limits import LIST_TABLES_LIMIT_MAX
from datamodel.requests import ListTablesInput
from datamodel.table_descriptions import TableDescription
from proto.catalog_client import CatalogUnavailable
from router.context import Call
from router.operations.table_access import left_s


async def handle(request: ListTablesInput, call: Call) -> Mapping[str, Any]:
    """List tables after ExclusiveStartTableName, which need not exist."""
    limit = request.Limit or LIST_TABLES_LIMIT_MAX
    start, end = tables_range()
    if request.ExclusiveStartTableName is not None:
        start = table_key(request.ExclusiveStartTableName) + b"\x00"
    catalog = call.services.catalog
    try:
        rows = await catalog.fetch_range(start, end, min(1.5, left_s(call)), limit + 1)
        names = [row.name for row in rows if isinstance(row, TableDescription)]
    except CatalogUnavailable:
        if not catalog.is_ready:
            raise
        known = sorted(catalog.view.tables, key=str.encode)
        names = [name for name in known if table_key(name) >= start]
    answer: dict[str, Any] = {"TableNames": names[:limit]}
    if len(names) > limit:
        answer["LastEvaluatedTableName"] = names[limit - 1]
    return answer
