"""The memory of requests: who retries a write inside the cluster gets the first outcome.

Every replica builds it from the log entries that it applies, so a new leader has it. Time is that of the
entries (hybrid logical timestamps): what is remembered does not depend on when a replica applies.

Bounds: `MEMORY_US` of time, `REQUESTS_MAX` requests, `RESULT_BYTES_MAX` of returned attributes; the oldest go
first. Routers must not retry a write for longer than `MEMORY_US`.
"""

from collections import deque
from collections.abc import Iterable

from proto.messages import ActionResult
from storagenode.log_entries import RememberedRequest

MEMORY_US = 10_000_000
REQUESTS_MAX = 20_000
RESULT_BYTES_MAX = 4 << 20


class RequestMemory:
    """Outcomes of the newest requests by their id."""

    __slots__ = ("_order", "_result_bytes", "_results")

    def __init__(self, requests: Iterable[RememberedRequest] = ()) -> None:
        self._results: dict[bytes, list[ActionResult]] = {}
        self._order: deque[tuple[int, bytes]] = deque()  # (timestamp, request id), oldest first
        self._result_bytes = 0
        for request in requests:
            self.remember(request.request_id, request.timestamp, request.results)

    def __len__(self) -> int:
        return len(self._results)

    def get(self, request_id: bytes) -> list[ActionResult] | None:
        """The results of a remembered request, else None."""
        return self._results.get(request_id)

    def remember(self, request_id: bytes, timestamp: int, results: list[ActionResult]) -> None:
        """Take a request's results; remembering one again (a replayed entry) changes nothing."""
        if request_id in self._results:
            return
        self._results[request_id] = results
        order = self._order
        order.append((timestamp, request_id))
        for result in results:
            if result.attributes is not None:
                self._result_bytes += len(result.attributes)
        oldest = timestamp - MEMORY_US
        # Few at a time go in and few at a time go out, so this is constant work per request.
        while (
            order[0][0] < oldest
            or len(order) > REQUESTS_MAX
            or (self._result_bytes > RESULT_BYTES_MAX and len(order) > 1)
        ):
            for result in self._results.pop(order.popleft()[1]):
                if result.attributes is not None:
                    self._result_bytes -= len(result.attributes)

    def requests(self) -> list[RememberedRequest]:
        """Everything remembered, oldest first."""
        return [
            RememberedRequest(request_id, timestamp, self._results[request_id])
            for timestamp, request_id in self._order
        ]
