"""Lint: no source file grows past `LINES_MAX` lines. Run as `python -m tests.file_sizes`.

A file that size holds more than one thing; split it by what its parts are about.
"""

import sys
from itertools import chain
from pathlib import Path

LINES_MAX = 700
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "datamodel",
    "proto",
    "raft",
    "router",
    "storagenode",
    "admin",
    "tests",
    "deploy",
    "docs",
)

# Generated from the service's model: nobody reads them from top to bottom.
GENERATED = ("datamodel/requests.py", "proto/*_pb2.py", "proto/*_pb2_grpc.py")


def main() -> int:
    """Name every file that is too long."""
    failed = False
    for path in chain.from_iterable(sorted((ROOT / folder).rglob("*.py")) for folder in FOLDERS):
        name = path.relative_to(ROOT)
        if any(name.match(pattern) for pattern in GENERATED):
            continue
        lines = len(path.read_bytes().splitlines())
        if lines > LINES_MAX:
            failed = True
            print(f"{name}: {lines} lines, at most {LINES_MAX}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
