"""The simulated world: clocks, disks, links and nodes that run the real `MultiRaftHost` through its seams.

Everything is drawn from one seeded generator, and nothing iterates over a set of strings, so a seed replays
exactly. A node is a host, its disk and the owner of its machines; a crash loses what was not synced (and tears
the write in flight), a restart reads the disk with the product's own recovery.
"""

import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from raft.group import (
    BLANK_INDEX,
    BLANK_TERM,
    SENTINEL_INDEX,
    SENTINEL_TERM,
    Configuration,
    GroupId,
    Member,
    NodeId,
    ReplicaId,
    Settings,
)
from raft.guard import Guard
from raft.host import MultiRaftHost
from raft.journal import GroupJournal
from raft.wire import decode_batch, encode_batch
from tests.simulation.checkers import GroupChecker

SETTINGS = Settings(
    heartbeat_s=0.1,
    election_min_s=0.4,
    election_max_s=0.8,
    append_bytes_max=100,
    commit_notice_s=0.005,
    log_segment_bytes=6000,
    log_slack_entries=6,
    log_slack_bytes=2000,
)


@dataclass(frozen=True)
class Options:
    """One column of the matrix. Rates are events per simulated second."""

    network: str = "fifo"  # fifo | stale (messages survive a reconnect) | unordered | manual
    replicas: int = 3
    pool: int = 0  # nodes, when more than replicas
    groups: int = 1
    settings: Settings = SETTINGS
    drift: float = 0.05
    duplicate: float = 0.0
    slow: float = 0.01
    checkpoints: float = 0.0
    changes: float = 0.0
    proposals: float = 15.0
    reads: float = 10.0
    blocks: float = 0.6
    isolations: float = 0.25
    resets: float = 0.4
    crashes: float = 0.2
    transfers: float = 0.15
    duration_s: float = 12.0
    settle_s: float = 5.0
    slow_disk: float = 0.05
    instant: bool = False  # no delays of disk and loop (directed scenarios)

    def with_settings(self, **changes: object) -> "Options":
        return replace(self, settings=replace(self.settings, **changes))


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, kind: str, detail: object) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class World:
    """Clock, agenda, network and nodes."""

    current: "World"

    def __init__(self, seed: int, options: Options) -> None:
        World.current = self
        logging.getLogger("raft").setLevel(logging.CRITICAL + 1)
        self.seed = seed
        self.options = options
        self.rng = random.Random(seed)
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = 0
        self.stats: Counter[str] = Counter()
        self.trace: deque[str] = deque(maxlen=400)
        self.is_tracing = False
        self.links: dict[tuple[str, str], SimLink] = {}
        self.queues: dict[tuple[str, str], deque[bytes]] = {}  # network "manual"
        self.images: dict[bytes, Image] = {}
        self.stepping: SimNode | None = None
        self.nodes: dict[str, SimNode] = {}
        self.replica_ids: Counter[int] = Counter()
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
            self.checkers[group] = GroupChecker(self, group)
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
        World.current = self
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
            self.trace.append(f"{self.now:9.4f} " + " ".join(str(w) for w in what))

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
        network = self.options.network
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


class SimTimer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class SimEnvironment:
    """One life of a node: its callbacks die with it."""

    def __init__(self, node: "SimNode") -> None:
        self._node = node
        self._world = node.world
        self._life = node.life
        self.random = random.Random(node.world.rng.getrandbits(32))

    def now(self) -> float:
        node = self._node
        return node.clock_offset + self._world.now * node.clock_rate

    def _call(self, timer: SimTimer, function: Callable[[], None]) -> None:
        node = self._node
        if not timer.is_cancelled and node.host is not None and node.life == self._life:
            node.step(function)

    def call_soon(self, function: Callable[[], None]) -> None:
        world = self._world
        delay = 0.0
        if not world.options.instant and world.rng.random() < 0.3:
            delay = 0.004 * world.rng.random()  # more arrives before the turn
        world.after(delay, self._call, SimTimer(), function)

    def call_later(self, delay_s: float, function: Callable[[], None]) -> SimTimer:
        timer = SimTimer()
        self._world.after(delay_s / self._node.clock_rate, self._call, timer, function)
        return timer


class SimTransport:
    def __init__(self, node: "SimNode") -> None:
        self._node = node

    def send(self, node: NodeId, payload: bytes) -> None:
        self._node.world.send(self._node.name, node, payload)

    def is_congested(self, node: NodeId) -> bool:
        world = self._node.world
        return not world.options.instant and world.rng.random() < 0.02


class SimDisk:
    """Segments of bytes. Knows what is durable; a crash tears the append in flight."""

    ZEROS = b"\0" * 300  # preallocated, not yet written

    def __init__(self, node: "SimNode") -> None:
        self._node = node
        self._world = node.world
        self.files: dict[int, bytearray] = {}
        self._open = 0
        self._in_flight: bytes | None = None
        self.removals: list[int] = []

    def append(self, data: bytes, on_durable: Callable[[], None]) -> None:
        assert self._in_flight is None, "two appends at once"
        self._in_flight = data
        node, world = self._node, self._world
        node.shadow_cut()
        delay = 0.0
        if not world.options.instant:
            delay = 0.0005 + 0.02 * world.rng.random()
            if world.rng.random() < world.options.slow_disk:
                delay = 0.3 * world.rng.random()
        world.after(delay, self._synced, node.life, on_durable)

    def _synced(self, life: int, on_durable: Callable[[], None]) -> None:
        node = self._node
        if node.host is None or node.life != life:
            return
        assert self._in_flight is not None
        self.files[self._open] += self._in_flight
        self._in_flight = None
        node.shadow_durable()
        node.step(on_durable)

    def roll(self, segment: int) -> None:
        assert segment not in self.files
        self.files[segment] = bytearray()
        self._open = segment

    def segments(self) -> list[int]:
        return sorted(s for s in self.files if s not in self.removals)

    def read(self, segment: int) -> bytes:
        return bytes(self.files[segment]) + self.ZEROS

    def truncate(self, segment: int, size: int) -> None:
        del self.files[segment][size:]

    def remove(self, segment: int) -> None:
        self.removals.append(segment)
        self._world.after(0.02 * self._world.rng.random(), self._removed, self._node.life, segment)

    def _removed(self, life: int, segment: int) -> None:
        if life == self._node.life and segment in self.removals:
            self.removals.remove(segment)
            del self.files[segment]

    def crash(self) -> None:
        """Keep what was durable and any part of the write in flight."""
        rng = self._world.rng
        self.removals.clear()  # files whose unlink had not happened are still there
        data, self._in_flight = self._in_flight, None
        if data is not None:
            draw = rng.random()
            if draw < 0.3:
                data = b""
            elif draw < 0.5:
                data = data[: rng.randrange(len(data) + 1)]
            elif draw < 0.8:
                sector = rng.choice((16, 64, 512))
                data = b"".join(
                    data[at : at + sector]
                    if rng.random() < 0.6
                    else b"\0" * len(data[at : at + sector])
                    for at in range(0, len(data), sector)
                )
            self.files[self._open] += data
        elif not self.files.get(self._open) and rng.random() < 0.5:
            self.files.pop(self._open, None)  # the new file's name was not durable yet


@dataclass
class Image:
    """What a machine's engine holds at an index."""

    applied: int
    term: int
    values: dict[str, tuple[int, int]]
    history: list[tuple[int, int]]
    configuration: Configuration

    def copy(self) -> "Image":
        return replace(self, values=dict(self.values), history=list(self.history))


class SimMachine:
    """The owner's state machine of one group: a register per key, and the history of all operations."""

    def __init__(self, node: "SimNode", group: int, image: Image) -> None:
        self._node = node
        self._group = group
        self.image = image
        self._gathered: list[tuple[int, int, bytes | None]] = []
        self._applied = image.applied
        self.is_fetching = False
        self.ready_term = -1

    def apply(self, index: int, term: int, payload: bytes | None) -> None:
        world = self._node.world
        if index != self._applied + 1:
            world.violate("apply-gap", (self._node.name, index, self._applied))
        self._applied = index
        world.checkers[self._group].applied(self._node, index, payload)
        self._gathered.append((index, term, payload))

    def configure(self, index: int, configuration: Configuration) -> None:
        world = self._node.world
        if index != self._applied + 1:
            world.violate("apply-gap", (self._node.name, index, self._applied))
        self._applied = index
        world.checkers[self._group].applied(self._node, index, configuration)
        world.stats["configurations"] += 1
        self._gathered.append((index, -1, None))
        self.image = replace(self.image, configuration=configuration)

    def flush(self) -> None:
        image = self.image
        for index, term, payload in self._gathered:
            image.applied = index
            if payload is not None:
                number, key = payload.split(b"|")[:2]
                image.values[key.decode()] = (index, int(number))
                image.history.append((index, int(number)))
            if term >= 0:
                image.term = term
            else:
                image.term = self._node.journal(self._group).term_at(index)
        self._gathered.clear()

    def role_changed(self, role: object, term: int, leader: Member | None) -> None:
        self._node.world.log(self._node.name, "role", role, term, leader)

    def leader_ready(self, term: int) -> None:
        self.ready_term = term

    def snapshot_wanted(self, source: Member, index: int, term: int) -> None:
        if not self.is_fetching:
            self.is_fetching = True
            world, node = self._node.world, self._node
            world.after(0.3 * world.rng.random(), node.fetch, node.life, self._group, source, index)

    def stand_on(self, image: Image) -> None:
        self.image = image
        self._applied = image.applied
        self._gathered.clear()


class Shadow:
    """What the disk must hold of one group, by the records that were handed over."""

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, int, int]] = []
        self.hard_state: tuple[int, int | None] = (0, None)

    def copy(self) -> "Shadow":
        other = Shadow()
        other.entries = list(self.entries)
        other.hard_state = self.hard_state
        return other

    def play(self, operation: str, value: object) -> None:
        if operation == "add":
            self.entries.append(value)
        elif operation == "from":
            first = self.entries[0][1]
            del self.entries[value - first :]
        elif operation == "to":
            first = self.entries[0][1]
            del self.entries[: value - first]
        elif operation == "term":
            self.hard_state = value
        else:
            self.entries, self.hard_state = list(value[0]), value[1]

    def holds(self, index: int, term: int) -> bool:
        if not self.entries:
            return False
        first = self.entries[0][1]
        if index < first:
            return True
        position = index - first
        return position < len(self.entries) and self.entries[position][2] == term


class SimNode:
    """A node: clock, disk, host and the owner's machines."""

    def __init__(self, world: World, name: NodeId) -> None:
        self.world = world
        self.name = name
        drift = world.options.drift
        self.clock_rate = 1.0 + drift * (2 * world.rng.random() - 1)
        self.clock_offset = 100.0 + 50 * world.rng.random()
        self.disk = SimDisk(self)
        self.host: MultiRaftHost | None = None
        self.life = 0
        self.founding: dict[int, Configuration] = {}
        self.machines: dict[int, SimMachine] = {}
        self.removed: dict[int, list[tuple[bytes, int, int]]] = {}
        self.shadows: dict[int, Shadow] = {}
        self._gathering: list[tuple[int, str, object]] = []
        self._flying: list[tuple[int, str, object]] = []

    # life

    def start(self) -> None:
        world = self.world
        self.life += 1
        self.machines = {}
        self._gathering, possibly, self._flying = [], self._flying, []
        self.stepping_in()
        self.host = host = MultiRaftHost(
            self.name,
            SimEnvironment(self),
            SimTransport(self),
            self.disk,
            self,
            world.options.settings,
            self._fatal,
        )
        host._log.journal_class = ObservedJournal
        recovered = host.recover()
        self._check_recovery(possibly)
        for found in recovered:
            image = world.images[found.checkpoint_state].copy()
            self.machines[found.group_id] = machine = SimMachine(self, found.group_id, image)
            host.open_group(found.group_id, machine, lambda: None)
        for group, configuration in self.founding.items():
            own = [m for m in configuration.members if m.node_id == self.name]
            if own and self.life == 1:
                self.create(group, own[0].replica_id, configuration)
        for other in world.nodes.values():
            if other is not self and other.host is not None and self._linked(other):
                host.peer_up(other.name)
                other.step(lambda other=other: other.host.peer_up(self.name))
                self.stepping_in()
        host.start()
        world.stepping = None
        world.log("start", self.name, self.life)

    def _linked(self, other: "SimNode") -> bool:
        return self.world.link(self.name, other.name).is_up

    def stepping_in(self) -> None:
        self.world.stepping = self

    def create(self, group: int, replica_id: int, configuration: Configuration) -> None:
        """This node's replica of a new group, at the sentinel."""
        world = self.world
        assert self.host is not None
        image = Image(SENTINEL_INDEX, SENTINEL_TERM, {}, [], configuration)
        state = b"founding-%d" % group
        world.images.setdefault(state, image.copy())
        self.machines[group] = machine = SimMachine(self, group, image)
        self.host.create_group(
            GroupId(group), ReplicaId(replica_id), configuration, machine, lambda: None, state
        )

    def join(self, group: int, replica_id: int) -> None:
        """A blank replica of a group that exists."""
        world = self.world
        assert self.host is not None
        image = Image(BLANK_INDEX, BLANK_TERM, {}, [], Configuration(()))
        world.images.setdefault(b"blank", image.copy())
        self.machines[group] = machine = SimMachine(self, group, image)
        self.host.join_group(GroupId(group), ReplicaId(replica_id), machine, lambda: None, b"blank")

    def crash(self) -> None:
        world = self.world
        if self.host is None:
            return
        world.log("crash", self.name)
        world.stats["crashes"] += 1
        self.host.stop()
        self.host = None
        self.life += 1
        self.disk.crash()
        for other in world.nodes.values():
            if other is not self:
                link = world.link(self.name, other.name)
                if world.options.network == "fifo":
                    link.epoch += 1
                link.last.clear()
                if other.host is not None:
                    delay = 0.1 * world.rng.random()
                    world.after(delay, world.notify, other.name, self.name, False)

    def restart(self) -> None:
        if self.host is None:
            self.start()

    def step(self, function: Callable[[], None]) -> None:
        """Run something of this node, then check what must hold after every step."""
        world = self.world
        before, world.stepping = world.stepping, self
        try:
            function()
        finally:
            world.stepping = before
        if self.removed:
            removed, self.removed = self.removed, {}
            for group, entries in removed.items():
                world.checkers[group].removed(self, entries)

    def _fatal(self, group: int, error: BaseException) -> None:
        raise Violation("fatal", f"{self.name} group {group}: {error!r}") from error

    # ApplySink

    def flush(self) -> None:
        for machine in self.machines.values():
            machine.flush()

    # what checkers and workloads look at

    def replica(self, group: int):
        return None if self.host is None else self.host._replicas.get(group)

    def journal(self, group: int) -> GroupJournal:
        assert self.host is not None
        return self.host._log.journals[group]

    def leads(self, group: int) -> bool:
        replica = self.replica(group)
        return replica is not None and replica._core.is_leader

    # the owner's part of checkpoints and snapshots

    def checkpoint(self, group: int) -> None:
        machine = self.machines.get(group)
        if self.host is None or machine is None or machine._gathered:
            return
        self._store(group, machine.image.copy(), self.life)

    def _store(self, group: int, image: Image, life: int) -> None:
        world = self.world
        token = b"%d-%d-%s-%d" % (group, image.applied, self.name.encode(), len(world.images))
        world.images[token] = image

        own = self.replica(group)

        def done() -> None:
            replica = self.replica(group)
            if replica is own and self.life == life:
                self.step(lambda: replica.checkpoint(image.applied, image.term, token))

        world.after(0.1 * world.rng.random(), done)

    def fetch(self, life: int, group: int, source: Member, index: int) -> None:
        """Ask the source's engine for a snapshot; it takes a while."""
        world = self.world
        if self.host is None or self.life != life:
            return
        other = world.nodes[source.node_id]
        machine = other.machines.get(group)
        if other.host is None or machine is None or machine.image.applied < index:
            self.machines[group].is_fetching = False
            return
        image = machine.image.copy()
        own = self.machines[group]
        world.after(0.3 * world.rng.random(), self._install, life, group, image, own)

    def _install(self, life: int, group: int, image: Image, machine: SimMachine) -> None:
        if self.host is None or self.life != life or self.machines[group] is not machine:
            return
        machine.is_fetching = False
        replica = self.replica(group)
        if replica is None or not replica.wants_snapshot(image.applied):
            return
        world = self.world
        token = b"snapshot-%d-%d-%d" % (group, image.applied, len(world.images))
        world.images[token] = image.copy()
        world.stats["snapshots"] += 1

        def install() -> None:
            machine.stand_on(image.copy())
            assert replica.install_snapshot(image.applied, image.term, image.configuration, token)

        self.step(install)

    # what the disk must hold

    def shadow_note(self, group: int, operation: str, value: object) -> None:
        self._gathering.append((group, operation, value))

    def shadow_cut(self) -> None:
        self._flying, self._gathering = self._gathering, []

    def shadow_durable(self) -> None:
        self._play(self.shadows, self._flying)
        self._flying = []

    @staticmethod
    def _play(shadows: dict[int, Shadow], operations: list[tuple[int, str, object]]) -> None:
        for group, operation, value in operations:
            shadow = shadows.get(group)
            if shadow is None:
                shadow = shadows[group] = Shadow()
            shadow.play(operation, value)

    def _check_recovery(self, possibly: list[tuple[int, str, object]]) -> None:
        """Recovery finds exactly what was durable, or that and all of the batch that was in flight."""
        assert self.host is not None
        found = {
            group: (list(journal), (journal.term, journal.voted_for))
            for group, journal in self.host._log.journals.items()
        }
        more = {group: shadow.copy() for group, shadow in self.shadows.items()}
        self._play(more, possibly)
        for shadows in (self.shadows, more):
            if found == {g: (s.entries, s.hard_state) for g, s in shadows.items()}:
                self.shadows = shadows
                return
        self.world.violate("recovery", (self.name, found, self.shadows.keys()))


class ObservedJournal(GroupJournal):
    """The product's journal, telling the checkers what happens to it."""

    __slots__ = ("node", "seen")

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)
        world = World.current
        assert world.stepping is not None
        self.node = world.stepping
        self.seen = self.checkpoint.index

    def _checker(self) -> GroupChecker:
        return self.node.world.checkers[self.group]

    def add(self, command: bytes, index: int, term: int) -> None:
        self._checker().added(self.node, self[-1], (command, index, term))
        super().add(command, index, term)
        self.node.shadow_note(self.group, "add", (command, index, term))

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        removed = list(self[position:])
        super().deleteEntriesFrom(position)
        if removed:
            self.node.world.stats["truncations"] += 1
            self.node.removed.setdefault(self.group, []).extend(removed)
            self.node.shadow_note(self.group, "from", removed[0][1])

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:  # noqa: N802
        super().setCurrentTerm(term, voted_for)
        self.node.shadow_note(self.group, "term", (self.term, self.voted_for))

    def set_checkpoint(self, checkpoint: object, first_index: int) -> None:
        super().set_checkpoint(checkpoint, first_index)
        self.node.shadow_note(self.group, "to", first_index)

    def reset(self, checkpoint: object) -> None:
        removed = list(self)
        super().reset(checkpoint)
        self.seen = max(self.seen, checkpoint.index)
        self.node.removed.setdefault(self.group, []).extend(removed)

    def write_base(self) -> None:
        super().write_base()
        self.node.shadow_note(self.group, "base", (list(self), (self.term, self.voted_for)))

    def setRaftCommitIndex(self, commit: int) -> None:  # noqa: N802
        super().setRaftCommitIndex(commit)
        checker = self._checker()
        first, last = self[0][1], self[-1][1]
        for index in range(max(self.seen, first) + 1, min(commit, last) + 1):
            checker.committed(self.node, self[index - first])
        self.seen = max(self.seen, commit)


def _observe_leadership() -> None:
    became_leader = Guard.became_leader

    def observed(guard: Guard, term: int) -> None:
        became_leader(guard, term)
        journal = guard.journal
        if isinstance(journal, ObservedJournal):
            journal.node.world.checkers[guard.group].became_leader(journal.node, term)

    Guard.became_leader = observed


_observe_leadership()
