"""The project's compose file as a test runs it: an image, ports and a project of its own."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import ROOT

COMPOSE_FILE = ROOT / "deploy" / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def derived(source: Mapping[str, Any], image: str, ports: list[int]) -> dict[str, Any]:
    """The deployment with nothing changed but what would meet somebody else's: name, image, published ports.

    Args:
        source: The compose file.
        image: What runs instead of a build.
        ports: Free ones, as many as the processes publish. (Prometheus and other foreign images are left out: they
            are no part of what is tested, and a machine may not reach their registry.)
    """
    left = list(ports)
    services: dict[str, Any] = {}
    for name, service in source["services"].items():
        if "build" not in service:
            continue
        own = {key: value for key, value in service.items() if key != "build"}
        own["image"] = image
        if "ports" in own:
            own["ports"] = [
                f"127.0.0.1:{left.pop()}:{published.rpartition(':')[2]}"
                for published in own["ports"]
            ]
        services[name] = own
    used = {
        volume.partition(":")[0] for own in services.values() for volume in own.get("volumes", ())
    }
    return {
        "version": "3.8",  # (compose before version 2 wants it)
        "services": services,
        "networks": source["networks"],
        "volumes": {name: volume for name, volume in source["volumes"].items() if name in used},
    }


def port_count(source: Mapping[str, Any]) -> int:
    """How many ports `derived` needs."""
    return sum(len(s.get("ports", ())) for s in source["services"].values() if "build" in s)


def load() -> dict[str, Any]:
    """The compose file."""
    return yaml.safe_load(COMPOSE_FILE.read_text())  # type: ignore[no-any-return]


def write(path: Path, content: Mapping[str, Any]) -> Path:
    """Store a compose file."""
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return path
