"""LevelDB maps no table of ours, and what it has once verified it goes on using, whatever becomes of the file."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storagenode.engines import leveldb_unmapped
from storagenode.engines.engine import DATA, EngineDamage, EngineFailure
from storagenode.engines.leveldb_engine import LevelEngine
from tests.damage import harm
from tests.damage.engine_store import Store
from tests.damage.tables import regions

ROOT = Path(__file__).resolve().parents[2]

ON_ITS_OWN = """
import sys
import time
from collections.abc import Callable
from pathlib import Path
import plyvel
from storagenode.engines import leveldb_unmapped

scratch, directory = Path(sys.argv[1]) / "scratch", Path(sys.argv[1]) / "database"
if sys.argv[2] == "copies":  # as on a file system on which a file has one name

    def fail(*names):
        raise OSError(95, "Operation not supported")

    leveldb_unmapped.os.link = fail
if sys.argv[2] != "map":
    for _ in range(2):
        leveldb_unmapped.prevent_mapping(scratch)
    assert leveldb_unmapped.mapped_tables(scratch) == leveldb_unmapped.MAPPED_MAX
database = plyvel.DB(str(directory), create_if_missing=True)
for n in range(5):
    database.put(b"%d" % n, b"")
    database.compact_range(start=b"0", stop=b"9")
    assert database.get(b"%d" % n) == b""
print(leveldb_unmapped.mapped_tables(directory), *scratch.parent.iterdir())
"""


@pytest.mark.parametrize("how", ["", "copies", "map"])
def test_no_table_of_a_database_opened_later_is_mapped(tmp_path: Path, how: str):
    """The control shows what LevelDB does on its own."""
    command = [sys.executable, "-c", ON_ITS_OWN, str(tmp_path), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    count, *left = done.stdout.split()
    assert (int(count) > 0) == (how == "map")
    assert left == [str(tmp_path / "database")]


def test_what_a_crash_left_of_the_scratch_directory_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(leveldb_unmapped, "_tables", [])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    leveldb_unmapped._write(scratch, 20)
    (scratch / "001500.ldb").write_bytes(b"rest")
    leveldb_unmapped.prevent_mapping(scratch)
    (database,) = leveldb_unmapped._tables
    assert not scratch.exists()
    assert (
        database.get_property(b"leveldb.num-files-at-level6") == b"%d" % leveldb_unmapped.MAPPED_MAX
    )
    database.close()


def test_a_leveldb_that_maps_more_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leveldb_unmapped, "_tables", [])
    monkeypatch.setattr(
        leveldb_unmapped, "mapped_tables", lambda directory: leveldb_unmapped.MAPPED_MAX + 1
    )
    with pytest.raises(EngineFailure, match="maps more than 1000 tables") as caught:
        LevelEngine(tmp_path / "engine")
    assert not isinstance(caught.value, EngineDamage), "nothing is to be set aside"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store") / "engine")


def _tables_at_rest(directory: Path, read_all: Callable[[], bool]) -> list[Path]:
    """The tables once reading all of them leaves them as they are: compactions in the background have ended."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before = sorted(directory.glob("*.ldb"))
        assert read_all()
        time.sleep(0.1)
        if sorted(directory.glob("*.ldb")) == before:
            return before
    raise AssertionError("compactions go on and on")


@pytest.mark.parametrize("noise", [0x00, 0x01, 0xFF])
@pytest.mark.parametrize("region", ["filter", "index", "metaindex", "footer"])
def test_rot_in_what_leveldb_keeps_of_an_open_table_changes_nothing(
    store: Store, tmp_path: Path, region: str, noise: int
):
    """Every byte of it, of every table: nothing of it is read from the file again. (A filter of zeros says that
    nothing is there.)
    """
    live = tmp_path / "live"
    shutil.copytree(store.directory, live)
    engine = LevelEngine(live)
    for batch in store.again:
        engine.write(batch)
    small = [(b"x%d" % n, b"%d" % n) for n in range(9)]
    engine.write(small)
    engine.make_durable()  # a table whose index is too short to be compressed
    for table in _tables_at_rest(
        live, lambda: store.read(engine) == "right"
    ):  # every table is open
        place = regions(table.read_bytes())[region]
        rotten = bytes([noise]) * len(place)
        harm.overwrite(place.start, rotten, "rotten").do_in_place(table)
    assert store.read(engine) == "right"
    assert [(key, engine.get(key)) for key, _ in small] == small
    assert list(engine.iterate(b"x", b"y")) == small
    engine.close()


def test_rot_under_an_iteration_is_found_or_not_seen(store: Store, tmp_path: Path):
    """A block in use is one in memory: what was verified is what is returned."""
    chance = random.Random(4)
    expected = list(LevelEngine(store.copy(tmp_path / "whole")).iterate(DATA, DATA + b"\xff"))
    ends = set()
    for number in range(20):
        live = tmp_path / f"live{number}"
        shutil.copytree(store.directory, live)
        engine = LevelEngine(live)
        seen = []
        cursor = engine.iterate(DATA, DATA + b"\xff")
        stop = chance.randrange(len(expected))
        try:
            for pair in cursor:
                seen.append(pair)
                if len(seen) == stop:
                    for table in sorted(live.glob("*.ldb")):
                        noise = chance.randbytes(table.stat().st_size)
                        harm.overwrite(0, noise, "noise").do_in_place(table)
            ends.add("right")
            assert seen == expected
        except EngineDamage:
            ends.add("found")
            assert seen == expected[: len(seen)]
        cursor.close()
        engine.close()
    assert "found" in ends
