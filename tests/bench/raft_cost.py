"""What replication costs, a part of `make bench`; alone: python -m tests.bench.raft_cost --help

Three hosts with their real logs (files, one fdatasync per batch) on one loop; batches between them are encoded and
decoded but cross no socket, and there is no engine behind them. Prints CPU µs of the process per replicated write,
all three replicas and the log's threads together, with 1 group and with 500, for few and for many writers; and what
500 idle groups cost per node.

With several writes at once a host takes all that wait as one turn, so a write in a crowd costs less than one alone.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from raft.files import FileLogStorage
from raft.group import (
    Configuration,
    GroupId,
    LogIndex,
    Member,
    NodeId,
    Outcome,
    ReplicaId,
    Settings,
)
from raft.host import MultiRaftHost
from tests.bench.raft_turn import Machine, Sink

NODES = [NodeId(name) for name in "abc"]
CONFIGURATION = Configuration(tuple(Member(ReplicaId(i + 1), node) for i, node in enumerate(NODES)))
CHECKPOINT_EVERY = 2000  # writes of a group


class Environment:
    """The process's clock and loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.random = random.Random(1)

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def call_soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon(function)

    def call_later(self, delay_s: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, function)


class Cluster:
    """Three hosts and their logs in a directory."""

    def __init__(self, directory: Path, groups: int) -> None:
        loop = asyncio.get_running_loop()
        settings = Settings()
        self.hosts: dict[NodeId, MultiRaftHost] = {}
        self.storages = []
        for number, node in enumerate(NODES):
            storage = FileLogStorage(
                directory / node, loop.call_soon_threadsafe, settings.log_segment_bytes
            )
            host = MultiRaftHost(
                node,
                Environment(loop),
                self._transport(node, loop),
                storage,
                Sink(),
                settings,
                lambda group, error: sys.exit(f"group {group}: {error!r}"),
            )
            host.recover()
            self.storages.append(storage)
            self.hosts[node] = host
            for peer in NODES:
                if peer != node:
                    host.peer_up(peer)
            for group in range(groups):
                host.create_group(
                    GroupId(group),
                    ReplicaId(number + 1),
                    CONFIGURATION,
                    Machine(),
                    self._writable,
                    b"",
                    campaign=group % 3 == number,
                )
        for host in self.hosts.values():
            host.start()
        self._waiting: list[asyncio.Future[None]] = []

    def _transport(self, own: NodeId, loop: asyncio.AbstractEventLoop) -> object:
        cluster = self

        class Transport:
            def send(self, node: NodeId, payload: bytes) -> None:
                loop.call_soon(cluster.hosts[node].receive, own, payload)

            def is_congested(self, node: NodeId) -> bool:
                return False

        return Transport()

    def _writable(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def leaders(self, groups: int) -> list:
        """Every group's leading replica, once all have one."""
        deadline = time.monotonic() + 30
        while True:
            found = [g for host in self.hosts.values() for g in host.groups() if g.is_leader]
            if len(found) == groups:
                return found
            if time.monotonic() > deadline:
                sys.exit(f"{len(found)} of {groups} groups have a leader")
            await asyncio.sleep(0.05)

    async def write(self, group, payload: bytes) -> None:
        """One write, from the wait for its turn to its outcome."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def outcome(what: Outcome, index: LogIndex) -> None:
            done.set_result(what)

        while not (group.accepts_proposals and group.propose(payload, outcome)):
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        if await done is not Outcome.COMMITTED:
            sys.exit("a write was not committed")

    def checkpoint(self) -> None:
        """What an owner does now and then, so that logs are cut."""
        for host in self.hosts.values():
            for group in host.groups():
                status = group.status()
                if status.last_index - status.first_index > CHECKPOINT_EVERY:
                    group.checkpoint(status.applied_index, _term(group), b"")

    def close(self) -> None:
        for host in self.hosts.values():
            host.stop()
        for storage in self.storages:
            storage.close()


def _term(group):
    return group.machine.term


async def _load(cluster: Cluster, leaders: list, writers: int, payload: bytes, seconds: float):
    """CPU µs per write and writes per second; each writer writes one after another, to all groups in turn."""
    until = time.monotonic() + seconds
    count = 0

    async def writer(number: int) -> None:
        nonlocal count
        at = number * len(leaders) // writers
        while time.monotonic() < until:
            await cluster.write(leaders[at % len(leaders)], payload)
            at += 1
            count += 1
            if count % 1000 == 0:
                cluster.checkpoint()

    cpu, started = time.process_time(), time.monotonic()
    await asyncio.gather(*(writer(n) for n in range(writers)))
    elapsed = time.monotonic() - started
    return (time.process_time() - cpu) / count * 1e6, count / elapsed


async def _measure(directory: Path, seconds: float, size: int) -> dict[str, float]:
    payload = b"x" * size
    figures = {}
    for groups in (1, 500):
        cluster = Cluster(directory / str(groups), groups)
        leaders = await cluster.leaders(groups)
        await asyncio.sleep(1.0)
        if groups > 1:
            cpu, started = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            percent = (time.process_time() - cpu) / (time.monotonic() - started) * 100 / len(NODES)
            print(f"  {groups} idle groups: {percent:.2f} % of a core per node", flush=True)
            figures[f"{groups} idle groups, % of a core per node"] = percent
        for writers in (1, 16, 64):
            best = [await _load(cluster, leaders, writers, payload, seconds / 3) for _ in range(3)]
            cpu_us, rate = min(best)
            what = f"{groups} group{'s' * (groups > 1)}, {writers} writer{'s' * (writers > 1)}"
            print(
                f"  {what + f' of {size} B':30} {cpu_us:5.0f} us CPU per write, {rate:8,.0f} writes/s",
                flush=True,
            )
            figures[f"{what}, us CPU per write"] = cpu_us
        cluster.close()
    return figures


def measure(
    directory: Path | None = None, seconds: float = 3.0, size: int = 300
) -> dict[str, float]:
    """Measure and print.

    Args:
        directory: On the disk to measure; None: a temporary one.
        seconds: For each figure.
        size: Bytes that a write carries.

    Returns:
        The figures by their names.
    """
    print("replication alone: three replicas' CPU and log threads together")
    with tempfile.TemporaryDirectory(prefix="quorate-raft-", dir=directory) as place:
        return asyncio.run(_measure(Path(place), seconds, size))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.raft_cost", description=__doc__)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: temporary")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--bytes", type=int, default=300, help="payload of a write")
    options = parser.parse_args(argv)
    measure(options.directory, options.seconds, options.bytes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
