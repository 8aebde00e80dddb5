"""Snapshots between real storage nodes: cut by the death of either side, under a change of leader, under load."""

import asyncio
import signal
import time

from proto import control_pb2
from tests.cluster.storage_nodes import GROUP, storage_nodes, until

ITEMS, TEXT = 80, "y" * 100_000
# The whole of it takes four seconds or more.
SLOW = ("--snapshot-rate", str(2 << 20))


async def leave_behind(nodes, items=ITEMS, text=TEXT):
    """A node that lags by more than the log keeps; returns (leader, the node, the other one)."""
    leader = await nodes.leader()
    away = next(name for name in nodes.names if name != leader)
    others = [name for name in nodes.names if name != away]
    await nodes.put("before")
    nodes.kill(away)
    step = 1_000_000 // len(text)
    for first in range(0, items, step):
        puts = (nodes.put(f"big-{n}", text) for n in range(first, first + step))
        assert all(await asyncio.gather(*puts))
    # A planned stop takes a checkpoint, behind which the log is cut.
    for name in others:
        assert nodes.kill(name, signal_number=signal.SIGTERM) == [0]
        nodes.start(name)
        await nodes.leader()
    leader = await nodes.leader()
    assert (await nodes.replica(leader)).first_index > 14
    return leader, away, next(name for name in others if name != leader)


async def received(nodes, name, count=2 << 20):
    async def enough():
        return await nodes.metric(name, "snapshot_received_bytes_total") >= count

    await until(enough, f"{name} received {count} bytes")
    assert await nodes.metric(name, "snapshots_received_total") == 0


async def caught_up(nodes, name, items, timeout_s=40):
    async def whole():
        replica = await nodes.replica(name)
        return replica and replica.item_count == items

    await until(whole, f"{name} catches up", timeout_s)


async def alike(nodes):
    """All replicas are at the same state."""

    async def agree():
        replicas = [await nodes.replica(name) for name in nodes.names]
        return (
            all(replicas)
            and len({(r.applied_index, r.item_count, r.size_bytes) for r in replicas}) == 1
        )

    await until(agree, "all replicas at the same state")


def test_a_node_that_was_away_too_long_is_brought_back_by_a_snapshot(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            leader, away, _ = await leave_behind(nodes)
            nodes.start(away)
            await caught_up(nodes, away, ITEMS + 1)
            assert nodes.log_has(away, "snapshot installed")
            # It serves what it was sent, also after a crash and with another node away.
            nodes.kill(away, leader)
            nodes.start(away)
            assert await nodes.put("after")
            assert len(await nodes.keys()) == ITEMS + 2
            assert await nodes.get(f"big-{ITEMS - 1}") == TEXT

    asyncio.run(run())


def test_a_receiver_that_is_killed_goes_on_where_it_was(tmp_path):
    async def run():
        async with storage_nodes(tmp_path, *SLOW) as nodes:
            leader, away, _ = await leave_behind(nodes)
            nodes.start(away)
            await received(nodes, away, 4 << 20)
            nodes.kill(away)
            assert await nodes.put("meanwhile")  # not in the snapshot: the log has it
            nodes.start(away)
            await caught_up(nodes, away, ITEMS + 2)
            assert await nodes.metric(away, "snapshots_resumed_total") == 1
            assert await nodes.metric(away, "snapshots_received_total") == 1
            assert await nodes.metric(leader, "snapshots_sent_total") == 1
            # The rest, and nothing twice (but for what was under way).
            rest = await nodes.metric(away, "snapshot_received_bytes_total")
            assert rest < ITEMS * len(TEXT) - (3 << 20)
            await alike(nodes)
            nodes.kill(leader)
            assert await nodes.put("after")
            assert len(await nodes.keys()) == ITEMS + 3
            assert await nodes.get("big-0") == TEXT

    asyncio.run(run())


def test_when_the_sender_is_killed_the_next_leader_begins_anew(tmp_path):
    async def run():
        async with storage_nodes(tmp_path, *SLOW) as nodes:
            leader, away, other = await leave_behind(nodes)
            nodes.start(away)
            await received(nodes, away)
            nodes.kill(leader)
            assert await nodes.put("meanwhile")
            await caught_up(nodes, away, ITEMS + 2)
            assert await nodes.metric(away, "snapshots_resumed_total") == 0
            assert await nodes.metric(other, "snapshots_sent_total") == 1
            nodes.start(leader)
            await alike(nodes)
            assert await nodes.get("big-7") == TEXT

    asyncio.run(run())


def test_a_transfer_outlives_a_change_of_leader(tmp_path):
    async def run():
        async with storage_nodes(tmp_path, *SLOW) as nodes:
            leader, away, other = await leave_behind(nodes)
            nodes.start(away)
            await received(nodes, away, 3 << 20)
            nodes.kill(away)
            replica = await nodes.replica(other)
            request = control_pb2.TransferLeadershipRequest(
                group=GROUP, to_replica_id=replica.replica_id
            )
            await nodes.control(leader, "TransferLeadership", request)

            async def handed_over():
                return (await nodes.replica(other)).role == "leader"

            await until(handed_over, f"{other} leads")
            nodes.start(away)
            await caught_up(nodes, away, ITEMS + 1)
            assert await nodes.metric(away, "snapshots_resumed_total") == 1
            assert await nodes.metric(leader, "snapshots_sent_total") == 1
            await alike(nodes)

    asyncio.run(run())


def test_writes_go_on_while_a_snapshot_is_sent(tmp_path, record_property):
    """The figures are for reading; on a busy machine only their being there is a fact."""

    async def run():
        async with storage_nodes(tmp_path, "--snapshot-rate", str(8 << 20)) as nodes:
            items, text = 3000, "z" * 10_000
            leader, away, _ = await leave_behind(nodes, items, text)
            latencies = {"before": [], "during": []}
            phase, ended = "before", asyncio.Event()
            written = 0

            async def writer(number):
                nonlocal written
                while not ended.is_set():
                    began = time.monotonic()
                    assert await nodes.put(f"w-{number}-{written}")
                    written += 1
                    latencies[phase].append(time.monotonic() - began)

            writers = [asyncio.create_task(writer(n)) for n in range(8)]

            async def some(count):
                goal = written + count

                async def reached():
                    return written >= goal or any(w.done() for w in writers)

                await until(reached, f"{count} more writes")

            await some(400)
            nodes.start(away)
            await received(nodes, away, 1 << 20)
            phase, began, first = "during", time.monotonic(), written
            seen = 0
            while not await nodes.metric(away, "snapshots_received_total"):
                await some(20)
                seen += 1
            lasted = time.monotonic() - began
            during = written - first
            ended.set()
            await asyncio.gather(*writers)
            assert seen >= 3  # in every part of the transfer some were acknowledged
            await caught_up(nodes, away, items + 1 + written)
            await alike(nodes)
            for name, each in latencies.items():
                each.sort()
                figures = [each[len(each) * p // 100] * 1000 for p in (50, 95, 99)]
                record_property(name, figures)
                print(
                    f"{name}: p50, p95, p99 ms: {[round(f, 1) for f in figures]}, max {each[-1]:.3f} s"
                )
            print(f"{during / lasted:.0f} writes/s over {lasted:.1f} s of transfer")
            assert await nodes.metric(leader, "snapshots_sent_total") == 1

    asyncio.run(run())
