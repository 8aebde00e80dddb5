"""Whatever is damaged in a node's log and its small files: it is noticed, at the next start and before it."""

import asyncio
import errno
import json
import random
from pathlib import Path

import pytest

from raft.files import FileLogStorage
from raft.group import LogIndex, ReplicaId, Term
from raft.node_log import BATCH_MAGIC, Corruption
from storagenode.data_directory import DamagedDirectory, DataDirectory, ForeignDirectory, Peer
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.snapshots import snapshot_sending, snapshots
from tests.damage import harm
from tests.damage.node_log import CONFIGURATION, SEGMENT_BYTES, Log, OpenLog
from tests.unit.test_storagenode_snapshots import chunks_of, filled, stored


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return Log(tmp_path_factory.mktemp("log") / "log")


# --- the log, at a start


def test_flipped_bits_in_every_segment_of_the_log(written: Log, tmp_path: Path):
    chance = random.Random(3)
    for path in written.segments:
        size = path.stat().st_size
        verdicts = {
            written.judge(damage, path.name, tmp_path / "copy")
            for damage in [*harm.flips(size, chance, 60), *harm.flips(40, chance, 20)]
        }
        assert verdicts <= {"right", "found: Corruption"}
        assert "found: Corruption" in verdicts


@pytest.mark.parametrize("seed", range(3))
def test_gross_damage_to_every_segment_of_the_log(written: Log, tmp_path: Path, seed: int):
    chance = random.Random(seed)
    contents = [path.read_bytes() for path in written.segments]
    for path, data in zip(written.segments[:-1], contents, strict=False):
        for damage in harm.gross(data, chance):
            written.judge(damage, path.name, tmp_path / "copy")
        for other in contents:
            if other != data:
                damage = harm.replace(other, "another segment")
                verdict = written.judge(damage, path.name, tmp_path / "copy")
                assert verdict == "found: Corruption"


# --- the log, while it is in use


def checked(files: FileLogStorage, rounds: int = 8) -> None:
    """Whole turns over all segments."""
    for _ in range(rounds * 2):
        files.check_next()


@pytest.mark.parametrize("every", [1, 3])
def test_a_running_log_is_found_whole(tmp_path: Path, every: int):
    """Also when a segment gets more between the last look at it and its end."""
    opened = OpenLog(tmp_path)
    checked(opened.files)
    opened.log.recover()
    checked(opened.files)
    journal = None
    for number in range(60):
        if journal is None:
            journal = opened.log.create(7, ReplicaId(1), CONFIGURATION, LogIndex(10), Term(1), b"")
        journal.add(bytes(200), 11 + number, 1)
        opened.sync()
        if number % every == 0:
            opened.files.check_next()
    checked(opened.files)
    assert len(opened.files.segments()) > 2
    opened.files.close()


@pytest.mark.parametrize("seed", range(2))
def test_bits_that_flip_in_a_running_log_are_found_before_the_next_start(
    written: Log, tmp_path: Path, seed: int
):
    chance = random.Random(seed)
    for turn in range(10):
        target = written.copy(tmp_path / "live")
        opened = OpenLog(target)
        opened.log.recover()
        next(iter(opened.log.journals.values())).setCurrentTerm(50, 1)
        opened.sync()  # into a segment of its own
        opened.files.check_next()  # (segments that were freed by this are gone)
        segments = sorted(target.iterdir())
        if turn % 2:
            checked(opened.files)
        path = segments[-1] if turn == 0 else chance.choice(segments)
        used = len(path.read_bytes().rstrip(b"\0"))
        harm.flip(chance.randrange(used), chance.randrange(8)).do_in_place(path)
        with pytest.raises(Corruption):
            checked(opened.files)
        opened.files.close()


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def last_batch_is_zeros(path: Path) -> None:
    data = path.read_bytes().rstrip(b"\0")
    at = data.rindex(BATCH_MAGIC)
    path.write_bytes(data[:at] + bytes(SEGMENT_BYTES))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("damage", [Path.unlink, zeros, last_batch_is_zeros, cut])
def test_a_segment_that_loses_its_end_or_itself_is_found(written: Log, tmp_path: Path, damage):
    opened = OpenLog(written.copy(tmp_path / "live"))
    opened.log.recover()
    next(iter(opened.log.journals.values())).setCurrentTerm(50, 1)
    opened.sync()
    damage(tmp_path / "live" / written.segments[1].name)
    with pytest.raises(Corruption):
        checked(opened.files)
    opened.files.close()


def test_a_sector_of_the_log_that_cannot_be_read_is_damage(
    written: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = OpenLog(written.copy(tmp_path / "live"))
    opened.log.recover()

    def fail(*_: object, **__: object):
        raise OSError(errno.EIO, "Input/output error")

    opened.sync()
    monkeypatch.setattr("raft.files.check_segment", fail)
    with pytest.raises(Corruption, match="Input/output error"):
        checked(opened.files)
    opened.files.close()


# --- who the disk is


def test_every_flipped_bit_of_the_identity_is_found(tmp_path: Path):
    directory = DataDirectory(tmp_path)
    identity = directory.load_identity("storage-az1-0", "az1", "0badcafe")
    path = tmp_path / "node.json"
    good = path.read_bytes()
    assert json.loads(good)["node_id"] == "storage-az1-0.0badcafe"
    for damage in [
        *(harm.flip(offset, bit) for offset in range(len(good)) for bit in range(8)),
        *(harm.truncate(size) for size in range(len(good))),
        harm.overwrite(0, bytes(len(good)), "zeros"),
    ]:
        damage.do(path)
        try:
            found = directory.load_identity("storage-az1-0", "az1", "fresh")
        except DamagedDirectory:
            pass
        else:
            assert found == identity, damage.text  # another way to write the same
        path.write_bytes(good)
    directory.close()


def test_an_identity_without_a_checksum_gets_one(tmp_path: Path):
    directory = DataDirectory(tmp_path)
    (tmp_path / "node.json").write_text('{"version":1,"node_id":"n.x","name":"n","az":"a"}')
    assert directory.load_identity("n", "a", "fresh").node_id == "n.x"
    assert "crc32" in json.loads((tmp_path / "node.json").read_text())
    with pytest.raises(ForeignDirectory):
        directory.load_identity("m", "a", "fresh")
    directory.close()


@pytest.mark.parametrize("left", ["log", "engine"])
def test_a_lost_identity_is_not_replaced_by_a_fresh_one(tmp_path: Path, left: str):
    directory = DataDirectory(tmp_path)
    (tmp_path / left).mkdir()
    with pytest.raises(DamagedDirectory, match="missing"):
        directory.load_identity("n", "a", "fresh")
    directory.close()


def test_damaged_peers_are_forgotten(tmp_path: Path):
    directory = DataDirectory(tmp_path)
    directory.store_peers([Peer("n2.x", "n2", "az2", "h:2", "h:3")])
    good = (tmp_path / "peers.json").read_bytes()
    for damaged in (b"\xff\xfe", good.replace(b"n2.x", b"n\xffx"), good[:-1], b""):
        (tmp_path / "peers.json").write_bytes(damaged)
        assert directory.load_peers() == []
    directory.close()


# --- snapshots, in transit and in files


def test_every_flipped_bit_of_a_received_snapshot_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot_sending, "CHUNK_BYTES", 200)
    source = filled("bcd")
    file = tmp_path / "7.snapshot"
    capture = stored(asyncio.run(chunks_of(source)), file)
    good = file.read_bytes()
    chance = random.Random(8)
    for damage in [
        *(harm.flip(offset, chance.randrange(8)) for offset in range(len(good))),
        *(harm.truncate(size) for size in range(0, len(good), 7)),
        *harm.gross(good, chance),
    ]:
        damage.do(file)
        try:
            found = snapshots.check_file(file, 7)
        except snapshots.BadSnapshot:
            pass
        else:  # the same can be written in another way
            engine = MemoryEngine()
            installation = snapshots.note(engine, 7, file, [found.state])
            for _ in snapshots.steps(engine, 7, installation, file, found):
                pass
            assert found == capture, damage.text
            kept = dict(source.engine.iterate(b"d", b"g"))
            assert dict(engine.iterate(b"d", b"g")) == kept, damage.text
        file.write_bytes(good)
