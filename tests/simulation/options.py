"""One column of the matrix, and how a run ends that breaks an invariant."""

from dataclasses import dataclass, replace

from raft.group import Settings

SETTINGS = Settings(
    heartbeat_s=0.1,
    election_min_s=0.4,
    election_max_s=0.8,
    append_bytes_max=100,
    commit_notice_s=0.005,
    log_segment_bytes=6000,
    log_slack_entries=6,
    log_slack_bytes=2000,
)


@dataclass(frozen=True)
class Options:
    """One column of the matrix. Rates are events per simulated second."""

    network: str = "fifo"  # fifo | stale (messages survive a reconnect) | unordered | manual
    replicas: int = 3
    pool: int = 0  # nodes, when more than replicas
    groups: int = 1
    settings: Settings = SETTINGS
    drift: float = 0.05
    has_extreme_clocks: bool = False  # each fully slow or fully fast
    duplicate: float = 0.0
    slow: float = 0.01
    checkpoints: float = 0.0
    changes: float = 0.0
    proposals: float = 15.0
    reads: float = 10.0
    blocks: float = 0.6
    isolations: float = 0.25
    resets: float = 0.4
    partitions: float = 0.0
    crashes: float = 0.2
    transfers: float = 0.15
    suspensions: float = 0.0
    hostility: float = 0.0  # extra damaged batches per batch sent
    hostile_group: int = 0  # what they speak of; nothing is promised for it but that it fails alone
    duration_s: float = 12.0
    settle_s: float = 5.0
    slow_disk: float = 0.05  # share of fsyncs that take up to slow_disk_s
    slow_disk_s: float = 0.3
    disk_faults: float = 0.0  # a disk is full or fails for a while: whoever writes or reads it ends
    losses: float = 0.0  # a disk is lost, or its log rots: the node comes back without a memory
    has_pre_votes: bool = (
        True  # False: candidates do not ask first (only availability may rest on that)
    )
    instant: bool = False  # no delays of disk and loop (directed scenarios)
    has_boot_clock: bool = (
        True  # False: a node's clock stands still while the node is suspended (a mutation)
    )

    def with_settings(self, **changes: object) -> "Options":
        return replace(self, settings=replace(self.settings, **changes))


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, kind: str, detail: object) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
