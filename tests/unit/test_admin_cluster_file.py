"""cluster.json and the lock of a data directory."""

import json
import subprocess
import sys

import pytest

from admin.cluster_file import (
    RUNNING,
    AlreadyRunning,
    ClusterFile,
    ClusterFileError,
    DataDirLock,
    ProcessEntry,
    read_cluster_file,
    remove_cluster_file,
    running_supervisor,
    write_cluster_file,
)

ENTRY = ProcessEntry(
    name="storage-az1-0",
    role="storagenode",
    az="az1",
    pid=17,
    address="127.0.0.1:1",
    metrics="http://127.0.0.1:2/metrics",
    grpc="127.0.0.1:3",
    argv=["python", "-m", "admin"],
    env={"A": "b"},
    cwd="/",
    state=RUNNING,
)
CLUSTER = ClusterFile("http://127.0.0.1:8000", "127.0.0.1:50051", 16, [ENTRY])


def test_round_trip_and_the_members_that_scripts_rely_on(tmp_path):
    write_cluster_file(tmp_path, CLUSTER)
    assert read_cluster_file(tmp_path) == CLUSTER
    raw = json.loads((tmp_path / "cluster.json").read_text())
    assert raw["http"] == "http://127.0.0.1:8000"
    assert raw["grpc"] == "127.0.0.1:50051"
    (process,) = raw["processes"]
    wanted = {"name", "role", "az", "pid", "address", "metrics", "argv", "env", "cwd"}
    assert wanted <= process.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]
    assert CLUSTER.first("storagenode") == ENTRY
    assert CLUSTER.first("router") is None


def test_unknown_members_are_ignored(tmp_path):
    write_cluster_file(tmp_path, CLUSTER)
    path = tmp_path / "cluster.json"
    raw = json.loads(path.read_text())
    raw["new"] = raw["processes"][0]["new"] = 1
    path.write_text(json.dumps(raw))
    assert read_cluster_file(tmp_path) == CLUSTER


def test_remove_is_idempotent_and_absence_is_explained(tmp_path):
    write_cluster_file(tmp_path, CLUSTER)
    remove_cluster_file(tmp_path)
    remove_cluster_file(tmp_path)
    with pytest.raises(ClusterFileError, match="quorate up"):
        read_cluster_file(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"http": 1}', "null"])
def test_damage_is_reported(tmp_path, text):
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(ClusterFileError, match="cannot be read"):
        read_cluster_file(tmp_path)


def test_lock_excludes_a_second_supervisor_and_ends_with_its_process(tmp_path):
    assert running_supervisor(tmp_path) is None
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; from admin.cluster_file import DataDirLock\n"
            "DataDirLock(pathlib.Path(sys.argv[1])).acquire(); print('held', flush=True); input()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert running_supervisor(tmp_path) == holder.pid
        with pytest.raises(AlreadyRunning, match=str(holder.pid)) as refusal:
            DataDirLock(tmp_path).acquire()
        assert refusal.value.pid == holder.pid
        holder.kill()
    assert running_supervisor(tmp_path) is None
    lock = DataDirLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()


def test_running_supervisor_of_no_directory(tmp_path):
    assert running_supervisor(tmp_path / "missing") is None
