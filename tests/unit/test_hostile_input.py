"""Requests made to cost much cost no more than they are large: work is counted, not timed."""

import asyncio
import json
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.attribute_values import equal
from datamodel.errors import SerializationError, ValidationError
from datamodel.expressions import parse_condition
from datamodel.expressions.conditions import contains
from datamodel.expressions.repeated import COMPARISONS_MAX, RepeatedlyCompared
from datamodel.shapes import decode_request
from datamodel.wording import NEWEST, WORDINGS
from router import dispatch as dispatch_module
from router.context import RequestContext
from router.dispatch import Dispatcher
from tests.unit.router_harness import Harness

# --- conditions ------------------------------------------------------------------------------------------------

SCALARS = st.sampled_from(
    [{"S": "a"}, {"S": ""}, {"N": "1"}, {"N": "0"}, {"BOOL": True}, {"NULL": True}]
)
SETS = st.builds(
    lambda texts: {"SS": texts}, st.lists(st.sampled_from("abc"), min_size=1, unique=True)
)
DOCUMENTS = st.recursive(
    st.one_of(SCALARS, SETS),
    lambda inner: st.one_of(
        st.builds(lambda members: {"M": members}, st.dictionaries(st.sampled_from("xy"), inner)),
        st.builds(lambda elements: {"L": elements}, st.lists(inner, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, DOCUMENTS)
def test_identities_tell_what_equality_tells(a, b):
    twin = json.loads(json.dumps(a))
    compared = RepeatedlyCompared({":b": b}, [])
    assert compared.equal(a, b) is equal(a, b)
    assert compared.equal(a, twin)
    compared.begin()
    assert compared.equal(b, a) is equal(b, a)
    both, one = {"L": [b, a]}, {"L": [b]}
    assert compared.list_contains(both, a)
    assert compared.list_contains(one, a) is contains(one, a)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, DOCUMENTS, st.booleans())
def test_a_condition_says_the_same_however_often_it_compares(a, b, as_list):
    item = {"a": {"L": [a]} if as_list else a, "b": b}
    values = {":a": a, ":b": b}
    for once in (
        "a = :b",
        "a <> :b",
        "b = a",
        "contains(a, :b)",
        "a IN (:a, :b)",
        "contains(a, b)",
    ):
        several = f"{once} AND a <> :a AND a <> :a AND a <> :a AND a <> :a AND a <> :a"
        simple = parse_condition(once, None).evaluate(item, values)
        differs = parse_condition("a <> :a", None).evaluate(item, values)
        condition = parse_condition(several, None)
        assert condition.evaluate(item, values) is (simple and differs)
        prepared = condition.prepare(values)
        for _ in range(2):
            assert condition.evaluate(item, prepared) is (simple and differs)


WIDE = 5_000


def wide(text: str) -> dict:
    return {"L": [{"SS": [text, "b"]} for _ in range(WIDE)]}


@pytest.mark.parametrize(
    "text",
    [
        " OR ".join(f"contains(l, :v{n})" for n in range(149)),
        " AND ".join(["l <> :big"] * 149),
        " AND ".join(
            f"NOT l IN ({', '.join(f':v{n}' for n in range(99))}, :big)" for _ in range(4)
        ),
    ],
)
def test_values_are_looked_into_once_however_often_they_are_compared(text):
    condition = parse_condition(text, None)
    values = {f":v{n}": {"SS": [str(n), "c"]} for n in range(149)} | {":big": wide("x")}
    prepared = condition.prepare(values)
    assert isinstance(prepared, RepeatedlyCompared)
    before = prepared.looked_at
    for evaluated in range(1, 4):
        condition.evaluate({"l": wide("a")}, prepared)
        # The item's list and its elements.
        assert prepared.looked_at - before <= evaluated * (WIDE + 1)


def test_few_comparisons_need_no_preparation():
    condition = parse_condition(" AND ".join(["a = :a"] * COMPARISONS_MAX), None)
    values = {":a": {"S": "x"}}
    assert condition.prepare(values) is values


class Counted(dict):
    """Counts how often it is looked into, at C's speed and ours."""

    seen = 0

    def items(self):
        Counted.seen += 1
        return super().items()


def test_equality_looks_at_each_part_once_however_deep():
    def nest(leaf, kind):
        value = Counted({"SS": leaf})
        for _ in range(30):
            value = Counted({"L": [value]} if kind == "L" else {"M": {"a": value}})
        return value

    for kind in "LM":
        Counted.seen = 0
        assert equal(nest(["a", "b"], kind), nest(["b", "a"], kind))
        assert Counted.seen <= 31


# --- bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("BatchWriteItem", b'{"RequestItems":{"tab":[%s]}}' % b",".join([b'{"PutRequest":{"Item":{}}}'] * 9000)),
        ("BatchGetItem", b'{"RequestItems":{%s}}' % b",".join(b'"t%d":{"Keys":[{}]}' % n for n in range(9000))),
        ("BatchExecuteStatement", b'{"Statements":[%s]}' % b",".join([b'{"Statement":"x"}'] * 9000)),
        (
            "GetItem",
            b'{"TableName":"tab","Key":{},"AttributesToGet":[%s]}' % b",".join([b'"attribute"'] * 90_000),
        ),
    ],
)  # fmt: skip
def test_a_message_does_not_grow_with_the_request(operation, body):
    with pytest.raises(ValidationError) as refused:
        decode_request(operation, body)
    assert "Member must have length less than or equal to" in refused.value.message
    assert len(refused.value.message) < 250_000


def calls_to_refuse(conditions: int) -> int:
    """Calls of functions, our own and others, to refuse a PutItem with so many conditions."""
    expected = b",".join(b'"a%d":{"Exists":false}' % n for n in range(conditions))
    body = b'{"TableName":"tab","Item":{},"ReturnValues":"X","Expected":{%s}}' % expected
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        with pytest.raises(ValidationError, match="enum value set"):
            decode_request("PutItem", body, WORDINGS[NEWEST]["PutItem"])
    finally:
        sys.setprofile(None)
    return calls


def test_a_member_is_not_looked_for_among_all_others():
    assert calls_to_refuse(800) < 2.5 * calls_to_refuse(400)


@pytest.mark.parametrize("depth", range(440, 500, 3))
def test_what_can_be_read_but_not_written_is_no_failure_of_ours(depth):
    value = b'{"M":{"n":' * depth + b'{"S":"x"}' + b"}}" * depth
    body = b'{"RequestItems":{"bad!":{"Keys":[{"pk":%s}]}}}' % value
    with pytest.raises((ValidationError, SerializationError)):
        decode_request("BatchGetItem", body, WORDINGS[NEWEST]["BatchGetItem"])


class Recorder:
    """Stands in for a function, noting the threads that called it."""

    def __init__(self, function):
        self.function = function
        self.threads = []

    def __call__(self, *args):
        self.threads.append(threading.current_thread())
        return self.function(*args)


async def dispatch(dispatcher: Dispatcher, operation: str, bodies: list[bytes]) -> list:
    replies: asyncio.Queue = asyncio.Queue()
    for body in bodies:
        dispatcher.dispatch(
            operation, body, RequestContext(b"R" * 52), lambda *reply: replies.put_nowait(reply)
        )
    return [await asyncio.wait_for(replies.get(), 30) for _ in bodies]


@pytest.mark.parametrize(
    ("handle_error", "body", "code"),
    [
        (None, b'{"ExclusiveStartTableName": 5, "x": "%s"}', "SerializationException"),
        (None, b'{"Limit": 101, "x": "%s"}', "ValidationException"),
        (ValidationError("late"), b'{"Limit": 10, "x": "%s"}', "ValidationException"),
        (None, b'{"Limit": 10, "x": "%s"}', ""),
    ],
)
def test_large_bodies_are_looked_into_in_a_thread_of_their_own(
    monkeypatch, handle_error, body, code
):
    decode = Recorder(dispatch_module.decode_request)
    explain = Recorder(dispatch_module.explain_request)
    monkeypatch.setattr(dispatch_module, "decode_request", decode)
    monkeypatch.setattr(dispatch_module, "explain_request", explain)

    async def handle(request, call):
        if handle_error is not None:
            raise handle_error
        return {}

    small = body % b"s"
    large = body % (b"l" * dispatch_module.LARGE_BODY_BYTES)
    dispatcher = Dispatcher(Harness().services, {"ListTables": handle})
    here = asyncio.run(dispatch(dispatcher, "ListTables", [small]))
    assert {*decode.threads, *explain.threads} == {threading.main_thread()}
    del decode.threads[:], explain.threads[:]
    aside = asyncio.run(dispatch(dispatcher, "ListTables", [large]))
    assert here == aside
    assert json.loads(aside[0][1]).get("__type", "").rpartition("#")[2] == code
    assert decode.threads
    assert threading.main_thread() not in {*decode.threads, *explain.threads}


def test_large_bodies_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(
        dispatch_module, "LARGE_BODIES_BYTES_MAX", 3 * dispatch_module.LARGE_BODY_BYTES
    )
    dispatcher = Dispatcher(
        Harness().services, {"ListTables": lambda request, call: call.succeed(b"{}")}
    )
    large = b"{}" + b" " * dispatch_module.LARGE_BODY_BYTES
    for _ in range(2):
        replies = asyncio.run(dispatch(dispatcher, "ListTables", [large] * 4))
        assert sorted(status for status, _ in replies) == [200, 200, 503, 503]


# --- whatever it is, it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b'{"TableName":"tab","Key":' + b'{"a":' * 150_000,
        b'{"TableName":"tab","Key":{"a":' + b'{"L":[' * 5_000 + b"]}" * 5_000 + b"}}",
        b'{"TableName":"tab","Key":{"a":' + b'{"M":{"a":' * 900 + b"1" + b"}}" * 900 + b"}}",
        b'{"TableName":"tab","Key":{"a":{"N":"' + b"1" * 900_000 + b'"}}}',
        b'{"TableName":' + b"9" * 100_000 + b"}",
        b'{"TableName":"tab","Key":{},' + b'"Key":{},' * 90_000 + b'"Key":{}}',
    ],
    ids=range(6),
)
def test_strange_bodies_are_refused(body):
    status, answer = Harness().request("GetItem", body)
    assert status == 400
    assert answer["__type"].rpartition("#")[2].endswith("Exception")


def test_serialization_errors_come_first_in_large_bodies_too():
    body = b'{"TableName":"tab","Item":{%s,"z":{"S":5}}}' % b",".join(
        b'"a%d":{"N":"1"}' % n for n in range(1000)
    )
    with pytest.raises(SerializationError):
        dispatch_module.explain_request("PutItem", body)
