"""UpdateTable: what a request may change, and the description of the table that comes of it.

Pure. The service takes one logical change per call: encryption, table class, deletion protection and warm
throughput must each come alone. What this version cannot do is refused by name, never ignored.

Not enforced: the service's waiting times between changes of deletion protection (15 s) and of the table class
(twice in 30 days), which protect its own fleet.

Source: findings on the service published in 2026 by the authors of an AWS controller; texts are theirs, as
recorded.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from datamodel.errors import LimitExceededError, ResourceInUseError, ValidationError
from datamodel.requests import (
    OnDemandThroughput,
    ProvisionedThroughput,
    StreamSpecification,
    UpdateTableInput,
    WarmThroughput,
)
from datamodel.table_descriptions import (
    INVALID,
    MS_PER_DAY,
    ON_DEMAND_WARM_READ_UNITS,
    ON_DEMAND_WARM_WRITE_UNITS,
    TableDescription,
    decreases_today,
)
from datamodel.table_requests import (
    BOTH_UNITS_ON_DEMAND,
    check_bounds,
    check_table_class,
    outside_range,
    refuse_encryption,
    unsupported,
)

DECREASES_FREE: Final = 4
DECREASE_INTERVAL_MS: Final = 3_600_000
"""Decreases of provisioned throughput per UTC day without waiting, and the wait before each further one."""

_IN_USE: Final = "Attempt to change a resource which is still in use: "

_CHANGES: Final = (
    "ProvisionedThroughput",
    "BillingMode",
    "StreamSpecification",
    "GlobalSecondaryIndexUpdates",
    "SSESpecification",
    "ReplicaUpdates",
    "DeletionProtectionEnabled",
    "OnDemandThroughput",
    "WarmThroughput",
    "TableClass",
)
_NOTHING_TO_CHANGE: Final = (
    "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates, "
    "SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, ReplicaTransitRoleArn, "
    "MultiRegionConsistency, DeletionProtectionEnabled, OnDemandThroughput, WarmThroughput or TableClass is "
    "required"
)
# Each of these must come alone; of several, the first one is named.
_EXCLUSIVE: Final = (
    (
        "SSESpecification",
        "Server-Side Encryption modification must be the only operation in the request",
    ),
    ("TableClass", "TableClass modification must be the only operation in the request"),
    (
        "DeletionProtectionEnabled",
        "DeletionProtection modification must be the only operation in the request",
    ),
    ("WarmThroughput", "WarmThroughput must be the only operation in the request"),
)
_UNSUPPORTED_CHANGES: Final = (
    "GlobalSecondaryIndexUpdates",
    "ReplicaUpdates",
    "MultiRegionConsistency",
    "GlobalTableWitnessUpdates",
    "GlobalTableSettingsReplicationMode",
    "DisassociationProtectionEnabled",
    "VectorIndexUpdates",
)


@dataclass(frozen=True, slots=True)
class TableUpdate:
    """What an UpdateTable comes to.

    Attributes:
        table: The next description of the table; the given one, unchanged, when nothing changes.
        shown: What the answer shows: the service says UPDATING and the throughput as it was.
        is_warming: Whether the answer says UPDATING of the warm throughput alone.
    """

    table: TableDescription
    shown: TableDescription
    is_warming: bool = False


def check_update(request: UpdateTableInput) -> None:
    """The rules of an UpdateTable request that need no table.

    AttributeDefinitions alone change nothing, and are ignored beside another change, as by the service.

    Raises:
        ValidationError: Nothing to change, several changes that must come alone, or an unsupported one.
    """
    changes = {
        member
        for member in _CHANGES
        if getattr(request, member) is not None and not _is_empty(getattr(request, member))
    }
    foreign = [m for m in _UNSUPPORTED_CHANGES if getattr(request, m) not in (None, [])]
    if not changes and not foreign:
        raise ValidationError(_NOTHING_TO_CHANGE)
    if request.GlobalSecondaryIndexUpdates is not None and not request.GlobalSecondaryIndexUpdates:
        raise ValidationError(f"{INVALID}List of GlobalSecondaryIndexUpdates is empty")
    for member, text in _EXCLUSIVE:
        if member in changes and len(changes) > 1:
            raise ValidationError(INVALID + text)
    if "OnDemandThroughput" in changes and not changes <= {"OnDemandThroughput", "BillingMode"}:
        raise ValidationError(
            f"{INVALID}OnDemandThroughput can only be combined with BillingMode in an UpdateTable request"
        )
    throughput = request.ProvisionedThroughput
    if request.StreamSpecification is not None:
        if throughput is not None or request.BillingMode == "PROVISIONED":
            raise ValidationError(
                f"{INVALID}You cannot modify stream status while updating table IOPS"
            )
        _check_stream_update(request.StreamSpecification)
    if request.SSESpecification is not None:
        refuse_encryption(request.SSESpecification)
    if request.TableClass is not None:
        check_table_class(request.TableClass)
    if foreign:
        raise unsupported(foreign[0])
    if request.BillingMode == "PROVISIONED" and throughput is None:
        raise ValidationError(
            f"{INVALID}ProvisionedThroughput must be specified when BillingMode is PROVISIONED"
        )
    if request.BillingMode == "PAY_PER_REQUEST" and throughput is not None:
        raise ValidationError(
            f"{INVALID}ProvisionedThroughput cannot be specified when BillingMode is PAY_PER_REQUEST"
        )
    if throughput is not None:
        check_bounds(throughput)


def _is_empty(value: object) -> bool:
    """Whether a structure has no member set: the service takes such a one for absent."""
    if isinstance(value, OnDemandThroughput):
        return value.MaxReadRequestUnits is None and value.MaxWriteRequestUnits is None
    if isinstance(value, WarmThroughput):
        return value.ReadUnitsPerSecond is None and value.WriteUnitsPerSecond is None
    return isinstance(value, list) and not value


def _check_stream_update(stream: StreamSpecification) -> None:
    if stream.StreamEnabled and stream.StreamViewType is None:
        raise ValidationError(
            f"{INVALID}If stream is being enabled then UpdateViewType is required"
        )
    if not stream.StreamEnabled and stream.StreamViewType is not None:
        raise ValidationError(
            f"{INVALID}If stream is being disabled, then UpdateViewType must not be specified"
        )
    if stream.StreamEnabled:
        raise unsupported("StreamSpecification with StreamEnabled true")


def check_can_change(table: TableDescription) -> None:
    """Refuse to update or delete a table that is on its way somewhere.

    Raises:
        ResourceInUseError: The table is being created, updated or deleted.
    """
    match table.status:
        case "ACTIVE":
            return
        case "CREATING":
            raise ResourceInUseError(f"{_IN_USE}Table is being created: {table.name}")
        case "DELETING":
            raise ResourceInUseError(f"{_IN_USE}Table is being deleted: {table.name}")
        case "UPDATING":
            raise ResourceInUseError(
                f"{_IN_USE}Table: {table.name} is in the process of being updated."
            )


def update_table(request: UpdateTableInput, table: TableDescription, now_ms: int) -> TableUpdate:
    """What an UpdateTable request (that passed `check_update`) makes of a table.

    The new description is ACTIVE at once: nothing of what can be changed needs work elsewhere. The answer
    says UPDATING where the service's does.

    Raises:
        ResourceInUseError: The table is not ACTIVE.
        ValidationError: The change does not fit the table, or changes nothing where that is an error.
        LimitExceededError: Too many decreases of throughput for today.
    """
    check_can_change(table)
    if request.StreamSpecification is not None:
        raise ValidationError(f"Table has no stream to disable: TableName: {table.name}")
    if request.SSESpecification is not None:
        raise ValidationError(f"{INVALID}Table is already encrypted by default")
    if request.DeletionProtectionEnabled is not None:
        return _at_once(
            table, replace(table, deletion_protection=request.DeletionProtectionEnabled)
        )
    if request.TableClass is not None:
        return _update_class(request.TableClass, table, now_ms)
    if request.WarmThroughput is not None and not _is_empty(request.WarmThroughput):
        return _update_warm(request.WarmThroughput, table)
    if request.ProvisionedThroughput is not None:
        return _update_throughput(request, request.ProvisionedThroughput, table, now_ms)
    changed = table
    if request.BillingMode == "PAY_PER_REQUEST" and table.billing_mode == "PROVISIONED":
        changed = replace(
            table,
            billing_mode="PAY_PER_REQUEST",
            read_units=0,
            write_units=0,
            on_demand_since_ms=now_ms,
            warm_read_units=max(table.warm_read_units, ON_DEMAND_WARM_READ_UNITS),
            warm_write_units=max(table.warm_write_units, ON_DEMAND_WARM_WRITE_UNITS),
        )
    # When the mode was switched, and the throughput that comes with it, show once the switch is done.
    shown = replace(
        changed,
        on_demand_since_ms=table.on_demand_since_ms,
        warm_read_units=table.warm_read_units,
        warm_write_units=table.warm_write_units,
    )
    if request.OnDemandThroughput is not None and not _is_empty(request.OnDemandThroughput):
        changed = _with_on_demand_limits(request.OnDemandThroughput, changed, clears=True)
        shown = _with_on_demand_limits(request.OnDemandThroughput, shown, clears=False)
    if request.BillingMode is not None:
        shown = replace(shown, status="UPDATING")
    return TableUpdate(_next(table, changed), shown)


def _next(table: TableDescription, changed: TableDescription) -> TableDescription:
    return table if changed == table else replace(changed, version=table.version + 1)


def _at_once(table: TableDescription, changed: TableDescription) -> TableUpdate:
    following = _next(table, changed)
    return TableUpdate(following, following)


def _update_class(table_class: str, table: TableDescription, now_ms: int) -> TableUpdate:
    if table_class == (table.table_class or "STANDARD"):
        return TableUpdate(table, replace(table, status="UPDATING"))
    changed = replace(table, table_class=table_class, table_class_ms=now_ms)
    return TableUpdate(_next(table, changed), replace(table, status="UPDATING"))


def _update_warm(warm: WarmThroughput, table: TableDescription) -> TableUpdate:
    """Raise what the table says it is prepared for. Nothing enforces it and no partition is split for it, so it
    holds at once; the service takes minutes, in which the table is ACTIVE and its warm throughput UPDATING.
    """
    asked = (
        ("ReadUnitsPerSecond", warm.ReadUnitsPerSecond, table.warm_read_units),
        ("WriteUnitsPerSecond", warm.WriteUnitsPerSecond, table.warm_write_units),
    )
    for member, units, current in asked:
        if units is not None and units < current:
            raise ValidationError(
                f"{INVALID}Requested {member} for WarmThroughput for table is lower than current "
                "WarmThroughput, decreasing WarmThroughput is not supported"
            )
    read, write = warm.ReadUnitsPerSecond, warm.WriteUnitsPerSecond
    changed = replace(
        table,
        warm_read_units=table.warm_read_units if read is None else read,
        warm_write_units=table.warm_write_units if write is None else write,
    )
    return TableUpdate(_next(table, changed), table, is_warming=True)


def _with_on_demand_limits(
    limits: OnDemandThroughput, table: TableDescription, *, clears: bool
) -> TableDescription:
    """The table with these limits; -1 takes a limit away if `clears`, and is shown as it is in an answer."""
    changed = table
    members = (
        ("MaxReadRequestUnits", "max_read_units", limits.MaxReadRequestUnits),
        ("MaxWriteRequestUnits", "max_write_units", limits.MaxWriteRequestUnits),
    )
    for member, name, units in members:
        if units is None:
            continue
        if table.billing_mode == "PROVISIONED":
            raise ValidationError(
                f"{INVALID}{member} for OnDemandThroughput cannot be specified when the table BillingMode "
                "is PROVISIONED"
            )
        if units < 1 and units != -1:
            raise outside_range(member)
        limit = None if units == -1 and clears else units
        if name == "max_read_units":
            changed = replace(changed, max_read_units=limit)
        else:
            changed = replace(changed, max_write_units=limit)
    return changed


def _update_throughput(
    request: UpdateTableInput,
    throughput: ProvisionedThroughput,
    table: TableDescription,
    now_ms: int,
) -> TableUpdate:
    read, write = throughput.ReadCapacityUnits, throughput.WriteCapacityUnits
    if table.billing_mode == "PAY_PER_REQUEST":
        if request.BillingMode is None:
            raise ValidationError(BOTH_UNITS_ON_DEMAND)
        changed = replace(
            table,
            billing_mode="PROVISIONED",
            read_units=read,
            write_units=write,
            max_read_units=None,
            max_write_units=None,
            warm_read_units=max(table.warm_read_units, read),
            warm_write_units=max(table.warm_write_units, write),
        )
        shown = replace(table, status="UPDATING", billing_mode="PROVISIONED")
        return TableUpdate(_next(table, changed), shown)
    if (read, write) == (table.read_units, table.write_units):
        raise ValidationError(
            "The provisioned throughput for the table will not change. The requested value equals the "
            "current value. "
            f"Current ReadCapacityUnits provisioned for the table: {table.read_units}. "
            f"Requested ReadCapacityUnits: {read}. "
            f"Current WriteCapacityUnits provisioned for the table: {table.write_units}. "
            f"Requested WriteCapacityUnits: {write}. "
            "Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher "
            "limits."
        )
    changed = replace(
        table,
        read_units=read,
        write_units=write,
        warm_read_units=max(table.warm_read_units, read),
        warm_write_units=max(table.warm_write_units, write),
    )
    if read > table.read_units or write > table.write_units:
        changed = replace(changed, increased_ms=now_ms)
    if read < table.read_units or write < table.write_units:
        _check_decrease(table, now_ms)
        changed = replace(
            changed, decreased_ms=now_ms, decreases=decreases_today(table, now_ms) + 1
        )
    shown = replace(
        table,
        status="UPDATING",
        increased_ms=changed.increased_ms,
        decreased_ms=changed.decreased_ms,
        decreases=decreases_today(table, now_ms),
    )
    return TableUpdate(_next(table, changed), shown)


def _check_decrease(table: TableDescription, now_ms: int) -> None:
    """Four decreases a UTC day are free, then one an hour after the last."""
    count = decreases_today(table, now_ms)
    if count < DECREASES_FREE or table.decreased_ms is None:
        return
    midnight_ms = (now_ms // MS_PER_DAY + 1) * MS_PER_DAY
    next_ms = min(table.decreased_ms + DECREASE_INTERVAL_MS, midnight_ms)
    if now_ms >= next_ms:
        return
    raise LimitExceededError(
        "Subscriber limit exceeded: Provisioned throughput decreases are limited within a given UTC day. "
        "After the first 4 decreases, each subsequent decrease in the same UTC day can be performed at most "
        f"once every 3600 seconds. Number of decreases today: {count}. "
        f"Last decrease at {_spoken_time(table.decreased_ms)}. "
        f"Next decrease can be made at {_spoken_time(next_ms)}"
    )


def _spoken_time(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    hour = moment.hour % 12 or 12
    return (
        f"{moment:%A, %B} {moment.day}, {moment.year} at {hour}:{moment:%M:%S %p} "
        "Coordinated Universal Time"
    )
