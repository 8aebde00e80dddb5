"""What processes have in common: how they present themselves, start and are told to stop."""

import argparse
import asyncio
import logging
import os
import signal
import time

import pytest

from proto.addresses import ListenRefused
from proto.link import serve_links
from proto.messages import PROTOCOL_VERSION, Hello
from proto.process import EXIT_CANNOT_START, Platform, connect, run_process, stop_event

FLAGS = argparse.Namespace(name="router-7", log_format="text", insecure=False)


@pytest.fixture(autouse=True)
def _quiet():
    """`configure_logging` is the process's: what it did to the test's is undone."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_process_presents_itself_with_an_id_of_its_own():
    async def scenario():
        loop = asyncio.get_running_loop()
        heard = []
        enough = asyncio.Event()

        class Handler:
            def on_up(self, link):
                heard.append(link.peer)
                if len(heard) == 2:
                    enough.set()

            def on_messages(self, link, messages):
                pass

            def on_down(self, link):
                pass

        own = Hello(PROTOCOL_VERSION, "c", "storagenode", "n.a", "n", "az1")
        server = await serve_links("127.0.0.1", 0, lambda: own, Handler(), loop)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        platform = Platform(now=time.monotonic, wall_clock=time.time, random_bytes=os.urandom)
        clients = [connect(platform, "router", "router-7", "az2", [address]) for _ in range(2)]
        for client in clients:
            client.start()
        async with asyncio.timeout(20):
            await enough.wait()
        for client in clients:
            client.stop()
        server.close()
        return heard

    heard = asyncio.run(scenario())
    assert {(hello.role, hello.name, hello.az) for hello in heard} == {
        ("router", "router-7", "az2")
    }
    assert len({hello.node_id for hello in heard}) == 2
    assert all(hello.node_id.startswith("router-7.") for hello in heard)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_ask_to_stop(number):
    async def scenario():
        stop = stop_event()
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(20):
            await stop.wait()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    asyncio.run(scenario())


def test_the_exit_status_tells_how_it_went():
    async def serve(flags):
        assert flags is FLAGS

    async def cannot(flags):
        raise OSError("address in use")

    async def broken(flags):
        raise RuntimeError("bug")

    assert run_process(FLAGS, ["127.0.0.1:0"], serve) == 0
    assert run_process(FLAGS, [], cannot) == EXIT_CANNOT_START
    with pytest.raises(RuntimeError, match="bug"):
        run_process(FLAGS, [], broken)


def test_it_does_not_listen_to_strangers():
    async def serve(flags):
        raise AssertionError("must not run")

    with pytest.raises(ListenRefused):
        run_process(FLAGS, ["127.0.0.1:0", "0.0.0.0:80"], serve)
