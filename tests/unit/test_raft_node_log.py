"""The node's log: what recovery returns, what it repairs, what it refuses."""

import pytest

from raft import node_log
from raft.group import Configuration, LogIndex, Member, NodeId, ReplicaId, Term
from raft.journal import Checkpoint, ReplicaFailure
from raft.membership import COMMAND_CONFIGURATION
from raft.node_log import RECEIPT, SEGMENT_HEADER, SEGMENTS_KEPT, Corruption, NodeLog

CONFIGURATION = Configuration((Member(ReplicaId(1), NodeId("a")),))


class MemoryStorage:
    """Durable at once; the callback is made by `finish`."""

    def __init__(self, files=None):
        self.files = files if files is not None else {}
        self.open = 0
        self.then = None
        self.synced = []

    def append(self, data, on_durable, receipt):
        assert self.then is None
        self.files[self.open] += data
        self.then = on_durable
        self.receipt = receipt

    def finish(self):
        then, self.then = self.then, None
        self.files[self.open] += self.receipt
        then()

    def roll(self, segment):
        self.files[segment] = bytearray()
        self.open = segment

    def segments(self):
        return sorted(self.files)

    def read(self, segment):
        return bytes(self.files[segment]) + b"\0" * 64

    def truncate(self, segment, size):
        del self.files[segment][size:]
        self.synced.append(segment)

    def remove(self, segment):
        del self.files[segment]


def open_log(files=None, segment_bytes=1 << 20):
    storage = MemoryStorage(files)
    log = NodeLog(storage, segment_bytes, lambda journals: None)
    log.recover()
    return log, storage


def sync(log, storage):
    log.sync()
    storage.finish()


def create(log, group=7):
    return log.create(group, ReplicaId(1), CONFIGURATION, LogIndex(10), Term(1), b"base")


def seen(log):
    return {
        group: (list(j), j.term, j.voted_for, j.commit, j.checkpoint)
        for group, j in log.journals.items()
    }


def test_recovery_returns_what_was_written():
    log, storage = open_log()
    first, second = create(log, 7), create(log, 8)
    first.setCurrentTerm(3, 2)
    for index in range(11, 16):
        first.add(b"\0payload", index, 3)
    sync(log, storage)
    first.deleteEntriesFrom(4)
    first.add(b"\0other", 14, 4)
    first.setRaftCommitIndex(13)
    second.setCurrentTerm(1, None)
    first.set_checkpoint(Checkpoint(LogIndex(12), Term(3), CONFIGURATION, b"twelve"), 11)
    sync(log, storage)
    again, _ = open_log(storage.files)
    assert seen(again) == seen(log)
    assert again.journals[7][0][1] == 11
    assert again.journals[7][-1] == (b"\0other", 14, 4)


def test_a_commit_index_alone_waits_for_the_next_batch():
    log, storage = open_log()
    journal = create(log)
    journal.add(b"\0x", 11, 1)
    sync(log, storage)
    journal.setRaftCommitIndex(11)
    assert not log.wants_sync
    assert journal.is_durable
    journal.add(b"\0y", 12, 1)
    sync(log, storage)
    assert open_log(storage.files)[0].journals[7].commit == 11


def test_a_commit_that_covers_a_configuration_is_synced():
    log, storage = open_log()
    journal = create(log)
    journal.add(bytes([COMMAND_CONFIGURATION]) + b"x", 11, 1)
    journal.add(b"\0y", 12, 1)
    sync(log, storage)
    journal.setRaftCommitIndex(12)
    assert log.wants_sync
    assert not journal.is_durable
    assert not journal.is_configuration_durable
    sync(log, storage)
    assert journal.is_configuration_durable
    assert open_log(storage.files)[0].journals[7].commit == 12


def test_nothing_committed_is_truncated():
    log, _ = open_log()
    journal = create(log)
    for index in (11, 12):
        journal.add(b"\0x", index, 1)
    journal.setRaftCommitIndex(11)
    with pytest.raises(ReplicaFailure):
        journal.deleteEntriesFrom(1)
    journal.deleteEntriesFrom(2)
    assert journal[-1][1] == 11


def three_batches():
    log, storage = open_log()
    journal = create(log)
    sync(log, storage)
    ends = [len(storage.files[1])]
    for index in (11, 12):
        journal.add(b"\0" + b"payload" * 9, index, 1)
        sync(log, storage)
        ends.append(len(storage.files[1]))
    return storage, ends


def test_a_torn_last_batch_is_cut_off_whatever_is_left_of_it():
    storage, ends = three_batches()
    ends[2] -= RECEIPT.size  # it was not durable yet
    whole = bytes(storage.files[1])[: ends[2]]
    for keep in range(ends[1], ends[2]):
        for fill in (b"", b"\0" * (ends[2] - keep), b"\xff" * (ends[2] - keep)):
            files = {1: bytearray(whole[:keep] + fill)}
            log, again = open_log(files)
            assert log.journals[7][-1][1] == 11
            assert log.batch == 3
            # The log goes on, and a second recovery agrees.
            log.journals[7].add(b"\0z", 12, 1)
            sync(log, again)
            assert open_log(again.files)[0].journals[7][-1] == (b"\0z", 12, 1)


@pytest.mark.parametrize("fill", [b"", b"\0", b"\xff"])
def test_a_receipt_may_be_missing_torn_or_damaged(fill):
    storage, ends = three_batches()
    whole = bytes(storage.files[1])
    for end in ends:
        for lost in range(1, RECEIPT.size + 1):
            if end < ends[2] and not fill:
                continue  # what is behind it was written there
            data = whole[: end - lost] + fill * lost + whole[end:]
            log, _ = open_log({1: bytearray(data)})
            assert log.journals[7][-1][1] == 12
            assert log.batch == 4


def test_damage_in_the_last_batch_is_no_torn_write_when_it_has_a_receipt():
    storage, ends = three_batches()
    whole = bytes(storage.files[1])
    for position in range(ends[1], ends[2] - RECEIPT.size):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        with pytest.raises(Corruption, match="batch 3 was durable"):
            open_log({1: damaged})
        damaged[position : -RECEIPT.size] = bytes(len(damaged) - RECEIPT.size - position)
        with pytest.raises(Corruption, match="batch 3 was durable"):
            open_log({1: damaged})
    # The only batch of the log, and its segment's header.
    for position in range(ends[0] - RECEIPT.size):
        damaged = bytearray(whole[: ends[0]])
        damaged[position] ^= 0x40
        with pytest.raises(Corruption):
            open_log({1: damaged})


def test_a_receipt_counts_in_its_own_segment_only():
    storage, ends = three_batches()
    receipt = bytes(storage.files[1])[ends[2] - RECEIPT.size : ends[2]]
    storage.files[2] = bytearray(b"\x01garbage" + receipt)  # a recycled block
    assert open_log(storage.files)[0].journals[7][-1][1] == 12


def test_segments_without_receipts_are_read(monkeypatch):
    monkeypatch.setattr(node_log, "SEGMENT_MAGIC", b"quorlog1")
    monkeypatch.setattr(node_log, "_receipt", lambda sequence, number: b"")
    storage, _ = three_batches()
    monkeypatch.undo()
    log, again = open_log(storage.files)
    assert log.journals[7][-1][1] == 12
    log.journals[7].add(b"\0z", 13, 1)
    sync(log, again)
    assert open_log(again.files)[0].journals[7][-1] == (b"\0z", 13, 1)


def test_recovery_makes_durable_what_a_dead_process_may_have_left_in_the_page_cache():
    log, storage = open_log()
    create(log)
    sync(log, storage)
    last = max(s for s in storage.files if storage.files[s])
    _, again = open_log(storage.files)
    assert again.synced == [last]


def test_damage_before_the_last_batch_is_never_skipped():
    storage, ends = three_batches()
    whole = bytes(storage.files[1])
    receipt = range(ends[0] - RECEIPT.size, ends[0])
    for position in range(SEGMENT_HEADER.size, ends[1] - RECEIPT.size):
        if position in receipt:
            continue
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        with pytest.raises(Corruption):
            open_log({1: damaged})


def test_damage_in_an_older_segment_is_never_skipped():
    storage, ends = three_batches()
    log, again = open_log(storage.files)
    log.journals[7].add(b"\0z", 13, 1)
    sync(log, again)
    for position in (0, SEGMENT_HEADER.size + 3, ends[2] - RECEIPT.size - 1):
        files = {number: bytearray(data) for number, data in again.files.items()}
        files[1][position] ^= 1
        with pytest.raises(Corruption):
            open_log(files)
    files = {number: bytearray(data) for number, data in again.files.items()}
    del files[1][ends[1] :]  # a whole batch is missing: the numbers have a gap
    with pytest.raises(Corruption):
        open_log(files)


def test_a_torn_first_batch_of_a_segment_may_be_met_twice():
    storage, _ = three_batches()
    storage.files[2] = bytearray(b"\x01garbage")
    log, again = open_log(storage.files)
    again.files.setdefault(2, bytearray())  # the removal did not last
    assert open_log(again.files)[0].journals[7][-1][1] == 12
    assert log.journals[7][-1][1] == 12


def test_old_segments_are_freed_by_carrying_live_groups_forward():
    log, storage = open_log(segment_bytes=2000)
    idle, busy = create(log, 1), create(log, 2)
    idle.setCurrentTerm(5, 1)
    sync(log, storage)
    for index in range(11, 400):
        busy.add(b"\0" + b"p" * 100, index, 1)
        sync(log, storage)
        if index % 10 == 0:
            busy.setRaftCommitIndex(index)
            checkpoint = Checkpoint(LogIndex(index), Term(1), CONFIGURATION, b"s%d" % index)
            busy.set_checkpoint(checkpoint, index - 3)
            sync(log, storage)
    assert len(storage.files) <= SEGMENTS_KEPT + 2
    again, _ = open_log(storage.files)
    assert seen(again) == seen(log)
    assert again.journals[1].term == 5


def test_a_group_that_is_not_checkpointed_keeps_its_segments():
    log, storage = open_log(segment_bytes=1000)
    journal = create(log)
    for index in range(11, 100):
        journal.add(b"\0" + b"p" * 100, index, 1)
        sync(log, storage)
    assert 1 in storage.files
    assert len(open_log(storage.files)[0].journals[7]) == 90


def test_a_removed_group_stays_removed():
    log, storage = open_log()
    create(log, 7)
    create(log, 8)
    sync(log, storage)
    log.remove(7)
    assert log.wants_sync
    sync(log, storage)
    assert list(open_log(storage.files)[0].journals) == [8]


def test_when_durable_waits_for_all_that_was_handed_over():
    log, storage = open_log()
    called = []
    assert not log.when_durable(lambda: called.append("idle"))
    create(log)
    assert log.when_durable(lambda: called.append("first"))
    log.sync()
    create(log, 8)
    assert log.when_durable(lambda: called.append("second"))
    storage.finish()
    assert called == ["first"]
    sync(log, storage)
    assert called == ["first", "second"]


@pytest.mark.parametrize(
    ("index", "slack_entries", "slack_bytes", "peers", "expected"),
    [
        (30, 0, 1 << 20, 50, 30),  # nothing is cut past the checkpoint
        (50, 10, 1 << 20, 50, 40),  # slack for followers that lag a little
        (50, 10, 1 << 20, 25, 25),  # a live peer pins
        (50, 10, 500, 25, 45),  # ... within reason
        (50, 100, 1 << 20, 0, 10),
    ],
)
def test_where_the_log_may_begin(index, slack_entries, slack_bytes, peers, expected):
    log, _ = open_log()
    journal = create(log)
    for number in range(11, 51):
        journal.add(b"\0abc", number, 1)
    assert journal.keep_from(index, slack_entries, slack_bytes, peers) == expected
