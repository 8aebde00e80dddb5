"""BatchExecuteStatement over partitions in memory."""

import asyncio

import pytest

from datamodel.local_indexes import LocalIndex
from proto.messages import Unavailable
from tests.unit.router_harness import Harness, table

HASH_ITEMS = [
    {"pk": {"S": "a"}, "n": {"N": "1"}},
    {"pk": {"S": "b"}, "n": {"N": "2"}},
    {"pk": {"S": "c"}, "ss": {"SS": ["u", "v"]}},
]


@pytest.fixture
def hashed():
    harness = Harness().add_table(count=3)
    harness.put(*HASH_ITEMS)
    return harness


def batch(harness, *statements, **members):
    requests = [
        statement if isinstance(statement, dict) else {"Statement": statement}
        for statement in statements
    ]
    status, body = harness.request("BatchExecuteStatement", {"Statements": requests, **members})
    assert status == 200, body
    return body


SELECT_A = "SELECT * FROM Things WHERE pk = 'a'"
DELETE_A = "DELETE FROM Things WHERE pk = 'a'"
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/Things"
KEY_NEEDED = "Select statements within BatchExecuteStatement must specify the primary key in the where clause."


def test_batch_of_reads(hashed):
    answer = batch(
        hashed,
        "SELECT * FROM Things WHERE pk = 'a'",
        {
            "Statement": "SELECT n FROM Things WHERE pk = ?",
            "Parameters": [{"S": "b"}],
            "ConsistentRead": True,
        },
        "SELECT * FROM Things WHERE pk = 'absent'",
        "SELECT * FROM Things WHERE pk IN ['c']",
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["Responses"] == [
        {"TableName": "Things", "Item": HASH_ITEMS[0]},
        {"TableName": "Things", "Item": {"n": {"N": "2"}}},
        {"TableName": "Things"},
        {"TableName": "Things", "Item": HASH_ITEMS[2]},
    ]
    assert answer["ConsumedCapacity"] == [{"TableName": "Things", "CapacityUnits": 2.5}]


def test_batch_of_writes(hashed):
    answer = batch(
        hashed,
        "INSERT INTO Things VALUE {'pk': 'new'}",
        "INSERT INTO Things VALUE {'pk': 'a'}",
        "UPDATE Things SET n = 5 WHERE pk = 'b' RETURNING MODIFIED NEW *",
        {
            "Statement": "DELETE FROM Things WHERE pk = 'c' AND n = 1",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
        "DELETE FROM Absent WHERE pk = 'c'",
        "UPDATE Things SET pk = 'z' WHERE pk = 'x'",
    )
    conditional = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
    assert answer == {
        "Responses": [
            {"TableName": "Things"},
            {
                "Error": {
                    "Code": "DuplicateItem",
                    "Message": "Duplicate primary key exists in table",
                },
                "TableName": "Things",
            },
            {"TableName": "Things", "Item": {"n": {"N": "5"}}},
            {"Error": conditional, "TableName": "Things"},
            {"Error": {"Code": "ResourceNotFound", "Message": "Requested resource not found"}},
            {
                "Error": {
                    "Code": "ValidationError",
                    "Message": "One or more parameter values were invalid: Cannot update attribute pk. "
                    "This attribute is part of the key",
                }
            },
        ]
    }


def test_more_outcomes_of_writes(hashed):
    answer = batch(
        hashed,
        "UPDATE Things REMOVE nope WHERE pk = 'b' RETURNING MODIFIED NEW *",
        "UPDATE Things SET ss = set_add(ss, <<1>>) WHERE pk = 'c'",
    )
    message = "An operand in the update expression has an incorrect data type"
    assert answer == {
        "Responses": [
            {"TableName": "Things"},
            {"Error": {"Code": "ValidationError", "Message": message}, "TableName": "Things"},
        ]
    }


@pytest.mark.parametrize(
    "statements",
    [
        ("SELECT * FROM Things WHERE pk = 'a'", "SELECT n FROM Things WHERE pk IN ['a']"),
        ("DELETE FROM Things WHERE pk = 'a'", "INSERT INTO Things VALUE {'pk': 'a'}"),
        ("DELETE FROM Things WHERE pk = 'a' AND n = 7", "UPDATE Things SET n = 1 WHERE pk = 'a'"),
        (DELETE_A, f"DELETE FROM \"{ARN}\" WHERE pk = 'a'"),
        (DELETE_A, "DELETE FROM Absent WHERE pk = 'a'", DELETE_A),
    ],
)
def test_one_item_twice_and_nothing_is_done(hashed, statements):
    before = len(hashed.storage.requests)
    requests = [{"Statement": statement} for statement in ("DELETE FROM No1 WHERE", *statements)]
    status, body = hashed.request("BatchExecuteStatement", {"Statements": requests})
    assert (status, body["message"]) == (400, "Provided list of item keys contains duplicates")
    assert len(hashed.storage.requests) == before


def codes(answer):
    return [response.get("Error", {}).get("Code") for response in answer["Responses"]]


def test_what_does_not_name_an_item_names_none_twice(hashed):
    wrong = "DELETE FROM Things WHERE n = 1"
    answer = batch(hashed, wrong, wrong, "SELECT FROM", "DELETE FROM Things WHERE pk = 'a'")
    assert codes(answer) == ["ValidationError"] * 3 + [None]
    wrong = "SELECT * FROM Things WHERE pk = 'a' AND n = 1"
    answer = batch(hashed, wrong, SELECT_A, wrong)
    assert codes(answer) == ["ValidationError", None, "ValidationError"]
    wrong = "INSERT INTO Absent VALUE {'pk': 'a'}"
    answer = batch(hashed, wrong, wrong)
    assert codes(answer) == ["ResourceNotFound"] * 2


def test_capacity_is_summed_by_table():
    local = LocalIndex("by-n", "n", "N", "ALL")
    harness = Harness().add_table(table(sort="N", local_indexes=(local,)))
    harness.add_table(table(name="Others", table_id=301), first_group=9)
    harness.put({"pk": {"S": "a"}, "sk": {"N": "1"}, "s": {"S": "x" * 3000}})
    others = "INSERT INTO Others VALUE {'pk': 'a'}"
    statements = [
        "INSERT INTO Things VALUE {'pk': 'a', 'sk': 1}",
        "INSERT INTO Others VALUE {'pk': 'b'}",
        "INSERT INTO Things VALUE {'pk': 'a', 'sk': 2, 'n': 1}",
        "UPDATE Things SET n = 2 WHERE pk = 'a' AND sk = 3",
        "INSERT INTO Things VALUE {'pk': 'a', 'sk': 4, 'n': 1}",
        "DELETE FROM Things WHERE pk = 'a'",
    ]
    answer = batch(harness, *statements, ReturnConsumedCapacity="INDEXES")
    assert answer["ConsumedCapacity"] == [
        {
            "TableName": "Things",
            "CapacityUnits": 8.0,
            "Table": {"CapacityUnits": 2.0},
            "LocalSecondaryIndexes": {"by-n": {"CapacityUnits": 2.0}},
        },
        {"TableName": "Others", "CapacityUnits": 1.0, "Table": {"CapacityUnits": 1.0}},
    ]
    # What failed alone is not in it, nor is a table all of whose statements failed.
    answer = batch(harness, statements[0], others, ReturnConsumedCapacity="TOTAL")
    assert answer["ConsumedCapacity"] == [{"TableName": "Others", "CapacityUnits": 1.0}]
    answer = batch(harness, statements[0], others, ReturnConsumedCapacity="TOTAL")
    assert codes(answer) == ["DuplicateItem"] * 2
    assert "ConsumedCapacity" not in answer


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELECT * FROM Things WHERE n = 1", KEY_NEEDED),
        ("SELECT * FROM Things", KEY_NEEDED),
        ("SELECT * FROM Things WHERE pk = 'a' AND n = 1", KEY_NEEDED),
        ("SELECT * FROM Things WHERE pk IN ['a', 'b']", KEY_NEEDED),
        ("SELECT * FROM Things.ix WHERE pk = 'a'", KEY_NEEDED),
        (
            "SLECT * FROM Things WHERE pk = 'a'",
            "Statement wasn't well formed, can't be processed: Expected data manipulation",
        ),
        (
            "SELECT * FROM Things WHERE pk = ?",
            "Number of parameters in request and statement don't match.",
        ),
    ],
)
def test_a_member_that_is_wrong_leaves_the_others_alone(hashed, statement, message):
    answer = batch(hashed, statement, "SELECT n FROM Things WHERE pk = 'a'")
    assert answer["Responses"] == [
        {"Error": {"Code": "ValidationError", "Message": message}},
        {"TableName": "Things", "Item": {"n": {"N": "1"}}},
    ]


def test_batch_limits(hashed):
    one = {"Statement": "SELECT * FROM Things WHERE pk = 'a'"}
    many = [f"SELECT * FROM Things WHERE pk = 'k{number}'" for number in range(25)]
    assert len(batch(hashed, *many)["Responses"]) == 25
    for wrong in ([], [one] * 26, [one, {"Statement": "DELETE FROM Things WHERE pk = 'b'"}]):
        status, body = hashed.request("BatchExecuteStatement", {"Statements": wrong})
        assert (status, body["__type"].split("#")[1]) == (400, "ValidationException")
    assert hashed.ok("GetItem", Key={"pk": {"S": "b"}})["Item"] == HASH_ITEMS[1]
    bad = {"Statement": "SELECT * FROM Things WHERE pk = ?", "Parameters": [{"S": 1}]}
    status, body = hashed.request("BatchExecuteStatement", {"Statements": [one, bad]})
    assert (status, body["__type"].split("#")[1]) == (400, "SerializationException")


def test_a_long_batch_lets_others_have_their_turn(hashed):
    long = " OR ".join(["n = 1"] * 900)
    statements = [{"Statement": f"SELECT * FROM Things WHERE {long}"[:8192]}] * 24
    statements.append({"Statement": "SELECT n FROM Things WHERE pk = 'a'"})
    turns = 0

    async def send():
        nonlocal turns
        hashed.start("BatchExecuteStatement", {"Statements": statements})
        while not hashed.replies[-1][1].get("Responses"):
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(send())
    responses = hashed.replies[-1][1]["Responses"]
    assert turns > 5
    assert [response["Error"]["Code"] for response in responses[:-1]] == ["ValidationError"] * 24
    assert responses[-1] == {"TableName": "Things", "Item": {"n": {"N": "1"}}}


def test_a_batch_in_bad_weather(hashed):
    hashed.storage.weather.append(lambda request_id: Unavailable(request_id, "no"))
    answer = batch(hashed, "DELETE FROM Things WHERE pk = 'a'", "DELETE FROM Things WHERE pk = 'b'")
    assert answer["Responses"][0]["Error"]["Code"] == "InternalServerError"
    assert answer["Responses"][1] == {"TableName": "Things"}
