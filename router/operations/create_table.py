"""CreateTable: the table's row and the job that builds it, in one write of the catalog."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any
from uuid import UUID

from datamodel.catalog_rows import (
    FIRST_USER_TABLE_ID,
    NEXT_TABLE_ID,
    JobRow,
    SettingRow,
    setting_key,
)
from datamodel.errors import (
    InternalServerError,
    ResourceInUseError,
    ServiceUnavailableError,
)
from datamodel.requests import CreateTableInput
from datamodel.table_descriptions import TableDescription
from datamodel.table_quotas import check_can_add, check_on_demand, check_provisioned
from datamodel.table_requests import new_table
from proto.catalog_client import WriteConflict, WriteOutcomeUnknown, insert, update
from router.context import Call
from router.operations.table_access import (
    WRITE_ATTEMPTS_MAX,
    hold,
    left_s,
    named_table,
    now_ms,
    show,
    with_billing_mode,
)


async def handle(request: CreateTableInput, call: Call) -> Mapping[str, Any]:
    """Create the table; answers when it is ACTIVE or has been long in the making, and says CREATING as ever."""
    request = with_billing_mode(request)
    name = named_table(request.TableName, call)
    draft = new_table(request, name, table_id=0, uuid=_new_uuid(call), now_ms=now_ms(call))
    table = await _store(request, draft, call)
    tables = call.services.catalog.view.tables

    def is_done() -> bool:
        known = tables.get(name)
        return known is not None and known.uuid == table.uuid and known.status != "CREATING"

    await hold(call, is_done)
    return {"TableDescription": show(table, call)}


def _new_uuid(call: Call) -> str:
    """A TableId, of the randomness that makes this process's request ids unique."""
    digest = sha256(b"table" + call.services.client.next_request_id()).digest()
    return str(UUID(bytes=digest[:16], version=4))


async def _store(
    request: CreateTableInput, draft: TableDescription, call: Call
) -> TableDescription:
    """Write the table under the next free number."""
    region = call.services.region
    catalog = call.services.catalog
    for _ in range(WRITE_ATTEMPTS_MAX):
        existing = await catalog.fetch_table(draft.name, left_s(call))
        if existing is not None:
            raise _exists(existing)
        tables = catalog.view.tables.values()
        check_can_add(tables)
        check_provisioned(draft, tables, region)
        check_on_demand(request.OnDemandThroughput, request.WarmThroughput, region)
        counter = await catalog.fetch_row(setting_key(NEXT_TABLE_ID), left_s(call))
        if counter is None:
            table_id = FIRST_USER_TABLE_ID
            count = insert(SettingRow(NEXT_TABLE_ID, {"value": table_id + 1}))
        else:
            assert isinstance(counter, SettingRow)
            table_id = int(counter.values["value"])
            count = update(SettingRow(NEXT_TABLE_ID, {"value": table_id + 1}, counter.version + 1))
        table = replace(draft, table_id=table_id)
        job = JobRow(
            job_id=f"create-table-{table_id}",
            kind="create_table",
            step="place",
            table_name=table.name,
            table_id=table_id,
            created_ms=table.created_ms,
        )
        try:
            await catalog.write([insert(table), insert(job), count], left_s(call))
        except WriteConflict:
            # The name was taken or the number was: the next round tells which.
            await asyncio.sleep(0)
            continue
        except WriteOutcomeUnknown as error:
            raise InternalServerError from error
        return table
    raise ServiceUnavailableError


def _exists(table: TableDescription) -> ResourceInUseError:
    if table.status == "CREATING":
        return ResourceInUseError(
            "Attempt to change a resource which is still in use: Table is being created: "
            f"{table.name}"
        )
    return ResourceInUseError(f"Table already exists: {table.name}")
