"""Creating and deleting tables: what the jobs that routers leave in the catalog come to.

    create_table   place -> open -> done     place: groups and replicas are chosen and written
                                             open: replicas are opened, leaders elected, the table is ACTIVE
    delete_table   close -> done             close: replicas are closed, then all rows go

A node that is down does not hold up either: a table is ACTIVE when every partition has a leader, for which a
majority of its replicas must be open; what is missing, or left over on a node that was away, is the business of
`admin.repair`.
"""

import asyncio
import logging
from dataclasses import replace
from typing import Final

from admin.jobs import Handler, NotYet
from admin.nodes import NodeRefused, NodeUnreachable, StorageNodes, fetch_statuses
from admin.placement import Candidate, choose_first_leaders, place_partitions
from datamodel.catalog_rows import (
    CATALOG_GROUP,
    FIRST_USER_GROUP,
    NEXT_GROUP_ID,
    JobRow,
    NodeRow,
    PartitionRow,
    ReplicaRow,
    SettingRow,
    setting_key,
)
from datamodel.key_encoding import partition_bounds
from datamodel.table_descriptions import TableDescription, initial_partitions
from proto import control_pb2
from proto.catalog_client import CatalogClient, RowWrite, insert, remove, update
from proto.cluster_client import ClusterClient
from proto.messages import ReplicaAddress, Stats, StatsReply

log = logging.getLogger(__name__)

LEADER_TIMEOUT_S: Final = 3.0
"""How long a step waits for a new group's leader before it looks at the nodes again."""
ROWS_PER_WRITE: Final = 90


class TableJobs:
    """Handlers of the jobs on tables (`admin.jobs`)."""

    def __init__(self, catalog: CatalogClient, client: ClusterClient, nodes: StorageNodes) -> None:
        """Create.

        Args:
            catalog: What is to be.
            client: Reaches the groups.
            nodes: Who holds them.
        """
        self._catalog = catalog
        self._client = client
        self._nodes = nodes

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        return {"create_table": self.create, "delete_table": self.delete}

    # --- create ---

    async def create(self, job: JobRow) -> JobRow | None:
        """One step of creating a table."""
        table = await self._catalog.fetch_table(job.table_name)
        if table is None or table.table_id != job.table_id or table.status != "CREATING":
            await self._catalog.write([remove(job)])
            return None
        if job.step == "place":
            return await self._place(job, table)
        await self._open(job, table)
        return None

    async def _place(self, job: JobRow, table: TableDescription) -> JobRow:
        """Choose groups and replicas, and write them."""
        candidates = await self._candidates()
        count = initial_partitions(table)
        counter = await self._catalog.fetch_row(setting_key(NEXT_GROUP_ID))
        assert counter is None or isinstance(counter, SettingRow)
        first = FIRST_USER_GROUP if counter is None else int(counter.values["value"])
        version = 1 if counter is None else counter.version + 1
        next_counter = SettingRow(NEXT_GROUP_ID, {"value": first + count}, version)
        bounds = partition_bounds(table.table_id, count)
        rows = [
            PartitionRow(
                group=first + place,
                table_id=table.table_id,
                start=bounds[place],
                end=bounds[place + 1],
                epoch=1,
                replicas=tuple(
                    ReplicaRow(number, node_id) for number, node_id in enumerate(members, 1)
                ),
            )
            for place, members in enumerate(place_partitions(candidates, count))
        ]
        following = replace(job, step="open", version=job.version + 1)
        await self._catalog.write(
            [
                insert(next_counter) if counter is None else update(next_counter),
                update(following),
                *(insert(row) for row in rows),
            ]
        )
        return following

    async def _candidates(self) -> list[Candidate]:
        """The nodes that replicas can be placed on, with what they hold."""
        view = self._catalog.view
        rows = view.current_nodes()
        found = self._client.replicas(CATALOG_GROUP)
        # Whoever holds the catalog is a node, registered or not: a table must not be placed on the one node
        # that was first to register.
        rows += [
            NodeRow(address.node_id, address.node_id, address.az, address.address)
            for address in found
            if address.node_id not in view.nodes
        ]
        if not found or not rows:
            raise NotYet("no storage node is known yet")
        statuses = await fetch_statuses(self._nodes, rows)
        held = {row.node_id: 0 for row in rows}
        for partition in view.groups():
            for replica in partition.replicas:
                if replica.node_id in held:
                    held[replica.node_id] += 1
        return [
            Candidate(
                row.node_id,
                row.az,
                held[row.node_id],
                _leaders(statuses[row.node_id]),
                not isinstance(statuses[row.node_id], str),
            )
            for row in rows
        ]

    async def _open(self, job: JobRow, table: TableDescription) -> None:
        """Open the replicas, wait for leaders, and let the table be ACTIVE."""
        partitions = await self._catalog.fetch_partitions(table.table_id)
        for partition in partitions:  # the copy may lag; whoever asks a group must know where it is
            self._client.update_groups({partition.group: self._addresses(partition)})
        members = {p.group: [replica.node_id for replica in p.replicas] for p in partitions}
        involved = {node_id for ids in members.values() for node_id in ids}
        rows = [self._node(node_id) for node_id in sorted(involved)]
        statuses = await fetch_statuses(self._nodes, rows)
        candidates = [
            Candidate(
                row.node_id,
                row.az,
                leaders=_leaders(statuses[row.node_id]),
                is_live=not isinstance(statuses[row.node_id], str),
            )
            for row in rows
        ]
        first = choose_first_leaders(members, candidates)
        live = {candidate.node_id for candidate in candidates if candidate.is_live}
        outcomes = await asyncio.gather(
            *(self._open_partition(p, first[p.group], live) for p in partitions)
        )
        reasons = [reason for reason in outcomes if reason]
        if reasons:
            raise NotYet(f"{len(reasons)} of {len(partitions)} partitions: {reasons[0]}")
        await self._catalog.write([update(table.with_status("ACTIVE")), remove(job)])

    async def _open_partition(self, partition: PartitionRow, first: str, live: set[str]) -> str:
        """Open a partition's replicas, `first` last; empty when it has a leader, else why not."""
        others = [r for r in partition.replicas if r.node_id != first and r.node_id in live]
        chosen = [r for r in partition.replicas if r.node_id == first and r.node_id in live]
        opened = await asyncio.gather(*(self._open_replica(partition, r, False) for r in others))
        opened += [await self._open_replica(partition, replica, True) for replica in chosen]
        if sum(opened) <= len(partition.replicas) // 2:
            return f"group {partition.group}: {sum(opened)} of {len(partition.replicas)} replicas"
        answer = await self._client.request(Stats(0, partition.group), LEADER_TIMEOUT_S)
        return "" if isinstance(answer, StatsReply) else f"group {partition.group}: no leader"

    async def _open_replica(
        self, partition: PartitionRow, replica: ReplicaRow, campaign: bool
    ) -> bool:
        try:
            await self._nodes.open_replica(
                self._node(replica.node_id),
                partition,
                self._addresses(partition),
                replica.replica_id,
                campaign=campaign,
            )
        except (NodeUnreachable, NodeRefused) as error:
            log.info(
                "replica is not open",
                extra={
                    "group": partition.group,
                    "node": replica.node_id,
                    "reason": str(error),
                },
            )
            return False
        return True

    def _addresses(self, partition: PartitionRow) -> list[ReplicaAddress]:
        """Where a partition's replicas are; the catalog's own nodes are known before they register."""
        view = self._catalog.view
        found = view.addresses(partition)
        known = {address.node_id for address in found}
        unregistered = {
            address.node_id: address
            for address in self._client.replicas(CATALOG_GROUP)
            if address.node_id not in known
        }
        return found + [
            ReplicaAddress(
                replica.replica_id,
                replica.node_id,
                unregistered[replica.node_id].address,
                unregistered[replica.node_id].az,
            )
            for replica in partition.replicas
            if replica.node_id in unregistered
        ]

    def _node(self, node_id: str) -> NodeRow:
        """A node's row; one that cannot be called when it has none."""
        return self._catalog.view.nodes.get(node_id) or NodeRow(node_id, node_id, "", "")

    # --- delete ---

    async def delete(self, job: JobRow) -> None:
        """Close a table's replicas as far as their nodes answer, then delete its rows."""
        table = await self._catalog.fetch_table(job.table_name)
        partitions = await self._catalog.fetch_partitions(job.table_id)
        await asyncio.gather(
            *(
                self._close_replica(partition.group, replica)
                for partition in partitions
                for replica in partition.replicas
            )
        )
        writes = [remove(partition) for partition in partitions]
        while len(writes) > ROWS_PER_WRITE:
            await self._catalog.write(writes[:ROWS_PER_WRITE])
            del writes[:ROWS_PER_WRITE]
        last: list[RowWrite] = [remove(job)]
        if table is not None and table.table_id == job.table_id and table.status == "DELETING":
            last.append(remove(table))
        await self._catalog.write([*writes, *last])

    async def _close_replica(self, group: int, replica: ReplicaRow) -> None:
        node_id = replica.node_id
        try:
            await self._nodes.close_replica(self._node(node_id), group, replica.replica_id)
        except (NodeUnreachable, NodeRefused) as error:
            log.info(
                "replica is closed later",
                extra={"group": group, "node": node_id, "reason": str(error)},
            )


def _leaders(status: control_pb2.NodeStatusResponse | str) -> int:
    if isinstance(status, str):
        return 0
    return sum(replica.role == "leader" for replica in status.replicas)
