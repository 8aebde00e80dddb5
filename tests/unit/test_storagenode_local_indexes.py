"""A replica of a table with local indexes: one log entry for item, entries and figures."""

import msgspec
import pytest

from datamodel.items import encode_item, item_size
from datamodel.key_encoding import (
    KeySchema,
    collection_range,
    encode_entry_key,
    encode_key,
    table_range,
)
from proto.messages import (
    DELETE,
    PUT,
    Action,
    LocalIndexRule,
    Page,
    Query,
    Refused,
    Stats,
    StatsReply,
    Written,
)
from storagenode.engines.engine import DATA
from storagenode.replicas.log_entries import (
    STATE_VERSION,
    ReplicaState,
    decode_entry,
    decode_state,
    encode_state,
)
from tests.unit.storagenode_harness import World

SCHEMA = KeySchema("pk", "S", "sk", "S")
RULES = [
    LocalIndexRule(1, "all", "n", "N", None),
    LocalIndexRule(2, "keys", "n", "N", ["pk", "sk", "n"]),
]


def table_world(**kwargs):
    start, end = table_range(300)
    kwargs.setdefault("state", ReplicaState(STATE_VERSION, 300, start, end, 1, False))
    return World(local_indexes=RULES, **kwargs)


@pytest.fixture
def world():
    return table_world().lead()


def item(sk, number=None, **attributes):
    whole = {"pk": {"S": "p"}, "sk": {"S": sk}, **attributes}
    return whole if number is None else {**whole, "n": {"N": str(number)}}


def put(whole):
    return Action(PUT, encode_key(300, SCHEMA, whole), encode_item(whole), item_size(whole))


def delete(sk):
    whole = item(sk)
    return Action(DELETE, encode_key(300, SCHEMA, whole), encode_item(whole))


def query(world, part, **members):
    start, end = collection_range(300, SCHEMA, {"S": "p"}, part=part)
    world.replica.on_query(world.link, Query(1, 7, start, end, True, **members))
    (page,) = world.link.take()
    assert isinstance(page, Page)
    return msgspec.json.decode(b"[%b]" % page.items)


def test_item_and_entries_come_with_one_log_entry(world):
    world.write(put(item("a", 2, v={"S": "x"})))
    world.write(put(item("b", 1)))
    world.environment.turn()
    world.group.synced()
    assert query(world, 0) == query(world, 1) == []
    world.group.commit()
    assert len(world.group.log) == 1
    assert [type(answer) for answer in world.link.take()] == [Written, Written]
    assert query(world, 0) == [item("a", 2, v={"S": "x"}), item("b", 1)]
    assert query(world, 1) == [item("b", 1), item("a", 2, v={"S": "x"})]
    assert query(world, 2) == [item("b", 1), item("a", 2)]
    assert query(world, 2, fetch=True, reverse=True) == [
        item("a", 2, v={"S": "x"}),
        item("b", 1),
    ]


def test_later_writes_see_the_collection_as_earlier_ones_leave_it(world):
    for number in range(3):
        world.write(put(item("a", number)))
        world.write(put(item(f"{number}")))
        world.environment.turn()  # the first goes out, the others wait for it
    while world.replica.queued_writes or world.replica.proposed_entries:
        world.group.commit()
        world.environment.turn()
    answers = world.link.take()
    sizes = [answer.results[0].collection_size for answer in answers]
    small, large = item_size(item("0")), 3 * item_size(item("a", 1))
    zero = large - 3 * (item_size(item("a", 1)) - item_size(item("a", 0)))
    assert sizes == [
        zero,
        zero + small,
        large + small,
        large + 2 * small,
        sizes[4],
        sizes[4] + small,
    ]
    assert [entry["n"]["N"] for entry in query(world, 2)] == ["2"]


def test_figures_are_in_entries_states_and_answers(world):
    world.written(put(item("a", 1)))
    world.written(put(item("b", 2)))
    world.written(put(item("c")))
    world.written(delete("b"))
    size = item_size(item("a", 1))
    figures = [1, size, 1, size]
    assert decode_entry(world.group.log[-1][2]).index_figures == figures
    world.replica.on_stats(world.link, Stats(9, 7))
    assert world.link.take() == [StatsReply(9, 2, size + item_size(item("c")), figures)]
    # A replica that begins where this one stands counts on.
    capture = world.replica.capture()
    state = decode_state(encode_state(capture.state))
    assert state.index_figures == figures
    other = table_world(
        engine=world.engine, state=state, index=capture.index, term=capture.term
    ).lead()
    other.written(put(item("d", 3)), request_id=b"d" * 16)
    assert other.replica.index_figures == [2, 2 * size, 2, 2 * size]
    assert [entry["n"]["N"] for entry in query(other, 2)] == ["1", "3"]


def test_replaying_the_log_changes_nothing(world):
    world.written(put(item("a", 1)))
    world.written(put(item("a", 2)))
    before = dict(world.engine.iterate(b"", b"\xff"))
    other = table_world(engine=world.engine)
    for index, term, payload in world.group.log:
        other.replica.apply(index, term, payload)
    other.round.flush()
    assert dict(world.engine.iterate(b"", b"\xff")) == before
    assert other.replica.index_figures == world.replica.index_figures


def test_lost_leadership_leaves_no_trace(world):
    world.written(put(item("a", 1)))
    world.write(put(item("a", 2)))
    world.environment.turn()
    world.group.follow()
    world.lead()
    world.link.take()
    assert [entry["n"]["N"] for entry in query(world, 1)] == ["1"]
    answer = world.written(put(item("b", 5)))
    assert answer.results[0].collection_size == 6 * item_size(item("a", 1))
    assert world.replica.index_figures[0] == 2


def test_the_limit_of_item_collections_is_the_nodes():
    world = table_world(collection_size_max=40).lead()
    world.written(put(item("a", 1)))
    world.write(put(item("b", 1)))
    world.environment.turn()
    (answer,) = world.link.take()
    assert isinstance(answer, Refused)
    assert answer.code == "ItemCollectionSizeLimitExceededException"
    assert query(world, 0) == query(world, 1) == [item("a", 1)]


def test_damage_of_a_collections_size_is_noticed(world):
    world.written(put(item("a", 1)))
    key = encode_entry_key(encode_key(300, SCHEMA, item("a")), 1, {"N": "1"})
    (at,) = [k for k, _ in world.engine.iterate(DATA + key, DATA + b"\xff") if b"\x00\x7f" in k]
    world.engine.write([(at, world.engine.get(at)[:-1] + b"?")])
    world.write(put(item("b", 1)))
    world.environment.turn()
    assert world.replica.standing.fault is not None
