"""Bytes that no SDK would send, at both front doors of a live cluster: an AWS-form answer, never a 5xx."""

import gzip
import json
import random
import string
import zlib
from urllib.parse import urlsplit

import grpc
import pytest

from tests.cluster.harness import LocalCluster
from tests.cluster.raw_http import SECONDS_PER_READ, error_of, exchange, request
from tests.cluster.workload import WireClient


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
    halves = gzip.compress(good[:10]) + gzip.compress(good[10:])
    assert exchange(cluster.http, request(halves, Content_Encoding="gzip")) == (200, b"{}")
    bomb = gzip.compress(b" " * (9 << 20)) * 2
    assert exchange(cluster.http, request(bomb, Content_Encoding="gzip"))[0] == 413
    greeting = exchange(cluster.http, b"GET / HTTP/1.1\r\nHost: db.local:8000\r\n\r\n")
    assert greeting == (200, b"healthy: db.local:8000 ")
    unknown = (404, b"<UnknownOperationException/>\n")
    assert exchange(cluster.http, b"GET /index.htm HTTP/1.1\r\nHost: x\r\n\r\n") == unknown
    assert exchange(cluster.http, request(good).replace(b"POST /", b"POST /x")) == unknown
    assert exchange(cluster.http, request(good).replace(b"POST /", b"POST /" + b"x" * 17_000)) == (
        400, b"",
    )  # fmt: skip
    assert exchange(cluster.http, request(good, X="x" * 17_000)) == (400, b"")
    assert (
        exchange(cluster.http, b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")[0] == 404
    )
    # Cut off in the middle: no answer is owed, but nothing breaks.
    assert exchange(cluster.http, request(good)[:-5], end=True)[0] in (0, 400)
    assert exchange(cluster.http, b"\x16\x03\x01\x02\x00\x01\x00")[0] in (0, 400)
    assert exchange(cluster.http, b"A" * 200_000)[0] in (0, 400)
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


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_scripts_of_other_origins(cluster: LocalCluster, method):
    import http.client

    parts = urlsplit(cluster.http)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS_PER_READ)
    asked = {
        "Access-Control-Request-Method": "dog",
        "Access-Control-Request-Headers": "cat, meerkat, mouse",
    }
    answers = {}
    for origin in ({}, {"Origin": "http://example.com/"}):
        connection.request(method, "/", b"", {**asked, **origin})
        response = connection.getresponse()
        response.read()
        answers[bool(origin)] = {
            name.lower().removeprefix("access-control-"): value
            for name, value in response.headers.items()
            if name.lower().startswith("access-control-")
        }
    connection.close()
    shown = {
        "allow-origin": "*",
        "expose-headers": "x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,Date",
    }
    if method == "OPTIONS":
        shown |= {
            "max-age": "172800",
            "allow-methods": "dog",
            "allow-headers": "cat, meerkat, mouse",
        }
    assert answers == {False: {}, True: shown}


def test_tagging_is_answered_without_a_body(cluster: LocalCluster, table):
    client = WireClient(cluster.http)
    arn = client.call("DescribeTable", TableName=table)["Table"]["TableArn"]
    client.close()
    tag = json.dumps({"ResourceArn": arn, "Tags": [{"Key": "k", "Value": "v"}]}).encode()
    assert exchange(cluster.http, request(tag, "DynamoDB_20120810.TagResource")) == (200, b"")
    untag = json.dumps({"ResourceArn": arn, "TagKeys": ["k"]}).encode()
    assert exchange(cluster.http, request(untag, "DynamoDB_20120810.UntagResource")) == (200, b"")


def test_a_call_that_the_service_does_not_have(cluster: LocalCluster):
    with grpc.insecure_channel(cluster.grpc) as channel:
        unknown = channel.unary_unary("/quorate.v1.DynamoDB/NoSuchCall")
        with pytest.raises(grpc.RpcError) as missing:
            unknown(b"", timeout=SECONDS_PER_READ)
        assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED


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
