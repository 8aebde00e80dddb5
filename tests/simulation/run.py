"""Run the matrix: python -m tests.simulation.run --seeds 0:1000 [--network fifo] [--config NAME] [--replay SEED].

Every seed runs in every configuration on every network; a line each says what happened. A violation prints its
seed; `--config NAME --network NETWORK --replay SEED` runs it again, exactly, and prints the end of its trace.
"""

import argparse
import sys
import time
from collections import Counter
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
}


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
    name: str, options: Options, seeds: range, *, stop_after: int = 3
) -> tuple[int, Counter[str]]:
    """All seeds of one configuration; the number that ran, and violations by kind."""
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
        f"{seconds:.0f} s CPU; {dict(sorted(stats.items()))}",
        flush=True,
    )
    return done, kinds


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:20", help="FROM:TO")
    parser.add_argument("--network", default="fifo,stale,unordered")
    parser.add_argument("--config", default=",".join(CONFIGURATIONS))
    parser.add_argument("--replay", type=int, help="one seed, with its trace")
    arguments = parser.parse_args(argv)
    first, last = (int(part) for part in arguments.seeds.split(":"))
    violations = 0
    for name in arguments.config.split(","):
        for network in arguments.network.split(","):
            options = replace(CONFIGURATIONS[name], network=network)
            if arguments.replay is not None:
                text = report(arguments.replay, options)
                print(text or f"{name}/{network} seed {arguments.replay}: no violation")
                violations += bool(text)
                continue
            violations += sum(run(name, options, range(first, last))[1].values())
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
