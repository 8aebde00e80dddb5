"""Bit rot in the log of a node that ran under faults: refused, harmless, or no more than a torn last write."""

import random

import pytest

from raft.group import Outcome
from raft.node_log import BATCH_MAGIC, SEGMENT_HEADER, Corruption, NodeLog, _parse_batch
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
        position = batch[2]
    return number, start, position


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_never_taken_for_data(seed):
    world = simulate(seed, CONFIGURATIONS["compact"])
    rng = random.Random(seed)
    refused = 0
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
            # Rot in the very last batch is what a torn write looks like. Elsewhere it is refused.
            assert is_last, (victim, at)
            assert found == without_last
            assert whole != without_last or start == end
    assert refused > 100


def test_what_rot_in_the_last_acknowledged_batch_costs():
    """It cannot be told from a torn write: that replica comes back without the batch. Nothing is lost, and the
    replica is made whole, as long as one with the entry can be elected, which is what a majority is for.
    """
    stage = Stage()
    stage.lead("A")
    operation = stage.put("A")
    stage.exchange("ABC", 0.003, 0.001)
    stage.exchange("ABC", 0.5)
    assert operation.acked_at is not None
    node = stage.node("B")
    stage.put("A")
    stage.exchange("ABC", 0.3)
    node.crash()
    stage.forget_messages()
    number, _, end = last_batch(node.disk.files)
    node.disk.files[number][end - 1] ^= 1
    node._check_recovery = lambda possibly: None  # it lacks what it had
    before = stage.end("A")
    node.restart()
    assert stage.end("B") < before
    stage.pause(2.0)
    stage.forget_messages()
    assert not stage.campaign("B", "BC"), "elected although it lost an entry"
    stage.forget_messages()
    stage.pause(2.0)
    stage.forget_messages()
    assert stage.campaign("C", "ABC")
    stage.exchange("ABC", 1.0)
    assert len({stage.end(name) for name in "ABC"}) == 1


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
