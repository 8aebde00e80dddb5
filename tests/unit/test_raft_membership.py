"""Configurations: bytes, and what may follow what."""

import pytest

from raft.group import Configuration, Member, NodeId, ReplicaId
from raft.membership import (
    BadConfiguration,
    ConfigurationHistory,
    check_configuration,
    decode_configuration,
    encode_configuration,
    why_not,
)


def configuration(text):
    """Written as 1a 2b 3c*: replica and node, * for a learner."""
    return Configuration(
        tuple(
            Member(ReplicaId(int(part[0])), NodeId(part[1]), is_learner=part.endswith("*"))
            for part in text.split()
        )
    )


NOW = configuration("1a 2b 3c 4d*")


def test_round_trip():
    assert decode_configuration(encode_configuration(NOW)) == NOW
    assert decode_configuration(encode_configuration(Configuration(()))) == Configuration(())
    with pytest.raises(BadConfiguration):
        decode_configuration(b"\xc1")


@pytest.mark.parametrize("text", ["", "1a*", "1a 1b", "1a 2a", "0a"])
def test_nonsense_is_refused(text):
    with pytest.raises(BadConfiguration):
        check_configuration(configuration(text))


@pytest.mark.parametrize(
    ("proposed", "reason"),
    [
        ("1a 2b 3c 4d", None),  # promote
        ("1a 2b 4d*", None),  # remove a voter
        ("1a 2b 3c 4d* 5e* 6f*", None),  # learners count for nothing
        ("1a 2b 3c", None),
        ("1a 2b 3c* 4d*", None),  # demote
        ("1a 2b 4d", "more than one voter changes"),  # swap in one step
        ("1a", "more than one voter changes"),
        ("2b 3c 4d*", "the leader cannot remove itself"),
        ("1a 2b 3c 4d* 5e", "a new voter must have been a learner"),
        ("1a 2e 3c 4d*", "a replica cannot move to another node"),
    ],
)
def test_what_may_follow(proposed, reason):
    assert why_not(NOW, configuration(proposed), ReplicaId(1)) == reason


def test_history_knows_what_was_in_force():
    history = ConfigurationHistory(10, NOW)
    later, last = configuration("1a 2b 3c 4d"), configuration("1a 2b 3c")
    history.apply(15, later)
    history.apply(20, last)
    assert [history.at(i) for i in (10, 14, 15, 19, 20, 99)] == [NOW, NOW, later, later, last, last]
    history.forget_before(17)
    assert history.at(17) == later
    assert history.current == last
    with pytest.raises(AssertionError):
        history.at(12)
