"""Bytes that no SDK would send, at both front doors of a live cluster: an AWS-form answer, never a 5xx."""

import gzip
import json
import random
import socket
import string
import zlib
from urllib.parse import urlsplit

import grpc
import pytest

from proto import dynamodb_pb2, dynamodb_pb2_grpc
from tests.cluster.harness import LocalCluster
from tests.cluster.workload import Answer, WireClient

SECONDS_PER_READ = 20


def exchange(endpoint: str, data: bytes, *, end: bool = False) -> tuple[int, bytes]:
    """Send raw bytes on a connection of their own; status (0: closed without a word) and all that came."""
    parts = urlsplit(endpoint)
    with socket.create_connection((parts.hostname, parts.port), SECONDS_PER_READ) as connection:
        received = b""
        try:
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
            head, _, body = received.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            while len(body) < length:
                piece = connection.recv(65536)
                if not piece:
                    break
                body += piece
        except (ConnectionResetError, BrokenPipeError):
            body = received.partition(b"\r\n\r\n")[2]
        status = int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.") else 0
        return status, body


def request(body: bytes, target: str = "DynamoDB_20120810.GetItem", **headers: str) -> bytes:
    lines = {
        "Host": "localhost",
        "X-Amz-Target": target,
        "Content-Type": "application/x-amz-json-1.0",
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    head = "".join(f"{k}: {v}\r\n" for k, v in lines.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body


def error_of(body: bytes) -> str:
    return json.loads(body)["__type"].rpartition("#")[2]


@pytest.fixture(scope="module")
def table(cluster: LocalCluster):
    client = WireClient(cluster.http)
    client.call(
        "CreateTable",
        TableName="fuzzed",
        KeySchema=[
            {"AttributeName": "pk", "KeyType": "HASH"},
            {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.close()
    return "fuzzed"


@pytest.mark.parametrize(
    ("body", "target", "status", "code"),
    [
        (b"", "DynamoDB_20120810.GetItem", 400, "SerializationException"),
        (b"{", "DynamoDB_20120810.GetItem", 400, "SerializationException"),
        (b"[]", "DynamoDB_20120810.GetItem", 400, "SerializationException"),
        (b"\xff\xfe", "DynamoDB_20120810.GetItem", 400, "SerializationException"),
        (b'{"TableName": 5}', "DynamoDB_20120810.GetItem", 400, "SerializationException"),
        (b"[" * 100_000, "DynamoDB_20120810.PutItem", 400, "SerializationException"),
        (b'{"a":' * 100_000, "DynamoDB_20120810.PutItem", 400, "SerializationException"),
        (b"{}", "DynamoDB_20120810.GetItem", 400, "ValidationException"),
        (b"{}", "DynamoDB_20120810.Nonsense", 400, "UnknownOperationException"),
        (b"{}", "DynamoDB_20120810.RestoreTableFromBackup", 400, "UnknownOperationException"),
        (b"{}", "Other_20120810.GetItem", 400, "UnknownOperationException"),
        (
            b'{"TableName":"missing","Key":{"pk":{"S":"a"}}}',
            "DynamoDB_20120810.GetItem", 400, "ResourceNotFoundException",
        ),
    ],
)  # fmt: skip
def test_bad_bodies(cluster: LocalCluster, body, target, status, code):
    got, answer = exchange(cluster.http, request(body, target))
    assert (got, error_of(answer)) == (status, code)


def test_framing_of_http(cluster: LocalCluster, table):
    good = json.dumps({"TableName": table, "Key": {"pk": {"S": "a"}, "sk": {"N": "1"}}}).encode()
    assert exchange(cluster.http, request(good)) == (200, b"{}")
    packed = gzip.compress(good)
    assert exchange(cluster.http, request(packed, Content_Encoding="gzip")) == (200, b"{}")
    status, body = exchange(cluster.http, request(b"no gzip", Content_Encoding="gzip"))
    assert (status, error_of(body)) == (400, "SerializationException")
    bomb = gzip.compress(b" " * (64 << 20))
    assert exchange(cluster.http, request(bomb, Content_Encoding="gzip"))[0] == 413
    chunked = (
        request(b"", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
        + f"{len(good):x}\r\n".encode() + good + b"\r\n0\r\n\r\n"
    )  # fmt: skip
    assert exchange(cluster.http, chunked) == (200, b"{}")
    assert exchange(cluster.http, request(b" " * (16 << 20) + good))[0] == 413
    assert exchange(cluster.http, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 200
    assert (
        exchange(cluster.http, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")[0] == 404
    )
    # Cut off in the middle: no answer is owed, but nothing breaks.
    assert exchange(cluster.http, request(good)[:-5], end=True)[0] in (0, 400)
    assert exchange(cluster.http, b"\x16\x03\x01\x02\x00\x01\x00")[0] in (0, 400)
    assert exchange(cluster.http, b"A" * 200_000)[0] in (0, 400, 431)
    parts = request(good)
    # Two requests in one segment are answered in order on the kept connection.
    status, body = exchange(cluster.http, parts + parts)
    assert status == 200
    assert body.startswith(b"{}")


def test_crc_and_ids_are_those_of_the_answer(cluster: LocalCluster, table):
    import http.client

    parts = urlsplit(cluster.http)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS_PER_READ)
    seen = set()
    for _ in range(3):
        connection.request(
            "POST", "/", b"{}",
            {
                "X-Amz-Target": "DynamoDB_20120810.ListTables",
                "Content-Type": "application/x-amz-json-1.0",
            },
        )  # fmt: skip
        response = connection.getresponse()
        body = response.read()
        assert int(response.headers["x-amz-crc32"]) == zlib.crc32(body)
        identity = response.headers["x-amzn-RequestId"]
        assert len(identity) == 52
        assert set(identity) <= set(string.ascii_uppercase + string.digits)
        seen.add(identity)
        assert response.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert len(seen) == 3
    connection.close()


VALID = [
    ("PutItem", {"Item": {"pk": {"S": "a"}, "sk": {"N": "1"}, "m": {"M": {"l": {"L": [{"N": "2"}]}}}}}),
    ("PutItem", {
        "Item": {"pk": {"S": "a"}, "sk": {"N": "2"}, "s": {"SS": ["x", "y"]}, "b": {"B": "AAEC"}},
        "ConditionExpression": "attribute_not_exists(#p) OR size(s) > :n",
        "ExpressionAttributeNames": {"#p": "pk"}, "ExpressionAttributeValues": {":n": {"N": "0"}},
        "ReturnValues": "ALL_OLD", "ReturnConsumedCapacity": "INDEXES",
    }),
    ("GetItem", {
        "Key": {"pk": {"S": "a"}, "sk": {"N": "1"}}, "ConsistentRead": True,
        "ProjectionExpression": "m.l[0], #s", "ExpressionAttributeNames": {"#s": "sk"},
    }),
    ("UpdateItem", {
        "Key": {"pk": {"S": "a"}, "sk": {"N": "1"}},
        "UpdateExpression": (
            "SET m.l[5] = list_append(m.l, :l), n = if_not_exists(n, :z) + :one REMOVE x ADD c :one"
        ),
        "ExpressionAttributeValues": {":l": {"L": []}, ":z": {"N": "0"}, ":one": {"N": "1"}},
        "ReturnValues": "UPDATED_NEW",
    }),
    ("DeleteItem", {"Key": {"pk": {"S": "a"}, "sk": {"N": "3"}}, "ReturnValues": "ALL_OLD"}),
    ("Query", {
        "KeyConditionExpression": "pk = :p AND sk BETWEEN :a AND :b", "FilterExpression": "NOT contains(s, :x)",
        "ExpressionAttributeValues": {
            ":p": {"S": "a"}, ":a": {"N": "-1E10"}, ":b": {"N": "7"}, ":x": {"S": "x"},
        },
        "Limit": 3, "ScanIndexForward": False, "Select": "ALL_ATTRIBUTES",
    }),
    ("Scan", {
        "Limit": 5, "Segment": 0, "TotalSegments": 2,
        "ExclusiveStartKey": {"pk": {"S": "a"}, "sk": {"N": "1"}},
    }),
    ("DescribeTable", {}),
    ("ListTables", {"Limit": 5, "ExclusiveStartTableName": "abc"}),
]  # fmt: skip

STRANGE = [
    None, True, False, 0, -1, 1 << 70, 1.5, "", "x", "\x00", "\U0001f600", "a" * 3000, [], {}, [[]], [{}],
    {"S": 1}, {"N": "abc"}, {"N": "1e999"}, {"B": "***"}, {"SS": []}, {"M": {"": {}}}, {"L": [{"L": [{}]}]},
    {"NULL": False}, {"S": "a", "N": "1"}, "size(size(a))", "a = :x AND", "#", ":", "((((", "SET",
    "a[999999999]",
]  # fmt: skip


def mutate(value, chance: random.Random):
    """A copy with some part replaced, dropped, renamed or repeated."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        copy = dict(value)
        roll = chance.random()
        if roll < 0.15:
            del copy[key]
        elif roll < 0.25:
            copy[chance.choice(["", "S", "zz", key + "x", "#p", ":p"])] = copy.pop(key)
        else:
            copy[key] = mutate(copy[key], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.7:
        copy = list(value)
        position = chance.randrange(len(copy))
        copy[position] = mutate(copy[position], chance)
        return copy * chance.choice([1, 1, 2])
    if isinstance(value, str) and value and chance.random() < 0.7:
        position = chance.randrange(len(value))
        piece = chance.choice(
            ["", "(", ")", ",", " ", "#", ":", ".", "[", "\x00", "é", "AND ", "0"]
        )
        return value[:position] + piece + value[position + chance.choice([0, 1, 3]) :]
    return chance.choice(STRANGE)


def fuzz_http(cluster: LocalCluster, table: str, rounds: int, seed: int) -> dict[str, int]:
    """Send mutated requests; every answer must be a success or a client's error in AWS's form."""
    chance = random.Random(seed)
    client = WireClient(cluster.http)
    outcomes: dict[str, int] = {}
    for number in range(rounds):
        operation, members = chance.choice(VALID)
        document = {"TableName": table, **members} if operation != "ListTables" else members
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            document = mutate(document, chance)
            if not isinstance(document, dict):
                document = {"TableName": table, "Key": document}
        try:
            client.call(operation, **document)
            code = "ok"
        except Answer as answer:
            assert answer.status == 400, (
                f"seed {seed} round {number}: {operation} {document}: {answer}"
            )
            assert answer.code.endswith("Exception"), answer
            code = answer.code
        outcomes[code] = outcomes.get(code, 0) + 1
    client.close()
    return outcomes


def test_mutated_requests_over_http(cluster: LocalCluster, table):
    outcomes = fuzz_http(cluster, table, 2500, seed=20120810)
    assert outcomes["ok"] > 100
    assert outcomes["ValidationException"] > 100
    assert outcomes["SerializationException"] > 20


def test_bytes_mutated_over_http(cluster: LocalCluster, table):
    chance = random.Random(99)
    for number in range(150):
        operation, members = chance.choice(VALID)
        data = bytearray(
            request(
                json.dumps({"TableName": table, **members}).encode(),
                f"DynamoDB_20120810.{operation}",
            )
        )
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        status, body = exchange(cluster.http, bytes(data), end=True)
        assert status == 0 or status < 500, f"round {number}: {bytes(data)!r} -> {status} {body!r}"


def test_garbage_over_grpc(cluster: LocalCluster, table):
    chance = random.Random(3)
    with grpc.insecure_channel(cluster.grpc) as channel:
        put = channel.unary_unary("/quorate.v1.DynamoDB/PutItem")
        template = dynamodb_pb2.PutItemRequest(
            table_name=table,
            item=dynamodb_pb2.Item(
                attributes={
                    "pk": dynamodb_pb2.AttributeValue(s="a"),
                    "sk": dynamodb_pb2.AttributeValue(n="1"),
                }
            ),
        ).SerializeToString()
        allowed = {
            grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
        }  # fmt: skip
        for number in range(400):
            data = bytearray(template)
            for _ in range(chance.choice([1, 1, 3])):
                data[chance.randrange(len(data))] = chance.randrange(256)
            if chance.random() < 0.2:
                data = data[: chance.randrange(len(data))]
            try:
                put(bytes(data), timeout=SECONDS_PER_READ)
            except grpc.RpcError as error:
                assert error.code() in allowed, f"round {number}: {bytes(data)!r}: {error}"
        unknown = channel.unary_unary("/quorate.v1.DynamoDB/NoSuchCall")
        with pytest.raises(grpc.RpcError) as missing:
            unknown(b"", timeout=SECONDS_PER_READ)
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED
        stub = dynamodb_pb2_grpc.DynamoDBStub(channel)
        assert (
            stub.DescribeTable(
                dynamodb_pb2.DescribeTableRequest(table_name=table), timeout=SECONDS_PER_READ
            ).table.table_status
            == "ACTIVE"
        )


def test_garbage_at_the_inner_ports(cluster: LocalCluster, table):
    """A peer port takes anything without harm: the process stays and serves."""
    before = {p["name"]: p["pid"] for p in cluster.processes()}
    chance = random.Random(4)
    for process in cluster.processes("storagenode"):
        for _ in range(10):
            junk = chance.randbytes(chance.choice([1, 9, 100, 70_000]))
            exchange(f"http://{process['address']}", junk, end=True)
        host = process["metrics"].removesuffix("/metrics")
        assert exchange(host, b"\x00junk\r\n\r\n", end=True)[0] in (0, 400)
    client = WireClient(cluster.http)
    client.call("PutItem", TableName=table, Item={"pk": {"S": "after"}, "sk": {"N": "1"}})
    client.close()
    assert {p["name"]: p["pid"] for p in cluster.processes()} == before
