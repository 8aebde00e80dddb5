"""The partition map: entries made from catalog rows as they come, and look-ups behind them."""

import asyncio
from dataclasses import replace

import pytest

from datamodel.errors import ResourceNotFoundError, ServiceUnavailableError
from datamodel.key_encoding import KeySchema, encode_key, partition_bounds, table_range
from proto.catalog_client import CatalogUnavailable
from router import partition_map
from router.metrics import OTHER_TABLES, RouterMetrics
from router.partition_map import TableEntry
from tests.unit.router_harness import Harness, partitions, table

SCHEMA = KeySchema("pk", "S")


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_every_key_has_the_partition_that_owns_it(count):
    rows = partitions(300, count)
    entry = TableEntry(table(), rows, RouterMetrics().table("Things"))
    for n in range(100):
        key = encode_key(300, SCHEMA, {"pk": {"S": f"k{n}"}})
        (owner,) = [row for row in rows if row.owns(key)]
        assert entry.group_of(key) == owner.group
        assert entry.partition_of(key) is owner
    for row in rows:
        assert entry.partition_of(row.start) is row
        assert entry.partition_before(row.end) is row


def test_an_entry_appears_when_the_table_is_active_and_covered():
    harness = Harness()
    rows = partitions(300, 3)
    harness.catalog.change([table(status="CREATING"), *rows])
    assert harness.tables.get("Things") is None
    harness.catalog.change([table(version=2)])
    assert harness.tables.get("Things") is not None
    # While a split is half known the map stays as it was.
    before = harness.tables.get("Things")
    low, high = partition_bounds(300, 3)[:2]
    middle = low + b"\x00"
    harness.catalog.change([replace(rows[0], end=middle, epoch=2, version=2)])
    assert harness.tables.get("Things") is before
    new = replace(rows[0], group=9, start=middle, end=high)
    harness.catalog.change([new])
    entry = harness.tables.get("Things")
    assert [row.group for row in entry.partitions] == [1, 9, 2, 3]
    assert entry.group_of(low) == 1
    assert entry.group_of(middle) == 9


def test_an_entry_goes_with_its_table_and_comes_back_for_its_successor():
    harness = Harness().add_table()
    harness.catalog.change([table(status="DELETING", version=2)])
    assert harness.tables.get("Things") is None
    harness.add_table(table(table_id=301), first_group=5)
    assert harness.tables.get("Things").table_id == 301
    assert harness.tables.get("Things").group_of(table_range(301)[0]) == 5


def test_an_entry_of_another_table_of_the_name_never_serves():
    harness = Harness().add_table()
    harness.catalog.change([table(table_id=301)])  # its partitions are still to come
    assert harness.tables.get("Things") is None


def test_entries_are_kept_while_nothing_changes():
    harness = Harness().add_table()
    entry = harness.tables.get("Things")
    harness.add_table()
    assert harness.tables.get("Things") is entry


def test_look_ups_fail_with_the_catalog_and_recover_with_it():
    harness = Harness()
    found = []
    harness.catalog.failure = CatalogUnavailable("away")
    harness.tables.look_up("Things", found.append)
    harness.run_tasks()
    assert isinstance(found.pop(), ServiceUnavailableError)
    harness.catalog.failure = None
    harness.catalog.hidden = [table(), *partitions(300)]
    harness.tables.look_up("Things", found.append)
    harness.run_tasks()
    assert isinstance(found.pop(), TableEntry)
    harness.tables.look_up("Things", found.append)
    assert isinstance(found.pop(), TableEntry)
    assert harness.catalog.refreshed == ["Things", "Things"]


def test_a_refresh_without_the_catalog_keeps_what_was_known():
    harness = Harness().add_table()
    harness.catalog.failure = CatalogUnavailable("away")
    found = []
    entry = harness.tables.get("Things")
    harness.tables.refresh(entry, found.append)
    harness.run_tasks()
    assert found == [entry]


def test_a_refresh_of_what_is_no_longer_so_needs_no_look_up():
    harness = Harness().add_table()
    stale = harness.tables.get("Things")
    harness.catalog.change([table(version=2)])
    found = []
    harness.tables.refresh(stale, found.append)
    assert found == [harness.tables.get("Things")]
    assert harness.catalog.refreshed == []


def test_refreshes_of_one_table_are_spaced_out(monkeypatch):
    harness = Harness().add_table()
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr(partition_map.asyncio, "sleep", sleep)
    entry = harness.tables.get("Things")
    for _ in range(2):
        harness.tables.refresh(entry, lambda found: None)
        harness.run_tasks()
    assert max(waits) == pytest.approx(partition_map.RETRY_INTERVAL_S)


def test_too_many_look_ups_at_a_time(monkeypatch):
    monkeypatch.setattr(partition_map, "LOOK_UPS_MAX", 1)
    harness = Harness()
    found = []
    harness.tables.look_up("one", found.append)
    harness.tables.look_up("two", found.append)
    assert isinstance(found[0], ServiceUnavailableError)
    harness.run_tasks()
    assert isinstance(found[1], ResourceNotFoundError)


def test_a_bug_in_a_look_up_is_heard_of(caplog):
    harness = Harness()
    harness.catalog.failure = KeyError("bug")
    found = []
    harness.tables.look_up("Things", found.append)
    harness.run_tasks()
    assert isinstance(found[0], ServiceUnavailableError)
    assert "table look-up failed" in caplog.text


def test_table_labels_are_bounded(monkeypatch):
    monkeypatch.setattr("router.metrics.TABLE_LABELS_MAX", 2)
    metrics = RouterMetrics()
    usages = [metrics.table(name) for name in ("a", "b", "c", "d")]
    assert usages[2] is usages[3] is metrics.table(OTHER_TABLES)
    assert metrics.table("a") is usages[0] is not usages[1]


def test_a_look_up_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(partition_map, "LOOK_UP_TIMEOUT_S", 0.01)
    harness = Harness()

    async def never(name):
        await asyncio.Event().wait()

    harness.catalog.refresh_table = never
    found = []
    harness.tables.look_up("Things", found.append)
    harness.run_tasks()
    assert isinstance(found[0], ServiceUnavailableError)
