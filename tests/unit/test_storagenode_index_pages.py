"""Pages that pass over parts of item collections, and those that fetch the items behind entries."""

import msgspec
import pytest

from datamodel.errors import Corruption
from datamodel.items import decode_item, encode_item, item_size
from datamodel.key_encoding import (
    KeySchema,
    collection_range,
    collection_size_key,
    encode_entry_key,
    encode_key,
    table_range,
)
from datamodel.stored_items import pack_record
from proto.messages import Query
from storagenode.engines.engine import DATA
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.replicas import index_pages
from storagenode.replicas.index_pages import IndexPageScan

SCHEMA = KeySchema("pk", "S", "sk", "S")
INDEX = KeySchema("pk", "S", "n", "N")


def store(engine, pk, sk, number=None, **attributes):
    """An item, its entries in indexes 1 (all) and 3 (keys only), and a size."""
    item = {"pk": {"S": pk}, "sk": {"S": sk}, **attributes}
    if number is not None:
        item["n"] = {"N": str(number)}
    key = encode_key(300, SCHEMA, item)
    stored = {key: item, collection_size_key(key): None}
    if number is not None:
        stored[encode_entry_key(key, 1, item["n"])] = item
        stored[encode_entry_key(key, 3, item["n"])] = {
            name: item[name] for name in ("pk", "sk", "n")
        }
    engine.write(
        (
            DATA + at,
            pack_record(b"1" if body is None else encode_item(body), item_size(body or {}), 1, 1),
        )
        for at, body in stored.items()
    )
    return item


@pytest.fixture
def engine():
    return MemoryEngine()


def scan(engine, part, bounds=None, steps=10_000, **members):
    start, end = bounds or table_range(300)
    query = Query(1, 7, start, end, True, part=part, **members)
    cursor = engine.iterate(DATA + start, DATA + end, reverse=query.reverse)
    page = IndexPageScan(query, cursor, engine.get)
    turns = 1
    while not page.step(steps):
        turns += 1
    return page.page(), turns


def items_of(page):
    return msgspec.json.decode(b"[%b]" % page.items)


@pytest.mark.parametrize("per_collection", [1, 3, 40])
@pytest.mark.parametrize("steps", [1, 3, 10_000])
def test_a_scan_takes_one_part_of_each_collection(engine, per_collection, steps):
    stored = [
        store(engine, f"p{collection}", f"{place:03}", place if place % 3 else None)
        for collection in range(5)
        for place in range(per_collection)
    ]
    for part, expected in (
        (0, stored),
        (1, [item for item in stored if "n" in item]),
        (2, []),
        (3, [item for item in stored if "n" in item]),
    ):
        page, turns = scan(engine, part, steps=steps)
        found = items_of(page)
        assert sorted(map(str, found)) == sorted(map(str, expected))
        assert (page.count, page.scanned) == (len(expected), len(expected))
        assert page.size == sum(map(item_size, expected))
        assert page.last is None
        assert (turns > 1) == (steps < 100), "records passed over count as work"


def test_a_long_part_is_stepped_over_by_a_seek(engine, monkeypatch):
    for number in range(200):
        store(engine, "p", f"{number:03}", number)
    store(engine, "q", "1", 1)
    looked_at = 0
    part_of = index_pages.part_of

    def counted(key, start):
        nonlocal looked_at
        looked_at += 1
        return part_of(key, start)

    monkeypatch.setattr(index_pages, "part_of", counted)
    page, _ = scan(engine, 1)
    assert page.count == 201
    assert looked_at < 201 + 40
    looked_at = 0
    page, _ = scan(engine, 0)
    assert page.count == 201
    assert looked_at < 201 + 40


def test_pages_end_at_the_limit_and_go_on_behind_it(engine):
    for number in range(7):
        store(engine, "p", f"{number}", -number)
    page, _ = scan(engine, 1, limit=3)
    assert [item["n"]["N"] for item in items_of(page)] == ["-6", "-5", "-4"]
    last = decode_item(page.last)
    key = encode_entry_key(encode_key(300, SCHEMA, last), 1, last["n"])
    page, _ = scan(engine, 1, (key + b"\x00", table_range(300)[1]))
    assert [item["n"]["N"] for item in items_of(page)] == ["-3", "-2", "-1", "0"]


def test_fetching_returns_items_and_counts_both(engine):
    items = [store(engine, "p", f"{n}", n, v={"S": "x" * 5000 * n}) for n in range(4)]
    bounds = collection_range(300, INDEX, {"S": "p"}, part=3)
    entries = sum(item_size({k: item[k] for k in ("pk", "sk", "n")}) for item in items)
    page, _ = scan(engine, -1, bounds, fetch=True)
    assert items_of(page) == items
    assert (page.size, page.fetched_size) == (entries, sum(map(item_size, items)))
    assert page.fetched_units == 1 + 2 + 3 + 4
    assert page.last is None
    # Filter and projection see the whole item; the position is the entry's.
    page, _ = scan(
        engine,
        -1,
        bounds,
        fetch=True,
        reverse=True,
        limit=2,
        filter="size(v) > :s",
        projection="sk, v",
        values=encode_item({":s": {"N": "12000"}}),
    )
    assert [item["sk"]["S"] for item in items_of(page)] == ["3"]
    assert (page.count, page.scanned) == (1, 2)
    assert decode_item(page.last) == {"pk": {"S": "p"}, "sk": {"S": "2"}, "n": {"N": "2"}}
    page, _ = scan(engine, -1, bounds, fetch=True, count_only=True)
    assert (page.count, page.items) == (4, b"")


def test_what_is_fetched_counts_for_the_size_of_a_page(engine):
    for n in range(4):
        store(engine, "p", f"{n}", n, v={"S": "x" * 5000})
    bounds = collection_range(300, INDEX, {"S": "p"}, part=3)
    page, _ = scan(engine, -1, bounds, fetch=True, size_limit=9000)
    assert page.scanned == 2
    assert page.last is not None
    page, _ = scan(engine, -1, bounds, size_limit=9000)
    assert page.scanned == 4


def test_an_item_deleted_since_is_not_returned(engine):
    items = [store(engine, "p", f"{n}", n) for n in range(2)]
    start, end = collection_range(300, INDEX, {"S": "p"}, part=3)
    page = IndexPageScan(
        Query(1, 7, start, end, True, fetch=True),
        engine.iterate(DATA + start, DATA + end),
        engine.get,
    )
    engine.write([(DATA + encode_key(300, SCHEMA, items[0]), None)])
    assert page.step()
    assert items_of(page.page()) == items[1:]
    assert page.page().scanned == 2


@pytest.mark.parametrize("damaged", ["entry", "item"])
def test_damage_is_noticed(engine, damaged):
    item = store(engine, "p", "1", 1)
    key = encode_key(300, SCHEMA, item)
    at = DATA + (key if damaged == "item" else encode_entry_key(key, 3, item["n"]))
    engine.write([(at, engine.get(at)[:-1] + b"?")])
    with pytest.raises(Corruption):
        scan(engine, 3, fetch=True)
