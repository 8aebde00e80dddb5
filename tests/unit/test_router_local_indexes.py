"""Requests about local indexes through the dispatcher, over partition groups in memory."""

import ast
from pathlib import Path

import pytest

from datamodel.local_indexes import LocalIndex
from proto.messages import Unavailable, Write
from tests.unit.router_harness import Harness, table

INDEXES = (
    LocalIndex("all", "n", "N", "ALL"),
    LocalIndex("keys", "s", "S", "KEYS_ONLY"),
    LocalIndex("some", "n", "N", "INCLUDE", ("v",)),
)
ESK = "The provided starting key is invalid"
MISMATCH = "The provided key element does not match the schema"


@pytest.fixture(params=[1, 5])
def things(request):
    """A table with three local indexes, in one and in five partitions."""
    return Harness().add_table(table(sort="S", local_indexes=INDEXES), count=request.param)


def item(pk, sk, n=None, s=None, **attributes):
    whole = {"pk": {"S": pk}, "sk": {"S": sk}, **attributes}
    if n is not None:
        whole["n"] = {"N": str(n)}
    if s is not None:
        whole["s"] = {"S": s}
    return whole


def query(things, index, condition="pk = :p", values=None, **members):
    return things.ok(
        "Query",
        IndexName=index,
        KeyConditionExpression=condition,
        ExpressionAttributeValues={":p": {"S": "a"}, **(values or {})},
        **members,
    )


def query_error(things, index, condition="pk = :p", values=None, **members):
    status, code, message = things.error(
        "Query",
        IndexName=index,
        KeyConditionExpression=condition,
        ExpressionAttributeValues={":p": {"S": "a"}, **(values or {})},
        **members,
    )
    assert (status, code) == (400, "ValidationException")
    return message


def fill(things):
    things.put(
        item("a", "1", 3, "x", v={"S": "v1"}, w={"S": "w1"}),
        item("a", "2", 1, "y", v={"S": "v2"}, w={"S": "w2"}),
        item("a", "3", 3, None, v={"S": "v3"}),
        item("a", "4", None, "x"),
        item("b", "1", 9, "z"),
    )


def sort_keys(body):
    return "".join(entry["sk"]["S"] for entry in body["Items"])


@pytest.mark.parametrize(
    ("index", "condition", "values", "expected"),
    [
        ("all", "pk = :p", {}, "213"),
        ("keys", "pk = :p", {}, "142"),
        ("all", "pk = :p AND n = :n", {":n": {"N": "3.0"}}, "13"),
        ("all", "pk = :p AND n < :n", {":n": {"N": "3"}}, "2"),
        ("some", "pk = :p AND n BETWEEN :n AND :m", {":n": {"N": "2"}, ":m": {"N": "4"}}, "13"),
        ("keys", "begins_with(s, :s) AND pk = :p", {":s": {"S": "x"}}, "14"),
        ("keys", "pk = :p AND s > :s", {":s": {"S": "x"}}, "2"),
    ],
)
def test_queries_follow_the_index(things, index, condition, values, expected):
    fill(things)
    assert sort_keys(query(things, index, condition, values)) == expected
    body = query(things, index, condition, values, ScanIndexForward=False)
    assert sort_keys(body) == expected[::-1]
    body = query(things, index, condition, values, ConsistentRead=True, Select="COUNT")
    assert (body["Count"], "Items" in body) == (len(expected), False)


def test_entries_have_what_the_index_projects(things):
    fill(things)
    assert query(things, "all")["Items"][0] == item("a", "2", 1, "y", v={"S": "v2"}, w={"S": "w2"})
    assert query(things, "keys")["Items"][0] == item("a", "1", None, "x")
    assert query(things, "some")["Items"][0] == item("a", "2", 1, v={"S": "v2"})
    body = query(things, "some", Select="ALL_PROJECTED_ATTRIBUTES")
    assert body["Items"][0] == item("a", "2", 1, v={"S": "v2"})


@pytest.mark.parametrize(
    ("members", "first", "fetches"),
    [
        ({"Select": "ALL_ATTRIBUTES"}, item("a", "2", 1, "y", v={"S": "v2"}, w={"S": "w2"}), True),
        ({"ProjectionExpression": "sk, w"}, {"sk": {"S": "2"}, "w": {"S": "w2"}}, True),
        ({"ProjectionExpression": "sk, v"}, {"sk": {"S": "2"}, "v": {"S": "v2"}}, False),
        ({"FilterExpression": "attribute_exists(v)"}, item("a", "2", 1, v={"S": "v2"}), False),
    ],
)
def test_what_is_not_projected_is_fetched(things, members, first, fetches):
    fill(things)
    body = query(things, "some", ReturnConsumedCapacity="INDEXES", **members)
    assert body["Items"][0] == first
    table_units = 1.5 if fetches else 0.0
    assert body["ConsumedCapacity"] == {
        "TableName": "Things",
        "CapacityUnits": table_units + 0.5,
        "Table": {"CapacityUnits": table_units},
        "LocalSecondaryIndexes": {"some": {"CapacityUnits": 0.5}},
    }


@pytest.mark.parametrize(("name", "table_units"), [("v", 0.0), ("w", 1.5)])
def test_attributes_to_get_of_an_index(things, name, table_units):
    fill(things)
    body = things.ok(
        "Scan", IndexName="some", AttributesToGet=[name], ReturnConsumedCapacity="INDEXES"
    )
    assert {name: {"S": f"{name}2"}} in body["Items"]
    assert body["ConsumedCapacity"]["Table"] == {"CapacityUnits": table_units + 0.5 * (name == "w")}


def test_a_filter_on_what_is_not_projected_fetches_too(things):
    fill(things)
    body = query(
        things,
        "some",
        FilterExpression="w = :w",
        values={":w": {"S": "w1"}},
        Select="COUNT",
        ConsistentRead=True,
        ReturnConsumedCapacity="TOTAL",
    )
    assert (body["Count"], body["ScannedCount"]) == (1, 3)
    assert body["ConsumedCapacity"] == {"TableName": "Things", "CapacityUnits": 4.0}
    # All that matches is counted without a look at it.
    body = query(things, "some", Select="COUNT", ReturnConsumedCapacity="INDEXES")
    assert body["ConsumedCapacity"]["Table"] == {"CapacityUnits": 0.0}


def test_scans_of_table_and_indexes_find_each_their_own(things):
    fill(things)
    assert things.ok("Scan")["Count"] == 5
    for index, count in (("all", 4), ("keys", 4), ("some", 4)):
        body = things.ok("Scan", IndexName=index, ReturnConsumedCapacity="INDEXES")
        assert (body["Count"], body["ScannedCount"]) == (count, count)
        assert body["ConsumedCapacity"]["LocalSecondaryIndexes"] == {index: {"CapacityUnits": 0.5}}
    whole = things.ok("Scan", IndexName="keys", Select="ALL_ATTRIBUTES")["Items"]
    assert item("a", "2", 1, "y", v={"S": "v2"}, w={"S": "w2"}) in whole
    parts = [
        entry
        for segment in range(7)
        for entry in things.ok("Scan", IndexName="some", Segment=segment, TotalSegments=7)["Items"]
    ]
    assert sorted(map(str, parts)) == sorted(map(str, things.ok("Scan", IndexName="some")["Items"]))


@pytest.mark.parametrize("index", [None, "all", "keys", "some"])
@pytest.mark.parametrize("operation", ["Scan", "Query"])
@pytest.mark.parametrize("limit", [1, 2])
def test_pages_of_any_size_hold_everything_once(things, index, operation, limit):
    things.put(*(item(pk, str(sk), sk % 3, "ab"[sk % 2]) for pk in "abcd" for sk in range(6)))
    members = {"Limit": limit} if index is None else {"Limit": limit, "IndexName": index}
    if operation == "Query":
        members["KeyConditionExpression"] = "pk = :p"
        members["ExpressionAttributeValues"] = {":p": {"S": "a"}}
    whole = things.ok(operation, **{**members, "Limit": 1000})["Items"]
    found, start = [], {}
    while True:
        body = things.ok(operation, **members, **start)
        found += body["Items"]
        if "LastEvaluatedKey" not in body:
            break
        start = {"ExclusiveStartKey": body["LastEvaluatedKey"]}
        names = {"pk", "sk"} | {"all": {"n"}, "keys": {"s"}, "some": {"n"}}.get(index, set())
        assert set(body["LastEvaluatedKey"]) == names
    assert found == whole
    assert len(found) == (6 if operation == "Query" else 24)


START = {"pk": {"S": "a"}, "sk": {"S": "1"}, "n": {"N": "3"}}


@pytest.mark.parametrize(
    ("start", "condition", "values", "message"),
    [
        ({"pk": {"S": "a"}, "sk": {"S": "1"}}, "pk = :p", {}, ESK),
        ({**START, "x": {"S": "1"}}, "pk = :p", {}, ESK),
        ({"pk": {"S": "a"}, "sk": {"S": "1"}, "s": {"S": "x"}}, "pk = :p", {}, ESK),
        ({**START, "n": {"S": "3"}}, "pk = :p", {}, MISMATCH),
        ({**START, "sk": {"N": "3"}}, "pk = :p", {}, f"{ESK}: {MISMATCH}"),
        ({"pk": {"S": "a"}, "n": {"N": "1"}, "z": {"S": ""}}, "pk = :p", {}, f"{ESK}: {MISMATCH}"),
        (
            {**START, "pk": {"S": "b"}},
            "pk = :p",
            {},
            "The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            START,
            "pk = :p AND n > :n",
            {":n": {"N": "3"}},
            "The provided starting key does not match the range key predicate",
        ),
        (
            {**START, "pk": {"S": "b"}},
            "pk = :p AND n = :n",
            {":n": {"N": "3"}},
            "The query can return at most one row and cannot be restarted",
        ),
    ],
)
def test_start_keys_of_queries(things, start, condition, values, message):
    assert query_error(things, "some", condition, values, ExclusiveStartKey=start) == message


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"pk": {"S": "a"}, "sk": {"S": "1"}}, ESK),
        ({"pk": {"S": "a"}, "sk": {"S": "1"}, "s": {"S": "x"}}, ESK),
        ({**START, "n": {"S": "3"}}, MISMATCH),
        ({**START, "sk": {"N": "3"}}, f"{ESK}: {MISMATCH}"),
    ],
)
def test_start_keys_of_scans(things, start, message):
    error = things.error("Scan", IndexName="some", ExclusiveStartKey=start)
    assert error == (400, "ValidationException", message)


def test_positions_between_entries(things):
    fill(things)
    start = {"pk": {"S": "a"}, "sk": {"S": "0"}, "n": {"N": "2"}}
    assert sort_keys(query(things, "all", ExclusiveStartKey=start)) == "13"
    body = query(things, "all", ExclusiveStartKey=start, ScanIndexForward=False)
    assert sort_keys(body) == "2"


def test_refused_reads(things):
    unknown = "The table does not have the specified index: nope"
    assert query_error(things, "nope") == unknown
    assert things.error("Scan", IndexName="nope")[2] == unknown
    assert things.error("Scan", IndexName="nope", ExclusiveStartKey=START)[2] == unknown
    assert (
        query_error(things, "keys", "pk = :p AND sk = :s", {":s": {"S": "1"}})
        == "Query condition missed key schema element: s"
    )
    assert (
        query_error(things, "all", FilterExpression="n = :n", values={":n": {"N": "1"}})
        == "Filter Expression can only contain non-primary key attributes: Primary key attribute: n"
    )
    # The table's own sort key is no key of the index.
    assert query(things, "all", FilterExpression="sk = :n", values={":n": {"S": "1"}})["Count"] == 0
    nested = (
        "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
        "IndexKey: s"
    )
    assert query_error(things, "all", ProjectionExpression="s.a") == nested
    assert query_error(things, "all", FilterExpression="attribute_exists(s[0])") == nested
    assert things.error("Scan", ProjectionExpression="s.a")[2] == nested
    key = {"pk": {"S": "a"}, "sk": {"S": "1"}}
    assert things.error("GetItem", Key=key, ProjectionExpression="s.a")[2] == nested


# --- writes ------------------------------------------------------------------------------------------------


def test_writes_carry_the_tables_indexes(things):
    things.put(item("a", "1"))
    (write,) = things.storage.requests
    assert isinstance(write, Write)
    assert [(rule.number, rule.name, rule.sort_name) for rule in write.local_indexes] == [
        (1, "all", "n"),
        (2, "keys", "s"),
        (3, "some", "n"),
    ]
    plain = Harness().add_table()
    plain.put({"pk": {"S": "a"}})
    assert plain.storage.requests[0].local_indexes == []


def test_units_of_a_write_by_table_and_index(things):
    put = {"Item": item("a", "1", 1, "x", w={"S": "w" * 2000}), "ReturnConsumedCapacity": "INDEXES"}
    assert things.ok("PutItem", **put)["ConsumedCapacity"] == {
        "TableName": "Things",
        "CapacityUnits": 6.0,
        "Table": {"CapacityUnits": 2.0},
        "LocalSecondaryIndexes": {
            "all": {"CapacityUnits": 2.0},
            "keys": {"CapacityUnits": 1.0},
            "some": {"CapacityUnits": 1.0},
        },
    }
    assert things.ok("PutItem", **put)["ConsumedCapacity"] == {
        "TableName": "Things",
        "CapacityUnits": 2.0,
        "Table": {"CapacityUnits": 2.0},
    }
    body = things.ok(
        "UpdateItem",
        Key={"pk": {"S": "a"}, "sk": {"S": "1"}},
        UpdateExpression="SET s = :s REMOVE w",
        ExpressionAttributeValues={":s": {"S": "y"}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert body["ConsumedCapacity"] == {"TableName": "Things", "CapacityUnits": 2.0 + 2.0 + 2.0}
    body = things.ok(
        "DeleteItem",
        Key={"pk": {"S": "a"}, "sk": {"S": "1"}},
        ReturnConsumedCapacity="INDEXES",
    )
    assert body["ConsumedCapacity"]["CapacityUnits"] == 4.0


def test_item_collection_metrics(things):
    size = {"ReturnItemCollectionMetrics": "SIZE"}
    shown = {"ItemCollectionKey": {"pk": {"S": "a"}}, "SizeEstimateRangeGB": [0.0, 1.0]}
    key = {"pk": {"S": "a"}, "sk": {"S": "1"}}
    body = things.ok("PutItem", Item=item("a", "1", 1), ReturnConsumedCapacity="TOTAL", **size)
    assert body["ItemCollectionMetrics"] == shown
    assert "ConsumedCapacity" in body
    body = things.ok(
        "UpdateItem",
        Key=key,
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"N": "1"}},
        ReturnValues="UPDATED_NEW",
        **size,
    )
    assert body == {"Attributes": {"v": {"N": "1"}}, "ItemCollectionMetrics": shown}
    assert things.ok("DeleteItem", Key=key, **size) == {"ItemCollectionMetrics": shown}
    assert things.ok("PutItem", Item=item("a", "1"), ReturnItemCollectionMetrics="NONE") == {}
    plain = Harness().add_table()
    assert plain.ok("PutItem", Item={"pk": {"S": "a"}}, **size) == {}


def test_a_full_item_collection(things):
    things.storage.collection_size_max = 100
    status, code, message = things.error("PutItem", Item=item("a", "1", w={"S": "w" * 100}))
    assert (status, code) == (400, "ItemCollectionSizeLimitExceededException")
    assert message == "Collection size exceeded."


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (
            "SET n = :v",
            {":v": {"S": "1"}},
            "One or more parameter values were invalid: Type mismatch for Index Key n Expected: N "
            "Actual: S IndexName: some",
        ),
        (
            "ADD s :v",
            {":v": {"SS": ["1"]}},
            "One or more parameter values were invalid: Type mismatch for Index Key s Expected: S "
            "Actual: SS IndexName: keys",
        ),
        (
            "SET n = w",
            None,
            "The update expression attempted to update the secondary index key to unsupported type",
        ),
        (
            "SET s = :v",
            {":v": {"S": ""}},
            "One or more parameter values are not valid. The update expression attempted to update a "
            "secondary index key to a value that is not supported. The AttributeValue for a key attribute "
            "cannot contain an empty string value.",
        ),
        (
            "SET s.a = :v",
            {":v": {"S": "1"}},
            "Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
            "IndexKey: s",
        ),
    ],
)
def test_updates_that_an_index_cannot_have(things, text, values, message):
    things.put(item("a", "1", w={"S": "w"}))
    more = {} if values is None else {"ExpressionAttributeValues": values}
    error = things.error(
        "UpdateItem", Key={"pk": {"S": "a"}, "sk": {"S": "1"}}, UpdateExpression=text, **more
    )
    assert error == (400, "ValidationException", message)


def test_a_put_is_checked_before_its_condition(things):
    error = things.error(
        "PutItem",
        Item=item("a", "1", n=1) | {"s": {"N": "1"}},
        ConditionExpression="attribute_exists(pk)",
    )
    assert error == (
        400,
        "ValidationException",
        "One or more parameter values were invalid: Type mismatch for Index Key s Expected: S "
        "Actual: N IndexName: keys",
    )


def test_batches_keep_indexes_too(things):
    put = {"PutRequest": {"Item": item("a", "1", 1, "x")}}
    more = {"PutRequest": {"Item": item("a", "2", 1)}}
    body = things.ok(
        "BatchWriteItem",
        TableName=None,
        RequestItems={"Things": [put, more]},
        ReturnConsumedCapacity="INDEXES",
        ReturnItemCollectionMetrics="SIZE",
    )
    assert body == {
        "UnprocessedItems": {},
        "ConsumedCapacity": [
            {
                "TableName": "Things",
                "CapacityUnits": 7.0,
                "Table": {"CapacityUnits": 2.0},
                "LocalSecondaryIndexes": {
                    "all": {"CapacityUnits": 2.0},
                    "keys": {"CapacityUnits": 1.0},
                    "some": {"CapacityUnits": 2.0},
                },
            }
        ],
        "ItemCollectionMetrics": {
            "Things": [{"ItemCollectionKey": {"pk": {"S": "a"}}, "SizeEstimateRangeGB": [0.0, 1.0]}]
        },
    }
    assert sort_keys(query(things, "all")) == "12"
    gone = {"DeleteRequest": {"Key": {"pk": {"S": "a"}, "sk": {"S": "1"}}}}
    things.ok("BatchWriteItem", TableName=None, RequestItems={"Things": [gone]})
    assert (sort_keys(query(things, "all")), query(things, "keys")["Count"]) == ("2", 0)
    wrong = {"PutRequest": {"Item": item("a", "1") | {"n": {"S": "1"}}}}
    _, code, message = things.error(
        "BatchWriteItem", TableName=None, RequestItems={"Things": [more, wrong]}
    )
    assert (code, message) == (
        "ValidationException",
        "One or more parameter values were invalid: Type mismatch for Index Key n Expected: N "
        "Actual: S IndexName: some",
    )


@pytest.mark.parametrize("backwards", [False, True])
def test_a_batch_answers_in_the_order_of_its_request(things, monkeypatch, backwards):
    now, held = things.storage.call, []

    def hold(*call):
        held.append(call)
        if len(held) == 4:
            for each in reversed(held) if backwards else held:
                now(*each)

    monkeypatch.setattr(things.storage, "call", hold)
    puts = [{"PutRequest": {"Item": item(pk, "1", 1)}} for pk in "dbca"]
    body = things.ok(
        "BatchWriteItem",
        TableName=None,
        RequestItems={"Things": puts},
        ReturnItemCollectionMetrics="SIZE",
    )
    shown = body["ItemCollectionMetrics"]["Things"]
    assert "".join(metrics["ItemCollectionKey"]["pk"]["S"] for metrics in shown) == "dbca"
    held.clear()
    things.storage.weather = [lambda number: Unavailable(number, "no quorum")] * 3
    body = things.ok("BatchWriteItem", TableName=None, RequestItems={"Things": puts})
    left = body["UnprocessedItems"]["Things"]
    assert left == (puts[1:] if backwards else puts[:3])


def test_no_write_of_the_router_forgets_the_indexes():
    """A write without them would leave entries behind: wherever one is made, they are passed."""
    made = 0
    for path in Path("router").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Write":
                made += 1
                arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
                assert any("local_indexes" in ast.unparse(argument) for argument in arguments), path
    assert made >= 2
