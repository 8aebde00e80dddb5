"""BatchGetItem and BatchWriteItem over partition groups in memory."""

import pytest

from proto.messages import Get, OutcomeUnknown, Unavailable, Write, WrongPartition
from tests.unit.router_harness import Harness, partitions, table


def unavailable(request_id):
    return Unavailable(request_id, "down")


def unknown(request_id):
    return OutcomeUnknown(request_id, "lost")


@pytest.fixture
def harness():
    return (
        Harness()
        .add_table()
        .add_table(table("Ranged", sort="N", table_id=301), count=4, first_group=10)
    )


def batch_get(harness, status=200, **request_items):
    answer = harness.request("BatchGetItem", {"RequestItems": request_items})
    assert answer[0] == status, answer[1]
    return answer[1]


def batch_write(harness, status=200, **request_items):
    answer = harness.request("BatchWriteItem", {"RequestItems": request_items})
    assert answer[0] == status, answer[1]
    return answer[1]


def put(pk, **attributes):
    return {"PutRequest": {"Item": {"pk": {"S": pk}, **attributes}}}


def delete(pk):
    return {"DeleteRequest": {"Key": {"pk": {"S": pk}}}}


def key(pk):
    return {"pk": {"S": pk}}


def ranged(pk, sk):
    return {"pk": {"S": pk}, "sk": {"N": str(sk)}}


def test_writes_and_reads_across_tables_and_partitions(harness):
    items = [ranged(f"p{i}", i) for i in range(20)]
    answer = batch_write(
        harness,
        Things=[put("a", x={"N": "1.0"}), put("b")],
        Ranged=[{"PutRequest": {"Item": item}} for item in items],
    )
    assert answer == {"UnprocessedItems": {}}
    groups = {r.group for r in harness.storage.requests if isinstance(r, Write)}
    assert groups >= {1, 10, 11, 12, 13}
    answer = batch_get(
        harness,
        Things={"Keys": [key("b"), key("none"), key("a")]},
        Ranged={"Keys": items, "ConsistentRead": True},
    )
    assert answer == {
        "Responses": {"Things": [key("b"), {**key("a"), "x": {"N": "1"}}], "Ranged": items},
        "UnprocessedKeys": {},
    }
    asked = [r for r in harness.storage.requests if isinstance(r, Get)]
    assert [r.strong for r in asked] == [False] * 3 + [True] * 20
    batch_write(harness, Things=[delete("a"), put("c")])
    assert batch_get(harness, Things={"Keys": [key("a"), key("c")]})["Responses"] == {
        "Things": [key("c")]
    }


def test_each_put_has_a_request_id_of_its_own(harness):
    batch_write(harness, Things=[put("a"), put("b"), delete("c")])
    writes = [r for r in harness.storage.requests if isinstance(r, Write)]
    assert len({w.request_id for w in writes}) == 3
    assert all(len(w.actions) == 1 for w in writes)


def test_what_could_not_be_read_comes_back_as_it_was_asked(harness):
    harness.put({**key("a"), "x": {"S": "1"}}, {**key("b"), "x": {"S": "2"}})
    harness.storage.weather = [unavailable]
    asked = {
        "Keys": [key("a"), key("b")],
        "ProjectionExpression": "#x",
        "ExpressionAttributeNames": {"#x": "x"},
        "ConsistentRead": True,
    }
    answer = batch_get(harness, Things=asked)
    assert answer == {
        "Responses": {"Things": [{"x": {"S": "2"}}]},
        "UnprocessedKeys": {"Things": {**asked, "Keys": [key("a")]}},
    }
    again = harness.request("BatchGetItem", {"RequestItems": answer["UnprocessedKeys"]})[1]
    assert again == {"Responses": {"Things": [{"x": {"S": "1"}}]}, "UnprocessedKeys": {}}


def test_what_could_not_be_written_comes_back(harness):
    harness.storage.weather = [unavailable, unknown]
    answer = batch_write(harness, Things=[put("a", x={"NULL": True}), delete("b"), put("c")])
    assert answer == {
        "UnprocessedItems": {"Things": [put("a", x={"NULL": True}), delete("b")]},
    }
    assert batch_write(harness, **answer["UnprocessedItems"]) == {"UnprocessedItems": {}}


@pytest.mark.parametrize(
    ("weather", "status", "code"),
    [
        ([unavailable, unavailable], 503, "ServiceUnavailable"),
        ([unavailable, unknown], 500, "InternalServerError"),
        ([unknown, unavailable], 500, "InternalServerError"),
    ],
)
def test_when_nothing_was_written_the_batch_fails(harness, weather, status, code):
    harness.storage.weather = list(weather)
    body = batch_write(harness, status, Things=[put("a"), put("b")])
    assert body["__type"].endswith(code)


def test_when_nothing_was_read_the_batch_fails(harness):
    harness.storage.weather = [unavailable] * 2
    body = batch_get(harness, 503, Things={"Keys": [key("a"), key("b")]})
    assert body["__type"].endswith("ServiceUnavailable")


def test_a_moved_partition_is_asked_where_it_is_now(harness):
    harness.put(key("a"))
    old = harness.catalog.view.partitions(300).rows
    harness.storage.groups[7] = harness.storage.groups.pop(1)

    async def refresh(_name):
        harness.catalog.change(partitions(300, 1, 7), old)

    harness.catalog.refresh_table = refresh
    assert batch_get(harness, Things={"Keys": [key("a"), key("b")]}) == {
        "Responses": {"Things": [key("a")]},
        "UnprocessedKeys": {},
    }
    assert [r.group for r in harness.storage.requests if isinstance(r, Get)] == [1, 1, 7, 7]


def test_a_repeated_put_keeps_its_request_id(harness):
    harness.storage.weather = [lambda request_id: WrongPartition(request_id, 1)]
    assert batch_write(harness, Things=[put("a")]) == {"UnprocessedItems": {}}
    first, second = [r for r in harness.storage.requests if isinstance(r, Write)]
    assert first.request_id == second.request_id


def test_one_partition_gives_about_a_megabyte(harness):
    large = "x" * 300_000
    for name in "abcdefgh":
        harness.put({**key(name), "x": {"S": large}})
    asked = {"Keys": [key(name) for name in "abcdefgh"], "AttributesToGet": ["pk"]}
    answer = batch_get(harness, Things=asked)
    # The fourth item takes it past the limit and is the last.
    assert answer == {
        "Responses": {"Things": [key(name) for name in "abcd"]},
        "UnprocessedKeys": {"Things": {**asked, "Keys": [key(name) for name in "efgh"]}},
    }


def test_an_answer_has_at_most_sixteen_megabytes():
    harness = Harness().add_table(table("Wide", table_id=400), count=32)
    large = "x" * 400_000
    names = [f"k{n}" for n in range(60)]
    for name in names:
        harness.ok("PutItem", TableName="Wide", Item={**key(name), "x": {"S": large}})
    answer = batch_get(harness, Wide={"Keys": [key(n) for n in names], "AttributesToGet": ["pk"]})
    found = [item["pk"]["S"] for item in answer["Responses"]["Wide"]]
    left = [k["pk"]["S"] for k in answer["UnprocessedKeys"]["Wide"]["Keys"]]
    assert 30 <= len(found) <= 41
    assert sorted(found + left) == sorted(names)


def test_reads_of_one_partition_are_under_way_so_many_at_a_time(harness):
    asked = []
    harness.storage.call = lambda request, done, _deadline, _leader: asked.append((request, done))
    harness.start(
        "BatchGetItem", {"RequestItems": {"Things": {"Keys": [key(f"k{n}") for n in range(100)]}}}
    )
    assert len(asked) == 25
    for count in range(100):
        request, done = asked[count]
        done(harness.storage._answer(request))
    assert harness.replies == [(200, {"Responses": {"Things": []}, "UnprocessedKeys": {}})]


def test_consumed_capacity_is_a_list_with_an_entry_per_table(harness):
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/Ranged"
    body = harness.request(
        "BatchWriteItem",
        {
            "RequestItems": {
                "Things": [put("a", x={"S": "x" * 1500}), put("b")],
                arn: [{"PutRequest": {"Item": ranged("p", 1)}}],
            },
            "ReturnConsumedCapacity": "INDEXES",
        },
    )[1]
    assert body["ConsumedCapacity"] == [
        {"TableName": "Things", "CapacityUnits": 3.0, "Table": {"CapacityUnits": 3.0}},
        {"TableName": arn, "CapacityUnits": 1.0, "Table": {"CapacityUnits": 1.0}},
    ]
    body = harness.request(
        "BatchGetItem",
        {
            "RequestItems": {
                "Things": {"Keys": [key("a"), key("b"), key("none")]},
                arn: {"Keys": [ranged("p", 1)], "ConsistentRead": True},
            },
            "ReturnConsumedCapacity": "TOTAL",
        },
    )[1]
    assert body["ConsumedCapacity"] == [
        {"TableName": "Things", "CapacityUnits": 1.5},
        {"TableName": arn, "CapacityUnits": 1.0},
    ]
    assert set(body["Responses"]) == {"Things", arn}


def test_a_table_named_twice_answers_under_both_names(harness):
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/Things"
    harness.put(key("a"), key("b"))
    answer = batch_get(harness, **{arn: {"Keys": [key("a")]}, "Things": {"Keys": [key("b")]}})
    assert answer["Responses"] == {arn: [key("a")], "Things": [key("b")]}
    both = {arn: {"Keys": [key("a")]}, "Things": {"Keys": [key("a"), key("b")]}}
    body = batch_get(harness, 400, **both)
    assert body["message"] == "Provided list of item keys contains duplicates"
    body = batch_write(harness, 400, **{arn: [put("a")], "Things": [delete("a")]})
    assert body["message"] == "Provided list of item keys contains duplicates"


def test_a_missing_table_fails_the_batch_before_anything_is_done(harness):
    before = len(harness.storage.requests)
    body = batch_write(harness, 400, Things=[put("a")], Nowhere=[put("b")])
    assert body["__type"].endswith("ResourceNotFoundException")
    body = batch_get(harness, 400, Things={"Keys": [key("a")]}, Nowhere={"Keys": [key("b")]})
    assert body["__type"].endswith("ResourceNotFoundException")
    assert len(harness.storage.requests) == before


@pytest.mark.parametrize(
    ("operation", "request_items", "message"),
    [
        (
            "BatchWriteItem",
            {"Things": [put(f"k{n}") for n in range(20)],
             "Ranged": [{"DeleteRequest": {"Key": ranged("p", n)}} for n in range(6)]},
            "Too many items requested for the BatchWriteItem call",
        ),
        (
            "BatchGetItem",
            {"Things": {"Keys": [key(f"k{n}") for n in range(60)]},
             "Ranged": {"Keys": [ranged("p", n) for n in range(41)]}},
            "Too many items requested for the BatchGetItem call",
        ),
        (
            "BatchGetItem",
            {"Ranged": {"Keys": [ranged("p", "1"), ranged("p", "1.0")]}},
            "Provided list of item keys contains duplicates",
        ),
        (
            "BatchWriteItem",
            {"Things": [put("a"), delete("a")]},
            "Provided list of item keys contains duplicates",
        ),
        (
            "BatchWriteItem",
            {"Ranged": [put("a")]},
            "The provided key element does not match the schema",
        ),
        (
            "BatchWriteItem",
            {"Things": [{}]},
            "Supplied AttributeValue has more than one datatypes set, "
            "must contain exactly one of the supported datatypes",
        ),
        (
            "BatchWriteItem",
            {"Things": [{**put("a"), **delete("b")}]},
            "Supplied AttributeValue has more than one datatypes set, "
            "must contain exactly one of the supported datatypes",
        ),
        (
            "BatchWriteItem",
            {"Things": [put("a", x={"S": "x" * 409_600})]},
            "Item size has exceeded the maximum allowed size",
        ),
        (
            "BatchGetItem",
            {"Things": {"Keys": [{"pk": {"S": ""}}]}},
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: pk",
        ),
    ],
)  # fmt: skip
def test_requests_that_are_wrong(harness, operation, request_items, message):
    status, body = harness.request(operation, {"RequestItems": request_items})
    assert (status, body["message"]) == (400, message)


def test_all_writes_go_out_before_the_first_answer(harness):
    asked = []
    harness.storage.call = lambda request, done, _deadline, _leader: asked.append((request, done))
    harness.start("BatchWriteItem", {"RequestItems": {"Things": [put("a"), put("b"), put("c")]}})
    assert len(asked) == 3
    for request, done in reversed(asked):
        assert not harness.replies
        done(harness.storage._answer(request))
    assert harness.replies == [(200, {"UnprocessedItems": {}})]
