"""What can be known of containers without an engine."""

import json
import os

import pytest

from tests.chaos import containers
from tests.chaos.containers import NOWHERE, ContainerCluster, Engine, entry_of, find_engine
from tests.containers.compose import derived, free_ports, load, port_count


def inspected(service="storage-az2-0", *, running=True, **state):
    return {
        "Id": f"id-of-{service}",
        "Config": {
            "Labels": {"com.docker.compose.service": service, "com.docker.compose.project": "p"},
            "Cmd": ["storagenode", "--name", service, "--az", "az2"],
        },
        "State": {
            "Running": running,
            "Status": "running" if running else "exited",
            "Pid": 7,
            **state,
        },
        "NetworkSettings": {
            "Networks": {"p_cluster": {"IPAddress": "172.30.0.5"}},
            "Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "4711"}], "7000/tcp": None},
        },
    }


def test_a_container_as_a_process():
    entry = entry_of(inspected())
    assert entry["role"] == "storagenode"
    assert (entry["name"], entry["az"], entry["pid"]) == ("storage-az2-0", "az2", 7)
    assert entry["metrics"] == "http://172.30.0.5:9090/metrics"
    assert entry["http"] == "http://127.0.0.1:4711"
    assert entry_of(inspected(running=False))["metrics"] == NOWHERE
    assert entry_of(inspected("prometheus")) is None
    bare = inspected("router-0")
    bare["NetworkSettings"] = {"Networks": None, "Ports": None}
    assert entry_of(bare)["http"] == ""


@pytest.fixture
def bin_directory(tmp_path, monkeypatch):
    """The only place where commands are found."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr(
        containers.shutil,
        "which",
        lambda word: str(tmp_path / word) if (tmp_path / word).exists() else None,
    )

    def add(name, script):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    return add


def test_engines_are_found_with_whatever_compose_they_have(bin_directory):
    assert find_engine() == "docker does not answer, podman does not answer"
    bin_directory("docker", '[ "$1" = info ]')
    assert find_engine() == "docker has no compose, podman does not answer"
    bin_directory("podman", '[ "$1" = info ] || [ "$1 $2" = "compose version" ]')
    assert find_engine() == Engine("podman", ("podman", "compose"))
    bin_directory("docker-compose", "exit 0")
    assert find_engine() == Engine("docker", ("docker-compose",))
    bin_directory("docker", "exit 0")
    assert find_engine() == Engine("docker", ("docker", "compose"))


def test_a_command_that_fails_ends_with_what_it_said(bin_directory):
    bin_directory("docker", "echo no such thing >&2; exit 3")
    with pytest.raises(SystemExit, match="no such thing"):
        Engine("docker", ()).run("inspect", "x")


def test_a_project_without_containers(bin_directory):
    bin_directory("docker", "exit 0")
    with pytest.raises(SystemExit, match="no containers of a compose project p"):
        ContainerCluster(Engine("docker", ()), "p").start()


def test_a_cut_container_is_connected_under_its_name_again(bin_directory, tmp_path):
    content = json.dumps([inspected(), inspected("router-0")])
    (tmp_path / "all.json").write_text(content)
    script = f"""echo "$@" >> {tmp_path}/calls
case "$1" in ps) echo a b;; inspect) cat {tmp_path}/all.json;; esac"""
    bin_directory("docker", script)
    cluster = ContainerCluster(Engine("docker", ()), "p")
    assert [entry["name"] for entry in cluster.processes()] == ["router-0", "storage-az2-0"]
    with cluster.cut_off("storage-az2-0"):
        pass
    calls = (tmp_path / "calls").read_text().splitlines()
    cuts = [call for call in calls if call.startswith("network")]
    assert cuts == [
        "network disconnect p_cluster id-of-storage-az2-0",
        "network connect --alias storage-az2-0 p_cluster id-of-storage-az2-0",
    ]


def test_the_compose_file_under_a_name_of_its_own():
    source = load()
    ports = free_ports(port_count(source))
    assert len(set(ports)) == len(ports) == 5
    made = derived(source, "image:tag", ports)
    assert "name" not in made
    assert set(made["services"]) == {name for name in source["services"] if name != "prometheus"}
    assert set(made["volumes"]) == {"storage-az1-0", "storage-az2-0", "storage-az3-0"}
    published = []
    for name, service in made["services"].items():
        assert service["image"] == "image:tag"
        assert "build" not in service
        same = {
            k: v
            for k, v in source["services"][name].items()
            if k not in ("build", "image", "ports")
        }
        assert {k: v for k, v in service.items() if k not in ("image", "ports")} == same
        published += service.get("ports", ())
    assert sorted(int(port.split(":")[1]) for port in published) == sorted(ports)
    assert sorted(port.split(":")[2] for port in published) == ["50051"] * 3 + ["8000"] * 2
