"""What all tables together, and each by itself, may ask for: the quotas that DescribeLimits tells.

They are the service's published defaults. Pure: the other tables are given.

Source: developer guide, "Quotas"; texts as recorded on the service by the authors of an AWS controller (2026).
What a table may ask of warm throughput is worded as recorded for an index.
"""

from collections.abc import Collection
from typing import Final

from datamodel.errors import LimitExceededError
from datamodel.limits import (
    ACCOUNT_CAPACITY_UNITS_MAX,
    TABLE_CAPACITY_UNITS_MAX,
    TABLES_CHANGING_MAX,
    TABLES_MAX,
)
from datamodel.requests import OnDemandThroughput, WarmThroughput
from datamodel.table_descriptions import TableDescription

_EXCEEDED: Final = "Subscriber limit exceeded: "
_SEE: Final = "Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."


def check_can_add(tables: Collection[TableDescription]) -> None:
    """Refuse one more table when there are as many as there may be.

    Raises:
        LimitExceededError: There are.
    """
    if len(tables) >= TABLES_MAX:
        raise LimitExceededError(
            f"{_EXCEEDED}There is a limit of {TABLES_MAX} tables per subscriber"
        )
    check_can_begin(tables)


def check_can_begin(tables: Collection[TableDescription]) -> None:
    """Refuse to create or delete a table while too many others are being created or deleted.

    Raises:
        LimitExceededError: They are.
    """
    if sum(table.status != "ACTIVE" for table in tables) >= TABLES_CHANGING_MAX:
        raise LimitExceededError(
            f"{_EXCEEDED}Only {TABLES_CHANGING_MAX} tables can be created, updated, or deleted simultaneously"
        )


def check_provisioned(
    table: TableDescription, tables: Collection[TableDescription], region: str
) -> None:
    """Refuse provisioned throughput that is too much for one table, or for all together.

    Args:
        table: As it shall be.
        tables: All tables, this one as it is among them if it exists.
        region: Named in the text.

    Raises:
        LimitExceededError: It is too much.
    """
    for member, name in (
        ("ReadCapacityUnits", "read_units"),
        ("WriteCapacityUnits", "write_units"),
    ):
        units: int = getattr(table, name)
        if units > TABLE_CAPACITY_UNITS_MAX:
            raise LimitExceededError(
                f"The requested {member}, {units}, is above the per table maximum for the account in {region}. "
                f"Per table maximum: {TABLE_CAPACITY_UNITS_MAX}. {_SEE}"
            )
        reserved: int = sum(getattr(other, name) for other in tables)
        others: int = sum(getattr(other, name) for other in tables if other.name != table.name)
        if units + others > max(ACCOUNT_CAPACITY_UNITS_MAX, reserved):
            raise LimitExceededError(
                f"This request would have caused the {member} limit to be exceeded for the account in "
                f"{region}. Current {member} reserved by the account: {reserved}. "
                f"Limit: {ACCOUNT_CAPACITY_UNITS_MAX}. Requested: {units}. {_SEE}"
            )


def check_on_demand(
    limits: OnDemandThroughput | None, warm: WarmThroughput | None, region: str
) -> None:
    """Refuse on-demand limits and warm throughput above what a table may have.

    Raises:
        LimitExceededError: They are.
    """
    for asked, what in ((limits, "OnDemandThroughput"), (warm, "WarmThroughput")):
        if asked is None:
            continue
        for member in asked.__struct_fields__:
            units = getattr(asked, member)
            if units is not None and units > TABLE_CAPACITY_UNITS_MAX:
                kind = "Read" if "Read" in member else "Write"
                raise LimitExceededError(
                    f"{_EXCEEDED}Requested {member} for {what} for table exceeds "
                    f"TableMax{kind}CapacityUnits of the account in region {region}"
                )
