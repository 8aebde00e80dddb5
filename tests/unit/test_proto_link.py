"""Links over real sockets: hello, order, one frame per turn, bad peers, redial."""

import asyncio
import socket

import pytest

from proto import link as link_module
from proto.link import LinkDialer, serve_links
from proto.messages import Discover, Get, Hello, Value


def hello(name: str, cluster: str = "c") -> Hello:
    return Hello(1, cluster, "test", f"{name}.1", name, "az1")


class Recorder:
    def __init__(self):
        self.up, self.down, self.frames = [], [], []
        self.changed = asyncio.Event()

    def on_up(self, link):
        self.up.append(link)
        self.changed.set()

    def on_messages(self, link, messages):
        self.frames.append(messages)
        self.changed.set()

    def on_down(self, link):
        self.down.append(link)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Echo(Recorder):
    def on_messages(self, link, messages):
        super().on_messages(link, messages)
        for message in messages:
            if message.id == 666:
                raise RuntimeError("handler bug")
            link.send(Value(message.id, b"x"))


async def start(handler, cluster="c"):
    loop = asyncio.get_running_loop()
    server = await serve_links("127.0.0.1", 0, lambda: hello("server", cluster), handler, loop)
    port = server.sockets[0].getsockname()[1]
    return server, f"127.0.0.1:{port}"


def run(coroutine):
    return asyncio.run(coroutine)


def test_one_turn_is_one_frame_and_order_holds():
    async def scenario():
        echo, client = Echo(), Recorder()
        server, address = await start(echo)
        dialer = LinkDialer(address, lambda: hello("client"), client, asyncio.get_running_loop())
        dialer.start()
        await client.until(lambda: client.up)
        link = client.up[0]
        assert (link.peer.name, link.is_up, link.is_congested) == ("server", True, False)
        for n in range(5):
            link.send(Get(n, 0, b"k", True))
        await client.until(lambda: client.frames)
        assert len(echo.frames) == 1
        assert [m.id for m in client.frames[0]] == [0, 1, 2, 3, 4]
        dialer.stop()
        await client.until(lambda: client.down)
        server.close()

    run(scenario())


def test_a_failing_handler_closes_its_link_only_and_the_dialer_comes_back():
    async def scenario():
        echo, bad, good = Echo(), Recorder(), Recorder()
        server, address = await start(echo)
        loop = asyncio.get_running_loop()
        dialers = [LinkDialer(address, lambda: hello("client"), r, loop) for r in (bad, good)]
        for dialer in dialers:
            dialer.start()
        await bad.until(lambda: bad.up)
        await good.until(lambda: good.up)
        bad.up[0].send(Discover(666))
        await bad.until(lambda: bad.down and len(bad.up) == 2)
        good.up[0].send(Discover(1))
        await good.until(lambda: good.frames)
        assert not good.down
        bad.up[1].send(Discover(2))
        await bad.until(lambda: bad.frames)
        for dialer in dialers:
            dialer.stop()
        server.close()

    run(scenario())


def test_a_connection_is_given_up_soon_when_nothing_is_acknowledged():
    """Both sides: whoever waits for TCP's own repetitions waits as long again as the network was gone."""

    async def scenario():
        echo, client = Echo(), Recorder()
        server, address = await start(echo)
        dialer = LinkDialer(address, lambda: hello("client"), client, asyncio.get_running_loop())
        dialer.start()
        await client.until(lambda: client.up)
        await echo.until(lambda: echo.up)
        for one in (echo, client):
            connection = one.up[0]._transport.get_extra_info("socket")
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
        dialer.stop()
        server.close()

    run(scenario())


def test_a_connection_that_does_not_come_about_is_tried_again_soon(monkeypatch):
    monkeypatch.setattr(link_module, "DIAL_S", 0.05)

    async def scenario():
        client = Recorder()
        server, address = await start(Echo())
        loop = asyncio.get_running_loop()
        connect, attempts = loop.create_connection, []

        async def lossy(*arguments, **options):
            attempts.append(arguments)
            if len(attempts) < 3:
                await asyncio.sleep(3600)  # the network answers nothing
            return await connect(*arguments, **options)

        monkeypatch.setattr(loop, "create_connection", lossy)
        dialer = LinkDialer(address, lambda: hello("client"), client, loop)
        dialer.start()
        await client.until(lambda: client.up)
        assert len(attempts) == 3
        dialer.stop()
        server.close()

    run(scenario())


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 9, b"\xff" * 5000], ids=["http", "zeros", "ones"]
)
def test_a_peer_that_does_not_speak_the_protocol_is_cut_off(junk):
    async def scenario():
        echo = Echo()
        server, address = await start(echo)
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(junk)
        async with asyncio.timeout(5):
            try:
                while await reader.read(65536):
                    pass
            except ConnectionResetError:
                pass
        assert not echo.up
        writer.close()
        server.close()

    run(scenario())


def test_another_cluster_is_refused():
    async def scenario():
        echo, client = Echo(), Recorder()
        server, address = await start(echo, cluster="one")
        dialer = LinkDialer(
            address, lambda: hello("client", "two"), client, asyncio.get_running_loop()
        )
        dialer.start()
        await asyncio.sleep(0.3)
        assert not echo.up
        assert not [m for frame in echo.frames for m in frame]
        dialer.stop()
        server.close()

    run(scenario())
