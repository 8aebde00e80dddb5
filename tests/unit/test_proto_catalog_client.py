"""The catalog client: the copy follows the feed, survives outages, and writes are atomic and conditional."""

import asyncio
import gc
from dataclasses import replace

import pytest

from datamodel.catalog_rows import (
    JobRow,
    NodeRow,
    PartitionRow,
    ReplicaRow,
    SettingRow,
    row_key,
    table_key,
)
from datamodel.key_encoding import KeySchema, partition_bounds
from datamodel.table_descriptions import TableDescription
from proto.catalog_client import (
    CatalogClient,
    CatalogUnavailable,
    WriteConflict,
    WriteOutcomeUnknown,
    insert,
    remove,
    unchanged,
    update,
)
from proto.catalog_view import CatalogView, PartitionList
from proto.messages import Get, ReplicaAddress, Write
from tests.unit.catalog_fakes import FakeCluster


def table(name="orders", table_id=300, **changes):
    return TableDescription(
        name=name,
        table_id=table_id,
        uuid="u",
        status="ACTIVE",
        key_schema=KeySchema("pk", "S"),
        attribute_definitions=(("pk", "S"),),
        billing_mode="PAY_PER_REQUEST",
        created_ms=1,
        **changes,
    )


def partitions(table_id=300, count=4, first_group=10):
    bounds = partition_bounds(table_id, count)
    return [
        PartitionRow(
            first_group + i, table_id, bounds[i], bounds[i + 1], 1, (ReplicaRow(1, "n1.a"),)
        )
        for i in range(count)
    ]


NODE = NodeRow("n1.a", "n1", "az1", "127.0.0.1:1", started_ms=1)


def run(scenario):
    """Run `scenario(cluster, catalog)` with a catalog of one table, loaded."""

    async def wrapped():
        cluster = FakeCluster([table(), *partitions(), NODE])
        catalog = CatalogClient(cluster)
        catalog.start()
        try:
            async with asyncio.timeout(10):
                await catalog.ready()
                await scenario(cluster, catalog)
        finally:
            await catalog.stop()

    asyncio.run(wrapped())


# --- the view


def test_partitions_are_found_by_key():
    rows = partitions()
    listed = PartitionList(reversed(rows))
    assert list(listed) == rows
    assert listed.is_whole(rows[0].start, rows[-1].end)
    assert not PartitionList(rows[1:]).is_whole(rows[0].start, rows[-1].end)
    for row in rows:
        assert listed.find(row.start) == row
        assert listed.find(row.end[:-1] + b"") != row or row.end[:-1] >= row.start
    assert listed.find(rows[-1].end) is None
    assert listed.find(b"") is None
    assert PartitionList([rows[0], rows[2]]).find(rows[1].start) is None, "a gap"


def test_an_older_row_does_not_replace_a_newer_one():
    view = CatalogView()
    key = table_key("orders")
    newer = table(version=5)
    assert view.apply(key, newer).new is newer
    assert view.apply(key, table(version=4)) is None
    assert view.apply(key, newer) is None
    assert view.apply_removal(key, table(version=4)) is None
    again = table(table_id=301, version=1)
    assert view.apply(key, again).old is newer
    assert view.apply_removal(key, newer) is None, "the table before this one was removed"
    assert view.tables_by_id == {301: again}
    assert view.apply_removal(key, again).new is None
    assert not view.tables
    assert not view.tables_by_id


def test_replacing_all_says_what_changed():
    view = CatalogView()
    kept, gone, new = NODE, table(), SettingRow("s", {"value": 1})
    assert len(view.replace_all([kept, gone])) == 2
    changes = {change.key: (change.old, change.new) for change in view.replace_all([kept, new])}
    assert changes == {row_key(gone): (gone, None), row_key(new): (None, new)}


def test_the_newest_disk_of_a_node_is_the_current_one():
    view = CatalogView()
    old, new = replace(NODE, node_id="n1.old", started_ms=1), replace(NODE, started_ms=2)
    view.replace_all([old, new, replace(NODE, node_id="n0.x", name="n0")])
    assert [node.node_id for node in view.current_nodes()] == ["n0.x", "n1.a"]


# --- loading and following


def test_everything_is_loaded_page_by_page_and_the_client_learns_where_groups_are():
    async def scenario(cluster, catalog):
        assert catalog.view.tables == {"orders": table()}
        assert list(catalog.view.partitions(300)) == partitions()
        assert catalog.view.group(12) == partitions()[2]
        assert set(cluster.groups) == {10, 11, 12, 13}
        assert cluster.groups[10] == [ReplicaAddress(1, "n1.a", "127.0.0.1:1", "az1")]

    run(scenario)


def test_changes_arrive_through_the_feed():
    async def scenario(cluster, catalog):
        heard = []
        unsubscribe = catalog.subscribe(heard.extend)
        cluster.put(table("new", 301))
        assert await catalog.wait_for(lambda view: "new" in view.tables, 5)
        cluster.put(replace(NODE, address="127.0.0.1:9", version=2))
        assert await catalog.wait_for(lambda view: view.nodes["n1.a"].version == 2, 5)
        assert cluster.groups[13][0].address == "127.0.0.1:9"
        cluster.remove(partitions()[0])
        assert await catalog.wait_for(lambda view: len(view.partitions(300)) == 3, 5)
        assert 10 not in cluster.groups
        assert [type(change.new or change.old).__name__ for change in heard] == [
            "TableDescription",
            "NodeRow",
            "PartitionRow",
        ]
        unsubscribe()
        assert catalog.is_current

    run(scenario)


def test_a_trimmed_feed_means_loading_anew():
    async def scenario(cluster, catalog):
        cluster.put(table("new", 301))
        cluster.remove(table())
        cluster.trim()
        assert await catalog.wait_for(lambda v: "new" in v.tables and "orders" not in v.tables, 5)

    run(scenario)


def test_the_copy_serves_on_while_the_catalog_is_away():
    async def scenario(cluster, catalog):
        cluster.is_away = True
        cluster.put(table("new", 301))
        with pytest.raises(CatalogUnavailable):
            await catalog.fetch_table("new")
        assert not await catalog.wait_for(lambda view: "new" in view.tables, 0.05)
        assert "orders" in catalog.view.tables
        cluster.is_away = False
        assert await catalog.wait_for(lambda view: "new" in view.tables, 5)

    run(scenario)


def test_a_listener_that_fails_harms_nobody(caplog):
    async def scenario(cluster, catalog):
        def bad(changes):
            raise RuntimeError("boom")

        heard = []
        catalog.subscribe(bad)
        catalog.subscribe(heard.extend)
        cluster.put(table("new", 301))
        assert await catalog.wait_for(lambda view: "new" in view.tables, 5)
        assert heard

    run(scenario)
    assert "catalog listener failed" in caplog.text


# --- reading and writing


def test_a_table_is_refreshed_with_one_read_for_all_who_ask():
    async def scenario(cluster, catalog):
        catalog._follower.cancel()
        cluster.put(table(version=2))
        cluster.remove(partitions()[3])
        before = len(cluster.requests)
        found = await asyncio.gather(*(catalog.refresh_table("orders") for _ in range(5)))
        assert found == [table(version=2)] * 5
        assert sum(isinstance(r, Get) for r in cluster.requests[before:]) == 1
        assert list(catalog.view.partitions(300)) == partitions()[:3]
        assert await catalog.refresh_table("nobody") is None
        cluster.remove(table(version=2))
        assert await catalog.refresh_table("orders") is None
        assert "orders" not in catalog.view.tables

    run(scenario)


def test_a_refresh_that_fails_when_nobody_waits_any_more_is_no_bug():
    async def scenario(cluster, catalog):
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        cluster.is_away = True
        leaving = asyncio.create_task(catalog.refresh_table("orders"))
        await asyncio.sleep(0)
        (refresh,) = catalog._refreshes.values()
        leaving.cancel()
        await asyncio.wait([leaving, refresh])
        del leaving, refresh
        gc.collect()
        assert complaints == []
        with pytest.raises(CatalogUnavailable):
            await catalog.refresh_table("orders")

    run(scenario)


def test_ranges_are_read_in_order_and_up_to_a_limit():
    async def scenario(cluster, catalog):
        rows = await catalog.fetch_partitions(300)
        assert rows == partitions()
        start, end = row_key(rows[0]), row_key(rows[3])
        assert await catalog.fetch_range(start, end) == rows[:3]
        assert await catalog.fetch_range(start, end + b"\x00", limit=2) == rows[:2]
        assert await catalog.fetch_range(start, end + b"\x00", limit=4) == rows
        assert await catalog.fetch_nodes() == [NODE]

    run(scenario)


def test_writes_are_atomic_and_conditional():
    async def scenario(cluster, catalog):
        job = JobRow("j", "create_table", "place", "new", 301, 0)
        new = table("new", 301)
        await catalog.write([insert(new), insert(job), unchanged(table())])
        assert catalog.view.tables["new"] == new, "a writer sees its own writes"
        with pytest.raises(WriteConflict) as conflict:
            await catalog.write([insert(replace(job, job_id="k")), insert(new)])
        assert conflict.value.failed == (1,)
        assert "k" not in catalog.view.jobs
        moved = replace(new, status="DELETING", version=2)
        await catalog.write([update(moved)])
        assert cluster.row(table_key("new")) == moved
        with pytest.raises(WriteConflict) as conflict:
            await catalog.write([update(moved)])
        assert conflict.value.failed == (0,)
        with pytest.raises(WriteConflict):
            await catalog.write([remove(new)])
        await catalog.write([remove(moved), remove(job)])
        assert cluster.row(table_key("new")) is None
        assert "new" not in catalog.view.tables
        with pytest.raises(WriteConflict):
            await catalog.write([unchanged(new)])

    run(scenario)


def test_an_answer_later_than_the_feed_does_not_bring_a_row_back():
    async def scenario(cluster, catalog):
        job = JobRow("j", "create_table", "place", "new", 301, 0)
        ask = catalog._ask

        async def late(request, timeout_s):
            answer = await ask(request, timeout_s)
            if isinstance(request, Write):
                cluster.put(replace(job, step="open", version=2))
                assert await catalog.wait_for(lambda view: "j" in view.jobs, 5)
                cluster.remove(replace(job, step="open", version=2))
                assert await catalog.wait_for(lambda view: "j" not in view.jobs, 5)
            return answer

        catalog._ask = late
        await catalog.write([insert(job)])
        assert "j" not in catalog.view.jobs
        assert catalog._removed_meanwhile == []

    run(scenario)


def test_writes_at_the_same_time_end_each_for_itself():
    async def scenario(cluster, catalog):
        jobs = [JobRow(name, "create_table", "place", "new", 301, 0) for name in "ab"]
        ask = catalog._ask

        async def slow(request, timeout_s):
            """The second write hears of a removal after the first has ended."""
            if isinstance(request, Write) and request.actions[0].key == row_key(jobs[1]):
                await first
                cluster.put(jobs[1])
                assert await catalog.wait_for(lambda view: "b" in view.jobs, 5)
                cluster.remove(jobs[1])
                assert await catalog.wait_for(lambda view: "b" not in view.jobs, 5)
            return await ask(request, timeout_s)

        catalog._ask = slow
        first = asyncio.get_running_loop().create_future()
        second_write = asyncio.create_task(catalog.write([insert(jobs[1])]))
        await asyncio.sleep(0)
        await catalog.write([insert(jobs[0])])
        first.set_result(None)
        await second_write
        assert catalog._removed_meanwhile == []

    run(scenario)


def test_a_write_without_an_answer_is_neither_done_nor_undone():
    async def scenario(cluster, catalog):
        cluster.lose_answers = 1
        with pytest.raises(WriteOutcomeUnknown):
            await catalog.write([insert(table("new", 301))])
        assert await catalog.fetch_table("new") == table("new", 301)
        cluster.is_away = True
        with pytest.raises(CatalogUnavailable) as away:
            await catalog.write([insert(table("more", 302))])
        assert not isinstance(away.value, WriteOutcomeUnknown)

    run(scenario)
