"""ExecuteStatement over partitions in memory."""

import pytest

from datamodel.local_indexes import LocalIndex
from proto.messages import Query, Unavailable, Write, WrongPartition
from tests.unit.router_harness import Harness, table

HASH_ITEMS = [
    {"pk": {"S": "a"}, "n": {"N": "1"}, "m": {"M": {"x": {"L": [{"S": "p"}, {"S": "q"}]}}}},
    {"pk": {"S": "b"}, "n": {"N": "2"}, "s": {"S": "str"}, "nul": {"NULL": True}},
    {"pk": {"S": "c"}, "ss": {"SS": ["u", "v"]}, "flag": {"BOOL": True}},
]


@pytest.fixture
def hashed():
    harness = Harness().add_table(count=3)
    harness.put(*HASH_ITEMS)
    return harness


@pytest.fixture
def sorted_table():
    harness = Harness().add_table(table(sort="N"), count=3)
    harness.put(
        *(
            {"pk": {"S": p}, "sk": {"N": str(n)}, "v": {"S": f"{p}{n}"}}
            for p in "opq"
            for n in range(5)
        )
    )
    return harness


def run(harness, statement, *parameters, **members):
    if parameters:
        members["Parameters"] = list(parameters)
    status, body = harness.request("ExecuteStatement", {"Statement": statement, **members})
    assert status == 200, body
    return body


def items(harness, statement, *parameters, **members):
    return run(harness, statement, *parameters, **members)["Items"]


def error(harness, statement, *parameters, **members):
    if parameters:
        members["Parameters"] = list(parameters)
    status, body = harness.request("ExecuteStatement", {"Statement": statement, **members})
    assert status == 400, body
    return body["__type"].split("#")[1], body["message"]


def keys(harness, where, *parameters):
    return sorted(
        item["pk"]["S"]
        for item in items(harness, f"SELECT pk FROM Things WHERE {where}", *parameters)
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("n = 1", "a"),
        ("n <> 1", "bc"),
        ("n != 1", "bc"),
        ("1 = n", "a"),
        ("n < 2", "a"),
        ("2 > n", "a"),
        ("n BETWEEN 1 AND 2", "ab"),
        ("n NOT BETWEEN 1 AND 1", "bc"),
        ("n IN (2, 3)", "b"),
        ("n IN [2, 3]", "b"),
        ("n NOT IN (2, 3)", "ac"),
        ("NOT n IN (2, 3)", "ac"),
        ("n IS MISSING", "c"),
        ("n IS NOT MISSING", "ab"),
        ("nul IS NULL", "b"),
        ("nul IS NOT NULL", "ac"),
        ("flag IS BOOL", "c"),
        ("s IS STRING", "b"),
        ("n IS INTEGER", "ab"),
        ("ss IS BAG", "c"),
        ("m IS STRUCT", "a"),
        ("flag = true", "c"),
        ("begins_with(s, 'st')", "b"),
        ("BEGINS_WITH(\"s\", 'st')", "b"),
        ("contains(ss, 'u')", "c"),
        ("contains(s, 'tr')", "b"),
        ("size(s) = 3", "b"),
        ("size(ss) > 1", "c"),
        ("attribute_type(ss, 'SS')", "c"),
        ("attribute_exists(m.x)", "a"),
        ("attribute_exists(m.x[1])", "a"),
        ("attribute_exists(m['x'])", "a"),
        ("attribute_exists(m.x[2])", ""),
        ("m.x[0] = 'p'", "a"),
        ("attribute_exists(s) = true", "b"),
        ("attribute_exists(s) = false", "ac"),
        ("attribute_exists(s) <> false", "b"),
        ("attribute_not_exists(s) OR n = 2", "abc"),
        ("(n = 1 OR n = 2) AND s = 'str'", "b"),
        ("NOT (n = 1 OR n = 2)", "c"),
        ("n = 1 OR n = 2 AND s = 'no'", "a"),
        ("ss = <<'v', 'u'>>", "c"),
        ("m = {'x': ['p', 'q']}", "a"),
        ("nul = null", "b"),
        ("n = -1 OR n = 2e0", "b"),
        ("pk = 'a'", "a"),
        ("pk IN ['a', 'c', 'zz']", "ac"),
        ("pk = 'a' OR pk = 'b'", "ab"),
        ("(pk = 'a' OR pk = 'b') AND n = 2", "b"),
        ("pk = 'a' AND pk = 'b'", ""),
        ("pk > 'a'", "bc"),
        ("begins_with(pk, 'a')", "a"),
    ],
)
def test_conditions(hashed, where, expected):
    assert "".join(keys(hashed, where)) == expected


def test_parameters_of_every_type(hashed):
    assert keys(hashed, "n = ?", {"N": "2.0"}) == ["b"]
    assert keys(hashed, "ss = ? AND flag = ?", {"SS": ["v", "u"]}, {"BOOL": True}) == ["c"]
    assert keys(hashed, "m = ?", {"M": {"x": {"L": [{"S": "p"}, {"S": "q"}]}}}) == ["a"]
    assert keys(hashed, "n IN ?", {"L": [{"N": "1"}, {"N": "2"}]}) == ["a", "b"]
    assert keys(hashed, "pk IN (?, ?)", {"S": "a"}, {"S": "b"}) == ["a", "b"]


@pytest.mark.parametrize(
    ("where", "reads"),
    [
        ("pk = 'a'", 1),
        ("pk = 'a' AND n > 0", 1),
        ("pk IN ['a', 'b']", 2),
        ("pk = 'a' OR pk = 'b' AND n = 1", 2),
        ("n = 1", 3),
        ("NOT pk = 'a'", 3),
    ],
)
def test_conditions_on_the_partition_key_become_queries(hashed, where, reads):
    hashed.storage.requests.clear()
    run(hashed, f"SELECT * FROM Things WHERE {where}")
    assert [type(request) for request in hashed.storage.requests] == [Query] * reads


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("n", {"n": {"N": "1"}}),
        ("pk, n", {"pk": {"S": "a"}, "n": {"N": "1"}}),
        ("m.x", {"x": {"L": [{"S": "p"}, {"S": "q"}]}}),
        ("m.x[1]", {"x[1]": {"S": "q"}}),
        ("m.x[9], pk", {"pk": {"S": "a"}}),
        ("nothing_there", {}),
        ('"n"', {"n": {"N": "1"}}),
        ("*", HASH_ITEMS[0]),
    ],
)
def test_columns(hashed, columns, expected):
    assert items(hashed, f"SELECT {columns} FROM Things WHERE pk = 'a'") == [expected]


def test_so_many_columns_that_they_are_picked_by_the_router(hashed):
    columns = ",".join(f"c{n}" for n in range(1500))
    assert items(hashed, f"SELECT {columns},n FROM Things WHERE pk = 'a'") == [{"n": {"N": "1"}}]


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("pk = 'o' ORDER BY sk", "o0 o1 o2 o3 o4"),
        ("pk = 'o' ORDER BY sk DESC", "o4 o3 o2 o1 o0"),
        ("pk = 'o' ORDER BY pk ASC", "o4 o3 o2 o1 o0"),
        ("pk = 'o' AND sk > 2", "o3 o4"),
        ("pk = 'o' AND 2 < sk", "o3 o4"),
        ("pk = 'o' AND sk >= 1 AND sk < 3", "o1 o2"),
        ("pk = 'o' AND sk BETWEEN 1 AND 2 ORDER BY sk DESC", "o2 o1"),
        ("pk = 'o' AND sk IN (4, 0)", "o0 o4"),
        ("pk = 'o' AND sk IN (4, 0) ORDER BY sk DESC", "o4 o0"),
        ("pk = 'o' AND (sk = 1 OR sk > 3)", "o1 o4"),
        ("pk = 'o' AND sk = 1 AND v = 'no'", ""),
        ("pk IN ['p', 'o'] AND sk < 1", "p0 o0"),
        ("pk IN ['o', 'p'] AND sk < 2 ORDER BY pk DESC, sk ASC", "p0 p1 o0 o1"),
        ("pk IN ['p', 'o'] AND sk < 2 ORDER BY pk, sk", "o0 o1 p0 p1"),
        ("pk = 'o' AND sk = 1 OR pk = 'p' AND sk = 2", "o1 p2"),
        ("pk = 'o' AND NOT sk = 1 OR pk = 'o' AND sk = 2", "o0 o2 o3 o4"),
        ("pk = 'o' OR pk = 'o' AND NOT sk = 1", "o0 o1 o2 o3 o4"),
        ("pk = 'o' AND v = 'o1' OR pk = 'o' AND v = 'o2'", "o1 o2"),
    ],
)
def test_sort_keys(sorted_table, tail, expected):
    found = items(sorted_table, f"SELECT v FROM Things WHERE {tail}")
    assert " ".join(item["v"]["S"] for item in found) == expected


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "WHERE pk = 'o'",
        "WHERE pk = 'o' ORDER BY sk DESC",
        "WHERE pk IN ['q', 'o', 'none', 'p'] ORDER BY pk DESC, sk DESC",
        "WHERE pk IN ['q', 'o'] AND sk IN (0, 3, 4) AND v <> 'o3'",
        "WHERE sk > 1",
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 4, 5, 100])
def test_pages(sorted_table, tail, limit):
    statement = f"SELECT v FROM Things {tail}"
    whole = items(sorted_table, statement)
    found, more = [], {}
    for _ in range(40):
        page = run(sorted_table, statement, Limit=limit, **more)
        assert len(page["Items"]) <= limit
        found += page["Items"]
        assert ("NextToken" in page) == ("LastEvaluatedKey" in page)
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert found == whole


def test_a_whole_key_needs_no_second_page(sorted_table):
    page = run(sorted_table, "SELECT * FROM Things WHERE pk = 'o' AND sk = 1", Limit=1)
    assert len(page["Items"]) == 1
    assert "NextToken" not in page


def test_next_token_belongs_to_its_statement(sorted_table):
    statement = "SELECT * FROM Things WHERE pk = ?"
    token = run(sorted_table, statement, {"S": "o"}, Limit=1)["NextToken"]
    assert items(sorted_table, statement, {"S": "o"}, NextToken=token)[0]["sk"] == {"N": "1"}
    mismatch = ("ValidationException", "NextToken does not match request")
    assert error(sorted_table, statement, {"S": "p"}, NextToken=token) == mismatch
    assert error(sorted_table, statement + " ", {"S": "o"}, NextToken=token) == mismatch
    for broken in ("x", "AAAA", "WzFd", token[:-6], "é"):
        code, message = error(sorted_table, statement, {"S": "o"}, NextToken=broken)
        assert code == "ValidationException"
        assert message in ("Invalid NextToken", mismatch[1])


def test_capacity(hashed):
    assert run(hashed, "SELECT * FROM Things WHERE pk = 'a'", ReturnConsumedCapacity="TOTAL")[
        "ConsumedCapacity"
    ] == {"TableName": "Things", "CapacityUnits": 0.5}
    assert run(
        hashed,
        "SELECT * FROM Things WHERE pk = 'a'",
        ReturnConsumedCapacity="INDEXES",
        ConsistentRead=True,
    )["ConsumedCapacity"] == {
        "TableName": "Things", "CapacityUnits": 1.0, "Table": {"CapacityUnits": 1.0},
    }  # fmt: skip
    assert run(hashed, "INSERT INTO Things VALUE {'pk': 'cc'}", ReturnConsumedCapacity="TOTAL")[
        "ConsumedCapacity"
    ] == {"TableName": "Things", "CapacityUnits": 1.0}
    assert "ConsumedCapacity" not in run(hashed, "SELECT * FROM Things")


def test_insert(hashed):
    assert run(
        hashed,
        "INSERT INTO Things VALUE {'pk': 'new', 'n': 1E3, 's': 'it''s', 'l': [1, ?], 'ns': <<2, 1.50>>}",
        {"B": "AQI="},
    ) == {"Items": []}
    assert hashed.ok("GetItem", Key={"pk": {"S": "new"}})["Item"] == {
        "pk": {"S": "new"},
        "n": {"N": "1000"},
        "s": {"S": "it's"},
        "l": {"L": [{"N": "1"}, {"B": "AQI="}]},
        "ns": {"NS": ["1.5", "2"]},
    }
    assert error(hashed, "INSERT INTO Things VALUE {'pk': 'new'}") == (
        "DuplicateItemException",
        "Duplicate primary key exists in table",
    )
    assert items(hashed, "INSERT INTO Things VALUE ?", {"M": {"pk": {"S": "whole"}}}) == []
    assert error(hashed, "INSERT INTO Things VALUE {'n': 1}")[1] == (
        "One or more parameter values were invalid: Missing the key pk in the item"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("SET x = 1", {"x": {"N": "1"}}),
        ("SET n = n + 1", {"n": {"N": "6"}}),
        ("SET n = n - 1, x = n", {"n": {"N": "4"}, "x": {"N": "5"}}),
        ("SET x = 1 SET y = 'b' REMOVE n", {"x": {"N": "1"}, "y": {"S": "b"}, "n": None}),
        ("SET l = list_append(l, ['c'])", {"l": {"L": [{"S": "a"}, {"S": "b"}, {"S": "c"}]}}),
        ("SET l = LIST_APPEND(['z'], l)", {"l": {"L": [{"S": "z"}, {"S": "a"}, {"S": "b"}]}}),
        ("SET l[1] = 'B'", {"l": {"L": [{"S": "a"}, {"S": "B"}]}}),
        ("REMOVE l[0]", {"l": {"L": [{"S": "b"}]}}),
        ("SET m.k = <<1>>", {"m": {"M": {"i": {"N": "1"}, "k": {"NS": ["1"]}}}}),
        ('SET m."a.b" = null', {"m": {"M": {"i": {"N": "1"}, "a.b": {"NULL": True}}}}),
        ("REMOVE m.i", {"m": {"M": {}}}),
        ("SET ss = set_add(ss, <<'z'>>)", {"ss": {"SS": ["u", "v", "z"]}}),
        ("SET ss = SET_DELETE(ss, <<'u'>>)", {"ss": {"SS": ["v"]}}),
        ("SET ss = set_delete(ss, <<'u', 'v'>>)", {"ss": None}),
        ("SET fresh = set_add(fresh, <<1>>)", {"fresh": {"NS": ["1"]}}),
        ("SET s = {'a': [true]}", {"s": {"M": {"a": {"L": [{"BOOL": True}]}}}}),
    ],
)
@pytest.mark.parametrize(
    "form", ["UPDATE Things {} WHERE pk = 'u'", "FROM Things WHERE pk = 'u' {}"]
)
def test_update(hashed, form, change, expected):
    before = {
        "pk": {"S": "u"},
        "n": {"N": "5"},
        "l": {"L": [{"S": "a"}, {"S": "b"}]},
        "m": {"M": {"i": {"N": "1"}}},
        "ss": {"SS": ["u", "v"]},
    }
    hashed.put(before)
    assert run(hashed, form.format(change)) == {"Items": []}
    after = {name: value for name, value in {**before, **expected}.items() if value is not None}
    assert hashed.ok("GetItem", Key={"pk": {"S": "u"}})["Item"] == after


@pytest.mark.parametrize(
    ("returning", "expected"),
    [
        ("ALL OLD *", {"pk": {"S": "a"}, "n": {"N": "1"}}),
        ("ALL NEW *", {"pk": {"S": "a"}, "n": {"N": "2"}, "x": {"S": "y"}}),
        ("MODIFIED OLD *", {"n": {"N": "1"}}),
        ("MODIFIED NEW *", {"n": {"N": "2"}, "x": {"S": "y"}}),
    ],
)
def test_returning(hashed, returning, expected):
    hashed.put({"pk": {"S": "a"}, "n": {"N": "1"}})
    statement = f"UPDATE Things SET n = n + 1, x = 'y' WHERE pk = 'a' RETURNING {returning}"
    assert items(hashed, statement) == [expected]
    assert items(hashed, "UPDATE Things REMOVE none WHERE pk = 'a' RETURNING MODIFIED NEW *") == []


def test_delete(hashed):
    assert items(hashed, "DELETE FROM Things WHERE pk = 'a' RETURNING ALL OLD *") == [HASH_ITEMS[0]]
    assert run(hashed, "DELETE FROM Things WHERE pk = 'a' RETURNING ALL OLD *") == {"Items": []}
    assert run(hashed, "DELETE FROM Things WHERE pk = 'a' AND n = 9") == {"Items": []}
    failed = ("ConditionalCheckFailedException", "The conditional request failed")
    assert error(hashed, "DELETE FROM Things WHERE pk = 'b' AND n = 9") == failed
    assert error(hashed, "UPDATE Things SET x = 1 WHERE pk = 'absent'") == failed
    assert error(hashed, "UPDATE Things SET x = 1 WHERE pk = 'absent' AND n IS MISSING") == failed
    assert error(hashed, "UPDATE Things SET x = 1 WHERE pk = 'b' AND n = 9") == failed
    assert run(hashed, "DELETE FROM Things WHERE pk = 'b' AND (n = 2 OR n = 9)") == {"Items": []}


def test_the_item_that_failed_the_condition(hashed):
    status, body = hashed.request(
        "ExecuteStatement",
        {
            "Statement": "UPDATE Things SET x = 1 WHERE pk = 'b' AND n = 9",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    )
    assert (status, body["Item"]) == (400, HASH_ITEMS[1])


MANDATORY = "Where clause does not contain a mandatory equality on all key attributes"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE Things SET x = 1", MANDATORY),
        ("FROM Things SET x = 1", MANDATORY),
        ("UPDATE Things SET x = 1 WHERE pk = 'o'", MANDATORY),
        ("UPDATE Things SET x = 1 WHERE pk = 'o' AND sk > 1", MANDATORY),
        ("UPDATE Things SET x = 1 WHERE pk = 'o' AND sk = 1 OR v = 1", MANDATORY),
        ("DELETE FROM Things WHERE v = 'o1'", MANDATORY),
        ("DELETE FROM Things WHERE pk IN ['o'] AND sk = 1", MANDATORY),
        (
            "DELETE FROM Things WHERE pk = 'o' AND sk = 1 AND sk = 2",
            "Multiple conditions on same key sk. Only single item Update/Insert/Delete are supported",
        ),
        (
            "DELETE FROM Things WHERE pk = 1 AND sk = 1",
            "The provided key element does not match the schema",
        ),
        (
            "UPDATE Things SET sk = 2 WHERE pk = 'o' AND sk = 1",
            "One or more parameter values were invalid: Cannot update attribute sk. "
            "This attribute is part of the key",
        ),
        (
            "UPDATE Things.ix SET x = 2 WHERE pk = 'o' AND sk = 1",
            "This operation is not supported on an index",
        ),
        ("SELECT * FROM Things.ix WHERE pk = 'o'", "The table does not have the specified index"),
        (
            "SELECT * FROM Things WHERE pk = 1",
            "Key attribute's data type should match its data type in table's schema: Key pk",
        ),
        (
            "SELECT * FROM Things WHERE pk = 'o' AND sk = true",
            "Key value must be of type S, N, or B. Key name: sk, Key type: BOOL",
        ),
        (
            "SELECT * FROM Things WHERE pk = ''",
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: pk",
        ),
        (
            "SELECT * FROM Things WHERE pk IN [" + ",".join(f"'{n}'" for n in range(51)) + "]",
            "Too many decomposed read operations for a given query.",
        ),
        (
            "SELECT * FROM Things WHERE pk = 'a' AND x = '1' OR pk = 'a' AND sk = 2",
            "Overlapping conditions with range keys are not supported in where clause",
        ),
        (
            "SELECT * FROM Things WHERE pk.x = 1",
            "Key attributes must be scalars; list random access '[]' and map lookup '.' "
            "are not allowed: Key: pk",
        ),
        (
            "SELECT * FROM Things ORDER BY sk",
            "Must have WHERE clause in the statement when using ORDER BY clause.",
        ),
        (
            "SELECT * FROM Things WHERE pk = 'o' ORDER BY Total",
            "Attribute Total in ORDER BY clause must be part of the primary key",
        ),
        (
            "SELECT * FROM Things WHERE pk > 'o' ORDER BY sk",
            "Must have at least one non-optional hash key condition in WHERE clause when using ORDER BY clause.",
        ),
        (
            "SELECT * FROM Things WHERE pk IN ['o', 'p'] ORDER BY sk",
            "Must have hash key in ORDER BY clause when more than one hash key condition specified "
            "in WHERE clause.",
        ),
    ],
)
def test_what_depends_on_the_table(sorted_table, statement, message):
    assert error(sorted_table, statement) == ("ValidationException", message)


def test_no_such_table(hashed):
    missing = ("ResourceNotFoundException", "Requested resource not found")
    assert error(hashed, "SELECT * FROM Absent WHERE pk = 'x'") == missing
    assert error(hashed, "FROM Absent WHERE pk = 'x' SET c = 1") == missing
    # What is wrong with the statement itself comes before.
    assert error(hashed, "SELECT * FROM Absent WHERE val < true")[0] == "ValidationException"
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/Things"
    assert len(items(hashed, f"SELECT * FROM \"{arn}\" WHERE pk = 'a'")) == 1


def test_the_clusters_weather(hashed):
    hashed.storage.weather.append(lambda request_id: Unavailable(request_id, "no"))
    status, _ = hashed.request(
        "ExecuteStatement", {"Statement": "DELETE FROM Things WHERE pk = 'a'"}
    )
    assert status == 503
    hashed.storage.weather.append(lambda request_id: WrongPartition(request_id, 1))
    run(hashed, "DELETE FROM Things WHERE pk = 'a'")
    assert isinstance(hashed.storage.requests[-1], Write)


def test_hostile_statements_are_refused_quickly(hashed):
    for statement in (
        "SELECT * FROM Things WHERE " + "(" * 4000 + "a = 1" + ")" * 4000,
        "SELECT * FROM Things WHERE " + "NOT " * 2000 + "a = 1",
        "SELECT * FROM Things WHERE a = " + "[" * 4000,
        "SELECT * FROM Things WHERE a = " + "-" * 1 + "+-" * 3900 + "1",
        "SELECT * FROM Things WHERE " + " AND ".join(["a = 1"] * 800),
        "SELECT * FROM Things WHERE " + " OR ".join(["pk = 'a'"] * 600),
        "SELECT * FROM Things WHERE pk = 'a' AND " + " AND ".join(["(sk=1 OR sk=2)"] * 400),
        "SELECT * FROM Things WHERE a = " + "1+" * 3900 + "1",
        "SELECT * FROM Things WHERE " + "a=" * 3900 + "1",
        "UPDATE Things SET a = " + "list_append(" * 600 + " WHERE pk='a'",
        "SELECT * FROM Things WHERE a IN (" + ",".join("1" * 3900) + ")",
        "INSERT INTO Things VALUE " + "{'a':" * 1500,
        "SELECT " + "(" * 4000,
        "SELECT * FROM " + "SELECT * FROM " * 500,
        "'" * 8191,
        '"' * 8191,
        "/*" * 4000,
        "-- " * 2700,
    ):
        assert error(hashed, statement[:8192])[0] == "ValidationException", statement[:40]


# --- local indexes -----------------------------------------------------------------------------------------


@pytest.fixture
def indexed():
    local = LocalIndex("by-n", "n", "N", "INCLUDE", ("v",))
    harness = Harness().add_table(table(sort="N", local_indexes=(local,)), count=3)
    harness.put(
        *(
            {
                "pk": {"S": p},
                "sk": {"N": str(n)},
                "n": {"N": str(9 - n)},
                "v": {"S": f"{p}{n}"},
                "w": {"S": "far"},
            }
            for p in "op"
            for n in range(4)
        ),
        {"pk": {"S": "o"}, "sk": {"N": "9"}, "v": {"S": "none"}},
    )
    return harness


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("WHERE pk = 'o'", "o3 o2 o1 o0"),
        ("WHERE pk = 'o' AND n > 7 ORDER BY n DESC", "o0 o1"),
        ("WHERE pk IN ['p', 'o'] AND n = 7", "p2 o2"),
        ("WHERE pk = 'o' AND n IN (6, 9)", "o3 o0"),
    ],
)
def test_queries_of_an_index(indexed, tail, expected, limit):
    statement = f'SELECT v FROM Things."by-n" {tail}'
    found, more = [], {}
    while True:
        page = run(indexed, statement, Limit=limit, **more)
        found += [item["v"]["S"] for item in page["Items"]]
        if "NextToken" not in page:
            break
        more = {"NextToken": page["NextToken"]}
    assert " ".join(found) == expected


def test_what_an_index_does_not_project(indexed):
    assert items(indexed, "SELECT w FROM Things.\"by-n\" WHERE pk = 'o' AND n = 9") == [
        {"w": {"S": "far"}}
    ]
    assert len(items(indexed, 'SELECT v FROM Things."by-n"')) == 8
    assert len(items(indexed, "SELECT v FROM Things WHERE w = 'far'")) == 8


def test_a_token_belongs_to_what_is_read(indexed):
    index, base = 'SELECT v FROM Things."by-n"', "SELECT v FROM Things"
    token = run(indexed, f"{index} WHERE pk = 'o'", Limit=1)["NextToken"]
    mismatch = ("ValidationException", "NextToken does not match request")
    assert error(indexed, f"{base} WHERE pk = 'o'", NextToken=token) == mismatch
    assert error(indexed, f"{index} WHERE pk = 'p'", NextToken=token) == mismatch


@pytest.mark.parametrize(
    ("where", "missing"),
    [
        ("pk = 'o' AND w = 'far'", "w"),
        ("w = 'far' AND pk = 'o'", "w"),
        ("(pk = 'o' AND n > 1) AND (w = 'far' AND v = 'x')", "w"),
        ("pk IN ['o', 'p'] AND w IN ['far']", "w"),
        ("pk = 'o' AND n BETWEEN 1 AND 9 AND begins_with(w.a, 'far') AND u = 1", "w, u"),
        ("pk = 'o' AND w IS MISSING", "w"),
        ("pk = 'o' AND w IS NOT MISSING", "w"),
        ("pk = 'o' AND NOT w BETWEEN 1 AND 2", "w"),
        ("pk = 'o' AND NOT (w = 'far' OR v = 'x')", "w"),
        ("pk = 'o' AND u = 1 AND (w = 'far' OR v = 'x')", "u"),
    ],
)
def test_filters_on_what_an_index_does_not_project(indexed, where, missing):
    assert error(indexed, f'SELECT v FROM Things."by-n" WHERE {where}')[1] == (
        "One or more parameter values were invalid: Secondary index by-n does not project "
        f"one or more filter attributes: [{missing}]"
    )


@pytest.mark.parametrize("columns", ["sk", "sk, w"])
@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("w = 'far'", ""),
        ("NOT w = 'far'", "o0 o1 o2 o3 p0 p1 p2 p3"),
        ("w <> u AND pk = w OR v = 'o1'", "o1"),
        ("w IS MISSING AND n = 9", "o0 p0"),
        ("size(w) = 3 OR w.a.b = 1 OR contains(w, 'f') OR w IN ['far', v]", ""),
        ("pk = 'o' AND w = 'far' OR pk = 'p'", "p0 p1 p2 p3"),
        ("pk = 'o' AND (w = 'far' OR v = 'o2')", "o2"),
        ("(pk = 'o' OR pk = 'p') AND w = 'far'", ""),
    ],
)
def test_what_an_index_does_not_project_counts_as_absent(indexed, columns, where, expected):
    found = items(indexed, f'SELECT pk, {columns} FROM Things."by-n" WHERE {where}')
    assert " ".join(sorted(f"{one['pk']['S']}{one['sk']['N']}" for one in found)) == expected
    if "w" in columns:
        assert all(one["w"] == {"S": "far"} for one in found)
