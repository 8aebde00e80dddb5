"""A node: clock, disk, the real host, and the owner of its machines."""

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

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
)
from raft.host import MultiRaftHost
from raft.journal import GroupJournal
from raft.node_log import Corruption
from tests.simulation.disk import Shadow, SimDisk
from tests.simulation.machine import Image, SimMachine
from tests.simulation.observed import ObservedJournal
from tests.simulation.options import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World


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
        return self._node.clock()

    def _call(self, timer: SimTimer, function: Callable[[], None]) -> None:
        node = self._node
        if timer.is_cancelled or node.host is None or node.life != self._life:
            return
        node.step(lambda: None if timer.is_cancelled else function(), is_timer=True)

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


class SimNode:
    """A node: clock, disk, host and the owner's machines."""

    def __init__(self, world: "World", name: NodeId) -> None:
        self.world = world
        self.name = name
        drift = world.options.drift
        draw = 2 * world.rng.random() - 1
        if world.options.has_extreme_clocks:
            draw = 1.0 if draw > 0 else -1.0
        self.clock_rate = 1.0 + drift * draw
        self.clock_offset = 100.0 + 50 * world.rng.random()
        self.disk = SimDisk(self)
        self.host: MultiRaftHost | None = None
        self.life = 0
        self.founding: dict[int, Configuration] = {}
        self.machines: dict[int, SimMachine] = {}
        self.removed: dict[int, list[tuple[bytes, int, int]]] = {}
        self.shadows: dict[int, Shadow] = {}
        self.lost: dict[tuple[int, int], Shadow] = {}  # what replicas held whose disk is gone
        self._gathering: list[tuple[int, str, object]] = []
        self._flying: list[tuple[int, str, object]] = []
        self.suspended_at: float | None = None
        self._held: list[tuple[int, bool, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.clock_offset + self.world.now * self.clock_rate

    # life

    def start(self) -> None:
        world = self.world
        if self.disk.is_broken and world.rng.random() < 0.5:
            world.stats["failed reads"] += 1
            world.after(0.05 + world.rng.random(), self.restart)
            return
        self.life += 1
        self.machines = {}
        self._gathering, possibly, self._flying = [], self._flying, []
        self.host = host = MultiRaftHost(
            self.name,
            SimEnvironment(self),
            SimTransport(self),
            self.disk,
            self,
            world.options.settings,
            self._fatal,
        )
        host._log.journal_class = partial(ObservedJournal, self)
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
        host.start()
        world.log("start", self.name, self.life)

    def _linked(self, other: "SimNode") -> bool:
        return self.world.link(self.name, other.name).is_up

    def create(self, group: int, replica_id: int, configuration: Configuration) -> None:
        """This node's replica of a new group, at the sentinel."""
        world = self.world
        assert self.host is not None
        # A group begins with data that no entry of its log carries, like the child of a split.
        base = [(int(SENTINEL_INDEX), 0)]
        image = Image(SENTINEL_INDEX, SENTINEL_TERM, {}, base, configuration)
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
        self.suspended_at = None
        self._held.clear()
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

    def lose_disk(self) -> None:
        """Its log is gone, or rots and is refused: it comes back as a node that never hosted anything."""
        world = self.world
        ids = {
            (group, replica.replica_id)
            for group in self.machines
            if (replica := self.replica(group)) is not None
        }
        self.crash()
        world.log("lost disk", self.name)
        world.stats["lost disks"] += 1
        if world.rng.random() < 0.5 and self.disk.rot():
            try:
                self.start()
            except Corruption:
                self.host = None
                world.stats["rot refused"] += 1
            else:
                world.violate("rot-unnoticed", self.name)
        self.lost.update({key: self.shadows[key[0]] for key in ids if key[0] in self.shadows})
        self.shadows, self._flying, self._gathering = {}, [], []
        self.machines = {}
        self.disk = SimDisk(self)
        world.after(0.05 + world.rng.random(), self.restart)

    def step(self, function: Callable[[], None], *, is_timer: bool = False) -> None:
        """Run something of this node, then check what must hold after every step."""
        if self.suspended_at is not None:
            self._held.append((self.life, is_timer, function))
            return
        function()
        if self.removed:
            removed, self.removed = self.removed, {}
            for group, entries in removed.items():
                self.world.checkers[group].removed(self, entries)

    # suspension: the process stands still (paused, or its machine asleep), and all that reaches it waits

    def suspend(self, duration: float) -> None:
        world = self.world
        if self.host is None or self.suspended_at is not None:
            return
        world.log("suspend", self.name, round(duration, 3))
        world.stats["suspensions"] += 1
        self.suspended_at = world.now
        world.after(duration, self.resume, self.life)

    def resume(self, life: int) -> None:
        """It goes on where it stood, with a clock that did not stop; timers and messages are all due at once."""
        world = self.world
        if self.suspended_at is None or self.life != life:
            return
        world.log("resume", self.name)
        if not world.options.has_boot_clock:
            self.clock_offset -= (world.now - self.suspended_at) * self.clock_rate
        self.suspended_at = None
        held, self._held = self._held, []
        for group in self.machines:
            world.on_resume(self, group)  # a client's request may be what it sees first
        timers_first = world.rng.random() < 0.5  # else messages first; each kind in its order
        held.sort(key=lambda call: call[1] != timers_first)
        for life, _, function in held:
            if self.host is not None and self.life == life:
                self.step(function)

    def _fatal(self, group: int, error: BaseException) -> None:
        if group == self.world.options.hostile_group:
            self.world.stats["failed by nonsense"] += 1
            return
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
            if self.life == life:
                self.step(take)

        def take() -> None:
            replica = self.replica(group)
            if replica is not None and replica is own:
                replica.checkpoint(image.applied, image.term, token)

        world.after(0.1 * world.rng.random(), done)

    def fetch(self, life: int, group: int, source: Member, index: int) -> None:
        """Ask the source's engine for a snapshot; it takes a while."""
        world = self.world
        if self.host is None or self.life != life:
            return
        other = world.nodes[source.node_id]
        machine = other.machines.get(group)
        if (
            other.host is None
            or other.suspended_at is not None
            or machine is None
            or machine.image.applied < index
        ):
            self.machines[group].is_fetching = False
            return
        image = machine.image.copy()
        own = self.machines[group]
        world.after(0.3 * world.rng.random(), self._install, life, group, image, own)

    def _install(self, life: int, group: int, image: Image, machine: SimMachine) -> None:
        if self.host is None or self.life != life or self.machines.get(group) is not machine:
            return
        if self.suspended_at is not None:
            self.step(lambda: self._install(life, group, image, machine))
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
        hostile = self.world.options.hostile_group
        found = {
            group: (list(journal), (journal.term, journal.voted_for))
            for group, journal in self.host._log.journals.items()
            if group != hostile
        }
        more = {group: shadow.copy() for group, shadow in self.shadows.items()}
        self._play(more, possibly)
        for shadows in (self.shadows, more):
            if found == {g: (s.entries, s.hard_state) for g, s in shadows.items() if g != hostile}:
                self.shadows = shadows
                return
        self.world.violate("recovery", (self.name, found, self.shadows.keys()))
