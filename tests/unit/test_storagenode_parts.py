"""The small parts: formats, request memory, checkpoints, the data directory, metrics, turns of pages."""

import asyncio
import errno

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from proto.messages import ActionResult, OutcomeUnknown, Unavailable, Written
from raft.group import LogIndex, Role, Settings, Term
from storagenode import main as storagenode_main
from storagenode.data_directory import (
    DamagedDirectory,
    DataDirectory,
    DirectoryInUse,
    ForeignDirectory,
    Peer,
)
from storagenode.engines.engine import EngineFailure
from storagenode.engines.memory_engine import MemoryEngine
from storagenode.main import initial_cluster, parse_flags
from storagenode.metrics import MeasuredLog, NodeCollector
from storagenode.peers import Peers
from storagenode.replicas import checkpoints as checkpoints_module
from storagenode.replicas import request_memory
from storagenode.replicas.apply_round import ApplyRound
from storagenode.replicas.checkpoints import Checkpoints
from storagenode.replicas.log_entries import (
    Entry,
    UnknownFormat,
    WriteOutcome,
    decode_applied,
    decode_entry,
    decode_feed_record,
    decode_state,
    encode_entry,
    encode_state,
)
from storagenode.replicas.request_memory import MEMORY_US, RESULT_BYTES_MAX, RequestMemory
from tests.unit.storagenode_fake_host import FakeHost, make_node
from tests.unit.storagenode_harness import MEMBERS, World, fresh_state, put

RESULT = [ActionResult(0, 5)]


# --- formats ---


def test_an_entry_comes_back():
    outcome = WriteOutcome(
        b"r" * 16,
        [(b"k", b'{"a":{"S":"b"}}', 3), (b"l", None, 0)],
        [ActionResult(1, 2, b"{}"), ActionResult(3, 0)],
        [(b"k", None, b"{}")],
    )
    entry = Entry(1, 123456789, 7, 99, 4, [outcome])
    assert decode_entry(encode_entry(entry)) == entry
    assert msgspec.msgpack.decode(encode_entry(entry))[:5] == [1, 123456789, 7, 99, 4]


def test_fields_of_a_newer_release_are_passed_over():
    raw = msgspec.msgpack.decode(encode_entry(Entry(1, 2, 3, 4, 5, [])))
    assert decode_entry(msgspec.msgpack.encode([*raw, "new"])) == Entry(1, 2, 3, 4, 5, [])


@pytest.mark.parametrize("decode", [decode_entry, decode_state, decode_applied, decode_feed_record])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\x91\x01", b"\x96\xa1x", b"\xff" * 9])
def test_bytes_that_are_nothing_are_refused(decode, data):
    with pytest.raises(UnknownFormat):
        decode(data)


def test_versions_of_the_future_are_refused():
    with pytest.raises(UnknownFormat, match="version 2"):
        decode_entry(encode_entry(Entry(2, 0, 0, 0, 0, [])))
    with pytest.raises(UnknownFormat, match="version 9"):
        decode_state(encode_state(msgspec.structs.replace(fresh_state(), version=9)))


# --- request memory ---


def remember(memory, request_id, timestamp, results=RESULT, now=None):
    """Both clocks show the same unless a test says otherwise."""
    memory.remember(request_id, timestamp, results, timestamp if now is None else now)
    memory.expire(timestamp if now is None else now)


def test_memory_is_bounded_in_time():
    memory = RequestMemory()
    remember(memory, b"a", 1_000)
    remember(memory, b"A", 1_000)
    remember(memory, b"b", 2_000)
    remember(memory, b"c", 1_500 + MEMORY_US)
    assert [memory.get(name) for name in (b"a", b"A")] == [None, None]
    assert memory.get(b"b") == RESULT
    assert memory.content().ids == [b"b", b"c"]


def test_a_full_memory_says_so_and_forgets_nothing(monkeypatch):
    monkeypatch.setattr(request_memory, "REQUESTS_MAX", 5)
    memory = RequestMemory()
    for number in range(5):
        assert not memory.is_full(1_000, 1_000)
        remember(memory, bytes([number]), 1_000)
    late = 1_001 + MEMORY_US
    assert memory.is_full(1_000, 1_000)
    assert memory.is_full(late - 1, late - 1)
    assert not memory.is_full(late, 1_000)  # applied in haste, long after it was written
    assert not memory.is_full(1_000, late)  # a wall clock that stands still holds up nothing
    assert len(memory) == 5


def test_a_leader_with_a_full_memory_takes_no_writes(monkeypatch):
    for module in ("request_memory", "writing"):
        monkeypatch.setattr(f"storagenode.replicas.{module}.REQUESTS_MAX", 2)
    world = World().lead()
    world.written(put("b"))
    world.written(put("b"), request_id=b"r" * 16)
    number = world.write(put("b"))
    assert world.link.take() == [Unavailable(number, "too many requests to remember")]
    world.write(put("b"), request_id=b"r" * 16)  # a retry is no new write
    assert isinstance(world.link.take()[0], Written)
    world.wall += MEMORY_US + 2
    assert isinstance(world.written(put("b")), Written)


def test_a_wall_clock_set_forward_makes_nothing_forgotten():
    memory = RequestMemory()
    remember(memory, b"a", 1_000, now=5)
    remember(memory, b"b", 1_000 + 4 * MEMORY_US, now=6)
    assert memory.get(b"a") == RESULT
    again = RequestMemory(memory.content(), now=50)  # another life, another clock
    again.expire(50 + MEMORY_US)
    assert again.get(b"a") == RESULT
    again.expire(51 + MEMORY_US)
    assert len(again) == 0


def test_large_results_go_earlier_but_not_the_request():
    memory = RequestMemory()
    large = [ActionResult(0, 1, bytes(RESULT_BYTES_MAX // 4))]
    for number in range(10):
        remember(memory, bytes([number]), number, large)
    assert [memory.get(bytes([n])) for n in (0, 6, 7, 9)] == [[], [], large, large]
    again = RequestMemory(memory.content(), now=5)
    assert again.content() == memory.content()
    remember(memory, b"late", 5 + MEMORY_US)
    assert memory.content().ids == [*(bytes([n]) for n in range(5, 10)), b"late"]
    remember(again, b"late", 5 + MEMORY_US)
    assert again.content().ids == [*(bytes([n]) for n in range(10)), b"late"]
    for both in (memory, again):
        remember(both, b"later", 100 + MEMORY_US, large)
        assert both.content().ids == [b"late", b"later"]
        assert both._large_bytes == len(msgspec.msgpack.encode(large))


def test_a_retry_whose_results_are_forgotten_is_not_applied_again(monkeypatch):
    monkeypatch.setattr(request_memory, "RESULT_BYTES_MAX", 100)
    world = World().lead()
    world.written(put("b", a={"S": "x" * 200}))
    world.written(put("b", a={"S": "x" * 200}, returns=1), request_id=b"r" * 16)
    world.written(put("b", returns=1))
    number = world.write(put("b", a={"S": "new"}), request_id=b"r" * 16)
    assert isinstance(world.link.take()[0], OutcomeUnknown)
    assert number
    assert world.replica.queued_writes == 0


def test_a_retry_that_waits_for_leadership_is_not_done_again():
    """It came when what the dead leader had proposed was in our log, but not applied yet."""
    world = World()
    theirs = World().lead()
    theirs.write(put("b"), request_id=b"r" * 16)
    theirs.environment.turn()
    payload = theirs.group.proposals[0][0]
    world.replica.role_changed(Role.LEADER, Term(2), MEMBERS.members[0])
    number = world.write(put("b"), request_id=b"r" * 16)
    other = world.write(put("c"))
    world.group.index += 1
    world.replica.apply(LogIndex(world.group.index), Term(1), payload)
    world.group.lead()
    assert world.link.take() == [Written(number, [ActionResult(0, 10)], world.group.index)]
    world.environment.turn()
    world.group.commit()
    assert world.link.take() == [Written(other, [ActionResult(0, 10)], world.group.index)]
    assert world.replica.item_count == 2


def test_remembering_again_changes_nothing():
    memory = RequestMemory()
    remember(memory, b"a", 1)
    remember(memory, b"a", 2, [ActionResult(9, 9)])
    assert memory.get(b"a") == RESULT
    assert len(memory) == 1


# --- apply round ---


def test_a_failing_engine_ends_the_process():
    class Broken(MemoryEngine):
        def write(self, mutations, *, sync=False):
            raise EngineFailure("disk")

    failures = []
    world = World(engine=Broken())
    world.round._on_failure = failures.append
    world.replica.apply(11, 1, None)
    with pytest.raises(EngineFailure):
        world.round.flush()
    assert len(failures) == 1


# --- checkpoints ---


def make_checkpoints(world):
    return Checkpoints(
        world.engine, world.round, lambda: [world.replica], lambda: world.environment.time
    )


def test_a_checkpoint_is_due_after_bytes_or_after_quiet(monkeypatch):
    monkeypatch.setattr(checkpoints_module, "CHECKPOINT_BYTES", 1000)
    world = World().lead()
    world.replica.clean()
    checkpoints = make_checkpoints(world)
    assert not checkpoints.is_due()
    world.written(put("b"))
    assert not checkpoints.is_due()
    world.environment.time += 9
    world.written(put("b"))
    assert not checkpoints.is_due()
    world.environment.time += 9
    assert not checkpoints.is_due()  # quiet for nine seconds only
    world.environment.time += 1.5
    assert checkpoints.is_due()
    asyncio.run(checkpoints.take())
    assert not checkpoints.is_due()
    world.environment.time += 100
    assert not checkpoints.is_due()
    while world.round.applied_bytes < 1000:
        world.written(put("b"))
    assert checkpoints.is_due()


def test_a_checkpoint_is_of_before_the_engine_was_made_durable():
    world = World().lead()
    world.written(put("b"))
    index = world.replica.applied_index
    make_durable = world.engine.make_durable

    def meanwhile():
        world.written(put("c"))
        make_durable()

    world.engine.make_durable = meanwhile
    checkpoints = make_checkpoints(world)
    asyncio.run(checkpoints.take())
    ((at, _, state),) = world.group.checkpoints
    assert at == index
    assert decode_state(state).item_count == 1
    assert world.replica.dirty_since < float("inf")  # what came meanwhile is the next one's
    assert checkpoints.taken == 1


def test_a_damaged_replica_takes_no_checkpoint():
    world = World().lead()
    world.written(put("b"))
    world.replica.fail("damaged")
    asyncio.run(make_checkpoints(world).take())
    assert world.group.checkpoints == []


# --- data directory ---


def test_an_identity_is_made_once(tmp_path):
    directory = DataDirectory(tmp_path / "d")
    first = directory.load_identity("n1", "az1", "aaaa")
    assert (first.node_id, first.cluster_id) == ("n1.aaaa", "")
    directory.store_identity(msgspec.structs.replace(first, cluster_id="c"))
    directory.close()
    directory = DataDirectory(tmp_path / "d")
    again = directory.load_identity("n1", "az2", "bbbb")
    assert (again.node_id, again.cluster_id, again.az) == ("n1.aaaa", "c", "az2")
    with pytest.raises(ForeignDirectory):
        directory.load_identity("n2", "az1", "cccc")
    (tmp_path / "d" / "node.json").write_text("{")
    with pytest.raises(DamagedDirectory):
        directory.load_identity("n1", "az1", "cccc")
    directory.close()


def test_a_directory_is_locked(tmp_path):
    directory = DataDirectory(tmp_path / "d")
    with pytest.raises(DirectoryInUse):
        DataDirectory(tmp_path / "d")
    directory.close()
    DataDirectory(tmp_path / "d").close()


def test_peers_are_kept(tmp_path):
    directory = DataDirectory(tmp_path / "d")
    assert directory.load_peers() == []
    peers = [Peer("n2.x", "n2", "az2", "h:2", "h:3")]
    directory.store_peers(peers)
    assert directory.load_peers() == peers
    (tmp_path / "d" / "peers.json").write_text("[{")
    assert directory.load_peers() == []
    directory.close()


# --- metrics ---


class InstantLog:
    def append(self, data, on_durable, receipt):
        on_durable()

    def roll(self, segment): ...
    def segments(self): ...
    def read(self, segment): ...
    def truncate(self, segment, size): ...
    def remove(self, segment): ...


def test_metrics_are_read_when_asked_for(tmp_path):
    engine, host = MemoryEngine(), FakeHost()
    node = make_node(engine, host, tmp_path)
    world = World()
    node.replicas[7] = world.replica
    world.lead()
    world.written(put("b", size=42))
    clock = iter([0.0, 0.003, 1.0, 5.0])
    measured = MeasuredLog(InstantLog(), lambda: next(clock))
    calls = []
    measured.append(b"12345", lambda: calls.append(1), b"")
    measured.append(b"678", lambda: calls.append(2), b"")
    assert calls == [1, 2]
    registry = CollectorRegistry()
    checkpoints = Checkpoints(engine, ApplyRound(engine, lambda e: None), list, lambda: 0.0)
    registry.register(NodeCollector(node, engine, world.round, checkpoints, measured))
    text = generate_latest(registry).decode()
    for line in (
        'quorate_storagenode_raft_role{group="7",role="leader"} 1.0',
        'quorate_storagenode_raft_role{group="7",role="follower"} 0.0',
        'quorate_storagenode_raft_applied_index{group="7"} 12.0',
        'quorate_storagenode_partition_size_bytes{group="7"} 42.0',
        'quorate_storagenode_log_sync_seconds_bucket{le="0.004"} 1.0',
        "quorate_storagenode_log_sync_seconds_count 2.0",
        "quorate_storagenode_log_bytes_total 8.0",
        "quorate_storagenode_applied_entries_total 1.0",
    ):
        assert line in text, text


# --- flags ---


def test_flags():
    flags = parse_flags(
        ["--name", "n", "--az", "az1", "--data-dir", "d",
         "--initial-cluster", "a@az1=h:1, b@az2=[::1]:2"]
    )  # fmt: skip
    assert [(n.name, n.az, n.address) for n in flags.initial_cluster] == [
        ("a", "az1", "h:1"),
        ("b", "az2", "[::1]:2"),
    ]


def test_the_margin_of_leases():
    given = ["--name", "n", "--az", "az1", "--data-dir", "d"]
    assert storagenode_main._options(parse_flags(given)).raft == Settings()
    flags = parse_flags([*given, "--clock-drift-margin", "0.4"])
    assert storagenode_main._options(flags).raft.clock_drift_margin == 0.4
    with pytest.raises(SystemExit):
        parse_flags([*given, "--clock-drift-margin", "1.1"])


@pytest.mark.parametrize(
    "text", ["a=h:1", "a@az1", "@az=h:1", "a@=h:1", "a@az=h", "a@z=h:1,a@z=h:2"]
)
def test_bad_initial_clusters(text):
    with pytest.raises(Exception, match=r"expected|twice"):
        initial_cluster(text)


def test_peers_that_cannot_be_stored_are_known_all_the_same():
    def no_space(book):
        raise OSError(errno.ENOSPC, "no space left on device")

    peers = Peers("node-1", lambda *_: None, [], no_space)
    peers.learn([Peer("node-2", "n2", "az2", "h:2")])
    assert peers.find("node-2").address == "h:2"


@pytest.mark.parametrize("hard", [300, 100_000])
def test_a_node_may_open_as_many_files_as_it_wants_and_is_allowed(monkeypatch, hard):
    """LevelDB reads tables instead of mapping them, and keeps them open within a fifth of the limit."""
    set_to = []
    monkeypatch.setattr(storagenode_main.resource, "getrlimit", lambda which: (256, hard))
    monkeypatch.setattr(
        storagenode_main.resource, "setrlimit", lambda which, limits: set_to.append(limits)
    )
    storagenode_main._allow_open_files()
    assert set_to == [(min(hard, 8192), hard)]
    monkeypatch.setattr(storagenode_main.resource, "getrlimit", lambda which: (hard, hard))
    storagenode_main._allow_open_files()
    assert len(set_to) == 1, "nothing is lowered"
