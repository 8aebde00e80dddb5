"""The log's files on a real directory."""

import asyncio

from raft.files import FileLogStorage

SEGMENT_BYTES = 4096


async def append(storage, data):
    done = asyncio.get_running_loop().create_future()
    storage.append(data, lambda: done.set_result(None))
    await asyncio.wait_for(done, 10)


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
