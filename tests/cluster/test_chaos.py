"""The scripts in deploy/chaos on a cluster that somebody runs: what they do to data, and what they leave behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.clusters import AttachedCluster
from tests.chaos.disks import BALLAST, small_disk, why_not_mount
from tests.chaos.network import IptablesFirewall, find_firewall
from tests.cluster.harness import (
    ROOT,
    LocalCluster,
    data_directory,
    is_alive,
    running_cluster,
    wait_until,
)

SCRIPTS = ROOT / "deploy" / "chaos"
NODE = "storage-az3-0"


def run_script(cluster: LocalCluster, fault: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(SCRIPTS / fault), "--cluster", str(cluster.data_dir), *arguments],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def rules() -> str:
    """Everything of ours in the packet filter."""
    found = []
    for command in (["nft", "list", "tables"], ["iptables", "-w", "-S"]):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            found += [line for line in done.stdout.splitlines() if "quorate" in line.lower()]
    return "\n".join(found)


@pytest.mark.parametrize("fault", ["wipe-disk", "bit-rot"])
def test_lost_data_is_made_good_under_load(own_cluster: LocalCluster, fault: str):
    script = run_script(own_cluster, fault, "--rounds", "1", "--seed", "3", "--target", NODE)
    output, _ = script.communicate(timeout=280)
    assert script.returncode == 0, output
    assert "verdict: linearizable, nothing lost" in output
    leftovers = [p.name for p in own_cluster.data_dir.iterdir() if p.name.startswith(NODE)]
    assert leftovers == [NODE]


def is_on(fault: str, cluster: LocalCluster, pid: int) -> bool:
    """Whether the fault is felt."""
    return {
        "pause": lambda: state_of(pid) == "T",
        "kill": lambda: not is_alive(pid),
        "partition": lambda: bool(rules()),
        "full-disk": lambda: (data_directory(cluster, NODE) / BALLAST).exists(),
    }[fault]()


def interrupt(cluster: LocalCluster, fault: str, number: int) -> None:
    """Play it, press Ctrl-C (twice, as people do) while it is on, and see that it is undone."""
    pid = AttachedCluster(cluster.data_dir).pid(NODE)
    script = run_script(cluster, fault, "--target", NODE, "--rounds", "99")
    wait_until(
        lambda: is_on(fault, cluster, pid) or script.poll() is not None, 60, f"{fault} is on", 0.01
    )
    script.send_signal(number)
    time.sleep(0.1)
    script.send_signal(number)
    output, _ = script.communicate(timeout=120)
    assert script.returncode == 128 + number, output
    wait_until(cluster.is_ready, 30, f"every process ready after {fault}")
    assert rules() == ""
    assert not (data_directory(cluster, NODE) / BALLAST).exists()
    assert "T" not in {state_of(AttachedCluster(cluster.data_dir).pid(p["name"])) for p in
                       cluster.processes()}  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fault_is_undone(tmp_path: Path, number: int):
    data = tmp_path / "data"
    faults = ["pause"] if number == signal.SIGTERM else ["kill", "pause"]
    if not isinstance(find_firewall(), str):
        faults.append("partition")
    with ExitStack() as stack:
        if number == signal.SIGINT and not why_not_mount():
            with contextlib.suppress(OSError):
                stack.enter_context(small_disk(data / NODE, 384))
                faults.append("full-disk")
        with running_cluster(data, "--no-restart") as cluster:
            for fault in faults:
                interrupt(cluster, fault, number)
            running = [
                int(entry.name)
                for entry in Path("/proc").iterdir()
                if entry.name.isdigit() and str(data).encode() in command_line(entry)
            ]
            assert len(running) >= 3, "the storage nodes at least"
        # What the scripts started ends with the cluster all the same.
        wait_until(lambda: not any(is_alive(pid) for pid in running), 20, "nothing left running")


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_the_iptables_rules_come_and_go():
    firewall = find_firewall()
    if isinstance(firewall, str) or not shutil.which("iptables"):
        pytest.skip("needs root and iptables")
    tables = IptablesFirewall()
    if subprocess.run(["iptables", "-w", "-S", "INPUT"], capture_output=True).returncode:
        pytest.skip("iptables does not work here")
    before = subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True).stdout
    try:
        tables.apply({1, 2}, 100)
        tables.apply({2, 3}, 20)
        assert rules().count("--dport 3") == 1
        assert "--dport 1 " not in rules()
    finally:
        tables.clear()
    tables.clear()
    assert subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True).stdout == before
