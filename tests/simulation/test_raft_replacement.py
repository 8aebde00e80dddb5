"""A replica is replaced while any node may crash at any moment of it: the change ends, and nothing is lost."""

from collections.abc import Callable

import pytest

from raft.group import Configuration, Member, NodeId, ReplicaId
from raft.membership import member_of
from tests.simulation.node import SimNode
from tests.simulation.options import Options
from tests.simulation.workloads import Driver
from tests.simulation.world import World

GROUP = 1
LEAVES, JOINS, NEW_ID = "C", "E", ReplicaId(4)
QUIET = Options(
    pool=5, blocks=0.0, isolations=0.0, resets=0.0, crashes=0.0, transfers=0.0, reads=0.0
)
PASS_S = 0.05


class Replacement:
    """What an administrator does who looks again and again at what is there, and takes the next step."""

    def __init__(self, world: World, driver: Driver) -> None:
        self._world = world
        self._driver = driver
        self.is_done = False
        world.after(1.5, self._pass)

    def _pass(self) -> None:
        leader = self._driver.settled(GROUP)
        old = self._world.nodes[LEAVES]
        if leader is not None:
            self._advance(leader)
        elif old.leads(GROUP):
            # Asked to hand over it has no lease any more; whom it asked may not have known yet that it votes.
            old.step(old.replica(GROUP).transfer_leadership)
        if not self.is_done:
            self._world.after(PASS_S, self._pass)

    def _advance(self, leader: SimNode) -> None:
        replica = leader.replica(GROUP)
        current = replica.status().configuration
        new, old = member_of(current, NEW_ID), member_of(current, ReplicaId(3))
        node = self._world.nodes[JOINS]
        if new is None:
            if node.host is not None:
                self._add(leader, node, current)
        elif new.is_learner:
            if replica.status().match_index.get(NEW_ID, 0) >= replica.status().commit_index:
                voter = Member(NEW_ID, new.node_id)
                self._propose(leader, *(voter if m == new else m for m in current.members))
        elif old is not None:
            if leader.name == LEAVES:
                leader.step(replica.transfer_leadership)
            else:
                self._propose(leader, *(m for m in current.members if m != old))
        else:
            self._remove()

    def _add(self, leader: SimNode, node: SimNode, current: Configuration) -> None:
        """A blank replica, durable before anybody hears of it."""
        life = leader.life

        def propose() -> None:
            if leader.life == life and leader.leads(GROUP):
                new = Member(NEW_ID, NodeId(JOINS), is_learner=True)
                if member_of(leader.replica(GROUP).status().configuration, NEW_ID) is None:
                    self._propose(leader, *current.members, new)

        def prepare() -> None:
            if node.replica(GROUP) is None:
                node.join(GROUP, NEW_ID)
            node.host.when_durable(propose)

        node.step(prepare)

    @staticmethod
    def _propose(leader: SimNode, *members: Member) -> None:
        replica, proposed = leader.replica(GROUP), Configuration(tuple(members))
        leader.step(lambda: replica.change_configuration(proposed, lambda *_: None))

    def _remove(self) -> None:
        node = self._world.nodes[LEAVES]
        if node.host is None:
            return
        if node.replica(GROUP) is not None:
            node.step(lambda: node.host.remove_group(GROUP))
        self.is_done = True


def replace(seed: int, crash: Callable[[World, int], None]) -> int:
    """One run; how many steps the nodes took from the beginning of the change to its end."""
    world = World(seed, QUIET)
    driver = Driver(world)
    world.after(1.0, driver.begin)
    change = Replacement(world, driver)
    world.run(1.5)
    steps = 0
    take = SimNode.step

    def counted(node: SimNode, function: Callable[[], None], *, is_timer: bool = False) -> None:
        nonlocal steps
        take(node, function, is_timer=is_timer)
        if not change.is_done:
            steps += 1
            crash(world, steps)

    SimNode.step = counted
    try:
        while not change.is_done:
            assert world.now < 12, "the change does not end"
            world.run(world.now + 0.1)
    finally:
        SimNode.step = take
    driver.heal()
    world.run(world.now + 3)
    driver.check_recovered()
    leader = driver.settled(GROUP)
    assert leader is not None
    members = leader.replica(GROUP).status().configuration.members
    assert {(m.node_id, m.is_learner) for m in members} == {
        ("A", False),
        ("B", False),
        (JOINS, False),
    }
    return steps


@pytest.mark.parametrize("victim", ["A", "B", LEAVES, JOINS])
def test_a_crash_at_any_step_of_a_replacement(victim):
    length = replace(1, lambda world, step: None)
    assert length > 100
    for at in range(1, length, 3):

        def crash(world: World, step: int, at: int = at) -> None:
            if step == at:
                world.nodes[victim].crash()
                world.after(0.2, world.nodes[victim].restart)

        replace(1, crash)


@pytest.mark.parametrize("lost", ["A", "B"])
def test_a_crash_of_all_at_any_step_of_a_replacement(lost):
    """Power fails: everybody forgets what was not durable, and one is back much later than the others."""
    length = replace(2, lambda world, step: None)
    for at in range(1, length, 4):

        def crash(world: World, step: int, at: int = at) -> None:
            if step == at:
                for name, node in world.nodes.items():
                    node.crash()
                    world.after(1.5 if name == lost else 0.1, node.restart)

        replace(2, crash)
