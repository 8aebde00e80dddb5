"""How long writes stand still: clients that write to one partition without pause, and what they saw of a fault."""

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from tests.cluster.workload import Answer, Clients, WireClient

PAUSE_S = 0.002
RECONNECT_S = 0.01


@dataclass(frozen=True, slots=True)
class Gap:
    """What one fault did.

    Attributes:
        gap_s: Longest time between two acknowledged writes from just before the fault on.
        first_write_s: From the fault to the first write acknowledged after that gap.
        failed: Requests that clients, who do not retry, saw fail.
    """

    gap_s: float
    first_write_s: float
    failed: int


class Probe(Clients):
    """A few clients that write to one key each, one request after the other, without any retry."""

    def __init__(self, endpoint: Callable[[], str], table: str, key: str, clients: int = 4) -> None:
        super().__init__(clients)
        self.acknowledged_at: list[float] = []
        self.failures: list[tuple[float, str]] = []
        self._endpoint = endpoint
        self._table = table
        self._key = key

    def run(self, number: int) -> None:
        """Write, and note when."""
        client = WireClient(self._endpoint())
        value = 0
        while not self.is_over.is_set():
            value += 1
            item = {"pk": {"S": self._key}, "n": {"N": str(number)}, "v": {"N": str(value)}}
            try:
                client.call("PutItem", TableName=self._table, Item=item)
            except Answer as error:
                self.failures.append((time.monotonic(), f"{error.status} {error.code}"))
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((time.monotonic(), type(error).__name__))
                time.sleep(RECONNECT_S)
            else:
                self.acknowledged_at.append(time.monotonic())
            time.sleep(PAUSE_S)
        client.close()

    def wait_for_writes(self, since: float, count: int, timeout_s: float) -> bool:
        """Whether so many writes were acknowledged after that moment, waiting for them at most so long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if sum(moment > since for moment in self.acknowledged_at[-10 * count :]) >= count:
                return True
            time.sleep(0.01)
        return False

    def gap_since(self, began: float) -> Gap:
        """What happened from `began` (a moment of `time.monotonic`) until now."""
        moments = sorted(moment for moment in list(self.acknowledged_at) if moment > began - 0.2)
        widest = max(pairwise(moments), key=lambda pair: pair[1] - pair[0], default=(began, began))
        failed = sum(moment > began for moment, _ in list(self.failures))
        return Gap(widest[1] - widest[0], max(widest[1] - began, 0.0), failed)

    def failure_counts(self) -> dict[str, int]:
        """Failures by kind."""
        counts: dict[str, int] = {}
        for _, kind in self.failures:
            counts[kind] = counts.get(kind, 0) + 1
        return counts


def summary(what: str, gaps: list[Gap]) -> str:
    """One line about several faults of a kind."""
    if not gaps:
        return f"{what}: none"
    widths = [gap.gap_s for gap in gaps]
    firsts = [gap.first_write_s for gap in gaps]
    return (
        f"{what}: {len(gaps)} times, write gap median {median(widths) * 1000:.0f} ms, longest"
        f" {max(widths) * 1000:.0f} ms; fault to first write median {median(firsts) * 1000:.0f} ms,"
        f" longest {max(firsts) * 1000:.0f} ms; {sum(gap.failed for gap in gaps)} requests failed without retries"
    )
