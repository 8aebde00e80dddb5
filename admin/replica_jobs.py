"""Moving a replica from one disk to another, as a job of steps that each can be repeated.

    join      the target opens a blank replica under an id never used before; the leader takes it as a learner
    catch_up  it got a snapshot and is level with the leader; routers are told of it
    promote   it counts
    remove    the old one counts no more (a leader that is to go first hands over)
    close     the old one is closed if its node answers; the catalog names the new replicas; the job ends

The members in the leader's log are the truth, the catalog's row follows: a step looks at the former first, so a
job interrupted anywhere is taken up at its step. At every moment a majority of the old replicas is part of
every majority of the new ones: the old one goes only after the new one counts. The catalog's own group has no
row; its members say themselves who they are. While the new replica does not count yet, the job is given up if
the target's disk is lost too: the learner is taken out again, and repair begins anew.
"""

import logging
from dataclasses import dataclass, replace
from typing import Final

from admin.jobs import Handler, NotYet
from admin.lost_disks import LostReplica, is_superseded, with_replicas
from admin.nodes import Members, NodeRefused, NodeUnreachable, StorageNodes, fetch_statuses, leaders
from datamodel.catalog_rows import (
    CATALOG_GROUP,
    CATALOG_RANGE,
    SYSTEM_TABLE_ID,
    JobRow,
    NodeRow,
    PartitionRow,
    ReplicaRow,
    partition_key,
)
from proto import control_pb2
from proto.catalog_client import CatalogClient, RowWrite, remove, update
from proto.messages import ReplicaAddress

log = logging.getLogger(__name__)

KIND: Final = "replace_replica"
LEVEL_ENTRIES: Final = 500
"""A learner that lacks no more of what is committed is level: it gets the rest in one message."""


def job_id(group: int) -> str:
    """One job per group at a time."""
    return f"{KIND}-{group}"


def new_job(lost: LostReplica, table_id: int, new: int, target: str) -> JobRow:
    """A job that puts replica `new` on the node `target` in the place of the lost replica (or one to move)."""
    args: dict[str, str | int] = {
        "group": lost.group,
        "old": lost.replica_id,
        "old_node": lost.node_id,
        "new": new,
        "target": target,
    }
    return JobRow(job_id(lost.group), KIND, "join", "", table_id, 0, args)


def catalog_partition(members: Members) -> PartitionRow:
    """Group 0 as if it had a row."""
    start, end = CATALOG_RANGE
    replicas = tuple(ReplicaRow(m.replica_id, m.node_id) for _, m in sorted(members.items()))
    return PartitionRow(CATALOG_GROUP, SYSTEM_TABLE_ID, start, end, 1, replicas)


@dataclass(frozen=True, slots=True)
class _Situation:
    """What a step sees: the group as its leader has it, and as the catalog has it."""

    group: int
    old: int
    old_node: str
    new: int
    target: str
    partition: PartitionRow
    leader: NodeRow
    status: control_pb2.ReplicaStatus
    members: Members


class ReplicaJobs:
    """The handler of jobs that move replicas (`admin.jobs`)."""

    def __init__(self, catalog: CatalogClient, nodes: StorageNodes) -> None:
        """Create.

        Args:
            catalog: What is to be.
            nodes: What is.
        """
        self._catalog = catalog
        self._nodes = nodes

    def handlers(self) -> dict[str, Handler]:
        """By kind of job."""
        return {KIND: self.replace}

    async def replace(self, job: JobRow) -> JobRow | None:
        """One step of moving a replica."""
        partition = await self._partition(job)
        if partition is None:
            await self._catalog.write([remove(job)])  # the table is gone
            return None
        situation = await self._look(job, partition)
        try:
            if self._is_hopeless(situation):
                await self._give_up(job, situation)
                return None
            return await self._step(job, situation)
        except (NodeUnreachable, NodeRefused) as error:
            raise NotYet(str(error)) from error

    async def _step(self, job: JobRow, now: _Situation) -> JobRow | None:
        match job.step:
            case "join":
                await self._join(now)
                return await self._go_on(job, "catch_up")
            case "catch_up":
                match_index = now.status.match_index.get(now.new, 0)
                # Until it has its snapshot it matches nothing that the leader's log still has.
                first, commit = now.status.first_index, now.status.commit_index
                if match_index < max(first, 1) or match_index + LEVEL_ENTRIES < commit:
                    raise NotYet(f"at {match_index} of {now.status.commit_index}")
                replicas = self._replicas(now.partition) | {now.new: now.target}
                return await self._go_on(job, "promote", now.partition, replicas)
            case "promote":
                await self._promote(now)
                return await self._go_on(job, "remove")
            case "remove":
                await self._remove(now)
                return await self._go_on(job, "close")
            case "close":
                await self._close(now)
                replicas = self._replicas(now.partition) | {now.new: now.target}
                replicas.pop(now.old, None)
                rows: list[RowWrite] = [remove(job), *self._row(now.partition, replicas)]
                await self._catalog.write(rows)
                return None
            case _:
                raise NotYet(f"this release does not know the step {job.step}")

    # --- steps ---

    async def _join(self, now: _Situation) -> None:
        if now.new in now.members:
            return
        node = self._node(now.target)
        await self._nodes.join_replica(node, now.partition, self._addresses(now), now.new)
        learner = control_pb2.Replica(
            replica_id=now.new,
            node_id=now.target,
            address=node.address,
            az=node.az,
            is_learner=True,
        )
        await self._change(now, {**now.members, now.new: learner})

    async def _promote(self, now: _Situation) -> None:
        member = now.members.get(now.new)
        if member is None:
            raise NotYet("the new replica is no member")
        if member.is_learner:
            voter = control_pb2.Replica()
            voter.CopyFrom(member)
            voter.is_learner = False
            await self._change(now, {**now.members, now.new: voter})

    async def _remove(self, now: _Situation) -> None:
        if now.old not in now.members:
            return
        if now.status.replica_id == now.old:
            await self._nodes.transfer_leadership(now.leader, now.group, 0)
            raise NotYet("the leader hands over")
        await self._change(now, {k: m for k, m in now.members.items() if k != now.old})

    async def _close(self, now: _Situation) -> None:
        if now.old in now.members:
            raise NotYet("the old replica is still a member")
        if is_superseded(self._catalog.view, now.old_node):
            return
        try:
            await self._nodes.close_replica(self._node(now.old_node), now.group, now.old)
        except (NodeUnreachable, NodeRefused) as error:
            # Repair closes it when the node is back.
            log.info("old replica is closed later", extra={"reason": str(error)})

    def _is_hopeless(self, now: _Situation) -> bool:
        """Whether the new replica's disk is lost, and it does not count yet."""
        member = now.members.get(now.new)
        return is_superseded(self._catalog.view, now.target) and (
            member is None or member.is_learner
        )

    async def _give_up(self, job: JobRow, now: _Situation) -> None:
        if now.old not in now.members and now.new not in now.members:
            log.error("neither replica is a member", extra={"group": now.group})
        if now.new in now.members:
            await self._change(now, {k: m for k, m in now.members.items() if k != now.new})
        replicas = self._replicas(now.partition)
        replicas.pop(now.new, None)
        await self._catalog.write([remove(job), *self._row(now.partition, replicas)])
        log.warning("replacement given up: its disk is lost too", extra={"group": now.group})

    # --- inside ---

    async def _partition(self, job: JobRow) -> PartitionRow | None:
        group = int(job.args["group"])
        if group == CATALOG_GROUP:
            return catalog_partition({})  # its members are filled in from the leader
        row = await self._catalog.fetch_row(partition_key(job.table_id, group))
        assert row is None or isinstance(row, PartitionRow)
        return row

    async def _look(self, job: JobRow, partition: PartitionRow) -> _Situation:
        reports = await fetch_statuses(self._nodes, self._current(), [partition.group])
        found = leaders(reports.values()).get(partition.group)
        if found is None:
            raise NotYet(f"group {partition.group} has no leader")
        node_id, status = found
        members = {member.replica_id: member for member in status.members}
        if partition.group == CATALOG_GROUP:
            partition = catalog_partition(members)
        args = job.args
        return _Situation(
            partition.group,
            int(args["old"]),
            str(args["old_node"]),
            int(args["new"]),
            str(args["target"]),
            partition,
            self._node(node_id),
            status,
            members,
        )

    def _current(self) -> list[NodeRow]:
        return self._catalog.view.current_nodes()

    def _node(self, node_id: str) -> NodeRow:
        return self._catalog.view.nodes.get(node_id) or NodeRow(node_id, node_id, "", "")

    def _addresses(self, now: _Situation) -> list[ReplicaAddress]:
        """Where the members are, as far as that is registered."""
        nodes = self._catalog.view.nodes
        return [
            ReplicaAddress(m.replica_id, m.node_id, nodes[m.node_id].address, nodes[m.node_id].az)
            for m in now.members.values()
            if m.node_id in nodes
        ]

    async def _change(self, now: _Situation, proposed: Members) -> None:
        await self._nodes.change_members(now.leader, now.group, now.members, proposed)
        log.info("members changed", extra={"group": now.group, "members": sorted(proposed)})

    async def _go_on(
        self,
        job: JobRow,
        step: str,
        partition: PartitionRow | None = None,
        replicas: dict[int, str] | None = None,
    ) -> JobRow:
        following = replace(job, step=step, version=job.version + 1)
        rows: list[RowWrite] = [update(following)]
        if partition is not None and replicas is not None:
            rows += self._row(partition, replicas)
        await self._catalog.write(rows)
        return following

    def _replicas(self, partition: PartitionRow) -> dict[int, str]:
        return {replica.replica_id: replica.node_id for replica in partition.replicas}

    def _row(self, partition: PartitionRow, replicas: dict[int, str]) -> list[RowWrite]:
        """The partition's row if it must change; the catalog's group has none."""
        if partition.group == CATALOG_GROUP or replicas == self._replicas(partition):
            return []
        return [update(with_replicas(partition, replicas))]
