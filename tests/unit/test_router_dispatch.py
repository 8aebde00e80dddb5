"""The dispatcher: whatever comes in, exactly one reply goes out."""

import asyncio
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.errors import ResourceInUseError
from datamodel.shapes import IMPLEMENTED_OPERATIONS, OPERATIONS
from proto.catalog_client import CatalogUnavailable, WriteOutcomeUnknown
from router.context import REQUEST_TIMEOUT_S, Call, RequestContext
from router.dispatch import Dispatcher, handlers, module_name
from tests.unit.router_harness import Harness

SERIALIZATION = {"__type": "com.amazon.coral.service#SerializationException"}
UNKNOWN = {"__type": "com.amazon.coral.service#UnknownOperationException"}


def test_every_implemented_operation_has_a_handler():
    assert handlers().keys() == IMPLEMENTED_OPERATIONS


@pytest.mark.parametrize(
    ("operation", "module"),
    [("GetItem", "get_item"), ("ListTagsOfResource", "list_tags_of_resource")],
)
def test_modules_are_named_after_operations(operation, module):
    assert module_name(operation) == module


@pytest.mark.parametrize(
    ("operation", "body", "reply"),
    [
        ("", b"{}", UNKNOWN),
        ("", b"", UNKNOWN),
        ("", b"{", SERIALIZATION),
        ("NoSuchThing", b"{}", UNKNOWN),
        *((name, b"{}", UNKNOWN) for name in sorted(OPERATIONS - IMPLEMENTED_OPERATIONS)[:5]),
        ("GetItem", b"", SERIALIZATION),
        ("GetItem", b"[]", SERIALIZATION),
        ("GetItem", b'{"TableName":', SERIALIZATION),
    ],
)
def test_what_cannot_be_dispatched(operation, body, reply):
    assert Harness().request(operation, body) == (400, reply)


def raising(error):
    def handle(request, call):
        raise error

    async def handle_later(request, call):
        raise error

    return handle, handle_later


async def dispatch_once(harness, handle):
    """Dispatch a ListTables to this handler; the reply."""
    reply = asyncio.get_running_loop().create_future()
    dispatcher = Dispatcher(harness.services, {"ListTables": handle})
    dispatcher.dispatch(
        "ListTables",
        b"{}",
        RequestContext(b"R" * 52),
        lambda status, body: reply.set_result((status, json.loads(body))),
    )
    return await reply


@pytest.mark.parametrize("later", [False, True])
def test_errors_of_handlers(later):
    handle = raising(ResourceInUseError("busy"))[later]
    status, body = asyncio.run(dispatch_once(Harness(), handle))
    assert status == 400
    assert body["__type"].endswith("#ResourceInUseException")
    assert body["message"] == "busy"


@pytest.mark.parametrize("later", [False, True])
def test_bugs_become_500_without_details_and_are_logged(later, caplog):
    handle = raising(KeyError("secret"))[later]
    with caplog.at_level(logging.ERROR):
        status, body = asyncio.run(dispatch_once(Harness(), handle))
    assert status == 500
    assert "secret" not in json.dumps(body)
    (record,) = caplog.records
    assert record.request_id == "R" * 52
    assert record.operation == "ListTables"
    assert "secret" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("error", "status"), [(CatalogUnavailable("away"), 503), (WriteOutcomeUnknown("lost"), 500)]
)
def test_catalog_weather(error, status):
    assert asyncio.run(dispatch_once(Harness(), raising(error)[1]))[0] == status


def test_a_coroutine_answers_with_members_or_bytes():
    async def members(request, call):
        return {"TableNames": ["a"]}

    async def raw(request, call):
        return b'{"TableNames":["a"]}'

    for handle in (members, raw):
        assert asyncio.run(dispatch_once(Harness(), handle)) == (200, {"TableNames": ["a"]})


def test_deadlines():
    class Hurried(RequestContext):
        time_remaining_s = 1.5

    harness = Harness()
    metrics = harness.metrics.operation("GetItem")
    call = Call(harness.services, metrics, RequestContext(b""), print)
    assert call.deadline == harness.time + REQUEST_TIMEOUT_S
    assert Call(harness.services, metrics, Hurried(b""), print).deadline == harness.time + 1.5


def test_requests_are_counted():
    harness = Harness().add_table()
    harness.request("GetItem", {"TableName": "Things", "Key": {"pk": {"S": "a"}}})
    harness.request("GetItem", {"TableName": "Things", "Key": {}})
    harness.request("Nonsense", {})
    samples = {
        (s.name, s.labels.get("operation"), s.labels.get("status"), s.labels.get("code")): s.value
        for family in harness.metrics.collect()
        for s in family.samples
    }
    name = "quorate_router_requests_total"
    assert samples[name, "GetItem", "200", ""] == 1
    assert samples[name, "GetItem", "400", "ValidationException"] == 1
    assert samples[name, "Unknown", "400", "UnknownOperationException"] == 1
    count = "quorate_router_request_duration_seconds_count"
    assert samples[count, "GetItem", "200", ""] == 1


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["a", "#a", ":v", "pk = :v", "SET a = :v", "1", "ALL_OLD", "COUNT"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["S", "N", "B", "M", "L", "SS", "NS", "BOOL", "NULL", "pk", "sk", ":v", "#a"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
MEMBERS = [
    "Key", "Item", "ConditionExpression", "UpdateExpression", "KeyConditionExpression",
    "FilterExpression", "ProjectionExpression", "ExpressionAttributeNames",
    "ExpressionAttributeValues", "ReturnValues", "Limit", "Select", "ExclusiveStartKey", "Segment",
    "TotalSegments", "ConsistentRead", "IndexName", "AttributesToGet", "Expected", "ScanFilter",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"]),
    st.dictionaries(st.sampled_from(MEMBERS), values, max_size=5),
)
def test_no_request_makes_a_500(operation, members):
    harness = Harness().add_table(count=2)
    status, _ = harness.request(operation, {"TableName": "Things", **members})
    assert status in (200, 400)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["GetItem", "PutItem", "Query", "CreateTable"]), st.binary(max_size=40))
def test_no_bytes_make_a_500(operation, body):
    assert Harness().request(operation, body)[0] == 400
