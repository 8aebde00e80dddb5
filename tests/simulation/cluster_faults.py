"""The fate of a simulated cluster: faults, each kind at a rate of the seed's own.

    messages     delayed, cut anywhere, held back one way or both (`_block`, `_isolate`, `_split`), lost with their
                 connection, and heard from a connection that its other end has already replaced (`_reset`)
    processes    killed, stopped in order, paused for longer than a lease (`_kill`, `_stop`, `_pause`)
    machines     gone with whatever was not synced, the last write torn; also just behind a sync, also most of them
                 at once (`_crash`, `_at_sync`, `_crash_many`)
    clocks       every process drifts by up to 5 %, wall clocks are set (`_jump`)
    disks        slow, full, empty, damaged (`_slow_disk`, `_fill_disk`, `_wipe`, `_damage`)

How much may be lost at once: what the system promises needs a majority of each partition's copies. So a disk is
wiped or damaged only while all others are whole: running, undamaged, every copy on them sound and in service, and
no group with a voter on a lost disk. The log's last batch is damaged only once its receipt is durable.
"""

from collections.abc import Callable
from typing import Any

from tests.simulation.cluster_processes import StorageProcess
from tests.simulation.cluster_world import Process
from tests.simulation.clusters import Cluster


class Fate:
    """Faults, each kind at a rate of this seed's own, until told to end."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self.is_on = True

    def begin(self) -> None:
        rng = self._world.rng
        for rate, action in (
            (0.8, self._block),
            (0.5, self._isolate),
            (1.0, self._reset),
            (0.5, self._kill),
            (0.4, self._crash),
            (0.1, self._crash_many),
            (0.6, self._pause),
            (0.4, self._slow_disk),
            (0.4, self._jump),
            (0.3, self._stop),
            (0.4, self._split),
            (0.5, self._fill_disk),
            (0.3, self._wipe),
            (0.8, self._damage),
        ):
            # Some kinds not at all, some often: what masks what differs from seed to seed.
            self._repeat(rate * rng.choice((0, 0.5, 1, 1, 2)), action)
        self._sync_crashes = rng.choice((0, 0, 0.05, 0.3))
        for node in self._cluster.nodes:
            node.on_sync = self._at_sync

    def _at_sync(self, node: StorageProcess) -> None:
        """A crash just behind a sync of the engine finds steps half done."""
        world, rng = self._world, self._world.rng
        if not self.is_on or rng.random() >= self._sync_crashes:
            return
        life, machine = node.life, rng.random() < 0.6

        def crash() -> None:
            if node.life == life and self.is_on:
                may_damage = machine and self._cluster.is_whole_but_for(node)
                node.end(machine=machine)
                if may_damage and rng.random() < 0.5:
                    # Where a snapshot was being installed, the start that is to go on with it finds it damaged.
                    self._tell(node, node.machine.damage_snapshot(rng))
                self._later(node)

        world.after(rng.choice((0.0005, 0.005, 0.05)) * rng.random(), crash)

    def _repeat(self, rate: float, action: Callable[[], None]) -> None:
        world = self._world

        def again() -> None:
            if self.is_on:
                action()
                world.after(world.rng.expovariate(rate), again)

        if rate > 0:
            world.after(world.rng.expovariate(rate), again)

    def end(self) -> None:
        """All faults end; whatever is down starts."""
        self.is_on = False
        self._world.log("HEAL")
        self._cluster.network.heal()
        for node in self._cluster.nodes:
            node.machine.is_full = False
        for process in self._cluster.processes:
            process.paused_until = process.slow_until = 0.0
            process.arm()
            process.restart()

    def _any(self, processes: list[Any] | None = None) -> Any:
        return self._world.rng.choice(processes or self._cluster.processes)

    def _node(self) -> StorageProcess:
        """A storage node, one that leads something more often than not."""
        rng = self._world.rng
        leaders = [
            node
            for node in self._cluster.nodes
            if any(replica.standing.is_leading for replica in node.replicas.values())
        ]
        return rng.choice(leaders if leaders and rng.random() < 0.6 else self._cluster.nodes)

    def _later(self, process: Process) -> None:
        rng = self._world.rng
        delay = rng.choice((0.05, 0.5, 3.0)) * (0.1 + rng.random())
        self._world.after(delay, process.restart)

    def _block(self) -> None:
        rng, network = self._world.rng, self._cluster.network
        a, b = self._node(), self._any()
        if a is b:
            return
        duration = rng.choice((0.2, 1.0, 4.0)) * rng.random()
        if rng.random() < 0.7:
            network.block(a, b, duration)
        if rng.random() < 0.6:
            network.block(b, a, duration)

    def _isolate(self) -> None:
        rng, network = self._world.rng, self._cluster.network
        a = self._node() if rng.random() < 0.8 else self._any()
        duration = 0.2 + 3 * rng.random()
        both, only_nodes = rng.random() < 0.6, rng.random() < 0.4
        inward = rng.random() < 0.5
        for b in self._cluster.nodes if only_nodes else self._cluster.processes:
            if b is not a:
                if both or inward:
                    network.block(b, a, duration)
                if both or not inward:
                    network.block(a, b, duration)

    def _reset(self) -> None:
        a, b = self._node(), self._any()
        if a is not b:
            self._cluster.network.reset(a, b)

    def _kill(self) -> None:
        rng = self._world.rng
        process = self._node() if rng.random() < 0.6 else self._any()
        process.end(machine=False)
        self._later(process)
        if isinstance(process, StorageProcess) and rng.random() < 0.3:
            # What the machine outlived the process with is not durable by that.
            self._world.after(1.5 * rng.random(), self._crash_one, process)

    def _crash(self) -> None:
        process = self._node()
        process.end(machine=True)
        self._later(process)

    def _crash_many(self) -> None:
        rng = self._world.rng
        for process in self._cluster.nodes:
            if rng.random() < 0.75:
                process.end(machine=rng.random() < 0.8)
                self._later(process)

    def _pause(self) -> None:
        rng = self._world.rng
        process = self._node() if rng.random() < 0.7 else self._any()
        process.pause(rng.choice((0.2, 1.5, 5.0)) * rng.random())

    def _slow_disk(self) -> None:
        node, rng = self._node(), self._world.rng
        node.slow_until = self._world.now + 3 * rng.random()
        self._world.log("SLOW DISK", node.name)
        self._world.stats["slow disks"] += 1

    def _jump(self) -> None:
        """The wall clock is set: by a little as by NTP, or by a lot as by hand."""
        node, rng = self._node(), self._world.rng
        jump = rng.choice((0.1, 3.0, 100.0, 3000.0)) * (2 * rng.random() - 1)
        if rng.random() < 0.5:  # ... while answers are waited for, and requests are sent again
            router = self._any(self._cluster.routers)
            self._cluster.network.block(node, router, 1.0 + 2 * rng.random())
        self._world.after(0.5 * rng.random(), self._set_clock, node, jump)

    def _set_clock(self, node: StorageProcess, jump: float) -> None:
        node.wall_offset_s += jump
        self._world.log("WALL CLOCK", node.name, f"{jump:+.3f}")
        self._world.stats["clock jumps"] += 1

    def _stop(self) -> None:
        process = self._node()
        process.stop_planned(lambda: self._later(process))

    def _split(self) -> None:
        """A leader with one router on one side, everybody else on the other."""
        rng, network = self._world.rng, self._cluster.network
        node, router = self._node(), self._any(self._cluster.routers)
        duration = 1.0 + 4 * rng.random()
        for other in self._cluster.processes:
            if other not in (node, router):
                for ours in (node, router):
                    network.block(ours, other, duration)
                    network.block(other, ours, duration)

    # what breaks disks

    def _fill_disk(self) -> None:
        """There is no space, for a while; the supervisor goes on to start the process again."""
        node, rng = self._node(), self._world.rng
        machine = node.machine
        if not machine.is_full:
            machine.is_full = machine.was_full = self._world.has_broken_disks = True
            self._world.log("DISK FULL", node.name)
            self._world.stats["full disks"] += 1
            self._world.after(rng.choice((0.3, 4.0)) * rng.random(), self._free_disk, node)

    def _free_disk(self, node: StorageProcess) -> None:
        if node.machine.is_full:
            self._world.log("DISK FREE", node.name)
            node.machine.is_full = False

    def _wipe(self) -> None:
        """The machine comes back with an empty disk."""
        node = self._node()
        if self._cluster.is_whole_but_for(node):
            node.end(machine=True)
            node.machine.wipe()
            self._world.has_broken_disks = True
            self._world.stats["wiped disks"] += 1
            self._later(node)

    def _damage(self) -> None:
        """The disk does not return what was written. (One disk at a time: see the module.)"""
        node, world, rng = self._node(), self._world, self._world.rng
        if not node.is_running or not self._cluster.is_whole_but_for(node):
            return
        machine, draw = node.machine, rng.random()
        if draw < 0.5:
            what = machine.flip_record(rng)
        elif draw < 0.7:
            what = machine.lose_block(rng)
        else:
            what = machine.flip_log(rng) if draw < 0.95 else machine.lose_segment(rng)
            if rng.random() < 0.6:  # before it is read again
                world.after(0.3 * rng.random(), self._crash_one, node)
        self._tell(node, what)

    def _tell(self, node: StorageProcess, what: str) -> None:
        if what:
            self._world.has_broken_disks = True
            self._world.log("DAMAGE", node.name, what)
            self._world.stats[f"damage: {what.split()[0]}"] += 1

    def _crash_one(self, node: StorageProcess) -> None:
        if self.is_on:
            node.end(machine=True)
            self._later(node)
