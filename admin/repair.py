"""The repair pass: what the catalog says is compared with what nodes report, and the difference is made good.

    a replica is missing on a node that answers       opened, with the id that the catalog gives it
    a node has a replica that the catalog knows not   closed
    a replica is on a disk that is gone for good      replaced on another one (`replica_jobs`)

The catalog's own group has no row: its leader says who its members are.

A disk (node id) that does not list a replica never opened it, or closed it: what it once opened it lists after
every restart. So opening it under its id lets no acknowledged write be forgotten; a node refuses what it has
closed. A replica that a group did not begin with is opened blank and gets a snapshot. A node's report is always
taken before the catalog is read, and rows are written before replicas are opened: what the catalog does not know
then is left over, not new.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from admin.lost_disks import LostReplica, choose_target, is_superseded
from admin.nodes import NodeRefused, NodeUnreachable, StorageNodes, fetch_statuses, leaders
from admin.placement import Candidate
from admin.replica_jobs import KIND, catalog_partition, job_id, new_job
from datamodel.catalog_rows import (
    CATALOG_GROUP,
    FIRST_LATER_REPLICA_ID,
    NEXT_REPLICA_ID,
    JobRow,
    NodeRow,
    PartitionRow,
    ReplicaRow,
    SettingRow,
    job_key,
    partition_key,
    setting_key,
)
from proto import control_pb2
from proto.catalog_client import CatalogClient, CatalogUnavailable, WriteConflict, insert, update
from proto.catalog_view import CatalogView, RowChange

log = logging.getLogger(__name__)

INTERVAL_S: Final = 10.0
SETTLE_S: Final = 1.0
"""How long after a node's change the next pass begins."""
REPLACE_AFTER_S: Final = 600.0
"""How long a node must not have answered before its replicas are replaced, unless configured."""
REPLACEMENTS_MAX: Final = 4
"""Replacements at a time: each streams a partition's data."""

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
    replica_id: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What a pass found."""

    missing: list[Missing]
    leftover: list[Leftover]
    lost: list[LostReplica]
    """Replicas on disks that are gone, the catalog's first."""


def compare(
    view: CatalogView,
    reports: Mapping[str, Report | str],
    silent: Collection[str] = frozenset(),
) -> Findings:
    """Compare the catalog with the nodes' reports. Groups that a job is at are left to it. Pure.

    Args:
        view: The catalog.
        reports: By node id of the current nodes; text for one that did not answer.
        silent: Node ids that have not answered for so long that they are given up.
    """
    findings = Findings([], [], [])
    busy = {int(job.args["group"]) for job in view.jobs.values() if job.kind == KIND}
    catalog = _catalog_partition(reports)
    for node_id, report in reports.items():
        if isinstance(report, str) or node_id not in view.nodes:
            continue
        for replica in report.replicas:
            group = replica.partition.group
            known = catalog if group == CATALOG_GROUP else view.group(group)
            if group in busy or (group == CATALOG_GROUP and known is None):
                continue
            if known is None or ReplicaRow(replica.replica_id, node_id) not in known.replicas:
                findings.leftover.append(
                    Leftover(
                        view.nodes[node_id],
                        group,
                        replica.partition.table_id,
                        replica.replica_id,
                    )
                )
    listed = {
        (replica.partition.group, node_id)
        for node_id, report in reports.items()
        if not isinstance(report, str)
        for replica in report.replicas
    }
    partitions = [] if catalog is None else [catalog]
    for partition in view.groups():
        table = view.tables_by_id.get(partition.table_id)
        if table is not None and table.serves_items:  # else a job is at it
            partitions.append(partition)
    for partition in partitions:
        if partition.group in busy:
            continue
        for member in partition.replicas:
            if is_superseded(view, member.node_id) or member.node_id in silent:
                findings.lost.append(
                    LostReplica(partition.group, member.replica_id, member.node_id)
                )
            elif (
                not isinstance(reports.get(member.node_id, ""), str)
                and (partition.group, member.node_id) not in listed
            ):
                findings.missing.append(Missing(view.nodes[member.node_id], partition, member))
    return findings


def _catalog_partition(reports: Mapping[str, Report | str]) -> PartitionRow | None:
    """Group 0 by the word of its leader; None while nobody leads it."""
    leader = leaders(reports.values()).get(CATALOG_GROUP)
    if leader is None:
        return None
    return catalog_partition({member.replica_id: member for member in leader[1].members})


class Repair:
    """Makes passes while told to act."""

    def __init__(
        self,
        catalog: CatalogClient,
        nodes: StorageNodes,
        acts: Callable[[], bool],
        registry: CollectorRegistry = REGISTRY,
        *,
        replace_after_s: float = REPLACE_AFTER_S,
        now: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
    ) -> None:
        """Create; `run` makes the passes.

        Args:
            catalog: What is to be.
            nodes: What is.
            acts: Whether this admin may act.
            registry: For metrics.
            replace_after_s: How long a node must not have answered before its replicas are replaced; 0: for ever.
            now: Monotonic clock.
        """
        self._replace_after_s = replace_after_s
        self._now = now
        self._silent_since: dict[str, float] = {}
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
        for change in changes:
            ended = (
                change.new is None and isinstance(change.old, JobRow) and change.old.kind == KIND
            )
            if ended or isinstance(change.new, NodeRow):
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
        findings = compare(view, reports, self._silent(reports))
        self._lost.set(len(findings.lost))
        for lost in findings.lost:
            self._tell("replica is on a disk that is no more", lost.group, lost.node_id)
        await self._replace(findings.lost, reports)
        await asyncio.gather(*(self._open(missing) for missing in findings.missing))
        await self._close(findings.leftover)

    def _silent(self, reports: Mapping[str, Report | str]) -> frozenset[str]:
        """The nodes that have not answered this admin for `replace_after_s`; none while most do not."""
        silent = [node_id for node_id, report in reports.items() if isinstance(report, str)]
        now = self._now()
        self._silent_since = {n: self._silent_since.get(n, now) for n in silent}
        if not self._replace_after_s or len(silent) * 2 > len(reports):
            return frozenset()
        return frozenset(
            n for n, since in self._silent_since.items() if now - since >= self._replace_after_s
        )

    async def _replace(
        self, lost: Iterable[LostReplica], reports: Mapping[str, Report | str]
    ) -> None:
        """Leave jobs that replace lost replicas, as many as may run."""
        view = self._catalog.view
        running = sum(job.kind == KIND for job in view.jobs.values())
        load = Tally(r.node_id for partition in view.groups() for r in partition.replicas)
        taken: set[int] = set()
        leader_of = leaders(reports.values())
        for each in lost:
            if running + len(taken) >= REPLACEMENTS_MAX:
                return
            leader = leader_of.get(each.group)
            if each.group in taken or leader is None:
                continue
            candidates = [
                Candidate(
                    n.node_id,
                    n.az,
                    load[n.node_id],
                    is_live=not isinstance(reports.get(n.node_id, ""), str),
                )
                for n in view.current_nodes()
            ]
            members = {member.replica_id: member.node_id for member in leader[1].members}
            target = choose_target(members, each, candidates)
            if target is None:
                self._tell("no node can take the replica", each.group, each.node_id)
                continue
            known = view.group(each.group)
            table_id = 0 if known is None else known.table_id
            if await self._leave_job(each, table_id, target):
                taken.add(each.group)
                load[target] += 1

    async def _leave_job(self, lost: LostReplica, table_id: int, target: str) -> bool:
        """Write the job that replaces a replica, with a fresh replica id."""
        counter = await self._catalog.fetch_row(setting_key(NEXT_REPLICA_ID))
        assert counter is None or isinstance(counter, SettingRow)
        new = FIRST_LATER_REPLICA_ID if counter is None else int(counter.values["value"])
        version = 1 if counter is None else counter.version + 1
        following = SettingRow(NEXT_REPLICA_ID, {"value": new + 1}, version)
        job = new_job(lost, table_id, new, target)
        try:
            await self._catalog.write(
                [insert(following) if counter is None else update(following), insert(job)]
            )
        except WriteConflict:
            return False
        log.warning(
            "lost replica is replaced",
            extra={"group": lost.group, "lost": lost.node_id, "node": target},
        )
        return True

    async def _open(self, missing: Missing) -> None:
        group, node_id = missing.partition.group, missing.node.node_id
        partition, replica_id = missing.partition, missing.replica.replica_id
        addresses = self._catalog.view.addresses(partition)
        try:
            if partition.epoch == 1 and group != CATALOG_GROUP:
                await self._nodes.open_replica(
                    missing.node, partition, addresses, replica_id, campaign=False
                )
            else:
                # The group has changed since it began: this replica cannot begin where it did.
                await self._nodes.join_replica(missing.node, partition, addresses, replica_id)
        except NodeUnreachable:
            return
        except NodeRefused as error:
            self._tell(f"missing replica cannot be opened: {error}", group, node_id)
            return
        self._opened.inc()
        log.info("missing replica opened", extra={"group": group, "node": node_id})

    async def _close(self, leftovers: Iterable[Leftover]) -> None:
        for leftover in leftovers:
            if await self._is_wanted(leftover):
                continue
            node_id = leftover.node.node_id
            try:
                await self._nodes.close_replica(leftover.node, leftover.group, leftover.replica_id)
            except (NodeUnreachable, NodeRefused):
                continue
            self._closed.inc()
            log.info("left-over replica closed", extra={"group": leftover.group, "node": node_id})

    async def _is_wanted(self, leftover: Leftover) -> bool:
        """The copy may lag behind a table or a replica that is just being created: the truth itself decides."""
        # The job first: before it ends, what it made is in the row and among the members.
        if await self._catalog.fetch_row(job_key(job_id(leftover.group))) is not None:
            return True
        row: PartitionRow | None
        if leftover.group == CATALOG_GROUP:
            reports = await fetch_statuses(
                self._nodes, self._catalog.view.current_nodes(), [CATALOG_GROUP]
            )
            row = _catalog_partition(reports)
            if row is None:
                return True
        else:
            found = await self._catalog.fetch_row(partition_key(leftover.table_id, leftover.group))
            row = found if isinstance(found, PartitionRow) else None
        replica = ReplicaRow(leftover.replica_id, leftover.node.node_id)
        return row is not None and replica in row.replicas

    def _tell(self, message: str, group: int, node_id: str) -> None:
        """Log once, not every pass."""
        if (message, group, node_id) not in self._told:
            self._told.add((message, group, node_id))
            log.warning(message, extra={"group": group, "node": node_id})
