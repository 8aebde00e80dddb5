"""What the head of a request does at the HTTP front door: content types, CORS, its own size."""

import re

import pytest

from datamodel.limits import REQUEST_SIZE_BYTES_MAX
from tests.unit.http_harness import request, run


def test_json_is_echoed():
    async def scenario(world):
        client = await world.connect()
        client.send(request(Content_Type="application/json"))
        _, headers, _ = await client.reply()
        assert headers["content-type"] == "application/json"

    run(scenario)


ASKED = (
    "Access-Control-Request-Headers: x-amz-target, x-b\r\nAccess-Control-Request-Method: PUT\r\n"
)


def cors_request(method, more):
    return f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{more}\r\n".encode()


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("asked", ["", ASKED])
def test_only_what_comes_from_a_browser_is_answered_with_cors_headers(method, asked):
    async def scenario(world):
        client = await world.connect()
        client.send(cors_request(method, asked))
        _, headers, _ = await client.reply()
        assert not [name for name in headers if name.startswith("access-control-")]
        client.send(cors_request(method, "origin: http://example.com\r\n" + asked))
        _, headers, _ = await client.reply()
        found = {name: value for name, value in headers.items() if "access-control-" in name}
        expected = {
            "access-control-allow-origin": "*",
            "access-control-expose-headers": "x-amzn-requestid,x-amzn-errortype,x-amzn-errormessage,date",
        }
        if method == "OPTIONS":
            expected["access-control-max-age"] = "172800"
            if asked:
                expected["access-control-allow-headers"] = "x-amz-target, x-b"
                expected["access-control-allow-methods"] = "put"
        assert found == expected

    run(scenario)


@pytest.mark.parametrize("origin", [None, "http://x"])
def test_a_browser_may_see_that_its_request_is_too_large(origin):
    async def scenario(world):
        client = await world.connect()
        client.send(request(Origin="http://x"))
        await client.reply()
        client.send(request(b"", Content_Length=str(REQUEST_SIZE_BYTES_MAX + 1), Origin=origin))
        status, headers, _ = await client.reply()
        assert status == 413
        assert headers.get("access-control-allow-origin") == (None if origin is None else "*")

    run(scenario)


def test_a_preflight_has_no_body_and_goes_before_the_content_type():
    async def scenario(world):
        client = await world.connect()
        client.send(cors_request("OPTIONS", "Origin: http://x\r\n") + request())
        status, headers, body = await client.reply()
        assert (status, body) == (200, b"")
        assert re.fullmatch("[0-9a-z]{52}", headers["x-amzn-requestid"])
        assert (await client.reply())[0] == 200

    run(scenario)


LONG_URL = b"POST /?" + b"x" * (16 * 1024 - len("POST /? HTTP/1.1")) + b" "


def with_headers_of(size):
    """A request whose headers have so many bytes."""
    head = request(X="").partition(b"\r\n\r\n")[0].partition(b"\r\n")[2]
    return request(X="x" * (size - len(head) - len("\r\n")))


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request().replace(b"POST / ", LONG_URL), 200),
        (request().replace(b"POST / ", LONG_URL.replace(b"?", b"?x")), 400),
        (with_headers_of(16 * 1024), 200),
        (with_headers_of(16 * 1024 + 1), 400),
        (with_headers_of(16 * 1024).replace(b"POST / ", LONG_URL), 200),
    ],
)
def test_the_sizes_of_request_line_and_headers_have_bounds(data, status, pieces):
    async def scenario(world):
        client = await world.connect()
        for start in range(0, len(data), len(data) // pieces):
            client.send(data[start : start + len(data) // pieces])
            await world.settle()
        assert (await client.reply())[0] == status

    run(scenario)
