"""What a leader knows of its own leadership: acks by time and by sequence, the lease, ReadIndex (pure).

Followers echo the leader's own send time, so no two clocks are ever compared; only their *rates* must agree
within the margin. The majority-th latest echoed send time (our own counts as now) is the moment at which a
majority last promised to elect nobody else for `election_min_s`.
"""

from collections.abc import Callable, Iterable

from raft.elections import NEVER

_INFINITE = 1 << 62


class Leadership:
    """Evidence gathered in one term of leading. A new object for each term."""

    __slots__ = (
        "ack_sent_at",
        "ack_sequence",
        "asked_commit",
        "lease_until",
        "reads",
        "reset_sequence",
        "snapshot_notice_at",
        "success_sequence",
        "term",
        "told_commit",
    )

    def __init__(self, term: int) -> None:
        self.term = term
        self.ack_sent_at: dict[int, float] = {}
        self.ack_sequence: dict[int, int] = {}
        self.reset_sequence: dict[int, int] = {}
        self.success_sequence: dict[int, int] = {}
        # Highest commit index that an append told each follower in a form it may act on.
        self.told_commit: dict[int, int] = {}
        # Index that a follower asked to hear of as soon as it is committed.
        self.asked_commit: dict[int, int] = {}
        self.snapshot_notice_at: dict[int, float] = {}
        self.lease_until = NEVER
        self.reads: list[tuple[int, int, Callable[[bool], None]]] = []

    def heard(self, follower: int, sequence: int, sent_at: float, now: float) -> None:
        """An ack of this term arrived."""
        if sequence > self.ack_sequence.get(follower, 0):
            self.ack_sequence[follower] = sequence
        # A send time that we cannot have stamped yet proves nothing.
        if self.ack_sent_at.get(follower, NEVER) < sent_at <= now:
            self.ack_sent_at[follower] = sent_at

    def acknowledged(self, follower: int, sequence: int) -> None:
        """It says that it has what a message had, or followed."""
        if sequence > self.success_sequence.get(follower, 0):
            self.success_sequence[follower] = sequence

    def quorum_time(self, other_voters: Iterable[int], now: float) -> float:
        """The latest moment at which a majority of voters is known to have followed us."""
        get = self.ack_sent_at.get
        times = [get(voter, NEVER) for voter in other_voters]
        times.append(now)
        times.sort(reverse=True)
        return times[len(times) // 2]

    def quorum_sequence(self, other_voters: Iterable[int]) -> int:
        """The highest sequence that a majority of voters has answered."""
        get = self.ack_sequence.get
        sequences = [get(voter, 0) for voter in other_voters]
        sequences.append(_INFINITE)
        sequences.sort(reverse=True)
        return sequences[len(sequences) // 2]

    def take_ready_reads(self, quorum_sequence: int, applied: int) -> list[Callable[[bool], None]]:
        """Reads whose round a majority answered and whose index is applied, removed from the queue."""
        ready = [r[2] for r in self.reads if r[0] <= quorum_sequence and r[1] <= applied]
        if ready:
            self.reads = [r for r in self.reads if r[0] > quorum_sequence or r[1] > applied]
        return ready
