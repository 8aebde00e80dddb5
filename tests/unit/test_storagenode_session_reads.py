"""Eventual reads that must see a log position: they wait, ask for it, and go elsewhere when it stays away."""

import msgspec
import pytest

from proto.messages import Behind, Get, Page, Query, Refused, Unavailable, Value, Written
from raft.group import LogIndex, Role, Term
from storagenode.replicas import reading
from storagenode.replicas.replica import Capture
from tests.unit.storagenode_harness import ABSENT, MEMBERS, World, delete, get, put


@pytest.fixture
def follower():
    """A replica that follows, with an entry of its leader's that it has not heard to be committed."""
    world = World().lead()
    world.written(put("b", n={"N": "1"}))
    leader = World().lead()
    leader.written(put("b", n={"N": "1"}))
    leader.write(put("b", n={"N": "2"}))
    leader.environment.turn()
    world.payload = leader.group.proposals[0][0]
    world.group.follow()
    return world


def commit(world):
    """The follower hears that the entry is committed."""
    world.group.index += 1
    world.group.give(world.group.index, world.group.term, world.payload)
    world.round.flush()


def value_of(answer):
    return msgspec.json.decode(b"[" + answer.items + b"]")[0]["n"]["N"]


@pytest.mark.parametrize("make", [Get, Query])
def test_a_read_waits_for_what_it_must_see(follower, make):
    here = follower.group.index
    if make is Get:
        request = Get(5, 7, b"b", False, after=here + 1)
        follower.replica.on_get(follower.link, request)
    else:
        request = Query(5, 7, b"a", b"z", False, after=here + 1)
        follower.replica.on_query(follower.link, request)
    assert follower.link.take() == []
    follower.environment.turn()
    assert follower.group.asked == [here + 1]
    commit(follower)
    (answer,) = follower.link.take()
    assert answer.position == here + 1
    if isinstance(answer, Page):
        assert value_of(answer) == "2"
    else:
        assert isinstance(answer, Value)
        assert b'"2"' in answer.value


def test_what_is_applied_is_answered_at_once(follower):
    follower.replica.on_get(follower.link, Get(5, 7, b"b", False, after=follower.group.index))
    (answer,) = follower.link.take()
    assert answer.position == follower.group.index
    assert not follower.group.asked


def test_the_leader_is_asked_once_for_all_that_wait_and_again_for_those_who_come_later(follower):
    here = follower.group.index
    for number, after in enumerate((here + 1, here + 3, here + 2)):
        follower.replica.on_get(follower.link, Get(number, 7, b"b", False, after=after))
    follower.environment.turn()
    assert follower.group.asked == [here + 3]
    follower.replica.on_get(follower.link, Get(3, 7, b"b", False, after=here + 4))
    follower.environment.turn()
    assert follower.group.asked == [here + 3]  # it has not answered yet
    commit(follower)
    follower.environment.turn()
    assert follower.group.asked == [here + 3, here + 4]
    assert [answer.id for answer in follower.link.take()] == [0]


def test_a_read_that_waits_too_long_is_sent_elsewhere(follower):
    here = follower.group.index
    follower.replica.on_get(follower.link, Get(5, 7, b"b", False, after=here + 1))
    follower.environment.advance(reading.BEHIND_WAIT_S / 2)
    follower.replica.on_get(follower.link, Get(6, 7, b"b", False, after=here + 1))
    follower.environment.advance(reading.BEHIND_WAIT_S / 2)
    assert follower.link.take() == [Behind(5)]
    follower.environment.advance(reading.BEHIND_WAIT_S / 2)
    assert follower.link.take() == [Behind(6)]
    commit(follower)
    assert follower.link.take() == []


def test_too_many_reads_that_wait_are_sent_elsewhere_at_once(follower, monkeypatch):
    monkeypatch.setattr(reading, "BEHIND_MAX", 2)
    for number in range(3):
        request = Get(number, 7, b"b", False, after=follower.group.index + 1)
        follower.replica.on_get(follower.link, request)
    assert follower.link.take() == [Behind(2)]


@pytest.mark.parametrize("end", ["stop", "fail", "begin_install"])
def test_reads_that_wait_where_service_ends_are_refused(follower, end):
    request = Get(5, 7, b"b", False, after=follower.group.index + 1)
    follower.replica.on_get(follower.link, request)
    if end == "fail":
        follower.replica.fail("damage")
    else:
        getattr(follower.replica, end)()
    (answer,) = follower.link.take()
    assert isinstance(answer, Unavailable)


def test_reads_go_on_waiting_when_leaders_change(follower):
    here = follower.group.index
    follower.replica.on_get(follower.link, Get(5, 7, b"b", False, after=here + 1))
    follower.replica.role_changed(Role.CANDIDATE, Term(9), None)
    follower.replica.role_changed(Role.FOLLOWER, Term(9), MEMBERS.members[2])
    assert follower.link.take() == []
    commit(follower)
    assert [answer.id for answer in follower.link.take()] == [5]


def test_answers_say_where_in_the_log_they_stand():
    world = World().lead()
    written = world.written(put("b"), request_id=b"r" * 16)
    assert isinstance(written, Written)
    assert written.position == world.group.index
    # A write that changes nothing, and a refused one, are reads.
    unchanged = world.written(delete("c"))
    assert isinstance(unchanged, Written)
    assert unchanged.position == world.group.index
    refused = world.written(put("b", condition=ABSENT))
    assert isinstance(refused, Refused)
    assert refused.position == world.group.index
    # Done before.
    world.written(put("d"))
    number = world.write(put("b"), request_id=b"r" * 16)
    assert world.link.take() == [Written(number, written.results, world.group.index)]
    get(world, "b")
    (value,) = world.link.take()
    assert value.position == world.group.index


def test_reads_that_lag_on_purpose():
    world = World(lag_s=1.0).lead()
    world.written(put("b", n={"N": "1"}))

    def glance():
        get(world, "b", strong=False)
        (answer,) = world.link.take()
        assert answer.position == 0
        return None if answer.value is None else answer.value.partition(b'"N":"')[2][:1]

    assert glance() == b"1"  # nothing older is known yet
    for _ in range(10):
        world.environment.advance(0.125)
    world.written(put("b", n={"N": "2"}))
    assert glance() == b"1"
    get(world, "b", strong=True)
    (strong,) = world.link.take()
    assert b'"2"' in strong.value
    for _ in range(7):
        world.environment.advance(0.125)
    assert glance() == b"1"
    for _ in range(3):
        world.environment.advance(0.125)
    assert glance() == b"2"
    # It does not wait for anything.
    world.replica.on_get(world.link, Get(99, 7, b"b", False, after=10_000))
    assert [answer.id for answer in world.link.take()] == [99]


def test_views_from_before_a_new_state_are_not_read():
    world = World(lag_s=1.0).lead()
    for _ in range(10):
        world.environment.advance(0.125)
    world.replica.begin_install()
    world.engine.write([(b"db", world.engine.get(b"db") or record("9"))])
    capture = world.replica.capture()
    world.replica.stand_on(Capture(LogIndex(20), Term(2), MEMBERS, capture.state))
    while not world.replica.catch_up():
        pass
    world.replica.on_get(world.link, Get(99, 7, b"b", False))
    (answer,) = world.link.take()
    assert answer.value is not None


def record(number):
    world = World().lead()
    world.written(put("b", n={"N": number}))
    return world.engine.get(b"db")
