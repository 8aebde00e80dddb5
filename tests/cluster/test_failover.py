"""How fast the cluster gets over the loss of a leader, and that a planned restart costs clients nothing.

The numbers are printed; what is asserted leaves room for a busy machine.
"""

import time
from collections import Counter
from statistics import median
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.chaos.gaps import Probe, summary
from tests.chaos.network import bad_network, find_firewall
from tests.cluster.fault_table import TABLE, create_table, groups_of_table, wait_writable
from tests.cluster.harness import LocalCluster, http_get, running_cluster, wait_until
from tests.cluster.workload import Clients

KILLED_S = 4.0
STOPPED_S = 1.0
# TCP's own next attempt after seven seconds would come at 12.6.
CUT_OFF_S = 7.0
FOLLOWS_AGAIN_S = 4.5


def leader(cluster: LocalCluster, group: int) -> str:
    return wait_until(lambda: cluster.leader_of(group), 15, "a leader")


def test_killed_leaders_are_replaced_soon(own_cluster: LocalCluster, tell):
    create_table(own_cluster, partitions=1)
    (group,) = groups_of_table(own_cluster)
    gaps = []
    with Probe(lambda: own_cluster.http, TABLE, "k") as probe:
        for _ in range(3):
            name = leader(own_cluster, group)
            time.sleep(0.5)
            killed = time.monotonic()
            own_cluster.kill(name)
            assert probe.wait_for_writes(killed + 0.3, 50, 20)
            gaps.append(probe.gap_since(killed))
            own_cluster.restart(name)
            wait_until(own_cluster.is_ready, 30, "cluster ready")
    tell(f"{summary('kill -9 of a leader', gaps)}")
    assert median(gap.first_write_s for gap in gaps) < KILLED_S


def test_a_planned_stop_moves_leadership_first_and_a_rejoin_disturbs_nobody(
    own_cluster: LocalCluster, tell
):
    create_table(own_cluster, partitions=3)
    group, *_ = groups_of_table(own_cluster)
    own_cluster.terminate(
        "admin-0"
    )  # it would spread leaderships again: another reason for new terms
    gaps = []
    with Probe(lambda: own_cluster.http, TABLE, "k", clients=6) as probe:
        for _ in range(4):
            name = leader(own_cluster, group)
            time.sleep(0.5)
            stopped = time.monotonic()
            own_cluster.terminate(name)
            assert probe.wait_for_writes(time.monotonic(), 50, 20)
            gaps.append(probe.gap_since(stopped))
            terms = own_cluster.terms()
            own_cluster.restart(name)
            own_cluster.wait_process_ready(name)
            # Pre-votes: whoever comes back asks before it stands, and is told that a leader is there.
            assert own_cluster.terms() == terms
        failures = probe.failure_counts()
    tell(f"{summary('SIGTERM of a leader', gaps)}")
    assert median(gap.gap_s for gap in gaps) < STOPPED_S
    assert not failures


class SdkLoad(Clients):
    """boto3 clients with their standard retries, each counting what its caller would see fail."""

    def __init__(self, cluster: LocalCluster, clients: int) -> None:
        super().__init__(clients)
        self.done = 0
        self.errors: Counter[str] = Counter()
        self._cluster = cluster

    def run(self, number: int) -> None:
        client: Any = self._cluster.client(retries={"mode": "standard"})
        value = 0
        while not self.is_over.is_set():
            value += 1
            key = {"pk": {"S": f"sdk-{number}-{value % 20}"}}
            try:
                client.put_item(TableName=TABLE, Item={**key, "v": {"N": str(value)}})
                read = client.get_item(TableName=TABLE, Key=key, ConsistentRead=True)
                if read["Item"]["v"]["N"] != str(value):
                    self.errors["stale read"] += 1
                self.done += 2
            except (ClientError, BotoCoreError) as error:
                self.errors[repr(error)] += 1
        client.close()


@pytest.fixture
def two_routers(tmp_path):
    flags = ("--routers", "2", "--no-restart")
    with running_cluster(tmp_path / "data", *flags) as running:
        yield running


def test_rolling_restart_of_every_process_fails_no_request(two_routers: LocalCluster, tell):
    create_table(two_routers, partitions=3)
    wait_writable(two_routers)
    began = time.monotonic()
    with (
        Probe(lambda: two_routers.http, TABLE, "k", clients=2) as probe,
        SdkLoad(two_routers, clients=4) as load,
    ):
        time.sleep(0.5)
        for process in two_routers.processes():
            name = process["name"]
            two_routers.terminate(name)
            two_routers.restart(name)
            two_routers.wait_process_ready(name)
        wait_until(two_routers.is_ready, 30, "cluster ready")
        time.sleep(0.5)
    gap = probe.gap_since(began)
    tell(
        f"rolling restart of {len(two_routers.processes())} processes: {load.done} requests of boto3"
        f" with standard retries, {sum(load.errors.values())} failed; {len(probe.acknowledged_at)} writes"
        f" without retries, {len(probe.failures)} failed {probe.failure_counts()},"
        f" longest gap {gap.gap_s * 1000:.0f} ms"
    )
    assert not load.errors
    assert load.done > 100


@pytest.mark.skipif(isinstance(find_firewall(), str), reason=str(find_firewall()))
def test_requests_leave_a_leader_that_is_cut_off(two_routers: LocalCluster, tell):
    create_table(two_routers, partitions=1)
    (group,) = groups_of_table(two_routers)
    firewall = find_firewall()
    assert not isinstance(firewall, str)
    gaps = []
    with Probe(lambda: two_routers.http, TABLE, "k") as probe:
        for _ in range(2):
            name = leader(two_routers, group)
            time.sleep(0.5)
            cut = time.monotonic()
            with bad_network(firewall, [two_routers.pid(name)], 100):
                assert probe.wait_for_writes(cut + 0.3, 50, 20)
                gaps.append(probe.gap_since(cut))
                time.sleep(1.0)
            wait_until(two_routers.is_ready, 30, "cluster ready")
    tell(f"{summary('leader cut off', gaps)}")
    assert max(gap.gap_s for gap in gaps) < 2 * KILLED_S
    assert not probe.failure_counts()


@pytest.mark.skipif(isinstance(find_firewall(), str), reason=str(find_firewall()))
def test_a_follower_that_was_cut_off_follows_again_soon_after(own_cluster: LocalCluster, tell):
    """TCP by itself would try again as long after as it had lasted, more or less, and until then the loss of the
    leader would leave no majority.
    """
    create_table(own_cluster, partitions=1)
    (group,) = groups_of_table(own_cluster)
    firewall = find_firewall()
    assert not isinstance(firewall, str)

    def applied(name: str) -> float:
        text = http_get(own_cluster.process(name)["metrics"])[1]
        label = f'quorate_storagenode_raft_applied_index{{group="{group}"}} '
        return next(float(x.split()[1]) for x in text.splitlines() if x.startswith(label))

    with Probe(lambda: own_cluster.http, TABLE, "k") as probe:
        ahead = leader(own_cluster, group)
        others = [p["name"] for p in own_cluster.processes("storagenode") if p["name"] != ahead]
        with bad_network(firewall, [own_cluster.pid(others[0])], 100):
            time.sleep(CUT_OFF_S)
        healed = time.monotonic()
        until = applied(ahead)
        wait_until(lambda: applied(others[0]) >= until, 60, "it follows", 0.05)
        took_s = time.monotonic() - healed
        assert probe.wait_for_writes(healed, 10, 20)
    tell(f"cut off for {CUT_OFF_S:.0f} s: follows {took_s:.1f} s after that")
    assert took_s < FOLLOWS_AGAIN_S


def test_leaderships_are_spread_again_after_a_node_was_away(own_cluster: LocalCluster):
    create_table(own_cluster, partitions=5)
    groups = [0, *groups_of_table(own_cluster)]

    def leaders() -> Counter[str | None]:
        return Counter(own_cluster.leader_of(group) for group in groups)

    name = own_cluster.processes("storagenode")[0]["name"]
    own_cluster.terminate(name)
    wait_until(lambda: sum(leaders().values()) == len(groups), 15, "others lead")
    assert leaders()[name] == 0
    own_cluster.restart(name)
    own_cluster.wait_process_ready(name)
    # Two passes ten seconds apart have to agree on it.
    wait_until(lambda: sorted(leaders().values()) == [2, 2, 2], 60, "leaderships spread", 0.5)
