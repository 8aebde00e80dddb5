"""Break a real local cluster at random under load, then give a verdict.

One fault at a time (kill -9 or pause of any process, all at once now and then), each followed by recovery.
Prints when what happened, how long writes stood still, and whether every key's history is linearizable.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.harness import LocalCluster, running_cluster
from tests.cluster.linearizability import find_violation
from tests.cluster.test_faults import TABLE, create_table, wait_writable
from tests.cluster.workload import Workload


def one_fault(cluster: LocalCluster, chance: random.Random) -> str:
    """Do one fault and undo it; returns what was done."""
    names = [p["name"] for p in cluster.processes()]
    roll = chance.random()
    if roll < 0.1:
        for name in names:
            cluster.kill(name)
        time.sleep(0.5)
        for name in names:
            cluster.restart(name)
        return "killed everything"
    name = chance.choice(names)
    duration = chance.uniform(0.2, 4.0)
    if roll < 0.65:
        cluster.kill(name)
        time.sleep(duration)
        cluster.restart(name)
        return f"killed {name} for {duration:.1f} s"
    cluster.pause(name)
    time.sleep(duration)
    cluster.resume(name)
    return f"paused {name} for {duration:.1f} s"


def main() -> int:
    """Run until the time is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="chooses the faults; 0 picks one")
    options = parser.parse_args()
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    end = time.monotonic() + options.minutes * 60
    broken = 0
    gaps: list[float] = []
    operations = 0
    with (
        tempfile.TemporaryDirectory(prefix="quorate-chaos-") as directory,
        running_cluster(Path(directory) / "data", "--no-restart") as cluster,
    ):
        create_table(cluster)
        while time.monotonic() < end:
            # A fresh set of histories per round keeps each short enough to decide.
            number = len(gaps)
            with Workload(
                lambda: cluster.http,
                TABLE,
                clients=6,
                keys=24,
                seed=seed + number,
                prefix=f"r{number}-",
            ) as load:
                time.sleep(1.0)
                done = one_fault(cluster, chance)
                wait_writable(cluster, 60)
                time.sleep(0.5)
            load.read_back()
            gaps.append(load.longest_write_gap_s())
            operations += sum(map(len, load.histories.values()))
            found = [v for h in load.histories.values() if (v := find_violation(h))]
            broken += len(found)
            verdict = f"VIOLATION {found[0]}" if found else "linearizable"
            left = max(0.0, end - time.monotonic())
            print(
                f"{left:6.0f} s left  {done:34} writes stood still {gaps[-1]:5.2f} s  {verdict}",
                flush=True,
            )
    gaps.sort()
    print(
        f"{len(gaps)} faults, {operations} operations, write gap median {gaps[len(gaps) // 2]:.2f} s,"
        f" longest {gaps[-1]:.2f} s, {broken} violations"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
