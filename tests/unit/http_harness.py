"""The HTTP front door over a fake dispatcher: a real server on a free port, raw bytes at the other end."""

import asyncio
from contextlib import asynccontextmanager

import uvloop

from router.transports.http_server import HttpServer

TARGET = "DynamoDB_20120810.GetItem"


class FakeDispatcher:
    """Answers by a function, or keeps replies back until the test gives them."""

    def __init__(self):
        self.calls = []
        self.kept = None
        self.answer = lambda operation, body: (200, b'{"op":"%b"}' % operation.encode())

    def __call__(self, operation, body, context, reply):
        self.calls.append((operation, body, context))
        if self.kept is None:
            reply(*self.answer(operation, body))
        else:
            self.kept.append(reply)


class Client:
    """A socket with a little HTTP understanding."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, data):
        self.writer.write(data)

    async def reply(self):
        """(status, headers by lower-case name, body) of the next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        lines = head.decode().split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return status, headers, body

    async def closed(self):
        """Whether the server closes the connection without another byte."""
        return await asyncio.wait_for(self.reader.read(), 5) == b""


class World:
    def __init__(self):
        self.dispatcher = FakeDispatcher()
        self.time = 0.0
        self.ready = True
        self.clients = []

    async def start(self):
        count = iter(range(1_000_000))
        self.server = HttpServer(
            self.dispatcher,
            lambda: self.ready,
            lambda: b"%052d" % next(count),
            lambda: self.time,
            lambda: 1_700_000_000.0,
            "us-east-1",
        )
        self.port = await self.server.serve("127.0.0.1", 0)

    async def connect(self):
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0.001)


def run(scenario):
    """Run a coroutine function of a started world on the product's event loop."""

    async def main():
        async with started() as world:
            await scenario(world)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@asynccontextmanager
async def started():
    world = World()
    await world.start()
    try:
        yield world
    finally:
        for client in world.clients:
            client.writer.close()
        await world.server.stop(0.05)
        await world.settle()


def request(body=b"{}", target=TARGET, **headers):
    """A request as botocore writes it; header names have _ for -."""
    lines = ["POST / HTTP/1.1", "Host: localhost:8000"]
    if target is not None:
        lines.append(f"X-Amz-Target: {target}")
    headers.setdefault("Content_Type", "application/x-amz-json-1.0")
    headers.setdefault("Content_Length", str(len(body)))
    lines += [
        f"{name.replace('_', '-')}: {value}" for name, value in headers.items() if value is not None
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
