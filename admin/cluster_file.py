"""`DIR/cluster.json`: what a running local cluster consists of, for tools and people.

The file exists while the cluster that `quorate up` started is ready, and is replaced as a whole: a reader sees
one state or the next, never half of one. `DIR/lock` says who runs the cluster, ready or not.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CLUSTER_FILE = "cluster.json"
LOCK_FILE = "lock"

RUNNING, DEAD = "running", "dead"


class ClusterFileError(Exception):
    """There is no cluster file, or it is not one; the message is for the user."""


class AlreadyRunning(Exception):
    """Another supervisor runs on this data directory."""

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        super().__init__(
            f"a cluster already runs on {data_dir} (supervisor pid {pid or 'unknown'})"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process: enough to kill, pause and start it again.

    Attributes:
        name: Unique in the cluster, as in `storage-az1-0`.
        role: storagenode, router or admin.
        az: Zone.
        pid: Of the process, or of the last one while `state` is dead.
        state: running, or dead (0 stands for a pid while it never ran).
        address: Where it serves: the framed link (storagenode), HTTP (router), gRPC (admin).
        metrics: URL of `/metrics`; `/healthz` and `/readyz` are beside it.
        grpc: Its gRPC address.
        argv: Command line.
        env: Variables that were set on top of the supervisor's own.
        cwd: Working directory.
    """

    name: str
    role: str
    az: str
    pid: int
    address: str
    metrics: str
    grpc: str
    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str = ""
    state: str = DEAD


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """The whole file: the endpoints for clients, the supervisor's pid, all processes."""

    http: str
    grpc: str
    supervisor: int
    processes: list[ProcessEntry]

    def first(self, role: str) -> ProcessEntry | None:
        """The first process of a role."""
        return next((entry for entry in self.processes if entry.role == role), None)


def write_cluster_file(data_dir: Path, cluster: ClusterFile) -> None:
    """Replace the file atomically."""
    path = data_dir / CLUSTER_FILE
    temporary = path.with_name(f".{CLUSTER_FILE}.new")
    temporary.write_text(json.dumps(asdict(cluster), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_cluster_file(data_dir: Path) -> ClusterFile:
    """The file's content; members that this version does not know are ignored.

    Raises:
        ClusterFileError: It does not exist or is damaged.
    """
    path = data_dir / CLUSTER_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return ClusterFile(
            http=str(raw["http"]),
            grpc=str(raw["grpc"]),
            supervisor=int(raw["supervisor"]),
            processes=[_entry(process) for process in raw["processes"]],
        )
    except FileNotFoundError:
        raise ClusterFileError(
            f"no cluster is ready on {data_dir}: {path} does not exist (start one with `quorate up`)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterFileError(f"{path} cannot be read: {error!r}") from error


def _entry(raw: dict[str, Any]) -> ProcessEntry:
    return ProcessEntry(
        name=str(raw["name"]),
        role=str(raw["role"]),
        az=str(raw["az"]),
        pid=int(raw["pid"]),
        address=str(raw["address"]),
        metrics=str(raw["metrics"]),
        grpc=str(raw.get("grpc", "")),
        argv=[str(word) for word in raw["argv"]],
        env={str(name): str(value) for name, value in raw["env"].items()},
        cwd=str(raw["cwd"]),
        state=str(raw.get("state", RUNNING)),
    )


def remove_cluster_file(data_dir: Path) -> None:
    """Say that no cluster is ready. Idempotent."""
    (data_dir / CLUSTER_FILE).unlink(missing_ok=True)


class DataDirLock:
    """Held by the one supervisor of a data directory; the kernel lets go of it when that process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock and write our pid into it.

        Raises:
            AlreadyRunning: Another process has it.
        """
        descriptor = os.open(
            self._data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        # Whoever only looks (`running_supervisor`) holds the lock for a moment: ask again before giving up.
        for patience in (0.02, 0.05, 0.1, 0.0):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience:
                    time.sleep(patience)
                    continue
                pid = _read_pid(descriptor)
                os.close(descriptor)
                raise AlreadyRunning(self._data_dir, pid) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def running_supervisor(data_dir: Path) -> int | None:
    """Pid of the supervisor that holds the directory's lock; None when nobody does.

    Takes the lock for a moment, shared, so two who look do not see each other.
    """
    try:
        descriptor = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
