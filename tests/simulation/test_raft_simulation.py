"""A short matrix of seeds, directed scenarios, and rules that must be missed when they are switched off."""

import json
from dataclasses import replace

import pytest

from tests.simulation import replays
from tests.simulation.mutations import BUGS, MUTATIONS, Mutation, search
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


@pytest.mark.parametrize("name", MUTATIONS)
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
