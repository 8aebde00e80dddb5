"""The HTTP front door: connections from their beginning to their end, and what is no operation."""

import asyncio
import gzip
import json
import re
import socket
import zlib

import pytest

from router.transports import http_connection, http_server
from tests.unit.http_harness import TARGET, request, run


def test_a_request_and_its_reply():
    async def scenario(world):
        client = await world.connect()
        client.send(request(b'{"x":1}'))
        status, headers, body = await client.reply()
        assert status == 200
        assert body == b'{"op":"GetItem"}'
        assert headers["content-type"] == "application/x-amz-json-1.0"
        assert headers["x-amz-crc32"] == str(zlib.crc32(body))
        assert re.fullmatch("[0-9a-z]{52}", headers["x-amzn-requestid"])
        assert headers["date"] == "tue, 14 nov 2023 22:13:20 gmt"
        assert headers["server"] == "server"
        assert "connection" not in headers
        (operation, sent, context) = world.dispatcher.calls[0]
        assert (operation, sent) == ("GetItem", b'{"x":1}')
        assert context.request_id.decode().lower() == headers["x-amzn-requestid"]
        assert len(world.server.connections) == 1  # kept alive
        client.send(request())
        assert (await client.reply())[0] == 200

    run(scenario)


def test_header_names_in_any_spelling_and_bytes_in_any_pieces():
    async def scenario(world):
        client = await world.connect()
        data = request(b'{"x":1}', target=None, **{"x-AMZ-tArGeT": TARGET})
        for index in range(len(data)):
            client.send(data[index : index + 1])
            if index % 10 == 0:
                await asyncio.sleep(0)
        assert (await client.reply())[0] == 200
        assert world.dispatcher.calls[0][:2] == ("GetItem", b'{"x":1}')

    run(scenario)


def test_pipelined_requests_are_answered_in_order():
    async def scenario(world):
        world.dispatcher.kept = []
        client = await world.connect()
        client.send(b"".join(request(target=f"DynamoDB_20120810.Op{n}") for n in range(5)))
        await world.settle()
        replies = world.dispatcher.kept
        assert len(replies) == 5
        for n in (3, 1, 4, 2, 0):
            replies[n](200, b"%d" % n)
        bodies = [(await client.reply())[2] for _ in range(5)]
        assert bodies == [b"0", b"1", b"2", b"3", b"4"]

    run(scenario)


def test_a_client_that_pipelines_too_much_is_not_read_further():
    async def scenario(world):
        world.dispatcher.kept = []
        client = await world.connect()
        for _ in range(http_connection.PIPELINED_MAX):
            client.send(request())
        await world.settle()
        client.send(request())
        await world.settle()
        assert len(world.dispatcher.calls) == http_connection.PIPELINED_MAX
        for reply in list(world.dispatcher.kept):
            reply(200, b"{}")
        for _ in range(http_connection.PIPELINED_MAX):
            await client.reply()
        await world.settle()
        assert len(world.dispatcher.calls) == http_connection.PIPELINED_MAX + 1

    run(scenario)


def test_a_late_reply_to_a_gone_client_harms_nobody():
    async def scenario(world):
        world.dispatcher.kept = []
        gone, other = await world.connect(), await world.connect()
        gone.send(request())
        other.send(request())
        await world.settle()
        gone.writer.transport.abort()
        await world.settle()
        for reply in world.dispatcher.kept:
            reply(200, b"{}")
        assert (await other.reply())[0] == 200
        assert len(world.server.connections) == 1

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"healthy: x "),
        (b"GET / HTTP/1.1\r\n\r\n", 200, b"healthy: dynamodb.us-east-1.amazonaws.com "),
        (b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"healthy: x "),
        (b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"<UnknownOperationException/>\n"),
        (
            b"OPTIONS /x HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n\r\n",
            404,
            b"<UnknownOperationException/>\n",
        ),
        (b"GET http://x/x HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"<UnknownOperationException/>\n"),
        (request().replace(b"POST /", b"POST //"), 404, b"<UnknownOperationException/>\n"),
        (b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 404, b"<UnknownOperationException/>\n"),
        (b"GET /?x=1 HTTP/1.1\r\nHost: h:8000\r\n\r\n", 200, b"healthy: h:8000 "),
        (request().replace(b"POST /", b"POST /x"), 404, b"<UnknownOperationException/>\n"),
        (request().replace(b"POST /", b"POST /?x=1"), 200, None),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ok\n"),
        (b"GET /readyz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ready\n"),
        (b"GET http://router:8000/readyz?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, b"ready\n"),
        (b"GET http://router HTTP/1.1\r\nHost: x\r\n\r\n", 200, None),
        (request().replace(b"POST /", b"POST http://router:8000/"), 200, None),
        (b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404, b"<UnknownOperationException/>\n"),
        (request(Content_Type="text/plain"), 404, b"<UnknownOperationException/>\n"),
        (
            request(Content_Type="application/x-amz-json-1.1"),
            404,
            b"<UnknownOperationException/>\n",
        ),
        (request(Content_Type=None), 404, b"<UnknownOperationException/>\n"),
        (request(Content_Type="application/x-amz-json-1.0; charset=utf-8"), 200, None),
    ],
)
def test_what_is_no_operation(data, status, body):
    async def scenario(world):
        client = await world.connect()
        client.send(data)
        found = await client.reply()
        assert found[0] == status
        assert body is None or found[2] == body
        client.send(request())
        assert (await client.reply())[0] == 200

    run(scenario)


@pytest.mark.parametrize(
    ("path", "status", "length"),
    [(b"/healthz", 200, "3"), (b"/readyz", 200, "6"), (b"/", 404, "29")],
)
def test_the_answer_to_head_is_that_to_get_without_its_body(path, status, length):
    async def scenario(world):
        client = await world.connect()
        client.send(b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert f"Content-Length: {length}\r\n".encode() in head
        client.send(request())  # nothing is left of a body
        assert (await client.reply())[0] == 200

    run(scenario)


def test_not_ready():
    async def scenario(world):
        world.ready = False
        client = await world.connect()
        client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.reply())[0] == 503

    run(scenario)


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        ("DynamoDB_20120810.PutItem", "PutItem"),
        ("DynamoDBStreams_20120810.ListStreams", "ListStreams"),
        ("DynamoDB_20111205.GetItem", ""),
        ("GetItem", ""),
        (None, ""),
    ],
)
def test_targets(target, operation):
    async def scenario(world):
        client = await world.connect()
        client.send(request(target=target))
        await client.reply()
        assert world.dispatcher.calls[0][0] == operation

    run(scenario)


def test_bodies_chunked_and_compressed():
    async def scenario(world):
        body = json.dumps({"x": "y" * 1000}).encode()
        client = await world.connect()
        chunked = b"5\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:] + b"\r\n0\r\n\r\n"
        client.send(request(b"", Content_Length=None, Transfer_Encoding="chunked") + chunked)
        client.send(request(gzip.compress(body), Content_Encoding="gzip"))
        client.send(request(zlib.compress(body), Content_Encoding="deflate"))
        for _ in range(3):
            assert (await client.reply())[0] == 200
        assert [call[1] for call in world.dispatcher.calls] == [body] * 3
        parts = gzip.compress(body[:5]) + gzip.compress(b"") + gzip.compress(body[5:])
        client.send(request(parts, Content_Encoding="gzip"))
        assert (await client.reply())[0] == 200
        assert world.dispatcher.calls[-1][1] == body
        # The service ignores what follows the last member (Alternator's test_gzip_request_with_extra_junk).
        client.send(request(parts + b"more", Content_Encoding="gzip"))
        assert (await client.reply())[0] == 200
        assert world.dispatcher.calls[-1][1] == body
        client.send(request(b"not gzip", Content_Encoding="gzip"))
        status, _, found = await client.reply()
        assert status == 400
        assert found == b'{"__type":"com.amazon.coral.service#SerializationException"}'

    run(scenario)


def test_large_replies_are_compressed_when_asked():
    async def scenario(world):
        large = b'{"x":"' + b"y" * 10_000 + b'"}'
        world.dispatcher.answer = lambda operation, body: (200, large)
        client = await world.connect()
        client.send(request(Accept_Encoding="identity"))
        assert (await client.reply())[2] == large
        client.send(request(Accept_Encoding="br;q=1.0, gzip;q=0.5"))
        _, headers, body = await client.reply()
        assert headers["content-encoding"] == "gzip"
        assert headers["x-amz-crc32"] == str(zlib.crc32(body))
        assert gzip.decompress(body) == large
        client.send(request(Accept_Encoding="gzip;q=0, deflate"))
        _, headers, body = await client.reply()
        assert headers["content-encoding"] == "deflate"
        assert zlib.decompress(body) == large
        world.dispatcher.answer = lambda operation, body: (200, b"{}")
        client.send(request(Accept_Encoding="gzip"))
        assert (await client.reply())[2] == b"{}"

    run(scenario)


def test_expect_continue():
    async def scenario(world):
        client = await world.connect()
        data = request(b'{"x":1}', Expect="100-continue")
        head, body = data.split(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert (await client.reply())[0] == 100
        client.send(body)
        assert (await client.reply())[0] == 200

    run(scenario)


def test_another_expectation_is_not_met_and_not_minded():
    async def scenario(world):
        client = await world.connect()
        client.send(request(b'{"x":1}', Expect="a-miracle"))
        assert (await client.reply())[0] == 200

    run(scenario)


MB_16 = 16 << 20


@pytest.mark.parametrize(
    "data",
    [
        request(b"", Content_Length=str(MB_16 + 1)) + b"x" * 100_000,
        request(b"", Content_Length=None, Transfer_Encoding="chunked")
        + (b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 17,
    ],
)
def test_a_body_too_large_is_refused_and_the_client_hears_of_it(data):
    async def scenario(world):
        client = await world.connect()
        client.send(data)
        status, headers, body = await client.reply()
        assert (status, body) == (413, b"")
        assert headers["connection"] == "close"
        assert await client.closed()
        assert world.dispatcher.calls == []

    run(scenario)


def test_a_body_that_inflates_too_much():
    async def scenario(world):
        client = await world.connect()
        client.send(request(gzip.compress(b" " * (MB_16 + 1)), Content_Encoding="gzip"))
        status, _, body = await client.reply()
        assert (status, body) == (413, b"")

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 200_000, 400),
        (request(X="x" * 16_400), 400),
        (request(**{f"X{n}": "x" * 1000 for n in range(17)}), 400),
        (b"GET /" + b"x" * 16_400 + b" HTTP/1.1\r\n\r\n", 400),
        (request(Transfer_Encoding="gzip, chunked", Content_Length=None), 400),
        (request(Transfer_Encoding="gzip", Content_Length=None), 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n{}" % 10**30, 400),
        (b"POST / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
def test_what_is_no_http(data, status):
    async def scenario(world):
        client = await world.connect()
        for start in range(0, len(data), 50_000):
            client.send(data[start : start + 50_000])
            await world.settle()
        assert (await client.reply())[0] == status
        assert await client.closed()
        assert world.dispatcher.calls == []

    run(scenario)


@pytest.mark.parametrize("data", [request(Connection="close"), request().replace(b"/1.1", b"/1.0")])
def test_connections_end_when_the_client_says_so(data):
    async def scenario(world):
        client = await world.connect()
        client.send(data + request())
        status, headers, _ = await client.reply()
        assert status == 200
        assert headers["connection"] == "close"
        assert await client.closed()
        assert len(world.dispatcher.calls) == 1

    run(scenario)


def test_a_client_that_half_closes_gets_its_reply():
    async def scenario(world):
        world.dispatcher.kept = []
        client = await world.connect()
        client.send(request())
        client.writer.write_eof()
        await world.settle()
        world.dispatcher.kept[0](200, b"{}")
        assert (await client.reply())[0] == 200
        assert await client.closed()

    run(scenario)


def test_upgrades_are_ignored():
    async def scenario(world):
        client = await world.connect()
        upgrading = request(b'{"x":1}', Connection="Upgrade", Upgrade="h2c")
        client.send(upgrading * 3)
        for _ in range(3):
            assert (await client.reply())[0] == 200
        assert [call[1] for call in world.dispatcher.calls] == [b'{"x":1}'] * 3

    run(scenario)


def test_timeouts(monkeypatch):
    monkeypatch.setattr(http_server, "SWEEP_INTERVAL_S", 0.01)

    async def scenario(world):
        idle, slow, busy = [await world.connect() for _ in range(3)]
        world.dispatcher.kept = []
        busy.send(request())
        slow.send(request(b'{"x":1}')[:-1])  # the last byte never comes
        await world.settle()
        world.time = http_connection.RECEIVE_TIMEOUT_S + 1
        assert (await slow.reply())[0] == 408
        assert await slow.closed()
        world.time = http_connection.IDLE_TIMEOUT_S + 1
        assert await idle.closed()
        # The request in flight is the dispatcher's business.
        world.dispatcher.kept[0](200, b"{}")
        assert (await busy.reply())[0] == 200

    run(scenario)


def test_too_many_connections(monkeypatch):
    monkeypatch.setattr(http_connection, "CONNECTIONS_MAX", 1)

    async def scenario(world):
        first = await world.connect()
        first.send(request())
        assert (await first.reply())[0] == 200
        second = await world.connect()
        assert (await second.reply())[0] == 503
        assert await second.closed()

    run(scenario)


def test_stopping_lets_requests_in_flight_finish():
    async def scenario(world):
        world.dispatcher.kept = []
        busy, idle = await world.connect(), await world.connect()
        busy.send(request())
        await world.settle()
        stopping = asyncio.ensure_future(world.server.stop(5.0))
        assert await idle.closed()
        world.dispatcher.kept[0](200, b"{}")
        status, headers, _ = await busy.reply()
        assert (status, headers["connection"]) == (200, "close")
        busy.writer.close()
        await asyncio.wait_for(stopping, 2)

    run(scenario)


def test_a_client_that_comes_back_while_stopping_is_served_and_told_to_go():
    async def scenario(world):
        client = await world.connect()
        client.send(request())
        assert (await client.reply())[0] == 200
        stopping = asyncio.ensure_future(world.server.stop(5.0))
        await world.settle()
        client.send(request())
        status, headers, _ = await client.reply()
        assert (status, headers["connection"]) == (200, "close")
        client.writer.close()
        await asyncio.wait_for(stopping, 2)

    run(scenario)


def test_connections_in_the_backlog_of_a_stopping_router_are_served():
    async def scenario(world):
        clients = []
        for _ in range(20):  # connected by the kernel: our loop has not run since
            client = socket.create_connection(("127.0.0.1", world.port))
            client.sendall(request())
            client.setblocking(False)
            clients.append(client)
        stopping = asyncio.ensure_future(world.server.stop(5.0))
        for client in clients:
            reader, writer = await asyncio.open_connection(sock=client)
            assert (await reader.readline()).split()[1] == b"200"
            writer.close()
        await asyncio.wait_for(stopping, 5)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", world.port))

    run(scenario)


def test_a_dispatcher_that_raises_ends_one_connection_only():
    async def scenario(world):
        def fail(operation, body):
            raise RuntimeError("a bug")

        client, other = await world.connect(), await world.connect()
        world.dispatcher.answer = fail
        client.send(request())
        assert await client.closed()
        world.dispatcher.answer = lambda operation, body: (200, b"{}")
        other.send(request())
        assert (await other.reply())[0] == 200

    run(scenario)


def test_all_connections_together_hold_only_so_much_of_arriving_bodies(monkeypatch):
    monkeypatch.setattr(http_connection, "ARRIVING_BYTES_MAX", 1_500_000)

    async def scenario(world):
        first, second = await world.connect(), await world.connect()
        first.send(request(b"", Content_Length="2000000") + b" " * 1_000_000)
        await world.settle()
        second.send(request(b"", Content_Length="2000000") + b" " * 1_000_000)
        assert (await second.reply())[0] == 503
        first.send(b" " * 999_999 + b"x")
        assert (await first.reply())[0] == 503
        third = await world.connect()
        third.send(request(b" " * 1_400_000))
        assert (await third.reply())[0] == 200
        assert world.server._doorway.arriving_bytes == 0
        assert len(world.dispatcher.calls[0][1]) == 1_400_000

    run(scenario)
