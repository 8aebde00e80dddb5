"""The processes of one run, and what is known of them from outside."""

from pathlib import Path
from typing import Any

from datamodel.catalog_rows import CATALOG_GROUP
from storagenode.joining.bootstrap import InitialNode
from tests.simulation.cluster_network import Network
from tests.simulation.cluster_processes import (
    AdminProcess,
    RouterProcess,
    StorageProcess,
    address,
)
from tests.simulation.cluster_world import Process, World


class Cluster:
    """The processes of a run."""

    def __init__(self, world: World, directory: Path) -> None:
        rng = world.rng
        self.world = world
        self.network = network = Network(world)
        count = rng.choice((3, 3, 3, 4, 5))
        self.nodes = [
            StorageProcess(world, network, f"s{n}", f"az{n % 3}", directory) for n in range(count)
        ]
        initial = [InitialNode(n.name, n.az, address(n.name)) for n in self.nodes]
        for node in self.nodes:
            node.initial = initial
        seeds = [node.address for node in initial]
        self.routers = [RouterProcess(world, network, f"r{n}", f"az{n}", seeds) for n in range(2)]
        self.admins = [
            AdminProcess(world, network, f"m{n}", seeds) for n in range(rng.choice((1, 2)))
        ]
        self.processes: list[Process] = [*self.nodes, *self.routers, *self.admins]
        for process in self.processes:
            world.after(0.3 * rng.random(), process.restart)

    def is_whole_but_for(self, node: StorageProcess) -> bool:
        """Whether every copy on the other nodes is there and sound, and no group has a voter on a lost disk: then
        this one disk may be damaged.
        """
        others = [other for other in self.nodes if other is not node]
        if not all(o.is_running and o.has_cluster and not o.machine.is_damaged for o in others):
            return False
        newest: dict[int, Any] = {}
        for each in self.nodes:
            for group, replica in each.replicas.items():
                known = newest.get(group)
                if known is None or replica.applied_index > known.applied_index:
                    newest[group] = replica
        homes = {each.node_id: each for each in self.nodes}
        for group, replica in newest.items():
            for member in replica.configuration.members:
                home = homes.get(member.node_id)
                if member.is_learner or home is node:
                    continue
                copy = None if home is None else home.replicas.get(group)
                if copy is None or copy.replica_id != member.replica_id or not copy.standing.serves:
                    return False
        return CATALOG_GROUP in newest and bool(newest[CATALOG_GROUP].configuration.members)
