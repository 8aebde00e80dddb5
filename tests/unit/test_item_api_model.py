"""The item API against a naive model of it: a dictionary of items, conditions as Python functions.

Random sequences of every operation on items, in expressions, old parameters and PartiQL, on a table with local
indexes in one or several partitions in memory.
"""

import copy
import json
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from datamodel.attribute_values import equal
from datamodel.local_indexes import LocalIndex
from tests.unit.router_harness import Harness, table

INDEXES = (LocalIndex("by-n", "n", "N", "ALL"), LocalIndex("by-s", "s", "S", "KEYS_ONLY"))
CHECK_FAILED = "ConditionalCheckFailedException"
Item = dict[str, Any]

# --- conditions: text, placeholders, and what they mean -----------------------------------------------------------


def number(item: Item, name: str) -> int | None:
    return int(item[name]["N"]) if "N" in item.get(name, {}) else None


def size(item: Item, name: str) -> int | None:
    ((kind, content),) = item.get(name, {"N": ""}).items()
    return None if kind in ("N", "BOOL", "NULL") else len(content)


ATTRIBUTES = st.sampled_from(["n", "s", "l", "elems", "nope"])
SMALL = st.integers(-1, 1)
VALUES = st.one_of(
    SMALL.map(lambda n: {"N": str(n)}),
    st.sampled_from(["", "a", "ab", "b"]).map(lambda s: {"S": s}),
    st.lists(st.sampled_from(["a", "b"]), min_size=1, unique=True).map(lambda e: {"SS": e}),
    st.lists(SMALL.map(lambda n: {"N": str(n)}), max_size=2).map(lambda e: {"L": e}),
)


class Test:
    """A condition: its text, in which every `:v` is a value of its own, and its meaning."""

    __test__ = False

    def __init__(self, text: str, values: list[Any], holds: Any) -> None:
        self.text, self.values, self.holds = text, values, holds

    def __repr__(self) -> str:
        return f"{self.text} {self.values}"


def compare_test(name: str, value: Any, operator: str) -> Test:
    def holds(item: Item) -> bool:
        if operator in ("=", "<>"):
            same = name in item and equal(item[name], value)
            return same if operator == "=" else not same
        if next(iter(value)) not in ("N", "S") or next(iter(value)) not in item.get(name, {}):
            return False
        ((kind, right),) = value.items()
        left = item[name][kind]
        if kind == "N":
            left, right = int(left), int(right)
        return {"<": left < right, ">=": left >= right}[operator]

    if operator in ("<", ">=") and next(iter(value)) not in ("N", "S"):
        operator = "="
    return Test(f"{name} {operator} :v", [value], holds)


def contains_test(name: str, value: Any) -> Test:
    def holds(item: Item) -> bool:
        ((kind, content),) = item.get(name, {"N": ""}).items()
        if kind == "L":
            return any(equal(element, value) for element in content)
        return kind in ("S", "SS") and "S" in value and value["S"] in content

    return Test(f"contains({name}, :v)", [value], holds)


def size_test(name: str, least: int) -> Test:
    found = {"N": str(least)}
    return Test(f"size({name}) > :v", [found], lambda item: (size(item, name) or -9) > least)


def both(a: Test, b: Test) -> Test:
    return Test(
        f"({a.text}) AND {b.text}", a.values + b.values, lambda i: a.holds(i) and b.holds(i)
    )


def either(a: Test, b: Test) -> Test:
    return Test(f"{a.text} OR {b.text}", a.values + b.values, lambda i: a.holds(i) or b.holds(i))


PLAIN = st.one_of(
    st.builds(
        compare_test,
        st.just("n"),
        SMALL.map(lambda n: {"N": str(n)}),
        st.sampled_from(["=", "<", ">="]),
    ),
    st.builds(compare_test, ATTRIBUTES, VALUES, st.sampled_from(["=", "<>", "<", ">="])),
    st.builds(contains_test, ATTRIBUTES, VALUES),
    st.builds(size_test, ATTRIBUTES, st.integers(0, 2)),
    ATTRIBUTES.map(lambda n: Test(f"attribute_exists({n})", [], lambda i: n in i)),
    ATTRIBUTES.map(lambda n: Test(f"NOT attribute_exists({n})", [], lambda i: n not in i)),
)
TESTS = st.one_of(PLAIN, st.builds(both, PLAIN, PLAIN), st.builds(either, PLAIN, PLAIN))


def said(member: str, test: Test | None, values: dict[str, Any]) -> dict[str, Any]:
    """A request's member for a condition; its values are added to `values`."""
    if test is None:
        return {}
    names = (f":c{n}" for n in count())
    text = test.text
    for value in test.values:
        name = next(names)
        text = text.replace(":v", name, 1)
        values[name] = value
    return {member: text}


def with_values(values: dict[str, Any]) -> dict[str, Any]:
    return {"ExpressionAttributeValues": values} if values else {}


# --- items and operations -----------------------------------------------------------------------------------------

KEYS = st.tuples(st.sampled_from(["p", "q"]), st.integers(-1, 1))
OPTIONAL = st.fixed_dictionaries(
    {"n": SMALL.map(lambda n: {"N": str(n)})},
    optional={
        "s": st.sampled_from(["a", "b"]).map(lambda s: {"S": s}),
        "l": st.lists(SMALL.map(lambda n: {"N": str(n)}), max_size=2).map(lambda e: {"L": e}),
        "elems": st.lists(st.sampled_from(["a", "b"]), min_size=1, unique=True).map(lambda e: {"SS": e}),
    },
)  # fmt: skip


def key_of(key: tuple[str, int]) -> Item:
    return {"pk": {"S": key[0]}, "sk": {"N": str(key[1])}}


MAYBE_TEST = st.one_of(st.none(), TESTS)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, OPTIONAL, MAYBE_TEST),
    st.tuples(st.just("delete"), KEYS, MAYBE_TEST),
    st.tuples(st.just("update"), KEYS, SMALL, st.sampled_from(["a", "b"]), MAYBE_TEST),
    st.tuples(st.just("legacy"), KEYS, SMALL, st.one_of(st.none(), SMALL)),
    st.tuples(st.just("batch"), st.dictionaries(KEYS, st.one_of(st.none(), OPTIONAL), min_size=1)),
    st.tuples(st.just("insert"), KEYS, SMALL),
    st.tuples(st.just("partiql"), KEYS, SMALL),
    st.tuples(st.just("batch_get"), st.sets(KEYS, min_size=1)),
    st.tuples(
        st.just("query"), st.sampled_from(["p", "q", "x"]), st.sampled_from([None, "by-n", "by-s"]),
        st.booleans(), st.integers(1, 5), MAYBE_TEST,
    ),
    st.tuples(st.just("scan"), st.integers(1, 3), st.integers(1, 5), MAYBE_TEST),
    st.tuples(st.just("select"), st.sampled_from(["p", "q", "x"]), SMALL),
)  # fmt: skip


class Model:
    """The table as a dictionary, and the real one beside it."""

    def __init__(self, partitions: int) -> None:
        self.items: dict[tuple[str, int], Item] = {}
        self.real = Harness().add_table(table(sort="N", local_indexes=INDEXES), count=partitions)

    def write(
        self,
        operation: str,
        key: tuple[str, int],
        new: Item | None,
        test: Test | None,
        **members: Any,
    ) -> None:
        """Send a conditional write and do it here."""
        values = members.pop("values", {})
        members |= said("ConditionExpression", test, values) | with_values(values)
        if test is not None and not test.holds(self.items.get(key, {})):
            assert self.real.error(operation, **members)[1] == CHECK_FAILED
            return
        self.real.ok(operation, **members)
        self.store(key, new)

    def store(self, key: tuple[str, int], new: Item | None) -> None:
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new

    # --- operations

    def put(self, key: tuple[str, int], attributes: Item, test: Test | None) -> None:
        item = {**key_of(key), **attributes}
        self.write("PutItem", key, item, test, Item=item)

    def delete(self, key: tuple[str, int], test: Test | None) -> None:
        self.write("DeleteItem", key, None, test, Key=key_of(key))

    def update(self, key: tuple[str, int], more: int, element: str, test: Test | None) -> None:
        new = copy.deepcopy(self.items.get(key, key_of(key)))
        new["n"] = {"N": str((number(new, "n") or 0) + more)}
        new["elems"] = {"SS": sorted({*new.get("elems", {"SS": []})["SS"], element})}
        new["l"] = {"L": [*new.get("l", {"L": []})["L"], {"N": "0"}]}
        new.pop("s", None)
        self.write(
            "UpdateItem", key, new, test, Key=key_of(key),
            UpdateExpression="SET n = if_not_exists(n, :z) + :m, l = list_append(if_not_exists(l, :e), :one) "
            "REMOVE s ADD elems :set",
            values={
                ":z": {"N": "0"}, ":m": {"N": str(more)}, ":e": {"L": []}, ":one": {"L": [{"N": "0"}]},
                ":set": {"SS": [element]},
            },
        )  # fmt: skip

    def legacy(self, key: tuple[str, int], more: int, expected: int | None) -> None:
        old = self.items.get(key, {})
        members: dict[str, Any] = {
            "Key": key_of(key),
            "AttributeUpdates": {"n": {"Action": "ADD", "Value": {"N": str(more)}}},
        }
        if expected is not None:
            members["Expected"] = {"n": {"Value": {"N": str(expected)}}}
            if number(old, "n") != expected:
                assert self.real.error("UpdateItem", **members)[1] == CHECK_FAILED
                return
        self.real.ok("UpdateItem", **members)
        self.store(key, {**key_of(key), **old, "n": {"N": str((number(old, "n") or 0) + more)}})

    def batch(self, changes: dict[tuple[str, int], Item | None]) -> None:
        requests = []
        for key, attributes in changes.items():
            if attributes is None:
                requests.append({"DeleteRequest": {"Key": key_of(key)}})
                self.store(key, None)
            else:
                item = {**key_of(key), **attributes}
                requests.append({"PutRequest": {"Item": item}})
                self.store(key, item)
        answer = self.real.ok("BatchWriteItem", TableName=None, RequestItems={"Things": requests})
        assert answer == {"UnprocessedItems": {}}

    def insert(self, key: tuple[str, int], n: int) -> None:
        text = f"INSERT INTO \"Things\" VALUE {{'pk': '{key[0]}', 'sk': {key[1]}, 'n': ?}}"
        members = {"TableName": None, "Statement": text, "Parameters": [{"N": str(n)}]}
        if key in self.items:
            assert self.real.error("ExecuteStatement", **members)[1] == "DuplicateItemException"
        else:
            self.real.ok("ExecuteStatement", **members)
            self.store(key, {**key_of(key), "n": {"N": str(n)}})

    def partiql(self, key: tuple[str, int], n: int) -> None:
        old = self.items.get(key, {})
        text = f"UPDATE \"Things\" SET n = ? REMOVE s WHERE pk = '{key[0]}' AND sk = {key[1]} AND n < ?"
        members = {
            "TableName": None, "Statement": text, "Parameters": [{"N": str(n)}, {"N": str(n)}],
        }  # fmt: skip
        held = number(old, "n")
        if held is None or held >= n:
            assert self.real.error("ExecuteStatement", **members)[1] == CHECK_FAILED
            return
        self.real.ok("ExecuteStatement", **members)
        new = {**old, "n": {"N": str(n)}}
        new.pop("s", None)
        self.store(key, new)

    def batch_get(self, keys: set[tuple[str, int]]) -> None:
        ordered = sorted(keys)
        asked = {"Things": {"Keys": [key_of(key) for key in ordered], "ConsistentRead": True}}
        answer = self.real.ok("BatchGetItem", TableName=None, RequestItems=asked)
        want = [self.items[key] for key in ordered if key in self.items]
        self.same(answer["Responses"]["Things"], want)

    def query(
        self, pk: str, index: str | None, forward: bool, limit: int, test: Test | None
    ) -> None:
        attribute = {None: "sk", "by-n": "n", "by-s": "s"}[index]
        passed = [item for key, item in self.items.items() if key[0] == pk and attribute in item]

        def order(item: Item) -> Any:
            ((kind, content),) = item[attribute].items()
            return int(content) if kind == "N" else content, number(item, "sk")

        passed.sort(key=order, reverse=not forward)
        if index == "by-s":  # its entries are keys only, and a filter sees no more
            passed = [{name: item[name] for name in ("pk", "sk", "s")} for item in passed]
        values = {":pk": {"S": pk}}
        members: dict[str, Any] = {
            "KeyConditionExpression": "pk = :pk", "ScanIndexForward": forward, "ConsistentRead": True,
        }  # fmt: skip
        if index is not None:
            members["IndexName"] = index
            if attribute in (test.text if test else ""):
                test = None  # keys of the index may not be in a filter
            if index == "by-s":
                test = None
        members |= said("FilterExpression", test, values) | with_values(values)
        self.pages("Query", passed, limit, test, members)

    def scan(self, segments: int, limit: int, test: Test | None) -> None:
        values: dict[str, Any] = {}
        members = said("FilterExpression", test, values) | with_values(values)
        found: list[Item] = []
        scanned = 0
        for segment in range(segments):
            members |= {"Segment": segment, "TotalSegments": segments, "ConsistentRead": True}
            for page in self.all_pages("Scan", limit, members):
                found += page["Items"]
                scanned += page["ScannedCount"]
        assert scanned == len(self.items)
        want = [item for item in self.items.values() if test is None or test.holds(item)]
        by_key = lambda item: (item["pk"]["S"], number(item, "sk"))  # noqa: E731
        self.same(sorted(found, key=by_key), sorted(want, key=by_key))

    def select(self, pk: str, n: int) -> None:
        members = {
            "TableName": None,
            "Statement": f"SELECT * FROM \"Things\" WHERE pk = '{pk}' AND n >= ?",
            "Parameters": [{"N": str(n)}],
            "ConsistentRead": True,
        }
        want = [
            item
            for key, item in sorted(self.items.items(), key=lambda entry: entry[0][1])
            if key[0] == pk and (held := number(item, "n")) is not None and held >= n
        ]
        self.same(self.real.ok("ExecuteStatement", **members)["Items"], want)

    # --- answers

    def all_pages(self, operation: str, limit: int, members: dict[str, Any]) -> list[Any]:
        pages = []
        start: dict[str, Any] = {}
        while True:
            page = self.real.ok(operation, Limit=limit, **members, **start)
            pages.append(page)
            if "LastEvaluatedKey" not in page:
                return pages
            assert page["ScannedCount"] == limit
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def pages(
        self, operation: str, passed: list[Item], limit: int, test: Test | None, members: Any
    ) -> None:
        pages = self.all_pages(operation, limit, members)
        assert sum(page["ScannedCount"] for page in pages) == len(passed)
        found = [item for page in pages for item in page["Items"]]
        self.same(found, [item for item in passed if test is None or test.holds(item)])

    @staticmethod
    def same(found: list[Item], want: list[Item]) -> None:
        assert len(found) == len(want), (found, want)
        for one, other in zip(found, want, strict=True):
            assert equal({"M": one}, {"M": other}), json.dumps([one, other])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 5]), st.lists(OPERATIONS, min_size=15, max_size=40))
def test_the_item_api_does_as_its_model(partitions, operations):
    model = Model(partitions)
    model.batch(
        {("p", 0): {"n": {"N": "0"}}, ("p", 1): {"s": {"S": "a"}}, ("q", 0): {"n": {"N": "1"}}}
    )
    for name, *arguments in operations:
        getattr(model, name)(*arguments)
    model.scan(1, 3, None)
    for pk in "pqr":
        for index in (None, "by-n", "by-s"):
            model.query(pk, index, True, 2, None)
