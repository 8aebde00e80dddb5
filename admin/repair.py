"""The repair pass: what the catalog says is compared with what nodes report, and the difference is made good.

    a replica is missing on a node that answers       opened, with the id that the catalog gives it
    a node has a replica that the catalog knows not   closed
    a replica is on a disk that is no more            reported; moving it elsewhere is not built yet

A disk (node id) that does not list a replica never opened it, or closed it: what it once opened it lists after
every restart. So opening it under its id lets no acknowledged write be forgotten; a node refuses what it has
closed. A node's report is always taken before the catalog is read, and rows are written before replicas are
opened: what the catalog does not know then is left over, not new.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from admin.nodes import NodeRefused, NodeUnreachable, StorageNodes, fetch_statuses
from datamodel.catalog_rows import CATALOG_GROUP, NodeRow, PartitionRow, ReplicaRow, partition_key
from proto import control_pb2
from proto.catalog_client import CatalogClient, CatalogUnavailable
from proto.catalog_view import CatalogView, RowChange

log = logging.getLogger(__name__)

INTERVAL_S: Final = 10.0
SETTLE_S: Final = 1.0
"""How long after a node's change the next pass begins."""

Report = control_pb2.NodeStatusResponse


@dataclass(frozen=True, slots=True)
class Missing:
    """A replica to open."""

    node: NodeRow
    partition: PartitionRow
    replica: ReplicaRow


@dataclass(frozen=True, slots=True)
class Leftover:
    """A replica that the catalog may not know."""

    node: NodeRow
    group: int
    table_id: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a pass found."""

    missing: list[Missing]
    leftover: list[Leftover]
    lost: list[tuple[int, str]]
    """(group, node id) of replicas on disks that are no more."""


def compare(view: CatalogView, reports: Mapping[str, Report | str]) -> Findings:
    """Compare the catalog with the nodes' reports. Pure.

    Args:
        view: The catalog.
        reports: By node id of the current nodes; text for one that did not answer.
    """
    findings = Findings([], [], [])
    for node_id, report in reports.items():
        if isinstance(report, str) or node_id not in view.nodes:
            continue
        for replica in report.replicas:
            group = replica.partition.group
            known = view.group(group)
            if group != CATALOG_GROUP and (
                known is None or all(r.node_id != node_id for r in known.replicas)
            ):
                findings.leftover.append(
                    Leftover(view.nodes[node_id], group, replica.partition.table_id)
                )
    listed = {
        (replica.partition.group, node_id)
        for node_id, report in reports.items()
        if not isinstance(report, str)
        for replica in report.replicas
    }
    for partition in view.groups():
        table = view.tables_by_id.get(partition.table_id)
        if table is None or not table.serves_items:
            continue  # a job is at it
        for member in partition.replicas:
            report_of_member = reports.get(member.node_id)
            if report_of_member is None:
                findings.lost.append((partition.group, member.node_id))
            elif (
                not isinstance(report_of_member, str)
                and (partition.group, member.node_id) not in listed
            ):
                findings.missing.append(Missing(view.nodes[member.node_id], partition, member))
    return findings


class Repair:
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
            catalog: What is to be.
            nodes: What is.
            acts: Whether this admin may act.
            registry: For metrics.
        """
        self._catalog = catalog
        self._nodes = nodes
        self._acts = acts
        self._wake = asyncio.Event()
        self._told: set[tuple[str, int, str]] = set()
        self._opened = Counter(
            "quorate_admin_replicas_opened", "Missing replicas opened.", registry=registry
        )
        self._closed = Counter(
            "quorate_admin_replicas_closed", "Left-over replicas closed.", registry=registry
        )
        self._lost = Gauge(
            "quorate_admin_replicas_lost",
            "Replicas that the catalog has on disks that are no more.",
            registry=registry,
        )
        catalog.subscribe(self._hear)

    def _hear(self, changes: list[RowChange]) -> None:
        if any(isinstance(change.new, NodeRow) for change in changes):
            self._wake.set()

    async def run(self) -> None:
        """Make a pass every `INTERVAL_S`, and soon after a node appears or moves, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._wake.wait()
                    await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                if self._acts() and self._catalog.is_current:
                    await self.make_pass()
            except CatalogUnavailable:
                continue
            except Exception:
                log.exception("repair pass failed")

    async def make_pass(self) -> None:
        """Compare and make good, once.

        Raises:
            CatalogUnavailable: The catalog did not answer a question that had to be asked.
        """
        view = self._catalog.view
        reports = await fetch_statuses(self._nodes, view.current_nodes())
        findings = compare(view, reports)
        self._lost.set(len(findings.lost))
        for group, node_id in findings.lost:
            self._tell("replica is on a disk that is no more", group, node_id)
        await asyncio.gather(*(self._open(missing) for missing in findings.missing))
        await self._close(findings.leftover)

    async def _open(self, missing: Missing) -> None:
        group, node_id = missing.partition.group, missing.node.node_id
        try:
            await self._nodes.open_replica(
                missing.node,
                missing.partition,
                self._catalog.view.addresses(missing.partition),
                missing.replica.replica_id,
                campaign=False,
            )
        except NodeUnreachable:
            return
        except NodeRefused as error:
            self._tell(f"missing replica cannot be opened: {error}", group, node_id)
            return
        self._opened.inc()
        log.info("missing replica opened", extra={"group": group, "node": node_id})

    async def _close(self, leftovers: Iterable[Leftover]) -> None:
        for leftover in leftovers:
            # The copy may lag behind a table that is just being created: the catalog itself decides.
            key = partition_key(leftover.table_id, leftover.group)
            row = await self._catalog.fetch_row(key)
            node_id = leftover.node.node_id
            if isinstance(row, PartitionRow) and any(r.node_id == node_id for r in row.replicas):
                continue
            try:
                await self._nodes.close_replica(leftover.node, leftover.group)
            except (NodeUnreachable, NodeRefused):
                continue
            self._closed.inc()
            log.info("left-over replica closed", extra={"group": leftover.group, "node": node_id})

    def _tell(self, message: str, group: int, node_id: str) -> None:
        """Log once, not every pass."""
        if (message, group, node_id) not in self._told:
            self._told.add((message, group, node_id))
            log.warning(message, extra={"group": group, "node": node_id})
