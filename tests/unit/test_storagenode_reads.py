"""What a replica answers to gets, queries and feed readers, and what it does about damage."""

import msgspec
import pytest

from proto.messages import (
    FeedPage,
    Page,
    Query,
    ReadFeed,
    Refused,
    Unavailable,
    Value,
    Written,
    WrongPartition,
)
from raft.group import Role
from storagenode.engines.engine import DATA, feed_key
from tests.unit.storagenode_harness import (
    FakeLink,
    World,
    body,
    delete,
    get,
    item,
    put,
)


@pytest.fixture
def world():
    return World().lead()


# --- ranges ---


@pytest.mark.parametrize("key", ["A", "zz", "z"])
def test_keys_outside_the_partition(world, key):
    number = world.write(put("b"), put(key))
    assert world.link.take() == [WrongPartition(number, 7)]
    number = get(world, key)
    assert world.link.take() == [WrongPartition(number, 7)]


def query(world, start, end, **kwargs):
    number = world.next_id()
    kwargs.setdefault("strong", True)
    world.replica.on_query(world.link, Query(number, 7, start, end, **kwargs))
    world.environment.turn()
    (answer,) = world.link.take()
    return answer


@pytest.fixture
def filled(world):
    for number, key in enumerate("bcdefg"):
        world.written(put(key, n={"N": str(number)}, size=100))
    return world


@pytest.mark.parametrize(
    ("kwargs", "keys", "last", "scanned"),
    [
        ({}, "bcdefg", None, 6),
        ({"reverse": True}, "gfedcb", None, 6),
        ({"limit": 2}, "bc", "c", 2),
        ({"limit": 6}, "bcdefg", "g", 6),
        ({"limit": 7}, "bcdefg", None, 6),
        ({"limit": 2, "reverse": True}, "gf", "f", 2),
        ({"size_limit": 250}, "bcd", "d", 3),
        ({"size_limit": 200}, "bc", "c", 2),
        ({"filter": "n > :v", "values": body({":v": {"N": "3"}})}, "fg", None, 6),
        ({"filter": "n > :v", "values": body({":v": {"N": "3"}}), "limit": 4}, "", "e", 4),
    ],
)
def test_pages(filled, kwargs, keys, last, scanned):
    page = query(filled, b"a", b"z", **kwargs)
    assert isinstance(page, Page)
    items = msgspec.json.decode(b"[" + page.items + b"]")
    assert "".join(i["pk"]["S"] for i in items) == keys
    assert (page.count, page.scanned, page.size) == (len(keys), scanned, scanned * 100)
    assert (None if page.last is None else msgspec.json.decode(page.last)["pk"]["S"]) == last


def test_a_page_can_project_or_only_count(filled):
    page = query(filled, b"b", b"d", projection="#n", names={"#n": "n"})
    assert msgspec.json.decode(b"[" + page.items + b"]") == [{"n": {"N": "0"}}, {"n": {"N": "1"}}]
    page = query(filled, b"b", b"d", count_only=True)
    assert (page.items, page.count) == (b"", 2)


@pytest.mark.parametrize(
    ("start", "end", "reverse", "outcome"),
    [
        (b"A", b"c", False, WrongPartition),  # begins before
        (b"z", b"zz", False, WrongPartition),  # begins behind
        (b"y", b"zz", False, WrongPartition),  # goes on in the next partition
        (b"y", b"z", False, Page),
        (b"A", b"c", True, WrongPartition),
        (b"a", b"c", True, Page),
        (b"y", b"zz", True, WrongPartition),
        (b"A", b"a", True, WrongPartition),
    ],
)
def test_a_query_must_lie_in_the_partition(filled, start, end, reverse, outcome):
    assert isinstance(query(filled, start, end, reverse=reverse), outcome)


def test_a_query_with_a_bad_filter_is_refused(filled):
    page = query(filled, b"a", b"z", filter="size(", values=body({}))
    assert isinstance(page, Refused)
    assert page.code == "ValidationException"


def test_a_long_page_lets_others_in_between(world):
    for first in range(0, 1200, 100):
        for number in range(first, first + 100):
            world.write(put(f"k{number:05}"))
        world.environment.turn()
        world.group.commit()
    world.environment.turn()
    world.link.take()
    world.replica.on_query(world.link, Query(1, 7, b"a", b"z", True))
    assert world.link.take() == []
    get(world, "k00001")
    assert isinstance(world.link.take()[0], Value)
    world.environment.turn()
    (page,) = world.link.take()
    assert page.scanned == 1200


# --- damage ---


def test_a_damaged_record_takes_the_replica_out_of_service(world):
    world.written(put("b"))
    record = bytearray(world.engine.get(DATA + b"b"))
    record[-1] ^= 1
    world.engine.write([(DATA + b"b", bytes(record))])
    number = get(world, "b")
    assert world.link.take() == [Unavailable(number, "replica out of service")]
    assert world.replica.role is Role.FAILED
    assert world.group.transfers == 1
    number = world.write(put("c"))
    assert world.link.take() == [Unavailable(number, "replica out of service")]


def test_a_damaged_record_met_by_a_write(world):
    world.written(put("b"))
    world.engine.write([(DATA + b"b", b"damaged")])
    for key in "cbd":
        world.write(put(key))
    world.environment.turn()
    assert [type(answer) for answer in world.link.take()] == [Unavailable, Unavailable]
    world.group.commit()  # what was evaluated before is sound
    assert [type(answer) for answer in world.link.take()] == [Written]


# --- feed ---


def test_the_feed_has_what_changed_in_order():
    world = World(feed=True).lead()
    world.written(put("b", n={"N": "1"}))
    world.written(put("c"), put("d"))
    world.written(put("b", n={"N": "1"}))  # changes nothing
    world.written(delete("c"))
    world.replica.on_feed(world.link, ReadFeed(1, 7, 0, 100, 0))
    (page,) = world.link.take()
    assert [(r.position, r.key) for r in page.records] == [
        (1, b"b"),
        (2, b"c"),
        (3, b"d"),
        (4, b"c"),
    ]
    assert (page.records[0].old, page.records[3].new) == (None, None)
    assert msgspec.json.decode(page.records[3].old) == item("c")
    assert (page.position, page.trimmed) == (4, False)
    world.replica.on_feed(world.link, ReadFeed(1, 7, 1, 2, 0))
    assert world.link.take()[0].position == 3


def test_a_reader_at_the_end_of_the_feed_waits_for_more():
    world = World(feed=True).lead()
    waiting = FakeLink()
    world.replica.on_feed(waiting, ReadFeed(5, 7, 0, 10, 1000))
    assert waiting.take() == []
    world.written(put("b"))
    (page,) = waiting.take()
    assert [record.position for record in page.records] == [1]
    world.replica.on_feed(waiting, ReadFeed(6, 7, 1, 10, 1000))
    world.environment.advance(1.5)
    assert waiting.take() == [FeedPage(6, [], 1)]


def test_a_reader_of_what_is_trimmed_is_told(monkeypatch):
    monkeypatch.setattr("storagenode.replicas.replica.RECORDS_KEPT", 3)
    monkeypatch.setattr("storagenode.replicas.change_feed.RECORDS_KEPT", 3)
    world = World(feed=True).lead()
    for key in "bcdef":
        world.written(put(key))
    world.replica.on_feed(world.link, ReadFeed(1, 7, 1, 10, 1000))
    assert world.link.take() == [FeedPage(1, [], 5, trimmed=True)]
    world.replica.on_feed(world.link, ReadFeed(2, 7, 2, 10, 1000))
    assert [record.position for record in world.link.take()[0].records] == [3, 4, 5]
    world.replica.on_feed(world.link, ReadFeed(3, 7, -1, 10, 1000))
    assert world.link.take() == [FeedPage(3, [], 5, trimmed=True)]


def test_a_reads_failure_of_our_own_making_is_its_own(filled, monkeypatch):
    def broken(scan, items_max=0):
        raise RuntimeError("bug")

    filled.group.lease = False
    number = filled.next_id()
    filled.replica.on_query(filled.link, Query(number, 7, b"a", b"z", True))
    get(filled, "b")
    filled.environment.turn()
    monkeypatch.setattr("storagenode.replicas.query_pages.PageScan.step", broken)
    filled.group.pass_barriers()
    failed, value = filled.link.take()
    assert failed == Unavailable(number, "internal error")
    assert isinstance(value, Value)
    assert filled.replica.standing.serves


def test_a_costly_page_takes_smaller_steps(filled, monkeypatch):
    asked = []

    def slow(scan, items_max):
        asked.append(items_max)
        filled.environment.time += 0.00004 * items_max  # 16 ms the first time
        return len(asked) == 5

    monkeypatch.setattr("storagenode.replicas.query_pages.PageScan.step", slow)
    filled.replica.on_query(filled.link, Query(1, 7, b"a", b"z", True))
    while len(asked) < 5:
        filled.environment.turn()
    assert asked[0] == 400
    assert all(50 <= count <= 100 for count in asked[1:])
    assert isinstance(filled.link.take()[0], Page)


def test_pages_in_the_making_have_a_bound(filled, monkeypatch):
    monkeypatch.setattr("storagenode.replicas.scans.PAGES_MAX", 2)
    monkeypatch.setattr(
        "storagenode.replicas.query_pages.PageScan.step", lambda scan, items_max: False
    )
    for number in range(3):
        filled.replica.on_query(filled.link, Query(number, 7, b"a", b"z", True))
    assert filled.link.take() == [Unavailable(2, "too many pages in the making")]


def test_a_damaged_feed_record_takes_the_replica_out_of_service():
    world = World(feed=True).lead()
    world.written(put("b"))
    world.engine.write([(feed_key(7, 1), b"damaged")])
    world.replica.on_feed(world.link, ReadFeed(5, 7, 0, 10, 0))
    assert world.link.take() == [Unavailable(5, "replica out of service")]
