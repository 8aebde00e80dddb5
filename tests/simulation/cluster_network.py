"""Simulated TCP and gRPC between simulated processes.

TCP: byte streams in order, cut into pieces anywhere; a connection can break (each side hears of it in its own
time, what was in flight may still arrive), be blocked one way (everything waits, as segments do that are sent
again) and be left half-open by a machine that went without a word. The product's own `TcpLink` and `LinkDialer`
run on it. gRPC: unary calls and streams that reach the real servicer as bytes, or fail as gRPC says they do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tests.simulation.cluster_world import Process, World


class Network:
    """Who listens where, which directions are blocked, and all connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.processes: dict[str, Process] = {}
        self.connections: dict[Connection, None] = {}
        self._blocked: dict[tuple[str, str], float] = {}
        self._listeners: dict[str, tuple[Process, int, Callable[[], Any]]] = {}
        self._homes: dict[str, Process] = {}  # by address, listening or not
        self._services: dict[str, tuple[Process, int, dict[str, Any]]] = {}
        self.streams: dict[asyncio.Queue[Any], tuple[Process, Process, int]] = {}

    def add(self, process: Process) -> None:
        self.processes[process.name] = process

    def delay(self) -> float:
        rng = self.world.rng
        draw = rng.random()
        if draw < 0.005:
            return 0.4 * rng.random()
        return 0.0002 + (0.02 * rng.random() if draw < 0.1 else 0.001 * rng.random())

    # faults

    def is_blocked(self, source: Process, target: Process) -> bool:
        return (source.name, target.name) in self._blocked

    def block(self, source: Process, target: Process, duration: float) -> None:
        """Nothing gets from source to target for a while; then what was sent meanwhile does."""
        until = self.world.now + duration
        key = (source.name, target.name)
        if self._blocked.get(key, 0.0) < until:
            self._blocked[key] = until
            self.world.log("BLOCK", *key, round(duration, 2))
            self.world.stats["blocks"] += 1
            self.world.at(until, self._unblock, key, until)

    def _unblock(self, key: tuple[str, str], until: float) -> None:
        if self._blocked.get(key) == until:
            del self._blocked[key]
            for connection in list(self.connections):
                connection.resume(*key)

    def heal(self) -> None:
        for key in list(self._blocked):
            self._unblock(key, self._blocked[key])

    def reset(self, a: Process, b: Process) -> None:
        """Connections between the two break."""
        for connection in list(self.connections):
            if {connection.ends[0], connection.ends[1]} == {a, b}:
                connection.break_off()

    def ended(self, process: Process, *, machine: bool) -> None:
        """A process is gone; its kernel says so, unless it is gone as well."""
        rng = self.world.rng
        for connection in list(self.connections):
            if process in connection.ends:
                delay = 6 * rng.random() if machine else 0.01 * rng.random()
                connection.leave(connection.ends.index(process), delay)
        for queue, (client, server, _) in list(self.streams.items()):
            if server is process:
                self.world.after(1.0 * rng.random(), self._fail_stream, queue, client, client.life)
            if process in (client, server):
                del self.streams[queue]
        self._listeners = {a: v for a, v in self._listeners.items() if v[0] is not process}
        self._services = {a: s for a, s in self._services.items() if s[0] is not process}

    def restarted(self, process: Process) -> None:
        """What still believes in a connection to an earlier life learns better."""
        for connection in list(self.connections):
            for side in (0, 1):
                if connection.ends[side] is process and connection.lives[side] != process.life:
                    self.world.after(0.2 * self.world.rng.random(), connection.lose, 1 - side)

    # connecting

    def listen(
        self, host: str, port: int, process: Process, factory: Callable[[], Any]
    ) -> "SimServer":
        address = f"{host}:{port}"
        self._listeners[address] = (process, process.life, factory)
        self._homes[address] = process
        return SimServer(self, host, port)

    def close(self, address: str) -> None:
        self._listeners.pop(address, None)

    def connect(self, process: Process, address: str, future: asyncio.Future[Any]) -> None:
        self.world.after(self.delay(), self._arrive, process, process.life, address, future)

    def _arrive(
        self, process: Process, life: int, address: str, future: asyncio.Future[Any]
    ) -> None:
        if process.life != life or future.done():
            return
        home = self._homes.get(address)
        listener = self._listeners.get(address)
        if home is None or (home.is_machine_up and listener is None):
            self.world.after(self.delay(), self._refuse, process, life, future)
            return
        is_cut = self.is_blocked(process, home) or self.is_blocked(home, process)
        if not home.is_machine_up or is_cut:
            again = 0.3 + 0.2 * self.world.rng.random()
            self.world.after(again, self._arrive, process, life, address, future)
            return
        assert listener is not None
        connection = Connection(self, process, home)
        connection.accept(listener[2])
        self.world.after(self.delay(), self._connected, connection, future)

    def _refuse(self, process: Process, life: int, future: asyncio.Future[Any]) -> None:
        if process.life == life:
            process.post(
                lambda: future.done() or future.set_exception(ConnectionRefusedError("refused"))
            )

    def _connected(self, connection: "Connection", future: asyncio.Future[Any]) -> None:
        process = connection.ends[0]
        if process.life != connection.lives[0] or future.done():
            connection.leave(0, 0.001)
            return

        def tell() -> None:
            if future.done():  # given up meanwhile
                connection.close(0)
            else:
                future.set_result(connection)

        process.post(tell)

    # gRPC

    def serve(self, address: str, process: Process, methods: dict[str, Any]) -> None:
        """Let methods of gRPC services, by name, answer there."""
        self._services[address] = (process, process.life, methods)
        self._homes[address] = process

    def serve_no_more(self, address: str) -> None:
        self._services.pop(address, None)

    def reach(self, client: Process, address: str, path: str) -> tuple[Process, Any] | str | None:
        """(server, method), or how a call ends at once, or None: it is never answered."""
        home = self._homes.get(address)
        if home is None:
            return "no such address"
        if not home.is_machine_up or self.is_blocked(client, home):
            return None
        service = self._services.get(address)
        if service is None:
            return "refused"
        return home, service[2][path.rpartition("/")[2]]

    def _fail_stream(self, queue: asyncio.Queue[Any], client: Process, life: int) -> None:
        if client.life == life:
            client.post(lambda: queue.put_nowait(_Failure(grpc.StatusCode.UNAVAILABLE, "gone")))


class SimServer:
    """What the product needs of an `asyncio.Server`, and of its socket."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        self._network = network
        self._name = (host, port)
        self.sockets = (self,)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def close(self) -> None:
        host, port = self._name
        self._network.close(f"{host}:{port}")


class Connection:
    """One TCP connection. Side 0 dialled, side 1 accepted."""

    def __init__(self, network: Network, dialler: Process, acceptor: Process) -> None:
        self._network = network
        self._world = network.world
        self.ends = (dialler, acceptor)
        self.lives = (dialler.life, acceptor.life)
        self.protocols: list[Any] = [None, None]
        self.unsent = [0, 0]
        self._lost = [False, False]  # that side was told, or closed by itself
        self._last = [0.0, 0.0]
        self._held: list[deque[bytes | None]] = [deque(), deque()]  # towards side, while blocked
        self._early: list[bytes] = []  # for side 0, before its protocol exists
        network.connections[self] = None

    def accept(self, factory: Callable[[], Any]) -> None:
        def made() -> None:
            protocol = self.protocols[1] = factory()
            protocol.connection_made(SimTransport(self, 1))

        self.ends[1].post(made)

    def establish(self, factory: Callable[[], Any]) -> tuple["SimTransport", Any]:
        protocol = self.protocols[0] = factory()
        transport = SimTransport(self, 0)
        protocol.connection_made(transport)
        for data in self._early:
            self.ends[0].loop.call_soon(self._receive, 0, data)
        return transport, protocol

    def send(self, side: int, data: bytes | None) -> None:
        """Data, or the end of the stream (None), from that side."""
        world = self._world
        if self._lost[side] and data is not None:
            return
        if data is not None:
            self.unsent[side] += len(data)
        when = max(world.now + self._network.delay(), self._last[side])
        self._last[side] = when
        world.at(when, self._arrive, 1 - side, data)

    def _arrive(self, side: int, data: bytes | None) -> None:
        if self._network.is_blocked(self.ends[1 - side], self.ends[side]) or self._held[side]:
            self._held[side].append(data)
            return
        self._deliver(side, data)

    def resume(self, source: str, target: str) -> None:
        for side in (0, 1):
            if self.ends[side].name == target and self.ends[1 - side].name == source:
                held, self._held[side] = self._held[side], deque()
                for data in held:
                    self._deliver(side, data)

    def _deliver(self, side: int, data: bytes | None) -> None:
        process = self.ends[side]
        if data is None:
            self.lose(side)
            return
        self.unsent[1 - side] -= len(data)
        if self._lost[side] or process.life != self.lives[side]:
            return
        self._world.delivered(data)
        self._world.stats["deliveries"] += 1
        if self._world.rng.random() < 0.03:
            cut = self._world.rng.randrange(len(data))
            process.post(lambda: self._receive(side, data[:cut]))
            process.post(lambda: self._receive(side, data[cut:]))
        else:
            process.post(lambda: self._receive(side, data))

    def _receive(self, side: int, data: bytes) -> None:
        if self._lost[side]:
            return
        if self.protocols[side] is None:
            self._early.append(data)
        elif data:
            self.protocols[side].data_received(data)

    # the end

    def close(self, side: int) -> None:
        """That side closes: it hears of it in its next turn, the other side in order."""
        if not self._lost[side]:
            self.send(side, None)
            self.lose(side)

    def leave(self, side: int, delay: float) -> None:
        """That side's process is gone."""
        self._lost[side] = True
        self._world.after(delay, self.send, side, None)

    def lose(self, side: int) -> None:
        """Tell that side, once, that the connection is gone."""
        if self._lost[side]:
            self._forget()
            return
        self._lost[side] = True
        process, protocol = self.ends[side], self.protocols[side]
        if process.life == self.lives[side] and protocol is not None:
            process.post(lambda: protocol.connection_lost(None))
        self._forget()

    def _forget(self) -> None:
        if all(self._lost):
            self._network.connections.pop(self, None)

    def break_off(self) -> None:
        """It breaks; each side notices in its own time, and until then may hear what was under way."""
        rng = self._world.rng
        self._world.log("RESET", self.ends[0].name, self.ends[1].name)
        self._world.stats["resets"] += 1
        for side in (0, 1):
            self._world.after(rng.choice((0.01, 0.1, 2.0)) * rng.random(), self.lose, side)


class SimTransport(asyncio.Transport):
    """One side of a connection, as asyncio protocols see it."""

    def __init__(self, connection: Connection, side: int) -> None:
        super().__init__()
        self._connection = connection
        self._side = side

    def write(self, data: bytes) -> None:
        self._connection.send(self._side, bytes(data))

    def abort(self) -> None:
        self._connection.close(self._side)

    close = abort

    def get_write_buffer_size(self) -> int:
        return self._connection.unsent[self._side]

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


# --- gRPC ---------------------------------------------------------------------------------------------------


class SimGrpcServer:
    """What the product needs of a `grpc.aio.Server`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._methods: dict[str, Any] = {}
        self._address = ""

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        pass

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        self._methods.update(methods)

    def add_insecure_port(self, address: str) -> int:
        self._address = address
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self._network.serve(self._address, self._process, self._methods)

    async def stop(self, grace: float | None) -> None:
        self._network.serve_no_more(self._address)


class _Failure(Exception):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code, self.details = code, details

    def raised(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(), self.details)  # fmt: skip


class _Context:
    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise _Failure(code, details)


_END = object()


class SimChannel:
    """What generated stubs need of a channel."""

    def __init__(self, network: Network, client: Process, address: str) -> None:
        self._network = network
        self._client = client
        self._address = address

    async def __aenter__(self) -> "SimChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def close(self) -> None:
        pass

    def unary_unary(
        self, path: str, *, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Any:
        async def call(request: Any, timeout: float) -> Any:  # noqa: ASYNC109 - gRPC's
            queue = self._begin(path, request_serializer(request))
            try:
                async with asyncio.timeout(timeout):
                    answer = await queue.get()
            except TimeoutError:
                raise _Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "too late").raised() from None
            if isinstance(answer, _Failure):
                raise answer.raised()
            return response_deserializer(answer)

        return call

    def unary_stream(
        self, path: str, *, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Any:
        async def stream(request: Any, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109
            queue = self._begin(path, request_serializer(request))
            while True:
                try:
                    async with asyncio.timeout(min(timeout, 3.0)):  # keep-alive
                        answer = await queue.get()
                except TimeoutError:
                    raise _Failure(grpc.StatusCode.UNAVAILABLE, "keep-alive").raised() from None
                if isinstance(answer, _Failure):
                    raise answer.raised()
                if answer is _END:
                    return
                yield response_deserializer(answer)

        return stream

    def _begin(self, path: str, data: bytes) -> asyncio.Queue[Any]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        network = self._network
        network.world.after(network.delay(), self._arrive, path, data, queue, self._client.life)
        return queue

    def _arrive(self, path: str, data: bytes, queue: asyncio.Queue[Any], life: int) -> None:
        network, client = self._network, self._client
        network.world.delivered(data)
        found = network.reach(client, self._address, path)
        if found is None or client.life != life:
            return
        if isinstance(found, str):
            self._answer(queue, life, _Failure(grpc.StatusCode.UNAVAILABLE, found))
            return
        server, method = found
        network.streams[queue] = (client, server, server.life)

        async def work() -> None:
            request = method.request_deserializer(data)
            try:
                if method.unary_unary is not None:
                    answer = await method.unary_unary(request, _Context())
                    send(method.response_serializer(answer))
                else:
                    async for chunk in method.unary_stream(request, _Context()):
                        send(method.response_serializer(chunk))
                        await asyncio.sleep(0.002 * network.world.rng.random())
                    send(_END)
            except _Failure as failure:
                send(failure)

        sent_until = [0.0]

        def send(answer: Any) -> None:
            if isinstance(answer, bytes):
                network.world.delivered(answer)
            if network.is_blocked(server, client):
                answer = _Failure(grpc.StatusCode.UNAVAILABLE, "no way back")
            sent_until[0] = max(network.world.now + network.delay(), sent_until[0])
            network.world.at(sent_until[0], self._answer, queue, life, answer)

        server.post(lambda: _hold(server, work()))

    def _answer(self, queue: asyncio.Queue[Any], life: int, answer: Any) -> None:
        if answer is _END or isinstance(answer, _Failure):
            self._network.streams.pop(queue, None)
        if self._client.life == life:
            self._client.post(lambda: queue.put_nowait(answer))


def _hold(process: Process, work: Any) -> None:
    task = process.loop.create_task(work)
    tasks = process.__dict__.setdefault("rpc_tasks", {})
    tasks[task] = None
    task.add_done_callback(lambda _: tasks.pop(task, None))
