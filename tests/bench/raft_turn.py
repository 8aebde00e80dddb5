"""CPU of raft itself: python -m tests.bench.raft_turn. No disk, no sockets, no engine; one process, one thread.

Three hosts exchange encoded batches through queues; the log's storage keeps nothing. Prints CPU µs per turn of
the leader and of one follower for proposals of one 100 B payload per turn, the cost of idle groups per second,
and the memory of an idle replica.
"""

import gc
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable

from raft.group import Configuration, GroupId, Member, NodeId, ReplicaId, Settings
from raft.host import MultiRaftHost

NODES = [NodeId(name) for name in "abc"]
CONFIGURATION = Configuration(tuple(Member(ReplicaId(i + 1), node) for i, node in enumerate(NODES)))


class Clock:
    now = 1000.0


class Environment:
    """Calls run when the bench says so; timers when the clock gets there."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.soon: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, Timer]] = []

    def now(self) -> float:
        return Clock.now

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def call_later(self, delay_s: float, function: Callable[[], None]) -> "Timer":
        timer = Timer(function)
        self.timers.append((Clock.now + delay_s, timer))
        return timer


class Timer:
    def __init__(self, function: Callable[[], None]) -> None:
        self.function: Callable[[], None] | None = function

    def cancel(self) -> None:
        self.function = None


class Storage:
    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        self._environment.soon.append(on_durable)

    def roll(self, segment: int) -> None:
        pass

    def segments(self) -> list[int]:
        return []

    def remove(self, segment: int) -> None:
        pass


class Machine:
    applied = 10
    term = 1

    def apply(self, index: int, term: int, payload: bytes | None) -> None:
        self.applied = index
        self.term = term

    def configure(self, *_: object) -> None:
        pass

    role_changed = leader_ready = snapshot_wanted = configure


class Sink:
    def flush(self) -> None:
        pass


class Cluster:
    def __init__(self, groups: int) -> None:
        self.queues: dict[NodeId, deque[tuple[NodeId, bytes]]] = {n: deque() for n in NODES}
        self.cpu: Counter[NodeId] = Counter()
        self.environments = {node: Environment() for node in NODES}
        self.hosts: dict[NodeId, MultiRaftHost] = {}
        for number, node in enumerate(NODES):
            environment = self.environments[node]
            host = MultiRaftHost(
                node,
                environment,
                self._transport(node),
                Storage(environment),
                Sink(),
                Settings(),
                lambda group, error: sys.exit(f"group {group}: {error!r}"),
            )
            host.recover()
            for peer in NODES:
                host.peer_up(peer)
            self.hosts[node] = host
            for group in range(groups):
                host.create_group(
                    GroupId(group),
                    ReplicaId(number + 1),
                    CONFIGURATION,
                    Machine(),
                    lambda: None,
                    b"",
                    campaign=group % 3 == number,
                )
        for host in self.hosts.values():
            host.start()

    def _transport(self, own: NodeId) -> object:
        queues = self.queues

        class Transport:
            def send(self, node: NodeId, payload: bytes) -> None:
                queues[node].append((own, payload))

            def is_congested(self, node: NodeId) -> bool:
                return False

        return Transport()

    def settle(self) -> None:
        """Everything that can happen at this instant; CPU is booked to the node that works."""
        busy = True
        while busy:
            busy = False
            for node in NODES:
                soon, queue = self.environments[node].soon, self.queues[node]
                if not soon and not queue:
                    continue
                busy = True
                host = self.hosts[node]
                started = time.perf_counter()
                while queue:
                    host.receive(*queue.popleft())
                while soon:
                    soon.popleft()()
                self.cpu[node] += time.perf_counter() - started

    def advance(self, seconds: float) -> None:
        """Let that much time pass, timer by timer."""
        until = Clock.now + seconds
        while True:
            due = min((t[0] for e in self.environments.values() for t in e.timers), default=until)
            Clock.now = max(Clock.now, min(due, until))
            for node, environment in self.environments.items():
                ready = [t for t in environment.timers if t[0] <= Clock.now]
                if ready:
                    environment.timers = [t for t in environment.timers if t[0] > Clock.now]
                    started = time.perf_counter()
                    for _, timer in ready:
                        if timer.function is not None:
                            timer.function()
                    self.cpu[node] += time.perf_counter() - started
            self.settle()
            if due >= until:
                return


def turns(count: int, payload: bytes) -> tuple[float, float]:
    """µs per turn: leader, one follower."""
    cluster = Cluster(1)
    cluster.settle()
    cluster.advance(3.0)
    leader = next(n for n in NODES if any(g.is_leader for g in cluster.hosts[n].groups()))
    group = cluster.hosts[leader].groups()[0]
    best = (1e9, 1e9)
    for _ in range(8):
        cluster.cpu.clear()
        for number in range(count):
            started = time.perf_counter()
            assert group.propose(payload, lambda outcome, index: None)
            cluster.cpu[leader] += time.perf_counter() - started
            cluster.settle()
            Clock.now += 0.0005
            if number % 500 == 499:
                for node in NODES:
                    replica = cluster.hosts[node].groups()[0]
                    index = replica.status().applied_index
                    replica.checkpoint(index, replica.term, b"")
                cluster.settle()
        followers = sum(cpu for node, cpu in cluster.cpu.items() if node != leader) / 2
        best = min(best, (cluster.cpu[leader] / count * 1e6, followers / count * 1e6))
    return best


def idle(groups: int) -> tuple[float, float, float]:
    """Percent of a core per node, KiB per replica, share of groups with a leader."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cluster = Cluster(groups)
    cluster.settle()
    cluster.advance(5.0)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cluster.cpu.clear()
    cluster.advance(5.0)
    led = sum(g.is_leader for host in cluster.hosts.values() for g in host.groups()) / groups
    percent = sum(cluster.cpu.values()) / 3 / 5.0 * 100
    return percent, (after - before) / (3 * groups), led


def main() -> int:
    percent, kib, led = idle(500)
    print(
        f"500 idle groups: {percent:.1f} % of a core per node, {kib:.1f} KiB per replica, led {led}"
    )
    for payload in (100, 2000):
        leader, follower = turns(1000, b"x" * payload)
        print(
            f"turn with one {payload} B proposal: leader {leader:.0f} µs, follower {follower:.0f} µs"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
