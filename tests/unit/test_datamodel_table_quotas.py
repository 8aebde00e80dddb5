"""What tables may ask for, each by itself and all together."""

from dataclasses import replace

import pytest

from datamodel.errors import LimitExceededError
from datamodel.key_encoding import KeySchema
from datamodel.requests import OnDemandThroughput, WarmThroughput
from datamodel.table_descriptions import TableDescription
from datamodel.table_quotas import (
    check_can_add,
    check_can_begin,
    check_on_demand,
    check_provisioned,
)

TABLE = TableDescription(
    name="orders",
    table_id=256,
    uuid="u",
    status="ACTIVE",
    key_schema=KeySchema("pk", "S"),
    attribute_definitions=(("pk", "S"),),
    billing_mode="PROVISIONED",
    created_ms=1,
    read_units=5,
    write_units=5,
)
SEE = " Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."


def text_of(check, *arguments):
    with pytest.raises(LimitExceededError) as refused:
        check(*arguments)
    return refused.value.message


def test_one_table():
    check_provisioned(replace(TABLE, write_units=40_000), [], "r")
    assert text_of(check_provisioned, replace(TABLE, write_units=40_001), [], "r") == (
        "The requested WriteCapacityUnits, 40001, is above the per table maximum for the account in r. "
        "Per table maximum: 40000." + SEE
    )


def test_all_tables():
    others = [replace(TABLE, name=name, read_units=30_000) for name in "ab"]
    check_provisioned(replace(TABLE, read_units=20_000), others, "r")
    assert text_of(check_provisioned, replace(TABLE, read_units=20_001), [*others, TABLE], "r") == (
        "This request would have caused the ReadCapacityUnits limit to be exceeded for the account in r. "
        "Current ReadCapacityUnits reserved by the account: 60005. Limit: 80000. Requested: 20001."
        + SEE
    )


def test_less_is_always_allowed():
    tables = [replace(TABLE, name=name, read_units=40_000) for name in "abc"]
    check_provisioned(replace(tables[0], read_units=39_999), tables, "r")


@pytest.mark.parametrize(
    ("limits", "warm", "message"),
    [
        (
            OnDemandThroughput(MaxReadRequestUnits=40_001),
            None,
            "Requested MaxReadRequestUnits for OnDemandThroughput for table exceeds "
            "TableMaxReadCapacityUnits of the account in region r",
        ),
        (
            None,
            WarmThroughput(ReadUnitsPerSecond=1, WriteUnitsPerSecond=40_001),
            "Requested WriteUnitsPerSecond for WarmThroughput for table exceeds "
            "TableMaxWriteCapacityUnits of the account in region r",
        ),
    ],
)
def test_on_demand_and_warm_throughput(limits, warm, message):
    assert text_of(check_on_demand, limits, warm, "r") == "Subscriber limit exceeded: " + message


def test_on_demand_and_warm_throughput_that_may_be():
    check_on_demand(
        OnDemandThroughput(MaxReadRequestUnits=40_000, MaxWriteRequestUnits=-1),
        WarmThroughput(WriteUnitsPerSecond=40_000),
        "r",
    )
    check_on_demand(None, None, "r")


def test_how_many_tables():
    check_can_add([TABLE] * 2_499)
    assert text_of(check_can_add, [TABLE] * 2_500) == (
        "Subscriber limit exceeded: There is a limit of 2500 tables per subscriber"
    )


@pytest.mark.parametrize("check", [check_can_add, check_can_begin])
def test_how_many_tables_at_a_time(check):
    going = [replace(TABLE, status="DELETING")] * 250
    coming = [replace(TABLE, status="CREATING")] * 249
    check([TABLE, *going, *coming])
    assert text_of(check, [*going, *coming, coming[0]]) == (
        "Subscriber limit exceeded: Only 500 tables can be created, updated, or deleted simultaneously"
    )
