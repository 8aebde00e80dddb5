"""A cluster in containers, as compose runs it: reached through docker or podman, and broken by their means."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness import LocalCluster, http_get, wait_until

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ROLES = {"storage": "storagenode", "router": "router", "admin": "admin"}
COMMAND_S = 120.0
READY_S = 120.0
# What is looked up is good for so long: an inspection takes a tenth of a second.
FRESH_S = 0.25
NOWHERE = "http://127.0.0.1:9/metrics"
"""The metrics of a container that does not run: nobody answers."""


@dataclass(frozen=True)
class Engine:
    """A container engine.

    Attributes:
        command: How it is called: `docker` or `podman`.
        compose: How its compose is called.
    """

    command: str
    compose: tuple[str, ...]

    def run(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """What the command prints.

        Raises:
            SystemExit: It failed; with what it said.
        """
        return _output([self.command, *arguments], timeout_s)

    def run_compose(self, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """The same of compose."""
        return _output([*self.compose, *arguments], timeout_s)


def _output(words: Sequence[str], timeout_s: float) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _works(*words: str) -> bool:
    if shutil.which(words[0]) is None:
        return False
    try:
        done = subprocess.run(words, capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def find_engine() -> Engine | str:
    """Docker or podman, with compose; or what is missing."""
    reasons = []
    for command, ways in (
        ("docker", (("docker", "compose"), ("docker-compose",))),
        ("podman", (("podman", "compose"), ("podman-compose",))),
    ):
        if not _works(command, "info"):
            reasons.append(f"{command} does not answer")
            continue
        for compose in ways:
            if _works(*compose, "version"):
                return Engine(command, compose)
        reasons.append(f"{command} has no compose")
    return ", ".join(reasons)


def entry_of(inspected: Mapping[str, Any]) -> dict[str, Any] | None:
    """A container as `cluster.json` would list its process; None if it is none of ours.

    Args:
        inspected: What `docker inspect` says of it.
    """
    name = inspected["Config"]["Labels"].get(SERVICE_LABEL, "")
    role = ROLES.get(name.partition("-")[0])
    if role is None:
        return None
    state = inspected["State"]
    words = [str(word) for word in inspected["Config"].get("Cmd") or ()]
    networks = inspected["NetworkSettings"].get("Networks") or {}
    addresses = [network.get("IPAddress") for network in networks.values()]
    address = next(filter(None, addresses), "") if state.get("Running") else ""
    published = (inspected["NetworkSettings"].get("Ports") or {}).get("8000/tcp") or ()
    return {
        "name": name,
        "role": role,
        "az": words[words.index("--az") + 1] if "--az" in words else "az1",
        "pid": int(state.get("Pid") or 0),
        "container": inspected["Id"],
        "networks": list(networks),
        "state": state.get("Status", ""),
        "metrics": f"http://{address}:9090/metrics" if address else NOWHERE,
        "http": f"http://127.0.0.1:{published[0]['HostPort']}" if published else "",
        "argv": words,
    }


class ContainerCluster(LocalCluster):
    """A compose project that runs. Its containers are stopped, paused and cut off, never removed."""

    is_local = False

    def __init__(self, engine: Engine, project: str) -> None:
        super().__init__(Path("/nonexistent"))
        self.engine = engine
        self.project = project
        self._seen: list[dict[str, Any]] = []
        self._seen_at = 0.0

    def start(self, timeout_s: float = READY_S) -> None:
        """Check that it is there, and wait until it is whole.

        Raises:
            SystemExit: There are no containers of that project.
        """
        if not self.processes():
            raise SystemExit(f"no containers of a compose project {self.project}")
        wait_until(self.is_ready, timeout_s, "every container ready", 0.3)

    def stop(self) -> None:
        """It is left running, whole."""
        self.heal()

    def processes(self, role: str | None = None) -> list[dict[str, Any]]:
        """Containers by role."""
        if time.monotonic() > self._seen_at + FRESH_S:
            label = f"label={PROJECT_LABEL}={self.project}"
            found = self.engine.run("ps", "--all", "--quiet", "--no-trunc", "--filter", label)
            entries = []
            if found.split():
                inspected = json.loads(self.engine.run("inspect", *found.split()))
                entries = [entry for one in inspected if (entry := entry_of(one)) is not None]
            self._seen = sorted(entries, key=lambda entry: str(entry["name"]))
            self._seen_at = time.monotonic()
        return [entry for entry in self._seen if role in (None, entry["role"])]

    @property
    def http(self) -> str:
        """The endpoint of a router that runs, the first if it does."""
        routers = self.processes("router")
        running = [router for router in routers if router["state"] == "running"]
        return str((running or routers)[0]["http"])

    def is_ready(self) -> bool:
        """Whether every container says so."""
        self._seen_at = 0.0
        urls = [p["metrics"].removesuffix("/metrics") + "/readyz" for p in self.processes()]
        urls += [router["http"] + "/readyz" for router in self.processes("router")]
        return all(http_get(url)[0] == 200 for url in urls)

    def wait_process_ready(self, name: str, timeout_s: float = 60.0) -> None:
        """Return once it says so, at whatever address."""

        def is_ready() -> bool:
            url = self.process(name)["metrics"].removesuffix("/metrics") + "/readyz"
            return http_get(url)[0] == 200

        wait_until(is_ready, timeout_s, f"{name} ready", 0.1)

    def status(self) -> dict[str, Any]:
        """`quorate status --json`, asked in the admin's container."""
        (admin, *_) = self.processes("admin")
        words = ("quorate", "status", "--json", "--admin", f"{admin['name']}:50051")
        return json.loads(self.engine.run("exec", admin["container"], *words))  # type: ignore[no-any-return]

    def log(self) -> str:
        """The engine keeps it."""
        return ""

    # faults

    def _do(self, verb: str, name: str, *flags: str) -> None:
        self.engine.run(verb, *flags, self.process(name)["container"])
        self._seen_at = 0.0

    def kill(self, name: str) -> None:
        """Kill -9 of all that runs in it. (Asked for like this, nobody starts it again but us.)"""
        self._do("kill", name)

    def terminate(self, name: str, timeout_s: float = 30.0) -> None:
        """A planned stop."""
        self._do("stop", name, "--time", str(int(timeout_s)))

    def pause(self, name: str) -> None:
        """It is there and silent."""
        self._do("pause", name)

    def resume(self, name: str) -> None:
        """It goes on."""
        self._seen_at = 0.0
        if self.process(name)["state"] == "paused":
            self._do("unpause", name)

    def restart(self, name: str) -> None:
        """Start what has ended."""
        self._do("start", name)

    def heal(self) -> None:
        """Connect and start again whatever is not; returns when all is ready."""
        self._seen_at = 0.0
        networks = sorted({network for entry in self.processes() for network in entry["networks"]})
        for entry in self.processes():
            if not entry["networks"] and networks:
                self._connect(entry["name"], networks[:1])
            self.resume(entry["name"])
            if self.process(entry["name"])["state"] != "running":
                self.restart(entry["name"])
        wait_until(self.is_ready, READY_S, "every container ready", 0.3)

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """Without any network. It may come back under another address."""
        entry = self.process(name)
        for network in entry["networks"]:
            self.engine.run("network", "disconnect", network, entry["container"])
        self._seen_at = 0.0
        try:
            yield
        finally:
            self._connect(name, entry["networks"])

    def _connect(self, name: str, networks: Sequence[str]) -> None:
        container = self.process(name)["container"]
        for network in networks:
            # Compose's own connection has the service's name as an alias; one made by hand must say it.
            self.engine.run("network", "connect", "--alias", name, network, container)
        self._seen_at = 0.0
