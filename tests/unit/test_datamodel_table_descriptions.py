"""Descriptions: how answers show a table, names and ARNs, tags."""

from dataclasses import replace

import pytest

from datamodel.errors import AccessDeniedError, ResourceNotFoundError, ValidationError
from datamodel.key_encoding import KeySchema
from datamodel.local_indexes import LocalIndex
from datamodel.requests import Tag
from datamodel.table_descriptions import (
    MS_PER_DAY,
    TableDescription,
    check_tag_set,
    checked_tags,
    decreases_today,
    deleted_part,
    render_table,
    table_arn,
    table_name_of,
    tagged_table_name,
)

REGION, ACCOUNT = "us-east-1", "000000000000"
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/orders"
FOREIGN = ARN.replace("0" * 12, "1" * 12)
TABLE = TableDescription(
    name="orders",
    table_id=256,
    uuid="0b7e3b0e-9a3c-4d53-8a7f-5a9ad9b2f3c1",
    status="ACTIVE",
    key_schema=KeySchema("pk", "S", "sk", "N"),
    attribute_definitions=(("pk", "S"), ("sk", "N")),
    billing_mode="PROVISIONED",
    created_ms=1_700_000_000_123,
    read_units=5,
    write_units=7,
    warm_read_units=5,
    warm_write_units=7,
)
ON_DEMAND = replace(
    TABLE,
    billing_mode="PAY_PER_REQUEST",
    read_units=0,
    write_units=0,
    on_demand_since_ms=1_700_000_000_123,
    warm_read_units=12_000,
    warm_write_units=4_000,
)


def render(table, now_ms=1_700_000_001_000):
    return render_table(
        table, region=REGION, account_id=ACCOUNT, now_ms=now_ms, item_count=3, size_bytes=99
    )


def test_a_provisioned_table_shows_no_billing_mode():
    assert render(TABLE) == {
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        "TableName": "orders",
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "TableStatus": "ACTIVE",
        "CreationDateTime": 1_700_000_000.123,
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0,
            "ReadCapacityUnits": 5,
            "WriteCapacityUnits": 7,
        },
        "TableSizeBytes": 99,
        "ItemCount": 3,
        "TableArn": ARN,
        "TableId": "0b7e3b0e-9a3c-4d53-8a7f-5a9ad9b2f3c1",
        "DeletionProtectionEnabled": False,
        "WarmThroughput": {
            "ReadUnitsPerSecond": 5,
            "WriteUnitsPerSecond": 7,
            "Status": "ACTIVE",
        },
    }


def test_an_on_demand_table_shows_zeros_and_its_mode():
    shown = render(ON_DEMAND)
    assert shown["BillingModeSummary"] == {
        "BillingMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": 1_700_000_000.123,
    }
    assert shown["TableThroughputModeSummary"] == {
        "TableThroughputMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": 1_700_000_000.123,
    }
    assert shown["ProvisionedThroughput"] == {
        "NumberOfDecreasesToday": 0,
        "ReadCapacityUnits": 0,
        "WriteCapacityUnits": 0,
    }
    assert "OnDemandThroughput" not in shown


def test_a_table_being_created_does_not_show_all_yet():
    shown = render(replace(ON_DEMAND, status="CREATING"))
    assert shown["BillingModeSummary"] == {"BillingMode": "PAY_PER_REQUEST"}
    assert shown["TableThroughputModeSummary"] == {"TableThroughputMode": "PAY_PER_REQUEST"}
    assert "WarmThroughput" not in shown
    asked = render(replace(ON_DEMAND, status="CREATING", warm_read_units=13_000))
    assert asked["WarmThroughput"] == {
        "ReadUnitsPerSecond": 13_000,
        "WriteUnitsPerSecond": 4_000,
        "Status": "UPDATING",
    }


def test_what_was_set_is_shown():
    shown = render(
        replace(
            ON_DEMAND,
            table_class="STANDARD",
            table_class_ms=2_000,
            max_write_units=8,
            increased_ms=3_000,
            deletion_protection=True,
        )
    )
    assert shown["TableClassSummary"] == {"TableClass": "STANDARD", "LastUpdateDateTime": 2.0}
    assert shown["OnDemandThroughput"] == {"MaxWriteRequestUnits": 8}
    assert shown["ProvisionedThroughput"]["LastIncreaseDateTime"] == 3.0
    assert shown["DeletionProtectionEnabled"] is True


def test_a_deleted_table_shows_no_schema():
    shown = deleted_part(render(replace(ON_DEMAND, status="DELETING")))
    assert shown["TableStatus"] == "DELETING"
    assert not {"KeySchema", "AttributeDefinitions", "CreationDateTime"} & set(shown)


def test_decreases_count_for_one_utc_day():
    table = replace(TABLE, decreased_ms=10 * MS_PER_DAY - 1, decreases=3)
    assert decreases_today(table, 10 * MS_PER_DAY - 1) == 3
    assert decreases_today(table, 10 * MS_PER_DAY) == 0
    assert decreases_today(TABLE, 0) == 0


def test_names_and_arns_name_tables():
    assert table_arn(REGION, ACCOUNT, "orders") == ARN
    assert table_name_of("orders", REGION, ACCOUNT) == "orders"
    assert table_name_of(ARN, REGION, ACCOUNT) == "orders"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("ab", ValidationError, "Member must have length greater than or equal to 3"),
        ("a" * 256, ValidationError, "Member must have length less than or equal to 255"),
        ("a;b", ValidationError, "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"),
        (ARN.replace("us-east-1", "us-west-2"), ValidationError, "Invalid AWS region in 'arn:"),
        (ARN.replace("aws", "aws-cn"), ValidationError, "Invalid AWS partition in 'arn:"),
        (ARN + "/index/i", ValidationError, "constraint: Valid ARN format is 'arn:<awsPartition>:"),
        ("arn:x", ValidationError, "constraint: Valid ARN format is 'arn:<awsPartition>:"),
        (
            ARN.replace(":table/", ":global-table/"),
            ValidationError,
            "Invalid resource type in 'arn:",
        ),
        (
            ARN.removesuffix("ders"),
            ValidationError,
            "constraint: Table name of ARN must have length greater than or equal to 3",
        ),
        (FOREIGN, AccessDeniedError, "Access is denied"),
    ],
)
def test_what_names_no_table(text, error, message):
    with pytest.raises(error) as refused:
        table_name_of(text, REGION, ACCOUNT)
    assert message in refused.value.message


@pytest.mark.parametrize(
    ("arn", "error", "message"),
    [
        (
            "orders",
            ValidationError,
            "One or more parameter values were invalid: ARNs must start with 'arn:': orders",
        ),
        (
            ARN + "/index/i",
            ValidationError,
            "One or more parameter values were invalid: Invalid resource arn provided, only table or "
            f"stream is accepted. Provided resource arn: {ARN}/index/i",
        ),
        (
            ARN.replace("us-east-1", "us-west-2"),
            ValidationError,
            "Invalid TableArn: Invalid ResourceArn provided as input "
            + ARN.replace("us-east-1", "us-west-2"),
        ),
        (FOREIGN, AccessDeniedError, "Access is denied"),
        (
            ARN + "/stream/2000-01-01T00:00:00.000",
            ResourceNotFoundError,
            "Requested resource not found: ResourceArn: "
            f"{ARN}/stream/2000-01-01T00:00:00.000 not found",
        ),
        ("arn:aws:s3:::x", AccessDeniedError, "Access is denied"),
        (ARN.replace("dynamodb", "lambda"), AccessDeniedError, "Access is denied"),
        ("arn:not/a/good/format", AccessDeniedError, "Access is denied"),
        ("arn:aws:dynamodb", AccessDeniedError, "Access is denied"),
        (FOREIGN.replace("us-east-1", "us-west-2"), AccessDeniedError, "Access is denied"),
        (FOREIGN.removesuffix("ders"), AccessDeniedError, "Access is denied"),
        (
            ARN.replace(":table/", ":global-table/"),
            ValidationError,
            "One or more parameter values were invalid: Provided Arn is not a DynamoDB resource arn: "
            + ARN.replace(":table/", ":global-table/"),
        ),
        (
            ARN.removesuffix("ders"),
            ValidationError,
            "Invalid TableArn: Invalid ResourceArn provided as input " + ARN.removesuffix("ders"),
        ),
    ],
)
def test_tag_operations_want_a_tables_arn(arn, error, message):
    assert tagged_table_name(ARN, REGION, ACCOUNT) == "orders"
    with pytest.raises(error) as refused:
        tagged_table_name(arn, REGION, ACCOUNT)
    assert refused.value.message == message


def test_tags_of_any_script_and_some_punctuation():
    tags = {"café": "ключ", "表": "a+b-c=d.e_f:g/h@i", "a b": ""}
    assert checked_tags(Tag(key, value) for key, value in tags.items()) == tags


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("", "v", "The Tag Key provided is invalid, Key: "),
        ("k" * 129, "v", "The Tag Key provided is invalid, Key: " + "k" * 129),
        ("a#b", "v", "The Tag Key provided is invalid, Key: a#b"),
        ("AWS:a", "v", "Tag Key cannot be prefixed with aws:, Key: AWS:a"),
        ("k", "v" * 257, "The Tag Value provided is invalid, Value: " + "v" * 257),
        ("k", "100%", "The Tag Value provided is invalid, Value: 100%"),
        (None, None, "The Tag Key provided is invalid, Key: null"),
        ("k", None, "The Tag Value provided is invalid, Value: null"),
        ("good", "y", "Duplicate Tag Keys provided as input: Duplicate Tag Key found good"),
    ],
)
def test_tags_that_may_not_be(key, value, message):
    with pytest.raises(ValidationError) as refused:
        checked_tags([Tag("good", "x"), Tag(key, value)])
    assert refused.value.message == message


def test_the_tags_of_a_table_have_a_size():
    tags = {f"{number:02}": "v" * 254 for number in range(40)}
    check_tag_set(tags)
    with pytest.raises(ValidationError) as refused:
        check_tag_set(tags | {"k": ""})
    assert (
        refused.value.message == "Tag set size 10241 bytes is above max size limit of 10240 bytes"
    )


def test_local_indexes_are_shown_with_what_is_known_of_their_size():
    table = replace(
        TABLE,
        local_indexes=(
            LocalIndex("by-date", "date", "S", "ALL"),
            LocalIndex("by-sum", "sum", "N", "INCLUDE", ("b", "a")),
        ),
    )
    shown = render_table(table, region=REGION, account_id=ACCOUNT, now_ms=0, index_figures=(3, 40))[
        "LocalSecondaryIndexes"
    ]
    assert shown == [
        {
            "IndexName": "by-date",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "date", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
            "IndexSizeBytes": 40,
            "ItemCount": 3,
            "IndexArn": f"{ARN}/index/by-date",
        },
        {
            "IndexName": "by-sum",
            "KeySchema": [
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sum", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a", "b"]},
            "IndexSizeBytes": 0,
            "ItemCount": 0,
            "IndexArn": f"{ARN}/index/by-sum",
        },
    ]
    assert "LocalSecondaryIndexes" not in render_table(
        TABLE, region=REGION, account_id=ACCOUNT, now_ms=0
    )
