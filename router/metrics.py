"""What a router counts: requests and their latency per operation and status, consumed capacity per table.

Requests count into plain integers; a collector turns them into Prometheus series when somebody looks. That
costs a fraction of a microsecond per request, where the client library's histogram costs several.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)
# Tables beyond this many share one label: a cluster of many short-lived tables must not grow our memory.
TABLE_LABELS_MAX = 2_500
OTHER_TABLES = "(other)"


class _Series:
    """Count and latency of one operation's answers with one status and error code."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.sum_s = 0.0


class OperationMetrics:
    """Counts of one operation."""

    __slots__ = ("_series", "_success", "operation")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self._success = _Series()
        self._series: dict[tuple[int, str], _Series] = {(200, ""): self._success}

    def observe(self, status: int, seconds: float, code: str = "") -> None:
        """Count one answer; `code` is the exception's name and must come from our own closed list."""
        series = self._success
        if status != 200:
            series = self._series.get((status, code)) or self._add((status, code))
        series.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        series.sum_s += seconds

    def _add(self, key: tuple[int, str]) -> _Series:
        series = self._series[key] = _Series()
        return series

    def collect(self) -> Iterator[tuple[int, str, list[tuple[str, float]], float]]:
        """Status, code, cumulative buckets as Prometheus wants them, and the sum, of each series in use."""
        for (status, code), series in self._series.items():
            total = 0
            buckets: list[tuple[str, float]] = []
            for bound, count in zip((*LATENCY_BUCKETS_S, "+Inf"), series.buckets, strict=True):
                total += count
                buckets.append((str(bound), float(total)))
            if total:
                yield status, code, buckets, series.sum_s


class TableUsage:
    """Capacity units that requests of one table consumed through this router."""

    __slots__ = ("read_units", "write_units")

    def __init__(self) -> None:
        self.read_units = 0.0
        self.write_units = 0.0


class RouterMetrics(Collector):
    """All counts of one router; register it with a Prometheus registry."""

    def __init__(self) -> None:
        self._operations: dict[str, OperationMetrics] = {}
        self._tables: dict[str, TableUsage] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []

    def operation(self, name: str) -> OperationMetrics:
        """The counts of an operation; keep it, the name must come from a closed list."""
        metrics = self._operations.get(name)
        if metrics is None:
            metrics = self._operations[name] = OperationMetrics(name)
        return metrics

    def table(self, name: str) -> TableUsage:
        """The usage of a table; keep it. Past `TABLE_LABELS_MAX` tables the rest share one."""
        usage = self._tables.get(name)
        if usage is None:
            if len(self._tables) >= TABLE_LABELS_MAX:
                name = OTHER_TABLES
            usage = self._tables.setdefault(name, TableUsage())
        return usage

    def gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show a value that is read when somebody looks."""
        self._gauges.append((name, documentation, read))

    def collect(self) -> Iterator[Metric]:
        """Everything as Prometheus metrics."""
        latency = HistogramMetricFamily(
            "quorate_router_request_duration_seconds",
            "Time from a request's arrival to its answer; its count is the request count.",
            labels=("operation", "status", "code"),
        )
        requests = CounterMetricFamily(
            "quorate_router_requests",
            "Answered requests.",
            labels=("operation", "status", "code"),
        )
        for operation in list(self._operations.values()):
            for status, code, buckets, sum_s in operation.collect():
                labels = (operation.operation, str(status), code)
                latency.add_metric(labels, buckets, sum_s)
                requests.add_metric(labels, buckets[-1][1])
        yield latency
        yield requests
        read = CounterMetricFamily(
            "quorate_router_consumed_read_capacity_units",
            "Read capacity units consumed by requests through this router.",
            labels=("table",),
        )
        write = CounterMetricFamily(
            "quorate_router_consumed_write_capacity_units",
            "Write capacity units consumed by requests through this router.",
            labels=("table",),
        )
        for table, usage in list(self._tables.items()):
            read.add_metric((table,), usage.read_units)
            write.add_metric((table,), usage.write_units)
        yield read
        yield write
        for name, documentation, value in self._gauges:
            yield GaugeMetricFamily(name, documentation, value=value())
