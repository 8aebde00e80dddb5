"""Spreading leaderships: what reports say of who could lead, and passes over nodes in memory."""

import asyncio

from prometheus_client import CollectorRegistry

from admin.balance import LAG_ENTRIES_MAX, Balance, led_groups
from admin.placement import LedGroup
from proto import control_pb2
from proto.catalog_client import CatalogClient
from tests.unit.admin_fakes import NODES, FakeNodes
from tests.unit.catalog_fakes import FakeCluster


def status(group, role, replica_id, *, term=3, last=500, match=None):
    return control_pb2.ReplicaStatus(
        partition=control_pb2.Partition(group=group),
        replica_id=replica_id,
        role=role,
        term=term,
        last_index=last,
        match_index=match or {},
    )


def report(node_id, *replicas):
    return control_pb2.NodeStatusResponse(node_id=node_id, replicas=replicas)


def test_only_followers_with_nearly_all_of_the_log_are_fit():
    behind = 500 - LAG_ENTRIES_MAX - 1
    groups = led_groups(
        [
            report("a", status(1, "leader", 1, match={2: 500, 3: behind, 4: 500, 5: 500})),
            report("b", status(1, "follower", 2)),
            report("c", status(1, "follower", 3)),
            report("d", status(1, "learner", 4)),
            report("e", status(1, "follower", 5, term=2)),
            report("f", status(1, "follower", 6)),
        ]
    )
    assert groups == [LedGroup(1, "a", ("b",))]


def test_of_two_that_say_they_lead_the_newer_one_does():
    groups = led_groups(
        [
            report("a", status(1, "leader", 1, term=7, match={2: 500})),
            report("b", status(1, "leader", 2, term=8, match={1: 500})),
        ]
    )
    assert groups == [LedGroup(1, "b", ())]


def test_what_two_passes_find_is_moved():
    async def scenario():
        cluster = FakeCluster(NODES)
        catalog = CatalogClient(cluster)
        catalog.start()
        await catalog.ready()
        nodes = FakeNodes(cluster)
        for number, node in enumerate(NODES, 1):
            nodes.replicas[node.node_id] = {
                group: status(
                    group,
                    "leader" if number == 1 else "follower",
                    number,
                    match={2: 500, 3: 500},
                )
                for group in (1, 2, 3)
            }

        def leaders():
            return [
                next(n for n in nodes.replicas if nodes.replicas[n][group].role == "leader")
                for group in (1, 2, 3)
            ]

        first, second, third = (node.node_id for node in NODES)
        balance = Balance(catalog, nodes, lambda: True, CollectorRegistry())
        await balance.make_pass()
        assert leaders() == [first] * 3  # seen once is not enough
        nodes.down.add(second)
        await balance.make_pass()
        assert leaders() == [first] * 3  # now something else would be right
        nodes.down.clear()
        await balance.make_pass()
        await balance.make_pass()
        assert sorted(leaders()) == sorted([first, second, third])
        before = leaders()
        await balance.make_pass()
        await balance.make_pass()
        assert leaders() == before
        await catalog.stop()

    asyncio.run(scenario())
