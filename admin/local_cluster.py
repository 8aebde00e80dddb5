"""What a local cluster consists of: a pure function from options and ports to processes and command lines."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from admin.cluster_file import ProcessEntry
from datamodel.wording import NEWEST
from proto.addresses import format_address

LOOPBACK = "127.0.0.1"
ZONES = ("az1", "az2", "az3")
STORAGE_NODES_MAX = 99
ROUTERS_MAX = 64

ROLE_STORAGE, ROLE_ROUTER, ROLE_ADMIN = "storagenode", "router", "admin"


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `quorate up` was asked for; ports of 0 are chosen."""

    data_dir: Path
    http_port: int = 8000
    grpc_port: int = 50051
    storage_nodes: int = 3
    routers: int = 1
    restart: bool = True
    region: str = "us-east-1"
    account_id: str = "000000000000"
    insecure: bool = False
    log_format: str = "auto"
    fsync: bool = True
    eventual_read_lag_ms: int = 0
    validation_wording: str = NEWEST
    host: str = LOOPBACK


class ReservePort(Protocol):
    """How the plan gets a port number; `admin.ports.PortBook.reserve`."""

    def __call__(self, name: str, host: str, wanted: int = 0, *, shared: bool = False) -> int:
        """A port for the use `name`."""


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """The endpoints for clients and every process, in starting order, none of them running yet."""

    http: str
    grpc: str
    processes: list[ProcessEntry]


def plan_cluster(
    options: UpOptions,
    reserve: ReservePort,
    environment: dict[str, str],
    cwd: str,
    python: Sequence[str] | None = None,
) -> ClusterPlan:
    """Lay out the cluster: storage nodes round robin over three zones, routers likewise, one admin.

    Only the two endpoints for clients listen on `options.host`; everything between processes stays on loopback.

    Args:
        options: As given by the user.
        reserve: Gives port numbers.
        environment: Variables for every process.
        cwd: Their working directory.
        python: How a process of ours is started, before its role and flags.
    """
    start = [*(python if python is not None else default_start())]
    log_format = "json" if options.log_format == "json" else "text"

    def entry(
        name: str, role: str, az: str, address: str, grpc: str, flags: list[str]
    ) -> ProcessEntry:
        metrics = format_address(LOOPBACK, reserve(f"{name}/metrics", LOOPBACK))
        common = ["--name", name, "--metrics-listen", metrics, "--log-format", log_format]
        return ProcessEntry(
            name=name,
            role=role,
            az=az,
            pid=0,
            address=address,
            metrics=f"http://{metrics}/metrics",
            grpc=grpc,
            argv=[*start, role, *common, *flags],
            env=dict(environment),
            cwd=cwd,
        )

    # The ports that people type come first: their failure is the one worth reporting.
    http_port = reserve("http", options.host, options.http_port, shared=True)
    grpc_port = reserve("grpc", options.host, options.grpc_port, shared=True)

    names = storage_names(options.storage_nodes)
    links = {name: format_address(LOOPBACK, reserve(f"{name}/link", LOOPBACK)) for name, _ in names}
    initial_cluster = ",".join(f"{name}@{az}={links[name]}" for name, az in names)
    catalog = ",".join(links.values())
    processes = []
    for name, az in names:
        grpc = format_address(LOOPBACK, reserve(f"{name}/grpc", LOOPBACK))
        flags = ["--az", az, "--data-dir", str(options.data_dir / name)]
        flags += [
            "--link-listen",
            links[name],
            "--grpc-listen",
            grpc,
            "--initial-cluster",
            initial_cluster,
        ]
        flags += [] if options.fsync else ["--no-fsync"]
        if options.eventual_read_lag_ms:
            flags += ["--eventual-read-lag", str(options.eventual_read_lag_ms)]
        processes.append(entry(name, ROLE_STORAGE, az, links[name], grpc, flags))

    identity = [
        "--catalog",
        catalog,
        "--region",
        options.region,
        "--account-id",
        options.account_id,
    ]
    grpc = format_address(LOOPBACK, reserve("admin-0/grpc", LOOPBACK))
    processes.append(
        entry("admin-0", ROLE_ADMIN, ZONES[0], grpc, grpc, ["--grpc-listen", grpc, *identity])
    )

    http = format_address(options.host, http_port)
    grpc = format_address(options.host, grpc_port)
    for number in range(options.routers):
        az = ZONES[number % len(ZONES)]
        flags = ["--az", az, "--http-listen", http, "--grpc-listen", grpc, *identity]
        flags += ["--insecure"] if options.insecure else []
        if options.validation_wording != NEWEST:
            flags += ["--validation-wording", options.validation_wording]
        processes.append(entry(f"router-{number}", ROLE_ROUTER, az, http, grpc, flags))
    reachable = reachable_host(options.host)
    return ClusterPlan(
        http=f"http://{format_address(reachable, http_port)}",
        grpc=format_address(reachable, grpc_port),
        processes=processes,
    )


def storage_names(count: int) -> list[tuple[str, str]]:
    """Names and zones of the storage nodes: storage-az1-0, storage-az2-0, storage-az3-0, storage-az1-1, ..."""
    zones = len(ZONES)
    return [(f"storage-{ZONES[n % zones]}-{n // zones}", ZONES[n % zones]) for n in range(count)]


def reachable_host(host: str) -> str:
    """The address at which this machine reaches a socket that is bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)


def default_start() -> list[str]:
    """This interpreter and the `quorate` command; the working directory must not shadow our packages (-P)."""
    return [sys.executable, "-P", "-m", "admin"]


def process_environment(
    inherited: Callable[[str], str | None], *, coloured: bool
) -> dict[str, str]:
    """Variables that the supervisor sets for its processes.

    Args:
        inherited: Looks a variable of the supervisor up.
        coloured: Whether the logs end on a terminal.
    """
    packages = str(Path(__file__).resolve().parent.parent)
    others = inherited("PYTHONPATH")
    environment = {"PYTHONPATH": packages if not others else f"{packages}{os.pathsep}{others}"}
    if coloured:
        environment["FORCE_COLOR"] = "1"
    if inherited("MALLOC_ARENA_MAX") is None:
        # A few threads that rarely allocate need no heap of their own each: some MB per process.
        environment["MALLOC_ARENA_MAX"] = "2"
    return environment
