"""The faults: what each does, what it needs, how it is undone.

`strike` does a fault and undoes it, whatever happens, and returns in words what was done. Each picks its victim and
how long it lasts by `chance`, unless the user named a victim.
"""

import contextlib
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.containers import ContainerCluster
from tests.chaos.disks import empty, flip_bits, full_disk, is_own_disk, remove_ballast, set_asides
from tests.chaos.network import Delay, Firewall, bad_network, find_firewall
from tests.cluster.harness import (
    LocalCluster,
    data_directory,
    http_get,
    is_alive,
    is_whole,
    node_id,
    scrub,
    wait_until,
)

STARTED_S = 15.0
HEALED_S = 300.0
DISK_DIED_S = 60.0
"""A storage node without space must have noticed by then: it writes at its next log batch or checkpoint."""


ANY_PROCESS = "process"
STORAGE_NODE = "storage node"
ZONE = "zone"
NOBODY = ""


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
        victims: What the user may name as victim.
        harms_data: Whether it costs a storage node what it has. The others must make that good.
    """

    name: str
    text: str
    strike: Callable[[Scene], str]
    why_not: Callable[[LocalCluster], str] = lambda cluster: ""
    weight: int = 2
    victims: str = ANY_PROCESS
    harms_data: bool = False

    def why_not_target(self, cluster: LocalCluster, target: str) -> str:
        """Why `target` cannot be the victim, empty if it can."""
        if self.victims == ZONE:
            names = {process["az"] for process in cluster.processes("storagenode")}
        elif self.victims == NOBODY:
            return "it takes no --target"
        else:
            role = "storagenode" if self.victims == STORAGE_NODE else None
            names = {process["name"] for process in cluster.processes(role)}
        return "" if target in names else f"{target} is none of {', '.join(sorted(names))}"


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


def undo_everything(cluster: LocalCluster) -> None:
    """Whatever fault was on, it is over: for a run that was interrupted, perhaps while it undid it itself."""
    firewall = find_firewall()
    if not isinstance(firewall, str):
        firewall.clear()
    for process in cluster.processes():
        with contextlib.suppress(OSError):
            cluster.resume(process["name"])
    if cluster.is_local:
        for process in cluster.processes("storagenode"):
            remove_ballast(data_directory(cluster, process["name"]))
    cluster.heal()


def _firewall() -> Firewall:
    firewall = find_firewall()
    assert not isinstance(firewall, str), firewall
    return firewall


def partition(scene: Scene) -> str:
    cluster, name = scene.cluster, scene.victim("storagenode")
    scene.begin()
    if isinstance(cluster, ContainerCluster):
        cut = cluster.cut_off(name)
    else:
        cut = bad_network(_firewall(), [cluster.pid(name)], 100)
    with cut:
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


def disk_node(cluster: LocalCluster, wanted: str = "") -> tuple[str, Path] | None:
    """A storage node (the wanted one) whose data directory is a disk of its own, and that directory."""
    for process in cluster.processes("storagenode"):
        if wanted not in ("", process["name"]):
            continue
        directory = data_directory(cluster, process["name"])
        if is_own_disk(directory):
            return process["name"], directory
    return None


def disk_full(scene: Scene) -> str:
    cluster = scene.cluster
    found = disk_node(cluster, scene.target)
    if found is None:
        raise SystemExit(f"full-disk: the data directory of {scene.target} is no disk of its own")
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


def wait_whole(cluster: LocalCluster) -> None:
    """Nothing may be taken from one disk before the others have everything."""
    wait_until(lambda: is_whole(cluster, set()), HEALED_S, "three good replicas everywhere", 0.5)


def wipe_disk(scene: Scene) -> str:
    cluster = scene.cluster
    name = scene.victim("storagenode")
    directory = data_directory(cluster, name)
    lost = node_id(cluster, name)
    aside = directory.with_name(f"{directory.name}.wiped-by-chaos")
    wait_whole(cluster)
    scene.begin()
    cluster.pause(name)  # it must not write what is not wiped any more
    try:
        empty(directory, aside)
    finally:
        cluster.kill(name)
        cluster.restart(name)
    wait_until(lambda: is_whole(cluster, {lost}), HEALED_S, f"what {name} had is rebuilt", 0.5)
    shutil.rmtree(aside, ignore_errors=True)
    return f"wiped the disk of {name}: whole again after {time.monotonic() - scene.struck_at:.1f} s"


def bit_rot(scene: Scene) -> str:
    cluster = scene.cluster
    name = scene.victim("storagenode")
    directory = data_directory(cluster, name)
    before = set_asides(directory)
    old = node_id(cluster, name)
    wait_whole(cluster)
    scene.begin()
    # A planned stop leaves tables to flip bits in.
    cluster.terminate(name)
    cluster.restart(name)
    cluster.wait_process_ready(name)
    if scene.chance.random() < 0.5:
        what = flip_bits(sorted((directory / "engine").glob("*.ldb")), scene.chance)
    else:  # the log is read at the next start
        what = flip_bits(sorted((directory / "log").iterdir())[:1], scene.chance)
        cluster.kill(name)
        cluster.restart(name)

    def repaired() -> bool:
        status, _ = scrub(cluster)
        lost = {old} - {node_id(cluster, name)}
        return status == 0 and is_whole(cluster, lost)

    wait_until(repaired, HEALED_S, f"what was flipped on {name} is repaired", 0.5)
    for path in set_asides(directory) - before:
        shutil.rmtree(path, ignore_errors=True)
    seconds = time.monotonic() - scene.struck_at
    return f"flipped {what} of {name}: all replicas the same after {seconds:.1f} s"


def said_of_disk(log: str) -> str:
    """The words with which the log says that space was the reason, for the report; empty when it does not."""
    for line in reversed(log.splitlines()):
        if "No space left" in line or "ENOSPC" in line:
            return f', saying "{line.strip()[-90:]}"'
    return ""


def _needs_files(cluster: LocalCluster) -> str:
    if not cluster.is_local:
        return "the files of containers are out of reach"
    nodes = len(cluster.processes("storagenode"))
    return "" if nodes >= 3 else f"{nodes} storage nodes have no other copies to repair it from"


def _needs_firewall(cluster: LocalCluster) -> str:
    if not cluster.is_local:
        return "the network of containers is out of reach"
    firewall = find_firewall()
    return firewall if isinstance(firewall, str) else ""


def _needs_a_cut(cluster: LocalCluster) -> str:
    return _needs_firewall(cluster) if cluster.is_local else ""


def _needs_disk(cluster: LocalCluster) -> str:
    if not cluster.is_local:
        return "the disks of containers are out of reach"
    if disk_node(cluster) is None:
        return "no storage node has a file system of its own as data directory"
    return ""


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("kill", "kill -9 of any process, started again after a while", kill, weight=3),
        Fault("kill-leader", "kill -9 of the leader of a partition", kill_leader, weight=6,
              victims=NOBODY),
        Fault("pause", "SIGSTOP of any process, longer than leases now and then", pause, weight=4),
        Fault("restart", "planned stop (SIGTERM) and start of any process", restart),
        Fault("rolling-restart", "that of every process, one by one", rolling_restart,
              victims=NOBODY),
        Fault("zone-loss", "kill -9 of everything in one zone", zone_loss, victims=ZONE),
        Fault("blackout", "kill -9 of everything at once", blackout, weight=1, victims=NOBODY),
        Fault("partition", "a storage node that nobody reaches", partition, _needs_a_cut, 3,
              victims=STORAGE_NODE),
        Fault("slow-network", "a storage node behind a bad network", slow_network, _needs_firewall, 3,
              victims=STORAGE_NODE),
        Fault("wipe-disk", "a storage node that loses everything it has", wipe_disk, _needs_files, 1,
              victims=STORAGE_NODE, harms_data=True),
        Fault("bit-rot", "flipped bits in the files of a storage node", bit_rot, _needs_files, 1,
              victims=STORAGE_NODE, harms_data=True),
        Fault("full-disk", "a storage node without space", disk_full, _needs_disk, 1,
              victims=STORAGE_NODE),
    )
}  # fmt: skip
