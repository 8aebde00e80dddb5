"""Translation between messages of the gRPC service and AWS's JSON."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import dynamodb_pb2 as pb
from proto.translate import from_members, to_members

B64 = base64.b64encode(b"\x00\xff").decode()
VALUES = [
    {"S": ""},
    {"S": "grüße\x00"},
    {"N": "-12345678901234567890.5"},
    {"B": B64},
    {"B": ""},
    {"SS": ["a", ""]},
    {"NS": ["1", "2.5"]},
    {"BS": [B64, "AA=="]},
    {"M": {}},
    {"M": {"a": {"M": {"b": {"S": "c"}}}, "é": {"NULL": True}}},
    {"L": []},
    {"L": [{"L": [{"N": "1"}]}, {"M": {"x": {"B": B64}}}]},
    {"NULL": True},
    {"BOOL": True},
    {"BOOL": False},
]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_every_kind_of_attribute_value_there_and_back(value):
    members = {"TableName": "t", "Item": {"pk": {"S": "a"}, "v": value}}
    message = from_members(members, pb.PutItemRequest)
    assert to_members(message) == members
    assert to_members(pb.PutItemRequest.FromString(message.SerializeToString())) == members


def test_fields_are_what_a_client_expects():
    message = from_members({"Item": {"v": {"BS": [B64]}, "n": {"NULL": True}}}, pb.GetItemResponse)
    assert list(message.item.attributes["v"].bs.values) == [b"\x00\xff"]
    assert message.item.attributes["n"].WhichOneof("value") == "null"


@pytest.mark.parametrize(
    ("message_type", "members"),
    [
        (pb.GetItemResponse, {}),
        (pb.GetItemResponse, {"Item": {}}),
        (pb.QueryResponse, {"Items": [{}, {"a": {"S": "b"}}], "Count": 2, "ScannedCount": 0}),
        (pb.QueryResponse, {"Items": [{"a": {"S": "b"}}], "LastEvaluatedKey": {"a": {"S": "b"}}}),
        (pb.QueryRequest, {"ScanIndexForward": False, "Limit": 0, "IndexName": ""}),
        (
            pb.QueryRequest,
            {
                "KeyConditions": {
                    "pk": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "a"}]}
                }
            },
        ),
        (
            pb.UpdateItemRequest,
            {
                "ExpressionAttributeNames": {"#a": "a"},
                "ExpressionAttributeValues": {":a": {"N": "1"}},
                "Expected": {"a": {"Exists": False}},
            },
        ),
        (
            pb.PutItemResponse,
            {
                "ItemCollectionMetrics": {
                    "ItemCollectionKey": {"pk": {"S": "a"}},
                    "SizeEstimateRangeGB": [0.0, 1.0],
                },
                "ConsumedCapacity": {"TableName": "t", "CapacityUnits": 0.5},
            },
        ),
        (
            pb.CreateTableRequest,
            {
                "TableName": "t",
                "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
                "ProvisionedThroughput": {"ReadCapacityUnits": 2**40, "WriteCapacityUnits": 1},
                "DeletionProtectionEnabled": False,
                "Tags": [{"Key": "k", "Value": ""}],
            },
        ),
        (pb.DescribeTableResponse, {"Table": {"CreationDateTime": 1_700_000_000.25}}),
        (pb.ListTablesResponse, {"TableNames": ["a", "b"], "LastEvaluatedTableName": "b"}),
        (pb.TagResourceResponse, {}),
    ],
)
def test_members_there_and_back(message_type, members):
    message = from_members(members, message_type)
    assert to_members(message_type.FromString(message.SerializeToString())) == members


def test_absent_and_empty_items_differ():
    assert not from_members({}, pb.GetItemResponse).HasField("item")
    assert from_members({"Item": {}}, pb.GetItemResponse).HasField("item")


def test_empty_lists_and_maps_count_as_absent():
    members = {"AttributesToGet": [], "ExpressionAttributeNames": {}}
    assert to_members(from_members(members, pb.GetItemRequest)) == {}


def test_unknown_and_null_members_are_left_out():
    members = {"TableName": "t", "New": [1], "Key": None, "ConsistentRead": True}
    message = from_members(members, pb.GetItemRequest)
    assert to_members(message) == {"TableName": "t", "ConsistentRead": True}


@pytest.mark.parametrize(
    ("message_type", "members"),
    [
        (pb.GetItemRequest, {"TableName": 1}),
        (pb.GetItemRequest, {"Key": []}),
        (pb.GetItemRequest, {"Key": {"a": 5}}),
        (pb.GetItemRequest, {"Key": {"a": {"B": "*"}}}),
        (pb.GetItemRequest, {"TableName": "\ud800"}),
        (pb.QueryRequest, {"Limit": "x"}),
        (pb.QueryRequest, {"Limit": 2**40}),
        (pb.QueryResponse, {"Items": 5}),
        (pb.GetItemRequest, {"ExpressionAttributeNames": {"a": 1}}),
    ],
)
def test_what_does_not_fit_is_a_value_error(message_type, members):
    with pytest.raises(ValueError):
        from_members(members, message_type)


@pytest.mark.parametrize("wrap", [lambda v: {"M": {"x": v}}, lambda v: {"L": [v]}])
def test_the_deepest_item_passes_the_decoder(wrap):
    """DynamoDB allows 32 levels; protobuf's decoders stop at 100 messages inside each other."""
    value = {"S": "a"}
    for _ in range(31):
        value = wrap(value)
    members = {"Items": [{"a": value}]}
    message = from_members(members, pb.QueryResponse)
    assert to_members(pb.QueryResponse.FromString(message.SerializeToString())) == members


LEAVES = st.one_of(
    st.text(max_size=4).map(lambda text: {"S": text}),
    st.integers().map(lambda number: {"N": str(number)}),
    st.binary(max_size=4).map(lambda data: {"B": base64.b64encode(data).decode()}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.lists(st.text(max_size=3), min_size=1, max_size=3).map(lambda texts: {"SS": texts}),
)
ATTRIBUTE_VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: {"L": values})
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(lambda values: {"M": values})
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), ATTRIBUTE_VALUES, max_size=4))
def test_any_item_there_and_back(item):
    message = from_members({"Item": item}, pb.PutItemRequest)
    decoded = pb.PutItemRequest.FromString(message.SerializeToString())
    assert to_members(decoded) == {"Item": item}
