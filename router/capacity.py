"""Consumed capacity as DynamoDB bills it, and as `ReturnConsumedCapacity` shows it.

Source: docs of the service's capacity units, and measurements of the service where they are silent.
"""

from collections.abc import Iterable, Mapping, Sequence

from datamodel.limits import READ_UNIT_BYTES, WRITE_UNIT_BYTES

SHOW_TOTAL = "TOTAL"
SHOW_INDEXES = "INDEXES"


def read_units(size_bytes: int, strong: bool) -> float:
    """Units of one read: per 4 KB begun, at least one; half when eventually consistent.

    Args:
        size_bytes: Item size for a GetItem, sum of all evaluated items for a page of Query or Scan.
        strong: Whether the read was strongly consistent.
    """
    units = (size_bytes + READ_UNIT_BYTES - 1) // READ_UNIT_BYTES or 1
    return float(units) if strong else units / 2


def write_units(old_size_bytes: int, new_size_bytes: int) -> float:
    """Units of one write: per KB begun of the larger of the item before and after, at least one."""
    size_bytes = max(old_size_bytes, new_size_bytes)
    return float((size_bytes + WRITE_UNIT_BYTES - 1) // WRITE_UNIT_BYTES or 1)


def consumed_capacity(
    show: str | None,
    table_name: str,
    units: float,
    local_indexes: Sequence[tuple[str, float]] = (),
    failed_units: float = 0.0,
) -> bytes:
    """The member `"ConsumedCapacity":{...}` of an answer; empty unless asked for.

    Args:
        show: `ReturnConsumedCapacity` of the request.
        table_name: The table's name or ARN, as the client gave it: the answer repeats it. Needs no escaping:
            neither has a character that does.
        units: What the request consumed of the table itself.
        local_indexes: Name of each local index touched, and what it consumed of that.
        failed_units: What parts of it consumed that failed: these are in no more than the total.
    """
    total = units + failed_units
    for _, index_units in local_indexes:
        total += index_units
    if show == SHOW_TOTAL:
        text = f'"ConsumedCapacity":{{"TableName":"{table_name}","CapacityUnits":{total}}}'
    elif show == SHOW_INDEXES:
        text = (
            f'"ConsumedCapacity":{{"TableName":"{table_name}","CapacityUnits":{total},'
            f'"Table":{{"CapacityUnits":{units}}}{_shown_indexes(local_indexes)}}}'
        )
    else:
        return b""
    return text.encode()


def consumed_capacities(
    show: str | None,
    consumed: Iterable[tuple[str, float]],
    local_indexes: Mapping[str, Mapping[str, float]] | None = None,
    failed: Mapping[str, float] | None = None,
) -> bytes:
    """The same for several tables: `"ConsumedCapacity":[{...},...]`; empty unless asked for.

    Args:
        show: `ReturnConsumedCapacity` of the request.
        consumed: Name (as the client gave it) and units of each table itself.
        local_indexes: By those names, name and units of each local index touched.
        failed: By those names, the units of parts of the request that failed.
    """
    if show not in (SHOW_TOTAL, SHOW_INDEXES):
        return b""
    member = b'"ConsumedCapacity":'
    return b"%b[%b]" % (
        member,
        b",".join(
            consumed_capacity(
                show,
                name,
                units,
                tuple((local_indexes or {}).get(name, {}).items()),
                (failed or {}).get(name, 0.0),
            ).removeprefix(member)
            for name, units in consumed
        ),
    )


def _shown_indexes(indexes: Sequence[tuple[str, float]]) -> str:
    if not indexes:
        return ""
    shown = ",".join(f'"{name}":{{"CapacityUnits":{units}}}' for name, units in indexes)
    return f',"LocalSecondaryIndexes":{{{shown}}}'
