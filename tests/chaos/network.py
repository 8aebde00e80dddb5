"""Cutting storage nodes off, and making their network bad, on one machine: packet filter rules on loopback.

A process is known by its TCP ports: those it listens on, and those of the connections that it dialled, which are
read from /proc and looked up again while the fault lasts. Rules match these ports on the loopback interface and
nothing else, live in a table (a chain) of their own, and are removed in any case; what a run that was killed left
behind is removed by the next one.
"""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

PREFIX = "quorate_chaos_"
LOOK_INTERVAL_S = 0.1


def tcp_ports(table: str, inodes: set[str]) -> set[int]:
    """Local ports of those sockets in a /proc/net/tcp table whose inode is among `inodes`."""
    ports = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[9] in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def ports_of(pid: int) -> set[int]:
    """Every TCP port that the process has in use right now; none if it is gone."""
    root = Path("/proc") / str(pid)
    inodes = set()
    try:
        for descriptor in (root / "fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        tables = [(root / "net" / name).read_text() for name in ("tcp", "tcp6")]
    except OSError:
        return set()
    return set().union(*(tcp_ports(table, inodes) for table in tables))


class Firewall(Protocol):
    """Drops packets by port. `loss_percent` of 100 drops them all."""

    name: str

    def apply(self, ports: Iterable[int], loss_percent: int) -> None:
        """From now on, exactly these."""

    def clear(self) -> None:
        """No rules of ours any more. Idempotent."""

    def clear_stale(self) -> None:
        """Remove what runs that were killed left behind."""


def nft_script(table: str, ports: Iterable[int], loss_percent: int) -> str:
    """The table as nft reads it, in place of the one before."""
    elements = ", ".join(str(port) for port in sorted(ports))
    chance = "" if loss_percent >= 100 else f" numgen random mod 100 < {loss_percent}"
    return (
        f"add table inet {table}\ndelete table inet {table}\n"
        f"table inet {table} {{\n"
        f"  set ports {{ type inet_service; elements = {{ {elements} }} }}\n"
        "  chain input {\n    type filter hook input priority 0;\n"
        f'    iifname "lo" tcp sport @ports{chance} drop\n'
        f'    iifname "lo" tcp dport @ports{chance} drop\n'
        "  }\n}\n"
    )


def iptables_rules(chain: str, ports: Iterable[int], loss_percent: int) -> list[list[str]]:
    """Arguments of iptables, one command each, that fill the (empty) chain."""
    chance = []
    if loss_percent < 100:
        probability = f"{loss_percent / 100:.2f}"
        chance = ["-m", "statistic", "--mode", "random", "--probability", probability]
    return [
        ["-A", chain, "-p", "tcp", side, str(port), *chance, "-j", "DROP"]
        for port in sorted(ports)
        for side in ("--sport", "--dport")
    ]


class NftFirewall:
    """With nftables."""

    name = "nft"

    def __init__(self) -> None:
        self._table = f"{PREFIX}{os.getpid()}"

    def apply(self, ports: Iterable[int], loss_percent: int) -> None:
        """See `Firewall`."""
        script = nft_script(self._table, ports, loss_percent)
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)

    def clear(self) -> None:
        """See `Firewall`."""
        self._delete(self._table)

    def clear_stale(self) -> None:
        """See `Firewall`."""
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
        for line in listed.stdout.splitlines():
            name = line.split()[-1]
            pid = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and not Path(f"/proc/{pid}").exists():
                self._delete(name)

    def _delete(self, table: str) -> None:
        script = f"add table inet {table}\ndelete table inet {table}\n"
        subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


class IptablesFirewall:
    """With iptables: a chain that the INPUT chain jumps to for what comes in on loopback."""

    name = "iptables"
    _chain = "QUORATE_CHAOS"

    def apply(self, ports: Iterable[int], loss_percent: int) -> None:
        """See `Firewall`."""
        self._run(["-N", self._chain], check=False)
        self._run(["-F", self._chain])
        for rule in iptables_rules(self._chain, ports, loss_percent):
            self._run(rule)
        if self._run(["-C", "INPUT", "-i", "lo", "-j", self._chain], check=False):
            self._run(["-I", "INPUT", "-i", "lo", "-j", self._chain])

    def clear(self) -> None:
        """See `Firewall`."""
        self._run(["-D", "INPUT", "-i", "lo", "-j", self._chain], check=False)
        self._run(["-F", self._chain], check=False)
        self._run(["-X", self._chain], check=False)

    def clear_stale(self) -> None:
        """See `Firewall`."""
        self.clear()

    def _run(self, arguments: list[str], *, check: bool = True) -> int:
        command = ["iptables", "-w", *arguments]
        return subprocess.run(command, check=check, capture_output=not check).returncode


def find_firewall() -> Firewall | str:
    """What this machine offers, or what is missing."""
    if os.geteuid() != 0:
        return "packet filter rules need root"
    for tool, probe, firewall in (
        ("nft", ["nft", "list", "tables"], NftFirewall),
        ("iptables", ["iptables", "-w", "-S", "INPUT"], IptablesFirewall),
    ):
        if shutil.which(tool) and not subprocess.run(probe, capture_output=True).returncode:
            return firewall()
    return "neither nft nor iptables works here (install the package nftables)"


@contextmanager
def bad_network(firewall: Firewall, pids: Iterable[int], loss_percent: int) -> Iterator[None]:
    """Drop so many percent of what these processes and others say to each other, for as long as the block runs."""
    watched = list(pids)
    over = threading.Event()

    def look() -> None:
        before: set[int] = set()
        while not over.is_set():
            ports = set().union(*(ports_of(pid) for pid in watched))
            if ports and not ports <= before:
                firewall.apply(ports, loss_percent)
                before = ports
            over.wait(LOOK_INTERVAL_S)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
        firewall.clear()


class Delay:
    """netem on the loopback interface: packets from and to some ports come late."""

    def why_not(self) -> str:
        """What is missing, empty if nothing."""
        if os.geteuid() != 0:
            return "delays need root"
        if not shutil.which("tc"):
            return "tc is missing (install the package iproute2)"
        shown = self._tc("qdisc", "show", "dev", "lo")
        if "noqueue" not in shown.stdout:
            return "the loopback interface has a queueing discipline already"
        made = self._tc(
            "qdisc", "add", "dev", "lo", "root", "handle", "7c1:", "netem", "delay", "0"
        )
        self._tc("qdisc", "del", "dev", "lo", "root")
        return "" if made.returncode == 0 else "the kernel has no netem (sch_netem)"

    @contextmanager
    def between(self, ports: Iterable[int], delay_ms: int, jitter_ms: int) -> Iterator[None]:
        """Delay packets whose source or destination port is one of these."""
        try:
            self._must("qdisc", "add", "dev", "lo", "root", "handle", "7c1:", "prio", "bands", "4",
                       "priomap", *["0"] * 16)  # fmt: skip
            self._must("qdisc", "add", "dev", "lo", "parent", "7c1:4", "netem", "delay",
                       f"{delay_ms}ms", f"{jitter_ms}ms")  # fmt: skip
            for port in sorted(ports):
                for side in ("sport", "dport"):
                    self._must("filter", "add", "dev", "lo", "parent", "7c1:", "protocol", "ip", "u32",
                               "match", "ip", "protocol", "6", "0xff", "match", "ip", side, str(port),
                               "0xffff", "flowid", "7c1:4")  # fmt: skip
            yield
        finally:
            self._tc("qdisc", "del", "dev", "lo", "root")

    def _tc(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["tc", *arguments], capture_output=True, text=True, check=False)

    def _must(self, *arguments: str) -> None:
        done = self._tc(*arguments)
        if done.returncode:
            raise OSError(f"tc {' '.join(arguments)}: {done.stderr.strip()}")
