"""Starts, breaks and stops real local clusters.

`LocalCluster` runs `quorate up` as a user would and works from the `cluster.json` that it keeps: every
fault is done with what that file says (pid, argv, env, cwd), as a user's own scripts would do it.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout_s: float, what: str, every_s: float = 0.05) -> T:
    """Poll until `condition` is true and return its value; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)


def http_get(url: str, timeout_s: float = 2.0) -> tuple[int, str]:
    """Status and body; status 0 when nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except OSError:
        return 0, ""


class LocalCluster:
    """A cluster under `data_dir`, from `start` to `stop`.

    `is_local` says that its processes and files are this machine's to reach.
    """

    is_local = True

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self.data_dir = data_dir
        self.flags = flags
        self._up: subprocess.Popen[bytes] | None = None
        self._own: dict[str, subprocess.Popen[bytes]] = {}
        self.log_path = data_dir / "up.log"

    # life

    def start(self, timeout_s: float = 60.0) -> None:
        """Run `quorate up` and wait until it says that it is ready."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        (self.data_dir / "cluster.json").unlink(missing_ok=True)
        with self.log_path.open("ab") as log:
            self._up = subprocess.Popen(
                [
                    sys.executable, "-m", "admin", "up", "--data-dir", str(self.data_dir),
                    "--http-port", "0", "--grpc-port", "0", *self.flags,
                ],
                cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

        def ready() -> bool:
            assert self._up is not None
            if self._up.poll() is not None:
                raise AssertionError(f"quorate up ended with {self._up.returncode}:\n{self.log()}")
            return (self.data_dir / "cluster.json").exists() and self.is_ready()

        try:
            wait_until(ready, timeout_s, "cluster ready")
        except BaseException:
            sys.stderr.write(self.log())
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything this object or its `quorate up` started; never leaves a process behind."""
        pids = [p["pid"] for p in self.processes()] if self.cluster_file.exists() else []
        for process in self._own.values():
            if process.poll() is None:
                process.kill()
                process.wait()
        if self._up is not None:
            for pid in pids:
                signal_pid(pid, signal.SIGCONT)
            if self._up.poll() is None:
                self._up.send_signal(signal.SIGTERM)
                try:
                    self._up.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(self._up.pid, signal.SIGKILL)
                    self._up.wait()
            for pid in pids:
                signal_pid(pid, signal.SIGKILL, only_ours=True)
            self._up = None

    @property
    def up_process(self) -> "subprocess.Popen[bytes]":
        """The running `quorate up`."""
        assert self._up is not None
        return self._up

    # views

    @property
    def cluster_file(self) -> Path:
        """Where `quorate up` describes the running cluster."""
        return self.data_dir / "cluster.json"

    def description(self) -> dict[str, Any]:
        """The current content of cluster.json."""
        return json.loads(self.cluster_file.read_text())  # type: ignore[no-any-return]

    def processes(self, role: str | None = None) -> list[dict[str, Any]]:
        """Processes by role, as cluster.json lists them."""
        return [p for p in self.description()["processes"] if role in (None, p["role"])]

    def process(self, name: str) -> dict[str, Any]:
        """One process by name."""
        return next(p for p in self.processes() if p["name"] == name)

    @property
    def http(self) -> str:
        """The endpoint for AWS SDKs."""
        return self.description()["http"]  # type: ignore[no-any-return]

    @property
    def grpc(self) -> str:
        """host:port of the gRPC endpoint."""
        return self.description()["grpc"]  # type: ignore[no-any-return]

    def is_ready(self) -> bool:
        """Whether the endpoint serves and every process says it is ready."""
        if http_get(self.http + "/readyz")[0] != 200:
            return False
        return all(
            http_get(p["metrics"].removesuffix("/metrics") + "/readyz")[0] == 200
            for p in self.processes()
        )

    def wait_process_ready(self, name: str, timeout_s: float = 30.0) -> None:
        """Return once the process says that it can do its work."""
        url = self.process(name)["metrics"].removesuffix("/metrics") + "/readyz"
        wait_until(lambda: http_get(url)[0] == 200, timeout_s, f"{name} ready", 0.02)

    def log(self) -> str:
        """The last part of what the cluster printed."""
        return self.log_path.read_text(errors="replace")[-20_000:] if self.log_path.exists() else ""

    def status(self) -> dict[str, Any]:
        """`quorate status --json`."""
        done = subprocess.run(
            [sys.executable, "-m", "admin", "status", "--json", "--data-dir", str(self.data_dir)],
            cwd=ROOT, capture_output=True, timeout=30, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def resident_bytes(self) -> int:
        """Resident memory of the supervisor and all its processes."""
        pids = [p["pid"] for p in self.processes()] + [self.up_process.pid]
        total = 0
        for pid in pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total

    # faults

    def kill(self, name: str) -> None:
        """Kill -9."""
        process = self._own.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()
        else:
            pid = self.pid(name)
            signal_pid(pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(pid), 5, f"{name} dead", 0.005)

    def terminate(self, name: str, timeout_s: float = 30.0) -> None:
        """SIGTERM, and wait until it has stopped by itself."""
        pid = self.pid(name)
        signal_pid(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), timeout_s, f"{name} stopped", 0.005)
        process = self._own.pop(name, None)
        if process is not None:
            assert process.wait() == 0, f"{name} ended with {process.returncode}"

    def pause(self, name: str) -> None:
        """SIGSTOP: the process is there and silent."""
        signal_pid(self.pid(name), signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        signal_pid(self.pid(name), signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Start a dead process again, exactly as it was started."""
        entry = self.process(name)
        with self.log_path.open("ab") as log:
            self._own[name] = subprocess.Popen(
                entry["argv"], env={**os.environ, **entry["env"]}, cwd=entry["cwd"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def heal(self) -> None:
        """Start again what is dead, for a cluster that goes on afterwards."""

    def pid(self, name: str) -> int:
        """Of the process as it runs now, or ran last."""
        own = self._own.get(name)
        return own.pid if own is not None else int(self.process(name)["pid"])

    def terms(self) -> dict[int, int]:
        """The highest term that any storage node reports, by group."""
        found: dict[int, int] = {}
        for process in self.processes("storagenode"):
            for line in http_get(process["metrics"])[1].splitlines():
                if line.startswith("quorate_storagenode_raft_term{"):
                    group = int(line.partition('group="')[2].partition('"')[0])
                    term = int(float(line.rpartition(" ")[2]))
                    found[group] = max(found.get(group, 0), term)
        return found

    def leader_of(self, group: int) -> str | None:
        """Name of the storage node whose metrics say that it leads the group."""
        for process in self.processes("storagenode"):
            for line in http_get(process["metrics"])[1].splitlines():
                if line.startswith(
                    f'quorate_storagenode_raft_role{{group="{group}",role="leader"}} 1'
                ):
                    return str(process["name"])
        return None

    # clients

    def client(self, **config: Any) -> Any:
        """A boto3 client with the SDK's defaults unless told otherwise."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "dynamodb", endpoint_url=self.http, **CREDENTIALS, config=Config(**config)
        )

    def resource(self) -> Any:
        """A boto3 resource."""
        import boto3

        return boto3.resource("dynamodb", endpoint_url=self.http, **CREDENTIALS)


def data_directory(cluster: LocalCluster, name: str) -> Path:
    """Of a storage node."""
    argv = cluster.process(name)["argv"]
    return Path(argv[argv.index("--data-dir") + 1])


def node_id(cluster: LocalCluster, name: str) -> str:
    """Of the disk that the node runs on; empty while it has none, or does not know."""
    try:
        return str(json.loads((data_directory(cluster, name) / "node.json").read_text())["node_id"])
    except (FileNotFoundError, ValueError):
        return ""


def is_whole(cluster: LocalCluster, lost: set[str]) -> bool:
    """Each partition, the catalog's too, has three replicas on disks that are there, all of them in service."""
    status = cluster.status()
    partitions = [p for t in status["tables"] for p in t["partitions"]] + status["catalog"]
    for partition in partitions:
        replicas = partition["replicas"]
        if len(replicas) != 3 or {r["node_id"] for r in replicas} & lost:
            return False
        if sorted(r["role"] for r in replicas) != ["follower", "follower", "leader"]:
            return False
    return len(partitions) > 1


def scrub(cluster: LocalCluster, *arguments: str) -> tuple[int, str]:
    """Exit status and output of `quorate scrub`."""
    done = subprocess.run(
        [sys.executable, "-m", "admin", "scrub", "--data-dir", str(cluster.data_dir), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


CREDENTIALS = {
    "region_name": "us-east-1",
    "aws_access_key_id": "local",
    "aws_secret_access_key": "local",
}


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def signal_pid(pid: int, number: int, *, only_ours: bool = False) -> None:
    """Signal a process that may be gone already; `only_ours` spares a recycled pid."""
    try:
        if only_ours and b"quorate" not in Path(f"/proc/{pid}/cmdline").read_bytes() + b"":
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if not any(word in command for word in (b"storagenode", b"router", b"admin")):
                return
        os.kill(pid, number)
    except (FileNotFoundError, ProcessLookupError):
        return


@contextmanager
def running_cluster(data_dir: Path, *flags: str) -> Iterator[LocalCluster]:
    """A started cluster that is stopped whatever happens."""
    cluster = LocalCluster(data_dir, *flags)
    cluster.start()
    try:
        yield cluster
    except BaseException:
        sys.stderr.write(cluster.log())
        raise
    finally:
        cluster.stop()
