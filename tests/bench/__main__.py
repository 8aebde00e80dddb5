"""What replication costs, and how our cluster compares with its controls and peers, round by round in one run.

First CPU per replicated write with one group and with 500, and the cost of 500 idle groups (`raft_cost`, which runs
alone too). Then, per operation and concurrency: median and range of operations per second over the rounds, p50 and
p99 latency (median of the rounds), CPU microseconds per request over all server processes, and the ratio of our
median to each system's. CPU per request is the evidence; ops/s the illustration. A difference counts when CPU
per request moves by more than 20 % and the ranges of the rounds do not overlap.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import raft_cost
from tests.bench.systems import System, available, cpu_seconds

SCRIPT = Path(__file__).with_name("load.lua")
HEADING = f"  {'':18} {'ops/s':>9} {'[range]':>21} {'p50 us':>8} {'p99 us':>8} {'CPU us':>8} ratio"
INSTALL = {
    "dynalite-memory": "npm install --global dynalite",
    "etcd-json": "apt-get install etcd-server",
}
OPERATIONS = ("get_strong", "get_eventual", "put", "update", "query")


def measure(
    system: System, operation: str, concurrency: int, seconds: int, keys: int, token: str
) -> dict[str, float]:
    """One round of one system."""
    before = cpu_seconds(system.pids())
    done = subprocess.run(
        [
            "wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "10s",
            "-s", str(SCRIPT), system.endpoint,
        ],
        env={
            **os.environ, "BENCH_OPERATION": operation, "BENCH_DIALECT": system.dialect,
            "BENCH_KEYS": str(keys), "BENCH_TOKEN": token,
        },
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    used = cpu_seconds(system.pids()) - before
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    requests = max(1, result["requests"])
    return {
        "ops": requests / result["microseconds"] * 1e6,
        "p50": result["p50"],
        "p99": result["p99"],
        "cpu": used / requests * 1e6,
        "errors": result["errors"],
    }


def report(name: str, rounds: list[dict[str, float]], ours: list[dict[str, float]]) -> str:
    """One line of the table."""

    def median(key: str, of: list[dict[str, float]] = rounds) -> float:
        return statistics.median(r[key] for r in of)

    ops = [r["ops"] for r in rounds]
    ratio = median("ops", ours) / median("ops")
    errors = int(sum(r["errors"] for r in rounds))
    return (
        f"  {name:18} {median('ops'):9,.0f} [{min(ops):8,.0f} -{max(ops):8,.0f}]"
        f" {median('p50'):8,.0f} {median('p99'):8,.0f} {median('cpu'):8.1f} {ratio:7.2f}"
        + (f"  {errors} ERRORS" if errors else "")
    )


def compare(options: argparse.Namespace) -> dict[str, list[dict[str, float]]] | None:
    """Every round of every system, printed as they come; None if a system did not do its writes."""
    chosen = [s for s in options.systems.split(",") if s]
    systems = [s for s in available() if not chosen or s.name in chosen]
    for name, how in INSTALL.items():
        if name not in [s.name for s in systems] and (not chosen or name in chosen):
            print(f"not measured: {name} (install it with: {how})")
    everything: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="quorate-bench-") as directory:
        started: list[System] = []
        try:
            for system in systems:
                started.append(system)
                system.start(Path(directory))
                system.fill(options.keys)
            for operation in options.operations.split(","):
                for concurrency in map(int, options.concurrency.split(",")):
                    taking = [s for s in systems if operation in s.operations]
                    results = _rounds(options, taking, operation, concurrency)
                    for name, rounds in results.items():
                        everything[f"{operation}/{concurrency}/{name}"] = rounds
                    last = f"put-{concurrency}-{options.rounds - 1}"
                    if operation == "put" and not _wrote(taking, last, options.keys):
                        return None
        finally:
            for system in started:
                system.stop()
    return everything


def _rounds(
    options: argparse.Namespace, systems: list[System], operation: str, concurrency: int
) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {s.name: [] for s in systems}
    for number in range(options.rounds):
        for system in systems:
            token = f"{operation}-{concurrency}-{number}"
            results[system.name].append(
                measure(system, operation, concurrency, options.seconds, options.keys, token)
            )
    print(f"\n{operation}, {concurrency} connections, {options.rounds} rounds")
    print(HEADING)
    ours = results[systems[0].name]
    for name, rounds in results.items():
        print(report(name, rounds, ours), flush=True)
    return results


def _wrote(systems: list[System], token: str, keys: int) -> bool:
    """Whether each system has what the last round wrote."""
    asked = min(keys, 500)
    for system in systems:
        found = system.read_back(token, asked)
        print(f"  read back {system.name}: {found} of {asked} keys carry the last round's token")
        if not found:
            print(f"  {system.name} DID NOT DO THE WRITES")
            return False
    return True


def main() -> int:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--keys", type=int, default=5000)
    parser.add_argument("--concurrency", default="1,16,64")
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument(
        "--systems", default="", help="names, comma separated; default: all installed"
    )
    parser.add_argument("--no-replication", action="store_true", help="compare the systems only")
    parser.add_argument("--json", type=Path, help="also write every round here")
    options = parser.parse_args()
    # First, and before anything else runs.
    replication = {} if options.no_replication else raft_cost.measure(seconds=options.seconds)
    if shutil.which("wrk") is None:
        print(
            "the load generator wrk is not installed (Debian: apt-get install wrk)", file=sys.stderr
        )
        return 2
    systems = compare(options)
    if systems is None:
        return 1
    if options.json:
        figures = {**systems, "replication": replication}
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
