"""Traces that any machine must repeat: python -m tests.simulation.replays [--record]

A world draws everything from its seed, so the digest of its trace depends on seed, settings and code alone: not on
the machine, the Python (3.11 or newer), or PYTHONHASHSEED. `replays.json` holds digests and that of the code they
were recorded with; after a change of `raft/` or the simulator they are recorded anew.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from tests.simulation.run import CONFIGURATIONS
from tests.simulation.workloads import simulate

RECORDED = Path(__file__).with_name("replays.json")
ROOT = Path(__file__).resolve().parents[2]
SEEDS = (1, 2)
# Of the simulator, what a world is made of (the whole-cluster simulation has files of its own).
SIMULATOR = (
    "checkers", "disk", "hostile", "machine", "node", "observed", "options", "patching", "run", "workloads",
    "world",
)  # fmt: skip


def code_digest() -> str:
    """Of everything that a trace depends on."""
    files = sorted((ROOT / "raft").glob("*.py"))
    files += [Path(__file__).with_name(f"{name}.py") for name in SIMULATOR]
    whole = hashlib.sha256()
    for path in files:
        whole.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def trace_digest(name: str, network: str, seed: int) -> str:
    """One run's."""
    options = replace(CONFIGURATIONS[name], network=network)
    return simulate(seed, options, is_tracing=True).digest()


def all_digests() -> dict[str, str]:
    """Two seeds of each configuration on each network."""
    return {
        f"{name}/{network}/{seed}": trace_digest(name, network, seed)
        for name in CONFIGURATIONS
        for network in ("fifo", "stale", "unordered")
        for seed in SEEDS
    }


def main(argv: list[str]) -> int:
    """Record, or compare and name what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args(argv)
    found = {"code": code_digest(), "traces": all_digests()}
    if arguments.record:
        RECORDED.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{len(found['traces'])} traces recorded")
        return 0
    recorded = json.loads(RECORDED.read_text())
    if recorded["code"] != found["code"]:
        print("recorded with other code: record anew (--record) and commit", file=sys.stderr)
        return 1
    differing = [
        name for name, digest in recorded["traces"].items() if found["traces"].get(name) != digest
    ]
    for name in differing:
        print(f"{name}: another trace than recorded", file=sys.stderr)
    if not differing:
        print(f"{len(found['traces'])} traces are those recorded")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
