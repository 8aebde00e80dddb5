"""DescribeLimits: the capacity that an account and a table may have."""

from datamodel.limits import ACCOUNT_CAPACITY_UNITS_MAX, TABLE_CAPACITY_UNITS_MAX
from datamodel.requests import DescribeLimitsInput
from router.context import Call

_BODY = (
    f'{{"AccountMaxReadCapacityUnits":{ACCOUNT_CAPACITY_UNITS_MAX},'
    f'"AccountMaxWriteCapacityUnits":{ACCOUNT_CAPACITY_UNITS_MAX},'
    f'"TableMaxReadCapacityUnits":{TABLE_CAPACITY_UNITS_MAX},'
    f'"TableMaxWriteCapacityUnits":{TABLE_CAPACITY_UNITS_MAX}}}'
).encode()


def handle(request: DescribeLimitsInput, call: Call) -> None:
    """The published defaults."""
    call.succeed(_BODY)
