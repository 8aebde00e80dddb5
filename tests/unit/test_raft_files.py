"""The log's files on a real directory."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raft import files
from raft.files import DISK_ERROR_EXIT_STATUS, FileLogStorage
from raft.node_log import NodeLog

SEGMENT_BYTES = 4096


async def append(storage, data, receipt=b""):
    done = asyncio.get_running_loop().create_future()
    storage.append(data, lambda: done.set_result(None), receipt)
    await asyncio.wait_for(done, 10)


def test_a_receipt_is_written_behind_synced_data_and_synced_at_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REST_S", 0.01)
    synced = []
    fdatasync, path = os.fdatasync, tmp_path / "log" / "0000000000000001.raftlog"

    def sync(file):
        fdatasync(file)
        synced.append(path.read_bytes().rstrip(b"\0"))

    monkeypatch.setattr(os, "fdatasync", sync)

    async def scenario():
        call = asyncio.get_running_loop().call_soon_threadsafe
        storage = FileLogStorage(tmp_path / "log", call, SEGMENT_BYTES)
        storage.roll(1)
        await append(storage, b"one", b"!")
        assert path.read_bytes().rstrip(b"\0") == b"one!"  # before anybody heard of it
        async with asyncio.timeout(10):
            while len(synced) < 2:  # noqa: ASYNC110 - the thread's doing
                await asyncio.sleep(0.005)
        await append(storage, b"two", b"?")
        storage.close()

    asyncio.run(scenario())
    assert synced == [b"one", b"one!", b"one!two", b"one!two?"]


def test_appends_rolls_reads_and_removes(tmp_path):
    async def scenario():
        call = asyncio.get_running_loop().call_soon_threadsafe
        storage = FileLogStorage(tmp_path / "log", call, SEGMENT_BYTES)
        assert storage.segments() == []
        storage.roll(1)
        await append(storage, b"one")
        await append(storage, b"two")
        storage.roll(2)
        await append(storage, b"x" * (SEGMENT_BYTES + 10))
        storage.close()

        again = FileLogStorage(tmp_path / "log", call, SEGMENT_BYTES, fsync=False)
        assert again.segments() == [1, 2]
        assert again.read(1) == b"onetwo".ljust(SEGMENT_BYTES, b"\0")
        assert again.read(2) == b"x" * (SEGMENT_BYTES + 10)
        again.truncate(1, 3)
        assert again.read(1) == b"one"
        again.remove(1)
        again.roll(3)
        await append(again, b"three")
        assert again.segments() == [2, 3]
        again.close()
        assert sorted(p.name for p in (tmp_path / "log").iterdir()) == [
            "0000000000000002.raftlog",
            "0000000000000003.raftlog",
        ]

    asyncio.run(scenario())


# Creates groups, each durable before its number is printed, until the file size limit (a full disk) ends it.
FILLS_ITS_DISK = """
import queue, resource, sys
from pathlib import Path
from raft.files import FileLogStorage
from raft.group import Configuration, LogIndex, Member, NodeId, ReplicaId, Term
from raft.node_log import NodeLog

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
calls = queue.SimpleQueue()
storage = FileLogStorage(Path(sys.argv[1]), calls.put, int(sys.argv[3]))
log = NodeLog(storage, int(sys.argv[3]), lambda journals: None)
log.recover()
configuration = Configuration((Member(ReplicaId(1), NodeId("a")),))
group = max(log.journals, default=0)
while True:
    group += 1
    log.create(group, ReplicaId(1), configuration, LogIndex(10), Term(1), b"s" * 3000)
    log.sync()
    calls.get()()
    print(group, flush=True)
"""


@pytest.mark.parametrize(
    ("limit", "segment_bytes"),
    [
        (50_000, 4096),  # a batch is written in part: the segment is longer than was preallocated
        (50_000, 1 << 20),  # not even the first segment can be preallocated
    ],
)
def test_a_full_disk_ends_the_process_and_loses_nothing_that_was_durable(
    tmp_path, limit, segment_bytes
):
    def fill(limit, segment_bytes):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                FILLS_ITS_DISK,
                tmp_path / "log",
                str(limit),
                str(segment_bytes),
            ],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == DISK_ERROR_EXIT_STATUS, done.stderr
        assert "the raft log cannot be written" in done.stderr
        return [int(line) for line in done.stdout.split()]

    def recovered():
        storage = FileLogStorage(tmp_path / "log", lambda call: None, 4096)
        log = NodeLog(storage, 4096, lambda journals: None)
        log.recover()
        storage.close()
        return sorted(log.journals)

    durable = fill(limit, segment_bytes)
    assert bool(durable) == (segment_bytes < limit)
    assert recovered()[: len(durable)] == durable
    # Started again while it is still full: the same end, and still nothing lost.
    more = fill(100 if segment_bytes < limit else limit, segment_bytes)
    assert more == []
    assert recovered()[: len(durable)] == durable
    # Space is back.
    assert fill(200_000, 4096)[0] in (len(durable) + 1, len(durable) + 2)
