"""Clients of a simulated cluster: what they ask, and what they may conclude from the answers."""

from collections.abc import Callable
from typing import Any

from tests.cluster.linearizability import Operation
from tests.simulation.cluster_processes import RouterProcess
from tests.simulation.cluster_sessions import Sessions
from tests.simulation.cluster_walks import INDEXES, TABLE, begin_walk, mark_of
from tests.simulation.cluster_world import World

REGISTERS = ("a", "b", "c", "d")
COUNTERS = ("x", "y")
PATIENCE_S = 8.0  # of a client for one answer
KINDS = ("write", "exchange", "create", "swap", "take", "read", "glance")


def key_of(name: str) -> dict[str, Any]:
    """Most registers have one partition key, so that a Query reads several."""
    return {"pk": {"S": "r" if name in REGISTERS[:3] else name}, "sk": {"S": name}}


def item_of(name: str, number: int) -> dict[str, Any]:
    """What is put; the number says which write it was."""
    mark = mark_of(number)
    return {**key_of(name), "v": {"N": str(number)}, **({"w": {"S": mark}} if mark else {})}


def definition(name: str, partitions: int, *, has_indexes: bool) -> dict[str, Any]:
    """Members of the CreateTable of a table for such items."""
    attributes = {"pk": "S", "sk": "S"}
    members: dict[str, Any] = {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": _schema("sk"),
        "Tags": [{"Key": "quorate:partitions", "Value": str(partitions)}],
    }
    if has_indexes:
        attributes |= {"v": "N", "w": "S"}
        members["LocalSecondaryIndexes"] = [
            {
                "IndexName": index,
                "KeySchema": _schema(attribute),
                "Projection": {"ProjectionType": "ALL" if is_whole else "KEYS_ONLY"},
            }
            for index, (attribute, is_whole) in INDEXES.items()
        ]
    members["AttributeDefinitions"] = [
        {"AttributeName": attribute, "AttributeType": kind}
        for attribute, kind in attributes.items()
    ]
    return members


def _schema(sort_name: str) -> list[dict[str, str]]:
    return [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": sort_name, "KeyType": "RANGE"},
    ]


class Clients:
    """Whoever writes and reads, one request at a time each, and what they were told."""

    def __init__(self, world: World, routers: list[RouterProcess], *, has_indexes: bool) -> None:
        self.world = world
        self._routers = routers
        self._has_indexes = has_indexes
        self.is_on = True
        self.is_over = False
        self.histories: dict[str, list[Operation]] = {k: [] for k in REGISTERS + COUNTERS}
        self.sessions = Sessions(world)
        self._written: dict[str, set[Any]] = {k: {None} for k in self.histories}
        self._seen: dict[str, Any] = dict.fromkeys(self.histories)
        self._unique = 0
        self._rate = self.world.rng.choice((20.0, 20.0, 60.0))
        self._open: dict[int, Callable[[int, dict[str, Any]], None]] = {}

    def begin(self, count: int) -> None:
        for _ in range(count):
            self.world.after(0.1 * self.world.rng.random(), self._next)

    def _next(self) -> None:
        if not self.is_on:
            return
        rng = self.world.rng
        router = rng.choice(self._routers)
        key = rng.choice(REGISTERS + COUNTERS)
        draw = rng.random()
        if draw < 0.05:
            self._write_batch(router, lambda _: self._think())
        elif draw < 0.1:
            self._get_batch(router, lambda _: self._think())
        elif draw < 0.22:
            self.walk(router, key, lambda _: self._think())
        else:
            kind = rng.choice(("add", "add", "read", "glance") if key in COUNTERS else KINDS)
            self.perform(router, kind, key, lambda done: self._look_or_think(router, key, done))

    def _look_or_think(self, router: RouterProcess, key: str, done: bool) -> None:
        """Sometimes what was just answered is read at once, through the same router, eventually consistent."""
        if self.is_on and done and self.world.rng.random() < 0.4:
            self.perform(router, "glance", key, lambda _: self._think())
        else:
            self._think()

    def _think(self) -> None:
        self.world.after(self.world.rng.expovariate(self._rate), self._next)

    # single items

    def perform(
        self, router: RouterProcess, kind: str, key: str, then: Callable[[bool], None]
    ) -> None:
        """One operation; `then` hears whether it was done."""
        world = self.world
        number = self._unique + 1
        argument: Any = None
        at = {"TableName": TABLE, "Key": key_of(key)}
        pad = {"S": "." * world.rng.choice((0, 0, 40, 200))}
        put = {"TableName": TABLE, "Item": {**item_of(key, number), "pad": pad}}
        match kind:
            case "read" | "glance":
                name, members = "GetItem", {**at, "ConsistentRead": kind == "read"}
            case "write":
                name, members, argument = "PutItem", put, number
            case "exchange":
                name, members, argument = "PutItem", {**put, "ReturnValues": "ALL_OLD"}, number
            case "create":
                argument, name = number, "PutItem"
                members = {**put, "ConditionExpression": "attribute_not_exists(pk)"}
            case "swap":
                expected = self._seen[key] or 0
                argument, name = (expected, number), "PutItem"
                members = {
                    **put,
                    "ConditionExpression": "v = :e",
                    "ExpressionAttributeValues": {":e": {"N": str(expected)}},
                }
            case "take":
                name, members = "DeleteItem", {**at, "ReturnValues": "ALL_OLD"}
            case "add":
                argument, name = 1, "UpdateItem"
                members = {
                    **at,
                    "UpdateExpression": "ADD v :v",
                    "ExpressionAttributeValues": {":v": {"N": "1"}},
                    "ReturnValues": "ALL_NEW",
                }
            case _:
                raise AssertionError(kind)
        if kind == "add":
            self._written[key].add(len(self._written[key]))
        elif argument is not None:
            self._written[key].add(number)
        invoked = world.now

        def judge(status: int, body: dict[str, Any]) -> bool:
            return self._judge(router, kind, key, argument, invoked, status, body)

        self.ask(router, kind, name, members, judge, then, key, argument)

    def ask(
        self,
        router: RouterProcess,
        kind: str,
        operation: str,
        members: dict[str, Any],
        judge: Callable[[int, dict[str, Any]], bool],
        then: Callable[[bool], None],
        *what: object,
    ) -> None:
        """Ask; one answer is judged, and it is the client's own patience that ends if none comes."""
        world = self.world
        self._unique += 1
        number = self._unique
        world.log("CALL", number, router.name, kind, *what)

        def end(status: int, body: dict[str, Any]) -> None:
            if self._open.pop(number, None) is None:
                return  # the client has gone away
            world.stats[f"{kind} {status}"] += 1
            world.log("ANSWER", number, status, body if status == 200 else body.get("__type"))
            then(judge(status, body))

        self._open[number] = end
        router.call(operation, members, end)
        world.after(PATIENCE_S, end, 0, {})

    def give_up(self) -> bool:
        """Nobody waits any longer: what has no answer by now stays open for ever. Whether there was such."""
        self.is_on = False
        self.is_over = True
        unanswered = list(self._open.values())
        for end in unanswered:
            end(0, {})
        return bool(unanswered)

    def _judge(
        self,
        router: RouterProcess,
        kind: str,
        key: str,
        argument: Any,
        invoked: float,
        status: int,
        body: dict[str, Any],
    ) -> bool:
        """Record what the answer says."""
        world, code = self.world, str(body.get("__type", "")).rpartition("#")[2]
        history = self.histories[key]
        is_read = kind in ("read", "glance")
        result: Any = None
        match status, code:
            case (200, _):
                result = _result(kind, body)
            case (400, "ConditionalCheckFailedException") if kind in ("create", "swap"):
                result = False
            case (503, "ServiceUnavailable"):
                return False  # "not executed": if it was, no history will explain what others see
            case (500, "InternalServerError") | (0, _):
                if status == 500 and is_read:
                    world.violate("500", (kind, key, body))
                if not is_read:
                    history.append(Operation(kind, argument, None, invoked))
                return False
            case _:
                world.violate("answer", (kind, key, status, body))
        if kind == "glance":
            self.seen_eventually(router, key, result, invoked)
            return True
        if is_read or result is not False:
            value = result if is_read or kind == "add" else argument
            value = argument[1] if kind == "swap" else value
            self.sessions.note(router, key, kind, value, invoked)
        if is_read or kind == "write":
            self._seen[key] = argument if kind == "write" else result
        history.append(Operation(kind, argument, result, invoked, world.now))
        return True

    # several items

    def _write_batch(self, router: RouterProcess, then: Callable[[bool], None]) -> None:
        """Each put or deletion of a batch is a write by itself; an unprocessed one may have been done."""
        world, rng = self.world, self.world.rng
        number, invoked = self._unique + 1, world.now
        writes = {key: None if rng.random() < 0.3 else number for key in rng.sample(REGISTERS, 2)}
        requests: list[dict[str, Any]] = []
        for key, value in writes.items():
            self._written[key].add(value)
            if value is None:
                requests.append({"DeleteRequest": {"Key": key_of(key)}})
            else:
                requests.append({"PutRequest": {"Item": item_of(key, value)}})

        def judge(status: int, body: dict[str, Any]) -> bool:
            if status not in (0, 200, 500, 503):
                world.violate("answer", ("write batch", status, body))
            left = body.get("UnprocessedItems", {}).get(TABLE, [])
            unknown = {
                (r["PutRequest"]["Item"] if "PutRequest" in r else r["DeleteRequest"]["Key"])["sk"]["S"]
                for r in left
            }  # fmt: skip
            for key, value in writes.items():
                operation = Operation("write", value, None, invoked)
                if status == 200 and key not in unknown:
                    operation = Operation("write", value, None, invoked, world.now)
                    self.sessions.note(router, key, "write", value, invoked)
                self.histories[key].append(operation)
            return status == 200

        members = {"RequestItems": {TABLE: requests}}
        self.ask(router, "write batch", "BatchWriteItem", members, judge, then, writes)

    def _get_batch(self, router: RouterProcess, then: Callable[[bool], None]) -> None:
        """Each get of a batch is a read by itself."""
        world, invoked = self.world, self.world.now
        keys = world.rng.sample(REGISTERS + COUNTERS, 3)
        is_strong = world.rng.random() < 0.7

        def judge(status: int, body: dict[str, Any]) -> bool:
            if status not in (0, 200, 503):
                world.violate("answer", ("get batch", status, body))
            if status != 200:
                return False
            left = body.get("UnprocessedKeys", {}).get(TABLE, {}).get("Keys", [])
            unknown = {key["sk"]["S"] for key in left}
            found = {i["sk"]["S"]: int(i["v"]["N"]) for i in body["Responses"].get(TABLE, [])}
            for key in keys:
                value = found.get(key)
                if key in unknown:
                    continue
                if is_strong:
                    read = Operation("read", None, value, invoked, world.now)
                    self.histories[key].append(read)
                    self.sessions.note(router, key, "read", value, invoked)
                else:
                    self.seen_eventually(router, key, value, invoked)
            return True

        asked = {"Keys": [key_of(key) for key in keys], "ConsistentRead": is_strong}
        members = {"RequestItems": {TABLE: asked}}
        self.ask(router, "get batch", "BatchGetItem", members, judge, then, *keys)

    def walk(self, router: RouterProcess, key: str, then: Callable[[bool], None]) -> None:
        """A Query or Scan, page by page."""
        begin_walk(self, router, key, has_indexes=self._has_indexes, then=then)

    def partition_of(self, name: str) -> str:
        return str(key_of(name)["pk"]["S"])

    def seen_eventually(self, router: RouterProcess, name: str, value: Any, invoked: float) -> None:
        self.sessions.note(router, name, "glance", value, invoked)
        if value not in self._written[name]:
            self.world.violate("never-written", (name, value))


def _result(kind: str, body: dict[str, Any]) -> Any:
    match kind:
        case "create" | "swap":
            return True
        case "read" | "glance":
            item = body.get("Item")
        case _:
            item = body.get("Attributes")
    return int(item["v"]["N"]) if item else None
