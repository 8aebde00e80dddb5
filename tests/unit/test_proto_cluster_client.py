"""The cluster client against scripted nodes, on a clock that the test moves."""

import asyncio
from collections.abc import Callable

import pytest

from proto import cluster_client
from proto.cluster_client import ClusterClient
from proto.messages import (
    Answer,
    Catalog,
    Discover,
    Get,
    Message,
    NotLeader,
    OutcomeUnknown,
    ReadFeed,
    Refused,
    Unavailable,
    Value,
    Write,
    Written,
    WrongPartition,
)
from tests.unit.cluster_client_harness import (
    GROUP,
    REPLICAS,
    World,
    asked,
    client_of,
    get,
    node_id_of,
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


def test_an_answer_reaches_its_caller_and_teaches_the_leader(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    assert isinstance(message, Get)
    node.say(Value(message.id, b"v"))
    assert answers == [Value(message.id, b"v")]
    assert client.in_flight == 0
    for _ in range(5):
        get(client, answers)
        assert asked(world)[0] is node


def test_a_hint_is_followed_at_once(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    assert isinstance(message, Get)
    target = next(replica for replica in REPLICAS if world.dialers[replica.address] is not node)
    node.say(NotLeader(message.id, target.node_id))
    second, again = asked(world)
    assert second is world.dialers[target.address]
    assert isinstance(again, Get)
    assert again.id != message.id
    second.say(Value(again.id, None))
    assert answers == [Value(again.id, None)]


def test_without_a_hint_it_backs_off_and_asks_another(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    assert isinstance(message, Get)
    node.say(NotLeader(message.id, None))
    assert not any(other.take() for other in nodes(world))
    world.run(0.1)
    other, _ = asked(world)
    assert other is not node


def test_the_first_that_finds_a_leader_calls_back_all_that_wait(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    for _ in range(3):
        write(client, answers)
    # An election is on: everybody is refused until some are far into their back-off.
    for _ in range(40):
        world.run(cluster_client.TICK_S)
        for node in nodes(world):
            for message in node.take():
                node.say(NotLeader(message.id, None))  # type: ignore[union-attr]
    write(client, answers)
    node, message = asked(world)
    assert isinstance(message, Write)
    node.say(Written(message.id, []))
    again = node.take()
    assert len(again) == 3
    for message in again:
        node.say(Written(message.id, []))  # type: ignore[union-attr]
    assert [type(answer) for answer in answers] == [Written] * 4
    assert client.in_flight == 0


def test_two_nodes_that_point_at_each_other_do_not_make_a_storm(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    get(client, answers, s=2.0)
    sent = 0
    for _ in range(200):
        for node, pointed in zip(nodes(world), ("n2", "n3", "n1"), strict=True):
            for message in node.take():
                assert isinstance(message, Get)
                sent += 1
                node.say(NotLeader(message.id, pointed))
        world.run(0.01)
    assert 5 < sent < 80
    world.run(0.5)
    assert isinstance(answers[0], Unavailable)
    assert len(answers) == 1


def test_a_lost_link_sends_a_write_again_under_the_same_request_id(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    request_id = write(client, answers)
    node, first = asked(world)
    node.down()
    other, second = asked(world)
    assert other is not node
    assert isinstance(first, Write)
    assert isinstance(second, Write)
    assert second.request_id == first.request_id == request_id
    assert second.timeout_ms > 0
    other.say(Written(second.id, []))
    assert answers == [Written(second.id, [])]


def test_a_silent_leader_is_left_and_comes_back_when_heard(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    write(client, answers)
    node, first = asked(world)
    world.run(1.2)
    other, second = asked(world)
    assert other is not node
    assert client.links()[node.address] is False
    assert isinstance(first, Write)
    assert isinstance(second, Write)
    # The stopped process wakes up and answers the first attempt after all: a success counts ...
    node.say(Written(first.id, []))
    assert answers == [Written(first.id, [])]
    assert client.links()[node.address] is True
    # ... and what the second says is nobody's business any more.
    other.say(Written(second.id, []))
    assert len(answers) == 1
    assert client.in_flight == 0


def test_a_leader_that_falls_silent_in_the_tick_of_its_last_answer_is_left_by_everybody(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    write(client, answers)
    node, first = asked(world)
    assert isinstance(first, Write)
    node.say(Written(first.id, []))
    write(client, answers)
    (second,) = node.take()
    assert isinstance(second, Write)
    write(client, answers)  # in the same tick as the answer to the one before
    node.take()
    node.say(Written(second.id, []))
    world.run(0.9)
    write(client, answers)  # not overdue by itself for a long time
    node.take()
    world.run(0.2)
    assert client.links()[node.address] is False
    # The others still believe in the old leader: nobody goes back to it.
    for _ in range(10):
        for other in nodes(world):
            for message in other.take():
                assert other is not node
                other.say(NotLeader(message.id, node_id_of(node)))  # type: ignore[union-attr]
        world.run(0.05)
    world.run(0.2)
    leader = next(other for other in nodes(world) if other is not node)
    for _ in range(10):
        for other in nodes(world):
            for message in other.take():
                if other is leader:
                    other.say(Written(message.id, []))  # type: ignore[union-attr]
                else:
                    other.say(NotLeader(message.id, None))  # type: ignore[union-attr]
        world.run(0.05)
    assert [type(answer) for answer in answers] == [Written] * 4


def test_a_refusal_of_an_abandoned_write_attempt_is_dropped(
    world: World, client: ClusterClient
) -> None:
    answers: list[Answer] = []
    write(client, answers)
    node, first = asked(world)
    world.run(1.2)
    other, second = asked(world)
    assert isinstance(first, Write)
    assert isinstance(second, Write)
    node.say(Refused(first.id, "ConditionalCheckFailedException", "The conditional request failed"))
    assert answers == []
    other.say(Written(second.id, []))
    assert answers == [Written(second.id, [])]


def test_a_link_that_stays_silent_is_closed(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers, s=10.0)
    node, _ = asked(world)
    link = node.link
    assert link is not None
    world.run(4.0)
    assert link.closed == "silent"


def test_our_own_standstill_blames_nobody(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    world.time += 3.0  # timers first, sockets later, as after a long pause of this process
    world.run(0.0)
    assert client.links()[node.address] is True
    assert isinstance(message, Get)
    node.say(Value(message.id, b"v"))
    assert answers == [Value(message.id, b"v")]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (None, OutcomeUnknown),  # sent, never answered
        (lambda i: OutcomeUnknown(i, "leadership lost"), OutcomeUnknown),
        (lambda i: NotLeader(i), Unavailable),  # certainly not executed
        (lambda i: Unavailable(i, "no lease"), Unavailable),
    ],
)
def test_how_a_write_ends_at_its_deadline(
    world: World,
    client: ClusterClient,
    reply: Callable[[int], Message] | None,
    expected: type[Answer],
) -> None:
    answers: list[Answer] = []
    write(client, answers, s=3.0)
    for _ in range(400):
        for node in nodes(world):
            for message in node.take():
                assert isinstance(message, Write)
                if reply is not None:
                    node.say(reply(message.id))
        world.run(0.01)
        if answers:
            break
    assert [type(answer) for answer in answers] == [expected]
    assert client.in_flight == 0
    assert world.time <= 103.1


def test_reads_end_as_unavailable(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers, s=0.3)
    world.run(0.4)
    assert [type(answer) for answer in answers] == [Unavailable]


def test_an_eventual_read_stays_in_its_zone_while_it_can(world: World) -> None:
    client = client_of(world, az="az2")
    client.start()
    client.update_groups({GROUP: REPLICAS})
    for replica in REPLICAS:
        world.dialers[replica.address].up()
    answers: list[Answer] = []
    for _ in range(3):
        get(client, answers, strong=False)
        assert asked(world)[0].address == "h2:1"
    world.dialers["h2:1"].down()
    resent = [m for node in nodes(world) if node.link for m in node.take()]
    assert len(resent) == 3
    get(client, answers, strong=False)
    assert asked(world)[0].address != "h2:1"


def test_eventual_reads_without_a_replica_in_the_zone_take_turns(
    world: World, client: ClusterClient
) -> None:
    seen = set()
    for _ in range(3):
        get(client, [], strong=False)
        seen.add(asked(world)[0].address)
    assert len(seen) == 3


def test_wrong_partition_is_the_callers_matter(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    assert isinstance(message, Get)
    node.say(WrongPartition(message.id, GROUP))
    assert answers == [WrongPartition(message.id, GROUP)]
    client.update_groups({}, removed=[GROUP])
    get(client, answers)
    assert isinstance(answers[1], WrongPartition)


def test_a_leader_that_has_the_partition_no_more_is_not_asked_again(
    world: World, client: ClusterClient
) -> None:
    """A new disk at the address of the old one: others name the replica on the latter as their leader for a while,
    and whoever went there must not stay.
    """
    answers: list[Answer] = []
    get(client, answers)
    other, message = asked(world)
    assert isinstance(message, Get)
    gone = next(replica for replica in REPLICAS if world.dialers[replica.address] is not other)
    other.say(NotLeader(message.id, gone.node_id))
    node, message = asked(world)
    assert node is world.dialers[gone.address]
    assert isinstance(message, Get)
    node.say(WrongPartition(message.id, GROUP))
    assert answers == [WrongPartition(message.id, GROUP)]
    turns = []
    for _ in range(3):  # in turn, until one of them leads or knows better
        get(client, answers)
        turns.append(asked(world)[0])
    assert len(set(turns)) == 3


def test_one_callers_exception_spares_the_others(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []

    def fail(_: Answer) -> None:
        raise RuntimeError("client has gone")

    client.call(Get(client.next_id(), GROUP, b"a", True), fail, client.now() + 5)
    node, first = asked(world)
    assert isinstance(first, Get)
    get(client, answers)
    (second,) = [m for n in nodes(world) for m in n.take()]
    assert isinstance(second, Get)
    node.say(Value(first.id, None), Value(second.id, b"v"))
    assert answers == [Value(second.id, b"v")]


def test_the_catalog_group_is_found_through_a_seed_and_requests_wait_for_it(world: World) -> None:
    client = client_of(world)
    client.start()
    answers: list[Answer] = []
    client.call(Get(client.next_id(), 0, b"k", True), answers.append, client.now() + 5)
    world.run(0.5)
    seed = world.dialers["seed:1"]
    link = seed.up()
    assert isinstance(link.sent[0], Discover)
    seed.say(Catalog(link.sent[0].id, "", []))  # not bootstrapped yet
    world.run(1.0)
    asks = [message for message in link.sent if isinstance(message, Discover)]
    assert 3 <= len(asks) <= 6
    seed.say(Catalog(asks[-1].id, "cluster", REPLICAS, "n2"))
    assert client.is_discovered
    assert client.cluster_id == "cluster"
    for replica in REPLICAS:
        assert world.dialers[replica.address].started
        world.dialers[replica.address].up()
    world.run(0.5)
    node, message = asked(world)
    assert isinstance(message, Get)
    node.say(Value(message.id, b"row"))
    assert answers == [Value(message.id, b"row")]


def test_an_older_word_on_the_catalog_changes_nothing(world: World) -> None:
    client = client_of(world)
    client.start()
    seed = world.dialers["seed:1"]
    seed.up()
    seed.say(Catalog(1, "cluster", REPLICAS, "n2", 50))
    seed.say(Catalog(2, "cluster", REPLICAS[:1], None, 49))  # from one that left the group
    assert client.replicas(0) == tuple(REPLICAS)
    seed.say(Catalog(3, "cluster", REPLICAS[1:], None, 51))
    assert client.replicas(0) == tuple(REPLICAS[1:])


def test_nodes_without_replicas_are_left(world: World, client: ClusterClient) -> None:
    client.update_groups({8: REPLICAS[:1]})
    client.update_groups({}, removed=[GROUP])
    assert not world.dialers["h1:1"].stopped
    assert world.dialers["h2:1"].stopped
    assert world.dialers["h3:1"].stopped
    assert not world.dialers["seed:1"].stopped


def test_too_many_requests_are_refused_at_once(
    world: World, client: ClusterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_client, "IN_FLIGHT_MAX", 2)
    answers: list[Answer] = []
    for _ in range(3):
        get(client, answers)
    assert [type(answer) for answer in answers] == [Unavailable]


def test_a_feed_read_is_given_its_waiting_time(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    request = ReadFeed(client.next_id(), GROUP, 0, 10, wait_ms=5000)
    client.call(request, answers.append, client.now() + 20, leader=False)
    asked(world)
    world.run(5.5)
    assert not any(node.take() for node in nodes(world))
    world.run(1.0)
    asked(world)


def test_the_wheel_stops_when_there_is_nothing_to_watch(
    world: World, client: ClusterClient
) -> None:
    client.update_groups({0: REPLICAS})
    client.cluster_id = "cluster"
    answers: list[Answer] = []
    get(client, answers)
    node, message = asked(world)
    assert isinstance(message, Get)
    node.say(Value(message.id, None))
    world.run(3.0)
    assert world.timers == 0
    get(client, answers)
    world.run(6.0)
    assert [type(answer) for answer in answers] == [Value, Unavailable]


def test_stop_answers_everything(world: World, client: ClusterClient) -> None:
    answers: list[Answer] = []
    get(client, answers)
    write(client, answers)
    client.stop()
    assert [type(answer) for answer in answers] == [Unavailable, OutcomeUnknown]
    assert all(dialer.stopped for dialer in world.dialers.values())


def test_the_awaitable_form(world: World, client: ClusterClient) -> None:
    async def ask() -> Answer:
        task = asyncio.ensure_future(client.request(Get(0, GROUP, b"k", True), 5.0))
        await asyncio.sleep(0)
        node, message = asked(world)
        assert isinstance(message, Get)
        node.say(Value(message.id, b"v"))
        return await task

    answer = asyncio.run(ask())
    assert isinstance(answer, Value)
    assert answer.value == b"v"


def test_request_ids_never_repeat(client: ClusterClient) -> None:
    ids = {client.next_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(i) == 16 and i.startswith(b"prefix00") for i in ids)
