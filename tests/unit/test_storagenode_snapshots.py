"""Snapshots: sent, stored, checked, installed; and interrupted at every step."""

import asyncio
from types import SimpleNamespace

import pytest

from proto import control_pb2
from raft.group import LogIndex, RecoveredGroup, ReplicaId
from storagenode.control_service import ControlService
from storagenode.engines.engine import APPLIED, DATA, INSTALLING, group_key
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.node import STAGED_S
from storagenode.replicas.log_entries import AppliedState, decode_applied, encode_state
from storagenode.snapshots import snapshot_sending, snapshots
from tests.unit.storagenode_fake_host import OWN, FakeHost, make_node
from tests.unit.storagenode_harness import MEMBERS, World, put
from tests.unit.storagenode_transfers import stream


def filled(keys="bcdefg", **kwargs):
    world = World(feed=True, **kwargs).lead()
    for key in keys:
        world.written(put(key, text={"S": key * 50}))
    return world


async def chunks_of(world):
    sender = snapshot_sending.SnapshotSender(world.engine, world.environment, 0)
    request = control_pb2.FetchSnapshotRequest(group=7)
    return [chunk async for chunk in stream(sender, world.replica, request)]


def stored(chunks, file):
    """Write a file as it is received."""
    file.write_bytes(b"".join(snapshots.frame(chunk) for chunk in chunks))
    return snapshots.check_file(file, 7)


def items(engine):
    return dict(engine.iterate(DATA, DATA + b"\xff"))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(snapshot_sending, "CHUNK_BYTES", 200)
    monkeypatch.setattr(snapshots, "INSTALL_BATCH_BYTES", 200)
    monkeypatch.setattr(snapshots, "DELETE_BATCH_KEYS", 2)


def test_a_snapshot_carries_items_feed_and_state(tmp_path, small_chunks):
    source = filled()
    chunks = asyncio.run(chunks_of(source))
    assert len(chunks) > 3
    capture = stored(chunks, tmp_path / "s")
    assert capture == source.replica.capture()
    target = filled("xy")
    asyncio.run(
        snapshots.install(
            target.replica, target.engine, tmp_path / "s", capture, lambda function: function()
        )
    )
    assert items(target.engine) == items(source.engine)
    assert list(target.engine.iterate(b"f", b"g")) == list(source.engine.iterate(b"f", b"g"))
    assert target.group.installed[0][:2] == (capture.index, capture.term)
    assert target.replica.capture() == capture
    assert target.engine.get(group_key(INSTALLING, 7)) is None
    assert not (tmp_path / "s").exists()


def test_a_snapshot_is_of_one_moment(small_chunks):
    source = filled()

    async def run():
        chunks = []
        sender = snapshot_sending.SnapshotSender(source.engine, source.environment, 0)
        request = control_pb2.FetchSnapshotRequest(group=7)
        async for chunk in stream(sender, source.replica, request):
            chunks.append(chunk)
            source.written(put("h"))
        return chunks

    keys = [r.key for chunk in asyncio.run(run()) for r in chunk.records if r.key[:1] == DATA]
    assert keys == [DATA + key.encode() for key in "bcdefg"]


def spoil_value(chunks):
    chunks[1].records[0].value = chunks[1].records[0].value[:-1] + b"!"


def spoil_key(chunks):
    chunks[1].records[0].key += b"x"


def leave_out(chunks):
    del chunks[1]


def cut_off(chunks):
    del chunks[-1]


def add_foreign(chunks):
    chunks[1].records.add(key=b"dzz", value=b"")


def lose_head(chunks):
    chunks[0].ClearField("head")


def spoil_state(chunks):
    chunks[0].head.state = b"\xc1"


def begin_again(chunks):
    chunks.append(chunks[0])


def change_head(chunks):
    chunks[0].head.index += 1


def swap(chunks):
    chunks[1], chunks[2] = chunks[2], chunks[1]


def repeat(chunks):
    chunks.insert(1, chunks[1])


def repeat_with_a_matching_checksum(chunks):
    progress = snapshots.Progress(7)
    for chunk in chunks[:2]:
        progress.take(chunk)
    again = control_pb2.SnapshotChunk(records=chunks[1].records)
    crc = progress.crc32
    for record in again.records:
        crc = snapshots.crc32_of(record.key, record.value, crc)
    again.crc32 = crc
    chunks.insert(2, again)


def nothing(chunks):
    chunks.clear()


@pytest.mark.parametrize(
    "damage",
    [spoil_value, spoil_key, leave_out, cut_off, add_foreign, lose_head, spoil_state, begin_again, nothing,
     change_head, swap, repeat, repeat_with_a_matching_checksum],
)  # fmt: skip
def test_a_damaged_stream_is_refused(tmp_path, small_chunks, damage):
    chunks = asyncio.run(chunks_of(filled()))
    damage(chunks)
    with pytest.raises(snapshots.BadSnapshot):
        stored(chunks, tmp_path / "s")


@pytest.mark.parametrize("cut", [1, 3, 100])
def test_a_file_cut_off_is_refused(tmp_path, cut):
    stored(asyncio.run(chunks_of(filled())), tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(data[:-cut])
    with pytest.raises(snapshots.BadSnapshot):
        snapshots.check_file(tmp_path / "s", 7)


def test_no_snapshot_is_taken_of_an_engine_that_is_ahead_of_the_log():
    """After a restart it may hold what this life has yet to apply."""

    class Aborted(Exception):
        pass

    class Context:
        async def abort(self, code, details):
            raise Aborted(details)

    source = filled()
    node = SimpleNamespace(replicas={7: source.replica})
    sender = snapshot_sending.SnapshotSender(source.engine, source.environment)
    service = ControlService(node, sender, None, lambda: OWN)
    request = control_pb2.FetchSnapshotRequest(group=7, at_least_index=1)

    async def fetch():
        return [chunk async for chunk in service.FetchSnapshot(request, Context())]

    assert asyncio.run(fetch())
    source.replica.engine_held = AppliedState(source.replica.applied_index + 2, 1)
    source.written(put("b"))
    mark = source.engine.get(group_key(APPLIED, 7))
    assert decode_applied(mark) == source.replica.engine_held  # never takes back what it said
    with pytest.raises(Aborted, match="no sound state"):
        asyncio.run(fetch())


def test_a_damaged_record_is_not_sent_on():
    source = filled()
    source.engine.write([(DATA + b"d", b"damaged")])
    with pytest.raises(snapshots.Corruption):
        asyncio.run(chunks_of(source))


def test_entries_that_come_while_installing_are_applied_behind_the_snapshot(tmp_path, small_chunks):
    source = filled()
    capture = stored(asyncio.run(chunks_of(source)), tmp_path / "s")
    source.written(put("b", size=77))
    late = source.group.log[-1]
    target = filled("b")

    async def run():
        task = asyncio.create_task(
            snapshots.install(
                target.replica, target.engine, tmp_path / "s", capture, lambda function: function()
            )
        )
        await asyncio.sleep(0)
        assert target.replica.standing.is_installing
        for entry in source.group.log[2:]:
            target.group.give(*entry)
        assert late in source.group.log[2:]
        await task

    asyncio.run(run())
    assert items(target.engine) == items(source.engine)
    assert target.replica.applied_index == late[0]
    assert target.replica.size_bytes == source.replica.size_bytes


def test_a_snapshot_that_is_not_wanted_touches_nothing(tmp_path):
    capture = stored(asyncio.run(chunks_of(filled())), tmp_path / "s")
    target = filled("xy")
    before = items(target.engine)
    target.group.wants = False
    asyncio.run(
        snapshots.install(target.replica, target.engine, tmp_path / "s", capture, lambda f: f())
    )
    assert items(target.engine) == before
    assert not target.group.installed


class Crash(Exception):
    """The process ends here."""


class CrashingEngine(MemoryEngine):
    """Ends after some steps."""

    def __init__(self):
        super().__init__()
        self.steps_left = FOREVER

    def write(self, mutations, *, sync=False):
        self._step()
        super().write(mutations, sync=sync)

    def make_durable(self):
        self._step()
        super().make_durable()

    def _step(self):
        if self.steps_left == 0:
            raise Crash
        self.steps_left -= 1


FOREVER = 1 << 30
INSTALL_STEPS = 14
"""Of the engine, from the note that an installation begins to the end of that note."""


@pytest.mark.parametrize("steps", range(INSTALL_STEPS))
def test_a_crash_while_installing_leaves_the_old_state_or_leads_to_the_new_one(
    tmp_path, small_chunks, steps
):
    source = filled()
    directory = tmp_path / "snapshots"
    directory.mkdir()
    engine = CrashingEngine()
    target = filled("xyv", engine=engine)
    old = items(engine)
    checkpoint = target.replica.capture()
    capture = stored(asyncio.run(chunks_of(source)), directory / "7.snapshot")
    engine.steps_left = steps
    with pytest.raises(Crash):
        asyncio.run(
            snapshots.install(
                target.replica, engine, directory / "7.snapshot", capture, lambda f: f()
            )
        )
    engine.steps_left = FOREVER

    host = FakeHost(
        [
            RecoveredGroup(
                target.replica.group_id,
                ReplicaId(1),
                MEMBERS,
                checkpoint.index,
                checkpoint.term,
                encode_state(checkpoint.state),
            )
        ]
    )
    node = make_node(engine, host, directory)
    node.recover()
    replica = node.replicas[target.replica.group_id]
    assert not replica.standing.is_installing
    assert replica.standing.fault is None
    if steps == 0:  # nothing was noted: raft will want a snapshot again, and this file will do
        assert items(engine) == old
        assert replica.applied_index == checkpoint.index
        assert [file.name for file in directory.iterdir()] == ["7.snapshot"]
        node.environment.advance(STAGED_S + 1)  # unless nobody asks for it any more
    else:
        assert items(engine) == items(source.engine)
        assert replica.capture() == capture
        assert host.opened[7].installed[0][0] == capture.index
        host.make_durable()
    assert engine.get(group_key(INSTALLING, 7)) is None
    assert not list(directory.iterdir())


def test_those_are_all_the_steps_of_an_installation(tmp_path, small_chunks):
    engine = CrashingEngine()
    target = filled("xyv", engine=engine)
    capture = stored(asyncio.run(chunks_of(filled())), tmp_path / "s")
    engine.steps_left = FOREVER
    asyncio.run(snapshots.install(target.replica, engine, tmp_path / "s", capture, lambda f: f()))
    assert FOREVER - engine.steps_left == INSTALL_STEPS


def test_the_stream_is_what_the_schema_says():
    (chunk,) = asyncio.run(chunks_of(filled("b")))
    assert isinstance(chunk, control_pb2.SnapshotChunk)
    assert chunk.last
    assert chunk.head.index == LogIndex(12)
