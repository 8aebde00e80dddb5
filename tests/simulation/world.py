"""The simulated world: clocks, disks, links and nodes that run the real `MultiRaftHost` through its seams.

Everything is drawn from one seeded generator, and nothing iterates over a set of strings, so a seed replays
exactly. A node is a host, its disk and the owner of its machines; a crash loses what was not synced (and tears
the write in flight), a restart reads the disk with the product's own recovery.
"""

import hashlib
import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Callable

from raft.group import Configuration, Member, NodeId, ReplicaId
from raft.wire import decode_batch, encode_batch
from tests.simulation.checkers import GroupChecker
from tests.simulation.hostile import damaged
from tests.simulation.machine import Image
from tests.simulation.node import SimNode
from tests.simulation.options import Options, Violation


class World:
    """Clock, agenda, network and nodes."""

    def __init__(self, seed: int, options: Options) -> None:
        logging.getLogger("raft").setLevel(logging.CRITICAL + 1)
        self.seed = seed
        self.options = options
        self.rng = random.Random(seed)
        self.now = 0.0
        self.slow_disk_s = options.slow_disk_s
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = 0
        self.stats: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=400)
        self.is_tracing = False
        self._digest = hashlib.sha256()  # of the whole trace, however little of it is kept
        self.links: dict[tuple[str, str], SimLink] = {}
        self.queues: dict[tuple[str, str], deque[bytes]] = {}  # network "manual"
        self.images: dict[bytes, Image] = {}
        self.nodes: dict[str, SimNode] = {}
        self.replica_ids: Counter[int] = Counter()
        self.on_resume: Callable[[SimNode, int], None] = lambda node, group: None
        self.checkers: dict[int, GroupChecker] = {}
        count = max(options.pool, options.replicas)
        for number in range(count):
            name = NodeId(chr(ord("A") + number))
            self.nodes[name] = SimNode(self, name)
        names = list(self.nodes)
        for group in range(1, options.groups + 1):
            members = tuple(
                Member(ReplicaId(i + 1), NodeId(name))
                for i, name in enumerate(names[: options.replicas])
            )
            self.replica_ids[group] = len(members)
            self.checkers[group] = GroupChecker(self, group, is_mute=group == options.hostile_group)
            for node in self.nodes.values():
                node.founding[group] = Configuration(members)
        for node in self.nodes.values():
            node.start()

    # agenda

    def at(self, when: float, function: Callable[..., None], *args: object) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, function, args))

    def after(self, delay: float, function: Callable[..., None], *args: object) -> None:
        self.at(self.now + delay, function, *args)

    def run(self, until: float) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, function, args = heapq.heappop(self._agenda)
            function(*args)
        self.now = max(self.now, until)

    def rewrite_agenda(
        self, change: Callable[[float, Callable[..., None], tuple], float | None]
    ) -> None:
        """Move (or drop: None) pending calls: what a reconnect does to messages in flight."""
        kept = []
        for when, order, function, args in sorted(self._agenda, key=lambda call: call[:2]):
            moved = change(when, function, args)
            if moved is not None:
                kept.append((moved, order, function, args))
        heapq.heapify(kept)
        self._agenda = kept

    def log(self, *what: object) -> None:
        if self.is_tracing:
            line = f"{self.now:9.4f} " + " ".join(str(w) for w in what)
            self.trace.append(line)
            self._digest.update(line.encode() + b"\n")

    def digest(self) -> str:
        """Of all that was traced, and the counts: equal on every machine for equal seed, settings and code."""
        whole = self._digest.copy()
        whole.update(repr(sorted(self.stats.items())).encode())
        return whole.hexdigest()

    def violate(self, kind: str, detail: object = "") -> None:
        self.log("VIOLATION", kind, detail)
        raise Violation(kind, detail)

    # network

    def link(self, a: str, b: str) -> "SimLink":
        key = (a, b) if a < b else (b, a)
        link = self.links.get(key)
        if link is None:
            link = self.links[key] = SimLink()
        return link

    def send(self, source: str, target: str, payload: bytes) -> None:
        self.stats["batches"] += 1
        options = self.options
        network = options.network
        if options.hostility and self.rng.random() < options.hostility:
            bad = damaged(self.rng, payload, options.hostile_group)
            self.after(0.1 * self.rng.random(), self.deliver_bad, source, target, bad)
        if network == "manual":
            self.queues.setdefault((source, target), deque()).append(payload)
            return
        link = self.link(source, target)
        if not link.is_up or target not in self.nodes:
            self.stats["dropped"] += 1
            return
        if network == "unordered":
            # Each message goes its own way.
            for message in decode_batch(payload):
                self._send_unordered(source, target, link, encode_batch([message]))
            return
        draw = self.rng.random()
        delay = 0.3 * self.rng.random() if draw < 0.03 else 0.002 + 0.02 * self.rng.random()
        when = max(self.now + delay, link.last.get((source, target), 0.0))
        link.last[source, target] = when
        self.at(when, self.deliver, source, target, link.epoch, payload)

    def _send_unordered(self, source: str, target: str, link: "SimLink", payload: bytes) -> None:
        rng, options = self.rng, self.options
        if rng.random() < 0.02:
            self.stats["dropped"] += 1
            return
        delay = 0.002 + 0.02 * rng.random()
        draw = rng.random()
        if draw < options.slow:
            delay = 4.0 * rng.random()
        elif draw < options.slow + 0.03:
            delay = 0.3 * rng.random()
        self.after(delay, self.deliver, source, target, link.epoch, payload)
        if rng.random() < options.duplicate:
            self.after(delay + rng.random(), self.deliver, source, target, link.epoch, payload)

    def deliver(self, source: str, target: str, epoch: int, payload: bytes) -> None:
        link = self.link(source, target)
        if self.options.network == "fifo" and epoch != link.epoch:
            return
        queue = link.blocked.get((source, target))
        if queue is not None:
            queue.append((source, target, epoch, payload))
            return
        node = self.nodes[target]
        if node.host is None:
            return
        if self.is_tracing:
            for message in decode_batch(payload):
                self.log(source, "->", target, message)
        host = node.host
        node.step(lambda: host.receive(NodeId(source), payload))

    def deliver_bad(self, source: str, target: str, payload: bytes) -> None:
        """What the host would have to survive if it came."""
        node = self.nodes[target]
        host = node.host
        if host is not None:
            self.stats["bad batches"] += 1
            self.log(source, "~>", target, payload)
            node.step(lambda: host.receive(NodeId(source), payload))

    def block(self, source: str, target: str, duration: float) -> None:
        """Nothing passes in this direction for a while; then all of it does."""
        link = self.link(source, target)
        if (source, target) not in link.blocked:
            self.log("block", source, target, round(duration, 2))
            link.blocked[source, target] = []
            self.after(duration, self.unblock, source, target)

    def unblock(self, source: str, target: str) -> None:
        link = self.link(source, target)
        queue = link.blocked.pop((source, target), None)
        if not queue:
            return
        when = self.now
        for held in queue:
            if self.options.network == "unordered":
                when = self.now + 0.05 * self.rng.random()
            self.at(when, self.deliver, *held)
        link.last[source, target] = max(when, link.last.get((source, target), 0.0))

    def reset_link(self, a: str, b: str, duration: float) -> None:
        """The connection breaks and comes back later."""
        link = self.link(a, b)
        if not link.is_up:
            return
        self.log("reset", a, b)
        link.is_up = False
        if self.options.network == "fifo":
            link.epoch += 1
            for held in link.blocked.values():
                held.clear()
        elif self.options.network == "stale":
            self.rewrite_agenda(lambda *call: self._stale(a, b, *call))
        link.last.clear()
        for source, target in ((a, b), (b, a)):
            self.after(0.2 * self.rng.random(), self.notify, source, target, False)
        self.after(0.2 + duration, self._reconnect, a, b)

    def _stale(
        self, a: str, b: str, when: float, function: Callable[..., None], args: tuple
    ) -> float | None:
        if function != self.deliver or {args[0], args[1]} != {a, b}:
            return when
        return None if self.rng.random() < 0.5 else when + 3.0 * self.rng.random()

    def _reconnect(self, a: str, b: str) -> None:
        link = self.link(a, b)
        link.is_up = True
        link.last.clear()
        self.notify(a, b, True)
        self.notify(b, a, True)

    def notify(self, node_name: str, peer: str, is_up: bool) -> None:
        node = self.nodes[node_name]
        host = node.host
        if host is None or (is_up and self.nodes[peer].host is None):
            return
        call = host.peer_up if is_up else host.peer_down
        node.step(lambda: call(NodeId(peer)))
        if not is_up and self.link(node_name, peer).is_up and self.nodes[peer].host is not None:
            node.step(lambda: host.peer_up(NodeId(peer)))


class SimLink:
    def __init__(self) -> None:
        self.is_up = True
        self.epoch = 0
        self.blocked: dict[tuple[str, str], list[tuple[str, str, int, bytes]]] = {}
        self.last: dict[tuple[str, str], float] = {}
