"""Whatever is damaged in LevelDB's files: what is read is right, or the damage is noticed."""

import random
import shutil
from pathlib import Path

import pytest

from storagenode.engines import leveldb_log
from storagenode.engines.engine import DATA, EngineDamage
from storagenode.engines.leveldb_engine import LevelEngine
from storagenode.engines.table_checksums import TableChecksums
from tests.damage import harm
from tests.damage.engine_store import Store, key_of
from tests.damage.tables import regions

REGIONS = [
    "data", "last data trailer", "filter", "filter trailer", "metaindex", "metaindex trailer",
    "index", "index trailer", "footer", "padding", "magic",
]  # fmt: skip
LONGER = 30_000
HARMLESS = {"filter", "filter trailer", "metaindex", "metaindex trailer", "padding"}
"""Without its filter a table is read as well, only slower."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store") / "engine")


@pytest.mark.parametrize("region", REGIONS)
def test_flipped_bits_in_every_part_of_every_table(store: Store, tmp_path: Path, region: str):
    chance = random.Random(region)
    for table in store.tables:
        places = regions(table.read_bytes())[region]
        offsets = [places[0], places[-1], *chance.sample(places, min(len(places), 4))]
        for number, offset in enumerate(offsets):
            damage = harm.flip(offset, chance.randrange(8))
            verdict = store.judge(damage, table.name, tmp_path / "copy", compact=number % 2 == 1)
            if region in HARMLESS:
                assert verdict == "right", (table.name, damage.text)
            elif region != "footer":  # a number can be written in more than one way
                assert verdict.startswith("found"), (table.name, damage.text)


def other_files(store: Store):
    return [
        path.name
        for path in sorted(store.directory.iterdir())
        if path.name.startswith(("MANIFEST", "CURRENT")) or path.suffix == ".log"
    ]


def test_flipped_bits_in_the_manifest_and_in_leveldbs_own_log(store: Store, tmp_path: Path):
    names = other_files(store)
    assert len(names) == 3
    for name in names:
        size = (store.directory / name).stat().st_size
        step = 5 if size < 1000 else 97
        for damage in list(harm.every_flip(size))[::step]:
            verdict = store.judge(damage, name, tmp_path / "copy")
            if name.startswith("CURRENT"):
                assert verdict.startswith("found")
            elif name.endswith(".log"):
                assert verdict == "right", "what it held is applied again"


def test_every_flip_of_a_length_in_the_manifest_is_found(store: Store, tmp_path: Path):
    """Such a record seems to reach past the end, and LevelDB would go back to the version before it."""
    (name,) = (name for name in other_files(store) if name.startswith("MANIFEST"))
    data = (store.directory / name).read_bytes()
    starts = [0, *(end for end, _, _ in leveldb_log._records(data))][:-1]
    assert len(starts) > 3
    for start in starts:
        for offset, bit in ((start + 4, 0), (start + 4, 7), (start + 5, 1), (start + 5, 6)):
            verdict = store.judge(harm.flip(offset, bit), name, tmp_path / "copy")
            assert verdict.startswith("found"), (start, offset, bit)


def test_a_manifest_that_lost_its_end_is_found_wherever_that_is(store: Store, tmp_path: Path):
    (name,) = (name for name in other_files(store) if name.startswith("MANIFEST"))
    for size in range(0, (store.directory / name).stat().st_size, 3):
        store.judge(harm.truncate(size), name, tmp_path / "copy")


@pytest.mark.parametrize("seed", range(3))
def test_gross_damage_to_every_file(store: Store, tmp_path: Path, seed: int):
    chance = random.Random(seed)
    for path in [*store.tables, *(store.directory / name for name in other_files(store))]:
        for damage in harm.gross(path.read_bytes(), chance):
            store.judge(damage, path.name, tmp_path / "copy", compact=seed == 1)
    first, second = (table.read_bytes() for table in store.tables[:2])
    verdict = store.judge(
        harm.replace(second, "another table"), store.tables[0].name, tmp_path / "copy"
    )
    assert verdict == "found: EngineDamage at the start"
    verdict = store.judge(
        harm.replace(first, "another table"), store.tables[1].name, tmp_path / "copy"
    )
    assert verdict == "found: EngineDamage at the start"


def test_bits_that_flip_while_the_file_is_in_use(store: Store, tmp_path: Path):
    """Mapped and partly cached: what was verified before stays right, what is read now is found."""
    chance = random.Random(5)
    verdicts = set()
    for number in range(24):
        target = tmp_path / "live"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(store.directory, target)
        engine = LevelEngine(target)
        for batch in store.again:
            engine.write(batch)
        if number % 2:
            assert store.read(engine) == "right"
        table = chance.choice(sorted(target.glob("*.ldb")))
        size = table.stat().st_size
        harm.flip(chance.randrange(size), chance.randrange(8)).do_in_place(table)
        verdicts.add(store.read(engine)[:5])
        engine.close()
    assert verdicts == {"right", "found"}


def test_bits_that_flip_beneath_what_is_in_memory_are_found(store: Store, tmp_path: Path):
    """A block in the cache, an index, a filter: LevelDB does not read them again."""
    chance = random.Random(6)
    found = 0
    for _ in range(12):
        target = tmp_path / "live"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(store.directory, target)
        engine = LevelEngine(target)
        for batch in store.again:
            engine.write(batch)
        assert store.read(engine) == "right"
        known = None
        while known != engine._tables():  # (what a compaction has just made was not read before)
            known = engine._tables()
            engine.check_files()
        number, size = chance.choice(sorted(engine._tables()))
        table = target / f"{number:06d}.ldb"
        harm.flip(chance.randrange(size), chance.randrange(8)).do_in_place(table)
        try:
            engine.check_files()
        except EngineDamage as error:
            assert f"table {number} " in str(error)
            found += 1
        else:  # a compaction got it out of the way
            assert (number, size) not in engine._tables()
        engine.close()
    assert found > 3


def write_tables(directory: Path, sizes: dict[int, int]) -> None:
    for number, size in sizes.items():
        (directory / f"{number:06d}.ldb").write_bytes(bytes([number]) * size)


def test_tables_are_read_in_turns_however_long_they_are(tmp_path: Path):
    write_tables(tmp_path, {3: 5 << 20, 4: 10, 9: 3 << 20, 10: 0})
    checksums = TableChecksums(tmp_path, 2 << 20)
    numbers = {3, 4, 9, 10}
    for _ in range(12):
        checksums.look(numbers)
    assert set(checksums._known) == numbers
    (tmp_path / "000004.ldb").unlink()  # by a compaction, between two looks
    write_tables(tmp_path, {12: 100})
    for _ in range(12):
        checksums.look({3, 4, 9, 10, 12})
        checksums.look({3, 9, 10, 12})
    assert set(checksums._known) == {3, 9, 10, 12}
    harm.flip((3 << 20) - 1, 0).do_in_place(tmp_path / "000009.ldb")
    found = 0
    for _ in range(12):
        try:
            checksums.look({3, 9, 10, 12})
        except EngineDamage as error:
            found += "table 9 " in str(error)
    assert found >= 1
    checksums.look(())


@pytest.mark.parametrize("size", [None, 0, 3000, LONGER])
def test_a_table_that_vanishes_or_changes_its_length_is_noticed(
    store: Store, tmp_path: Path, size: int | None
):
    shutil.copytree(store.directory, tmp_path / "live")
    engine = LevelEngine(tmp_path / "live")
    engine.check_files()
    table = tmp_path / "live" / store.tables[0].name
    if size is None:
        table.unlink()
    else:
        with table.open("r+b") as file:
            file.truncate(size)
    with pytest.raises(EngineDamage, match=r"table 5 is missing or not \d+ bytes long"):
        engine.check_files()
    if size != LONGER:
        with pytest.raises(EngineDamage):
            list(engine.iterate(DATA, DATA + b"\xff"))
    engine.close()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("region", ["data", "index"])
def test_an_iteration_does_not_end_early_where_a_block_cannot_be_read(
    tmp_path: Path, region: str, reverse: bool
):
    """For plyvel an iterator that lost its place is one that is at the end."""
    engine = LevelEngine(tmp_path / "engine")
    engine.write([(DATA + key_of(n), b"%0100d" % n) for n in range(400)])
    engine.make_durable()
    engine.close()
    (table,) = (tmp_path / "engine").glob("*.ldb")
    place = regions(table.read_bytes())[region]
    # The last data block, or the first: where the iteration ends.
    offset = {"index": place[3], "data": place[40] if reverse else place[-40]}[region]
    harm.flip(offset, 3).do_in_place(table)
    engine = LevelEngine(tmp_path / "engine")
    snapshot = engine.snapshot()
    for view in (engine, snapshot):
        with pytest.raises(EngineDamage):
            list(view.iterate(DATA, DATA + b"\xff", reverse=reverse))
        start, end = (key_of(0), key_of(9)) if reverse else (key_of(390), key_of(500))
        with pytest.raises(EngineDamage):
            list(view.iterate(DATA + start, DATA + end, reverse=reverse))
    snapshot.close()
    engine.close()


def test_a_whole_range_at_the_ends_of_the_store_is_read_without_complaint(tmp_path: Path):
    engine = LevelEngine(tmp_path / "engine")
    engine.write([(b"d%d" % n, b"x") for n in range(9)])
    for start, end in ((b"a", b"z"), (b"d3", b"z"), (b"a", b"d3"), (b"x", b"z"), (b"a", b"b")):
        expected = [b"d%d" % n for n in range(9) if start <= b"d%d" % n < end]
        assert [key for key, _ in engine.iterate(start, end)] == expected
        assert [key for key, _ in engine.iterate(start, end, reverse=True)] == expected[::-1]
    cursor = engine.iterate(b"a", b"z")
    cursor.skip_to(b"d8")
    assert [key for key, _ in cursor] == [b"d8"]
    cursor = engine.iterate(b"a", b"z")
    cursor.skip_to(b"e")
    assert list(cursor) == []
    engine.close()


# --- LevelDB's own log


def test_the_checksum_is_leveldbs():
    # From the test vectors of CRC-32C (RFC 3720, B.4): 32 bytes of zeros.
    crc = 0x8A9136AA
    assert leveldb_log.masked_crc32c(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & (
        2**32 - 1
    )


def test_a_torn_tail_of_leveldbs_own_log_costs_nothing_before_it(tmp_path: Path):
    engine = LevelEngine(tmp_path / "engine")
    for number in range(600):
        engine.write([(b"d%05d" % number, bytes(number))], sync=number == 400)
    engine.close()
    (path,) = (tmp_path / "engine").glob("*.log")
    data = path.read_bytes()
    assert leveldb_log.whole_bytes(data) == len(data) > 2 * leveldb_log.BLOCK_BYTES
    # A crash of the machine: the file has its length, some pages never came to the disk.
    path.write_bytes(data[:-9000] + bytes(4096) + data[-4904:])
    engine = LevelEngine(tmp_path / "engine")
    keys = [key for key, _ in engine.iterate(b"d", b"e")]
    assert keys == [b"d%05d" % number for number in range(len(keys))], "no holes"
    assert 560 < len(keys) < 600
    engine.close()
    assert [key for key, _ in LevelEngine(tmp_path / "engine").iterate(b"d", b"e")] == keys


def test_a_torn_record_of_the_manifest_costs_nothing(store: Store, tmp_path: Path):
    """A crash of the machine while LevelDB wrote it: the file has its length, not its content."""
    (name,) = (name for name in other_files(store) if name.startswith("MANIFEST"))
    torn = leveldb_log.HEADER.pack(12345, 60, 1) + bytes(60)
    for extra in (torn, torn + bytes(4096), bytes(60)):
        assert store.judge(harm.append(extra, "a torn record"), name, tmp_path / "copy") == "right"


def test_logs_behind_a_damaged_one_count_no_more_and_older_ones_are_left_alone(tmp_path: Path):
    record = leveldb_log.HEADER.pack(leveldb_log.masked_crc32c(b"\1abc"), 3, 1) + b"abc"
    for number, data in ((3, b"rotten"), (5, record * 3 + b"rotten"), (7, record)):
        (tmp_path / f"{number:06d}.log").write_bytes(data)
    assert leveldb_log.cut_damage(tmp_path, 4) == ["000005.log", "000007.log"]
    assert (tmp_path / "000003.log").read_bytes() == b"rotten"
    assert (tmp_path / "000005.log").read_bytes() == record * 3
    assert not (tmp_path / "000007.log").exists()
    assert leveldb_log.cut_damage(tmp_path, 4) == []
