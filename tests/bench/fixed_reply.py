"""Control for benchmarks: the router's HTTP front door with one constant answer. Argument: the port."""

import asyncio
import gc
import itertools
import signal
import sys
import time

import uvloop

from router.transports.http_server import HttpServer

ANSWER = (
    b'{"Item":{"pk":{"S":"k000001"},"f0":{"S":"'
    + b"x" * 40
    + b'"},"f1":{"S":"'
    + b"x" * 40
    + b'"},'
    b'"t":{"S":"fill"}}}'
)


async def serve(port: int) -> None:
    """Answer every request alike until SIGTERM."""
    number = itertools.count()
    server = HttpServer(
        lambda _operation, _body, _context, reply: reply(200, ANSWER),
        lambda: True,
        lambda: b"%052d" % next(number),
        time.monotonic,
        time.time,
        "us-east-1",
    )
    await server.serve("127.0.0.1", port)
    gc.freeze()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
