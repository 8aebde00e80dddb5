"""What clients, administrators and fate do to a world, all from its generator."""

from collections.abc import Callable

from raft.elections import Elections
from raft.group import Configuration, LogIndex, Member, NodeId, Outcome, ReplicaId
from raft.membership import learners_of, member_of, voters_of, why_not
from tests.simulation.checkers import Operation
from tests.simulation.node import SimNode
from tests.simulation.options import Options
from tests.simulation.patching import Patch, mutated, yes
from tests.simulation.world import World

KEYS = ("x", "y", "z")
NO_PRE_VOTES: tuple[Patch, ...] = ((Elections, "has_pre_votes", yes),)
VOTERS_MAX = 5


class Driver:
    """Generates events at the rates of the options until told to heal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_on = True
        self._number = 0
        world.on_resume = self._read_at

    def begin(self) -> None:
        options = self._world.options
        for rate, action in (
            (options.proposals, self._write),
            (options.reads, self._read),
            (options.transfers, self._transfer),
            (options.checkpoints * len(self._world.nodes), self._checkpoint),
            (options.changes, self._change),
            (options.blocks, self._block),
            (options.isolations, self._isolate),
            (options.resets, self._reset),
            (options.crashes, self._crash),
            (options.suspensions, self._suspend),
            (options.partitions, self._partition),
            (options.disk_faults, self._break_disk),
            (options.losses, self._lose_disk),
            (4.0 if options.losses else 0.0, self._replace),
        ):
            self._repeat(rate, action)

    def _repeat(self, rate: float, action: Callable[[], None]) -> None:
        world = self._world

        def again() -> None:
            if self._is_on:
                action()
                world.after(world.rng.expovariate(rate), again)

        if rate > 0:
            world.after(world.rng.expovariate(rate), again)

    def _group(self) -> int:
        return self._world.rng.randint(1, self._world.options.groups)

    def _leader(self, group: int) -> SimNode | None:
        nodes = self._world.nodes.values()
        leaders = [n for n in nodes if n.leads(group) and n.suspended_at is None]
        return self._world.rng.choice(leaders) if leaders else None

    def _pick(self, leader_bias: float = 0.5) -> SimNode:
        if self._world.rng.random() < leader_bias:
            leader = self._leader(self._group())
            if leader is not None:
                return leader
        return self._world.rng.choice(list(self._world.nodes.values()))

    def _other(self, node: SimNode) -> SimNode:
        return self._world.rng.choice([n for n in self._world.nodes.values() if n is not node])

    # clients

    def _write(self) -> None:
        group = self._group()
        node = self._leader(group)
        if node is None:
            return
        for _ in range(self._world.rng.choice((1, 1, 1, 2, 5))):
            if node.host is not None:
                self.write(node, group)

    def write(self, node: SimNode, group: int) -> Operation | None:
        """One write on that node; None if it did not take it."""
        world = self._world
        checker = world.checkers[group]
        replica = node.replica(group)
        if replica is None:
            return None
        self._number += 1
        key = world.rng.choice(KEYS)
        operation = Operation(self._number, key, checker.acked_max)
        payload = b"%d|%s|" % (self._number, key.encode())
        payload += b"." * world.rng.choice((0, 0, 3, 20))
        payload = payload[: replica.payload_bytes_max]

        def done(outcome: Outcome, index: LogIndex) -> None:
            if outcome is Outcome.COMMITTED:
                checker.acknowledge(operation, index)
            operation.is_rejected = outcome is Outcome.REJECTED
            world.stats[outcome.value] += 1

        taken: list[bool] = []
        node.step(lambda: taken.append(replica.propose(payload, done)))
        if not taken[0]:
            return None
        checker.operations[operation.number] = operation
        return operation

    def _read(self) -> None:
        group = self._group()
        node = self._leader(group)
        if node is not None:
            self._read_at(node, group)

    def _read_at(self, node: SimNode, group: int) -> None:
        world = self._world
        if not node.leads(group):
            return
        key = world.rng.choice(KEYS)
        checker = world.checkers[group]
        replica, machine, life = node.replica(group), node.machines[group], node.life
        floor = checker.read_floor(key)

        def value() -> int:
            return machine.image.values.get(key, (0, 0))[0]

        def ready(is_confirmed: bool) -> None:
            if is_confirmed and node.life == life:
                checker.answered(node, "barrier-read", key, value(), floor)

        if world.rng.random() < 0.5:
            if replica.lease_is_valid():
                checker.answered(node, "lease-read", key, value(), floor)
        else:
            node.step(lambda: replica.read_barrier(ready))

    # administrators

    def _transfer(self) -> None:
        node = self._leader(self._group())
        if node is None:
            return
        for group in node.machines:
            replica = node.replica(group)
            node.step(
                lambda replica=replica: self._world.stats.update(
                    ["transfers"] if replica.transfer_leadership() else []
                )
            )

    def _checkpoint(self) -> None:
        self._world.rng.choice(list(self._world.nodes.values())).checkpoint(self._group())

    def _change(self) -> None:
        """Add a learner, promote one that has caught up, or remove somebody."""
        world, rng = self._world, self._world.rng
        group = self._group()
        # Wiping what a node held for an earlier replica is right only by the true, settled configuration.
        node = self.settled(group)
        if node is None:
            return
        replica = node.replica(group)
        current = replica.status().configuration
        members = list(current.members)
        learners, voters = learners_of(current), voters_of(current)
        if learners and rng.random() < 0.6:
            chosen = rng.choice(learners)
            member = member_of(current, chosen)
            members.remove(member)
            match = replica.status().match_index.get(chosen, 0)
            if match >= replica.status().commit_index - 5 and len(voters) < VOTERS_MAX:
                members.append(Member(chosen, member.node_id))
                world.stats["promotions"] += 1
            elif rng.random() > 0.1:
                return
        elif len(voters) > 3 and rng.random() < 0.8:
            leaving = rng.choice([v for v in voters if v != replica.replica_id])
            members.remove(member_of(current, leaving))
        else:
            used = {m.node_id for m in members}
            free = [
                n
                for n in world.nodes.values()
                if n.name not in used and n.host is not None and n.suspended_at is None
            ]
            if not free:
                return
            new = rng.choice(free)
            world.replica_ids[group] += 1
            member = Member(ReplicaId(world.replica_ids[group]), NodeId(new.name), is_learner=True)
            members.append(member)
            self._join(new, group, member, node)
            return
        self._propose_change(node, group, Configuration(tuple(members)))

    @staticmethod
    def _propose_change(node: SimNode, group: int, proposed: Configuration) -> None:
        replica = node.replica(group)
        if why_not(replica.status().configuration, proposed, replica.replica_id) is None:
            node.step(lambda: replica.change_configuration(proposed, lambda *_: None))

    def _join(self, new: SimNode, group: int, member: Member, leader: SimNode) -> None:
        """A blank replica on that node (whatever it had is removed first); proposed once that is durable."""
        host, life = new.host, leader.life
        assert host is not None

        def propose() -> None:
            replica, joined = leader.replica(group), new.replica(group)
            if joined is None or joined.replica_id != member.replica_id:
                return
            if leader.life != life or leader.suspended_at is not None or replica is None:
                return
            if replica.lease_is_valid():
                members = replica.status().configuration.members
                self._propose_change(leader, group, Configuration((*members, member)))

        def prepare() -> None:
            if new.replica(group) is not None:
                host.remove_group(group)
            new.join(group, member.replica_id)
            host.when_durable(propose)

        new.step(prepare)

    # fate

    def _block(self) -> None:
        rng, world = self._world.rng, self._world
        if len(world.nodes) == 1:
            return
        a = self._pick()
        b = self._other(a)
        duration = 0.05 + 3 * rng.random()
        draw = rng.random()
        if draw < 0.7:
            world.block(a.name, b.name, duration)
        if draw > 0.4:
            world.block(b.name, a.name, duration * (0.3 + 0.7 * rng.random()))

    def _isolate(self) -> None:
        rng, world = self._world.rng, self._world
        a = self._pick(0.6)
        duration = 0.3 + 3 * rng.random()
        is_hard, is_one_way = rng.random() < 0.4, rng.random() < 0.3
        for b in world.nodes.values():
            if b is a:
                continue
            if is_hard:
                world.reset_link(a.name, b.name, duration)
            else:
                world.block(a.name, b.name, duration)
                if not is_one_way:
                    world.block(b.name, a.name, duration)

    def _partition(self) -> None:
        """A minority, often the leader's, is heard by nobody else, and sometimes hears nobody either."""
        rng, world = self._world.rng, self._world
        first = self._pick(0.8)
        others = [n for n in world.nodes.values() if n is not first]
        inside = [first, *rng.sample(others, rng.randint(0, (len(others) - 1) // 2))]
        duration = 0.2 + 1.2 * rng.random()
        is_one_way = rng.random() < 0.5
        for a in inside:
            for b in others:
                if b not in inside:
                    world.block(a.name, b.name, duration)
                    if not is_one_way:
                        world.block(b.name, a.name, duration)

    def _reset(self) -> None:
        if len(self._world.nodes) > 1:
            a = self._pick()
            self._world.reset_link(a.name, self._other(a).name, 0.5 * self._world.rng.random())

    def _crash(self) -> None:
        rng, world = self._world.rng, self._world
        first = self._pick(0.4)
        victims = [first]
        if rng.random() < 0.25:
            victims += [n for n in world.nodes.values() if n is not first and rng.random() < 0.6]
        for node in victims:
            node.crash()
            world.after(0.05 + 2 * rng.random(), node.restart)

    def _suspend(self) -> None:
        """For about as long as a lease and an election take."""
        settings = self._world.options.settings
        draw = self._world.rng.random()
        self._pick(0.7).suspend(settings.election_min_s * (0.2 + 4.0 * draw * draw))

    def _break_disk(self) -> None:
        rng, world = self._world.rng, self._world
        node = self._pick()
        disk = node.disk
        disk.is_broken = True
        world.log("broken disk", node.name)

        def mend() -> None:
            disk.is_broken = False

        world.after(0.1 + 1.5 * rng.random(), mend)

    def settled(self, group: int) -> SimNode | None:
        """A leader whose configuration is certainly the one in force."""
        node = self._leader(group)
        if node is None:
            return None
        replica = node.replica(group)
        is_settled = replica._pending_configuration <= replica._core.applied_index
        return node if replica.lease_is_valid() and is_settled else None

    def _missing(self, configuration: Configuration, group: int) -> list[Member]:
        """Members whose node is there without them."""
        missing = []
        for member in configuration.members:
            node = self._world.nodes[member.node_id]
            if (group, int(member.replica_id)) in node.lost:
                missing.append(member)
        return missing

    def _lose_disk(self) -> None:
        """One voter at a time, of three or more: what is left is a majority."""
        world = self._world
        node = self._pick()
        for group in range(1, world.options.groups + 1):
            leader = self.settled(group)
            if leader is None or leader is node:
                return
            current = leader.replica(group).status().configuration
            if len(voters_of(current)) < 3 or self._missing(current, group):
                return
        if node.host is not None and node.suspended_at is None:
            node.lose_disk()

    def _replace(self) -> None:
        """What a lost disk held is taken out; a new replica, with a new id, is added like any other."""
        group = self._group()
        node = self.settled(group)
        if node is None:
            return
        current = node.replica(group).status().configuration
        for member in self._missing(current, group)[:1]:
            members = tuple(m for m in current.members if m != member)
            self._world.stats["replacements"] += 1
            self._propose_change(node, group, Configuration(members))

    # the end

    def heal(self) -> None:
        self._is_on = False
        world = self._world
        for link in list(world.links.values()):
            for source, target in list(link.blocked):
                world.unblock(source, target)
        world.slow_disk_s = min(world.slow_disk_s, Options.slow_disk_s)
        for node in world.nodes.values():
            node.disk.is_broken = False
            node.resume(node.life)
            node.restart()

    def check_recovered(self) -> None:
        """(9) A leader, a new write within 2 s, all members equal."""
        options = self._world.options
        for group in range(1, options.groups + 1):
            if group != options.hostile_group:
                self._check_group(group)

    def _check_group(self, group: int) -> None:
        world = self._world
        leaders = [n for n in world.nodes.values() if n.leads(group)]
        if not leaders:
            world.violate("no-leader", group)
        leader = max(leaders, key=lambda n: n.replica(group).term)
        deadline = world.now + 2.0
        operation = None
        while operation is None:
            if world.now > deadline:
                world.violate("not-writable", (group, leader.name))
            operation = self.write(leader, group)
            world.run(world.now + 0.01)
        world.run(deadline)
        if operation.acked_at is None:
            world.violate("write-not-acknowledged", (group, leader.name))
        history = leader.machines[group].image.history
        world.checkers[group].check_end(history)
        for member in leader.replica(group).status().configuration.members:
            node = world.nodes[member.node_id]
            if (group, int(member.replica_id)) in node.lost:
                continue
            if node.machines[group].image.history != history:
                world.violate(
                    "not-converged",
                    (group, node.name, len(node.machines[group].image.history), len(history)),
                )


def simulate(seed: int, options: Options, *, is_tracing: bool = False) -> World:
    """One run; raises `Violation` (with the world as `.world`) if an invariant breaks."""
    with mutated(() if options.has_pre_votes else NO_PRE_VOTES):
        return _simulate(seed, options, is_tracing=is_tracing)


def _simulate(seed: int, options: Options, *, is_tracing: bool) -> World:
    world = World(seed, options)
    world.is_tracing = is_tracing
    driver = Driver(world)
    world.after(1.0, driver.begin)
    try:
        world.run(options.duration_s)
        driver.heal()
        world.run(world.now + options.settle_s)
        driver.check_recovered()
    except Exception as error:
        error.world = world  # type: ignore[attr-defined]
        raise
    return world
