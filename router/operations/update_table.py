"""UpdateTable: billing mode, throughput (provisioned, on demand, warm), deletion protection, table class."""

from collections.abc import Mapping, Sequence
from typing import Any

from datamodel.requests import UpdateTableInput
from datamodel.table_descriptions import TableDescription, table_not_found
from datamodel.table_quotas import check_on_demand, check_provisioned
from datamodel.table_updates import TableUpdate, check_update, update_table
from proto.catalog_client import RowWrite
from router.context import Call
from router.operations.table_access import (
    change_table,
    last_sizes,
    named_table,
    now_ms,
    show,
    with_billing_mode,
)


async def handle(request: UpdateTableInput, call: Call) -> Mapping[str, Any]:
    """Change the table at once; the answer says UPDATING where the service's does."""
    request = with_billing_mode(request)
    name = named_table(request.TableName, call)
    check_update(request)
    services = call.services
    updates: list[TableUpdate] = []

    def change(table: TableDescription) -> tuple[TableDescription, Sequence[RowWrite]]:
        updated = update_table(request, table, now_ms(call))
        if request.ProvisionedThroughput is not None:
            tables = services.catalog.view.tables.values()
            check_provisioned(updated.table, tables, services.region)
        check_on_demand(request.OnDemandThroughput, request.WarmThroughput, services.region)
        updates[:] = [updated]
        return updated.table, []

    table = await change_table(name, call, lambda: table_not_found(name), change)
    answer = show(updates[0].shown, call, last_sizes(table, call))
    if updates[0].is_warming:
        answer["WarmThroughput"]["Status"] = "UPDATING"
    return {"TableDescription": answer}
