"""Item operations through the dispatcher, over partition groups in memory."""

import gc
import json

import pytest

from proto.messages import OutcomeUnknown, Unavailable, WrongPartition
from tests.unit.router_harness import VALIDATION, Harness, partitions, table, thing

# What stands before that which is wrong with a write by itself, since 2026.
BY_ITSELF = "1 validation error detected: "


@pytest.fixture
def plain():
    """A table with a partition key only, in four partitions."""
    return Harness().add_table(count=4)


@pytest.fixture
def sorted_table():
    """A table with a numeric sort key, in three partitions."""
    return Harness().add_table(table(sort="N"), count=3)


# --- GetItem -----------------------------------------------------------------------------------------------


def test_what_was_put_is_got(plain):
    item = thing("a", n={"N": "1.50"}, m={"M": {"x": {"L": [{"S": "é"}]}}})
    assert plain.ok("PutItem", Item=item) == {}
    found = plain.ok("GetItem", Key=thing("a"))
    assert found == {"Item": {**item, "n": {"N": "1.5"}}}
    assert plain.ok("GetItem", Key=thing("b")) == {}


@pytest.mark.parametrize(("strong", "leader"), [(True, True), (False, False), (None, False)])
def test_only_strong_reads_ask_the_leader(plain, strong, leader):
    plain.ok("GetItem", Key=thing("a"), ConsistentRead=strong)
    assert plain.storage.leaders[-1] is leader
    assert plain.storage.requests[-1].strong is leader


def test_projection_of_an_item(plain):
    plain.put(thing("a", b={"M": {"c": {"S": "x"}, "d": {"S": "y"}}}, name={"S": "z"}))
    projected = plain.ok(
        "GetItem",
        Key=thing("a"),
        ProjectionExpression="b.c, #n",
        ExpressionAttributeNames={"#n": "name"},
    )
    assert projected == {"Item": {"b": {"M": {"c": {"S": "x"}}}, "name": {"S": "z"}}}
    assert plain.ok("GetItem", Key=thing("a"), ProjectionExpression="nothing") == {"Item": {}}
    attributes = plain.ok("GetItem", Key=thing("a"), AttributesToGet=["name", "b.c"])
    assert attributes == {"Item": {"name": {"S": "z"}}}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"Key": {"pk": {"N": "1"}}}, "The provided key element does not match the schema"),
        ({"Key": {"x": {"S": "a"}}}, "The provided key element does not match the schema"),
        (
            {"Key": {"pk": {"S": ""}}},
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: pk",
        ),
        (
            {"ProjectionExpression": "a", "AttributesToGet": ["a"]},
            "Can not use both expression and non-expression parameters in the same request: "
            "Non-expression parameters: {AttributesToGet} "
            "Expression parameters: {ProjectionExpression}",
        ),
        (
            {"ExpressionAttributeNames": {"#a": "a"}},
            "ExpressionAttributeNames can only be specified when using expressions",
        ),
        (
            {"ProjectionExpression": "a", "ExpressionAttributeNames": {"#a": "a"}},
            "Value provided in ExpressionAttributeNames unused in expressions: keys: {#a}",
        ),
        (
            {"AttributesToGet": ["a", "a"]},
            "One or more parameter values were invalid: Duplicate value in attribute name: a",
        ),
    ],
)
def test_get_item_complaints(plain, members, message):
    assert plain.error("GetItem", **{"Key": thing("a"), **members}) == (*VALIDATION, message)


# --- capacity ----------------------------------------------------------------------------------------------


def sized(pk, size):
    """An item of exactly `size` bytes."""
    return thing(pk, x={"S": "x" * (size - len("pk") - len(pk) - len("x"))})


@pytest.mark.parametrize(
    ("size", "strong", "units"),
    [(100, True, 1.0), (100, False, 0.5), (4096, True, 1.0), (4097, True, 2.0), (8193, False, 1.5)],
)
def test_read_capacity(plain, size, strong, units):
    plain.put(sized("a", size))
    found = plain.ok(
        "GetItem", Key=thing("a"), ConsistentRead=strong, ReturnConsumedCapacity="TOTAL"
    )
    assert found["ConsumedCapacity"] == {"TableName": "Things", "CapacityUnits": units}


def test_a_missing_item_costs_the_minimum(plain):
    found = plain.ok("GetItem", Key=thing("a"), ReturnConsumedCapacity="INDEXES")
    assert found == {
        "ConsumedCapacity": {
            "TableName": "Things",
            "CapacityUnits": 0.5,
            "Table": {"CapacityUnits": 0.5},
        }
    }


def test_write_capacity_counts_the_larger_of_before_and_after(plain):
    def units(operation, **members):
        body = plain.ok(operation, ReturnConsumedCapacity="TOTAL", **members)
        return body["ConsumedCapacity"]["CapacityUnits"]

    assert units("PutItem", Item=sized("a", 1024)) == 1.0
    assert units("PutItem", Item=sized("a", 3000)) == 3.0
    assert units("PutItem", Item=sized("a", 100)) == 3.0
    assert units("DeleteItem", Key=thing("a")) == 1.0
    assert units("DeleteItem", Key=thing("a")) == 1.0


def test_consumption_is_counted_by_table(plain):
    plain.put(sized("a", 3000))
    plain.ok("GetItem", Key=thing("a"))
    plain.error("PutItem", Item=thing("a"), ConditionExpression="attribute_not_exists(pk)")
    usage = plain.metrics.table("Things")
    assert (usage.write_units, usage.read_units) == (6.0, 0.5)


# --- PutItem, UpdateItem, DeleteItem -----------------------------------------------------------------------


def test_put_returns_the_old_item(plain):
    plain.put(thing("a", v={"S": "1"}))
    old = plain.ok("PutItem", Item=thing("a", v={"S": "2"}), ReturnValues="ALL_OLD")
    assert old == {"Attributes": thing("a", v={"S": "1"})}
    assert plain.ok("PutItem", Item=thing("b"), ReturnValues="ALL_OLD") == {}


def test_conditions_hold_or_fail(plain):
    new = {
        "Item": thing("a", v={"N": "1"}),
        "ConditionExpression": "attribute_not_exists(pk)",
    }
    plain.ok("PutItem", **new)
    status, body = plain.request("PutItem", {"TableName": "Things", **new})
    assert status == 400
    assert body == {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    }
    new["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    _, body = plain.request("PutItem", {"TableName": "Things", **new})
    assert body["Item"] == thing("a", v={"N": "1"})


@pytest.mark.parametrize(
    ("returns", "attributes"),
    [
        ("NONE", None),
        ("ALL_OLD", thing("a", n={"N": "1"}, s={"S": "x"})),
        ("UPDATED_OLD", {"n": {"N": "1"}}),
        ("ALL_NEW", thing("a", n={"N": "3"}, s={"S": "x"})),
        ("UPDATED_NEW", {"n": {"N": "3"}}),
    ],
)
def test_update_returns(plain, returns, attributes):
    plain.put(thing("a", n={"N": "1"}, s={"S": "x"}))
    body = plain.ok(
        "UpdateItem",
        Key=thing("a"),
        UpdateExpression="SET n = n + :two",
        ExpressionAttributeValues={":two": {"N": "2.0"}},
        ReturnValues=returns,
        ReturnItemCollectionMetrics="SIZE",
    )
    assert body == ({} if attributes is None else {"Attributes": attributes})


def test_update_creates_and_an_empty_update_is_legal(plain):
    plain.ok("UpdateItem", Key=thing("a"))
    assert plain.ok("GetItem", Key=thing("a")) == {"Item": thing("a")}
    plain.ok(
        "UpdateItem",
        Key=thing("b"),
        UpdateExpression="SET v = :v",
        ConditionExpression="attribute_not_exists(v)",
        ExpressionAttributeValues={":v": {"S": "x"}},
    )
    assert plain.ok("GetItem", Key=thing("b")) == {"Item": thing("b", v={"S": "x"})}


def test_delete(plain):
    plain.put(thing("a", v={"S": "1"}))
    assert plain.ok("DeleteItem", Key=thing("a"), ReturnValues="ALL_OLD") == {
        "Attributes": thing("a", v={"S": "1"})
    }
    assert plain.ok("DeleteItem", Key=thing("a"), ReturnValues="ALL_OLD") == {}
    assert plain.ok("GetItem", Key=thing("a")) == {}


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        (
            "PutItem",
            {"Item": {"x": {"S": "a"}}},
            "One or more parameter values were invalid: Missing the key pk in the item",
        ),
        (
            "PutItem",
            {"Item": {"pk": {"N": "1"}}},
            "One or more parameter values were invalid: Type mismatch for key pk "
            "expected: S actual: N",
        ),
        (
            "PutItem",
            {"ReturnValues": "ALL_NEW"},
            f"{BY_ITSELF}ReturnValues can only be ALL_OLD or NONE",
        ),
        (
            "DeleteItem",
            {"ReturnValues": "UPDATED_OLD"},
            f"{BY_ITSELF}ReturnValues can only be ALL_OLD or NONE",
        ),
        (
            "PutItem",
            {"Item": thing("a", x={"S": "x" * 409_600})},
            "Item size has exceeded the maximum allowed size",
        ),
        (
            "PutItem",
            {"ExpressionAttributeValues": {":v": {"S": "x"}}},
            f"{BY_ITSELF}ExpressionAttributeValues can only be specified when using expressions",
        ),
        (
            "PutItem",
            {"ConditionExpression": "v = :v"},
            f"{BY_ITSELF}Invalid ConditionExpression: An expression attribute value used in expression is not "
            "defined; attribute value: :v",
        ),
        (
            "PutItem",
            {"ConditionExpression": "pk.x = pk.y"},
            "Key attributes must be scalars; list random access '[]' and map lookup '.' "
            "are not allowed: Key: pk",
        ),
        (
            "UpdateItem",
            {
                "UpdateExpression": "SET pk = :v",
                "ExpressionAttributeValues": {":v": {"S": "x"}},
            },
            "One or more parameter values were invalid: Cannot update attribute pk. "
            "This attribute is part of the key",
        ),
        (
            "UpdateItem",
            {"UpdateExpression": "REMOVE v", "AttributeUpdates": {}, "Expected": {}},
            f"{BY_ITSELF}Can not use both expression and non-expression parameters in the same request: "
            "Non-expression parameters: {AttributeUpdates, Expected} "
            "Expression parameters: {UpdateExpression}",
        ),
        (
            "DeleteItem",
            {"ConditionalOperator": "AND"},
            f"{BY_ITSELF}ConditionalOperator cannot be used without Filter or Expected",
        ),
        (
            "DeleteItem",
            {"Expected": {"v": {"Exists": True}}},
            f"{BY_ITSELF}One or more parameter values were invalid: "
            "Value must be provided when Exists is true for Attribute: v",
        ),
    ],
)
def test_write_complaints(plain, operation, members, message):
    subject = {"Item": thing("a")} if operation == "PutItem" else {"Key": thing("a")}
    assert plain.error(operation, **{**subject, **members}) == (*VALIDATION, message)
    assert plain.storage.requests == []


def test_wrong_json_types_are_complained_of_first(plain):
    members = {
        "Item": {"pk": {"S": "a"}, "x": {"NS": []}, "y": {"S": 1}},
        "ReturnValues": "ALL_NEW",
    }
    assert plain.error("PutItem", **members) == (
        400,
        "SerializationException",
        "NUMBER_VALUE cannot be converted to String",
    )


# --- tables, weather, redirects ----------------------------------------------------------------------------

NOT_FOUND = (400, "ResourceNotFoundException", "Requested resource not found")


def test_an_unknown_table_is_looked_up_before_it_is_refused(plain):
    assert plain.error("GetItem", TableName="Other", Key=thing("a")) == NOT_FOUND
    assert plain.catalog.refreshed == ["Other"]
    # Known to be absent for a moment: no second look.
    assert plain.error("GetItem", TableName="Other", Key=thing("a")) == NOT_FOUND
    assert plain.catalog.refreshed == ["Other"]
    other = table("Other", table_id=301)
    plain.catalog.hidden = [other, *partitions(301, 1, 9)]
    plain.storage.groups[9] = (partitions(301)[0].start, partitions(301)[0].end)
    plain.time += 1.0
    assert plain.ok("GetItem", TableName="Other", Key=thing("a")) == {}


def test_requests_that_wait_for_one_table_share_the_look_up(plain):
    for _ in range(5):
        plain.start("GetItem", {"TableName": "Other", "Key": thing("a")})
    plain.run_tasks()
    assert [status for status, _ in plain.replies] == [400] * 5
    assert plain.catalog.refreshed == ["Other"]


def test_a_table_by_its_arn(plain):
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/Things"
    assert plain.ok("GetItem", TableName=arn, Key=thing("a")) == {}
    wrong = arn.replace("us-east-1", "eu-west-1")
    assert plain.error("GetItem", TableName=wrong, Key=thing("a"))[1] == "ValidationException"


@pytest.mark.parametrize("status", ["CREATING", "DELETING"])
def test_tables_that_serve_no_items(plain, status):
    plain.catalog.change([table("Other", table_id=301, status=status), *partitions(301, 1, 9)])
    assert plain.error("PutItem", TableName="Other", Item=thing("a")) == NOT_FOUND


@pytest.mark.parametrize(
    ("weather", "operation", "expected"),
    [
        (lambda i: Unavailable(i, "no leader"), "GetItem", (503, "ServiceUnavailable")),
        (lambda i: Unavailable(i, "no leader"), "PutItem", (503, "ServiceUnavailable")),
        (lambda i: OutcomeUnknown(i, "who knows"), "PutItem", (500, "InternalServerError")),
    ],
)
def test_weather_becomes_retryable_errors(plain, weather, operation, expected):
    plain.storage.weather = [weather]
    subject = {"Item": thing("a")} if operation == "PutItem" else {"Key": thing("a")}
    assert plain.error(operation, **subject)[:2] == expected


def move_partition(harness, group):
    """Give the whole table to another group; the catalog's copy does not know yet."""
    old = harness.catalog.view.partitions(300).rows
    new = partitions(300, 1, group)[0]
    harness.storage.groups = {group: (new.start, new.end)}
    harness.catalog.hidden = [new]
    return old


@pytest.mark.parametrize("operation", ["GetItem", "PutItem", "Query", "Scan"])
def test_a_redirect_refreshes_the_map_and_goes_on(operation):
    harness = Harness().add_table()
    harness.put(thing("a"))
    old = move_partition(harness, 7)

    async def refresh(name):
        harness.catalog.change(harness.catalog.hidden, old)

    harness.catalog.refresh_table = refresh
    harness.ok(
        operation,
        **{
            "GetItem": {"Key": thing("a")},
            "PutItem": {"Item": thing("a")},
            "Query": {
                "KeyConditionExpression": "pk = :p",
                "ExpressionAttributeValues": {":p": {"S": "a"}},
            },
            "Scan": {},
        }[operation],
    )
    assert harness.storage.requests[-1].group == 7
    if operation == "PutItem":
        first, second = harness.storage.requests[-2:]
        assert first.request_id == second.request_id


def test_after_a_redirect_an_unanswered_write_may_have_happened(plain):
    plain.storage.weather = [
        lambda i: WrongPartition(i, 1),
        lambda i: Unavailable(i, "no answer in time"),
    ]
    assert plain.error("PutItem", Item=thing("a"))[:2] == (500, "InternalServerError")


def test_a_table_deleted_under_a_request(plain):
    plain.storage.groups = {}

    async def refresh(name):
        view = plain.catalog.view
        plain.catalog.change((), [view.tables["Things"], *view.partitions(300).rows])

    plain.catalog.refresh_table = refresh
    assert plain.error("GetItem", Key=thing("a")) == NOT_FOUND


def test_describe_limits_and_endpoints(plain):
    assert plain.ok("DescribeLimits") == {
        "AccountMaxReadCapacityUnits": 80_000,
        "AccountMaxWriteCapacityUnits": 80_000,
        "TableMaxReadCapacityUnits": 40_000,
        "TableMaxWriteCapacityUnits": 40_000,
    }
    endpoints = plain.ok("DescribeEndpoints")["Endpoints"]
    assert endpoints == [
        {"Address": "dynamodb.us-east-1.amazonaws.com", "CachePeriodInMinutes": 1440}
    ]


def test_replies_are_json_that_needs_no_second_look(plain):
    plain.put(thing("a", v={"S": 'quote " and \\ and é'}))
    assert json.dumps(plain.ok("Scan")["Items"]) == json.dumps(
        [thing("a", v={"S": 'quote " and \\ and é'})]
    )


def test_attribute_updates_larger_than_any_item_go_nowhere(plain):
    before = len(plain.storage.requests)
    updates = {f"{n:0300}": {"Action": "DELETE"} for n in range(2_000)}
    assert plain.error("UpdateItem", Key=thing("a"), AttributeUpdates=updates) == (
        *VALIDATION,
        f"{BY_ITSELF}Item size to update has exceeded the maximum allowed size",
    )
    assert len(plain.storage.requests) == before


# --- garbage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("GetItem", {"Key": thing("a"), "ConsistentRead": True}),
        ("GetItem", {"Key": thing("a"), "ProjectionExpression": "n", "ReturnConsumedCapacity": "TOTAL"}),
        ("GetItem", {"Key": {"pk": {"N": "1"}}}),
        ("PutItem", {"Item": thing("a"), "ReturnValues": "ALL_OLD"}),
        ("PutItem", {"Item": thing("a"), "ConditionExpression": "attribute_not_exists(pk)"}),
        ("UpdateItem", {"Key": thing("a"), "UpdateExpression": "SET n = pk"}),
        ("DeleteItem", {"Key": thing("a")}),
        (
            "Query",
            {
                "KeyConditionExpression": "pk = :p",
                "ExpressionAttributeValues": {":p": {"S": "a"}},
            },
        ),
        ("Scan", {"FilterExpression": "attribute_exists(n)"}),
        ("BatchGetItem", {"RequestItems": {"Things": {"Keys": [thing("a"), thing("b")]}}}),
        ("BatchWriteItem", {"RequestItems": {"Things": [{"PutRequest": {"Item": thing("b")}}]}}),
    ],
)  # fmt: skip
def test_a_request_leaves_nothing_to_the_garbage_collector(plain, operation, members):
    """What is in a cycle is freed by pauses only, however well all else is tuned (see `router.main`)."""
    plain.put(thing("a", n={"N": "1"}))
    members = {"TableName": "Things", **members}
    plain.request(operation, members)  # fills caches
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            plain.request(operation, members)
        assert gc.collect() < 10
    finally:
        gc.enable()
