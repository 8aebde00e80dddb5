"""What `storagenode.engines.engine` promises, asked of every engine."""

import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storagenode.engines.engine import EngineFailure, feed_key, feed_range, group_key, group_of_key
from storagenode.engines.leveldb_engine import LevelEngine
from storagenode.engines.memory_engine import MemoryEngine


@pytest.fixture(params=["memory", "leveldb"])
def engine(request, tmp_path):
    opened = MemoryEngine() if request.param == "memory" else LevelEngine(tmp_path / "engine")
    yield opened
    opened.close()


def test_get_put_delete(engine):
    assert engine.get(b"a") is None
    engine.write([(b"a", b"1"), (b"b", b""), (b"c", b"3")])
    assert (engine.get(b"a"), engine.get(b"b"), engine.get(b"c")) == (b"1", b"", b"3")
    engine.write([(b"a", None), (b"nothing", None), (b"c", b"4")])
    assert (engine.get(b"a"), engine.get(b"c")) == (None, b"4")


def test_mutations_of_one_write_happen_in_order(engine):
    engine.write([(b"a", b"1"), (b"a", None), (b"a", b"2"), (b"b", b"1"), (b"b", None)], sync=True)
    assert (engine.get(b"a"), engine.get(b"b")) == (b"2", None)


@pytest.mark.parametrize(
    ("start", "end", "reverse", "expected"),
    [
        (b"a", b"z", False, [b"a", b"b", b"b\x00", b"c", b"\x7f"[:0] + b"d"]),
        (b"a", b"z", True, [b"d", b"c", b"b\x00", b"b", b"a"]),
        (b"b", b"c", False, [b"b", b"b\x00"]),
        (b"b", b"c", True, [b"b\x00", b"b"]),
        (b"b\x00", b"b\x00", False, []),
        (b"c", b"d", True, [b"c"]),
        (b"d", b"e", True, [b"d"]),
        (b"c", b"a", True, []),
        (b"c", b"a", False, []),
        (b"bb", b"cc", False, [b"c"]),
        (b"bb", b"cc", True, [b"c"]),
        (b"", b"\xff\xff", False, [b"a", b"b", b"b\x00", b"c", b"d", b"\xff"]),
        (b"x", b"\xff", True, []),
    ],
)
def test_ranges(engine, start, end, reverse, expected):
    engine.write([(key, b"v" + key) for key in (b"d", b"a", b"c", b"b\x00", b"b", b"\xff")])
    cursor = engine.iterate(start, end, reverse=reverse)
    assert list(cursor) == [(key, b"v" + key) for key in expected]
    cursor.close()
    cursor.close()


@pytest.mark.parametrize(
    ("to", "left"),
    [
        (b"b", [b"b", b"b\x00", b"c"]),
        (b"b\x00\x00", [b"c"]),
        (b"c", [b"c"]),
        (b"cc", []),
        (b"z", []),
    ],
)
@pytest.mark.parametrize("taken", [0, 1])
def test_skipping_ahead(engine, to, left, taken):
    engine.write([(key, b"v") for key in (b"0", b"a", b"b", b"b\x00", b"c", b"d")])
    cursor = engine.iterate(b"a", b"d")
    for _ in range(taken):
        next(cursor)
    cursor.skip_to(to)
    assert [key for key, _ in cursor] == left
    cursor.close()


def test_an_iteration_does_not_see_later_writes(engine):
    engine.write([(b"a", b"1"), (b"b", b"1")])
    cursor = engine.iterate(b"a", b"z")
    assert next(cursor) == (b"a", b"1")
    engine.write([(b"b", b"2"), (b"c", b"2"), (b"a", None)])
    assert list(cursor) == [(b"b", b"1")]
    cursor.close()


def test_a_snapshot_does_not_see_later_writes_and_may_be_read_elsewhere(engine):
    engine.write([(b"a", b"1"), (b"b", b"1")])
    snapshot = engine.snapshot()
    engine.write([(b"a", b"2"), (b"b", None), (b"c", b"2")])
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(snapshot.iterate(b"a", b"z")))
    thread.start()
    thread.join()
    assert seen == [(b"a", b"1"), (b"b", b"1")]
    assert snapshot.get(b"c") is None
    snapshot.close()
    assert list(engine.iterate(b"a", b"z")) == [(b"a", b"2"), (b"c", b"2")]


def test_make_durable_while_writing(engine):
    engine.write([(b"a%d" % number, b"x" * 1000) for number in range(1000)])
    thread = threading.Thread(target=engine.make_durable)
    thread.start()
    for number in range(200):
        engine.write([(b"b%d" % number, b"y")])
    thread.join()
    assert len(list(engine.iterate(b"a", b"c"))) == 1200


def test_sizes_are_numbers(engine):
    engine.write([(b"a%d" % number, bytes(1000)) for number in range(100)])
    assert engine.approximate_size_bytes(b"a", b"b") >= 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    writes=st.lists(
        st.lists(
            st.tuples(st.binary(min_size=1, max_size=3), st.none() | st.binary(max_size=4)),
            max_size=6,
        ),
        max_size=6,
    ),
    start=st.binary(max_size=2),
    end=st.binary(max_size=2),
)
def test_an_engine_is_a_sorted_dict(engine, writes, start, end):
    engine.write([(key, None) for key, _ in list(engine.iterate(b"", b"\xff" * 4))])
    model: dict[bytes, bytes] = {}
    for mutations in writes:
        engine.write(mutations)
        for key, value in mutations:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    expected = sorted((key, value) for key, value in model.items() if start <= key < end)
    assert list(engine.iterate(start, end)) == expected
    assert list(engine.iterate(start, end, reverse=True)) == expected[::-1]
    assert all(engine.get(key) == value for key, value in model.items())


def test_leveldb_keeps_what_was_written_when_the_process_is_killed(tmp_path):
    script = (
        "import os, pathlib, sys\n"
        "from storagenode.engines.leveldb_engine import LevelEngine\n"
        "engine = LevelEngine(pathlib.Path(sys.argv[1]))\n"
        "engine.write([(b'durable', b'1')]); engine.make_durable()\n"
        "engine.write([(b'written', b'2')])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "e")], check=False, timeout=30)
    engine = LevelEngine(tmp_path / "e")
    assert (engine.get(b"durable"), engine.get(b"written")) == (b"1", b"2")
    engine.close()


def test_leveldb_refuses_a_second_opening(tmp_path):
    engine = LevelEngine(tmp_path / "e")
    with pytest.raises(EngineFailure, match="cannot open"):
        LevelEngine(tmp_path / "e")
    engine.close()


def test_leveldb_make_durable_moves_the_memory_table_to_a_file(tmp_path):
    engine = LevelEngine(tmp_path / "e")
    engine.write([(b"a", b"x" * 10_000)])
    assert not list((tmp_path / "e").glob("*.ldb"))
    engine.make_durable()
    assert list((tmp_path / "e").glob("*.ldb"))
    engine.close()


def test_keys_of_groups():
    assert group_of_key(group_key(b"g", 77)) == 77
    start, end = feed_range(5)
    assert start <= feed_key(5, 0) < feed_key(5, 1) < feed_key(5, 1 << 63) < end
    assert end < feed_key(6, 0)
