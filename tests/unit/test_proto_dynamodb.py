"""dynamodb.proto has every member of AWS's API, and only grows."""

import json

import pytest

from datamodel.generate import MODEL_PATH
from datamodel.shape_rules import IMPLEMENTED_OPERATIONS, completed_shapes
from proto import dynamodb_pb2 as pb
from proto import generate


@pytest.fixture(scope="module")
def model():
    return json.loads(MODEL_PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source():
    return generate.PROTO_PATH.read_text(encoding="utf-8")


def test_generating_again_gives_the_committed_file(model, source):
    assert generate.proto_text(model, source) == source


def test_one_method_per_operation():
    methods = pb.DESCRIPTOR.services_by_name["DynamoDB"].methods
    assert [method.name for method in methods] == list(IMPLEMENTED_OPERATIONS)
    for method in methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"


def test_messages_have_the_members_of_their_shapes(model):
    names = generate.message_names(model)
    shapes = completed_shapes(model["shapes"])
    assert {f"{operation}Request" for operation in IMPLEMENTED_OPERATIONS} <= set(names.values())
    for shape, message in names.items():
        fields = pb.DESCRIPTOR.message_types_by_name[message].fields
        if shapes[shape]["type"] == "list":
            assert [(field.name, field.is_repeated) for field in fields] == [("values", True)]
            continue
        assert {field.json_name for field in fields} == set(shapes[shape].get("members", {})), shape


def test_attribute_values_have_ten_types_one_at_a_time(model):
    descriptor = pb.AttributeValue.DESCRIPTOR
    assert {field.json_name for field in descriptor.fields} == set(
        model["shapes"]["AttributeValue"]["members"]
    )
    assert {field.containing_oneof.name for field in descriptor.fields} == {"value"}


def test_scalars_have_presence():
    for message in pb.DESCRIPTOR.message_types_by_name.values():
        if message.name.endswith("Request"):
            for field in message.fields:
                assert field.is_repeated or field.has_presence, f"{message.name}.{field.name}"


@pytest.mark.parametrize(
    ("member", "field"),
    [
        ("TableName", "table_name"),
        ("SSESpecification", "sse_specification"),
        ("KMSMasterKeyId", "kms_master_key_id"),
        ("SizeEstimateRangeGB", "size_estimate_range_gb"),
        ("ReturnValuesOnConditionCheckFailure", "return_values_on_condition_check_failure"),
    ],
)
def test_snake_case(member, field):
    assert generate.snake_case(member) == field


def test_field_numbers_are_kept_and_never_used_again(model, source):
    grown = json.loads(json.dumps(model))
    members = grown["shapes"]["GetItemInput"]["members"]
    del members["ConsistentRead"]
    grown["shapes"]["GetItemInput"]["members"] = {"Added": "TableArn", **members}
    second = generate.proto_text(grown, source)
    assert 'optional string added = 8 [json_name = "Added"];' in second
    assert 'Item key = 2 [json_name = "Key"];' in second
    assert "message GetItemRequest {\n  reserved 4;\n" in second
    # The member comes back: its number stays reserved, because clients of the time between know another field.
    third = generate.proto_text(model, second)
    assert 'optional bool consistent_read = 9 [json_name = "ConsistentRead"];' in third
    assert "message GetItemRequest {\n  reserved 4, 8;\n" in third
