"""The rules that make replication safe, how each is switched off, and what notices; prints the table of the docs.

`test_raft_rules.py` runs every row: with the rule nothing goes wrong, without it something must. The table in
docs/replication.md is this one; `--write` renews it.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from raft import guard, host, pysyncobj_group, replica, voting
from raft.elections import Elections
from raft.group import BLANK_INDEX, BLANK_TERM, Configuration, Outcome, ReplicaId
from raft.guard import Guard
from raft.host import MultiRaftHost
from raft.journal import Checkpoint, GroupJournal
from raft.leases import Leadership
from raft.membership import SENTINEL_COMMAND
from raft.pysyncobj_group import Core
from raft.replica import Replica
from raft.voting import Voting
from raft.wire import BadBatch, Message, decode_batch
from tests.simulation import directed, directed_elections, directed_faults
from tests.simulation import directed_groups as groups
from tests.simulation import directed_messages as messages
from tests.simulation import node as simulated_node
from tests.simulation.options import Violation
from tests.simulation.patching import Patch, no, nothing, yes

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "replication.md"
BEGIN, END = "<!-- rules -->\n", "<!-- end of rules -->\n"


@dataclass(frozen=True)
class Rule:
    """What must hold; shown by a scenario, by chance (`mutations.py`), or by a test of another file."""

    said: str
    scenario: Callable[[], str] | None = None
    off: tuple[Patch, ...] = ()
    by_chance: str = ""
    test: str = ""

    @property
    def shown_by(self) -> str:
        if self.scenario is not None:
            return f"`{self.scenario.__module__.rpartition('.')[2]}.{self.scenario.__name__}`"
        if self.by_chance:
            return f"`mutations`: {self.by_chance}"
        return f"`{self.test}`"


# Switches that are more than a word.


def _untyped(payload: bytes) -> list[Message]:
    try:
        return decode_batch(payload)
    except BadBatch:
        return msgspec.msgpack.decode(payload)[1]  # type: ignore[no-any-return]


def _cut_anything(journal: GroupJournal, position: int) -> None:
    index = journal[position][1]
    del journal[position:]
    journal._log.record_truncation(journal.group, index)
    journal._touch()


def _keep_any_tail(journal: GroupJournal, checkpoint: Checkpoint) -> None:
    position = checkpoint.index - journal[0][1]
    if 0 <= position < len(journal):
        del journal[:position]
    else:
        journal[:] = [(SENTINEL_COMMAND, checkpoint.index, checkpoint.term)]
    journal.checkpoint = checkpoint
    journal.commit = max(journal.commit, int(checkpoint.index))
    journal._recount()
    journal.write_base()


def _commit_past_the_end(core: Core, applied: int) -> None:
    core._SyncObj__raftLastApplied = int(applied)
    core._SyncObj__raftCommitIndex = max(core._journal.commit, int(applied))


def _commit_with_next_batch(journal: GroupJournal, commit: int) -> None:
    if commit != journal.commit:
        journal.commit = commit
        journal._log.note_commit(journal)


def _heard_now(leadership: Leadership, follower: int, sequence: int, _: float, now: float) -> None:
    leadership.ack_sequence[follower] = max(sequence, leadership.ack_sequence.get(follower, 0))
    leadership.ack_sent_at[follower] = now


def _from_any_node(taker: Replica, source: int, node: str) -> bool:
    taker.routes[source] = node  # type: ignore[assignment]
    return True


def _everybody(configuration: Configuration) -> tuple[ReplicaId, ...]:
    return tuple(m.replica_id for m in configuration.members)


_spins = itertools.count()


def _spin(*_: object) -> None:
    if next(_spins) % 1000 == 999:
        raise Violation("spins", "")


NEVER_IN_FLIGHT = property(no, nothing)
LEADS = property(lambda g: g.core.is_leader)
RULES: dict[str, tuple[Rule, ...]] = {
    "Messages": (
        Rule(
            "Only batches of the declared types are taken; nothing is unpickled or forwarded",
            messages.nonsense_from_a_peer,
            ((host, "decode_batch", _untyped),),
        ),
        Rule(
            "A term that elections cannot have reached is dropped",
            directed_faults.absurd_terms,
            ((guard, "TERM_STEP_MAX", 1 << 62),),
        ),
        Rule(
            "Entries that no leader builds are dropped",
            messages.entries_that_no_leader_builds,
            ((Guard, "is_sound", yes),),
        ),
        Rule(
            "What is remembered of strangers has a bound",
            directed_faults.crowd_of_strangers,
            ((replica, "STRANGERS_MAX", 1 << 62),),
        ),
        Rule(
            "An ack counts in the term that it answers only",
            directed.acks_of_another_term,
            ((Guard, "is_current", yes),),
        ),
        Rule(
            "An ack of what the leader never had stops the leader's replica",
            messages.acks_past_the_end,
            ((Guard, "check_claim", nothing),),
        ),
        Rule(
            "A higher term ends a leadership",
            messages.higher_term_ends_a_leadership,
            ((Voting, "_adopt_term", nothing),),
        ),
        Rule(
            "Whoever speaks in an older term is told the newer one",
            messages.stranded_by_a_higher_term,
            ((Voting, "_tell_term", nothing),),
        ),
        Rule(
            "Entries that are held already are left out; only a true conflict truncates",
            messages.late_append,
            ((Guard, "without_known", lambda _, entries, first, last: entries),),
        ),
        Rule(
            "A conflict with what is committed stops the replica",
            messages.conflict_with_the_committed,
            (
                (Guard, "check_conflict", nothing),
                (GroupJournal, "deleteEntriesFrom", _cut_anything),
            ),
        ),
        Rule(
            "A message moves the commit index no further than it verified the log",
            messages.commit_past_what_was_verified,
            ((Guard, "clamped", lambda _, commit, verified: commit),),
        ),
        Rule(
            "A message that verified nothing does not move the commit index",
            messages.commit_without_verification,
            ((Guard, "commit_unverified", lambda _, append: append.commit),),
        ),
        Rule(
            "A conflict is resolved in a round trip, not one for each entry",
            messages.conflict_in_one_round_trip,
            ((Guard, "resume_at", lambda _, previous, last: min(previous, last + 1)),),
        ),
        Rule(
            "One reset for each round of sending",
            messages.one_reset_per_round,
            ((Guard, "accepts_reset", yes),),
        ),
        Rule(
            "Resets do not add up to a livelock",
            directed.conflicting_tail_converges,
            (
                (Guard, "accepts_reset", yes),
                (Guard, "resume_at", lambda _, previous, last: min(previous, last + 1)),
            ),
        ),
        Rule(
            "A reset stays between what the follower holds and the leader's end",
            messages.reset_out_of_range,
            ((Guard, "reset_within", lambda _, match, next_index, end: next_index),),
        ),
        Rule(
            "A follower is not counted with what it lost again, and is sent it anew",
            test="tests/simulation/test_raft_logs.py"
            "::test_a_leader_sends_again_what_a_follower_lost_and_does_not_count_it",
        ),
        Rule(
            "An ack does not make the leader send again what is on its way",
            messages.ack_of_a_part,
            ((Guard, "keep_next", nothing),),
        ),
        Rule(
            "Followers of an idle group hear of a commit before the next heartbeat",
            directed.followers_hear_of_commits,
            ((Guard, "send_notices", nothing),),
        ),
        Rule(
            "Followers on which somebody waits for a commit hear of it at once",
            directed.followers_that_wait_hear_at_once,
            ((Guard, "answer_commit_requests", nothing),),
        ),
        Rule(
            "A peer that needs a snapshot leaves the send loop for the rest of the turn",
            messages.no_spinning_for_a_snapshot,
            ((Guard, "_park", _spin),),
        ),
        Rule(
            "Entries wait while the link to a peer is full",
            messages.bulk_waits_for_the_link,
            ((MultiRaftHost, "is_bulk_blocked", no),),
        ),
        Rule(
            "A proposal that does not fit one message is refused",
            messages.too_large_a_proposal,
            ((Replica, "payload_bytes_max", property(lambda _: 1 << 30)),),
        ),
    ),
    "Elections": (
        Rule("A vote is durable before it is told", by_chance="a vote that is never written"),
        Rule(
            "Voters are counted, not votes",
            directed.one_voter_counts_once,
            ((Voting, "counts_vote", yes),),
        ),
        Rule(
            "Only members are counted",
            messages.votes_of_strangers,
            ((Voting, "counts_vote", lambda v, m: v.elections.count_vote(m.term, m.source)),),
        ),
        Rule(
            "Whoever heard a leader lately helps no candidate",
            directed.stickiness,
            ((Voting, "leader_is_alive", no),),
        ),
        Rule(
            "... nor itself, if it is the candidate",
            directed_elections.own_promise,
            ((Voting, "keeps_own_promise", no),),
        ),
        Rule(
            "... nor anybody just after a restart, which made it forget",
            directed.quiet_time,
            ((Voting, "is_quiet", no),),
        ),
        Rule(
            "Only the leader of this very term may ask for an election",
            messages.takeover_asked_by_another,
            ((Voting, "is_from_leader", yes),),
        ),
        Rule(
            "Candidates ask before they stand: whoever comes back disturbs nobody",
            groups.comeback_disturbs_nobody,
            ((Elections, "has_pre_votes", yes),),
        ),
        Rule(
            "Learners and strangers do not stand",
            groups.learners_do_not_stand,
            ((Voting, "is_voter", property(yes)),),
        ),
        Rule(
            "Nobody stands while something committed is not applied",
            groups.campaign_before_applying,
            ((Voting, "has_applied_all", yes),),
        ),
    ),
    "Log, disk and turn": (
        Rule(
            "Nothing that claims durability leaves before the fsync", by_chance="send before sync"
        ),
        Rule("... no ack either", by_chance="an ack before its fsync"),
        Rule("A core ticks only when all its records are durable", by_chance="tick before sync"),
        Rule(
            "A lone voter commits only what is on its disk",
            by_chance="a lone voter that does not wait for its disk",
        ),
        Rule(
            "What arrives while a group's fsync runs waits for its end",
            groups.input_waits_for_the_fsync,
            ((Replica, "is_in_flight", NEVER_IN_FLIGHT),),
        ),
        Rule(
            "A leader's appends may leave before its own fsync: a crash then costs nothing",
            directed.early_appends_of_a_crashed_leader,
        ),
        Rule(
            "Terms, entries and truncations go through one ordered log",
            by_chance="a vote that is written with the next batch",
        ),
        Rule(
            "A commit index never lies past the end of the log",
            groups.commit_beyond_the_end,
            ((Core, "_stand_on", _commit_past_the_end),),
        ),
        Rule(
            "After a restart a replica stands on its checkpoint",
            groups.restart_stands_on_the_checkpoint,
            ((Core, "_stand_on", nothing),),
        ),
        Rule(
            "A command of an unknown type stops the replica",
            groups.unknown_command,
            ((pysyncobj_group, "_KNOWN_COMMANDS", frozenset(range(256))),),
        ),
        Rule(
            "An exception in a core or a machine ends that replica alone",
            test="tests/unit/test_raft_replica.py::test_a_failing_machine_ends_its_replica_and_no_other",
        ),
        Rule(
            "A proposal succeeded only if its own entry was applied",
            groups.outcome_of_what_was_overwritten,
            (
                (replica, "outcome_of", lambda *_: Outcome.COMMITTED),
                (Replica, "_fail_pending", nothing),
            ),
        ),
        Rule(
            "Damage before the last batch is refused, wherever it is",
            test="tests/simulation/test_raft_logs.py::test_a_flipped_bit_is_never_taken_for_data",
        ),
        Rule(
            "Damage in the last batch is a torn write only if it has no receipt",
            test="tests/simulation/test_raft_logs.py"
            "::test_rot_in_the_last_acknowledged_batch_keeps_its_node_down",
        ),
        Rule(
            "Only the reviewed source of the core is run",
            test="tests/unit/test_raft_pysyncobj_group.py::test_any_other_source_is_refused",
        ),
    ),
    "Reads": (
        Rule(
            "A read waits for an entry of the leader's own term",
            by_chance="reads before an own entry",
        ),
        Rule(
            "ReadIndex needs the answer of a majority to a question asked after it",
            groups.barrier_of_a_deposed_leader,
            ((Leadership, "quorum_sequence", lambda *_: 1 << 62),),
        ),
        Rule(
            "A lease counts from the sending of what a majority answered",
            groups.lease_counts_from_the_sending,
            ((Leadership, "heard", _heard_now),),
        ),
        Rule(
            "A lease is shorter than the promise, by the bound on clock drift",
            by_chance="a lease without a bound on clock drift",
        ),
        Rule(
            "A lease ends when a transfer begins",
            directed.lease_ends_on_transfer,
            ((Guard, "is_lease_off", no),),
        ),
        Rule(
            "A promise outlives a suspension of whoever made it",
            directed_faults.suspended_voter,
            ((Voting, "leader_is_alive", no),),
        ),
        Rule(
            "Clocks go on while a process is suspended",
            test="tests/simulation/test_raft_rules.py::test_a_suspended_leader_needs_a_clock_that_goes_on",
        ),
    ),
    "Snapshots and new groups": (
        Rule(
            "A tail stays only behind the snapshot's very entry",
            groups.snapshot_over_a_foreign_tail,
            ((GroupJournal, "reset", _keep_any_tail),),
        ),
        Rule(
            "A snapshot that is not newer than what is committed is not installed",
            groups.snapshot_that_is_not_newer,
            ((Replica, "wants_snapshot", yes),),
        ),
        Rule(
            "The term of a snapshot is adopted with it",
            directed_elections.snapshot_of_a_later_term,
            ((Voting, "reach_term", nothing),),
        ),
        Rule(
            "Logs begin above 1, so that a blank replica can only begin with a snapshot",
            groups.blank_replica_of_a_child_group,
            (
                (host, "SENTINEL_INDEX", BLANK_INDEX),
                (host, "SENTINEL_TERM", BLANK_TERM),
                (simulated_node, "SENTINEL_INDEX", BLANK_INDEX),
            ),
        ),
    ),
    "Members": (
        Rule(
            "A replica id lives on one disk: nobody else speaks for it",
            directed_faults.blank_replica_under_a_known_id,
            ((Replica, "_accept_route", _from_any_node),),
        ),
        Rule(
            "Learners are not counted",
            groups.learners_do_not_count,
            (
                (voting, "voters_of", _everybody),
                (pysyncobj_group, "voters_of", _everybody),
                (pysyncobj_group, "learners_of", lambda _: ()),
            ),
        ),
        Rule(
            "One change at a time",
            groups.two_changes_at_once,
            ((Replica, "may_change_configuration", yes),),
        ),
        Rule(
            "To a new leader its whole log counts as a change",
            groups.change_of_a_new_leader,
            ((Replica, "_on_elected", nothing), (Guard, "is_readable", LEADS)),
        ),
        Rule(
            "One voter joins or leaves, out of the learners; the leader stays",
            test="tests/unit/test_raft_membership.py::test_what_may_follow",
        ),
        Rule(
            "A committed change is durably known before anybody is told",
            directed_faults.told_of_a_removal,
            ((GroupJournal, "setRaftCommitIndex", _commit_with_next_batch),),
        ),
        Rule("Owners hear of a promotion", directed.owners_hear_of_promotion),
    ),
}


def table() -> str:
    """The rows as Markdown."""
    lines = ["| Rule | Shown by |", "| --- | --- |"]
    for heading, rules in RULES.items():
        lines.append(f"| **{heading}** | |")
        lines += [f"| {rule.said} | {rule.shown_by} |" for rule in rules]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    if argv == ["--write"]:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        DOCUMENT.write_text(before + BEGIN + table() + END + rest.partition(END)[2])
    else:
        print(table(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
