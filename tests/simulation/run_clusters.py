"""Simulate whole clusters: python -m tests.simulation.run_clusters --seeds 0:1000 [--replay SEED] [--mutations].

Prints a summary; each violation prints its seed and the end of its trace, and `--replay` prints all of it again,
exactly: nothing but the seed (and the code) decides a run. `--mutations` switches single rules of the product
off and says how many seeds it took to notice.
"""

import argparse
import sys
import time
from collections import Counter
from unittest import mock

from tests.simulation.cluster_mutations import MUTATIONS
from tests.simulation.cluster_workload import collect, simulate
from tests.simulation.options import Violation

TRACE_LINES = 60
PROGRESS_SEEDS = 100


def trace_of(seed: int, lines: int | None = None) -> str:
    """The seed's run, line by line, and how it ended."""
    try:
        world = simulate(seed, is_tracing=True)
        end = "no violation"
    except Exception as error:  # noqa: BLE001 - whatever a run raises is a finding
        world = error.world  # type: ignore[attr-defined]
        end = repr(error)
    trace = list(world.trace)
    return "\n".join(
        [*trace[-lines if lines else 0 :], f"seed {seed} at {world.now:.3f}: {end}; digest {world.digest:08x}"]
    )  # fmt: skip


def run(seeds: range, stop_after: int = 5) -> tuple[int, Counter[str]]:
    """Run seeds; how many ran, and violations by kind."""
    started = time.monotonic()
    kinds: Counter[str] = Counter()
    stats: Counter[str] = Counter()
    digest = done = 0
    for seed in seeds:
        done += 1
        try:
            world = simulate(seed)
            stats.update(world.stats)
            digest ^= world.digest
        except Exception as error:  # noqa: BLE001 - whatever a run raises is a finding
            kinds[error.kind if isinstance(error, Violation) else type(error).__name__] += 1
            print(trace_of(seed, TRACE_LINES), flush=True)
            if sum(kinds.values()) >= stop_after:
                break
        collect()
        if done % PROGRESS_SEEDS == 0:
            print(f"... {done} seeds, {time.monotonic() - started:.0f} s", flush=True)
    print(
        f"clusters: {done} seeds, {sum(kinds.values())} violations {dict(kinds)}, "
        f"{time.monotonic() - started:.0f} s, digest {digest:08x}; {dict(sorted(stats.items()))}",
        flush=True,
    )
    return done, kinds


def search(name: str, seeds: range) -> str | None:
    """The first seed and violation that shows a rule to be missing; None if none of them does."""
    with mock.patch.object(*MUTATIONS[name]):
        for seed in seeds:
            try:
                simulate(seed)
            except Violation as found:
                return f"seed {seed}: {found}"[:160]
            collect()
    return None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", help="FROM:TO (0:20; with --mutations 0:500)")
    parser.add_argument("--replay", type=int, help="one seed, with its trace")
    parser.add_argument("--mutations", action="store_true", help="are missing rules missed?")
    arguments = parser.parse_args(argv)
    if arguments.replay is not None:
        text = trace_of(arguments.replay)
        print(text)
        return 0 if "no violation" in text.rpartition("\n")[2] else 1
    seeds = arguments.seeds or ("0:500" if arguments.mutations else "0:20")
    first, last = (int(part) for part in seeds.split(":"))
    if arguments.mutations:
        found = {name: search(name, range(first, last)) for name in MUTATIONS}
        for name, what in found.items():
            print(f"{name}: {what or 'NOT FOUND'}")
        return 0 if all(found.values()) else 1
    return 1 if run(range(first, last))[1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
