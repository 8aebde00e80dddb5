"""CreateTable: which descriptions come of requests, and every refusal with the service's words."""

import json

import pytest

from datamodel.errors import ValidationError
from datamodel.key_encoding import KeySchema
from datamodel.shapes import decode_request
from datamodel.table_descriptions import CREATE_PARTITIONS_MAX, initial_partitions
from datamodel.table_requests import new_table

INVALID = "One or more parameter values were invalid: "
PK = [{"AttributeName": "pk", "AttributeType": "S"}]
PK_SK = [*PK, {"AttributeName": "sk", "AttributeType": "N"}]
HASH = [{"AttributeName": "pk", "KeyType": "HASH"}]
HASH_RANGE = [*HASH, {"AttributeName": "sk", "KeyType": "RANGE"}]
UNITS = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 7}


def create(**members):
    body = {
        "TableName": "orders",
        "AttributeDefinitions": PK,
        "KeySchema": HASH,
        "BillingMode": "PAY_PER_REQUEST",
    }
    body |= members
    body = {name: value for name, value in body.items() if value is not None}
    request = decode_request("CreateTable", json.dumps(body).encode())
    return new_table(request, "orders", table_id=256, uuid="u-u", now_ms=1_000)


def test_an_on_demand_table():
    table = create()
    assert (table.name, table.table_id, table.uuid, table.status) == (
        "orders",
        256,
        "u-u",
        "CREATING",
    )
    assert table.key_schema == KeySchema("pk", "S")
    assert (table.billing_mode, table.read_units, table.write_units) == ("PAY_PER_REQUEST", 0, 0)
    assert table.on_demand_since_ms == table.created_ms == 1_000
    assert (table.warm_read_units, table.warm_write_units) == (12_000, 4_000)
    assert initial_partitions(table) == 1
    assert not table.deletion_protection
    assert table.table_class is None


@pytest.mark.parametrize("mode", [None, "PROVISIONED"])
def test_a_provisioned_table_with_a_sort_key(mode):
    table = create(
        BillingMode=mode,
        ProvisionedThroughput=UNITS,
        AttributeDefinitions=list(reversed(PK_SK)),
        KeySchema=HASH_RANGE,
        TableClass="STANDARD_INFREQUENT_ACCESS",
        DeletionProtectionEnabled=True,
        Tags=[{"Key": "b", "Value": "2"}, {"Key": "a", "Value": ""}],
        StreamSpecification={"StreamEnabled": False},
        SSESpecification={"Enabled": False},
    )
    assert table.key_schema == KeySchema("pk", "S", "sk", "N")
    assert table.attribute_definitions == (("sk", "N"), ("pk", "S")), "as they were sent"
    assert (table.billing_mode, table.read_units, table.write_units) == ("PROVISIONED", 5, 7)
    assert (table.warm_read_units, table.warm_write_units) == (5, 7)
    assert table.on_demand_since_ms is None
    assert table.table_class == "STANDARD_INFREQUENT_ACCESS"
    assert table.deletion_protection
    assert table.tags == (("a", ""), ("b", "2"))


@pytest.mark.parametrize(
    ("members", "partitions"),
    [
        ({}, 1),
        ({"WarmThroughput": {"ReadUnitsPerSecond": 12_001}}, 5),
        ({"WarmThroughput": {"WriteUnitsPerSecond": 8_000}}, 8),
        ({"WarmThroughput": {}}, 1),
        ({"WarmThroughput": {"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 4_000}}, 1),
        ({"BillingMode": "PROVISIONED", "ProvisionedThroughput": UNITS}, 1),
        (
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": {"ReadCapacityUnits": 3_001, "WriteCapacityUnits": 1},
            },
            2,
        ),
        (
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": UNITS,
                "WarmThroughput": {"WriteUnitsPerSecond": 2_500},
            },
            3,
        ),
        ({"WarmThroughput": {"WriteUnitsPerSecond": 10**9}}, CREATE_PARTITIONS_MAX),
        ({"Tags": [{"Key": "quorate:partitions", "Value": "16"}]}, 16),
        (
            {
                "Tags": [{"Key": "quorate:partitions", "Value": "2"}],
                "WarmThroughput": {"WriteUnitsPerSecond": 9_000},
            },
            2,
        ),
    ],
)
def test_how_many_partitions_a_table_starts_with(members, partitions):
    assert initial_partitions(create(**members)) == partitions


WARM_BELOW = (
    "Requested ReadUnitsPerSecond for WarmThroughput for table is lower than initial throughput for OnDemand. "
    "See: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/"
    "on-demand-capacity-mode.html#on-demand-capacity-mode-initial"
)
NEITHER = (
    "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is "
    "PAY_PER_REQUEST"
)
BOTH = "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
UNEVEN = (
    "Number of attributes in KeySchema does not exactly match number of attributes defined in "
    "AttributeDefinitions"
)
INDEX = {"IndexName": "idx", "KeySchema": HASH_RANGE, "Projection": {"ProjectionType": "ALL"}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"ProvisionedThroughput": UNITS}, INVALID + NEITHER),
        ({"BillingMode": None}, INVALID + BOTH),
        ({"BillingMode": "PROVISIONED"}, INVALID + BOTH),
        (
            {
                "BillingMode": None,
                "ProvisionedThroughput": UNITS | {"WriteCapacityUnits": 1000000000001},
            },
            "Given value 1000000000001 for WriteCapacityUnits is out of bounds",
        ),
        (
            {"KeySchema": HASH_RANGE},
            "Invalid KeySchema: Some index key attribute have no definition",
        ),
        (
            {"AttributeDefinitions": []},
            "Invalid KeySchema: Some index key attribute have no definition",
        ),
        (
            {"KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}]},
            INVALID
            + "Some index key attributes are not defined in AttributeDefinitions. Keys: [PK], "
            "AttributeDefinitions: [pk]",
        ),
        (
            {
                "AttributeDefinitions": PK_SK,
                "KeySchema": [*HASH, {"AttributeName": "pk", "KeyType": "RANGE"}],
            },
            "Both the Hash Key and the Range Key element in the KeySchema have the same name",
        ),
        (
            {"KeySchema": [{"AttributeName": "pk", "KeyType": "RANGE"}]},
            "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
        ),
        (
            {
                "AttributeDefinitions": PK_SK,
                "KeySchema": [*HASH, {"AttributeName": "sk", "KeyType": "HASH"}],
            },
            "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
        ),
        ({"AttributeDefinitions": PK_SK}, INVALID + UNEVEN),
        ({"AttributeDefinitions": PK + PK}, "Attribute Name is duplicated: pk"),
        (
            {"GlobalSecondaryIndexes": []},
            INVALID + "List of GlobalSecondaryIndexes is empty",
        ),
        (
            {"AttributeDefinitions": PK_SK, "GlobalSecondaryIndexes": [INDEX]},
            INVALID + "GlobalSecondaryIndexes is not supported by this version of Quorate",
        ),
        (
            {
                "AttributeDefinitions": PK_SK,
                "KeySchema": HASH_RANGE,
                "GlobalSecondaryIndexes": [INDEX],
            },
            INVALID + "GlobalSecondaryIndexes is not supported by this version of Quorate",
        ),
        (
            {"StreamSpecification": {"StreamEnabled": True}},
            INVALID + "Table is being created with a stream enabled, UpdateViewType is required",
        ),
        (
            {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}},
            INVALID
            + "StreamSpecification with StreamEnabled true is not supported by this version of Quorate",
        ),
        (
            {"SSESpecification": {"Enabled": False, "SSEType": "KMS"}},
            INVALID + "SSEType can not be specified if Enabled is false",
        ),
        (
            {"SSESpecification": {"Enabled": True}},
            INVALID
            + "SSESpecification with Enabled true is not supported by this version of Quorate",
        ),
        (
            {"ResourcePolicy": "{}"},
            INVALID + "ResourcePolicy is not supported by this version of Quorate",
        ),
        (
            {"OnDemandThroughput": {"MaxReadRequestUnits": -1}},
            INVALID
            + "Requested MaxReadRequestUnits for OnDemandThroughput for table is outside of valid range",
        ),
        (
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": UNITS,
                "OnDemandThroughput": {"MaxReadRequestUnits": 9},
            },
            INVALID + "MaxReadRequestUnits for OnDemandThroughput cannot be specified when table "
            "BillingMode is PROVISIONED.",
        ),
        ({"WarmThroughput": {"ReadUnitsPerSecond": 1}}, INVALID + WARM_BELOW),
        (
            {
                "BillingMode": "PROVISIONED",
                "ProvisionedThroughput": UNITS,
                "WarmThroughput": {"ReadUnitsPerSecond": 4},
            },
            INVALID + "Requested ReadUnitsPerSecond for WarmThroughput for table is lower than "
            "ReadCapacityUnits of ProvisionedThroughput",
        ),
        (
            {"Tags": [{"Key": f"k{n}", "Value": ""} for n in range(51)]},
            "Number of Tags exceed the current limit for the provided ResourceArn",
        ),
        (
            {"Tags": [{"Key": "aws:x", "Value": ""}]},
            "Tag Key cannot be prefixed with aws:, Key: aws:x",
        ),
        (
            {"Tags": [{"Key": "a", "Value": ""}, {"Key": "a", "Value": ""}]},
            "Duplicate Tag Keys provided as input: Duplicate Tag Key found a",
        ),
        (
            {"Tags": [{"Key": "quorate:partitions", "Value": "0"}]},
            INVALID + "Tag quorate:partitions must be a number from 1 to 256, Value: 0",
        ),
        (
            {"Tags": [{"Key": "quorate:partitions", "Value": "9" * 200}]},
            INVALID + f"Tag quorate:partitions must be a number from 1 to 256, Value: {'9' * 200}",
        ),
    ],
)
def test_refusals(members, message):
    with pytest.raises(ValidationError) as refused:
        create(**members)
    assert refused.value.message == message


@pytest.mark.parametrize(
    ("members", "first"),
    [
        ({"BillingMode": None, "KeySchema": HASH_RANGE}, "ReadCapacityUnits and"),
        ({"KeySchema": HASH_RANGE, "GlobalSecondaryIndexes": [INDEX]}, "Some index key"),
        ({"AttributeDefinitions": PK_SK, "Tags": [{"Key": "aws:", "Value": ""}]}, "Number of"),
    ],
)
def test_which_of_several_faults_is_told(members, first):
    with pytest.raises(ValidationError, match=first):
        create(**members)


def test_limits_on_demand():
    table = create(OnDemandThroughput={"MaxReadRequestUnits": 100})
    assert (table.max_read_units, table.max_write_units) == (100, None)
    assert create(OnDemandThroughput={}).max_read_units is None
