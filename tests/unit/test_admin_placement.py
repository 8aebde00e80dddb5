"""Placement: one replica per zone, little on those that have much, leaders spread."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin.placement import (
    Candidate,
    LedGroup,
    choose_first_leaders,
    choose_transfers,
    place_partitions,
    replica_count,
)


def nodes(*zones, dead=()):
    return [Candidate(f"n{i}", zone, is_live=f"n{i}" not in dead) for i, zone in enumerate(zones)]


@pytest.mark.parametrize(("count", "replicas"), [(0, 0), (1, 1), (2, 1), (3, 3), (7, 3)])
def test_an_odd_number_of_replicas(count, replicas):
    assert replica_count(count) == replicas


def test_one_replica_in_each_zone():
    candidates = nodes("a", "a", "b", "b", "c", "c")
    zone = {candidate.node_id: candidate.az for candidate in candidates}
    placed = place_partitions(candidates, 8)
    assert all({zone[node] for node in members} == {"a", "b", "c"} for members in placed)
    assert set(Counter(node for members in placed for node in members).values()) == {4}


def test_more_zones_than_replicas_are_all_used():
    placed = place_partitions(nodes("a", "b", "c", "d"), 8)
    assert set(Counter(node for members in placed for node in members).values()) == {6}


def test_fewer_zones_than_replicas_use_different_nodes():
    (members,) = place_partitions(nodes("a", "a", "b"), 1)
    assert sorted(members) == ["n0", "n1", "n2"]


def test_a_dead_node_is_used_only_for_its_zone():
    candidates = nodes("a", "a", "b", "c", dead=("n0", "n3"))
    (members,) = place_partitions(candidates, 1)
    assert sorted(members) == ["n1", "n2", "n3"]


def test_those_with_little_get_more():
    candidates = [
        Candidate("n0", "a", replicas=9),
        Candidate("n1", "a", replicas=7),
        Candidate("n2", "b"),
        Candidate("n3", "c"),
    ]
    placed = place_partitions(candidates, 4)
    assert Counter(node for members in placed for node in members) == {
        "n0": 1,
        "n1": 3,
        "n2": 4,
        "n3": 4,
    }


@settings(max_examples=40)
@given(
    zones=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
    partitions=st.integers(1, 12),
)
def test_members_are_distinct_and_as_many_as_there_should_be(zones, partitions):
    placed = place_partitions(nodes(*zones), partitions)
    assert len(placed) == partitions
    for members in placed:
        assert len(set(members)) == len(members) == replica_count(len(zones))


def test_first_leaders_are_spread_and_alive():
    candidates = nodes("a", "b", "c")
    groups = dict.fromkeys(range(9), ("n0", "n1", "n2"))
    chosen = choose_first_leaders(groups, candidates)
    assert Counter(chosen.values()) == {"n0": 3, "n1": 3, "n2": 3}
    busy = [Candidate("n0", "a", leaders=5), *candidates[1:]]
    assert Counter(choose_first_leaders({1: ("n0", "n1")}, busy).values()) == {"n1": 1}
    dead = nodes("a", "b", "c", dead=("n0",))
    assert set(choose_first_leaders(groups, dead).values()) == {"n1", "n2"}
    all_dead = nodes("a", dead=("n0",))
    assert choose_first_leaders({1: ("n0",)}, all_dead) == {1: "n0"}


def led(*leaders, fit=("n0", "n1", "n2")):
    return [
        LedGroup(group, leader, tuple(n for n in fit if n != leader))
        for group, leader in enumerate(leaders)
    ]


@pytest.mark.parametrize(
    ("groups", "moves"),
    [
        ([], []),
        (led("n0", "n1", "n2"), []),
        (led("n0", "n0", "n1", "n2"), []),  # one too many cannot be bettered
        (led("n0", "n0", "n1", "n1"), [(0, "n0", "n2")]),
        (led("n0", "n0", "n0"), [(0, "n0", "n1"), (1, "n0", "n2")]),
        (led("n0", "n0", "n0", fit=("n0",)), []),  # nobody could take over
        (led("n0", "n0", fit=("n9",)), []),  # nor somebody who must not
    ],
)
def test_leaderships_are_moved_to_who_leads_less(groups, moves):
    found = choose_transfers(groups, ["n0", "n1", "n2"])
    assert [(move.group, move.source, move.target) for move in found] == moves


@settings(max_examples=60)
@given(
    leaders=st.lists(st.sampled_from(["n0", "n1", "n2", "n3"]), max_size=30),
)
def test_moves_end_in_balance(leaders):
    nodes_ = ["n0", "n1", "n2", "n3"]
    groups = led(*leaders, fit=tuple(nodes_))
    for move in choose_transfers(groups, nodes_):
        assert leaders[move.group] == move.source
        leaders[move.group] = move.target
    counts = [leaders.count(node) for node in nodes_]
    assert max(counts) - min(counts) <= 1
    assert choose_transfers(led(*leaders, fit=tuple(nodes_)), nodes_) == []
