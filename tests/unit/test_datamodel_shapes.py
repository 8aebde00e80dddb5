"""Decoding of requests, and the service's errors for those that are wrong."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel import requests
from datamodel.errors import SerializationError, UnknownOperationError, ValidationError
from datamodel.shapes import (
    IMPLEMENTED_OPERATIONS,
    OPERATIONS,
    decode_request,
    explain_request,
)

TABLE = {"TableName": "users"}
KEY = {**TABLE, "Key": {"pk": {"S": "a"}}}
ENUMS = "failed to satisfy constraint: Member must satisfy enum value set:"


def body(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def test_a_right_request_becomes_its_type():
    request = decode_request(
        "GetItem", body({**KEY, "ConsistentRead": True, "Unknown": 1, "AttributesToGet": None})
    )
    assert request == requests.GetItemInput(
        TableName="users", Key={"pk": {"S": "a"}}, ConsistentRead=True
    )


def test_nested_structures_are_typed():
    request = decode_request(
        "CreateTable",
        body(
            {
                **TABLE,
                "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "ProvisionedThroughput": {"ReadCapacityUnits": 1.0, "WriteCapacityUnits": 2},
                "Tags": None,
            }
        ),
    )
    assert isinstance(request, requests.CreateTableInput)
    assert request.ProvisionedThroughput == requests.ProvisionedThroughput(
        ReadCapacityUnits=1, WriteCapacityUnits=2
    )
    assert request.KeySchema == [requests.KeySchemaElement(AttributeName="pk", KeyType="HASH")]
    assert request.Tags is None


@pytest.mark.parametrize(
    ("operation", "request_body"),
    [
        ("PutItem", {**TABLE, "Item": {"pk": {"S": "a"}, "m": {"M": {"x": {"L": []}}}}}),
        ("UpdateItem", {**KEY, "AttributeUpdates": {"a": {"Action": "ADD", "Value": {"N": "1"}}}}),
        ("DeleteItem", {**KEY, "Expected": {"a": {"Exists": False}}, "ReturnValues": "ALL_OLD"}),
        ("Query", {**TABLE, "Limit": 5, "ExclusiveStartKey": KEY["Key"], "IndexName": "by-age"}),
        ("Scan", {**TABLE, "Segment": 0, "TotalSegments": 4, "ScanIndexForward": "ignored"}),
        ("GetItem", {**KEY, "TableName": "arn:aws:dynamodb:us-east-1:000000000000:table/users"}),
        ("ListTables", {}),
        ("DescribeLimits", {}),
        ("DescribeEndpoints", {}),
        ("DescribeTable", TABLE),
        ("DeleteTable", TABLE),
        ("UpdateTable", {**TABLE, "BillingMode": "PAY_PER_REQUEST"}),
        ("TagResource", {"ResourceArn": "arn:x", "Tags": [{"Key": "k", "Value": ""}]}),
        ("UntagResource", {"ResourceArn": "arn:x", "TagKeys": ["k"]}),
        ("ListTagsOfResource", {"ResourceArn": "arn:x"}),
        ("CreateTable", {**TABLE, "GlobalTableSourceArn": "arn:aws:dynamodb:x:1:table/users"}),
    ],
)
def test_accepted(operation, request_body):
    request = decode_request(operation, body(request_body))
    assert type(request) is requests.REQUEST_TYPES[operation]
    explain_request(operation, body(request_body))


@pytest.mark.parametrize(
    "request_body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"1",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b'{"TableName":"users","Key":{"pk":{"S":"\xff"}}}',
        b'{"TableName":"users","Key":{"pk":{"S":"\\ud800"}}}',
        b'{"TableName":"users","Key":{"pk":{"S":"\\udc00"}}}',
        b'{"TableName":"users","Key":{"pk":{"S":NaN}}}',
        b'{"TableName":"users","Key":{"pk":{"S":1e999}}}',
        b'{"TableName":"users","Key":{"pk":{"S":' + b"9" * 5000 + b"}}}",
        b'{"TableName":"users","Key":' + b'{"a":' * 100_000,
        b'{"x":' + b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("operation", ["GetItem", "CreateTable"])
def test_what_is_not_a_json_object_has_no_message(operation, request_body):
    with pytest.raises(SerializationError) as caught:
        decode_request(operation, request_body)
    assert caught.value.message == ""


def test_integers_are_cut_and_clamped():
    request = decode_request("Query", body({**TABLE, "Limit": 7.9}))
    assert isinstance(request, requests.QueryInput)
    assert request.Limit == 7
    request = decode_request("Query", body({**TABLE, "Limit": 2**70}))
    assert isinstance(request, requests.QueryInput)
    assert request.Limit == 2**31 - 1


@pytest.mark.parametrize(
    ("operation", "request_body", "message"),
    [
        ("GetItem", {"TableName": True}, "TRUE_VALUE cannot be converted to String"),
        ("GetItem", {"TableName": False}, "FALSE_VALUE cannot be converted to String"),
        ("GetItem", {"TableName": 23}, "NUMBER_VALUE cannot be converted to String"),
        ("GetItem", {"TableName": 3.5}, "DECIMAL_VALUE cannot be converted to String"),
        ("GetItem", {"TableName": []}, "Unrecognized collection type class java.lang.String"),
        ("GetItem", {"TableName": {}}, "Start of structure or map found where not expected"),
        ("GetItem", {**KEY, "ConsistentRead": "x"}, "Unexpected token received from parser"),
        ("GetItem", {**KEY, "ConsistentRead": 1}, "NUMBER_VALUE cannot be converted to Boolean"),
        (
            "GetItem",
            {**KEY, "ConsistentRead": []},
            "Unrecognized collection type class java.lang.Boolean",
        ),
        ("Query", {**TABLE, "Limit": "5"}, "STRING_VALUE cannot be converted to Integer"),
        ("Query", {**TABLE, "Limit": True}, "TRUE_VALUE cannot be converted to Integer"),
        ("Query", {**TABLE, "Limit": []}, "Unrecognized collection type class java.lang.Integer"),
        ("GetItem", {"Key": "x"}, "Unexpected field type"),
        (
            "GetItem",
            {"Key": []},
            "Unrecognized collection type java.util.Map<java.lang.String, "
            "com.amazonaws.dynamodb.v20120810.AttributeValue>",
        ),
        (
            "GetItem",
            {"ExpressionAttributeNames": []},
            "Unrecognized collection type java.util.Map<java.lang.String, java.lang.String>",
        ),
        ("GetItem", {"Key": {"pk": "x"}}, "Unexpected value type in payload"),
        (
            "GetItem",
            {"Key": {"pk": []}},
            "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.AttributeValue",
        ),
        ("GetItem", {"AttributesToGet": "a"}, "Unexpected field type"),
        ("GetItem", {"AttributesToGet": {}}, "Start of structure or map found where not expected"),
        ("CreateTable", {"ProvisionedThroughput": 5}, "Unexpected field type"),
        (
            "CreateTable",
            {"ProvisionedThroughput": []},
            "Unrecognized collection type class com.amazonaws.dynamodb.v20120810.ProvisionedThroughput",
        ),
        (
            "CreateTable",
            {"ProvisionedThroughput": {"ReadCapacityUnits": "1"}},
            "STRING_VALUE cannot be converted to Long",
        ),
        ("CreateTable", {"KeySchema": ["x"]}, "Unexpected value type in payload"),
        # The first in the order of the document wins.
        (
            "CreateTable",
            {"KeySchema": "x", "TableName": 1},
            "Unexpected field type",
        ),
    ],
)
def test_wrong_json_types(operation, request_body, message):
    with pytest.raises(SerializationError) as caught:
        explain_request(operation, body(request_body))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"S": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"N": 1}, "NUMBER_VALUE cannot be converted to String"),
        ({"BOOL": "x"}, "Unexpected token received from parser"),
        ({"NULL": 1}, "NUMBER_VALUE cannot be converted to Boolean"),
        ({"B": 1}, "only base-64-encoded strings are convertible to bytes"),
        ({"B": []}, "Unrecognized collection type class java.nio.ByteBuffer"),
        ({"B": "23456"}, "Base64 encoded length is expected a multiple of 4 bytes but found: 5"),
        ({"B": "=+/="}, "Invalid last non-pad Base64 character dectected"),
        ({"B": "+/+="}, "Invalid last non-pad Base64 character dectected"),
        ({"SS": "a"}, "Unexpected field type"),
        ({"SS": [1]}, "NUMBER_VALUE cannot be converted to String"),
        ({"L": [{"S": 1}]}, "NUMBER_VALUE cannot be converted to String"),
        ({"L": ["a"]}, "Unexpected value type in payload"),
        ({"M": {"a": {"S": 1}}}, "NUMBER_VALUE cannot be converted to String"),
        ({"M": {"a": 1}}, "Unexpected value type in payload"),
    ],
)
def test_explain_finds_wrong_types_inside_attribute_values(value, message):
    request_body = body({**TABLE, "Item": {"pk": value}})
    decode_request("PutItem", request_body)  # left to whoever checks the item
    with pytest.raises(SerializationError) as caught:
        explain_request("PutItem", request_body)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("operation", "request_body", "failures"),
    [
        (
            "PutItem",
            {},
            [
                "Value null at 'tableName' failed to satisfy constraint: Member must not be null",
                "Value null at 'item' failed to satisfy constraint: Member must not be null",
            ],
        ),
        (
            "PutItem",
            {"TableName": "", "ReturnValues": "INVALID", "Item": {}},
            [
                f"Value 'INVALID' at 'returnValues' {ENUMS} "
                "[ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]",
                "Value '' at 'tableName' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1",
            ],
        ),
        (
            "UpdateItem",
            {**KEY, "ReturnValues": "x", "ReturnConsumedCapacity": "x"},
            [
                f"Value 'x' at 'returnConsumedCapacity' {ENUMS} [INDEXES, TOTAL, NONE]",
                f"Value 'x' at 'returnValues' {ENUMS} "
                "[ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]",
            ],
        ),
        (
            "GetItem",
            {**KEY, "TableName": "bad table!@#"},
            [
                "Value 'bad table!@#' at 'tableName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ],
        ),
        (
            "GetItem",
            {**KEY, "TableName": "name\n"},
            [
                "Value 'name\n' at 'tableName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ],
        ),
        (
            "GetItem",
            {**KEY, "TableName": "a" * 256},
            [
                f"Value '{'a' * 256}' at 'tableName' failed to satisfy constraint: "
                "Member must have length less than or equal to 255"
            ],
        ),
        (
            "GetItem",
            {**KEY, "AttributesToGet": []},
            [
                "Value '[]' at 'attributesToGet' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            ],
        ),
        (
            "Query",
            {**TABLE, "Limit": 0, "Select": "ALL"},
            [
                "Value '0' at 'limit' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1",
                f"Value 'ALL' at 'select' {ENUMS} "
                "[SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES]",
            ],
        ),
        (
            "Scan",
            {**TABLE, "TotalSegments": 1_000_001, "Segment": -1, "IndexName": "a;"},
            [
                "Value '-1' at 'segment' failed to satisfy constraint: "
                "Member must have value greater than or equal to 0",
                "Value 'a;' at 'indexName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
                "Value 'a;' at 'indexName' failed to satisfy constraint: "
                "Member must have length greater than or equal to 3",
                "Value '1000001' at 'totalSegments' failed to satisfy constraint: "
                "Member must have value less than or equal to 1000000",
            ],
        ),
        (
            "Query",
            {**TABLE, "KeyConditions": {"pk": {"AttributeValueList": [{"S": "a"}]}}},
            [
                "Value null at 'keyConditions.pk.member.comparisonOperator' "
                "failed to satisfy constraint: Member must not be null"
            ],
        ),
        (
            "GetItem",
            {**KEY, "TableName": "ab", "Key": {"pk": {"N": "x"}}},
            [
                "Value 'ab' at 'tableName' failed to satisfy constraint: "
                "Member must have length greater than or equal to 3"
            ],
        ),
        (
            "CreateTable",
            {"TableName": "ab"},
            [
                "Value 'ab' at 'tableName' failed to satisfy constraint: "
                "Member must have length greater than or equal to 3"
            ],
        ),
        (
            "CreateTable",
            TABLE,
            [
                "Value null at 'attributeDefinitions' failed to satisfy constraint: "
                "Member must not be null",
                "Value null at 'keySchema' failed to satisfy constraint: Member must not be null",
            ],
        ),
        (
            "CreateTable",
            {
                **TABLE,
                "AttributeDefinitions": [{"AttributeName": "a", "AttributeType": "SS"}],
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}] * 3,
                "ProvisionedThroughput": {"ReadCapacityUnits": -1},
            },
            [
                f"Value 'SS' at 'attributeDefinitions.1.member.attributeType' {ENUMS} [B, N, S]",
                "Value null at 'provisionedThroughput.writeCapacityUnits' "
                "failed to satisfy constraint: Member must not be null",
                "Value '-1' at 'provisionedThroughput.readCapacityUnits' "
                "failed to satisfy constraint: Member must have value greater than or equal to 1",
                "Value '[KeySchemaElement(attributeName=pk, keyType=HASH), "
                "KeySchemaElement(attributeName=pk, keyType=HASH), "
                "KeySchemaElement(attributeName=pk, keyType=HASH)]' at 'keySchema' "
                "failed to satisfy constraint: Member must have length less than or equal to 2",
            ],
        ),
        (
            "DescribeTable",
            {"TableName": "ab;"},
            [
                "Value 'ab;' at 'tableName' failed to satisfy constraint: "
                "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
            ],
        ),
        (
            "ListTables",
            {"Limit": 101},
            [
                "Value '101' at 'limit' failed to satisfy constraint: "
                "Member must have value less than or equal to 100"
            ],
        ),
        (
            "GetItem",
            {**KEY, "AttributesToGet": [None]},
            [
                "Value '[null]' at 'attributesToGet' failed to satisfy constraint: "
                "Member must satisfy constraint: "
                "[Member must have length less than or equal to 65535, "
                "Member must have length greater than or equal to 0]"
            ],
        ),
    ],
)
def test_broken_constraints_are_listed(operation, request_body, failures):
    with pytest.raises(ValidationError) as caught:
        decode_request(operation, body(request_body))
    plural = "" if len(failures) == 1 else "s"
    assert caught.value.message == (
        f"{len(failures)} validation error{plural} detected: " + "; ".join(failures)
    )


def test_no_more_than_ten_failures_are_listed():
    request_body = {
        **TABLE,
        "AttributeDefinitions": [],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "LocalSecondaryIndexes": [{}] * 9,
    }
    with pytest.raises(ValidationError, match=r"^10 validation errors detected: ") as caught:
        decode_request("CreateTable", body(request_body))
    assert caught.value.message.count("; ") == 9
    assert "'localSecondaryIndexes.4.member.indexName'" in caught.value.message


@pytest.mark.parametrize(
    ("operation", "request_body", "message"),
    [
        (
            operation,
            {},
            "The parameter 'TableName' is required but was not present in the request",
        )
        for operation in ("CreateTable", "DescribeTable", "DeleteTable", "UpdateTable")
    ]
    + [
        (
            operation,
            {"TableName": name},
            "TableName must be at least 3 characters long and at most 255 characters long",
        )
        for operation in ("DescribeTable", "DeleteTable", "UpdateTable")
        for name in ("", "a;", "a" * 256)
    ]
    + [
        (operation, {}, "Invalid TableArn")
        for operation in ("TagResource", "UntagResource", "ListTagsOfResource")
    ],
)
def test_control_operations_complain_of_their_resource_first(operation, request_body, message):
    with pytest.raises(ValidationError) as caught:
        decode_request(operation, body(request_body))
    assert caught.value.message == message


def test_operations():
    assert len(OPERATIONS) > 50
    assert IMPLEMENTED_OPERATIONS < OPERATIONS
    assert "TransactWriteItems" in OPERATIONS
    for operation in ("TransactWriteItems", "NoSuchThing", ""):
        with pytest.raises(UnknownOperationError):
            decode_request(operation, b"{}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_members_are_decoded_or_refused_alike_by_both_ways(data):
    operation = data.draw(st.sampled_from(sorted(IMPLEMENTED_OPERATIONS)))
    members = requests.REQUEST_TYPES[operation].__struct_fields__
    names = st.sampled_from(members) if members else st.text(max_size=3)
    request_body = data.draw(
        st.binary(max_size=30)
        | st.dictionaries(names, JSON, max_size=4).map(lambda value: json.dumps(value).encode())
    )
    try:
        request = decode_request(operation, request_body)
    except (SerializationError, ValidationError):
        with pytest.raises((SerializationError, ValidationError)):
            explain_request(operation, request_body)
    else:
        assert type(request) is requests.REQUEST_TYPES[operation]
