"""Run the replication layer in simulated worlds, each with faults of its own, all drawn from its seed.

    python -m tests.simulation.run --spread --seeds 0:10000       a seed has one column (configuration, network)
    python -m tests.simulation.run --seeds 0:200 [--network fifo] [--config NAME]     every seed in every column
    python -m tests.simulation.run --replay SEED [--config NAME --network NETWORK]    again, exactly, with its trace

A column is a configuration on a network; a line for each says what happened, a violation prints its seed. What
replays is decided by seed and code alone, not by the machine or PYTHONHASHSEED (`replays.py` holds proof).
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.simulation.options import Options, Violation
from tests.simulation.workloads import simulate

TINY = {"append_bytes_max": 45}  # batches of one or two entries
_COMPACT = {"checkpoints": 0.7}
CONFIGURATIONS: dict[str, Options] = {
    "plain": Options(),
    "tiny": Options().with_settings(**TINY),
    "compact": Options(**_COMPACT),
    "five": Options(replicas=5),
    "two": Options(replicas=2),
    "single": Options(replicas=1, **_COMPACT),
    "members": Options(pool=5, changes=1.5, **_COMPACT),
    "crashes": Options(crashes=1.0, **_COMPACT),
    "groups": Options(groups=3, **_COMPACT),
    "late": replace(Options(**_COMPACT).with_settings(send_before_sync=False)),
    "duplicates": Options(duplicate=0.1, **_COMPACT),
    "reads": Options(reads=60.0, transfers=1.0),
    # Answers that outlive two elections.
    "votes": Options(crashes=1.5, isolations=0.8, transfers=1.0),
    "slow": Options(
        replicas=5,
        slow=0.12,
        isolations=0.0,
        partitions=1.0,
        transfers=1.5,
        blocks=0.3,
        crashes=0.05,
        proposals=60.0,
        duplicate=0.1,
        duration_s=20.0,
    ),
    # Clocks as far apart as a lease's margin allows, elections as early as they may come.
    "drift": replace(
        Options(drift=0.11, has_extreme_clocks=True, reads=80.0, proposals=40.0, settle_s=12.0),
        duration_s=20.0,
        isolations=0.5,
        blocks=0.2,
        crashes=0.1,
        transfers=0.5,
    ).with_settings(heartbeat_s=0.4, election_min_s=1.6, election_max_s=1.8),
    "hostile": Options(groups=3, hostility=0.05, hostile_group=1, crashes=0.5, **_COMPACT),
    "suspended": Options(suspensions=0.8, reads=60.0, crashes=0.1, **_COMPACT),
    "no-pre-votes": Options(has_pre_votes=False, reads=40.0, transfers=0.5, **_COMPACT),
    "slow-disks": Options(slow_disk=0.5, slow_disk_s=1.0, reads=30.0, transfers=0.5, **_COMPACT),
    "disk-faults": Options(disk_faults=0.6, slow_disk=0.2, **_COMPACT),
    "lost-disks": Options(pool=5, changes=4.0, losses=0.6, duration_s=20.0, **_COMPACT),
    "many-groups": Options(
        groups=8, pool=5, changes=3.0, proposals=40.0, crashes=0.5, checkpoints=2.0
    ),
    "everything": replace(
        Options(groups=2, pool=5, changes=2.0, checkpoints=1.0).with_settings(**TINY),
        reads=40.0,
        duplicate=0.05,
        suspensions=0.2,
        disk_faults=0.1,
        losses=0.1,
        partitions=0.2,
        transfers=0.5,
        slow_disk=0.2,
        duration_s=20.0,
    ),
}


NETWORKS = ("fifo", "stale", "unordered")


def columns(
    names: Sequence[str] = tuple(CONFIGURATIONS), networks: Sequence[str] = NETWORKS
) -> list[tuple[str, Options]]:
    """Every configuration on every network."""
    return [
        (name, replace(CONFIGURATIONS[name], network=network))
        for name in names
        for network in networks
    ]


def report(seed: int, options: Options) -> str:
    """What a failing seed prints: it is run again, exactly, with its trace."""
    try:
        simulate(seed, options, is_tracing=True)
    except Exception as error:  # noqa: BLE001 - whatever a run raises is a finding
        world = error.world  # type: ignore[attr-defined]
        lines = [f"seed {seed} at {world.now:.3f}: {error!r}", f"options {options}", *world.trace]
        return "\n".join(lines)
    return ""


def run(
    name: str, options: Options, seeds: Sequence[int], *, stop_after: int = 3
) -> tuple[int, Counter[str], Counter[str]]:
    """These seeds in one column; the number that ran, violations by kind, and what happened in them."""
    started = time.process_time()
    kinds: Counter[str] = Counter()
    stats: Counter[str] = Counter()
    done = 0
    for seed in seeds:
        done += 1
        try:
            stats.update(simulate(seed, options).stats)
        except Exception as error:  # noqa: BLE001 - whatever a run raises is a finding
            kinds[error.kind if isinstance(error, Violation) else type(error).__name__] += 1
            print(f"  {name}/{options.network} seed {seed}: {error!r}"[:400])
            if sum(kinds.values()) >= stop_after:
                break
    seconds = time.process_time() - started
    print(
        f"{name}/{options.network}: {done} seeds, {sum(kinds.values())} violations {dict(kinds)}, "
        f"{seconds:.1f} s CPU; {dict(sorted(stats.items()))}",
        flush=True,
    )
    return done, kinds, stats


def run_all(chosen: list[tuple[str, Options]], seeds: range, *, is_spread: bool) -> int:
    """All columns, each with all seeds or (spread) with every so-manyth; the number of violations."""
    done, kinds, stats = 0, Counter[str](), Counter[str]()
    for position, (name, options) in enumerate(chosen):
        own = [s for s in seeds if s % len(chosen) == position] if is_spread else seeds
        ran, found, counted = run(name, options, own)
        done += ran
        kinds.update(found)
        stats.update(counted)
    shown = (
        "elections",
        "acks",
        "lease-read",
        "barrier-read",
        "crashes",
        "snapshots",
        "configurations",
    )
    print(
        f"total: {done} runs in {len(chosen)} columns, {sum(kinds.values())} violations {dict(kinds)}; "
        + ", ".join(f"{stats[name]} {name}" for name in shown)
    )
    return sum(kinds.values())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0:20", help="FROM:TO")
    parser.add_argument("--spread", action="store_true", help="a seed chooses its column")
    parser.add_argument("--network", default=",".join(NETWORKS))
    parser.add_argument("--config", default=",".join(CONFIGURATIONS))
    parser.add_argument("--replay", type=int, help="one seed, with its trace")
    arguments = parser.parse_args(argv)
    chosen = columns(arguments.config.split(","), arguments.network.split(","))
    if arguments.replay is not None:
        violations = 0
        if arguments.spread:
            chosen = [chosen[arguments.replay % len(chosen)]]
        for name, options in chosen:
            text = report(arguments.replay, options)
            print(text or f"{name}/{options.network} seed {arguments.replay}: no violation")
            violations += bool(text)
        return 1 if violations else 0
    first, last = (int(part) for part in arguments.seeds.split(":"))
    return 1 if run_all(chosen, range(first, last), is_spread=arguments.spread) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
