"""Break a real cluster under load, then give a verdict.

Without a FAULT: a mix of all that this machine allows, for --minutes. With one or more: each --rounds times. A
cluster of its own is started, unless --cluster names the data directory of one that `quorate up` runs.

Each round loads the cluster, does one fault and undoes it, waits until every partition takes writes again, reads
everything back, and checks that the history of each item is linearizable. Clients do not retry. Exit status: 0
when no history is broken, 1 when one is, 2 when nothing could be played, 3 when some could not be decided.
"""

import argparse
import atexit
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.chaos.clusters import AttachedCluster
from tests.chaos.containers import ContainerCluster, find_engine
from tests.chaos.disks import small_disk, why_not_mount
from tests.chaos.faults import FAULTS, Fault, Scene, undo_everything
from tests.chaos.gaps import Gap, Probe
from tests.chaos.network import find_firewall
from tests.chaos.tables import ChaosTable
from tests.chaos.timeline import availability, buckets, strip
from tests.cluster.harness import LocalCluster, running_cluster, wait_until
from tests.cluster.linearizability import find_violation
from tests.cluster.workload import Workload

CLIENTS = 4
KEYS = 24
BEFORE_S = 1.0
AFTER_S = 0.75
RECOVER_S = 90.0
SMALL_DISK_NODE = "storage-az3-0"
SMALL_DISK_MB = 384


@dataclass
class Round:
    """What one fault did."""

    fault: str
    did: str
    gap: Gap
    operations: int
    errors: dict[str, int]
    violations: list[str]
    undecided: list[str]
    counts: list[int]


def play(table: ChaosTable, fault: Fault, scene: Scene, number: int, seed: int) -> Round:
    """One fault under load, and the check of what clients saw."""
    cluster = scene.cluster
    keys = table.key_by_group()
    began = time.monotonic()
    with ExitStack() as stack:
        # One writer per partition, whose gaps are measured, beside the load whose histories are checked.
        probes = [
            stack.enter_context(Probe(lambda: cluster.http, table.name, key, clients=1))
            for key in keys.values()
        ]
        load = stack.enter_context(
            Workload(
                lambda: cluster.http, table.name, clients=CLIENTS, keys=KEYS,
                seed=seed + number, prefix=f"r{number}-",
            )
        )  # fmt: skip
        time.sleep(BEFORE_S)
        did = fault.strike(scene)
        table.wait_writable(RECOVER_S)
        # One fault at a time: the next one finds everybody back.
        wait_until(cluster.is_ready, RECOVER_S, "every process ready", 0.2)
        time.sleep(AFTER_S)
    ended = time.monotonic()
    load.read_back()
    gaps = [probe.gap_since(scene.struck_at) for probe in probes]
    worst = max(gaps, key=lambda gap: gap.gap_s)
    errors = dict(load.errors)
    for probe in probes:
        for kind, count in probe.failure_counts().items():
            errors[kind] = errors.get(kind, 0) + count
    errors.pop("ConditionalCheckFailedException", None)  # an answer like another
    found: list[str] = []
    undecided: list[str] = []
    for key, history in load.histories.items():
        try:
            violation = find_violation(history)
        except RuntimeError as error:
            undecided.append(f"{key}: {error}")
            continue
        if violation is not None:
            found.append(f"{key}: {violation}")
    written = [moment for probe in probes for moment in probe.acknowledged_at]
    return Round(
        fault.name,
        did,
        Gap(worst.gap_s, worst.first_write_s, sum(errors.values())),
        sum(map(len, load.histories.values())) + len(written),
        errors,
        found,
        undecided,
        buckets([*load.acknowledged_at, *written], began, ended),
    )


def report(rounds: list[Round], seconds: float) -> int:
    """Print the verdict; returns the exit status."""
    by_fault: dict[str, list[Round]] = defaultdict(list)
    for played in rounds:
        by_fault[played.fault].append(played)
    head = f"{'fault':16} {'rounds':>6} {'gap median':>11} {'longest':>9} {'operations':>11} {'failed':>7}"
    print(f"\n{head}")
    for name, played in sorted(by_fault.items()):
        widths = [one.gap.gap_s for one in played]
        print(
            f"{name:16} {len(played):6} {median(widths):9.2f} s {max(widths):7.2f} s"
            f" {sum(one.operations for one in played):11} {sum(one.gap.failed for one in played):7}"
        )
    operations = sum(one.operations for one in rounds)
    counts = [count for one in rounds for count in one.counts]
    broken = [violation for one in rounds for violation in one.violations]
    print(
        f"\n{len(rounds)} faults in {seconds / 60:.1f} minutes, {operations} operations without retries,"
        f" {sum(one.gap.failed for one in rounds)} failed; some write was acknowledged in"
        f" {availability(counts) * 100:.1f} % of all quarter seconds"
    )
    undecided = [text for one in rounds for text in one.undecided]
    verdict = "linearizable, nothing lost"
    if broken:
        verdict = "VIOLATIONS"
    elif undecided:
        verdict = f"no violation found, {len(undecided)} histories too tangled to decide"
    print(f"verdict: {verdict}")
    for violation in broken:
        print(f"  {violation}")
    for text in undecided:
        print(f"  not decided: {text}")
    return 1 if broken else 3 if undecided else 0


def choose(options: argparse.Namespace, cluster: LocalCluster) -> list[Fault]:
    """The faults to play from; says which are left out, and why."""
    wanted = options.faults or list(FAULTS)
    able = []
    for name in wanted:
        fault = FAULTS[name]
        reason = fault.why_not(cluster)
        if options.target and not reason:
            reason = fault.why_not_target(cluster, options.target)
        if fault.harms_data and options.cluster and not options.faults:
            reason = reason or "it harms data; name it to have it on a cluster of yours"
        if reason:
            print(f"skipped {name}: {reason}")
        else:
            able.append(fault)
    return able


def attach(options: argparse.Namespace) -> LocalCluster:
    """The user's cluster, not looked at yet."""
    if options.cluster:
        return AttachedCluster(Path(options.cluster).resolve())
    engine = find_engine()
    if isinstance(engine, str):
        sys.exit(f"no container engine: {engine}")
    return ContainerCluster(engine, options.compose)


@contextmanager
def some_cluster(options: argparse.Namespace) -> Iterator[LocalCluster]:
    """The user's, or one of our own with two routers and, when root, a small disk for one storage node."""
    if options.cluster or options.compose:
        attached = attach(options)
        attached.start()
        try:
            yield attached
        finally:
            attached.stop()
        return
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quorate-chaos-")))
        data = directory / "data"
        wants_disk = not options.faults or "full-disk" in options.faults
        if wants_disk and not why_not_mount():
            with contextlib.suppress(OSError):
                stack.enter_context(small_disk(data / SMALL_DISK_NODE, SMALL_DISK_MB))
        yield stack.enter_context(running_cluster(data, "--routers", "2", "--no-restart"))


@contextmanager
def undone(cluster: LocalCluster) -> Iterator[None]:
    """However the block is left, no fault is on behind it."""
    try:
        yield
    except BaseException:
        undo_everything(cluster)
        raise


def end_once() -> None:
    """The first Ctrl-C or SIGTERM ends the run, on whose way out the fault is undone; later ones change nothing."""

    def again(*_: object) -> None:
        os.write(2, b"ending: the fault is undone first\n")

    def first(number: int, _: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, again)
        # (The interpreter takes its handlers away before it ends.)
        for each in (signal.SIGINT, signal.SIGTERM):
            atexit.register(signal.signal, each, signal.SIG_IGN)
        again()
        sys.exit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, first)


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="faults:\n"
        + "\n".join(f"  {fault.name:16} {fault.text}" for fault in FAULTS.values()),
    )
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="only these (see below)")
    parser.add_argument(
        "--cluster", default="", metavar="DIR", help="data directory of a running cluster"
    )
    parser.add_argument(
        "--compose",
        default="",
        metavar="PROJECT",
        help="compose project of a cluster in containers",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="length of a mixed run (10)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each named fault (3)")
    parser.add_argument("--target", default="", metavar="NAME", help="victim: a process, or a zone")
    parser.add_argument(
        "--seed", type=int, default=0, help="chooses faults and victims; 0 picks one"
    )
    options = parser.parse_args(argv)
    unknown = [name for name in options.faults if name not in FAULTS]
    if unknown:
        parser.error(f"no such fault: {', '.join(unknown)}")
    return options


def order(options: argparse.Namespace, able: list[Fault], chance: random.Random) -> Iterator[Fault]:
    """The faults to play, one after the other, until it is enough."""
    if options.faults:
        for fault in able:
            for _ in range(options.rounds):
                yield fault
        return
    end = time.monotonic() + options.minutes * 60
    first = list(able)
    chance.shuffle(first)  # each once, then as it comes
    while time.monotonic() < end:
        yield first.pop() if first else chance.choices(able, [fault.weight for fault in able])[0]


def main(argv: list[str]) -> int:
    """Run; returns the exit status."""
    options = parse(argv)
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 30)
    chance = random.Random(seed)
    end_once()
    firewall = find_firewall()
    if not isinstance(firewall, str):
        firewall.clear_stale()
    rounds: list[Round] = []
    began = time.monotonic()
    with (
        some_cluster(options) as cluster,
        ChaosTable(cluster, f"chaos-{seed}-{os.getpid()}") as table,
        undone(cluster),
    ):
        print(f"seed {seed}, {cluster.http}, {len(cluster.processes())} processes")
        able = choose(options, cluster)
        if not able:
            return 2
        for number, fault in enumerate(order(options, able, chance)):
            scene = Scene(cluster, chance, list(table.key_by_group()), options.target)
            played = play(table, fault, scene, number, seed)
            rounds.append(played)
            verdict = "linearizable"
            if played.violations:
                verdict = f"VIOLATION {played.violations[0]}"
            elif played.undecided:
                verdict = f"{len(played.undecided)} histories not decided"
            kinds = f" {played.errors}" if played.errors else ""
            print(
                f"{time.monotonic() - began:5.0f} s  {played.did}\n"
                f"         |{strip(played.counts)}|\n"
                f"         longest write gap of a partition {played.gap.gap_s:.2f} s,"
                f" {played.operations} operations, {played.gap.failed} failed{kinds}, {verdict}",
                flush=True,
            )
    return report(rounds, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
