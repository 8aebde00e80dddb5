"""Changes of a group's members: compare and set, and what is refused."""

import asyncio

import pytest

from raft.group import Configuration, Member, NodeId, Outcome, ReplicaId
from storagenode.replicas.member_changes import Impossible, NotNow, change_members
from tests.unit.storagenode_harness import MEMBERS, World

LEARNER = Member(ReplicaId(1000), NodeId("node-4"), is_learner=True)
WITH_LEARNER = Configuration((*MEMBERS.members, LEARNER))
PROMOTED = Configuration((*MEMBERS.members, Member(ReplicaId(1000), NodeId("node-4"))))


def change(world, expected, proposed, settle=True):
    async def run():
        task = asyncio.create_task(change_members(world.replica, expected, proposed))
        await asyncio.sleep(0)
        if world.group.changes and settle:
            world.group.apply_change()
        await task

    asyncio.run(run())


def test_members_are_changed_once_however_often_it_is_asked():
    world = World().lead()
    change(world, MEMBERS, WITH_LEARNER)
    assert world.replica.configuration == WITH_LEARNER
    before = world.group.index
    change(world, MEMBERS, WITH_LEARNER)  # its answer was lost: asked again
    assert world.group.index == before


def test_who_knows_other_members_is_refused():
    world = World().lead()
    change(world, MEMBERS, WITH_LEARNER)
    fewer = Configuration(MEMBERS.members[:2])
    with pytest.raises(Impossible, match="1000@node-4"):
        change(world, MEMBERS, fewer)


@pytest.mark.parametrize(("match", "ok"), [(0, False), (5, False), (11, True)])
def test_a_learner_without_its_snapshot_never_counts_however_short_the_log(match, ok):
    world = World().lead()
    change(world, MEMBERS, WITH_LEARNER)
    world.group.match_index = {ReplicaId(1000): match}
    if ok:
        change(world, WITH_LEARNER, PROMOTED)
        assert world.replica.configuration == PROMOTED
    else:
        with pytest.raises(NotNow, match="stands at"):
            change(world, WITH_LEARNER, PROMOTED)


def test_a_learner_that_lags_never_counts():
    world = World().lead()
    change(world, MEMBERS, WITH_LEARNER)
    world.group.index += 5_000
    world.group.match_index = {ReplicaId(1000): 2_000}
    with pytest.raises(NotNow):
        change(world, WITH_LEARNER, PROMOTED)


@pytest.mark.parametrize(
    "proposed",
    [
        Configuration(MEMBERS.members[1:]),  # the leader itself
        Configuration(
            (*MEMBERS.members, Member(ReplicaId(9), NodeId("node-9")))
        ),  # never a learner
        Configuration((*MEMBERS.members, Member(ReplicaId(9), NodeId("node-2")))),  # two on a node
        Configuration(()),
    ],
)
def test_what_must_not_be(proposed):
    world = World().lead()
    world.group.match_index = {ReplicaId(9): 11}
    with pytest.raises(Impossible):
        change(world, MEMBERS, proposed)
    assert world.replica.configuration == MEMBERS


def test_followers_and_busy_leaders_say_later():
    with pytest.raises(NotNow):
        change(World(), MEMBERS, WITH_LEARNER)
    world = World().lead()
    world.group.changes.append((WITH_LEARNER, lambda outcome, index: None))
    with pytest.raises(NotNow):
        change(world, MEMBERS, WITH_LEARNER, settle=False)


def test_an_unknown_outcome_is_no_success():
    world = World().lead()

    async def run():
        task = asyncio.create_task(change_members(world.replica, MEMBERS, WITH_LEARNER))
        await asyncio.sleep(0)
        world.group.changes.pop()[1](Outcome.UNKNOWN, 0)
        await task

    with pytest.raises(NotNow, match="unknown"):
        asyncio.run(run())
