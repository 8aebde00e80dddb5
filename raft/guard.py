"""What stands between the wire and the consensus core: each rule answers one way in which the core is unsafe.

The numbers up to 11 are those of the review of the pinned release:

 1. Only known message types reach the core, and only by being rebuilt here; nothing is forwarded or unpickled.
    What no replica of ours can have built (a term that elections cannot have reached, terms that fall along a
    log) is dropped.
 2. An ack names the term and the sequence it answers; acks of another term, from strangers, or for entries that
    we do not have are not counted. A higher term makes a leader step down.
 3. Whoever speaks in an older term is told ours, and may adopt it without a vote being cast.
 4. An append is trimmed to what is new before the core sees it, so that it truncates only at a true conflict.
 5. A commit index is clamped to what the same message verified, and moves nothing if it verified nothing.
 6. Gap and conflict are answered here: with our end, or with the end of what is committed.
 7. One reset per round trip, within (match, end + 1], followed by an immediate re-send.
 8. A success never moves the next index back.
 9. Voters are counted, not votes, and only members.
10. Whoever heard a leader lately, leads with a quorum that is fresh, or just started, helps no candidate,
    unless the leader itself asked for the election.
11. Only the leader of exactly this term may ask for one.
12. A follower that says less than it had acknowledged, later than that, has lost it: it is not counted with it any
    more, and is sent it again.

Pure in (state, message, time of the turn): no socket, no clock. Messages to send gather in `appends` and
`others`; the host decides when they may leave. Whatever raises ends the replica.
"""

from collections.abc import Callable
from typing import Any

from raft.consensus import Moment
from raft.elections import NEVER
from raft.group import LogIndex, Settings, Term
from raft.journal import GroupJournal, ReplicaFailure
from raft.leases import Leadership
from raft.snapshots import is_notice_due, is_useful
from raft.voting import Voting
from raft.wire import (
    ACK_HEARD,
    ACK_RESET,
    ACK_SUCCESS,
    Ack,
    Append,
    CommitRequest,
    Entry,
    Message,
    PreVoteAnswer,
    PreVoteRequest,
    SnapshotNotice,
    StaleTerm,
    TimeoutNow,
    VoteGrant,
    VoteRequest,
)

# A term this far ahead of ours is nonsense: elections at a rate of one per millisecond take longer than 30 years.
# (Adopting it could bring the group near the end of what the log's format can hold.)
TERM_STEP_MAX = 1 << 40


class Guard(Voting):
    """One replica's guard."""

    __slots__ = (
        "_answering",
        "_parked",
        "appends",
        "dropped",
        "is_bulk_blocked",
        "lease_off_term",
        "needs_push",
        "on_snapshot_notice",
        "sequence",
        "up",
        "wants_notice",
    )

    def __init__(
        self,
        group: int,
        replica_id: int,
        journal: GroupJournal,
        moment: Moment,
        settings: Settings,
        quiet_until: float,
    ) -> None:
        super().__init__(group, replica_id, journal, moment, settings, quiet_until)
        # A transfer was begun in this term: no lease reads for the rest of it.
        self.lease_off_term = -1
        self.sequence = 0
        self.up: set[int] = set()  # replicas whose node has a link to ours
        self.appends: list[Append] = []
        self.needs_push = False
        self.wants_notice = False
        self.dropped = 0
        self.on_snapshot_notice: Callable[[int, LogIndex, Term], None] = _ignore_notice
        self.is_bulk_blocked: Callable[[int, list[Entry]], bool] = _never_blocked
        self._parked: list[int] = []
        # The sequence and send time that the next ack echoes.
        self._answering: tuple[int, float] = (0, 0.0)

    # sending, for the core (it calls `send`) and for ourselves

    def send(self, node: int, message: dict[str, Any]) -> bool:
        """Turn the core's message into ours and queue it."""
        kind = message["type"]
        target = int(node)
        core = self.core
        if kind == "append_entries":
            self._send_append(target, message)
        elif kind == "next_node_idx":
            ack = ACK_SUCCESS if message["success"] else ACK_HEARD
            if message["reset"]:
                ack = ACK_RESET
            self.acknowledge(target, message["next_node_idx"], ack)
        elif kind == "request_vote":
            term = message["term"]
            self.others.append(
                VoteRequest(
                    self.group,
                    self.replica_id,
                    target,
                    term,
                    message["last_log_index"],
                    message["last_log_term"],
                    self.elections.flagged_term == term,
                )
            )
        elif kind == "response_vote":
            self.others.append(VoteGrant(self.group, self.replica_id, target, message["term"]))
        elif kind == "timeout_now":
            self.lease_off_term = core.term
            self.leadership.lease_until = NEVER
            self.others.append(TimeoutNow(self.group, self.replica_id, target, message["term"]))
        else:
            raise ReplicaFailure(f"the core sends {kind}")
        return True

    def _send_append(self, target: int, message: dict[str, Any]) -> None:
        if "transmission" in message:
            raise ReplicaFailure("a command is too large for one message")
        commit = message["commit_index"]
        if "prevLogIdx" not in message:
            # "serialized": the core would spin here for a whole period. Leave its loop till the turn's end.
            self._park(target)
            self.append_to(target, 0, 0, [], 0)
            return
        previous, entries = message["prevLogIdx"], message["entries"]
        if previous is None:
            raise ReplicaFailure("next index lies past the end of the log")
        if entries and self.is_bulk_blocked(target, entries):
            # Flow control: a sign of life instead, and the entries when the link has drained.
            self.core.next_index[target] = previous + 1
            self._park(target)
            self.append_to(target, 0, 0, [], 0)
            return
        self.append_to(target, previous, message["prevLogTerm"], entries, commit)

    def _park(self, target: int) -> None:
        self.core.disconnect(target)
        self._parked.append(target)

    def unpark(self) -> None:
        """The turn ends: peers that were left out of the send loop are back."""
        if self._parked:
            parked, self._parked = self._parked, []
            for peer in parked:
                if peer in self.up:
                    self.core.connect(peer)

    def append_to(
        self, target: int, previous: int, previous_term: int, entries: list[Entry], commit: int
    ) -> None:
        """Queue an append, stamped with a fresh sequence and the leader's time."""
        self.sequence += 1
        if previous:
            told = min(commit, previous + len(entries))
            if told > self.leadership.told_commit.get(target, 0):
                self.leadership.told_commit[target] = told
        self.appends.append(
            Append(
                self.group,
                self.replica_id,
                target,
                self.core.term,
                commit,
                self.sequence,
                self.moment.now,
                previous,
                previous_term,
                entries,
            )
        )

    def acknowledge(self, target: int, next_index: int, kind: int) -> None:
        """Queue an ack of the message being answered."""
        sequence, sent_at = self._answering
        if sequence:
            self.others.append(
                Ack(
                    self.group,
                    self.replica_id,
                    target,
                    self.core.term,
                    sequence,
                    sent_at,
                    next_index,
                    kind,
                )
            )

    def drop_outbox(self) -> None:
        """What is queued is never sent. (Messages may be lost; acks of entries that are gone must be.)"""
        self.appends.clear()
        self.others.clear()

    # receiving

    def receive(self, message: Message) -> None:
        """Act on a message addressed to this replica."""
        if message.term > self.core.term + TERM_STEP_MAX:
            self.dropped += 1
            return
        _HANDLERS[type(message)](self, message)

    def _deliver_bare(self, source: int, term: int, commit: int) -> None:
        self.core.deliver(source, {"type": "append_entries", "term": term, "commit_index": commit})

    def _hear_leader(self, source: int, term: int, sequence: int, sent_at: float) -> bool:
        """Note a sign of life of a leader of `term`; False if that term is over."""
        core = self.core
        current = core.term
        if term < current:
            self._tell_term(source)
            return False
        if term == current and core.is_leader:
            raise ReplicaFailure(f"two leaders in term {term}")
        self.elections.heard_leader_at = self.moment.now
        self._answering = (sequence, sent_at)
        return True

    def _on_append(self, m: Append) -> None:
        source = m.source
        if not self._hear_leader(source, m.term, m.sequence, m.sent_at):
            return
        previous, previous_term, entries = m.previous_index, m.previous_term, m.entries
        if not previous:
            self._deliver_bare(source, m.term, self.commit_unverified(m))
            self.acknowledge(source, 0, ACK_HEARD)
            return
        if not self.is_sound(m):
            self.dropped += 1
            return
        verified = previous + len(entries)
        journal = self.journal
        first, last = journal[0][1], journal[-1][1]
        if previous < first:
            # Below our base everything is committed, hence equal.
            entries = [entry for entry in entries if entry[1] > first]
            previous, previous_term = first, journal[0][2]
            verified = max(verified, first)
        if previous > last or journal[previous - first][2] != previous_term:
            self._refuse(m, previous, last)
            return
        fresh = self.without_known(entries, first, last)
        commit = self.clamped(m.commit, verified)
        if not fresh:
            self._deliver_bare(source, m.term, commit)
            self.acknowledge(source, verified + 1, ACK_SUCCESS)
        else:
            start = fresh[0][1]
            if start <= last:
                self.check_conflict(start)
            self.core.deliver(
                source,
                {
                    "type": "append_entries",
                    "term": m.term,
                    "commit_index": commit,
                    "entries": fresh,
                    "prevLogIdx": start - 1,
                    "prevLogTerm": journal[start - 1 - first][2],
                },
            )
        if self.core.commit_index > self.core.applied_index:
            self.needs_tick = True

    def is_sound(self, message: Append) -> bool:
        """Whether a leader of ours can have built this: no gap, no empty command, terms that do not fall."""
        expected, before = message.previous_index, message.previous_term
        for command, index, term in message.entries:
            expected += 1
            if index != expected or not before <= term <= message.term or not command:
                return False
            before = term
        return True

    def check_conflict(self, index: int) -> None:
        """The leader has something else at `index`: what is committed here cannot be wrong (rule 4)."""
        if index <= self.core.commit_index:
            raise ReplicaFailure(f"the leader conflicts at {index}, which is committed")

    def commit_unverified(self, message: Append) -> int:
        """The commit index that a message which verified nothing may set: none (rule 5)."""
        return 0

    def clamped(self, commit: int, verified: int) -> int:
        """The commit index that a message which verified the log up to `verified` may set (rule 5)."""
        return commit if commit < verified else verified

    def without_known(self, entries: list[Entry], first: int, last: int) -> list[Entry]:
        """The entries behind those that are already in the log with the same term (rule 4)."""
        journal = self.journal
        known = 0
        for entry in entries:
            if entry[1] > last or journal[entry[1] - first][2] != entry[2]:
                break
            known += 1
        return entries[known:] if known else entries

    def _refuse(self, m: Append, previous: int, last: int) -> None:
        if previous <= last:
            self.check_conflict(previous)
        self._deliver_bare(m.source, m.term, 0)
        self.acknowledge(m.source, self.resume_at(previous, last), ACK_RESET)

    def resume_at(self, previous: int, last: int) -> int:
        """Where a leader should resume: behind a gap, or (one round trip) behind what is committed (rule 6)."""
        return last + 1 if previous > last else self.core.commit_index + 1

    def _on_ack(self, m: Ack) -> None:
        core = self.core
        source = m.source
        if m.term > core.term:
            self._adopt_term(source, m.term)
            return
        match_index = core.match_index
        if not core.is_leader or not self.is_current(m) or source not in match_index:
            return
        if m.sequence > self.sequence:
            self.dropped += 1  # answers nothing that we ever sent
            return
        leadership = self.leadership
        leadership.heard(source, m.sequence, m.sent_at, self.moment.now)
        kind = m.kind
        next_index = m.next_index
        match, end = match_index[source], self.journal[-1][1]
        success = kind == ACK_SUCCESS
        if success:
            self.check_claim(next_index, end)
        reset = kind == ACK_RESET and self.accepts_reset(source, m.sequence)
        if reset:
            if next_index <= match and self.takes_back(source, m.sequence):
                match = match_index[source] = max(0, next_index - 1)
            next_index = self.reset_within(match, next_index, end)
            self.needs_push = True
        before = core.next_index[source]
        core.deliver(
            source,
            {
                "type": "next_node_idx",
                "next_node_idx": next_index,
                "reset": reset,
                "success": success,
            },
        )
        if success:
            leadership.acknowledged(source, m.sequence)
            self.keep_next(source, before)
            commit = core.commit_index
            if core.next_index[source] <= end:
                self.needs_push = (
                    True  # flow control held entries back; the follower has taken the last
                )
            if next_index - 1 > commit:
                self.needs_tick = True
            elif leadership.told_commit.get(source, 0) < min(commit, next_index - 1):
                self.wants_notice = True

    def is_current(self, ack: Ack) -> bool:
        """Whether an ack answers something of this very term (rule 2)."""
        return ack.term == self.core.term

    def accepts_reset(self, source: int, sequence: int) -> bool:
        """Whether a reset answers something sent since the last accepted one (rule 7)."""
        resets = self.leadership.reset_sequence
        if sequence <= resets.get(source, 0):
            return False
        resets[source] = self.sequence
        return True

    def check_claim(self, next_index: int, end: int) -> None:
        """A follower claims to hold everything below `next_index`: it had it from us (rule 2)."""
        if next_index - 1 > end:
            raise ReplicaFailure("a follower acknowledges entries that its leader does not have")

    def reset_within(self, match: int, next_index: int, end: int) -> int:
        """What a reset may ask for: nothing that is known to be held, nothing past the end (rule 7)."""
        return max(match + 1, min(next_index, end + 1))

    def keep_next(self, source: int, before: int) -> None:
        """What is in flight to a follower is not sent again because of an ack (rule 8)."""
        if self.core.next_index[source] < before:
            self.core.next_index[source] = before

    def takes_back(self, source: int, sequence: int) -> bool:
        """Whether this follower's latest success answered something older (rule 12)."""
        return sequence > self.leadership.success_sequence.get(source, 0)

    # leading

    def became_leader(self, term: int) -> None:
        """The core was elected."""
        self.leadership = Leadership(term)

    @property
    def is_readable(self) -> bool:
        """Leading, with an entry of this term committed: no earlier leader's commit index is higher."""
        core = self.core
        own = core.own_term_index
        return core.is_leader and own is not None and core.commit_index >= own

    def renew_lease(self, now: float) -> bool:
        """Recompute until when strong reads need no question; True if that is in the future.

        Lasts election_min_s less the margin for clock drift from what a majority echoed; rests on rule 10.
        """
        leadership, core = self.leadership, self.core
        if (
            not self.is_readable
            or self.is_lease_off()
            or leadership.term != core.term
            or not self.has_applied_all()
        ):
            return False
        settings = self.settings
        lease_s = settings.election_min_s * (1 - settings.clock_drift_margin)
        leadership.lease_until = leadership.quorum_time(self.other_voters, now) + lease_s
        return now < leadership.lease_until

    def is_lease_off(self) -> bool:
        """Whether a transfer was begun in this term: its vote may come late and passes rule 10."""
        return self.lease_off_term == self.core.term

    def begin_reads(self, callbacks: list[Callable[[bool], None]]) -> None:
        """One ReadIndex round for all of them. The leader must be readable."""
        core, leadership = self.core, self.leadership
        needed = self.sequence + 1
        for voter in sorted(self.other_voters):
            self.append_to(voter, 0, 0, [], 0)
        index = core.commit_index
        leadership.reads.extend((needed, index, callback) for callback in callbacks)

    def ready_reads(self) -> list[Callable[[bool], None]]:
        """ReadIndex callbacks that may now be told yes."""
        leadership = self.leadership
        if not leadership.reads or not self.core.is_leader or leadership.term != self.core.term:
            return []
        return leadership.take_ready_reads(
            leadership.quorum_sequence(self.other_voters), self.core.applied_index
        )

    def send_notices(self) -> None:
        """Tell followers of commits they have not heard of."""
        core = self.core
        if core.is_leader:
            for peer in sorted(core.match_index):
                self._notify(peer)

    def _notify(self, peer: int) -> None:
        """Tell a follower of commits by an append at its match: it verifies that.

        Asks for no ack (sequence 0): it carries nothing to be acknowledged.
        """
        core, journal, told = self.core, self.journal, self.leadership.told_commit
        commit, match = core.commit_index, core.match_index[peer]
        known = min(commit, match)
        if known <= told.get(peer, 0) or match < journal[0][1] or peer not in self.up:
            return
        told[peer] = known
        self.appends.append(
            Append(
                self.group,
                self.replica_id,
                int(peer),
                core.term,
                commit,
                0,
                self.moment.now,
                match,
                journal.term_at(match),
                [],
            )
        )

    def ask_commit(self, index: int) -> None:
        """Ask the leader, if one can be reached, to tell us at once when `index` is committed."""
        core = self.core
        leader = core.leader
        if leader is not None and leader != self.replica_id and leader in self.up:
            self.others.append(
                CommitRequest(self.group, self.replica_id, int(leader), core.term, index)
            )

    def _on_commit_request(self, m: CommitRequest) -> None:
        core = self.core
        if (
            core.is_leader
            and m.term == core.term
            and m.source in core.match_index
            and m.index <= self.journal[-1][1]  # what was committed anywhere is in a leader's log
        ):
            asked = self.leadership.asked_commit
            asked[m.source] = max(m.index, asked.get(m.source, 0))

    def answer_commit_requests(self) -> None:
        """Tell those who asked, as far as it is committed and they are known to have it: the rest when it is."""
        core, leadership = self.core, self.leadership
        if leadership.term != core.term or not core.is_leader:
            return
        asked = leadership.asked_commit
        for peer, index in sorted(asked.items()):
            match = core.match_index.get(peer, 0)
            if index <= core.commit_index and index <= match:
                self._notify(peer)  # (says nothing if that is on its way already)
                del asked[peer]
            elif not match:
                del asked[peer]  # no member any more, or has nothing of ours

    @property
    def has_untold_commit(self) -> bool:
        """Whether some connected follower could be told of a higher commit index."""
        core = self.core
        commit = core.commit_index
        told = self.leadership.told_commit
        return any(
            min(commit, match) > told.get(peer, 0) and peer in self.up
            for peer, match in core.match_index.items()
        )

    # snapshots

    def need_snapshot(self, follower: int) -> None:
        """The core found that our log begins behind what a follower lacks."""
        now = self.moment.now
        noticed = self.leadership.snapshot_notice_at
        if not is_notice_due(noticed.get(follower, NEVER), now):
            return
        noticed[follower] = now
        core = self.core
        # A state as of here or later is enough: our log goes on from there.
        index = self.journal[0][1]
        self.sequence += 1
        self.others.append(
            SnapshotNotice(
                self.group,
                self.replica_id,
                follower,
                core.term,
                index,
                self.journal.term_at(index),
                self.sequence,
                now,
            )
        )

    def _on_snapshot_notice(self, m: SnapshotNotice) -> None:
        if not self._hear_leader(m.source, m.term, m.sequence, m.sent_at):
            return
        self._deliver_bare(m.source, m.term, 0)
        core = self.core
        if m.index <= core.commit_index:
            # Committed there and committed here: we hold it.
            self.acknowledge(m.source, m.index + 1, ACK_SUCCESS)
            return
        self.acknowledge(m.source, 0, ACK_HEARD)
        if is_useful(m.index, core.commit_index, core.applied_index):
            self.on_snapshot_notice(m.source, LogIndex(m.index), Term(m.index_term))

    def snapshot_installed(self, index: int) -> None:
        """The log now stands on a snapshot at `index`: tell the leader, if one is known."""
        leader = self.core.leader
        self.drop_outbox()
        if leader is not None and leader != self.replica_id:
            self.acknowledge(int(leader), index + 1, ACK_SUCCESS)


def _ignore_notice(source: int, index: LogIndex, term: Term) -> None:
    """Until the replica is wired up."""


def _never_blocked(target: int, entries: list[Entry]) -> bool:
    """Until the replica is wired up."""
    return False


_HANDLERS: dict[type, Callable[[Guard, Any], None]] = {
    Append: Guard._on_append,
    Ack: Guard._on_ack,
    VoteRequest: Guard._on_vote_request,
    VoteGrant: Guard._on_vote_grant,
    PreVoteRequest: Guard._on_pre_vote_request,
    PreVoteAnswer: Guard._on_pre_vote_answer,
    TimeoutNow: Guard._on_timeout_now,
    StaleTerm: Guard._on_stale_term,
    SnapshotNotice: Guard._on_snapshot_notice,
    CommitRequest: Guard._on_commit_request,
}
