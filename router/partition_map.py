"""Which partition group owns a key: one immutable entry per table that serves items, made from the catalog.

The entries follow the process's copy of the catalog (`proto.catalog_client`), and so go on serving what is
known when the catalog cannot be reached. Finding an entry is one dictionary look-up, finding a group one
bisection.

Look-ups: a table that has no entry is asked for in the catalog itself before it is said not to exist; when a
partition answers `WrongPartition` its table is fetched anew. Both are shared by all requests that wait for the
same table, and neither is repeated more often than every `RETRY_INTERVAL_S`.
"""

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from datamodel.catalog_rows import PartitionRow, TableRow
from datamodel.errors import DynamoDBError, ResourceNotFoundError, ServiceUnavailableError
from datamodel.expressions import check_scalar_keys
from datamodel.key_encoding import table_range
from datamodel.local_indexes import LocalIndex
from datamodel.table_descriptions import TableDescription
from proto.catalog_client import CatalogUnavailable
from proto.catalog_view import CatalogView, RowChange
from proto.messages import LocalIndexRule
from router.metrics import RouterMetrics, TableUsage

log = logging.getLogger(__name__)

RETRY_INTERVAL_S = 0.1
LOOK_UP_TIMEOUT_S = 3.0
# Tables being looked up at a time; past that requests for further ones are told to try again.
LOOK_UPS_MAX = 100
# Names whose last look-up is remembered; when there are more, all are forgotten.
LOOKED_UP_NAMES_MAX = 10_000

OnTable: TypeAlias = Callable[["TableEntry | DynamoDBError"], None]


class TableEntry:
    """A table that serves items, and its partitions in key order. Immutable.

    Attributes:
        description: The table.
        schema: Its key schema.
        table_id: Its number in keyspace keys.
        name: Its name.
        usage: Where its consumed capacity is counted.
        partitions: Its partitions in key order; together they cover the table.
        local_indexes: Its local indexes, as every write to it must carry them.
        index_keys: Names of the sort keys of those.
    """

    __slots__ = (
        "_bounds",
        "_groups",
        "description",
        "index_keys",
        "local_indexes",
        "name",
        "partitions",
        "schema",
        "table_id",
        "usage",
    )

    def __init__(
        self, description: TableDescription, partitions: Sequence[PartitionRow], usage: TableUsage
    ) -> None:
        self.description = description
        self.schema = description.key_schema
        self.table_id = description.table_id
        self.name = description.name
        self.usage = usage
        self.local_indexes = [
            LocalIndexRule(number, index.name, index.sort_name, index.sort_type, projected)
            for number, index, projected in _projections(description)
        ]
        self.index_keys = frozenset(index.sort_name for index in description.local_indexes)
        self.partitions = tuple(partitions)
        assert self.partitions, "a table has at least one partition"
        self._groups = tuple(partition.group for partition in partitions)
        self._bounds = [partition.start for partition in partitions[1:]]

    def group_of(self, key: bytes) -> int:
        """The group that owns a keyspace key of this table."""
        if not self._bounds:
            return self._groups[0]
        return self._groups[bisect_right(self._bounds, key)]

    def partition_of(self, key: bytes) -> PartitionRow:
        """The partition that owns a keyspace key of this table."""
        return self.partitions[bisect_right(self._bounds, key)]

    def check_scalar_keys(self, nested_attributes: Collection[str]) -> None:
        """Check that an expression looks into no key attribute of the table or of an index.

        Raises:
            ValidationError: It does.
        """
        check_scalar_keys(nested_attributes, self.schema.names)
        check_scalar_keys(nested_attributes, self.index_keys, "IndexKey")

    def partition_before(self, key: bytes) -> PartitionRow:
        """The partition that owns the keys just below `key`, which is above the table's first."""
        partition = self.partition_of(key)
        if partition.start < key:
            return partition
        return self.partitions[self.partitions.index(partition) - 1]


def _projections(
    table: TableDescription,
) -> Iterator[tuple[int, LocalIndex, list[str] | None]]:
    for number, index in enumerate(table.local_indexes, 1):
        projected = index.projected(table.key_schema)
        yield number, index, None if projected is None else sorted(projected)


class Catalog(Protocol):
    """What is needed of `proto.catalog_client.CatalogClient`."""

    @property
    def view(self) -> CatalogView:
        """The copy of the catalog."""

    def subscribe(self, listener: Callable[[list[RowChange]], None]) -> Callable[[], None]:
        """Call `listener` after each change of the copy."""

    async def refresh_table(self, name: str) -> TableRow | None:
        """Bring a table and its partitions in the copy up to date by a strong read."""


class PartitionMap:
    """The map. All methods on the loop's thread."""

    def __init__(
        self,
        catalog: Catalog,
        metrics: RouterMetrics,
        now: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """Create the map of what `catalog` has already, and follow it from here on.

        Args:
            catalog: The copy of the catalog, and look-ups behind it.
            metrics: Gives each table its usage counters.
            now: Monotonic seconds.
            spawn: Runs a look-up in the background.
        """
        self._catalog = catalog
        self._metrics = metrics
        self._now = now
        self._spawn = spawn
        self._entries: dict[str, TableEntry] = {}
        self._waiting: dict[str, list[OnTable]] = {}  # by the name that is being looked up
        self._looked_up: dict[str, float] = {}  # when the last look-up of a name ended
        # What the hot path calls: the entry of a table by its name, None if it serves no items.
        self.get: Callable[[str], TableEntry | None] = self._entries.get
        catalog.subscribe(self._changed)
        for name in catalog.view.tables:
            self._publish(name)

    # --- following the catalog ---

    def _changed(self, changes: Sequence[RowChange]) -> None:
        tables = self._catalog.view.tables_by_id
        names: set[str] = set()
        for change in changes:
            for row in (change.old, change.new):
                if isinstance(row, TableDescription):
                    names.add(row.name)
                elif isinstance(row, PartitionRow) and row.table_id in tables:
                    names.add(tables[row.table_id].name)
        for name in names:
            self._publish(name)

    def _publish(self, name: str) -> None:
        """Renew the entry of a table."""
        view = self._catalog.view
        row = view.tables.get(name)
        old = self._entries.get(name)
        if row is None or not row.serves_items:
            self._entries.pop(name, None)
            return
        partitions = view.partitions(row.table_id)
        if not partitions.is_whole(*table_range(row.table_id)):
            # Half of a change has arrived, the other is under way: what was true before serves until then.
            if old is not None and old.table_id != row.table_id:
                del self._entries[name]
            return
        if old is None or old.description != row or old.partitions != partitions.rows:
            self._entries[name] = TableEntry(row, partitions.rows, self._metrics.table(name))

    # --- look-ups ---

    def look_up(self, name: str, then: OnTable) -> None:
        """Find a table that is not in the map; `then` takes its entry, or why there is none.

        ResourceNotFoundError only if the catalog says so (now or within `RETRY_INTERVAL_S`);
        ServiceUnavailableError if it cannot be asked.
        """
        entry = self._entries.get(name)
        if entry is not None:
            then(entry)
        elif name not in self._waiting and self._is_recent(name):
            then(ResourceNotFoundError())
        else:
            self._wait_for(name, then)

    def refresh(self, stale: TableEntry, then: OnTable) -> None:
        """Fetch a table anew of which a storage node said that the map is wrong.

        Calls back at once if the map has become another meanwhile; otherwise after a look-up, which may find
        nothing new: the caller asks its partition again, and here again, until its deadline.
        """
        entry = self._entries.get(stale.name)
        if entry is not None and entry is not stale:
            then(entry)
        else:
            self._wait_for(stale.name, then)

    def _is_recent(self, name: str) -> bool:
        ended = self._looked_up.get(name)
        return ended is not None and self._now() - ended < RETRY_INTERVAL_S

    def _wait_for(self, name: str, then: OnTable) -> None:
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append(then)
        elif len(self._waiting) >= LOOK_UPS_MAX:
            then(ServiceUnavailableError())
        else:
            self._waiting[name] = [then]
            self._spawn(self._look_up(name))

    async def _look_up(self, name: str) -> None:
        failure: DynamoDBError = ResourceNotFoundError()
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                ended = self._looked_up.get(name)
                if ended is not None:
                    await asyncio.sleep(max(0.0, ended + RETRY_INTERVAL_S - self._now()))
                await self._catalog.refresh_table(name)
        except (CatalogUnavailable, TimeoutError) as error:
            log.warning("table look-up failed", extra={"table": name, "reason": str(error)})
            failure = ServiceUnavailableError()
        except Exception:  # the root of this task: those who wait must hear of it
            log.exception("table look-up failed", extra={"table": name})
            failure = ServiceUnavailableError()
        else:
            if len(self._looked_up) >= LOOKED_UP_NAMES_MAX:
                self._looked_up.clear()
            self._looked_up[name] = self._now()
        # Without a word from the catalog what was known stays true.
        entry = self._entries.get(name)
        for then in self._waiting.pop(name):
            then(failure if entry is None else entry)
