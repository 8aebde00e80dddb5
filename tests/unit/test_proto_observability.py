"""The small HTTP server of metrics and probes."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from proto import observability
from proto.observability import serve_metrics


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


def _serving(scenario):
    registry = CollectorRegistry()
    Counter("quorate_test_requests", "Requests.", registry=registry).inc(3)
    state = {"ready": False}

    async def main():
        server = await serve_metrics("127.0.0.1", 0, lambda: state["ready"], registry)
        async with server:
            await scenario(server.sockets[0].getsockname()[1], state)

    asyncio.run(main())


def test_metrics_and_probes():
    async def scenario(port, state):
        metrics = await _exchange(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert metrics.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"quorate_test_requests_total 3.0" in metrics
        head = await _exchange(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        assert (await _exchange(port, b"GET /healthz HTTP/1.0\r\n\r\n")).endswith(b"ok\n")
        assert b" 503 " in await _exchange(port, b"GET /readyz HTTP/1.1\r\n\r\n")
        state["ready"] = True
        assert b" 200 " in await _exchange(port, b"GET /readyz?verbose HTTP/1.1\r\n\r\n")

    _serving(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
    ],
)
def test_junk_is_answered(request_bytes, status):
    async def scenario(port, state):
        answer = await _exchange(port, request_bytes)
        assert answer.split(b" ")[1] == status
        assert (await _exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")

    _serving(scenario)


def test_endless_heads_silence_and_crowds_do_no_harm(monkeypatch):
    monkeypatch.setattr(observability, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(observability, "CONNECTIONS_MAX", 3)

    async def scenario(port, state):
        async def swallow(request: bytes) -> bytes:
            try:
                return await _exchange(port, request)
            except OSError:
                return b""

        assert await swallow(b"x" * (64 << 10)) == b""
        answers = await asyncio.gather(*(swallow(b"GET ") for _ in range(8)))
        assert answers == [b""] * 8
        assert (await _exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")

    _serving(scenario)


def test_a_failing_readiness_check_closes_one_connection_only(caplog):
    async def main():
        def broken() -> bool:
            raise ValueError("bug")

        server = await serve_metrics("127.0.0.1", 0, broken, CollectorRegistry())
        async with server:
            port = server.sockets[0].getsockname()[1]
            assert await _exchange(port, b"GET /readyz HTTP/1.1\r\n\r\n") == b""
            assert (await _exchange(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")

    asyncio.run(main())
    assert [record.message for record in caplog.records] == ["metrics request failed"]
