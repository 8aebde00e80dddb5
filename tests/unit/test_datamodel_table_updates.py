"""UpdateTable: one change per call, what it makes of the table, and what the answer shows meanwhile."""

import json
from dataclasses import replace

import pytest

from datamodel.errors import LimitExceededError, ResourceInUseError, ValidationError
from datamodel.key_encoding import KeySchema
from datamodel.shapes import decode_request
from datamodel.table_descriptions import MS_PER_DAY, TableDescription
from datamodel.table_updates import check_update, update_table

INVALID = "One or more parameter values were invalid: "
ONLY = " modification must be the only operation in the request"
NOON_MS = 20_000 * MS_PER_DAY + MS_PER_DAY // 2

PROVISIONED = TableDescription(
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
    warm_read_units=5,
    warm_write_units=5,
    version=3,
)
ON_DEMAND = replace(
    PROVISIONED,
    billing_mode="PAY_PER_REQUEST",
    read_units=0,
    write_units=0,
    on_demand_since_ms=1,
    warm_read_units=12_000,
    warm_write_units=4_000,
)


def units(read, write):
    return {"ReadCapacityUnits": read, "WriteCapacityUnits": write}


def update(table, now_ms=NOON_MS, **members):
    body = json.dumps({"TableName": "orders"} | members).encode()
    request = decode_request("UpdateTable", body)
    check_update(request)
    return update_table(request, table, now_ms)


def test_more_throughput():
    update_ = update(PROVISIONED, ProvisionedThroughput=units(6, 5))
    assert update_.table == replace(
        PROVISIONED, read_units=6, warm_read_units=6, increased_ms=NOON_MS, version=4
    )
    assert update_.shown == replace(PROVISIONED, status="UPDATING", increased_ms=NOON_MS)


def test_less_throughput_is_counted_and_stays_warm():
    table = update(PROVISIONED, ProvisionedThroughput=units(4, 3)).table
    assert (table.read_units, table.write_units, table.decreases) == (4, 3, 1)
    assert table.decreased_ms == NOON_MS
    assert table.increased_ms is None
    assert (table.warm_read_units, table.warm_write_units) == (5, 5)


def test_four_decreases_are_free_then_one_an_hour():
    table, now_ms = replace(PROVISIONED, read_units=100), NOON_MS
    for read in (99, 98, 97, 96):
        now_ms += 1_000
        table = update(table, now_ms, ProvisionedThroughput=units(read, 5)).table
    assert table.decreases == 4
    with pytest.raises(LimitExceededError) as refused:
        update(table, now_ms + 3_599_000, ProvisionedThroughput=units(95, 5))
    assert refused.value.message == (
        "Subscriber limit exceeded: Provisioned throughput decreases are limited within a given UTC day. "
        "After the first 4 decreases, each subsequent decrease in the same UTC day can be performed at most "
        "once every 3600 seconds. Number of decreases today: 4. Last decrease at Friday, October 4, 2024 "
        "at 12:00:04 PM Coordinated Universal Time. Next decrease can be made at Friday, October 4, 2024 "
        "at 1:00:04 PM Coordinated Universal Time"
    )
    update(table, now_ms, ProvisionedThroughput=units(101, 5))
    assert (
        update(table, now_ms + 3_600_000, ProvisionedThroughput=units(95, 5)).table.decreases == 5
    )
    tomorrow_ms = 20_001 * MS_PER_DAY
    assert update(table, tomorrow_ms, ProvisionedThroughput=units(95, 5)).table.decreases == 1


def test_to_on_demand_and_back():
    update_ = update(
        PROVISIONED,
        BillingMode="PAY_PER_REQUEST",
        OnDemandThroughput={"MaxReadRequestUnits": 9},
    )
    table = update_.table
    assert (table.billing_mode, table.read_units, table.write_units) == ("PAY_PER_REQUEST", 0, 0)
    assert (table.on_demand_since_ms, table.max_read_units) == (NOON_MS, 9)
    assert (table.warm_read_units, table.warm_write_units) == (12_000, 4_000)
    shown = update_.shown
    assert (shown.status, shown.billing_mode, shown.max_read_units) == (
        "UPDATING",
        "PAY_PER_REQUEST",
        9,
    )
    assert (shown.on_demand_since_ms, shown.warm_read_units) == (None, 5), "once it is done"
    back = update(table, BillingMode="PROVISIONED", ProvisionedThroughput=units(2, 3)).table
    assert (back.billing_mode, back.read_units, back.write_units) == ("PROVISIONED", 2, 3)
    assert back.on_demand_since_ms == NOON_MS, "the summary stays visible"
    assert back.max_read_units is None
    assert (back.warm_read_units, back.warm_write_units) == (12_000, 4_000)
    assert back.version == PROVISIONED.version + 2


def test_the_same_billing_mode_changes_nothing_and_says_updating():
    update_ = update(ON_DEMAND, BillingMode="PAY_PER_REQUEST")
    assert update_.table is ON_DEMAND
    assert update_.shown.status == "UPDATING"


def test_limits_of_an_on_demand_table_merge_and_clear():
    limited = update(ON_DEMAND, OnDemandThroughput={"MaxReadRequestUnits": 10}).table
    both = update(limited, OnDemandThroughput={"MaxWriteRequestUnits": 20}).table
    assert (both.max_read_units, both.max_write_units) == (10, 20)
    cleared = update(both, OnDemandThroughput={"MaxReadRequestUnits": -1})
    assert (cleared.table.max_read_units, cleared.table.max_write_units) == (None, 20)
    assert cleared.shown.max_read_units == -1
    assert cleared.shown.status == "ACTIVE"


def test_deletion_protection_and_class():
    update_ = update(ON_DEMAND, DeletionProtectionEnabled=True)
    assert update_.table == update_.shown == replace(ON_DEMAND, deletion_protection=True, version=4)
    assert update(ON_DEMAND, DeletionProtectionEnabled=False).table is ON_DEMAND
    update_ = update(ON_DEMAND, TableClass="STANDARD_INFREQUENT_ACCESS")
    assert update_.table.table_class == "STANDARD_INFREQUENT_ACCESS"
    assert update_.table.table_class_ms == NOON_MS
    assert update_.shown.status == "UPDATING"
    assert update(ON_DEMAND, TableClass="STANDARD").table is ON_DEMAND


def test_warm_throughput_as_it_is():
    update_ = update(ON_DEMAND, WarmThroughput={"ReadUnitsPerSecond": 12_000})
    assert update_.table is ON_DEMAND
    assert update_.is_warming, "the service says so all the same"


def test_warm_throughput_is_raised_member_by_member():
    update_ = update(ON_DEMAND, WarmThroughput={"WriteUnitsPerSecond": 5_000})
    assert update_.table == replace(
        ON_DEMAND, warm_write_units=5_000, version=ON_DEMAND.version + 1
    )
    assert (update_.shown, update_.is_warming) == (ON_DEMAND, True)


@pytest.mark.parametrize(
    ("table", "members", "message"),
    [
        (
            PROVISIONED,
            {},
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
            "GlobalSecondaryIndexUpdates, SSESpecification, ReplicaUpdates, MultiAccountReplicaReady, "
            "ReplicaTransitRoleArn, MultiRegionConsistency, DeletionProtectionEnabled, "
            "OnDemandThroughput, WarmThroughput or TableClass is required",
        ),
        (
            PROVISIONED,
            {"ProvisionedThroughput": units(5, 5)},
            "The provisioned throughput for the table will not change. The requested value equals the "
            "current value. Current ReadCapacityUnits provisioned for the table: 5. Requested "
            "ReadCapacityUnits: 5. Current WriteCapacityUnits provisioned for the table: 5. Requested "
            "WriteCapacityUnits: 5. Refer to the Amazon DynamoDB Developer Guide for current limits and "
            "how to request higher limits.",
        ),
        (
            PROVISIONED,
            {"BillingMode": "PROVISIONED"},
            INVALID + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED",
        ),
        (
            PROVISIONED,
            {"BillingMode": "PAY_PER_REQUEST", "ProvisionedThroughput": units(1, 1)},
            INVALID
            + "ProvisionedThroughput cannot be specified when BillingMode is PAY_PER_REQUEST",
        ),
        (
            ON_DEMAND,
            {"ProvisionedThroughput": units(1, 1)},
            INVALID + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
            "BillingMode is PAY_PER_REQUEST",
        ),
        (
            PROVISIONED,
            {"OnDemandThroughput": {"MaxWriteRequestUnits": 5}},
            INVALID
            + "MaxWriteRequestUnits for OnDemandThroughput cannot be specified when the table "
            "BillingMode is PROVISIONED",
        ),
        (
            ON_DEMAND,
            {"OnDemandThroughput": {"MaxWriteRequestUnits": 0}},
            INVALID
            + "Requested MaxWriteRequestUnits for OnDemandThroughput for table is outside of "
            "valid range",
        ),
        (
            ON_DEMAND,
            {
                "OnDemandThroughput": {"MaxWriteRequestUnits": 1},
                "StreamSpecification": {"StreamEnabled": False},
            },
            INVALID
            + "OnDemandThroughput can only be combined with BillingMode in an UpdateTable request",
        ),
        (
            ON_DEMAND,
            {"DeletionProtectionEnabled": True, "SSESpecification": {"Enabled": False}},
            INVALID + "Server-Side Encryption" + ONLY,
        ),
        (
            ON_DEMAND,
            {"DeletionProtectionEnabled": True, "TableClass": "STANDARD"},
            INVALID + "TableClass" + ONLY,
        ),
        (
            ON_DEMAND,
            {"DeletionProtectionEnabled": True, "BillingMode": "PAY_PER_REQUEST"},
            INVALID + "DeletionProtection" + ONLY,
        ),
        (
            ON_DEMAND,
            {"WarmThroughput": {"ReadUnitsPerSecond": 1}, "BillingMode": "PAY_PER_REQUEST"},
            INVALID + "WarmThroughput must be the only operation in the request",
        ),
        (
            ON_DEMAND,
            {"WarmThroughput": {"ReadUnitsPerSecond": 1}},
            INVALID
            + "Requested ReadUnitsPerSecond for WarmThroughput for table is lower than current "
            "WarmThroughput, decreasing WarmThroughput is not supported",
        ),
        (
            ON_DEMAND,
            {"TableClass": "GLACIER"},
            "Invalid table-class parameter provided. Please try again with a valid table-class value: "
            "[STANDARD, STANDARD_INFREQUENT_ACCESS].",
        ),
        (
            ON_DEMAND,
            {"SSESpecification": {"Enabled": True, "KMSMasterKeyId": "alias/a"}},
            INVALID + "SSEType KMS is required if KMSMasterKeyId is specified",
        ),
        (
            ON_DEMAND,
            {"SSESpecification": {"Enabled": False}},
            INVALID + "Table is already encrypted by default",
        ),
        (
            ON_DEMAND,
            {"StreamSpecification": {"StreamEnabled": False}},
            "Table has no stream to disable: TableName: orders",
        ),
        (
            ON_DEMAND,
            {"GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "idx"}}]},
            INVALID + "GlobalSecondaryIndexUpdates is not supported by this version of Quorate",
        ),
        (
            ON_DEMAND,
            {"ReplicaUpdates": [{"Create": {"RegionName": "eu-west-1"}}]},
            INVALID + "ReplicaUpdates is not supported by this version of Quorate",
        ),
    ],
)
def test_refusals(table, members, message):
    with pytest.raises(ValidationError) as refused:
        update(table, **members)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("CREATING", "Table is being created: orders"),
        ("DELETING", "Table is being deleted: orders"),
        ("UPDATING", "Table: orders is in the process of being updated."),
    ],
)
def test_a_table_on_its_way_is_in_use(status, message):
    with pytest.raises(ResourceInUseError) as refused:
        update(replace(PROVISIONED, status=status), DeletionProtectionEnabled=True)
    assert refused.value.message == f"Attempt to change a resource which is still in use: {message}"
