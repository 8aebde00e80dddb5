"""The faults: what each does, what it needs, how it is undone.

`strike` does a fault and undoes it, whatever happens, and returns in words what was done. Each picks its victim and
how long it lasts by `chance`, unless the user named a victim.
"""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.disks import full_disk, is_own_disk
from tests.chaos.network import Delay, Firewall, bad_network, find_firewall
from tests.cluster.harness import LocalCluster, http_get, is_alive, wait_until

STARTED_S = 15.0
DISK_DIED_S = 60.0
"""A storage node without space must have noticed by then: it writes at its next log batch or checkpoint."""


@dataclass
class Scene:
    """Where a fault happens.

    Attributes:
        cluster: The cluster.
        chance: Chooses victims and durations.
        groups: The groups of the table under load.
        target: The victim that the user wants, empty for any.
        struck_at: Moment (`time.monotonic`) at which the fault proper began.
    """

    cluster: LocalCluster
    chance: random.Random
    groups: list[int]
    target: str = ""
    struck_at: float = field(default=0.0)

    def victim(self, role: str | None = None) -> str:
        """The name of a process."""
        names = [process["name"] for process in self.cluster.processes(role)]
        return self.target if self.target in names else self.chance.choice(names)

    def begin(self) -> None:
        """The fault happens now."""
        self.struck_at = time.monotonic()

    def last(self, least_s: float, most_s: float) -> float:
        """Let it last."""
        seconds = self.chance.uniform(least_s, most_s)
        time.sleep(seconds)
        return seconds


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: As typed by users.
        text: What it is.
        strike: Does and undoes it.
        why_not: What is missing for it on this cluster, empty if nothing.
        weight: How often a mixed run chooses it.
    """

    name: str
    text: str
    strike: Callable[[Scene], str]
    why_not: Callable[[LocalCluster], str] = lambda cluster: ""
    weight: int = 2


def kill(scene: Scene) -> str:
    name = scene.victim()
    scene.begin()
    scene.cluster.kill(name)
    seconds = scene.last(0.2, 4.0)
    scene.cluster.restart(name)
    return f"killed {name} for {seconds:.1f} s"


def kill_leader(scene: Scene) -> str:
    group = scene.chance.choice(scene.groups)
    name = wait_until(lambda: scene.cluster.leader_of(group), 15, "a leader")
    scene.begin()
    scene.cluster.kill(name)
    seconds = scene.last(1.5, 4.0)
    scene.cluster.restart(name)
    return f"killed {name}, leader of group {group}, for {seconds:.1f} s"


def pause(scene: Scene) -> str:
    name = scene.victim()
    scene.begin()
    scene.cluster.pause(name)
    try:
        seconds = scene.last(0.3, 5.0)
    finally:
        scene.cluster.resume(name)
    return f"paused {name} for {seconds:.1f} s"


def restart(scene: Scene) -> str:
    name = scene.victim()
    scene.begin()
    scene.cluster.terminate(name)
    scene.cluster.restart(name)
    scene.cluster.wait_process_ready(name)
    return f"restarted {name}"


def rolling_restart(scene: Scene) -> str:
    scene.begin()
    names = [process["name"] for process in scene.cluster.processes()]
    for name in names:
        scene.cluster.terminate(name)
        scene.cluster.restart(name)
        scene.cluster.wait_process_ready(name)
    return f"restarted {len(names)} processes, one after the other"


def zone_loss(scene: Scene) -> str:
    cluster = scene.cluster
    zones = sorted({process["az"] for process in cluster.processes("storagenode")})
    zone = scene.target if scene.target in zones else scene.chance.choice(zones)
    names = [process["name"] for process in cluster.processes() if process["az"] == zone]
    scene.begin()
    for name in names:
        cluster.kill(name)
    seconds = scene.last(2.0, 5.0)
    for name in names:
        cluster.restart(name)
    return f"lost {zone} ({len(names)} processes) for {seconds:.1f} s"


def blackout(scene: Scene) -> str:
    names = [process["name"] for process in scene.cluster.processes()]
    scene.begin()
    for name in names:
        scene.cluster.kill(name)
    time.sleep(0.5)
    for name in names:
        scene.cluster.restart(name)
    return "killed everything at once"


def _firewall() -> Firewall:
    firewall = find_firewall()
    assert not isinstance(firewall, str), firewall
    return firewall


def partition(scene: Scene) -> str:
    name = scene.victim("storagenode")
    scene.begin()
    with bad_network(_firewall(), [scene.cluster.pid(name)], 100):
        seconds = scene.last(2.0, 6.0)
    return f"cut {name} off for {seconds:.1f} s"


def slow_network(scene: Scene) -> str:
    name = scene.victim("storagenode")
    delay = Delay()
    if not delay.why_not():
        entry = scene.cluster.process(name)
        port = int(entry["address"].rpartition(":")[2])
        delay_ms = scene.chance.randrange(20, 300)
        scene.begin()
        with delay.between([port], delay_ms, delay_ms // 4):
            seconds = scene.last(2.0, 6.0)
        return f"network of {name} {delay_ms} ms slow for {seconds:.1f} s"
    # Every lost packet is sent again by TCP, after 200 ms and more: slow, and unevenly so.
    loss = scene.chance.randrange(5, 35)
    scene.begin()
    with bad_network(_firewall(), [scene.cluster.pid(name)], loss):
        seconds = scene.last(2.0, 6.0)
    return f"network of {name} loses {loss} % for {seconds:.1f} s"


def disk_node(cluster: LocalCluster) -> tuple[str, Path] | None:
    """A storage node whose data directory is a disk of its own, and that directory."""
    for process in cluster.processes("storagenode"):
        argv = process["argv"]
        directory = Path(argv[argv.index("--data-dir") + 1])
        if is_own_disk(directory):
            return process["name"], directory
    return None


def disk_full(scene: Scene) -> str:
    cluster = scene.cluster
    found = disk_node(cluster)
    assert found is not None
    name, directory = found
    pid = cluster.pid(name)
    scene.begin()
    with full_disk(directory):
        wait_until(lambda: not is_alive(pid), DISK_DIED_S, f"{name} ended on its full disk")
        ended_s = time.monotonic() - scene.struck_at
        said = said_of_disk(cluster.log())
        # Started on a disk that is still full it ends again, or does what it can; it must not do harm.
        cluster.restart(name)
        url = cluster.process(name)["metrics"].removesuffix("/metrics") + "/readyz"
        with contextlib.suppress(AssertionError):
            wait_until(
                lambda: not is_alive(cluster.pid(name)) or http_get(url)[0] == 200,
                STARTED_S,
                f"{name} ready, or ended again",
            )
    if not is_alive(cluster.pid(name)):
        cluster.restart(name)
    cluster.wait_process_ready(name)
    return f"disk of {name} full: it ended after {ended_s:.1f} s{said}; back with space"


def said_of_disk(log: str) -> str:
    """The words with which the log says that space was the reason, for the report; empty when it does not."""
    for line in reversed(log.splitlines()):
        if "No space left" in line or "ENOSPC" in line:
            return f', saying "{line.strip()[-90:]}"'
    return ""


def _needs_firewall(cluster: LocalCluster) -> str:
    del cluster
    firewall = find_firewall()
    return firewall if isinstance(firewall, str) else ""


def _needs_disk(cluster: LocalCluster) -> str:
    if disk_node(cluster) is None:
        return "no storage node has a file system of its own as data directory"
    return ""


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "kill -9 of any process, started again after a while", kill, weight=3),
        Fault("kill-leader", "kill -9 of the leader of a partition", kill_leader, weight=6),
        Fault("pause", "SIGSTOP of any process, longer than leases now and then", pause, weight=4),
        Fault("restart", "planned stop (SIGTERM) and start of any process", restart),
        Fault("rolling-restart", "that of every process, one by one", rolling_restart),
        Fault("zone-loss", "kill -9 of everything in one zone", zone_loss),
        Fault("blackout", "kill -9 of everything at once", blackout, weight=1),
        Fault("partition", "a storage node that nobody reaches", partition, _needs_firewall, 3),
        Fault("slow-network", "a storage node behind a bad network", slow_network, _needs_firewall, 3),
        Fault("full-disk", "a storage node without space", disk_full, _needs_disk, 1),
    )
}  # fmt: skip
