"""UpdateTable: billing mode, throughput, deletion protection, table class, limits."""

from collections.abc import Mapping, Sequence
from typing import Any

from datamodel.requests import UpdateTableInput
from datamodel.table_descriptions import TableDescription, table_not_found
from datamodel.table_updates import check_update, update_table
from proto.catalog_client import RowWrite
from router.context import Call
from router.operations.table_access import change_table, last_sizes, named_table, now_ms, show


async def handle(request: UpdateTableInput, call: Call) -> Mapping[str, Any]:
    """Change the table at once; the answer says UPDATING where the service's does."""
    name = named_table(request.TableName, call)
    check_update(request)
    shown: list[TableDescription] = []

    def change(table: TableDescription) -> tuple[TableDescription, Sequence[RowWrite]]:
        updated = update_table(request, table, now_ms(call))
        shown[:] = [updated.shown]
        return updated.table, []

    table = await change_table(name, call, lambda: table_not_found(name), change)
    return {"TableDescription": show(shown[0], call, last_sizes(table, call))}
