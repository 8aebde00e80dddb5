"""What is measured: our cluster, its controls, and the peers that are installed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.cluster.harness import LocalCluster
from tests.cluster.workload import Answer, WireClient

ROOT = Path(__file__).resolve().parents[2]
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / CLOCK_TICKS


class System:
    """Something with an HTTP endpoint, its processes and a dialect that load.lua speaks."""

    name = "?"
    dialect = "dynamodb"
    operations = frozenset({"get_strong", "get_eventual", "put", "update", "query"})

    def start(self, directory: Path) -> None:
        """Bring it up with empty data under `directory`."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it and everything it started."""
        raise NotImplementedError

    @property
    def endpoint(self) -> str:
        """URL for the load."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """All processes whose CPU time counts."""
        raise NotImplementedError

    def fill(self, keys: int) -> None:
        """Create the tables and write every key once, and what Query reads."""
        client = WireClient(self.endpoint, timeout_s=60)
        for table, sort in (("bench", False), ("bench_query", True)):
            names = ["pk", "sk"] if sort else ["pk"]
            client.call(
                "CreateTable",
                TableName=table,
                KeySchema=[
                    {"AttributeName": n, "KeyType": k}
                    for n, k in zip(names, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
                BillingMode="PAY_PER_REQUEST",
            )
            while client.call("DescribeTable", TableName=table)["Table"]["TableStatus"] != "ACTIVE":
                time.sleep(0.05)
        pad = "x" * 40
        for n in range(keys):
            item = {"pk": {"S": f"k{n:06}"}, "f0": {"S": pad}, "f1": {"S": pad}, "t": {"S": "fill"}}
            client.call("PutItem", TableName="bench", Item=item)
        for p in range(100):
            for s in range(20):
                item = {
                    "pk": {"S": f"q{p:04}"},
                    "sk": {"S": f"{s:04}"},
                    "f0": {"S": pad},
                    "f1": {"S": pad},
                }
                client.call("PutItem", TableName="bench_query", Item=item)
        client.close()

    def read_back(self, token: str, keys: int) -> int:
        """How many keys carry this run's token: proof that the writes were done."""
        client = WireClient(self.endpoint, timeout_s=60)
        found = 0
        for n in range(keys):
            key = {"pk": {"S": f"k{n:06}"}}
            item = client.call("GetItem", TableName="bench", Key=key, ConsistentRead=True)["Item"]
            found += item["t"]["S"] == token
        client.close()
        return found


class Quorate(System):
    """Our cluster: three replicas in three zones."""

    def __init__(self, name: str, *flags: str) -> None:
        self.name = name
        self._flags = flags
        self._cluster: LocalCluster | None = None

    def start(self, directory: Path) -> None:
        """`quorate up`."""
        self._cluster = LocalCluster(directory / self.name, *self._flags)
        self._cluster.start()

    def stop(self) -> None:
        """As a user would."""
        if self._cluster is not None:
            self._cluster.stop()

    @property
    def cluster(self) -> LocalCluster:
        """The running cluster."""
        assert self._cluster is not None
        return self._cluster

    @property
    def endpoint(self) -> str:
        """The router."""
        return self.cluster.http

    def pids(self) -> list[int]:
        """Supervisor and every process."""
        return [self.cluster.up_process.pid, *(p["pid"] for p in self.cluster.processes())]


class Spawned(System):
    """A peer of plain processes."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        self._endpoint = ""

    def _spawn(self, *argv: str) -> None:
        self._processes.append(
            subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        )

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def endpoint(self) -> str:
        """URL for the load."""
        return self._endpoint

    def pids(self) -> list[int]:
        """All its processes."""
        return [p.pid for p in self._processes]


class Dynalite(Spawned):
    """One process without replication or fsync, in memory."""

    name = "dynalite-memory"

    def start(self, directory: Path) -> None:
        """Start it and wait until it answers."""
        tool = find_dynalite()
        assert tool is not None
        port = free_port()
        self._spawn(tool, "--port", str(port), "--createTableMs", "0", "--deleteTableMs", "0")
        self._endpoint = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                WireClient(self._endpoint).call("ListTables")
                return
            except Answer:
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("dynalite does not answer")


class Etcd(Spawned):
    """Three nodes with fsync; the load goes to the leader's JSON gateway."""

    name = "etcd-json"
    dialect = "etcd"
    operations = frozenset({"get_strong", "get_eventual", "put", "query"})

    def start(self, directory: Path) -> None:
        """Start three members and find their leader."""
        clients = [free_port() for _ in range(3)]
        peers = [free_port() for _ in range(3)]
        initial = ",".join(f"n{i}=http://127.0.0.1:{p}" for i, p in enumerate(peers))
        for i in range(3):
            peer, url = f"http://127.0.0.1:{peers[i]}", f"http://127.0.0.1:{clients[i]}"
            self._spawn(
                "etcd", "--name", f"n{i}", "--data-dir", str(directory / f"etcd{i}"),
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--listen-client-urls", url, "--advertise-client-urls", url,
                "--initial-cluster", initial, "--initial-cluster-state", "new",
                "--logger", "zap", "--log-level", "error",
            )  # fmt: skip
        for _ in range(100):
            for port in clients:
                url = f"http://127.0.0.1:{port}"
                try:
                    status = self._post(url, "/v3/maintenance/status", b"{}")
                except OSError:
                    continue
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    self._endpoint = url
                    return
            time.sleep(0.1)
        raise RuntimeError("etcd has no leader")

    @staticmethod
    def _post(url: str, path: str, body: bytes) -> dict:  # type: ignore[type-arg]
        import json

        with urllib.request.urlopen(url + path, data=body, timeout=5) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]

    def fill(self, keys: int) -> None:
        """The same keys and values, as far as a flat keyspace has them."""
        import base64
        import json

        def put(key: str, value: str) -> None:
            pair = {"key": key, "value": value}
            document = {k: base64.b64encode(v.encode()).decode() for k, v in pair.items()}
            self._post(self._endpoint, "/v3/kv/put", json.dumps(document).encode())

        for n in range(keys):
            put(f"k{n:06}", "x" * 80 + "fill")
        for p in range(100):
            for s in range(20):
                put(f"q{p:04}/{s:04}", "x" * 80)

    def read_back(self, token: str, keys: int) -> int:
        """How many keys end in this run's token."""
        import base64
        import json

        found = 0
        for n in range(keys):
            key = base64.b64encode(f"k{n:06}".encode()).decode()
            answer = self._post(self._endpoint, "/v3/kv/range", json.dumps({"key": key}).encode())
            found += base64.b64decode(answer["kvs"][0]["value"]).decode().endswith(token)
        return found


class FixedReply(Spawned):
    """Control: our HTTP front door with a constant answer; what HTTP alone costs here today."""

    name = "fixed-reply"
    operations = frozenset({"get_strong"})

    def start(self, directory: Path) -> None:
        """One process."""
        port = free_port()
        self._spawn(sys.executable, "-m", "tests.bench.fixed_reply", str(port))
        self._endpoint = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("fixed-reply server does not answer")

    def fill(self, keys: int) -> None:
        """Nothing to fill."""


def find_dynalite() -> str | None:
    """Path of the program: $DYNALITE, or on the PATH."""
    return os.environ.get("DYNALITE") or shutil.which("dynalite")


def available() -> list[System]:
    """Everything that can run on this machine, our cluster first."""
    systems: list[System] = [
        Quorate("quorate"),
        Quorate("quorate-no-fsync", "--no-fsync"),
        FixedReply(),
    ]
    if find_dynalite() is not None:
        systems.append(Dynalite())
    if shutil.which("etcd") is not None:
        systems.append(Etcd())
    return systems
