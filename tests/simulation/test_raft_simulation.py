"""A short matrix of seeds, directed scenarios, and rules that must be missed when they are switched off."""

from dataclasses import replace

import pytest

from raft.guard import Guard
from raft.voting import Voting
from tests.simulation import directed
from tests.simulation.mutations import MUTATIONS, mutated, search
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
    assert search(MUTATIONS[name], 60) is not None


def _no(*_):
    return False


def _yes(*_):
    return True


SCENARIOS = [
    (directed.stickiness, [(Voting, "leader_is_alive", _no)]),
    (directed.quiet_time, [(Voting, "is_quiet", _no)]),
    (directed.lease_ends_on_transfer, [(Guard, "is_lease_off", _no)]),
    (directed.acks_of_another_term, [(Guard, "is_current", _yes)]),
    (directed.one_voter_counts_once, [(Voting, "counts_vote", _yes)]),
    (directed.followers_hear_of_commits, [(Guard, "send_notices", lambda guard: None)]),
    (directed.early_appends_of_a_crashed_leader, []),
    (
        directed.conflicting_tail_converges,
        [
            (Guard, "accepts_reset", _yes),
            (Guard, "resume_at", lambda guard, previous, last: min(previous, last + 1)),
        ],
    ),
]


@pytest.mark.parametrize(
    ("scenario", "patches"), SCENARIOS, ids=lambda value: getattr(value, "__name__", "")
)
def test_directed(scenario, patches):
    assert scenario() == ""
    if patches:
        with mutated(tuple(patches)):
            assert scenario() != ""
