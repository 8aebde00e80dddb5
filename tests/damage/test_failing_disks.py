"""Disks that fail in use: no space, errors of the device. What was promised stays; nothing is promised after."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storagenode.engines.leveldb_engine import LevelEngine
from tests.chaos.disks import full_disk, small_disk, why_not_mount

ROOT = Path(__file__).resolve().parents[2]
NODE = "import sys; from storagenode.main import main; sys.exit(main(sys.argv[1:]))"

FAULTY_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Calls to $FAULTY_CALL fail on files whose path has $FAULTY_PATH in it, while $FAULTY_FLAG exists. */
static int fails(int fd, const char *call) {
    const char *faulty = getenv("FAULTY_CALL"), *path = getenv("FAULTY_PATH");
    const char *flag = getenv("FAULTY_FLAG");
    char link[64], target[4096];
    if (!faulty || !path || !flag || strcmp(faulty, call) || access(flag, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length < 0) return 0;
    target[length] = 0;
    if (!strstr(target, path)) return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    return fails(fd, "fdatasync") ? -1 : real(fd);
}

ssize_t read(int fd, void *buffer, size_t size) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "read");
    return fails(fd, "read") ? -1 : real(fd, buffer, size);
}

ssize_t pread(int fd, void *buffer, size_t size, off_t offset) {
    static ssize_t (*real)(int, void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pread");
    return fails(fd, "pread") ? -1 : real(fd, buffer, size, offset);
}

ssize_t pread64(int fd, void *buffer, size_t size, off64_t offset) {
    return pread(fd, buffer, size, offset);
}
"""


@pytest.fixture(scope="module")
def faulty_disk(tmp_path_factory):
    """A library that makes calls fail when it is loaded before the others."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    directory = tmp_path_factory.mktemp("faulty")
    (directory / "disk.c").write_text(FAULTY_DISK)
    library = directory / "disk.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(directory / "disk.c"), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the C compiler does not work: {done.stderr}")
    return library


def run(script: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


# --- the engine

CHECKPOINT = """
import os, resource, sys
from pathlib import Path
from storagenode.engines.engine import EngineFailure
from storagenode.engines.leveldb_engine import LevelEngine

engine = LevelEngine(Path(sys.argv[1]))
engine.write([(b"d%04d" % n, os.urandom(4000)) for n in range(100)])
engine.make_durable()
engine.write([(b"e%04d" % n, os.urandom(4000)) for n in range(500)])
if sys.argv[2] == "limit":  # 2 MB must be written; as on a full disk, that cannot be done
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20,) * 2)
else:
    Path(os.environ["FAULTY_FLAG"]).touch()
try:
    engine.make_durable()
except EngineFailure as error:
    print("failed:", type(error).__name__, error, flush=True)
    try:
        engine.write([(b"f", b"")])
    except EngineFailure:
        print("and goes on failing", flush=True)
    os._exit(74)
print("claims to have done it")
"""


def test_a_checkpoint_that_does_not_fit_the_disk_is_not_believed(tmp_path: Path):
    """LevelDB's call that flushes tells nothing."""
    done = run(CHECKPOINT, tmp_path / "engine", "limit")
    assert done.stdout.startswith("failed: EngineFailure"), done.stderr
    assert "and goes on failing" in done.stdout
    engine = LevelEngine(tmp_path / "engine")
    assert len(list(engine.iterate(b"d", b"e"))) == 100
    assert len(list(engine.iterate(b"e", b"f"))) == 500  # only a crash of the machine could cost it
    engine.close()


def test_a_checkpoint_whose_sync_fails_is_not_believed(tmp_path: Path, faulty_disk: Path):
    done = run(
        CHECKPOINT, tmp_path / "engine", "sync", LD_PRELOAD=str(faulty_disk),
        FAULTY_CALL="fdatasync", FAULTY_PATH=".ldb", FAULTY_FLAG=str(tmp_path / "now"),
    )  # fmt: skip
    assert done.stdout.startswith("failed: "), done.stdout + done.stderr
    assert "Input/output error" in done.stdout
    assert "and goes on failing" in done.stdout
    engine = LevelEngine(tmp_path / "engine")
    assert len(list(engine.iterate(b"d", b"e"))) == 100
    engine.close()


# --- the log

SYNCED = """
import queue, sys
from pathlib import Path
from raft.files import FileLogStorage

calls = queue.SimpleQueue()
files = FileLogStorage(Path(sys.argv[1]), calls.put, 1 << 16)
files.roll(1)
for number in range(5):
    if number == 3:
        Path(sys.argv[2]).touch()  # from now on, and never again afterwards
    done = lambda number=number: print("durable", number, flush=True)
    files.append(b"x" * 1000, done, b"receipt")
    calls.get(timeout=20)()
"""


def test_after_a_failed_sync_of_the_log_nothing_is_acknowledged_or_tried_again(
    tmp_path: Path, faulty_disk: Path
):
    done = run(
        SYNCED, tmp_path / "log", tmp_path / "now", LD_PRELOAD=str(faulty_disk),
        FAULTY_CALL="fdatasync", FAULTY_PATH=".raftlog", FAULTY_FLAG=str(tmp_path / "now"),
    )  # fmt: skip
    assert done.returncode == 74
    assert done.stdout.split("\n")[:-1] == ["durable 0", "durable 1", "durable 2"]
    assert "the raft log cannot be written" in done.stderr
    assert "Input/output error" in done.stderr


# --- a whole storage node


def flags(data: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-c", NODE, "--name", "a", "--az", "az1", "--data-dir", str(data),
        "--initial-cluster", "a@az1=127.0.0.1:1", *more,
    ]  # fmt: skip


def found_cluster(data: Path) -> None:
    """Let a node of its own live for a moment."""
    log = data.with_name("log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(flags(data), cwd=ROOT, stderr=stderr)
    try:
        deadline = time.monotonic() + 30
        while "registered in the catalog" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def started(data: Path, *more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        flags(data, *more), cwd=ROOT, env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_node_started_on_a_full_disk_ends_and_keeps_what_it_has(tmp_path: Path):
    if reason := why_not_mount():
        pytest.skip(reason)
    data = tmp_path / "data"
    try:
        disk = small_disk(data, 200)
        disk.__enter__()
    except OSError as error:
        pytest.skip(str(error))
    try:
        found_cluster(data)
        identity = (data / "node.json").read_bytes()
        with full_disk(data):
            for _ in range(3):
                done = started(data)
                assert done.returncode == 74, done.stderr
                assert "No space left on device" in done.stderr
                assert "damaged" not in done.stderr
        found_cluster(data)
        assert (data / "node.json").read_bytes() == identity, "the same disk"
    finally:
        disk.__exit__(None, None, None)


@pytest.mark.parametrize("file", [".raftlog", "node.json"])
def test_a_file_that_cannot_be_read_at_the_start_is_damage(
    tmp_path: Path, faulty_disk: Path, file: str
):
    data = tmp_path / "data"
    found_cluster(data)
    (tmp_path / "now").touch()
    done = started(
        data, "--keep-damaged", LD_PRELOAD=str(faulty_disk),
        FAULTY_CALL="read", FAULTY_PATH=file, FAULTY_FLAG=str(tmp_path / "now"),
    )  # fmt: skip
    assert done.returncode == 74, done.stderr
    assert "the data directory is damaged" in done.stderr
    assert "Input/output error" in done.stderr


BAD_SECTOR = """
import os, sys
from pathlib import Path
from storagenode.engines.engine import EngineDamage
from storagenode.engines.leveldb_engine import LevelEngine

engine = LevelEngine(Path(sys.argv[1]))
engine.write([(b"d%04d" % n, os.urandom(1000)) for n in range(99)])
engine.make_durable()
engine.close()
engine = LevelEngine(Path(sys.argv[1]))
engine.get(b"d0001")  # the table is open
Path(os.environ["FAULTY_FLAG"]).touch()
views = engine, engine.snapshot()
for read in (lambda view: view.get(b"d0090"), lambda view: list(view.iterate(b"d", b"e"))):
    for view in views:
        try:
            print("read", read(view))
        except EngineDamage as error:
            print("damage:", error)
"""


def test_a_sector_under_an_open_table_that_cannot_be_read_is_damage(
    tmp_path: Path, faulty_disk: Path
):
    """With mapped tables it would be the end of the process (SIGBUS), again and again."""
    done = run(
        BAD_SECTOR, tmp_path / "engine", LD_PRELOAD=str(faulty_disk),
        FAULTY_CALL="pread", FAULTY_PATH=".ldb", FAULTY_FLAG=str(tmp_path / "now"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("damage: ") and "Input/output error" in line for line in lines)
