"""A replica as a leader, a follower, and in between."""

import msgspec
import pytest

from datamodel.stored_items import record_body, record_log_index, record_size, record_timestamp
from proto.messages import (
    CHECK,
    RETURN_ALL_NEW,
    RETURN_ALL_OLD,
    RETURN_UPDATED_NEW,
    RETURN_UPDATED_OLD,
    Action,
    NotLeader,
    OutcomeUnknown,
    Refused,
    Stats,
    StatsReply,
    Unavailable,
    Value,
    Written,
)
from raft.group import Role
from storagenode.engines.engine import DATA
from storagenode.replicas.log_entries import decode_entry, decode_state, encode_state
from storagenode.replicas.writing import BATCH_REQUESTS_MAX, QUEUE_REQUESTS_MAX
from tests.unit.storagenode_harness import (
    ABSENT,
    MEMBERS,
    World,
    body,
    delete,
    get,
    item,
    put,
    read,
    update,
)


@pytest.fixture
def world():
    return World().lead()


# --- writes ---


def test_a_write_is_answered_once_it_is_committed_and_applied(world):
    number = world.write(put("b", n={"N": "1"}))
    assert world.link.take() == []
    world.environment.turn()
    world.group.synced()
    assert world.link.take() == []
    assert world.engine.get(DATA + b"b") is None
    world.group.commit()
    (answer,) = world.link.take()
    assert isinstance(answer, Written)
    assert answer.id == number
    assert (answer.results[0].old_size, answer.results[0].new_size) == (0, 10)
    record = world.engine.get(DATA + b"b")
    assert msgspec.json.decode(record_body(record)) == item("b", n={"N": "1"})
    assert record_size(record) == 10
    assert record_log_index(record) == world.group.index
    assert record_timestamp(record) == world.wall


def test_writes_gather_while_an_fsync_runs_and_go_down_as_one_entry(world):
    world.write(put("b"))
    world.environment.turn()
    for key in "cdef":
        world.write(put(key))
        world.environment.turn()
    assert len(world.group.proposals) == 1
    world.group.synced()
    assert len(world.group.proposals) == 2
    assert len(decode_entry(world.group.proposals[1][0]).outcomes) == 4
    world.group.commit()
    assert [type(answer) for answer in world.link.take()] == [Written] * 5
    assert world.replica.item_count == 5


def test_writes_to_one_item_see_each_other_before_anything_is_committed(world):
    world.write(put("b", condition=ABSENT))
    world.environment.turn()
    world.group.synced()
    for _ in range(3):
        add = update("b", "ADD n :one", {":one": {"N": "1"}}, returns=RETURN_UPDATED_NEW)
        world.write(add)
        world.environment.turn()
        world.group.synced()
    assert world.group.proposals
    world.group.commit()
    answers = world.link.take()
    assert [a.results[0].attributes for a in answers] == [
        None, b'{"n":{"N":"1"}}', b'{"n":{"N":"2"}}', b'{"n":{"N":"3"}}',
    ]  # fmt: skip
    assert read(world, "b") == item("b", n={"N": "3"})


def test_a_condition_refused_by_committed_state_is_answered_at_once(world):
    world.written(put("b", n={"N": "1"}))
    world.write(put("b", condition=ABSENT))
    world.environment.turn()
    (answer,) = world.link.take()
    assert isinstance(answer, Refused)
    assert (answer.code, answer.message) == (
        "ConditionalCheckFailedException",
        "The conditional request failed",
    )
    assert (answer.reasons[0].old_size, answer.reasons[0].item) == (10, None)
    assert not world.group.proposals


def test_a_failed_condition_shows_the_item_when_asked_to(world):
    world.written(put("b", n={"N": "1"}))
    world.write(
        delete("b", condition="n = :two", values=body({":two": {"N": "2"}}), return_on_failure=True)
    )
    world.environment.turn()
    (answer,) = world.link.take()
    assert msgspec.json.decode(answer.reasons[0].item) == item("b", n={"N": "1"})


@pytest.mark.parametrize("committed", [True, False])
def test_a_condition_refused_by_proposed_state_waits_for_that_proposal(world, committed):
    world.write(put("b", condition=ABSENT))
    world.environment.turn()
    world.group.synced()
    second = world.write(put("b", condition=ABSENT))
    world.environment.turn()
    assert world.link.take() == []
    if committed:
        world.group.commit()
        first_answer, answer = world.link.take()
        assert isinstance(first_answer, Written)
        assert isinstance(answer, Refused)
    else:
        world.group.follow()
        first_answer, answer = world.link.take()
        assert isinstance(first_answer, OutcomeUnknown)
        assert answer == NotLeader(second, "node-2")


def test_a_condition_refused_by_its_own_batch_waits_for_that_batch(world):
    world.write(put("b", condition=ABSENT))
    world.write(put("b", condition=ABSENT))
    world.environment.turn()
    assert world.link.take() == []
    world.group.commit()
    assert [type(answer) for answer in world.link.take()] == [Written, Refused]


def test_a_refusal_needs_leadership_confirmed(world):
    world.written(put("b"))
    world.group.lease = False
    world.write(put("b", condition=ABSENT))
    world.environment.turn()
    assert world.link.take() == []
    world.group.pass_barriers()
    assert isinstance(world.link.take()[0], Refused)
    number = world.write(put("b", condition=ABSENT))
    world.environment.turn()
    world.group.pass_barriers(False)
    assert world.link.take() == [Unavailable(number, "leadership not confirmed")]


def test_deleting_what_is_not_there_writes_nothing(world):
    world.write(delete("b", returns=RETURN_ALL_OLD))
    world.environment.turn()
    (answer,) = world.link.take()
    assert isinstance(answer, Written)
    assert (answer.results[0].old_size, answer.results[0].attributes) == (0, None)
    assert not world.group.proposals


def test_deleting_what_was_just_deleted_waits_for_that(world):
    world.written(put("b"))
    world.write(delete("b", returns=RETURN_ALL_OLD))
    world.write(delete("b"))
    world.environment.turn()
    assert world.link.take() == []
    world.group.commit()
    first, second = world.link.take()
    assert msgspec.json.decode(first.results[0].attributes) == item("b")
    assert second.results[0].old_size == 0
    assert world.engine.get(DATA + b"b") is None


def test_several_actions_are_all_or_nothing(world):
    world.written(put("b", n={"N": "1"}))
    actions = [put("c"), put("b", condition=ABSENT), Action(CHECK, b"d", b"{}", condition=ABSENT)]
    world.write(*actions)
    world.environment.turn()
    (answer,) = world.link.take()
    assert answer.code == "TransactionCanceledException"
    assert answer.message.endswith("[None, ConditionalCheckFailed, None]")
    assert [reason.code for reason in answer.reasons] == ["None", "ConditionalCheckFailed", "None"]
    assert read(world, "c") is None
    answer = world.written(put("c"), delete("b"), Action(CHECK, b"d", b"{}", condition=ABSENT))
    assert [(r.old_size, r.new_size) for r in answer.results] == [(0, 10), (10, 0), (0, 0)]
    assert read(world, "c") == item("c")
    assert read(world, "b") is None


@pytest.mark.parametrize(
    ("actions", "code", "message"),
    [
        ([], "ValidationException", "at least one action"),
        ([put("b"), delete("b")], "ValidationException", "multiple operations on one item"),
        ([put("b", size=409_601)], "ValidationException", "Item size has exceeded"),
        (
            [update("b", "SET a = :v", {":v": {"S": "x" * 409_600}})],
            "ValidationException",
            "Item size to update has exceeded the maximum allowed size",
        ),
        (
            [update("b", "SET a = b + :v", {":v": {"N": "1"}})],
            "ValidationException",
            "The provided expression refers to an attribute that does not exist in the item",
        ),
    ],
)  # fmt: skip
def test_refused_for_what_it_is(world, actions, code, message):
    world.write(*actions)
    world.environment.turn()
    (answer,) = world.link.take()
    assert answer.code == code
    assert message in answer.message


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        (RETURN_ALL_OLD, item("b", n={"N": "1"}, o={"S": "x"})),
        (RETURN_ALL_NEW, item("b", n={"N": "2"}, o={"S": "x"})),
        (RETURN_UPDATED_OLD, {"n": {"N": "1"}}),
        (RETURN_UPDATED_NEW, {"n": {"N": "2"}}),
    ],
)
def test_return_values_of_an_update(world, returns, expected):
    world.written(put("b", n={"N": "1"}, o={"S": "x"}))
    answer = world.written(update("b", "ADD n :i", {":i": {"N": "1"}}, returns=returns))
    assert msgspec.json.decode(answer.results[0].attributes) == expected


def test_an_update_creates_the_item_and_sizes_it(world):
    answer = world.written(update("b", "SET a = :v", {":v": {"S": "12345"}}))
    assert answer.results[0].new_size == len("pk") + len("b") + len("a") + 5
    assert read(world, "b") == item("b", a={"S": "12345"})


def test_counters_follow_what_is_committed(world):
    world.written(put("b", size=100))
    world.written(put("c", size=50))
    world.written(put("b", size=70))
    world.written(delete("c"))
    assert (world.replica.item_count, world.replica.size_bytes) == (1, 70)
    world.replica.on_stats(world.link, Stats(9, 7))
    assert world.link.take() == [StatsReply(9, 1, 70)]


# --- retries ---


def test_a_retry_of_a_write_under_way_gets_the_same_answer(world):
    first = world.write(put("b"), request_id=b"r" * 16)
    world.environment.turn()
    again = world.write(put("b"), request_id=b"r" * 16)
    world.environment.turn()
    world.group.commit()
    answers = world.link.take()
    assert [answer.id for answer in answers] == [first, again]
    assert len(world.group.log) == 1


def test_a_retry_of_a_write_that_was_done_gets_the_first_outcome(world):
    increment = update("b", "ADD n :i", {":i": {"N": "1"}}, returns=RETURN_UPDATED_NEW)
    first = world.written(increment, request_id=b"r" * 16)
    world.write(increment, request_id=b"r" * 16)
    (again,) = world.link.take()
    assert again.results == first.results
    assert read(world, "b")["n"] == {"N": "1"}


def test_a_new_leader_remembers_requests_that_it_only_applied(world):
    world.written(put("b"), request_id=b"r" * 16)
    other = World()
    for index, term, payload in world.group.log:
        other.replica.apply(index, term, payload)
    other.group.index = world.group.index
    other.round.flush()
    other.lead()
    other.write(put("b", condition=ABSENT), request_id=b"r" * 16)
    (answer,) = other.link.take()
    assert isinstance(answer, Written)
    assert list(other.engine.iterate(DATA, DATA + b"\xff")) == list(
        world.engine.iterate(DATA, DATA + b"\xff")
    )
    assert (other.replica.item_count, other.replica.size_bytes) == (1, 10)


def test_a_retry_after_a_lost_leadership_applies_once(world):
    world.write(put("b", condition=ABSENT), request_id=b"r" * 16)
    world.environment.turn()
    payload = world.group.proposals[0][0]
    world.group.follow()
    assert isinstance(world.link.take()[0], OutcomeUnknown)
    # The entry was committed by the next leader after all; then we lead again.
    world.group.index += 1
    world.replica.apply(world.group.index, world.group.term, payload)
    world.round.flush()
    world.lead()
    world.write(put("b", condition=ABSENT), request_id=b"r" * 16)
    assert isinstance(world.link.take()[0], Written)


def test_replaying_entries_changes_nothing(world):
    for number in range(5):
        world.written(put("b", n={"N": str(number)}, size=20 + number))
    world.written(put("c"))
    before = dict(world.engine.iterate(b"", b"\xff"))
    for index, term, payload in world.group.log:
        world.replica.apply(index, term, payload)
    world.round.flush()
    assert dict(world.engine.iterate(b"", b"\xff")) == before
    assert (world.replica.item_count, world.replica.size_bytes) == (2, 34)


# --- leadership ---


def test_only_the_leader_takes_writes_and_strong_reads():
    world = World()
    world.group.follow()
    number = world.write(put("b"))
    assert world.link.take() == [NotLeader(number, "node-2")]
    number = get(world, "b")
    assert world.link.take() == [NotLeader(number, "node-2")]
    assert read(world, "b", strong=False) is None


def test_requests_that_come_before_the_leader_is_ready_wait():
    world = World()
    world.replica.role_changed(Role.LEADER, world.group.term, MEMBERS.members[0])
    world.write(put("b"))
    get(world, "b")
    world.environment.turn()
    assert world.link.take() == []
    world.lead()
    world.environment.turn()
    world.group.commit()
    world.group.pass_barriers()
    written, value = world.link.take()
    assert isinstance(written, Written)
    assert isinstance(value, Value)
    assert value.value is not None


def test_losing_leadership_answers_everybody(world):
    world.write(put("b"))
    world.environment.turn()
    queued = world.write(put("c"))
    world.group.lease = False
    reading = get(world, "d")
    world.group.follow()
    answers = {answer.id: answer for answer in world.link.take()}
    assert isinstance(answers.pop(1), OutcomeUnknown)
    assert answers == {queued: NotLeader(queued, "node-2"), reading: NotLeader(reading, "node-2")}
    assert world.replica.queued_writes == 0


def test_a_new_term_starts_from_what_is_applied(world):
    world.write(put("b", size=100))
    world.environment.turn()
    world.group.follow()
    world.link.take()
    world.lead()
    assert world.written(put("b", condition=ABSENT, size=7)).results[0].old_size == 0
    assert (world.replica.item_count, world.replica.size_bytes) == (1, 7)


def test_strong_reads_without_a_lease_share_a_barrier(world):
    world.written(put("b"))
    world.group.lease = False
    get(world, "b")
    get(world, "c")
    world.environment.turn()
    assert len(world.group.barriers) == 1
    get(world, "b")
    world.environment.turn()
    assert len(world.group.barriers) == 2  # a later read needs a later confirmation
    world.group.pass_barriers()
    assert [answer.value is not None for answer in world.link.take()] == [True, False, True]


def test_an_eventual_read_needs_a_leader_once():
    world = World()
    number = get(world, "b", strong=False)
    assert world.link.take() == [Unavailable(number, "no leader heard since the start")]


# --- bounds ---


def test_the_queue_has_a_bound(world):
    world.write(put("b"))
    world.environment.turn()
    for _ in range(QUEUE_REQUESTS_MAX):
        world.write(put("c"))
    number = world.write(put("c"))
    assert world.link.take() == [Unavailable(number, "write queue full")]


def test_an_entry_has_a_bound_and_the_rest_follows(world):
    world.group.payload_bytes_max = 4096
    count = BATCH_REQUESTS_MAX + 10
    for number in range(count):
        world.write(put(f"b{number}", a={"S": "x" * 100}))
    world.environment.turn()
    while world.group.proposals:
        world.group.commit()
        world.environment.turn()
    assert len(world.link.take()) == count
    assert max(len(payload) for _, _, payload in world.group.log) <= 4096


def test_a_write_too_large_for_the_log_is_refused(world):
    world.group.payload_bytes_max = 1000
    world.write(put("b", a={"S": "x" * 2000}))
    world.environment.turn()
    assert isinstance(world.link.take()[0], Refused)
    assert isinstance(world.written(put("c")), Written)


def test_a_write_past_its_deadline_is_not_executed(world):
    world.write(put("a"))
    world.environment.turn()
    number = world.write(put("b"), timeout_ms=50)
    world.environment.advance(0.1)
    world.group.commit()
    assert world.link.take()[-1] == Unavailable(number, "deadline passed")
    assert not world.group.proposals


# --- checkpoints ---


def test_a_checkpoint_brings_everything_back(world):
    world.written(put("b"), request_id=b"r" * 16)
    capture = world.replica.capture()
    state = decode_state(encode_state(capture.state))
    later = World(engine=world.engine, state=state, index=capture.index, term=capture.term)
    later.group.index = capture.index
    later.lead()
    later.write(put("b", condition=ABSENT), request_id=b"r" * 16)
    assert isinstance(later.link.take()[0], Written)
    assert later.replica.item_count == 1
    later.wall -= 500_000_000  # a clock that went back must not take write timestamps with it
    later.written(put("c"))
    assert record_timestamp(later.engine.get(DATA + b"c")) > record_timestamp(
        later.engine.get(DATA + b"b")
    )
