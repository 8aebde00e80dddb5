"""Runs a local cluster in the foreground: starts every process, watches them, restarts the dead, stops all.

Lives here: processes and signals. What the cluster consists of is decided in `local_cluster.py`. The supervisor
is no part of the cluster's workings: it may be slow or stopped and requests go on. It stays small: nothing here
imports gRPC.

A process of the cluster never outlives its supervisor: on Linux the kernel kills it when the supervisor ends,
however that ends.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TextIO
from urllib.parse import urlsplit

from admin.cluster_file import (
    DEAD,
    RUNNING,
    ClusterFile,
    DataDirLock,
    ProcessEntry,
    remove_cluster_file,
    write_cluster_file,
)
from admin.local_cluster import (
    ROLE_ADMIN,
    ROLE_ROUTER,
    ROLE_STORAGE,
    ClusterPlan,
    UpOptions,
    plan_cluster,
    process_environment,
)
from admin.log_output import LogOutput, Prefixer, pump_lines
from admin.ports import PortBook
from proto.logging_setup import wants_colour

log = logging.getLogger(__name__)

# Delay before the n-th restart in a row; a process that lived for LIVED_S starts again at the front.
RESTART_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
LIVED_S = 30.0
# A cluster that never was ready gives up when one process died this often in a row.
START_ATTEMPTS_MAX = 5
STOP_TIMEOUT_S = 15.0
READY_POLL_S = 0.1
READY_REPORT_S = 10.0
PROBE_TIMEOUT_S = 2.0

STOP_ORDER = (ROLE_ROUTER, ROLE_ADMIN, ROLE_STORAGE)

_PR_SET_PDEATHSIG = 1


def restart_delay(deaths_in_a_row: int) -> float:
    """Seconds to wait before starting a process again that died for the n-th time (from 1)."""
    return RESTART_BACKOFF_S[min(deaths_in_a_row, len(RESTART_BACKOFF_S)) - 1]


def describe_exit(code: int) -> str:
    """An exit code of `subprocess` in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _die_with_parent() -> Callable[[], None] | None:
    """A function for the child, between fork and exec: be killed when the supervisor ends."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    supervisor = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor:  # it ended before we asked
            os._exit(1)

    return ask_kernel


class SupervisedProcess:
    """One process, started again (unless told otherwise) whenever it dies, until `stop`."""

    def __init__(
        self,
        entry: ProcessEntry,
        prefix: str,
        output: LogOutput,
        restart: bool,
        on_change: Callable[[], None],
        on_hopeless: Callable[[str], None],
    ) -> None:
        self.entry = entry
        self._prefix = prefix
        self._output = output
        self._restart = restart
        self._on_change = on_change
        self._on_hopeless = on_hopeless
        self._preexec = _die_with_parent()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.deaths_in_a_row = 0

    def start(self) -> None:
        """Start the process and the task that watches it."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=self.entry.name)

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, then SIGKILL for one that is still there after `timeout_s`; returns when it is gone."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a paused process could not hear it otherwise
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        if not done:
            log.warning(
                "process does not stop, killing it", extra={"process_name": self.entry.name}
            )
            self._signal(signal.SIGKILL)
        await self._task

    def kill(self) -> None:
        """SIGKILL at once and no restart."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_once()
            if self._stopping.is_set():
                break
            self.deaths_in_a_row = (
                1 if loop.time() - started > LIVED_S else self.deaths_in_a_row + 1
            )
            log.error(
                "process died",
                extra={"process_name": self.entry.name, "reason": describe_exit(code)},
            )
            if not self._restart:
                self._on_hopeless(self.entry.name)
                return
            if self.deaths_in_a_row >= START_ATTEMPTS_MAX:
                self._on_hopeless(self.entry.name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(restart_delay(self.deaths_in_a_row)):
                    await self._stopping.wait()

    async def _run_once(self) -> int:
        try:
            process = await asyncio.create_subprocess_exec(
                *self.entry.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.entry.cwd,
                env={**os.environ, **self.entry.env},
                # A session of its own: Ctrl-C reaches the supervisor only, which stops things in order.
                start_new_session=True,
                preexec_fn=self._preexec,
            )
        except OSError as error:
            log.error(  # noqa: TRY400  # what failed is in the message; a traceback adds nothing
                "process cannot be started",
                extra={"process_name": self.entry.name, "reason": str(error)},
            )
            return 127
        self._process = process
        self._become(RUNNING, process.pid)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        assert process.stdout is not None
        pump = asyncio.create_task(pump_lines(process.stdout, self._prefix, self._output))
        try:
            code = await process.wait()
        finally:
            self._become(DEAD, process.pid)
            # The pipe ends with the process, unless a stray child of it holds the other end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await pump
        return code

    def _become(self, state: str, pid: int) -> None:
        self.entry = replace(self.entry, state=state, pid=pid)
        self._on_change()


class Supervisor:
    """A whole local cluster, from `run` to the end of `run`."""

    def __init__(
        self, options: UpOptions, plan: ClusterPlan, output: LogOutput, prefixer: Prefixer
    ) -> None:
        self._options = options
        self._plan = plan
        self._ready = False
        self._failed_to_start: str | None = None
        self._stop_requested = asyncio.Event()
        self._stops_asked = 0
        self._processes = [
            SupervisedProcess(
                entry,
                "" if options.log_format == "json" else prefixer.prefix(entry.name),
                output,
                options.restart,
                self._publish,
                self._give_up,
            )
            for entry in plan.processes
        ]

    @property
    def failed_to_start(self) -> str | None:
        """Name of the process that kept the cluster from ever being ready."""
        return self._failed_to_start

    def request_stop(self) -> None:
        """Stop everything in order; asked a second time, kill everything at once."""
        self._stops_asked += 1
        self._stop_requested.set()
        if self._stops_asked > 1:
            for process in self._processes:
                process.kill()

    async def run(self, on_ready: Callable[[ClusterPlan], None]) -> None:
        """Start everything, tell when it is ready, watch until a stop is asked for, stop everything."""
        for process in self._processes:
            process.start()
        readiness = asyncio.create_task(self._announce_when_ready(on_ready))
        try:
            await self._stop_requested.wait()
        finally:
            readiness.cancel()
            self._ready = False
            remove_cluster_file(self._options.data_dir)
            await self._stop_all()
            with contextlib.suppress(asyncio.CancelledError):
                await readiness

    async def _stop_all(self) -> None:
        for role in STOP_ORDER:
            group = [process for process in self._processes if process.entry.role == role]
            await asyncio.gather(*(process.stop(STOP_TIMEOUT_S) for process in group))

    def _publish(self) -> None:
        if self._ready:
            entries = [process.entry for process in self._processes]
            cluster = ClusterFile(self._plan.http, self._plan.grpc, os.getpid(), entries)
            write_cluster_file(self._options.data_dir, cluster)

    def _give_up(self, name: str) -> None:
        # Once it was ready, a dead process is weather: with --no-restart it is left dead, on purpose.
        if not self._ready and self._failed_to_start is None:
            self._failed_to_start = name
            self._stop_requested.set()

    async def _announce_when_ready(self, on_ready: Callable[[ClusterPlan], None]) -> None:
        loop = asyncio.get_running_loop()
        waiting_since = loop.time()
        waiting = {process.entry.name: process.entry.metrics for process in self._processes}
        waiting = {name: url.removesuffix("/metrics") + "/readyz" for name, url in waiting.items()}
        waiting["http endpoint"] = f"{self._plan.http}/readyz"
        while waiting:
            names = list(waiting)
            answers = await asyncio.gather(*(answers_ok(waiting[name]) for name in names))
            for name, ready in zip(names, answers, strict=True):
                if ready:
                    del waiting[name]
            if waiting:
                if loop.time() - waiting_since > READY_REPORT_S:
                    waiting_since = loop.time()
                    log.info("still waiting", extra={"waiting_for": ", ".join(waiting)})
                await asyncio.sleep(READY_POLL_S)
        self._ready = True
        self._publish()
        on_ready(self._plan)


async def answers_ok(url: str) -> bool:
    """Whether a GET of a plain http URL is answered with status 200 in time."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split(b" ")[1:2] == [b"200"]


async def _supervise(options: UpOptions, plan: ClusterPlan, stdout: TextIO, stderr: TextIO) -> int:
    coloured = options.log_format != "json" and wants_colour(stderr.isatty())
    output = LogOutput(stderr)
    prefixer = Prefixer(max(len(entry.name) for entry in plan.processes), coloured=coloured)
    supervisor = Supervisor(options, plan, output, prefixer)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.request_stop)

    def announce(ready: ClusterPlan) -> None:
        line = f"quorate: ready - DynamoDB endpoint {ready.http}, gRPC {ready.grpc}"
        with contextlib.suppress(OSError):
            print(f"\x1b[1;32m{line}\x1b[0m" if coloured else line, file=stdout, flush=True)

    try:
        await supervisor.run(announce)
    finally:
        output.close()
    if supervisor.failed_to_start is not None:
        print(
            f"quorate: {supervisor.failed_to_start} did not start; see its log above", file=stderr
        )
        return 1
    return 0


def run_cluster(
    options: UpOptions, stdout: TextIO = sys.stdout, stderr: TextIO = sys.stderr
) -> int:
    """Run a local cluster until SIGINT, SIGTERM or SIGHUP; returns the exit code of the command.

    Raises:
        AlreadyRunning: Another supervisor has the data directory.
        PortTaken: A port that was asked for is in use.
        OSError: The data directory cannot be made.
    """
    options.data_dir.mkdir(parents=True, exist_ok=True)
    lock = DataDirLock(options.data_dir)
    lock.acquire()
    ports = PortBook(options.data_dir)
    try:
        remove_cluster_file(options.data_dir)  # of a supervisor that was killed
        coloured = options.log_format != "json" and wants_colour(stderr.isatty())
        environment = process_environment(os.environ.get, coloured=coloured)
        plan = plan_cluster(options, ports.reserve, environment, os.getcwd())
        ports.save()
        return asyncio.run(_supervise(options, plan, stdout, stderr))
    finally:
        ports.close()
        lock.release()
