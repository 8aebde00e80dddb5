"""Three storage nodes: bootstrap, writes, kill -9, restart, closing replicas."""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time

import grpc
import pytest

from datamodel.items import encode_item
from datamodel.key_encoding import encode_key
from proto import control_pb2
from proto.messages import RETURN_UPDATED_NEW, UPDATE, Action, Stats, StatsReply
from raft.node_log import RECEIPT_MAGIC
from tests.cluster.storage_nodes import (
    GROUP,
    ROOT,
    RUN,
    SCHEMA,
    TABLE,
    storage_nodes,
    until,
)


def test_a_disk_that_lost_its_log_is_not_taken_for_what_it_was(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            assert await nodes.put("before")
            nodes.kill("b")
            shutil.rmtree(tmp_path / "b" / "log")
            nodes.start("b")

            async def refused():
                return nodes.log_has("b", "the catalog's replica is not on this disk any more")

            await until(refused, "b knows what it lost")
            assert await nodes.replica("b", 0) is None
            assert await nodes.put("after")
            assert await nodes.get("before") == "x"

    asyncio.run(run())


def test_rot_in_the_end_of_a_log_is_not_taken_for_a_torn_write(tmp_path):
    """A bit of the last batch that a killed process had acknowledged: its disk is given up, not cut back."""

    async def run():
        async with storage_nodes(tmp_path) as nodes:
            assert await nodes.put("before")
            leader = await nodes.leader()
            victim = next(name for name in nodes.names if name != leader)
            nodes.kill(victim)
            segments = sorted((tmp_path / victim / "log").iterdir())
            path = [each for each in segments if RECEIPT_MAGIC in each.read_bytes()][-1]
            data = bytearray(path.read_bytes())
            data[data.rfind(RECEIPT_MAGIC) - 1] ^= 1
            path.write_bytes(data)
            nodes.start(victim)

            async def given_up():
                return nodes.log_has(victim, "data directory is damaged and set aside")

            await until(given_up, "the damage is noticed")
            assert nodes.log_has(victim, "was durable")
            assert await nodes.put("after")

    asyncio.run(run())


def test_acknowledged_writes_survive_kill_9_of_the_leader_and_of_all(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            acknowledged, ended = set(), asyncio.Event()

            async def writer(name):
                number = 0
                while not ended.is_set():
                    key = f"{name}-{number}"
                    if await nodes.put(key):
                        acknowledged.add(key)
                    number += 1

            async def progress(count):
                goal = len(acknowledged) + count

                async def reached():
                    return len(acknowledged) >= goal

                await until(reached, f"{count} more writes")

            writers = [asyncio.create_task(writer(f"w{n}")) for n in range(8)]
            await progress(100)
            leader = await nodes.leader()
            nodes.kill(leader)
            await progress(100)
            nodes.start(leader)
            await progress(100)
            nodes.kill(*nodes.names)
            nodes.start()
            await progress(100)
            ended.set()
            await asyncio.gather(*writers)

            keys = set(await nodes.keys())
            assert acknowledged <= keys
            stats = await nodes.client.request(Stats(0, GROUP), 15)
            assert isinstance(stats, StatsReply)
            assert stats.item_count == len(keys)

            # Every replica comes to the same state.
            async def agree():
                replicas = [await nodes.replica(name) for name in nodes.names]
                return (
                    all(replicas)
                    and len({(r.applied_index, r.item_count, r.size_bytes) for r in replicas}) == 1
                )

            await until(agree, "all replicas at the same state")

    asyncio.run(run())


def test_a_retry_of_a_write_applies_once_across_a_leader_change_and_a_restart(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            key = {"pk": {"S": "counter"}}
            add = Action(
                UPDATE,
                encode_key(TABLE, SCHEMA, key),
                encode_item(key),
                update="ADD v :one",
                values=b'{":one":{"N":"1"}}',
                returns=RETURN_UPDATED_NEW,
            )
            request_id = secrets.token_bytes(16)
            first = await nodes.write(add, request_id)
            assert first.results[0].attributes == b'{"v":{"N":"1"}}'
            nodes.kill(await nodes.leader())
            again = await nodes.write(add, request_id)
            assert again.results == first.results
            nodes.kill(*(n for n in nodes.names if nodes.processes[n].poll() is None))
            nodes.start()
            again = await nodes.write(add, request_id)
            assert again.results == first.results
            second = await nodes.write(add)
            assert second.results[0].attributes == b'{"v":{"N":"2"}}'

    asyncio.run(run())


def test_a_planned_stop_hands_leadership_over(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            leader = await nodes.leader()
            assert await nodes.put("a")
            began = time.monotonic()
            assert nodes.kill(leader, signal_number=signal.SIGTERM) == [0]
            assert await nodes.put("b")
            assert time.monotonic() - began < 3
            assert await nodes.get("a") == "x"

    asyncio.run(run())


def test_closing_a_replica_deletes_its_data_for_good(tmp_path):
    async def run():
        async with storage_nodes(tmp_path) as nodes:
            assert await nodes.put("a")
            partition = await nodes.open_group()
            for _ in range(2):  # idempotent
                for name in nodes.names:
                    request = control_pb2.CloseReplicaRequest(group=GROUP)
                    await nodes.control(name, "CloseReplica", request)
            assert all([await nodes.replica(name) is None for name in nodes.names])
            nodes.kill(*nodes.names)
            nodes.start()
            for name in nodes.names:
                await until(lambda name=name: nodes.status(name), "status")
                assert await nodes.replica(name) is None
            request = control_pb2.OpenReplicaRequest(partition=partition, replica_id=1)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await nodes.control("a", "OpenReplica", request)
            assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(run())


def test_a_data_directory_serves_one_process_and_one_name(tmp_path):
    def attempt(name, data):
        return subprocess.run(
            [sys.executable, "-c", RUN, "--name", name, "--az", "az1", "--data-dir", str(data)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    data = tmp_path / "data"
    with (tmp_path / "log").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "--name", "a", "--az", "az1", "--data-dir", str(data),
             "--initial-cluster", "a@az1=127.0.0.1:1"],
            cwd=ROOT, stderr=stderr,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while "cluster founded" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = attempt("a", data)
        assert second.returncode == 78
        assert "is in use by another storage node process" in second.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    foreign = attempt("b", data)
    assert foreign.returncode == 78
    assert "is the disk of a, not of b" in foreign.stderr
    assert not os.listdir(data / "snapshots")


def test_nothing_listens_beyond_loopback_unasked(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, "--name", "a", "--az", "az1", "--data-dir", str(tmp_path / "d"),
         "--link-listen", "0.0.0.0:0"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--insecure" in done.stderr
