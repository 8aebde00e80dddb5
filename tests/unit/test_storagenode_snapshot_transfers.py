"""Transfers of snapshots: cut at every point and gone on with, never put together of two, bounded."""

import asyncio
import os

import grpc
import pytest

from proto import control_pb2
from storagenode.engines.engine import DATA
from storagenode.snapshots import snapshot_receiving, snapshot_sending, snapshots
from storagenode.snapshots.snapshot_sending import HELD_MAX, HELD_S, SILENT_S, Busy, SnapshotSender
from storagenode.snapshots.snapshots import BadSnapshot
from tests.unit.storagenode_harness import World, put
from tests.unit.storagenode_transfers import Transfers, stream

KEYS = "bcdefghijk"


def filled(keys=KEYS, **kwargs):
    world = World(feed=True, **kwargs).lead()
    for key in keys:
        world.written(put(key, text={"S": key * 50}))
    return world


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(snapshot_sending, "CHUNK_BYTES", 200)
    monkeypatch.setattr(snapshot_receiving, "SYNC_BYTES", 500)


def records(file):
    with file.open("rb") as source:
        chunks = [chunk for chunk, _ in snapshots.checked_chunks(source, 7)]
    return [(r.key, r.value) for chunk in chunks for r in chunk.records]


def expected(world):
    data = list(world.engine.iterate(DATA + b"a", DATA + b"z"))
    return data + list(world.engine.iterate(b"f", b"g"))


def transfer(directory, name="one", world=None, **kwargs):
    world = world or filled()
    transfers = Transfers(directory, **kwargs)
    transfers.add(name, world)
    return transfers, world


def test_what_arrives_is_the_state_durable_with_its_name(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), fsync(fd)))
    transfers, world = transfer(tmp_path)
    capture = asyncio.run(transfers.fetch("one"))
    assert capture == world.replica.capture()
    assert records(transfers.file) == expected(world)
    assert synced[-2:] == [transfers.file.stat().st_ino, tmp_path.stat().st_ino]
    assert len(synced) > 3  # in pieces, too
    assert snapshots.check_file(transfers.file, 7) == capture
    assert transfers.receiver.received == transfers.senders["one"].sent == 1
    assert transfers.receiver.bytes_received == transfers.senders["one"].bytes_sent > 1000


@pytest.mark.parametrize("cut", range(11))
@pytest.mark.parametrize("receiver_dies", [False, True])
def test_a_transfer_that_was_cut_goes_on_where_it_stopped(tmp_path, cut, receiver_dies):
    transfers, world = transfer(tmp_path)
    before = expected(world)

    async def run():
        transfers.wire.cut_after = cut
        with pytest.raises(BadSnapshot, match="cut"):
            await transfers.fetch("one")
        first = transfers.wire.delivered
        world.written(put("l"))  # the group goes on; the snapshot does not
        if receiver_dies:
            transfers.restart_receiver()
        transfers.wire.cut_after = None
        return first, await transfers.fetch("one")

    first, capture = asyncio.run(run())
    _, request = transfers.wire.requests[-1]
    assert bool(request.snapshot_id) is bool(first) is bool(transfers.receiver.continued)
    if first:
        assert records(transfers.file) == before
        assert transfers.wire.delivered == len(before)  # nothing was sent twice
        assert capture.index == world.replica.applied_index - 1
    else:
        assert records(transfers.file) == expected(world)


def test_a_transfer_that_is_cut_again_and_again_ends(tmp_path):
    transfers, world = transfer(tmp_path)
    transfers.wire.cut_after = 2

    async def run():
        for attempt in range(100):
            transfers.restart_receiver()
            try:
                await transfers.fetch("one")
            except BadSnapshot:
                continue
            return attempt
        return None

    assert asyncio.run(run())
    assert records(transfers.file) == expected(world)
    assert transfers.wire.delivered == len(expected(world))


@pytest.mark.parametrize("lost", range(1, 60, 7))
def test_a_file_that_lost_its_end_in_a_crash_is_gone_on_with_from_there(tmp_path, lost):
    transfers, world = transfer(tmp_path)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        data = transfers.file.read_bytes()
        # Torn, with the length of what was once there.
        transfers.file.write_bytes(data[:-lost] + b"\0" * lost)
        transfers.wire.cut_after = None
        await transfers.fetch("one")

    asyncio.run(run())
    assert transfers.receiver.continued == 1
    assert records(transfers.file) == expected(world)


@pytest.mark.parametrize("at", range(5, 1100, 50))
def test_what_is_kept_is_never_trusted_when_a_bit_of_it_changed(tmp_path, at):
    transfers, world = transfer(tmp_path)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        data = bytearray(transfers.file.read_bytes())
        data[at] ^= 4
        transfers.file.write_bytes(data)
        transfers.wire.cut_after = None
        await transfers.fetch("one")

    asyncio.run(run())
    assert records(transfers.file) == expected(world)


def test_a_sender_that_was_restarted_begins_with_another_snapshot(tmp_path):
    transfers, world = transfer(tmp_path)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        kept = transfers.file.stat().st_size
        world.written(put("b"), put("m"))
        transfers.add("one", world)
        transfers.wire.cut_after = None
        await transfers.fetch("one")
        return kept

    assert asyncio.run(run())
    assert transfers.wire.requests[-1][1].snapshot_id
    assert transfers.receiver.continued == 0
    assert records(transfers.file) == expected(world)


def test_a_snapshot_is_let_go_of_in_time_and_then_begun_anew(tmp_path):
    transfers, world = transfer(tmp_path)
    sender = transfers.senders["one"]

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        assert sender.held == 1
        assert world.group.held_log == world.replica.applied_index
        world.environment.advance(HELD_S + 1)
        assert sender.held == 0
        assert world.group.held_log is None
        world.written(put("b"))
        transfers.wire.cut_after = None
        await transfers.fetch("one")

    asyncio.run(run())
    assert transfers.receiver.continued == 0
    assert records(transfers.file) == expected(world)


def test_after_a_change_of_leader_the_former_one_is_asked_for_the_rest(tmp_path):
    transfers, world = transfer(tmp_path)
    other = filled(KEYS + "lmn")
    transfers.add("two", other)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        transfers.wire.cut_after = 2
        with pytest.raises(BadSnapshot):  # it made progress: not thrown away for the leader's
            await transfers.fetch("two")
        transfers.wire.cut_after = None
        await transfers.fetch("two", at_least=world.replica.applied_index)

    asyncio.run(run())
    assert {address for address, _ in transfers.wire.requests} == {"one:2"}
    assert transfers.receiver.continued == 2
    assert records(transfers.file) == expected(world)


@pytest.mark.parametrize("why", ["too old", "gone", "down"])
def test_the_new_leader_is_asked_when_the_former_one_is_of_no_use(tmp_path, why):
    transfers, world = transfer(tmp_path)
    other = filled(KEYS + "lmn")
    transfers.add("two", other)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        transfers.wire.cut_after = None
        if why == "gone":
            del transfers.peers["one"]
        elif why == "down":
            del transfers.wire.senders["one:2"]
        at_least = world.replica.applied_index + (why == "too old")
        return await transfers.fetch("two", at_least=at_least)

    assert asyncio.run(run()) == other.replica.capture()
    assert records(transfers.file) == expected(other)
    assert transfers.receiver.continued == 0


def test_a_whole_file_is_not_fetched_again(tmp_path):
    transfers, world = transfer(tmp_path)
    capture = asyncio.run(transfers.fetch("one"))
    transfers.restart_receiver()
    asked = len(transfers.wire.requests)
    assert asyncio.run(transfers.fetch("one", at_least=capture.index)) == capture
    assert len(transfers.wire.requests) == asked
    world.written(put("b"))
    assert asyncio.run(transfers.fetch("one", at_least=capture.index + 1)) != capture
    assert records(transfers.file) == expected(world)


def test_damage_on_the_way_is_refused_and_not_met_again(tmp_path):
    transfers, world = transfer(tmp_path)

    def spoil(chunk):
        if len(transfers.wire.requests) == 1 and transfers.wire.delivered > 3:
            chunk.records[0].value += b"!"

    transfers.wire.spoil = spoil

    async def run():
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        assert not transfers.file.exists()
        await transfers.fetch("one")

    asyncio.run(run())
    assert records(transfers.file) == expected(world)


def test_a_snapshot_that_is_too_old_is_refused(tmp_path):
    transfers, world = transfer(tmp_path)
    with pytest.raises(BadSnapshot, match="wanted one at"):
        asyncio.run(transfers.fetch("one", at_least=world.replica.applied_index + 1))
    assert not transfers.file.exists()


@pytest.mark.parametrize("healed", [False, True])
def test_nothing_is_gone_on_with_that_was_read_from_a_replica_found_damaged(tmp_path, healed):
    transfers, world = transfer(tmp_path)

    async def run():
        transfers.wire.cut_after = 6
        with pytest.raises(BadSnapshot):
            await transfers.fetch("one")
        world.replica.fail("its digest differs")
        if healed:
            capture = world.replica.capture()
            world.replica.begin_install()
            world.replica.stand_on(capture)
            while not world.replica.catch_up():
                pass
            world.lead()
        transfers.wire.cut_after = None
        await transfers.fetch("one")

    # (A damaged replica is asked for nothing: `ControlService` sees to that.)
    asyncio.run(run())
    assert transfers.receiver.continued == 0
    assert transfers.senders["one"].continued == 0


def test_a_stream_ends_when_its_replica_is_found_damaged(tmp_path):
    transfers, world = transfer(tmp_path)

    def spoil(chunk):
        if transfers.wire.delivered == 4:
            world.replica.fail("its digest differs")

    transfers.wire.spoil = spoil
    with pytest.raises(BadSnapshot, match="DATA_LOSS"):
        asyncio.run(transfers.fetch("one"))


def test_a_silent_sender_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_receiving, "STALL_S", 0.05)
    transfers, _ = transfer(tmp_path)

    async def run():
        stream = transfers.wire.stream

        async def silent(address, request):
            number = 0
            async for chunk in stream(address, request):
                number += 1
                if number > 3 and len(transfers.wire.requests) == 1:
                    await asyncio.Event().wait()
                yield chunk

        transfers.wire.stream = silent
        with pytest.raises(BadSnapshot, match="silent"):
            await transfers.fetch("one")
        await transfers.fetch("one")

    asyncio.run(run())
    assert transfers.receiver.continued == 1


def test_so_many_snapshots_are_held_and_the_longest_idle_makes_room():
    world = filled("bc")
    sender = SnapshotSender(world.engine, world.environment, 0)
    request = control_pb2.FetchSnapshotRequest(group=7)

    async def run():
        streams = [stream(sender, world.replica, request) for _ in range(HELD_MAX)]
        heads = [(await anext(each)).head.snapshot_id for each in streams]
        assert len(set(heads)) == HELD_MAX
        more = stream(sender, world.replica, request)
        with pytest.raises(Busy):
            await anext(more)
        for number in (3, 5):
            world.environment.advance(1)
            await streams[number].aclose()
        assert sender.held == HELD_MAX
        fresh = stream(sender, world.replica, request)
        await anext(fresh)
        assert sender.held == HELD_MAX
        # The third was idle for longer, and is gone; the fifth is still there to be gone on with.
        for number, is_held in ((3, False), (5, True)):
            again = control_pb2.FetchSnapshotRequest(
                group=7, snapshot_id=heads[number], after_key=b"dc"
            )
            again_stream = stream(sender, world.replica, again)
            if is_held:
                assert (await anext(again_stream)).head.snapshot_id == heads[number]
            assert (heads[number] in sender._held) is is_held
            await again_stream.aclose()
        sender.close()
        assert sender.held == 0
        assert world.group.held_log is None

    asyncio.run(run())


def test_a_receiver_that_takes_nothing_makes_room():
    world = filled()
    sender = SnapshotSender(world.engine, world.environment, 0)
    request = control_pb2.FetchSnapshotRequest(group=7)

    async def run():
        streams = [stream(sender, world.replica, request) for _ in range(HELD_MAX)]
        for each in streams:
            await anext(each)
        world.environment.advance(SILENT_S + 1)
        for each in streams[1:]:
            await anext(each)
        more = stream(sender, world.replica, request)
        await anext(more)
        assert sender.held == HELD_MAX
        with pytest.raises(Busy):  # it comes back to life: it may begin anew
            await anext(streams[0])
        with pytest.raises(Busy):
            await anext(stream(sender, world.replica, request))
        for each in (*streams, more):
            await each.aclose()
        assert sender.held == HELD_MAX

    asyncio.run(run())


def test_the_log_is_held_from_the_oldest_snapshot_on():
    world = filled("bc")
    sender = SnapshotSender(world.engine, world.environment, 0)
    request = control_pb2.FetchSnapshotRequest(group=7)

    async def run():
        first = stream(sender, world.replica, request)
        await anext(first)
        index = world.replica.applied_index
        world.written(put("d"))
        second = stream(sender, world.replica, request)
        await anext(second)
        assert world.group.held_log == index
        await first.aclose()
        world.environment.advance(HELD_S + 1)
        assert world.group.held_log == index + 1
        await second.aclose()
        world.environment.advance(HELD_S + 1)
        assert world.group.held_log is None

    asyncio.run(run())


def test_streams_of_a_node_share_its_rate(monkeypatch):
    world = filled()
    waits = []

    async def sleep(delay):
        waits.append(delay)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    sender = SnapshotSender(world.engine, world.environment, 1000)
    request = control_pb2.FetchSnapshotRequest(group=7)

    async def run():
        streams = [stream(sender, world.replica, request) for _ in range(2)]
        for each in streams:
            await anext(each)
            await anext(each)
        for each in streams:
            await each.aclose()

    asyncio.run(run())
    # The clock stands still: each waits for what all before it took, less the burst.
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx((sender.bytes_sent - 100) / 1000)


def test_grpc_says_why(tmp_path):
    transfers, _ = transfer(tmp_path)
    del transfers.wire.senders["one:2"]
    with pytest.raises(BadSnapshot, match=f"{grpc.StatusCode.UNAVAILABLE}: nobody there"):
        asyncio.run(transfers.fetch("one"))
