"""The gRPC endpoint over a fake dispatcher: a real server and a real client on a free port."""

import asyncio
import json
import logging
import threading
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from datamodel import errors
from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from proto import dynamodb_pb2 as pb
from proto import dynamodb_pb2_grpc
from router.transports import grpc_server
from router.transports.grpc_server import (
    DETAIL_BYTES_MAX,
    ERROR_DETAIL_KEY,
    LARGE_MESSAGE_BYTES,
    REQUEST_ID_KEY,
    SERVICE_NAME,
    STATUS_BY_CODE,
    serve_grpc,
)

REQUEST_ID = "R" * 52


class FakeDispatcher:
    """Answers every request with the same reply and remembers what it was asked."""

    def __init__(self):
        self.reply = (200, b"{}")
        self.calls = []
        self.later = False
        self.ready = True

    def __call__(self, operation, body, context, reply):
        self.calls.append((operation, json.loads(body), context))
        if isinstance(self.reply, Exception):
            raise self.reply
        if self.later:
            asyncio.get_running_loop().call_soon(reply, *self.reply)
        elif self.reply is not None:
            reply(*self.reply)

    def fail(self, error):
        self.reply = (error.http_status, errors.error_body(error))


@asynccontextmanager
async def serving(dispatcher):
    server = await serve_grpc(
        "127.0.0.1:0", dispatcher, lambda: dispatcher.ready, lambda: REQUEST_ID.encode()
    )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop()


def run(test):
    """Run `test(dispatcher, stub, channel)` against a server."""

    async def main():
        dispatcher = FakeDispatcher()
        async with serving(dispatcher) as channel:
            return await test(dispatcher, dynamodb_pb2_grpc.DynamoDBStub(channel), channel)

    return asyncio.run(asyncio.wait_for(main(), 20))


def detail_of(error):
    metadata = dict(error.trailing_metadata())
    return pb.ErrorDetail.FromString(metadata[ERROR_DETAIL_KEY])


def test_a_call_is_a_request_and_its_reply_the_answer():
    async def test(dispatcher, stub, channel):
        dispatcher.reply = (200, b'{"Item":{"pk":{"S":"a"},"n":{"N":"1"}}}')
        request = pb.GetItemRequest(
            table_name="users",
            key=pb.Item(attributes={"pk": pb.AttributeValue(s="a")}),
            consistent_read=True,
        )
        call = stub.GetItem(request, timeout=10)
        answer = await call
        assert answer.item.attributes["n"].n == "1"
        operation, members, context = dispatcher.calls[0]
        assert operation == "GetItem"
        assert members == {
            "TableName": "users",
            "Key": {"pk": {"S": "a"}},
            "ConsistentRead": True,
        }
        assert 0 < context.time_remaining_s <= 11  # both ends round the deadline
        assert dict(await call.trailing_metadata())[REQUEST_ID_KEY] == REQUEST_ID

    run(test)


@pytest.mark.parametrize("size", [10, LARGE_MESSAGE_BYTES])
def test_large_messages_are_translated_in_a_thread_of_their_own(monkeypatch, size):
    threads = []

    def noting(function):
        def note(*args):
            threads.append(threading.current_thread() is threading.main_thread())
            return function(*args)

        return note

    for name in ("to_members", "from_members"):
        monkeypatch.setattr(grpc_server, name, noting(getattr(grpc_server, name)))

    async def test(dispatcher, stub, channel):
        item = {"pk": {"S": "a" * size}}
        dispatcher.reply = (200, json.dumps({"Item": item}).encode())
        key = pb.Item(attributes={"pk": pb.AttributeValue(s="a" * size)})
        answer = await stub.GetItem(pb.GetItemRequest(table_name="users", key=key), timeout=10)
        assert answer.item.attributes["pk"].s == "a" * size
        assert dispatcher.calls[0][1] == {"TableName": "users", "Key": item}
        assert threads == [size < LARGE_MESSAGE_BYTES] * 2

    run(test)


@pytest.mark.parametrize("operation", IMPLEMENTED_OPERATIONS)
def test_every_operation_is_served(operation):
    async def test(dispatcher, stub, channel):
        dispatcher.later = True
        await getattr(stub, operation)(getattr(pb, f"{operation}Request")())
        assert dispatcher.calls[0][:2] == (operation, {})
        assert dispatcher.calls[0][2].time_remaining_s is None

    run(test)


def test_an_answer_without_a_body_is_a_message_without_members():
    async def test(dispatcher, stub, channel):
        dispatcher.reply = (200, b"")
        answer = await stub.TagResource(pb.TagResourceRequest(resource_arn="arn:x"))
        assert answer == pb.TagResourceResponse()

    run(test)


@pytest.mark.parametrize(
    ("error", "operation", "status"),
    [
        (errors.ValidationError("bad"), "GetItem", grpc.StatusCode.INVALID_ARGUMENT),
        (errors.SerializationError(), "GetItem", grpc.StatusCode.INVALID_ARGUMENT),
        (errors.ResourceNotFoundError(), "GetItem", grpc.StatusCode.NOT_FOUND),
        (errors.ResourceInUseError("x"), "CreateTable", grpc.StatusCode.ALREADY_EXISTS),
        (errors.ResourceInUseError("x"), "DeleteTable", grpc.StatusCode.FAILED_PRECONDITION),
        (errors.ThrottlingError(), "PutItem", grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.RequestTooLarge(), "PutItem", grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.TransactionCanceledError(), "PutItem", grpc.StatusCode.ABORTED),
        (errors.AccessDeniedError("no"), "PutItem", grpc.StatusCode.PERMISSION_DENIED),
        (errors.UnknownOperationError(), "PutItem", grpc.StatusCode.UNIMPLEMENTED),
        (errors.InternalServerError(), "PutItem", grpc.StatusCode.INTERNAL),
        (errors.ServiceUnavailableError(), "PutItem", grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_failures_become_a_status_and_a_detail(error, operation, status):
    async def test(dispatcher, stub, channel):
        dispatcher.fail(error)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(stub, operation)(getattr(pb, f"{operation}Request")())
        assert caught.value.code() == status
        detail = detail_of(caught.value)
        assert (detail.code, detail.message) == (error.code, error.message)
        assert detail.http_status == error.http_status
        assert detail.request_id == REQUEST_ID
        assert not detail.truncated
        assert caught.value.details().startswith(error.code)
        assert error.message in caught.value.details()

    run(test)


def test_every_error_has_a_status():
    assert {kind.code for kind in errors.DynamoDBError.__subclasses__()} <= set(STATUS_BY_CODE)


def test_a_code_of_a_newer_version_goes_by_its_http_status():
    async def test(dispatcher, stub, channel):
        for http_status, status in ((400, "UNKNOWN"), (503, "UNAVAILABLE"), (500, "INTERNAL")):
            dispatcher.reply = (http_status, b'{"__type":"x#NewException","message":"m"}')
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetItem(pb.GetItemRequest())
            assert caught.value.code().name == status
            assert detail_of(caught.value).code == "NewException"

    run(test)


def test_the_item_that_failed_a_condition_comes_along_while_it_is_small():
    async def test(dispatcher, stub, channel):
        for length, fits in ((10, True), (100_000, False)):
            item = json.dumps({"v": {"S": "x" * length}}).encode()
            dispatcher.fail(errors.ConditionalCheckFailedError(item))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.PutItem(pb.PutItemRequest())
            assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
            detail = detail_of(caught.value)
            assert detail.HasField("item") == fits
            assert detail.truncated != fits

    run(test)


def test_throttling_reasons_come_along():
    async def test(dispatcher, stub, channel):
        reasons = [{"reason": "TableWriteAccountLimitExceeded", "resource": "arn:x"}]
        dispatcher.fail(
            errors.ProvisionedThroughputExceededError(extra={"ThrottlingReasons": reasons})
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PutItem(pb.PutItemRequest())
        assert detail_of(caught.value).throttling_reasons[0].resource == "arn:x"

    run(test)


@pytest.mark.parametrize("character", ["a", "ü", "\U0001f600", "\n", "%"])
def test_long_messages_do_not_break_the_metadata(character):
    async def test(dispatcher, stub, channel):
        dispatcher.fail(errors.ValidationError(character * 300_000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.PutItem(pb.PutItemRequest())
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        detail = detail_of(caught.value)
        assert detail.truncated
        assert detail.message.startswith(character * 100)
        assert detail.ByteSize() <= DETAIL_BYTES_MAX

    run(test)


def test_garbage_is_a_malformed_request_and_harms_nobody():
    async def test(dispatcher, stub, channel):
        method = channel.unary_unary(f"/{SERVICE_NAME}/PutItem")
        wrong_utf8 = (
            pb.PutItemRequest(table_name="abcd").SerializeToString()[:2] + b"\xff\xfe\xff\xfe"
        )
        for data in (b"\xff" * 50, b"\x0a\xff", b"\x12", wrong_utf8, b"\x12\x02\x0a" * 1000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(data)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert detail_of(caught.value).code == "SerializationException"
        assert dispatcher.calls == []
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE_NAME}/NoSuchOperation")(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        await stub.GetItem(pb.GetItemRequest())

    run(test)


@pytest.mark.parametrize(
    "reply",
    [RuntimeError("bug"), (200, b"not json"), (200, b'{"Item":5}'), (200, b"[]")],
    ids=str,
)
def test_our_own_mistakes_are_internal_and_logged(reply, caplog):
    async def test(dispatcher, stub, channel):
        dispatcher.reply = reply
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetItem(pb.GetItemRequest())
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert detail_of(caught.value).code == "InternalServerError"
        assert "bug" not in caught.value.details()

    with caplog.at_level(logging.ERROR, "router.transports.grpc_server"):
        run(test)
    ours = [
        record.message
        for record in caplog.records
        if record.name == "router.transports.grpc_server"
    ]
    assert ours == ["grpc call failed"]


def test_a_reply_after_the_client_left_is_dropped():
    async def test(dispatcher, stub, channel):
        dispatcher.reply = None
        replies = []
        original = dispatcher.__class__.__call__

        def keep(self, operation, body, context, reply):
            original(self, operation, body, context, reply)
            replies.append(reply)

        dispatcher.__class__ = type("Keeping", (FakeDispatcher,), {"__call__": keep})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetItem(pb.GetItemRequest(), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.sleep(0.05)
        replies[0](200, b"{}")

    run(test)


def test_health_follows_readiness():
    async def test(dispatcher, stub, channel):
        health = health_pb2_grpc.HealthStub(channel)
        serving_now = health_pb2.HealthCheckResponse.SERVING
        for service in ("", SERVICE_NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == serving_now
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert (await watch.read()).status == serving_now
        dispatcher.ready = False
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await watch.read()).status == not_serving
        answer = await health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == not_serving
        watch.cancel()
        listed = await health.List(health_pb2.HealthListRequest())
        assert {name: entry.status for name, entry in listed.statuses.items()} == {
            "": not_serving,
            SERVICE_NAME: not_serving,
        }
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND

    run(test)


def test_reflection_lists_the_services():
    async def test(dispatcher, stub, channel):
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME),
        ]
        listed, described = [
            answer async for answer in reflect.ServerReflectionInfo(iter(requests))
        ]
        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names
        assert described.file_descriptor_response.file_descriptor_proto

    run(test)


def test_routers_share_a_port():
    async def test():
        dispatcher = FakeDispatcher()
        arguments = (dispatcher, lambda: True, lambda: REQUEST_ID.encode())
        first = await serve_grpc("127.0.0.1:0", *arguments)
        second = await serve_grpc(f"127.0.0.1:{first.port}", *arguments)
        assert second.port == first.port
        await first.stop()
        await second.stop()

    asyncio.run(asyncio.wait_for(test(), 20))
