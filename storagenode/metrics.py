"""What a storage node shows at `/metrics`: read at scrape time from what the node keeps anyway.

Nothing here is called per request. Names begin with `quorate_storagenode_`.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from raft.group import LogStorage, Role
from storagenode.engines.engine import DATA, FEED, Engine
from storagenode.healing import Healer
from storagenode.node import Node
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.checkpoints import Checkpoints
from storagenode.scrubbing import Scrubber
from storagenode.snapshots.snapshot_receiving import SnapshotReceiver
from storagenode.snapshots.snapshot_sending import SnapshotSender

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 1.0)
_PREFIX = "quorate_storagenode_"


class MeasuredLog:
    """A `LogStorage` that notes how long batches take to become durable, hand-over to the thread included.

    Attributes:
        batches: Durable ones, by bucket of `LATENCY_BUCKETS_S`; the last are longer than all.
        duration_s: Sum over all.
        appended_bytes: Handed over so far.
    """

    def __init__(self, storage: LogStorage, now: Callable[[], float]) -> None:
        self.batches = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.duration_s = 0.0
        self.appended_bytes = 0
        self._now = now
        self._append = storage.append
        self.roll = storage.roll
        self.segments = storage.segments
        self.read = storage.read
        self.truncate = storage.truncate
        self.remove = storage.remove

    def append(self, data: bytes, on_durable: Callable[[], None], receipt: bytes) -> None:
        """As the storage's."""
        began = self._now()
        self.appended_bytes += len(data) + len(receipt)

        def measured() -> None:
            duration_s = self._now() - began
            self.duration_s += duration_s
            bucket = 0
            for bound in LATENCY_BUCKETS_S:
                if duration_s <= bound:
                    break
                bucket += 1
            self.batches[bucket] += 1
            on_durable()

        self._append(data, measured, receipt)


class NodeCollector(Collector):
    """Metrics of one node."""

    def __init__(
        self,
        node: Node,
        engine: Engine,
        apply_round: ApplyRound,
        checkpoints: Checkpoints,
        measured_log: MeasuredLog,
        healer: Healer | None = None,
        scrubber: Scrubber | None = None,
        sender: SnapshotSender | None = None,
        receiver: SnapshotReceiver | None = None,
    ) -> None:
        self._node = node
        self._engine = engine
        self._round = apply_round
        self._checkpoints = checkpoints
        self._log = measured_log
        self._healer = healer
        self._scrubber = scrubber
        self._sender = sender
        self._receiver = receiver

    def describe(self) -> list[Metric]:
        """Nothing to check for duplicates: that would collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything, as of now."""
        yield from self._groups()
        yield from self._whole_node()

    def _groups(self) -> Iterator[Metric]:
        labels = ["group"]

        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(_PREFIX + name, text, labels=labels)

        role = GaugeMetricFamily(
            f"{_PREFIX}raft_role", "1 for the role that the replica has.", labels=["group", "role"]
        )
        term = gauge("raft_term", "Current term.")
        commit = gauge("raft_commit_index", "Last log index known to be committed.")
        applied = gauge("raft_applied_index", "Last log index applied.")
        last = gauge("raft_last_index", "Last log index held.")
        log_bytes = gauge("raft_log_bytes", "Bytes of log entries held in memory and on disk.")
        queued = gauge("queued_writes", "Writes waiting to be proposed.")
        proposed = gauge("proposed_entries", "Log entries proposed and not yet decided.")
        remembered = gauge("remembered_requests", "Write requests whose outcome is remembered.")
        items = gauge("partition_items", "Items in the partition.")
        size = gauge("partition_size_bytes", "Size of the partition's items.")
        for group, replica in self._node.replicas.items():
            name = [str(group)]
            status = replica.standing.group.status()
            for each in Role:
                role.add_metric([name[0], each.value], float(each is replica.role))
            term.add_metric(name, status.term)
            commit.add_metric(name, status.commit_index)
            applied.add_metric(name, replica.applied_index)
            last.add_metric(name, status.last_index)
            log_bytes.add_metric(name, status.log_bytes)
            queued.add_metric(name, replica.queued_writes)
            proposed.add_metric(name, replica.proposed_entries)
            remembered.add_metric(name, replica.remembered_requests)
            items.add_metric(name, replica.item_count)
            size.add_metric(name, replica.size_bytes)
        yield from (role, term, commit, applied, last, log_bytes)
        yield from (queued, proposed, remembered, items, size)

    def _whole_node(self) -> Iterator[Metric]:
        def counter(name: str, text: str, value: float) -> CounterMetricFamily:
            return CounterMetricFamily(_PREFIX + name, text, value=value)

        def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
            return GaugeMetricFamily(_PREFIX + name, text, value=value)

        fsync = HistogramMetricFamily(
            f"{_PREFIX}log_sync_seconds", "Time until a batch of the raft log was durable."
        )
        total = 0
        buckets = []
        bounds = [*map(str, LATENCY_BUCKETS_S), "+Inf"]
        for bound, count in zip(bounds, self._log.batches, strict=True):
            total += count
            buckets.append((bound, float(total)))
        fsync.add_metric([], buckets, self._log.duration_s)
        yield fsync
        yield counter("log_bytes", "Bytes written to the raft log.", self._log.appended_bytes)
        yield counter(
            "applied_entries", "Log entries applied, all groups.", self._round.applied_entries
        )
        yield counter("checkpoints", "Checkpoints taken.", self._checkpoints.taken)
        yield gauge(
            "checkpoint_seconds",
            "Duration of the newest checkpoint.",
            self._checkpoints.last_duration_s,
        )
        yield counter(
            "request_handler_failures",
            "Requests that failed by an exception of our own.",
            self._node.handler_failures,
        )
        yield gauge("pages_waiting", "Query pages waiting for a turn.", self._node.scans.pages)
        yield gauge(
            "replicas_out_of_service",
            "Replicas that found their data damaged.",
            sum(r.standing.fault is not None for r in self._node.replicas.values()),
        )
        if self._healer is not None:
            yield counter(
                "replicas_repaired",
                "Damaged replicas repaired from their leaders.",
                self._healer.healed,
            )
        if self._scrubber is not None:
            yield counter("scrubs", "Comparisons of replicas.", self._scrubber.scrubs)
            yield counter(
                "scrub_mismatches",
                "Replicas that scrubbing found damaged or different.",
                self._scrubber.mismatches,
            )
        if self._sender is not None:
            sender = self._sender
            yield counter("snapshots_sent", "Snapshots sent to their end.", sender.sent)
            yield counter("snapshot_sent_bytes", "Bytes of snapshots sent.", sender.bytes_sent)
            yield counter(
                "snapshots_sent_on",
                "Snapshots of which the rest was sent after a cut.",
                sender.continued,
            )
            yield gauge("snapshots_held", "Snapshots held for receivers.", sender.held)
        if self._receiver is not None:
            receiver = self._receiver
            yield counter("snapshots_received", "Snapshots received whole.", receiver.received)
            yield counter(
                "snapshot_received_bytes", "Bytes of snapshots received.", receiver.bytes_received
            )
            yield counter(
                "snapshots_resumed",
                "Transfers that went on where an earlier one had stopped.",
                receiver.continued,
            )
        size = GaugeMetricFamily(
            f"{_PREFIX}engine_size_bytes", "About what the engine has on disk.", labels=["content"]
        )
        for name, prefix in (("items", DATA), ("feed", FEED)):
            end = bytes([prefix[0] + 1])
            size.add_metric([name], self._engine.approximate_size_bytes(prefix, end))
        yield size
