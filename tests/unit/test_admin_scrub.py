"""Which leaders are asked to compare replicas, and what is said of the answers."""

import asyncio
from types import SimpleNamespace

import pytest

from admin.nodes import NodeUnreachable
from admin.scrub import ATTEMPTS_MAX, describe, scrub_partitions
from proto import admin_pb2, control_pb2


class FakeNodes:
    """Three nodes; group n is led by node n % 3, and by none before `settled`."""

    def __init__(self):
        self.asked = []
        self.failures = 0
        self.leaderless = set()

    async def status(self, row, groups=()):
        number = int(row.node_id[-1])
        return control_pb2.NodeStatusResponse(
            node_id=row.node_id,
            replicas=[
                control_pb2.ReplicaStatus(
                    partition=control_pb2.Partition(group=group),
                    role="leader" if group % 3 == number else "follower",
                    term=2,
                )
                for group in groups
                if group not in self.leaderless
            ],
        )

    async def scrub(self, row, group):
        self.asked.append((row.node_id, group))
        if self.failures:
            self.failures -= 1
            raise NodeUnreachable("UNAVAILABLE: led elsewhere now")
        verdict = control_pb2.ScrubResponse.Verdict
        return control_pb2.ScrubResponse(
            index=50, replicas=[verdict(replica_id=1, node_id="n", verdict="same")]
        )


VIEW = SimpleNamespace(
    tables_by_id={256: SimpleNamespace(name="a"), 257: SimpleNamespace(name="b")},
    groups=lambda: [
        SimpleNamespace(group=1, table_id=256),
        SimpleNamespace(group=2, table_id=256),
        SimpleNamespace(group=3, table_id=257),
    ],
    current_nodes=lambda: [SimpleNamespace(node_id=f"node-{n}") for n in range(3)],
)


def scrub(nodes, table=""):
    async def collect():
        return {r.group: r async for r in scrub_partitions(nodes, VIEW, table)}

    return asyncio.run(collect())


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr("admin.scrub.RETRY_S", 0)


def test_the_leader_of_every_partition_is_asked_and_of_the_catalog():
    nodes = FakeNodes()
    found = scrub(nodes)
    assert sorted(nodes.asked) == [("node-0", 0), ("node-0", 3), ("node-1", 1), ("node-2", 2)]
    assert {group: result.table_name for group, result in found.items()} == {
        0: "", 1: "a", 2: "a", 3: "b",
    }  # fmt: skip
    assert all(describe(result)[0] for result in found.values())
    assert set(scrub(FakeNodes(), "b")) == {3}


def test_a_leader_that_changes_is_looked_for_again():
    nodes = FakeNodes()
    nodes.failures = 2
    assert describe(scrub(nodes, "b")[3])[0]
    nodes.failures = ATTEMPTS_MAX
    is_good, text = describe(scrub(nodes, "b")[3])
    assert not is_good
    assert "not compared: UNAVAILABLE: led elsewhere now" in text
    nodes.leaderless.add(3)
    assert describe(scrub(nodes, "b")[3]) == (
        False, "group 3 of b: not compared: it has no leader",
    )  # fmt: skip


def test_what_is_said():
    replica = admin_pb2.PartitionScrub.Replica
    result = admin_pb2.PartitionScrub(
        group=4,
        table_name="t",
        index=9,
        replicas=[
            replica(replica_id=1, node_id="a", verdict="same"),
            replica(replica_id=2, node_id="b", verdict="differs"),
            replica(replica_id=3, node_id="c", verdict="silent"),
        ],
    )
    assert describe(result) == (
        False,
        "group 4 of t: at 9 replica 2 on b differs and is repaired, replica 3 on c did not answer",
    )
    good = admin_pb2.PartitionScrub(index=9, replicas=[replica(verdict="same")] * 3)
    assert describe(good) == (True, "group 0 of (catalog): 3 replicas are the same at 9")
