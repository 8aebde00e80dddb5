"""`quorate scrub`: the replicas of every partition are compared now, not in some hours.

An admin asks the leader of each partition (`scrub_partitions`), a few partitions at a time; the command shows what
it hears (`show_scrub`).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, TextIO

import grpc

from admin.nodes import NodeUnreachable, StorageNodes, fetch_statuses
from datamodel.catalog_rows import CATALOG_GROUP, NodeRow
from proto import admin_pb2, admin_pb2_grpc
from proto.catalog_view import CatalogView

PARTITIONS_MAX: Final = 4
"""Compared at the same time. (Each storage node reads one at a time anyway.)"""
ATTEMPTS_MAX: Final = 5
RETRY_S: Final = 1.0
"""Leaders change: who leads is looked up again."""


async def scrub_partitions(
    nodes: StorageNodes, view: CatalogView, table_name: str
) -> AsyncIterator[admin_pb2.PartitionScrub]:
    """Compare the replicas of a table's partitions, or of all and the catalog; each result as it comes."""
    names = {table_id: row.name for table_id, row in view.tables_by_id.items()}
    groups = {
        row.group: names.get(row.table_id, "")
        for row in view.groups()
        if not table_name or names.get(row.table_id) == table_name
    }
    if not table_name:
        groups[CATALOG_GROUP] = ""
    slots = asyncio.Semaphore(PARTITIONS_MAX)

    async def scrub(group: int) -> admin_pb2.PartitionScrub:
        async with slots:
            return await _scrub(nodes, view, group, groups[group])

    tasks = [asyncio.create_task(scrub(group)) for group in sorted(groups)]
    try:
        for task in asyncio.as_completed(tasks):
            yield await task
    finally:
        for unfinished in tasks:
            unfinished.cancel()


async def _scrub(
    nodes: StorageNodes, view: CatalogView, group: int, table_name: str
) -> admin_pb2.PartitionScrub:
    error = "it has no leader"
    for attempt in range(ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(RETRY_S)
        leader = await _leader(nodes, view, group)
        if leader is None:
            continue
        try:
            answer = await nodes.scrub(leader, group)
        except NodeUnreachable as failure:
            error = str(failure)
            continue
        return admin_pb2.PartitionScrub(
            group=group,
            table_name=table_name,
            index=answer.index,
            replicas=[
                admin_pb2.PartitionScrub.Replica(
                    replica_id=each.replica_id, node_id=each.node_id, verdict=each.verdict
                )
                for each in answer.replicas
            ],
        )
    return admin_pb2.PartitionScrub(group=group, table_name=table_name, error=error)


async def _leader(nodes: StorageNodes, view: CatalogView, group: int) -> NodeRow | None:
    rows = view.current_nodes()
    statuses = await fetch_statuses(nodes, rows, [group])
    best: tuple[int, NodeRow] | None = None
    for row in rows:
        status = statuses[row.node_id]
        if isinstance(status, str):
            continue
        for replica in status.replicas:
            if replica.partition.group == group and replica.role == "leader":
                best = max(best or (0, row), (replica.term, row), key=lambda found: found[0])
    return None if best is None else best[1]


def show_scrub(address: str, table_name: str, out: TextIO, err: TextIO) -> int:
    """Have it done and print what is found; returns the exit code: 0 when all replicas are the same, else 1."""
    partitions = bad = 0
    try:
        with grpc.insecure_channel(address) as channel:
            stub = admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]
            for result in stub.Scrub(admin_pb2.ScrubRequest(table_name=table_name)):
                partitions += 1
                is_good, text = describe(result)
                bad += not is_good
                print(text, file=out, flush=True)
    except grpc.RpcError as error:
        reason = error.details() if isinstance(error, grpc.Call) else str(error)
        print(f"quorate: the admin process at {address}: {reason}", file=err)
        return 1
    print(
        f"{partitions} partitions compared, {partitions - bad} of them the same on every replica",
        file=out,
    )
    return 1 if bad else 0


def describe(result: admin_pb2.PartitionScrub) -> tuple[bool, str]:
    """Whether all is well with a partition, and a line about it."""
    name = result.table_name or "(catalog)"
    head = f"group {result.group} of {name}:"
    if result.error:
        return False, f"{head} not compared: {result.error}"
    others = [replica for replica in result.replicas if replica.verdict != "same"]
    if not others:
        return True, f"{head} {len(result.replicas)} replicas are the same at {result.index}"
    said = ", ".join(
        f"replica {each.replica_id} on {each.node_id} {_WORDS.get(each.verdict, each.verdict)}"
        for each in others
    )
    return False, f"{head} at {result.index} {said}"


_WORDS: Final = {
    "differs": "differs and is repaired",
    "damaged": "is damaged and is repaired",
    "silent": "did not answer",
    "undecided": "differs, but no majority agrees",
}
