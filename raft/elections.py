"""Who may stand, who may be voted for: pre-vote rounds, stickiness, voters counted once (pure).

A promise keeps leader leases honest: whoever heard a leader less than `election_min_s` ago helps nobody else to
power, not even after a restart (it has forgotten when it heard). Only an election that the leader itself asked
for is exempt, and a leader that asks gives up its lease first.
"""

NEVER = float("-inf")


class Elections:
    """One replica's memory of leaders heard and votes gathered. Times are the replica's own clock."""

    __slots__ = (
        "_grants",
        "_round_started",
        "_round_term",
        "_vote_term",
        "_voters",
        "eager_until",
        "flagged_term",
        "heard_leader_at",
        "next_round_at",
        "quiet_until",
        "round",
        "transfer_term",
    )

    def __init__(self, quiet_until: float) -> None:
        self.heard_leader_at = NEVER
        self.quiet_until = quiet_until  # a restarted voter has forgotten its promise until then
        self.transfer_term = -1  # the leader of this term asked us to take over
        self.flagged_term = -1  # our candidacy in this term is such a transfer
        self.round = 0
        self.next_round_at = NEVER
        self.eager_until = NEVER
        self._round_term = -1
        self._round_started = NEVER
        self._grants: set[int] = set()
        self._vote_term = -1
        self._voters: set[int] = set()

    def count_vote(self, term: int, voter: int) -> bool:
        """Whether this grant counts: the first of that voter in that term."""
        if term != self._vote_term:
            self._vote_term = term
            self._voters.clear()
        if voter in self._voters:
            return False
        self._voters.add(voter)
        return True

    def begin_round(self, term: int, now: float, pause: float) -> int:
        """Start asking for pre-votes in `term` (the current one); not again before `pause` is over."""
        self.round += 1
        self._round_term = term
        self._round_started = now
        self._grants.clear()
        self.next_round_at = now + pause
        return self.round

    def count_pre_vote(self, term: int, round_number: int, voter: int) -> None:
        """A voter would vote for us."""
        if round_number == self.round and term == self._round_term:
            self._grants.add(voter)

    def has_pre_votes(self, term: int, now: float, election_min_s: float, voters: int) -> bool:
        """Whether a majority of `voters` (we are one) granted this round, in this term, a short while ago."""
        return (
            self._round_term == term
            and now - self._round_started < election_min_s
            and 2 * (1 + len(self._grants)) > voters
        )

    def end_round(self) -> None:
        """The round's grants are used up."""
        self._round_term = -1
