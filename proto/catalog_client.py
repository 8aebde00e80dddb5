"""A process's access to the catalog (partition group 0): its copy in memory, and conditional writes.

The copy is loaded once and kept true by group 0's change feed. When group 0 is away the copy goes on serving as
it was, and following resumes by itself. Who cannot live with a copy that may lag reads the row itself.

Used by routers and by the control plane. Writes are atomic over all their rows and carry conditions, so that
two writers never overwrite each other (`datamodel.catalog_rows`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from datamodel.catalog_rows import (
    ABSENT,
    CATALOG_GROUP,
    CATALOG_SCHEMA,
    ROWS_RANGE,
    SYSTEM_TABLE_ID,
    UNCHANGED,
    BadRow,
    NodeRow,
    PartitionRow,
    Row,
    TableRow,
    key_item,
    nodes_range,
    parse_row,
    partitions_range,
    row_item,
    row_key,
    table_key,
    unchanged_values,
)
from datamodel.errors import error_for_code
from datamodel.items import decode_item, encode_item, item_size
from datamodel.key_encoding import encode_key
from datamodel.stored_items import check_record, record_body
from datamodel.table_descriptions import TableDescription
from proto.catalog_view import CatalogView, RowChange, is_older
from proto.client_groups import GroupRequest
from proto.messages import (
    CHECK,
    DELETE,
    PUT,
    Action,
    Answer,
    FeedPage,
    FeedRecord,
    Get,
    OutcomeUnknown,
    Page,
    Query,
    ReadFeed,
    Refused,
    ReplicaAddress,
    Unavailable,
    Value,
    Write,
    Written,
    WrongPartition,
)

log = logging.getLogger(__name__)

READ_TIMEOUT_S: Final = 2.0
LOAD_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 5.0
FEED_WAIT_MS: Final = 10_000
FEED_TIMEOUT_S: Final = 15.0
FEED_RECORDS: Final = 500
BACKOFF_S: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NOWHERE: Final = -1
"""A feed position that asks only where the feed stands now."""

_CONFLICTS: Final = ("ConditionalCheckFailedException", "TransactionCanceledException")


class GroupClient(Protocol):
    """What is needed of `proto.cluster_client.ClusterClient`."""

    async def request(self, request: GroupRequest, timeout_s: float, leader: bool = True) -> Answer:
        """The final answer of a request."""

    def next_request_id(self) -> bytes:
        """A fresh id for a `Write`."""

    def update_groups(
        self, groups: dict[int, Sequence[ReplicaAddress]], removed: Iterable[int] = ()
    ) -> None:
        """Learn where groups' replicas are."""

    def rediscover(self) -> None:
        """Ask where the catalog group is now."""


class CatalogUnavailable(Exception):
    """Group 0 did not answer in time; nothing was changed by this call. Trying again may help."""


class WriteOutcomeUnknown(CatalogUnavailable):
    """A write of the catalog may or may not have taken effect. Read before you decide."""


class WriteConflict(Exception):
    """A condition of a write did not hold, so none of its rows was written.

    Attributes:
        failed: Which of the write's rows had a condition that failed, by place.
    """

    def __init__(self, failed: Sequence[int]) -> None:
        super().__init__(f"conditions failed: {list(failed)}")
        self.failed = tuple(failed)


@dataclass(frozen=True, slots=True)
class RowWrite:
    """One row's part of a write: the action, and the row afterwards (None: gone)."""

    action: Action
    row: Row | None
    is_check: bool = False


def insert(row: Row) -> RowWrite:
    """Write a row that must not be there yet."""
    body, size = _body(row)
    return RowWrite(Action(PUT, row_key(row), body, size, condition=ABSENT), row)


def update(row: Row) -> RowWrite:
    """Write the next version of a row: what is stored must have the version before `row.version`."""
    body, size = _body(row)
    values = encode_item(unchanged_values(row.version - 1))
    return RowWrite(Action(PUT, row_key(row), body, size, condition=UNCHANGED, values=values), row)


def remove(row: Row) -> RowWrite:
    """Delete a row that is still as given."""
    values = encode_item(unchanged_values(row.version))
    key_body = encode_item(key_item(row))
    return RowWrite(
        Action(DELETE, row_key(row), key_body, condition=UNCHANGED, values=values), None
    )


def unchanged(row: Row) -> RowWrite:
    """Write nothing, but only if a row is still as given."""
    values = encode_item(unchanged_values(row.version))
    key_body = encode_item(key_item(row))
    action = Action(CHECK, row_key(row), key_body, condition=UNCHANGED, values=values)
    return RowWrite(action, row, is_check=True)


def _body(row: Row) -> tuple[bytes, int]:
    item = row_item(row)
    return encode_item(item), item_size(item)


def _is_gone(row: Row | None, removed: Row | None) -> bool:
    """Whether what was removed is that row, or a later state of it."""
    return row is not None and removed is not None and not is_older(removed, row)


class CatalogClient:
    """The catalog for one process. All methods run on the loop's thread."""

    def __init__(self, client: GroupClient) -> None:
        """Create; `start` begins to load and follow.

        Args:
            client: Reaches group 0. It is also told, as the copy changes, where all other groups are.
        """
        self.view = CatalogView()
        self._client = client
        self._is_ready = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._followed_at_position: int | None = None
        self._listeners: list[Callable[[list[RowChange]], None]] = []
        self._waits: list[tuple[Callable[[CatalogView], bool], asyncio.Future[None]]] = []
        self._refreshes: dict[str, asyncio.Task[TableRow | CatalogUnavailable | None]] = {}
        self._is_current = False
        self._removed_meanwhile: list[dict[bytes, Row]] = []  # one for each write under way

    # --- life ---

    def start(self) -> None:
        """Begin to load and follow, until `stop`."""
        if self._follower is None:
            self._follower = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Follow no more. The copy stays."""
        tasks = [task for task in (self._follower, *self._refreshes.values()) if task is not None]
        self._follower = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_ready(self) -> bool:
        """Whether the catalog was loaded at least once."""
        return self._is_ready.is_set()

    @property
    def is_current(self) -> bool:
        """Whether the feed is being followed now; otherwise the copy may be old."""
        return self._is_current

    async def ready(self) -> None:
        """Wait until the catalog was loaded once."""
        await self._is_ready.wait()

    # --- watching ---

    def subscribe(self, listener: Callable[[list[RowChange]], None]) -> Callable[[], None]:
        """Call `listener` after each change of the copy, at once and in order; returns how to end that.

        What a listener raises is logged and harms nobody else.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_for(self, holds: Callable[[CatalogView], bool], timeout_s: float) -> bool:
        """Wait until the copy is so, at most `timeout_s`; whether it is."""
        if holds(self.view):
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wait = (holds, future)
        self._waits.append(wait)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            if wait in self._waits:
                self._waits.remove(wait)
        return True

    # --- reading group 0 itself ---

    async def fetch_row(self, key: bytes, timeout_s: float = READ_TIMEOUT_S) -> Row | None:
        """The row under a keyspace key as committed now; the copy learns it too.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        known = self.view.row(key)
        answer = await self._ask(Get(0, CATALOG_GROUP, key, strong=True), timeout_s)
        assert isinstance(answer, Value)
        if answer.value is None:
            self._learn_absence(key, known)
            return None
        check_record(answer.value, "catalog row")
        row = parse_row(decode_item(record_body(answer.value)))
        self._changed([self.view.apply(key, row)])
        return row

    def _learn_absence(self, key: bytes, known: Row | None) -> None:
        """A read that began when `known` was known found nothing. What came after it began may be newer."""
        if self.view.row(key) is known:
            self._changed([self.view.apply(key, None)])

    async def fetch_table(self, name: str, timeout_s: float = READ_TIMEOUT_S) -> TableRow | None:
        """The row of a table as committed now.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        row = await self.fetch_row(table_key(name), timeout_s)
        assert row is None or isinstance(row, TableDescription)
        return row

    async def fetch_range(
        self, start: bytes, end: bytes, timeout_s: float = READ_TIMEOUT_S, limit: int = 0
    ) -> list[Row]:
        """The rows in [start, end) in key order, as committed now, page by page.

        Args:
            start: First keyspace key.
            end: First keyspace key not to read.
            timeout_s: For each page.
            limit: Most rows, 0 for all.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        rows: list[Row] = []
        at = start
        while True:
            query = Query(0, CATALOG_GROUP, at, end, strong=True, limit=max(limit - len(rows), 0))
            page = await self._ask(query, timeout_s)
            assert isinstance(page, Page)
            rows += self._parsed(msgspec.json.decode(b"[" + page.items + b"]"))
            if page.last is None or (limit and len(rows) >= limit):
                return rows
            at = encode_key(SYSTEM_TABLE_ID, CATALOG_SCHEMA, decode_item(page.last)) + b"\x00"

    async def fetch_partitions(
        self, table_id: int, timeout_s: float = READ_TIMEOUT_S
    ) -> list[PartitionRow]:
        """The rows of a table's partitions as committed now, by group id.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        rows = await self.fetch_range(*partitions_range(table_id), timeout_s)
        return [row for row in rows if isinstance(row, PartitionRow)]

    async def fetch_nodes(self, timeout_s: float = READ_TIMEOUT_S) -> list[NodeRow]:
        """The rows of all nodes as committed now.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        rows = await self.fetch_range(*nodes_range(), timeout_s)
        return [row for row in rows if isinstance(row, NodeRow)]

    async def refresh_table(self, name: str) -> TableRow | None:
        """Bring a table and its partitions up to date by reading group 0; concurrent calls share one read.

        Returns:
            The table's row, None if there is no such table.

        Raises:
            CatalogUnavailable: No answer in time.
        """
        task = self._refreshes.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._refresh(name))
            self._refreshes[name] = task
            task.add_done_callback(lambda _: self._refreshes.pop(name, None))
        found = await asyncio.shield(task)
        if isinstance(found, CatalogUnavailable):
            raise found
        return found

    async def _refresh(self, name: str) -> TableRow | CatalogUnavailable | None:
        """Returns how the catalog fails: raised in a task that all who asked have left it would look like a bug."""
        try:
            table = await self.fetch_table(name)
            if table is None:
                return None
            known = self.view.partitions(table.table_id)
            found = {row_key(row): row for row in await self.fetch_partitions(table.table_id)}
        except CatalogUnavailable as error:
            return error
        for row in known:
            if row_key(row) not in found:
                self._learn_absence(row_key(row), row)
        self._changed([self.view.apply(key, row) for key, row in found.items()])
        return table

    # --- writing ---

    async def write(self, rows: Sequence[RowWrite], timeout_s: float = WRITE_TIMEOUT_S) -> None:
        """Write all rows or none; afterwards the copy has them.

        Raises:
            WriteConflict: A condition did not hold; nothing was written.
            WriteOutcomeUnknown: Nobody knows.
            CatalogUnavailable: Not written.
        """
        request = Write(
            0, CATALOG_GROUP, self._client.next_request_id(), [row.action for row in rows]
        )
        removed: dict[bytes, Row] = {}
        self._removed_meanwhile.append(removed)
        try:
            await self._ask(request, timeout_s)
        finally:
            # By identity: those of other writes are equal to it while nothing was removed.
            self._removed_meanwhile = [m for m in self._removed_meanwhile if m is not removed]
        # The answer can be later than the feed: a row that it has shown to be gone again stays gone.
        self._changed(
            [
                self.view.apply(write.action.key, write.row)
                for write in rows
                if not (write.is_check or _is_gone(write.row, removed.get(write.action.key)))
            ]
        )

    # --- inside ---

    async def _ask(self, request: GroupRequest, timeout_s: float) -> Answer:
        answer = await self._client.request(request, timeout_s)
        match answer:
            case Written() | Value() | Page() | FeedPage():
                return answer
            case Refused() if answer.code in _CONFLICTS:
                failed = [
                    place for place, reason in enumerate(answer.reasons) if reason.code != "None"
                ]
                raise WriteConflict(failed)
            case Refused():
                raise error_for_code(answer.code, answer.message)
            case OutcomeUnknown():
                raise WriteOutcomeUnknown(answer.reason)
            case Unavailable():
                raise CatalogUnavailable(answer.reason)
            case WrongPartition():
                raise CatalogUnavailable("the catalog is not where it was")
            case _:
                raise AssertionError(f"unexpected answer {type(answer).__name__}")

    async def _follow(self) -> None:
        """Load, follow the feed, and do it again whenever that ends."""
        failures = 0
        while True:
            try:
                await self._load()
                while True:
                    failures = 0
                    self._is_current = True
                    if not await self._follow_page():
                        log.info("catalog feed was trimmed: loading the catalog anew")
                        break
            except CatalogUnavailable as error:
                self._is_current = False
                if failures == 0:
                    log.warning("catalog is away", extra={"reason": str(error)})
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
            except Exception:
                self._is_current = False
                log.exception("catalog could not be followed")
                await asyncio.sleep(BACKOFF_S[-1])

    async def _load(self) -> None:
        """Load everything, unless the feed can go on from where it was."""
        if self._followed_at_position is not None:
            return
        # The position first: what changes while the rows are read is then read twice, never missed.
        feed = await self._ask(ReadFeed(0, CATALOG_GROUP, NOWHERE, 1, 0), READ_TIMEOUT_S)
        assert isinstance(feed, FeedPage)
        rows = await self.fetch_range(*ROWS_RANGE, LOAD_TIMEOUT_S)
        self._followed_at_position = feed.position
        self._changed(self.view.replace_all(rows))
        if not self._is_ready.is_set():
            log.info("catalog loaded", extra={"rows": len(rows), "position": feed.position})
            self._is_ready.set()

    async def _follow_page(self) -> bool:
        """Take what the feed has next, or wait for it; False when it was trimmed."""
        position = self._followed_at_position
        assert position is not None
        self._client.rediscover()  # its replicas may have moved; those left tell nobody
        request = ReadFeed(0, CATALOG_GROUP, position, FEED_RECORDS, FEED_WAIT_MS)
        page = await self._ask(request, FEED_TIMEOUT_S)
        assert isinstance(page, FeedPage)
        if page.trimmed:
            self._followed_at_position = None
            return False
        self._changed([self._apply_record(record) for record in page.records])
        self._followed_at_position = max(position, page.position)
        return True

    def _apply_record(self, record: FeedRecord) -> RowChange | None:
        try:
            if record.new is not None:
                row = parse_row(decode_item(record.new))
                return None if row is None else self.view.apply(record.key, row)
            removed = None if record.old is None else parse_row(decode_item(record.old))
        except BadRow:
            log.exception("catalog row is damaged")
            return None
        if removed is not None:
            for gone in self._removed_meanwhile:
                gone[record.key] = removed
        return self.view.apply_removal(record.key, removed)

    def _parsed(self, items: Iterable[dict[str, dict[str, object]]]) -> list[Row]:
        rows = []
        for item in items:
            try:
                row = parse_row(item)
            except BadRow:
                # One damaged row must not take the others with it; whoever needs this one will miss it.
                log.exception("catalog row is damaged")
                continue
            if row is not None:
                rows.append(row)
        return rows

    def _changed(self, found: Iterable[RowChange | None]) -> None:
        changes = [change for change in found if change is not None]
        if not changes:
            return
        self._tell_where_groups_are(changes)
        for listener in list(self._listeners):
            try:
                listener(changes)
            except Exception:
                log.exception("catalog listener failed")
        for holds, future in list(self._waits):
            if future.done():
                continue
            try:
                if holds(self.view):
                    future.set_result(None)
            except Exception as error:  # noqa: BLE001 - whoever waits gets it, nobody else
                future.set_exception(error)

    def _tell_where_groups_are(self, changes: Sequence[RowChange]) -> None:
        moved_nodes: set[str] = set()
        groups: dict[int, Sequence[ReplicaAddress]] = {}
        removed: set[int] = set()
        for change in changes:
            row = change.new if change.new is not None else change.old
            if isinstance(row, PartitionRow):
                if change.new is None:
                    removed.add(row.group)
                else:
                    groups[row.group] = self.view.addresses(row)
            elif isinstance(row, NodeRow):
                moved_nodes.add(row.node_id)
        if moved_nodes:
            for partition in self.view.groups():
                if any(replica.node_id in moved_nodes for replica in partition.replicas):
                    groups[partition.group] = self.view.addresses(partition)
        groups.pop(CATALOG_GROUP, None)  # its replicas are discovered, not looked up in itself
        if groups or removed:
            self._client.update_groups(groups, removed - groups.keys())
