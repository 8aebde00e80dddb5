"""The memory of requests: who retries a write inside the cluster gets the first outcome.

Every replica builds it from the log entries that it applies, so a new leader has it. For how long something is
remembered is a matter of each replica's own monotonic clock, from the moment that it applied the entry: no wall
clock can be trusted with it. (One that is set forward, or that of a new leader which is ahead of the old one's,
would make everything look old at once, and a retry that is under way would be done twice.)

A request is remembered for `MEMORY_US` at least; routers must not retry a write for longer. The leader takes no
new writes while `REQUESTS_MAX` younger ones are remembered (`is_full`): forgetting one early could let it happen
twice. Only returned attributes may go earlier, past `RESULT_BYTES_MAX`: then a retry learns that the write was
done, not what it returned.

Everything is kept as bytes: there can be many, and the garbage collector should not have to look at them.
"""

from collections import deque

import msgspec

from proto.messages import ActionResult

MEMORY_US = 10_000_000
REQUESTS_MAX = 200_000
REQUESTS_HARD_MAX = 2 * REQUESTS_MAX
"""Past this the oldest go whatever their age; a leader that refuses at `REQUESTS_MAX` never comes here."""
RESULT_BYTES_MAX = 4 << 20
LARGE_RESULT_BYTES = 64

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[ActionResult]).decode
_FORGOTTEN = _encode([])


class RememberedRequests(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A memory's content, oldest first, for checkpoints and snapshots.

    Attributes:
        runs: Timestamp and number of requests that share it.
        ids: Request ids.
        results: Encoded results, one for each id.
    """

    runs: list[tuple[int, int]] = []
    ids: list[bytes] = []
    results: list[bytes] = []


class RequestMemory:
    """Outcomes of the newest requests by their id. `now` is the replica's monotonic clock, in microseconds."""

    __slots__ = ("_ids", "_large", "_large_bytes", "_results", "_runs")

    def __init__(self, content: RememberedRequests | None = None, now: int = 0) -> None:
        """Empty, or with what a checkpoint or snapshot says, as young as if it had just happened."""
        self._results: dict[bytes, bytes] = {}
        self._ids: deque[bytes] = deque()  # oldest first
        # [timestamp, how many of `_ids` have it, since when they are remembered]
        self._runs: deque[list[int]] = deque()
        self._large: deque[bytes] = deque()  # those of `_ids` whose results are large
        self._large_bytes = 0
        if content is not None:
            assert len(content.ids) == len(content.results) == sum(n for _, n in content.runs)
            self._ids.extend(content.ids)
            self._runs.extend([timestamp, count, now] for timestamp, count in content.runs)
            self._results.update(zip(content.ids, content.results, strict=True))
            for request_id, result in zip(content.ids, content.results, strict=True):
                if len(result) > LARGE_RESULT_BYTES:
                    self._large.append(request_id)
                    self._large_bytes += len(result)

    def __len__(self) -> int:
        return len(self._ids)

    def is_full(self, timestamp: int, now: int) -> bool:
        """Whether nothing more should be written, because all that is remembered must stay so.

        What a replica applied in haste after its start is young only by its own clock: it may go, once entries
        of `timestamp` are late enough behind it.
        """
        if len(self._ids) < REQUESTS_MAX:
            return False
        oldest, _, since = self._runs[0]
        return since >= now - MEMORY_US and oldest >= timestamp - MEMORY_US

    def get(self, request_id: bytes) -> list[ActionResult] | None:
        """The results of a remembered request, empty if they are forgotten; None for an unknown request."""
        data = self._results.get(request_id)
        return None if data is None else _decode(data)

    def remember(
        self, request_id: bytes, timestamp: int, results: list[ActionResult], now: int
    ) -> None:
        """Take a request's results; remembering one again (a replayed entry) changes nothing."""
        if request_id in self._results:
            return
        data = _encode(results)
        self._results[request_id] = data
        self._ids.append(request_id)
        runs = self._runs
        if runs and runs[-1][0] == timestamp:
            runs[-1][1] += 1
        else:
            runs.append([timestamp, 1, now])
        if len(data) > LARGE_RESULT_BYTES:
            self._large.append(request_id)
            self._large_bytes += len(data)
            while self._large_bytes > RESULT_BYTES_MAX and len(self._large) > 1:
                oldest = self._large.popleft()
                self._large_bytes -= len(self._results[oldest])
                self._results[oldest] = _FORGOTTEN

    def expire(self, now: int) -> None:
        """Let go of what is too old."""
        runs = self._runs
        oldest = now - MEMORY_US
        while runs and (runs[0][2] < oldest or len(self._ids) > REQUESTS_HARD_MAX):
            for _ in range(runs.popleft()[1]):
                request_id = self._ids.popleft()
                data = self._results.pop(request_id)
                if self._large and self._large[0] == request_id:
                    self._large.popleft()
                    self._large_bytes -= len(data)

    def content(self) -> RememberedRequests:
        """Everything remembered."""
        return RememberedRequests(
            [(timestamp, count) for timestamp, count, _ in self._runs],
            list(self._ids),
            [self._results[request_id] for request_id in self._ids],
        )
