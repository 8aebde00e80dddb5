"""Registration of a storage node in the catalog."""

import asyncio

from datamodel.catalog_rows import NodeRow, node_key
from proto.catalog_view import CatalogView
from storagenode.joining.registration import register
from tests.unit.catalog_fakes import FakeCluster


def current(cluster, *rows):
    view = CatalogView()
    for row in rows:
        view.apply(node_key(row.node_id), cluster.row(node_key(row.node_id)))
    return [row.node_id for row in view.current_nodes()]


def test_a_node_is_written_over_its_older_row():
    first = NodeRow("a.1", "a", "az1", "h:1", "h:2", "", 1000)
    cluster = FakeCluster()
    asyncio.run(register(cluster, first))
    assert cluster.row(node_key("a.1")) == first
    moved = NodeRow("a.1", "a", "az1", "h:9", "h:2", "", 2000)
    asyncio.run(register(cluster, moved))
    found = cluster.row(node_key("a.1"))
    assert (found.address, found.version) == ("h:9", first.version + 1)


def test_the_disk_that_registered_last_is_the_newest_whatever_its_clock_says():
    old = NodeRow("a.1", "a", "az1", "h:1", "h:2", "", 5_000_000)
    new = NodeRow("a.2", "a", "az1", "h:1", "h:2", "", 1000)
    other = NodeRow("b.1", "b", "az1", "h:1", "h:2", "", 9_000_000)
    cluster = FakeCluster([old, other])
    asyncio.run(register(cluster, new))
    assert cluster.row(node_key("a.2")).started_ms == old.started_ms + 1
    assert current(cluster, old, new, other) == ["a.2", "b.1"]
