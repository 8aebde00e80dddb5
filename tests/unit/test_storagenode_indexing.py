"""Indexes under writes: entries, units, figures and sizes of collections, against a model that knows no bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.items import decode_item, encode_item, item_size
from datamodel.key_encoding import (
    KeySchema,
    collection_size_key,
    encode_entry_key,
    encode_key,
    part_of,
)
from proto.messages import CHECK, DELETE, PUT, UPDATE, Action, LocalIndexRule
from storagenode.replicas.evaluation import Effect, Refusal, evaluate
from storagenode.replicas.indexing import Indexing, added

SCHEMA = KeySchema("pk", "S", "sk", "S")
RULES = [
    LocalIndexRule(1, "all", "n", "N", None),
    LocalIndexRule(2, "keys", "s", "S", ["pk", "sk", "s"]),
    LocalIndexRule(3, "some", "n", "N", ["pk", "sk", "n", "v"]),
]
LIMIT = 1 << 40


def item(pk="p", sk="1", **attributes):
    return {"pk": {"S": pk}, "sk": {"S": sk}, **attributes}


def key_of(whole):
    return encode_key(300, SCHEMA, whole)


def put(whole, **more):
    return Action(PUT, key_of(whole), encode_item(whole), item_size(whole), **more)


def delete(whole):
    return Action(DELETE, key_of(whole), encode_item(item(whole["pk"]["S"], whole["sk"]["S"])))


def update(whole, text, values=None):
    key = item(whole["pk"]["S"], whole["sk"]["S"])
    return Action(
        UPDATE,
        key_of(key),
        encode_item(key),
        update=text,
        values=None if values is None else encode_item(values),
    )


class Partition:
    """Stored forms by key, and what the log would say of indexes."""

    def __init__(self, limit=LIMIT):
        self.stored = {}
        self.figures = []
        self.limit = limit

    def write(self, *actions):
        indexing = Indexing(RULES, self.stored.get, self.limit)
        effect = evaluate(list(actions), self.stored.get, keep_images=True, indexing=indexing)
        if isinstance(effect, Effect):
            for key, body, size in effect.mutations:
                if body is None:
                    del self.stored[key]
                else:
                    self.stored[key] = (body, size)
            assert len({key for key, _, _ in effect.mutations}) == len(effect.mutations)
            if effect.index_deltas:
                self.figures = added(self.figures, effect.index_deltas)
        return effect

    def part(self, part):
        return {key: stored for key, stored in self.stored.items() if part_of(key) == part}

    def check(self):
        """Entries, figures and sizes are what the items make them."""
        items = [decode_item(body) for body, _ in self.part(0).values()]
        sizes = {}
        for whole in items:
            at = collection_size_key(key_of(whole))
            sizes[at] = sizes.get(at, 0) + item_size(whole)
        for rule in RULES:
            expected = {}
            for whole in items:
                if rule.sort_name in whole:
                    entry = {
                        name: value
                        for name, value in whole.items()
                        if rule.attributes is None or name in rule.attributes
                    }
                    key = key_of(whole)
                    at = encode_entry_key(key, rule.number, whole[rule.sort_name])
                    expected[at] = (entry, item_size(entry))
                    sizes[collection_size_key(key)] += item_size(entry)
            found = {
                key: (decode_item(body), size)
                for key, (body, size) in self.part(rule.number).items()
            }
            assert found == expected
            at = 2 * (rule.number - 1)
            assert (self.figures or [0] * 6)[at : at + 2] == [
                len(expected),
                sum(size for _, size in expected.values()),
            ]
        assert {key: int(body) for key, (body, _) in self.part(0x7E).items()} == sizes


@pytest.fixture
def partition():
    return Partition()


VALUES = st.sampled_from(["", "a", "b"])
ITEMS = st.builds(
    lambda pk, sk, n, s, v, w: item(
        pk,
        sk,
        **({} if n is None else {"n": {"N": str(n)}}),
        **({} if s is None else {"s": {"S": s}}),
        v={"S": v},
        w={"S": w},
    ),
    st.sampled_from(["p", "q"]),
    st.sampled_from(["1", "2", "3"]),
    st.none() | st.integers(-1, 1),
    st.none() | st.sampled_from(["x", "y\x00"]),
    VALUES,
    VALUES,
)
ACTIONS = st.one_of(
    ITEMS.map(put),
    ITEMS.map(delete),
    ITEMS.map(
        lambda whole: update(whole, "SET n = :n, w = :w", {":n": {"N": "1"}, ":w": {"S": "z"}})
    ),
    ITEMS.map(lambda whole: update(whole, "REMOVE n, v")),
    ITEMS.map(lambda whole: update(whole, "SET s = :s REMOVE v", {":s": {"S": "x"}})),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ACTIONS, min_size=1, max_size=3, unique_by=lambda a: a.key), max_size=12))
def test_entries_are_always_what_the_items_make_them(writes):
    partition = Partition()
    for actions in writes:
        assert isinstance(partition.write(*actions), Effect)
        partition.check()


def n(number):
    return {"N": str(number)}


BIG = {"S": "x" * 1500}
FULL = item(n=n(1), s={"S": "a"}, v=BIG, w={"S": "w"})


@pytest.mark.parametrize(
    ("before", "action", "units"),
    [
        (None, put(item()), []),
        (None, put(FULL), [(1, 2), (2, 1), (3, 2)]),
        # Nothing changes: nothing is written.
        (FULL, put(FULL), []),
        (FULL, put(dict(reversed(FULL.items()))), []),
        # What only ALL projects.
        (FULL, put({**FULL, "w": {"S": "other"}}), [(1, 2)]),
        (FULL, update(FULL, "SET w = :w", {":w": {"S": "other"}}), [(1, 2)]),
        # Another projected value, larger before than after.
        (FULL, put({**FULL, "v": {"S": "y"}}), [(1, 2), (3, 2)]),
        # Another key: one entry goes, one comes.
        (FULL, put({**FULL, "n": n(2)}), [(1, 4), (3, 4)]),
        (FULL, put({**FULL, "s": {"S": "b"}}), [(1, 2), (2, 2)]),
        # In and out of a sparse index.
        (FULL, put({k: v for k, v in FULL.items() if k != "s"}), [(1, 2), (2, 1)]),
        (FULL, delete(FULL), [(1, 2), (2, 1), (3, 2)]),
        (item(), put(FULL), [(1, 2), (2, 1), (3, 2)]),
        (None, delete(FULL), []),
    ],
)
def test_write_units_of_indexes(partition, before, action, units):
    if before is not None:
        partition.write(put(before))
    effect = partition.write(action)
    assert effect.results[0].index_units == units
    partition.check()


def test_a_write_that_changes_nothing_writes_only_the_item(partition):
    partition.write(put(FULL))
    effect = partition.write(put(FULL))
    assert [key for key, _, _ in effect.mutations] == [key_of(FULL)]
    assert effect.images == []


def test_the_collection_size_goes_with_the_answer(partition):
    size = item_size(FULL)
    entries = size + item_size(item(s=FULL["s"])) + item_size(item(n=FULL["n"], v=BIG))
    assert partition.write(put(FULL)).results[0].collection_size == size + entries
    more = item(sk="2")
    assert partition.write(put(more)).results[0].collection_size == size + entries + item_size(more)
    assert partition.write(put(item("other"))).results[0].collection_size == item_size(
        item("o" * 5)
    )
    assert partition.write(delete(FULL)).results[0].collection_size == item_size(more)
    assert partition.write(delete(more)).results[0].collection_size == 0
    assert list(partition.stored) == [
        key_of(item("other")),
        collection_size_key(key_of(item("other"))),
    ]


def test_a_collection_at_its_limit_may_only_shrink():
    partition = Partition(limit=4000)
    assert isinstance(partition.write(put(FULL)), Refusal)
    assert partition.stored == {}
    small = {**FULL, "v": {"S": "y"}}
    assert isinstance(partition.write(put(small)), Effect)
    refusal = partition.write(put({**item(sk="2"), "w": {"S": "x" * 5000}}))
    assert refusal.code == "ItemCollectionSizeLimitExceededException"
    assert refusal.message == "Collection size exceeded."
    # Others have room, the item itself may be replaced by a smaller one, or go.
    assert isinstance(partition.write(put({**item("q"), "w": {"S": "x" * 3000}})), Effect)
    partition.limit = 10
    assert isinstance(partition.write(put({**small, "v": {"S": ""}})), Effect)
    assert isinstance(partition.write(put({**small, "v": {"S": ""}})), Effect)
    assert isinstance(partition.write(put({**small, "v": {"S": "yy"}})), Refusal)
    assert isinstance(partition.write(delete(small)), Effect)
    partition.check()


def test_two_actions_in_one_collection_grow_it_by_both(partition):
    effect = partition.write(put(item(sk="1", n=n(1))), put(item(sk="2", n=n(1))))
    assert [result.collection_size for result in effect.results] == [
        3 * item_size(item(n=n(1))),
        6 * item_size(item(n=n(1))),
    ]
    partition.check()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            put(item(n={"S": "1"})),
            "One or more parameter values were invalid: Type mismatch for Index Key n Expected: N "
            "Actual: S IndexName: all",
        ),
        (
            update(item(), "SET n = v", None),
            "The update expression attempted to update the secondary index key to unsupported type",
        ),
        (
            put(item(n=n(1), w={"S": "x" * 205_000})),
            "Item size has exceeded the maximum allowed size",
        ),
        (
            update(item(), "SET n = :n, w = :w", {":n": n(1), ":w": {"S": "x" * 205_000}}),
            "Item size to update has exceeded the maximum allowed size",
        ),
    ],
)
def test_items_that_indexes_cannot_have(partition, action, message):
    partition.write(put(item(v={"S": "1"})))
    before = dict(partition.stored)
    refusal = partition.write(action)
    assert (refusal.code, refusal.message) == ("ValidationException", message)
    assert partition.stored == before
    both = partition.write(put(item(sk="2")), action)
    assert [reason.code for reason in both.reasons] == ["None", "ValidationError"]
    assert partition.stored == before


def test_a_check_changes_nothing(partition):
    partition.write(put(FULL))
    action = Action(CHECK, key_of(FULL), encode_item(item()), condition="attribute_exists(pk)")
    effect = partition.write(action)
    assert effect.mutations == []
    assert effect.results[0].index_units is None


def test_figures_of_more_indexes_than_before():
    assert added([], [1, 10]) == [1, 10]
    assert added([1, 10], [1, 5, 1, 3]) == [2, 15, 1, 3]
