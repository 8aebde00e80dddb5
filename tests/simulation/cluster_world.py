"""A simulated world of whole processes: their event loops, machines and clocks under one agenda and one seed.

Every process runs its real code on an asyncio loop of its own, whose time is the world's through the process's
own drifting clock and whose turns happen when the agenda says so: a paused process takes no turn, and then all
at once what was waiting; a crashed one never takes another. Network, disks and remote calls are the modules
beside this one. All chance comes from one generator, so a seed replays exactly; `World.digest` covers every byte
that was delivered and every line of the trace.
"""

import asyncio
import heapq
import logging
import os
import random
import zlib
from asyncio import events
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NoReturn

from tests.simulation.options import Violation

FOREVER = float("inf")
EXTRAS = ("group", "index", "replica", "node", "peer", "reason", "kind", "table", "job", "step")
# What damage or a full disk make the product say.
EXCUSED = (
    "replica out of service",
    "scrub met damage",
    "replicas differ and no majority agrees",
    "a replica differs from the majority",
    "the engine failed",
    "the engine cannot be used",
    "the disk is damaged",
    "the node's identity cannot be stored",
)
PACKAGES = ("raft", "proto", "storagenode", "router", "admin", "asyncio")


class World:
    """Clock, agenda, chance, trace, and what watches the processes."""

    def __init__(self, seed: int, *, is_tracing: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.stats: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=2000)
        self.is_tracing = is_tracing
        self.digest = 0
        self.turns = 0
        self.is_over = False
        self.violation: Violation | None = None
        self.process: Process | None = None  # whose turn it is
        self.has_broken_disks = False
        self.after_turn: Callable[[Process], None] = lambda process: None
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0
        # Loops of the dead stay: collecting them would run their coroutines' ends at arbitrary moments.
        self._graveyard: list[object] = []

    def at(self, when: float, function: Callable[..., None], *args: Any) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, function, args))

    def after(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        self.at(self.now + delay, function, *args)

    def run(self, until: float, is_done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; whether `is_done` became true before the end."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, function, args = heapq.heappop(self._agenda)
            function(*args)
            if self.violation is not None:
                raise self.violation  # it may have been raised where the product handles whatever comes
            if is_done():
                return True
        self.now = max(self.now, until)
        return is_done()

    def bury(self, what: object) -> None:
        self._graveyard.append(what)

    def end(self) -> None:
        """The run is over: nothing is called or said any more."""
        self.is_over = True
        self._agenda.clear()
        self._graveyard.clear()
        self.after_turn = lambda process: None

    def log(self, *what: object) -> None:
        line = f"{self.now:9.4f} " + " ".join(map(str, what))
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self.is_tracing:
            self.trace.append(line)

    def delivered(self, data: bytes) -> None:
        self.digest = zlib.crc32(data, zlib.crc32(b"%.6f" % self.now, self.digest))

    def violate(self, kind: str, detail: object = "") -> NoReturn:
        raise self.note(kind, detail)

    def note(self, kind: str, detail: object, cause: BaseException | None = None) -> Violation:
        """A violation that ends the run when what is being done is done; the first is the run's."""
        self.log("VIOLATION", kind, detail)
        if self.violation is None:
            self.violation = Violation(kind, detail)
            self.violation.__cause__ = cause
        return self.violation


class Exited(SystemExit):
    """The process has called exit: nothing of it happens any more."""

    code: int


class _NoSelector:
    """There are no sockets: whatever is to happen is ready or scheduled."""

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def get_map(self) -> dict[int, Any]:
        return {}


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one life of one process."""

    def __init__(self, process: "Process") -> None:
        super().__init__()
        self._process = process
        self._life = process.life
        self._selector = _NoSelector()
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._process.now()

    def turn(self) -> None:
        events._set_running_loop(self)
        try:
            self._run_once()
        finally:
            events._set_running_loop(None)

    def due_at(self) -> float:
        """On the process's clock; infinite when nothing is waited for."""
        if self._ready:
            return -FOREVER
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0]._when if self._scheduled else FOREVER

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        self._process.arm()

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        self._process.offload(lambda: func(*args), future, getattr(func, "args", ()))
        return future

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any):
        future = self.create_future()
        self._process.connect(f"{host}:{port}", future)
        connection = await future
        return connection.establish(factory)

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **_: Any):
        return self._process.network.listen(host, port, self._process, factory)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error, world = context.get("exception"), self._process.world
        if self._process.life == self._life and not world.is_over and type(error) is not Violation:
            # Raised by the world: here it may be an object's end that speaks.
            detail = f"{self._process.name}: {context['message']}: {error!r}"
            world.note("loop", detail, error)

    def __del__(self) -> None:
        pass  # never closed: its process just ended


class Process:
    """One process of one machine; subclasses say what it runs. Its loop exists between `start` and its end.

    Attributes:
        life: Counts starts and ends: what belongs to an earlier life is over.
        is_machine_up: Whether the machine answers at all (refuses connections while only the process is gone).
    """

    DRIFT = 0.05

    def __init__(self, world: World, network: Any, name: str) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.life = 0
        self.is_running = False
        self.is_machine_up = True
        self.is_in_thread = False
        self.paused_until = 0.0
        self.slow_until = 0.0
        self.wall_offset_s = 1_700_000_000 + 0.5 * world.rng.random()
        self._rate = 1.0 + self.DRIFT * (2 * world.rng.random() - 1)
        self._offset = 100.0 + 50 * world.rng.random()
        self._wake: tuple[float, int, bool] = (FOREVER, 0, False)
        self.loop: SimLoop
        self.random = random.Random(world.rng.getrandbits(64))
        network.add(self)

    # clocks

    def now(self) -> float:
        return self._offset + self.world.now * self._rate

    def wall_s(self) -> float:
        return self.wall_offset_s + self.world.now * self._rate

    # life

    def start(self) -> None:
        assert not self.is_running
        self.life += 1
        self.is_running = True
        self.is_machine_up = True
        self.loop = SimLoop(self)
        self.world.stats["starts"] += 1
        self.world.log("START", self.name, self.life)
        self.run(self.build)
        self.post(lambda: self.loop.create_task(self.begin()))

    def build(self) -> None:
        """Make the parts (with the loop as the running one)."""

    async def begin(self) -> None:
        """Begin to work."""
        raise NotImplementedError

    def run(self, function: Callable[[], object]) -> None:
        """Run something of this process now, outside its turns."""
        before, self.world.process = self.world.process, self
        events._set_running_loop(self.loop)
        try:
            function()
        except Exited as exit_:
            self.exited(exit_.code)
        finally:
            events._set_running_loop(None)
            self.world.process = before
        self.arm()

    def exit(self, status: int) -> NoReturn:
        """What `os._exit` is to a process, from within it."""
        raise Exited(status)

    def exited(self, status: int) -> None:
        """It has ended by itself; its supervisor starts it again."""
        world = self.world
        world.log("EXIT", self.name, status)
        world.stats[f"exits {status}"] += 1
        self._end(machine=False)
        world.after(0.2 + world.rng.random(), self.restart)

    def restart(self) -> None:
        if not self.is_running and not self.world.is_over:
            self.start()

    def end(self, *, machine: bool) -> None:
        """The process dies this instant, with or without its machine."""
        if not self.is_running:
            return
        self.world.log("CRASH" if machine else "KILL", self.name)
        self.world.stats["machine crashes" if machine else "kills"] += 1
        self._end(machine=machine)

    def _end(self, *, machine: bool) -> None:
        self.life += 1
        self.is_running = False
        self.is_machine_up = not machine
        self.paused_until = 0.0
        self.world.bury((self.loop, vars(self).copy()))
        self.network.ended(self, machine=machine)

    # turns

    def post(self, function: Callable[[], object]) -> None:
        """As if the kernel had something for the process: it happens in one of its next turns."""
        if self.is_running:
            self.loop.call_soon(function)
            self.arm()

    def arm(self) -> None:
        """See to it that the process gets its turn when it has something to do."""
        if not self.is_running or self.world.process is self:
            return
        world = self.world
        due = self.loop.due_at()
        if due == FOREVER:
            return
        when = world.now
        if due > self.now():
            when = max(when, (due - self._offset) / self._rate)
        when = max(when, self.paused_until)
        is_ready = due == -FOREVER
        if self._wake[1] == self.life and (self._wake[2] or self._wake[0] <= when):
            return
        if is_ready:
            draw = world.rng.random()
            when += 0.00002 + (0.004 * draw if draw < 0.1 else 0.0002 * draw)
        self._wake = (when, self.life, is_ready)
        world.at(when, self._turn, self._wake)

    def _turn(self, wake: tuple[float, int, bool]) -> None:
        if self._wake is not wake or self.life != wake[1]:
            return
        self._wake = (FOREVER, 0, False)
        world = self.world
        if world.now >= self.paused_until:
            world.turns += 1
            world.process = self
            try:
                self.loop.turn()
            except Exited as exit_:
                self.exited(exit_.code)
            finally:
                world.process = None
            world.after_turn(self)
        self.arm()

    def pause(self, duration: float) -> None:
        if self.is_running:
            self.world.log("PAUSE", self.name, round(duration, 2))
            self.world.stats["pauses"] += 1
            self.paused_until = max(self.paused_until, self.world.now + duration)
            self.arm()

    # what the kernel and threads do

    def connect(self, address: str, future: asyncio.Future[Any]) -> None:
        self.network.connect(self, address, future)

    def disk_delay(self) -> float:
        rng = self.world.rng
        if self.world.now < self.slow_until:
            return 0.05 + 0.5 * rng.random()
        return 0.3 * rng.random() if rng.random() < 0.01 else 0.0003 + 0.004 * rng.random()

    def offload(self, work: Callable[[], Any], future: asyncio.Future[Any], args: Any) -> None:
        """Work in a thread: done a little later, heard of later still."""
        world, life = self.world, self.life

        def done(result: Any, error: Exception | None, promise: object) -> None:
            if self.life != life:
                return
            if error is None:
                self.thread_done(args, promise)
                self.post(lambda: future.done() or future.set_result(result))
            else:
                self.post(lambda: future.done() or future.set_exception(error))

        def perform() -> None:
            if self.life != life:
                return
            result = error = None
            self.is_in_thread = True
            try:
                result = work()
            except Exception as caught:  # noqa: BLE001 - the thread hands it over
                error = caught
            finally:
                self.is_in_thread = False
            world.after(self.disk_delay(), done, result, error, self.thread_began(args))

        world.after(0.0005 * world.rng.random(), perform)

    def thread_began(self, args: Any) -> object:
        """Work in a thread asked this of the disk, to be kept when it ends."""

    def thread_done(self, args: Any, promise: object) -> None:
        """Work in a thread has ended, so that the disk has kept its promise."""


class BadNews(logging.Handler):
    """What the product logs goes into the trace; an error is a finding: it says so of bugs and damage only."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world
        self.found: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Violation):
            return
        process = self._world.process
        where = process.name if process is not None else "?"
        extra = {k: record.__dict__[k] for k in EXTRAS if k in record.__dict__}
        text = f"{where}: {record.name}: {record.getMessage()} {extra}"
        self._world.stats[f"log: {record.msg}"] += 1
        if record.levelno < logging.ERROR:
            self._world.log(record.levelname, text)
            return
        text += f" {error!r}"
        self._world.log("ERROR", text)
        if self._world.has_broken_disks and record.msg.startswith(EXCUSED):
            return
        frames = []
        trace = error.__traceback__ if error is not None else None
        while trace is not None:
            code = trace.tb_frame.f_code
            frames.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
            trace = trace.tb_next
        self.found.append(("error-logged", f"{text} {' '.join(frames)}"))

    def __enter__(self) -> "BadNews":
        self._before = {}
        for name in PACKAGES:
            logger = logging.getLogger(name)
            self._before[name] = (logger.level, logger.propagate)
            logger.setLevel(logging.INFO)
            logger.propagate = False
            logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in PACKAGES:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.setLevel(self._before[name][0])
            logger.propagate = self._before[name][1]
