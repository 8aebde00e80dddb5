"""What the table operations share: finding a table, changing its row, showing it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from datamodel.errors import InternalServerError, ServiceUnavailableError
from datamodel.requests import CreateTableInput, UpdateTableInput
from datamodel.table_descriptions import TableDescription, render_table, table_name_of
from proto.catalog_client import (
    CatalogUnavailable,
    RowWrite,
    WriteConflict,
    WriteOutcomeUnknown,
    update,
)
from router.context import Call
from router.table_sizes import NO_SIZE, TableSize

BillingRequest = TypeVar("BillingRequest", CreateTableInput, UpdateTableInput)

WRITE_ATTEMPTS_MAX: Final = 50
"""Rounds of reading and writing conditionally: each lost round means that another writer got through."""

HOLD_S: Final = 3.0
"""How long the answer to CreateTable and DeleteTable waits for the work to be done, so that a client's first
look at the table finds it so: SDKs' waiters look at once, then sleep for twenty seconds."""

HOLD_MARGIN_S: Final = 0.5


def named_table(text: str, call: Call) -> str:
    """The table's name from a request's TableName."""
    return table_name_of(text, call.services.region, call.services.account_id)


def with_billing_mode(request: BillingRequest) -> BillingRequest:
    """The request with its billing mode under the one name: `TableThroughputMode` counts where BillingMode is not
    given.
    """
    mode = request.TableThroughputMode
    if mode is None or request.BillingMode is not None:
        return request
    return msgspec.structs.replace(request, BillingMode=mode)


def now_ms(call: Call) -> int:
    """Wall clock in milliseconds."""
    return int(call.services.wall_clock() * 1000)


def left_s(call: Call) -> float:
    """Seconds until the request's deadline; a little above zero when it has passed."""
    return max(call.deadline - call.services.now(), 0.001)


def show(table: TableDescription, call: Call, sizes: TableSize = NO_SIZE) -> dict[str, Any]:
    """The table as answers show it."""
    return render_table(
        table,
        region=call.services.region,
        account_id=call.services.account_id,
        now_ms=now_ms(call),
        item_count=sizes.item_count,
        size_bytes=sizes.size_bytes,
        index_figures=sizes.index_figures,
    )


def last_sizes(table: TableDescription, call: Call) -> TableSize:
    """The table's size as last known here."""
    services = call.services
    partitions = services.catalog.view.partitions(table.table_id)
    return services.sizes.last_known(partition.group for partition in partitions)


async def fetch_or_recall(
    name: str, call: Call, patience_s: float = 1.5
) -> TableDescription | None:
    """A table as it is now, or as last known while the catalog does not answer.

    Raises:
        CatalogUnavailable: It does not answer and was never heard.
    """
    catalog = call.services.catalog
    try:
        return await catalog.fetch_table(name, min(patience_s, left_s(call)))
    except CatalogUnavailable:
        if not catalog.is_ready:
            raise
        return catalog.view.tables.get(name)


async def change_table(
    name: str,
    call: Call,
    missing: Callable[[], Exception],
    change: Callable[[TableDescription], tuple[TableDescription, Sequence[RowWrite]]],
) -> TableDescription:
    """Change a table's row, however many others do so at the same time.

    Args:
        name: Of the table.
        call: The request.
        missing: The error when there is no such table.
        change: From the table as it is: its next version (or itself, if nothing is to be done) and further
            rows to write with it. Called again when somebody else was faster; what it raises ends the request.

    Returns:
        The table as written.
    """
    catalog = call.services.catalog
    for _ in range(WRITE_ATTEMPTS_MAX):
        table = await catalog.fetch_table(name, left_s(call))
        if table is None:
            raise missing()
        changed, further = change(table)
        if changed is table and not further:
            return table
        try:
            await catalog.write([update(changed), *further], left_s(call))
        except WriteConflict:
            await asyncio.sleep(0)
            continue
        except WriteOutcomeUnknown as error:
            raise InternalServerError from error
        return changed
    raise ServiceUnavailableError


async def hold(call: Call, is_done: Callable[[], bool]) -> None:
    """Wait, `HOLD_S` at most, until the copy of the catalog says that the work is done."""
    seconds = min(HOLD_S, left_s(call) - HOLD_MARGIN_S)
    if seconds > 0:
        await call.services.catalog.wait_for(lambda _: is_done(), seconds)
