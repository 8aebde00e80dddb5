"""Votes and candidacies: rules 3, 9, 10 and 11 of `guard.py`, and the gate to an election.

A promise keeps leader leases honest, see `elections.py`, which holds the memory; here are the messages.
"""

from raft.consensus import ConsensusCore, Moment
from raft.elections import NEVER, Elections
from raft.group import Configuration, Settings
from raft.journal import GroupJournal
from raft.leases import Leadership
from raft.membership import voters_of
from raft.wire import (
    Message,
    PreVoteAnswer,
    PreVoteRequest,
    StaleTerm,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
)

# While a new group's founder campaigns it asks again this soon: the other replicas are being created just now.
EAGER_PAUSE_S = 0.05
EAGER_FOR_S = 2.0


class Voting:
    """The part of a guard that deals with elections, and the state that both parts share."""

    __slots__ = (
        "configuration",
        "core",
        "elections",
        "group",
        "journal",
        "leadership",
        "moment",
        "needs_tick",
        "other_voters",
        "others",
        "replica_id",
        "settings",
        "voter_count",
    )

    core: ConsensusCore

    def __init__(
        self,
        group: int,
        replica_id: int,
        journal: GroupJournal,
        moment: Moment,
        settings: Settings,
        quiet_until: float,
    ) -> None:
        self.group = group
        self.replica_id = replica_id
        self.journal = journal
        self.moment = moment
        self.settings = settings
        self.elections = Elections(quiet_until)
        self.leadership = Leadership(-1)
        self.others: list[Message] = []  # what may leave only when everything is durable
        self.needs_tick = False
        self.set_configuration(journal.checkpoint.configuration)

    def set_configuration(self, configuration: Configuration) -> None:
        """The configuration that is applied here."""
        self.configuration = configuration
        voters = voters_of(configuration)
        self.voter_count = len(voters)
        self.other_voters = frozenset(int(v) for v in voters if v != self.replica_id)
        self.leadership.lease_until = NEVER

    @property
    def is_voter(self) -> bool:
        """Whether this replica counts in its own configuration."""
        return len(self.other_voters) < self.voter_count

    def _tell_term(self, target: int) -> None:
        self.others.append(StaleTerm(self.group, self.replica_id, target, self.core.term))

    def _adopt_term(self, source: int, term: int) -> None:
        """Take a higher term without voting: the core steps down on a vote request it can never grant."""
        if term > self.core.term:
            self.core.deliver(
                source,
                {"type": "request_vote", "term": term, "last_log_index": -1, "last_log_term": -1},
            )

    def reach_term(self, term: int) -> None:
        """An entry of `term` is committed: to a leader of an earlier one, who may contradict it, we listen no more.

        (A snapshot may come from a term that no message has told us of.)
        """
        self._adopt_term(self.replica_id, term)

    def leader_is_alive(self) -> bool:
        """Whether rule 10 forbids helping a candidate right now."""
        now = self.moment.now
        if self.is_quiet(now):
            return True
        election_min_s = self.settings.election_min_s
        if self.core.is_leader:
            return now < self.leadership.quorum_time(self.other_voters, now) + election_min_s
        return now - self.elections.heard_leader_at < election_min_s

    def is_quiet(self, now: float) -> bool:
        """Whether we started so recently that a promise made before may still bind us.

        It binds learners too, and whoever knows of no other voter: a change that is not known here may have
        made the promise count.
        """
        return now < self.elections.quiet_until

    def _on_vote_request(self, m: VoteRequest) -> None:
        if m.term < self.core.term:
            self._tell_term(m.source)
            return
        if not m.is_transfer and self.leader_is_alive():
            return
        self.core.deliver(
            m.source,
            {
                "type": "request_vote",
                "term": m.term,
                "last_log_index": m.last_index,
                "last_log_term": m.last_term,
            },
        )

    def _on_vote_grant(self, m: VoteGrant) -> None:
        if m.term == self.core.term and self.counts_vote(m):
            self.core.deliver(m.source, {"type": "response_vote", "term": m.term})

    def counts_vote(self, m: VoteGrant) -> bool:
        """Whether this is the first grant of a member in this term (rule 9)."""
        return m.source in self.other_voters and self.elections.count_vote(m.term, m.source)

    def _on_pre_vote_request(self, m: PreVoteRequest) -> None:
        last = self.journal[-1]
        granted = (
            m.term > self.core.term
            and (m.last_term, m.last_index) >= (last[2], last[1])
            and not self.leader_is_alive()
        )
        self.others.append(
            PreVoteAnswer(self.group, self.replica_id, m.source, self.core.term, m.round, granted)
        )

    def _on_pre_vote_answer(self, m: PreVoteAnswer) -> None:
        term = self.core.term
        if m.term > term:
            if not self.leader_is_alive():
                self._adopt_term(m.source, m.term)
        elif m.is_granted and m.source in self.other_voters:
            self.elections.count_pre_vote(term, m.round, m.source)
            self.needs_tick = True

    def _on_timeout_now(self, m: TimeoutNow) -> None:
        if self.is_from_leader(m) and self.is_voter:
            self.elections.transfer_term = m.term
            self.core.deliver(m.source, {"type": "timeout_now", "term": m.term})
            self.needs_tick = True

    def is_from_leader(self, m: TimeoutNow) -> bool:
        """Whether the leader of exactly this term says so (rule 11)."""
        return m.term == self.core.term and self.core.leader == m.source

    def _on_stale_term(self, m: StaleTerm) -> None:
        if self.core.is_leader or not self.leader_is_alive():
            self._adopt_term(m.source, m.term)

    def may_campaign(self) -> bool:
        """The gate that the core passes when its election deadline is over: a transfer, or a pre-vote majority.

        Never for learners and strangers, nor while something committed (a membership change, perhaps) is not
        yet applied.
        """
        core, elections = self.core, self.elections
        if not self.is_voter or not self.has_applied_all():
            return False
        term = core.term
        if elections.transfer_term == term:
            elections.transfer_term = -1
            elections.flagged_term = term + 1
            return True
        if not self.other_voters:
            return True
        if self.keeps_own_promise():
            return False
        now = self.moment.now
        if elections.has_pre_votes(term, now, self.settings.election_min_s, self.voter_count):
            elections.end_round()
            return True
        if now >= elections.next_round_at:
            if now < elections.eager_until:
                pause = EAGER_PAUSE_S
            else:
                pause = self.settings.election_min_s * (0.5 + self.moment.random.random())
            number = elections.begin_round(term, now, pause)
            last = self.journal[-1]
            for voter in sorted(self.other_voters):
                self.others.append(
                    PreVoteRequest(
                        self.group, self.replica_id, voter, term + 1, number, last[1], last[2]
                    )
                )
        return False

    def keeps_own_promise(self) -> bool:
        """Whether rule 10 forbids our own candidacy: a candidate's vote for itself is help as well.

        The core's deadline alone does not say so: it is not put off by a leader that follows one who asked us
        to take over in vain.
        """
        return self.leader_is_alive()

    def has_applied_all(self) -> bool:
        """Whether nothing committed waits to be applied."""
        return self.core.commit_index <= self.core.applied_index
