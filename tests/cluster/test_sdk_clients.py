"""Unchanged clients: boto3 (client, resource, waiters, paginators), the AWS CLI, generated gRPC stubs."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import grpc
import pytest
from boto3.dynamodb.conditions import Attr, Key
from boto3.dynamodb.types import Binary
from botocore.exceptions import ClientError

from proto import dynamodb_pb2, dynamodb_pb2_grpc
from tests.cluster.harness import CREDENTIALS, LocalCluster

EVERY_TYPE = {
    "S": {"S": "grüße \U0001f600 \x01"},
    "empty": {"S": ""},
    "N": {"N": "12345678901234567890123456789012345678"},
    "tiny": {"N": "-0.00000000000000000000000000001"},
    "B": {"B": bytes(range(256))},
    "SS": {"SS": ["b", "a", "ü"]},
    "NS": {"NS": ["3", "-1", "0.5"]},
    "BS": {"BS": [b"\x00", b"\xff\xfe"]},
    "BOOL": {"BOOL": False},
    "NULL": {"NULL": True},
    "L": {"L": [{"N": "1"}, {"L": []}, {"M": {}}, {"S": "x"}]},
    "M": {"M": {"a.b": {"M": {"c": {"L": [{"BOOL": True}]}}}, " ": {"S": "blank name"}}},
}


def by_set(value):
    """Sets compare as sets, however they are listed."""
    if isinstance(value, dict):
        return {k: frozenset(v) if k in ("SS", "NS", "BS") else by_set(v) for k, v in value.items()}
    return [by_set(v) for v in value] if isinstance(value, list) else value


def test_boto3_client_end_to_end(client, name):
    created = client.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "team", "Value": "storage"}],
    )["TableDescription"]
    assert created["TableStatus"] == "CREATING"
    assert created["TableArn"] == f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    item = {"pk": {"S": "a"}, "sk": {"N": "1"}, **EVERY_TYPE}
    client.put_item(TableName=name, Item=item)
    key = {"pk": {"S": "a"}, "sk": {"N": "1.0"}}
    got = client.get_item(TableName=name, Key=key, ConsistentRead=True)["Item"]
    del got["tiny"]
    expected = dict(item)
    del expected["tiny"]
    assert by_set(got) == by_set(expected)
    for n in range(2, 40):
        client.put_item(
            TableName=name,
            Item={"pk": {"S": "a"}, "sk": {"N": str(n)}, "even": {"BOOL": n % 2 == 0}},
        )
    pages = client.get_paginator("query").paginate(
        TableName=name,
        KeyConditionExpression="pk = :p AND sk BETWEEN :a AND :b",
        FilterExpression="even = :t",
        ExpressionAttributeValues={
            ":p": {"S": "a"}, ":a": {"N": "5"}, ":b": {"N": "30"}, ":t": {"BOOL": True},
        },
        ScanIndexForward=False,
        ConsistentRead=True,
        PaginationConfig={"PageSize": 4},
    )  # fmt: skip
    assert [int(i["sk"]["N"]) for p in pages for i in p["Items"]] == list(range(30, 4, -2))
    scan = client.get_paginator("scan").paginate(
        TableName=name, ConsistentRead=True, PaginationConfig={"PageSize": 7}
    )
    assert sum(p["Count"] for p in scan) == 39
    updated = client.update_item(
        TableName=name,
        Key=key,
        UpdateExpression="SET #n = if_not_exists(#n, :z) + :one REMOVE B, M.#d",
        ExpressionAttributeNames={"#n": "count", "#d": "a.b"},
        ExpressionAttributeValues={":z": {"N": "0"}, ":one": {"N": "1"}},
        ReturnValues="ALL_NEW",
        ReturnConsumedCapacity="TOTAL",
    )
    assert updated["Attributes"]["count"] == {"N": "1"}
    assert "B" not in updated["Attributes"]
    assert updated["Attributes"]["M"] == {"M": {" ": {"S": "blank name"}}}
    assert updated["ConsumedCapacity"] == {"TableName": name, "CapacityUnits": 1.0}
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as refused:
        client.delete_item(
            TableName=name,
            Key=key,
            ConditionExpression="#n > :five",
            ExpressionAttributeNames={"#n": "count"},
            ExpressionAttributeValues={":five": {"N": "5"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert refused.value.response["Item"]["count"] == {"N": "1"}
    old = client.delete_item(TableName=name, Key=key, ReturnValues="ALL_OLD")["Attributes"]
    assert old["count"] == {"N": "1"}
    assert "Item" not in client.get_item(TableName=name, Key=key, ConsistentRead=True)
    arn = created["TableArn"]
    client.tag_resource(ResourceArn=arn, Tags=[{"Key": "stage", "Value": "test"}])
    client.untag_resource(ResourceArn=arn, TagKeys=["team"])
    assert client.list_tags_of_resource(ResourceArn=arn)["Tags"] == [
        {"Key": "stage", "Value": "test"}
    ]
    client.update_table(TableName=name, DeletionProtectionEnabled=True)
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="ValidationException"):
        client.delete_table(TableName=name)
    client.update_table(TableName=name, DeletionProtectionEnabled=False)
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    listed = [t for p in client.get_paginator("list_tables").paginate() for t in p["TableNames"]]
    assert name in listed
    client.delete_table(TableName=name)
    client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.put_item(TableName=name, Item=item)


def test_boto3_resource_with_its_own_types(cluster: LocalCluster, name):
    table = cluster.resource().create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": "user", "KeyType": "HASH"},
            {"AttributeName": "when", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "user", "AttributeType": "B"},
            {"AttributeName": "when", "AttributeType": "S"},
        ],
        ProvisionedThroughput={"ReadCapacityUnits": 5, "WriteCapacityUnits": 5},
    )
    table.wait_until_exists()
    table.reload()
    assert table.table_status == "ACTIVE"
    for n in range(25):
        table.put_item(
            Item={
                "user": b"\x00\x01", "when": f"2026-{n:02}", "amount": Decimal("10.50") + n,
                "tags": {"x", f"t{n}"}, "blob": Binary(b"abc"), "nested": {"list": [1, None, True]},
            }
        )  # fmt: skip
    found = table.query(
        KeyConditionExpression=Key("user").eq(b"\x00\x01") & Key("when").begins_with("2026-1"),
        FilterExpression=Attr("amount").gt(22)
        & Attr("tags").contains("x")
        & Attr("nope").not_exists(),
        ProjectionExpression="#w, amount, nested.#l[1]",
        ExpressionAttributeNames={"#w": "when", "#l": "list"},
        ConsistentRead=True,
    )
    assert [i["when"] for i in found["Items"]] == [f"2026-{n}" for n in range(12, 20)]
    assert found["Items"][0]["amount"] == Decimal("22.5")
    assert found["Items"][0]["nested"] == {"list": [None]}
    total = 0
    for segment in range(3):
        page = table.scan(Segment=segment, TotalSegments=3, Select="COUNT", ConsistentRead=True)
        total += page["Count"]
    assert total == 25
    table.delete()
    table.wait_until_not_exists()


def aws(cluster: LocalCluster, *arguments: str) -> dict:
    tool = Path(sys.executable).with_name("aws")
    done = subprocess.run(
        [str(tool), "dynamodb", *arguments, "--endpoint-url", cluster.http, "--output", "json"],
        env={
            "PATH": os.environ["PATH"], "HOME": "/nonexistent", "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
        },
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else {}


def test_aws_cli(cluster: LocalCluster, name):
    aws(
        cluster, "create-table", "--table-name", name, "--billing-mode", "PAY_PER_REQUEST",
        "--attribute-definitions", "AttributeName=pk,AttributeType=S",
        "--key-schema", "AttributeName=pk,KeyType=HASH",
    )  # fmt: skip
    aws(cluster, "wait", "table-exists", "--table-name", name)
    item = '{"pk": {"S": "a"}, "n": {"N": "1"}}'
    aws(cluster, "put-item", "--table-name", name, "--item", item)
    got = aws(
        cluster,
        "get-item",
        "--table-name",
        name,
        "--key",
        '{"pk": {"S": "a"}}',
        "--consistent-read",
    )
    assert got["Item"] == json.loads(item)
    queried = aws(
        cluster, "query", "--table-name", name, "--key-condition-expression", "pk = :p",
        "--expression-attribute-values", '{":p": {"S": "a"}}',
    )  # fmt: skip
    assert queried["Count"] in (0, 1)  # an eventually consistent read
    assert aws(cluster, "scan", "--table-name", name, "--consistent-read")["Count"] == 1
    aws(cluster, "delete-item", "--table-name", name, "--key", '{"pk": {"S": "a"}}')
    aws(cluster, "delete-table", "--table-name", name)
    aws(cluster, "wait", "table-not-exists", "--table-name", name)


def test_generated_grpc_client(cluster: LocalCluster, name):
    pb = dynamodb_pb2
    with grpc.insecure_channel(cluster.grpc) as channel:
        db = dynamodb_pb2_grpc.DynamoDBStub(channel)
        db.CreateTable(
            pb.CreateTableRequest(
                table_name=name,
                billing_mode="PAY_PER_REQUEST",
                key_schema=[pb.KeySchemaElement(attribute_name="pk", key_type="HASH")],
                attribute_definitions=[
                    pb.AttributeDefinition(attribute_name="pk", attribute_type="S")
                ],
            )
        )
        assert (
            db.DescribeTable(pb.DescribeTableRequest(table_name=name)).table.table_status
            == "ACTIVE"
        )
        value = pb.AttributeValue

        def item(**attributes):
            return pb.Item(attributes=attributes)

        for n in range(5):
            db.PutItem(
                pb.PutItemRequest(
                    table_name=name,
                    item=item(pk=value(s=f"k{n}"), n=value(n=str(n)), b=value(b=b"\x00\xff")),
                )
            )
        got = db.GetItem(
            pb.GetItemRequest(table_name=name, key=item(pk=value(s="k3")), consistent_read=True)
        )
        assert got.item.attributes["n"].n == "3"
        assert got.item.attributes["b"].b == b"\x00\xff"
        queried = db.Query(
            pb.QueryRequest(
                table_name=name,
                key_condition_expression="pk = :p",
                expression_attribute_values={":p": value(s="k4")},
                consistent_read=True,
            )
        )
        assert [i.attributes["n"].n for i in queried.items] == ["4"]
        scanned = db.Scan(pb.ScanRequest(table_name=name, consistent_read=True))
        assert scanned.count == 5
        db.DeleteItem(pb.DeleteItemRequest(table_name=name, key=item(pk=value(s="k3"))))
        gone = db.GetItem(
            pb.GetItemRequest(table_name=name, key=item(pk=value(s="k3")), consistent_read=True)
        )
        assert not gone.HasField("item")
        with pytest.raises(grpc.RpcError) as refused:
            db.PutItem(
                pb.PutItemRequest(
                    table_name=name,
                    item=item(pk=value(s="k4")),
                    condition_expression="attribute_not_exists(pk)",
                )
            )
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        db.DeleteTable(pb.DeleteTableRequest(table_name=name))
        with pytest.raises(grpc.RpcError) as missing:
            db.Scan(pb.ScanRequest(table_name=name))
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_bare_and_strange_requests_of_other_operations(cluster: LocalCluster):
    client = cluster.client(retries={"total_max_attempts": 1})
    with pytest.raises(ClientError) as unknown:
        client.list_backups()
    assert unknown.value.response["Error"]["Code"] == "UnknownOperationException"
    assert unknown.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert client.describe_limits()["TableMaxReadCapacityUnits"] > 0
    endpoints = client.describe_endpoints()["Endpoints"]
    assert endpoints[0]["CachePeriodInMinutes"] == 1440
    assert CREDENTIALS["region_name"] == "us-east-1"
