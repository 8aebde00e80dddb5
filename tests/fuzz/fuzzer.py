"""Rounds of fuzzing: choose an operation, make a mutant, send it, write down what came of it."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from datamodel.shape_rules import IMPLEMENTED_OPERATIONS
from tests.fuzz.corpus import Seed, read_corpus
from tests.fuzz.mutators import Mutator
from tests.fuzz.watch import Watch
from tests.fuzz.worlds import TABLE_OPERATIONS, Answers, Worlds

FINDINGS_MAX: Final = 20
# Implemented operations, the life of a table in its order.
_LIFE: Final = (
    "CreateTable",
    "UpdateTable",
    *sorted(set(IMPLEMENTED_OPERATIONS) - TABLE_OPERATIONS),
    "DeleteTable",
)
LARGE_BODY: Final = 50_000
"""Seeds with more text are sent more rarely: they take the time of many small ones."""


@dataclass(slots=True)
class Report:
    """What a run came to.

    Attributes:
        rounds: Requests made up.
        sent: Requests sent: most go to two sets of tables.
        outcomes: How often an operation answered what: `ok` or an error's code.
        slowest: Seconds of the slowest answer of an operation.
        findings: What must not be, with the request.
    """

    rounds: int = 0
    sent: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    slowest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    findings: list[str] = field(default_factory=list)
    largest_process_bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there are enough findings for one run."""
        return len(self.findings) >= FINDINGS_MAX

    def text(self) -> str:
        """For a reader."""
        lines = [f"{self.rounds} rounds, {self.sent} requests, {len(self.findings)} findings"]
        if self.largest_process_bytes:
            lines.append(f"largest process: {self.largest_process_bytes >> 20} MB")
        for operation, counts in sorted(self.outcomes.items()):
            told = ", ".join(f"{code} {count}" for code, count in counts.most_common())
            lines.append(f"  {operation:28} slowest {self.slowest[operation]:6.2f} s   {told}")
        return "\n".join(lines)


class Fuzzer:
    """A run with one seed."""

    def __init__(self, worlds: Worlds, seed: int, operations: Iterable[str] | None = None) -> None:
        """Create, and fill the tables as the corpus asks.

        Args:
            worlds: Where requests go.
            seed: Decides everything.
            operations: The only ones to fuzz; None for all that the service's model has.

        Raises:
            ValueError: The service has no such operation.
        """
        self.report = Report()
        self._worlds = worlds
        self._seed = seed
        self._corpus = read_corpus(worlds.prefix)
        self._mutator = Mutator(self._corpus)
        chosen = set(operations or self._corpus.seeds)
        if unknown := chosen - set(self._corpus.seeds):
            raise ValueError(f"no operation of the service: {', '.join(sorted(unknown))}")
        self._groups = [
            (weight, sorted(members & chosen))
            for weight, members in (
                (80, set(IMPLEMENTED_OPERATIONS) - TABLE_OPERATIONS),
                (8, set(TABLE_OPERATIONS)),
                (12, set(self._corpus.seeds) - set(IMPLEMENTED_OPERATIONS)),
            )
            if members & chosen
        ]
        for request in self._corpus.setup:
            worlds.send(request.operation, request.body)

    def play_valid_requests(self) -> None:
        """Send the seeds of each implemented operation as they are, until one of them succeeds."""
        for operation in _LIFE:
            for request in self._corpus.seeds[operation]:
                answers = self._worlds.send(operation, request.body)
                assert answers is not None, request
                self._judge(0, request, answers)
                if not answers.outcome.code:
                    break
            self._worlds.wait_for_tables()

    def run(self, rounds: int, watch: Watch | None = None) -> Report:
        """Go on for so many rounds, then look at the processes."""
        for _ in range(rounds):
            self._round(self.report.rounds)
            self.report.rounds += 1
            if self.report.is_full:
                break
        self.report.sent = self._worlds.sent
        if watch is not None:
            self.report.findings += watch.complaints()
            self.report.largest_process_bytes = watch.largest_bytes
        return self.report

    def _round(self, number: int) -> None:
        chance = random.Random(f"{self._seed}:{number}")
        weights, groups = zip(*self._groups, strict=True)
        (operations,) = chance.choices(groups, weights)
        operation = chance.choice(operations)
        seed = self._choose(operation, chance)
        roll = chance.random()
        if roll < 0.04:
            self._note(number, seed, self._worlds.send_bytes(seed, chance))
        elif roll < 0.08:
            self._note(number, seed, self._worlds.send_garbage(seed, chance))
        else:
            mutant = Seed(operation, self._mutator.mutant(seed, chance))
            answers = self._worlds.send(operation, mutant.body)
            if answers is None:
                return
            self._judge(number, mutant, answers)

    def _choose(self, operation: str, chance: random.Random) -> Seed:
        seeds = self._corpus.seeds[operation]
        for _ in range(8):
            seed = chance.choice(seeds)
            if len(seed.body) < LARGE_BODY:
                return seed
        return seed

    def _judge(self, number: int, request: Seed, answers: Answers) -> None:
        operation = request.operation
        self.report.outcomes[operation][answers.outcome.code or "ok"] += 1
        if answers.seconds > self.report.slowest[operation]:
            self.report.slowest[operation] = answers.seconds
        complaint = answers.complaint
        self._note(number, request, complaint and f"({answers.transports}) {complaint}")

    def _note(self, number: int, request: Seed, complaint: str) -> None:
        if complaint:
            body = json.dumps(request.body)
            shown = body if len(body) < 20_000 else f"{body[:10_000]} ... {body[-2000:]}"
            self.report.findings.append(f"round {number}: {complaint}\n{request.operation} {shown}")
