"""Bit rot in the log of a node that ran under faults: refused, harmless, or no more than a torn last write."""

import random

import pytest

from raft.group import Outcome
from raft.guard import Guard
from raft.node_log import (
    BATCH_MAGIC,
    RECEIPT,
    SEGMENT_HEADER,
    Corruption,
    NodeLog,
    _parse_batch,
)
from tests.simulation.directed import GROUP, Stage
from tests.simulation.options import SETTINGS
from tests.simulation.run import CONFIGURATIONS
from tests.simulation.workloads import simulate


class Copy:
    """The files of a log, for one recovery."""

    def __init__(self, files):
        self.files = {number: bytearray(data) for number, data in files.items()}

    def roll(self, segment):
        self.files[segment] = bytearray()

    def segments(self):
        return sorted(self.files)

    def read(self, segment):
        return bytes(self.files[segment]) + b"\0" * 300

    def truncate(self, segment, size):
        del self.files[segment][size:]

    def remove(self, segment):
        del self.files[segment]


def recovered(files):
    log = NodeLog(Copy(files), SETTINGS.log_segment_bytes, lambda journals: None)
    log.recover()
    return {
        group: (list(j), j.term, j.voted_for, j.commit, j.checkpoint)
        for group, j in log.journals.items()
    }


def last_batch(files):
    """(segment, start, end) of the last batch; the segment's header belongs to its first."""
    number = max(n for n, data in files.items() if BATCH_MAGIC in data)
    data, position = bytes(files[number]), SEGMENT_HEADER.size
    start = 0
    while (batch := _parse_batch(data, position, number)) is not None:
        start = position if position > SEGMENT_HEADER.size else 0
        position = batch[2] + RECEIPT.size
    return number, start, position - RECEIPT.size


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_never_taken_for_data(seed):
    world = simulate(seed, CONFIGURATIONS["compact"])
    rng = random.Random(seed)
    refused = harmless = 0
    for node in world.nodes.values():
        node.host.stop()
        files = {n: bytes(node.disk.files[n]) for n in node.disk.segments()}
        whole = recovered(files)
        number, start, end = last_batch(files)
        without_last = recovered({**files, number: files[number][:start]})
        for _ in range(60):
            victim = rng.choice([n for n, data in files.items() if data])
            at = rng.randrange(len(files[victim]))
            damaged = bytearray(files[victim])
            damaged[at] ^= 1 << rng.randrange(8)
            is_last = victim == number and start <= at < end
            try:
                found = recovered({**files, victim: damaged})
            except Corruption:
                refused += 1
                continue
            if found == whole:
                harmless += 1  # a receipt is of use only if its batch is not
                continue
            assert is_last, (victim, at)
            assert found == without_last
    assert refused > 100
    assert harmless < refused


def spoil_last_batch(node):
    """Rot where it was durable; a receipt stays."""
    number, _, end = last_batch(node.disk.files)
    node.disk.files[number][end - 1] ^= 1


def without_last_batch(node):
    """What rot leaves of a disk that did not keep what it had synced: even the receipt is not there."""
    node.disk.lose_receipt()
    spoil_last_batch(node)
    node._check_recovery = lambda possibly: None  # it lacks what it had


def acknowledged(stage):
    operation = stage.put("A")
    stage.exchange(stage.names, 0.003, 0.001)
    stage.exchange(stage.names, 0.5)
    assert operation.acked_at is not None


def crash_keeping_receipt(node):
    """The process is gone, not the machine: what it had written is there."""
    node.disk._receipt = 0
    node.crash()


def test_rot_in_the_last_acknowledged_batch_keeps_its_node_down():
    stage = Stage()
    stage.lead("A")
    acknowledged(stage)
    node = stage.node("B")
    crash_keeping_receipt(node)
    spoil_last_batch(node)
    with pytest.raises(Corruption, match="was durable"):
        node.restart()
    assert stage.node("A").replica(GROUP).is_leader


def test_a_replica_that_lost_its_last_batch_is_not_elected():
    """Of a disk that lies: it lost the last batch and the receipt. That cannot be told from a torn write."""
    stage = Stage()
    stage.lead("A")
    acknowledged(stage)
    node = stage.node("B")
    without_last_batch(node)
    crash_keeping_receipt(node)
    stage.forget_messages()
    before = stage.end("A")
    node.restart()
    assert stage.end("B") < before
    stage.pause(2.0)
    stage.forget_messages()
    assert not stage.campaign("B", "BC"), "elected although it lost an entry"


@pytest.mark.parametrize("rule", [True, False])
def test_a_leader_sends_again_what_a_follower_lost_and_does_not_count_it(monkeypatch, rule):
    """Five replicas; B acknowledged and lost it. Counted with that, C would make a majority of it, and with A and C
    gone it would be nowhere.
    """
    if not rule:
        monkeypatch.setattr(Guard, "takes_back", lambda guard, source, sequence: False)
    stage = Stage(replicas=5)
    stage.lead("A")
    operation = stage.put("A")
    stage.deliver("A", "B")
    stage.deliver("B", "A")
    stage.forget_messages()
    index = stage.end("A")[0]
    match = stage.replica("A").status().match_index
    assert match[2] == index
    node = stage.node("B")
    without_last_batch(node)
    crash_keeping_receipt(node)
    stage.forget_messages()
    node.restart()
    assert stage.end("B")[0] < index
    stage.exchange("AB", 0.3)
    assert stage.leads("A")
    assert operation.acked_at is None
    if not rule:
        assert stage.end("B")[0] < index
        stage.exchange("AC", 0.3)
        assert operation.acked_at is not None, "counted B with what it had lost"
        return
    # In the same term, B has it again, and only now it counts.
    assert stage.end("B") == stage.end("A")
    stage.exchange("AC", 0.3)
    assert operation.acked_at is not None


def test_a_log_that_is_damaged_in_the_middle_keeps_its_node_down():
    stage = Stage()
    stage.lead("A")
    outcomes = []
    for number in range(4):
        payload = b"%d|x|" % number
        stage.node("A").step(
            lambda p=payload: stage.replica("A").propose(p, lambda o, _: outcomes.append(o))
        )
        stage.exchange("ABC", 0.1)
    assert outcomes == [Outcome.COMMITTED] * 4
    node = stage.node("B")
    node.crash()
    number, start, _ = last_batch(node.disk.files)
    node.disk.files[number][start - 20] ^= 4
    with pytest.raises(Corruption):
        node.restart()
    assert stage.node("A").replica(GROUP).is_leader
