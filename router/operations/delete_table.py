"""DeleteTable: the table goes out of service, and a job takes it apart."""

from collections.abc import Mapping, Sequence
from typing import Any

from datamodel.catalog_rows import JobRow
from datamodel.errors import ValidationError
from datamodel.requests import DeleteTableInput
from datamodel.table_descriptions import TableDescription, deleted_part, table_not_found
from datamodel.table_quotas import check_can_begin
from datamodel.table_updates import check_can_change
from proto.catalog_client import RowWrite, insert
from router.context import Call
from router.operations.table_access import (
    change_table,
    hold,
    last_sizes,
    named_table,
    now_ms,
    show,
)


async def handle(request: DeleteTableInput, call: Call) -> Mapping[str, Any]:
    """Delete the table; answers when it is gone or has been long in going, and says DELETING as ever."""
    name = named_table(request.TableName, call)

    def begin(table: TableDescription) -> tuple[TableDescription, Sequence[RowWrite]]:
        check_can_change(table)
        if table.deletion_protection:
            raise ValidationError(
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
            )
        check_can_begin(call.services.catalog.view.tables.values())
        job = JobRow(
            job_id=f"delete-table-{table.table_id}",
            kind="delete_table",
            step="close",
            table_name=name,
            table_id=table.table_id,
            created_ms=now_ms(call),
        )
        return table.with_status("DELETING"), [insert(job)]

    table = await change_table(name, call, lambda: table_not_found(name), begin)
    sizes = last_sizes(table, call)
    await hold(call, lambda: table.table_id not in call.services.catalog.view.tables_by_id)
    return {"TableDescription": deleted_part(show(table, call, sizes))}
