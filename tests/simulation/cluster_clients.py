"""Clients of a simulated cluster: what they ask, and what they may conclude from the answers."""

from collections.abc import Callable
from typing import Any

from tests.cluster.linearizability import Operation
from tests.simulation.cluster_processes import RouterProcess
from tests.simulation.cluster_world import World

TABLE = "things"
REGISTERS = ("a", "b", "c", "d")
COUNTERS = ("x", "y")
PATIENCE_S = 8.0  # of a client for one answer


def key_of(name: str) -> dict[str, Any]:
    """Items of one partition key each, so that a Query reads several."""
    return {"pk": {"S": "r" if name in REGISTERS[:2] else name}, "sk": {"S": name}}


class Clients:
    """Whoever writes and reads, one request at a time each, and what they were told."""

    def __init__(self, world: World, routers: list[RouterProcess]) -> None:
        self.world = world
        self._routers = routers
        self.is_on = True
        self.histories: dict[str, list[Operation]] = {k: [] for k in REGISTERS + COUNTERS}
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
        if rng.random() < 0.1:
            batch = self._put_batch if rng.random() < 0.5 else self._get_batch
            batch(router, lambda _: self._think())
            return
        key = rng.choice(REGISTERS + COUNTERS)
        if key in COUNTERS:
            kind = rng.choice(("add", "add", "read", "glance"))
        else:
            kind = rng.choice(
                (
                    "write",
                    "exchange",
                    "create",
                    "swap",
                    "take",
                    "read",
                    "glance",
                    "query",
                    "scan",
                )
            )
        self.perform(router, kind, key, lambda _: self._think())

    def _think(self) -> None:
        self.world.after(self.world.rng.expovariate(self._rate), self._next)

    def perform(
        self, router: RouterProcess, kind: str, key: str, then: Callable[[bool], None]
    ) -> None:
        """One operation; `then` hears whether it was done."""
        world = self.world
        self._unique += 1
        number = self._unique
        argument: Any = None
        at = {"TableName": TABLE, "Key": key_of(key)}
        pad = {"S": "." * world.rng.choice((0, 0, 40, 200))}
        put = {"TableName": TABLE, "Item": {**key_of(key), "v": {"N": str(number)}, "pad": pad}}
        match kind:
            case "read" | "glance":
                name, members = "GetItem", {**at, "ConsistentRead": kind == "read"}
            case "query":
                name = "Query"
                members = {
                    "TableName": TABLE,
                    "KeyConditionExpression": "pk = :p",
                    "ExpressionAttributeValues": {":p": key_of(key)["pk"]},
                    "ConsistentRead": True,
                    "Limit": world.rng.choice((1, 5)),
                }
            case "scan":
                name = "Scan"
                limit = world.rng.choice((3, 20))
                members = {"TableName": TABLE, "ConsistentRead": True, "Limit": limit}
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
        world.log("CALL", number, router.name, kind, key, argument)
        invoked = world.now

        def judge(status: int, body: dict[str, Any]) -> bool:
            return self._judge(kind, key, argument, invoked, status, body)

        self._send(router, number, kind, name, members, judge, then)

    def _send(
        self,
        router: RouterProcess,
        number: int,
        kind: str,
        name: str,
        members: dict[str, Any],
        judge: Callable[[int, dict[str, Any]], bool],
        then: Callable[[bool], None],
    ) -> None:
        """Ask; one answer is judged, and it is the client's own patience that ends if none comes."""
        world = self.world

        def end(status: int, body: dict[str, Any]) -> None:
            if self._open.pop(number, None) is None:
                return  # the client has gone away
            world.stats[f"{kind} {status}"] += 1
            world.log("ANSWER", number, status, body if status == 200 else body.get("__type"))
            then(judge(status, body))

        self._open[number] = end
        router.call(name, members, end)
        world.after(PATIENCE_S, end, 0, {})

    def _put_batch(self, router: RouterProcess, then: Callable[[bool], None]) -> None:
        """Each put of a batch is a write by itself; an unprocessed one may have been done."""
        world = self.world
        self._unique += 1
        number, invoked = self._unique, world.now
        keys = world.rng.sample(REGISTERS, 2)
        puts = [{"PutRequest": {"Item": {**key_of(k), "v": {"N": str(number)}}}} for k in keys]
        for key in keys:
            self._written[key].add(number)
        world.log("CALL", number, router.name, "put batch", *keys)

        def judge(status: int, body: dict[str, Any]) -> bool:
            if status not in (0, 200, 500, 503):
                world.violate("answer", ("put batch", status, body))
            left = body.get("UnprocessedItems", {}).get(TABLE, [])
            unknown = {put["PutRequest"]["Item"]["sk"]["S"] for put in left}
            for key in keys:
                operation = Operation("write", number, None, invoked)
                if status == 200 and key not in unknown:
                    operation = Operation("write", number, None, invoked, world.now)
                self.histories[key].append(operation)
            return status == 200

        members = {"RequestItems": {TABLE: puts}}
        self._send(router, number, "put batch", "BatchWriteItem", members, judge, then)

    def _get_batch(self, router: RouterProcess, then: Callable[[bool], None]) -> None:
        """Each strong get of a batch is a read by itself."""
        world = self.world
        self._unique += 1
        number, invoked = self._unique, world.now
        keys = world.rng.sample(REGISTERS + COUNTERS, 3)
        world.log("CALL", number, router.name, "get batch", *keys)

        def judge(status: int, body: dict[str, Any]) -> bool:
            if status not in (0, 200, 503):
                world.violate("answer", ("get batch", status, body))
            if status != 200:
                return False
            left = body.get("UnprocessedKeys", {}).get(TABLE, {}).get("Keys", [])
            unknown = {key["sk"]["S"] for key in left}
            found = {i["sk"]["S"]: int(i["v"]["N"]) for i in body["Responses"].get(TABLE, [])}
            for key in keys:
                if key not in unknown:
                    self.histories[key].append(
                        Operation("read", None, found.get(key), invoked, world.now)
                    )
            return True

        asked = {"Keys": [key_of(key) for key in keys], "ConsistentRead": True}
        members = {"RequestItems": {TABLE: asked}}
        self._send(router, number, "get batch", "BatchGetItem", members, judge, then)

    def give_up(self) -> None:
        """Nobody waits any longer: what has no answer by now stays open for ever."""
        self.is_on = False
        for end in list(self._open.values()):
            end(0, {})

    def _judge(
        self, kind: str, key: str, argument: Any, invoked: float, status: int, body: dict[str, Any]
    ) -> bool:
        """Record what the answer says."""
        world, code = self.world, str(body.get("__type", "")).rpartition("#")[2]
        history = self.histories[key]
        is_read = kind in ("read", "glance", "query", "scan")
        result: Any = None
        match status, code:
            case (200, _):
                if kind in ("query", "scan"):
                    self._judge_page(None if kind == "scan" else key, invoked, body)
                    return True
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
            if result not in self._written[key]:
                world.violate("never-written", (key, result))
            return True
        if is_read or kind == "write":
            self._seen[key] = argument if kind == "write" else result
        history.append(Operation(kind, argument, result, invoked, world.now))
        return True

    def _judge_page(self, key: str | None, invoked: float, body: dict[str, Any]) -> None:
        """A strong page is a read of each item in it, and of those missing before its end. (The order of a Scan
        is that of hashes, so only its last page says what is missing.)
        """
        names = sorted(self.histories)
        if key is not None:
            partition = key_of(key)["pk"]
            names = [name for name in names if key_of(name)["pk"] == partition]
        found = {item["sk"]["S"]: int(item["v"]["N"]) for item in body["Items"]}
        last = body.get("LastEvaluatedKey")
        for name in names:
            if name in found or last is None or (key is not None and name <= last["sk"]["S"]):
                self.histories[name].append(
                    Operation("read", None, found.get(name), invoked, self.world.now)
                )


def _result(kind: str, body: dict[str, Any]) -> Any:
    match kind:
        case "create" | "swap":
            return True
        case "read" | "glance":
            item = body.get("Item")
        case _:
            item = body.get("Attributes")
    return int(item["v"]["N"]) if item else None
