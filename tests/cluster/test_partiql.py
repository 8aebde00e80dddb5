"""PartiQL through boto3 and gRPC on a cluster, on a table of several partitions."""

import grpc
import pytest
from botocore.exceptions import ClientError

from proto import dynamodb_pb2, dynamodb_pb2_grpc


def every_page(client, statement, parameters=None, **members):
    if parameters:
        members["Parameters"] = parameters
    items, pages = [], 0
    while True:
        page = client.execute_statement(Statement=statement, ConsistentRead=True, **members)
        items += page["Items"]
        pages += 1
        if "NextToken" not in page:
            return items, pages
        members["NextToken"] = page["NextToken"]


def test_statements_end_to_end(client, things):
    for partition in "abcdef":
        answer = client.batch_execute_statement(
            Statements=[
                {
                    "Statement": f"INSERT INTO \"{things}\" VALUE {{'pk': ?, 'sk': ?, 'tags': <<'t', 'u'>>}}",
                    "Parameters": [{"S": partition}, {"N": str(number)}],
                }
                for number in range(10)
            ]
        )
        assert [response for response in answer["Responses"] if "Error" in response] == []
    whole, pages = every_page(client, f'SELECT pk, sk FROM "{things}"', Limit=7)
    assert sorted((item["pk"]["S"], int(item["sk"]["N"])) for item in whole) == [
        (partition, number) for partition in "abcdef" for number in range(10)
    ]
    assert pages == 9
    some, _ = every_page(
        client,
        f'SELECT * FROM "{things}" WHERE pk IN [?, ?, ?] AND sk BETWEEN 3 AND 5 ORDER BY pk DESC, sk DESC',
        [{"S": "b"}, {"S": "e"}, {"S": "none"}],
        Limit=2,
    )
    assert [(item["pk"]["S"], int(item["sk"]["N"])) for item in some] == [
        ("e", 5), ("e", 4), ("e", 3), ("b", 5), ("b", 4), ("b", 3),
    ]  # fmt: skip
    updated = client.execute_statement(
        Statement=f"UPDATE \"{things}\" SET n = 1 SET tags = set_add(tags, <<'v'>>) "
        "WHERE pk = 'a' AND sk = 0 AND n IS MISSING RETURNING ALL NEW *"
    )["Items"]
    assert updated[0]["n"] == {"N": "1"}
    assert sorted(updated[0]["tags"]["SS"]) == ["t", "u", "v"]
    with pytest.raises(client.exceptions.ConditionalCheckFailedException) as raised:
        client.execute_statement(
            Statement=f"UPDATE \"{things}\" SET n = 2 WHERE pk = 'a' AND sk = 0 AND n IS MISSING",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    assert raised.value.response["Item"]["n"] == {"N": "1"}
    with pytest.raises(client.exceptions.DuplicateItemException):
        client.execute_statement(Statement=f"INSERT INTO \"{things}\" VALUE {{'pk': 'a', 'sk': 0}}")
    deleted = client.execute_statement(
        Statement=f'DELETE FROM "{things}" WHERE pk = ? AND sk = ? RETURNING ALL OLD *',
        Parameters=[{"S": "a"}, {"N": "0"}],
    )["Items"]
    assert deleted == updated
    reads = client.batch_execute_statement(
        Statements=[
            {
                "Statement": f'SELECT sk FROM "{things}" WHERE pk = ? AND sk = ?',
                "Parameters": [{"S": "a"}, {"N": str(number)}],
                "ConsistentRead": True,
            }
            for number in range(3)
        ],
        ReturnConsumedCapacity="TOTAL",
    )
    assert [response.get("Item") for response in reads["Responses"]] == [
        None, {"sk": {"N": "1"}}, {"sk": {"N": "2"}},
    ]  # fmt: skip
    assert reads["ConsumedCapacity"] == [{"TableName": things, "CapacityUnits": 3.0}]


def test_errors_through_the_sdk(client, things):
    with pytest.raises(ClientError) as raised:
        client.execute_statement(Statement=f'SELECT * FROM "{things}" WHERE')
    assert raised.value.response["Error"] == {
        "Code": "ValidationException",
        "Message": "Statement wasn't well formed, can't be processed: Unexpected term",
    }
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.execute_statement(Statement="SELECT * FROM no_such_table")


def test_plain_values_through_the_resource(cluster, things):
    answer = cluster.resource().meta.client.execute_statement(
        Statement=f"INSERT INTO \"{things}\" VALUE {{'pk': ?, 'sk': ?}}", Parameters=["res", 1]
    )
    assert answer["Items"] == []


def test_grpc(cluster, client, things):
    with grpc.insecure_channel(cluster.grpc) as channel:
        stub = dynamodb_pb2_grpc.DynamoDBStub(channel)
        value = dynamodb_pb2.AttributeValue
        stub.ExecuteStatement(
            dynamodb_pb2.ExecuteStatementRequest(
                statement=f"INSERT INTO \"{things}\" VALUE {{'pk': ?, 'sk': 1, 'l': [true]}}",
                parameters=[value(s="grpc")],
            )
        )
        answer = stub.ExecuteStatement(
            dynamodb_pb2.ExecuteStatementRequest(
                statement=f'SELECT l[0] FROM "{things}" WHERE pk = ?',
                parameters=[value(s="grpc")],
                consistent_read=True,
            )
        )
        assert answer.items[0].attributes["l[0]"].bool is True
        batch = stub.BatchExecuteStatement(
            dynamodb_pb2.BatchExecuteStatementRequest(
                statements=[
                    dynamodb_pb2.BatchStatementRequest(
                        statement=f"INSERT INTO \"{things}\" VALUE {{'pk': 'grpc', 'sk': 1}}"
                    )
                ]
            )
        )
        assert batch.responses[0].error.code == "DuplicateItem"
        with pytest.raises(grpc.RpcError) as raised:
            stub.ExecuteStatement(
                dynamodb_pb2.ExecuteStatementRequest(
                    statement=f"INSERT INTO \"{things}\" VALUE {{'pk': 'grpc', 'sk': 1}}"
                )
            )
        assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
