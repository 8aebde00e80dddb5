"""Damage a storage node's files in every place and see whether it is always noticed.

Without --every: files written anew again and again, other bits each time, until --minutes are over. With it: one
bit of every byte of one set of files. Exit status 1 when something wrong was served.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from tests.damage import harm
from tests.damage.engine_store import Store, Wrong
from tests.damage.node_log import Log

Judge = Callable[[harm.Harm], str]
FLIPS_PER_FILE = 60


def engine_files(directory: Path, seed: int) -> Iterator[tuple[str, bytes, Judge]]:
    """Kind of file, content, judge: for each file of an engine."""
    store = Store(directory / "engine", seed)
    for path in sorted(store.directory.iterdir()):
        if path.name.startswith("LO"):
            continue  # LevelDB's lock, and messages that nobody reads
        kind = "table" if path.suffix == ".ldb" else path.name.partition("-")[0]
        kind = "LevelDB's log" if path.suffix == ".log" else kind
        for compact in (False, True):

            def judge(damage: harm.Harm, name: str = path.name, compact: bool = compact) -> str:
                return store.judge(damage, name, directory / "copy", compact=compact)

            yield f"{kind}{', compacted' if compact else ''}", path.read_bytes(), judge


def log_files(directory: Path, seed: int) -> Iterator[tuple[str, bytes, Judge]]:
    """The same of the segments of a raft log. (Gross damage to the last one cannot always be told from a write that
    never ended.)
    """
    written = Log(directory / "log", seed)
    for path in written.segments[:-1]:

        def judge(damage: harm.Harm, name: str = path.name) -> str:
            return written.judge(damage, name, directory / "copy")

        yield "raft log", path.read_bytes(), judge


def play(seed: int, every: bool, verdicts: Counter[tuple[str, str]]) -> list[str]:
    """Damage the files of one seed; returns what was wrong."""
    chance = random.Random(seed)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="quorate-damage-") as name:
        directory = Path(name)
        for kind, data, judge in chain(engine_files(directory, seed), log_files(directory, seed)):
            damages = (
                harm.every_flip(len(data))
                if every
                else harm.flips(len(data), chance, min(len(data), FLIPS_PER_FILE))
            )
            for damage in [*damages, *harm.gross(data, chance)]:
                try:
                    verdicts[kind, judge(damage)] += 1
                except Wrong as error:
                    verdicts[kind, "WRONG"] += 1
                    wrong.append(f"seed {seed}, {kind}: {error}")
    return wrong


def main(argv: list[str]) -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, default=1, help="the first; then the next ones (1)")
    parser.add_argument("--every", action="store_true", help="every byte, of one seed")
    options = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    verdicts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    end = time.monotonic() + options.minutes * 60
    seed = options.seed
    while True:
        wrong += play(seed, options.every, verdicts)
        seed += 1
        if options.every or time.monotonic() > end:
            break
    for (kind, verdict), count in sorted(verdicts.items()):
        print(f"{count:8}  {kind:28} {verdict}")
    print(
        f"seeds {options.seed} to {seed - 1}: {sum(verdicts.values())} damages, {len(wrong)} wrong"
    )
    for text in wrong:
        print(f"  {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
