"""A planned stop lets others take over what is led here."""

import asyncio
from types import SimpleNamespace

import pytest

from storagenode.joining import hand_over as module
from storagenode.joining.hand_over import AGAIN_S, PATIENCE_S, hand_over


class Replica:
    """Leads until it was asked so many times; asked, it says whether anybody is there."""

    def __init__(self, asks=1, is_answered=True):
        self.asked_at = []
        self._asks = asks
        self._is_answered = is_answered
        self.standing = self.group = self

    @property
    def is_leading(self):
        return len(self.asked_at) < self._asks

    def transfer_leadership(self):
        self.asked_at.append(self.clock())
        return self._is_answered


def run(monkeypatch, *replicas):
    """Hand over; how long it took on a clock that moves with every look."""
    time = [100.0]

    def now():
        time[0] += 0.01
        return time[0]

    monkeypatch.setattr(module, "POLL_S", 0)
    for replica in replicas:
        replica.clock = now
    asyncio.run(hand_over(SimpleNamespace(replicas=dict(enumerate(replicas))), now))
    return time[0] - 100.0


def test_nothing_led_takes_no_time(monkeypatch):
    assert run(monkeypatch, Replica(asks=0)) < 0.1


def test_each_group_is_asked_once_and_waited_for(monkeypatch):
    replicas = [Replica(), Replica()]
    assert run(monkeypatch, *replicas) < AGAIN_S
    assert [len(replica.asked_at) for replica in replicas] == [1, 1]


def test_a_lost_request_is_repeated(monkeypatch):
    replica = Replica(asks=3)
    run(monkeypatch, replica)
    first, second, third = replica.asked_at
    assert second - first >= AGAIN_S
    assert third - second >= AGAIN_S


def test_nobody_waits_where_nobody_is_there(monkeypatch):
    assert run(monkeypatch, Replica(asks=1_000, is_answered=False)) < 0.2


def test_patience_ends(monkeypatch, caplog):
    took = run(monkeypatch, Replica(asks=1_000))
    assert took == pytest.approx(PATIENCE_S, abs=0.1)
    assert "nobody took over" in caplog.text
