"""Eventual reads through one cluster client see what it was told before."""

from collections.abc import Callable

import pytest

from proto import cluster_client
from proto.cluster_client import ClusterClient
from proto.messages import (
    Answer,
    Behind,
    Get,
    NotLeader,
    Refused,
    Value,
    Write,
    Written,
)
from tests.unit.cluster_client_harness import (
    GROUP,
    REPLICAS,
    FakeDialer,
    World,
    asked,
    client_of,
    get,
    nodes,
    started_client,
    write,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def client(world: World) -> ClusterClient:
    return started_client(world)


def seen(world: World, client: ClusterClient, position: int) -> None:
    """A write is acknowledged at this position of the log."""
    write(client, [])
    node, message = asked(world)
    assert isinstance(message, Write)
    node.say(Written(message.id, [], position))


def glance(world: World, client: ClusterClient, answers: list[Answer]) -> tuple[FakeDialer, Get]:
    get(client, answers, strong=False)
    node, message = asked(world)
    assert isinstance(message, Get)
    return node, message


@pytest.mark.parametrize(
    "make",
    [
        lambda number, position: Written(number, [], position),
        lambda number, position: Value(number, None, position),
        lambda number, position: Refused(number, "X", "x", [], position),
    ],
)
def test_an_eventual_read_asks_for_all_that_answers_spoke_of(
    world: World, client: ClusterClient, make: Callable[[int, int], Answer]
) -> None:
    answers: list[Answer] = []
    for position, expected in ((30, 30), (20, 30), (40, 40)):
        write(client, answers)
        node, message = asked(world)
        node.say(make(message.id, position))  # type: ignore[union-attr]
        node, message = glance(world, client, answers)
        assert message.after == expected
        node.say(Value(message.id, b"v", expected))


def test_a_position_outlives_a_new_map_and_is_of_one_group(
    world: World, client: ClusterClient
) -> None:
    seen(world, client, 30)
    client.update_groups({GROUP: REPLICAS[::-1], 8: REPLICAS})
    _, message = glance(world, client, [])
    assert message.after == 30
    client.call(Get(client.next_id(), 8, b"k", False), lambda _: None, client.now() + 5, False)
    _, other = asked(world)
    assert isinstance(other, Get)
    assert other.after == 0


def test_a_read_goes_from_a_replica_that_is_behind_to_the_leader(world: World) -> None:
    client = client_of(world, az="az2")
    client.start()
    client.update_groups({GROUP: REPLICAS})
    for replica in REPLICAS:
        world.dialers[replica.address].up()
    near = world.dialers["h2:1"]
    write(client, [])
    node, message = asked(world)
    assert isinstance(message, Write)
    if node is near:  # teach it another leader
        node.say(NotLeader(message.id, "n1"))
        node, message = asked(world)
        assert isinstance(message, Write)
    leader = node
    leader.say(Written(message.id, [], 30))
    answers: list[Answer] = []
    node, read = glance(world, client, answers)
    assert node is near
    node.say(Behind(read.id))
    node, again = asked(world)
    assert node is leader
    assert isinstance(again, Get)
    assert again.after == 30
    node.say(Value(again.id, b"v", 30))
    assert answers == [Value(again.id, b"v", 30)]
    # For a while others are asked first.
    assert glance(world, client, answers)[0] is not near
    world.run(cluster_client.LAGGING_S)
    assert glance(world, client, answers)[0] is near
    assert client.waived_reads == 0


def test_a_read_that_no_replica_can_serve_as_new_gets_what_there_is(
    world: World, client: ClusterClient
) -> None:
    seen(world, client, 30)
    answers: list[Answer] = []
    begun = world.now()
    get(client, answers, strong=False)
    while True:
        world.run(0.01)
        for node in nodes(world):
            for message in node.take():
                assert isinstance(message, Get)
                if message.after == 0:
                    node.say(Value(message.id, b"old", 25))
                else:
                    node.say(Behind(message.id))
        if answers:
            break
    (answer,) = answers
    assert isinstance(answer, Value)
    assert answer.value == b"old"
    assert cluster_client.SESSION_WAIT_S < world.now() - begun < cluster_client.SESSION_WAIT_S + 0.5
    assert client.waived_reads == 1
    # From here on that is what must be seen.
    world.run(1.0)
    assert glance(world, client, answers)[1].after == 25
