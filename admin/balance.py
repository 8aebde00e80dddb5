"""Spreads leaderships over the nodes again, after one was away: whoever leads has the work of a group.

Gently: only what two passes in a row find, a few at a time, only to replicas that have the whole log, so that
each costs its group some milliseconds. Decided in `placement.choose_transfers`.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from admin.nodes import NodeRefused, NodeUnreachable, StorageNodes, fetch_statuses, leaders
from admin.placement import LedGroup, Transfer, choose_transfers
from proto import control_pb2
from proto.catalog_client import CatalogClient

log = logging.getLogger(__name__)

INTERVAL_S: Final = 10.0
TRANSFERS_MAX: Final = 16
"""Leaderships moved in one pass."""
PAUSE_S: Final = 0.1
"""Between two of them."""
LAG_ENTRIES_MAX: Final = 64
"""A replica further behind would keep its group's writers waiting until it has caught up."""

Report = control_pb2.NodeStatusResponse


def led_groups(reports: Collection[Report]) -> list[LedGroup]:
    """The groups that these nodes lead, and who else of these nodes could. Pure."""
    followers: dict[int, list[tuple[str, control_pb2.ReplicaStatus]]] = {}
    for report in reports:
        for replica in report.replicas:
            if replica.role == "follower":
                group = replica.partition.group
                followers.setdefault(group, []).append((report.node_id, replica))
    return [
        LedGroup(
            group,
            node_id,
            tuple(
                follower_id
                for follower_id, follower in followers.get(group, ())
                if follower.term == leader.term
                and leader.last_index - leader.match_index.get(follower.replica_id, 0)
                <= LAG_ENTRIES_MAX
            ),
        )
        for group, (node_id, leader) in sorted(leaders(reports).items())
    ]


class Balance:
    """Makes passes while told to act."""

    def __init__(
        self,
        catalog: CatalogClient,
        nodes: StorageNodes,
        acts: Callable[[], bool],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Create; `run` makes the passes.

        Args:
            catalog: Which nodes there are.
            nodes: Who leads, and whom to ask.
            acts: Whether this admin may act.
            registry: For metrics.
        """
        self._catalog = catalog
        self._nodes = nodes
        self._acts = acts
        self._found: frozenset[Transfer] = frozenset()
        self._moved = Counter(
            "quorate_admin_leaderships_moved",
            "Leaderships that were asked to move to a node that leads less.",
            registry=registry,
        )

    async def run(self) -> None:
        """Make a pass every `INTERVAL_S`, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                if self._acts() and self._catalog.is_current:
                    await self.make_pass()
                else:
                    self._found = frozenset()
            except Exception:
                log.exception("balance pass failed")

    async def make_pass(self) -> None:
        """Look, and move what the pass before would have moved too."""
        rows = {row.node_id: row for row in self._catalog.view.current_nodes()}
        answers: Mapping[str, Report | str] = await fetch_statuses(self._nodes, rows.values())
        reports = [answer for answer in answers.values() if not isinstance(answer, str)]
        wanted = choose_transfers(led_groups(reports), [report.node_id for report in reports])
        agreed = [transfer for transfer in wanted if transfer in self._found]
        self._found = frozenset(wanted)
        replica_ids = {
            (report.node_id, replica.partition.group): replica.replica_id
            for report in reports
            for replica in report.replicas
        }
        for transfer in agreed[:TRANSFERS_MAX]:
            replica_id = replica_ids[transfer.target, transfer.group]
            try:
                asked = await self._nodes.transfer_leadership(
                    rows[transfer.source], transfer.group, replica_id
                )
            except (NodeUnreachable, NodeRefused):
                continue
            if asked:
                self._moved.inc()
                log.info(
                    "leadership moves",
                    extra={
                        "group": transfer.group,
                        "from_node": transfer.source,
                        "to_node": transfer.target,
                    },
                )
            await asyncio.sleep(PAUSE_S)
