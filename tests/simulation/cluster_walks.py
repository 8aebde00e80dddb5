"""Reading page by page: what each page of a Query or Scan says of the items that it has, and of those it lacks.

A strong page is a read of every item in it, and of those that are missing where it has looked: in order of the
sort key up to its end, in a Scan (whose order is that of hashes) only once all pages are there, and then at some
moment since the first of them. In a local index an item that is written between two pages may change its place, so
an item is known to be missing from it only when one page says it all. An eventual page has nothing that was never
written. All pages: items in order, none twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.cluster.linearizability import Operation
from tests.simulation.cluster_processes import RouterProcess
from tests.simulation.cluster_world import World

TABLE = "things"
# By name: the sort key, and whether the entries have the whole item. Sparse: few items have a `w`.
INDEXES = {"by-v": ("v", False), "by-w": ("w", True)}
PAGES_MAX = 12


def mark_of(number: int) -> str | None:
    """The `w` that is written with this `v`."""
    return None if number % 3 else f"w{number % 2}"


class Records(Protocol):
    """Where walks put what they saw."""

    world: World
    is_over: bool
    histories: dict[str, list[Operation]]

    def partition_of(self, name: str) -> str: ...
    def seen_eventually(
        self, router: RouterProcess, name: str, value: Any, invoked: float
    ) -> None: ...
    def ask(
        self,
        router: RouterProcess,
        kind: str,
        operation: str,
        members: dict[str, Any],
        judge: Callable[[int, dict[str, Any]], bool],
        then: Callable[[bool], None],
    ) -> None: ...


@dataclass
class Walk:
    """One Query or Scan, through its pages."""

    kind: str
    members: dict[str, Any]
    names: list[str]
    """All items that it could find."""
    index: str | None
    is_strong: bool
    is_forward: bool
    is_scan: bool
    begun: float
    found: list[str] = field(default_factory=list)
    page_began: float = 0.0
    pages: int = 0


def begin_walk(
    records: Records,
    router: RouterProcess,
    name: str,
    *,
    has_indexes: bool,
    then: Callable[[bool], None],
) -> None:
    """Read from the partition of the item `name`, or everything, in pages; `then` hears when that is over."""
    rng = records.world.rng
    is_scan = rng.random() < 0.4
    index = rng.choice((None, *INDEXES)) if has_indexes else None
    is_strong = rng.random() < 0.75
    is_forward = is_scan or rng.random() < 0.6
    members: dict[str, Any] = {"TableName": TABLE, "ConsistentRead": is_strong}
    partition = records.partition_of(name)
    names = sorted(records.histories)
    if not is_scan:
        names = [name for name in names if records.partition_of(name) == partition]
        members["KeyConditionExpression"] = "pk = :p"
        members["ExpressionAttributeValues"] = {":p": {"S": partition}}
        members["ScanIndexForward"] = is_forward
    if index is not None:
        members["IndexName"] = index
    limit = rng.choice((1, 2, 5, None))
    if limit is not None:
        members["Limit"] = limit
    kind = ("scan" if is_scan else "query") + (" index" if index else "")
    walk = Walk(
        kind, members, names, index, is_strong, is_forward, is_scan, records.world.now
    )  # fmt: skip
    _next_page(records, router, walk, then)


def _next_page(
    records: Records, router: RouterProcess, walk: Walk, then: Callable[[bool], None]
) -> None:
    world = records.world
    if records.is_over:
        return
    walk.page_began = world.now
    walk.pages += 1

    def judge(status: int, body: dict[str, Any]) -> bool:
        if status not in (0, 200, 503):
            world.violate("answer", (walk.kind, status, body))
        if status == 200:
            _judge_page(records, router, walk, body)
        return status == 200

    def more(ok: bool) -> None:
        if not ok or "ExclusiveStartKey" not in walk.members or walk.pages >= PAGES_MAX:
            then(ok)
        else:
            world.after(world.rng.choice((0.0, 0.01, 0.3)), _next_page, records, router, walk, then)

    operation = "Scan" if walk.is_scan else "Query"
    records.ask(router, walk.kind, operation, dict(walk.members), judge, more)


def _judge_page(records: Records, router: RouterProcess, walk: Walk, body: dict[str, Any]) -> None:
    world, items, last = records.world, body["Items"], body.get("LastEvaluatedKey")
    detail = (walk.kind, walk.members, body)
    if (
        body["Count"] != len(items)
        or body["ScannedCount"] != len(items)
        or len(items) > walk.members.get("Limit", 100)
    ):
        world.violate("page", detail)
    found: list[str] = []
    for item in items:
        name, value = item["sk"]["S"], int(item["v"]["N"])
        found.append(name)
        if walk.index == "by-w" and item["w"]["S"] != mark_of(value):
            world.violate("index-differs", detail)
        if name not in walk.names or item["pk"]["S"] != records.partition_of(name):
            world.violate("page", detail)
        if walk.is_strong:
            read = Operation("read", None, value, walk.page_began, world.now)
            records.histories[name].append(read)
        else:
            records.seen_eventually(router, name, value, walk.page_began)
    _check_order(records, walk, found, items, detail)
    if walk.is_strong and walk.index != "by-w":
        _judge_missing(records, walk, found, last)
    walk.found += found
    walk.members.pop("ExclusiveStartKey", None)
    if last is not None:
        walk.members["ExclusiveStartKey"] = last


def _check_order(
    records: Records, walk: Walk, found: list[str], items: list[dict[str, Any]], detail: object
) -> None:
    all_found = walk.found + found
    if walk.index is None and len(set(all_found)) != len(all_found):
        records.world.violate("twice-in-pages", detail)
    if walk.is_scan:
        return
    keys: list[Any] = all_found
    if walk.index == "by-v":
        keys = [(int(item["v"]["N"]), item["sk"]["S"]) for item in items]
    elif walk.index == "by-w":
        keys = [(item["w"]["S"], item["sk"]["S"]) for item in items]
    if keys != sorted(keys, reverse=not walk.is_forward):
        records.world.violate("page-order", detail)


def _judge_missing(
    records: Records, walk: Walk, found: list[str], last: dict[str, Any] | None
) -> None:
    """What a strong page of the table says of the items that it does not have (`walk.found`: earlier pages)."""
    is_whole = last is None and walk.pages == 1
    began = walk.page_began
    for name in walk.names:
        if name in found or name in walk.found:
            continue
        if walk.index is not None:
            is_missing = is_whole
        elif walk.is_scan:
            is_missing, began = last is None, walk.begun
        else:
            is_missing = _is_passed(name, walk, last) and not _is_passed_before(name, walk)
        if is_missing:
            read = Operation("read", None, None, began, records.world.now)
            records.histories[name].append(read)


def _is_passed(name: str, walk: Walk, last: dict[str, Any] | None) -> bool:
    return last is None or (name <= last["sk"]["S"]) is walk.is_forward or name == last["sk"]["S"]


def _is_passed_before(name: str, walk: Walk) -> bool:
    start = walk.members.get("ExclusiveStartKey")
    return start is not None and _is_passed(name, walk, start)
