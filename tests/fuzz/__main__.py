"""`python -m tests.fuzz`: fuzz a cluster for as long as asked; exit status 1 if anything was found.

Every request follows from the seed and its number, so `--seed` with what a finding names sends them again.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.harness import running_cluster
from tests.fuzz.fuzzer import Fuzzer, Report
from tests.fuzz.watch import Watch
from tests.fuzz.worlds import Worlds

PROGRESS_S = 30.0


def main() -> int:
    """Parse the command line, run, tell."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--rounds", type=int, default=None, help="at most so many requests")
    parser.add_argument(
        "--seed", type=int, default=None, help="of a run to repeat (default: the clock's)"
    )
    parser.add_argument("--operation", action="append", help="only this one; may be repeated")
    parser.add_argument("--endpoint", help="URL of a running cluster (default: one of its own)")
    parser.add_argument("--grpc-endpoint", help="host:port of its gRPC endpoint")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    if options.endpoint:
        worlds = Worlds(options.endpoint, options.grpc_endpoint, f"run-{seed}-")
        report = _run(
            Fuzzer(worlds, seed, options.operation), None, options.seconds, options.rounds
        )
        worlds.close()
    else:
        with (
            tempfile.TemporaryDirectory(prefix="quorate-fuzz-") as folder,
            running_cluster(Path(folder) / "data", "--log-format", "json") as cluster,
        ):
            worlds = Worlds(cluster.http, cluster.grpc, f"run-{seed}-")
            fuzzer = Fuzzer(worlds, seed, options.operation)
            report = _run(fuzzer, Watch(cluster), options.seconds, options.rounds)
    print(report.text())
    for finding in report.findings:
        print(f"\nFOUND (seed {seed}) {finding}", file=sys.stderr)
    return 1 if report.findings else 0


def _run(fuzzer: Fuzzer, watch: Watch | None, seconds: float, rounds: int | None) -> Report:
    end = time.monotonic() + seconds
    told = time.monotonic()
    fuzzer.play_valid_requests()
    while time.monotonic() < end and (rounds is None or fuzzer.report.rounds < rounds):
        fuzzer.run(min(100, (rounds or 1 << 60) - fuzzer.report.rounds), watch)
        if fuzzer.report.is_full:
            break
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            found = len(fuzzer.report.findings)
            print(f"{fuzzer.report.rounds} rounds, {found} findings", flush=True)
    return fuzzer.report


if __name__ == "__main__":
    sys.exit(main())
