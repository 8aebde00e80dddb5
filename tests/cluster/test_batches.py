"""Batches through unchanged clients: boto3's batch_writer and batch_get_item, generated gRPC stubs."""

from decimal import Decimal

import grpc
import pytest

from proto import dynamodb_pb2 as pb
from proto import dynamodb_pb2_grpc


@pytest.fixture
def resource(cluster):
    return cluster.resource()


def batch_get(resource, table, keys, **more):
    """All items, asking again for what comes back as unprocessed, as AWS's guide has it."""
    found = []
    asked = {table: {"Keys": keys, "ConsistentRead": True, **more}}
    while asked:
        answer = resource.batch_get_item(RequestItems=asked)
        found += answer["Responses"].get(table, [])
        asked = answer["UnprocessedKeys"]
    return found


def test_batch_writer_fills_and_empties_a_table(resource, things):
    table = resource.Table(things)
    with table.batch_writer(overwrite_by_pkeys=["pk", "sk"]) as batch:
        for n in range(120):
            batch.put_item(
                Item={"pk": f"p{n % 30}", "sk": n // 30, "n": Decimal(n), "text": "x" * n}
            )
        batch.put_item(Item={"pk": "p0", "sk": 0, "n": Decimal(-1)})
    assert table.scan(ConsistentRead=True, Select="COUNT")["Count"] == 120
    keys = [{"pk": f"p{n % 30}", "sk": n // 30} for n in range(100)]
    found = batch_get(resource, things, keys, ProjectionExpression="n")
    assert sorted(int(item["n"]) for item in found) == [-1, *range(1, 100)]
    with table.batch_writer() as batch:
        for n in range(0, 120, 2):
            batch.delete_item(Key={"pk": f"p{n % 30}", "sk": n // 30})
    left = table.scan(ConsistentRead=True)["Items"]
    assert sorted(int(item["n"]) for item in left) == list(range(1, 120, 2))


def test_what_does_not_fit_an_answer_comes_back_to_be_asked_for_again(resource, things):
    table = resource.Table(things)
    with table.batch_writer() as batch:
        for n in range(20):
            batch.put_item(Item={"pk": "large", "sk": n, "text": "x" * 200_000})
    keys = [{"pk": "large", "sk": n} for n in range(20)]
    answer = resource.batch_get_item(RequestItems={things: {"Keys": keys}})
    assert 0 < len(answer["Responses"][things]) < 20
    assert answer["UnprocessedKeys"][things]["Keys"]
    found = batch_get(resource, things, keys)
    assert sorted(int(item["sk"]) for item in found) == list(range(20))


def test_batches_over_grpc(cluster, things):
    with grpc.insecure_channel(cluster.grpc) as channel:
        stub = dynamodb_pb2_grpc.DynamoDBStub(channel)
        key = {"pk": pb.AttributeValue(s="g"), "sk": pb.AttributeValue(n="1")}
        write = pb.BatchWriteItemRequest()
        write.request_items[things].values.add().put_request.item.attributes.MergeFrom(
            pb.Item(attributes={**key, "b": pb.AttributeValue(b=b"\x00\xff")}).attributes
        )
        assert not stub.BatchWriteItem(write, timeout=10).unprocessed_items
        read = pb.BatchGetItemRequest()
        read.request_items[things].keys.add().CopyFrom(pb.Item(attributes=key))
        read.request_items[things].consistent_read = True
        answer = stub.BatchGetItem(read, timeout=10)
        (item,) = answer.responses[things].values
        assert item.attributes["b"].b == b"\x00\xff"
        assert not answer.unprocessed_keys
