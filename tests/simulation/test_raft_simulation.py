"""A short matrix of seeds, directed scenarios, and rules that must be missed when they are switched off."""

import json
from dataclasses import replace

import pytest

from raft import guard, replica
from raft.guard import Guard
from raft.journal import GroupJournal
from raft.replica import Replica
from raft.voting import Voting
from tests.simulation import directed, directed_elections, directed_faults, replays
from tests.simulation.mutations import BUGS, MUTATIONS, Mutation, search
from tests.simulation.patching import mutated, no, yes
from tests.simulation.run import CONFIGURATIONS, report
from tests.simulation.workloads import simulate

SEEDS = range(4)


@pytest.mark.parametrize("network", ["fifo", "stale", "unordered"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_invariants_hold(name, network):
    options = replace(CONFIGURATIONS[name], network=network)
    for seed in SEEDS:
        try:
            simulate(seed, options)
        except Exception:  # noqa: BLE001 - run again with its trace
            pytest.fail(report(seed, options))


def test_a_seed_replays_exactly():
    options = replace(CONFIGURATIONS["members"], network="unordered")
    first = simulate(5, options, is_tracing=True)
    second = simulate(5, options, is_tracing=True)
    assert list(first.trace) == list(second.trace)
    assert first.stats == second.stats


# Those that a few seeds show; the rest is in `python -m tests.simulation.mutations`.
QUICK = [
    "no trimming",
    "no clamping",
    "commit by unverified messages",
    "send before sync",
    "tick before sync",
    "votes counted, not voters",
    "reset again and again",
    "reads before an own entry",
    "lease survives a transfer",
    "no margin",
]


@pytest.mark.parametrize("name", QUICK)
def test_a_missing_rule_is_missed(name):
    assert search(MUTATIONS[name], range(60)) is not None


@pytest.mark.parametrize("name", BUGS)
def test_a_seeded_bug_is_found(name):
    """Seeds around the one that `mutations --search 1000` names; the same seeds find nothing without the bug."""
    bug = BUGS[name]
    assert search(bug, bug.found_by) is not None
    assert search(Mutation((), bug.options), bug.found_by) is None


def test_a_clock_that_stops_in_suspension_is_missed():
    options = replace(CONFIGURATIONS["suspended"], has_boot_clock=False)
    assert search(Mutation((), options), range(20)) is not None


def test_traces_are_those_of_other_machines():
    recorded = json.loads(replays.RECORDED.read_text())
    if recorded["code"] != replays.code_digest():
        pytest.skip("recorded with other code: python -m tests.simulation.replays --record")
    for name in list(recorded["traces"])[::7]:
        configuration, network, seed = name.split("/")
        assert replays.trace_digest(configuration, network, int(seed)) == recorded["traces"][name]


def _from_any_node(replica, source, node):
    replica.routes[source] = node
    return True


def _commit_with_next_batch(journal, commit):
    if commit != journal.commit:
        journal.commit = commit
        journal._log.note_commit(journal)


SCENARIOS = [
    (directed.stickiness, [(Voting, "leader_is_alive", no)]),
    (directed.quiet_time, [(Voting, "is_quiet", no)]),
    (directed.lease_ends_on_transfer, [(Guard, "is_lease_off", no)]),
    (directed.acks_of_another_term, [(Guard, "is_current", yes)]),
    (directed.one_voter_counts_once, [(Voting, "counts_vote", yes)]),
    (directed.followers_hear_of_commits, [(Guard, "send_notices", lambda guard: None)]),
    (directed.early_appends_of_a_crashed_leader, []),
    (directed.owners_hear_of_promotion, []),
    (
        directed.conflicting_tail_converges,
        [
            (Guard, "accepts_reset", yes),
            (Guard, "resume_at", lambda guard, previous, last: min(previous, last + 1)),
        ],
    ),
    (directed_elections.own_promise, [(Voting, "keeps_own_promise", no)]),
    (directed_elections.snapshot_of_a_later_term, [(Voting, "reach_term", lambda *_: None)]),
    (directed_faults.suspended_leader, []),
    (directed_faults.suspended_voter, [(Voting, "leader_is_alive", no)]),
    (
        directed_faults.blank_replica_under_a_known_id,
        [(Replica, "_accept_route", _from_any_node)],
    ),
    (
        directed_faults.told_of_a_removal,
        [(GroupJournal, "setRaftCommitIndex", _commit_with_next_batch)],
    ),
    (directed_faults.absurd_terms, [(guard, "TERM_STEP_MAX", 1 << 62)]),
    (directed_faults.crowd_of_strangers, [(replica, "STRANGERS_MAX", 1 << 62)]),
]


def test_a_suspended_leader_needs_a_clock_that_goes_on():
    assert directed_faults.suspended_leader(has_boot_clock=False) != ""


@pytest.mark.parametrize(
    ("scenario", "patches"), SCENARIOS, ids=lambda value: getattr(value, "__name__", "")
)
def test_directed(scenario, patches):
    assert scenario() == ""
    if patches:
        with mutated(tuple(patches)):
            assert scenario() != ""
